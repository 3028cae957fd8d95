"""Accuracy of a weights folder on encoded files, with this PyTorch code (no server).

    python -m deploy.demo_model.evaluate WEIGHTS FOLDER [--semantics dense] [--shuffled]"""
import argparse
import json
import os
import time
import torch
from .pipeline import Pipeline


def table(rows):
    """rows: dicts with type, wording, combos, right. Prints accuracy by type; returns the overall figure."""
    types = sorted({r["type"] for r in rows})
    for t in types:
        m = [r for r in rows if r["type"] == t]
        s = [r["shuffled"] for r in m if r.get("shuffled") is not None]
        print(f"{t:14s} {len(m):4d}  {sum(r['right'] for r in m) / len(m):6.1%}" + (f"   clip replaced {sum(s) / len(s):6.1%}" if s else ""))
    for key, val in (("wording", "held"), ("combos", "held")):
        m = [r for r in rows if r[key] == val]
        if m: print(f"{val}-out {key:8s} {len(m):4d}  {sum(r['right'] for r in m) / len(m):6.1%}")
    return sum(r["right"] for r in rows) / len(rows)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("weights"); ap.add_argument("folder")
    ap.add_argument("--semantics", default="causal_nsa")
    ap.add_argument("--shuffled", action="store_true", help="also with the visuals of the next item of the type")
    ap.add_argument("--show", type=int, default=0, help="print this many wrong answers")
    a = ap.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    p = Pipeline(a.weights, a.semantics)
    with open(os.path.join(a.folder, "questions.json"), encoding="utf-8") as f: items = json.load(f)["items"]
    rows, cache, t0 = [], [], time.time()
    for it in items:
        vis = [(v["kind"], p.frames(v, a.folder, it["sampling"])) for v in it["visuals"]]
        feats = [p.features(x) for _, x in vis]
        turns = []
        for t in it["turns"]:
            turns.append((t["q"], None))
            got = p.answer(vis, turns, feats=feats)[0]
            turns[-1] = (t["q"], got)
        cache.append((it, vis, feats))
        rows.append(dict(type=it["type"], wording=it["wording"], combos=it["combos"], right=got == it["turns"][-1]["a"], got=got, want=it["turns"][-1]["a"], q=it["turns"][-1]["q"], id=it["id"]))
    if a.shuffled:
        for r, (it, _, _) in zip(rows, cache):
            same = [c for c in cache if c[0]["type"] == it["type"] and c[0]["id"] != it["id"]]
            if not same: continue
            _, vis, feats = same[it["id"] % len(same)]
            r["shuffled"] = p.answer(vis, [(t["q"], t["a"] if i + 1 < len(it["turns"]) else None) for i, t in enumerate(it["turns"])], feats=feats)[0] == it["turns"][-1]["a"]
    for r in [r for r in rows if not r["right"]][:a.show]: print(f"  {r['id']} {r['type']}: {r['q']!r} got {r['got']!r}, right is {r['want']!r}")
    acc = table(rows)
    print(f"overall {acc:.1%} of {len(rows)} ({time.time() - t0:.0f} s)")


if __name__ == "__main__":
    main()
