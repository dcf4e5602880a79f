"""Products with a vector add up as their matrix lies in memory.

What a call has changed in place lies for them as it does in eager mode, though the graph has its new values in rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.op import REGISTRY, Op
from ..core.types import Shape, contiguous_strides
from .ir import Value

if TYPE_CHECKING:
    from .trace import Trace


def adds_up_as_it_lies(op: Op, inputs: Any) -> bool:
    """Whether a call is a product of what was changed in place, with one row or one column."""
    return (
        op.name == "matmul"
        and any(x._storage.value is not None for x in inputs)
        and bool(_is_line(inputs[0].shape, -2) or _is_line(inputs[1].shape, -1))
    )


def _is_line(shape: Shape, axis: int) -> bool:
    """Whether an operand is one row or one column; one of a single axis is."""
    return len(shape) < 2 or shape[axis] == 1


def as_in_memory(trace: Trace, x: Any, value: Value, append: Callable[..., Any]) -> Value:
    """The value of a symbol for such a product. append: adds a node to the graph."""
    if x._storage.value is None:
        return value
    shape, strides = x.shape, x.strides
    axes = [k for k, n in enumerate(shape) if n != 1]
    there = _strides(trace, value)
    if all(strides[k] == there[k] for k in axes):
        return value
    order = sorted(axes, key=lambda k: -abs(strides[k])) + [k for k, n in enumerate(shape) if n == 1]
    made = dict(zip(order, contiguous_strides(tuple([shape[k] for k in order]))))
    # Of a matrix it counts which elements are neighbours; batches may be rows of one, where they follow each other.
    if any(strides[k] != made[k] for k in axes) and (len(shape) > 2 or all(strides[k] != 1 for k in axes)):
        trace.leave(
            f"multiplies {x.type}, which it has changed in place and whose elements lie apart in memory, by a vector",
            "contiguous() it before the change",
        )
    turn, back = tuple(order), tuple(order.index(k) for k in range(len(order)))
    permute, assign = REGISTRY["permute"], REGISTRY["assign"]
    for op, attrs in ((permute, (turn,)), (assign, ()), (permute, (back,))):
        value = append(op, (value,), attrs, op.infer([value.type], attrs), value.device).outputs[0]
    return value


def _strides(trace: Trace, value: Value) -> Shape:
    """How a value lies in the graph."""
    node = value.producer
    if node is not None and node.op.is_view and node.op.view_rule is not None:
        source = node.inputs[0]
        made = node.op.view_rule(source.type.shape, _strides(trace, source), **node.named)
        if made is not None:
            strides: Shape = made[1]
            return strides
    usual = contiguous_strides(value.type.shape)
    return usual if node is not None else trace.graph.strides.get(value) or usual
