"""Row kernels: the inner axis is reduced, its elements taken sixteen at a time.

A value per element that a later pass needs again is computed again when that is cheap, and kept in a scratch
row when it is not.
"""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr
from .emit_expression import WEIGHTS, Body, missing
from .emit_frame import Frame
from .emit_passes import Passes
from .emit_reduction import BLOCK, Reduction

#: rows of at most so many elements are fetched ahead: longer ones would push each other out of the caches
NEAR = 1 << 15
# A value that takes more instructions than this is worth a store and a load in the first-level cache.
KEEP_WEIGHT = 8


def emit_row(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a row kernel, and the scratch rows that it asks for."""
    return _Row(kernel).emit()


class _Row:
    def __init__(self, kernel: LoopKernel):
        self.kernel, self.frame, self.passes = kernel, Frame(kernel), Passes(kernel)
        self.order, self.elem = self.passes.order, self.passes.elem
        self.reductions = [Reduction(n, f"r{k}") for k, n in enumerate(self.passes.reduces)]
        #: id(node) -> number of the scratch row that keeps it, and the pass that stores it
        self.kept: dict[int, int] = {}
        self.kept_in: dict[int, int] = {}
        #: the name of an address in the next row, and the size of an element there
        self.ahead: list[tuple[str, int]] = []
        if kernel.reduced == 1 and not kernel.split:
            self._choose_kept()

    def _find_ahead(self) -> None:
        """What the second pass fetches while the first is done with memory: the next row of its inputs."""
        frame, kernel = self.frame, self.kernel
        if self.passes.count < 2 or kernel.reduced > 1 or kernel.split or not kernel.kept:
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
                elif id(node) not in self.kept:
                    self.kept[id(node)] = len(self.kept)
                    self.kept_in[id(node)] = first

    def emit(self) -> tuple[str, int]:
        frame, kernel = self.frame, self.kernel
        frame.depth = 1
        top = Body(frame.scalar)
        frame.extend_fixed(top, self.passes)
        for k in self.kept.values():
            frame.line(f"kept{k} = scratch + (chunk * {len(self.kept)} + {k}) * pitch * 8")
        frame.begin_around()
        with frame.kept_loop([*frame.inputs.values(), *frame.outputs]):
            if kernel.split:
                frame.split_range()
            self._find_ahead()
            row = top.fork(lambda node: frame.load(node, "0"))
            for number in range(1, self.passes.count + 1):
                self._emit_pass(number, row)
            # All loads stand before all stores here too.
            stores = [(k, row.value(kernel.roots[k])) for k, out in enumerate(kernel.outputs) if out.row]
            frame.extend(row)
            for k, value in stores:
                frame.store(k, "0", value)
        frame.end_around()
        return frame.source(), len(self.kept)

    # ---- one pass

    def _emit_pass(self, number: int, row: Body) -> None:
        frame = self.frame
        reductions = self._reductions(number)
        blocked = [r for r in reductions if r.blocked]
        row.stored = {
            n: f"w_load_{self._char(n)}(kept{self.kept[n]}, v, m)"
            for n, first in self.kept_in.items()
            if first < number
        }
        targets = self._targets(number)
        nodes = row.missing(targets)
        for node in nodes:  # what is the same for the whole row
            for part in (node, *node.args):
                if id(part) not in self.elem:
                    row.value(part)
        for target in targets:
            if id(target) not in self.elem:
                row.value(target)
        frame.extend(row)
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
            outer = row.fork(lambda node: frame.load(node, "0"))
            for node in nodes:
                if node.op == "arg" and id(node) in self.elem and frame.inputs[node.value].inner == "b":
                    outer.value(node)
            frame.extend(outer)
            if not blocked:
                self._vector_loop(number, outer, reductions, low, high, index)
            else:
                with frame.block(f"for block in range({low}, {high}, {BLOCK}):"):
                    frame.line(f"end = min(block + {BLOCK}, {high})")
                    if not several:
                        self._write_all(blocked, "reset")
                    self._vector_loop(number, outer, reductions, "block", "end", index)
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
            row.names[id(r.node)] = r.name

    def _write_all(self, reductions: list[Reduction], part: str) -> None:
        for r in reductions:
            self.frame.write(getattr(r, part)())

    def _vector_loop(
        self,
        number: int,
        outer: Body,
        reductions: list[Reduction],
        low: str,
        high: str,
        index: str,
    ) -> None:
        frame = self.frame

        def write() -> None:
            body = outer.fork(lambda node: frame.load(node, "v", "m"), wide=True)
            targets = self._targets(number)
            # All loads stand before all stores: an output may be the same buffer as an input.
            for node in body.missing(targets):
                if node.op == "arg":
                    body.value(node)
            values = [body.value(t) for t in targets]
            frame.extend(body)
            if number == 2:
                frame.write(f"prefetch({address} + v * {size})" for address, size in self.ahead)
            for k, first in self.kept_in.items():
                if first == number:
                    frame.line(f"w_store_{self._char(k)}(kept{self.kept[k]}, v, {body.names[k]}, m)")
            for r, value in zip(reductions, values):
                frame.write(r.update(value, f"{index} * {frame.sizes[-1]} + v" if index else "v"))
            for k, value in zip(self.passes.elem_roots, values[len(reductions) :]):
                frame.store(k, "v", value, "m")

        frame.vectors(low, high, write)

    def _char(self, number: int) -> str:
        return next(n.dtype.char for n in self.order if id(n) == number)
