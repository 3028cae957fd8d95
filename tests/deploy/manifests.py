#!/usr/bin/env python3
"""Renders every Kubernetes overlay and checks what an operator must be able to rely on.

Needs kubectl (Kustomize 5 inside) and python3-yaml. `manifests.py --self-test` spoils a rendered overlay in
many ways and expects each to be found. Prints one line a violation, exits 1 if there is any.
"""
import copy
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERLAYS = sorted(p.parent for p in (ROOT / "deploy/kubernetes/overlays").glob("*/kustomization.yaml"))
PRESTOP_SECONDS, DRAIN_SECONDS = 15, 120
KINDS = {"Namespace", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "Gateway", "GRPCRoute", "PodMonitor",
         "HorizontalPodAutoscaler"}


def render(overlay):
    out = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=True).stdout
    return [doc for doc in yaml.safe_load_all(out) if doc]


def check_container(where, container, pod):
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        for name in ("cpu", "memory", "ephemeral-storage"):
            if name not in resources.get(kind, {}):
                yield f"{where}: no {kind}.{name}"
    if resources.get("requests", {}).get("memory") != resources.get("limits", {}).get("memory"):
        yield f"{where}: memory request differs from limit"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: privilege escalation allowed"
    if security.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: root file system writable"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{where}: capabilities kept"
    ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
    for probe, service in (("startupProbe", "readiness"), ("readinessProbe", "readiness"), ("livenessProbe", "liveness")):
        grpc = container.get(probe, {}).get("grpc", {})
        if grpc.get("service") != service:
            yield f"{where}: {probe} does not ask {service}"
        if grpc.get("port") != ports.get("admin"):
            yield f"{where}: {probe} does not use the admin port"
    image = container.get("image", "")
    if ":" not in image or image.endswith(":latest"):
        yield f"{where}: image {image} not pinned"
    mounts = {m["name"] for m in container.get("volumeMounts", [])}
    volumes = {v["name"] for v in pod.get("volumes", [])}
    if mounts - volumes:
        yield f"{where}: mounts without volume {sorted(mounts - volumes)}"
    if "preStop" not in container.get("lifecycle", {}):
        yield f"{where}: no preStop"


def check_deployment(name, doc):
    pod = doc["spec"]["template"]["spec"]
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("runAsUser", 0) == 0:
        yield f"{name}: runs as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{name}: no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{name}: service account token mounted"
    if pod.get("terminationGracePeriodSeconds", 30) <= PRESTOP_SECONDS + DRAIN_SECONDS:
        yield f"{name}: grace shorter than preStop and drain"
    for container in pod["containers"]:
        yield from check_container(f"{name}/{container['name']}", container, pod)


def check(docs):
    kinds = [d["kind"] for d in docs]
    for kind in sorted(set(kinds) - KINDS):
        yield f"unknown kind {kind}"
    for needed in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"):
        if needed not in kinds:
            yield f"no {needed}"
    labels = set()
    for doc in docs:
        name = f"{doc['kind']}/{doc['metadata']['name']}"
        if doc["kind"] == "Namespace":
            if doc["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
                yield f"{name}: pod security not restricted"
        elif doc["metadata"].get("namespace") != "videonsa":
            yield f"{name}: not in namespace videonsa"
        if doc["kind"] == "Deployment":
            labels.add(tuple(sorted(doc["spec"]["template"]["metadata"]["labels"].items())))
            yield from check_deployment(name, doc)
    for doc in docs:
        selector = doc.get("spec", {}).get("selector", {})
        wanted = selector.get("matchLabels", selector if doc["kind"] == "Service" else {})
        if wanted and not any(set(wanted.items()) <= set(have) for have in labels):
            yield f"{doc['kind']}/{doc['metadata']['name']}: selects no pod"


def spoiled(docs):
    """Yields copies of `docs` with one thing broken each."""
    def edit(path, value):
        bad = copy.deepcopy(docs)
        node = next(d for d in bad if d["kind"] == "Deployment")
        for key in path[:-1]:
            node = node[key]
        if value is None:
            del node[path[-1]]
        else:
            node[path[-1]] = value
        return ".".join(map(str, path)), bad
    pod = ["spec", "template", "spec"]
    box = [*pod, "containers", 0]
    yield edit([*pod, "securityContext", "runAsUser"], 0)
    yield edit([*pod, "securityContext", "runAsNonRoot"], None)
    yield edit([*pod, "terminationGracePeriodSeconds"], 60)
    yield edit([*box, "resources", "limits"], None)
    yield edit([*box, "resources", "limits", "memory"], "99Gi")
    yield edit([*box, "livenessProbe"], None)
    yield edit([*box, "readinessProbe", "grpc", "port"], 8090)
    yield edit([*box, "image"], "videonsa-server:latest")
    yield edit([*box, "securityContext", "readOnlyRootFilesystem"], False)
    yield edit([*box, "securityContext", "capabilities"], None)
    yield edit([*box, "lifecycle"], None)
    yield edit(["spec", "template", "metadata", "labels"], {"other": "pod"})


def main():
    if "--self-test" in sys.argv:
        missed = [what for what, bad in spoiled(render(OVERLAYS[0])) if not list(check(bad))]
        print(f"not found: {missed}" if missed else "every spoiled manifest was found")
        return 1 if missed else 0
    problems = [f"{overlay.name}: {p}" for overlay in OVERLAYS for p in check(render(overlay))]
    print("\n".join(problems) if problems else f"manifests: {len(OVERLAYS)} overlays hold")
    return 1 if problems or not OVERLAYS else 0


if __name__ == "__main__":
    sys.exit(main())
