"""Importers of shapes and memory order: Reshape, Transpose, Slice, Concat, Split, Pad, Expand, ..."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core.op import REGISTRY as ops
from ...core.value import Tensor
from .program import as_array, host_tensor
from .table import adapter


def reverse(x: Any, axis: int) -> Any:
    """x backwards along an axis."""
    return ops["flip"](x, axis=axis)


def _ints(row: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in np.asarray(row).ravel())


# ---------------------------------------------------------------- what shapes say


@adapter("Shape", fold=False, codes="moved")
def shape(x, *, start=0, end=None):
    """The sizes as an array: known in both modes."""
    return np.array(x.shape[slice(start, end)], np.int64)


@adapter("Size", fold=False, codes="moved")
def size(x):
    """The number of elements."""
    return np.array(math.prod(x.shape), np.int64)


# ---------------------------------------------------------------- the same elements


@adapter("Reshape", since=5, host=("shape",), codes="moved")
def reshape(x, shape, *, allowzero=0):
    """A 0 means "as in x" unless allowzero."""
    sizes = _ints(shape)
    if not allowzero:
        sizes = tuple(x.shape[k] if n == 0 else n for k, n in enumerate(sizes))
    if -1 in sizes and x.size == 0:
        known = math.prod(n for n in sizes if n != -1)
        sizes = tuple((0 if known == 0 else x.size // known) if n == -1 else n for n in sizes)
    return ops["reshape"](x, shape=sizes)


@adapter("Reshape", since=1, codes="moved")
def reshape_1(x, *, shape):
    """The shape as an attribute."""
    return reshape(x, np.array(shape))


@adapter("Flatten", codes="moved")
def flatten(x, *, axis=1):
    """Two axes: those before `axis` and those from it on."""
    axis = axis + x.ndim if axis < 0 else axis
    return ops["reshape"](x, shape=(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@adapter("Transpose", codes="moved")
def transpose(x, *, perm=None):
    """Axes in another order; reversed when none is given."""
    return ops["permute"](x, axes=tuple(perm if perm is not None else range(x.ndim - 1, -1, -1)))


def _squeeze(x: Any, axes: Any) -> Any:
    return ops["squeeze"](x, axis=None if axes is None else _ints(axes))


@adapter("Squeeze", since=13, host=("axes",), codes="moved")
def squeeze(x, axes=None):
    """x without axes of size 1."""
    return _squeeze(x, axes)


@adapter("Squeeze", since=1, codes="moved")
def squeeze_1(x, *, axes=None):
    """Axes as an attribute."""
    return _squeeze(x, axes)


def _unsqueeze(x: Any, axes: Any) -> Any:
    return ops["expand_dims"](x, axis=axes)


@adapter("Unsqueeze", since=13, host=("axes",), codes="moved")
def unsqueeze(x, axes):
    """New axes of size 1, at places of the result."""
    return _unsqueeze(x, _ints(axes))


@adapter("Unsqueeze", since=1, codes="moved")
def unsqueeze_1(x, *, axes):
    """Axes as an attribute."""
    return _unsqueeze(x, axes)


@adapter("DepthToSpace", codes="moved")
def depth_to_space(x, *, blocksize, mode="DCR"):
    """Blocks of channels become blocks of pixels."""
    if mode == "CRD":
        return ops["pixel_shuffle"](x, factor=blocksize)
    n, c, h, w = x.shape
    b, rest = blocksize, c // blocksize**2
    y = ops["permute"](ops["reshape"](x, shape=(n, b, b, rest, h, w)), axes=(0, 3, 4, 1, 5, 2))
    return ops["reshape"](y, shape=(n, rest, h * b, w * b))


@adapter("SpaceToDepth", codes="moved")
def space_to_depth(x, *, blocksize, mode="DCR"):
    """Blocks of pixels become channels."""
    n, c, h, w = x.shape
    b = blocksize
    y = ops["reshape"](x, shape=(n, c, h // b, b, w // b, b))
    axes = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return ops["reshape"](ops["permute"](y, axes=axes), shape=(n, c * b * b, h // b, w // b))


# ---------------------------------------------------------------- parts


def _slice(x: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
    starts, ends = _ints(starts), _ints(ends)
    axes = range(len(starts)) if axes is None else _ints(axes)
    steps = (1,) * len(starts) if steps is None else _ints(steps)
    index: list[Any] = [slice(None)] * x.ndim
    for a, start, end, step in zip(axes, starts, ends, steps):
        n = x.shape[a]
        # Ends past the front of a backward slice are far negative in ONNX; Python would wrap -1 once.
        if step < 0 and end < -n:
            end = None
        index[a] = slice(start if start >= -n else (0 if step > 0 else -n), end, step)
    return ops["slice"](x, index=tuple(index))


@adapter("Slice", since=10, host=("starts", "ends", "axes", "steps"), codes="moved")
def slice_(x, starts, ends, axes=None, steps=None):
    """Ranges of some axes."""
    return _slice(x, starts, ends, axes, steps)


@adapter("Slice", since=1, codes="moved")
def slice_1(x, *, starts, ends, axes=None):
    """Ranges as attributes."""
    return _slice(x, starts, ends, axes, None)


def _split(node: Any, x: Any, axis: int, sizes: Any, num_outputs: int | None) -> Any:
    n = x.shape[axis]
    if sizes is None:
        parts = num_outputs or node.n_outputs
        each = -(-n // parts)
        sizes = [each] * (parts - 1) + [n - each * (parts - 1)]
    return tuple(ops["split"](x, sizes=tuple(int(s) for s in sizes), axis=axis))


@adapter("Split", since=13, host=("split",), codes="moved")
def split(node, x, split=None, *, axis=0, num_outputs=None):
    """Parts along an axis; the last is smaller when they are not equal."""
    return _split(node, x, axis, split, num_outputs)


@adapter("Split", since=1, codes="moved")
def split_1(node, x, *, axis=0, split=None):
    """Sizes as an attribute."""
    return _split(node, x, axis, split, None)


@adapter("Concat", codes="moved")
def concat(*xs, axis=0):
    """Tensors joined along an axis."""
    return ops["concat"](list(xs), axis=axis)


# ---------------------------------------------------------------- larger


@adapter("Expand", host=("shape",), grows=True, codes="moved")
def expand(x, shape):
    """Broadcast both ways: a 1 in the shape keeps x's size."""
    sizes = _ints(shape)
    ndim = max(x.ndim, len(sizes))
    mine = (1,) * (ndim - x.ndim) + tuple(x.shape)
    other = (1,) * (ndim - len(sizes)) + sizes
    return ops["broadcast_to"](x, shape=tuple(b if a == 1 else a for a, b in zip(mine, other)))


