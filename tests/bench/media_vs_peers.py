#!/usr/bin/env python3
"""Compares reading frames with PyAV and decord, all on the same cores, and prints ratios.

Usage: media_vs_peers.py MEDIA_BENCH [--clip FILE] [--seconds 60] [--runs 3]

Needs `pip install av decord numpy` and the ffmpeg tool, which makes the clip (1080p H.264, 30 fps)
if none is given. A run is the time from opening the file to the last RGB frame as an array. Each
library in its fastest setting: PyAV with frame threads, decord with its default threads.
"""
import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time

import av
import decord
import numpy as np


def make_clip(path, seconds):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=size=1920x1080:rate=30:duration={seconds}",
                    "-vf", "noise=alls=6:allf=t", "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", path], check=True)


def indices(total, fps, rate):
    """The reference's choice: an even number of frames, spread from the first to the last."""
    if not fps:
        return list(range(total))
    count = int(total / rate * fps) // 2 * 2
    return np.linspace(0, total - 1, count).round().astype(int).tolist()


def run_pyav(path, fps):
    begin = time.perf_counter()
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        total = stream.frames
        wanted = set(indices(total, fps, float(stream.average_rate)))
        frames = checksum = 0
        for i, frame in enumerate(container.decode(stream)):
            if i in wanted:
                checksum += int(frame.to_ndarray(format="rgb24").reshape(-1)[::64].sum())
                frames += 1
    return time.perf_counter() - begin, frames


def run_decord(path, fps):
    begin = time.perf_counter()
    reader = decord.VideoReader(path)
    frames = checksum = 0
    chosen = indices(len(reader), fps, reader.get_avg_fps())
    for start in range(0, len(chosen), 30):
        for frame in reader.get_batch(chosen[start:start + 30]).asnumpy():
            checksum += int(frame.reshape(-1)[::64].sum())
            frames += 1
    return time.perf_counter() - begin, frames


def run_ours(bench, path, fps):
    how = ["--fps", str(fps)] if fps else ["--every"]
    result = json.loads(subprocess.run([bench, "frames", path, *how, "--runs", "1"], check=True, capture_output=True, text=True).stdout)
    return result["seconds"], result["frames"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--clip")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = args.clip or os.path.join(folder, "clip.mp4")
        if not args.clip:
            make_clip(clip, args.seconds)
        print(f"{os.cpu_count()} cores, {platform.machine()}, {datetime.date.today()}, "
              f"PyAV {av.__version__}, decord {decord.__version__}, clip of {os.path.getsize(clip) >> 20} MB")
        failed = False
        for fps, name, goal in ((1, "1 frame a second", 1.5), (0, "every frame", 1.0)):
            times = {}
            for _ in range(args.runs):  # in turn, so that all meet the same noise
                for who, run in (("ours", lambda: run_ours(args.bench, clip, fps)), ("pyav", lambda: run_pyav(clip, fps)),
                                 ("decord", lambda: run_decord(clip, fps))):
                    seconds, frames = run()
                    times.setdefault(who, []).append((seconds, frames))
            best = {who: min(t) for who, t in times.items()}
            ratio = min(best["pyav"][0], best["decord"][0]) / best["ours"][0]
            failed |= ratio < goal
            print(f"{name}: " + ", ".join(f"{who} {s:.2f} s ({n} frames)" for who, (s, n) in best.items())
                  + f"; {ratio:.2f} x the best peer (goal {goal})", flush=True)
    return 1 if failed else 0


sys.exit(main())
