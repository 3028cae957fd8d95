"""Asks a running server about freshly rendered clips and prints accuracy by question type, with controls. See run.sh."""
import argparse
import json
import os
import statistics
import sys
import threading
import time
import grpc
import numpy as np
from videonsa.v1 import clip_pb2, clip_pb2_grpc, common_pb2, video_qa_pb2 as pb, video_qa_pb2_grpc
from deploy.demo_model.evaluate import table
from deploy.demo_model.world import testset

TARGETS = dict(overall=0.95, type=0.85, wording=0.90, needle_8192=0.95, needle_32768=0.90, evidence=0.90, dense=0.01, blind=0.40, short_s=2.0, long_s=20.0, megabytes=600)
NATIVE, DENSE = pb.AttentionConfig.MODE_UNSPECIFIED, pb.AttentionConfig.MODE_DENSE


class Client:
    def __init__(self, address):
        channel = grpc.insecure_channel(address)
        self.stub, self.clips, self.uploaded = video_qa_pb2_grpc.VideoQaServiceStub(channel), clip_pb2_grpc.ClipServiceStub(channel), {}

    def upload(self, path, data):
        """The server's name of a clip that is too large to travel inside a question."""
        if path in self.uploaded: return self.uploaded[path]
        started = self.clips.StartUpload(clip_pb2.StartUploadRequest(size_bytes=len(data)))

        def pieces():
            yield clip_pb2.UploadClipRequest(header=clip_pb2.UploadHeader(upload_id=started.upload_id))
            step = min(started.max_chunk_bytes, 1 << 20)
            for at in range(0, len(data), step):
                yield clip_pb2.UploadClipRequest(chunk=clip_pb2.UploadChunk(offset=at, data=data[at:at + step], finish=at + step >= len(data)))
        self.clips.UploadClip(pieces())
        clip = started.clip
        for event in self.clips.WatchClip(clip_pb2.WatchClipRequest(name=clip.name)): clip = event.clip
        if clip.state != clip_pb2.Clip.STATE_READY: raise RuntimeError(f"{path} was not taken: {clip}")
        self.uploaded[path] = clip.name
        return clip.name

    def ask(self, item, folder, visuals=None, mode=NATIVE, evidence=False):
        """Text of the last answer, the last result and the seconds of the whole item; earlier turns hold the server's own answers."""
        turns, t0, result = [], time.time(), None
        for i, t in enumerate(item["turns"]):
            parts = []
            if i == 0:
                for v in visuals or item["visuals"]:
                    with open(os.path.join(folder, v["file"]), "rb") as f: data = f.read()
                    if v["kind"] == "image": parts.append(pb.Part(image=pb.ImageInput(inline_data=data, min_pixels=item["sampling"]["min_pixels_per_frame"],
                                                                                               max_pixels=item["sampling"]["max_pixels_per_frame"])))
                    else:
                        source = dict(inline_data=data) if len(data) < 3 << 20 else dict(clip=self.upload(f.name, data))
                        parts.append(pb.Part(clip=pb.ClipInput(**source, sampling=common_pb2.VideoSampling(**item["sampling"]))))
            parts.append(pb.Part(text=t["q"]))
            turns.append(pb.Turn(role=pb.Turn.ROLE_USER, parts=parts))
            q = pb.Question(turns=turns, attention=pb.AttentionConfig(mode=mode), report=pb.ReportConfig(attended_intervals=evidence))
            q.generation.max_output_tokens = 16
            q.generation.temperature = 0.0
            result = self.stub.Ask(pb.AskRequest(question=q), timeout=300).result
            turns.append(pb.Turn(role=pb.Turn.ROLE_ASSISTANT, parts=[pb.Part(text=result.text)]))
        return result.text, result, time.time() - t0


