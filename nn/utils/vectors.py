"""Gradients bounded one by one, and all parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...core import dispatch
from ...core.errors import ArgumentError, ShapeError
from ...core.op import PUBLIC
from ...core.ops import elementwise as E
from ...core.value import Tensor


def _row(tensors: Any) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of all gradients into [-clip_value, clip_value].

    parameters: tensors (those without a gradient are left out) or one tensor.
    """
    if not clip_value >= 0:
        raise ArgumentError("clip_grad_value_", f"clip_value={clip_value} is negative", "use a number from 0")
    executor = dispatch.state.executor
    with dispatch.set_grad(False):
        for p in _row(parameters):
            g = executor.get_grad(p)
            if g is not None:
                executor.set_grad(p, E.clip_(g, -clip_value, clip_value))


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters one after the other as one vector; gradients flow to them."""
    return PUBLIC["concat"]([p.reshape(-1) for p in _row(parameters)])  # type: ignore[no-any-return]


def vector_to_parameters(vector: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the parts of a vector into the parameters. Raises: ShapeError when it has not their number of elements."""
    row = _row(parameters)
    count = sum(p.size for p in row)
    if vector.ndim != 1 or vector.size != count:
        raise ShapeError(
            "vector_to_parameters", f"{vector.type} for {count} elements", "pass a vector of that length"
        )
    start = 0
    with dispatch.set_grad(False):
        for p in row:
            p.copy_(vector[start : start + p.size].reshape(p.shape))
            start += p.size
