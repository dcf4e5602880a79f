"""Copies of a tensor in which a slice, or an element of an axis, is replaced."""

from __future__ import annotations

from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import public
from ..types import normalize_axis
from .search import as_tensor
from .slices import slice_, slice_update


def _fits(op, x, src, part):
    """src as a tensor in x's dtype. Raises: for one that is not like the part."""
    src = as_tensor(op, src)
    if src.shape != part:
        raise ShapeError(
            op, f"src: {src.type} is not like the part {list(part)} of x: {x.type}", "reshape it"
        )
    if src.dtype.rank > x.dtype.rank:
        raise DtypeError(op, f"src: {src.type} does not go into x: {x.type}", "convert one of them")
    return src.to(x.dtype)


@public
def slice_scatter(x, src, axis=0, start=None, end=None, step=1):
    """A copy of x with `x[start:end:step]` along an axis replaced by src.

    x: any[...]; src: like that slice. Returns: x's type. Raises: ShapeError, DtypeError for a src that does not fit,
    ArgumentError for a step below 1. Source: PyTorch.
    Example: `dg.slice_scatter(dg.zeros(4), dg.ones(2), start=1, end=3)` is `[0, 1, 1, 0]`.
    """
    x = as_tensor("slice_scatter", x)
    axis = normalize_axis("slice_scatter", axis, x.ndim, x.type)
    if step < 1:
        raise ArgumentError(
            "slice_scatter", f"step={step} is below 1", "use a step from 1; dg.flip turns an axis"
        )
    index = (*(slice(None),) * axis, slice(start, end, step))
    src = _fits("slice_scatter", x, src, slice_(x, index=index).shape)
    return slice_update(x, src, index=index)


@public
def select_scatter(x, src, axis, index):
    """A copy of x with element `index` of an axis replaced by src, which has x's other axes.

    Raises: ShapeError, DtypeError for a src that does not fit, IndexingError for an index outside. Source: PyTorch.
    Example: `dg.select_scatter(dg.zeros((2, 2)), dg.ones(2), 0, 1)` is `[[0, 0], [1, 1]]`.
    """
    x = as_tensor("select_scatter", x)
    axis = normalize_axis("select_scatter", axis, x.ndim, x.type)
    place = (*(slice(None),) * axis, index)
    src = _fits("select_scatter", x, src, slice_(x, index=place).shape)
    return slice_update(x, src, index=place)
