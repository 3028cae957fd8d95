"""Renders the part of Kustomize that deploy/kubernetes uses, for machines whose kubectl is too old for it.

Fields it does not know are an error, never ignored. Where kubectl has Kustomize 5, manifests.py renders with
both and compares, so that this copy cannot drift.
"""
import copy
import pathlib
import re
import shutil
import subprocess

import yaml

KNOWN = {"apiVersion", "kind", "resources", "components", "namespace", "labels", "images", "patches"}
CLUSTER_KINDS = {"Namespace"}
# Lists that strategic merge patches merge by a key; all others are replaced.
MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "volumeMounts": "mountPath", "env": "name",
              "ports": "containerPort"}


def kubectl_works():
    """True if there is a kubectl whose Kustomize knows components and labels."""
    if not shutil.which("kubectl"):
        return False
    out = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Kustomize Version: v(\d+)", out)
    return found is not None and int(found[1]) >= 5


def kubectl_render(folder):
    out = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    return [doc for doc in yaml.safe_load_all(out) if doc]


def render(folder):
    """The documents of a kustomization folder."""
    return _apply(pathlib.Path(folder), [])


def _apply(folder, docs):
    spec = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(spec) - KNOWN
    if unknown:
        raise ValueError(f"{folder}: this renderer does not know {sorted(unknown)}")
    for name in spec.get("resources", []):
        path = folder / name
        docs = docs + (render(path) if path.is_dir() else [d for d in yaml.safe_load_all(path.read_text()) if d])
    for name in spec.get("components", []):
        docs = _apply((folder / name).resolve(), docs)
    for patch in spec.get("patches", []):
        _patch(folder, patch, docs)
    for doc in docs:
        if "namespace" in spec:
            _set_namespace(doc, spec["namespace"])
        for label in spec.get("labels", []):
            _label(doc, label)
        for image in spec.get("images", []):
            _image(doc, image)
    return docs


def _patch(folder, patch, docs):
    text = (folder / patch["path"]).read_text() if "path" in patch else patch["patch"]
    body = yaml.safe_load(text)
    if isinstance(body, list):  # JSON 6902
        wanted = patch["target"]
        hit = [d for d in docs if d["kind"] == wanted["kind"] and d["metadata"]["name"] == wanted.get("name", d["metadata"]["name"])]
        for doc in hit:
            for step in body:
                _json_patch(doc, step)
    else:
        hit = [d for d in docs if (d["kind"], d["metadata"]["name"]) == (body["kind"], body["metadata"]["name"])]
        for doc in hit:
            _merge(doc, body)
    if not hit:
        raise ValueError(f"{folder}: a patch hits nothing")


def _json_patch(doc, step):
    keys = [k.replace("~1", "/").replace("~0", "~") for k in step["path"].split("/")[1:]]
    node = doc
    for key in keys[:-1]:
        node = node[int(key)] if isinstance(node, list) else node[key]
    last = keys[-1]
    if isinstance(node, list) and step["op"] == "add":
        node.insert(len(node) if last == "-" else int(last), copy.deepcopy(step["value"]))
    elif step["op"] == "remove":
        del node[int(last) if isinstance(node, list) else last]
    elif step["op"] in ("add", "replace"):
        if step["op"] == "replace" and not isinstance(node, list) and last not in node:
            raise ValueError(f"replace of {step['path']}: not there")
        node[int(last) if isinstance(node, list) else last] = copy.deepcopy(step["value"])
    else:
        raise ValueError(f"unknown op {step['op']}")


def _merge(node, patch):
    for key, value in patch.items():
        if value is None:
            node.pop(key, None)
        elif isinstance(value, dict) and isinstance(node.get(key), dict):
            _merge(node[key], value)
        elif isinstance(value, list) and key in MERGE_KEYS and isinstance(node.get(key), list):
            _merge_list(node[key], value, MERGE_KEYS[key])
        else:
            node[key] = copy.deepcopy(value)


def _merge_list(items, patches, by):
    for patch in patches:
        found = next((item for item in items if item.get(by) == patch.get(by)), None)
        if found is not None:
            _merge(found, patch)
        else:
            items.insert(0, copy.deepcopy(patch))  # Kustomize puts new entries first


def _set_namespace(doc, namespace):
    if doc["kind"] == "Namespace":
        doc["metadata"]["name"] = namespace
    if doc["kind"] not in CLUSTER_KINDS:
        doc["metadata"]["namespace"] = namespace


def _label(doc, label):
    unknown = set(label) - {"pairs", "includeSelectors"}
    if unknown:
        raise ValueError(f"labels: this renderer does not know {sorted(unknown)}")
    pairs = label["pairs"]
    doc["metadata"].setdefault("labels", {}).update(pairs)
    if not label.get("includeSelectors"):
        return
    spec = doc.get("spec", {})
    if doc["kind"] == "Service":
        spec.setdefault("selector", {}).update(pairs)
    elif doc["kind"] == "Deployment":
        spec.setdefault("selector", {}).setdefault("matchLabels", {}).update(pairs)
        template = spec["template"]
        template.setdefault("metadata", {}).setdefault("labels", {}).update(pairs)
        for spread in template["spec"].get("topologySpreadConstraints", []):
            spread["labelSelector"]["matchLabels"].update(pairs)
    elif doc["kind"] == "PodDisruptionBudget":
        spec["selector"]["matchLabels"].update(pairs)
    elif doc["kind"] == "NetworkPolicy":
        spec["podSelector"].setdefault("matchLabels", {}).update(pairs)


def _image(doc, image):
    for container in doc.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
