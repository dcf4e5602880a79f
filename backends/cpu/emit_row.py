"""Row kernels: the inner axis is reduced, its elements taken sixteen at a time.

A value per element that a later pass needs again is computed again when that is cheap, and kept in a scratch
row when it is not.

The passes of a row need each other: each ends with all lanes brought to one number, in steps that wait for each
other, and the next begins with it. The passes of rows that follow each other do not. So where that pays, a turn does
the first pass of a row, the second of the row before (its lag is 1) and the third of the one before that, these two
in one loop: what one waits for, and its way to memory, hide behind the other's arithmetic.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from ...core.loops import LoopKernel
from ...core.scalar import Expr
from ...core.types import float32
from .emit_expression import WEIGHTS, Body, abreast, missing
from .emit_frame import Frame, words
from .emit_passes import Passes
from .emit_reduction import BLOCK, TURNS, Reduction

#: rows of at most so many elements lie in a core's own caches beside those before
SHORT = 1 << 13
#: rows of at most so many elements are fetched ahead: longer ones would push each other out of the caches
NEAR = 1 << 15
#: rows of one pass whose results are computed side by side
GROUP = 16
# A value that takes more instructions than this is worth a store and a load in the first-level cache.
KEEP_WEIGHT = 8


def emit_row(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a row kernel, and the scratch rows that it asks for."""
    return _Row(kernel).emit()


def _row_text(frame: Frame, node: Expr, axis: int) -> str:
    """The text that reads what a group's rows have of an input, each one number."""
    if node.value in frame.scalars:
        return frame.scalar(node)
    s = frame.inputs[node.value]
    if not s.address:
        return f"w_index({s.position}, {s.strides[axis]})"
    return f"w_gather_{s.char}({s.address}, {s.position}, {s.strides[axis]}, m)"


class _Part(NamedTuple):
    """A pass in a loop: its number, its row's values, how many rows it is behind, what says if that row is there."""

    number: int
    row: Body
    lag: int = 0
    busy: str = ""


