"""Column kernels: the inner axis is kept, sixteen outputs side by side; the reduced axes are outside it.

The inner axis is cut into tiles, so that the accumulators of a tile stay in the first-level cache while the
rows of the operand pass by.
"""

from __future__ import annotations

from contextlib import ExitStack

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from .emit_expression import WEIGHTS, Body, missing
from .emit_frame import Frame
from .emit_reduction import BLOCK_ROWS, TILE, ColumnReduction


def emit_col(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a column kernel, and 0 scratch rows."""
    return _Column(kernel).emit(), 0


class _Column:
    def __init__(self, kernel: LoopKernel):
        self.kernel = kernel
        self.frame = Frame(kernel)
        self.order = walk(kernel.roots)
        self.elem = {k for k, level in kernel.levels().items() if level == "elem"}
        reduces = [n for n in self.order if n.op == "reduce"]
        self.reductions = [ColumnReduction(n, f"r{k}") for k, n in enumerate(reduces)]
        self.operands = [r.operand for r in self.reductions]
        self.fixed = self._fixed()
        self.prepared = self._prepared()

    def _fixed(self) -> set[int]:
        """Nodes that are the same for the whole kernel."""
        out: set[int] = set()
        for node in self.order:
            if node.op == "arg":
                if node.value in self.frame.scalars:
                    out.add(id(node))
            elif node.op != "reduce" and all(id(a) in out or a.op == "const" for a in node.args):
                out.add(id(node))
        return out

    def _prepared(self) -> list[Expr]:
        """Costly values per output that the elements need: computed once per tile."""
        inside = missing(self.operands, {})
        needed = {id(a) for n in inside if id(n) in self.elem for a in n.args}
        return [
            n
            for n in inside
            if id(n) in needed and id(n) not in self.elem and id(n) not in self.fixed and WEIGHTS[n.op] and n.args
        ]

    def emit(self) -> str:
        frame, kernel = self.frame, self.kernel
        frame.depth = 1
        size = frame.sizes[-1]
        top = Body(frame.scalar)
        for node in self.order:
            if id(node) in self.fixed and node.op != "const":
                top.value(node)
        frame.extend(top)
        for r in self.reductions:
            frame.write(r.memory())
        for k, node in enumerate(self.prepared):
            frame.line(f"ready{k} = stack({TILE * max(1, node.dtype.itemsize)})")
        with frame.kept_loop([*frame.inputs.values(), *frame.outputs]):
            if kernel.split:
                frame.split_range()
            with frame.block(f"for tile in range(0, {size}, {TILE}):"):
                frame.line(f"width = min({size} - tile, {TILE})")
                self._emit_tile(top)
        return frame.source()

    def _emit_tile(self, top: Body) -> None:
        frame = self.frame
        blocked = [r for r in self.reductions if r.blocked]
        with self._columns():
            for r in self.reductions:
                frame.write(r.clear())
            if self.prepared:
                frame.line("m = w_mask(width - v)")
                body = self._body(top)
                values = [body.value(n) for n in self.prepared]
                frame.extend(body)
                for k, (node, value) in enumerate(zip(self.prepared, values)):
                    frame.line(f"w_store_{node.dtype.char}(ready{k}, v, {value}, w_mask(16))")
        if blocked:
            frame.line("filled = 0")
        with frame.reduced_loops(frame.kernel.n_axes - 1) as index, ExitStack() as stack:
            with self._columns():
                frame.line("m = w_mask(width - v)")
                body = self._body(top)
                for k, node in enumerate(self.prepared):
                    if any(n is node for n in missing(self.operands, body.names)):
                        body.assign(node, f"w_load_{node.dtype.char}(ready{k}, v, m)")
                values = [body.value(x) for x in self.operands]
                frame.extend(body)
                for r, value in zip(self.reductions, values):
                    frame.write(r.update(value, index))
            if blocked:
                frame.line("filled += 1")
                stack.enter_context(frame.block(f"if filled == {BLOCK_ROWS}:"))
                frame.line("filled = 0")
                with self._columns():
                    for r in blocked:
                        frame.write(r.fold() + r.clear(first=False))
        with self._columns():
            frame.line("m = w_mask(width - v)")
            body = self._body(top)
            for r in self.reductions:
                body.assign(r.node, r.result())
            values = [body.value(root) for root in frame.kernel.roots]
            frame.extend(body)
            for k, value in enumerate(values):
                frame.store(k, "(tile + v)", value, "m")

    def _columns(self):  # type: ignore[no-untyped-def]
        return self.frame.block("for v in range(0, width, 16):")

    def _body(self, top: Body) -> Body:
        return top.fork(lambda node: self.frame.load(node, "(tile + v)", "m"), wide=True)
