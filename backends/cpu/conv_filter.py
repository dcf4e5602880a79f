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
from ...core.lower import copy, fill
from ...core.types import DType, Shape, contiguous_strides
from . import conv_direct
from .conv_axes import Axis, Pair, Product, Row, lift, lift_window
from .gemm import Left, Levels, Reduction, Side, product
from .panels import IMPORT, block, fill_zero, narrow, pack

#: bytes of filter gradients that are turned at once, and of padded images
PART = 1 << 20


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


def _padded(x: Operand, padding: tuple[Pair, ...]) -> Shape:
    """The shape of the images with zeros around."""
    n, c, *sizes = x.shape
    return (n, c, *(size + before + after for size, (before, after) in zip(sizes, padding)))


def _pad(program: Program, x: Operand, padding: tuple[Pair, ...], room: Operand | None = None) -> Operand:
    """Append a zero-padded contiguous copy of the images. room: memory for it, of as many channels or more."""
    n, c, h, w = x.shape
    shape, (top, left) = _padded(x, padding), (before for before, _ in padding)
    out = (
        program.scratch_operand(x.dtype, shape)
        if room is None
        else room._replace(shape=shape, strides=contiguous_strides(shape))
    )
    size, lanes = x.dtype.itemsize, block(x.dtype).lanes
    args: list[Arg] = [x.slot, out.slot, n, c, h, w, *(s * size for s in x.strides)]
    args += [top, left, *out.shape[2:], 3]
    program.launch(_pad_source(x.dtype, lanes), args, program.chunks(n * c, 2.0 * out.size * size))
    return out


