"""Functions over spatial axes, by the names and arguments of torch.nn.functional: convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.autocast import is_autocast_enabled
from ..core.errors import ArgumentError, ShapeError
from ..core.ops import REGISTRY as _OPS
from ..core.ops import shape as _S
from ..core.ops.resample import adaptive_max_pool_index
from ..core.ops.window import row, speaking_as
from ..core.value import Tensor
from .arguments import Floats, Ints, Pads, Sizes

_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


def _named(name: str, doc: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return fn


def _batch(name: str, x: Any, n: int) -> tuple[Tensor, bool]:
    """x with a batch axis, and whether it lacked one. Raises: ShapeError."""
    if x.ndim == n + 1:
        return _S.expand_dims(x, axis=0), True
    if x.ndim != n + 2:
        raise ShapeError(
            name, f"takes [N, C, {_AXES[n]}] or [C, {_AXES[n]}], got {x.type}", "add or merge axes"
        )
    return x, False


def _unbatch(y: Any, lacked: bool) -> Any:
    return _S.squeeze(y, axis=0) if lacked else y


# ---------------------------------------------------------------- convolution


def _biased(name: str, y: Tensor, bias: Tensor | None, n: int) -> Tensor:
    if bias is None:
        return y
    if bias.shape != (y.shape[1],):
        raise ShapeError(
            name, f"bias: {bias.type} does not fit {y.shape[1]} filters", "pass one number a filter"
        )
    if is_autocast_enabled() and y.dtype.is_half:
        bias = bias.to(y.dtype)  # as the operands of the product
    return y + _S.reshape(bias, shape=(-1, *(1,) * n))


def _conv(n: int) -> Callable[..., Any]:
    name = f"conv{n}d"

    def conv(
        x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: str | Pads = 0,
        dilation: Ints = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        x, lacked = _batch(name, x, n)
        with speaking_as(name):
            y = _OPS["conv"](x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return _unbatch(_biased(name, y, bias, n), lacked)  # type: ignore[no-any-return]

    doc = f"""Cross-correlation of images with filters, plus a bias for each filter.

    x: float[N, C, {_AXES[n]}] (N may be missing), weight: float[K, C/groups, ...], bias: float[K] or None; stride,
    dilation: int or one for each axis; padding: int, one for each axis, (before, after) for each axis, "valid" or
    (stride 1) "same". Returns: float[N, K, ...]. Raises: ShapeError, DtypeError, ArgumentError. See `dg.conv`.
    """
    return _named(name, doc, conv)


def _conv_transpose(n: int) -> Callable[..., Any]:
    name = f"conv_transpose{n}d"

    def conv_transpose(
        x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Pads = 0,
        output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1,
    ) -> Tensor:  # fmt: skip
        x, lacked = _batch(name, x, n)
        with speaking_as(name):
            y = _OPS["conv_transpose"](
                x, weight, stride=stride, padding=padding, output_padding=output_padding, groups=groups,
                dilation=dilation,
            )  # fmt: skip
        return _unbatch(_biased(name, y, bias, n), lacked)  # type: ignore[no-any-return]

    doc = f"""The transpose of `conv{n}d` as a linear map, plus a bias for each channel of the result.

    x: float[N, K, {_AXES[n]}] (N may be missing), weight: float[K, C/groups, ...], bias: float[C] or None; the
    settings are those of `dg.conv_transpose`. Returns: float[N, C, ...]. Raises: ShapeError, ArgumentError.
    """
    return _named(name, doc, conv_transpose)


conv1d, conv2d, conv3d = map(_conv, (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_conv_transpose, (1, 2, 3))


# ---------------------------------------------------------------- pooling


def _max_pool(n: int) -> Callable[..., Any]:
    name = f"max_pool{n}d"

    def max_pool(
        x: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Pads = 0, dilation: Ints = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        x, lacked = _batch(name, x, n)
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        with speaking_as(name):
            y = _OPS["max_pool"](x, window=kernel_size, **settings)
            if not return_indices:
                return _unbatch(y, lacked)
            places = _OPS["max_pool_index"](x, window=kernel_size, **settings)
        return _unbatch(y, lacked), _unbatch(places, lacked)

    doc = f"""The maximum of each window of x: float[N, C, {_AXES[n]}] (N may be missing).

    kernel_size, stride (kernel_size when None), padding (-inf), dilation: int or one for each axis; ceil_mode: a
    last window counts that begins inside and ends outside; return_indices: (maxima, int64 places in the flattened
    spatial axes). See `dg.max_pool`.
    """
    return _named(name, doc, max_pool)


def _avg_pool(n: int) -> Callable[..., Any]:
    name = f"avg_pool{n}d"

    def avg_pool(
        x: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Pads = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Any:  # fmt: skip
        x, lacked = _batch(name, x, n)
        with speaking_as(name):
            y = _OPS["avg_pool"](
                x, window=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode,
                count_include_pad=count_include_pad, divisor_override=divisor_override,
            )  # fmt: skip
        return _unbatch(y, lacked)

    doc = f"""The mean of each window of x: float[N, C, {_AXES[n]}] (N may be missing).

    count_include_pad: padding counts as zeros; divisor_override: divide sums by it instead; the rest as of
    `max_pool{n}d`. See `dg.avg_pool`.
    """
    return _named(name, doc, avg_pool)


def _lp_pool(n: int) -> Callable[..., Any]:
    name = f"lp_pool{n}d"

    def lp_pool(
        x: Tensor,
        norm_type: float,
        kernel_size: Ints,
        stride: Ints | None = None,
        ceil_mode: bool = False,
    ) -> Any:
        x, lacked = _batch(name, x, n)
        with speaking_as(name):
            y = _OPS["lp_pool"](x, window=kernel_size, stride=stride, ceil_mode=ceil_mode, p=float(norm_type))
        return _unbatch(y, lacked)

    doc = f"""The norm_type-norm of each window of x: float[N, C, {_AXES[n]}] (N may be missing).

    Numerics: of |x|, so that odd powers are norms too (PyTorch's are not); with ceil_mode a window that ends outside
    is the norm of what it holds (PyTorch scales it up). See `dg.lp_pool`.
    """
    return _named(name, doc, lp_pool)


def _max_unpool(n: int) -> Callable[..., Any]:
    name = f"max_unpool{n}d"

    def max_unpool(
        x: Tensor, indices: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Pads = 0,
        output_size: Sequence[int] | None = None,
    ) -> Any:  # fmt: skip
        x, lacked = _batch(name, x, n)
        indices, _ = _batch(name, indices, n)
        window, pad = row(name, "kernel_size", kernel_size, n), row(name, "padding", padding, n, 0)
        steps = window if stride is None else row(name, "stride", stride, n)
        size = tuple((m - 1) * s - 2 * p + k for m, s, p, k in zip(x.shape[2:], steps, pad, window))
        if output_size is not None:
            given = tuple(output_size)[-n:]
            if any(not abs(g - m) < s for g, m, s in zip(given, size, steps)):
                raise ArgumentError(
                    name,
                    f"output_size={list(given)} is too far from {list(size)}",
                    "use a size that pools to x",
                )
            size = given
        with speaking_as(name):
            return _unbatch(_OPS["max_unpool"](x, indices, size=size), lacked)

    doc = f"""Zeros with the maxima of `max_pool{n}d` where they were found.

    x: float[N, C, {_AXES[n]}] (N may be missing), indices: int64 of its shape; output_size: the spatial sizes of the
    result where kernel_size, stride and padding leave a choice. See `dg.max_unpool`.
    """
    return _named(name, doc, max_unpool)


max_pool1d, max_pool2d, max_pool3d = map(_max_pool, (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = map(_avg_pool, (1, 2, 3))
lp_pool1d, lp_pool2d, lp_pool3d = map(_lp_pool, (1, 2, 3))
max_unpool1d, max_unpool2d, max_unpool3d = map(_max_unpool, (1, 2, 3))


def _adaptive_avg_pool(n: int) -> Callable[..., Any]:
    name = f"adaptive_avg_pool{n}d"

    def adaptive_avg_pool(x: Tensor, output_size: Sizes) -> Any:
        x, lacked = _batch(name, x, n)
        with speaking_as(name):
            return _unbatch(_OPS["adaptive_avg_pool"](x, size=output_size), lacked)

    doc = f"""Means over windows that share out each axis of x: float[N, C, {_AXES[n]}] (N may be missing).

    output_size: int or one for each axis, None for as it is. See `dg.adaptive_avg_pool`.
    """
    return _named(name, doc, adaptive_avg_pool)


def _adaptive_max_pool(n: int) -> Callable[..., Any]:
    name = f"adaptive_max_pool{n}d"

    def adaptive_max_pool(x: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
        x, lacked = _batch(name, x, n)
        with speaking_as(name):
            y = _OPS["adaptive_max_pool"](x, size=output_size)
            if not return_indices:
                return _unbatch(y, lacked)
            return _unbatch(y, lacked), _unbatch(adaptive_max_pool_index(x, output_size), lacked)

    doc = f"""Maxima over windows that share out each axis of x: float[N, C, {_AXES[n]}] (N may be missing).

    output_size: int or one for each axis, None for as it is; return_indices: (maxima, int64 places in the flattened
    spatial axes). See `dg.adaptive_max_pool`.
    """
    return _named(name, doc, adaptive_max_pool)


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = map(_adaptive_avg_pool, (1, 2, 3))
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = map(_adaptive_max_pool, (1, 2, 3))


# ---------------------------------------------------------------- interpolation, grids and patches

#: PyTorch's mode -> spatial axes (0: any), our mode
INTERPOLATIONS = {
    "nearest": (0, "nearest"), "nearest-exact": (0, "nearest"), "area": (0, "area"), "linear": (1, "linear"),
    "bilinear": (2, "linear"), "trilinear": (3, "linear"), "bicubic": (2, "cubic"),
}  # fmt: skip


def interpolate(
    x: Tensor, size: Ints | None = None, scale_factor: Floats | None = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Any:  # fmt: skip
    """x at another size.

    x: float[N, C, ...] with 1 to 3 spatial axes; size: int or one for each axis, or scale_factor: number or one for
    each; mode: "nearest" (floor of the place, asymmetric), "nearest-exact", "linear", "bilinear", "trilinear" or
    "bicubic" by the number of axes, or "area" (means); align_corners: places of the first and last elements agree;
    recompute_scale_factor: coordinates follow the sizes, not scale_factor; antialias: for bilinear and bicubic.
    Returns: float[N, C, ...]. Raises: ArgumentError, ShapeError. See `dg.resize`.
    """
    name = "interpolate"
    n = x.ndim - 2
    axes, kind = INTERPOLATIONS.get(mode, (-1, ""))
    if axes < 0 or not 1 <= n <= 3 or axes not in (0, n):
        known = ", ".join(f'"{m}"' for m, (a, _) in INTERPOLATIONS.items() if a in (0, n))
        raise ArgumentError(name, f"mode={mode!r} for x: {x.type}", f"use one of {known}")
    if align_corners is not None and kind in ("nearest", "area"):
        raise ArgumentError(name, f"align_corners={align_corners} with mode={mode!r}", "leave it out")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ArgumentError(name, f"antialias=True with mode={mode!r}", 'use "bilinear" or "bicubic"')
    if (size is None) == (scale_factor is None):
        raise ArgumentError(name, f"size={size} and scale_factor={scale_factor}", "give one of them")
    factors: tuple[float, ...] | None = None
    if size is None:
        given: Any = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * n
        if len(given) != n or not all(f > 0 for f in given):
            raise ArgumentError(
                name, f"scale_factor={scale_factor}", f"give a positive number or {n} of them"
            )
        size = tuple(int(m * f) for m, f in zip(x.shape[2:], given))
        # Coordinates of aligned corners do not depend on the factor.
        factors = None if recompute_scale_factor or align_corners else tuple(map(float, given))
    size = row(name, "size", size, n)
    with speaking_as(name):
        if kind == "area":
            return _OPS["adaptive_avg_pool"](x, size=size)
        settings: dict[str, Any] = {"size": size, "scale": factors, "mode": kind}
        if mode == "nearest":
            settings |= {"coordinates": "asymmetric", "rounding": "floor"}
        elif mode == "nearest-exact":
            settings |= {"rounding": "round_prefer_ceil"}
        else:
            settings |= {"coordinates": "align_corners" if align_corners else "half_pixel"}
        if antialias:
            settings |= {"antialias": True, "exclude_outside": True, "cubic_a": -0.5}
            if align_corners:
                # As in PyTorch, only the factor is that of aligned corners.
                pairs = zip(x.shape[2:], size)
                scale = tuple((m - 1) / (k - 1) if m > 1 and k > 1 else None for k, m in pairs)
                settings |= {"coordinates": "half_pixel", "scale": scale}
        return _OPS["resize"](x, **settings)


def upsample(
    x: Tensor,
    size: Ints | None = None,
    scale_factor: Floats | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:
    """`interpolate` under its old name."""
    return interpolate(x, size, scale_factor, mode, align_corners)


def grid_sample(
    x: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Any:
    """x read at the places of a grid; mode: "bilinear" (over three axes too), "nearest" or "bicubic".

    align_corners: False when None. See `dg.grid_sample`.
    """
    words = {"bilinear": "linear", "bicubic": "cubic"}
    return _OPS["grid_sample"](
        x, grid, mode=words.get(mode, mode), padding_mode=padding_mode, align_corners=bool(align_corners)
    )


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Any:
    """The grid with which `grid_sample` applies affine maps; align_corners: False when None. See `dg.affine_grid`."""
    return _OPS["affine_grid"](theta, size=tuple(size), align_corners=bool(align_corners))


def unfold(
    x: Tensor,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Pads = 0,
    stride: Ints = 1,
) -> Any:
    """The elements of every window of float[N, C, H, W] (N may be missing) as a column. See `dg.unfold`."""
    x, lacked = _batch("unfold", x, 2)
    y = _OPS["unfold"](x, window=kernel_size, stride=stride, padding=padding, dilation=dilation)
    return _unbatch(y, lacked)


def fold(
    x: Tensor,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Pads = 0,
    stride: Ints = 1,
) -> Any:
    """Windows float[N, C * window, positions] (N may be missing) added up into [N, C, *output_size]. See `dg.fold`."""
    lacked = x.ndim == 2
    size = row("fold", "output_size", output_size, 2)
    y = _OPS["fold"](
        _S.expand_dims(x, axis=0) if lacked else x, size=size, window=kernel_size, stride=stride, padding=padding,
        dilation=dilation,
    )  # fmt: skip
    return _unbatch(y, lacked)


__all__ = [
    *(
        f"{name}{n}d"
        for name in (
            "adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "conv", "conv_transpose", "lp_pool", "max_pool",
            "max_unpool",
        )
        for n in (1, 2, 3)
    ),
    "affine_grid", "fold", "grid_sample", "interpolate", "unfold", "upsample",
]  # fmt: skip
