"""Convolution layers over one to three spatial axes, and their transposes."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentError
from ..core.ops.padding import pad
from ..core.ops.window import conv_pads, pads, row
from . import functional as F
from .arguments import Counts, Naturals, Pads, size
from .module import Module
from .parameters import parameter, reset_weight_and_bias

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


class _ConvBase(Module):
    """What convolutions and their transposes share."""

    rank = 0
    transposed = False
    _absent = dict.fromkeys(("bias",), "parameter")
    padding: Any

    def _prepare(
        self, in_channels: int, out_channels: int, kernel_size: Counts, stride: Counts, padding: str | Pads,
        dilation: Counts, groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        name, n = type(self).__name__, self.rank
        if padding_mode not in _PADDING_MODES or (self.transposed and padding_mode != "zeros"):
            legal = '"zeros"' if self.transposed else ", ".join(f'"{m}"' for m in _PADDING_MODES)
            raise ArgumentError(name, f"padding_mode={padding_mode!r}", f"use {legal}")
        self.in_channels = size(name, "in_channels", in_channels)
        self.out_channels = size(name, "out_channels", out_channels)
        self.kernel_size = row(name, "kernel_size", kernel_size, n)
        self.stride, self.dilation = row(name, "stride", stride, n), row(name, "dilation", dilation, n)
        self.groups, self.padding_mode = size(name, "groups", groups), padding_mode
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ArgumentError(
                name, f"groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}",
                "use a divisor of both",
            )  # fmt: skip
        if isinstance(padding, str):
            conv_pads(name, padding, self.kernel_size, self.stride, self.dilation)
            self.padding = padding
        else:
            self.padding = short(pads(name, padding, n))
        first, second = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            first, second = self.in_channels, self.out_channels // self.groups
        self.weight = parameter(name, (first, second, *self.kernel_size), device, dtype)
        self.bias = parameter(name, (self.out_channels,), device, dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        reset_weight_and_bias(self.weight, self.bias)

    def extra_repr(self) -> str:
        n = self.rank
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        text += f", padding={self.padding!r}" if self.padding != (0,) * n else ""
        text += f", dilation={self.dilation}" if self.dilation != (1,) * n else ""
        extra = getattr(self, "output_padding", (0,) * n)
        text += f", output_padding={extra}" if extra != (0,) * n else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += "" if self.bias is not None else ", bias=False"
        return text + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


def short(padding: tuple[tuple[int, int], ...]) -> Any:
    """Padding as one int an axis when both sides are equal: what is printed and exported."""
    return tuple(a for a, _ in padding) if all(a == b for a, b in padding) else padding


class _Conv(_ConvBase):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Counts, stride: Counts = 1, padding: str | Pads = 0,
        dilation: Counts = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        self._prepare(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        name, padding = type(self).__name__, self.padding
        if self.padding_mode != "zeros":
            each = conv_pads(name, padding, self.kernel_size, self.stride, self.dilation)
            sides = ((0, 0),) * (x.ndim - self.rank) + each
            x, padding = pad(x, padding=sides, mode=self.padding_mode), 0
        conv = getattr(F, f"conv{self.rank}d")
        return conv(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_ConvBase):
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Counts, stride: Counts = 1, padding: str | Pads = 0,
        output_padding: Naturals = 0, groups: int = 1, bias: bool = True, dilation: Counts = 1,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        self.output_padding = row(type(self).__name__, "output_padding", output_padding, self.rank, 0)
        if isinstance(padding, str):
            raise ArgumentError(type(self).__name__, f"padding={padding!r}", "give the padding in numbers")
        self._prepare(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        conv = getattr(F, f"conv_transpose{self.rank}d")
        return conv(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )  # fmt: skip


_CONV_DOC = """Cross-correlation of images with trained filters.

    in_channels, out_channels: C and K; kernel_size, stride, dilation: int or one for each spatial axis; padding:
    int, one or (before, after) for each axis, "valid" or (stride 1) "same"; groups: channels and filters in that
    many independent parts; padding_mode: "zeros", "reflect", "replicate" or "circular". Parameters: weight:
    float[K, C/groups, window], bias: float[K] or None, at first uniform within `1 / sqrt(C/groups * window)`.
    Called with float[N, C, {axes}] (N may be missing); returns float[N, K, ...].
    Raises: ArgumentError, ShapeError for other channels or an image smaller than the window.
    Example: `dg.nn.Conv2d(3, 8, 3, padding=1)(dg.ones((2, 3, 5, 5))).shape` is `(2, 8, 5, 5)`.
    """

_TRANSPOSE_DOC = """The transpose of `Conv{n}d` as a linear map, with trained filters.

    in_channels, out_channels: channels of what it is called with and of what it returns; kernel_size, stride,
    padding, dilation, groups: of the convolution that it is the transpose of; output_padding: more elements after
    the last one. Parameters: weight: float[in_channels, out_channels/groups, window], bias: float[out_channels] or
    None. Called with float[N, in_channels, {axes}] (N may be missing). Raises: ArgumentError, ShapeError.
    Example: `dg.nn.ConvTranspose2d(3, 8, 2, stride=2)(dg.ones((2, 3, 5, 5))).shape` is `(2, 8, 10, 10)`.
    """


def _layer(name: str, base: type, n: int, doc: str) -> type:
    text = doc.format(n=n, axes=_AXES[n])
    return type(name, (base,), {"rank": n, "__doc__": text, "__module__": __name__})


Conv1d, Conv2d, Conv3d = (_layer(f"Conv{n}d", _Conv, n, _CONV_DOC) for n in (1, 2, 3))
ConvTranspose1d, ConvTranspose2d, ConvTranspose3d = (
    _layer(f"ConvTranspose{n}d", _ConvTranspose, n, _TRANSPOSE_DOC) for n in (1, 2, 3)
)

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]  # fmt: skip