class Memory(threading.Thread):
    """The largest resident size of the server and its decoders, in MB."""
    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0.0
        if pid: self.start()

    def run(self):
        page = os.sysconf("SC_PAGESIZE")
        while True:
            total = 0
            try:
                with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="utf-8") as f: pids = [self.pid] + f.read().split()
                for p in pids:
                    with open(f"/proc/{p}/statm", encoding="utf-8") as f: total += int(f.read().split()[1]) * page
            except OSError:
                if not os.path.exists(f"/proc/{self.pid}"): return
            self.peak = max(self.peak, total / 1e6)
            time.sleep(0.05)


def right(item, text):
    return text.strip() == item["turns"][-1]["a"]


def seconds(d):
    return d.seconds + d.nanos * 1e-9


def named(item, result, top=3):
    """Whether one of the intervals attended most lies on the seconds in which the sign is shown."""
    lo, hi = item["evidence"]
    return any(seconds(i.range.start_offset) < hi and seconds(i.range.end_offset) > lo for i in list(result.attention.intervals)[:top])


def short(c, a, limits):
    folder = os.path.join(a.work, "short")
    t0 = time.time()
    items = testset.short_set(folder, a.seed, a.count, limits, a.level)
    print(f"rendered {len(items)} items in {time.time() - t0:.0f} s", flush=True)
    rows, took = [], []
    for it in items:
        text, _, s = c.ask(it, folder)
        if len(it["visuals"]) == 1 and len(it["turns"]) == 1 and it["visuals"][0]["seconds"] == 10: took.append(s)
        same = [o for o in items if o["type"] == it["type"] and o["id"] != it["id"]]
        other = same[it["id"] % len(same)]["visuals"] if same else None
        ok = right(it, text)
        rows.append(dict(type=it["type"], wording=it["wording"], combos=it["combos"], right=ok, shuffled=right(it, c.ask(it, folder, other)[0]) if other else None,
                         dense=right(it, c.ask(it, folder, mode=DENSE)[0]) if a.dense else None))
        if a.show and not ok: print(f"  {it['id']} {it['type']}: {it['turns'][-1]['q']!r} answered {text!r}, right is {it['turns'][-1]['a']!r}")
    overall = table(rows)
    bad = []
    if overall < TARGETS["overall"]: bad.append(f"overall {overall:.1%} < {TARGETS['overall']:.0%}")
    for t in sorted({r["type"] for r in rows}):
        m = [r["right"] for r in rows if r["type"] == t]
        if sum(m) / len(m) < TARGETS["type"]: bad.append(f"{t} {sum(m) / len(m):.1%} < {TARGETS['type']:.0%}")
    held = [r["right"] for r in rows if r["wording"] == "held"]
    if held and sum(held) / len(held) < TARGETS["wording"]: bad.append(f"held-out wordings {sum(held) / len(held):.1%} < {TARGETS['wording']:.0%}")
    s = [r["shuffled"] for r in rows if r["shuffled"] is not None]
    blind = sum(s) / max(1, len(s))
    print(f"clip replaced by another: {blind:.1%}")
    if blind > TARGETS["blind"]: bad.append(f"clip replaced by another: {blind:.1%} > {TARGETS['blind']:.0%}")
    if a.dense:
        d = sum(r["dense"] for r in rows) / len(rows)
        print(f"dense attention, same weights: {d:.1%}, causal_nsa {overall:.1%}")
        if abs(d - overall) > TARGETS["dense"]: bad.append(f"dense {d:.1%} against {overall:.1%}")
    if took:
        print(f"clips of 10 s, end to end: {len(took)} asked, median {statistics.median(took):.2f} s, slowest {max(took):.2f} s")
        if max(took) > TARGETS["short_s"]: bad.append(f"a clip of 10 s took {max(took):.2f} s > {TARGETS['short_s']} s")
    return overall, bad


