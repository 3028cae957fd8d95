"""Questions with exact answers about scenes."""
import re
import numpy as np
from .names import COLORS, DIR_WORDS, SHAPES, TYPES, WORDS, held_combo, name, plural
from .wordings import LEAD, MC_TAIL, MORE, TAIL, WORDINGS


def pick(rng, seq):
    return seq[int(rng.integers(len(seq)))]


class Asker:
    """Makes questions about one scene. wording: train, held (the held-out ones), all, or more (those of training and many further ones)."""

    def __init__(self, sc, rng, wording="train"):
        self.sc, self.rng, self.wording = sc, rng, wording
        self.objs, self.D = sc["objs"], int(sc["D"])
        self.shapes = [o["s"] for o in self.objs]
        self.cols = [c for o in self.objs for c in ((o["c"],) if o["c2"] is None else (o["c"], o["c2"]))]
        self.pairs = {(o["s"], c) for o in self.objs for c in (o["c"], o["c2"]) if c is not None}

    def say(self, key, **kw):
        if self.wording == "more":
            rng = self.rng
            q = pick(rng, WORDINGS[key][:-1] if key in WORDINGS and rng.random() < 0.45 else MORE[key]).format(**kw)
            q = q[0].upper() + q[1:]
            u = rng.random()
            return pick(rng, LEAD) + q if u < 0.1 else q + pick(rng, TAIL) if u < 0.2 else q
        ws = WORDINGS[key]
        ws = ws[:-1] if self.wording == "train" else ws[-1:] if self.wording == "held" else ws
        return pick(self.rng, ws).format(**kw)

    def never(self, s, c):
        return self.sc["combos"] == "train" and held_combo(s, c)

    def ref(self, o):
        """A phrase that fits this object only, or None."""
        r = []
        if self.shapes.count(o["s"]) == 1: r.append(SHAPES[o["s"]])
        if o["c2"] is None:
            r += [name(o)] * 2
            if self.cols.count(o["c"]) == 1: r.append(COLORS[o["c"]] + " object")
        return pick(self.rng, r) if r else None

    def two(self, cands):
        if len(cands) < 2: return None
        i, j = self.rng.permutation(len(cands))[:2]
        return cands[i], cands[j]

    def plain(self):
        return [o for o in self.objs if o["c2"] is None]

    def missing(self):
        """A phrase for something that is not there: pair, shape or color."""
        rng, u = self.rng, self.rng.random()
        for _ in range(40):
            if u < 0.45 and self.objs:                   # hard: right color with another shape, or the reverse
                o = pick(rng, self.objs)
                s, c = (o["s"], int(rng.integers(10))) if rng.random() < 0.5 else (int(rng.integers(8)), o["c"])
                if (s, c) not in self.pairs and not self.never(s, c): return COLORS[c] + " " + SHAPES[s]
            elif u < 0.8:
                s = int(rng.integers(8))
                if s not in self.shapes: return SHAPES[s]
            else:
                c = int(rng.integers(10))
                if c not in self.cols: return COLORS[c] + " object"

    # Each function returns (question, answer, class of the answer for multiple choice) or None.
    def color(self):
        c = [o for o in self.plain() if self.shapes.count(o["s"]) == 1]
        if c:
            o = pick(self.rng, c); return self.say("color", x=SHAPES[o["s"]]), COLORS[o["c"]], "c"

    def shape(self):
        c = [o for o in self.plain() if self.cols.count(o["c"]) == 1]
        if c:
            o = pick(self.rng, c); return self.say("shape", x=COLORS[o["c"]]), SHAPES[o["s"]], "s"

    def motion(self):
        m = [o for o in self.objs if o["dir"] is not None]
        u = self.rng.random()
        if len(m) == 2 and u < 0.35 and all(o["c2"] is None and o["dir"] < 4 and o["t0"] == 0 and o["t1"] == self.D for o in m):
            ln = [abs(o["path"][3] - o["path"][1]) + abs(o["path"][4] - o["path"][2]) for o in m]
            if max(ln) > 1.7 * min(ln):
                i = int(self.rng.integers(2))
                return self.say("faster", x=name(m[i]), y=name(m[1 - i])), name(m[int(ln[1] > ln[0])]), "o"
        if len(m) == 1 and u < 0.45:
            o, v = m[0], self.rng.random()
            if v < 0.35 and o["c2"] is None: return self.say("moving_c"), COLORS[o["c"]], "c"
            if v < 0.7 or o["c2"] is not None: return self.say("moving_s"), SHAPES[o["s"]], "s"
            return self.say("moving_b"), name(o), "o"
        if not m: return
        o = pick(self.rng, m)
        if len(m) == 1 and self.rng.random() < 0.35: return self.say("direction1"), DIR_WORDS[o["dir"]], "d"
        x = self.ref(o)
        if x: return self.say("direction", x=x), DIR_WORDS[o["dir"]], "d"

    def count(self):
        opts = {}
        for s in range(8): opts.setdefault(self.shapes.count(s), []).append(plural(s))
        ch = {c for o in self.objs if o["c2"] is not None for c in (o["c"], o["c2"])}
        for c in range(10):
            if c not in ch: opts.setdefault(self.cols.count(c), []).append(COLORS[c] + " objects")
        opts.setdefault(len(self.objs), []).extend(["objects"] * 6)
        ks = sorted(opts)
        w = np.array([0.5 if k == 0 else 0.7 if k == 1 else 1.5 for k in ks]); k = ks[self.rng.choice(len(ks), p=w / w.sum())]
        return self.say("count", x=pick(self.rng, opts[k])), str(k), "n"

    def yesno(self):
        u, yes = self.rng.random(), bool(self.rng.random() < 0.5)
        if u < 0.25:
            m = [o for o in self.objs if (o["dir"] is not None) == yes]
            x = self.ref(pick(self.rng, m)) if m else None
            if x: return self.say("move_yn", x=x), "yes" if yes else "no", None
        if u < 0.32 and not self.sc["still"]: return self.say("sign_yn"), "yes" if self.sc["sign"] else "no", None
        if yes and self.plain():
            o = pick(self.rng, self.plain())
            return self.say("exist", x=pick(self.rng, [name(o), SHAPES[o["s"]], COLORS[o["c"]] + " object"])), "yes", None
        x = self.missing()
        if x: return self.say("exist", x=x), "no", None

    def relation(self):
        c = self.two([o for o in self.plain() if o["dir"] is None])
        if not c: return
        x, y = c
        dx, dy = x["x"] - y["x"], x["y"] - y["y"]
        ax = [a for a, v in (("h", dx), ("v", dy)) if abs(v) > 0.17 * min(self.sc["H"], self.sc["W"])]
        if not ax: return
        a = pick(self.rng, ax)
        if self.rng.random() < 0.6:
            yes = self.rng.random() < 0.5
            r = {("h", True): "left of", ("h", False): "right of", ("v", True): "above", ("v", False): "below"}[(a, ((dx if a == "h" else dy) < 0) == yes)]
            return self.say("rel_yn", x=name(x), y=name(y), r=r), "yes" if yes else "no", None
        lo = self.rng.random() < 0.5
        r = {("h", True): "left", ("h", False): "right", ("v", True): "up", ("v", False): "down"}[(a, lo)]
        v = dx if a == "h" else dy
        return self.say("rel_wh", x=name(x), y=name(y), r=r), name(x if (v < 0) == lo else y), "o"

    def order(self):
        c = self.two([o for o in self.plain() if not o["offs"]])
        if not c or int(c[0]["t0"]) == int(c[1]["t0"]): return
        x, y = c
        if self.rng.random() < 0.6: return self.say("first", x=name(x), y=name(y)), name(x if x["t0"] < y["t0"] else y), "o"
        before = self.rng.random() < 0.5
        return self.say("before" if before else "after", x=name(x), y=name(y)), "yes" if (x["t0"] < y["t0"]) == before else "no", None

    def when(self):
        c = [("when_a", o, o["t0"]) for o in self.objs if o["t0"] > 0] + [("when_v", o, o["t1"]) for o in self.objs if o["t1"] < self.D] + \
            [("when_c", o, o["tc"]) for o in self.objs if o["tc"] is not None]
        if not c: return
        k, o, t = pick(self.rng, c)
        x = self.ref(o)
        if x: return self.say(k, x=x), str(int(t)), "t"

    def read(self):
        s = self.sc["sign"]
        if s is None: return
        if s["text"].isdigit() and self.rng.random() < 0.6: return self.say("read_d"), s["text"], "r"
        return self.say("read"), s["text"], "r"

    def change(self):
        c = [o for o in self.objs if o["c2"] is not None]
        if not c: return
        o, u = c[0], self.rng.random()
        if u < 0.3 or self.shapes.count(o["s"]) > 1: return self.say("change_what"), SHAPES[o["s"]], "s"
        if u < 0.7: return self.say("change_to", x=SHAPES[o["s"]]), COLORS[o["c2"]], "c"
        return self.say("change_from", x=SHAPES[o["s"]]), COLORS[o["c"]], "c"

    def blink(self):
        b = [o for o in self.objs if o["offs"]]
        if b and self.rng.random() < 0.9:
            if self.rng.random() < 0.3: return self.say("blink"), name(b[0]), "o"
            x = self.ref(b[0])
            if x: return self.say("blink_n", x=x), str(len(b[0]["offs"])), "n"
        if self.D >= 4 and (b or self.rng.random() < 0.08): return self.say("blink_yn"), "yes" if b else "no", None

    def size(self):
        c = self.two(self.plain())
        if not c or c[0]["big"] == c[1]["big"] or min(c[0]["r"], c[1]["r"]) * 1.3 > max(c[0]["r"], c[1]["r"]): return
        x, y = c
        if self.rng.random() < 0.4:
            key, yes = "big_yn", x["r"] > y["r"]
            return self.say(key, x=name(x), y=name(y)), "yes" if yes else "no", None
        big = self.rng.random() < 0.5
        return self.say("bigger" if big else "smaller", x=name(x), y=name(y)), name(x if (x["r"] > y["r"]) == big else y), "o"

    def absent(self):
        """A question that supposes something that is not there."""
        if self.sc["sign"] is None and self.rng.random() < 0.15: return self.say("read"), "There is no sign.", None
        x = self.missing()
        if x is None: return
        none = "There is no " + x + "."
        if self.sc["still"]: ks = ["color"]
        else: ks = ["color", "direction", "when_a", "when_v", "blink_n"]
        k = pick(self.rng, ks)
        if k == "color":
            if x in SHAPES: return self.say("color", x=x), none, None
            if x.endswith(" object"): return self.say("shape", x=x[:-7]), none, None
            if self.sc["still"]: return
            k = "direction"
        return self.say(k, x=x), none, None

    def needle(self):
        if self.sc["needle"] == "sign": return self.read()
        if self.sc["needle"] == "object" and self.sc["flash"]["c2"] is None: return self.say("flash"), name(self.sc["flash"]), "o"

    def choice(self):
        rng = self.rng
        for k in rng.permutation(12)[:8]:
            r = getattr(self, TYPES[k])()
            if not r or r[2] is None: continue
            q, a, cls = r
            if cls == "o" and " or the " in q: continue
            pool = {"c": COLORS, "s": SHAPES, "d": DIR_WORDS, "n": [str(i) for i in range(6)], "t": [str(i) for i in range(max(6, self.D))],
                    "r": WORDS if not a.isdigit() else [str(int(v)) for v in rng.integers(0, 10 ** len(a), 8)],
                    "o": [name(o) for o in self.objs] + [COLORS[j] + " " + SHAPES[i] for i, j in rng.integers(0, (8, 10), (12, 2)) if not self.never(i, j)]}[cls]
            dis = []
            for j in rng.permutation(len(pool)):
                if pool[j] != a and pool[j] not in dis: dis.append(pool[j])
                if len(dis) == 3: break
            if len(dis) < 3: continue
            pos = int(rng.integers(4))
            dis.insert(pos, a)
            ws = MC_TAIL[:-1] if self.wording in ("train", "more") else MC_TAIL[-1:] if self.wording == "held" else MC_TAIL
            self.told = a
            return q + "\n" + "\n".join("ABCD"[i] + ". " + dis[i] for i in range(4)) + "\n" + pick(rng, ws), "ABCD"[pos], None

    def second_turn(self):
        """A list of two (question, answer): the second one speaks of the object of the first as "it"."""
        rng, u = self.rng, self.rng.random()
        c = [o for o in self.plain() if self.cols.count(o["c"]) == 1 or self.shapes.count(o["s"]) == 1]
        m = [o for o in self.objs if o["dir"] is not None]
        if len(m) == 1 and m[0]["c2"] is None and u < 0.3:
            o = m[0]
            v = rng.random()
            first = (self.say("moving_s"), SHAPES[o["s"]]) if v < 0.4 else (self.say("moving_c"), COLORS[o["c"]]) if v < 0.7 else (self.say("moving_b"), name(o))
            ks = ["t_dir"] + (["t_color"] if v < 0.4 else ["t_shape"] if v < 0.7 else [])
        elif c:
            o = pick(rng, c)
            if self.cols.count(o["c"]) == 1 and (u < 0.65 or self.shapes.count(o["s"]) > 1): first, ks = (self.say("shape", x=COLORS[o["c"]]), SHAPES[o["s"]]), []
            else: first, ks = (self.say("color", x=SHAPES[o["s"]]), COLORS[o["c"]]), []
            if not self.sc["still"]: ks.append("t_move")
            if o["dir"] is not None: ks += ["t_dir"] * 2
        else: return
        if o["t0"] > 0: ks += ["t_when"] * 2
        if not ks: return
        k = pick(rng, ks)
        a = {"t_color": COLORS[o["c"]], "t_shape": SHAPES[o["s"]], "t_move": "yes" if o["dir"] is not None else "no",
             "t_dir": DIR_WORDS[o["dir"]] if o["dir"] is not None else "", "t_when": str(int(o["t0"]))}[k]
        return [first, (self.say(k), a)]


