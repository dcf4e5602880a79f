"""The picture of the demo: loss curves of both modes, step times, sample predictions."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import MissingExtraError
from .terminal import seconds

EAGER, GRAPH, GREY = "#d1495b", "#0b6e4f", "#555555"


def _smooth(values: list[float], width: int) -> np.ndarray:
    kernel = np.ones(width) / width
    return np.convolve(values, kernel, mode="valid")


def draw(path: Path, eager: Any, graph: Any, digits: Any, logits: np.ndarray) -> None:
    """Draw to `path` (PNG). eager, graph: demo.Run; logits: float[N, 10] of the test digits."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("demo", "matplotlib is not installed", "pip install duograd[demo]") from None
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(11, 6.2), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.7, 1))
    curves, bars = top.subplots(1, 2, width_ratios=(2.1, 1))

    width = min(20, len(eager.losses))
    steps = np.arange(width, len(eager.losses) + 1)
    # A wide pale line under a thin dark one: both can be seen where they coincide.
    curves.plot(steps, _smooth(eager.losses, width), color=EAGER, linewidth=6, alpha=0.35, label="eager")
    curves.plot(steps, _smooth(graph.losses, width), color=GRAPH, linewidth=1.6, label="graph")
    gap = max(abs(a - b) for a, b in zip(eager.losses, graph.losses))
    curves.set_yscale("log")
    curves.set_xlabel("training step")
    curves.set_ylabel(f"loss (mean of {width} steps)")
    curves.set_title(f"Both modes, one seed: largest difference {gap:g}", fontsize=11)
    curves.legend(frameon=False)
    curves.grid(axis="y", alpha=0.25)

    values = [1e3 * statistics.median(r.steps) for r in (eager, graph)]
    shown = bars.bar(["eager", "graph"], values, color=[EAGER, GRAPH], width=0.55)
    bars.bar_label(shown, [seconds(v / 1e3) for v in values], padding=3)
    bars.set_ylabel("median step (ms)")
    bars.set_ylim(0, 1.18 * max(values))
    bars.set_title(f"Training step: graph {values[0] / values[1]:.1f} times as fast", fontsize=11)

    guess = logits.argmax(1)
    wrong = np.flatnonzero(guess != digits.test_y)
    right = np.flatnonzero(guess == digits.test_y)
    picks = np.concatenate([right[: 16 - min(4, len(wrong))], wrong[:4]])
    bottom.suptitle(
        f"Held-out digits: {len(right)} of {len(guess)} right ({100 * len(right) / len(guess):.2f}%); errors in red, "
        "guess (truth)", fontsize=11,
    )  # fmt: skip
    for ax, k in zip(bottom.subplots(2, 8).flat, picks):
        ax.imshow(digits.test_x[k, 0], cmap="gray_r", vmin=0, vmax=1)
        miss = guess[k] != digits.test_y[k]
        label = f"{guess[k]} ({digits.test_y[k]})" if miss else f"{guess[k]}"
        ax.set_title(label, fontsize=9, color=EAGER if miss else GREY, pad=2)
        ax.set_axis_off()
    for ax in (curves, bars):
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    fig.savefig(path, dpi=130, format="png")
    plt.close(fig)
