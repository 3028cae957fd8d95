"""Times released_nsa written in plain PyTorch, one layer at the 7B shapes, on the CPU.

usage: python peer_released_torch.py [TOKENS] [masked|gathered]

The same arithmetic as kernels/cpu/released_nsa.cc (docs: kernels/nsa/README.md), structured as the
released code is: 64 materialised slots, a sparse pass and a dense pass over every row. "masked" runs
selection and window as attention over all keys with a mask; "gathered" copies the chosen blocks of a
few rows at a time and cuts the window into bands. Prints seconds by part.
"""
import sys
import time

import torch
import torch.nn.functional as F

H, G, D, S, N, W = 28, 4, 128, 64, 32, 256
SLOTS, PER = 64, 16


def pool(x, length):  # [G, L, D] -> [G, C, D]
    blocks = (length + S - 1) // S
    padded = F.pad(x, (0, 0, 0, blocks * S - length)).view(G, blocks, S, D).sum(2)
    sizes = torch.full((blocks,), float(S))
    sizes[-1] = length - (blocks - 1) * S
    return padded / sizes.view(1, -1, 1)


def compression(q, kp, vp, length):  # q [64, L, D]
    logits = torch.einsum("gpld,gcd->gplc", q.view(G, PER, length, D), kp) * D**-0.5
    rows, ends = torch.arange(length), (torch.arange(kp.shape[1]) + 1) * S - 1
    visible = rows[:, None] <= ends[None, :]
    masked = logits.masked_fill(~visible, float("-inf"))
    lse = masked.logsumexp(-1)
    out = torch.einsum("gplc,gcd->gpld", (masked - lse[..., None]).exp(), vp)
    return out.reshape(SLOTS, length, D), lse.reshape(SLOTS, length), logits


def choose(logits, lse, length):  # -> [G, L, N] indices, -1 = none
    ell = lse.reshape(length, SLOTS).t().reshape(G, PER, length, 1)
    score = (logits - ell).exp().sum(1)
    own = (torch.arange(length) // S)[:, None]
    block = torch.arange(logits.shape[-1])[None, :]
    score = torch.where(block == own, torch.tensor(float(PER)), score)
    score = torch.where(block > own, torch.tensor(-1.0), score)
    value, index = score.topk(min(N, logits.shape[-1]), dim=-1)
    return torch.where(value < 0, -1, index)


def selection_masked(q, k, v, index, length):
    out = torch.empty(SLOTS, length, D)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    for g in range(G):
        blocks = torch.zeros(length, (length + S - 1) // S + 1, dtype=torch.bool)
        blocks.scatter_(1, torch.where(index[g] < 0, blocks.shape[1] - 1, index[g]), True)
        mask = blocks[:, :-1].repeat_interleave(S, 1)[:, :length] & causal
        for p in range(PER):
            logits = (q[g * PER + p] @ k[g].t()) * D**-0.5
            out[g * PER + p] = logits.masked_fill_(~mask, float("-inf")).softmax(-1) @ v[g]
    return out


def selection_gathered(q, k, v, index, length, rows=64):
    out = torch.empty(SLOTS, length, D)
    offsets = torch.arange(S)
    for g in range(G):
        for begin in range(0, length, rows):
            end = min(length, begin + rows)
            keys = (index[g, begin:end, :, None] * S + offsets).flatten(1)  # [rows, N * S]
            visible = (keys >= 0) & (keys <= torch.arange(begin, end)[:, None])
            keys = keys.clamp(0, length - 1)
            heads = q[g * PER : (g + 1) * PER, begin:end].transpose(0, 1)  # [rows, 16, D]
            logits = torch.bmm(heads, k[g][keys].transpose(1, 2)) * D**-0.5
            weights = logits.masked_fill(~visible[:, None], float("-inf")).softmax(-1)
            out[g * PER : (g + 1) * PER, begin:end] = torch.bmm(weights, v[g][keys]).transpose(0, 1)
    return out


def window_masked(q, k, v, length):
    rows = torch.arange(length)
    mask = (rows[None, :] <= rows[:, None]) & (rows[None, :] > rows[:, None] - W)
    out = torch.empty(SLOTS, length, D)
    for slot in range(SLOTS):
        logits = (q[slot] @ k[slot // PER].t()) * D**-0.5
        out[slot] = logits.masked_fill_(~mask, float("-inf")).softmax(-1) @ v[slot // PER]
    return out


def window_banded(q, k, v, length):
    out = torch.empty(SLOTS, length, D)
    for begin in range(0, length, W):
        end, first = min(length, begin + W), max(0, begin - W)
        rows, keys = torch.arange(begin, end)[:, None], torch.arange(first, end)[None, :]
        mask = (keys <= rows) & (keys > rows - W)
        for g in range(G):
            heads = q[g * PER : (g + 1) * PER, begin:end]
            logits = (heads @ k[g, first:end].t()) * D**-0.5
            weights = logits.masked_fill(~mask, float("-inf")).softmax(-1)
            out[g * PER : (g + 1) * PER, begin:end] = weights @ v[g, first:end]
    return out


def main():
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 8192
    masked = len(sys.argv) < 3 or sys.argv[2] == "masked"
    torch.manual_seed(0)
    torch.set_num_threads(2)
    q, k, v = torch.randn(H, length, D), torch.randn(G, length, D), torch.randn(G, length, D)
    gates = torch.randn(length, H, 3)
    rows = torch.arange(length)
    vision = ((rows >= 64) & (rows < length - 128) & (rows % 317 != 64)).float()
    times = {}

    def timed(name, function):
        begin = time.perf_counter()
        result = function()
        times[name] = time.perf_counter() - begin
        return result

    with torch.inference_mode():
        begin = time.perf_counter()
        m = vision[None, :, None]
        qs = F.pad(torch.cat([q * m, q * m]), (0, 0, 0, 0, 0, SLOTS - 2 * H))
        kz, vz = k * m, v * m
        kp, vp = timed("pooling", lambda: (pool(kz, length), pool(vz, length)))
        cmp, lse, logits = timed("compression", lambda: compression(qs, kp, vp, length))
        index = timed("choice", lambda: choose(logits, lse, length))
        select = selection_masked if masked else selection_gathered
        window = window_masked if masked else window_banded
        slc = timed("selection", lambda: select(qs, kz, vz, index, length))
        win = timed("window", lambda: window(qs, kz, vz, length))
        g = torch.sigmoid(gates * vision[:, None, None] / 0.3).permute(1, 0, 2)
        g = torch.cat([g, g])
        slots = sum(g[..., b, None] * o[: 2 * H] for b, o in enumerate((cmp, slc, win)))
        sparse = 0.5 * (slots[:H] + slots[H:])
        dense = timed(
            "dense",
            lambda: F.scaled_dot_product_attention(
                (q * (1 - m))[None],
                k.repeat_interleave(H // G, 0)[None],
                v.repeat_interleave(H // G, 0)[None],
                is_causal=True,
            )[0],
        )
        out = sparse + dense
        total = time.perf_counter() - begin
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items())
    style = "masked" if masked else "gathered"
    print(f"torch {torch.__version__}, f32, {length} tokens, {style}: {total:.2f} s ({parts}); "
          f"mean |out| {out.abs().mean():.4f}")


if __name__ == "__main__":
    main()
