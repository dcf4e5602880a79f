"""Convolution and its gradients on a GPU: implicit matrix products (`conv.cuh`), one kernel for one to three axes.

The forward product and the image gradient are one kernel, as on the CPU: the gradient convolves dy with the filters
turned round, once for every phase of the stride. The filters' gradient sums over pixels where the others sum over
taps. No operand is copied, whatever its strides.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import fill
from ...core.types import DType
from ..cpu.conv_axes import Axes, Axis, Pair, Row, lift, lift_window, phases
from .products import TILE, Pieces, add_pieces, in_pieces, tiles
from .written import per_block, start

#: numbers in `Windows` of conv.cuh
_WINDOWS = 54


@functools.cache
def _source(name: str, dtype: DType) -> str:
    kind = dtype.char
    slots = [f"x: const {kind}*", f"other: const {kind}*", f"out: {kind}*", f"windows: Windows {_WINDOWS}"]
    return per_block(
        f"{name} {dtype}",
        "conv",
        slots,
        f"{name}<{kind}>(windows, number, x, other, out, spots, tile_a, tile_b);",
        ["Spot spots[DEPTH]", *tiles(dtype)],
    )


def _windows(
    x: Operand, w: Operand, w_group: int, out: Operand, axes: Axes, groups: int, pieces: Pieces
) -> list[Arg]:
    """The slots of `Windows`. x, w, out: lifted; w as [row, channel, ...] of a group, w_group: from one to the next."""
    m, channels = out.shape[1] // groups, x.shape[1] // groups
    args: list[Arg] = [*x.strides, *w.strides, *out.strides]
    args += [channels * x.strides[1], w_group, m * out.strides[1]]
    args += [x.shape[0], m, channels, groups, pieces.length, pieces.to.size // pieces.number]
    for axis in axes:
        args += axis
    return args


def _forward_axes(x: Operand, w: Operand, out: Operand, window: Any) -> Axes:
    z, y, a = (
        Axis(n, p, s, r, d, -pads[0])
        for n, p, r, s, pads, d in zip(x.shape[2:], out.shape[2:], w.shape[2:], *window)
    )
    return z, y, a


def _blocks(m: int, n: int, groups: int) -> int:
    return groups * -(-m // TILE) * -(-n // TILE)


def _product(
    program: Program, x: Operand, w: Operand, w_group: int, out: Operand, axes: Axes, groups: int, whole: bool
) -> None:
    """Append a windowed product; whole: it makes all of `out`, which may then be made in pieces of the sums."""
    m, taps = out.shape[1] // groups, math.prod(a.taps for a in axes) * (x.shape[1] // groups)
    blocks = _blocks(m, x.shape[0] * math.prod(a.out for a in axes), groups)
    pieces = in_pieces(program, out, blocks, taps) if whole else Pieces(1, taps, out)
    args = [x.slot, w.slot, pieces.to.slot, *_windows(x, w, w_group, out, axes, groups, pieces)]
    start(program, _source("convolution", out.dtype), blocks * pieces.number, args)
    add_pieces(program, pieces, out)


def conv(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, groups: int,
) -> None:  # fmt: skip
    """Append conv. x: [N, C, ...], w: [K, C / groups, ...], of any strides; out: [N, K, ...]."""
    if outputs[0].size == 0:
        return
    x, w, out = map(lift, (*inputs, outputs[0]))
    if w.shape[1] == 0:
        return fill(program, 0, out)
    axes = _forward_axes(x, w, out, lift_window(stride, padding, dilation))
    _product(program, x, w, w.shape[0] // groups * w.strides[0], out, axes, groups, True)


def conv_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, groups: int, size: Row = (),
) -> None:  # fmt: skip
    """Append the image gradient. g: [N, K, ...], w: [K, C / groups, ...], out: [N, C, ...]."""
    if outputs[0].size == 0:
        return
    g, w, out = map(lift, (*inputs, outputs[0]))
    if g.size == 0:
        return fill(program, 0, out)
    window = lift_window(stride, padding, dilation)
    by_axis = [
        phases(n, r, p, s, pads[0], d)
        for n, p, r, s, pads, d in zip(out.shape[2:], g.shape[2:], w.shape[2:], *window)
    ]
    if math.prod(sum(a.out for a in each) for each in by_axis) < math.prod(out.shape[2:]):
        fill(program, 0, out)  # no tap reaches some of the phases
        program.wave()
    windows = list(itertools.product(*by_axis))
    # Rows are the filters' channels, summed channels the filters of a group.
    turned = w._replace(
        shape=(w.shape[1], w.shape[0], *w.shape[2:]), strides=(w.strides[1], w.strides[0], *w.strides[2:])
    )
    for z, y, a in windows:
        whole = len(windows) == 1 and set(stride) == {1}
        _product(program, g, turned, w.shape[0] // groups * w.strides[0], out, (z, y, a), groups, whole)


def conv_w_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, groups: int, window: Row = (),
) -> None:  # fmt: skip
    """Append the filters' gradient. g: [N, K, ...], x: [N, C, ...], out: [K, C / groups, ...]."""
    if outputs[0].size == 0:
        return
    g, x, out = map(lift, (*inputs, outputs[0]))
    if g.size == 0:
        return fill(program, 0, out)
    axes = _forward_axes(x, out, g, lift_window(stride, padding, dilation))
    m, taps = g.shape[1] // groups, math.prod(out.shape[1:])
    pixels = g.shape[0] * math.prod(g.shape[2:])
    blocks = _blocks(m, taps, groups)
    pieces = in_pieces(program, out, blocks, pixels)
    args = [x.slot, g.slot, pieces.to.slot, *_windows(x, out, m * out.strides[0], g, axes, groups, pieces)]
    start(program, _source("filter_gradient", out.dtype), blocks * pieces.number, args)
    add_pieces(program, pieces, out)


KERNELS: dict[str, Kernel] = {"conv": conv, "conv_x_grad": conv_x_grad, "conv_w_grad": conv_w_grad}
