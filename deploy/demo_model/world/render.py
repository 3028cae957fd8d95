"""Pixels of scenes, in one batch on any device, what an encoder does to them, and per-cell targets for the vision tower."""
import os
import numpy as np
import torch
import torch.nn.functional as F
from .names import BACKGROUNDS, CHARS, MAXCH

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets")
ATLAS_R, ATLAS_N, GLYPH_H, GLYPH_W, PAD = 1.35, 192, 64, 46, 26
_cache = {}


def sdf_atlas():
    """Signed distance (negative inside) of the shapes of radius about 1 on a grid over [-1.35, 1.35]^2; y down."""
    g = (np.arange(ATLAS_N) + 0.5) / ATLAS_N * 2 * ATLAS_R - ATLAS_R
    y, x = np.meshgrid(g, g, indexing="ij")
    hyp = np.hypot(x, y)

    def poly(pts):
        pts = np.asarray(pts, float)
        d = np.full(x.shape, 1e9); inside = np.zeros(x.shape, bool)
        for (x1, y1), (x2, y2) in zip(pts, np.roll(pts, -1, 0)):
            ex, ey = x2 - x1, y2 - y1
            t = np.clip(((x - x1) * ex + (y - y1) * ey) / (ex * ex + ey * ey), 0, 1)
            d = np.minimum(d, np.hypot(x - x1 - t * ex, y - y1 - t * ey))
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1 + 1e-12) + x1)
        return np.where(inside, -d, d)

    ang = np.arange(10) * np.pi / 5 - np.pi / 2
    star = [(np.cos(a) * r, np.sin(a) * r) for a, r in zip(ang, [1.08, 0.45] * 5)]
    w = 0.34
    cross = [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)]
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    heart = np.stack([16 * np.sin(t) ** 3 / 16.5, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16.5 - 0.12], 1)
    return np.stack([hyp - 0.95, np.maximum(abs(x), abs(y)) - 0.84, poly([(0, -1.02), (1.02, 0.85), (-1.02, 0.85)]), poly(star), poly(cross),
                     abs(hyp - 0.74) - 0.24, (abs(x) * 1.25 + abs(y) - 1.08) / 1.55, poly(heart)]).astype(np.float32)


def assets(device):
    """(shape atlas [8, N, N], glyph atlas [3, 36, GLYPH_H, GLYPH_W] as signed distance in cell heights, photographs [P, 192, 192, 3])."""
    k = str(device)
    if k not in _cache:
        from PIL import Image
        gl = np.load(os.path.join(HERE, "glyphs.npy")).astype(np.float32) / 127.0 * 0.15
        ph = np.stack([np.asarray(Image.open(os.path.join(HERE, f)).convert("RGB").resize((192, 192))) for f in sorted(os.listdir(HERE)) if f.endswith(".jpg")])
        _cache[k] = (torch.from_numpy(sdf_atlas()).to(device), torch.from_numpy(gl).to(device), torch.from_numpy(ph).to(device).float())
    return _cache[k]


def to_device(sp, device):
    return {k: torch.as_tensor(v).to(device, non_blocking=True) for k, v in sp.items()}


