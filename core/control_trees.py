"""Trees of tensors at the border of a control op: taken apart into flat rows, put together again, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import dispatch, tree
from .errors import ArgumentError, ArgumentTypeError, ShapeError
from .types import bool_
from .value import Tensor

_NUMBERS = (bool, int, float, complex)


def split(row: Any) -> tuple[tuple[Any, ...], Any]:
    """The tensors of a tree, and the tree with True in their places and a box round anything else."""
    found: list[Any] = []

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return _Kept(leaf)
        found.append(leaf)
        return True

    skeleton = tree.map_leaves(take, row)
    return tuple(found), skeleton


class _Kept:
    """A leaf that is no tensor."""

    __slots__ = ("leaf",)

    def __init__(self, leaf: Any):
        self.leaf = leaf

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept)

    __hash__ = None  # type: ignore[assignment]


def join(skeleton: Any, tensors: Sequence[Any]) -> Any:
    it = iter(tensors)
    return tree.map_leaves(lambda leaf: next(it) if leaf is True else leaf.leaf, skeleton)


def as_tensor(leaf: Any, like: Any = None) -> Any:
    """Numbers and arrays as tensors; a number beside a tensor of a carry takes its dtype."""
    from .ops.creation import full

    if isinstance(leaf, Tensor) or leaf is None:
        return leaf
    if isinstance(leaf, _NUMBERS):
        return full((), leaf) if like is None else full((), leaf, dtype=like.dtype, device=like.device)
    if hasattr(leaf, "__array__"):
        import numpy as np

        return dispatch.state.executor.constant(np.asarray(leaf), "cpu")
    return leaf


def tensors(row: Any) -> tuple[tuple[Any, ...], Any]:
    """`split` after numbers have become tensors; what is neither is refused."""
    return split(tree.map_leaves(as_tensor, row))


def results(name: str, row: Any, like: Sequence[Any] = ()) -> tuple[tuple[Any, ...], Any]:
    """What a function returned: its tensors and their tree. like: the carry, whose dtypes numbers take."""
    beside = iter(like)
    made = tree.map_leaves(
        lambda leaf: as_tensor(leaf, next(beside, None) if leaf is not None else None), row
    )
    for leaf in tree.leaves(made):
        if leaf is not None and not isinstance(leaf, Tensor):
            raise ArgumentTypeError(
                name,
                f"a function returned a {type(leaf).__name__}",
                "return tensors, in lists, tuples or dicts",
            )
    return split(made)


def same_structure(name: str, made: Any, skeleton: Any) -> None:
    if made != skeleton:
        raise ArgumentError(
            name, f"the carry went in as {words(skeleton)} and came out as {words(made)}",
            "return the structure of init",
        )  # fmt: skip


def words(skeleton: Any) -> str:
    return tree.describe(tree.map_leaves(lambda leaf: "tensor" if leaf is True else None, skeleton)).replace(
        "str", "tensor"
    )


def predicate(name: str, pred: Any) -> Any:
    pred = as_tensor(pred)
    if not isinstance(pred, Tensor) or pred.size != 1:
        what = pred.type if isinstance(pred, Tensor) else type(pred).__name__
        raise ShapeError(name, f"the condition is {what}", "give one bool, as x.any() or x.all() do")
    if pred.dtype is not bool_:
        pred = pred != 0
    return pred if pred.ndim == 0 else pred.reshape(())
