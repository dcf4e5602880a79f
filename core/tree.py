"""Trees: nested lists, tuples, named tuples and dicts with tensors (and anything else) at their leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def _children(x: Any) -> list[Any] | None:
    """The branches of a container in order, None for a leaf."""
    if x.__class__ is list or isinstance(x, tuple):
        return list(x)
    return list(x.values()) if x.__class__ is dict else None


def _rebuild(x: Any, children: list[Any]) -> Any:
    if x.__class__ is dict:
        return dict(zip(x, children))
    if hasattr(x, "_fields"):
        return type(x)(*children)
    return x.__class__(children)


def leaves(tree: Any) -> Iterator[Any]:
    """Every leaf, from left to right. None is a leaf."""
    below = _children(tree)
    if below is None:
        yield tree
    else:
        for child in below:
            yield from leaves(child)


def map_leaves(fn: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree with `fn(leaf, *leaves of others at the same place)` at each leaf."""
    below = _children(tree)
    if below is None:
        return fn(tree, *others)
    parts = zip(*(_same_place(tree, o, len(below)) for o in others)) if others else [()] * len(below)
    return _rebuild(tree, [map_leaves(fn, child, *rest) for child, rest in zip(below, parts)])


def _same_place(tree: Any, other: Any, n: int) -> list[Any]:
    found = _children(other)
    if found is None or len(found) != n:
        raise ValueError(f"{describe(other)} has not the structure of {describe(tree)}")
    return found


def refill(tree: Any, values: Iterator[Any]) -> Any:
    """The tree with its leaves replaced by the next values."""
    return map_leaves(lambda _: next(values), tree)


def spread(prefix: Any, tree: Any) -> Iterator[Any]:
    """A prefix tree's leaf for every leaf of the tree: `0` spreads over everything, `(0, None)` over a pair."""
    below = _children(prefix)
    if below is None:
        yield from (prefix for _ in leaves(tree))
        return
    parts = _children(tree)
    if parts is None or len(parts) != len(below):
        raise ValueError(f"{describe(prefix)} does not fit {describe(tree)}")
    for p, t in zip(below, parts):
        yield from spread(p, t)


def describe(tree: Any) -> str:
    """The structure in words, for messages."""
    below = _children(tree)
    if below is None:
        return str(
            getattr(tree, "type", tree if isinstance(tree, (int, type(None))) else type(tree).__name__)
        )
    inside = ", ".join(map(describe, below))
    return f"[{inside}]" if tree.__class__ is list else f"({inside})"
