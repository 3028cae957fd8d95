#!/usr/bin/env python3
"""Runs a prompt of 128K tokens through a real server and holds it to the memory that it announced.

usage: long_prompt.py BUILD_DIR [--tokens N] [--keep]

Makes a model folder with random weights (4 layers, hidden 256, causal_nsa with 32 blocks and a window of
256) and two clips with ffmpeg, starts the server, warms it up with a short question, asks Estimate and then
both clips. Prints the announced bytes beside the largest resident size (server and decoders, sampled
every 50 ms) and our count of query-key pairs beside the paper's formula. Exits 1 if the memory was
exceeded, if the prompt is shorter than asked for, or if the reply's account is not causal_nsa's.
Takes a few minutes on two cores.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIDE = 280  # pixels: 10 x 10 tokens for two frames
FPS = 8
BLOCK, BLOCKS, WINDOW = 64, 32, 256


def write_model(folder):
    small = ROOT / "tests/data/text/small"
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(small / name, folder / name)
    config = json.loads((small / "config.json").read_text())
    config.update({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 1, "vocab_size": 1024, "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "vision_config": {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 128,
                          "out_hidden_size": 256, "fullatt_block_indexes": [1], "tokens_per_second": 2},
        "nsa": {"semantics": "causal_nsa", "block_size": BLOCK, "block_counts": BLOCKS,
                "window_size": WINDOW, "gate_temperature": 0.3}})
    (folder / "config.json").write_text(json.dumps(config))


def make_clip(path, frames, source="testsrc2"):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"{source}=size={SIDE}x{SIDE}:rate={FPS}",
                    "-frames:v", str(frames), "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
                    str(path)], check=True)


def resident_bytes(pid):
    """Resident size of a process and its children."""
    total = 0
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        tasks = [str(pid)] + children
        for thread in os.listdir(f"/proc/{pid}/task"):
            tasks += pathlib.Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        for task in set(tasks):
            status = pathlib.Path(f"/proc/{task}/status").read_text()
            total += 1024 * int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
    except (OSError, AttributeError):
        pass
    return total


class Watch(threading.Thread):
    """Samples the resident size until stopped."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.stopped = pid, 0, threading.Event()

    def run(self):
        while not self.stopped.wait(0.05):
            self.peak = max(self.peak, resident_bytes(self.pid))


class Server:
    def __init__(self, build, work, model):
        self.client = str(build / "bin/videonsa")
        self.log = open(work / "server.log", "w")
        self.process = subprocess.Popen(
            [str(build / "bin/videonsa-server"), "--model", str(model), "--load-format", "dummy", "--listen",
             "127.0.0.1:0", "--clip-dir", str(work / "clips"), "--kv-bytes", "2G", "--max-frames", "4096"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        match = re.search(r"ready on (\S+)", line)
        if not match:
            sys.exit(f"the server did not start: {line}{(work / 'server.log').read_text()}")
        self.address = match.group(1)

    def call(self, command, clips, frames, *more):
        done = subprocess.run(
            [self.client, command, *map(str, clips), "-q", "What happens?", "--server", self.address, "--json", "--fps",
             str(FPS), "--max-frames", str(frames), "--min-pixels", "3136", "--max-pixels", str(SIDE * SIDE),
             "--attention", "native", "--selected-blocks", str(BLOCKS), "--window", str(WINDOW),
             "--max-tokens", "8", *more], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"videonsa {command}: {done.stderr}{done.stdout}")
        return json.loads(done.stdout)


def mb(count):
    return f"{count / 1e6:,.1f} MB"


def run(build, work, tokens):
    frames = -(-tokens // 200) * 2  # of each clip: one alone may not exceed 115,200 tokens in this mode
    model, short, clips = work / "model", work / "short.mp4", [work / "one.mp4", work / "two.mp4"]
    model.mkdir()
    (work / "clips").mkdir()
    write_model(model)
    make_clip(clips[0], frames)
    make_clip(clips[1], frames, "testsrc")
    make_clip(short, 64)
    server = Server(build, work, model)
    try:
        server.call("ask", [short], 64, "--timeout", "5m")  # fixed buffers, decoders and their libraries
        estimate = server.call("estimate", clips, frames)["estimate"]
        idle = resident_bytes(server.process.pid)
        watch = Watch(server.process.pid)
        watch.start()
        began = time.monotonic()
        result = server.call("ask", clips, frames, "--timeout", "30m")["result"]
        took = time.monotonic() - began
        watch.stopped.set()
        watch.join()
    finally:
        server.process.terminate()
        server.process.wait()
    return report(estimate, result, idle, watch.peak, took, tokens)


def report(estimate, result, idle, peak, took, tokens):
    prompt = result["usage"]["prompt"]
    length = int(prompt["vision"]) + int(prompt["text"])
    attention = result["attention"]
    announced, used = int(estimate["peak_bytes"]), peak - idle
    print(f"prompt              {length:,} tokens ({int(prompt['vision']):,} vision), {took:.0f} s")
    print(f"attention           {attention['semantics']}, B = {attention['effective']['selected_blocks']}, "
          f"W = {attention['effective']['window_tokens']}")
    print(f"announced           {mb(announced)} beyond the idle server's {mb(idle)}"
          f" ({mb(int(estimate['kv_bytes']))} of it keys and values)")
    print(f"largest resident    {mb(peak)}: {mb(used)} beyond the idle server, {100 * used / announced:.0f} % of what "
          "was announced")
    print(f"paper's formula     {100 * attention['paper_budget_fraction']:.2f} %  2 (B S + W) / (L - 1) of the pairs")
    print(f"our count           {100 * attention['budget_fraction']:.2f} %, without compression pairs "
          f"{100 * attention['budget_fraction_without_compressed']:.2f} %")
    print(f"pairs by branch     {attention['used']} of {int(attention['dense_pairs']):,} dense")
    failures = []
    if used > announced:
        failures.append("more memory than announced")
    if length < tokens:
        failures.append(f"{length} prompt tokens, {tokens} asked for")
    if attention["semantics"] != "causal_nsa":
        failures.append(f"ran {attention['semantics']}")
    for failure in failures:
        print("FAILED:", failure)
    print("FAILED" if failures else "PASSED")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=128_000)
    parser.add_argument("--keep", action="store_true", help="keep the working folder")
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="videonsa-long-"))
    try:
        return run(args.build.resolve(), work, args.tokens)
    finally:
        if args.keep:
            print("kept", work)
        else:
            shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
