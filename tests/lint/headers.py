#!/usr/bin/env python3
"""Checks that every header of the house compiles on its own and has #pragma once.

A header that some source includes before anything else has been compiled on its own by the build; only the
others are compiled here.

Usage: headers.py [ROOT [BUILD_DIR]]. BUILD_DIR holds generated protobuf headers (BUILD_DIR/proto_generated).
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
BUILD = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else ROOT / "build/dev"


def included_first():
    """Headers that are the first include of a source: the build compiles them on their own."""
    first = set()
    for top in ("kernels", "runtime", "server", "client", "tests"):
        for path in (ROOT / top).rglob("*.cc"):
            match = re.search(r"^\s*#\s*include\s+(.*)$", path.read_text(errors="replace"), re.M)
            if match and match[1].startswith('"'):
                first.add(match[1].strip('"'))
    return first


FIRST = included_first()


def check(path):
    name = path.relative_to(ROOT).as_posix()
    # Highway's -inl.h files are read once per SIMD target and carry a toggle instead.
    if not name.endswith("-inl.h") and "#pragma once" not in path.read_text(errors="replace"):
        return f"{name}: no #pragma once"
    if name in FIRST:
        return None
    command = ["g++", "-std=c++20", "-fsyntax-only", "-x", "c++", "-I", str(ROOT), "-I", str(BUILD / "proto_generated"), "-include", name, "/dev/null"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return f"{name}: not readable on its own\n{result.stderr[:800]}" if result.returncode else None


def main():
    headers = [p for top in ("kernels", "runtime", "server", "client") for p in sorted((ROOT / top).rglob("*.h"))]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [p for p in pool.map(check, headers) if p]
    print("\n".join(problems) if problems else f"headers: {len(headers)} readable on their own")
    return 1 if problems or not headers else 0


sys.exit(main())
