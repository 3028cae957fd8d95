"""Training batches: what is drawn, how questions are packed behind the visuals. Runs in loader workers (numpy only)."""
import os
import re
import time
import numpy as np
import torch
from tokenizers import Tokenizer
from .world.names import ALL_TYPES, TYPES
from .world.questions import ask, ask_many, ask_picture, ask_two, sample_pair
from .world.scene import FILE_FPS, sample_scene, sample_times, spec, stack

TOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.json")
HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
GRIDS = [(6, 6), (6, 7), (7, 6), (6, 8), (8, 6), (7, 7), (5, 8), (8, 5), (6, 9), (9, 6), (7, 8), (8, 7), (8, 8), (6, 10), (10, 6), (5, 9), (5, 10), (4, 10)]
SMALL_GRIDS = [(4, 4), (4, 5), (5, 4), (4, 4), (4, 5), (5, 4), (3, 6), (6, 3)]
LENGTHS = [2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 30]
LONG_TYPES = ["needle", "color", "shape", "count", "yesno", "relation", "size", "absent", "choice"]


ASK = "<|im_end|>\n<|im_start|>assistant\n"
OPTION = re.compile(r"\n([ABCD])\. [^\n]+")
TRAITS = [2, 10, 10, 6, 32, 32, 32, 5]       # classes: there, color at the start, at the end, motion, first second, last, second of a change (0: none), blinks
N_TRAITS = len(TRAITS) + 3                   # and column, row, radius
PAIRS = 4                                    # the object mentioned before, seen from this one: left, above, smaller, earlier
_first = {}


def enc_first(tok, word):
    """The first token of an answer."""
    if word not in _first: _first[word] = tok.encode(word).ids[0]
    return _first[word]


def traits(o):
    """What there is to know about a mentioned object, -1 where it does not apply."""
    if o is None: return [0] + [-1] * (N_TRAITS - 1)
    mx, my = _middle(o)
    cut = lambda t: float(min(31, int(t)))
    return [1, o["c"], o["c"] if o["c2"] is None else o["c2"], 0 if o["dir"] is None else o["dir"] + 1, cut(o["t0"]), cut(np.ceil(o["t1"]) - 1), 0.0 if o["tc"] is None else cut(o["tc"]),
            len(o["offs"]), mx, my, o["r"]]


def compared(o, before, sc):
    """Where `before`, the object mentioned before o, is left of, above, smaller and earlier (1), the reverse (0), or neither clearly (-1)."""
    out = [-1] * PAIRS
    if o is None or before is None or o is before: return out
    near = 0.17 * min(sc["H"], sc["W"])
    if o["dir"] is None and before["dir"] is None:
        for i, d in enumerate((o["x"] - before["x"], o["y"] - before["y"])):
            if abs(d) > near: out[i] = int(d > 0)
    if o["big"] != before["big"] and max(o["r"], before["r"]) >= 1.3 * min(o["r"], before["r"]): out[2] = int(before["r"] < o["r"])
    if int(o["t0"]) != int(before["t0"]): out[3] = int(before["t0"] < o["t0"])
    return out


def _middle(o):
    p = o["path"]
    if p is None: return o["x"], o["y"]
    return ((p[1] + p[3]) / 2, (p[2] + p[4]) / 2) if p[0] == "line" else (p[1], p[2])


