"""Trains a tiny model from nothing on one CPU core for about a minute and checks that it learnt: the loss falls and colors are named better than by chance.

    python -m deploy.demo_model.train_test"""
import json
import os
import subprocess
import sys
import tempfile


def main():
    with tempfile.TemporaryDirectory() as d:
        out = os.path.join(d, "weights")
        cmd = [sys.executable, "-m", "deploy.demo_model.train", "--size", "tiny", "--device", "cpu", "--workers", "0", "--steps", "200", "--warm", "0.3", "--ramp", "1", "--top-level", "0.1", "--types", "color,count,yesno", "--wording", "train", "--questions", "8", "--said", "0",
               "--budget", "1800", "--every", "15", "--artefacts", "0", "--fixed", "--seed", "5", "--out", out]
        subprocess.run(cmd, check=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
        with open(os.path.join(out, "metrics.json"), encoding="utf-8") as f: m = json.load(f)
        files = sorted(os.listdir(out))
    hist = [h for h in m["history"] if h["loss"] > 0]
    first, last = hist[0], hist[-1]
    color = sum(h["acc"].get("color", 0.0) for h in hist[-2:]) / 2
    print(f"answer loss {first['loss']:.3f} -> {last['loss']:.3f}; color {color:.2f} right (chance 0.10)")
    need = {"config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"}
    ok = last["loss"] < 0.5 * first["loss"] and color > 0.2 and need <= set(files)
    print("ok" if ok else f"FAILED ({files})")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
