#!/usr/bin/env python3
"""Checks the Go and JavaScript examples as far as this machine can.

Usage: examples_test.py go|javascript ROOT FAKE_SERVER. Go: needs go, protoc-gen-go-1-5, protoc-gen-go-grpc and
golang-google-grpc-dev of Debian; the example is vetted and built, not run: Debian's gRPC for Go marshals with an older protobuf
than its plugin writes for. JavaScript: needs node; its syntax is checked, and it asks the fake server where the two npm packages
can be found (NODE_PATH).
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

KIND, ROOT, FAKE_SERVER = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
EXAMPLES = ROOT / "client/examples"


def run(*words, **more):
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, timeout=300, **more)


def must(*words, **more):
    ran = run(*words, **more)
    assert ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
    return ran


def ask(command, address, work, **more):
    """Three sources of a clip and one refusal."""
    small, large = work / "small.mp4", work / "large.mp4"
    small.write_bytes(b"v" * 1000)
    large.write_bytes(b"w" * 4_000_000)
    for clip in ("clips/a", small, large, large):
        ran = must(*command(address), clip, "What is it?", **more)
        assert ran.stdout.strip() == "You asked: What is it?", ran.stdout
        assert "11.5 % of dense attention" in ran.stderr, ran.stderr
    ran = run(*command("127.0.0.1:1"), "clips/a", "x", **more)
    assert ran.returncode == 1 and "failed" in ran.stderr, ran.stderr


def with_server(use):
    server = subprocess.Popen([FAKE_SERVER, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        use(server.stdout.readline().strip())
    finally:
        server.stdin.close()
        server.wait(timeout=30)


def go(work):
    # Debian's libraries lie in a GOPATH and predate modules.
    package = work / "go/src/videonsa.example/ask"
    shutil.copytree(EXAMPLES / "go", package, ignore=shutil.ignore_patterns("gen", "go.sum"))
    must(package / "generate.sh", ROOT / "proto", package / "gen")
    # The plugin for gRPC of Debian 12 writes for a newer library than Debian 12 has; one constant tells them apart.
    for file in (package / "gen").rglob("*_grpc.pb.go"):
        file.write_text(re.sub(r"SupportPackageIsVersion\d+", "SupportPackageIsVersion6", file.read_text()))
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{work / 'go'}:/usr/share/gocode", "GOFLAGS": "",
                   "GOCACHE": str(pathlib.Path(tempfile.gettempdir()) / "videonsa-go-cache")}
    must("go", "vet", "videonsa.example/ask", env=environment)
    must("go", "build", "-o", work / "ask", "videonsa.example/ask", env=environment)
    assert not run("gofmt", "-l", EXAMPLES / "go").stdout, "gofmt would change the example"
    refused = run(work / "ask", "clips/a")
    assert refused.returncode == 2 and "usage" in refused.stderr, refused.stderr
    print("Go example: formatted, vetted, built; not run")


def javascript(work):
    must("node", "--check", EXAMPLES / "javascript/ask.mjs")
    modules = os.environ.get("NODE_PATH")
    if not modules:
        print("JavaScript example: syntax is right; not run (NODE_PATH names no modules)")
        return
    shutil.copy(EXAMPLES / "javascript/ask.mjs", work)
    (work / "node_modules").symlink_to(modules)
    environment = {**os.environ, "VIDEONSA_PROTO": str(ROOT / "proto")}
    with_server(lambda address: ask(lambda at: ("node", work / "ask.mjs", "--server", at), address, work, env=environment))
    print("JavaScript example: answered 4 of 4")


with tempfile.TemporaryDirectory() as folder:
    {"go": go, "javascript": javascript}[KIND](pathlib.Path(folder))
