"""Trains the small video model on rendered clips and writes a Hugging Face folder. See README.md for the schedule.

    python -m deploy.demo_model.train --minutes 22 --out OUT          one GPU, from nothing
    python -m deploy.demo_model.train --size tiny --device cpu --minutes 1.5 --out OUT
    python -m deploy.demo_model.train --init FOLDER --minutes 10 --out OUT   goes on from the bf16 weights alone"""
import argparse
import json
import multiprocessing as mp
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")          # no CUDA context before the loader forks
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.distributed as dist
from tokenizers import Tokenizer
from . import data, model as M, optim
from .world.names import ALL_TYPES as TYPES, COLORS, SHAPES
from .world.render import aux_targets, render, to_device

NT = len(TYPES)
PAST = [32, 5, 10, 32]        # classes of what has happened to a row's object: first second, times back, color at first, second of a change


def P(*a):
    print(*a, flush=True)


class Aux(nn.Module):
    """Per-cell attributes from vision rows; only used in training. Shapes and colors are scored with the word embeddings, so that what the vision
    rows hold lies where the words lie. place: also second, row, column and motion (for rows of the language model)."""
    def __init__(self, n, place, tok):
        super().__init__()
        self.sizes = [3, 3 * 37] + ([7, 32, 12, 12, 5] if place else [])
        self.norm, self.out = M.RMSNorm(n, 1e-6), nn.Linear(n, sum(self.sizes))
        self.to_shape, self.to_color = nn.Linear(n, n), nn.Linear(n, n)
        for m in (self.to_shape, self.to_color): nn.init.eye_(m.weight); nn.init.zeros_(m.bias)
        self.none = nn.Parameter(torch.zeros(2, n))
        self.past = nn.Linear(n, sum(PAST)) if place else None
        words = lambda ws: torch.tensor([[tok.encode(p + w).ids[0] for p in ("", " ")] for w in ws])
        self.register_buffer("shape_ids", words(SHAPES)); self.register_buffer("color_ids", words(COLORS))

    def forward(self, f, t, emb):
        x = self.norm(f)
        y = self.out(x).float().split(self.sizes, -1)
        by_word = lambda lin, ids, none: F.linear(lin(x), torch.cat([none[None], emb[ids].sum(1)])).float()
        s, c = by_word(self.to_shape, self.shape_ids, self.none[0]), by_word(self.to_color, self.color_ids, self.none[1])
        r, ch = y[:2]
        B, n, _ = f.shape
        h = t["has"]
        has = h.float()
        ce = lambda l, tg, w: (F.cross_entropy(l.flatten(0, -2), tg.flatten(), reduction="none") * w.flatten()).sum() / w.sum().clamp(min=1)
        wobj = 1.0 + 2.0 * has                                       # object cells are rarer than empty ones
        ch = ch.reshape(B, n, 3, 37)
        loss = 2 * ce(s, t["shp"], wobj) + ce(c, t["col"], wobj) + 2 * ce(ch, t["ch"], 1.0 + 3.0 * (t["ch"] > 0).float())
        loss = loss + 3 * (F.smooth_l1_loss(r, t["reg"].float(), reduction="none").mean(-1) * has).sum() / has.sum().clamp(min=1)
        right = lambda l, tg, m: ((l.argmax(-1) == tg) & m).sum() / m.sum().clamp(min=1)
        acc = [right(s, t["shp"], h), right(c, t["col"], h), right(ch, t["ch"], t["ch"] > 0)]
        if len(y) > 2:
            w = (t["sec"] < 32).float()
            loss = loss + ce(y[2], t["mot"], 0.2 + 2.0 * has) + ce(y[3], t["sec"].clamp(max=31), w) + 0.5 * ce(y[4], t["row"], w) + 0.5 * ce(y[5], t["colm"], w)
            there = has * w
            for l, p in zip(self.past(x).float().split(PAST, -1), t["past"].unbind(-1)): loss = loss + 0.5 * ce(l, p, there * (1.0 + 3.0 * (p > 0).float()))
            loss = loss + 2 * ce(y[6], t["ev"], 0.3 + 5.0 * (t["ev"] > 0).float())
            acc += [right(y[2], t["mot"], h), right(y[3], t["sec"], t["sec"] < 32), right(y[5], t["colm"], t["sec"] < 32), right(y[6], t["ev"], t["ev"] > 0)]
        return loss, torch.stack(acc).detach()


