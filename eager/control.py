"""Control flow in eager mode: the functions run as Python calls them, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.ops.creation import zeros
from ..core.ops.joining import stack
from ..core.region import SPREAD, TURN, Branch, Repeat, Scan, Stream
from .recipes import read


@contextmanager
def drawing(streams: Sequence[Stream], turn: int) -> Iterator[None]:
    """The generators draw from the blocks of a control op, from the part of one turn."""
    before = [(generator, generator.get_state()) for generator, _, _ in streams]
    try:
        for generator, seed, offset in streams:
            block = (seed + SPREAD * offset + 2**63) % 2**64 - 2**63  # as an int64
            generator.set_state((block, turn * TURN))
        yield
    finally:
        for generator, state in before:
            generator.set_state(state)


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
    with drawing(c.streams, 0):
        return _results(body(c.consts, c.operands), (*c.consts, *c.operands))


def repeat(c: Repeat) -> tuple[Any, ...]:
    carry, turn = c.carry, 0
    while bool(read(c.test(c.consts, carry)[0])):
        with drawing(c.streams, turn):
            carry = c.body(c.consts, carry)
        turn += 1
    return _results(carry, (*c.consts, *c.carry))


def scan(c: Scan) -> tuple[Any, ...]:
    carry, k = c.carry, len(c.carry)
    rows: list[Any] = [None] * c.length
    for turn in range(c.length):
        at = c.length - 1 - turn if c.reverse else turn
        with drawing(c.streams, at):
            made = c.body(c.consts, (*carry, *(x[at] for x in c.xs)))
        carry, rows[at] = made[:k], made[k:]
    like = next(iter((*c.carry, *c.xs)), None)
    device = "cpu" if like is None else like.device
    stacked = tuple(
        stack(*column) if c.length else zeros((0, *t.shape), dtype=t.dtype, device=device)
        for t, column in zip(c.types[k:], zip(*rows) if c.length else [()] * (len(c.types) - k))
    )
    return (*_results(carry, (*c.consts, *c.carry)), *stacked)
