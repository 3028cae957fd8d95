"""The model on real files, in plain PyTorch (fp32, CPU): decode, sample, resize, prompt, greedy answer. What the server's output is compared with."""
import json
import os
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from . import model as M
from .world.files import smart_resize
from .world.scene import sample_times

HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
PAD = {"image": "<|image_pad|>", "video": "<|video_pad|>"}


def sample_indices(n_all, rate, fps=2.0, max_frames=100000):
    """Frame numbers taken from a file of n_all frames."""
    return np.rint(sample_times(n_all / rate, rate, fps, max_frames) * rate).astype(int)


def read_video(path, fps=2.0, max_frames=100000):
    """uint8 [T, H, W, 3]: the sampled frames, converted the way swscale does it without accurate rounding."""
    import av
    with av.open(path) as c:
        s = c.streams.video[0]
        s.thread_type = "AUTO"
        n = sum(1 for p in c.demux(s) if p.size)
        rate = float(s.average_rate)
    want = sample_indices(n, rate, fps, max_frames)
    keep, out = set(want.tolist()), {}
    with av.open(path) as c:
        for i, f in enumerate(c.decode(video=0)):
            if i in keep: out[i] = f.to_ndarray(format="rgb24")
    last = max(out)
    return np.stack([out[min(i, last)] for i in want])


def read_picture(path, lo, hi):
    """uint8 [h, w, 3]: once through JPEG of quality 75, as the published evaluation does, then Pillow's bicubic resize."""
    import io
    from PIL import Image
    buf = io.BytesIO()
    Image.open(path).convert("RGB").save(buf, "JPEG")
    im = Image.open(buf).convert("RGB")
    h, w = smart_resize(im.height, im.width, lo, hi)
    return np.array(im if im.size == (w, h) else im.resize((w, h), Image.BICUBIC))


def resize(x, lo, hi):
    """uint8 [T, H, W, 3] -> the size the model sees, antialiased bicubic, rounded to integers."""
    h, w = smart_resize(x.shape[1], x.shape[2], lo, hi)
    x = torch.from_numpy(x)
    if (h, w) == tuple(x.shape[1:3]): return x
    y = F.interpolate(x.permute(0, 3, 1, 2).float(), (h, w), mode="bicubic", antialias=True, align_corners=False)
    return y.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class Pipeline:
    def __init__(self, folder, semantics="causal_nsa"):
        self.c = M.Cfg.from_hf(folder)
        self.c.semantics = semantics
        self.net = M.VLM(self.c).eval()
        M.load_weights(self.net, folder)
        self.tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "preprocessor_config.json"), encoding="utf-8") as f: p = json.load(f)
        self.lo, self.hi = p["min_pixels"], p["max_pixels"]
        self.stop = self.tok.token_to_id("<|im_end|>")

    def frames(self, visual, folder, sampling):
        """uint8 [T, h, w, 3] for a visual of a question (dict kind, file)."""
        path = os.path.join(folder, visual["file"])
        if visual["kind"] == "image":
            x = read_picture(path, self.lo, self.hi)
            return torch.from_numpy(np.stack([x, x]))
        return resize(read_video(path, sampling.get("fps", 2.0), sampling.get("max_frames", 100000)), self.lo, self.hi)

    @torch.no_grad()
    def features(self, x, piece=64):
        """Vision tokens [1, n, hidden] of frames [T, h, w, 3]."""
        return torch.cat([self.net.visual(x[None, a:a + 2 * piece]) for a in range(0, len(x), 2 * piece)], 1)

    def prompt(self, visuals, turns):
        """Front layout and the text ids behind the visuals. visuals: list of (kind, frames); turns: list of (question, answer or None)."""
        parts, text = [("text", self.tok.encode(HEAD + "<|vision_start|>").ids)], ""
        for i, (kind, x) in enumerate(visuals):
            if i: parts.append(("text", self.tok.encode("<|vision_end|><|vision_start|>").ids))
            parts.append((kind, len(x) // 2, x.shape[1] // 28, x.shape[2] // 28))
        if not visuals: parts = [("text", self.tok.encode(HEAD).ids)]
        for i, (q, a) in enumerate(turns):
            text += (("<|vision_end|>" if visuals else "") if i == 0 else "\n<|im_start|>user\n") + q + "<|im_end|>\n<|im_start|>assistant\n" + (a + "<|im_end|>" if a is not None else "")
        return M.Front(parts), self.tok.encode(text).ids

    @torch.no_grad()
    def run(self, feats, front, ids):
        """Hidden of the text rows and logits of the last one."""
        t = torch.tensor([ids])
        mask = M.text_mask(torch.zeros_like(t), front.n, False)
        h, _, _ = self.net(feats, front, t, torch.arange(len(ids))[None], mask)
        return self.net.logits(h[0, -1])

    @torch.no_grad()
    def answer(self, visuals, turns, limit=16, feats=None):
        """(text, ids, logits of the last prompt position)."""
        feats = feats or [self.features(x) for _, x in visuals]
        front, ids = self.prompt(visuals, turns)
        out, first = [], None
        for _ in range(limit):
            lg = self.run(feats, front, ids + out)
            if first is None: first = lg
            k = int(lg.argmax())
            if k == self.stop: break
            out.append(k)
        return self.tok.decode(out), out, first
