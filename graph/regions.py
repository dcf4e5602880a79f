"""Tracing control flow: a body becomes a region, a graph of its own whose inputs are all that it reads.

What a body reads from outside beyond its arguments (tensors that need no gradient: constants, buffers) is
captured: it becomes one more input of the region and of the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import dispatch
from ..core import region as R
from ..core.errors import TraceError
from ..core.op import Attrs, Op
from ..core.types import TensorType, bool_
from .ir import Number, Value
from .symbol import Symbol
from .trace import Trace


class RegionTrace(Trace):
    """The trace of a body. outside: the executor that traces what is around it."""

    def __init__(self, outside: Trace, name: str, streams: Sequence[R.Stream], turns: bool):
        super().__init__(name, outside.host, self._read_inside)
        self.outside, self.name = outside, name
        self.region = R.Region()
        self.region.graph = self.graph
        self.captured: dict[Value, tuple[Symbol, Symbol]] = {}  # outer value -> outer symbol, its symbol here
        step = ((self.region.serial, R.TURN),) if turns else ()
        self._streams = {id(g): (_seed(seed, offset), step) for g, seed, offset in streams}
        self._drawn: dict[int, int] = {}

    @property
    def splits(self) -> bool:  # type: ignore[override]
        return self.outside.splits

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[Any, ...] | None = None
    ) -> tuple[Symbol, ...]:
        if self.splits and into is None and self.comes_apart(op, inputs):
            return self.in_parts(op, inputs, attrs)
        return super().run(op, inputs, attrs, into)

    def formal(self, kind: TensorType, device: str) -> Symbol:
        """A new input of the region."""
        value = self.graph.add_input(kind, device)
        self._known.add(value)
        self._origin[value] = None  # type: ignore[assignment]
        return Symbol(value, self)

    def face(self, x: Any) -> Symbol:
        if isinstance(x, Symbol) and x._trace() is self:
            return super().face(x)
        with dispatch.executing(self.outside):
            outer = self.outside.face(x)
        return self._capture(outer)

    def lift(self, tensor: Any) -> Symbol:
        return self.face(tensor)

    def _capture(self, outer: Symbol) -> Symbol:
        found = self.captured.get(outer._value)
        if found is None:
            found = self.captured[outer._value] = outer, self.formal(outer.type, outer.device)
        return found[1]

    def constant(self, array: Any, device: str) -> Symbol:
        return self._capture(self.outside.constant(array, device))

    def number(self, owner: Any, key: str) -> Any:
        return self.outside.number(owner, key)

    def offset(self, generator: Any, count: int) -> tuple[Any, Any]:
        seed, step = self._streams[id(generator)]
        drawn = self._drawn.get(id(generator), 0)
        self._drawn[id(generator)] = drawn + count
        return seed, Number(None, None, int, drawn, (), step)

    def random_state(self, generator: Any) -> int:
        return self._drawn.get(id(generator), 0)

    def set_random_state(self, generator: Any, state: int) -> None:
        self._drawn[id(generator)] = state

    def seed(self, generator: Any, seed: int) -> None:
        raise TraceError(self.name, "a function of it sets a seed", "set it before the loop")

    def check(self, x: Any, refuse: Any) -> None:
        """Values inside a loop are not looked at after the call."""

    def get_grad(self, x: Any) -> Any:
        return x._grad if isinstance(x, Symbol) and x._trace() is self else self.outside.get_grad(x)

    def _read_inside(self, trace: Trace, face: Symbol) -> Any:
        raise TraceError(
            self.name, f"a function of it reads the value of {face.type}, which is another one at every turn or call",
            "use dg.where, or a dg.cond inside, in place of a Python branch",
        )  # fmt: skip


def _seed(seed: Any, offset: Any) -> Number:
    """The seed of a block: seed + SPREAD * offset, of numbers that are known at the call (or at a turn)."""
    given = offset if isinstance(offset, Number) else Number(None, None, int, int(offset))
    base = seed if isinstance(seed, Number) else Number(None, None, int, int(seed))
    more = [*base.more, *((key, factor * R.SPREAD) for key, factor in given.more)]
    if given.key is not None:
        more.append((given.key, R.SPREAD))
    steps = dict(base.steps)
    for serial, step in given.steps:
        steps[serial] = steps.get(serial, 0) + step * R.SPREAD
    owner = given.owner if base.owner is None else base.owner
    add = (base.add + given.add * R.SPREAD) & (2**64 - 1)
    return Number(
        owner, base.key, int, add, tuple(more), tuple((k, s & (2**64 - 1)) for k, s in steps.items())
    )


def _traced(
    outside: Trace, name: str, body: R.Body, groups: Sequence[Sequence[Any]], streams: Sequence[R.Stream], turns: bool,
    types: Sequence[TensorType],
) -> RegionTrace:  # fmt: skip
    """Run a body on formal arguments. groups: types and devices of the constants, and of the rest."""
    inside = RegionTrace(outside, name, streams, turns)
    rows = [tuple(inside.formal(t, device) for t, device in group) for group in groups]
    with dispatch.executing(inside), dispatch.set_grad(False):
        results = [inside.face(y) for y in body(*rows)]
        inside.graph.outputs = [inside._use(y._value) for y in results]
    inside.done = True
    made = tuple(y.type for y in results)
    if made != tuple(types):
        raise TraceError(
            name, f"a function of it returned {', '.join(map(str, made))} and before {', '.join(map(str, types))}",
            "make it a function of its arguments alone",
        )  # fmt: skip
    return inside


def _share(insides: Sequence[RegionTrace], n_consts: int) -> list[Symbol]:
    """Give regions the same inputs: constants, what any of them captured, the rest. Returns what was captured."""
    outer: dict[Value, Symbol] = {}
    for inside in insides:
        for value, (symbol, _) in inside.captured.items():
            outer.setdefault(value, symbol)
    for inside in insides:
        graph, own = inside.graph, inside.captured
        taken = {s._value for _, s in own.values()}
        formals = [v for v in graph.inputs if v not in taken]
        rest = formals[n_consts:]
        here = [
            own[value][1]._value if value in own else graph.add_input(symbol.type, symbol.device)
            for value, symbol in outer.items()
        ]
        graph.inputs = [*formals[:n_consts], *here, *rest]
    return list(outer.values())


def _kinds(symbols: Sequence[Symbol]) -> list[tuple[TensorType, str]]:
    return [(s.type, s.device) for s in symbols]


def branch(trace: Trace, c: R.Branch) -> tuple[Symbol, ...]:
    """Record a `cond`."""
    consts, operands = [trace.face(x) for x in c.consts], [trace.face(x) for x in c.operands]
    groups = (_kinds(consts), _kinds(operands))
    insides = [_traced(trace, "cond", body, groups, c.streams, False, c.types) for body in c.bodies]
    captured = _share(insides, len(consts))
    return trace.record(
        R.cond, [trace.face(c.pred), *consts, *captured, *operands], tuple(i.region for i in insides), c.types
    )


def repeat(trace: Trace, c: R.Repeat) -> tuple[Symbol, ...]:
    """Record a `while_loop`."""
    consts, carry = [trace.face(x) for x in c.consts], [trace.face(x) for x in c.carry]
    groups = (_kinds(consts), _kinds(carry))
    test = _traced(trace, "while_loop", c.test, groups, (), True, (TensorType(bool_, ()),))
    body = _traced(trace, "while_loop", c.body, groups, c.streams, True, c.types)
    captured = _share([test, body], len(consts))
    attrs = (test.region, body.region, len(consts) + len(captured))
    return trace.record(R.while_loop, [*consts, *captured, *carry], attrs, c.types)


def scan(trace: Trace, c: R.Scan) -> tuple[Symbol, ...]:
    """Record a `scan`."""
    consts, carry = [trace.face(x) for x in c.consts], [trace.face(x) for x in c.carry]
    xs = [trace.face(x) for x in c.xs]
    slices = [(x.type._replace(shape=x.shape[1:]), x.device) for x in xs]
    inside = _traced(
        trace, "scan", c.body, (_kinds(consts), [*_kinds(carry), *slices]), c.streams, True, c.types
    )
    captured = _share([inside], len(consts))
    attrs = (inside.region, len(consts) + len(captured), len(carry), c.length, c.reverse)
    return trace.record(R.scan, [*consts, *captured, *carry, *xs], attrs, c.results())