class Said(nn.Module):
    """What text rows hold half way: at every mention of an object what there is to know about it (pairs: and how the one mentioned before compares
    with it), and at the end of the question its answer."""
    def __init__(self, n, pairs=False):
        super().__init__()
        self.norm, self.out = M.RMSNorm(n, 1e-6), nn.Linear(n, sum(data.TRAITS) + 3)
        self.norm2, self.word = M.RMSNorm(n, 1e-6), nn.Linear(n, n)
        nn.init.eye_(self.word.weight); nn.init.zeros_(self.word.bias)
        self.pair = nn.Linear(n, data.PAIRS) if pairs else None

    def forward(self, x, marks, said, emb, cell):
        """x [B, LT, hidden]; marks [M, 2 + traits + pairs] and said [S, 3] of the loader; cell: width of a cell. Losses of both and shares right
        (second, place within half a cell, answer, comparison)."""
        at = self.norm(x[marks[:, 0].long(), marks[:, 1].long()])
        y = self.out(at).float().split(data.TRAITS + [3], -1)
        t, pair = marks[:, 2:2 + data.N_TRAITS], marks[:, 2 + data.N_TRAITS:]
        loss = sum(F.cross_entropy(l, c.long(), ignore_index=-1, reduction="sum") for l, c in zip(y[:-1], t.unbind(1)))
        there = (t[:, :1] > 0).float()
        want = t[:, -3:] / torch.tensor([8 * cell, 8 * 28.0, 16.0], device=t.device)
        loss = (loss + 8 * (F.smooth_l1_loss(y[-1], want, reduction="none", beta=0.1) * there).sum()) / max(1, len(t))
        share = torch.zeros((), device=x.device)
        if self.pair is not None:
            z, known = self.pair(at).float(), (pair >= 0).float()
            loss = loss + (F.binary_cross_entropy_with_logits(z, pair.clamp(min=0), reduction="none") * known).sum() / known.sum().clamp(min=1)
            share = (((z > 0) == (pair > 0)).float() * known).sum() / known.sum().clamp(min=1)
        lg = F.linear(self.word(self.norm2(x[said[:, 0], said[:, 1]])), emb).float()
        near = ((y[-1] - want)[:, :2].abs().amax(1) < 1 / 16).float()[:, None]
        acc = [((y[4].argmax(-1) == t[:, 4])[:, None] * there).sum() / there.sum().clamp(min=1), (near * there).sum() / there.sum().clamp(min=1), (lg.argmax(-1) == said[:, 2]).float().mean(), share]
        return loss, F.cross_entropy(lg, said[:, 2], reduction="sum") / max(1, len(said)), torch.stack(acc).detach()


class Late(nn.Module):
    """The last row of a multiple choice holds the answer in words before it names the letter."""
    def __init__(self, n):
        super().__init__()
        self.norm, self.word = M.RMSNorm(n, 1e-6), nn.Linear(n, n)
        nn.init.eye_(self.word.weight); nn.init.zeros_(self.word.bias)

    def forward(self, x, late, emb):
        if not len(late): return x.sum() * 0
        return F.cross_entropy(F.linear(self.word(self.norm(x[late[:, 0], late[:, 1]])), emb).float(), late[:, 2])


