#!/usr/bin/env python3
"""Generates the stubs and runs client/examples/python/ask.py against the fake server.

Usage: python_example_test.py ROOT FAKE_SERVER, with an interpreter that has grpcio and protobuf.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(ROOT / "tests/support"))
import stubs  # noqa: E402

FAKE_SERVER = sys.argv[2]
EXAMPLE = ROOT / "client/examples/python"


def main():
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        shutil.copy(EXAMPLE / "ask.py", work)
        (work / "stubs").mkdir()
        stubs.generate(work / "stubs")
        server = subprocess.Popen([FAKE_SERVER, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip()

            def run(*words):
                return subprocess.run([python, work / "ask.py", *words, "--server", address], capture_output=True, text=True, timeout=60)

            small, large = work / "small.mp4", work / "large.mp4"
            small.write_bytes(b"v" * 1000)
            large.write_bytes(b"w" * 2_000_000)
            for clip in ("", "clips/a", str(small), str(large), str(large)):
                ran = run(clip, "What is it?")
                assert ran.returncode == 0, ran.stderr
                assert ran.stdout == "You asked: What is it?", ran.stdout
                assert "11.5 % of dense attention" in ran.stderr, ran.stderr
            ran = subprocess.run([python, work / "ask.py", "", "x", "--server", "127.0.0.1:1"], capture_output=True, text=True, timeout=60)
            assert ran.returncode == 1 and "UNAVAILABLE" in ran.stderr, ran.stderr
        finally:
            server.stdin.close()
            server.wait(timeout=30)
    print("python example: answered 5 of 5, refusal explained")
    return 0


sys.exit(main())