def canvas(sp, host, Hb, Wb, device, dt, gen=None):
    """Backgrounds [B, Hb, Wb, 3]."""
    ar = lambda n: torch.arange(n, device=device, dtype=torch.float32)
    bg = sp["bgc"][:, 0, None, None].expand(-1, Hb, Wb, 3).clone()
    for kind, what in enumerate(BACKGROUNDS):
        ix = np.nonzero(host["bgk"] == kind)[0]
        n = len(ix)
        if n == 0 or what == "flat": continue
        ix = torch.from_numpy(ix).to(device, non_blocking=True)
        if what in ("gradient", "stripes"):
            a = sp["bga"][ix, None, None]
            proj = (ar(Wb)[None, None, :] * a.cos() + ar(Hb)[None, :, None] * a.sin()) * (220.0 / Hb)
            lo, hi = proj.amin((1, 2), True), proj.amax((1, 2), True)
            mix = (proj - lo) / (hi - lo) if what == "gradient" else (torch.sin(proj * sp["bgf"][ix, None, None]) * 4).clamp(-1, 1) * 0.5 + 0.5
            bg[ix] = torch.lerp(sp["bgc"][ix, 0, None, None], sp["bgc"][ix, 1, None, None], mix[..., None])
        elif what == "noise": bg[ix] += torch.randn(n, Hb, Wb, 1, device=device, generator=gen) * 18
        elif what == "clouds":
            tex = 0
            for m, wt in ((4, 1.0), (9, 0.6), (20, 0.35), (44, 0.2)):
                tex = tex + wt * F.interpolate(torch.randn(n, 3, m, m, device=device, generator=gen), (Hb, Wb), mode="bicubic", align_corners=False)
            bg[ix] += (tex * 6 + tex.mean(1, keepdim=True) * 18).permute(0, 2, 3, 1)
        else:                                                             # a crop of half to full side of a photograph, maybe mirrored
            ph = assets(device)[2]
            ph = ph[sp["bgp"][ix] % ph.shape[0]].permute(0, 3, 1, 2)
            f = sp["bgs"][ix].float() / (1 << 30)
            z = (0.5 + 0.5 * (f * 7 % 1))[:, None, None]
            flip = torch.where(f * 13 % 1 < 0.5, 1.0, -1.0)[:, None, None]
            gy = torch.linspace(-1, 1, Hb, device=device)[None, :, None] * z + (1 - z) * (f * 29 % 1 * 2 - 1)[:, None, None]
            gx = (torch.linspace(-1, 1, Wb, device=device)[None, None, :] * z + (1 - z) * (f * 53 % 1 * 2 - 1)[:, None, None]) * flip
            ph = F.grid_sample(ph, torch.stack([gx.expand(n, Hb, Wb), gy.expand(n, Hb, Wb)], -1), align_corners=False, padding_mode="border").permute(0, 2, 3, 1)
            grey = ph.mean(-1, keepdim=True)
            bg[ix] = 80 + (grey + 0.6 * (ph - grey)) * (100 / 255)        # paler and softer, so that the objects stand out
    return bg.clamp(0, 255).to(dt)


def blend(f, win, color, alpha):
    """f[b, t, win] = lerp(f, color, alpha); win = (yi [B, T, K], xi [B, T, L]); alpha [B, T, K, L] (equal where indices repeat)."""
    yi, xi = win
    B, T = f.shape[:2]
    ib = torch.arange(B, device=f.device)[:, None, None, None]; it = torch.arange(T, device=f.device)[None, :, None, None]
    ix = (ib, it, yi[..., None], xi[:, :, None])
    f[ix] = torch.lerp(f[ix], color.to(f.dtype), alpha.to(f.dtype)[..., None])