class Batch:
    """A batch on the device: frames and targets per visual, front layout, packed text."""
    def __init__(self, raw, tok, dev, artefacts=True, targets=True):
        self.frames, parts, tg, fronts = [], [], [], [("text", tok.encode(data.HEAD).ids)]
        for i, (sp, (kind, t, hm, wm), src) in enumerate(zip(raw["specs"], raw["grids"], raw["src"])):
            Hs, Ws = hm * 28.0, wm * 28.0 * raw["aspect"]
            self.frames.append(render(sp, hm * 28, wm * 28, Hs, Ws, dev, src, artefacts))
            if i: fronts.append(("text", tok.encode("<|vision_end|><|vision_start|>").ids))
            fronts.append((kind, t, hm, wm))
            if targets:
                a = aux_targets(to_device({k: sp[k] for k in ("cx", "cy", "vis", "shp", "col", "mot", "rad", "txt", "svis", "sbox")}, dev), hm, wm, Hs, Ws)
                B = self.frames[-1].shape[0]
                tt, rr, cc = torch.meshgrid(torch.arange(t, device=dev), torch.arange(hm, device=dev), torch.arange(wm, device=dev), indexing="ij")
                a.update(sec=tt.flatten().expand(B, -1), row=rr.flatten().expand(B, -1), colm=cc.flatten().expand(B, -1))
                tg.append(a)
        self.targets = {k: torch.cat([t[k] for t in tg], 1) for k in tg[0]} if tg else None
        self.front = M.Front(fronts, 2, dev)
        if raw["kind"] == "frames": return
        self.text = {k: torch.from_numpy(v).to(dev, non_blocking=True) for k, v in raw.items() if isinstance(v, np.ndarray)}
        self.isolated, self.cell = raw["isolated"], 28.0 * raw["aspect"]

    def forward(self, net, feats, dense=False, tap=None, text_taps=()):
        mask = M.text_mask(self.text["seg"], self.front.n, self.isolated)
        return net(feats, self.front, self.text["ids"], self.text["off"], mask, dense, tap, text_taps)

    def right(self, h, net):
        """Per question [B * Q]: all tokens of its last answer are the most likely ones (what greedy decoding would give)."""
        o = self.text
        B, Q = o["typ"].shape
        at = o["fin"].nonzero(as_tuple=True)
        wrong = (net.logits(h[at]).argmax(-1) != o["lab"][at]).float()
        qi = at[0] * Q + o["seg"][at]
        return torch.zeros(B * Q, device=h.device).index_add_(0, qi, wrong) == 0


