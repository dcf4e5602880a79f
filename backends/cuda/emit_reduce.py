"""Row and col kernels: reductions in passes over the reduced axes, with what comes before and after them.

Pass p computes the reductions that depend on p - 1 others (softmax: 1 the maximum, 2 the sum); the last pass
stores the outputs of element level, so that an output may take the place of an input. Each pass reads the
inputs again, from the first-level cache where the row fits in, and computes anew what the passes share.

    row   threads along x share a row; threads along y have rows of their own
    col   threads along x have an output each; threads along y share it

A thread adds up every x-th (y-th) element; the block then combines the threads' results (reduce.cuh). Threads
beyond the last row (not `live`) have no elements: they load and store nothing, and meet the others at barriers.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

from ...core import types as T
from ...core.errors import KernelError
from ...core.loops import LoopKernel
from ...core.scalar import Expr
from . import launch
from .emit_expression import Body, constant, highest, lowest
from .emit_frame import Frame

_COMBINE = {"sum": "Sum", "prod": "Prod", "max": "Max", "min": "Min", "any": "Any", "all": "All",
            "argmax": "ArgMax", "argmin": "ArgMin"}  # fmt: skip


class _Reduction(NamedTuple):
    """A reduce node: the C types of its partial results and how they begin."""

    node: Expr
    name: str
    combine: str
    type: str
    identity: str

    @property
    def operand(self) -> Expr:
        return self.node.args[0]

    @property
    def is_position(self) -> bool:
        return self.combine.startswith("Arg")

    def taken(self, value: str) -> str:
        """One element as a partial result."""
        return f"{self.type}{{{value}, number}}" if self.is_position else value

    @property
    def result(self) -> str:
        return f"{self.name}.index" if self.is_position else self.name


def _reduction(node: Expr, name: str) -> _Reduction:
    kind, dtype = node.value, node.args[0].dtype
    combine = _COMBINE.get(kind)
    if combine is None:
        raise KernelError("kernel", f"the reduction {kind!r} has no CUDA form", "report it as a defect")
    if combine.startswith("Arg"):
        return _Reduction(node, name, combine, f"Best<{dtype.char}>", f"{{{constant(0, dtype)}, -1}}")
    if combine in ("Any", "All"):
        dtype = T.bool_
    identity = {
        "sum": lambda: constant(0, dtype), "prod": lambda: constant(1, dtype), "max": lambda: lowest(dtype),
        "min": lambda: highest(dtype), "any": lambda: "false", "all": lambda: "true",
    }[kind]()  # fmt: skip
    return _Reduction(node, name, combine, dtype.char, identity)


def emit_reduce(kernel: LoopKernel) -> str:
    """Source text of a row or col kernel."""
    return _Emitter(kernel).emit()


class _Emitter:
    def __init__(self, kernel: LoopKernel):
        self.kernel = kernel
        self.frame = frame = Frame(kernel)
        self.is_row = kernel.form == "row"
        if self.is_row:
            frame.threads = launch.ROW_LANES
        self.along, self.across = ("x", "y") if self.is_row else ("y", "x")
        # Axes by role. In a col kernel the innermost one is kept too.
        self.kept = list(range(kernel.kept)) + ([] if self.is_row else [kernel.n_axes - 1])
        self.reduced = list(range(kernel.kept, kernel.kept + kernel.reduced))
        self.levels = kernel.levels()
        self.stage: dict[int, int] = {}
        for node in frame.order:
            below = max((self.stage[id(a)] for a in node.args), default=0)
            self.stage[id(node)] = below + (node.op == "reduce")
        reduces = [n for n in frame.order if n.op == "reduce"]
        self.reductions = [_reduction(n, f"r{k}") for k, n in enumerate(reduces)]
        self.elem_roots = [
            k for k, (out, root) in enumerate(zip(kernel.outputs, kernel.roots))
            if not out.row or self.levels[id(root)] == "elem"
        ]  # fmt: skip

    def emit(self) -> str:
        frame, kernel = self.frame, self.kernel
        self._shared()
        frame.line(f"const i64 items = {' * '.join(f'n{a}' for a in self.kept) or '1'};")
        top = Body(frame.scalar)
        for node in frame.order:
            if node.op == "arg" and node.value in frame.scalars:
                top.value(node)
        frame.extend(top)
        across = self.across
        first, stride = f"(i64)blockIdx.x * blockDim.{across}", f"(i64)gridDim.x * blockDim.{across}"
        with frame.block(f"for (i64 first = {first}; first < items; first += {stride})"):
            frame.line(f"const bool live = first + threadIdx.{across} < items;")
            frame.take_apart(f"first + threadIdx.{across}", self.kept)
            if kernel.split:
                self._split_range()
            reduced = [f"n{a}" for a in self.reduced]
            frame.line(
                f"const i64 count = live ? {' * '.join(['part', *reduced[1:]] if kernel.split else reduced)} : 0;"
            )
            frame.positions([*frame.inputs.values(), *frame.outputs], self.kept)
            row = top.fork(self._row_load)
            # Before any store: an output of row level may be the same buffer as an input.
            for node in frame.order:
                if node.op == "arg" and self.levels[id(node)] == "row":
                    row.value(node)
            for number in range(1, 1 + max((self.stage[id(r.node)] for r in self.reductions), default=0)):
                self._pass(row, [r for r in self.reductions if self.stage[id(r.node)] == number])
            self._store(row)
        return frame.source()

    def _shared(self) -> None:
        places = "ROW_PLACES" if self.is_row else "COLUMN_PLACES"
        for type in sorted({r.type for r in self.reductions}):
            self.frame.line(f"__shared__ {type} {_shared_name(type)}[{places}];")

    def _split_range(self) -> None:
        """This block's part of the first reduced axis."""
        frame, axis, block = self.frame, self.reduced[0], self.kernel.kept - 1
        frame.line(f"const i64 low = j{block} * length;")
        frame.line(f"const i64 part = n{axis} - low < length ? n{axis} - low : length;")

    def _row_load(self, node: Expr) -> str:
        text = self.frame.load(node, (), True)
        return f"live ? {text} : {constant(0, node.dtype)}" if self.frame.inputs[node.value].address else text

    def _reduced_loop(self) -> AbstractContextManager[None]:
        a = self.along
        return self.frame.block(f"for (i64 number = threadIdx.{a}; number < count; number += blockDim.{a})")

    def _element(self, row: Body) -> Body:
        """A body for one element of the reduced axes."""
        frame, first = self.frame, self.reduced[0]
        if self.kernel.split:
            frame.index[first] = "inside"
            frame.take_apart("number", self.reduced)
            frame.index[first] = f"j{first}"
            frame.line(f"const i64 j{first} = low + inside;")
        else:
            frame.take_apart("number", self.reduced)
        return row.fork(lambda node: frame.load(node, self._moving(node), True))

    def _moving(self, node: Expr) -> list[int]:
        return [] if self.kernel.inputs[node.value].row else self.reduced

    def _pass(self, row: Body, reductions: list[_Reduction]) -> None:
        frame = self.frame
        self._row_values(row, [r.operand for r in reductions])
        for r in reductions:
            frame.line(f"{r.type} {r.name} = {r.identity};")
        with self._reduced_loop():
            body = self._element(row)
            for r in reductions:
                value = body.value(r.operand)
                body.lines.append(f"{r.name} = {r.combine}::combine({r.name}, {r.taken(value)});")
            frame.extend(body)
        for r in reductions:
            frame.line(f"{r.name} = reduce_{self.along}<{r.combine}>({r.name}, {_shared_name(r.type)});")
            row.names[id(r.node)] = r.result

    def _row_values(self, row: Body, roots: list[Expr]) -> None:
        """Compute what the roots need and what is the same for the whole row."""
        waiting, seen = list(roots), set()
        while waiting:
            node = waiting.pop()
            if id(node) in row.names or id(node) in seen:
                continue
            seen.add(id(node))
            if self.levels[id(node)] == "row":
                row.value(node)
            else:
                waiting += node.args
        self.frame.extend(row)

    def _store(self, row: Body) -> None:
        frame, roots = self.frame, self.kernel.roots
        self._row_values(row, list(roots))
        if self.elem_roots:
            with self._reduced_loop():
                body = self._element(row)
                values = [body.value(roots[k]) for k in self.elem_roots]
                frame.extend(body)
                for k, value in zip(self.elem_roots, values):
                    frame.store(k, value, self.reduced, True)
        rest = [k for k in range(len(roots)) if k not in self.elem_roots]
        if rest:
            with frame.block(f"if (live && threadIdx.{self.along} == 0)"):
                for k in rest:
                    frame.store(k, row.value(roots[k]), (), True)


def _shared_name(type: str) -> str:
    return "shared_" + type.replace("<", "_").replace(">", "").lower()