def pack(tok, items, Q, isolated=True):
    """items: per clip up to Q questions (dicts with turns). One segment per question behind the visuals, each starting with the end-of-vision mark.
    isolated: a segment is what a prompt with this question alone would be; otherwise the clip's questions form one conversation."""
    B = len(items)
    texts, where = [], []
    for b, l in enumerate(items):
        for k, it in enumerate(l[:Q]):
            for t, (q, a) in enumerate(it["turns"]):
                head = "<|vision_end|>" if t == 0 and (isolated or k == 0) else "\n<|im_start|>user\n"
                texts += [head + q + ASK, a + "<|im_end|>"]
                where.append((b, k, t == len(it["turns"]) - 1))
    full = tok.encode_batch(texts)
    enc = [e.ids for e in full]
    said, marks, late = [], [], []
    need = np.zeros(B, np.int64)
    for i, (b, _, _) in enumerate(where): need[b] += len(enc[2 * i]) + len(enc[2 * i + 1])
    LT = int(-(-need.max() // 32) * 32)
    ids = np.full((B, LT), tok.token_to_id("<|endoftext|>"), np.int64); off = np.zeros((B, LT), np.int64); seg = np.full((B, LT), -1, np.int64)
    lab = np.full((B, LT), -100, np.int64); ans = np.zeros((B, LT), bool); fin = np.zeros((B, LT), bool); typ = np.full((B, Q), -1, np.int64)
    cur, base, last = np.zeros(B, np.int64), np.zeros(B, np.int64), {}
    for i, (b, k, final) in enumerate(where):
        p, a = enc[2 * i], enc[2 * i + 1]
        s = cur[b]; e = s + len(p) + len(a)
        if isolated and last.get(b) != k: base[b] = s
        last[b] = k
        ids[b, s:s + len(p)] = p; ids[b, s + len(p):e] = a
        off[b, s:e] = np.arange(s, e) - base[b]
        seg[b, s:e] = k
        lab[b, s:e - 1] = ids[b, s + 1:e]
        ans[b, s + len(p) - 1:e - 1] = True
        fin[b, s + len(p) - 1:e - 1] = final
        it = items[b][k]
        typ[b, k] = ALL_TYPES.index(it["type"])
        if final and (it["type"] != "choice" or "told" in it):
            q, ends = it["turns"][-1][0], [z for _, z in full[2 * i].offsets]
            at = len(texts[2 * i]) - len(q) - len(ASK)
            token = lambda c: s + int(np.searchsorted(ends, at + c))           # the token that holds character c - 1 of the question
            told = enc_first(tok, it.get("told") or it["turns"][-1][1])
            said.append((b, token(q.index("\nA. ") if it["type"] == "choice" else len(q)), told))
            if it["type"] == "choice":                                         # every option holds its letter, and the last row the answer in words
                late.append((b, s + len(p) - 1, told))
                said += [(b, token(m.end()), enc_first(tok, m.group(1))) for m in OPTION.finditer(q)]
            before = None
            for c, o in it.get("marks", ()):
                marks.append((b, token(c), *traits(o), *compared(o, before, it["scene"])))
                before = o
        cur[b] = e
    at = ans.nonzero()
    return dict(ids=ids, off=off, seg=seg, lab=lab, ans=ans, fin=fin, typ=typ, isolated=isolated, ans_at=np.stack(at), want=lab[at], want_fin=fin[at], want_q=at[0] * Q + seg[at],
                said=np.array(said, np.int64).reshape(-1, 3), late=np.array(late, np.int64).reshape(-1, 3), marks=np.array(marks, np.float32).reshape(-1, 2 + N_TRAITS + PAIRS))


def draw(rng, tok, a, level, scale=1.0, wording="train", combos="train", kind=None):
    """One batch at the difficulty `level` in [0, 1]. a: object with budget, max_clips, questions, multiturn, size. wording "more": questions of training,
    with helper questions; otherwise those of the test sets."""
    aspect = float(rng.uniform(0.9, 1.12))
    grids = SMALL_GRIDS if a.size != "gpu" else GRIDS
    if kind == "frames": return frames(rng, a, grids, aspect)
    if kind is None and getattr(a, "types", None): kind = "clip"
    if kind is None:
        ks = ["clip", "image", "two_clips", "picture_clip", "long"]
        p = np.array([1.0, 0.02, 0.15 if level > 0.35 else 0, 0.09 if level > 0.35 else 0, a.long * min(1.0, (level - 0.6) / 0.4) if level > 0.6 else 0])
        kind = ks[rng.choice(5, p=p / p.sum())]
    grid = lambda: grids[0] if a.size == "tiny" or level < 0.08 else grids[rng.integers(len(grids) if level > 0.3 else 3)]
    top = 4 if a.size == "tiny" else 6 if level < 0.2 else 8 if level < 0.45 else 12 if level < 0.75 else 30
    ds = [d for d in LENGTHS if d <= top]
    def length(cap):
        l = np.array([d for d in ds if d <= cap]); w = np.where(l > 12, 0.2, np.where(l < 4, 0.6, 1.0))
        return int(rng.choice(l, p=w / w.sum()))
    fps, patches = 2.0, None
    if kind == "long":
        hm, wm = [(4, 4), (5, 5), (6, 6), (6, 6), (6, 8), (7, 7), (8, 8)][rng.integers(7)] if a.size == "gpu" else grid()
        tokens = np.exp(rng.uniform(np.log(min(1200, a.max_tokens / 3)), np.log(a.max_tokens)))
        fps = 1.0 if rng.random() < 0.3 else 2.0
        vis = [("video", max(16, int(tokens / (hm * wm) * (2 / fps))), hm, wm)]
    elif kind == "image": vis = [("image", 1, *grid())]
    elif kind == "clip":
        hm, wm = grid(); vis = [("video", length(max(2, a.clip_tokens // (hm * wm))), hm, wm)]
    elif kind == "two_clips":
        vis = [("video", length(10 if a.size == 'gpu' else 6), *grid()), ("video", length(10 if a.size == 'gpu' else 6), *grid())]
    else:
        vis = [("image", 1, *grid()), ("video", length(12 if a.size == 'gpu' else 8), *grid())]
    size = lambda v: (v[1], v[2] * 28, v[3] * 28 * aspect)
    ff = int(rng.choice(FILE_FPS))
    times = [sample_times(v[1], ff, fps) if v[0] == "video" else np.zeros(2) for v in vis]
    rows = sum(len(t) // 2 * v[2] * v[3] for t, v in zip(times, vis))
    B = max(2, min(a.max_clips, int(a.budget * scale / (rows + 40 * a.questions + 15))))
    specs, items = [[] for _ in vis], []
    while len(items) < B:
        d = level if rng.random() < 0.75 else rng.uniform(0, level)
        if len(vis) == 1:
            need = (["sign", "sign", "object"][rng.integers(3)]) if kind == "long" else None
            want = [None, None, None, "order", "order", "when", "change", "change", "blink", "blink", "motion", "read"][rng.integers(12)] if kind == "clip" else None
            sc = [sample_scene(rng, *size(vis[0]), d=d, combos=combos, needle=need, still=kind == "image", want=want)]
            few = LONG_TYPES if kind == "long" else getattr(a, "types", None)
            qs = ask_many(sc[0], rng, a.questions, few) if wording == "more" else ask(sc[0], rng, a.questions, wording, few)
        else:
            sc = list(sample_pair(rng, [size(v) for v in vis], d, combos, kind))
            qs = (ask_two if kind == "two_clips" else ask_picture)(*sc, rng, a.questions, wording)
        if not qs: continue
        items.append(qs)
        for l, s, t in zip(specs, sc, times): l.append(spec(s, t))
    o = pack(tok, items, a.questions, isolated=rng.random() >= a.multiturn)
    if getattr(a, "gap", 0) and rng.random() < 0.5: o["off"] += rng.integers(0, a.gap, (B, 1))   # as behind a clip of gap / 2 s
    src = []
    resize = rng.random() < 0.4 and a.size != "tiny" and kind != "long"
    for v in vis:
        k = [0.8, 1.25, 1.5][rng.integers(3)]
        src.append((int(round(v[2] * 28 * k / 4)) * 4, int(round(v[3] * 28 * aspect * k / 4)) * 4) if resize else None)
    o.update(specs=[stack(s) for s in specs], grids=[(v[0], len(t) // 2, v[2], v[3]) for v, t in zip(vis, times)], aspect=aspect, src=src, kind=kind)
    return o


def frames(rng, a, grids, aspect):
    """Single temporal patches of many scenes, without questions: the vision tower learns most from variety."""
    hm, wm = grids[rng.integers(len(grids))]
    H, W = hm * 28, wm * 28 * aspect
    B = max(8, int(a.budget / (hm * wm * 2.5)))
    specs = []
    for _ in range(B):
        D = int(rng.integers(3, 9))
        t = sample_times(D, int(rng.choice(FILE_FPS)))
        k = 2 * int(rng.integers(0, D))
        specs.append(spec(sample_scene(rng, D, H, W, 1.0, want="read" if rng.random() < 0.4 else None), t[k:k + 2]))
    k = [0.8, 1.25, 1.5][rng.integers(3)]
    src = (int(round(hm * 28 * k / 4)) * 4, int(round(wm * 28 * aspect * k / 4)) * 4) if rng.random() < 0.4 else None
    return dict(specs=[stack(specs)], grids=[("video", 1, hm, wm)], aspect=aspect, src=[src], kind="frames", ids=np.zeros((B, 0), np.int64), isolated=True)


class Stream(torch.utils.data.IterableDataset):
    """shared: [level, frames only]; scale: factor on the row budget (lowered when memory runs out)."""
    def __init__(self, a, shared, scale):
        self.a, self.shared, self.scale = a, shared, scale

    def __iter__(self):
        wi = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        tok = Tokenizer.from_file(TOK)
        rng = np.random.default_rng([self.a.seed, self.a.rank, wi.id if wi else 0, int(time.time()) if not self.a.fixed else 0])
        while True:
            yield draw(rng, tok, self.a, self.shared[0], self.scale.value, self.a.wording, kind="frames" if self.shared[1] else None)
