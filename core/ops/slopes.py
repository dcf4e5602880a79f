"""Slopes of functions that are given by samples."""

from __future__ import annotations

from ..errors import ArgumentError, ShapeError
from ..op import public
from ..types import default_float, normalize_axis
from ..value import Tensor
from .joining import concat
from .search import as_tensor
from .shape import reshape, slice_


@public
def gradient(x, *spacing, axis=None, edge_order=1):
    """The slopes of samples x along axes: differences of both neighbours, at the edges of one side.

    x: float[...], or integers as floats; spacing: nothing (1), a number for all axes, or for each axis a number or
    its coordinates, float[n]; axis: an int or a tuple, None for all; edge_order: 1 or 2, the order of the error at the
    edges. Returns: a tensor like x for one axis, else a tuple of them. Raises: ShapeError for an axis with fewer than
    edge_order + 1 samples, ArgumentError for spacings that do not fit. Numerics: the error inside is of order two, also
    where coordinates are not evenly spaced. Source: NumPy; PyTorch's gives a tuple and has spacing= and dim=.
    Example: `dg.gradient(dg.tensor([1.0, 2.0, 4.0]))` is `[1, 1.5, 2]`.
    """
    x = as_tensor("gradient", x)
    if not (x.dtype.is_float or x.dtype.is_complex):
        x = x.to(default_float)
    asked = range(x.ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = [normalize_axis("gradient", a, x.ndim, x.type) for a in asked]
    if len(set(axes)) < len(axes) or not axes:
        raise ArgumentError(
            "gradient", f"axis={axis} names {'no axis' if not axes else 'one twice'}", "name others"
        )
    if edge_order not in (1, 2):
        raise ArgumentError("gradient", f"edge_order={edge_order}", "use 1 or 2")
    if len(spacing) > 1 and len(spacing) != len(axes):
        raise ArgumentError("gradient", f"{len(spacing)} spacings for {len(axes)} axes", "pass one an axis")
    steps = spacing * len(axes) if len(spacing) == 1 else spacing or (1.0,) * len(axes)
    made = []
    for a, h in zip(axes, steps):
        if x.shape[a] <= edge_order:
            raise ShapeError(
                "gradient", f"axis {a} of x: {x.type} has {x.shape[a]} samples", f"it needs {edge_order + 1}"
            )
        made.append(_along(x, a, _steps(x, a, h), edge_order))
    return made[0] if len(made) == 1 else tuple(made)


def _steps(x, a, h):
    """A number, or the distances of coordinates, shaped to stand beside x."""
    if isinstance(h, (int, float)):
        return float(h)
    h = as_tensor("gradient", h)
    if not h.shape:
        return h.to(x.dtype.real)
    n = x.shape[a]
    if h.shape != (n,):
        raise ShapeError("gradient", f"coordinates: {h.type} are not for {n} samples", "pass one a sample")
    h = h.to(x.dtype.real)
    apart = slice_(h, index=(slice(1, None),)) - slice_(h, index=(slice(0, n - 1),))
    return reshape(apart, shape=(n - 1, *(1,) * (x.ndim - a - 1)))


def _along(x, a, h, order):
    n = x.shape[a]

    def part(v, start, stop):
        return slice_(v, index=(*(slice(None),) * (v.ndim - x.ndim + a), slice(start, stop)))

    def at(k):
        return part(x, k, k + 1)

    if not isinstance(h, Tensor) or not h.shape:
        inside = (part(x, 2, n) - part(x, 0, n - 2)) / (h * 2.0)
        first, last = h, h
        before, behind = h, h
    else:

        def step(start, stop):
            return slice_(h, index=(slice(start, stop),))

        before, behind = step(0, n - 2), step(1, n - 1)
        inside = _three(part(x, 0, n - 2), part(x, 1, n - 1), part(x, 2, n), *_central(before, behind))
        first, last = step(0, 1), step(n - 2, n - 1)
        before, behind = (step(0, 1), step(1, 2)), (step(n - 3, n - 2), step(n - 2, n - 1))
    if order == 1:
        start, end = (at(1) - at(0)) / first, (at(n - 1) - at(n - 2)) / last
    else:
        near = before if isinstance(before, tuple) else (h, h)
        far = behind if isinstance(behind, tuple) else (h, h)
        start = _three(at(0), at(1), at(2), *_at_start(*near))
        a2, b2, c2 = _at_start(*far[::-1])
        end = _three(at(n - 3), at(n - 2), at(n - 1), -c2, -b2, -a2)
    return concat([start, inside, end], axis=a)


def _three(x, y, z, a, b, c):
    return x * a + y * b + z * c


def _central(p, q):
    """Weights of three samples, p and q apart, for the slope at the middle one."""
    return -q / (p * (p + q)), (q - p) / (p * q), p / (q * (p + q))


def _at_start(p, q):
    """The same for the slope at the first one."""
    return -(p * 2.0 + q) / (p * (p + q)), (p + q) / (p * q), -p / (q * (p + q))
