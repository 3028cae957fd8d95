#!/usr/bin/env python3
"""Renders every Kubernetes overlay and checks what an operator must be able to rely on.

Usage: manifests.py [--self-test] [--bin DIR]. Needs python3-yaml only: overlays are rendered by kustomize.py, and by kubectl
as well where one with Kustomize 5 is installed; the two must agree. --bin names the folder of the built programs: then every
flag in the manifests must be one that the program knows. --self-test spoils a rendered overlay in many ways and expects
each to be found. Prints one line a violation, exits 1 if there is any.
"""
import argparse
import copy
import pathlib
import re
import subprocess
import sys

import kubernetes_schema
import kustomize

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERLAYS = sorted(p.parent for p in (ROOT / "deploy/kubernetes/overlays").glob("*/kustomization.yaml"))
PRESTOP_SECONDS, MARGIN_SECONDS = 15, 30
PROGRAMS = {"server": "videonsa-server", "front": "videonsa-openai"}  # container -> program
# Kinds whose schema is not the API's own, and what each must hold.
CRDS = {"Gateway": "listeners", "GRPCRoute": "rules", "PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}


def by_name(docs):
    return sorted(docs, key=lambda d: (d["kind"], d["metadata"]["name"]))


def render(overlay):
    docs = kustomize.render(overlay)
    if kustomize.kubectl_works() and by_name(docs) != by_name(kustomize.kubectl_render(overlay)):
        raise AssertionError(f"{overlay.name}: kustomize.py and kubectl render different documents")
    return docs


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m|)", text).groups()
    return int(number) * (60 if unit == "m" else 1)


def check_probes(where, container):
    ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
    wanted = {"startupProbe": ("readiness", "/livez"), "readinessProbe": ("readiness", "/healthz"), "livenessProbe": ("liveness", "/livez")}
    for probe, (service, path) in wanted.items():
        asked = container.get(probe)
        if asked is None:
            yield f"{where}: no {probe}"
        elif "health" in ports:
            if asked.get("grpc", {}).get("service") != service:
                yield f"{where}: {probe} does not ask {service}"
            if asked.get("grpc", {}).get("port") != ports["health"]:
                yield f"{where}: {probe} does not use the health port"
        elif asked.get("httpGet", {}).get("path") != path or asked["httpGet"].get("port") not in ports:
            yield f"{where}: {probe} does not get {path}"


def check_admin(where, container):
    for argument in container.get("args", []):
        name, _, address = argument.partition("=")
        if name == "--admin-listen" and not address.startswith(("127.0.0.1:", "unix:")):
            yield f"{where}: the admin port is reachable from outside the pod"


def check_drain(where, container, pod):
    drain = [seconds(a.split("=")[1]) for a in container.get("args", []) if a.startswith("--drain-timeout=")]
    longest = [seconds(a.split("=")[1]) for a in container.get("args", []) if a.startswith("--max-deadline=")]
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    if command != ["/bin/sleep", str(PRESTOP_SECONDS)]:
        # SIGTERM drains. A hook that calls the admin port fails wherever an access file asks for a token.
        yield f"{where}: preStop is not a sleep of {PRESTOP_SECONDS} s"
    if not drain:
        yield f"{where}: no --drain-timeout"
    elif pod.get("terminationGracePeriodSeconds", 30) < PRESTOP_SECONDS + drain[0] + MARGIN_SECONDS:
        yield f"{where}: grace shorter than preStop, drain and margin"
    elif longest and drain[0] < longest[0]:
        yield f"{where}: drains shorter than the longest question"


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
    yield from check_probes(where, container)
    yield from check_drain(where, container, pod)
    yield from check_admin(where, container)
    image = container.get("image", "")
    if ":" not in image or image.endswith(":latest"):
        yield f"{where}: image {image} not pinned"
    mounts = {m["name"] for m in container.get("volumeMounts", [])}
    volumes = {v["name"] for v in pod.get("volumes", [])}
    if mounts - volumes:
        yield f"{where}: mounts without volume {sorted(mounts - volumes)}"
    if container["name"] not in PROGRAMS:
        yield f"{where}: a container that no check knows"


def check_deployment(name, doc):
    pod = doc["spec"]["template"]["spec"]
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("runAsUser", 0) == 0:
        yield f"{name}: runs as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{name}: no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{name}: service account token mounted"
    if pod.get("hostNetwork") or pod.get("hostPID") or pod.get("hostIPC"):
        yield f"{name}: shares a namespace of the node"
    for volume in pod.get("volumes", []):
        if "hostPath" in volume:
            yield f"{name}: volume {volume['name']} is a path of the node"
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"{name}: volume {volume['name']} has no size limit"
    for container in pod["containers"]:
        yield from check_container(f"{name}/{container['name']}", container, pod)


