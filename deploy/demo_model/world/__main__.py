"""Renders encoded clips with questions.

    python -m deploy.demo_model.world short  OUT --seed 1 --count 400          held-out short clips, all question types
    python -m deploy.demo_model.world needle OUT --seed 1 --count 20 --tokens 8192
    python -m deploy.demo_model.world long   OUT --seed 1 --seconds 600        one long clip with a sign for a few seconds
OUT/questions.json lists files, questions, expected answers and sampling settings. Sizes follow --weights/preprocessor_config.json."""
import argparse
import json
import os
import numpy as np
import torch
from . import testset


def main():
    ap = argparse.ArgumentParser(prog="python -m deploy.demo_model.world")
    ap.add_argument("what", choices=["short", "needle", "long"])
    ap.add_argument("out")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--count", type=int, default=0)
    ap.add_argument("--tokens", type=int, default=8192)
    ap.add_argument("--seconds", type=int, default=600)
    ap.add_argument("--level", type=float, default=1.0, help="difficulty of the scenes, 0 to 1")
    ap.add_argument("--types", default="", help="question types, with commas between")
    ap.add_argument("--weights", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "weights"))
    a = ap.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    with open(os.path.join(a.weights, "preprocessor_config.json"), encoding="utf-8") as f: p = json.load(f)
    limits = (p["min_pixels"], p["max_pixels"])
    os.makedirs(a.out, exist_ok=True)
    if a.what == "short": items = testset.short_set(a.out, a.seed, a.count or 400, limits, a.level, a.types.split(",") if a.types else None)
    elif a.what == "needle": items = testset.needle_set(a.out, a.seed, a.count or 20, a.tokens, limits)
    else:
        items = [testset.needle(np.random.default_rng([a.seed, 79]), a.out, 0, 0, limits, seconds=a.seconds, h=112, w=112, fps=1.0)]
        testset.write(a.out, dict(seed=a.seed, limits=list(limits), items=items))
    print(f"{len(items)} items in {a.out}")


if __name__ == "__main__":
    main()
