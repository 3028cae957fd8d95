#!/usr/bin/env python3
"""Checks the Go and JavaScript examples as far as this machine can.

Usage: examples_test.py go|javascript ROOT FAKE_SERVER BIN_DIR. Go: needs the packages of deploy/build/example_packages.txt; the example
is vetted, built and run against the fake server and the real one. (With golang-github-golang-protobuf-1-3-dev in the place of
1-5 it is built only: that library cannot marshal what the plugin writes.) JavaScript: needs node; chat.mjs asks the real server through its
front; ask.mjs has its syntax checked, and asks the fake server and the real one where its two npm packages can be found (NODE_PATH).
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

KIND, ROOT, FAKE_SERVER, BIN_DIR = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
EXAMPLES = ROOT / "client/examples"
CLIP, QUESTION = ROOT / "deploy/demo/clips/diamond.mp4", "Which color does the diamond have?"
PROTOBUF = pathlib.Path("/usr/share/gocode/src/github.com/golang/protobuf/go.mod")
sys.path.insert(0, str(ROOT / "tests/support"))
import processes  # noqa: E402


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


def ask_real(command, work, through_front=False, **more):
    """The bundled model about a clip of its kind, sent along and uploaded before; and a clip that does not exist."""
    with processes.server(BIN_DIR, work) as server:
        front = processes.front(BIN_DIR, work, server.address) if through_front else None
        address = front.address if front else server.address
        stored = must(BIN_DIR / "videonsa", "upload", "--server", server.address, CLIP).stdout.strip()
        answers = [must(*command(address), clip, QUESTION, **more).stdout.strip() for clip in (CLIP, stored)]
        assert answers[0] == answers[1] and answers[0], answers
        ran = run(*command(address), "clips/none", QUESTION, **more)
        assert ran.returncode == 1 and "failed" in ran.stderr, ran.stderr
        if front:
            front.stop()
        return answers[0]


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
    if "google.golang.org/protobuf" not in PROTOBUF.read_text():
        print("Go example: formatted, vetted, built; not run (needs golang-github-golang-protobuf-1-5-dev)")
        return
    command = lambda address: (work / "ask", "-server", address)  # noqa: E731
    with_server(lambda address: ask(command, address, work))
    print(f"Go example: formatted, vetted, built; answered 4 of 4; the real server says {ask_real(command, work)!r}")


def javascript(work):
    must("node", "--check", EXAMPLES / "javascript/ask.mjs")
    chat = lambda address: ("node", EXAMPLES / "javascript/chat.mjs", "--base-url", f"http://{address}/v1")  # noqa: E731
    print(f"JavaScript over HTTP: the real server says {ask_real(chat, work, through_front=True)!r}")
    modules = os.environ.get("NODE_PATH")
    if not modules:
        print("JavaScript over gRPC: syntax is right; not run (NODE_PATH names no modules)")
        return
    shutil.copy(EXAMPLES / "javascript/ask.mjs", work)
    (work / "node_modules").symlink_to(modules)
    environment = {**os.environ, "VIDEONSA_PROTO": str(ROOT / "proto")}
    command = lambda address: ("node", work / "ask.mjs", "--server", address)  # noqa: E731
    with_server(lambda address: ask(command, address, work, env=environment))
    print(f"JavaScript over gRPC: answered 4 of 4; the real server says {ask_real(command, work, env=environment)!r}")


with tempfile.TemporaryDirectory() as folder:
    {"go": go, "javascript": javascript}[KIND](pathlib.Path(folder))
