"""Scenes: what is where and when, in continuous time (plain Python and numpy, no pixels).

A scene is H x W units; one unit is one pixel of the frame the model sees (before a possible change of aspect by the resize). Events
fall on whole seconds (sometimes up to a quarter second later), clips last whole seconds."""
import numpy as np
from .names import BACKGROUNDS, CHARS, COLORS, MAXCH, NOBJ, RGB, SHAPES, WORDS, held_combo

FILE_FPS = [8, 10, 12, 15, 20, 24, 25, 30]


def sample_times(seconds, file_fps, fps=2.0, max_frames=100000):
    """Times of the frames the server takes from a file of `seconds` at `file_fps` frames a second: even count, at least 4,
    round-half-even of a float32 linspace over the frame numbers."""
    n_all = int(round(seconds * file_fps))
    n = min(max(n_all / file_fps * fps, 4), max_frames // 2 * 2, n_all)
    n = int(n // 2) * 2
    step = np.float32(n_all - 1) / np.float32(n - 1)
    k = np.arange(n, dtype=np.float32)
    idx = np.where(np.arange(n) < n // 2, step * k, np.float32(n_all - 1) - step * (np.float32(n - 1) - k))
    return np.rint(idx.astype(np.float32)).astype(np.int64) / file_fps


def _path(o, u, sc):
    """Positions at the phases u (0..1 while visible)."""
    p = o["path"]
    if p is None:
        return np.full(u.shape, o["x"]), np.full(u.shape, o["y"])
    if p[0] == "line":
        return p[1] + (p[3] - p[1]) * u, p[2] + (p[4] - p[2]) * u
    ph = p[4] + p[5] * 2 * np.pi * u
    return p[1] + p[3] * np.cos(ph), p[2] + p[3] * np.sin(ph)


def _mover_path(rng, o, W, ay0, ay1, speed):
    """A path of the direction; `speed` in (0, 1] is the share of the room that is used."""
    r, d = o["r"], o["dir"]
    if d < 2:
        span = W - 2 * r - 2
        tr = speed * span
        a = rng.uniform(r + 1, r + 1 + span - tr)
        y = rng.uniform(ay0 + r + 1, max(ay0 + r + 1.01, ay1 - r - 1))
        return ("line", a, y, a + tr, y) if d == 1 else ("line", a + tr, y, a, y)
    if d < 4:
        span = max(4.0, ay1 - ay0 - 2 * r - 2)
        tr = speed * span
        a = rng.uniform(ay0 + r + 1, ay0 + r + 1 + span - tr)
        x = rng.uniform(r + 1, max(r + 1.01, W - r - 1))
        return ("line", x, a, x, a + tr) if d == 3 else ("line", x, a + tr, x, a)
    big = max(6.0, min(rng.uniform(0.16, 0.26) * min(ay1 - ay0, W), (ay1 - ay0) / 2 - r - 1))
    mx = rng.uniform(r + big + 1, max(r + big + 1.01, W - r - big - 1))
    my = rng.uniform(ay0 + r + big, max(ay0 + r + big + 0.01, ay1 - r - big))
    turns = rng.uniform(1.0, 1.0 + max(0.0, min(3.0, (o["t1"] - o["t0"] - 3) / 4)))
    return ("circle", mx, my, big, rng.uniform(0, 2 * np.pi), float(rng.choice([-1, 1])) * turns)


def _sign(rng, D, H, W, d, needle):
    """Text, place and time of the sign, or None."""
    word = WORDS[rng.integers(len(WORDS))] if rng.random() < 0.5 else "".join(str(x) for x in rng.integers(0, 10, rng.integers(1, 4)))
    gh = rng.uniform(19, 28) * (min(H, W) / 168) ** 0.3
    gh = min(gh, (W - 14) / (0.72 * len(word) + 0.3), H / 5)
    bw, band = len(word) * gh * 0.72 + 8, gh + 8
    top = rng.random() < 0.5
    y = rng.uniform(1, 5) if top else H - band - rng.uniform(1, 5)
    a, b = 0.0, float(D)
    if needle:
        n = int(rng.integers(3, 8))
        a = float(rng.integers(2, D - n - 1)); b = a + n
    elif D >= 4 and rng.random() < 0.35 * d:
        n = int(rng.integers(2, D - 1)); a = float(rng.integers(0, D - n + 1)); b = a + n
    pal = [([240, 240, 235], [20, 20, 25]), ([25, 30, 45], [250, 245, 200]), ([20, 90, 60], [245, 245, 245]), ([235, 215, 90], [25, 25, 25])]
    board, ink = pal[rng.integers(4)]
    return dict(text=word, x=float(rng.uniform(1, max(1.5, W - bw - 1))), y=float(y), gh=float(gh), t0=a, t1=b, top=bool(top), board=board, ink=ink,
                font=int(rng.integers(3)))


def sample_scene(rng, D, H, W, d=1.0, combos="train", needle=None, still=False, want=None):
    """A random scene of D seconds. d in [0, 1] is the difficulty; combos: train (held-out pairs never occur), held (only they occur) or all;
    needle: None, "sign" or "object" (a long clip in which that one thing is shown for a few seconds); still: a picture; want: None or one of
    order, when, change, blink, motion, size, read (makes questions of that type likely)."""
    ok = lambda s, c: combos == "all" or held_combo(s, c) == (combos == "held")
    base = (min(H, W) / 168) ** 0.35
    sc = dict(D=D, H=float(H), W=float(W), combos=combos, needle=needle, still=still)
    sc["sign"] = _sign(rng, D, H, W, d, needle == "sign") if needle == "sign" or (needle is None and (want == "read" or rng.random() < 0.33)) else None
    ay0, ay1 = 1.0, H - 1.0
    if sc["sign"]:
        band = sc["sign"]["gh"] + 9 + 5
        if sc["sign"]["top"]: ay0 = band
        else: ay1 = H - band
    n = int(rng.integers(1, 3 + int(round(3 * min(1, d * 1.4)))))
    if rng.random() < 0.015 and not needle: n = 0
    share, kinds, used = rng.random(), [], set()
    s0, c0 = int(rng.integers(8)), int(rng.integers(10))
    for _ in range(n):
        while True:
            s, c = int(rng.integers(8)), int(rng.integers(10))
            if share < 0.25 and rng.random() < 0.7: s = s0
            elif share < 0.5 and rng.random() < 0.7: c = c0
            if ok(s, c) and (s, c) not in used: break
            if rng.random() < 0.05: s0, c0 = int(rng.integers(8)), int(rng.integers(10))
        used.add((s, c)); kinds.append((s, c))
    objs = []
    for s, c in kinds:
        big = rng.random() < 0.45
        r = (rng.uniform(18, 21.5) if big else rng.uniform(11, 13)) * base
        objs.append(dict(s=s, c=c, c2=None, tc=None, r=float(min(r, (ay1 - ay0) / 4.2)), big=bool(big), x=0.0, y=0.0, dir=None, path=None, speed=None, t0=0.0, t1=float(D), offs=[]))
    late = lambda: 0.0 if rng.random() < 0.7 else float(rng.uniform(0, 0.25))
    movers = []
    if not still and not needle and n:
        u = rng.random()
        m = 0 if u < 0.25 else 1 if (u < 0.75 or n < 2) else 2
        if want == "motion": m = max(1, m)
        movers = [int(k) for k in rng.permutation(n)[:m]]
        for k in movers: objs[k]["dir"] = int(rng.integers(5 if D >= 4 else 4))
    if needle == "object" and n:
        k = int(rng.integers(n)); ln = int(rng.integers(3, 8))
        objs[k]["t0"] = float(rng.integers(2, D - ln - 1)); objs[k]["t1"] = objs[k]["t0"] + ln
        sc["flash"] = k
    elif not still and not needle and n and D >= 2:
        free = [int(k) for k in rng.permutation(n)]
        if D >= 3 and rng.random() < (0.95 if want in ("order", "when") else 0.45):
            m = 1 if n == 1 or rng.random() < 0.45 else 2
            ts = rng.permutation(np.arange(1, D))[:m]
            for k, t in zip(free[:m], ts):
                objs[k]["t0"] = (float(min(t, D - 2)) if objs[k]["dir"] is not None else float(t)) + late()
            free = free[m:]
        if free and D >= 3 and rng.random() < (0.5 if want == "when" else 0.22):
            k = free.pop(); lo = 2 if objs[k]["dir"] is not None else 1
            objs[k]["t1"] = float(rng.integers(lo, D)) + late()
        rest = [k for k in free if objs[k]["dir"] is None]
        if rest and D >= 3 and rng.random() < (0.9 if want == "blink" else 0.2):
            k = rest.pop(); free.remove(k)
            cnt = int(rng.integers(1, min(4, (D - 1) // 2) + 1))
            slack = D - 2 - 2 * (cnt - 1) - 1                      # off seconds lie in 1 .. D-2, with a second between two
            cuts = np.sort(rng.integers(0, slack + 1, cnt))
            objs[k]["offs"] = [float(1 + cuts[j] + 2 * j) for j in range(cnt)]
        if free and rng.random() < (0.9 if want == "change" else 0.25):
            k = free.pop()
            for _ in range(50):
                c = int(rng.integers(10))
                if c != objs[k]["c"] and ok(objs[k]["s"], c) and (objs[k]["s"], c) not in used:
                    objs[k]["c2"], objs[k]["tc"] = c, float(rng.integers(1, D)) + late(); used.add((objs[k]["s"], c)); break
    keep, pts = [], []
    speeds = [float(rng.uniform(0.55, 0.9)), float(rng.uniform(0.22, 0.34))] if rng.random() < 0.6 else [float(rng.uniform(0.45, 0.85)) for _ in range(2)]
    for k in sorted(range(n), key=lambda k: k not in movers):       # movers first, so that resting objects keep out of their way
        o = objs[k]
        if o["dir"] is not None:
            o["speed"] = speeds[movers.index(k) % 2]
            best = None
            for _ in range(6):
                o["path"] = _mover_path(rng, o, W, ay0, ay1, o["speed"])
                px, py = _path(o, np.linspace(0, 1, 13), sc)
                gap = min((np.hypot(px - qx, py - qy).min() - o["r"] - qr for qx, qy, qr in pts), default=99)
                if best is None or gap > best[0]: best = (gap, o["path"])
                if gap > 1: break
            o["path"] = best[1]
            px, py = _path(o, np.linspace(0, 1, 13), sc)
            pts += [(x, y, o["r"]) for x, y in zip(px, py)]; keep.append(k)
            continue
        for _ in range(60):
            x, y = rng.uniform(o["r"] + 1, max(o["r"] + 1.1, W - o["r"] - 1)), rng.uniform(ay0 + o["r"], max(ay0 + o["r"] + 0.1, ay1 - o["r"]))
            if all(np.hypot(x - qx, y - qy) > o["r"] + qr + 3 for qx, qy, qr in pts):
                o["x"], o["y"] = float(x), float(y); pts.append((x, y, o["r"])); keep.append(k); break
    if needle == "object" and sc.get("flash") not in keep: return sample_scene(rng, D, H, W, d, combos, needle, still, want)
    if "flash" in sc: sc["flash"] = objs[sc["flash"]]
    sc["objs"] = [objs[k] for k in sorted(keep, key=lambda k: objs[k]["dir"] is not None)]      # movers are drawn last
    for o in sc["objs"]: o["rgb"] = rng.uniform(-10, 10, 3)
    l0, l1 = rng.uniform(75, 180, 2)
    sc["bg"] = dict(kind=int(rng.integers(len(BACKGROUNDS))), c0=(l0 + rng.uniform(-20, 20, 3)).tolist(), c1=(l1 + rng.uniform(-20, 20, 3)).tolist(),
                    angle=float(rng.uniform(0, np.pi)), freq=float(rng.uniform(0.12, 0.5)), seed=int(rng.integers(1 << 30)), photo=int(rng.integers(1 << 20)),
                    pan=(rng.uniform(-1, 1, 2) * (0 if still or rng.random() < 0.6 else min(4.0, 24 / D))).tolist(), grain=float(rng.uniform(0, 5)))
    return sc


def spec(sc, times):
    """Arrays for the renderer at the given times (seconds), T of them."""
    t = np.asarray(times, np.float64)
    T = len(t)
    cx = np.zeros((NOBJ, T), np.float32); cy = cx.copy(); vis = cx.copy()
    col = np.zeros((NOBJ, T), np.int64); shp = np.zeros(NOBJ, np.int64); rad = np.ones(NOBJ, np.float32); mot = np.zeros(NOBJ, np.int64)
    rgb = np.zeros((NOBJ, T, 3), np.float32)
    eps = 1e-6
    for k, o in enumerate(sc["objs"]):
        v = (t >= o["t0"] - eps) & (t < o["t1"] - eps)
        for a in o["offs"]: v &= ~((t >= a - eps) & (t < a + 1 - eps))
        u = np.clip((t - o["t0"]) / max(0.5, o["t1"] - o["t0"]), 0, 1)
        cx[k], cy[k] = _path(o, u, sc)
        c = np.full(T, o["c"]) if o["tc"] is None else np.where(t >= o["tc"] - eps, o["c2"], o["c"])
        vis[k], col[k], shp[k], rad[k] = v, c, o["s"], o["r"]
        mot[k] = 0 if o["dir"] is None else o["dir"] + 1
        rgb[k] = np.clip(RGB[c] + o["rgb"], 0, 255)
    sg, bg = sc["sign"], sc["bg"]
    txt = np.full(MAXCH, -1, np.int64); svis = np.zeros(T, np.float32)
    sbox = np.array([0, 0, 20], np.float32); scol = np.zeros((2, 3), np.float32); font = 0
    if sg:
        for k, ch in enumerate(sg["text"]): txt[k] = CHARS.index(ch)
        svis[:] = (t >= sg["t0"] - eps) & (t < sg["t1"] - eps)
        sbox[:] = sg["x"], sg["y"], sg["gh"]; scol[:] = [sg["board"], sg["ink"]]; font = sg["font"]
    return dict(cx=cx, cy=cy, vis=vis, col=col, shp=shp, rad=rad, mot=mot, rgb=rgb, nobj=np.int64(len(sc["objs"])), txt=txt, svis=svis, sbox=sbox, scol=scol,
                font=np.int64(font), bgc=np.array([bg["c0"], bg["c1"]], np.float32), bgk=np.int64(bg["kind"]), bga=np.float32(bg["angle"]), bgf=np.float32(bg["freq"]),
                bgs=np.int64(bg["seed"]), bgp=np.int64(bg["photo"]), pan=(np.array(bg["pan"])[:, None] * t[None]).astype(np.float32), grain=np.float32(bg["grain"]))


def stack(specs):
    return {k: np.stack([s[k] for s in specs]) for k in specs[0]}
