"""Fractional max pooling: windows whose steps are drawn, so that any output size is met (Graham, 2014)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.op import REGISTRY
from ..core.ops.creation import arange, full
from ..core.ops.random import rand
from ..core.ops.window import row
from ..core.types import int64
from ..core.value import Tensor
from .arguments import Counts, Floats
from .module import Module

__all__ = ["FractionalMaxPool2d", "FractionalMaxPool3d", "fractional_max_pool2d", "fractional_max_pool3d"]

_OPS = REGISTRY


def _starts(u: Tensor, size: int, window: int, count: int) -> Tensor:
    """Where the windows of an axis begin: int64[N, C, count], from one number of [0, 1) for each channel."""
    last = full((*u.shape, 1), size - window, int64, u.device)
    if count == 1:
        return last  # type: ignore[no-any-return]
    step = (size - window) / (count - 1)
    u = u[..., None]
    turns = arange(count - 1, dtype=u.dtype, device=u.device)
    begin = _OPS["floor"]((turns + u) * step) - _OPS["floor"](u * step)
    return _OPS["concat"]([begin.to(int64), last], axis=-1)  # type: ignore[no-any-return]


def _pool(n: int) -> Callable[..., Any]:
    name = f"fractional_max_pool{n}d"

    def pool(
        input: Tensor, kernel_size: Counts, output_size: Counts | None = None, output_ratio: Floats | None = None,
        return_indices: bool = False, _random_samples: Tensor | None = None,
    ) -> Any:  # fmt: skip
        if input.ndim not in (n + 1, n + 2):
            raise ShapeError(
                name, f"x: {input.type} has not {n + 1} or {n + 2} axes", "give it channels and an image"
            )
        x = input if input.ndim == n + 2 else input[None]
        window, sizes = row(name, "kernel_size", kernel_size, n), x.shape[2:]
        if (output_size is None) == (output_ratio is None):
            raise ArgumentError(name, "takes one of output_size and output_ratio", "give one of them")
        if output_size is None:
            ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * n
            counts = tuple(int(m * r) for m, r in zip(sizes, ratios))
        else:
            counts = row(name, "output_size", output_size, n)
        if any(not 1 <= c <= m - k + 1 for c, m, k in zip(counts, sizes, window)):
            raise ArgumentError(
                name,
                f"windows {window} and sizes {counts} do not fit x: {input.type}",
                "use sizes up to H - R + 1",
            )
        u = _random_samples
        if u is None:
            u = rand((*x.shape[:2], n), dtype=x.dtype, device=x.device)
        lead, places = x.shape[:2], None
        for axis, (size, k, count) in enumerate(zip(sizes, window, counts)):
            # PyTorch's order: the first number is for the last axis; volumes the other way round.
            begin = _starts(u[..., n - 1 - axis if n == 2 else axis], size, k, count)
            at = begin[..., None] + arange(k, device=x.device)
            shape = [count if a == axis else 1 for a in range(n)] + [k if a == axis else 1 for a in range(n)]
            at = at.reshape(*lead, *shape)
            places = at if places is None else places * size + at
        area = math.prod(window)
        places = places.reshape(*lead, *counts, area)  # type: ignore[union-attr]
        parts = _OPS["pick_pixels"](x, places)
        y = parts.max(axis=-1)
        index = None
        if return_indices:
            index = _OPS["take_elements_placed"](places, parts.argmax(axis=-1, keepdims=True), axis=n + 2)[
                ..., 0
            ]
        if input.ndim == n + 1:
            y, index = y[0], None if index is None else index[0]
        return y if index is None else (y, index)

    pool.__name__ = pool.__qualname__ = name
    axes = "H, W" if n == 2 else "D, H, W"
    pool.__doc__ = f"""Maxima of windows whose places are drawn, of x: float[N, C, {axes}] (N may be missing).

    kernel_size: int or one for each axis; output_size (int or sizes) or output_ratio (a part of x's sizes, in (0, 1)):
    one of them; return_indices: (maxima, int64 places in the flattened spatial axes); _random_samples: float[N, C, {n}]
    in [0, 1) in place of drawn ones. Returns: float[N, C, ...]. Raises: ShapeError, ArgumentError.
    Numerics: the gradient of equal maxima is shared. Source: Graham, 2014.
    """
    return pool


fractional_max_pool2d, fractional_max_pool3d = _pool(2), _pool(3)


class _Fractional(Module):
    """Fractional max pooling; see `F.fractional_max_pool{n}d`. Each call draws new places."""

    function: Callable[..., Any]

    def __init__(
        self,
        kernel_size: Counts,
        output_size: Counts | None = None,
        output_ratio: Floats | None = None,
        return_indices: bool = False,
    ):
        self.kernel_size, self.output_size, self.output_ratio = kernel_size, output_size, output_ratio
        self.return_indices = bool(return_indices)

    def forward(self, x: Any) -> Any:
        return type(self).function(
            x, self.kernel_size, self.output_size, self.output_ratio, self.return_indices
        )

    def extra_repr(self) -> str:
        size = (
            f"output_size={self.output_size}"
            if self.output_ratio is None
            else f"output_ratio={self.output_ratio}"
        )
        return f"kernel_size={self.kernel_size}, {size}"


class FractionalMaxPool2d(_Fractional):
    """Maxima of windows of float[N, C, H, W] whose places are drawn; see `F.fractional_max_pool2d`."""

    function = staticmethod(fractional_max_pool2d)


class FractionalMaxPool3d(_Fractional):
    """Maxima of windows of float[N, C, D, H, W] whose places are drawn; see `F.fractional_max_pool3d`."""

    function = staticmethod(fractional_max_pool3d)
