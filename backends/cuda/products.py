"""Matrix products on a GPU: `product.cuh` says how. Results of few blocks and long sums are made in pieces of k.

The value of a result element depends on K, and for few blocks on M, N and the batch: no bit depends on the GPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import copy, fill, lower_reduce
from ...core.scalar import Expr
from ...core.types import DType
from .written import per_block, start

TILE = 64
#: results of fewer blocks are made in pieces of K, of at least so many k, up to as many blocks
_BLOCKS, _PIECE = 128, 512


class Pieces(NamedTuple):
    """How the sums of a product are divided: into `number` of up to `length` k, each a result of its own in `to`."""

    number: int
    length: int
    to: Operand


def in_pieces(program: Program, out: Operand, blocks: int, k: int) -> Pieces:
    """The pieces for a product of so many blocks and k; `to` is `out` itself where there is one piece."""
    pieces = max(1, min(k // _PIECE, _BLOCKS // blocks))
    length = -(-k // pieces)
    pieces = -(-k // length)
    to = out if pieces == 1 else program.scratch_operand(out.dtype, (pieces, *out.shape))
    return Pieces(pieces, length, to)


def add_pieces(program: Program, pieces: Pieces, out: Operand) -> None:
    """Append the sum of the pieces' results, in their order."""
    if pieces.number == 1:
        return
    program.wave()
    root = Expr("reduce", out.dtype, (Expr("arg", out.dtype, (), 0),), "sum")
    result = out._replace(shape=(1, *out.shape), strides=(0, *out.strides))
    lower_reduce(program, pieces.to.shape, (0,), [pieces.to], [root], [result])


def tiles(dtype: DType) -> list[str]:
    """The shared memory of a product."""
    return [f"{dtype.char} {name}[DEPTH * LINE]" for name in ("tile_a", "tile_b")]


@functools.cache
def _source(dtype: DType, axes: int) -> str:
    kind = dtype.char
    slots = [
        "m",
        "n",
        "k",
        "length",
        f"a: const {kind}*",
        "a_row",
        "a_k",
        f"b: const {kind}*",
        "b_k",
        "b_column",
    ]
    slots += [f"out: {kind}*"]
    for n in range(axes):
        slots += [f"n{n}", f"a{n}", f"b{n}"]
    lines = ["i64 rest = number, at_a = 0, at_b = 0;"]
    lines += ["const i64 column = split_off(rest, (n + TILE - 1) / TILE);"]
    lines += ["const i64 row = split_off(rest, (m + TILE - 1) / TILE);"]
    lines += [f"const Target<{kind}> to = {{out + rest * m * n, n}};"]
    for n in range(axes - 1, -1, -1):
        lines += [
            f"const i64 i{n} = split_off(rest, n{n});",
            f"at_a += i{n} * a{n};",
            f"at_b += i{n} * b{n};",
        ]
    lines += [
        "const i64 first = rest * length;  // of the piece of k",
        "const i64 depth = k - first < length ? k - first : length;",
        f"const Side<{kind}> left = {{a + at_a + first * a_k, m, depth, a_row, a_k, a_k == 1}};",
        f"const Side<{kind}> right = {{b + at_b + first * b_k, n, depth, b_column, b_k, b_k == 1}};",
        "NoSteps steps;",
        "product_tile(left, right, steps, row * TILE, column * TILE, to, tile_a, tile_b);",
    ]
    return per_block(f"matmul {dtype}", "product", slots, "\n".join(lines), tiles(dtype))


def matmul(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Append out = a @ b. a: [..., M, K], b: [..., K, N] of any strides, out: [..., M, N], one rank."""
    out = outputs[0]
    if out.size == 0:
        return
    a, b = (_converted(program, x, out.dtype) for x in inputs)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if k == 0:
        fill(program, 0, out)
        return
    batch = out.shape[:-2]
    blocks = math.prod(batch) * -(-m // TILE) * -(-n // TILE)
    pieces = in_pieces(program, out, blocks, k)
    args: list[Arg] = [
        m,
        n,
        k,
        pieces.length,
        a.slot,
        *a.strides[-2:],
        b.slot,
        *b.strides[-2:],
        pieces.to.slot,
    ]
    for size, step_a, step_b in zip(batch, a.strides, b.strides):
        args += [size, step_a, step_b]
    start(program, _source(out.dtype, len(batch)), blocks * pieces.number, args)
    add_pieces(program, pieces, out)


def _converted(program: Program, x: Operand, dtype: DType) -> Operand:
    """x in the dtype of the result."""
    if x.dtype is dtype:
        return x
    full = program.scratch_operand(dtype, x.shape)
    copy(program, x, full)
    program.wave()
    return full


KERNELS: dict[str, Kernel] = {"matmul": matmul}
