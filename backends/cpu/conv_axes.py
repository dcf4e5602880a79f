"""A convolution as its kernels see it: three spatial axes, each read through windows, and filters with strides."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...core.backend import Operand, Program

Pair = tuple[int, int]
Row = tuple[int, ...]


class Axis(NamedTuple):
    """A spatial axis of a windowed read: source index = out * step + tap * tap_step + origin, below `size`.

    out: how many results there are, written to out * out_step + out_origin; taps: filter index = tap *
    filter_step + filter_origin.
    """

    size: int
    out: int
    step: int
    taps: int
    tap_step: int
    origin: int
    out_step: int = 1
    out_origin: int = 0
    filter_step: int = 1
    filter_origin: int = 0


Axes = tuple[Axis, Axis, Axis]


def in_place(axes: Axes) -> bool:
    """Whether no window leaves the images."""
    return all(
        a.origin + min(0, (a.taps - 1) * a.tap_step) >= 0
        and a.origin + (a.out - 1) * a.step + max(0, (a.taps - 1) * a.tap_step) < a.size
        for a in axes
    )


#: About how many (channel, tap) products make one chain of additions.
_DEPTH = 192


class Product(NamedTuple):
    """A windowed product out = x * w. x, w and out have three spatial axes.

    x: [N, groups * channels, D, H, W]; out: [N, groups * rows, ...]; filters: strides of w (elements) by row of
    the product, by summed channel and by group.
    """

    x: Operand
    w: Operand
    out: Operand
    channels: int
    filters: tuple[int, int, int]
    axes: Axes
    groups: int


def product_of(
    x: Operand, w: Operand, out: Operand, stride: Row, padding: tuple[Pair, ...], dilation: Row, groups: int
) -> Product:
    """The windowed product that a convolution is."""
    out, x, w = lift(out), lift(x), lift(w)
    window = lift_window(stride, padding, dilation)
    axes = tuple(
        Axis(n, p, s, r, d, -pads[0]) for n, p, r, s, pads, d in zip(x.shape[2:], out.shape[2:], w.shape[2:], *window)
    )  # fmt: skip
    filters = w.strides[0], w.strides[1], w.shape[0] // groups * w.strides[0]
    return Product(x, w, out, w.shape[1], filters, (axes[0], axes[1], axes[2]), groups)


def chain(product: Product) -> int:
    """Channels of a chain of additions."""
    channels, taps = product.channels, product.axes[1].taps * product.axes[2].taps
    return -(-channels // max(1, -(-channels * taps // max(_DEPTH, taps))))


def flat(product: Product) -> Product:
    """The same product with planes seen as one line, where windows of one element walk neighbours."""
    x, out, (front, y, z) = product.x, product.out, product.axes
    same = all(a.taps == a.step == a.out_step == 1 for a in (y, z)) and z.size == z.out and y.size >= y.out
    if not same or any(a.origin or a.out_origin or a.filter_origin for a in (y, z)) or y.size == 1:
        return product
    if x.strides[3] != x.strides[4] * z.size:
        return product
    see = lambda v: v._replace(shape=(*v.shape[:3], 1, v.shape[3] * v.shape[4]))
    pixels = y.out * z.size
    axes = front, z._replace(size=1, out=1), z._replace(size=pixels, out=pixels)
    return product._replace(x=see(x), out=see(out), axes=axes)


#: bytes of a plane that threads share out by place
_PLANE_BYTES = 1 << 13


def by_place(out: Operand) -> bool:
    """Whether each thread has some lines of all channels, not all lines of some, one layer after the other.

    What a core writes after another has read it, or beside it in a line of the cache, waits for that core.
    """
    nbytes = math.prod(out.shape[2:]) * out.dtype.itemsize
    return nbytes >= _PLANE_BYTES and nbytes % 64 == 0


class Tasks(NamedTuple):
    """How a product is divided: rows and columns of a task, chunks, and about how many cycles a thread works."""

    rows: int
    columns: int
    chunks: int
    cycles: float


def whole_units(pixels: int, unit: int) -> int:
    """About so many pixels: those of whole units."""
    return max(1, pixels // unit) * unit if unit > 1 else pixels


#: bytes that the chunks of a kernel may have for themselves, where that leaves two for each thread
_WORKING = 1 << 20


def fewer_chunks(program: Program, chunks: int, nbytes: int) -> int:
    """`chunks`, or as many as need no more than some memory. nbytes: of each one's own."""
    threads = program.backend.num_threads()
    most = max(2 * threads, _WORKING // nbytes)
    return chunks if chunks <= most else most - most % threads


def lift(x: Operand) -> Operand:
    """x with three spatial axes: those it has come last."""
    n = 5 - len(x.shape)
    return x._replace(
        shape=(*x.shape[:2], *(1,) * n, *x.shape[2:]), strides=(*x.strides[:2], *(0,) * n, *x.strides[2:])
    )


def lift_window(stride: Row, padding: tuple[Pair, ...], dilation: Row) -> tuple[Row, tuple[Pair, ...], Row]:
    """The window's settings for three spatial axes."""
    n = 3 - len(stride)
    return (1,) * n + stride, ((0, 0),) * n + padding, (1,) * n + dilation


def output_steps(out: Operand, axes: Axes) -> tuple[int, int, int, int]:
    """Elements of a front plane, a line and a whole image of `out`, and its first element that is written."""
    area, line = out.shape[3] * out.shape[4], out.shape[4]
    first = axes[0].out_origin * area + axes[1].out_origin * line + axes[2].out_origin
    return area, line, math.prod(out.shape[2:]), first


def phases(size: int, taps: int, out: int, stride: int, pad: int, dilation: int) -> list[Axis]:
    """The axis of the image gradient by image index modulo stride, without phases that no tap reaches."""
    found = []
    period = stride // math.gcd(stride, dilation)
    # The first tap that reaches each phase: no more phases than taps, however large the stride.
    reached = {(r * dilation - pad) % stride: r for r in reversed(range(min(period, taps)))}
    for phase, first in sorted(reached.items()):
        if phase >= size:
            break
        found.append(
            Axis(
                out, len(range(phase, size, stride)), 1,
                len(range(first, taps, period)), -(period * dilation // stride),
                (phase + pad - first * dilation) // stride,
                stride, phase, period, first,
            )
        )  # fmt: skip
    return found
