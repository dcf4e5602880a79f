"""Epilogues: pointwise expressions applied to a matrix or convolution result while it is in the cache.

The result seen as [batch, rows, columns]: a convolution's columns are pixels, its rows channels. Inside a
kernel an operand has one stride per batch axis, one for rows and either 0 or 1 for columns, so that full
tensors, values per row (channel), per column and single numbers all fuse. What does not fit is computed by
a loop kernel after the result; both give the same bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from ...core.backend import Arg, Epilogue, Operand, Program, Scalar, Slot
from ...core.legalize import legalize
from ...core.lower import broadcast_strides, lower_map
from ...core.scalar import Expr, cast, substitute
from ...core.types import DType, Shape, contiguous_strides
from .conv_pool import Pool
from .emit_expression import expression_lines

_MATRIX_OPS = ("matmul", "conv", "conv_x_grad")


def takes_epilogue(op: str, out_shape: Shape, operand: Operand | Scalar) -> bool:
    """Whether `operand` may be read by an epilogue of `op` at full speed (any other is right, but slower)."""
    if op not in _MATRIX_OPS:
        return False
    if isinstance(operand, Scalar):
        return True
    strides = broadcast_strides(operand, out_shape)
    return _column_stride(out_shape, strides, len(out_shape) - 2 if op.startswith("conv") else 1) in (0, 1)


def _column_stride(shape: Shape, strides: Sequence[int], axes: int) -> int:
    """The stride with which the last axes are walked as one; -1 when they cannot be."""
    real = [(n, s) for n, s in zip(shape[-axes:], strides[-axes:]) if n != 1]
    for (_, outer), (n, inner) in itertools.pairwise(real):
        if outer != inner * n:
            return -1
    return real[-1][1] if real else 0


class View(NamedTuple):
    """An epilogue input inside a kernel: its steps along the batch axes and rows, and 0 or 1 for columns."""

    operand: Operand | Scalar
    batch: tuple[int, ...]
    row: int
    column: int


def fold(x: Operand, domain: Shape, batch: Shape, rows: int, columns: int) -> View | None:
    """`x`, which broadcasts to `domain`, as a View of [*batch, rows, columns]; None when it is not one."""
    strides = list(broadcast_strides(x, domain))
    sizes = list(domain)
    out: list[int] = []
    for target in reversed((*batch, rows, columns)):
        size, stride = 1, 0
        while size < target and sizes:
            n, s = sizes.pop(), strides.pop()
            if n == 1:
                continue
            if size > 1 and s != stride * size:
                return None
            size, stride = size * n, s if size == 1 else stride
        if size != target:
            return None
        out.append(stride)
    if out[0] not in (0, 1):
        return None
    return View(x, tuple(reversed(out[2:])), out[1], out[0])


class Finish(NamedTuple):
    """Text that reads slots, lines for a row of results and for a wide value, and the slots."""

    head: str
    row: tuple[str, ...]
    lines: tuple[str, ...]
    slots: list[Arg]


class FusedEpilogue(NamedTuple):
    """An epilogue inside a matrix kernel: text for its source and slots for its arguments."""

    epilogue: Epilogue
    views: tuple[View, ...]
    dtype: DType
    in_place: int  # the output that holds the plain result beforehand, or -1
    pool: Pool | None = None  # the result is finished where the plain one stands, then pooled

    def slots(self) -> list[Arg]:
        """Per input: a scalar's bits, or address, three batch strides and row stride; the outputs; the pooling's."""
        args: list[Arg] = []
        for v in self.views:
            if isinstance(v.operand, Scalar):
                args.append(Slot(v.operand.source))
            else:
                args += [v.operand.slot, *v.batch, v.row]
        args += [o.slot for o in self.epilogue.outputs]
        return args + self.pool.slots() if self.pool else args

    def head(self, first: int) -> list[str]:
        """Lines that read the slots, which start at number `first`."""
        lines = []
        for k, v in enumerate(self.views, 1):
            names = [f"e{k}"]
            if not isinstance(v.operand, Scalar):
                names += [f"e{k}_b0", f"e{k}_b1", f"e{k}_b2", f"e{k}_row"]
            for name in names:
                lines.append(f"{name} = args[{first}]")
                first += 1
        for k in range(len(self.epilogue.outputs)):
            lines.append(f"f{k} = args[{first + k}]")
        return lines + self.pool.head(first + len(self.epilogue.outputs)) if self.pool else lines

    def block(self) -> list[str]:
        """Lines that finish a block of results.

        They see: block_rows and block_cols; result and result_step (elements) of the plain result's memory
        and its element number at the block's first element `result_at`; out_at and out_step, the same for
        the outputs; batch0, batch1, batch2, first_row and first_column of the block. With pooling, a block is whole
        windows' lines of one image, and the outputs' places are not looked at.
        """
        load = f"x0 = w_load_{self.dtype.char}(result, here + lane, mask)"
        if self.pool is not None and self.pool.pairs:
            row, loads, computed, (value,) = self._texts()
            return self.pool.of_pairs(row, [load, *loads, *computed], value)
        place = ["here = result_at + block_row * result_step", "there = out_at + block_row * out_step"]
        to = "there"
        if self.pool is not None:
            place, to = place[:1], "here"
        row, loads, stores = self.parts(to)
        body = [*place, *row, *self._lanes([load, *loads, *stores])]
        lines = ["for block_row in range(block_rows):", *("    " + line for line in body)]
        if self.pool is None:
            return lines
        return [*(lines if stores else ()), *self.pool.lines()]

    def _lanes(self, lines: list[str]) -> list[str]:
        """Lines for all wide values of a row."""
        operands = [*self.epilogue.outputs, *(v.operand for v in self.views)]
        lines = ["    " + line for line in lines]
        if not any(x.dtype.is_half for x in operands):
            return ["for lane in range(0, block_cols, 16):", "    mask = w_mask(block_cols, lane)", *lines]
        # Without masks: rounding takes as long as memory.
        whole = ["whole = block_cols & -16", "for lane in range(0, whole, 16):", "    mask = w_all()", *lines]
        part = ["if whole < block_cols:", "    lane = whole", "    mask = w_mask(block_cols, whole)", *lines]
        return [*whole, *part]

    @staticmethod
    def in_registers(fused: FusedEpilogue | None, first: int) -> Finish:
        """What becomes of a wide value in a register, if anything: see `parts`; slots start at `first`."""
        if fused is None:
            return Finish("", (), (), [])
        fixed, loads, stores = fused.parts("there")
        if fused.pool is not None:
            _, loads, computed, (value,) = fused._texts()
            place = "((first_row - part * row_block) * 4 + quarter) * 16"
            stores = [*computed, f"w_write_{fused.dtype.char}(near, {place}, {value})"]
        return Finish(indent(fused.head(first), 4), tuple(fixed), (*loads, *stores), fused.slots())

    def parts(self, there: str) -> tuple[list[str], list[str], list[str]]:
        """Lines for a row of a block, for what is loaded beside the wide value x0 of it, and for what becomes of that.

        They see the block's place (see `block`), block_row, lane and mask. there: where lane 0 of the row goes.
        """
        row, loads, computed, results = self._texts()
        stores = [
            f"w_store_{o.dtype.char}({'result' if self.pool else f'f{k}'}, {there} + lane, {value}, mask)"
            for k, (o, value) in enumerate(zip(self.epilogue.outputs, results))
            if not (k == self.in_place and value == "x0")
        ]
        return row, loads, [*computed, *stores]

    def _texts(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """Lines for a row, for what is loaded and what is computed of a wide value, and the texts of the results."""
        row, loads, names = [], [], ["x0"]
        for k, v in enumerate(self.views, 1):
            char = v.operand.dtype.char
            names.append(f"x{k}")
            if isinstance(v.operand, Scalar):
                row.append(f"x{k} = {_number(k, v.operand)}")
                continue
            at = f"batch0 * e{k}_b0 + batch1 * e{k}_b1 + batch2 * e{k}_b2"
            at += f" + (first_row + block_row) * e{k}_row"
            if v.column:
                row.append(f"p{k} = {at} + first_column")
                loads.append(f"x{k} = w_load_{char}(e{k}, p{k} + lane, mask)")
            else:
                row.append(f"x{k} = load_{char}(e{k}, {at})")
        computed, results = expression_lines(self.epilogue.roots, names, 0, wide=True)
        return row, loads, computed, results


def _number(k: int, x: Scalar) -> str:
    """The text of the number in slot name e<k>, converted to its dtype."""
    char = x.dtype.char
    if x.dtype.is_float:
        return f"bits_f64(e{k})" if char == "f64" else f"v_cast_f64_{char}(bits_f64(e{k}))"
    return f"e{k}" if char == "i64" else f"v_cast_i64_{char}(e{k})"


def fuse(
    epilogue: Epilogue, batch: Sequence[int], rows: int, columns: int, dtype: DType, in_place: int,
    domain: Shape | None = None, pool: Pool | None = None,
) -> FusedEpilogue | None:  # fmt: skip
    """The epilogue for a kernel whose result is [*batch, rows, columns]; None when an input does not fit.

    domain: the shape that inputs broadcast to, where it is not the first output's.
    """
    if domain is None:
        domain = epilogue.outputs[0].shape
    views = []
    for x in epilogue.inputs:
        view = View(x, (), 0, 0) if isinstance(x, Scalar) else fold(x, domain, tuple(batch), rows, columns)
        if view is None:
            return None
        views.append(view)
    return FusedEpilogue(epilogue, tuple(views), dtype, in_place, pool)


def indent(lines: Sequence[str], depth: int) -> str:
    """Lines as text, each `depth` spaces in."""
    return "".join(" " * depth + line + "\n" for line in lines)


def halved(epilogue: Epilogue | None, result: Operand) -> Epilogue | None:
    """An epilogue in dtypes of registers: of a 16-bit result as work on its float32 sums, which are rounded first.

    None where there is no epilogue and nothing to round.
    """
    if epilogue is None:
        if result.dtype.is_plain:
            return None
        epilogue = Epilogue((Expr("arg", result.dtype, (), 0),), (), (result,))
    dtype, roots = result.dtype.computed, list(epilogue.roots)
    if result.dtype is not dtype:
        args = [cast(Expr("arg", dtype, (), 0), result.dtype)]
        roots = substitute(
            roots, args + [Expr("arg", x.dtype, (), k) for k, x in enumerate(epilogue.inputs, 1)]
        )
    sums = result._replace(dtype=dtype)
    inputs, roots, outputs = legalize([sums, *epilogue.inputs], roots, epilogue.outputs)
    return epilogue._replace(roots=tuple(roots), inputs=tuple(inputs[1:]), outputs=tuple(outputs))


def shared_output(epilogue: Epilogue, result: Operand) -> int:
    """The output of an epilogue that may hold the plain result beforehand, or -1."""
    same = [k for k, o in enumerate(epilogue.outputs) if o.dtype is result.dtype]
    plain = [k for k in same if (root := epilogue.roots[k]).op == "arg" and root.value == 0]
    return (*plain, *same, -1)[0]


def result_buffer(program: Program, epilogue: Epilogue, result: Operand) -> tuple[Operand, int]:
    """Where the plain result goes: (operand like `result`, the epilogue output that it is or -1)."""
    k = shared_output(epilogue, result)
    if k < 0:
        return program.scratch_operand(result.dtype, result.shape), -1
    o = epilogue.outputs[k]
    return Operand(o.source, o.offset, result.dtype, result.shape, contiguous_strides(result.shape)), k


def apply_after(program: Program, epilogue: Epilogue, result: Operand) -> None:
    """Append the epilogue as a loop kernel over the finished result."""
    domain = epilogue.outputs[0].shape
    if math.prod(domain) == 0:
        return
    program.wave()
    whole = result._replace(shape=domain, strides=contiguous_strides(domain))
    lower_map(program, domain, [whole, *epilogue.inputs], epilogue.roots, epilogue.outputs, ("epilogue",))