class Helper(Asker):
    """Questions that only training asks, about what the comparisons and the times of the other types rest on: place, size, and what is there when."""

    def helper(self):
        for k in self.rng.permutation(10):
            r = getattr(self, ["place", "place", "side", "bigness", "bigness", "since", "until", "then", "then", "events"][k])()
            if r: return r

    def some(self, cands):
        c = [(o, x) for o, x in ((o, self.ref(o)) for o in cands) if x]
        return pick(self.rng, c) if c else None

    def place(self):
        c = self.some([o for o in self.objs if o["dir"] is None])
        if not c: return
        o, x = c
        if self.rng.random() < 0.5: return self.say("where_h", x=x), str(int(10 * o["x"] / self.sc["W"])), None
        return self.say("where_v", x=x), str(int(10 * o["y"] / self.sc["H"])), None

    def side(self):
        W, H = self.sc["W"], self.sc["H"]
        c = self.some([o for o in self.objs if o["dir"] is None and min(abs(o["x"] - W / 2), abs(o["y"] - H / 2)) > 0.07 * min(H, W)])
        if not c: return
        o, x = c
        if self.rng.random() < 0.5: return self.say("side", x=x), "left" if o["x"] < W / 2 else "right", None
        return self.say("half", x=x), "top" if o["y"] < H / 2 else "bottom", None

    def bigness(self):
        c = self.some(self.objs)
        if not c: return
        if self.rng.random() < 0.5: return self.say("how_big", x=c[1]), "big" if c[0]["big"] else "small", None
        return self.say("big_one", x=c[1]), "yes" if c[0]["big"] else "no", None

    def since(self):
        late = self.rng.random() < 0.6
        c = self.some([o for o in self.objs if (o["t0"] > 0) == late])
        if not c: return
        if self.rng.random() < 0.5: return self.say("from_start", x=c[1]), "no" if c[0]["t0"] > 0 else "yes", None
        return self.say("first_sec", x=c[1]), str(int(c[0]["t0"])), None

    def until(self):
        gone = self.rng.random() < 0.5
        c = self.some([o for o in self.objs if (o["t1"] < self.D) == gone])
        if c: return self.say("last_there", x=c[1]), "no" if c[0]["t1"] < self.D else "yes", None

    def then(self):
        c = self.some([o for o in self.objs if o["c2"] is not None or o["t0"] > 0 or o["t1"] < self.D or o["offs"]])
        if not c or self.D < 2: return
        o, x = c
        n = int(self.rng.integers(self.D))
        there = o["t0"] <= n < o["t1"] and n not in o["offs"]
        if n in (int(o["t0"]), int(o["t1"])) and o["t0"] % 1 + o["t1"] % 1 > 0: return
        if o["c2"] is not None and there and int(o["tc"]) != n: return self.say("at_color", x=x, n=n), COLORS[o["c2"] if n > o["tc"] else o["c"]], None
        return self.say("at_there", x=x, n=n), "yes" if there else "no", None

    def events(self):
        u, yes = self.rng.random(), self.rng.random() < 0.6
        if u < 0.4:
            c = self.some([o for o in self.objs if bool(o["offs"]) == yes])
            return (self.say("blinks", x=c[1]), "yes" if yes else "no", None) if c else None
        c = self.some([o for o in self.objs if (o["c2"] is not None) == yes])
        if not c: return
        if yes and u < 0.7: return self.say("list_colors", x=c[1]), COLORS[c[0]["c"]] + " then " + COLORS[c[0]["c2"]], None
        return self.say("changes", x=c[1]), "yes" if yes else "no", None


