"""Different elements of a tensor, and sets of them.

How many there are is read from the tensor (`.item()`), which in graph mode ends a segment of the trace. Every
NaN is an element of its own, as the array API says.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .. import types as T
from ..errors import ArgumentError
from ..op import public
from ..value import Tensor
from . import elementwise as E
from .bins import searchsorted_
from .complex import imag, real
from .counted import counted_changes, sized
from .creation import arange, full
from .joining import concat
from .picking import take, take_elements_placed, take_x_grad
from .reduction import any_
from .scan import cumsum
from .search import as_tensor, flatnonzero, masked_select
from .shape import permute, reshape
from .sort import lexsort, sort_, sort_both


class UniqueAll(NamedTuple):
    """Different elements in order; where each stands first; for each element of x its number; how often each occurs."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """Different elements in order, and how often each occurs."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """Different elements in order, and for each element of x its number."""

    values: Tensor
    inverse_indices: Tensor


class _Runs:
    """Runs of equal neighbours in rows [n] or [n, k]: where each starts, in `places`."""

    def __init__(self, rows):
        self.n, self.device = rows.shape[0], rows.device
        # Each row beside the one before it, the first beside the last: sizes that hold for no rows, too, so that
        # exported models take any number of them.
        differ = E.not_equal(rows, concat([rows[-1:], rows[:-1]], axis=0))
        if rows.ndim > 1:
            differ = any_(differ, axis=1)
        self.starts = E.logical_or(differ, E.equal(arange(self.n, device=rows.device), 0))
        self.places = flatnonzero(self.starts)

    def numbers(self):
        """The number of its run, for every row."""
        return cumsum(self.starts, axis=0) - 1

    def counts(self):
        end = full((1,), self.n, T.int64, self.device)
        return concat([self.places[1:], end], axis=0) - self.places


def _spread(order, numbers):
    """numbers[k] at place order[k]."""
    return take_x_grad(numbers, order, size=order.shape[0])


def _flat(x):
    return x if x.ndim == 1 else reshape(x, shape=(x.size,))


def _in_order(x):
    """The elements of x sorted, and where each stood; complex numbers by their real parts first, as NumPy does."""
    flat = _flat(x)
    if not x.dtype.is_complex:
        return sort_both(flat, axis=0)
    order = lexsort([imag(flat).detach(), real(flat).detach()])
    return take(flat, order, axis=0), order


@public
def unique_values(x):
    """The different elements of x, in order. x: any[...]. Returns: x's dtype, [count].

    Numerics: every NaN is one of its own, last. The gradient goes to where each stands first. Source: array API.
    Example: `dg.unique_values(dg.tensor([3, 1, 3]))` is `[1, 3]`.
    """
    x = as_tensor("unique_values", x)
    if x.requires_grad:
        return unique_all(x).values
    if x.dtype.is_complex:
        values = _in_order(x)[0]
    else:
        values = sort_(_flat(x), axis=0)
        found = sized(counted_changes, values)
        if found is not None:
            return found
    return take_elements_placed(values, _Runs(values).places, axis=0)


@public
def unique_counts(x):
    """The different elements of x in order, and how often each occurs. Returns: (values, counts: int64).

    Source: array API. Example: `dg.unique_counts(dg.tensor([3, 1, 3])).counts` is `[1, 2]`.
    """
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


@public
def unique_inverse(x):
    """The different elements of x in order, and for each element of x the number of its value.

    Returns: (values, inverse_indices: int64 of x's shape). Source: array API.
    Example: `dg.unique_inverse(dg.tensor([3, 1, 3])).inverse_indices` is `[1, 0, 1]`.
    """
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


@public
def unique_all(x):
    """The different elements of x, where each stands first, each element's number, and how often each occurs.

    x: any[...]. Returns: (values, indices, inverse_indices, counts), integers int64. Numerics: every NaN is one of its
    own, last. Source: array API. Example: `dg.unique_all(dg.tensor([3, 1, 3])).indices` is `[1, 0]`.
    """
    x = as_tensor("unique_all", x)
    values, order = _in_order(x)
    runs = _Runs(values.detach())
    inverse = reshape(_spread(order, runs.numbers()), shape=x.shape)
    values, first = (take_elements_placed(v, runs.places, axis=0) for v in (values, order))
    return UniqueAll(values, first, inverse, runs.counts())


def _chosen(values, *optional):
    """values alone, or a tuple with those that are wanted."""
    out = (values, *(make() for wanted, make in optional if wanted))
    return out if len(out) > 1 else values


def _rows(x, axis, op):
    """x as rows [n, k] along an axis, and how to bring rows back."""
    axis = T.normalize_axis(op, axis, x.ndim, x.type)
    order = (axis, *(a for a in range(x.ndim) if a != axis))
    moved = permute(x, axes=order)
    back = tuple(sorted(range(x.ndim), key=order.__getitem__))

    def restore(rows):
        return permute(reshape(rows, shape=(rows.shape[0], *moved.shape[1:])), axes=back)

    return reshape(moved, shape=(x.shape[axis], math.prod(moved.shape[1:]))), restore


@public
def unique(x, sorted=True, return_index=False, return_inverse=False, return_counts=False, axis=None):
    """The different elements of x in order, or the different slices along an axis.

    x: any[...]; sorted: they always are. Returns: values, and after it those asked for: the first position of
    each, the number of each element's value (x's shape; [n] for an axis), how often each occurs; all int64.
    Raises: ArgumentError for an axis outside x. Numerics: every NaN is one of its own, last. Source: NumPy, PyTorch.
    Example: `dg.unique(dg.tensor([3, 1, 3]), return_counts=True)[1]` is `[1, 2]`.
    """
    x = as_tensor("unique", x)
    if axis is None:
        if not (return_index or return_inverse or return_counts):
            return unique_values(x)
        found = unique_all(x)
        return _chosen(
            found.values, (return_index, lambda: found.indices), (return_inverse, lambda: found.inverse_indices),
            (return_counts, lambda: found.counts),
        )  # fmt: skip
    rows, restore = _rows(x, axis, "unique")
    if rows.shape[1]:
        order = lexsort([rows[:, k].detach() for k in reversed(range(rows.shape[1]))])
    else:
        order = arange(rows.shape[0], device=x.device)
    lined = take(rows, order, axis=0)
    runs = _Runs(lined.detach())
    if not rows.shape[1] and rows.shape[0]:
        raise ArgumentError(
            "unique", f"x: {x.type} has empty slices along axis {axis}", "choose another axis"
        )
    return _chosen(
        restore(take(lined, runs.places, axis=0)), (return_index, lambda: take(order, runs.places, axis=0)),
        (return_inverse, lambda: _spread(order, runs.numbers())), (return_counts, runs.counts),
    )  # fmt: skip


@public
def unique_consecutive(x, *, return_inverse=False, return_counts=False, axis=None):
    """x without elements (slices along an axis) that equal the one before.

    x: any[...], read as one row when axis is None. Returns: values, and those asked for: the number of each
    element's run, the length of each run; int64. Source: PyTorch.
    Example: `dg.unique_consecutive(dg.tensor([1, 1, 2, 1]))` is `[1, 2, 1]`.
    """
    x = as_tensor("unique_consecutive", x)
    rows, restore = (_flat(x), None) if axis is None else _rows(x, axis, "unique_consecutive")
    runs = _Runs(rows.detach())
    values = take(rows, runs.places, axis=0)
    return _chosen(
        values if restore is None else restore(values),
        (return_inverse, lambda: reshape(runs.numbers(), shape=x.shape if axis is None else (runs.n,))),
        (return_counts, runs.counts),
    )  # fmt: skip


# ---------------------------------------------------------------- sets


@public
def isin(elements, test_elements, *, assume_unique=False, invert=False):
    """Whether each element is among the test elements.

    elements: any[...]; test_elements: any[...] or a number. Returns: bool, elements' shape; negated for `invert`.
    Numerics: NaN is never among them. Source: NumPy, PyTorch.
    Example: `dg.isin(dg.tensor([1, 2, 3]), dg.tensor([3, 1]))` is `[True, False, True]`.
    """
    if isinstance(test_elements, (int, float)):
        hit = E.equal(as_tensor("isin", elements), test_elements)
        return E.logical_not(hit) if invert else hit
    x, test = as_tensor("isin", elements), _flat(as_tensor("isin", test_elements))
    dtype = T.promote(x.dtype, test.dtype)
    x, test = x.to(dtype).detach(), test.to(dtype).detach()
    if test.size == 0:
        return full(x.shape, invert, T.bool_, x.device)
    lined = sort_(test, axis=0)
    place = searchsorted_(lined, _flat(x), right=False)
    near = take(lined, E.where(E.less(place, test.size), place, test.size - 1), axis=0)
    hit = reshape(E.equal(near, _flat(x)), shape=x.shape)
    return E.logical_not(hit) if invert else hit


@public
def in1d(x, y, *, assume_unique=False, invert=False):
    """`isin` of x read as one row. Source: NumPy."""
    return _flat(isin(x, y, invert=invert))


@public
def union1d(x, y):
    """The different elements of x and y together, in order. Source: NumPy.

    Example: `dg.union1d(dg.tensor([3, 1]), dg.tensor([1, 2]))` is `[1, 2, 3]`.
    """
    return unique_values(concat([_flat(as_tensor("union1d", v)) for v in (x, y)], axis=0))


@public
def intersect1d(x, y, *, assume_unique=False, return_indices=False):
    """The different elements that x and y share, in order; with return_indices also where they stand first.

    Returns: values, or (values, positions in x, positions in y). Source: NumPy.
    Example: `dg.intersect1d(dg.tensor([3, 1]), dg.tensor([1, 2]))` is `[1]`.
    """
    x, y = as_tensor("intersect1d", x), as_tensor("intersect1d", y)
    dtype = T.promote(x.dtype, y.dtype)
    found = [unique_all(v.to(dtype)) for v in (x, y)]
    keep = [isin(found[0].values, found[1].values), isin(found[1].values, found[0].values)]
    values = masked_select(found[0].values, keep[0])
    return (values, *(masked_select(f.indices, k) for f, k in zip(found, keep))) if return_indices else values


@public
def setdiff1d(x, y, *, assume_unique=False):
    """The different elements of x that are not in y, in order. assume_unique: x's own order is kept. Source: NumPy.

    Example: `dg.setdiff1d(dg.tensor([3, 1]), dg.tensor([1, 2]))` is `[3]`.
    """
    x = as_tensor("setdiff1d", x)
    values = _flat(x) if assume_unique else unique_values(x)
    return masked_select(values, isin(values, y, invert=True))


@public
def setxor1d(x, y, *, assume_unique=False):
    """The different elements that are in one of x and y only, in order. Source: NumPy.

    Example: `dg.setxor1d(dg.tensor([3, 1]), dg.tensor([1, 2]))` is `[2, 3]`.
    """
    parts = [_flat(as_tensor("setxor1d", v)) for v in (x, y)]
    parts = parts if assume_unique else [unique_values(p) for p in parts]
    found = unique_counts(concat(parts, axis=0))
    return masked_select(found.values, E.equal(found.counts, 1))