class _Row:
    def __init__(self, kernel: LoopKernel):
        self.kernel, self.frame, self.passes = kernel, Frame(kernel), Passes(kernel)
        self.order, self.elem = self.passes.order, self.passes.elem
        self.reductions = [Reduction(n, f"r{k}") for k, n in enumerate(self.passes.reduces)]
        #: id(node) -> number of the value that is kept, the pass that stores it and the last that reads it
        self.kept: dict[int, int] = {}
        self.kept_in: dict[int, int] = {}
        self.kept_to: dict[int, int] = {}
        #: the name of an address in the next row, and the size of an element there
        self.ahead: list[tuple[str, int]] = []
        #: whether every row is a place of the kept axes, and in one piece
        self.whole = kernel.kept > 0 and kernel.reduced == 1 and not kernel.split
        if kernel.reduced == 1 and not kernel.split:
            self._choose_kept()
        self.turns = self.whole and self._overlaps()
        if self.whole and self._is_plain() and (self.turns or self._waits()):
            self.frame.abreast = 2

    def _overlaps(self) -> bool:
        """Whether passes of different rows run side by side.

        Measured: it pays where the middle one of three passes has much to compute (softmax: 7 to 25 % in the
        caches). What memory alone bounds (layer norm) loses up to 15 %; two or five passes gain nothing.
        """
        if self.passes.count != 3:
            return False
        known = {id(n) for n in self.order if id(n) not in self.elem}
        known |= {n for n, first in self.kept_in.items() if first == 1}
        return sum(WEIGHTS[n.op] for n in missing(self._targets(2), known, known)) > KEEP_WEIGHT

    def _waits(self) -> bool:
        """Whether elements are long chains on a CPU with few registers (a sum of exponentials: a fifth less time)."""
        return abreast(n for n in self.order if id(n) in self.elem) > 1

    def _is_plain(self) -> bool:
        """Whether elements are float32 that lie side by side, and reductions give numbers.

        Measured for rows that overlap: what is computed for two vectors side by side takes 13 % less than for one.
        """
        return (
            self.frame.is_plain()
            and all(n.dtype is float32 for n in self.order if id(n) in self.elem)
            and all(r.char == "f32" and not r.indexed for r in self.reductions)
        )

    def _find_ahead(self) -> None:
        """What the second pass fetches while the first is done with memory: the next row of its inputs."""
        frame, kernel = self.frame, self.kernel
        if not self.whole or self.passes.count < 2:
            return
        for k, stream in frame.inputs.items():
            spec = kernel.inputs[k]
            if stream.address and stream.inner == "c" and not spec.row:
                size = spec.dtype.itemsize
                step = (
                    f"{stream.position} + {stream.strides[kernel.kept - 1]} * ({frame.sizes[-1]} <= {NEAR})"
                )
                frame.line(f"{stream.address}_next = {stream.address} + ({step}) * {size}")
                self.ahead.append((f"{stream.address}_next", size))

    def _reductions(self, number: int) -> list[Reduction]:
        return [r for r in self.reductions if self.passes.of(r.node) == number]

    def _targets(self, number: int) -> list[Expr]:
        return [r.operand for r in self._reductions(number)] + self.passes.roots(number)

    def _choose_kept(self) -> None:
        """Find the values that a pass stores for later ones."""
        row_level = {id(n): "" for n in self.order if id(n) not in self.elem}
        computed: dict[int, int] = {}
        for number in range(1, self.passes.count + 1):
            entered = set(row_level)
            waiting = self._targets(number)
            while waiting:
                node = waiting.pop()
                if id(node) in entered or node.op == "arg":
                    continue
                entered.add(id(node))
                first = computed.setdefault(id(node), number)
                weight = sum(WEIGHTS[n.op] for n in missing([node], row_level))
                if first == number or weight <= KEEP_WEIGHT:
                    waiting += node.args
                else:
                    self.kept.setdefault(id(node), len(self.kept))
                    self.kept_in[id(node)], self.kept_to[id(node)] = first, number

    def _places(self, number: int) -> list[str]:
        """The names of the scratch rows of a value, for as many rows as need it at a time."""
        first, last = self.kept_in[number], self.kept_to[number]
        # The first pass is a loop of its own; later ones store an element after the last pass has read that of its row.
        count = 1 if not self.turns else last if first == 1 else last - first
        return [f"kept{self.kept[number]}" + (f"_{k}" if k else "") for k in range(count)]

    def _place(self, number: int, lag: int) -> str:
        """The scratch row of a value of the row that is `lag` rows behind."""
        places = self._places(number)
        return places[lag % len(places)]

    def emit(self) -> tuple[str, int]:
        frame = self.frame
        frame.depth = 1
        top = Body(frame.scalar)
        frame.extend_fixed(top, self.passes)
        places = [place for n in self.kept for place in self._places(n)]
        for k, place in enumerate(places):
            frame.line(f"{place} = scratch + (chunk * {len(places)} + {k}) * pitch * 8")
        frame.begin_around()
        if self.turns:
            self._emit_turns(top)
        elif self.whole and self.passes.count == 1 and not self.passes.elem_roots:
            self._emit_groups(top)
        else:
            with frame.kept_loop([*frame.inputs.values(), *frame.outputs]):
                if self.kernel.split:
                    frame.split_range()
                self._find_ahead()
                row = top.fork(lambda node: frame.load(node, "0"))
                for number in range(1, self.passes.count + 1):
                    self._emit_passes([_Part(number, row)])
                self._store_row(row)
        frame.end_around()
        return frame.source(), len(places)

    def _store_row(self, row: Body) -> None:
        """Write the outputs of row level, after the last pass."""
        # All loads stand before all stores here too.
        outputs = enumerate(self.kernel.outputs)
        stores = [(k, row.value(self.kernel.roots[k])) for k, out in outputs if out.row]
        self.frame.extend(row)
        for k, value in stores:
            self.frame.store(k, "0", value)

    # ---- rows in groups

    def _emit_groups(self, top: Body) -> None:
        """Rows of one pass, up to sixteen of the last kept axis at a time.

        What brings lanes to one number, and what is computed of these numbers, is done for all rows of a group at
        once: of a row of 32 elements it is the greater part.
        """
        frame, axis = self.frame, self.kernel.kept - 1
        streams = [*frame.inputs.values(), *frame.outputs]
        for r in self.reductions:
            frame.write(r.memory_of_rows())
        with frame.bands(streams, str(GROUP)):
            rows: list[tuple[str, Callable[[Body], None]]] = [("", self._emit_row_of_group)]
            if self._is_light():
                few = f"{frame.sizes[-1]} <= {16 * TURNS}"
                rows = [(f"if {few}:", self._emit_short_row), ("else:", self._emit_row_of_group)]
            for condition, emit in rows:
                with ExitStack() as inside:
                    if condition:
                        inside.enter_context(frame.block(condition))
                    inside.enter_context(frame.band_loop(streams, "0", "count"))
                    emit(top.fork(lambda node: frame.load(node, "0")))
            self._finish_group(top, axis)

    def _is_light(self) -> bool:
        """Whether elements cost so little that loops over a row of few vectors would be most of it."""
        weight = sum(WEIGHTS[n.op] for n in self.order if id(n) in self.elem)
        return weight <= KEEP_WEIGHT and not any(r.indexed for r in self.reductions)

    def _emit_short_row(self, row: Body) -> None:
        """A row of one vector for each turn at most: no loop, the same order."""
        frame = self.frame
        self._compute_row(1, row)
        frame.extend(row)
        part = self._same_along(_Part(1, row))
        for turn in range(TURNS):
            frame.line(f"v = {16 * turn}")
            frame.line(f"m = w_mask({frame.sizes[-1]}, {16 * turn})")
            self._emit_elements(part, "", turn)
        for r in self.reductions:
            frame.write(r.keep_short_row())

    def _emit_row_of_group(self, row: Body) -> None:
        frame, blocked = self.frame, [r for r in self.reductions if r.blocked]
        self._compute_row(1, row)
        frame.extend(row)
        for r in self.reductions:
            frame.write(r.start())
        self._write_all(blocked, "reset")
        inside, size = [self._same_along(_Part(1, row))], frame.sizes[-1]
        if not blocked:
            self._vector_loop(inside, "0", size, "")
        else:
            with frame.block(f"for block in range(0, {size}, {BLOCK}):"):
                frame.line(f"end = min(block + {BLOCK}, {size})")
                with frame.block("if block > 0:"):
                    self._write_all(blocked, "fold")
                    self._write_all(blocked, "reset")
                self._vector_loop(inside, "block", "end", "")
        for r in self.reductions:
            frame.write(r.keep_row())

    def _finish_group(self, top: Body, axis: int) -> None:
        """Compute and write the outputs of a group's rows."""
        frame = self.frame
        frame.line("m = w_mask(count, 0)")
        for r in self.reductions:
            frame.write(r.finish_rows())
        body = top.fork(lambda node: _row_text(frame, node, axis), wide=True)
        body.tail = "_all"
        body.names |= {id(r.node): f"{r.name}_all" for r in self.reductions}
        values = [body.value(root) for root in self.kernel.roots]
        frame.extend(body)
        for s, value in zip(frame.outputs, values):
            step = s.strides[axis]
            with frame.block(f"if {step} == 1:"):
                frame.line(f"w_store_{s.char}({s.address}, {s.position}, {value}, m)")
            with frame.block("else:"):
                frame.line(f"w_scatter_{s.char}({s.address}, {s.position}, {step}, {value}, m)")

    # ---- rows that overlap

    def _emit_turns(self, top: Body) -> None:
        frame, count = self.frame, self.passes.count
        row = top.fork(lambda node: frame.load(node, "0"))
        with frame.aside() as first:
            self._find_ahead()
            self._emit_passes([_Part(1, row)])
            self._compute_row(2, row)
            frame.extend(row)
        streams = [*frame.inputs.values(), *frame.outputs]
        #: name of a row that is behind -> the name of the same one row before, and the dtype's character
        carried: dict[str, tuple[str, str]] = {}
        parts: list[_Part] = []
        ends: list[Body] = []
        for lag in range(1, count):
            before = f"_{lag - 1}" * (lag > 1)
            carried |= {f"{s.position}_{lag}": (s.position + before, "i64") for s in streams}
            names, row = row.names, top.fork(row.load)
            row.tail = f"_{lag}"
            for node in self.order:
                name = names.get(id(node), "")
                if id(node) not in top.names and node.op != "const" and name.isidentifier():
                    row.names[id(node)] = name.removesuffix(before) + row.tail
                    carried[row.names[id(node)]] = name, node.dtype.char
            part = _Part(lag + 1, row, lag, f"busy_{lag}")
            parts.insert(0, part)
            # What the next pass reads of its row is computed at the end of this one.
            row = row.fork(row.load)
            row.names |= {id(r.node): r.name for r in self._reductions(part.number)}
            if part.number < count:
                with self._behind(lag):
                    self._compute_row(part.number + 1, row)
            ends.insert(0, row)
        with frame.aside() as others:
            self._emit_passes(parts)
            for part, end in zip(parts, ends):
                with frame.condition(part.busy), self._behind(part.lag):
                    frame.extend(end)
                    if part.number == count:
                        self._store_row(end)
        shift: list[str] = []
        used = set(words("\n".join(others)))
        for new, (old, char) in reversed(carried.items()):
            if new in used:
                frame.line(f"{new} = {'0' if char == 'i64' else f'v_cast_i64_{char}(0)'}")
                shift.append(f"{new} = {old}")
                used.add(old)
        for n in self.kept:
            places = self._places(n)
            if len(places) > 1:
                shift.append(f"place = {places[-1]}")
                shift += [f"{new} = {old}" for old, new in reversed(list(itertools.pairwise(places)))]
                shift.append(f"{places[0]} = place")
        frame.kept_turns(streams, count - 1, f"{frame.sizes[-1]} <= {SHORT}", first, others, shift)

    @contextmanager
    def _behind(self, lag: int) -> Iterator[None]:
        """Inside, positions are those of the row that is `lag` rows behind."""
        tail = f"_{lag}" * (lag > 0)
        streams = [*self.frame.inputs.values(), *self.frame.outputs]
        for s in streams:
            s.position += tail
        yield
        for s in streams:
            s.position = s.position.removesuffix(tail)

    # ---- passes

    def _compute_row(self, number: int, row: Body) -> None:
        """Compute what is the same for the whole row and pass `number` reads."""
        targets = self._targets(number)
        for node in row.missing(targets):
            for part in (node, *node.args):
                if id(part) not in self.elem:
                    row.value(part)
        for target in targets:
            if id(target) not in self.elem:
                row.value(target)

    def _emit_passes(self, parts: list[_Part]) -> None:
        """Write passes side by side, each of its own row."""
        frame = self.frame
        reductions = [r for part in parts for r in self._reductions(part.number)]
        blocked = [r for r in reductions if r.blocked]
        for part in parts:
            part.row.stored = {
                n: f"w_load_{self._char(n)}({self._place(n, part.lag)}, v, m)"
                for n, first in self.kept_in.items()
                if first < part.number
            }
            with frame.condition(part.busy), self._behind(part.lag):
                self._compute_row(part.number, part.row)
                frame.extend(part.row)
        for r in reductions:
            frame.write(r.start())
        inner = self.kernel.n_axes - 1
        low, high = frame.bounds(inner)
        # Lanes of a float sum live as long as a block: a part of one row, or several short rows.
        several = bool(blocked) and self.kernel.reduced > 1
        if several:
            frame.line("filled = 0")
            self._write_all(blocked, "reset")
        with frame.reduced_loops(inner) as index:
            inside = [self._same_along(part) for part in parts]
            if not blocked:
                self._vector_loop(inside, low, high, index)
            else:
                with frame.block(f"for block in range({low}, {high}, {BLOCK}):"):
                    frame.line(f"end = min(block + {BLOCK}, {high})")
                    if not several:
                        self._write_all(blocked, "reset")
                    self._vector_loop(inside, "block", "end", index)
                    if not several:
                        self._write_all(blocked, "fold")
                    else:
                        frame.line("filled += end - block")
                        with frame.block(f"if filled >= {BLOCK}:"):
                            self._write_all(blocked, "fold")
                            self._write_all(blocked, "reset")
                            frame.line("filled = 0")
        if several:
            self._write_all(blocked, "fold")
        for r in reductions:
            frame.write(r.finish())
        for part in parts:
            part.row.names |= {id(r.node): r.name for r in self._reductions(part.number)}

    def _write_all(self, reductions: list[Reduction], part: str) -> None:
        for r in reductions:
            self.frame.write(getattr(r, part)())

    def _same_along(self, part: _Part) -> _Part:
        """The part with what is loaded once for the inner axis."""
        frame, outer = self.frame, part.row.fork(part.row.load)
        with frame.condition(part.busy), self._behind(part.lag):
            for node in part.row.missing(self._targets(part.number)):
                if node.op == "arg" and id(node) in self.elem and frame.inputs[node.value].inner == "b":
                    outer.value(node)
            frame.extend(outer)
        return part._replace(row=outer)

    def _vector_loop(self, parts: list[_Part], low: str, high: str, index: str) -> None:
        def write() -> None:
            for part in parts:
                with self.frame.condition(part.busy), self._behind(part.lag):
                    self._emit_elements(part, index)

        self.frame.vectors(low, high, write)

    def _emit_elements(self, part: _Part, index: str, turn: int = -1) -> None:
        """Sixteen elements at v, under the mask m. turn: of a row without a loop."""
        frame, number = self.frame, part.number
        body = part.row.fork(lambda node: frame.load(node, "v", "m"), wide=True)
        reductions, targets = self._reductions(number), self._targets(number)
        # All loads stand before all stores: an output may be the same buffer as an input.
        for node in body.missing(targets):
            if node.op == "arg":
                body.value(node)
        values = [body.value(t) for t in targets]
        frame.extend(body)
        if number == 2:
            for address, size in self.ahead:
                frame.line(f"prefetch({address} + v * {size})")
                for line in range(1, frame.abreast if frame.whole else 1):
                    frame.line(f"prefetch({address} + v * {size} + {64 * line})")
        for k, first in self.kept_in.items():
            if first == number:
                place = self._place(k, part.lag)
                frame.line(f"w_store_{self._char(k)}({place}, v, {body.names[k]}, m)")
        for r, value in zip(reductions, values):
            if turn >= 0:
                frame.write(r.take_turn(turn, value))
                continue
            frame.write(r.update(value, f"{index} * {frame.sizes[-1]} + v" if index else "v"))
        for k, value in zip(self.passes.elem_roots, values[len(reductions) :]):
            frame.store(k, "v", value, "m")

    def _char(self, number: int) -> str:
        return next(n.dtype.char for n in self.order if id(n) == number)
