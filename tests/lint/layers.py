#!/usr/bin/env python3
"""Checks who includes whom: the table of runtime/README.md, no cycles, no forbidden library.

Usage: layers.py [ROOT]. Prints one line a violation, exits 1 if there is any.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
PARAMS = "PARAMS"  # kernels/<any>/*_params.h, kernels/attention/paged_kv.h, kernels/common/dtype.h

# folder -> folders it may include besides itself
CUDA_KERNELS = ["kernels/nsa", "kernels/attention", "kernels/vision", "kernels/elementwise", "kernels/sampling"]
ALLOWED = {
    "kernels/common": [],
    **{folder: ["kernels/common", PARAMS] for folder in CUDA_KERNELS},
    "kernels/nsa": ["kernels/common", "kernels/attention", PARAMS],  # its branches are attention over pages
    "kernels/cpu": ["kernels/common", PARAMS],
    "kernels/reference": ["kernels/common", PARAMS],
    "runtime/base": [],
    "runtime/api": ["runtime/base"],
    "runtime/telemetry": ["runtime/base"],
    "runtime/device": ["runtime/base", "kernels/common"],
    "runtime/ops": ["runtime/base", "runtime/api", "runtime/device", "kernels/common", "kernels/cpu", "kernels/reference", *CUDA_KERNELS],
    "runtime/kv": ["runtime/base"],
    "runtime/step": ["runtime/base", "runtime/api"],
    "runtime/media": ["runtime/base", "runtime/api", "runtime/telemetry", "runtime/step", "kernels/cpu", "kernels/common"],
    "runtime/text": ["runtime/base", "runtime/api", "runtime/step"],
    "runtime/engine": ["runtime/base", "runtime/api", "runtime/telemetry", "runtime/kv", "runtime/step"],
    "runtime/model": ["runtime/base", "runtime/device", "runtime/ops", "runtime/api", "kernels/common"],
    "runtime/executor": ["runtime/base", "runtime/api", "runtime/telemetry", "runtime/device", "runtime/ops", "runtime/model",
                         "runtime/step", "kernels/common", PARAMS],
    "runtime/serving": ["runtime/base", "runtime/api", "runtime/telemetry", "runtime/media", "runtime/text", "runtime/step",
                        "runtime/kv", "runtime/engine"],
    "server": ["runtime/base", "runtime/api", "runtime/telemetry", "runtime/serving"],
    "client": [],
}
# exceptions by header: the executor is known to serving only through its factory
EXTRA = {"runtime/serving": ["runtime/executor/executor_factory.h"]}
# library headers that only these folders may see
LIBRARIES = {
    r"^(grpc|grpcpp|google/protobuf)/|\.pb\.h$": ["server", "client", "proto"],
    r"^(cuda|cublas|nccl)": ["kernels/common", *CUDA_KERNELS, "runtime/device", "runtime/ops"],
    r"^libav|^libsw": ["runtime/media"],
    r"^curl/": ["runtime/media", "server"],
    r"^(dnnl|oneapi/dnnl)": ["kernels/cpu", "runtime/ops"],
    r"^absl/": ["runtime", "server", "client", "proto"],
    r"^prometheus/": ["runtime/telemetry", "server"],
    r"^httplib\.h$": ["client"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)
SOURCES = {".h", ".cc", ".cu", ".cuh", ".inc"}


def folder_of(path):
    parts = path.split("/")
    if parts[0] in ("runtime", "kernels"):
        return "/".join(parts[:2])
    return parts[0]


def is_params(target):
    return (re.fullmatch(r"kernels/\w+/\w*_params\.h", target) is not None
            or target in ("kernels/attention/paged_kv.h", "kernels/common/dtype.h"))


def may(folder, target):
    if folder == folder_of(target) or target in EXTRA.get(folder, []):
        return True
    if PARAMS in ALLOWED[folder] and is_params(target):
        return True
    return folder_of(target) in ALLOWED[folder]


def check_file(path, known, problems, edges):
    name = path.relative_to(ROOT).as_posix()
    folder = folder_of(name)
    if folder not in ALLOWED:
        return
    for quote, target in INCLUDE.findall(path.read_text(errors="replace")):
        if quote == '"' and (target in known):
            edges.setdefault(name, set()).add(target)
            if not may(folder, target):
                problems.append(f"{name}: {folder} must not include {target}")
            continue
        for pattern, owners in LIBRARIES.items():
            if re.search(pattern, target) and not any(folder == o or folder.startswith(o + "/") for o in owners):
                problems.append(f"{name}: {folder} must not see {target}")


def find_cycle(edges):
    state = {}

    def visit(node, trail):
        state[node] = 1
        for target in sorted(edges.get(node, ())):
            if state.get(target) == 1:
                return trail + [node, target]
            if target not in state:
                found = visit(target, trail + [node])
                if found:
                    return found
        state[node] = 2
        return None

    for node in sorted(edges):
        if node not in state:
            found = visit(node, [])
            if found:
                return found
    return None


def main():
    files = [p for top in ("kernels", "runtime", "server", "client", "proto") for p in sorted((ROOT / top).rglob("*"))
             if p.suffix in SOURCES]
    known = {p.relative_to(ROOT).as_posix() for p in files}
    problems, edges = [], {}
    for path in files:
        check_file(path, known, problems, edges)
    cycle = find_cycle({k: {t for t in v if t.endswith(".h")} for k, v in edges.items() if k.endswith(".h")})
    if cycle:
        problems.append("include cycle: " + " -> ".join(cycle))
    for folder in sorted({folder_of(n) for n in known} - set(ALLOWED) - {"proto"}):
        problems.append(f"{folder}: not in the layer table")
    print("\n".join(problems) if problems else f"layers: {len(files)} files, {sum(map(len, edges.values()))} includes, no violation")
    return 1 if problems or not files else 0


sys.exit(main())
