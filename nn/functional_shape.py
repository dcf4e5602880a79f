"""Functions that pick and move elements: padding, embedding, one-hot vectors, pixels and channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import dispatch
from ..core.errors import ArgumentError
from ..core.kinds import NumberOrNan
from ..core.ops import REGISTRY as _OPS
from ..core.ops import embedding as _M
from ..core.ops import shape as _S
from ..core.ops.padding import last_axes
from ..core.value import Tensor
from .arguments import only

__all__ = [
    "channel_shuffle", "embedding", "embedding_bag", "flatten", "one_hot", "pad", "pixel_shuffle", "pixel_unshuffle",
    "unflatten",
]  # fmt: skip

_TAKE = _OPS["take"]


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from start_dim to end_dim as one."""
    return _S.flatten(x, start_axis=start_dim, end_axis=end_dim)


def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Axis `dim` as several of the given sizes, one of which may be -1."""
    return _S.unflatten(x, axis=dim, sizes=sizes)


def pad(x: Tensor, pad: Any, mode: str = "constant", value: NumberOrNan | None = None) -> Tensor:
    """x with a border. pad: (before, after) of the last axis, of the one before it, and so on; negative sizes cut.

    mode: "constant" (value, 0 when None), "reflect", "replicate", "circular"; also NumPy's "symmetric", "edge" and
    "wrap". Raises: ArgumentError. See `dg.pad`.
    """
    pairs = last_axes("pad", x, pad)
    return _S.pad(x, padding=pairs, mode=mode, value=0 if value is None else value)


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """[..., C * r**2, H, W] as [..., C, H * r, W * r]; see `dg.pixel_shuffle`."""
    return _S.pixel_shuffle(x, factor=upscale_factor)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """[..., C, H * r, W * r] as [..., C * r**2, H, W]; see `dg.pixel_unshuffle`."""
    return _S.pixel_unshuffle(x, factor=downscale_factor)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels dealt out anew among groups; see `dg.channel_shuffle`."""
    return _S.channel_shuffle(x, groups=groups)


def embedding(
    index: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """Rows of weight. index: int[...], weight: float[rows, D]; row padding_idx gets no gradient.

    max_norm: rows that are picked are first shortened, in place, to this norm_type norm. scale_grad_by_freq: gradients
    are divided by how often their row is picked. Returns: float[..., D]. Raises: IndexingError for an index outside
    (eager mode; NaN in a graph); ArgumentError for sparse=True.
    """
    only("embedding", "sparse", sparse, False)
    if max_norm is not None:
        _M.renormalize(weight, index, max_norm, norm_type)
    if padding_idx is None and not scale_grad_by_freq and weight.ndim == 2:
        return dispatch.apply(_TAKE, (weight, index), (0,))  # type: ignore[no-any-return]  # no row is special
    return _M.embedding(weight, index, padding_idx=padding_idx, by_frequency=scale_grad_by_freq)


def embedding_bag(
    index: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of rows of weight, bag by bag; see `dg.embedding_bag`."""
    only("embedding_bag", "sparse", sparse, False)
    only("embedding_bag", "scale_grad_by_freq", scale_grad_by_freq, False)
    if max_norm is not None:
        _M.renormalize(weight, index, max_norm, norm_type)
    return _M.embedding_bag(
        index, weight, offsets, mode, per_sample_weights, padding_idx, include_last_offset
    )


def one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """Rows of zeros with a one at x. x: int[...]. num_classes: max + 1 when -1 (the values are read then).

    Returns: int64[..., num_classes]. Raises: ArgumentError for a number of classes below 0.
    """
    if num_classes == -1:
        num_classes = int(x.max().item()) + 1 if x.size else 0
    if num_classes < 0:
        raise ArgumentError("one_hot", f"num_classes={num_classes} is negative", "pass how many there are")
    return _OPS["one_hot"](x, num_classes=num_classes, dtype="int64")
