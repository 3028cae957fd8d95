#!/usr/bin/python3
"""Crowds and attackers on a server with the bundled model, and what they cost honest clients.

Usage: clients.py BIN_DIR [--only NAMES] [--requests N] [--uploads N] [--connections N] [--streams N] [--minutes M] [--report FILE]

  short      N short questions of 16 callers
  uploads    N clips uploaded at once, beside honest questions
  slowloris  N connections that say nothing or half of something, beside honest questions
  streams    N answers streamed at once for M minutes

Honest clients are `videonsa bench`, which checks every answer. Required: no honest request is lost or answered wrongly, memory that stays
(the last sample at most 10 % and 64 MB above the one after the first tenth), uploads complete with the right digest, attackers cut off; and
beside uploads and slowloris the 99th percentile of honest questions at most twice what it is without them. Prints one line a
scenario, writes them to FILE, exits 1 if one fails.
"""
import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/support"))
import processes  # noqa: E402
import stubs  # noqa: E402

CLIP = ROOT / "deploy/demo/clips/diamond.mp4"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HALF_HEADERS = b"\0\0\x64\1\4\0\0\0\1"
MEMORY_RATIO, MEMORY_BYTES = 1.1, 64 << 20
PROBE_SECONDS = 20  # how long honest clients are timed without and beside something


def server_flags(options):
    return ["--max-running", "64", "--max-waiting", "4096", "--tenant-uploads", "1000", "--tenant-clips", "5000", "--tenant-clip-bytes", "20G",
            "--upload-idle", "120", "--upload-min-rate", "0", "--handshake-timeout", "5", "--connection-idle", "5", "--max-streams",
            str(max(128, options.streams)), "--free-space-floor", "0"]