def conv_w_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, groups: int, window: Row = (),
) -> None:  # fmt: skip
    """Append the filter gradient. g: [N, K, ...], x: [N, C, ...], out: [K, C / groups, ...]."""
    out, (g, x) = lift(outputs[0]), map(lift, inputs)
    stride, padding, dilation = lift_window(stride, padding, dilation)
    if out.size == 0:
        return
    if g.size == 0 or x.size == 0:
        fill_zero(program, out)
    elif conv_direct.applies(groups, out.shape[0] // groups):
        if g.strides[4] != 1 and g.shape[4] > 1:
            g = _dense(program, g)
        axes = tuple(
            Axis(n, p, s, r, d, -pads[0])
            for n, p, r, s, pads, d in zip(x.shape[2:], g.shape[2:], out.shape[2:], stride, padding, dilation)
        )
        filters = out.strides[0], out.strides[1], out.shape[0] // groups * out.strides[0]
        like = Product(x, out, g, out.shape[1], filters, (axes[0], axes[1], axes[2]), groups)
        conv_direct.filter_gradient(program, g, like)
    elif out.shape[2] == x.shape[2] == 1 and not any(padding[0]):
        _flat(program, _drop(g), _drop(x), _drop(out), stride[1:], padding[1:], dilation[1:], groups)
    else:
        _by_depth(program, g, x, out, stride, padding, dilation, groups)


def _dense(program: Program, x: Operand) -> Operand:
    dense = program.scratch_operand(x.dtype, x.shape)
    copy(program, x, dense)
    program.wave()
    return dense


def _drop(x: Operand, axis: int = 2) -> Operand:
    """x without an axis of which it is seen at 0."""
    return x._replace(
        shape=x.shape[:axis] + x.shape[axis + 1 :], strides=x.strides[:axis] + x.strides[axis + 1 :]
    )


def _part(x: Operand, axis: int, first: int, count: int, step: int = 1) -> Operand:
    """x at count places along an axis."""
    shape, strides = list(x.shape), list(x.strides)
    offset = x.offset + first * strides[axis] * x.dtype.itemsize
    shape[axis], strides[axis] = count, strides[axis] * step
    return x._replace(offset=offset, shape=tuple(shape), strides=tuple(strides))


def _by_depth(
    program: Program, g: Operand, x: Operand, out: Operand, stride: Row, padding: tuple[Pair, ...],
    dilation: Row, groups: int,
) -> None:  # fmt: skip
    """Three spatial axes: a plane of images for each result plane, once for every tap of the first axis."""
    n, channels, d, h, w = x.shape
    o = g.shape[2]
    (front, _), (top, bottom), (left, right) = padding
    planes = program.scratch_operand(g.dtype, (n, o, *g.shape[1:2], *g.shape[3:]))
    copy(program, _swap(g), planes)
    images = program.scratch_operand(x.dtype, (n, o, channels, h + top + bottom, w + left + right))
    fill_zero(program, images)
    part = program.scratch_operand(out.dtype, (out.shape[0], *_drop(out).shape[1:]))
    flat = [v._replace(shape=(n * o, *v.shape[2:]), strides=v.strides[1:]) for v in (planes, images)]
    for tap in range(out.shape[2]):
        program.wave()
        z = tap * dilation[0] - front
        first = min(o, max(0, -(z // stride[0])))
        last = max(first, min(o, -((z - d) // stride[0])))
        inner = _part(_part(images, 3, top, h), 4, left, w)
        for low, high in ((0, first), (last, o)):
            if high > low:
                hollow = _part(inner, 1, low, high - low)
                fill(program, 0, hollow)
        if last > first:
            source = _part(x, 2, first * stride[0] + z, last - first, stride[0])
            copy(program, _swap(source), _part(inner, 1, first, last - first))
        program.wave()
        _flat(program, flat[0], flat[1], part, stride[1:], ((0, 0), (0, 0)), dilation[1:], groups)
        program.wave()
        copy(program, part, _drop(_part(out, 2, tap, 1)))


def _swap(x: Operand) -> Operand:
    """[N, C, D, ...] as [N, D, C, ...]."""
    (n, c, d, *rest), (s0, s1, s2, *steps) = x.shape, x.strides
    return x._replace(shape=(n, d, c, *rest), strides=(s0, s2, s1, *steps))


def _flat(
    program: Program, g: Operand, x: Operand, out: Operand, stride: Row, padding: tuple[Pair, ...],
    dilation: Row, groups: int,
) -> None:  # fmt: skip
    """Two spatial axes."""
    rows = out.shape[0] // groups
    n, _, p, q = g.shape
    channels, r, s = out.shape[1:]
    tile, size = narrow(block(out.dtype)), out.dtype.itemsize
    if p > 1 and q > 1 and g.strides[2] != q * g.strides[3]:
        g = _dense(program, g)
    pixel = g.strides[3] if q > 1 else g.strides[2]
    if groups > 1 and any(map(any, padding)):
        x = _pad(program, x, padding)
    group_step = rows * g.strides[1]
    # A unit of the sum is some lines, or some images where they are small.
    images = max(1, tile.depth // (p * q))
    panels = pack(
        program, g, rows, g.strides[1], p * q, pixel, (1, n, groups), (0, g.strides[0], group_step),
        tile.width, tile.lanes, joined=1 if images > 1 else -1,
    )  # fmt: skip
    program.wave()
    lines = max(1, min(p, -(-tile.depth // q)))
    lines = -(-p // -(-p // lines))
    line = tile.width * size
    matrix = math.prod(panels.shape[1:]) * size
    if images > 1:
        right = Side(panels, (0, 0, matrix), 0, images * p * q * line, n * p * q * line, line)
        reduction = Reduction(1, n * p * q, images * p * q)
    else:
        right = Side(panels, (0, 0, matrix), groups * matrix, lines * q * line, p * q * line, line)
        reduction = Reduction(n, p * q, lines * q)
    # The product has the filters in its columns: it is turned in parts, whose working memory is one. So is that of
    # padded images, where channels of one group are wanted.
    pads, nbytes = any(map(any, padding)), out.size * size
    if pads and groups == 1:
        nbytes = max(nbytes, math.prod(_padded(x, padding)) * size)
    parts = max(1, min(channels, -(-nbytes // PART)))
    most = -(-channels // parts)
    working = program.scratch_operand(out.dtype, (groups, most * r * s, rows))
    room = None
    for first in range(0, channels, most):
        count = min(most, channels - first)
        part = _part(x, 1, first, channels * (groups - 1) + count)
        program.wave()
        if pads and groups == 1:
            part = room = _pad(program, part, padding, room)
            program.wave()
        x_n, x_c, x_y, x_x = (st * size for st in part.strides)
        taps = Levels(r, s, x_c, dilation[0] * x_y, dilation[1] * x_x)
        pixels = Levels(p if images > 1 else 1 << 62, q, x_n, stride[0] * x_y, stride[1] * x_x)
        unit = images * x_n if images > 1 else lines * stride[0] * x_y
        left = Left(part, (0, 0, channels * x_c), x_n, unit, taps, pixels)
        to = out._replace(offset=out.offset + first * r * s * size)
        product(
            program, count * r * s, rows, (1, 1, groups), reduction, left, right, to,
            transposed=working, tile=tile, out_step=channels * r * s, even=True,
        )  # fmt: skip


KERNELS = {"conv_w_grad": conv_w_grad}
