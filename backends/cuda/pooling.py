"""Pooling on a GPU, windows side by side (unfold) and added up (fold): `pool.cuh` says how.

A thread makes an element of the result; gradients are gathered, window after window, so that nothing is added at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program, float_bits
from ...core.lower import fill, lower_reduce
from ...core.scalar import Expr, const
from ...core.types import DType, int64
from ..cpu.conv_axes import Pair, Row, lift
from ..cpu.pooling_lines import Window, slots, windows_of
from ..cpu.resampling import positions
from .emit_expression import lowest
from .written import dense, per_item, start

#: slots beside the sizes: declaration and value (those of a structure)
Named = dict[str, Arg | list[Arg]]
_GRID = "grid: Grid 19"


@functools.cache
def _source(name: str, dtype: DType, slots: tuple[str, ...], operands: str) -> str:
    kind = dtype.char
    named = [_GRID, *(slot.replace("T*", f"{kind}*") for slot in slots)]
    body = f"{name}(grid, number, {operands.replace('LOWEST', lowest(dtype))});"
    return per_item(f"{name} {dtype}", "pool", named, body)


def _launch(
    program: Program, name: str, dtype: DType, sizes: Sequence[Arg], total: int,
    named: Named, operands: str = "",
) -> None:  # fmt: skip
    """Append a launch. named: slots after the sizes; operands: of the function, where they are not the names."""
    text = operands or ", ".join(slot.partition(":")[0] for slot in named)
    args = list(sizes)
    for value in named.values():
        args += value if isinstance(value, list) else [value]
    start(program, _source(name, dtype, tuple(named), text), total, args)


def _image(program: Program, x: Operand) -> Operand:
    x = dense(program, x)
    program.wave()
    return x


def max_pool(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False,
) -> None:  # fmt: skip
    """Append the maximum of each window of x: [N, C, ...]."""
    out = outputs[0]
    if out.size:
        x = _image(program, inputs[0])
        sizes = slots(x, out, (window, stride, padding, dilation))
        named: Named = {"x: const T*": x.slot, "out: T*": out.slot}
        _launch(program, "pool_max", x.dtype, sizes, out.size, named, "LOWEST, x, out")


def _index(program: Program, x: Operand, out: Operand, settings: Window) -> None:
    named: Named = {"x: const T*": x.slot, "out: i64*": out.slot}
    _launch(program, "pool_max_index", x.dtype, slots(x, out, settings), out.size, named, "LOWEST, x, out")


def max_pool_index(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False,
) -> None:  # fmt: skip
    """Append the place of each window's first maximum."""
    if outputs[0].size:
        _index(program, _image(program, inputs[0]), outputs[0], (window, stride, padding, dilation))


def max_pool_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False,
) -> None:  # fmt: skip
    """Append the gradient for x of inputs (g, out, x): to the first maximum in row-major order."""
    dx = outputs[0]
    if dx.size == 0:
        return
    if inputs[0].size == 0:
        return fill(program, 0, dx)
    g, x = dense(program, inputs[0]), dense(program, inputs[2])
    program.wave()
    settings = window, stride, padding, dilation
    places = program.scratch_operand(int64, g.shape)
    _index(program, x, places, settings)
    program.wave()
    named: Named = {"index: const i64*": places.slot, "dy: const T*": g.slot, "dx: T*": dx.slot}
    _launch(program, "pool_max_gradient", dx.dtype, slots(dx, g, settings), dx.size, named)


