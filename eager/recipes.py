"""How one signature of an op runs: functions made to measure, kept in the op by the layouts of its inputs."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import numpy as np

from ..core import vjp
from ..core.backend import scalar_bits, scalar_words
from ..core.errors import user_place
from ..core.op import Attrs, Op
from ..core.storage import refuse_fixed, refuse_overlap, writes
from ..core.types import TensorType, check_scalar_range
from ..core.vjp import Node, has_gradient
from .tensor import EagerTensor, Layout, fresh

Inputs = tuple[Any, ...]
Run = Callable[[Inputs], Any]
NUMBERS = frozenset((int, float, bool, complex))


class Recipe:
    """run: inputs (prepared) -> a tensor, or a tuple when the op has several outputs; nothing is recorded.

    taped: the same, recorded; called when an input wants a gradient.
    """

    __slots__ = ("run", "taped")

    def __init__(self, run: Run, taped: Run):
        self.run, self.taped = run, taped


def taped(run: Run, op: Op, attrs: Attrs, types: tuple[TensorType, ...], steps: Any) -> Run:
    """`run` and then the record of the call. steps(needs): what does the step back once it is hot."""
    if not op.differentiable or not any(has_gradient(t.dtype) for t in types):
        return run
    plans: dict[int, tuple[Any, ...]] = {}
    number, gets = vjp._sequence, [k for k, t in enumerate(types) if has_gradient(t.dtype)]
    new, single = Node.__new__, len(types) == 1

    def call(inputs: Inputs) -> Any:
        # vjp.record_planned, with all that does not change between calls taken out.
        result = run(inputs)
        edges: list[Any] = []
        needs, bit = 0, 1
        for x in inputs:
            if x is None or x.__class__ in NUMBERS or not x._requires_grad:
                edges.append(None)
            else:
                before = x._node
                edges.append(x if before is None else (before, x._index))
                needs |= bit
            bit += bit
        plan = plans.get(needs)
        if plan is None:
            made = vjp.plan_of(op, len(inputs), needs)
            rest = made._replace(types=()) if made.listed or made.outs else None
            plan = plans[needs] = made.rules, made.tensors, made.types, rest, steps(needs)
        rules, tensors, typed, rest, step = plan
        saved: dict[str, Any] = {}
        node = new(Node)
        node.op, node.attrs, node.edges, node.rules, node.saved = op, attrs, edges, rules, saved
        node.out_types, node.where, node.number = types, user_place(4), next(number)
        node.outs, node.step, node.hooks = (), step, None
        for name, k in tensors:
            x = inputs[k]
            saved[name] = (x, 0) if x is None or x.__class__ in NUMBERS else (x, x._storage.version)
        for name, k in typed:
            x = inputs[k]
            saved[name] = x if x is None or x.__class__ in NUMBERS else x._layout.type
        if rest is not None:
            vjp.keep_rest(node, rest, inputs, (result,) if single else result)
        if single:
            result._node, result._requires_grad = node, True
        else:
            for k in gets:
                y = result[k]
                y._node, y._index, y._requires_grad = node, k, True
        return result

    return call


def view(op: Op, attrs: Attrs, lay: Layout, offset: int) -> Run:
    """A view of the first input: layout and byte offset from the input's start."""
    made = (op, attrs)

    def run(inputs: Inputs) -> EagerTensor:
        x = inputs[0]
        storage = x._storage
        out = fresh(lay, storage, x._offset + offset)
        out._base, out._view, out._seen = x, made, storage.tape_version
        return out

    return run


