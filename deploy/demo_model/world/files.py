"""Encoded files of scenes (H.264 MP4 through the ffmpeg tool, PNG pictures) and the size the model will see them at."""
import math
import subprocess
import numpy as np
import torch
from . import render as R
from .scene import spec, stack


def smart_resize(h, w, lo, hi):
    """Height and width, multiples of 28, that the server scales an h x w frame to."""
    r = lambda v: 28 * round(v / 28)
    a, b = max(28, r(h)), max(28, r(w))
    if a * b > hi:
        k = math.sqrt(h * w / hi)
        a, b = max(28, 28 * math.floor(h / k / 28)), max(28, 28 * math.floor(w / k / 28))
    elif a * b < lo:
        k = math.sqrt(lo / (h * w))
        a, b = 28 * math.ceil(h * k / 28), 28 * math.ceil(w * k / 28)
    return a, b


def scene_size(h, w, lo, hi):
    """Units of the scene for a file of h x w pixels: one unit is one pixel of the scaled frame, and shapes keep their aspect in the file."""
    a, _ = smart_resize(h, w, lo, hi)
    return float(a), a * w / h


def frames(sc, h, w, times, chunk=48):
    """uint8 [n, h, w, 3] pieces of the scene at the given times."""
    dev = torch.device("cpu")
    gen = torch.Generator().manual_seed(sc["bg"]["seed"])
    sy, sx = h / sc["H"], w / sc["W"]
    bg = None
    for a in range(0, len(times), chunk):
        host = stack([spec(sc, times[a:a + chunk])])
        sp = R.to_device(host, dev)
        if bg is None: bg = R.canvas(sp, host, int(h + 2 * R.PAD * sy), int(w + 2 * R.PAD * sx), dev, torch.float32, gen)
        yield R.compose(bg, sp, host, h, w, sy, sx, dev, gen)[0].round().to(torch.uint8).numpy()


def write_mp4(sc, path, h, w, fps, crf=23):
    """The whole scene as an H.264 file of seconds * fps frames."""
    n = int(round(sc["D"] * fps))
    cmd = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-r", str(fps), "-i", "-", "-c:v", "libx264", "-preset", "veryfast",
           "-crf", str(crf), "-pix_fmt", "yuv420p", "-threads", "1", "-movflags", "+faststart", path]
    p = subprocess.Popen(cmd, stdin=subprocess.PIPE)
    for f in frames(sc, h, w, np.arange(n) / fps): p.stdin.write(f.tobytes())
    p.stdin.close()
    if p.wait() != 0: raise RuntimeError(f"ffmpeg could not write {path}")


def write_png(sc, path, h, w):
    from PIL import Image
    Image.fromarray(next(frames(sc, h, w, np.zeros(1)))[0]).save(path)