@torch.no_grad()
def quick_eval(net, tok, dev, a, amp, rng, kinds, wording, combos, dense=False, batches=1):
    """Greedy accuracy per type on fresh clips; shuffled: with the visuals of the next clip."""
    ok, n, sh = np.zeros(NT), np.zeros(NT), np.zeros(NT)
    q = argparse.Namespace(**dict(vars(a), budget=min(a.budget, 24000), multiturn=0.0, questions=8, gap=0))
    for kind in kinds * batches:
        raw = data.draw(rng, tok, q, 1.0, 1.0, wording, combos, kind)
        b = Batch(raw, tok, dev, targets=False)
        with amp():
            feats = [net.visual(f) for f in b.frames]
            r = b.right(b.forward(net, feats, dense)[0], net).cpu().numpy()
            s = b.right(b.forward(net, [f.roll(1, 0) for f in feats], dense)[0], net).cpu().numpy()
        ty = raw["typ"].flatten()
        for i in range(NT):
            m = ty == i
            n[i] += m.sum(); ok[i] += r[m].sum(); sh[i] += s[m].sum()
    has = n > 0                                                       # overall: every type counts the same, as in the test sets
    return {t: [int(n[i]), round(float(ok[i] / n[i]), 3), round(float(sh[i] / n[i]), 3)] for i, t in enumerate(TYPES) if n[i]}, \
        round(float((ok[has] / n[has]).mean()), 4), round(float((sh[has] / n[has]).mean()), 4)


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument("--minutes", type=float, default=22)
    ap.add_argument("--steps", type=int, default=0, help="end after this many steps instead of the minutes (for tests)")
    ap.add_argument("--out", default="out")
    ap.add_argument("--init", default="")
    ap.add_argument("--init-text", default="", help="start the language model (not the vision tower) from this folder")
    ap.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ap.add_argument("--size", default="gpu", choices=list(M.SIZES))
    ap.add_argument("--ranks", type=int, default=1, help="processes that share the work on a CPU, one core each")
    ap.add_argument("--fixed", action="store_true", help="the same batches in every run (with one loader)")
    ap.add_argument("--lr", type=float, default=1.5e-3, help="AdamW: embeddings, norms, biases, patch embedding")
    ap.add_argument("--muon-lr", type=float, default=0.02, help="Muon: the matrices of the layers; 0: AdamW for all")
    ap.add_argument("--budget", type=int, default=49152, help="language-model rows per step and process")
    ap.add_argument("--clip-tokens", type=int, default=1500, help="most vision tokens of a short clip")
    ap.add_argument("--artefacts", type=float, default=0.8, help="share of batches with simulated encoding")
    ap.add_argument("--max-clips", type=int, default=160)
    ap.add_argument("--max-tokens", type=int, default=16000)
    ap.add_argument("--gap", type=int, default=2500, help="positions by which half of the batches move the text away from the visuals, at most: what a long clip does")
    ap.add_argument("--questions", type=int, default=12)
    ap.add_argument("--wording", default="more", choices=["more", "train"], help="more: many wordings and helper questions; train: those of the test sets only")
    ap.add_argument("--theta", type=float, default=0, help="rotary base instead of that of the size or the folder")
    ap.add_argument("--sections", default="", help="channels for time, height and width, with commas between, instead of those of the size or the folder")
    ap.add_argument("--said", type=float, default=0.3, help="weight of the targets for mentions of objects and for early answers; falls to a third")
    ap.add_argument("--hold", type=float, default=0.25, help="share of the time with the full learning rate")
    ap.add_argument("--trial", action="store_true", help="find out at the start if batches of half the budget are nearly as fast, and then use them")
    ap.add_argument("--pack", default="", help="also write the folder as FILE.tar in pieces of 15 MB now and then")
    ap.add_argument("--multiturn", type=float, default=0.15, help="share of batches packed as one conversation per clip")
    ap.add_argument("--dense", type=float, default=0.1, help="share of batches with dense attention in the vision rows")
    ap.add_argument("--long", type=float, default=0.16, help="weight of long clips at the end of the curriculum")
    ap.add_argument("--warm", type=float, default=0.05, help="share of the time for the vision tower alone (auxiliary targets)")
    ap.add_argument("--mix", type=float, default=0.0, help="share of later steps that again teach the vision tower alone")
    ap.add_argument("--top-level", type=float, default=1.0, help="difficulty at the end of the curriculum")
    ap.add_argument("--ramp", type=float, default=0.38, help="share of the time after which the curriculum is complete")
    ap.add_argument("--aux", type=float, default=0.5, help="weight of the auxiliary losses after the warm phase; falls linearly to a tenth")
    ap.add_argument("--types", default="", help="only these question types about single clips, with commas between")
    ap.add_argument("--workers", type=int, default=-1)
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--every", type=int, default=100)
    ap.add_argument("--profile", action="store_true", help="print the times of the parts, forward and backward")
    ap.add_argument("--seed", type=int, default=0)
    return ap.parse_args()


def fuse(net):
    """Compiles what lies between the attentions, and parts of the renderer; shapes stay dynamic."""
    from .world import render as R
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = 32
    for where, names in ((M.Layer, ("pre", "post")), (M.VBlock, ("pre", "post")), (M, ("patch_rows",)), (R, ("to_blocks", "from_blocks", "quantise"))):
        for n in names: setattr(where, n, torch.compile(getattr(where, n), dynamic=True))


def spawn(n):
    """Runs this command n times, as ranks of one group."""
    import subprocess
    import tempfile
    with tempfile.TemporaryDirectory() as d:
        ps = [subprocess.Popen([sys.executable, "-m", "deploy.demo_model.train"] + sys.argv[1:], env=dict(os.environ, DEMO_RANK=str(r), DEMO_STORE=d + "/store", OMP_NUM_THREADS="1"))
              for r in range(n)]
        return max(p.wait() for p in ps)


