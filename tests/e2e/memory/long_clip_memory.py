#!/usr/bin/env python3
"""Samples a long clip to many frames through a real server and holds it to its memory.

usage: long_clip_memory.py BUILD_DIR [--seconds N] [--frames N] [--model DIR] [--limit-mb N] [--patch-buffer SIZE]

Makes a 720p H.264 clip with ffmpeg (one hour unless told), starts the server with the bundled model, asks
about the clip at 768 frames and samples what the server and its decoder processes hold in memory every
20 ms, pages that they share once. Prints weights, keys and values of the prompt, features, and what the processes held beyond them,
idle server included. Exits 1 if that is above 300 MB, or if fewer frames were used than asked for.
One hour takes a few minutes on two cores.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
PATCH_BYTES = 1176 * 4


def make_clip(path, seconds):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=1", "-t",
                    str(seconds), "-c:v", "libx264", "-preset", "ultrafast", "-crf", "40", "-g", "20", "-pix_fmt",
                    "yuv420p", str(path)], check=True)


def family(pid):
    """The process and its children, by whichever thread started them."""
    found = {pid}
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        found |= {int(child) for child in children.read_text().split()}
    return found


def memory_of(pid):
    """Bytes; a page that several processes share is divided among them in Pss, and counted in each in VmRSS."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text() + pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: 1024 * int(re.search(rf"^{name}:\s+(\d+)", status, re.M).group(1))
            for name in ("Pss", "VmRSS", "VmHWM", "RssAnon")}


class Watch(threading.Thread):
    """Samples server and decoders until stopped; peaks are of sums at one moment."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.stopped = pid, threading.Event()
        self.resident = self.anonymous = self.processes = 0
        self.marks = {}  # largest resident size of each process as the kernel counts it

    def run(self):
        while not self.stopped.wait(0.02):
            self.sample()

    def sample(self):
        try:
            all_of = {pid: memory_of(pid) for pid in family(self.pid)}
        except (OSError, AttributeError):
            return  # one has just ended
        self.resident = max(self.resident, sum(m["Pss"] for m in all_of.values()))
        self.anonymous = max(self.anonymous, sum(m["RssAnon"] for m in all_of.values()))
        self.processes = max(self.processes, len(all_of))
        self.marks |= {pid: m["VmHWM"] for pid, m in all_of.items()}


def call(client, address, command, clip, frames, *more):
    done = subprocess.run([str(client), command, str(clip), "-q", "What happens?", "--server", address, "--json",
                           "--num-frames", str(frames), *more], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"videonsa {command}: {done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def start(build, work, args):
    log = open(work / "server.log", "w")
    process = subprocess.Popen([str(build / "bin/videonsa-server"), "--model", str(args.model), "--listen", "127.0.0.1:0",
                                "--metrics-listen", "127.0.0.1:0", "--clip-dir", str(work / "clips"),
                                "--patch-buffer", args.patch_buffer],
                               stdout=subprocess.PIPE, stderr=log, text=True)
    line = process.stdout.readline()
    match = re.search(r"ready on (\S+)", line)
    if not match:
        process.kill()
        sys.exit(f"the server did not start: {line}{(work / 'server.log').read_text()}")
    return process, match.group(1)


def run(build, work, args):
    clip, client = work / "clip.mp4", build / "bin/videonsa"
    (work / "clips").mkdir()
    make_clip(clip, args.seconds)
    process, address = start(build, work, args)
    try:
        watch = Watch(process.pid)
        watch.start()
        began = time.monotonic()
        result = call(client, address, "ask", clip, args.frames, "--max-tokens", "8", "--timeout", "30m")["result"]
        took = time.monotonic() - began
        watch.stopped.set()
        watch.join()
        estimate = call(client, address, "estimate", clip, args.frames, "--max-tokens", "8")["estimate"]
    finally:
        process.terminate()
        process.wait()
    return report(result, estimate, watch, took, process.pid, args)


def report(result, estimate, watch, took, server, args):
    hidden = json.loads((args.model / "config.json").read_text())["hidden_size"]
    weights = sum(path.stat().st_size for path in args.model.glob("*.safetensors"))
    kv = int(estimate["kv_bytes"])
    vision = int(result["usage"]["prompt"]["vision"])
    frames = int(result["usage"]["frames_used"])
    features = vision * hidden * 2
    beyond = watch.resident - weights - kv - features
    mb = lambda count: f"{count / 1e6:8.1f} MB"
    print(f"clip                     {args.seconds} s of 1280 x 720, {frames} frames, {vision} vision tokens, {took:.0f} s")
    print(f"patches, never whole     {mb(4 * vision * PATCH_BYTES)}")
    print(f"weights                  {mb(weights)}")
    print(f"keys and values          {mb(kv)}  pages of this prompt")
    print(f"features                 {mb(features)}  {hidden * 2} bytes a vision token")
    print(f"largest resident size    {mb(watch.resident)}  of server and {watch.processes - 1} decoders at one moment")
    print(f"  of it anonymous        {mb(watch.anonymous)}")
    print(f"  server alone           {mb(watch.marks[server])}  as the kernel counts it (VmHWM)")
    for pid, mark in sorted(watch.marks.items()):
        if pid != server:
            print(f"  a decoder alone        {mb(mark)}")
    print(f"beyond all of these      {mb(beyond)}  limit {args.limit_mb} MB")
    failures = []
    if beyond > args.limit_mb * 1e6:
        failures.append("more memory than allowed")
    if frames != args.frames:
        failures.append(f"{frames} frames instead of {args.frames}")
    for failure in failures:
        print("FAILED:", failure)
    print("FAILED" if failures else "PASSED")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--frames", type=int, default=768)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "deploy/demo_model/weights")
    parser.add_argument("--limit-mb", type=int, default=300)
    parser.add_argument("--patch-buffer", default="32M", help="1G holds every patch at once, and fails")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="videonsa-memory-") as work:
        return run(args.build.resolve(), pathlib.Path(work), args)


if __name__ == "__main__":
    sys.exit(main())