@adapter("Tile", since=6, host=("repeats",), grows=True, codes="moved")
def tile(x, repeats):
    """x repeated along each axis."""
    return ops["tile"](x, reps=_ints(repeats))


@adapter("Tile", since=1, host=("tiles", "axis"), grows=True, codes="moved")
def tile_1(x, tiles, axis):
    """x repeated along one axis."""
    row = [1] * x.ndim
    row[_ints(axis)[0]] = _ints(tiles)[0]
    return ops["tile"](x, reps=tuple(row))


def _pad(x: Any, pads: Any, mode: str, value: Any, axes: Any) -> Any:
    pads = _ints(pads)
    axes = range(x.ndim) if axes is None else [a % x.ndim for a in _ints(axes)]
    pairs = [(0, 0)] * x.ndim
    for k, a in enumerate(axes):
        pairs[a] = (pads[k], pads[k + len(pads) // 2])
    if isinstance(value, Tensor) and mode == "constant":
        cut = tuple((min(0, a), min(0, b)) for a, b in pairs)
        inner = ops["pad"](x, padding=cut) if any(map(any, cut)) else x
        grown = tuple((max(0, a), max(0, b)) for a, b in pairs)
        return ops["pad_constant"](inner, ops["reshape"](value, shape=()), padding=grown)
    if not x.dtype.is_float and isinstance(value, float):
        value = int(value)
    return ops["pad"](x, padding=tuple(pairs), mode=mode, value=value)


def take_constant(x: Any, index: np.ndarray, axis: int) -> Any:
    """Gather with positions known now."""
    return ops["take"](x, host_tensor(index.astype(np.int64)), axis=axis)


@adapter("Pad", since=11, host=("pads", "value", "axes"), lazy=True, codes="moved")
def pad(x, pads, value=None, axes=None, *, mode="constant"):
    """x with values around it; negative pads cut."""
    if not isinstance(value, Tensor):
        value = 0.0 if value is None else value.item()
    return _pad(x, as_array(pads), mode, value, as_array(axes))


@adapter("Pad", since=2, codes="moved")
def pad_2(x, *, pads, mode="constant", value=0.0):
    """Pads as an attribute."""
    return _pad(x, pads, mode, value, None)


@adapter("Pad", since=1, codes="moved")
def pad_1(x, *, paddings, mode="constant", value=0.0):
    """Pads under another name."""
    return _pad(x, paddings, mode, value, None)


@adapter("Trilu", host=("k",), grows=True, codes="moved")
def trilu(x, k=None, *, upper=1):
    """The upper or lower triangle of the last two axes."""
    return ops["triu" if upper else "tril"](x, k=0 if k is None else int(k))


@adapter("ReverseSequence", host=("lengths",), codes="moved")
def reverse_sequence(x, lengths, *, batch_axis=1, time_axis=0):
    """Each sequence of the batch backwards up to its length."""
    from .adapt_indexing import gather_elements

    places = np.arange(x.shape[time_axis])[:, None]
    index = np.where(places < lengths[None], lengths[None] - 1 - places, places)
    if time_axis == 1:
        index = index.T
    wide = index.reshape(*index.shape, *(1,) * (x.ndim - 2))
    full = np.ascontiguousarray(np.broadcast_to(wide, x.shape)).astype(np.int64)
    return gather_elements(x, host_tensor(full), axis=time_axis)


@adapter("CenterCropPad", host=("shape",), since=18, codes="moved")
def center_crop_pad(x, shape, *, axes=None):
    """The middle of x at another size, padded with zeros."""
    axes = range(x.ndim) if axes is None else [a % x.ndim for a in axes]
    for a, want in zip(axes, _ints(shape)):
        n = x.shape[a]
        if n > want:
            start = (n - want) // 2
            index = [slice(None)] * x.ndim
            index[a] = slice(start, start + want)
            x = ops["slice"](x, index=tuple(index))
        elif n < want:
            before = (want - n) // 2
            pairs = [(0, 0)] * x.ndim
            pairs[a] = (before, want - n - before)
            x = ops["pad"](x, padding=tuple(pairs))
    return x
