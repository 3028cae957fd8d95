"""Compares nsa() with goldens of the causal_nsa operator.   python -m deploy.demo_model.check_attention FOLDER"""
import glob
import json
import os
import sys
import torch
from safetensors.torch import load_file
from . import model as M


def main(folder):
    worst = 0.0
    for path in sorted(glob.glob(os.path.join(folder, "causal_*.json"))):
        with open(path, encoding="utf-8") as f: j = json.load(f)
        t = load_file(path[:-5] + ".safetensors")
        q, k, v = (t[n].transpose(0, 1)[None] for n in "qkv")
        gate = torch.sigmoid(t["g"] / M.GATE_T)[None]
        for chunk in (2048, 100):                                   # in one pass and in several
            M.CHUNK = chunk
            o = M.nsa(q, k, v, gate, j["block_count"], j["window"])[0].transpose(0, 1)
            rows = t["vision"].bool() & (t["choice_margin"].min(1).values > 1e-5)
            e = float((o - t["o"])[rows].abs().max())
            worst = max(worst, e)
            print(f"{j['name']}: {int(rows.sum())} vision rows, chunks of {chunk}, largest difference {e:.2e}")
    print("agrees" if 0 < worst < 1e-4 else "DIFFERS")
    return 0 if worst < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
