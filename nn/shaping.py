"""Layers that pick and move elements: padding in every mode, embeddings, pixels, channels, unflatten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.errors import ArgumentError
from ..core.kinds import Magnitude, NumberOrNan
from ..core.ops.creation import empty
from ..core.types import as_dtype, float32
from ..core.value import Tensor
from . import functional as F
from . import init
from .arguments import Ints, choice, only, size
from .module import Module, Parameter

# ---------------------------------------------------------------- padding


class _Pad(Module):
    """What the padding layers share: `padding` as pairs for the last axes, last axis first."""

    _mode, _axes = "constant", 1
    value: NumberOrNan | None = None

    def __init__(self, padding: Ints):
        name = type(self).__name__
        if isinstance(padding, int):
            padding = (padding,) * (2 * self._axes)
        sizes = tuple(padding)
        if len(sizes) != 2 * self._axes or not all(isinstance(n, int) for n in sizes):
            raise ArgumentError(
                name,
                f"padding={padding} is not an int or {2 * self._axes} ints",
                "give (before, after) of the last axis, then of the one before it",
            )
        self.padding = sizes

    def forward(self, x: Any) -> Any:
        if x.ndim not in (self._axes + 1, self._axes + 2):
            raise ArgumentError(
                type(self).__name__,
                f"x: {x.type} has neither {self._axes + 1} nor {self._axes + 2} axes",
                "pass [N, C, ...] or [C, ...]",
            )
        return F.pad(x, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}" + (f", value={self.value}" if self.value else "")


class _ConstantPad(_Pad):
    def __init__(self, padding: Ints, value: NumberOrNan):
        super().__init__(padding)
        self.value = value


_WHAT = {
    "ZeroPad": ("constant", _Pad, "zeros"),
    "ConstantPad": ("constant", _ConstantPad, "a number, `value`"),
    "ReflectionPad": ("reflect", _Pad, "x mirrored at its outer elements"),
    "ReplicationPad": ("replicate", _Pad, "the outer elements of x"),
    "CircularPad": ("circular", _Pad, "x going on at its other end"),
}


def _layer(name: str, axes: int) -> type[_Pad]:
    mode, base, what = _WHAT[name]
    doc = (
        f"A border of {what} round the last {axes} axes of [N, C, ...] or [C, ...].\n\n"
        "padding: one int, or (before, after) of the last axis, then of the one before it; negative sizes cut."
    )
    body = {"_mode": mode, "_axes": axes, "__doc__": doc, "__module__": __name__}
    return type(f"{name}{axes}d", (base,), body)


ZeroPad1d, ZeroPad2d, ZeroPad3d = (_layer("ZeroPad", k) for k in (1, 2, 3))
ConstantPad1d, ConstantPad2d, ConstantPad3d = (_layer("ConstantPad", k) for k in (1, 2, 3))
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (_layer("ReflectionPad", k) for k in (1, 2, 3))
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (_layer("ReplicationPad", k) for k in (1, 2, 3))
CircularPad1d, CircularPad2d, CircularPad3d = (_layer("CircularPad", k) for k in (1, 2, 3))


# ---------------------------------------------------------------- other forms


class Unflatten(Module):
    """Axis `dim` as several of `unflattened_size`, one of which may be -1."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Any) -> Any:
        return F.unflatten(x, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class PixelShuffle(Module):
    """Channels as pixels: [..., C * r**2, H, W] to [..., C, H * r, W * r], r the upscale_factor."""

    def __init__(self, upscale_factor: int):
        self.upscale_factor = size("PixelShuffle", "upscale_factor", upscale_factor)

    def forward(self, x: Any) -> Any:
        return F.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Pixels as channels: [..., C, H * r, W * r] to [..., C * r**2, H, W], r the downscale_factor."""

    def __init__(self, downscale_factor: int):
        self.downscale_factor = size("PixelUnshuffle", "downscale_factor", downscale_factor)

    def forward(self, x: Any) -> Any:
        return F.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Channels of [N, C, ...] dealt out anew among groups."""

    def __init__(self, groups: int):
        self.groups = size("ChannelShuffle", "groups", groups)

    def forward(self, x: Any) -> Any:
        return F.channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


# ---------------------------------------------------------------- tables


def _table(op: str, rows: int, columns: int, device: Any, dtype: Any) -> Parameter:
    kind = float32 if dtype is None else as_dtype(dtype, op)
    return Parameter(empty((rows, columns), dtype=kind, device=device))


class Embedding(Module):
    """Rows of a trained table, picked by integers.

    num_embeddings, embedding_dim: its rows and columns; padding_idx: a row of zeros at first that gets no
    gradient; max_norm: picked rows are shortened, in place, to this norm_type norm; scale_grad_by_freq: gradients
    are divided by how often their row is picked. Parameter: weight: float[num_embeddings, embedding_dim], at first
    standard normal. Called with int[...]; returns float[..., embedding_dim]. Raises: IndexingError for an index
    outside (eager mode; NaN in a graph), ArgumentError for sparse=True.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: Magnitude | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        name = type(self).__name__
        only(name, "sparse", sparse, False)
        self.max_norm, self.norm_type = max_norm, float(norm_type)
        self.scale_grad_by_freq = bool(scale_grad_by_freq)
        self.num_embeddings = size(name, "num_embeddings", num_embeddings)
        self.embedding_dim = size(name, "embedding_dim", embedding_dim)
        if padding_idx is not None:
            if not -self.num_embeddings <= padding_idx < self.num_embeddings:
                raise ArgumentError(
                    name,
                    f"padding_idx={padding_idx} is outside {self.num_embeddings} rows",
                    "use one of them",
                )
            padding_idx %= self.num_embeddings
        self.padding_idx = padding_idx
        self.weight = _table(name, self.num_embeddings, self.embedding_dim, device, dtype)
        self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **settings: Any) -> Embedding:
        """A layer over a table that exists: float[rows, columns]. freeze: it is not trained."""
        rows, columns = embeddings.shape
        made = cls(rows, columns, dtype=embeddings.dtype, device=embeddings.device, **settings)
        made.weight = Parameter(embeddings.detach())
        made.weight.requires_grad_(not freeze)
        return made

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            row: Tensor = self.weight.detach()[self.padding_idx]
            init.zeros_(row)

    def forward(self, index: Any) -> Any:
        return F.embedding(
            index, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq
        )

    def extra_repr(self) -> str:
        pad = f", padding_idx={self.padding_idx}" if self.padding_idx is not None else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{pad}"


class EmbeddingBag(Module):
    """The sum, mean or maximum (mode) of rows of a trained table, bag by bag; see `dg.embedding_bag`.

    num_embeddings, embedding_dim: rows and columns; max_norm, norm_type, padding_idx as `Embedding`;
    include_last_offset: offsets end in the number of indices. Called with (index, offsets, per_sample_weights).
    Raises: ArgumentError for sparse=True or scale_grad_by_freq=True.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: Magnitude | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
        include_last_offset: bool = False, padding_idx: int | None = None, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        only("EmbeddingBag", "sparse", sparse, False)
        only("EmbeddingBag", "scale_grad_by_freq", scale_grad_by_freq, False)
        self.num_embeddings = size("EmbeddingBag", "num_embeddings", num_embeddings)
        self.embedding_dim = size("EmbeddingBag", "embedding_dim", embedding_dim)
        self.max_norm, self.norm_type = max_norm, float(norm_type)
        self.mode = choice("EmbeddingBag", "mode", mode, ("sum", "mean", "max"))
        self.include_last_offset, self.padding_idx = bool(include_last_offset), padding_idx
        self.weight = _table("EmbeddingBag", self.num_embeddings, self.embedding_dim, device, dtype)
        init.normal_(self.weight)

    def forward(self, index: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
        return F.embedding_bag(
            index, self.weight, offsets, self.max_norm, self.norm_type, False, self.mode, False,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}"


__all__ = [
    "ChannelShuffle", "Embedding", "EmbeddingBag", "PixelShuffle", "PixelUnshuffle", "Unflatten",
    *(f"{name}{k}d" for name in _WHAT for k in (1, 2, 3)),
]  # fmt: skip
