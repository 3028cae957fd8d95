#!/usr/bin/env python3
"""Checks tracked text for what must not be in it: merge markers, disabled tests, TODOs without an
issue number, absolute home paths.

Usage: words.py [ROOT]. Prints one line a violation, exits 1 if there is any.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
RULES = [
    (re.compile(r"^(<{7}|>{7}) ", re.M), "merge marker"),
    (re.compile(r"\bDISABLED_\w|GTEST_SKIP"), "disabled or skipped test"),
    (re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))"), "TODO without an issue number"),
    (re.compile(r"(?<![\w.])/(root|home/\w+|work)/"), "absolute path of a developer's machine"),
]
TEXT = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".md", ".proto", ".cmake", ".txt", ".yaml", ".yml", ".json"}
SKIP = ("tests/data/", "build/", ".git/", ".carry/", "deploy/demo_model/weights/", "tests/lint/words.py")


def main():
    problems, count = [], 0
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix not in TEXT or name.startswith(SKIP) or not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        count += 1
        text = path.read_text(errors="replace")
        for pattern, what in RULES:
            match = pattern.search(text)
            if match:
                problems.append(f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}")
    print("\n".join(problems) if problems else f"words: {count} files clean")
    return 1 if problems or not count else 0


sys.exit(main())
