"""The filter gradient of a convolution: one matrix product that is summed over all pixels of the batch.

dw[(c, tap), k] = sum over (image, pixel) of x * g: the rows read the padded image in place, through offsets,
and the columns are panels of g. Long sums are cut into pieces as those of any product are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Operand, Program
from ...core.lower import copy
from ...core.types import DType
from . import conv_direct
from .gemm import Left, Levels, Reduction, Side, product
from .panels import IMPORT, block, fill_zero, pack

Pair = tuple[int, int]


@functools.cache
def _pad_source(dtype: DType, lanes: int) -> str:
    char, size = dtype.char, dtype.itemsize
    return f"""# pad images {char}
{IMPORT}
def kernel(args, chunk, nchunks):
    x, out, images, channels, h, w = args[0], args[1], args[2], args[3], args[4], args[5]
    x_n, x_c, x_y, x_x, top, left = args[6], args[7], args[8], args[9], args[10], args[11]
    lines, line, parts = args[12], args[13], args[14]
    planes = images * channels
    for plane in range(planes * chunk // nchunks, planes * (chunk + 1) // nchunks):
        at = x + plane // channels * x_n + plane % channels * x_c
        to = out + plane * lines * line * {size}
        for j in range(0, line, {lanes}):
            length = min({lanes}, line - j)
            # Above, the image, below.
            first = 0
            for part in range(parts):
                low, high = left - j, left + w - j
                count = h
                if part != 1:
                    high = 0
                    count = top if part == 0 else lines - top - h
                there = to + (first * line + j) * {size}
                here = at + (j - left) * x_x
                if x_x == {size}:
                    copy_lanes_{char}(
                        there, line * {size}, here, x_y, count, length, low, min(high, length), {lanes}
                    )
                else:
                    gather_lanes_{char}(
                        there, line * {size}, here, x_y, x_x, count, length, low, min(high, length), {lanes}
                    )
                first += count
"""


def _pad(program: Program, x: Operand, padding: tuple[Pair, Pair]) -> Operand:
    """Append a zero-padded contiguous copy of the images."""
    n, c, h, w = x.shape
    (top, bottom), (left, right) = padding
    out = program.scratch_operand(x.dtype, (n, c, h + top + bottom, w + left + right))
    size, lanes = x.dtype.itemsize, block(x.dtype).lanes
    args: list[Arg] = [x.slot, out.slot, n, c, h, w, *(s * size for s in x.strides)]
    args += [top, left, *out.shape[2:], 3]
    program.launch(_pad_source(x.dtype, lanes), args, program.chunks(n * c, 2.0 * out.size * size))
    return out


def conv2d_w_grad(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    stride: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair,
    groups: int,
    window: Pair | None = None,
) -> None:
    """Append the filter gradient. g: [N, K, P, Q], x: [N, C, H, W], out: [K, C / groups, R, S]."""
    g, x = inputs
    out = outputs[0]
    if out.size == 0:
        return
    if g.size == 0 or x.size == 0:
        fill_zero(program, out)
        return
    rows = out.shape[0] // groups
    if conv_direct.applies(groups, rows):
        conv_direct.filter_gradient(program, g, x, out, (stride, padding, dilation, groups))
        return
    n, _, p, q = g.shape
    channels, r, s = out.shape[1:]
    tile, size = block(out.dtype), out.dtype.itemsize
    if p > 1 and q > 1 and g.strides[2] != q * g.strides[3]:
        dense = program.scratch_operand(g.dtype, g.shape)
        copy(program, g, dense)
        program.wave()
        g = dense
    pixel = g.strides[3] if q > 1 else g.strides[2]
    if any(map(any, padding)):
        x = _pad(program, x, padding)
    group_step = rows * g.strides[1]
    panels = pack(
        program, g, rows, g.strides[1], p * q, pixel, (1, n, groups), (0, g.strides[0], group_step),
        tile.width, tile.lanes,
    )  # fmt: skip
    program.wave()
    lines = max(1, min(p, -(-tile.depth // q)))
    lines = -(-p // -(-p // lines))
    matrix = math.prod(panels.shape[1:]) * size
    x_n, x_c, x_y, x_x = (st * size for st in x.strides)
    left = Left(
        x, (0, 0, channels * x_c), x_n, lines * stride[0] * x_y,
        Levels(r, s, x_c, dilation[0] * x_y, dilation[1] * x_x),
        Levels(1 << 62, q, 0, stride[0] * x_y, stride[1] * x_x),
    )  # fmt: skip
    unit = lines * q * tile.width * size
    right = Side(panels, (0, 0, matrix), groups * matrix, unit, p * q * tile.width * size, tile.width * size)
    reduction = Reduction(n, p * q, lines * q)
    product(program, channels * r * s, rows, (1, 1, groups), reduction, left, right, out, transposed=True)


KERNELS = {"conv2d_w_grad": conv2d_w_grad}