PHRASE = re.compile(r"(?<!in a )\b(?:(" + "|".join(COLORS) + r") )?(" + "|".join(SHAPES) + r"|object)\b")


def mentions(text, sc):
    """(end of the phrase, object or None when there is none) for each phrase of the text that means one object of the scene or none at all."""
    out = []
    for m in PHRASE.finditer(text):
        c, s = m.group(1), m.group(2)
        if c is None and s == "object": continue
        fit = [o for o in sc["objs"] if (s == "object" or SHAPES[o["s"]] == s) and (c is None or c == COLORS[o["c"]] or (o["c2"] is not None and c == COLORS[o["c2"]]))]
        if len(fit) <= 1: out.append((m.end(), fit[0] if fit else None))
    return out


TEACH = dict(color=0.6, shape=0.6, motion=1.2, count=2.4, yesno=0.8, relation=5, order=5, when=4, read=1.4, change=4, blink=5, size=5, absent=0.8, choice=6, second_turn=1, needle=14, helper=4)


def ask_many(sc, rng, nq, types=None, wording="more"):
    """Up to nq questions for training, types drawn by TEACH: dicts turns, type, told (the answer in words) and marks (see mentions; of the last turn's question)."""
    asker = Helper(sc, rng, wording)
    pool = list(types or [t for t in TEACH if t != "needle"] + (["needle"] if sc["needle"] else []))
    if sc["still"]: pool = [t for t in pool if t in ("color", "shape", "count", "yesno", "relation", "read", "size", "absent", "choice")]
    w = np.array([TEACH[t] for t in pool])
    out, seen = [], set()
    for k in rng.choice(len(pool), 3 * nq, p=w / w.sum()):
        if len(out) >= nq: break
        asker.told = None
        r = getattr(asker, pool[k])()
        if not r: continue
        turns = [(r[0], r[1])] if isinstance(r, tuple) else r
        q, a = turns[-1]
        if q + turns[0][0] in seen: continue
        seen.add(q + turns[0][0])
        out.append(dict(turns=turns, type=pool[k], told=asker.told or a, marks=mentions(q, sc), scene=sc))
    return out


