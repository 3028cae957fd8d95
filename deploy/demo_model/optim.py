"""Muon for the matrices of the layers (orthogonalised momentum, batched over equal shapes) and AdamW for the rest."""
import torch


@torch.no_grad()
def orthogonalise(g, steps=4):
    """Newton-Schulz iteration on a stack of matrices [n, r, c]: about U V^T of each."""
    x = g.to(torch.bfloat16) if g.is_cuda else g.float()
    flip = x.shape[-2] > x.shape[-1]
    if flip: x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.mT if flip else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.01):
        super().__init__(list(params), dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is not None: shapes.setdefault(tuple(p.shape), []).append(p)
            for (r, c), ps in shapes.items():
                grads = [p.grad for p in ps]
                for p in ps:
                    if "m" not in self.state[p]: self.state[p]["m"] = torch.zeros_like(p)
                ms = [self.state[p]["m"] for p in ps]
                torch._foreach_lerp_(ms, grads, 1 - group["momentum"])
                up = orthogonalise(torch.stack(torch._foreach_lerp(grads, ms, group["momentum"]))).to(ps[0].dtype)
                torch._foreach_mul_(ps, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(ps, list(up.unbind(0)), alpha=-group["lr"] * max(1.0, r / c) ** 0.5)


def make(net, aux, lr, muon_lr, cuda):
    """(list of optimisers, list of parameters). muon_lr 0: AdamW for everything."""
    adam, nodecay, mats, patch = [], list(aux.parameters()), [], []
    for n, p in net.named_parameters():
        if "patch_embed" in n: patch.append(p)
        elif p.dim() == 2 and "embed_tokens" not in n and "g_proj_2" not in n and "merger.mlp.0" not in n: (mats if muon_lr else adam).append(p)
        elif p.dim() > 1 and "embed_tokens" not in n: adam.append(p)
        else: nodecay.append(p)
    o = [torch.optim.AdamW([dict(params=adam, weight_decay=0.05), dict(params=nodecay, weight_decay=0.0), dict(params=patch, weight_decay=0.0, lr=0.15 * lr)], lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=cuda)]
    if mats: o.append(Muon(mats, lr=muon_lr))
    for x in o:
        for g in x.param_groups: g["base"] = g["lr"]
    return o, adam + nodecay + patch + mats
