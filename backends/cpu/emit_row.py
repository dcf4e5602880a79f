"""Row kernels: the inner axis is reduced, its elements taken sixteen at a time.

A kernel is a chain of passes over the reduced axes. Pass p computes the reductions that depend on p - 1
others (softmax: 1 the maximum, 2 the sum); the last pass also stores the outputs of element level, so that an
output may take the place of an input. A value per element that a later pass needs again is computed again when
that is cheap, and kept in a scratch row when it is not.
"""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from .emit_expression import WEIGHTS, Body, missing
from .emit_frame import Frame
from .emit_reduction import BLOCK, Reduction

# A value that takes more instructions than this is worth a store and a load in the first-level cache.
KEEP_WEIGHT = 8


def emit_row(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a row kernel, and the scratch rows that it asks for."""
    return _Row(kernel).emit()


class _Row:
    def __init__(self, kernel: LoopKernel):
        self.kernel = kernel
        self.frame = Frame(kernel)
        self.order = walk(kernel.roots)
        levels = kernel.levels()
        self.elem = {k for k, level in levels.items() if level == "elem"}
        self.stage: dict[int, int] = {}
        for node in self.order:
            below = max((self.stage[id(a)] for a in node.args), default=0)
            self.stage[id(node)] = below + (node.op == "reduce")
        reduces = [n for n in self.order if n.op == "reduce"]
        self.reductions = [Reduction(n, f"r{k}") for k, n in enumerate(reduces)]
        self.elem_roots = [k for k, out in enumerate(kernel.outputs) if not out.row]
        self.passes = max(
            max((self.stage[id(n)] for n in reduces), default=0),
            max((self.stage[id(kernel.roots[k])] + 1 for k in self.elem_roots), default=0),
        )
        self.kept: dict[int, int] = {}
        self.kept_in: dict[int, int] = {}
        if kernel.reduced == 1 and not kernel.split:
            self._choose_kept()

    def _targets(self, number: int) -> list[Expr]:
        found = [r.operand for r in self.reductions if self.stage[id(r.node)] == number]
        if number == self.passes:
            found += [self.kernel.roots[k] for k in self.elem_roots]
        return found

    def _choose_kept(self) -> None:
        """Find the values that a pass stores for later ones: id(node) -> scratch row."""
        computed: dict[int, int] = {}
        for number in range(1, self.passes + 1):
            row_level = {id(n): "" for n in self.order if id(n) not in self.elem}
            entered = dict.fromkeys(row_level, "")
            waiting = self._targets(number)
            while waiting:
                node = waiting.pop()
                if id(node) in entered:
                    continue
                entered[id(node)] = ""
                if node.op == "arg":
                    continue
                first = computed.setdefault(id(node), number)
                if first < number and self._weight(node) > KEEP_WEIGHT:
                    if id(node) not in self.kept:
                        self.kept[id(node)] = len(self.kept)
                        self.kept_in[id(node)] = first
                    continue
                waiting += node.args

    def _weight(self, node: Expr) -> int:
        row_level = {id(n): "" for n in self.order if id(n) not in self.elem}
        return sum(WEIGHTS[n.op] for n in missing([node], row_level))

    def emit(self) -> tuple[str, int]:
        frame, kernel = self.frame, self.kernel
        frame.depth = 1
        top = Body(frame.scalar)
        for node in self.order:
            if node.op == "arg" and node.value in frame.scalars:
                top.value(node)
        frame.extend(top)
        for row in self.kept.values():
            frame.line(f"kept{row} = scratch + (chunk * {len(self.kept)} + {row}) * pitch * 8")
        with frame.kept_loop([*frame.inputs.values(), *frame.outputs]):
            if kernel.split:
                frame.split_range()
            row = top.fork(lambda node: frame.load(node, "0"))
            for number in range(1, self.passes + 1):
                self._emit_pass(number, row)
            for k, out in enumerate(kernel.outputs):
                if out.row:
                    value = row.value(kernel.roots[k])
                    frame.extend(row)
                    frame.store(k, "0", value)
        return frame.source(), len(self.kept)

    # ---- one pass

    def _emit_pass(self, number: int, row: Body) -> None:
        frame = self.frame
        reductions = [r for r in self.reductions if self.stage[id(r.node)] == number]
        blocked = [r for r in reductions if r.blocked]
        kept_before = {n for n, first in self.kept_in.items() if first < number}
        targets = self._targets(number)
        nodes = missing(targets, row.names | dict.fromkeys(kept_before, ""))
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
        if blocked:
            frame.line("filled = 0")
        inner = self.kernel.n_axes - 1
        low, high = frame.bounds(inner)
        with frame.reduced_loops(inner) as index:
            outer = row.fork(lambda node: frame.load(node, "0"))
            for node in nodes:
                if node.op == "arg" and id(node) in self.elem and frame.inputs[node.value].inner == "b":
                    outer.value(node)
            frame.extend(outer)
            if blocked:
                with frame.block(f"for block in range({low}, {high}, {BLOCK}):"):
                    frame.line(f"end = min(block + {BLOCK}, {high})")
                    self._vector_loop(number, outer, reductions, "block", "end", index, kept_before)
                    frame.line("filled += end - block")
                    with frame.block(f"if filled >= {BLOCK}:"):
                        for r in blocked:
                            frame.write(r.fold() + r.reset())
                        frame.line("filled = 0")
            else:
                self._vector_loop(number, outer, reductions, low, high, index, kept_before)
        for r in reductions:
            frame.write(r.finish())
            row.names[id(r.node)] = r.name

    def _vector_loop(
        self,
        number: int,
        outer: Body,
        reductions: list[Reduction],
        low: str,
        high: str,
        index: str,
        kept: set[int],
    ) -> None:
        frame = self.frame
        with frame.block(f"for v in range({low}, {high}, 16):"):
            frame.line(f"m = w_mask({high} - v)")
            body = outer.fork(lambda node: frame.load(node, "v", "m"), wide=True)
            for node in self.order:
                if id(node) in kept and self._wanted(node, number, body):
                    body.assign(node, f"w_load_{node.dtype.char}(kept{self.kept[id(node)]}, v, m)")
            targets = self._targets(number)
            # All loads stand before all stores: an output may be the same buffer as an input.
            for node in missing(targets, body.names):
                if node.op == "arg":
                    body.value(node)
            values = [body.value(t) for t in targets]
            frame.extend(body)
            for node in self.order:
                if self.kept_in.get(id(node)) == number:
                    frame.line(
                        f"w_store_{node.dtype.char}(kept{self.kept[id(node)]}, v, {body.names[id(node)]}, m)"
                    )
            for r, value in zip(reductions, values):
                frame.write(r.update(value, f"{index} * {frame.sizes[-1]} + v" if index else "v"))
            for k, value in zip(self.elem_roots, values[len(reductions) :]):
                frame.store(k, "v", value, "m")

    def _wanted(self, node: Expr, number: int, body: Body) -> bool:
        """Whether the pass needs this kept value itself."""
        names = body.names | {k: "" for k, first in self.kept_in.items() if first < number and k != id(node)}
        return any(n is node for n in missing(self._targets(number), names))