WEIGHTS = dict(color=1, shape=1, motion=2, count=1.6, yesno=1.2, relation=2.5, order=3, when=3.5, read=3, change=3, blink=2.5, size=2, absent=1.2, choice=2, second_turn=1.5, needle=6)


def ask(sc, rng, nq, wording="train", types=None):
    """Up to nq questions about one scene, of different types where possible: dicts turns ([(q, a), ...]; the last one counts) and type."""
    asker = Asker(sc, rng, wording)
    pool = list(types or [t for t in TYPES if t not in ("two_clips", "picture_clip")])
    if sc["still"]: pool = [t for t in pool if t in ("color", "shape", "count", "yesno", "relation", "read", "size", "absent", "choice")]
    w = np.array([WEIGHTS[t] for t in pool])
    order, out, seen = rng.choice(len(pool), len(pool), replace=False, p=w / w.sum()), [], set()
    for _ in range(4):
        for k in order:
            if len(out) >= nq: return out
            r = getattr(asker, pool[k])()
            if not r: continue
            turns = [(r[0], r[1])] if isinstance(r, tuple) else r
            key = turns[-1][0] + "|" + turns[0][0]
            if key in seen: continue
            seen.add(key); out.append(dict(turns=turns, type=pool[k]))
    return out


def ask_two(a, b, rng, nq, wording="train"):
    """Questions about two clips shown one after the other."""
    A = [Asker(a, rng, wording), Asker(b, rng, wording)]
    out, seen = [], set()
    nth = ["first", "second"]
    for _ in range(nq * 5):
        if len(out) >= nq: break
        u, i = rng.random(), int(rng.integers(2))
        me, other = A[i], A[1 - i]
        r = None
        if u < 0.25 and me.plain():
            o = pick(rng, me.plain())
            if (o["s"], o["c"]) not in other.pairs and not any(p["c2"] is not None for p in me.objs if p is o): r = (me.say("two_which", x=name(o)), nth[i])
        elif u < 0.35 and len(a["objs"]) != len(b["objs"]): r = (me.say("two_more"), nth[int(len(b["objs"]) > len(a["objs"]))])
        elif u < 0.5 and me.plain():
            o = pick(rng, me.plain())
            both = (o["s"], o["c"]) in other.pairs
            x = name(o)
            if rng.random() < 0.5: x, both = SHAPES[o["s"]], o["s"] in other.shapes
            if both or rng.random() < 0.5: r = (me.say("two_both", x=x), "yes" if both else "no")
        elif u < 0.65:
            q = me.color()
            if q:
                o = next(o for o in me.plain() if COLORS[o["c"]] == q[1] and me.shapes.count(o["s"]) == 1)
                r = (me.say("two_color", x=SHAPES[o["s"]], n=nth[i]), q[1])
        elif u < 0.8:
            q = me.shape()
            if q:
                o = next(o for o in me.plain() if SHAPES[o["s"]] == q[1] and me.cols.count(o["c"]) == 1)
                r = (me.say("two_shape", x=COLORS[o["c"]], n=nth[i]), q[1])
        elif u < 0.9: r = (me.say("two_count", n=nth[i]), str(len(me.objs)))
        elif me.sc["sign"]: r = (me.say("two_read", n=nth[i]), me.sc["sign"]["text"])
        if r and r[0] not in seen:
            seen.add(r[0]); out.append(dict(turns=[r], type="two_clips"))
    return out


