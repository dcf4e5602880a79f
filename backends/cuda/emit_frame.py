"""The frame of every generated CUDA kernel: its slots by name, its streams, its text.

Names in the source: n0 n1 ... sizes of the loop axes; j0 j1 ... indices along them; a0 a1 ... the inputs,
s0_1 the stride of input 0 along axis 1, at0 the position (in elements) where the row of input 0 starts; o0,
p0_1, to0 the same for outputs; x0 the value of input 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ...core import types as T
from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from . import launch
from .emit_expression import Body


class Stream:
    """What moves along the loop axes: an input buffer, the index, or an output."""

    def __init__(self, position: str, address: str, strides: list[str], inner: str, dtype: T.DType):
        self.position, self.address, self.strides = position, address, strides
        self.inner, self.dtype = inner, dtype

    def terms(self, axes: Iterable[int], index: dict[int, str]) -> list[str]:
        """The parts of the element number that come from these axes; the innermost one has a known class."""
        out = []
        for axis in axes:
            if axis != len(self.strides) - 1 or self.inner in ("s", "r"):
                out.append(f"{index[axis]} * {self.strides[axis]}")
            elif self.inner == "c":
                out.append(index[axis])
        return out


class Frame:
    """Writes one kernel's source: `line`, `block` and the parts that all forms share."""

    def __init__(self, kernel: LoopKernel):
        self.kernel = kernel
        self.lines: list[str] = []
        self.depth = 1
        self.threads = launch.THREADS
        self.items = 1
        self.inputs: dict[int, Stream] = {}
        self.outputs: list[Stream] = []
        self.scalars: dict[int, str] = {}
        self.index = {a: f"j{a}" for a in range(kernel.n_axes)}
        self.order = walk(kernel.roots)
        used = {node.value for node in self.order if node.op == "arg"}
        #: name -> (type, text that reads it)
        self._slots: dict[str, tuple[str, str]] = {}
        self._count = 0
        for axis in range(kernel.n_axes):
            self._slot(f"n{axis}")
        if kernel.split:
            self._slot("length")
        for k, spec in enumerate(kernel.inputs):
            if spec.kind == "scalar":
                self.scalars[k] = self._slot(f"a{k}", "bits")
                continue
            address = self._slot(f"a{k}", _pointer(spec.dtype, True)) if spec.kind == "buffer" else ""
            strides = [self._slot(f"s{k}_{a}") for a in range(kernel.n_axes)]
            if k in used:
                self.inputs[k] = Stream(f"at{k}", address, strides, spec.inner, spec.dtype)
        for k, out in enumerate(kernel.outputs):
            address = self._slot(f"o{k}", _pointer(out.dtype, False))
            strides = [self._slot(f"p{k}_{a}") for a in range(kernel.n_axes)]
            self.outputs.append(Stream(f"to{k}", address, strides, out.inner, out.dtype))

    def _slot(self, name: str, kind: str = "i64") -> str:
        text = f"args.at[{self._count}]"
        self._count += 1
        if kind != "bits":
            self._slots[name] = kind, text if kind == "i64" else f"({kind}){text}"
            return name
        return text

    # ---- text

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def extend(self, body: Body) -> None:
        """Move the lines of a body here."""
        for text in body.lines:
            self.line(text)
        body.lines.clear()

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head + " {")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    def source(self) -> str:
        """The finished text. Slots that the lines do not mention are not read."""
        text = "\n".join(self.lines)
        words = set(re.findall(r"[A-Za-z_]\w*", text))
        headers = ["loop.cuh"]
        headers += ["reduce.cuh"] if self.kernel.form != "map" else []
        headers += ["philox.cuh"] if "dg_philox" in words else []
        slots = [(n, kind, slot) for n, (kind, slot) in self._slots.items() if n in words]
        return "\n".join(
            [
                launch.head(self.kernel, self.items),
                *(f"// {' '.join(note.split())}" for note in self.kernel.notes),
                *(f'#include "{name}"' for name in headers),
                "",
                f'extern "C" __global__ void __launch_bounds__({self.threads})',
                f"KERNEL(const __grid_constant__ Slots<{self._count}> args) {{",
                *(f"    {_declared(kind)}{name} = {slot};" for name, kind, slot in slots),
                text,
                "}",
                "",
            ]
        )

    # ---- values

    def scalar(self, node: Expr) -> str:
        """The text of a number handed in by slot, converted to its dtype."""
        slot, char = self.scalars[node.value], node.dtype.char
        if node.dtype.is_float:
            return f"as_float({slot})" if char == "f64" else f"({char})as_float({slot})"
        if node.dtype is T.bool_:
            return f"{slot} != 0"
        return slot if char == "i64" else f"({char}){slot}"

    def load(self, node: Expr, axes: Iterable[int], base: bool) -> str:
        """The text that reads input `node.value` at the indices of `axes`, from the row's start if `base`."""
        if node.value in self.scalars:
            return self.scalar(node)
        stream = self.inputs[node.value]
        at = element(stream, axes, self.index, base)
        if not stream.address:
            return at
        text = f"{stream.address}[{at}]"
        if stream.dtype.is_half:
            return f"s_widen({text})"
        return text + (" != 0" if stream.dtype is T.bool_ else "")

    def store(self, k: int, value: str, axes: Iterable[int], base: bool) -> None:
        """Write output `k` at the indices of `axes`, from the row's position if `base`."""
        stream = self.outputs[k]
        target = f"{stream.address}[{element(stream, axes, self.index, base)}]"
        self.line(f"s_narrow({target}, {value});" if stream.dtype.is_half else f"{target} = {value};")

    def positions(self, streams: Iterable[Stream], axes: Iterable[int]) -> None:
        """Declare where the rows of the streams start."""
        axes = list(axes)
        for s in streams:
            self.line(f"const i64 {s.position} = {' + '.join(s.terms(axes, self.index)) or '0'};")

    def take_apart(self, number: str, axes: list[int]) -> None:
        """Declare the indices along `axes` (outermost first) of the item `number`."""
        if not axes:
            return
        if len(axes) == 1:
            self.line(f"const i64 {self.index[axes[0]]} = {number};")
            return
        rest = f"rest{axes[0]}"
        self.line(f"i64 {rest} = {number};")
        for axis in reversed(axes[1:]):
            self.line(f"const i64 {self.index[axis]} = split_off({rest}, n{axis});")
        self.line(f"const i64 {self.index[axes[0]]} = {rest};")


def element(stream: Stream, axes: Iterable[int], index: dict[int, str], base: bool) -> str:
    """The element number of a stream."""
    parts = [stream.position] if base else []
    return " + ".join(parts + stream.terms(axes, index)) or "0"


def _pointer(dtype: T.DType, read: bool) -> str:
    # A byte that is neither 0 nor 1 is no bool in C++.
    char = "u8" if dtype is T.bool_ else dtype.char
    return f"const {char}*" if read else f"{char}*"


def _declared(kind: str) -> str:
    return "const i64 " if kind == "i64" else f"{kind} const "
