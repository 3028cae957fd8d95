"""Curves of metrics.json as PNG.   python -m deploy.demo_model.plots WEIGHTS REPORT"""
import json
import os
import sys


def main(folder, out):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as f: m = json.load(f)
    h = [x for x in m["history"] if "acc" in x]
    t = [x["s"] / 60 for x in h]
    q = [(a, x) for a, x in zip(t, h) if x["acc"]]
    os.makedirs(out, exist_ok=True)
    fig, ax = plt.subplots(1, 3, figsize=(15, 4.2))
    ax[0].plot([a for a, _ in q], [x["loss"] for _, x in q], label="answers"); ax[0].plot(t, [x["vision"] for x in h], label="vision targets")
    ax[0].plot([a for a, _ in q], [x["rows"] for _, x in q], label="row targets"); ax[0].set_yscale("log"); ax[0].set_title("loss"); ax[0].legend()
    names = ["shape (vision)", "color (vision)", "char (vision)", "shape", "color", "char", "motion", "second", "column", "event"][:len(q[0][1]["aux"])]
    for i, n in enumerate(names):
        src = h if i < 3 else [x for _, x in q]
        ax[1].plot([x["s"] / 60 for x in src], [x["aux"][i] for x in src], label=n, ls="--" if i < 3 else "-")
    ax[1].set_title("right cells (auxiliary targets)"); ax[1].legend(fontsize=7)
    ax[2].plot([a for a, _ in q], [x["right"] for _, x in q], label="all questions", c="k"); ax[2].plot(t, [x["level"] for x in h], label="difficulty", c="grey", ls=":")
    ax[2].set_title("right answers, fresh training clips"); ax[2].legend()
    for x in ax: x.set_xlabel("minutes"); x.grid(alpha=0.3)
    fig.tight_layout(); fig.savefig(os.path.join(out, "curves.png"), dpi=80)
    fig, ax = plt.subplots(3, 6, figsize=(16, 7), sharex=True, sharey=True)
    for x, name in zip(ax.flat, m["types"]):
        p = [(a, y["acc"][name]) for a, y in q if name in y["acc"]]
        x.plot([a for a, _ in p], [b for _, b in p]); x.set_title(name, fontsize=9); x.set_ylim(0, 1); x.grid(alpha=0.3)
    fig.supxlabel("minutes"); fig.suptitle("right answers by type, fresh training clips"); fig.tight_layout(); fig.savefig(os.path.join(out, "types.png"), dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:3])
