"""The intermediate representation: typed values, ops in order, in single-assignment form.

A graph is a straight list of nodes (control flow ends a graph; see trace.py). Inputs of nodes are values,
Python numbers (weakly typed constants), `Number`s (weakly typed, known at call time) or None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.errors import Place, line_of
from ..core.op import Attrs, Op
from ..core.random import wrap_int64
from ..core.types import Shape, TensorType, contiguous_strides


class Value:
    """One tensor in a graph. producer: its node, None for an input of the graph."""

    __slots__ = ("device", "index", "name", "nbytes", "producer", "size", "type")

    #: elements, and bytes (at most, where sizes are live); see `__getattr__`
    size: int
    nbytes: int

    def __init__(
        self, type: TensorType, device: str, producer: Node | None = None, index: int = 0, name: str = ""
    ):
        self.type, self.device, self.producer, self.index, self.name = type, device, producer, index, name

    def __getattr__(self, name: str) -> Any:
        """`size` and `nbytes`, when they are first asked for; each time where sizes are live."""
        if name == "size":
            size = math.prod(self.type.shape)
            if type(size) is int:
                self.size = size
            return size
        if name == "nbytes":
            nbytes = self.type.nbytes
            if type(self.size) is int:
                self.nbytes = nbytes
            return nbytes
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"<value {self.name} {self.type}>"


class Number:
    """A weakly typed number read from `owner[key]` at each call: a learning rate, a random offset.

    kind: float or int. add: a constant added to it (program-order offsets). more: further (key, factor) that are
    added; steps: (serial of a loop's region, what is added at each of its turns); terms: (live number, factor) that are
    added (how many random numbers were drawn before, where sizes are live). key None: 0. Sums go round as int64.
    """

    __slots__ = ("add", "key", "kind", "more", "owner", "steps", "terms")
    _requires_grad = False

    def __init__(
        self, owner: Any, key: str | None, kind: type, add: int = 0,
        more: tuple[tuple[str, int], ...] = (), steps: tuple[tuple[int, int], ...] = (),
        terms: tuple[tuple[Number, int], ...] = (),
    ):  # fmt: skip
        self.owner, self.key, self.kind, self.add = owner, key, kind, add
        self.more, self.steps, self.terms = more, steps, terms

    def read(self) -> Any:
        if self.more or self.key is None:
            total = self.add + (0 if self.key is None else int(self.owner[self.key]))
            return wrap_int64(total + sum(int(self.owner[k]) * factor for k, factor in self.more))
        found = self.kind(self.owner[self.key])
        return wrap_int64(found + self.add) if self.add else found

    def at(self, live: Any) -> Any:
        """Its value in a call. live: the values of the call's live numbers."""
        return self.plus(*[number.at(live) for number, _ in self.terms]) if self.terms else self.read()

    def plus(self, *values: int) -> int:
        """Its value where its terms have these."""
        return wrap_int64(self.read() + sum(n * factor for n, (_, factor) in zip(values, self.terms)))

    @property
    def ident(self) -> Any:
        """Equal for numbers that are always equal."""
        terms = tuple([(number.ident, factor) for number, factor in self.terms])
        return id(self.owner), self.key, self.kind, self.add, self.more, self.steps, terms

    def outside(self, serial: int) -> tuple[Number, int]:
        """The number as it is when the loop begins, and what each turn adds."""
        step = dict(self.steps).get(serial, 0)
        if not step:
            return self, 0
        rest = tuple(s for s in self.steps if s[0] != serial)
        return Number(self.owner, self.key, self.kind, self.add, self.more, rest, self.terms), step

    def __repr__(self) -> str:
        more = "".join(f"+{factor}*{key}" for key, factor in self.more)
        more += "".join(f"+{factor}*{number}" for number, factor in self.terms)
        turns = "".join(f"+{step}*turn" for _, step in self.steps)
        return f"${self.key}{more}{turns}" + (f"+{self.add}" if self.add else "")

    def _refuse(self, *_: Any) -> Any:
        from ..core.errors import TraceError

        raise TraceError(
            "function", f"the setting {self.key!r} is read at every call and has no one value while tracing",
            "pass it to an op as it is",
        )  # fmt: skip

    __bool__ = __float__ = __int__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __pow__ = _refuse


class Node:
    """One op call.

    where: the user's `file:line`, or the place that it is worked out from when asked for; again: the repetition by
    `checkpoint` that it belongs to, or 0.
    """

    __slots__ = ("again", "attrs", "inputs", "op", "outputs", "where")

    def __init__(
        self, op: Op, inputs: list[Any], attrs: Attrs, types: tuple[TensorType, ...], device: str,
        where: str | Place | None,
    ):  # fmt: skip
        self.op, self.inputs, self.attrs, self.where = op, inputs, attrs, where
        self.again = 0
        self.outputs = [Value(t, device, self, k) for k, t in enumerate(types)]

    @property
    def line(self) -> str:
        """The user's `file:line`."""
        return self.where if isinstance(self.where, str) else line_of(self.where)

    @property
    def named(self) -> dict[str, Any]:
        """Attributes by name."""
        return self.op.attrs_dict(self.attrs)

    def values(self) -> list[Value]:
        """The inputs that are values."""
        return [x for x in self.inputs if x.__class__ is Value]

    def reading(self, swap: Mapping[Value, Any]) -> list[Any]:
        """The inputs with others in the place of some values."""
        return [swap[x] if x.__class__ is Value and x in swap else x for x in self.inputs]

    def __repr__(self) -> str:
        return f"<{self.op.name}>"


class Graph:
    """inputs -> nodes -> outputs, and writes.

    writes: pairs (input, value): after the graph ran, the memory of that input holds the value. strides:
    layout of inputs that are not contiguous (elements). scratch inputs may be overwritten freely.
    fast: rounding may differ from eager mode's (precision="fast"). steady: inputs that are the same from call to
    call, as a rule: state that the function does not write. seen: how results are made of inputs and outputs, where
    they are not the outputs (`layout.Seen`).
    """

    __slots__ = ("fast", "inputs", "name", "nodes", "notes", "outputs", "seen", "steady", "strides", "writes")

    def __init__(self, name: str = "function", fast: bool = False):
        self.name, self.fast = name, fast
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.outputs: list[Value] = []
        self.writes: list[tuple[Value, Value]] = []
        self.strides: dict[Value, Shape] = {}
        self.steady: frozenset[Value] = frozenset()
        self.seen: tuple[Any, ...] | None = None
        #: what passes have to say to a reader
        self.notes: list[str] = []

    def add_input(self, type: TensorType, device: str, strides: Shape | None = None) -> Value:
        value = Value(type, device)
        self.inputs.append(value)
        if strides is not None and strides != contiguous_strides(type.shape):
            self.strides[value] = strides
        return value

    def uses(self) -> dict[Value, list[Node]]:
        """Nodes that read each value (graph outputs and writes not counted)."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for x in node.inputs:
                if x.__class__ is Value:
                    if x in found:
                        found[x].append(node)
                    else:
                        found[x] = [node]
        return found

    def results(self) -> list[Value]:
        """Values the graph must produce: outputs and written values."""
        return [*self.outputs, *(new for _, new in self.writes)]

    def needed(self) -> list[Node]:
        """The nodes that outputs and writes depend on."""
        needed: set[Any] = set(self.results())
        kept: list[Node] = []
        for node in reversed(self.nodes):
            for v in node.outputs:
                if v in needed:
                    kept.append(node)
                    needed.update(node.inputs)
                    break
        kept.reverse()
        return kept

    def copy(self, whole: bool = True) -> Graph:
        """A copy whose lists and nodes may be changed; inputs stay the same objects. whole: dead nodes too."""
        new = Graph(self.name, self.fast)
        new.inputs, new.strides, new.steady = list(self.inputs), dict(self.strides), self.steady
        new.seen = self.seen
        swap: dict[Value, Value] = {}
        for node in self.nodes if whole else self.needed():
            inputs = node.reading(swap)
            outputs = node.outputs
            twin = Node(
                node.op, inputs, node.attrs, tuple([v.type for v in outputs]),
                outputs[0].device if outputs else "cpu", node.where,
            )  # fmt: skip
            twin.again = node.again
            new.nodes.append(twin)
            swap.update(zip(outputs, twin.outputs))
        new.outputs = [swap.get(v, v) for v in self.outputs]
        new.writes = [(target, swap.get(v, v)) for target, v in self.writes]
        return new


def ancestors(values: Iterable[Value]) -> set[Value]:
    """These values and all that they are computed from."""
    found: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            if value.producer is not None:
                stack += [x for x in value.producer.inputs if isinstance(x, Value)]
    return found