class Memory:
    """Samples the server's resident memory while it is open."""

    def __init__(self, server):
        self.url = f"http://{server.port('metrics')}/metrics"
        self.samples, self.done = [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def now(self):
        text = urllib.request.urlopen(self.url, timeout=30).read().decode()
        return float(re.search(r"^process_resident_memory_bytes (\S+)$", text, re.M)[1])

    def run(self):
        while not self.done.wait(1):
            self.samples.append(self.now())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.samples.append(self.now())

    def verdict(self):
        begin, end = self.samples[len(self.samples) // 10], self.samples[-1]
        flat = end <= begin * MEMORY_RATIO + MEMORY_BYTES
        return flat, f"memory {begin / 1e6:.0f} -> {end / 1e6:.0f} MB"


def bench(bin_dir, server, work, dataset, *flags):
    """Counts and latencies of one load run."""
    with tempfile.NamedTemporaryFile(dir=work, suffix=".json") as out, tempfile.NamedTemporaryFile("w", dir=work, suffix=".jsonl") as lines:
        lines.write("\n".join(json.dumps(line) for line in dataset))
        lines.flush()
        ran = subprocess.run([str(w) for w in (bin_dir / "videonsa", "bench", "--server", server.address, "--dataset", lines.name, "--quiet", "--json",
                                               out.name, "--timeout", "300s", *flags)], capture_output=True, text=True, check=False)
        result = json.loads(pathlib.Path(out.name).read_text() or "{}")
        if not result:
            raise AssertionError(f"bench: {ran.stderr}")
        return result


def honest(bin_dir, server, work, *flags):
    """Two callers with short questions for a while."""
    lines = [{"question": f"What is {thing}?"} for thing in ("a circle", "blue", "a clip")]
    return bench(bin_dir, server, work, lines, "--concurrency", "2", "--duration", f"{PROBE_SECONDS}s", "--requests", "100000", "--warmup", "20",
                 "--max-tokens", "2", *flags)


def lost_or_wrong(result):
    counts = result["counts"]
    return counts["lost"] + counts["wrong"] + counts["failed"]


def p99(result):
    return result["metrics_s"]["e2e"]["p99"]


def in_child(work):
    """What `work` returns, from a process that gives way to all others: crowds and attackers compute on machines of their own."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()

    def run():
        os.nice(19)
        its.send(work())

    child = context.Process(target=run)
    child.start()
    its.close()
    try:
        return mine.recv()
    finally:
        child.join()


class Soak:
    def __init__(self, bin_dir, options, work):
        self.bin_dir, self.options, self.work = bin_dir, options, work
        self.lines, self.failed = [], False

    def note(self, name, good, text):
        self.failed = self.failed or not good
        self.lines.append(f"{name}: {text}: {'ok' if good else 'FAILED'}")
        print(self.lines[-1], flush=True)

    def short(self, server):
        count = self.options.requests
        with Memory(server) as memory:
            result = bench(self.bin_dir, server, self.work, [{"question": f"Is it {n}?"} for n in range(50)], "--concurrency", "16", "--requests", count,
                           "--warmup", "50", "--max-tokens", "1")
        flat, told = memory.verdict()
        bad = lost_or_wrong(result)
        self.note("short", not bad and flat and result["counts"]["ok"] == count,
                  f"{result['counts']['ok']} of {count} answered in {result['rates']['wall_s']:.0f} s, {bad} lost or wrong, "
                  f"p99 {1e3 * p99(result):.0f} ms, {told}")

    def beside(self, name, server, attack):
        """Honest clients alone, then while `attack` runs; `attack` returns (good, text)."""
        alone = honest(self.bin_dir, server, self.work)
        with Memory(server) as memory, concurrent.futures.ThreadPoolExecutor(1) as pool:
            attacking = pool.submit(in_child, attack)
            result = honest(self.bin_dir, server, self.work)
            good, text = attacking.result()
        flat, told = memory.verdict()
        bad = lost_or_wrong(alone) + lost_or_wrong(result)
        ratio = p99(result) / p99(alone)
        self.note(name, good and not bad and flat and ratio <= 2,
                  f"{text}; {result['counts']['ok']} honest questions beside it, {bad} lost or wrong, p99 {1e3 * p99(alone):.0f} -> "
                  f"{1e3 * p99(result):.0f} ms (x {ratio:.2f}), {told}")

    def uploads(self, server):
        self.beside("uploads", server, lambda: self.upload_all(server))

    def upload_all(self, server):
        """All at once: every stream is open before the first one ends."""
        import grpc
        from videonsa.v1 import clip_pb2, clip_pb2_grpc
        count, clip = self.options.uploads, CLIP.read_bytes()
        channels = [grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(max(1, count // 50))]
        barrier = threading.Barrier(count)

        def upload(n):
            stub = clip_pb2_grpc.ClipServiceStub(channels[n % len(channels)])
            data = clip + n.to_bytes(4, "big") * 16  # a clip of its own
            digest = hashlib.sha256(data).digest()
            started = stub.StartUpload(clip_pb2.StartUploadRequest(size_bytes=len(data), sha256=digest), timeout=300)

            def messages():
                yield clip_pb2.UploadClipRequest(header=clip_pb2.UploadHeader(upload_id=started.upload_id))
                step = (len(data) + 3) // 4
                for at in range(0, len(data), step):
                    if at > 0 and at <= step:
                        barrier.wait(300)  # with a quarter sent, everybody waits for everybody
                    end = min(at + step, len(data))
                    yield clip_pb2.UploadClipRequest(chunk=clip_pb2.UploadChunk(offset=at, data=data[at:end], finish=end == len(data)))
            stub.UploadClip(messages(), timeout=300)
            last = None
            for change in stub.WatchClip(clip_pb2.WatchClipRequest(name=started.clip.name), timeout=300):
                last = change.clip
            return last.state == clip_pb2.Clip.STATE_READY and last.sha256 == digest

        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            good = sum(pool.map(upload, range(count)))
        took = time.monotonic() - begin
        for channel in channels:
            channel.close()
        return good == count, f"{good} of {count} clips uploaded at once and READY with their digest after {took:.0f} s"

    def slowloris(self, server):
        self.beside("slowloris", server, lambda: self.slow_connections(server))

    def slow_connections(self, server):
        """Connections that say nothing, half a preface, a preface, or half a frame; new ones for those that were cut, until honest clients are done."""
        host, port = server.address.rsplit(":", 1)
        opened, cut, end = 0, 0, time.monotonic() + PROBE_SECONDS

        def connect(n):
            sock = socket.create_connection((host, int(port)))
            if n % 4:
                sock.send((PREFACE[:10], PREFACE, PREFACE + SETTINGS + HALF_HEADERS)[n % 4 - 1])
            sock.setblocking(False)
            return sock

        def closed(socks, seconds):
            gone = []
            for sock in select.select(socks, [], [], seconds)[0]:
                try:
                    if not sock.recv(4096):
                        gone.append(sock)
                except OSError:
                    gone.append(sock)
            return gone

        socks = []
        while time.monotonic() < end:
            while len(socks) < self.options.connections:
                socks.append(connect(opened))
                opened += 1
            for sock in closed(socks, 0.2):
                socks.remove(sock)
                sock.close()
                cut += 1
        limit = time.monotonic() + 60
        while socks and time.monotonic() < limit:
            for sock in closed(socks, 1):
                socks.remove(sock)
                sock.close()
                cut += 1
        return not socks, f"{self.options.connections} slow connections at a time, {opened} in all, {cut} cut off by the server"

    def streams(self, server):
        minutes = self.options.minutes
        lines = [{"question": f"What is {n}, and why?"} for n in range(16)]
        with Memory(server) as memory:
            result = bench(self.bin_dir, server, self.work, lines, "--concurrency", self.options.streams, "--duration", f"{60 * minutes:.0f}s", "--requests",
                           "1000000", "--warmup", self.options.streams, "--max-tokens", "48")
        flat, told = memory.verdict()
        bad = lost_or_wrong(result)
        self.note("streams", not bad and flat, f"{self.options.streams} streams open for {result['rates']['wall_s'] / 60:.1f} minutes, "
                  f"{result['counts']['ok']} answers, {bad} lost or wrong, p99 {p99(result):.2f} s, {told}")


def main():
    scenarios = ("short", "uploads", "slowloris", "streams")
    parser = argparse.ArgumentParser()
    parser.add_argument("bin_dir", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(scenarios))
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--report", type=pathlib.Path)
    options = parser.parse_args()
    with processes.workplace() as work:
        stubs.load(work)
        soak = Soak(options.bin_dir.resolve(), options, work)
        for name in options.only.split(","):
            assert name in scenarios, name
            with processes.server(soak.bin_dir, work, *server_flags(options), name=name) as server:
                getattr(soak, name)(server)
    if options.report:
        with options.report.open("a") as file:
            file.write(f"\n{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores:\n\n" + "".join(f"- {line}\n" for line in soak.lines))
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