def check(docs):
    kinds = [d["kind"] for d in docs]
    for doc in docs:
        if not kubernetes_schema.is_known(doc) and not doc.get("spec", {}).get(CRDS.get(doc["kind"], "")):
            yield f"{doc['kind']}: unknown kind, or without {CRDS.get(doc['kind'])}"
        yield from kubernetes_schema.problems(doc)
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
        services = [d["metadata"].get("labels", {}).items() for d in docs if d["kind"] == "Service"]
        among = services if doc["kind"] == "ServiceMonitor" else labels
        if wanted and not any(set(wanted.items()) <= set(have) for have in among):
            yield f"{doc['kind']}/{doc['metadata']['name']}: selects nothing"


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
    yield edit([*pod, "securityContext", "seccompProfile"], None)
    yield edit([*pod, "automountServiceAccountToken"], True)
    yield edit([*pod, "terminationGracePeriodSeconds"], 60)
    yield edit([*pod, "hostNetwork"], True)
    yield edit([*pod, "volumes", 0], {"name": "clips", "hostPath": {"path": "/"}})
    yield edit([*pod, "volumes", 1, "emptyDir"], {})
    yield edit([*box, "resources", "limits"], None)
    yield edit([*box, "resources", "limits", "memory"], "99Gi")
    yield edit([*box, "resources", "requests", "cpu"], None)
    yield edit([*box, "livenessProbe"], None)
    yield edit([*box, "readinessProbe"], None)
    yield edit([*box, "startupProbe"], None)
    yield edit([*box, "readinessProbe", "grpc", "port"], 8090)
    yield edit([*box, "livenessProbe", "grpc", "service"], "readiness")
    yield edit([*box, "image"], "videonsa-server:latest")
    yield edit([*box, "image"], "videonsa-server")
    yield edit([*box, "securityContext", "readOnlyRootFilesystem"], False)
    yield edit([*box, "securityContext", "allowPrivilegeEscalation"], None)
    yield edit([*box, "securityContext", "capabilities"], None)
    yield edit([*box, "lifecycle"], None)
    yield edit([*box, "lifecycle", "preStop", "exec", "command"], ["/usr/bin/videonsa", "drain", "--server", "127.0.0.1:8091"])
    yield edit([*box, "lifecycle", "preStop", "exec", "command"], ["/bin/sleep", "1"])
    yield edit([*box, "volumeMounts", 0, "name"], "nothing")
    yield edit([*box, "name"], "sidecar")
    yield edit([*box, "args"], ["--listen=0.0.0.0:8090"])
    yield edit([*box, "args"], ["--admin-listen=0.0.0.0:8091", "--max-deadline=600", "--drain-timeout=600"])
    yield edit([*box, "livenessprobe"], {})
    yield edit([*box, "ports", 0, "containerPort"], "8090")
    yield edit([*pod, "containers", 0, "resources", "limits", "cpu"], [8])
    yield edit(["spec", "template", "metadata", "labels"], {"other": "pod"})
    yield edit(["spec", "selector"], None)


def known_flags(program):
    text = subprocess.run([str(program), "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z0-9-]*", text))


def check_flags(docs, bin_dir):
    """Flags that a program would refuse."""
    for doc in docs:
        for container in doc.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []) if doc["kind"] == "Deployment" else []:
            program = PROGRAMS[container["name"]]
            known = known_flags(bin_dir / program)
            for argument in container.get("args", []):
                if argument.split("=")[0] not in known:
                    yield f"{doc['metadata']['name']}: {program} does not know {argument}"
            if program == "videonsa-openai":
                # It listens at once and reaches for the server later, so a start is the check.
                yield from check_values(bin_dir / program, container["args"], doc["metadata"]["name"])


def check_values(program, arguments, name):
    """Starts the program as the manifest does, but on a free port of the loopback."""
    words = [re.sub(r"^--listen=.*", "--listen=127.0.0.1:0", a) for a in arguments]
    with subprocess.Popen([str(program), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.terminate()
        _, errors = process.communicate(timeout=30)
    if "ready on" not in line:
        yield f"{name}: does not start: {errors.strip()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--bin", type=pathlib.Path)
    args = parser.parse_args()
    if args.self_test:
        cases = list(spoiled(render(OVERLAYS[0])))
        missed = [what for what, bad in cases if not list(check(bad))]
        print(f"not found: {missed}" if missed else f"every one of {len(cases)} spoiled manifests was found")
        return 1 if missed else 0
    problems = []
    for overlay in OVERLAYS:
        docs = render(overlay)
        problems += [f"{overlay.name}: {p}" for p in check(docs)]
        problems += [f"{overlay.name}: {p}" for p in check_flags(docs, args.bin)] if args.bin else []
    by = "kustomize.py and kubectl" if kustomize.kubectl_works() else "kustomize.py"
    print("\n".join(problems) if problems else f"manifests: {len(OVERLAYS)} overlays hold, rendered by {by}")
    return 1 if problems or not OVERLAYS else 0


if __name__ == "__main__":
    sys.exit(main())
