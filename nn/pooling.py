"""Pooling layers over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.kinds import Count, Positive
from ..core.ops.window import pads, row
from . import functional as F
from .arguments import Counts, Pads, Sizes
from .convolution import short
from .module import Module

_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


def _one(value: Any) -> Any:
    return value[0] if value and len(set(value)) == 1 else value


class _Pool(Module):
    """kernel_size, stride and padding, and the function that they are for."""

    rank = 0
    function = ""
    shown: tuple[str, ...] = ("kernel_size", "stride", "padding")

    def _prepare(
        self,
        kernel_size: Counts,
        stride: Counts | None,
        padding: Pads = 0,
    ) -> None:
        name, n = type(self).__name__, self.rank
        self.kernel_size = row(name, "kernel_size", kernel_size, n)
        self.stride = self.kernel_size if stride is None else row(name, "stride", stride, n)
        self.padding = short(pads(name, padding, n))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(F, f"{self.function}{self.rank}d")(*args, **kwargs)

    def extra_repr(self) -> str:
        values = ((name, getattr(self, name)) for name in self.shown)
        return ", ".join(f"{name}={_one(v) if isinstance(v, tuple) else v}" for name, v in values)


class _MaxPool(_Pool):
    """The maximum of each window of float[N, C, {axes}] (N may be missing).

    kernel_size, stride (kernel_size when None), padding (-inf), dilation: int or one for each axis; ceil_mode: a
    last window counts that begins inside and ends outside; return_indices: (maxima, int64 places in the flattened
    spatial axes), for `MaxUnpool{n}d`. Raises: ArgumentError, ShapeError.
    """

    function = "max_pool"
    shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self, kernel_size: Counts, stride: Counts | None = None, padding: Pads = 0, dilation: Counts = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ):  # fmt: skip
        self._prepare(kernel_size, stride, padding)
        self.dilation = row(type(self).__name__, "dilation", dilation, self.rank)
        self.return_indices, self.ceil_mode = bool(return_indices), bool(ceil_mode)

    def forward(self, x: Any) -> Any:
        return self._run(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )  # fmt: skip


class _MaxUnpool(_Pool):
    """Zeros with the maxima of `MaxPool{n}d` where they were found.

    kernel_size, stride (kernel_size when None), padding: those of the pooling. Called with (maxima, indices,
    output_size=None); output_size: where the settings leave a choice. Raises: ArgumentError, ShapeError.
    """

    function = "max_unpool"

    def __init__(
        self,
        kernel_size: Counts,
        stride: Counts | None = None,
        padding: Pads = 0,
    ):
        self._prepare(kernel_size, stride, padding)

    def forward(self, x: Any, indices: Any, output_size: Sequence[int] | None = None) -> Any:
        return self._run(x, indices, self.kernel_size, self.stride, self.padding, output_size)


class _AvgPool(_Pool):
    """The mean of each window of float[N, C, {axes}] (N may be missing).

    kernel_size, stride (kernel_size when None), padding: int or one for each axis; ceil_mode: a last window counts
    that begins inside and ends outside; count_include_pad: padding counts as zeros; divisor_override: divide sums
    by this int. Raises: ArgumentError, ShapeError.
    """

    function = "avg_pool"

    def __init__(
        self, kernel_size: Counts, stride: Counts | None = None, padding: Pads = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: Count | None = None,
    ):  # fmt: skip
        self._prepare(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = bool(ceil_mode), bool(count_include_pad)
        self.divisor_override = divisor_override

    def forward(self, x: Any) -> Any:
        return self._run(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor_override,
        )  # fmt: skip


class _LPPool(_Pool):
    """The norm_type-norm of each window of float[N, C, {axes}] (N may be missing); see `F.lp_pool{n}d`."""

    function = "lp_pool"
    shown = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self,
        norm_type: Positive,
        kernel_size: Counts,
        stride: Counts | None = None,
        ceil_mode: bool = False,
    ):
        self._prepare(kernel_size, stride)
        self.norm_type, self.ceil_mode = float(norm_type), bool(ceil_mode)

    def forward(self, x: Any) -> Any:
        return self._run(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class _AdaptiveAvgPool(_Pool):
    """Means over windows that share out each axis of float[N, C, {axes}] (N may be missing).

    output_size: int or one for each axis, None for as it is. See `F.adaptive_avg_pool{n}d`.
    """

    function = "adaptive_avg_pool"
    shown = ("output_size",)

    def __init__(self, output_size: Sizes):
        self.output_size = tuple(output_size) if isinstance(output_size, list) else output_size

    def forward(self, x: Any) -> Any:
        return self._run(x, self.output_size)


class _AdaptiveMaxPool(_AdaptiveAvgPool):
    """Maxima over windows that share out each axis of float[N, C, {axes}] (N may be missing).

    output_size: int or one for each axis, None for as it is; return_indices: (maxima, int64 places in the flattened
    spatial axes). See `F.adaptive_max_pool{n}d`.
    """

    function = "adaptive_max_pool"

    def __init__(self, output_size: Sizes, return_indices: bool = False):
        super().__init__(output_size)
        self.return_indices = bool(return_indices)

    def forward(self, x: Any) -> Any:
        return self._run(x, self.output_size, self.return_indices)


def _layers(base: type) -> list[type]:
    found = []
    for n in (1, 2, 3):
        doc = (base.__doc__ or "").format(n=n, axes=_AXES[n])
        name = f"{base.__name__[1:]}{n}d"
        found.append(type(name, (base,), {"rank": n, "__doc__": doc, "__module__": __name__}))
    return found


MaxPool1d, MaxPool2d, MaxPool3d = _layers(_MaxPool)
MaxUnpool1d, MaxUnpool2d, MaxUnpool3d = _layers(_MaxUnpool)
AvgPool1d, AvgPool2d, AvgPool3d = _layers(_AvgPool)
LPPool1d, LPPool2d, LPPool3d = _layers(_LPPool)
AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = _layers(_AdaptiveAvgPool)
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = _layers(_AdaptiveMaxPool)

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d",
    "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
]  # fmt: skip
