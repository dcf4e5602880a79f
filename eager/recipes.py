"""How one signature of an op runs: functions made to measure, kept in the op by the layouts of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.backend import scalar_bits, scalar_words
from ..core.errors import user_place
from ..core.op import Attrs, Op
from ..core.types import TensorType, check_scalar_range
from ..core.vjp import has_gradient, record_planned
from .tensor import EagerTensor, Layout

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
    """`run` and then the record of the call. steps(node): what does the step back once it is hot."""
    if not op.differentiable or not any(has_gradient(t.dtype) for t in types):
        return run
    if len(types) == 1:

        def one(inputs: Inputs) -> Any:
            out = run(inputs)
            node = record_planned(op, inputs, attrs, (out,), types, user_place(4))
            node.step = steps(node)
            return out

        return one

    def several(inputs: Inputs) -> Any:
        outs = run(inputs)
        node = record_planned(op, inputs, attrs, outs, types, user_place(4))
        node.step = steps(node)
        return outs

    return several


def view(op: Op, attrs: Attrs, lay: Layout, offset: int) -> Run:
    """A view of the first input: layout and byte offset from the input's start."""
    made = (op, attrs)

    def run(inputs: Inputs) -> EagerTensor:
        x = inputs[0]
        storage = x._storage
        out = EagerTensor(lay, storage, x._offset + offset)
        out._base, out._view, out._seen = x, made, storage.tape_version
        return out

    return run


class Call:
    """What running a program needs: who reads which input, what is made, where scratch memory comes from.

    numbers: by input, None for a tensor or an absent input, else the dtype that a number is passed in.
    """

    def __init__(
        self, op: Op, attrs: Attrs, kinds: Sequence[Any], numbers: Sequence[Any],
        layouts: Sequence[tuple[Layout, int]], execute: Any, empty: Any, scratch_bytes: int,
    ):  # fmt: skip
        self.op, self.attrs, self.kinds, self.numbers, self.layouts = op, attrs, kinds, numbers, layouts
        self.execute, self.empty, self.scratch_bytes = execute, empty, scratch_bytes

    def run(self) -> Run:
        """The shortest function for this call."""
        execute, empty = self.execute, self.empty
        plain = execute is not None and not self.scratch_bytes and self.op.values_rule is None
        if plain and len(self.layouts) == 1 and all(isinstance(k, Layout) for k in self.kinds):
            lay, nbytes = self.layouts[0]
            if len(self.kinds) == 1:

                def unary(inputs: Inputs) -> EagerTensor:
                    (x,) = inputs
                    storage = empty(nbytes)
                    execute([x._storage.ptr + x._offset, storage.ptr])
                    return EagerTensor(lay, storage)

                return unary
            if len(self.kinds) == 2:

                def binary(inputs: Inputs) -> EagerTensor:
                    x, y = inputs
                    storage = empty(nbytes)
                    execute([x._storage.ptr + x._offset, y._storage.ptr + y._offset, storage.ptr])
                    return EagerTensor(lay, storage)

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
        execute, empty, scratch_bytes = self.execute, self.empty, self.scratch_bytes
        layouts, dynamic, check = self.layouts, self.dynamic(), self.op.values_rule
        attrs = self.op.attrs_dict(self.attrs)
        single = layouts[0] if len(layouts) == 1 else None

        def run(inputs: Inputs) -> Any:
            if check is not None:
                check(read, *inputs, **attrs)
            values = dynamic(inputs)
            if single is not None:
                storage = empty(single[1])
                values.append(storage.ptr)
                result: Any = EagerTensor(single[0], storage)
            else:
                made = []
                for lay, nbytes in layouts:
                    storage = empty(nbytes)
                    values.append(storage.ptr)
                    made.append(EagerTensor(lay, storage))
                result = tuple(made)
            if execute is not None:
                if scratch_bytes:
                    scratch = empty(scratch_bytes)
                    values.append(scratch.ptr)
                execute(values)
            return result

        return run

    def run_into(self) -> Callable[[Inputs, tuple[EagerTensor, ...], Any], None]:
        """The function that writes over given tensors; `place` is where the user's call stands."""
        execute, empty, scratch_bytes = self.execute, self.empty, self.scratch_bytes
        dynamic, check, attrs = self.dynamic(), self.op.values_rule, self.op.attrs_dict(self.attrs)

        def run(inputs: Inputs, into: tuple[EagerTensor, ...], place: Any) -> None:
            if check is not None:
                check(read, *inputs, **attrs)
            values = dynamic(inputs)
            for t in into:
                storage = t._storage
                values.append(storage.ptr + t._offset)
                storage.version += 1
                storage.changed = place
            if execute is not None:
                if scratch_bytes:
                    scratch = empty(scratch_bytes)
                    values.append(scratch.ptr)
                execute(values)

        return run


def read(x: Any) -> Any:
    """The values of a tensor as a NumPy array."""
    lay = x._layout
    return x._storage.to_host(lay.dtype, lay.shape, lay.strides, x._offset)
