"""What a trainer reports beside the loss: means over a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.errors import ArgumentError, ArgumentTypeError, ShapeError
from ..core.value import Tensor


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The share of right classes. output: float[N, C, ...] scores; target: int[N, ...] labels."""
    if output.ndim != target.ndim + 1:
        raise ShapeError(
            "accuracy", f"output {output.type} has no axis of classes more than target {target.type}",
            'pass scores [N, C, ...] and labels [N, ...]; for one logit each, "binary_accuracy"',
        )  # fmt: skip
    return (output.argmax(axis=1) == target).to("float32").mean()


def binary_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The share of logits on the right side of 0. output: float[...] logits; target: [...] of 0 and 1."""
    return ((_alike("binary_accuracy", output, target) > 0) == (target > 0.5)).to("float32").mean()


def mean_absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean of |output - target|, of equal shapes."""
    return abs(_alike("mean_absolute_error", output, target) - target).mean()


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean of (output - target)**2, of equal shapes."""
    return ((_alike("mean_squared_error", output, target) - target) ** 2).mean()


def _alike(name: str, output: Tensor, target: Tensor) -> Tensor:
    if output.shape != target.shape:
        raise ShapeError(
            name, f"output {output.type} and target {target.type} differ in shape", "reshape one"
        )
    return output


METRICS: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (accuracy, binary_accuracy, mean_absolute_error, mean_squared_error)
}


def named(
    op: str, metrics: Sequence[Any] | Mapping[str, Callable[..., Any]]
) -> dict[str, Callable[..., Any]]:
    """Metrics by the names that they are reported under. Raises: ArgumentError, ArgumentTypeError."""
    if isinstance(metrics, str):
        metrics = [metrics]
    pairs: Any = metrics.items() if isinstance(metrics, Mapping) else ((None, m) for m in metrics)
    found: dict[str, Callable[..., Any]] = {}
    for name, metric in pairs:
        if isinstance(metric, str):
            if metric not in METRICS:
                raise ArgumentError(
                    op, f"there is no metric {metric!r}", f"use one of {', '.join(METRICS)}, or a function"
                )
            name, metric = name or metric, METRICS[metric]
        if not callable(metric):
            raise ArgumentTypeError(op, f"a metric is a {type(metric).__name__}", "pass a function or a name")
        name = name or str(getattr(metric, "__name__", type(metric).__name__))
        if name in found or name == "loss":
            raise ArgumentError(op, f"two numbers are named {name!r}", "pass a dict of names and functions")
        found[name] = metric
    return found
