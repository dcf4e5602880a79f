"""Hot bodies: what eager mode asks of the graph compiler, without either importing the other.

A composite's body and a gradient rule are, for given layouts of their tensors, one fixed list of ops. When
eager mode has run such a body often enough it has it traced and compiled into one program.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: calls of one signature after which a body is compiled
CALLS = 8


class Fused(NamedTuple):
    """A body as one program.

    execute: takes a list: addresses of the body's tensors, of `constants`, of fresh memory for `outputs`, the bits of
    `numbers` ((number, dtype), read at each call; those whose owner is GIVEN are the body's own), `tail`, and the
    address of `arena_bytes` when that is not 0. results: for each result of the body None, ("output", k) or
    ("tensor", k). drawn: (generator, count) that the body advances. kernels: how many launches; ops: how many op
    calls they stand for. seen: what is handed out where it is not the outputs: (whether one of the tensors, its number
    or an output's, the layout of a view or None, the view's first byte) for each.
    """

    name: str
    execute: Any
    constants: tuple[Any, ...]
    outputs: tuple[Any, ...]
    numbers: tuple[Any, ...]
    tail: tuple[int, ...]
    arena_bytes: int
    results: tuple[Any, ...]
    drawn: tuple[Any, ...]
    kernels: int
    ops: int
    seen: tuple[Any, ...] | None = None


class Taped(NamedTuple):
    """A body with its way back.

    forward: its outputs are the results, then what the way back reads besides. saved: where each of that comes
    from, ("tensor", k) or ("output", k). roots: the outputs that have a gradient. sums: of the tensors that want a
    gradient, those whose gradient is a sum of several parts. backward(layouts) compiles the way back for the layouts of
    the saved tensors, of the gradients of the roots, and of the gradients that `sums` have already, in this order (None
    for one that is not there); it has a result for each tensor that wants a gradient. Raises Unfit.
    """

    forward: Fused
    saved: tuple[Any, ...]
    roots: tuple[int, ...]
    sums: tuple[int, ...]
    backward: Callable[[Sequence[Any]], Fused]


class Unfit(Exception):
    """A body that stays op by op, with the reason."""


#: the owner of numbers that a body is called with
GIVEN: dict[str, Any] = {}

#: loads what compiles: a module with `fuse(name, body, tensors, numbers)` and `fuse_taped(name, body, tensors,
#: wanted)`, where body(tensors, numbers) is a tuple of results and `wanted` are positions; both raise Unfit. Set by
#: the package's root.
loader: Callable[[], Any] | None = None

#: what became of bodies: compiled ones, runs of compiled ones, and those that stay op by op
counters = {"compiled": 0, "refused": 0}
#: the reasons of those that stay op by op, by the name of the body
refusals: dict[str, str] = {}


def attempt(make: Callable[[Any], Any], name: str) -> Any:
    """`make(compiler)`, or None when there is no compiler or the body does not fit."""
    if loader is None:
        return None
    try:
        found = make(loader())
    except Exception as e:
        # Nobody asked for this program: what cannot be made of it must not stop who called the op.
        if not isinstance(e, Unfit) and os.environ.get("DUOGRAD_VERIFY") == "1":
            raise
        counters["refused"] += 1
        refusals[name] = str(e)
        return None
    counters["compiled"] += 1
    return found
