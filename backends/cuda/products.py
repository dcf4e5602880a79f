"""Matrix products on a GPU: `product.cuh` says how. Results of few blocks and long sums are made in pieces of k.

The value of a result element depends on K, and for few blocks on M, N and the batch: no bit depends on the GPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import copy, fill, lower_reduce
from ...core.scalar import Expr
from ...core.types import DType

_TILE = 64
#: results of fewer blocks are made in pieces of K, of at least so many k, up to as many blocks
_BLOCKS, _PIECE = 128, 512
#: blocks of a launch at most; they stride over the rest
_GRID = 1 << 16


@functools.cache
def _source(dtype: DType, axes: int) -> str:
    kind = dtype.char
    batch = "".join(
        f"""
        const i64 i{n} = split_off(rest, args.at[{12 + 3 * n}]);
        at_a += i{n} * args.at[{13 + 3 * n}];
        at_b += i{n} * args.at[{14 + 3 * n}];"""
        for n in range(axes - 1, -1, -1)
    )
    return f"""// launch: grid threads=256
// matmul {dtype}
#include "product.cuh"

extern "C" __global__ void __launch_bounds__(256)
KERNEL(const __grid_constant__ Slots<{12 + 3 * axes}> args) {{
    const i64 m = args.at[0], n = args.at[1], k = args.at[2], length = args.at[3], total = args.at[4];
    const i64 down = (m + TILE - 1) / TILE, across = (n + TILE - 1) / TILE;
    for (i64 number = blockIdx.x; number < total; number += gridDim.x) {{
        i64 rest = number, at_a = 0, at_b = 0;
        const i64 column = split_off(rest, across), row = split_off(rest, down);
        {kind}* const out = ({kind}*)args.at[11] + rest * m * n;{batch}
        const i64 first = rest * length;  // of the piece of k
        const i64 depth = k - first < length ? k - first : length;
        const {kind}* const a = (const {kind}*)args.at[5] + at_a + first * args.at[7];
        const {kind}* const b = (const {kind}*)args.at[8] + at_b + first * args.at[9];
        const Side<{kind}> left = {{a, m, depth, args.at[6], args.at[7]}};
        const Side<{kind}> right = {{b, n, depth, args.at[10], args.at[9]}};
        product_tile(left, right, row * TILE, column * TILE, out);
    }}
}}
"""


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
    blocks = math.prod(batch) * -(-m // _TILE) * -(-n // _TILE)
    pieces = max(1, min(k // _PIECE, _BLOCKS // blocks))
    length = -(-k // pieces)
    pieces = -(-k // length)
    to = out if pieces == 1 else program.scratch_operand(out.dtype, (pieces, *out.shape))
    args: list[Arg] = [
        m,
        n,
        k,
        length,
        blocks * pieces,
        a.slot,
        *a.strides[-2:],
        b.slot,
        *b.strides[-2:],
        to.slot,
    ]
    for size, step_a, step_b in zip(batch, a.strides, b.strides):
        args += [size, step_a, step_b]
    program.launch(_source(out.dtype, len(batch)), args, min(blocks * pieces, _GRID))
    if pieces > 1:
        program.wave()
        root = Expr("reduce", out.dtype, (Expr("arg", out.dtype, (), 0),), "sum")
        lower_reduce(
            program,
            to.shape,
            (0,),
            [to],
            [root],
            [out._replace(shape=(1, *out.shape), strides=(0, *out.strides))],
        )


def _converted(program: Program, x: Operand, dtype: DType) -> Operand:
    """x in the dtype of the result."""
    if x.dtype is dtype:
        return x
    full = program.scratch_operand(dtype, x.shape)
    copy(program, x, full)
    program.wave()
    return full


KERNELS: dict[str, Kernel] = {"matmul": matmul}
