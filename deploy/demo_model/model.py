"""Qwen2.5-VL in plain PyTorch with causal_nsa attention for vision rows; parameter names are Hugging Face's (old layout).

A batch is [front | text]: the front (system text, visuals, the text between them) has one layout for all rows of the batch; the text after the
last visual may hold several questions, isolated from each other or as one conversation."""
import json
import os
import torch
import torch.nn as nn
import torch.nn.functional as F

BLOCK, GATE_T = 64, 0.3
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]) * 255
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]) * 255
CHUNK = 2048            # query rows per pass of the selection branch


class Cfg:
    def __init__(self, **kw):
        self.vocab = 2048
        self.v_depth, self.v_hidden, self.v_heads, self.v_inter, self.v_full, self.v_window = 4, 256, 4, 576, [1, 3], 112
        self.depth, self.hidden, self.heads, self.kv_heads, self.inter = 7, 384, 6, 2, 768
        self.mrope, self.theta, self.eps = [5, 6, 21], 1000.0, 1e-6
        self.sel_blocks, self.window, self.semantics = 3, 32, "causal_nsa"
        self.tokens_per_second = 2
        for k, v in kw.items():
            assert hasattr(self, k), k
            setattr(self, k, v)

    def hf(self, ids):
        text = dict(hidden_size=self.hidden, intermediate_size=self.inter, num_hidden_layers=self.depth, num_attention_heads=self.heads,
                    num_key_value_heads=self.kv_heads, vocab_size=self.vocab, rms_norm_eps=self.eps, rope_theta=self.theta,
                    max_position_embeddings=65536, hidden_act="silu", attention_dropout=0.0, tie_word_embeddings=True, use_sliding_window=False,
                    sliding_window=32768, max_window_layers=self.depth, initializer_range=0.02, use_cache=True,
                    rope_scaling=dict(type="mrope", mrope_section=self.mrope), block_counts=self.sel_blocks, window_size=self.window, block_size=BLOCK)
        vis = dict(model_type="qwen2_5_vl", depth=self.v_depth, hidden_size=self.v_hidden, num_heads=self.v_heads, intermediate_size=self.v_inter,
                   out_hidden_size=self.hidden, patch_size=14, spatial_patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=self.v_window,
                   fullatt_block_indexes=self.v_full, in_channels=3, in_chans=3, hidden_act="silu", tokens_per_second=self.tokens_per_second)
        end = ids["<|endoftext|>"]
        return dict(architectures=["Qwen2_5_VLForConditionalGeneration"], model_type="qwen2_5_vl", torch_dtype="bfloat16", **text,
                    text_config=dict(model_type="qwen2_5_vl_text", bos_token_id=end, eos_token_id=ids["<|im_end|>"], **text), vision_config=vis,
                    nsa=dict(semantics="causal_nsa", block_size=BLOCK, block_counts=self.sel_blocks, window_size=self.window, gate_temperature=GATE_T),
                    bos_token_id=end, eos_token_id=ids["<|im_end|>"], pad_token_id=end, vision_start_token_id=ids["<|vision_start|>"],
                    vision_end_token_id=ids["<|vision_end|>"], vision_token_id=ids["<|vision_pad|>"],
                    image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"])

    @staticmethod
    def from_hf(folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f: j = json.load(f)
        t, v, n = j["text_config"], j["vision_config"], j["nsa"]
        return Cfg(vocab=t["vocab_size"], v_depth=v["depth"], v_hidden=v["hidden_size"], v_heads=v["num_heads"], v_inter=v["intermediate_size"],
                   v_full=v["fullatt_block_indexes"], v_window=v["window_size"], depth=t["num_hidden_layers"], hidden=t["hidden_size"],
                   heads=t["num_attention_heads"], kv_heads=t["num_key_value_heads"], inter=t["intermediate_size"], mrope=t["rope_scaling"]["mrope_section"],
                   theta=t["rope_theta"], eps=t["rms_norm_eps"], sel_blocks=n["block_counts"], window=n["window_size"])


def working(x):
    """The type that matrix products run in: that of autocast, else the tensor's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class RMSNorm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps).to(working(x))


class MLP(nn.Module):
    def __init__(self, n, m, bias):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(n, m, bias), nn.Linear(n, m, bias), nn.Linear(m, n, bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def rot(x, cos, sin):
    """Rotate-half rotary on the last dimension; cos and sin already have full width."""
    h = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., h:], x[..., :h]], -1) * sin


# ---------------------------------------------------------------------------------------------- vision tower

class VBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(c.v_hidden, c.eps), RMSNorm(c.v_hidden, c.eps)
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(c.v_hidden, 3 * c.v_hidden), nn.Linear(c.v_hidden, c.v_hidden)
        self.mlp = MLP(c.v_hidden, c.v_inter, True)
        self.h = c.v_heads

    def pre(self, x, cos, sin):
        B, n, C = x.shape
        y = self.attn.qkv(self.norm1(x)).view(B, n, 3, self.h, C // self.h)
        q, k = rot(y[:, :, :2].permute(2, 0, 3, 1, 4), cos, sin).unbind(0)
        return q, k, y[:, :, 2].transpose(1, 2)

    def post(self, x, o):
        x = x + self.attn.proj(o.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.norm2(x))

    def forward(self, x, cos, sin, mask):
        q, k, v = self.pre(x, cos, sin)
        return self.post(x, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def patch_rows(frames, mean, std):
    """uint8 or float [B, T, H, W, 3], values 0..255 -> normalised rows [B * T/2, H/14 * W/14, 1176] in merge order."""
    B, T, H, W, _ = frames.shape
    x = (frames.float() - mean) / std
    x = x.to(working(x))
    x = x.view(B * T // 2, 2, H // 28, 2, 14, W // 28, 2, 14, 3)           # t, k, R, a, i, C, b, j, c
    return x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(B * T // 2, H // 14 * (W // 14), 1176)


class Vision(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, c.v_hidden, (2, 14, 14), (2, 14, 14), bias=False)
        self.blocks = nn.ModuleList(VBlock(c) for _ in range(c.v_depth))
        self.merger = nn.Module()
        self.merger.ln_q = RMSNorm(c.v_hidden, c.eps)
        self.merger.mlp = nn.Sequential(nn.Linear(4 * c.v_hidden, 4 * c.v_hidden), nn.GELU(), nn.Linear(4 * c.v_hidden, c.hidden))
        self.register_buffer("mean", MEAN.clone(), persistent=False)
        self.register_buffer("std", STD.clone(), persistent=False)
        self._geo = {}

    def geo(self, h, w, dev, dtype):
        """Rotary tables and window mask for h x w patches, rows in merge order (R, C, a, b)."""
        k = (h, w, str(dev), dtype)
        if k not in self._geo:
            yy, xx = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            order = lambda g: g.view(h // 2, 2, w // 2, 2).permute(0, 2, 1, 3).reshape(-1)
            y, x = order(yy), order(xx)
            dim = self.c.v_hidden // self.c.v_heads // 2
            inv = 1.0 / 10000 ** (torch.arange(0, dim, 2).float() / dim)
            e = torch.cat([y[:, None] * inv, x[:, None] * inv], 1)
            e = torch.cat([e, e], 1)
            s = self.c.v_window // 14
            wid = (y // s) * 1000 + x // s
            m = wid[:, None] == wid[None]
            self._geo[k] = (e.cos().to(dev, dtype), e.sin().to(dev, dtype), None if bool(m.all()) else additive(m[None, None], dtype).to(dev))
        return self._geo[k]

    def forward(self, frames):
        """[B, T, H, W, 3] -> [B, T/2 * H/28 * W/28, hidden]."""
        B, T, H, W, _ = frames.shape
        return self.tower(patch_rows(frames, self.mean, self.std), H // 14, W // 14).view(B, -1, self.c.hidden)

    def tower(self, rows, h, w):
        """rows [temporal patches, h * w, 1176] -> [temporal patches, h/2 * w/2, hidden]."""
        x = F.linear(rows, self.patch_embed.proj.weight.flatten(1))
        cos, sin, mask = self.geo(h, w, rows.device, x.dtype)
        for i, b in enumerate(self.blocks):
            x = b(x, cos, sin, None if i in self.c.v_full else mask)
        return self.merger.mlp(self.merger.ln_q(x).reshape(x.shape[0], -1, 4 * self.c.v_hidden))


# ---------------------------------------------------------------------------------------------- attention

def additive(mask, dtype):
    """A bool mask as what is added to the scores, its rows aligned for the attention kernels."""
    n = mask.shape[-1]
    m = torch.full((*mask.shape[:-1], -(-n // 16) * 16), float("-inf"), dtype=dtype, device=mask.device)[..., :n]
    return m.masked_fill_(mask, 0.0)


_plans = {}


def plan(n, W, rep, dev, dtype):
    """What the branches need that depends on the number of rows only: number of earlier blocks a window touches, its mask, and per chunk of query rows
    (first, end, own block, visible complete blocks, causal mask)."""
    key = (n, W, rep, str(dev), dtype, CHUNK)
    if key in _plans: return _plans[key]
    nb, prev = -(-n // BLOCK), -(-(W - 1) // BLOCK)
    i = torch.arange(nb * BLOCK, device=dev).view(nb, BLOCK, 1)
    j = (torch.arange(nb, device=dev).view(nb, 1, 1) - prev) * BLOCK + torch.arange((prev + 1) * BLOCK, device=dev)
    win = additive(((j <= i) & (j > i - W) & (j >= 0)).repeat(rep, 1, 1)[None], dtype)
    chunks = []
    for a in range(0, n, CHUNK):
        e = min(n, a + CHUNK)
        i = torch.arange(a, e, device=dev)
        chunks.append((a, e, i // BLOCK, (torch.arange(n // BLOCK, device=dev) + 1)[None] * BLOCK - 1 <= i[:, None], torch.arange(e, device=dev)[None] <= i[:, None]))
    p = (prev, win, chunks)
    if n <= CHUNK:
        if len(_plans) > 400: _plans.clear()
        _plans[key] = p
    return p


def window_branch(q, k, v, prev, mask):
    """softmax over i - W < j <= i by blocks of 64 rows; q [N, rep, n, D], k and v [N, 1, n, D]."""
    N, rep, n, D = q.shape
    nb = -(-n // BLOCK)
    pad = nb * BLOCK - n

    def near(x):
        x = F.pad(x, (0, 0, prev * BLOCK, pad)).view(N, nb + prev, BLOCK, D)
        x = torch.cat([x[:, a:a + nb] for a in range(prev + 1)], 2)
        return x[:, None].expand(-1, rep, -1, -1, -1).reshape(N, rep * nb, -1, D)
    qp = F.pad(q, (0, 0, 0, pad)).reshape(N, rep * nb, BLOCK, D)
    o = F.scaled_dot_product_attention(qp, near(k), near(v), attn_mask=mask)
    return o.reshape(N, rep, nb * BLOCK, D)[:, :, :n]


def choose(p, own, Ct, B_sel):
    """p [N, n, C] scores of the complete blocks, own [n] -> bool [N, n, Ct]: the own block and the B_sel - 1 best earlier ones, ties to the lower index."""
    C = p.shape[-1]
    blk = torch.arange(C, device=p.device)
    cand = blk[None] < own[:, None]
    idx = p.masked_fill(~cand, -1.0).sort(dim=-1, descending=True, stable=True).indices[..., :B_sel - 1]
    ch = torch.zeros(p.shape[0], p.shape[1], Ct, dtype=torch.bool, device=p.device)
    ch.scatter_(-1, idx, True)
    ch[..., :C] &= cand
    return ch | (torch.arange(Ct, device=p.device)[None] == own[:, None])


def nsa(q, k, v, gate, B_sel, W):
    """causal_nsa for all rows 0 .. n-1: q [B, H, n, D], k and v [B, G, n, D], gate [B, n, H, 3] after the sigmoid -> [B, H, n, D]."""
    B, H, n, D = q.shape
    G = k.shape[1]
    rep, s, dev = H // G, D ** -0.5, q.device
    qf, kf, vf = q.reshape(B * G, rep, n, D), k.reshape(B * G, 1, n, D), v.reshape(B * G, 1, n, D)
    g = gate.permute(0, 2, 1, 3).reshape(B * G, rep, n, 3).to(q.dtype)
    C, Ct = n // BLOCK, -(-n // BLOCK)
    prev, win, chunks = plan(n, W, rep, dev, q.dtype)
    o = window_branch(qf, kf, vf, prev, win) * g[..., 2:3]
    kb = kf[:, :, :C * BLOCK].reshape(B * G, C, BLOCK, D).float().mean(2).to(q.dtype)
    vb = vf[:, :, :C * BLOCK].reshape(B * G, C, BLOCK, D).float().mean(2).to(q.dtype)
    ke, ve = kf.expand(-1, rep, -1, -1).contiguous(), vf.expand(-1, rep, -1, -1).contiguous()
    parts = []
    for a, e, own, vis, causal in chunks:
        out, p = 0, None
        if C > 0:
            lg = torch.matmul(qf[:, :, a:e], kb[:, None].transpose(-1, -2)).float() * s
            pr = lg.masked_fill(~vis, -1e30).softmax(-1) * vis
            p = pr.detach().sum(1)
            out = torch.matmul(pr.to(q.dtype), vb[:, None]) * g[:, :, a:e, 0:1]
        mask = causal
        if -(-e // BLOCK) > B_sel:
            with torch.no_grad():
                ch = choose(p, own, Ct, B_sel)
                mask = additive((ch.repeat_interleave(BLOCK, -1)[..., :e] & causal)[:, None], q.dtype)
        slc = F.scaled_dot_product_attention(qf[:, :, a:e], ke[:, :, :e], ve[:, :, :e], attn_mask=mask)
        parts.append(out + slc * g[:, :, a:e, 1:2])
    o = o + (torch.cat(parts, 2) if len(parts) > 1 else parts[0])
    return o.reshape(B, H, n, D)


class Attn(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.D = c, c.hidden // c.heads
        self.q_proj = nn.Linear(c.hidden, c.hidden)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * self.D)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * self.D)
        self.o_proj = nn.Linear(c.hidden, c.hidden, bias=False)
        self.g_proj_1 = nn.Linear(c.hidden, c.hidden)
        self.g_proj_2 = nn.Linear(c.hidden, c.heads * 3)

    def qkv(self, x, cos, sin):
        c, D = self.c, self.D
        B, L, _ = x.shape
        w = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        y = F.linear(x, w, torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])).view(B, L, -1, D).transpose(1, 2)
        a, b = c.heads, c.heads + c.kv_heads
        qk = rot(y[:, :b], cos, sin)
        return qk[:, :a], qk[:, a:], y[:, b:]

    def gate(self, x):
        g = self.g_proj_2(F.gelu(self.g_proj_1(x)))
        return torch.sigmoid(g.float() / GATE_T).view(x.shape[0], x.shape[1], self.c.heads, 3)

    def mix(self, q, k, v, gate, ctx):
        """Attention of all rows: [B, H, L, D]. gate [B, front, H, 3], unused without visuals and in dense mode."""
        c = self.c
        P, rep = ctx["front"], c.heads // c.kv_heads
        kr, vr = k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1)
        out = []
        if P:
            if ctx["dense"] or ctx["no_vision"]:
                out.append(F.scaled_dot_product_attention(q[:, :, :P], kr[:, :, :P], vr[:, :, :P], is_causal=True))
            else:
                f = nsa(q[:, :, :P], k[:, :, :P], v[:, :, :P], gate, c.sel_blocks, c.window)
                idx = ctx["text_rows"]                                     # text among the front: plain causal attention
                t = F.scaled_dot_product_attention(q[:, :, idx], kr[:, :, :P], vr[:, :, :P], attn_mask=ctx["text_front"])
                out.append(torch.where(ctx["is_text"][:, None], torch.zeros_like(f).index_copy(2, idx, t), f))
        if q.shape[2] > P:
            out.append(F.scaled_dot_product_attention(q[:, :, P:], kr, vr, attn_mask=ctx["text"]))
        return torch.cat(out, 2) if len(out) > 1 else out[0]


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(c.hidden, c.eps), RMSNorm(c.hidden, c.eps)
        self.self_attn, self.mlp = Attn(c), MLP(c.hidden, c.inter, False)

    def pre(self, x, cos, sin, front):
        """q, k, v and the gates of the first `front` rows."""
        y = self.input_layernorm(x)
        return (*self.self_attn.qkv(y, cos, sin), self.self_attn.gate(y[:, :front]))

    def post(self, x, o):
        x = x + self.self_attn.o_proj(o.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.post_attention_layernorm(x))

    def forward(self, x, cos, sin, ctx):
        q, k, v, gate = self.pre(x, cos, sin, ctx["front"])
        return self.post(x, self.self_attn.mix(q, k, v, gate, ctx))


class Front:
    """Layout of the rows before the free text: a list of ("text", ids) and ("image" | "video", t, h, w) with the merged grid."""
    def __init__(self, parts, tokens_per_second=2, dev="cpu"):
        pos, text, ids, nxt = [], [], [], 0
        self.visuals = []
        for p in parts:
            if p[0] == "text":
                n = len(p[1])
                pos.append((nxt + torch.arange(n)).expand(3, -1)); text += [True] * n; ids += list(p[1]); nxt += n
                continue
            kind, t, h, w = p
            s = tokens_per_second if kind == "video" else 0
            tt, hh, ww = torch.meshgrid(torch.arange(t) * s, torch.arange(h), torch.arange(w), indexing="ij")
            pos.append(torch.stack([tt.flatten(), hh.flatten(), ww.flatten()]) + nxt)
            self.visuals.append((len(text), t * h * w)); text += [False] * (t * h * w); ids += [0] * (t * h * w)
            nxt += max((t - 1) * s, h - 1, w - 1) + 1
        self.n, self.next = len(text), nxt
        self.pos = torch.cat(pos, 1).to(dev)
        self.is_text = torch.tensor(text, device=dev)
        self.ids = torch.tensor(ids, device=dev)
        self.rows = self.is_text.nonzero()[:, 0]
        self.mask = torch.arange(self.n, device=dev)[None] <= self.rows[:, None]


@torch.no_grad()
def smooth_patches(w):
    """Starts the patch embedding from smooth patterns: products of cosines over brightness and two color differences, lowest frequencies first,
    some of them as the difference of the two frames. Shapes are learnt much sooner than from random patterns."""
    n = w.shape[0]
    t = (torch.arange(14) + 0.5) / 14
    color = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [-0.5, -0.5, 1.0]])
    color = color / color.norm(dim=1, keepdim=True)
    cand = []
    for y in range(10):
        for x in range(10):
            for c in range(3):
                for k in range(2):                       # both frames, or their difference
                    cand.append((y * y + x * x + 14 * (c > 0) + 22 * (k > 0), y, x, c, k))
    for i, (_, y, x, c, k) in enumerate(sorted(cand)[:n]):
        g = torch.cos(torch.pi * y * t)[:, None] * torch.cos(torch.pi * x * t)[None]
        f = color[c][:, None, None, None] * torch.tensor([1.0, 1.0 - 2 * k])[:, None, None] * g
        w[i] = f / f.norm() * (1.0 + 0.25 * (y * y + x * x) ** 0.5) * 0.25


class VLM(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.visual = Vision(c)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c.vocab, c.hidden)
        self.model.layers = nn.ModuleList(Layer(c) for _ in range(c.depth))
        self.model.norm = RMSNorm(c.hidden, c.eps)
        D = c.hidden // c.heads
        self.register_buffer("inv", c.theta ** (-torch.arange(0, D, 2).float() / D), persistent=False)
        self.register_buffer("axis", torch.repeat_interleave(torch.arange(3), torch.tensor(c.mrope)), persistent=False)
        assert sum(c.mrope) == D // 2
        self.init()

    def init(self):
        for n, p in self.named_parameters():
            if p.dim() > 1:
                std = p[0].numel() ** -0.5
                if n.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                    std *= (2 * (self.c.v_depth if n.startswith("visual") else self.c.depth)) ** -0.5
                if n.endswith("embed_tokens.weight"): std = 0.04
                if n.endswith("merger.mlp.2.weight"): std *= 0.2
                if n.endswith("g_proj_2.weight"): std *= 0.2
                nn.init.trunc_normal_(p, 0, std, -3 * std, 3 * std)
            elif n.endswith("bias"):
                nn.init.zeros_(p)
        smooth_patches(self.visual.patch_embed.proj.weight)

    def forward(self, feats, front, ids, off, text_mask, dense=None, tap=None, text_taps=()):
        """feats: list of [B, n, hidden] per visual; front: Front; ids and off [B, LT]: text after the front and its position offsets;
        text_mask [B, 1, LT, front + LT]. Returns the normalised hidden of the text rows [B, LT, hidden], the front's hidden after layer `tap` and the
        text's after each of the layers `text_taps`."""
        B = ids.shape[0]
        emb = self.model.embed_tokens
        rows, at = [], 0
        fe = emb(front.ids)[None].expand(B, -1, -1)
        for f, (s, n) in zip(feats, front.visuals):
            rows += [fe[:, at:s], f.float()]; at = s + n
        x = torch.cat(rows + [fe[:, at:], emb(ids)], 1)
        pos = torch.cat([front.pos[:, None].expand(3, B, -1), (off + front.next)[None].expand(3, -1, -1)], 2).float()
        ang = pos.permute(1, 2, 0)[..., self.axis] * self.inv
        ang = torch.cat([ang, ang], -1)
        kind = working(x)
        cos, sin = ang.cos()[:, None].to(kind), ang.sin()[:, None].to(kind)
        text_mask = additive(text_mask, kind)
        dense = self.c.semantics == "dense" if dense is None else dense
        ctx = dict(front=front.n, text=text_mask, dense=dense, no_vision=not front.visuals, text_rows=front.rows, text_front=front.mask, is_text=front.is_text)
        mid, texts = None, []
        for i, l in enumerate(self.model.layers):
            x = l(x, cos, sin, ctx)
            if i == tap: mid = x[:, :front.n]
            if i in text_taps: texts.append(x[:, front.n:])
        return self.model.norm(x[:, front.n:]), mid, texts

    def logits(self, h):
        return F.linear(h, self.model.embed_tokens.weight)


def text_mask(seg, P, isolated):
    """seg [B, LT] question index, -1 = padding. Text rows see all P earlier rows and the earlier text (of their own question if isolated)."""
    B, LT = seg.shape
    m = torch.ones(LT, LT, dtype=torch.bool, device=seg.device).tril()[None] & (seg >= 0)[:, None, :]
    if isolated: m = m & (seg[:, :, None] == seg[:, None, :])
    m = m | torch.eye(LT, dtype=torch.bool, device=seg.device)
    return torch.cat([torch.ones(B, LT, P, dtype=torch.bool, device=seg.device), m], 2)[:, None]


# ---------------------------------------------------------------------------------------------- folder

CHAT = ("{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
        "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
        "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
        "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
SIZES = {
    "gpu": (dict(), 28224, 50176),
    "cpu": (dict(v_depth=3, v_hidden=128, v_heads=4, v_inter=256, v_full=[1, 2], depth=4, hidden=160, heads=5, kv_heads=1, inter=320, mrope=[5, 5, 6], theta=10.0, sel_blocks=2), 12544, 18816),
    "tiny": (dict(v_depth=2, v_hidden=64, v_heads=2, v_inter=128, v_full=[1], depth=3, hidden=128, heads=4, kv_heads=2, inter=256, mrope=[5, 5, 6], theta=10.0, sel_blocks=2), 12544, 18816),
}   # name: (Cfg fields, min_pixels, max_pixels)


def save_folder(model, out, tok_path, ids, size, extra=None, shard=14_000_000):
    """Writes the Hugging Face folder: bf16 shards with an index, config, tokenizer, preprocessor and generation settings."""
    from safetensors.torch import save_file
    import shutil
    os.makedirs(out, exist_ok=True)
    sd = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    shards, cur, held = [], {}, 0
    for k, v in sd.items():
        n = v.numel() * 2
        if cur and held + n > shard:
            shards.append(cur); cur, held = {}, 0
        cur[k] = v; held += n
    shards.append(cur)
    wm = {}
    for f in os.listdir(out):
        if f.endswith(".safetensors"): os.remove(os.path.join(out, f))
    for i, s in enumerate(shards):
        fn = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(s, os.path.join(out, fn), metadata={"format": "pt"})
        wm.update({k: fn for k in s})

    def dump(name, o):
        with open(os.path.join(out, name), "w", encoding="utf-8") as f: json.dump(o, f, indent=1)
    end, stop = ids["<|endoftext|>"], ids["<|im_end|>"]
    dump("model.safetensors.index.json", dict(metadata=dict(total_size=sum(v.numel() * 2 for v in sd.values())), weight_map=wm))
    dump("config.json", model.c.hf(ids))
    dump("generation_config.json", dict(bos_token_id=end, eos_token_id=[stop, end], pad_token_id=end, do_sample=False, repetition_penalty=1.0, max_new_tokens=32))
    dump("preprocessor_config.json", dict(min_pixels=SIZES[size][1], max_pixels=SIZES[size][2], patch_size=14, temporal_patch_size=2, merge_size=2,
                                          image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711],
                                          image_processor_type="Qwen2VLImageProcessor", processor_class="Qwen2_5_VLProcessor"))
    shutil.copy(tok_path, os.path.join(out, "tokenizer.json"))
    dump("tokenizer_config.json", dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=65536,
                                       clean_up_tokenization_spaces=False, chat_template=CHAT))
    dump("chat_template.json", dict(chat_template=CHAT))
    for n, o in (extra or {}).items(): dump(n, o)


def load_weights(model, folder, without=None):
    """Loads a folder's tensors, except those whose name starts with `without`."""
    from safetensors.torch import load_file
    sd = {}
    for f in sorted(os.listdir(folder)):
        if f.endswith(".safetensors"): sd.update(load_file(os.path.join(folder, f)))
    sd = {k: v.float() for k, v in sd.items() if not without or not k.startswith(without)}
    return model.load_state_dict(sd, strict=not without)