def _share(
    image: Operand, result: Operand, settings: Window, include: bool, divisor: int | None
) -> tuple[list[Arg], int, bool]:
    """The slots of `Share`, the factor's bits, and whether the CPU has a kernel that unrolls these windows.

    That one takes windows in their order, and multiplies where all windows are whole.
    """
    window, stride, padding, dilation = settings
    n = 3 - len(window)
    full = ((0, 0),) * n + padding
    low = [-before if include else 0 for before, _ in full]
    high = [m + after if include else m for m, (_, after) in zip(lift(image).shape[2:], full)]
    unrolled = window in ((2, 2), (3, 3)) and stride in ((1, 1), (2, 2), (3, 3)) and dilation == (1, 1)
    ends = [(p - 1) * s + k - pads[0] for p, s, k, pads in zip(result.shape[2:], stride, window, padding)]
    beyond = any(e > m + pads[1] for e, m, pads in zip(ends, image.shape[2:], padding))
    unrolled = unrolled and divisor is None and not (include and beyond)
    factor = image.dtype.array(1.0 / math.prod(window)).item()
    return [divisor or 0, *low, *high, int(unrolled and include)], float_bits(factor), unrolled


def avg_pool(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> None:  # fmt: skip
    """Append the mean of each window of x: [N, C, ...]."""
    out = outputs[0]
    if out.size == 0:
        return
    if divisor_override is None and window == inputs[0].shape[2:] and not any(any(pads) for pads in padding):
        return _whole_mean(program, inputs[0], out)
    x = _image(program, inputs[0])
    settings = window, stride, padding, dilation
    share, factor, _ = _share(x, out, settings, count_include_pad, divisor_override)
    named: Named = {
        "share: Share 8": share,
        "factor: f64": factor,
        "x: const T*": x.slot,
        "out: T*": out.slot,
    }
    _launch(program, "pool_mean", x.dtype, slots(x, out, settings), out.size, named)


def _whole_mean(program: Program, x: Operand, out: Operand) -> None:
    """Append the mean of every image: a reduction by rows."""
    total = Expr("reduce", x.dtype, (Expr("arg", x.dtype, (), 0),), "sum")
    mean = Expr("div", x.dtype, (total, const(math.prod(x.shape[2:]), x.dtype)))
    lower_reduce(
        program, x.shape, tuple(range(2, len(x.shape))), [x], [mean], [out], ("avg_pool of whole images",)
    )


def avg_pool_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None, size: Row = (),
) -> None:  # fmt: skip
    """Append the gradient for x of inputs (g,): spread evenly over each window."""
    dx = outputs[0]
    if dx.size == 0:
        return
    if inputs[0].size == 0:
        return fill(program, 0, dx)
    g = _image(program, inputs[0])
    settings = window, stride, padding, dilation
    share, factor, unrolled = _share(dx, g, settings, count_include_pad, divisor_override)
    named: Named = {"share: Share 8": share, "factor: f64": factor, "backwards": int(not unrolled)}
    named |= {"dy: const T*": g.slot, "dx: T*": dx.slot}
    _launch(program, "pool_mean_gradient", dx.dtype, slots(dx, g, settings), dx.size, named)


def unfold(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row,
) -> None:  # fmt: skip
    """Append the elements of all windows, [N, C * taps, positions]."""
    out = outputs[0]
    if out.size:
        x, settings = _image(program, inputs[0]), (window, stride, padding, dilation)
        sizes = slots(x, windows_of(x, positions(x.shape[2:], *settings)), settings)
        named: Named = {"x: const T*": x.slot, "out: T*": out.slot}
        _launch(program, "windows_apart", x.dtype, sizes, out.size, named)


def fold(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: Row, window: Row, stride: Row,
    padding: tuple[Pair, ...], dilation: Row,
) -> None:  # fmt: skip
    """Append the sum of windows, [N, C, *size]."""
    out = outputs[0]
    if out.size:
        x, settings = _image(program, inputs[0]), (window, stride, padding, dilation)
        sizes = slots(out, windows_of(out, positions(size, *settings)), settings)
        named: Named = {"x: const T*": x.slot, "out: T*": out.slot}
        _launch(program, "windows_together", x.dtype, sizes, out.size, named)


KERNELS: dict[str, Kernel] = {
    "max_pool": max_pool, "max_pool_index": max_pool_index, "max_pool_x_grad": max_pool_x_grad, "avg_pool": avg_pool,
    "avg_pool_x_grad": avg_pool_x_grad, "unfold": unfold, "fold": fold,
}  # fmt: skip
