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
FAKE_SERVER = sys.argv[2]
EXAMPLE = ROOT / "client/examples/python"


def generate(stubs):
    """What client/examples/python/generate.sh does, with Debian's protoc and plugin instead of grpcio-tools."""
    stubs.mkdir()
    plugin = shutil.which("grpc_python_plugin")
    assert plugin, "grpc_python_plugin is missing (package protobuf-compiler-grpc)"
    subprocess.run(["protoc", "-I", ROOT / "proto", f"--plugin=protoc-gen-grpc_python={plugin}", f"--python_out={stubs}",
                    f"--grpc_python_out={stubs}", "videonsa/v1/common.proto", "videonsa/v1/clip.proto",
                    "videonsa/v1/server.proto", "videonsa/v1/video_qa.proto"], check=True)
    subprocess.run(["protoc", "-I", ROOT / "proto/third_party", f"--python_out={stubs}", "google/rpc/status.proto",
                    "google/rpc/error_details.proto"], check=True)


def main():
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        shutil.copy(EXAMPLE / "ask.py", work)
        generate(work / "stubs")
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
