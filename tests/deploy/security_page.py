#!/usr/bin/env python3
"""Looks up every test that deploy/SECURITY.md names. Prints those that do not exist; exits 1 if there is any."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    page = (ROOT / "deploy/SECURITY.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.cc"))
    tests = {f"{suite}.{name}" for suite, name in re.findall(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", sources, re.M)}
    rows = [row for row in page.splitlines() if row.startswith("| ") and not row.startswith(("| Attack", "| ---"))]
    problems, named = [], 0
    for row in rows:
        proofs = re.findall(r"`([^`]+)`", row.split("|")[3])
        named += len(proofs)
        if not proofs:
            problems.append(f"no proof: {row[:80]}")
        problems += [f"no such test: {p}" for p in proofs if p not in tests and not (ROOT / p).is_file()]
    print("\n".join(problems) if problems else f"security page: {len(rows)} attacks, {named} proofs, all there")
    return 1 if problems or len(rows) < 10 else 0


sys.exit(main())
