"""`duograd demo`: the main job on real data, in both modes, through ONNX and back."""

from __future__ import annotations

import gc
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import nn, tensor
from ..core.backend import get_backend
from ..core.errors import ArgumentError, MissingExtraError
from ..core.files import write_atomic
from ..core.modes import no_grad
from ..core.random import manual_seed
from ..graph import function
from ..nn import functional as F
from ..nn import optim
from .data import DataLoader, TensorDataset
from .terminal import console, progress, seconds, size, table

BATCH = 48


class Digits(NamedTuple):
    """Images float32[N, 1, 8, 8] in [0, 1] and labels int64[N]; a held-out third is the test set."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Run(NamedTuple):
    """One training run: the model, its loss curve, times of steps, time of the first step, peak memory."""

    model: Any
    losses: list[float]
    steps: list[float]
    first: float
    peak: int


def load_digits() -> Digits:
    """The 1,797 handwritten digits of scikit-learn, split 2:1 in a fixed order."""
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtraError(
            "demo", "scikit-learn, which brings the digits, is not installed", "pip install duograd[demo]"
        ) from None
    found = datasets.load_digits()
    x = (found.images / 16.0).astype(np.float32)[:, None]
    y = found.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    held_out = len(x) // 3
    test, train = order[:held_out], order[held_out:]
    return Digits(x[train], y[train], x[test], y[test])


def build_model() -> Any:
    """Two convolutions, a pooling, dropout, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.4), nn.Linear(48 * 4 * 4, 96), nn.ReLU(), nn.Linear(96, 10),
    )  # fmt: skip


def training_step(model: Any, optimizer: Any) -> Any:
    """The step that both modes run: forward, backward, update."""

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def train(digits: Digits, mode: str, epochs: int, seed: int) -> Run:
    """Train from the seed in one mode."""
    manual_seed(seed)
    model = build_model()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    step = function(training_step(model, optimizer), mode=mode)
    data = TensorDataset(tensor(digits.train_x), tensor(digits.train_y))
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True, seed=seed)
    allocator = get_backend("cpu").allocator  # type: ignore[attr-defined]
    gc.collect()
    allocator.reset_peak()
    before = allocator.current
    losses: list[float] = []
    steps: list[float] = []
    with progress(f"{mode:5} training", epochs) as advance:
        for _ in range(epochs):
            for x, y in loader:
                start = time.perf_counter()
                loss = step(x, y)
                steps.append(time.perf_counter() - start)
                losses.append(loss.item())
            schedule.step()  # the learning rate is read at every call: nothing is traced again
            advance(f"loss {statistics.fmean(losses[-len(loader) :]):.4f}")
    return Run(model.eval(), losses, steps[1:], steps[0], allocator.peak - before)


def predict(model: Any, x: np.ndarray) -> np.ndarray:
    """Logits of a model, without gradients."""
    with no_grad():
        return np.asarray(model(tensor(x)))


def fine_tune(model: Any, digits: Digits) -> tuple[float, float]:
    """One epoch of SGD on a loaded model, as one graph. Returns the test loss before and after."""

    def loss_now() -> float:
        with no_grad():
            return float(F.cross_entropy(model(tensor(digits.test_x)), tensor(digits.test_y)).item())

    before = loss_now()
    step = function(training_step(model, optim.SGD(model.parameters(), lr=0.02)))
    data = TensorDataset(tensor(digits.train_x), tensor(digits.train_y))
    for x, y in DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True, seed=1):
        step(x, y)
    return before, loss_now()


def demo(out: Path, epochs: int = 25, seed: int = 0) -> dict[str, Any]:
    """Train, compare, export, check, import back; write model.onnx, report.json and demo.png to `out`.

    Returns: the report. Raises: MissingExtraError without the extra `demo`, ArgumentError for epochs below 1.
    """
    from . import onnx
    from .demo_picture import draw

    if epochs < 1:
        raise ArgumentError("demo", f"epochs={epochs}", "use 1 or more")
    began = time.perf_counter()
    screen = console()
    digits = load_digits()
    screen.print(
        f"[bold]1. Data[/]    {len(digits.train_x)} digits to train on, {len(digits.test_x)} held out, 8x8 pixels"
    )
    screen.print("[bold]2. Train[/]   one source, two modes, one seed")
    eager, graph = train(digits, "eager", epochs, seed), train(digits, "graph", epochs, seed)
    difference = max(abs(a - b) for a, b in zip(eager.losses, graph.losses))
    logits = predict(graph.model, digits.test_x)
    accuracy = float((logits.argmax(1) == digits.test_y).mean())
    screen.print(f"           largest difference of the loss curves: {difference:g}")
    screen.print(f"           accuracy on the held-out third: [bold]{100 * accuracy:.2f}%[/]")
    screen.print(_mode_table(eager, graph))

    screen.print("[bold]3. Export[/]  to ONNX, checked and run at two batch sizes")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.onnx"
    onnx.export(graph.model, (tensor(digits.test_x[:BATCH]),), str(path), dynamic={"x": {0: "batch"}})
    screen.print(f"           {onnx.check(str(path))}, {size(path.stat().st_size)}")

    screen.print("[bold]4. Import[/]  the file as a module, compare, fine-tune")
    again = onnx.load(str(path))
    other = predict(again, digits.test_x)
    onnx_difference = float(np.abs(other - logits).max())
    equal = bool((other.argmax(1) == logits.argmax(1)).all())
    screen.print(f"           predictions equal: {equal}, largest difference of logits: {onnx_difference:g}")
    before, after = fine_tune(again, digits)
    screen.print(f"           one epoch of fine-tuning: test loss {before:.4f} -> {after:.4f}")

    report = {
        "accuracy": accuracy, "loss_difference": difference, "eager_step_s": statistics.median(eager.steps),
        "graph_step_s": statistics.median(graph.steps), "eager_first_s": eager.first, "graph_first_s": graph.first,
        "eager_peak_bytes": eager.peak, "graph_peak_bytes": graph.peak, "onnx_max_difference": onnx_difference,
        "reloaded_equal": equal, "fine_tune_loss_before": before, "fine_tune_loss_after": after, "epochs": epochs,
        "seed": seed, "seconds": 0.0,
    }  # fmt: skip
    write_atomic(out / "demo.png", lambda p: draw(p, eager, graph, digits, logits))
    report["seconds"] = time.perf_counter() - began
    write_atomic(out / "report.json", lambda p: p.write_text(json.dumps(report, indent=1) + "\n"))
    screen.print(
        f"[bold]5. Report[/]  {out / 'report.json'}, {out / 'demo.png'}, in {report['seconds']:.1f} s"
    )
    return report


def _mode_table(eager: Run, graph: Run) -> Any:
    e, g = statistics.median(eager.steps), statistics.median(graph.steps)
    ratio = lambda a, b: f"{a / b:.1f}x" if b else ""
    rows = [
        ["first call", seconds(eager.first), seconds(graph.first), ratio(eager.first, graph.first)],
        ["step (median)", seconds(e), seconds(g), ratio(e, g)],
        ["peak memory", size(eager.peak), size(graph.peak), ratio(eager.peak, graph.peak)],
    ]
    return table("", ["", "eager", "graph", "graph is better by"], rows)
