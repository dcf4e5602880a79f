"""Layers that change the size of images or lay out their windows: Upsample, Fold, Unfold."""

from __future__ import annotations

from typing import Any

from . import functional as F
from .arguments import Counts, Floats, Pads, choice
from .module import Module
from .spatial import INTERPOLATIONS


class Upsample(Module):
    """x at another size; the arguments are those of `F.interpolate`."""

    def __init__(
        self, size: Counts | None = None, scale_factor: Floats | None = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ):  # fmt: skip
        self.size, self.scale_factor = _plain(size), _plain(scale_factor)
        self.mode = choice(type(self).__name__, "mode", mode, INTERPOLATIONS)
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, x: Any) -> Any:
        return F.interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        size = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class UpsamplingNearest2d(Upsample):
    """The nearest element of float[N, C, H, W] at another size."""

    def __init__(self, size: Counts | None = None, scale_factor: Floats | None = None):
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Bilinear interpolation of float[N, C, H, W] with aligned corners."""

    def __init__(self, size: Counts | None = None, scale_factor: Floats | None = None):
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class Unfold(Module):
    """The elements of every window as a column; the arguments are those of `F.unfold`."""

    shown: tuple[str, ...] = ("kernel_size", "dilation", "padding", "stride")

    def __init__(
        self,
        kernel_size: Counts,
        dilation: Counts = 1,
        padding: Pads = 0,
        stride: Counts = 1,
    ):
        self.kernel_size, self.dilation = _plain(kernel_size), _plain(dilation)
        self.padding, self.stride = _plain(padding), _plain(stride)

    def forward(self, x: Any) -> Any:
        return F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.shown)


class Fold(Unfold):
    """Windows added up into an image; the arguments are those of `F.fold`."""

    shown = ("output_size", *Unfold.shown)

    def __init__(
        self,
        output_size: Counts,
        kernel_size: Counts,
        dilation: Counts = 1,
        padding: Pads = 0,
        stride: Counts = 1,
    ):
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = _plain(output_size)

    def forward(self, x: Any) -> Any:
        return F.fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)


__all__ = ["Fold", "Unfold", "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]
