#!/usr/bin/env python3
"""Checks file and function lengths: header 250, source 500, kernel body (.cuh, -inl.h) 800 lines, function 60 lines.

A file over a limit carries a comment "size: <reason>". Functions over 100 lines fail even then.
Usage: sizes.py [ROOT]. Prints one line a violation, exits 1 if there is any.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
LIMITS = {"-inl.h": 800, ".h": 250, ".cc": 500, ".cuh": 800, ".cu": 500, ".py": 500, ".sh": 250}
FUNCTION_SOFT, FUNCTION_HARD = 60, 100
NOT_FUNCTION = re.compile(r"^\s*(namespace|class|struct|enum|union|extern|TEST|TEST_F|TEST_P|BENCHMARK|HWY_|#)|=\s*\{$|^\s*\}|\bswitch\b|^\s*(if|for|while|else|do)\b")


def functions(lines):
    """Yields (first line number, length) of brace-delimited definitions at indent 0 or 2."""
    open_at = None
    for number, line in enumerate(lines):
        if open_at is None:
            match = re.match(r"^( ?| {2})(\S.*)\{$", line)
            if match and not NOT_FUNCTION.search(line) and (")" in line or ") const" in line or "override" in line):
                open_at = (number, len(line) - len(line.lstrip()))
        elif line.startswith(" " * open_at[1] + "}") and len(line) - len(line.lstrip()) == open_at[1]:
            yield open_at[0] + 1, number - open_at[0] + 1
            open_at = None


def main():
    problems, count = [], 0
    for top in ("kernels", "runtime", "server", "client", "tests", "deploy"):
        for path in sorted((ROOT / top).rglob("*")):
            limit = LIMITS.get("-inl.h" if path.name.endswith("-inl.h") else path.suffix)
            name = path.relative_to(ROOT).as_posix()
            if limit is None or not path.is_file() or "/data/" in name or "/third_party/" in name:
                continue
            count += 1
            text = path.read_text(errors="replace")
            lines = text.split("\n")
            excused = re.search(r"(//|#) size: \S", text) is not None
            if len(lines) - 1 > limit and not excused:
                problems.append(f"{name}: {len(lines) - 1} lines, limit {limit}")
            if path.suffix in (".h", ".cc", ".cu", ".cuh"):
                for first, length in functions(lines):
                    if length > FUNCTION_HARD or (length > FUNCTION_SOFT and not excused):
                        problems.append(f"{name}:{first}: function of {length} lines, limit {FUNCTION_SOFT}"
                                        f" (with a reason {FUNCTION_HARD})")
    print("\n".join(problems) if problems else f"sizes: {count} files within limits")
    return 1 if problems or not count else 0


sys.exit(main())
