"""What a backend must offer, and the program that both executors hand to it.

A program is a table of launches. Eager mode makes a program of one op and keeps it by signature; graph mode
makes one of a whole function. Addresses are not part of it: argument slots refer to dynamic values (the
buffers and scalars of one call) that the native runner patches in.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

from .loops import LoopKernel
from .numbers import estimate, most
from .scalar import Expr
from .types import DType, Shape, contiguous_strides


class Slot(NamedTuple):
    """An argument known at call time: dynamic value `source` plus `offset` bytes."""

    source: int
    offset: int = 0


class Operand(NamedTuple):
    """A strided array inside a program: dynamic value `source`, byte `offset`, dtype, shape, strides in elements.

    rounded: a 16-bit float that the elements are cast to as they are read; only kernels that say so (`takes_casts`)
    are given such operands.
    """

    source: int
    offset: int
    dtype: DType
    shape: Shape
    strides: Shape
    rounded: DType | None = None

    @property
    def slot(self) -> Slot:
        return Slot(self.source, self.offset)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        expected = 1
        for n, st in zip(reversed(self.shape), reversed(self.strides)):
            if n != 1:
                if st != expected:
                    return False
                expected *= n
        return True


class Scalar(NamedTuple):
    """A number known at call time (`source` is its dynamic value: the bits of a float64 or an int64).

    A complex number takes two dynamic values, one after the other.
    """

    source: int
    dtype: DType


class Pooling(NamedTuple):
    """A pooling op that reads the result of an epilogue alone, and its attributes."""

    op: str
    named: dict[str, Any]


class Epilogue(NamedTuple):
    """Pointwise work on the result of a matrix product or convolution, fused into its kernel.

    roots: expressions in which `arg` 0 is the op's result element and `arg` k reads inputs[k - 1], an operand
    that broadcasts to the op's output shape or a number. roots[k] is stored to outputs[k]: contiguous, of the
    op's output shape, no input's memory. The plain result is stored only where it is a root; the `outputs`
    given to the kernel beside an epilogue tell shape and dtype and are not written. pooling: what the one root, which
    has the plain result's dtype, goes through before it is stored; only where the backend `takes_pooling`.
    """

    roots: tuple[Expr, ...]
    inputs: tuple[Operand | Scalar, ...]
    outputs: tuple[Operand, ...]
    pooling: Pooling | None = None


class Binding(NamedTuple):
    """How a dynamic value of a nested program is set at each turn of a loop.

    kind FIXED: to `value`; STEP: to `value` + position * `second`; CARRY_IN, CARRY_OUT: to the buffer that the turn
    reads or writes: the first turn reads at `value`, then `second` (the result) and `third` take turns. nbytes:
    of a carry.
    """

    kind: int
    value: Arg
    second: Arg = 0
    third: Arg = 0
    nbytes: int = 0


FIXED, STEP, CARRY_IN, CARRY_OUT = range(4)


class Nested(NamedTuple):
    """A program that a launch of another runs, and how its dynamic values are set."""

    program: Program
    bindings: tuple[Binding, ...]

    @property
    def varying(self) -> frozenset[int]:
        """The dynamic values that change from turn to turn."""
        return frozenset(k for k, b in enumerate(self.bindings) if b.kind != FIXED)


class Table(NamedTuple):
    """An argument that is known when the program is loaded: what its part says of `Launch.nested[number]`.

    part: the address of "rows", "patches" or "args", or how many patches are "changing" from turn to turn.
    """

    number: int
    part: str


Arg = int | Slot | Table


class Launch(NamedTuple):
    """One row of the table. `source` is kernel source text; wave: starts after all launches before it.

    nested: programs that the launch runs itself; such a launch starts a wave and is alone in it. loop: the loop kernel
    that the source was made of, where that uses no scratch rows.
    """

    source: str
    args: tuple[Arg, ...]
    chunks: int
    wave: bool
    nested: tuple[Nested, ...] = ()
    loop: LoopKernel | None = None


_pack_double, _unpack_int64 = struct.Struct("<d").pack, struct.Struct("<q").unpack


def float_bits(value: float) -> int:
    """The bits of a float64 as a signed 64-bit integer."""
    return _unpack_int64(_pack_double(value))[0]  # type: ignore[no-any-return]


def scalar_bits(value: Any, dtype: DType) -> int:
    """A number as it stands in a slot: float64 bits for a float dtype, else the integer itself (two's complement)."""
    if dtype.kind == "float":
        return _unpack_int64(_pack_double(value))[0]  # type: ignore[no-any-return]
    # A float in the slot of a bool is its truth, 0.5 too; integers keep all bits (bounds of a bool result).
    bits = int(bool(value)) if value.__class__ is float and dtype.kind == "bool" else int(value)
    return bits - (1 << 64) if bits >= 1 << 63 else bits


def scalar_words(value: Any, dtype: DType) -> tuple[int, ...]:
    """A number as it stands in its slots: one, or the bits of real and imaginary part for a complex dtype."""
    if not dtype.is_complex:
        return (scalar_bits(value, dtype),)
    value = complex(value)
    return scalar_bits(value.real, dtype.real), scalar_bits(value.imag, dtype.real)


class Program:
    """A table of launches under construction, and finished.

    n_dynamic dynamic values are handed in at each call; value `scratch_source` (when scratch_bytes > 0) is the
    address of a scratch area that needs no initial content and keeps none.
    """

    #: whether other sizes are to have the same kernels where that costs a launch
    for_all_sizes = False

    def __init__(self, backend: Backend, n_dynamic: int = 0):
        self.backend = backend
        self.launches: list[Launch] = []
        self.n_dynamic = n_dynamic
        self.scratch_bytes = 0
        self.scratch_source = -1
        #: whether the caller looks at what kernels report of their inputs, and the dynamic value that says where
        self.reporting, self.report_source = False, -1
        #: kernels that the same operations call at other sizes alone, and are compiled with the rest
        self.spare: list[str] = []
        self._wave = True

    def dynamic(self) -> int:
        """A new dynamic value's number."""
        self.n_dynamic += 1
        return self.n_dynamic - 1

    def scratch(self, nbytes: int, align: int = 64) -> Slot:
        """A temporary area for the launches of this op, aligned to `align` bytes."""
        if self.scratch_source < 0:
            self.scratch_source = self.dynamic()
        start = -(-self.scratch_bytes // align) * align
        self.scratch_bytes = start + max(most(nbytes), 1)
        return Slot(self.scratch_source, start)

    def scratch_operand(self, dtype: DType, shape: Shape) -> Operand:
        """A contiguous temporary array."""
        slot = self.scratch(math.prod(shape) * dtype.itemsize)
        return Operand(slot.source, slot.offset, dtype, shape, contiguous_strides(shape))

    def report(self) -> Arg:
        """Where a kernel stores 1 when it has left out an index outside; 0 when nobody looks."""
        if not self.reporting:
            return 0
        if self.report_source < 0:
            self.report_source = self.dynamic()
        return Slot(self.report_source)

    def steady(self, *operands: Operand) -> bool:
        """Whether what is made of these operands inside `prepared` is kept while they stay the same."""
        return False

    @contextmanager
    def prepared(self, *operands: Operand) -> Iterator[None]:
        """Inside, launches read these operands alone and write to scratch areas made inside alone.

        Packing of weights is such work. Where the operands are steady it is done once, and again when they have
        changed; what is launched after it reads the areas as always. Call `wave()` after it, as without it.
        """
        yield

    def wave(self) -> None:
        """The next launch waits for all before it. Launches since the last call must be independent."""
        self._wave = True

    def launch(
        self,
        source: str,
        args: Sequence[Arg],
        chunks: int = 1,
        nested: tuple[Nested, ...] = (),
        loop: LoopKernel | None = None,
    ) -> None:
        """Append a kernel call. Call `wave()` before it when it reads what an earlier launch wrote."""
        for x in args:
            if x.__class__ is int and not -(2**63) <= x < 2**63:  # type: ignore[operator]
                raise OverflowError(f"{x} is more than a kernel can be told")
        self.launches.append(Launch(source, tuple(args), max(1, chunks), self._wave, nested, loop))
        self._wave = False

    def provide(self, source: str) -> None:
        """Say that another size would call this kernel, so that it compiles nothing."""
        if self.for_all_sizes:
            self.spare.append(source)

    def loop(self, kernel: LoopKernel, args: Sequence[Arg], chunks: int, row_length: int) -> None:
        """Append a loop kernel; `args` are its slots without the scratch rows, which are added here."""
        source, rows = self.backend.emit_loop(kernel)
        args = [*args, *self.backend.loop_slots(kernel, args)]
        if rows:
            pitch = -(-max(row_length, 1) // 8) * 8
            args = [*args, self.scratch(chunks * rows * pitch * 8), pitch]
        self.launch(source, args, chunks, loop=None if rows else kernel)

    def chunks(self, items: int, work: float) -> int:
        """How many chunks for `items` independent pieces with `work` bytes or operations in all."""
        items, work = estimate(items), estimate(work)
        threads = self.backend.num_threads()
        if threads == 1 or work < self.backend.serial_work:
            return 1
        count = min(items, threads * 4, int(work // (self.backend.serial_work / 4)))
        # As many for each: for the fifth of five equal pieces one of two threads waits.
        return count - count % threads if count > threads else max(1, count)


class Executable(Protocol):
    """A loaded program: `run(dynamic)` takes its dynamic values (addresses, scalar bits) in order."""

    def run(self, dynamic: Sequence[int]) -> None: ...


Kernel = Callable[..., None]


def takes_halves(kernel: Kernel) -> Kernel:
    """Mark a hand-written kernel that loads and stores 16-bit floats itself (others get float32)."""
    kernel.takes_halves = True  # type: ignore[attr-defined]
    return kernel


def takes_casts(kernel: Kernel) -> Kernel:
    """Mark a hand-written kernel that takes halves, and rounds float32 to them as it reads (`Operand.rounded`)."""
    kernel.takes_casts = True  # type: ignore[attr-defined]
    return takes_halves(kernel)


def leaves_out(kernel: Kernel) -> Kernel:
    """Mark a hand-written kernel that takes None in place of outputs that nobody reads, from its third on."""
    kernel.leaves_out = True  # type: ignore[attr-defined]
    return kernel


class Backend(Protocol):
    """A device family. There is one object per device."""

    name: str
    #: below this many bytes or operations a launch is not worth splitting over threads
    serial_work: float
    #: whether loop kernels may be `listed`
    lists: bool
    #: whether what depends on state alone is computed once and kept (its storages tell `is_shared`)
    prepares: bool

    def num_threads(self) -> int: ...

    def emit_loop(self, kernel: LoopKernel) -> tuple[str, int]:
        """Source text and the number of scratch rows (inner-axis length, 8 bytes an element) it wants per chunk."""
        ...

    def loop_slots(self, kernel: LoopKernel, args: Sequence[Arg]) -> Sequence[int]:
        """Slots of this backend's own after the `args` of a loop kernel and before its scratch rows."""
        ...

    def primitive(self, op: str) -> Kernel | None:
        """The hand-written kernel of a primitive: `fn(program, inputs, outputs, **attrs)` appends launches.

        inputs and outputs are Operands (None for an absent optional input); outputs are contiguous and may
        not alias inputs.
        """
        ...

    # loop(program, body, test, pred, length, reverse) and branch(program, pred, branches) append control flow, on
    # backends that have it: see backends/cpu/control.py.

    def load(self, program: Program) -> Executable:
        """Compile what is missing and make the program runnable."""
        ...

    def compile(self, programs: Sequence[Program]) -> None:
        """Compile the kernels of these programs that are missing, side by side."""
        ...

    def empty(self, nbytes: int) -> Any:
        """An uninitialised storage of at least `nbytes`."""
        ...

    def maker(self, nbytes: int, op: str = "memory") -> Callable[[], Any]:
        """A function that makes storages as `empty(nbytes)` does: what does not change between calls is done.

        op: what an error names, when there is no room.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Facts about the device for people."""
        ...

    def background(self) -> AbstractContextManager[None]:
        """Inside, this thread loads programs with as little of the process's own time as it can."""
        ...

    def kernel_stats(self) -> dict[str, float]:
        """Counters of kernels: compiled, loaded, hits, compile_seconds."""
        ...


_factories: dict[str, Callable[[int], Backend]] = {}
_kernels: dict[str, Callable[[], dict[str, Kernel]]] = {}
_backends: dict[str, Backend] = {}


def register_backend(
    kind: str, factory: Callable[[int], Backend], kernels: Callable[[], dict[str, Kernel]] | None = None
) -> None:
    """Make devices of `kind` ("cpu", "cuda") known; `factory(index)` makes one or raises DeviceError.

    kernels: the hand-written kernels by op, which need no such device.
    """
    _factories[kind] = factory
    if kernels is not None:
        _kernels[kind] = kernels


def written_kernel(kind: str, op: str) -> Kernel | None:
    """The hand-written kernel of an op for devices of a kind, whether there is one here or not."""
    return _kernels[kind]().get(op) if kind in _kernels else None


def backend_kinds() -> list[str]:
    return list(_factories)


def get_backend(device: str) -> Backend:
    """The backend of a normalised device name, made at first use."""
    found = _backends.get(device)
    if found is None:
        kind, _, index = device.partition(":")
        found = _backends[device] = _factories[kind](int(index or 0))
    return found


def available_devices() -> list[str]:
    """The canonical names of all devices that can be used here."""
    from .errors import DeviceError, MissingExtraError

    found = []
    for kind in _factories:
        for index in range(64 if kind != "cpu" else 1):
            name = kind if kind == "cpu" else f"{kind}:{index}"
            try:
                get_backend(name)
            except (DeviceError, MissingExtraError):
                break
            found.append(name)
    return found


def normalize_device(device: str) -> str:
    """The canonical name of a device: "cpu", "cuda:0". Raises DeviceError for one that does not exist here."""
    from .errors import DeviceError

    kind, colon, index = str(device).partition(":")
    if kind not in _factories or (colon and not index.isdigit()):
        known = ", ".join(f'"{k}"' for k in _factories)
        raise DeviceError("device", f"{device!r} is not a device", f'use one of {known} or "cuda:1"')
    if kind == "cpu":
        return "cpu"
    name = f"{kind}:{int(index or 0)}"
    get_backend(name)
    return name
