"""Control flow as ops: `cond`, `while_loop` and `scan` on sub-programs, and what an executor is asked to run.

These ops stand in graphs only. Users call the functions of `core/control.py`; eager mode runs their Python
functions, a trace makes each a `Region` and adds one node:

    cond        inputs: pred (bool[]), then the operands of both regions
    while_loop  inputs: constants, then the carry; both regions take all of them
    scan        inputs: constants, the carry, then what is walked along its first axis; the region takes slices

What a function reads from outside is among the constants (or operands), so a region reads its inputs alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from .errors import ShapeError
from .op import primitive
from .types import TensorType, bool_

_serial = itertools.count(1)
Body = Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Any, ...]]


class Region:
    """A sub-program as an attribute: a graph (`graph/ir.py`) with inputs and outputs and no writes.

    Equal only to itself. serial: names the loop for numbers that change from turn to turn (random offsets).
    """

    __slots__ = ("graph", "serial")

    def __init__(self, graph: Any = None):
        self.graph = graph
        self.serial = next(_serial)

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return tuple(v.type for v in self.graph.inputs)

    @property
    def outputs(self) -> tuple[TensorType, ...]:
        return tuple(v.type for v in self.graph.outputs)

    def __repr__(self) -> str:
        return f"region {self.serial}"


#: what the numbers of a control op's block are seeded with: seed + SPREAD * offset; a turn has 2 ** 32 of them
SPREAD = 0x9E3779B97F4A7C15
TURN = 1 << 32

#: a generator and the block of random numbers that a control op has drawn from it: seed and offset
Stream = tuple[Any, Any, Any]


class Branch(NamedTuple):
    """What `cond` asks of an executor. bodies: for True and for False, of (constants, operands); types: of results."""

    bodies: tuple[Body, Body]
    pred: Any
    consts: tuple[Any, ...]
    operands: tuple[Any, ...]
    streams: tuple[Stream, ...]
    types: tuple[TensorType, ...]


class Repeat(NamedTuple):
    """What `while_loop` asks of an executor: functions of (constants, carry). types: of the carry."""

    test: Body
    body: Body
    consts: tuple[Any, ...]
    carry: tuple[Any, ...]
    streams: tuple[Stream, ...]
    types: tuple[TensorType, ...]


class Scan(NamedTuple):
    """What `scan` asks of an executor: a function of (constants, (*carry, *slices)) to (*carry, *rows).

    types: of the carry, then of one row of each result.
    """

    body: Body
    consts: tuple[Any, ...]
    carry: tuple[Any, ...]
    xs: tuple[Any, ...]
    length: int
    reverse: bool
    streams: tuple[Stream, ...]
    types: tuple[TensorType, ...]

    def results(self) -> tuple[TensorType, ...]:
        """Types of the results: the carry, and rows one above the other."""
        k = len(self.carry)
        return self.types[:k] + tuple(t._replace(shape=(self.length, *t.shape)) for t in self.types[k:])


def _refuse(name: str, what: str, made: Any, expected: Any) -> ShapeError:
    def text(types: Any) -> str:
        return "(" + ", ".join(map(str, types)) + ")"

    return ShapeError(name, f"{what} {text(made)}, expected {text(expected)}", "report it")


def _check(name: str, what: str, made: tuple[TensorType, ...], expected: tuple[TensorType, ...]) -> None:
    if made != expected:
        raise _refuse(name, what, made, expected)


_OPTIONS = {"unlisted": True, "complex": "own", "no_gradient": "recorded by the function around it"}


@primitive(**_OPTIONS)
def cond(pred: Any, *inputs: Any, on_true: Region, on_false: Region) -> Any:
    """The results of one of two regions."""
    raise NotImplementedError


@cond.type
def _cond_type(pred: Any, *inputs: Any, on_true: Region, on_false: Region) -> Any:
    _check("cond", "pred is", (pred,), (TensorType(bool_, ()),))
    for region in (on_true, on_false):
        _check("cond", "a branch takes", region.inputs, inputs)
    _check("cond", "branches give", on_true.outputs, on_false.outputs)
    return on_true.outputs


@primitive(**_OPTIONS)
def while_loop(*inputs: Any, test: Region, body: Region, n_consts: int) -> Any:
    """The carry after the last turn: as long as `test` gives True, `body` gives the next."""
    raise NotImplementedError


@while_loop.type
def _while_type(*inputs: Any, test: Region, body: Region, n_consts: int) -> Any:
    for region in (test, body):
        _check("while_loop", "a region takes", region.inputs, inputs)
    _check("while_loop", "the test gives", test.outputs, (TensorType(bool_, ()),))
    _check("while_loop", "the body gives", body.outputs, inputs[n_consts:])
    return body.outputs


@primitive(**_OPTIONS)
def scan(*inputs: Any, body: Region, n_consts: int, n_carry: int, length: int, reverse: bool) -> Any:
    """The carry after the last turn, then the rows that all turns gave. reverse: from the last slice to the first."""
    raise NotImplementedError


@scan.type
def _scan_type(*inputs: Any, body: Region, n_consts: int, n_carry: int, length: int, reverse: bool) -> Any:
    start = n_consts + n_carry
    slices = tuple(t._replace(shape=t.shape[1:]) for t in inputs[start:])
    _check("scan", "the body takes", body.inputs, (*inputs[:start], *slices))
    _check("scan", "the body gives", body.outputs[:n_carry], inputs[n_consts:start])
    rows = (t._replace(shape=(length, *t.shape)) for t in body.outputs[n_carry:])
    return (*body.outputs[:n_carry], *rows)


#: the ops that have regions
CONTROL = (cond, while_loop, scan)
