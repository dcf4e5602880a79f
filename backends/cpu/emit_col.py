"""Column kernels: the inner axis is kept, sixteen outputs side by side; the reduced axes are outside it.

The inner axis is cut into tiles, so that the accumulators of a tile stay in the first-level cache while the
rows of the operand pass by. Chunks divide the kept indices times the tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...core.loops import LoopKernel
from ...core.scalar import Expr
from .emit_expression import WEIGHTS, Body, missing
from .emit_frame import Frame
from .emit_passes import Passes
from .emit_reduction import BLOCK_ROWS, TILE, ColumnReduction

#: vectors of columns whose accumulators stay in registers, and what their elements weigh at most
FEW, LIGHT = (1, 4), 8


def emit_col(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a column kernel, and 0 scratch rows."""
    return _Column(kernel).emit(), 0


class _Column:
    def __init__(self, kernel: LoopKernel):
        self.kernel, self.frame, self.passes = kernel, Frame(kernel), Passes(kernel)
        self.reductions = [ColumnReduction(n, f"r{k}") for k, n in enumerate(self.passes.reduces)]
        #: costly values per output that elements need, computed once per tile before the pass: node -> name
        self.ready: list[Expr] = []

    def _reductions(self, number: int) -> list[ColumnReduction]:
        return [r for r in self.reductions if self.passes.of(r.node) == number]

    def emit(self) -> str:
        frame, kernel = self.frame, self.kernel
        frame.depth = 1
        size = frame.sizes[-1]
        top = Body(frame.scalar)
        frame.extend_fixed(top, self.passes)
        for r in self.reductions:
            frame.write(r.memory())
        frame.line(f"tiles = quotient({size} + {TILE - 1}, {TILE})")
        with frame.kept_loop([*frame.inputs.values(), *frame.outputs], "tiles"):
            if kernel.split:
                frame.split_range()
            frame.line(f"tile = part * {TILE}")
            frame.line(f"width = min({size} - tile, {TILE})")
            for number in range(1, self.passes.count + 1):
                self._emit_pass(number, top)
            if any(out.row for out in kernel.outputs):
                with self._columns():
                    body = self._body(top)
                    rows = [k for k, out in enumerate(kernel.outputs) if out.row]
                    values = [body.value(kernel.roots[k]) for k in rows]
                    frame.extend(body)
                    for k, value in zip(rows, values):
                        frame.store(k, "(tile + v)", value, "m")
        return frame.source()

    def _emit_pass(self, number: int, top: Body) -> None:
        frame, passes = self.frame, self.passes
        reductions = self._reductions(number)
        blocked = [r for r in reductions if r.blocked]
        targets = [r.operand for r in reductions] + passes.roots(number)
        self._prepare(reductions, targets, top)
        if blocked:
            frame.line("filled, blocks = 0, 0")
        if self._is_light(reductions, targets):
            for count, condition in zip(FEW, ("if", "elif")):
                with frame.block(f"{condition} width <= {16 * count}:"):
                    self._emit_few(reductions, targets, top, count)
            with frame.block("else:"):
                self._emit_rows(reductions, targets, top)
        else:
            self._emit_rows(reductions, targets, top)
        if blocked:
            with frame.block("if blocks > 0:"), self._columns(masked=False):
                for r in blocked:
                    frame.write(r.finish())

    def _is_light(self, reductions: list[ColumnReduction], targets: list[Expr]) -> bool:
        """Whether accumulators in registers pay where columns are few, and there are registers for them."""
        weight = sum(WEIGHTS[n.op] for n in missing(targets, {}) if id(n) in self.passes.elem)
        plain = self.passes.count == 1 and not self.passes.elem_roots
        return (
            plain and weight <= LIGHT and 0 < len(reductions) <= 2 and not any(r.indexed for r in reductions)
        )

    def _emit_few(
        self, reductions: list[ColumnReduction], targets: list[Expr], top: Body, count: int
    ) -> None:
        """All rows of at most `count` vectors, whose accumulators stay in registers."""
        frame, blocked = self.frame, [r for r in reductions if r.blocked]
        for k in range(count):
            frame.line(f"m{k} = w_mask(width, {16 * k})")
            for r in reductions:
                frame.write(r.start_value(k))
        with frame.reduced_loops(self.kernel.n_axes - 1):
            for k in range(count):
                frame.line(f"v, m = {16 * k}, m{k}")
                body = self._body(top)
                values = [body.value(x) for x in targets]
                frame.extend(body)
                for r, value in zip(reductions, values):
                    frame.write(r.update_value(k, value))
            if blocked:
                frame.line("filled += 1")
                with frame.block(f"if filled == {BLOCK_ROWS}:"):
                    for k in range(count):
                        frame.line(f"v = {16 * k}")
                        for r in blocked:
                            frame.write(r.fold_value(k))
                    frame.line("filled = 0")
                    frame.line("blocks += 1")
        for k in range(count):
            frame.line(f"v = {16 * k}")
            for r in reductions:
                frame.write(r.keep_value(k))

    def _emit_rows(self, reductions: list[ColumnReduction], targets: list[Expr], top: Body) -> None:
        """Row after row, with accumulators in working memory."""
        frame, passes = self.frame, self.passes
        blocked = [r for r in reductions if r.blocked]
        with frame.reduced_loops(self.kernel.n_axes - 1) as index:
            with self._columns():
                body = self._body(top)
                # All loads stand before all stores: an output may be the same buffer as an input.
                for node in body.missing(targets):
                    if node.op == "arg":
                        body.value(node)
                values = [body.value(x) for x in targets]
                frame.extend(body)
                for r, value in zip(reductions, values):
                    frame.write(r.update(value, index))
                for k, value in zip(passes.elem_roots, values[len(reductions) :]):
                    frame.store(k, "(tile + v)", value, "m")
            if blocked:
                frame.line("filled += 1")
                with frame.block(f"if filled == {BLOCK_ROWS}:"):
                    with self._columns(masked=False):
                        for r in blocked:
                            frame.write(r.fold() + r.clear())
                    frame.line("filled = 0")
                    frame.line("blocks += 1")

    def _prepare(self, reductions: list[ColumnReduction], targets: list[Expr], top: Body) -> None:
        """Empty accumulators, and the costly values per output that the elements of this pass need."""
        frame, start = self.frame, len(self.ready)
        body = self._body(top)
        nodes = _used_by_elements(targets, self.passes, body)
        for k, node in enumerate(nodes, start):
            frame.line(f"ready{k} = stack({TILE * node.dtype.itemsize})")
        if not nodes and not reductions:
            return
        with self._columns(masked=bool(nodes)):
            for r in reductions:
                frame.write(r.clear())
            values = [body.value(node) for node in nodes]
            frame.extend(body)
            for k, (node, value) in enumerate(zip(nodes, values), start):
                frame.line(f"w_write_{node.dtype.char}(ready{k}, v, {value})")
        self.ready += nodes

    @contextmanager
    def _columns(self, masked: bool = True) -> Iterator[None]:
        with self.frame.block("for v in range(0, width, 16):"):
            if masked:
                self.frame.line("m = w_mask(width, v)")
            yield

    def _body(self, top: Body) -> Body:
        """A body at column v that finds the results of earlier passes and what was made ready."""
        body = top.fork(lambda node: self.frame.load(node, "(tile + v)", "m"), wide=True)
        body.stored = {id(r.node): r.result() for r in self.reductions}
        for k, node in enumerate(self.ready):
            body.stored[id(node)] = f"w_read_{node.dtype.char}(ready{k}, v)"
        return body


def _used_by_elements(targets: list[Expr], passes: Passes, body: Body) -> list[Expr]:
    """Values per output, of some cost, that the computation of the elements uses directly."""
    inside = [n for n in missing(targets, {}) if id(n) in passes.elem]
    used = [a for n in inside for a in n.args if id(a) not in passes.elem and id(a) not in passes.fixed]
    return [a for a in dict.fromkeys(used) if WEIGHTS[a.op] and a.args and id(a) not in body.stored]
