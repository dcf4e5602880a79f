"""Importers of ai.onnx.preview.training: Adam, Adagrad, Momentum, and Gradient of a part of the graph."""

from __future__ import annotations

from typing import Any

from ...core import dispatch
from ...core.functional import vjp
from ...core.op import REGISTRY as ops
from ...core.value import Tensor
from .program import host_tensor
from .table import adapter

TRAINING = "ai.onnx.preview.training"


def _grouped(xs: tuple[Any, ...], groups: int, step: Any) -> tuple[Any, ...]:
    """`step` for each optimised tensor; its results by kind, as the inputs are."""
    count = len(xs) // groups
    rows = [step(*(xs[g * count + k] for g in range(groups))) for k in range(count)]
    return tuple(row[j] for j in range(len(rows[0])) for row in rows)


@adapter("Adam", domain=TRAINING)
def adam(
    rate, count, *xs, alpha=0.9, beta=0.999, epsilon=1e-6, norm_coefficient=0.0, norm_coefficient_post=0.0
):
    """One step; inputs and outputs are the tensors, (their gradients,) first and second moments."""
    t = count.to(rate.dtype)
    corrected = rate * ops["sqrt"](1.0 - ops["power"](beta, t)) / (1.0 - ops["power"](alpha, t))
    rate = ops["where"](ops["greater"](count, 0), corrected, rate)

    def step(x, g, v, h):
        g = g + x * norm_coefficient if norm_coefficient else g
        v = v * alpha + g * (1.0 - alpha)
        h = h * beta + g * g * (1.0 - beta)
        return (x - rate * v / (ops["sqrt"](h) + epsilon)) * (1.0 - norm_coefficient_post), v, h

    return _grouped(xs, 4, step)


@adapter("Adagrad", domain=TRAINING)
def adagrad(rate, count, *xs, decay_factor=0.0, epsilon=1e-6, norm_coefficient=0.0):
    """One step; inputs and outputs are the tensors, (their gradients,) sums of squares."""
    rate = rate / (count.to(rate.dtype) * decay_factor + 1.0)

    def step(x, g, h):
        g = g + x * norm_coefficient if norm_coefficient else g
        h = h + g * g
        return x - rate * g / (ops["sqrt"](h) + epsilon), h

    return _grouped(xs, 3, step)


@adapter("Momentum", domain=TRAINING)
def momentum(rate, count, *xs, alpha, beta, mode, norm_coefficient):
    """One step, plain or Nesterov's; inputs and outputs are the tensors, (their gradients,) momenta."""
    share = ops["where"](ops["greater"](count, 0), beta, 1.0).to(rate.dtype)

    def step(x, g, v):
        g = g + x * norm_coefficient if norm_coefficient else g
        v = v * alpha + g * share
        return x - rate * (g + v * alpha if mode == "nesterov" else v), v

    return _grouped(xs, 3, step)


@adapter("Gradient", domain=TRAINING, fold=False)
def gradient(node, *values, xs, y, zs=(), body):
    """The gradient of y's sum with respect to each of xs; `body` computes y from xs and zs."""
    values = tuple(v if isinstance(v, Tensor) else host_tensor(v) for v in values)
    rest = list(values[len(xs) :])

    def run(*inner: Any) -> Any:
        return node.run(body, [*inner, *rest])[0]

    with dispatch.set_grad(True):
        out, back = vjp(run, *values[: len(xs)])
        grads = back(ops["full"](1.0, shape=out.shape, dtype=out.dtype))
    return tuple(grads) if isinstance(grads, (tuple, list)) else grads
