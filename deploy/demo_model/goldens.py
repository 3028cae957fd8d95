"""Writes goldens/: ten encoded clips (or pairs) with the prompt's ids, the logits of its last position and the greedy ids, fp32 on a CPU.

    python -m deploy.demo_model.goldens deploy/demo_model/weights deploy/demo_model/goldens"""
import json
import os
import sys
import numpy as np
import torch
from safetensors.torch import save_file
from .pipeline import PAD, Pipeline
from .world import testset

TYPES = ["color", "motion", "count", "when", "read", "choice", "second_turn", "two_clips", "picture_clip", "absent"]


def main(folder, out):
    torch.set_num_threads(1)
    p = Pipeline(folder)
    items = testset.short_set(out, 20261123, 10, (p.lo, p.hi), 0.4, TYPES, sizes=[(112, 112), (120, 160), (168, 168), (144, 180)], rates=[8, 10, 12])
    meta, tensors = [], {}
    for k, it in enumerate(items):
        vis = [(v["kind"], p.frames(v, out, it["sampling"])) for v in it["visuals"]]
        turns = [(t["q"], t["a"] if i + 1 < len(it["turns"]) else None) for i, t in enumerate(it["turns"])]
        front, ids = p.prompt(vis, turns)
        text, greedy, logits = p.answer(vis, turns)
        full, v = front.ids.tolist(), 0
        for (s, n), (kind, x) in zip(front.visuals, vis): full[s:s + n] = [p.tok.token_to_id(PAD[kind])] * n
        tensors[f"{k}.input_ids"] = torch.tensor(full + ids, dtype=torch.int32)
        tensors[f"{k}.position_ids"] = torch.cat([front.pos, (torch.arange(len(ids)) + front.next).expand(3, -1)], 1).int()
        tensors[f"{k}.logits"] = logits.float()
        tensors[f"{k}.greedy"] = torch.tensor(greedy + [p.stop], dtype=torch.int32)
        for i, (kind, x) in enumerate(vis): tensors[f"{k}.frames{i}"] = torch.from_numpy(np.ascontiguousarray(x[:4, ::4, ::4]))
        top = logits.topk(2).values
        meta.append(dict(it, turns=[dict(q=q, a=a) for q, a in turns], expected=it["turns"][-1]["a"], answer=text, top1_top2_gap=float(top[0] - top[1]),
                         grids=[[len(x) // 2, x.shape[1] // 14, x.shape[2] // 14] for _, x in vis]))
    save_file(tensors, os.path.join(out, "goldens.safetensors"))
    os.remove(os.path.join(out, "questions.json"))
    with open(os.path.join(out, "goldens.json"), "w", encoding="utf-8") as f:
        json.dump(dict(note="fp32, PyTorch on a CPU, weights widened from bf16. frames: the first four sampled and resized frames, every fourth pixel of each axis. "
                            "logits: last prompt position. greedy: ids up to and with the end token. System text and chat template are the defaults.", items=meta), f, indent=1)
    print(f"{len(meta)} goldens, {sum(os.path.getsize(os.path.join(out, x)) for x in os.listdir(out))} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:3])
