#!/usr/bin/env python3
"""Feeds each lint a small tree that breaks its rule and one that does not."""
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CASES = [
    ("layers", {"runtime/base/a.h": '#include "runtime/api/b.h"\n', "runtime/api/b.h": "\n"}, False),
    ("layers", {"runtime/api/b.h": '#include "runtime/base/a.h"\n', "runtime/base/a.h": "\n"}, True),
    ("layers", {"runtime/engine/a.cc": "#include <cuda_runtime.h>\n"}, False),
    ("layers", {"runtime/base/a.h": '#include "runtime/base/b.h"\n', "runtime/base/b.h": '#include "runtime/base/a.h"\n'}, False),
    ("layers", {"runtime/novel/a.h": "\n"}, False),
    ("sizes", {"server/a.h": "x\n" * 251}, False),
    ("sizes", {"server/a.h": "// size: one table\n" + "x\n" * 251}, True),
    ("sizes", {"server/a.cc": "void F() {\n" + "  x();\n" * 70 + "}\n"}, False),
    ("sizes", {"server/a.cc": "// size: one switch\nvoid F() {\n" + "  x();\n" * 70 + "}\n"}, True),
    ("sizes", {"server/a.cc": "// size: one switch\nvoid F() {\n" + "  x();\n" * 120 + "}\n"}, False),
    ("words", {"server/a.cc": "// TO" + "DO later\n"}, False),
    ("words", {"server/a.cc": "// TO" + "DO(#12) later\n"}, True),
    ("headers", {"server/a.h": "#pragma once\nstd::string x;\n"}, False),
    ("headers", {"server/a.h": "#pragma once\n#include <string>\nextern std::string x;\n"}, True),
]
failed = 0
for lint, tree, good in CASES:
    with tempfile.TemporaryDirectory() as root:
        for name, text in tree.items():
            path = pathlib.Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        result = subprocess.run([sys.executable, HERE / f"{lint}.py", root], capture_output=True, text=True, check=False)
        if (result.returncode == 0) != good:
            failed += 1
            print(f"{lint} on {sorted(tree)}: expected {'no ' if good else 'a '}violation\n{result.stdout}")
print(f"{len(CASES) - failed} of {len(CASES)} lint cases right")
sys.exit(1 if failed else 0)
