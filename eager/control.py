"""Control flow in eager mode: the functions run as Python calls them, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.dispatch import state
from ..core.ops.creation import zeros
from ..core.ops.joining import stack
from ..core.region import SPREAD, TURN, Branch, Repeat, Scan, Stream
from .recipes import read


@contextmanager
def _inside(streams: Sequence[Stream]) -> Iterator[None]:
    """What runs are functions of a control op with these blocks of random numbers."""
    states = [(generator, generator.get_state()) for generator, _, _ in streams]
    before, state.looked_over = state.looked_over, not streams
    try:
        yield
    finally:
        state.looked_over = before
        for generator, found in states:
            generator.set_state(found)


def _turn(streams: Sequence[Stream], turn: int) -> None:
    """The generators draw from the blocks of a control op, from the part of one turn."""
    for generator, seed, offset in streams:
        generator._start(seed + SPREAD * offset, turn * TURN)


def _results(made: Sequence[Any], given: Sequence[Any]) -> tuple[Any, ...]:
    """Results with memory of their own."""
    taken = {id(x._storage) for x in given}
    out = []
    for y in made:
        if y._base is not None or id(y._storage) in taken:
            y = y.clone()
        taken.add(id(y._storage))
        out.append(y)
    return tuple(out)


def branch(c: Branch) -> tuple[Any, ...]:
    body = c.bodies[0] if bool(read(c.pred)) else c.bodies[1]
    with _inside(c.streams):
        _turn(c.streams, 0)
        return _results(body(c.consts, c.operands), (*c.consts, *c.operands))


def repeat(c: Repeat) -> tuple[Any, ...]:
    carry, turn = c.carry, 0
    with _inside(c.streams):
        while bool(read(c.test(c.consts, carry)[0])):
            _turn(c.streams, turn)
            carry = c.body(c.consts, carry)
            turn += 1
        return _results(carry, (*c.consts, *c.carry))


def scan(c: Scan) -> tuple[Any, ...]:
    carry, k = c.carry, len(c.carry)
    rows: list[Any] = [None] * c.length
    with _inside(c.streams):
        for turn in range(c.length):
            at = c.length - 1 - turn if c.reverse else turn
            _turn(c.streams, at)
            made = c.body(c.consts, (*carry, *(x[at] for x in c.xs)))
            carry, rows[at] = made[:k], made[k:]
    like = next(iter((*c.carry, *c.xs)), None)
    device = "cpu" if like is None else like.device
    if c.length:
        stacked = tuple(stack(*column) for column in zip(*rows))
    else:
        stacked = tuple(zeros((0, *t.shape), dtype=t.dtype, device=device) for t in c.types[k:])
    return (*_results(carry, (*c.consts, *c.carry)), *stacked)