def ask_picture(pic, clip, rng, nq, wording="train"):
    """Questions about a picture of one object (first) and a clip."""
    me, o = Asker(clip, rng, wording), pic["objs"][0]
    same = [p for p in me.plain() if p["s"] == o["s"] and p["c"] == o["c"]]
    if not same and (o["s"], o["c"]) in me.pairs: return []
    out, seen = [], set()
    ks = [("pic_in", "yes" if same else "no"), ("pic_color", COLORS[o["c"]]), ("pic_shape", SHAPES[o["s"]])]
    if same:
        p = same[0]
        ks += [("pic_in", "yes"), ("pic_move", "yes" if p["dir"] is not None else "no")]
        if p["dir"] is not None: ks += [("pic_dir", DIR_WORDS[p["dir"]])] * 2
        if p["t0"] > 0: ks += [("pic_when", str(int(p["t0"])))] * 2
    for k in rng.permutation(len(ks)):
        if len(out) >= nq: break
        if ks[k][0] in seen: continue
        seen.add(ks[k][0]); out.append(dict(turns=[(me.say(ks[k][0]), ks[k][1])], type="picture_clip"))
    return out


def sample_pair(rng, grids, d, combos, kind):
    """Two scenes that belong together. kind: two_clips or picture_clip; grids: [(D, H, W), (D, H, W)]."""
    from .scene import sample_scene
    want = pick(rng, ["motion", "order", None, None, "read"])
    b = sample_scene(rng, *grids[1], d=d, combos=combos, want=want)
    if kind == "two_clips":
        a = sample_scene(rng, *grids[0], d=d, combos=combos, want=pick(rng, [None, None, "read"]))
        if rng.random() < 0.5 and b["objs"] and a["objs"]:           # an object of one clip also in the other
            o, p = pick(rng, b["objs"]), pick(rng, a["objs"])
            if o["c2"] is None and p["c2"] is None and all((q["s"], q["c"]) != (o["s"], o["c"]) for q in a["objs"]): p["s"], p["c"] = o["s"], o["c"]
        return a, b
    while True:
        a = sample_scene(rng, *grids[0], d=0.0, combos=combos, still=True)
        if a["objs"]: break
    a["objs"], a["sign"] = a["objs"][:1], None
    o = a["objs"][0]
    plain = [p for p in b["objs"] if p["c2"] is None]
    if plain and rng.random() < 0.75:
        p = pick(rng, [q for q in plain if q["dir"] is not None or q["t0"] > 0] or plain) if rng.random() < 0.7 else pick(rng, plain)
        o["s"], o["c"] = p["s"], p["c"]
    elif plain:                                                       # near miss
        p = pick(rng, plain)
        s, c = (p["s"], int(rng.integers(10))) if rng.random() < 0.5 else (int(rng.integers(8)), p["c"])
        if combos != "train" or not held_combo(s, c): o["s"], o["c"] = s, c
    return a, b
