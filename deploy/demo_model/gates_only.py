"""Trains only the NSA gates of a checkpoint (g_proj_1, g_proj_2 of every layer); all other weights stay as they are.

    python -m deploy.demo_model.gates_only FOLDER OUT --steps 200            a dense folder, or --fresh to forget the gates of an NSA folder
Prints the answer loss on fixed clips with dense attention, with fresh gates and with the trained ones, and writes OUT (bf16). Exits 1 if training did not
lower the loss. The folder may be any Qwen2.5-VL checkpoint of this architecture with the world's tokenizer; for other data replace data.draw."""
import argparse
import json
import os
import sys
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from . import data, model as M
from .train import Batch


def load(folder, fresh, device):
    """The model with frozen weights and trainable gates; new gates start at sigmoid(0) = 0.5 for every branch."""
    from safetensors.torch import load_file
    net = M.VLM(M.Cfg.from_hf(folder))
    sd = {}
    for f in sorted(os.listdir(folder)):
        if f.endswith(".safetensors"): sd.update({k: v.float() for k, v in load_file(os.path.join(folder, f)).items()})
    if fresh: sd = {k: v for k, v in sd.items() if "g_proj" not in k}
    missing, extra = net.load_state_dict(sd, strict=False)
    if extra or any("g_proj" not in k for k in missing): raise SystemExit(f"this folder does not fit: missing {missing[:3]}, unknown {extra[:3]}")
    gates = []
    for n, p in net.named_parameters():
        p.requires_grad_("g_proj" in n)
        if "g_proj" in n:
            gates.append(p)
            if n in missing and "g_proj_2" in n: torch.nn.init.zeros_(p)
    return net.to(device), gates


def loss_of(net, b, dense):
    h, _, _ = b.forward(net, [net.visual(x) for x in b.frames], dense)
    at = b.text["ans"].nonzero(as_tuple=True)
    return F.cross_entropy(net.logits(h[at]).float(), b.text["lab"][at])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder"); ap.add_argument("out")
    ap.add_argument("--steps", type=int, default=200)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--fresh", action="store_true", help="start from new gates")
    ap.add_argument("--size", default="cpu", choices=list(M.SIZES))
    ap.add_argument("--budget", type=int, default=4000)
    ap.add_argument("--clip-tokens", type=int, default=400)
    ap.add_argument("--level", type=float, default=0.4)
    ap.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    a.questions, a.multiturn, a.max_clips, a.long, a.max_tokens = 8, 0.0, 64, 0.0, 1000
    dev = torch.device(a.device)
    if dev.type == "cpu": torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(a.seed)
    tok = Tokenizer.from_file(os.path.join(a.folder, "tokenizer.json"))
    net, gates = load(a.folder, a.fresh, dev)
    rng = np.random.default_rng(a.seed)
    fixed = [Batch(data.draw(rng, tok, a, a.level, kind="clip"), tok, dev, targets=False) for _ in range(8)]

    @torch.no_grad()
    def measure(dense): return float(np.mean([float(loss_of(net, b, dense)) for b in fixed]))
    d, before = measure(True), measure(False)
    print(f"{sum(p.numel() for p in gates)} gate parameters; loss on {len(fixed)} fixed batches: dense {d:.4f}, causal_nsa before {before:.4f}", flush=True)
    opt = torch.optim.AdamW(gates, lr=a.lr, weight_decay=0.0)
    hist, acc = [], 0.0
    for s in range(a.steps):
        for g in opt.param_groups: g["lr"] = a.lr * min(1.0, (s + 1) / 10) * max(0.02, 1 - s / a.steps)
        loss = loss_of(net, Batch(data.draw(rng, tok, a, a.level, kind="clip"), tok, dev, targets=False), False)
        opt.zero_grad(); loss.backward(); opt.step()
        acc += float(loss.detach())
        if (s + 1) % 20 == 0:
            print(f"step {s + 1} loss {acc / 20:.4f}", flush=True); hist.append([s + 1, acc / 20]); acc = 0.0
    after = measure(False)
    print(f"causal_nsa after {after:.4f}: {before - after:+.4f} lower, dense {d:.4f}")
    M.save_folder(net, a.out, os.path.join(a.folder, "tokenizer.json"), tok.get_vocab(), a.size, {"gates.json": dict(dense=d, before=before, after=after, history=hist, args=vars(a))})
    return 0 if after < before else 1


if __name__ == "__main__":
    sys.exit(main())