def needles(c, a, limits, tokens, count):
    folder = os.path.join(a.work, f"needle{tokens}")
    t0 = time.time()
    items = testset.needle_set(folder, a.seed, count, tokens, limits)
    print(f"rendered {count} clips of {items[0]['visuals'][0]['seconds']} s or so in {time.time() - t0:.0f} s", flush=True)
    bad = []
    for name, mode in (("causal_nsa", NATIVE), ("dense", DENSE))[:2 if a.dense else 1]:
        these = items if mode == NATIVE else items[:a.dense_needles]
        ok = near = n = 0
        took = budget = 0.0
        for it in these:
            text, r, s = c.ask(it, folder, mode=mode, evidence=mode == NATIVE)
            took += s; budget += r.attention.budget_fraction; n += r.usage.prompt.vision
            if right(it, text): ok += 1; near += mode == NATIVE and named(it, r)
        acc = ok / len(these)
        evidence = f"evidence {near:2d} of {ok:2d}" if mode == NATIVE else " " * 17
        print(f"needle {n // len(these):6d} tokens  {name:10s} right {ok:2d} of {len(these):2d} {acc:6.1%}  {evidence}  {took / len(these):6.2f} s  budget {budget / len(these):6.1%}", flush=True)
        if mode == NATIVE:
            if acc < TARGETS[f"needle_{tokens}"]: bad.append(f"needle {tokens}: {acc:.1%} < {TARGETS[f'needle_{tokens}']:.0%}")
            if near < TARGETS["evidence"] * ok: bad.append(f"evidence at {tokens}: {near} of {ok}")
    return bad


def ten_minutes(c, a, limits):
    folder = os.path.join(a.work, "long")
    os.makedirs(folder, exist_ok=True)
    it = testset.needle(np.random.default_rng([a.seed, 79]), folder, 0, 0, limits, seconds=600, h=112, w=112, fps=1.0)
    text, r, s = c.ask(it, folder, evidence=True)
    print(f"a clip of 600 s at 1 frame a second, {r.usage.prompt.vision} tokens: {s:.2f} s, {it['turns'][0]['q']!r} {text!r}, right is {it['turns'][0]['a']!r}; "
          f"evidence {'on' if named(it, r) else 'not on'} the seconds {it['evidence']}")
    return [f"10 minutes took {s:.1f} s > {TARGETS['long_s']:.0f} s"] if s > TARGETS["long_s"] else []


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--address", required=True)
    ap.add_argument("--pid", type=int, default=0, help="process of the server, to measure its memory")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--work", required=True)
    ap.add_argument("--count", type=int, default=400)
    ap.add_argument("--needles", type=int, default=20, help="clips of 8K tokens; half as many of 32K")
    ap.add_argument("--dense-needles", type=int, default=4, help="of each length with dense attention")
    ap.add_argument("--level", type=float, default=1.0)
    ap.add_argument("--no-dense", dest="dense", action="store_false")
    ap.add_argument("--show", action="store_true", help="print wrong answers")
    a = ap.parse_args()
    t0 = time.time()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    with open(os.path.join(root, "deploy/demo_model/weights/preprocessor_config.json"), encoding="utf-8") as f: p = json.load(f)
    limits = (p["min_pixels"], p["max_pixels"])
    c, memory = Client(a.address), Memory(a.pid)
    bad = ten_minutes(c, a, limits)
    overall, more = short(c, a, limits)
    bad += more
    if a.pid:
        print(f"largest resident size of server and decoders so far: {memory.peak:.0f} MB")
        if memory.peak > TARGETS["megabytes"]: bad.append(f"{memory.peak:.0f} MB resident > {TARGETS['megabytes']} MB")
    if a.needles: bad += needles(c, a, limits, 8192, a.needles) + needles(c, a, limits, 32768, max(1, a.needles // 2))
    if a.pid and a.needles: print(f"largest resident size with 32K tokens and dense attention too: {memory.peak:.0f} MB")
    for b in bad: print("below target:", b)
    print(f"accuracy {overall:.1%} on {a.count} held-out clips, seed {a.seed}: {'below the targets' if bad else 'all targets met'} ({time.time() - t0:.0f} s)")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
