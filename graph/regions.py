"""Tracing control flow: a body becomes a region, a graph of its own whose inputs are all that it reads.

What a body reads from outside beyond its arguments (tensors that need no gradient: constants, buffers) is
captured: it becomes one more input of the region and of the node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core import dispatch
from ..core import region as R
from ..core.errors import TraceError, user_place
from ..core.op import Attrs, Op
from ..core.ops.creation import ones_like, zeros
from ..core.ops.elementwise import maximum, minimum, where
from ..core.ops.joining import concat
from ..core.types import TensorType, bool_, int64
from .checks import at_place, knows_sizes, of_branch, of_range, of_rows
from .ir import Number, Value
from .live import RestartError, is_size, settled
from .symbol import Symbol
from .trace import Trace


class RegionTrace(Trace):
    """The trace of a body. outside: the executor that traces what is around it."""

    certain = False

    def __init__(self, outside: Trace, name: str, streams: Sequence[R.Stream], turns: bool):
        super().__init__(name, outside.host, self._read_inside)
        self.watches = outside.watches and outside.breaker is not None
        #: values to look at after the call, and who refuses them
        self.looks: list[tuple[Symbol, Any]] = []
        self.outside, self.name = outside, name
        self.region = R.Region()
        self.region.graph = self.graph
        self.captured: dict[Value, tuple[Symbol, Symbol]] = {}  # outer value -> outer symbol, its symbol here
        step = ((self.region.serial, R.TURN),) if turns else ()
        self._streams = {id(g): (_seed(seed, offset), step) for g, seed, offset in streams}
        self._drawn: dict[int, int] = {}

    def runs_aside(self, cached: Any, ledger: Any) -> Any:
        return self.outside.runs_aside(cached, ledger)

    @property
    def outermost(self) -> Trace:
        return self.outside.outermost

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
        self._drawn[id(generator)] = drawn + settled(count)
        return seed, Number(None, None, int, drawn, (), step)

    def random_state(self, generator: Any) -> int:
        return self._drawn.get(id(generator), 0)

    def set_random_state(self, generator: Any, state: int) -> None:
        self._drawn[id(generator)] = state

    def seed(self, generator: Any, seed: int) -> None:
        raise TraceError(self.name, "a function of it sets a seed", "set it before the loop")

    def constant_of(self, x: Symbol) -> Any:
        for outer, inner in self.captured.values():
            if inner._value is x._value:
                return self.outside.constant_of(outer)
        return None

    def check(self, x: Any, refuse: Any) -> None:
        """What is to be looked at becomes a further result of the region."""
        if self.watches:
            face = self.face(x)
            if any(map(is_size, face.shape)) or (self.sized and knows_sizes(refuse)):
                raise RestartError
            self.looks.append((face, at_place(user_place(2), refuse)))

    @property
    def sized(self) -> bool:
        """Whether sizes may be live."""
        outside = self.outside
        return outside.sized if isinstance(outside, RegionTrace) else bool(outside.now and outside.now.sized)

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Record more in the region, which has been traced."""
        self.done = False
        try:
            with dispatch.executing(self), dispatch.set_grad(False):
                yield
        finally:
            self.done = True

    def give(self, x: Symbol) -> None:
        """Another result of the region."""
        self.graph.outputs.append(self._use(self.face(x)._value))

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
    terms = *base.terms, *((number, factor * R.SPREAD) for number, factor in given.terms)
    owner = given.owner if base.owner is None else base.owner
    add = (base.add + given.add * R.SPREAD) & (2**64 - 1)
    return Number(
        owner, base.key, int, add, tuple(more), tuple((k, s & (2**64 - 1)) for k, s in steps.items()), terms
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
    looks = [(k, x, refuse) for k, inside in enumerate(insides) for x, refuse in inside.looks]
    for k, inside in enumerate(insides):
        with inside.adding():
            for owner, x, _ in looks:
                inside.give(x if owner == k else zeros(x.shape, dtype=x.dtype, device=x.device))
    captured = _share(insides, len(consts))
    pred = trace.face(c.pred)
    made = trace.record(
        R.cond, [pred, *consts, *captured, *operands], tuple(i.region for i in insides),
        (*c.types, *(x.type for _, x, _ in looks)),
    )  # fmt: skip
    with dispatch.set_grad(False):
        for (k, x, refuse), y in zip(looks, made[len(c.types) :]):
            row = concat([pred.to(y.dtype).reshape(1), y.reshape(-1)])
            trace.check(row, of_branch(refuse, x.shape, k))
    return made[: len(c.types)]


def repeat(trace: Trace, c: R.Repeat) -> tuple[Symbol, ...]:
    """Record a `while_loop`."""
    consts, carry = [trace.face(x) for x in c.consts], [trace.face(x) for x in c.carry]
    groups = (_kinds(consts), _kinds(carry))
    test = _traced(trace, "while_loop", c.test, groups, (), True, (TensorType(bool_, ()),))

    def turn(given: tuple[Any, ...], state: tuple[Any, ...]) -> tuple[Any, ...]:
        if test.looks:  # what the test looks at, it looks at again in the turn that it allows
            c.test(given, state)
        return c.body(given, state)

    body = _traced(trace, "while_loop", turn, groups, c.streams, True, c.types)
    extra = []
    for x, _ in body.looks:
        wide = int64 if x.dtype.is_integer or x.dtype is bool_ else x.dtype
        kind = TensorType(wide, (1 + 2 * x.size,))
        test.formal(kind, x.device)
        known = body.formal(kind, x.device)
        with body.adding():
            body.give(_ranged(known, x.to(wide).reshape(-1)))
        extra.append(zeros(kind.shape, dtype=wide, device=x.device))
    extra = [trace.face(x) for x in extra]
    captured = _share([test, body], len(consts))
    attrs = (test.region, body.region, len(consts) + len(captured))
    types = (*c.types, *(x.type for x in extra))
    made = trace.record(R.while_loop, [*consts, *captured, *carry, *extra], attrs, types)
    found = made[: len(carry)]
    for (x, refuse), y in zip(body.looks, made[len(carry) :]):
        trace.check(y, of_range(refuse, x.shape, x.dtype.np))
    if test.looks:
        with dispatch.set_grad(False):
            c.test(c.consts, found)  # and at the end
    return found


def _ranged(known: Any, x: Any) -> Any:
    """Whether there were values before, and the least and the most of these and x."""
    n, some = x.size, known[:1] > 0
    least, most = known[1 : 1 + n], known[1 + n :]
    low, high = where(some, minimum(least, x), x), where(some, maximum(most, x), x)
    return concat([ones_like(known[:1]), low, high])


def scan(trace: Trace, c: R.Scan) -> tuple[Symbol, ...]:
    """Record a `scan`."""
    consts, carry = [trace.face(x) for x in c.consts], [trace.face(x) for x in c.carry]
    xs = [trace.face(x) for x in c.xs]
    slices = [(x.type._replace(shape=x.shape[1:]), x.device) for x in xs]
    inside = _traced(
        trace, "scan", c.body, (_kinds(consts), [*_kinds(carry), *slices]), c.streams, True, c.types
    )
    with inside.adding():
        for x, _ in inside.looks:
            inside.give(x)
    captured = _share([inside], len(consts))
    attrs = (inside.region, len(consts) + len(captured), len(carry), c.length, c.reverse)
    types = c.results()
    more = (x.type._replace(shape=(c.length, *x.shape)) for x, _ in inside.looks)
    made = trace.record(R.scan, [*consts, *captured, *carry, *xs], attrs, (*types, *more))
    alike: dict[Any, list[Any]] = {}
    for (x, refuse), y in zip(inside.looks, made[len(types) :]):
        alike.setdefault(x.dtype, []).append((y, refuse, x.shape))
    with dispatch.set_grad(False):
        for group in alike.values():  # together, so that the first turn with an error is found
            rows = concat([y.reshape(c.length, math.prod(shape)) for y, _, shape in group], axis=1)
            trace.check(rows, of_rows([row[1:] for row in group], c.reverse))
    return made[: len(types)]