class Call:
    """What running a program needs: who reads which input, what is made, where scratch memory comes from.

    numbers: by input, None for a tensor or an absent input, else the dtype that a number is passed in. extra: what
    stands behind inputs and outputs, of "scratch" and "report" (kernels tell an index outside; else it is looked for
    before they run).
    """

    def __init__(
        self, op: Op, attrs: Attrs, kinds: Sequence[Any], numbers: Sequence[Any],
        layouts: Sequence[tuple[Layout, int]], execute: Any, maker: Any, scratch_bytes: int, extra: tuple[str, ...],
    ):  # fmt: skip
        self.op, self.attrs, self.kinds, self.numbers = op, attrs, kinds, numbers
        self.execute, self.scratch_bytes = execute, scratch_bytes
        self.layouts = [(lay, maker(nbytes, op.name)) for lay, nbytes in layouts]
        self.scratch, self.extra = maker(scratch_bytes, op.name), extra

    def run(self) -> Run:
        """The shortest function for this call."""
        check = self.op.values_rule
        if check is None:
            return self._unchecked()
        attrs = self.op.attrs_dict(self.attrs)
        if "report" in self.extra:
            return self._reporting(lambda inputs: check(extent, *inputs, **attrs))
        run = self._unchecked()

        def checked(inputs: Inputs) -> Any:
            check(extent, *inputs, **attrs)
            return run(inputs)

        return checked

    def _reporting(self, refuse: Callable[[Inputs], None]) -> Run:
        """Run first: kernels tell an index outside, and only then is it looked for, for the message."""
        execute, make_scratch, word = self.execute, self.scratch, _word
        layouts, dynamic = self.layouts, self.dynamic()
        lay, make = layouts[0]
        first, last = self.extra[0], self.extra[-1]

        def run(inputs: Inputs) -> EagerTensor:
            values = dynamic(inputs)
            storage = make()
            values.append(storage.ptr)
            if first == "scratch":
                scratch = make_scratch()
                values.append(scratch.ptr)
            values.append(word.address)
            if last != first and last == "scratch":
                scratch = make_scratch()
                values.append(scratch.ptr)
            execute(values)
            if word.flag[0]:
                word.flag[0] = 0
                refuse(inputs)
            return fresh(lay, storage)

        return run

    def _unchecked(self) -> Run:
        execute = self.execute
        plain = execute is not None and not self.scratch_bytes
        if plain and len(self.layouts) == 1 and all(isinstance(k, Layout) for k in self.kinds):
            lay, make = self.layouts[0]
            if len(self.kinds) == 1:

                def unary(inputs: Inputs) -> EagerTensor:
                    (x,) = inputs
                    storage = make()
                    execute([x._storage.ptr + x._offset, storage.ptr])
                    return fresh(lay, storage)

                return unary
            if len(self.kinds) == 2:

                def binary(inputs: Inputs) -> EagerTensor:
                    x, y = inputs
                    storage = make()
                    execute([x._storage.ptr + x._offset, y._storage.ptr + y._offset, storage.ptr])
                    return fresh(lay, storage)

                return binary
        return self._general()

    def dynamic(self) -> Callable[[Inputs], list[int]]:
        """A function from the inputs to their dynamic values."""
        steps = [k for k, kind in enumerate(self.kinds) if kind is not type(None)]
        if all(self.numbers[k] is None for k in steps):
            if len(steps) == len(self.kinds):
                return lambda inputs: [x._storage.ptr + x._offset for x in inputs]
            return lambda inputs: [x._storage.ptr + x._offset for x in inputs if x is not None]
        name, numbers = self.op.name, self.numbers
        if any(dtype is not None and dtype.is_complex for dtype in numbers):
            return self._with_complex(steps)
        memory: dict[int, tuple[Any, int]] = {}  # a number in the source is one object: its bits are kept

        def values(inputs: Inputs) -> list[int]:
            found = []
            for k in steps:
                x = inputs[k]
                dtype = numbers[k]
                if dtype is None:
                    found.append(x._storage.ptr + x._offset)
                    continue
                last = memory.get(k)
                if last is not None and last[0] is x:
                    found.append(last[1])
                    continue
                if x.__class__ is int:
                    check_scalar_range(name, x, dtype)
                bits = scalar_bits(x, dtype)
                memory[k] = x, bits
                found.append(bits)
            return found

        return values

    def _with_complex(self, steps: list[int]) -> Callable[[Inputs], list[int]]:
        """The same where a number is passed as real and imaginary part."""
        numbers = self.numbers

        def values(inputs: Inputs) -> list[int]:
            found = []
            for k in steps:
                x, dtype = inputs[k], numbers[k]
                if dtype is None:
                    found.append(x._storage.ptr + x._offset)
                else:
                    found += scalar_words(x, dtype)
            return found

        return values

    def _general(self) -> Run:
        execute, make_scratch, scratch_bytes = self.execute, self.scratch, self.scratch_bytes
        layouts, dynamic = self.layouts, self.dynamic()
        single = layouts[0] if len(layouts) == 1 else None

        def run(inputs: Inputs) -> Any:
            values = dynamic(inputs)
            if single is not None:
                storage = single[1]()
                values.append(storage.ptr)
                result: Any = fresh(single[0], storage)
            else:
                made = []
                for lay, make in layouts:
                    storage = make()
                    values.append(storage.ptr)
                    made.append(fresh(lay, storage))
                result = tuple(made)
            if execute is not None:
                if scratch_bytes:
                    scratch = make_scratch()
                    values.append(scratch.ptr)
                execute(values)
            return result

        return run

    def run_into(self) -> Callable[[Inputs, tuple[EagerTensor, ...], Any], None]:
        """The function that writes over given tensors; `place` is where the user's call stands."""
        execute, make_scratch, scratch_bytes = self.execute, self.scratch, self.scratch_bytes
        dynamic, check, attrs = self.dynamic(), self.op.values_rule, self.op.attrs_dict(self.attrs)

        def run(inputs: Inputs, into: tuple[EagerTensor, ...], place: Any) -> None:
            if check is not None:
                check(extent, *inputs, **attrs)
            for t in into:  # the layouts of what it is a view of are no part of the signature
                if t._storage.fixed:
                    refuse_fixed(t, t._storage)
                base = t._base
                while base is not None:
                    if not base._layout.contiguous:
                        refuse_overlap(base)
                        break
                    base = base._base
            values = dynamic(inputs)
            for t in into:
                values.append(t._storage.ptr + t._offset)
            if execute is not None:
                if scratch_bytes:
                    scratch = make_scratch()
                    values.append(scratch.ptr)
                execute(values)
            for t in into:
                storage = t._storage
                storage.version += 1
                storage.changed = place
            writes.last = object()

        return run


