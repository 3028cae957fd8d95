#!/usr/bin/env python3
"""Checks deploy/compose: limits, users, probes, loopback ports, files that are mounted, flags that the programs know.

Usage: compose.py BIN_DIR. Needs python3-yaml, no container engine. Spoils a copy as well and expects each fault to be found.
Prints one line a violation, exits 1 if there is any.
"""
import copy
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/compose"
KNOWN = {"image", "user", "command", "entrypoint", "ports", "volumes", "tmpfs", "shm_size", "stop_grace_period", "healthcheck", "networks",
         "pids_limit", "mem_limit", "cpus", "read_only", "cap_drop", "security_opt", "restart", "init", "logging", "depends_on",
         "environment", "deploy"}


def seconds(text):
    return int(re.fullmatch(r"(\d+)s?", str(text))[1])


def check_service(name, service, volumes):
    for key in set(service) - KNOWN:
        yield f"{name}: unknown key {key}"
    for key in ("mem_limit", "cpus", "pids_limit", "healthcheck", "user", "image"):
        if key not in service:
            yield f"{name}: no {key}"
    if str(service.get("user", "0")).split(":")[0] in ("0", "root"):
        yield f"{name}: runs as root"
    if service.get("read_only") is not True:
        yield f"{name}: root file system writable"
    if service.get("cap_drop") != ["ALL"]:
        yield f"{name}: capabilities kept"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield f"{name}: may gain privileges"
    image = service.get("image", "")
    if ":" not in image or image.endswith(":latest"):
        yield f"{name}: image {image} not pinned"
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            yield f"{name}: port {port} is open to the network"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            if not (FOLDER / source).exists():
                yield f"{name}: {source} does not exist"
            if not volume.endswith(":ro"):
                yield f"{name}: {source} is writable"
        elif not source.startswith("$") and source not in volumes:
            yield f"{name}: no volume {source}"
    for argument in service.get("command", []):
        drain = re.match(r"--drain-timeout=(\d+)", argument)
        if drain and seconds(service.get("stop_grace_period", "10s")) <= int(drain[1]):
            yield f"{name}: stopped before it has drained"


def check(compose):
    for name, service in compose["services"].items():
        yield from check_service(name, service, compose.get("volumes", {}))


def check_flags(compose, bin_dir):
    programs = {"server": "videonsa-server", "front": "videonsa-openai"}
    for name, service in compose["services"].items():
        if name not in programs:
            continue
        text = subprocess.run([bin_dir / programs[name], "--help"], capture_output=True, text=True, check=True).stdout
        known = set(re.findall(r"--[a-z][a-z0-9-]*", text))
        for argument in service.get("command", []):
            if argument.split("=")[0] not in known:
                yield f"{name}: {programs[name]} does not know {argument}"


def spoiled(compose):
    def edit(service, key, value):
        bad = copy.deepcopy(compose)
        if value is None:
            del bad["services"][service][key]
        else:
            bad["services"][service][key] = value
        return f"{service}.{key}", bad
    yield edit("server", "mem_limit", None)
    yield edit("server", "user", "root")
    yield edit("server", "user", "0:0")
    yield edit("front", "healthcheck", None)
    yield edit("grafana", "read_only", False)
    yield edit("prometheus", "cap_drop", [])
    yield edit("prometheus", "security_opt", [])
    yield edit("server", "ports", ["8090:8090"])
    yield edit("server", "image", "videonsa-server:latest")
    yield edit("server", "stop_grace_period", "60s")
    yield edit("front", "privileged", True)
    yield edit("prometheus", "volumes", ["./no-such-file:/x:ro"])


def main():
    bin_dir = pathlib.Path(sys.argv[1])
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    gpu = copy.deepcopy(compose)
    gpu["services"]["server"].update(yaml.safe_load((FOLDER / "gpu.yaml").read_text())["services"]["server"])
    problems = [p for one in (compose, gpu) for p in [*check(one), *check_flags(one, bin_dir)]]
    problems += [f"not found: {what}" for what, bad in spoiled(compose) if not list(check(bad))]
    for rules in yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["rule_files"]:
        if not any(v.split(":")[1] == rules for v in compose["services"]["prometheus"]["volumes"]):
            problems.append(f"prometheus: {rules} is not mounted")
    print("\n".join(problems) if problems else f"compose: {len(compose['services'])} services hold")
    return 1 if problems else 0


sys.exit(main())
