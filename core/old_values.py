"""What an op that is written over one of its inputs needs of it for its gradient: a copy, made before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import dispatch
from .saved import is_number, needs_of
from .vjp import mark, plan_of

if TYPE_CHECKING:
    from .op import Op
    from .value import Tensor


def before_change(op: Op, inputs: tuple[Any, ...], target: Tensor) -> tuple[Any, ...]:
    """The inputs of an op that is written over `target`, one of them: with a copy of it where the tape keeps it."""
    needs = sum(1 << k for k, x in enumerate(inputs) if not is_number(x) and x._requires_grad)
    plan = plan_of(op, len(inputs), needs)
    kept = range(len(inputs)) if plan.listed & 1 else [k for _, k in plan.tensors]
    if not any(inputs[k] is target for k in kept):
        return inputs
    old = old_values(target)
    return tuple([old if x is target else x for x in inputs])


def write_over(fn: Callable[..., Any], target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`fn(target, ...)` in target's dtype, written over `target`: of a copy where the tape keeps it."""
    since = mark()
    result = fn(target, *args, **kwargs)
    if result is target:
        return target
    if dispatch.state.grad and _keeps(result, since, target):
        result = fn(old_values(target), *args, **kwargs)
    face = dispatch.state.executor.face
    dispatch.state.executor.write(face(target), face(result.to(target.dtype)))
    return target


def _keeps(result: Any, since: float, target: Any) -> bool:
    """Whether what was recorded since then, behind a result, keeps the values of a tensor."""
    todo, seen = [result._node], set()
    while todo:
        node = todo.pop()
        if node is None or node.number < since or node.number in seen:
            continue
        seen.add(node.number)
        if any(x._storage is target._storage for _, x, _ in needs_of(node)):
            return True
        todo += [edge[0] for edge in node.edges if edge.__class__ is tuple]
    return False


def old_values(target: Any) -> Any:
    """A copy, with its history, of a tensor that is about to be changed in place."""
    if (
        target._requires_grad and target._node is None
    ):  # where a tape begins: the tensor itself stands for that
        return target.clone()
    with dispatch.set_grad(False):
        old = target.clone()
    old._node, old._index, old._requires_grad = target._node, target._index, target._requires_grad
    return old
