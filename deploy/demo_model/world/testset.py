"""Held-out encoded clips with questions: a folder of files and questions.json."""
import json
import os
import numpy as np
from .files import scene_size, smart_resize, write_mp4, write_png
from .names import TYPES
from .questions import ask, ask_picture, ask_two, sample_pair
from .scene import sample_scene

SIZES = [(240, 240), (240, 320), (320, 240), (224, 224), (192, 256), (256, 192), (168, 168), (288, 352), (112, 112), (180, 240), (180, 320)]
RATES = [8, 10, 12, 15, 24, 30]
SHORT = [t for t in TYPES if t != "needle"]


def settings(fps, limits):
    """Sampling settings of a request, by the names of the protocol."""
    return dict(fps=fps, min_pixels_per_frame=limits[0], max_pixels_per_frame=limits[1])


def one(rng, out, k, kind, limits, level, sizes=SIZES, rates=RATES):
    """One item of the type: renders its files, returns its record."""
    held = bool(rng.random() < 0.25)
    combos = "held" if rng.random() < 0.2 else "train"
    wording = "held" if held else "train"
    h, w = sizes[rng.integers(len(sizes))]
    fps, crf = int(rates[rng.integers(len(rates))]), int(rng.integers(18, 27))
    for n in range(1000):
        if n == 30: combos = "train"                       # no color change lies within the held-out pairs
        D = int(rng.choice([4, 5, 6, 8, 10, 12]))
        H, W = scene_size(h, w, *limits)
        d = level if rng.random() < 0.75 else rng.uniform(0, level)
        if kind in ("two_clips", "picture_clip"):
            D2 = int(rng.choice([3, 4, 5, 6]))
            sc = sample_pair(rng, [(D2, H, W), (D, H, W)], d, combos, kind)
            qs = (ask_two if kind == "two_clips" else ask_picture)(*sc, rng, 1, wording)
        else:
            sc = [sample_scene(rng, D, H, W, d, combos, want=kind)]
            qs = ask(sc[0], rng, 1, wording, [kind])
        if qs: break
    else: raise RuntimeError(f"no question of type {kind}")
    vis = []
    for i, s in enumerate(sc):
        f = f"{k:04d}{'ab'[i]}." + ("png" if s["still"] else "mp4")
        if s["still"]: write_png(s, os.path.join(out, f), h, w)
        else: write_mp4(s, os.path.join(out, f), h, w, fps, crf)
        vis.append(dict(kind="image" if s["still"] else "video", file=f, seconds=int(s["D"]), fps=fps, size=[h, w]))
    return dict(id=k, type=kind, wording=wording, combos=combos, visuals=vis, turns=[dict(q=q, a=a) for q, a in qs[0]["turns"]], sampling=settings(2.0, limits))


def short_set(out, seed, count, limits, level=1.0, types=None, **kw):
    """`count` items, all types of short clips in turn."""
    os.makedirs(out, exist_ok=True)
    rng = np.random.default_rng([seed, 77])
    ts = types or SHORT
    items = [one(rng, out, k, ts[k % len(ts)], limits, level, **kw) for k in range(count)]
    write(out, dict(seed=seed, level=level, limits=list(limits), items=items))
    return items


def needle(rng, out, k, tokens, limits, kind="sign", h=168, w=168, seconds=None, file_fps=4, fps=2.0):
    """A long clip with about `tokens` vision tokens in which a sign (or an object) is seen for a few seconds."""
    a, b = smart_resize(h, w, *limits)
    per = a * b // 784
    D = seconds or int(round(tokens / per * 2 / fps))
    H, W = scene_size(h, w, *limits)
    while True:
        sc = sample_scene(rng, D, H, W, 0.5, "train", needle=kind)
        qs = ask(sc, rng, 1, "train", ["needle"])
        if qs: break
    t = sc["sign"] if kind == "sign" else sc["flash"]
    f = f"needle{k:03d}.mp4"
    write_mp4(sc, os.path.join(out, f), h, w, file_fps, 24)
    return dict(id=k, type="needle", wording="train", combos="train", visuals=[dict(kind="video", file=f, seconds=D, fps=file_fps, size=[h, w])],
                turns=[dict(q=q, a=x) for q, x in qs[0]["turns"]], sampling=dict(settings(fps, limits), max_frames=int(D * fps + 2)), evidence=[t["t0"], t["t1"]], tokens=int(D * fps / 2) * per)


def needle_set(out, seed, count, tokens, limits, kinds=("sign",)):
    os.makedirs(out, exist_ok=True)
    rng = np.random.default_rng([seed, 78, tokens])
    items = [needle(rng, out, k, tokens, limits, kinds[k % len(kinds)], file_fps=4 if tokens < 20000 else 2) for k in range(count)]
    write(out, dict(seed=seed, limits=list(limits), items=items))
    return items


def write(out, o):
    with open(os.path.join(out, "questions.json"), "w", encoding="utf-8") as f: json.dump(o, f, indent=1)
