"""The cases in duograd: one source, both modes, and graph mode with precision="fast"."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import duograd as dg
import numpy as np

from . import vision_models
from .case import Case
from .op_cases import compile_op, split_name
from .sequence_cases import models

F = dg.nn.functional


class LinReg(dg.nn.Module):  # type: ignore[misc]
    """10 -> 1."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = dg.nn.Linear(10, 1)

    def forward(self, x: Any) -> Any:
        return self.fc(x)


def _mlp() -> Any:
    nn = dg.nn
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


MODELS: dict[str, Callable[[], Any]] = {
    "linreg": LinReg,
    "mlp": _mlp,
    **{name: functools.partial(make, dg.nn) for name, make in vision_models.MODELS.items()},
    **models(dg.nn, F, functools.partial(dg.stack, axis=1)),
}
EXPRESSIONS = {
    "arithmetic": lambda x: x * (x * 0.2 + 0.5).clip(0, 1) * 1.1 + x - 0.25,
    "activation": lambda x: dg.gelu(x * 1.5 + 0.5) + x,
    "pointwise": lambda x: dg.gelu(x * 1.5 + 0.5) * dg.sigmoid(x),
    "softmax": lambda x: dg.softmax(x * 2 + 1),
    "layer_norm": lambda x: dg.layer_norm(x),
}
_adams: dict[int, Any] = {}


def pull(y: Any, x: Any) -> Any:
    """The gradient of `y.sum()` for x."""
    y.sum().backward()
    g, x.grad = x.grad, None
    return g


def adam(p: Any, g: Any) -> Any:
    """A step of the Adam optimiser kept for p, with gradient g."""
    found = _adams.get(id(p))
    if found is None:
        found = _adams[id(p)] = dg.optim.Adam([p], lr=1e-3)
    p.grad = g
    found.step()
    return p


def op_function(case: Case) -> Any:
    """The function of a case of phase "op"."""
    if case.name in EXPRESSIONS:
        return EXPRESSIONS[case.name]
    row, _ = split_name(case.name)
    return compile_op(case.name, row.ours, {"dg": dg, "F": F, "pull": pull, "adam": adam})


def op_inputs(case: Case) -> tuple[Any, ...]:
    """The operands of a case of phase "op"; those that want a gradient are leaves."""
    wanted = [] if case.name in EXPRESSIONS else split_name(case.name)[0].grad.split()
    return tuple(dg.tensor(v).requires_grad_(k in wanted) for k, v in case.data().items())


def mean_size(out: Any) -> float:
    """A number to compare results by: the mean absolute value of the (first) output."""
    first = out[0] if isinstance(out, (tuple, list)) else out
    return float(np.abs(first.detach().numpy().astype(np.float64)).mean())


def build(case: Case, phase: str, mode: str) -> Any:
    """A function without arguments that does one step and returns a number to compare runners by.

    mode: "eager", "graph", or "fast": graph mode with that precision.
    """
    how: dict[str, Any] = {"precision": "fast"} if mode == "fast" else {"mode": mode}
    if case.name == "adam":
        p, g = (dg.tensor(v) for v in case.data().values())
        alone = dg.optim.Adam([p], lr=1e-3)

        @dg.function(**how)
        def update(g: Any) -> Any:
            p.grad = g
            alone.step()
            return p

        return lambda: update(g), mean_size
    if phase == "op":
        _adams.clear()
        fn = op_function(case) if mode == "eager" else dg.function(op_function(case), **how)
        inputs = op_inputs(case)
        return lambda: fn(*inputs), mean_size
    data = {k: dg.tensor(v) for k, v in case.data().items()}
    if case.name.startswith("onnx_"):
        from . import onnx_zoo  # the other cases start without onnx

        model = dg.onnx.load(onnx_zoo.model(case.name))
    else:
        model = MODELS[case.name]()
        for p, w in zip(model.parameters(), case.weights().values(), strict=True):
            with dg.no_grad():
                p.copy_(dg.tensor(w))
    x, y = data["x"], data.get("y")
    if phase == "infer":
        model.eval()

        @dg.function(**how)
        def predict(x: Any) -> Any:
            with dg.no_grad():
                return model(x)

        return lambda: predict(x), lambda out: float(np.abs(out.numpy()).mean())
    assert y is not None
    loss_fn = F.mse_loss if y.dtype is dg.float32 else F.cross_entropy
    make = dg.optim.SGD if case.optimizer == "sgd" else dg.optim.Adam
    optimizer = make(model.parameters(), lr=1e-3)

    @dg.function(**how)
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return lambda: step(x, y), lambda out: out.item()


def cnn_step() -> tuple[Any, Any]:
    """The CNN's train step as a graph, and a function that makes a batch of any size."""
    model = MODELS["cifar_cnn"]()
    optimizer = dg.optim.Adam(model.parameters(), lr=1e-3)

    @dg.function
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def batch(n: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(n)
        x = rng.normal(size=(n, 3, 32, 32)).astype(np.float32)
        return dg.tensor(x), dg.tensor(rng.integers(0, 10, n))

    return step, batch


def set_threads(n: int) -> None:
    """Use n threads."""
    from duograd.backends.cpu import pool

    pool.set_num_threads(n)


def reset_peak() -> None:
    """Let the peak start from what is in use now."""
    from duograd.core.backend import get_backend

    get_backend("cpu").allocator.reset_peak()  # type: ignore[attr-defined]


def peak_bytes() -> int:
    """The allocator's peak since `reset_peak`, all memory in use counted."""
    from duograd.core.backend import get_backend

    return int(get_backend("cpu").memory_stats()["peak_bytes"])  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=4)
def _copiers(size: int) -> tuple[Callable[[], Any], ...]:
    from duograd.backends.cpu import streaming

    return streaming.copiers(size)


def copy_times(size: int, count: int = 4) -> list[list[float]]:
    """Seconds of copies of `size` bytes by duograd's own kernel, in turn: with plain and with streaming stores."""
    import time

    times: list[list[float]] = [[], []]
    for _ in range(count + 1):
        for call, found in zip(_copiers(size), times):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [found[1:] for found in times]
