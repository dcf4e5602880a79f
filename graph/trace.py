"""Tracing: the executor that records ops, and collects what a function writes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from ..core import dispatch, vjp
from ..core.backend import normalize_device
from ..core.errors import (
    ArgumentTypeError,
    DeviceError,
    OutOfMemoryError,
    Place,
    ShapeError,
    TraceError,
    user_call,
    user_line,
    user_place,
)
from ..core.numbers import whole
from ..core.op import REGISTRY, Attrs, Op
from ..core.storage import refuse_fixed, refuse_other_type, refuse_overlap
from ..core.strangers import no_tensor, numpy_number, refuse_nothing
from ..core.types import TensorType
from ..core.value import Tensor
from .checks import Extent, SizedCheck, at_place, knows_sizes
from .extents import is_within
from .ir import Graph, Node, Number, Value
from .ledger import Leave
from .lies import adds_up_as_it_lies, as_in_memory
from .live import Live, RestartError, settled, values_of
from .live_uses import bound, same_size, tensor_of
from .opened import opened
from .outer import refuse_outer
from .rest import resting
from .settings import Settings
from .sources import Source, Sources
from .spoken import Record, Text
from .symbol import Symbol

_NUMBERS = (int, float, bool, complex)
#: as many bytes as a process of 64 bits may have addresses for: no memory holds more
_ADDRESSES = 1 << 47
_SMALLER = "use a smaller batch, or free tensors"
_DEFAULTS = {float: np.float32, complex: np.complex64}


def _goes_on(t: Any) -> bool:
    """Whether a tensor has a gradient that has a history."""
    return t is not None and t._grad is not None and t._grad._requires_grad


class Trace(Sources, Settings):
    """One tracing of a function: an executor behind the door, and what it has recorded.

    host: makes and reads eager tensors (the eager executor); breaker: called to read a value while tracing.
    checks: whether values are looked at, as `Op.values` rules ask for.
    """

    watches = True
    certain = True  # whether what is traced runs at every call
    splits = False  # whether ops that have parts are recorded as these

    def __init__(self, name: str, host: Any, breaker: Any = None, fast: bool = False):
        Sources.__init__(self, Graph(name, fast))
        Settings.__init__(self)
        self.host, self.breaker = host, breaker
        self.answer: Any = None  # called to read a number while tracing
        self.counts: dict[Value, Any] = {}  # how many elements of these are not 0
        self.grad_reads: list[tuple[Any, bool]] = []
        #: id of a symbol's storage -> it, the gradient, whose
        self.grad_inputs: dict[int, tuple[Symbol, Any, Any]] = {}
        self.grads: dict[int, tuple[Any, Any]] = {}
        self.written: dict[int, Symbol] = {}
        #: asked of each check: looks at the value at once where the function may catch the error, else says False
        self.attempt: Any = None
        #: what a gradient of the user's own looks at, while a way back is traced
        self.needed: list[tuple[Any, Symbol]] | None = None
        #: values to look at after the call, and who refuses them; None: nothing to look at, something to say
        self.checks: list[tuple[Symbol | None, Any]] = []
        self.said = 0  # how often the function has printed, or given a logger a record
        self.done = False
        #: how many modes were set by `dg.mode` when it began; None where functions in eager mode are part of it
        self.overrides: int | None = None
        #: why no graph can hold the function, what to do, and the line
        self.left: tuple[str, str, str] | None = None
        self.cause: Any = None
        #: of which calls that is so, by their tensors and containers; None: of all of a kind
        self.only: Any = None
        #: a function that runs at once because Python keeps its results (`aside.Aside`)
        self.aside: Any = None
        self.asides: list[Any] = []  # those that are to be taken back
        self.lasting: TraceError | None = None  # what cannot be, and no graph can hold
        self.apart: list[Any] = []  # tensors from outside that no argument was, where that was looked at
        self.called: Sequence[Any] = ()  # the tensors of the call, while it is traced
        #: how many later calls may try again in vain, because they may find what this one made
        self.chances = 0
        self.leaves: dict[int, Any] = {}  # tensors from outside whose being a leaf, and whose hooks, matter
        self.hooked: list[Symbol] = []  # leaves that the function made and that have hooks
        #: leaves from outside on which it registers hooks, their symbols, and which they are, where, in words
        self.hooks_on: dict[int, tuple[Any, Symbol, str]] = {}
        self.modes: dict[int, tuple[Any, str]] = {}  # functions that it called, and their modes
        self.tracer: Any = None  # watches the user's code; rests inside ops
        self.place: Place | None = None  # the user's, while ops of ours alone run below it
        self.now: Any = None  # what its live numbers are (`live.Now`)

    def call_out(self, name: str, cause: Any = None) -> None:
        """A function in eager mode is called. Does not return. cause: the function, when it is its own mode."""
        self.cause = cause
        self.leave(
            f"calls {name}, which is in eager mode, so no graph holds the call",
            "call it outside, or set its mode to graph",
        )

    def leave(self, why: str, fix: str) -> NoReturn:
        """No graph can hold what the function does here: its Python runs at every call. Does not return."""
        if self.overrides is None:
            raise TraceError(self.graph.name, why, fix)
        self.left = why, fix, user_line(2)
        raise Leave

    def runs_aside(self, cached: Any, ledger: Any) -> Any:
        """A function is about to run whose results Python keeps."""
        from .aside import Aside

        return Aside(self, cached, ledger)

    def take_back(self) -> None:
        """Take back what such functions did."""
        with dispatch.executing(self.host):
            while self.asides:
                self.asides.pop().undo()

    @property
    def outermost(self) -> Trace:
        """The trace that bodies of control ops are traced in, or itself."""
        return self

    # -- the door's side -------------------------------------------------------------------

    def face(self, x: Any) -> Symbol:
        if x.__class__ is not Symbol:
            x = self.lift(x)
        if x._trace() is not self or self.done:
            x._leaked("tensor")
        storage, base = x._storage, x._base
        if base is None:
            if x._fresh != storage.version:
                x._fresh, x._value = storage.version, storage.value or x._value
            return x
        renewed = x._seen != storage.tape_version and not x._detached
        if renewed or x._fresh != storage.version:
            op, attrs = x._view
            with dispatch.set_grad(renewed):
                again = dispatch.apply(op, (base,), attrs)
            x._fresh, x._value = storage.version, again._value
            if renewed:
                x._seen = storage.tape_version
                vjp.renew(x, again)
        return x

    @resting
    def call(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
        if op.kind == "primitive":
            attrs = self._settled(attrs)
        return dispatch.call(self, op, inputs, attrs)

    @resting
    def call_raw(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs, attrs = op.bind(args, kwargs)
        return self.call(op, inputs, attrs)

    @resting
    def update(self, op: Op, targets: tuple[Any, ...], inputs: tuple[Any, ...], attrs: Attrs) -> None:
        self.run(op, self.prepare(op, inputs), attrs, into=tuple([self.face(t) for t in targets]))

    def prepare(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        out: list[Any] = []
        found = False  # a tensor
        for x in inputs:
            kind = type(x)
            if kind is Symbol or isinstance(x, Tensor):
                x, found = self.face(x), True
            elif x is None or kind in dispatch.NUMBERS:
                pass
            elif isinstance(x, np.generic):
                x = numpy_number(op, x)
            elif isinstance(x, np.ndarray):
                x = self.constant(x, "cpu")
            elif isinstance(x, (int, float)) and x.__class__ not in dispatch.NUMBERS:
                x = dispatch.plain_number(x)
            elif not isinstance(x, (*_NUMBERS, Number)):
                raise no_tensor(op, x)
            out.append(x)
        if not found and op.input_names and not op.creates and Symbol not in map(type, out):
            refuse_nothing(op, out)
            out = [self._holding(x) if isinstance(x, _NUMBERS) else x for x in out]
        return tuple(out)

    def _holding(self, x: Any) -> Any:
        """A tensor that holds a number."""
        live = type(x) is Live
        array = np.asarray(1 if live else x, _DEFAULTS.get(x.__class__))
        if array.dtype == object:
            raise ArgumentTypeError(
                "tensor", f"{type(x).__name__} is not made of numbers", "pass numbers or arrays"
            )
        one = self.constant(array, "cpu")
        if not live:
            return one
        with dispatch.set_grad(False):
            return dispatch.apply(REGISTRY["multiply"], (one, x), REGISTRY["multiply"].defaults)

    @resting
    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[Any, ...] | None = None
    ) -> tuple[Symbol, ...]:
        types = [
            x._value.type if type(x) is Symbol else x.kind(0) if isinstance(x, Number) else x for x in inputs
        ]
        if Live in map(type, attrs):
            op, inputs, types, attrs = opened(op, inputs, types, attrs)
        attrs = self._settled(attrs)
        out_types = self._infer(op, types, attrs)
        devices = {x._value.device for x in inputs if type(x) is Symbol}
        if len(devices) > 1:
            raise DeviceError(
                op.name, f"tensors on {' and '.join(sorted(devices))}", "move them with x.to(device)"
            )
        named = None if devices else op.attrs_dict(attrs).get("device")
        device = devices.pop() if devices else normalize_device("cpu" if named is None else named)
        if op.values_rule is not None and self.watches and self.breaker is not None:
            op.values_rule(Extent(self), *map(settled, inputs), **op.attrs_dict(attrs))
        made = None
        if op.is_view:
            x = inputs[0]
            made = op.view_rule(x.shape, x.strides, **op.attrs_dict(attrs)) if op.view_rule else None
        if made is None and self.needed is None and (self.now is None or not self.now.sized):
            for t in out_types:
                if t.nbytes >= _ADDRESSES:  # also where no result needs it, or a fusion never holds it
                    raise OutOfMemoryError(
                        op.name, f"{device} has no room for {t.nbytes:,} bytes more", _SMALLER
                    )
        node = self._append(op, inputs, attrs, out_types, device)
        if into is not None:
            for target, t, value in zip(into, out_types, node.outputs, strict=True):
                refuse_other_type(op.name, t, target.type)
                self._refuse_overlap(target)
                self._set(target, value)
            return into
        if op.is_view:
            if made is not None:  # else a copy, as in eager mode
                view = Symbol(node.outputs[0], self, x._storage, made[1])
                view._base, view._view, view._seen = x, (op, attrs), x._storage.tape_version
                return (view,)
            self.copied.update(node.outputs)
        return tuple(Symbol(v, self) for v in node.outputs)

    def _settled(self, attrs: Attrs) -> Attrs:
        """Attributes with numbers for live ones, but for sizes."""
        return attrs if self.now is not None and self.now.sized else settled(attrs)

    def _infer(self, op: Op, inputs: list[Any], attrs: Attrs) -> tuple[TensorType, ...]:
        """Types of the results. What a rule reads of live numbers, and that they fit their dtypes, is guarded."""
        if Live not in map(type, inputs):
            return op.infer(inputs, attrs)
        live = [x for x in inputs if type(x) is Live]
        made = op.infer(values_of(inputs), attrs)
        if op.kind != "pointwise" or op.type_rule is not None:
            for t, m in zip(op.infer(inputs, attrs), made):
                settled(tuple([n for n, k in zip(t.shape, m.shape) if not same_size(n, k)]))
        dtypes = [t.dtype for t in (*inputs, *made) if isinstance(t, TensorType)]
        for x in live:
            bound(x, dtypes)
        return made

    def _append(self, op: Op, inputs: Any, attrs: Attrs, types: tuple[TensorType, ...], device: str) -> Node:
        known, values = self._known, list(inputs)
        laid = adds_up_as_it_lies(op, inputs)
        for k, x in enumerate(inputs):
            if type(x) is Symbol:
                value = x._value
                values[k] = value if value in known else self._use(value)
                if laid:
                    values[k] = as_in_memory(self, x, values[k], self._append)
            elif type(x) is Live:
                values[k] = x._formula()
        node = Node(op, values, attrs, types, device, self.place or user_call(3))
        node.again = dispatch.state.again
        self.graph.nodes.append(node)
        known.update(node.outputs)
        for v in node.outputs:
            self._serial[v] = len(self._serial)
        return node

    # -- control flow ------------------------------------------------------------------------

    def record(
        self, op: Op, inputs: list[Symbol], attrs: Attrs, types: tuple[TensorType, ...]
    ) -> tuple[Symbol, ...]:
        """Add a node with regions."""
        device = next((x.device for x in inputs), "cpu")
        return tuple(Symbol(v, self) for v in self._append(op, inputs, attrs, types, device).outputs)

    def branch(self, c: Any) -> tuple[Symbol, ...]:
        from .regions import branch

        return branch(self, c)

    def repeat(self, c: Any) -> tuple[Symbol, ...]:
        from .regions import repeat

        return repeat(self, c)

    def scan(self, c: Any) -> tuple[Symbol, ...]:
        from .regions import scan

        return scan(self, c)

    # -- writes ----------------------------------------------------------------------------

    def _set(self, target: Symbol, value: Value) -> None:
        """Give a symbol's memory a new value, through its base when it is a view."""
        target._bump()
        target._value = value
        target._fresh = target._storage.version
        base = target._base
        if base is None:
            target._storage.value = value
            self._write(target)
            return
        op, attrs = target._view
        if op.view_update_rule is None:
            self.leave(
                f"changes an alias of {base.type}, whose elements share memory",
                "clone() it",
            )
        with dispatch.set_grad(False):
            new = op.view_update_rule(self.face(base), Symbol(value, self), **op.attrs_dict(attrs))
        self._set(base, new._value)
        target._fresh = target._storage.version

    def _write(self, target: Symbol) -> None:
        key = id(target._storage)
        first = key not in self.written
        self.written[key] = target
        if first and key in self.founds:
            self._refuse_shared(key)

    def _share(self, tensor: Any, symbol: Symbol) -> None:
        super()._share(tensor, symbol)
        for _, other in self.sharing[id(tensor._storage)][:-1]:
            if id(other._storage) in self.written:
                self._refuse_shared(id(other._storage))

    def _refuse_shared(self, key: int) -> None:
        """Leave a written tensor that shares memory with another one from outside to Python, before the function sees
        what the graph would miss: the values of the other, and whether it asks for a gradient."""
        tensor = self.founds[key]
        for other, symbol in self.sharing[id(tensor._storage)]:
            if id(symbol._storage) == key:
                continue
            if other is not tensor and self._is_given(tensor) and self._is_given(other):
                self.only = lambda tensors, _: _overlap(tensors)
            self.leave(
                f"changes {tensor.type} in place, which shares memory with another input {other.type}",
                "pass only the base and take views inside the function",
            )

    def _is_given(self, tensor: Any) -> bool:
        found = self.lifted.get(id(tensor))
        return found is not None and self.is_argument(found[1])

    def write(self, target: Any, value: Any) -> Any:
        target, value = self.face(target), self.face(value)
        track = dispatch.state.grad and (target._requires_grad or value._requires_grad)
        if track:
            vjp.refuse_leaf(target)
        if value.type != target.type:
            raise ShapeError(
                "in-place",
                f"{value.type} does not fit in place into {target.type}",
                "convert or reshape the value",
            )
        outer = self._refuse_overlap(target)
        if track:
            vjp.refuse_view(target)
            if outer is not None:
                vjp.refuse_view(outer)
        self._set(target, value._value)
        if track:
            self._rebase(target, value)
        return target

    def _refuse_overlap(self, target: Symbol) -> Any:
        """Refuse a target whose elements share memory, or those of what it is a view of, inside and outside. Returns
        the tensor from outside that it is, or is a view of; None for what the function makes."""
        refuse_overlap(target)
        first = target
        while target._base is not None and not target._detached:
            target = target._base
        outer = self.original(target)
        if outer is not None:
            refuse_overlap(outer)
            refuse_fixed(first, outer._storage)
        return outer

    def _rebase(self, target: Symbol, value: Symbol) -> None:
        """As in eager mode."""
        base = target._base
        whole = base is None or target._detached
        if whole:
            if target._requires_grad and not value._requires_grad:
                value = self.face(REGISTRY["overwrite"](target, value))
        else:
            op, attrs = target._view
            new = op.view_update_rule(self.face(base), value, **op.attrs_dict(attrs))
        target._node, target._index, target._requires_grad = value._node, value._index, value._requires_grad
        if whole:
            target._storage.tape_version += 1
        else:
            self._rebase(base, new)

    # -- gradients, values, numbers -----------------------------------------------------------

    def get_grad(self, x: Any) -> Any:
        face = self.face(x)
        tensor = self.original(face)
        if tensor is None:
            return face._grad
        entry = self.grads.get(id(face._storage))
        if entry is not None:
            self._refuse_history(face, entry[1])
            return entry[1]
        before = tensor._grad
        self.grad_reads.append((tensor, before is None))
        found = None
        if before is not None:
            source = self._origin[self.inputs[id(face)]]
            place, owner = (source.key, None) if source.kind == "arg" else (None, tensor)
            found = self._input(Source("grad", place, owner, None), before)
            self.grad_inputs[id(found._storage)] = found, before, tensor
        self.grads[id(face._storage)] = (tensor, found)
        self._refuse_history(face, found)
        return found

    def _refuse_history(self, face: Symbol, grad: Any) -> None:
        """Leave to Python what goes on from the gradient of a tensor outside that has a history itself."""
        if not dispatch.state.grad or grad is None or id(grad._storage) not in self.grad_inputs:
            return
        _, before, tensor = self.grad_inputs[id(grad._storage)]
        if before._requires_grad:
            source = self._origin[self.inputs[id(face)]]
            arg, owner = source.key if source.kind == "arg" else None, weakref.ref(tensor)
            self.only = lambda tensors, _: _goes_on(owner() if arg is None else tensors[arg])
            self.leave(
                f"reads the gradient of {tensor.type}, which has a gradient itself",
                "pass x.grad as an argument, or read x.grad.detach()",
            )

    def set_grad(self, x: Any, value: Any) -> None:
        face = self.face(x)
        tensor = self.original(face)
        if tensor is None:
            face._grad = value
        elif tensor._node is not None:
            self.leave(
                f"takes a gradient that goes on to what made {tensor.type} outside of it",
                "call backward() outside, or pass x.detach().requires_grad_()",
            )
        else:
            self.leaves[id(tensor)] = tensor
            self.grads[id(face._storage)] = (tensor, None if value is None else self.face(value))

    def aim(self, roots: Sequence[Any], targets: Sequence[Any]) -> None:
        refuse_outer(self, roots, targets)

    def constant(self, array: np.ndarray, device: str) -> Symbol:
        """Not the input itself but what is made of it: what the function does with it begins anew at each call."""
        tensor = self.host.constant(array, device)
        return Symbol(self._input(Source("tensor", "constant", tensor, None), tensor)._value, self)

    def of_numbers(self, data: Any, dtype: Any, device: str) -> Any:
        """A tensor of numbers among which are live ones; None for other data."""
        return None if self.now is None else tensor_of(data, dtype, device)

    def read(self, x: Any) -> Any:
        face = self.face(x)
        if self.breaker is None:
            raise TraceError(
                "function", f"the value of {face.type} was read while its gradient graph was traced",
                "do not branch on values inside a gradient rule or hook",
            )  # fmt: skip
        return self.breaker(self, face)

    def number_of(self, x: Any) -> Any:
        """The value of a tensor of one element as a Python number; perhaps a live one."""
        if self.breaker is None or self.answer is None:
            return self.read(x).item()
        return self.answer(self, self.face(x))

    @staticmethod
    def comes_apart(op: Op, inputs: tuple[Any, ...]) -> bool:
        """Whether an exporter must say this call in other ops."""
        if not op.parts or not op.onnx:
            return bool(op.parts)
        return any(x.dtype.is_complex for x in inputs if isinstance(x, Symbol))

    def in_parts(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> tuple[Any, ...]:
        """A call of an op as calls of other ops, by the function that says it in them."""
        from ..core.ops import column_steps

        with dispatch.set_grad(False):
            made = getattr(column_steps, op.parts)(*inputs, **op.attrs_dict(attrs))
        return tuple(map(self.face, made)) if isinstance(made, tuple) else (self.face(made),)

    def counted(self, x: Any, count: Callable[[], Any]) -> Any:
        """How many elements of x are not 0: a number, which is read once. count: a tensor of it."""
        value = self.face(x)._value
        if value not in self.counts:
            self.counts[value] = whole(count().item())
        return self.counts[value]

    def constant_of(self, x: Symbol) -> Any:
        """The array that a symbol is, where it is a constant of the function."""
        source = self._origin.get(x._value)
        return source.tensor._array() if source is not None and source.key == "constant" else None

    def within(self, x: Any, low: float, high: float) -> bool:
        """Whether it is known that x's elements are from low to high, or NaN."""
        return is_within(self.face(x)._value, low, high, self.graph.fast)

    def check(self, x: Any, refuse: Any) -> None:
        if self.breaker is not None:  # the backward graph is not watched: its matrices have been forward
            sized = self.now is not None and self.now.sized and knows_sizes(refuse)
            if sized and getattr(refuse, "prints", False):
                raise RestartError
            face, refuse = self.face(x), at_place(user_place(2), refuse)
            refuse = SizedCheck(refuse) if sized else refuse
            if refuse.prints or self.attempt is None or not self.attempt(self, face, refuse):
                self.checks.append((face, refuse))

    def say(self, what: Any) -> None:
        """The function prints a text (None: flushes), or gives a logger a record."""
        self.said += 1
        if isinstance(what, tuple):
            self.checks.append((None, Record(*what)))
            return
        if not self.checks or not isinstance(self.checks[-1][1], Text):
            self.checks.append((None, Text()))
        self.checks[-1][1].pieces.append(what)

    def take_said(self) -> list[Any]:
        """What the function has said since the last segment, which is forgotten."""
        said = [say for x, say in self.checks if x is None]
        self.checks = [row for row in self.checks if row[0] is not None]
        return said

    def take_checks(self) -> list[tuple[Value | None, Any]]:
        """The checks since the last call, with the values in the current graph that they look at."""
        taken, self.checks = self.checks, []
        return [(None if x is None else self._use(self.face(x)._value), refuse) for x, refuse in taken]

    attach = staticmethod(vjp.attach)

    def needs(self, need: Any, x: Symbol) -> None:
        """A gradient of the user's own looks at what it kept: see `core/saved.py`."""
        if self.needed is not None:
            self.needed.append((need, x))


def effects(trace: Trace) -> tuple[list[tuple[Any, Symbol]], list[tuple[Any, Any]]]:
    """What a finished trace changes outside: (tensor, new value) writes and (tensor, gradient or None)."""
    writes = [(trace.roots[key], symbol) for key, symbol in trace.written.items() if key in trace.roots]
    return writes, list(trace.grads.values())


def _overlap(tensors: Sequence[Any]) -> bool:
    """Whether some of these share memory without being one."""
    return len({id(t) for t in tensors}) > len({id(t._storage) for t in tensors})