def noise_bank(n):
    """n normal numbers from a random place of a stored row (drawing them anew is slow on a CPU)."""
    if "noise" not in _cache: _cache["noise"] = torch.randn(1 << 22)
    bank = _cache["noise"]
    s = int(torch.randint(len(bank), (1,)))
    return torch.cat([bank[s:]] + [bank] * (n // len(bank) + 1))[:n] if s + n > len(bank) else bank[s:s + n]


@torch.no_grad()
def compose(bg, sp, host, H, W, sy, sx, device, gen=None):
    """Frames [B, T, H, W, 3] float 0..255. sy, sx: pixels per scene unit. host: the same spec as numpy (sizes are read from it)."""
    sdf, glyphs, _ = assets(device)
    B, _, T = sp["cx"].shape
    p = int(PAD * sy)
    off_y = (p + sp["pan"][:, 1] * sy).round().clamp(0, bg.shape[1] - H).long()
    off_x = (p + sp["pan"][:, 0] * sx).round().clamp(0, bg.shape[2] - W).long()
    ar = torch.arange(max(H, W), device=device)
    yi, xi = off_y[..., None] + ar[:H], off_x[..., None] + ar[:W]
    f = bg[torch.arange(B, device=device)[:, None, None, None], yi[..., None], xi[:, :, None]]
    sc = ATLAS_N / (2 * ATLAS_R)
    for k in range(int(host["nobj"].max())):
        r = sp["rad"][:, k, None, None]
        rm = float(host["rad"][:, k].max()) * 1.12 + 1.5
        K, L = int(2 * rm * sy) + 2, int(2 * rm * sx) + 2
        wy = ((sp["cy"][:, k, :, None] - rm) * sy).floor().long() + ar[:1] + torch.arange(K, device=device)
        wx = ((sp["cx"][:, k, :, None] - rm) * sx).floor().long() + torch.arange(L, device=device)
        wy, wx = wy.clamp(0, H - 1), wx.clamp(0, W - 1)
        u = (((wx + 0.5) / sx - sp["cx"][:, k, :, None]) / r + ATLAS_R) * sc
        v = (((wy + 0.5) / sy - sp["cy"][:, k, :, None]) / r + ATLAS_R) * sc
        d = sdf[sp["shp"][:, k, None, None, None], v.long().clamp(0, ATLAS_N - 1)[..., None], u.long().clamp(0, ATLAS_N - 1)[:, :, None]]
        al = (0.5 - d * r[..., None] * ((sx * sy) ** 0.5)).clamp(0, 1) * sp["vis"][:, k, :, None, None]
        blend(f, (wy, wx), sp["rgb"][:, k, :, None, None], al)
    if (host["txt"] >= 0).any():
        gh = sp["sbox"][:, 2, None, None]; gw = 0.72 * gh
        n = (sp["txt"] >= 0).sum(1)[:, None, None]
        hmax = float(host["sbox"][:, 2].max()); nm = int((host["txt"] >= 0).sum(1).max())
        K, L = int((hmax + 10) * sy) + 2, int((hmax * 0.72 * nm + 10) * sx) + 2
        wy = ((sp["sbox"][:, 1, None, None] - 1) * sy).floor().long() + torch.arange(K, device=device)
        wx = ((sp["sbox"][:, 0, None, None] - 1) * sx).floor().long() + torch.arange(L, device=device)
        wy, wx = wy.clamp(0, H - 1), wx.clamp(0, W - 1)                    # [B, 1, K], [B, 1, L]
        uy, ux = (wy + 0.5) / sy - sp["sbox"][:, 1, None, None], (wx + 0.5) / sx - sp["sbox"][:, 0, None, None]
        edge = torch.minimum(torch.minimum(uy, gh + 8 - uy)[..., None] * sy, torch.minimum(ux, n * gw + 8 - ux)[:, :, None] * sx)
        inside = (edge + 0.5).clamp(0, 1) * (n > 0)[..., None]
        ci = ((ux - 4) / gw).floor()
        ch = torch.gather(sp["txt"], 1, ci[:, 0].long().clamp(0, MAXCH - 1))[:, None]
        gx = (((ux - 4) / gw - ci) * GLYPH_W).long().clamp(0, GLYPH_W - 1); gy = ((uy - 4) / gh * GLYPH_H).long()
        ok = ((ci >= 0) & (ci < n) & (ch >= 0))[:, :, None] & ((gy >= 0) & (gy < GLYPH_H))[..., None]
        d = glyphs[sp["font"][:, None, None, None], ch.clamp(min=0)[:, :, None], gy.clamp(0, GLYPH_H - 1)[..., None], gx[:, :, None]]
        ink = (0.5 - d * gh[..., None] * sy).clamp(0, 1) * ok
        col = torch.lerp(sp["scol"][:, None, None, None, 0], sp["scol"][:, None, None, None, 1], ink[..., None])
        alpha = inside * sp["svis"][:, :, None, None]
        blend(f, (wy.expand(B, T, -1), wx.expand(B, T, -1)), col.expand(-1, T, -1, -1, -1), alpha)
    if gen is not None: g = torch.randn(B, T, H, W, 1, device=device, generator=gen)
    elif device.type == "cuda": g = torch.randn(B, T, H, W, 1, device=device, dtype=f.dtype)
    else: g = noise_bank(B * T * H * W).view(B, T, H, W, 1)
    return (f + g * sp["grain"].to(f.dtype)[:, None, None, None, None]).clamp(0, 255)


def _dct16(device, dt):
    """The two-dimensional 4 x 4 cosine transform as one 16 x 16 matrix over rows of a flattened block."""
    k = str(device), "dct"
    if k not in _cache:
        i, n = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        d = torch.cos(np.pi / 4 * (n + 0.5) * i) * 0.5 ** 0.5
        d[0] *= 0.5 ** 0.5
        _cache[k] = torch.kron(d, d).to(device)
    return _cache[k].to(dt)


def to_blocks(f):
    """RGB [B, T, H, W, 3] -> brightness in 4 x 4 blocks [B, T, H/4, W/4, 16] around 0 and both color differences [B, T, H/2, W/2] around 0."""
    B, T, H, W, _ = f.shape
    r, g, b = f.unbind(-1)
    y = 0.256788 * r + 0.504129 * g + 0.097906 * b - 112.0
    q = f.view(B, T, H // 2, 2, W // 2, 2, 3).mean((3, 5))
    r, g, b = q.unbind(-1)
    return y.view(B, T, H // 4, 4, W // 4, 4).transpose(3, 4).reshape(B, T, H // 4, W // 4, 16), -0.148223 * r - 0.290993 * g + 0.439216 * b, 0.439216 * r - 0.367788 * g - 0.071427 * b


def from_blocks(x, u, v, s):
    """The inverse, with the color differences rounded to steps of s / 2; s [B, 1, 1, 1]."""
    B, T, h, w, _ = x.shape
    y = 1.164384 * (x.view(B, T, h, w, 4, 4).transpose(3, 4).reshape(B, T, h * 4, w * 4).round() + 112.0)
    up = lambda c: (c / (s * 0.5)).round().mul(s * 0.5)[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(y.shape)
    u, v = up(u), up(v)
    return torch.stack([y + 1.596027 * v, y - 0.391762 * u - 0.812968 * v, y + 2.017232 * u], -1).clamp(0, 255).round()


def quantise(x, s):
    return torch.round(x / s) * s


@torch.no_grad()
def codec(f, q):
    """What encoding does, roughly: limited-range BT.601, chroma of half size, 4 x 4 transform with quantiser steps q [B], back to RGB. H and W multiples of 4."""
    D, s = _dct16(f.device, f.dtype), q.to(f.dtype)[:, None, None, None]
    x, u, v = to_blocks(f)
    x = F.linear(quantise(F.linear(x, D), s[..., None]), D.T)
    return from_blocks(x, u, v, s)


def _cubic(n_in, n_out, device):
    """Weights [n_out, n_in] of the antialiased bicubic resize."""
    k = str(device), n_in, n_out
    if k not in _cache:
        e = torch.eye(n_in)[None, None]                                     # resizing unit rows gives the columns of the matrix
        _cache[k] = F.interpolate(e, (n_out, n_in), mode="bicubic", antialias=True, align_corners=False)[0, 0].to(device)
    return _cache[k]


def resize(f, H, W):
    """[B, T, h, w, 3] -> [B, T, H, W, 3], antialiased bicubic as two matrix products."""
    B, T, h, w, _ = f.shape
    y = torch.matmul(_cubic(h, H, f.device).to(f.dtype), f.reshape(B * T, h, w * 3)).view(B * T * H, w, 3)
    return torch.matmul(_cubic(w, W, f.device).to(f.dtype), y).view(B, T, H, W, 3).clamp(0, 255).round()


@torch.no_grad()
def render(host, H, W, Hs, Ws, device, src=None, artefacts=True):
    """host: dict of stacked spec arrays (numpy); Hs, Ws: size of the scene in units. Returns uint8 [B, T, H, W, 3] as the model gets them.
    src: (h, w) the size of the simulated file, when it is not H x W; then the frames go through the antialiased bicubic resize."""
    sp = to_device(host, device)
    dt = torch.float16 if device.type == "cuda" else torch.float32
    h, w = src or (H, W)
    sy, sx = h / Hs, w / Ws
    B, _, T = host["cx"].shape
    bg = canvas(sp, host, int(h + 2 * PAD * sy), int(w + 2 * PAD * sx), device, dt)
    f = compose(bg, sp, host, h, w, sy, sx, device)
    f = codec(f, 1.0 + 22.0 * torch.rand(B, device=device) ** 2) if artefacts else f.round()
    return (resize(f, H, W) if (h, w) != (H, W) else f).to(torch.uint8)


@torch.no_grad()
def aux_targets(sp, hm, wm, Hs, Ws):
    """Per merged cell and temporal patch: shape 0..8 and color 0..10 of the object nearest to the cell centre (0 = none near), its offset in cells,
    its motion class 0..6 (0 none, 1 resting, 2.. the directions), and three characters of the sign (0 = none). Only used to teach."""
    dev = sp["cx"].device
    ch_, cw_ = Hs / hm, Ws / wm
    cx, cy, vis = (sp[k][:, :, 0::2] for k in ("cx", "cy", "vis"))
    B, N, Tg = cx.shape
    gy, gx = (torch.arange(hm, device=dev) + 0.5) * ch_, (torch.arange(wm, device=dev) + 0.5) * cw_
    dx, dy = (cx[..., None, None] - gx) / cw_, (cy[..., None, None] - gy[:, None]) / ch_
    dist = torch.maximum(dx.abs(), dy.abs()) + 1e3 * (1 - vis[..., None, None])
    near = dist < 0.5 + 0.6 * sp["rad"][:, :, None, None, None] / ch_
    best = dist.masked_fill(~near, 1e6).min(1)
    has, k = best.values < 1e5, best.indices
    g = lambda v: torch.gather(v.expand(B, N, Tg, hm, wm), 1, k[:, None])[:, 0]
    shp = torch.where(has, g(sp["shp"][:, :, None, None, None]) + 1, 0)
    col = torch.where(has, g(sp["col"][:, :, 0::2][..., None, None]) + 1, 0)
    mot = torch.where(has, g(sp["mot"][:, :, None, None, None]) + 1, 0)
    past = torch.stack([g(v[..., None, None]).flatten(1) for v in history(sp)], -1)
    reg = torch.stack([g(dx), g(dy), g(sp["rad"][:, :, None, None, None] / 16)], -1)
    gh = sp["sbox"][:, 2]; gw = 0.72 * gh
    c = torch.arange(MAXCH, device=dev)
    ccx = sp["sbox"][:, 0:1] + 4 + (c + 0.5) * gw[:, None]
    ccy = sp["sbox"][:, 1] + 4 + gh / 2
    sub = torch.arange(wm * 3, device=dev) * (cw_ / 3) + cw_ / 6
    hit = ((sub[None, :, None] - ccx[:, None]).abs() <= gw[:, None, None] / 2) & (sp["txt"] >= 0)[:, None]
    ch = torch.where(hit.any(-1), torch.gather(sp["txt"], 1, hit.float().argmax(-1)) + 1, 0)
    row = (gy[None] - ccy[:, None]).abs() <= ch_ / 2
    ch = torch.where(row[:, :, None], ch[:, None], 0)[:, None] * (sp["svis"][:, 0::2][..., None, None] > 0)
    return dict(ev=events(sp, hm, wm, ch_, cw_), past=past, shp=shp.flatten(1), col=col.flatten(1), mot=mot.flatten(1), reg=reg.flatten(1, 3), has=has.flatten(1), ch=ch.view(B, Tg, hm, wm, 3).flatten(1, 3).long())


def history(sp):
    """Per object and temporal patch [B, N, T/2] what has happened to it up to then: the second it was first seen, times it came back, color at first, and
    the second of a change (0: none yet)."""
    vis, col = sp["vis"] > 0, sp["col"]
    B, N, T = vis.shape
    on, last = vis.view(B, N, T // 2, 2).any(-1), col.view(B, N, T // 2, 2)[..., 1]
    sec = torch.arange(T // 2, device=vis.device).expand(B, N, -1)
    before = F.pad(on, (1, 0))[..., :-1]
    ever = before.int().cummax(-1).values > 0
    since = torch.where(on & ~before & ~ever, sec, 0).cummax(-1).values
    changed = torch.where(F.pad(last[..., 1:] != last[..., :-1], (1, 0)), sec, 0).cummax(-1).values
    return since.clamp(max=31), (on & ~before & ever).cumsum(-1).clamp(max=4), last[..., :1].expand(-1, -1, T // 2), changed.clamp(max=31)


def events(sp, hm, wm, ch_, cw_):
    """Per merged cell and temporal patch what happens to the object whose centre is there: 0 nothing, 1 seen for the first time, 2 gone, 3 new color, 4 back."""
    vis, col = sp["vis"] > 0, sp["col"]
    B, N, T = vis.shape
    on = vis.view(B, N, T // 2, 2).any(-1)
    last = col.view(B, N, T // 2, 2)[..., 1]
    before = F.pad(on, (1, 0))[..., :-1]
    ever = before.int().cummax(-1).values > 0
    new = F.pad(last[..., 1:] != last[..., :-1], (1, 0))
    k = torch.where(on & ~before, torch.where(ever, 4, 1), torch.where(~on & before, 2, torch.where(on & new, 3, 0)))
    cell = lambda c, n, d: (c[..., 1::2] / d).long().clamp(0, n - 1)
    at = (torch.arange(T // 2, device=vis.device) * hm + cell(sp["cy"], hm, ch_)) * wm + cell(sp["cx"], wm, cw_)
    return torch.zeros(B, T // 2 * hm * wm, dtype=torch.long, device=vis.device).scatter_reduce_(1, at.flatten(1), k.flatten(1), "amax")
