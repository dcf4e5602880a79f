"""The frame of every generated loop kernel: its slots by name, its chunk, the walk over the kept axes.

Names in the source: n0 n1 ... sizes of the loop axes; a0 a1 ... addresses of the inputs, s0_1 the stride of
input 0 along axis 1, i0 the position (in elements) of input 0; o0, p0_1, q0 the same for outputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from .emit_expression import Body
from .emit_passes import Passes
from .streaming import streams

# A listed kernel finds the list that its first element is in, by halving, and goes on from there.
_LIST_HEAD = """\
    width = args[2]
    start = share(args[1], chunk, nchunks)
    stop = share(args[1], chunk + 1, nchunks)
    low = 0
    high = args[0]
    while high - low > 1:
        middle = (low + high) >> 1
        if args[3 + middle * width] <= start:
            low = middle
        else:
            high = middle
    at = 3 + low * width
    end = 3 + args[0] * width
    while at < end:
        before = args[at]
        if before >= stop:
            return""".splitlines()


#: the masks of all lanes, by how many wide values stand side by side
_ALL = {1: "w_all", 2: "w_pair", 4: "w_four"}


class Stream:
    """What moves along the loop axes: an input buffer, the index, or an output."""

    def __init__(self, position: str, address: str, strides: list[str], inner: str, char: str):
        self.position, self.address, self.strides = position, address, strides
        self.inner, self.char = inner, char

    def at(self, i: str) -> str:
        """The element number at inner index `i`."""
        if self.inner == "b":
            return self.position
        step = i if self.inner == "c" else f"{i} * {self.strides[-1]}"
        return step if self.position == "0" else f"{self.position} + {step}"


class _Axis(NamedTuple):
    """A kept axis: the names of its index and size, its stride for every stream (none if it moves none)."""

    index: str  # type: ignore[assignment]  # a tuple's method of that name is not used
    size: str
    strides: list[str]


class Frame:
    """Writes one kernel's source: `line`, `block` and the parts that all forms share."""

    def __init__(self, kernel: LoopKernel):
        self.kernel = kernel
        self.lines: list[str] = []
        self.depth = 0
        self.sizes = [f"n{a}" for a in range(kernel.n_axes)]
        self.inputs: dict[int, Stream] = {}
        self.outputs: list[Stream] = []
        self.scalars: dict[int, str] = {}
        used = {node.value for node in walk(kernel.roots) if node.op == "arg"}
        slot = kernel.n_axes
        self._slots = {name: a for a, name in enumerate(self.sizes)}
        if kernel.split:
            self._slots["length"] = slot
            slot += 1
        for k, spec in enumerate(kernel.inputs):
            if spec.kind == "scalar":
                self._slots[f"a{k}"] = slot
                self.scalars[k] = f"a{k}"
                slot += 1
                continue
            address = ""
            if spec.kind == "buffer":
                address = f"a{k}"
                self._slots[address] = slot
                slot += 1
            strides = [f"s{k}_{a}" for a in range(kernel.n_axes)]
            self._slots |= {name: slot + a for a, name in enumerate(strides)}
            slot += kernel.n_axes
            if k in used:
                self.inputs[k] = Stream(f"i{k}", address, strides, spec.inner, spec.dtype.char)
        for k, out in enumerate(kernel.outputs):
            self._slots[f"o{k}"] = slot
            strides = [f"p{k}_{a}" for a in range(kernel.n_axes)]
            self._slots |= {name: slot + 1 + a for a, name in enumerate(strides)}
            slot += 1 + kernel.n_axes
            self.outputs.append(Stream(f"q{k}", f"o{k}", strides, out.inner, out.dtype.char))
        self._slots |= {"around": slot, "scratch": slot + 1, "pitch": slot + 2}
        #: numbers of the outputs that may be written round the caches, inside loops over whole vectors
        self.around = [k for k, out in enumerate(kernel.outputs) if kernel.form != "col" and streams(out)]
        self.whole = False
        #: number of an input -> the text that reads sixteen elements of it from where they have been brought together
        self.gathered: dict[int, str] = {}
        #: how many wide values loops over whole ones take at a time, side by side: 1, 2 or 4
        self.abreast = 1

    # ---- text

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def write(self, lines: Iterable[str]) -> None:
        for text in lines:
            self.line(text)

    def extend(self, body: Body) -> None:
        """Move the lines of a body here."""
        self.write(body.lines)
        body.lines.clear()

    def extend_fixed(self, top: Body, passes: Passes) -> None:
        """Compute what is the same for the whole kernel."""
        for node in passes.order:
            if id(node) in passes.fixed and node.op != "const":
                top.value(node)
        self.extend(top)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self.depth += 1
        yield
        self.depth -= 1

    @contextmanager
    def aside(self) -> Iterator[list[str]]:
        """What is written inside goes into a list instead, for a place that comes later."""
        lines, depth = self.lines, self.depth
        self.lines, self.depth = [], 0
        yield self.lines
        self.lines, self.depth = lines, depth

    @contextmanager
    def condition(self, flag: str) -> Iterator[None]:
        """Lines for where `flag` is not 0; without a flag, for all."""
        if not flag:
            yield
            return
        with self.aside() as lines:
            yield
        if lines:
            with self.block(f"if {flag} > 0:"):
                self.write(lines)

    def source(self, name: str = "kernel") -> str:
        """The finished text. Slots that the lines do not mention are not read."""
        text = "\n".join(self.lines)
        found = set(words(text))
        head = [f"# {note}" for note in self.kernel.notes]
        head.append(f"def {name}(args, chunk, nchunks):")
        if not self.kernel.listed:
            head += [f"    {n} = args[{slot}]" for n, slot in self._slots.items() if n in found]
            return "\n".join([*head, text, ""])
        reads = [f"        {n} = args[at + {slot + 1}]" for n, slot in self._slots.items() if n in found]
        return "\n".join([*head, *_LIST_HEAD, *reads, text, "        at += width", ""])

    # ---- values

    def scalar(self, node: Expr) -> str:
        """The text of a number handed in by slot, converted to its dtype."""
        char = node.dtype.char
        if node.dtype.is_float:
            bits = f"bits_f64(a{node.value})"
            return bits if char == "f64" else f"v_cast_f64_{char}({bits})"
        return f"a{node.value}" if char == "i64" else f"v_cast_i64_{char}(a{node.value})"

    def load(self, node: Expr, i: str, mask: str = "") -> str:
        """The text that reads input `node.value` at inner index `i`, sixteen elements if there is a mask."""
        if node.value in self.scalars:
            return self.scalar(node)
        if mask and node.value in self.gathered:
            return self.gathered[node.value]
        s = self.inputs[node.value]
        at = s.at(i)
        if not mask or s.inner == "b":
            return f"load_{s.char}({s.address}, {at})" if s.address else at
        if not s.address:
            return f"w_index({at}, {'1' if s.inner == 'c' else s.strides[-1]})"
        if s.inner in ("c", "r"):
            return f"w_{'load' if s.inner == 'c' else 'load_back'}_{s.char}({s.address}, {at}, {mask})"
        return f"w_gather_{s.char}({s.address}, {at}, {s.strides[-1]}, {mask})"

    def store(self, k: int, i: str, value: str, mask: str = "") -> None:
        """Write output `k` at inner index `i`."""
        s = self.outputs[k]
        at = s.at(i)
        if not mask:
            self.line(f"store_{s.char}({s.address}, {at}, {value})")
        elif s.inner in ("c", "r"):
            verb = "store" if s.inner == "c" else "store_back"
            plain = f"w_{verb}_{s.char}({s.address}, {at}, {value}, {mask})"
            if self.whole and k in self.around:
                with self.block(f"if around{k}:"):
                    self.line(f"w_stream_{s.char}({s.address}, {at}, {value})")
                with self.block("else:"):
                    self.line(plain)
            else:
                self.line(plain)
        else:
            step = "0" if s.inner == "b" else s.strides[-1]
            self.line(f"w_scatter_{s.char}({s.address}, {at}, {step}, {value}, {mask})")

    def vectors(self, low: str, high: str, write: Callable[[], None]) -> None:
        """Sixteen elements at v (or 32, 64), under the mask m, from `low` on before `high`.

        The lines of `write` stand there twice: whole vectors need no mask, which costs two or three cycles.
        """
        step = 16 * self.abreast
        with self.block(f"for v in range({low}, {high} - {step - 1}, {step}):"):
            self.line(f"m = {_ALL[self.abreast]}()")
            self.whole = True
            write()
            self.whole = False
        start = f"({high} & -{step})" if low == "0" else f"{low} + (({high} - {low}) & -{step})"
        if self.abreast > 1:
            rest = self.block(f"for v in range({start}, {high}, 16):")
        else:
            self.line(f"v = {start}")
            rest = self.block(f"if v < {high}:")
        with rest:
            self.line(f"m = w_mask({high}, v)")
            write()

    def is_plain(self) -> bool:
        """Whether elements lie side by side in memory, or are the same along the inner axis."""
        streams = [*self.inputs.values(), *self.outputs]
        return all(s.inner == "b" or (s.inner == "c" and s.address) for s in streams)

    def begin_around(self) -> None:
        """Find which outputs are written round the caches: where it is wanted, to whole lines that are not read."""
        for k in self.around:
            s, size = self.outputs[k], self.kernel.outputs[k].dtype.itemsize
            steps = "".join(f" | {stride} * {size}" for stride in s.strides[: self.kernel.kept])
            rules = [f"(({s.address}{steps}) & 63 == 0)"]
            rules += [f"({s.address} != {x.address})" for x in self.inputs.values() if x.address]
            self.line(f"around{k} = around * " + " * ".join(rules))

    def end_around(self) -> None:
        """Wait for what was written round the caches."""
        if self.around:
            with self.block("if around:"):
                self.line("store_fence()")

    # ---- the kept axes

    def chunk_range(self) -> None:
        """first, last: this chunk's share of the rows (of a list: rows of the inner axis)."""
        if self.kernel.listed:
            size = self.sizes[-1]
            self.line(f"first = quotient(max(start - before, 0) + {size} - 1, {size})")
            self.line(f"last = min(quotient(stop - before + {size} - 1, {size}), rows)")
            return
        self.line("first = share(rows, chunk, nchunks)")
        self.line("last = share(rows, chunk + 1, nchunks)")

    @contextmanager
    def bands(self, streams: list[Stream], most: str) -> Iterator[None]:
        """Loop over this chunk's kept indices by bands of up to `most` of the last axis: inside, `count` of them, from
        every stream's position on."""
        last = self.kernel.kept - 1
        self.line("rows = " + " * ".join(self.sizes[: last + 1]))
        self.chunk_range()
        with self.block("while first < last:"):
            self.line("rest = first")
            for a in range(last, 0, -1):
                self.line(f"j{a} = remainder(rest, n{a})")
                self.line(f"rest = quotient(rest, n{a})")
            self.line("j0 = rest")
            self.line(f"count = min(min({most}, n{last} - j{last}), last - first)")
            for s in streams:
                self.line(f"{s.position} = " + " + ".join(f"j{a} * {s.strides[a]}" for a in range(last + 1)))
            yield
            self.line("first += count")

    @contextmanager
    def band_loop(self, streams: list[Stream], low: str, high: str) -> Iterator[None]:
        """Loop over rows `g` of a band; inside, every stream's position is that of the row."""
        last = self.kernel.kept - 1
        with self.block(f"for g in range({low}, {high}):"):
            before = [s.position for s in streams]
            for s in streams:
                self.line(f"{s.position}_g = {s.position} + g * {s.strides[last]}")
                s.position += "_g"
            yield
            for s, position in zip(streams, before):
                s.position = position

    @contextmanager
    def kept_loop(self, streams: list[Stream], parts: str = "") -> Iterator[None]:
        """Loop over this chunk's kept indices; inside, every stream's position is right.

        parts: a number of parts of the inner axis: they are one more axis, `part`, which moves no stream.
        Positions advance by additions with carries: a division per row would cost more than a short row.
        """
        axes = self._kept_axes(streams)
        if parts:
            axes.append(_Axis("part", parts, []))
        if not axes:
            with self.block("if chunk == 0:"):
                self.write(f"{s.position} = 0" for s in streams)
                yield
            return
        self.line("rows = " + " * ".join(axis.size for axis in axes))
        self.chunk_range()
        if len(axes) == 1:
            index, _, strides = axes[0]
            with self.block(f"for {index} in range(first, last):"):
                for s, stride in zip(streams, strides or ["0"] * len(streams)):
                    self.line(f"{s.position} = {index} * {stride}" if strides else f"{s.position} = 0")
                yield
            return
        self._first_index(streams, axes)
        with self.block("for row in range(first, last):"):
            yield
            self._advance(streams, axes)

    def kept_turns(
        self,
        streams: list[Stream],
        behind: int,
        together: str,
        first: list[str],
        others: list[str],
        shift: list[str],
    ) -> None:
        """Loop over this chunk's kept indices in turns: each begins one index and goes on with the `behind` before it.

        together: the text of a condition, the same in all turns; without it an index ends before the next begins.
        first: the lines that begin an index; others: those for the ones before, of which the k-th is there
            where `busy_k`; shift: those that make each index the one before, at the end of a turn.
        """
        axes = self._kept_axes(streams)
        self.line("rows = " + " * ".join(axis.size for axis in axes))
        self.chunk_range()
        self._first_index(streams, axes)
        self.line(f"alone = 1 - ({together}) * 1")
        self.line("row = first")
        self.write(f"busy_{k} = 0" for k in range(behind + 1))
        waiting = " + ".join(f"busy_{k}" for k in range(1, behind + 1))
        with self.block(f"while row < last or {waiting} > 0:"):
            self.line(f"busy_0 = (1 - alone * ({waiting})) * (row < last)")
            with self.block("if busy_0 > 0:"):
                self.write(first)
            with self.block(f"if {waiting} > 0:"):
                self.write(others)
            self.write(f"busy_{k} = busy_{k - 1}" for k in range(behind, 0, -1))
            self.write(shift)
            with self.block("if busy_0 > 0:"):
                self.line("row += 1")
                self._advance(streams, axes)

    def _kept_axes(self, streams: list[Stream]) -> list[_Axis]:
        kept = range(self.kernel.kept)
        return [_Axis(f"j{a}", self.sizes[a], [s.strides[a] for s in streams]) for a in kept]

    def _first_index(self, streams: list[Stream], axes: list[_Axis]) -> None:
        """The first index of this chunk and the streams' positions there."""
        with self.block("if first < last:"):
            self.line("rest = first")
            for axis in reversed(axes[1:]):
                self.line(f"{axis.index} = remainder(rest, {axis.size})")
                self.line(f"rest = quotient(rest, {axis.size})")
            self.line(f"{axes[0].index} = rest")
            for k, s in enumerate(streams):
                steps = (f"{axis.index} * {axis.strides[k]}" for axis in axes if axis.strides)
                self.line(f"{s.position} = " + " + ".join(steps))

    def _advance(self, streams: list[Stream], axes: list[_Axis]) -> None:
        """The next index: the last axis moves; at its end it starts again and the one before moves."""
        *before, axis = axes
        self.line(f"{axis.index} += 1")
        self.write(f"{s.position} += {stride}" for s, stride in zip(streams, axis.strides))
        if before:
            with self.block(f"if {axis.index} == {axis.size}:"):
                self.line(f"{axis.index} = 0")
                self.write(
                    f"{s.position} -= {axis.size} * {stride}" for s, stride in zip(streams, axis.strides)
                )
                self._advance(streams, before)

    # ---- the reduced axes

    def split_range(self) -> None:
        """low, high: what this block covers of the first reduced axis."""
        self.line(f"low = j{self.kernel.kept - 1} * length")
        self.line(f"high = min(low + length, {self.sizes[self.kernel.kept]})")

    def bounds(self, axis: int) -> tuple[str, str]:
        """The range of a reduced axis."""
        split = self.kernel.split and axis == self.kernel.kept
        return ("low", "high") if split else ("0", self.sizes[axis])

    @contextmanager
    def reduced_loops(self, stop: int) -> Iterator[str]:
        """Loop over the reduced axes before axis `stop`; gives the text of the linear index among them.

        Inside, the positions of everything that varies along these axes are right. Nothing is done when
        the innermost axis is empty: there would be nothing to load.
        """
        kernel = self.kernel
        moving = [s for k, s in self.inputs.items() if not kernel.inputs[k].row]
        moving += [s for s, out in zip(self.outputs, kernel.outputs) if not out.row]
        before = [s.position for s in moving]
        index = ""
        with ExitStack() as stack:
            for axis in range(kernel.kept, stop):
                low, high = self.bounds(axis)
                if axis == kernel.kept:
                    high = f"min({high}, {high} * {self.sizes[-1]})"
                stack.enter_context(self.block(f"for k{axis} in range({low}, {high}):"))
                for s in moving:
                    self.line(f"{s.position}_{axis} = {s.position} + k{axis} * {s.strides[axis]}")
                    s.position = f"{s.position}_{axis}"
                index = f"({index} * {self.sizes[axis]} + k{axis})" if index else f"k{axis}"
            yield index
        for s, position in zip(moving, before):
            s.position = position


def words(text: str) -> Iterator[str]:
    """The names and keywords of a text."""
    return (m.group() for m in re.finditer(r"[A-Za-z_]\w*", text))