def share_gradients(params, ranks):
    """Mean over the processes; a missing gradient counts as zero."""
    for p in params:
        if p.grad is None: p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in params])
    dist.all_reduce(flat)
    flat /= ranks
    at = 0
    for p in params:
        p.grad.copy_(flat[at:at + p.numel()].view_as(p)); at += p.numel()


def main():
    a = arguments()
    t_start = time.time()
    dev = torch.device(a.device)
    cuda = dev.type == "cuda"
    a.types = a.types.split(",") if a.types else None
    a.rank = int(os.environ.get("DEMO_RANK", 0))
    if a.ranks > 1 and "DEMO_RANK" not in os.environ:
        sys.exit(spawn(a.ranks))
    if a.ranks > 1: dist.init_process_group("gloo", init_method="file://" + os.environ["DEMO_STORE"], rank=a.rank, world_size=a.ranks)
    if not cuda: torch.set_num_threads(1)
    if a.size == "tiny": a.budget, a.max_clips, a.every = min(a.budget, 4000), 16, min(a.every, 20)
    shared, scale = mp.Array("d", [0.0, 1.0], lock=False), mp.Value("d", 1.0, lock=False)
    nw = a.workers if a.workers >= 0 else (max(2, min(9, (os.cpu_count() or 4) - 4)) if cuda else 0)
    it = iter(torch.utils.data.DataLoader(data.Stream(a, shared, scale), batch_size=None, collate_fn=lambda x: x, num_workers=nw,
                                          **(dict(prefetch_factor=2, multiprocessing_context="fork") if nw else {})))
    if nw: first = next(it)                                          # the workers exist before CUDA is touched
    tok = Tokenizer.from_file(data.TOK)
    ids = tok.get_vocab()
    torch.manual_seed(a.seed)
    c = M.Cfg.from_hf(a.init) if a.init else M.Cfg(vocab=-(-len(ids) // 64) * 64, **M.SIZES[a.size][0])
    if a.theta: c.theta = a.theta
    if a.sections: c.mrope = [int(x) for x in a.sections.split(",")]
    net = M.VLM(c).to(dev)
    if a.init: P("init", a.init, M.load_weights(net, a.init))
    if a.init_text: P("init of the language model", a.init_text, M.load_weights(net, a.init_text, "visual."))
    tap = 1 if a.size == "tiny" else 2
    aux = nn.ModuleList([Aux(c.hidden, False, tok), Aux(c.hidden, True, tok), Said(c.hidden), Said(c.hidden, True), Late(c.hidden)]).to(dev)
    taps = (c.depth // 2, c.depth // 2 + 1, c.depth - 2) if c.depth > 4 else (1, 2, 2)
    resumed = bool(a.init) and os.path.exists(a.init + "/training_state.pt")
    if resumed: P("heads", aux.load_state_dict(torch.load(a.init + "/training_state.pt", map_location=dev)["aux"], strict=False))
    rng = np.random.default_rng([a.seed + 12345, a.rank])
    torch.manual_seed(a.seed + 1000 * a.rank + 1)
    P(f"parameters {sum(p.numel() for p in net.parameters()) / 1e6:.3f} M (vision {sum(p.numel() for p in net.visual.parameters()) / 1e6:.2f} M), vocabulary {c.vocab}, "
      f"torch {torch.__version__}, {torch.cuda.get_device_name() if cuda else 'cpu'}, cpus {os.cpu_count()}")
    amp = (lambda: torch.autocast("cuda", torch.bfloat16)) if cuda else (lambda: torch.autocast("cpu", enabled=False))
    if cuda:
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.enable_cudnn_sdp(False)
    if a.compile: fuse(net)
    opts, params = optim.make(net, aux, a.lr, a.muon_lr, cuda)
    t_train, span = time.time(), max(1.0, a.minutes * 60 - (time.time() - t_start))
    hist, step, clips, seen, last_save, last_eval = [], 0, 0, 0, time.time(), time.time()
    acc_ok, acc_n, run = torch.zeros(NT, device=dev), torch.zeros(NT, device=dev), torch.zeros(20, device=dev)
    tick = dict(t=time.time(), rows=0, wait=0.0, long=0)
    metrics = dict(args=vars(a), types=TYPES, history=hist)

    def save():
        metrics.update(steps=step, questions_seen=int(seen), clips_seen=int(clips), seconds=round(time.time() - t_start, 1))
        M.save_folder(net, a.out + ".new", data.TOK, ids, a.size)
        torch.save(dict(aux={k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in aux.state_dict().items()}), a.out + ".new/training_state.pt")
        with open(os.path.join(a.out + ".new", "metrics.json"), "w", encoding="utf-8") as f: json.dump(metrics, f)
        if os.path.isdir(a.out): os.rename(a.out, a.out + f".old{step}")
        os.rename(a.out + ".new", a.out)
        os.system(f"rm -rf {a.out}.old*")
        if a.pack: os.system(f"tar -C {a.out} -cf - . | split -b 15000000 -d - {a.pack}.tar.")

    if cuda: side, main_stream, pool = torch.cuda.Stream(), torch.cuda.current_stream(), ThreadPoolExecutor(1)

    def following(only_vision):
        """The next raw batch of the loader; those drawn before the phase changed are dropped."""
        nonlocal first
        w0 = time.time()
        while True:
            raw, first = (first, None) if nw and first is not None else (next(it), None)
            if a.mix or (raw["kind"] == "frames") == only_vision: break
        tick["wait"] += time.time() - w0
        return raw

    def prepare(raw, artefacts):
        """The batch on the device. On a GPU this runs in a thread and a stream of its own, beside the backward pass of the batch before."""
        if not cuda: return raw, Batch(raw, tok, dev, artefacts), None
        with torch.cuda.stream(side):
            side.wait_stream(main_stream)                            # what is freed by now may be in use there
            return raw, Batch(raw, tok, dev, artefacts), side.record_event()
    coming = None
    trial = {}                                                       # rows a second with the small and the large batch; the better one stays
    if a.trial: scale.value = 0.55
    tracer = torch.profiler.profile() if a.profile and cuda else None
    while True:
        if tracer and step == 40: tracer.start(); P("tracing", raw["kind"], raw["grids"])
        if tracer and step == 46:
            tracer.stop(); P(tracer.key_averages().table(sort_by="self_cuda_time_total", row_limit=28, max_name_column_width=70)); tracer = None; a.profile = False
            P("compiled:", dict(torch._dynamo.utils.counters["stats"]), dict(torch._dynamo.utils.counters["graph_break"])); tick = dict(t=time.time(), rows=0, wait=0.0, long=0)
        pr = step / a.steps if a.steps else (time.time() - t_train) / span
        if a.ranks > 1:                                              # all processes go by the clock of the first
            x = torch.tensor([pr], dtype=torch.float64); dist.broadcast(x, 0); pr = float(x)
        if pr >= 1: break
        warm = pr < (0.0 if a.init else a.warm)
        level = a.top_level if a.init else 0.1 if warm else min(a.top_level, 0.1 + (a.top_level - 0.1) * (pr - a.warm) / (a.ramp - a.warm))
        only_vision = warm or (step * 0.6180339) % 1.0 < a.mix
        shared[0], shared[1] = min(1.0, level), float(only_vision)
        f = min(1.0, (step + 1) / (20 if a.size == "tiny" else 150 if cuda else 60)) * (1.0 if pr < a.hold else max(0.01, (1 - pr) / (1 - a.hold)))
        for o in opts:
            for g in o.param_groups: g["lr"] = g["base"] * f
        try:
            prof = [time.time()]
            def mark():
                if a.profile:
                    if cuda: torch.cuda.synchronize()
                    prof.append(time.time())
            raw, b, ready = coming.result() if coming else prepare(following(only_vision), rng.random() < a.artefacts)
            if cuda:
                main_stream.wait_event(ready)
                coming = pool.submit(prepare, following(only_vision), rng.random() < a.artefacts)
            only_vision = raw["kind"] == "frames"
            mark()
            with amp():
                feats = [net.visual(x) for x in b.frames]
                new_heads = bool(a.init) and step < 120 and not resumed       # heads of an earlier run are not kept with the weights: they learn first
                tail = (lambda x: x.detach()) if new_heads else (lambda x: x)
                la, acc0 = aux[0](tail(torch.cat(feats, 1)), b.targets, net.model.embed_tokens.weight)
                run[0] += la.detach(); run[1:4] += acc0
                loss = la
                mark()
                if not only_vision:
                    dense = rng.random() < a.dense
                    h, mid, texts = b.forward(net, feats, dense, tap, taps)
                    vis = torch.cat([mid[:, s:s + n] for s, n in b.front.visuals], 1)
                    lb, acc1 = aux[1](tail(vis), b.targets, net.model.embed_tokens.weight)
                    o = b.text
                    lg, want = net.logits(h[o["ans_at"][0], o["ans_at"][1]]).float(), o["want"]      # only answers are learnt
                    l_ans = F.cross_entropy(lg, want, reduction="sum") / max(1, raw["said"].shape[0])
                    fall = 1 - min(1.0, pr / 0.7)
                    loss = l_ans + a.aux * (0.1 + 0.9 * fall) * (la + lb)
                    if a.said: loss = loss + a.said * (1 + 2 * fall) / 3 * aux[4](tail(texts[2]), o["late"], net.model.embed_tokens.weight)
                    for m, x in zip(aux[2:4], texts):
                        l_marks, l_said, acc2 = m(tail(x), o["marks"], o["said"], net.model.embed_tokens.weight, b.cell)
                        loss = loss + a.said * (1 + 2 * fall) / 3 * (0.3 * l_marks + l_said)
                    run[4] += lb.detach(); run[5:12] += acc1; run[12] += l_ans.detach(); run[13] += 1; run[14:18] += acc2; run[18] += l_marks.detach()
            mark()
            for x in opts: x.zero_grad(set_to_none=True)
            loss.backward()
            mark()
            if a.ranks > 1: share_gradients(params, a.ranks)
            gn = torch.nn.utils.clip_grad_norm_(params, 1.0)
            if step % 25 == 0 and not torch.isfinite(gn): P("gradient not finite at step", step)
            for x in opts: x.step()
            mark()
            if a.profile: P(raw["kind"], raw["grids"], raw["ids"].shape, "ms: batch, vision, language, backward, step", [round(1e3 * (y - x)) for x, y in zip(prof, prof[1:])])
        except torch.OutOfMemoryError:
            scale.value *= 0.8
            if coming: coming.cancel()
            coming = None
            loss = feats = lg = h = la = lb = mid = vis = b = o = texts = x = l_marks = l_said = None
            for x in opts: x.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            P(f"out of memory at step {step}; budget now {scale.value * a.budget:.0f}")
            continue
        if not only_vision:
            with torch.no_grad():
                wrong = ((lg.argmax(-1) != want) & o["want_fin"]).float()
                ok = (torch.zeros(o["typ"].numel(), device=dev).index_add_(0, o["want_q"], wrong) == 0).float()
                ty = o["typ"].flatten(); v = (ty >= 0).float()
                acc_n.index_add_(0, ty.clamp(min=0), v); acc_ok.index_add_(0, ty.clamp(min=0), v * ok)
            seen += a.ranks * int((raw["typ"] >= 0).sum())
        if a.trial and step in (60, 110, 150, 200):
            if cuda: torch.cuda.synchronize()
            trial[step] = time.time(), seen
            if step == 110: scale.value *= 1 / 0.55
            if step == 200:
                rate = [(trial[y][1] - trial[x][1]) / (trial[y][0] - trial[x][0]) for x, y in ((60, 110), (150, 200))]
                P(f"questions a second with the small batch {rate[0]:.0f}, with the large one {rate[1]:.0f}; memory {torch.cuda.max_memory_reserved() / 2 ** 30 if cuda else 0:.0f} GB")
                if rate[1] < 1.25 * rate[0]: scale.value *= 0.55
        tick["rows"] += a.ranks * raw["ids"].shape[0] * (raw["ids"].shape[1] + b.front.n)
        tick["long"] += raw["kind"] == "long"
        clips += a.ranks * raw["ids"].shape[0]
        step += 1
        if step % a.every == 0 and a.rank == 0:
            r = run.tolist(); n, m = a.every, max(1.0, r[13]); dt = time.time() - tick["t"]
            an, ao = acc_n.tolist(), acc_ok.tolist()
            acc = {t: round(ao[i] / an[i], 3) for i, t in enumerate(TYPES) if an[i] > 0}
            mean = sum(ao) / max(1.0, sum(an))
            mem = torch.cuda.max_memory_allocated() / 2 ** 30 if cuda else 0
            P(f"step {step} {time.time() - t_start:.0f}s {'warm' if warm else f'level {level:.2f}'} loss {r[12] / m:.4f} right {mean:.3f} | vision {r[0] / n:.2f} shape {r[1] / n:.3f} color {r[2] / n:.3f} "
              f"char {r[3] / n:.3f} | rows {r[4] / m:.2f} shape {r[5] / m:.3f} color {r[6] / m:.3f} char {r[7] / m:.3f} motion {r[8] / m:.3f} second {r[9] / m:.3f} column {r[10] / m:.3f} event {r[11] / m:.3f} | "
              f"mentions {r[18] / m:.2f} second {r[14] / m:.3f} place {r[15] / m:.3f} early answer {r[16] / m:.3f} compared {r[17] / m:.3f} | "
              f"{n / dt:.2f} step/s {tick['rows'] / dt:.0f} rows/s wait {tick['wait'] / dt:.0%} long {tick['long']} mem {mem:.0f}G")
            if acc: P("   " + " ".join(f"{k} {v:.2f}" for k, v in acc.items()))
            hist.append(dict(step=step, s=round(time.time() - t_start, 1), level=round(level, 3), loss=round(r[12] / m, 4), vision=round(r[0] / n, 4), rows=round(r[4] / m, 4), right=round(mean, 4),
                             aux=[round(x / n, 4) for x in r[1:4]] + [round(x / m, 4) for x in r[5:12]], said=[round(x / m, 4) for x in r[14:19]], acc=acc, lr=f))
            run.zero_(); acc_ok.zero_(); acc_n.zero_(); tick = dict(t=time.time(), rows=0, wait=0.0, long=0)
        if time.time() - last_save > 120 and a.rank == 0:
            save(); last_save = time.time()
        if time.time() - last_eval > 330 and not warm and a.rank == 0 and cuda:
            e = quick_eval(net, tok, dev, a, amp, rng, ["clip", "two_clips", "picture_clip"], "held", "train")
            d = quick_eval(net, tok, dev, a, amp, rng, ["clip"], "train", "train", dense=True)
            P("   held-out wordings", e[1], "shuffled", e[2], {k: v[1] for k, v in e[0].items()}, "dense", d[1])
            hist.append(dict(step=step, s=round(time.time() - t_start, 1), held=e, dense=d)); last_eval = time.time()
    P(f"training ends at step {step}, {seen} questions, {clips} clips, {time.time() - t_start:.0f}s")
    if a.rank: os._exit(0)
    save()
    if a.steps: os._exit(0)
    for name, kinds, w, cb, dn in (("trained wordings", ["clip", "two_clips", "picture_clip"], "train", "train", False), ("held-out wordings", ["clip", "two_clips", "picture_clip"], "held", "train", False),
                                   ("held-out pairs", ["clip"], "train", "held", False), ("dense attention", ["clip", "two_clips", "picture_clip"], "train", "train", True)) + \
            ((("long", ["long"], "train", "train", False),) if cuda else ()):
        e = quick_eval(net, tok, dev, a, amp, np.random.default_rng(99), kinds, w, cb, dn, 4 if cuda else 1)
        metrics.setdefault("final", {})[name] = e
        P(name, e[1], "shuffled", e[2], {k: v[1] for k, v in e[0].items()})
    save()
    P("done", a.out)
    os._exit(0)


if __name__ == "__main__":
    main()