class _Word(threading.local):
    """A number of each thread's own that kernels set to 1; it is 0 between calls."""

    def __init__(self) -> None:
        self.flag = array("q", [0])
        self.address = self.flag.buffer_info()[0]


_word = _Word()


def read(x: Any) -> Any:
    """The values of a tensor as a NumPy array."""
    lay = x._layout
    return x._storage.to_host(lay.dtype, lay.shape, lay.strides, x._offset)


#: up to here Python's own min and max are the fastest
_FEW = 64
#: how the numbers of small layouts are unpacked; None where NumPy reads them
_forms: dict[Layout, Struct | None] = {}


#: the same, read as unsigned: a negative number is larger than any size
_unsigned: dict[Layout, Struct | None] = {}


def _form(x: Any, table: dict[Layout, Struct | None], letter: str) -> Struct | None:
    lay = x._layout
    size = x.size
    table[lay] = form = Struct(f"{size}{letter}") if lay.contiguous and 0 < size <= _FEW else None
    return form


def extent(x: Any) -> tuple[int, int]:
    """The smallest and the largest element of an integer or bool tensor that is not empty."""
    lay = x._layout
    form = _forms[lay] if lay in _forms else _form(x, _forms, lay.dtype.np.char)
    if form is not None:
        row = x._storage.unpack(form, x._offset)
        return (row[0], row[0]) if len(row) == 1 else (min(row), max(row))
    values = read(x)
    return int(np.minimum.reduce(values, axis=None)), int(np.maximum.reduce(values, axis=None))


def _below(x: Any, n: int) -> bool:
    """Whether few elements of an integer tensor are seen at once to be from 0 to n - 1."""
    lay = x._layout
    form = _unsigned[lay] if lay in _unsigned else _form(x, _unsigned, lay.dtype.np.char.upper())
    if form is not None:
        return max(x._storage.unpack(form, x._offset)) < n
    if not lay.contiguous:
        return False
    return int(np.maximum.reduce(read(x).view(f"u{lay.dtype.itemsize}"), axis=None)) < n


extent.below = _below  # type: ignore[attr-defined]
