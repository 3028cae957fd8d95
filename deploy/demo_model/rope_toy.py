"""How the rotary base changes retrieval by name: one attention layer looks up the value of one of 40 named rows (with time, row and column positions of a clip
of 2 to 12 seconds) from a text row at a varying distance. Prints the share right in each 100 steps.

    python -m deploy.demo_model.rope_toy 10 1000"""
import sys
import torch
import torch.nn.functional as F

WIDTH, HEADS, NAMES, ROWS, VALUES, BATCH = 64, 3, 80, 40, 10, 32


def run(base, steps=400):
    torch.manual_seed(0)
    d = WIDTH * HEADS
    inv = base ** (-torch.arange(0, WIDTH, 2).float() / WIDTH)
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor([10, 11, 11]))
    new = lambda *s, std: torch.nn.Parameter(torch.randn(*s) * std)
    name, value, q, k, v, o, out = new(NAMES, d, std=0.5), new(VALUES, d, std=0.3), *(new(d, d, std=d ** -0.5) for _ in range(4)), new(d, VALUES, std=d ** -0.5)
    opt = torch.optim.Adam([name, value, q, k, v, o, out], 2e-3)
    heads = lambda y: y.view(BATCH, -1, HEADS, WIDTH).transpose(1, 2)

    def turned(y, pos):
        a = pos[..., axis] * inv
        a = torch.cat([a, a], -1)[:, None]
        return y * a.cos() + torch.cat([-y[..., WIDTH // 2:], y[..., :WIDTH // 2]], -1) * a.sin()
    right = []
    for _ in range(steps):
        seconds = torch.randint(2, 13, (BATCH, 1))
        names = torch.stack([torch.randperm(NAMES)[:ROWS] for _ in range(BATCH)])
        values, wanted, b = torch.randint(0, VALUES, (BATCH, ROWS)), torch.randint(0, ROWS, (BATCH,)), torch.arange(BATCH)
        pos = torch.stack([torch.randint(0, 12, (BATCH, ROWS)) % seconds * 2, torch.randint(0, 7, (BATCH, ROWS)), torch.randint(0, 7, (BATCH, ROWS))], -1).float()
        text = (seconds * 2 + torch.randint(3, 30, (BATCH, 1))).float()[..., None].expand(-1, 1, 3)
        rows, asked = name[names] + value[values], name[names[b, wanted]][:, None]
        y = F.scaled_dot_product_attention(turned(heads(asked @ q), text), turned(heads(rows @ k), pos), heads(rows @ v))
        y = y.transpose(1, 2).reshape(BATCH, d) @ o @ out
        loss = F.cross_entropy(y, values[b, wanted])
        opt.zero_grad(); loss.backward(); opt.step()
        right.append((y.argmax(-1) == values[b, wanted]).float().mean().item())
    return [round(sum(right[i:i + 100]) / 100, 2) for i in range(0, steps, 100)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for base in [float(x) for x in sys.argv[1:]] or [10.0, 1000.0]: print(f"base {base:g}: {run(base)}", flush=True)
