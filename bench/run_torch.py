"""The cases in PyTorch: eager and compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from . import vision_models
from .case import Case
from .op_cases import compile_op, split_name
from .sequence_cases import models

MODELS: dict[str, Callable[[], Any]] = {
    "linreg": lambda: nn.Linear(10, 1),
    "mlp": lambda: nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    **models(nn, F, functools.partial(torch.stack, dim=1)),
    **{name: functools.partial(make, nn) for name, make in vision_models.MODELS.items()},
}  # fmt: skip
EXPRESSIONS = {
    "arithmetic": lambda x: x * (x * 0.2 + 0.5).clip(0, 1) * 1.1 + x - 0.25,
    "activation": lambda x: F.gelu(x * 1.5 + 0.5) + x,
    "pointwise": lambda x: F.gelu(x * 1.5 + 0.5) * torch.sigmoid(x),
    "softmax": lambda x: torch.softmax(x * 2 + 1, -1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "adam": lambda p, g: adam(p, g, fused=True),
}
_adams: dict[int, Any] = {}


def pull(y: Any, x: Any) -> Any:
    """The gradient of `y.sum()` for x."""
    y.sum().backward()
    g, x.grad = x.grad, None
    return g


def adam(p: Any, g: Any, **options: Any) -> Any:
    """A step of the Adam optimiser kept for p, with gradient g."""
    found = _adams.get(id(p))
    if found is None:
        found = _adams[id(p)] = torch.optim.Adam([p], lr=1e-3, **options)
    p.grad = g
    found.step()
    return p


def op_function(case: Case) -> Any:
    """See run_duograd.op_function."""
    if case.name in EXPRESSIONS:
        return EXPRESSIONS[case.name]
    row, _ = split_name(case.name)
    return compile_op(case.name, row.torch, {"torch": torch, "F": F, "pull": pull, "adam": adam})


def op_inputs(case: Case) -> tuple[Any, ...]:
    """See run_duograd.op_inputs."""
    wanted = [] if case.name in EXPRESSIONS else split_name(case.name)[0].grad.split()
    return tuple(torch.from_numpy(v).requires_grad_(k in wanted) for k, v in case.data().items())


def mean_size(out: Any) -> float:
    """See run_duograd.mean_size."""
    first = out[0] if isinstance(out, (tuple, list)) else out
    return float(first.detach().to(torch.float64).abs().mean())


def build(case: Case, phase: str, mode: str) -> Any:
    """See run_duograd.build. mode: "eager" or "compile"."""
    wrap = torch.compile if mode == "compile" else (lambda f: f)
    if phase == "op":
        _adams.clear()
        fn, inputs = wrap(op_function(case)), op_inputs(case)
        return lambda: fn(*inputs), mean_size
    data = {k: torch.from_numpy(v) for k, v in case.data().items()}
    model = MODELS[case.name]()
    with torch.no_grad():
        for p, w in zip(model.parameters(), case.weights().values(), strict=True):
            p.copy_(torch.from_numpy(w))
    x, y = data["x"], data["y"]
    compiled = wrap(model)
    if phase == "infer":
        model.eval()

        def predict() -> Any:
            with torch.inference_mode():
                return compiled(x)

        return predict, lambda out: out.abs().mean().item()
    loss_fn = F.mse_loss if y.dtype is torch.float32 else F.cross_entropy
    make = torch.optim.SGD if case.optimizer == "sgd" else torch.optim.Adam
    optimizer = make(model.parameters(), lr=1e-3)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_fn(compiled(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, lambda out: out.item()


def set_threads(n: int) -> None:
    """Use n threads."""
    torch.set_num_threads(n)
