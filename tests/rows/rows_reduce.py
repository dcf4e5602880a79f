"""Rows of tests/test_families_random.py: reductions, statistics, running results, sorting and searching."""

from __future__ import annotations

from typing import Any

import duograd as dg
import numpy as np
import scipy.special
import scipy.stats
import torch
from drawing import FLOATS, REAL, Row, numpy_of, of_torch, table, wide

F = torch.nn.functional


def reduced(side: int = 0, least: int = 0):
    def draw(d: Any) -> Any:
        shape = d.shape(least, side=side)
        return [d.array(shape)], {"axis": d.axes(len(shape)), "keepdims": d.pick([False, True])}

    return draw


def along(side: int = 0, **settings: Any):
    """One axis; settings: lists to pick from."""

    def draw(d: Any) -> Any:
        shape = d.shape(1, side=side)
        return [d.array(shape)], {"axis": d.axis(len(shape)), **{k: d.pick(v) for k, v in settings.items()}}

    return draw


def one_or_all(d: Any) -> Any:
    shape = d.shape(1, side=1)
    return [d.array(shape)], {"axis": d.pick([None, d.axis(len(shape))]), "keepdims": d.pick([False, True])}


def _same(name: str) -> Any:
    fn = getattr(np, name)
    return lambda x, **kw: fn(x, **kw)


def _corrected(name: str) -> Any:
    fn = getattr(np, name)
    return wide(lambda x, axis, keepdims, correction: fn(x, axis=axis, keepdims=keepdims, ddof=correction))


def with_correction(d: Any) -> Any:
    arrays, settings = reduced(side=2, least=1)(d)
    return arrays, {**settings, "correction": d.pick([0, 1])}


def _median(x: np.ndarray, **kw: Any) -> Any:
    return np.median(x.astype(np.float64), **kw)


def ranked(d: Any) -> Any:
    arrays, settings = one_or_all(d)
    q = d.pick([0.0, 0.3, 1.0, np.array([0.1, 0.5])])
    return arrays, {
        **settings,
        "q": q,
        "method": d.pick(["linear", "lower", "higher", "midpoint", "nearest"]),
    }


def _quantile(name: str) -> Any:
    fn = getattr(np, name)
    return wide(lambda x, axis, keepdims, q, method: fn(x, q, axis=axis, keepdims=keepdims, method=method))


def _percents(name: str) -> Any:
    fn = getattr(dg, name)
    return lambda x, q, **kw: fn(x, 100 * q, **kw)


def averaged(d: Any) -> Any:
    shape = d.shape(1, side=1)
    axis = d.axis(len(shape))
    return [d.array(shape), d.array((shape[axis],), 0.5, 2.0, corners=False)], {"axis": axis}


REDUCE = [
    *table("sum prod", numpy_of, reduced(), dtypes=(*REAL, "uint8"), scale=20),
    *table("mean", numpy_of, reduced(side=1)),
    *table("max min amax amin", _same, reduced(side=1), dtypes=(*REAL, "uint8")),
    *table("any all", _same, reduced(), dtypes=("bool", "float32", "int32"), slope=False),
    *table("count_nonzero", _same, reduced(), slope=False),
    *table("argmax argmin", _same, one_or_all, dtypes=REAL, slope=False),
    *table("ptp", _same, reduced(side=1)),
    *table("var std", _corrected, with_correction, scale=40),
    *table("nansum nanprod", numpy_of, reduced(), scale=20),
    *table("nanmean", numpy_of, reduced(side=1)),
    *table("nanmax nanmin", _same, reduced(side=1)),
    *table("nanargmax nanargmin", _same, one_or_all, slope=False),
    *table("nanvar nanstd", _corrected, with_correction, scale=40),
    Row("logsumexp", wide(scipy.special.logsumexp), reduced(side=1, least=1), scale=10),
    Row("median", _median, one_or_all),
    Row("nanmedian", wide(np.nanmedian), one_or_all),
    *[Row(n, _quantile(n), ranked, scale=40, dtypes=FLOATS, corners="nan") for n in ("quantile", "nanquantile")],
    *[Row(n, _quantile(n.replace("percentile", "quantile")), ranked, _percents(n), scale=40, dtypes=FLOATS, corners="nan")
      for n in ("percentile", "nanpercentile")],
    Row("aminmax", lambda x, axis, keepdims: (x.min(axis=axis, keepdims=keepdims), x.max(axis=axis, keepdims=keepdims)),
        reduced(side=1)),
    Row("average", wide(lambda x, w, axis: np.average(x, axis, w)), averaged, dtypes=FLOATS,
        call=lambda x, w, axis: dg.average(x, axis, w), scale=20),
    Row("vector_norm", wide(lambda x, axis, keepdims, ord: _vector_norm(x, axis, keepdims, ord)),
        lambda d: (lambda a, s: (a, {**s, "ord": d.pick([2, 1, np.inf, -np.inf, 3, 0.5])}))(*reduced(side=1)(d)),
        dtypes=FLOATS, scale=20),
    Row("norm", wide(lambda x, axis, keepdims: np.sqrt((np.abs(x) ** 2).sum(axis=axis, keepdims=keepdims))),
        reduced(side=1), dtypes=FLOATS, scale=20),
]  # fmt: skip


def _vector_norm(x: Any, axis: Any, keepdims: bool, ord: Any) -> Any:
    x = np.abs(x)
    if abs(ord) == np.inf:
        return (np.max if ord > 0 else np.min)(x, axis=axis, keepdims=keepdims)
    return (x**ord).sum(axis=axis, keepdims=keepdims) ** (1 / ord)


# ---------------------------------------------------------------- running results


def _reversed(fn: Any) -> Any:
    return lambda x, axis, reverse: (
        np.flip(fn(np.flip(x, axis), axis=axis), axis) if reverse else fn(x, axis=axis)
    )


def _linear(a: np.ndarray, b: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    out, order = np.zeros_like(b), range(len(a))
    h = np.zeros(b.shape[1:])
    for k in reversed(order) if reverse else order:
        h = out[k] = a[k] * h + b[k]
    return np.moveaxis(out, 0, axis)


def two_along(d: Any) -> Any:
    shape = d.shape(1)
    settings = {"axis": d.axis(len(shape)), "reverse": d.pick([False, True])}
    return [d.array(shape, -1, 1, corners=False), d.array(shape)], settings


def differed(d: Any) -> Any:
    shape = d.shape(1, side=3)
    return [d.array(shape)], {"axis": d.axis(len(shape)), "n": d.pick([1, 2])}


BOTH = {"reverse": [False, True]}
SCAN = [
    *[Row(n, wide(_reversed(getattr(np, n))), along(**BOTH), scale=20) for n in ("cumsum", "cumprod")],
    Row("logcumsumexp", wide(_reversed(np.logaddexp.accumulate)), along(side=1, **BOTH), dtypes=FLOATS, scale=20),
    *[Row(n, of_torch(lambda x, axis, n=n: getattr(torch, n)(x, axis)), along(side=1)) for n in ("cummax", "cummin")],
    *[Row(n, numpy_of(n), along(include_initial=[False, True]), scale=20) for n in ("cumulative_sum", "cumulative_prod")],
    Row("linear_scan", wide(_linear), two_along, dtypes=FLOATS, scale=20),
    Row("diff", numpy_of("diff"), differed),
    Row("ediff1d", numpy_of("ediff1d"), lambda d: ([d.array(d.shape(1, 1, 1))], {})),
    Row("trapezoid", wide(np.trapezoid), along(side=1), dtypes=FLOATS, scale=20),
    Row("cumulative_trapezoid", of_torch(lambda y, axis: torch.cumulative_trapezoid(y, dim=axis)), along(side=2),
        dtypes=FLOATS, scale=20),
]  # fmt: skip

# ---------------------------------------------------------------- order


def _sorted(x: Any, axis: int, descending: bool) -> Any:
    return torch.sort(x, dim=axis, descending=descending, stable=True)


def _ties(x: np.ndarray) -> np.ndarray:
    return np.round(x * 2) / 2


def topped(d: Any) -> Any:
    shape = d.shape(1, side=1)
    axis = d.axis(len(shape))
    return [d.array(shape)], {"axis": axis, "k": d.pick([1, shape[axis]]), "largest": d.pick([True, False])}


def _topk(x: Any, axis: int, k: int, largest: bool) -> Any:
    return torch.topk(x, k, dim=axis, largest=largest).values


def searched(d: Any) -> Any:
    return [np.sort(d.array(d.shape(1, 1))), d.array(d.shape(0, 2))], {"right": d.pick([False, True])}


def lists(d: Any) -> Any:
    return [_whole(d, d.shape(1, 1)), _whole(d, d.shape(1, 1))], {}


def _whole(d: Any, shape: Any) -> np.ndarray:
    """Many equal values."""
    return np.round(d.array(shape, -2, 2)).astype(d.dtype)


def set_row(name: str) -> Row:
    return Row(
        name, getattr(np, name.replace("in1d", "isin")), lists, dtypes=("float32", "int32"), slope=False
    )


def counted(d: Any) -> Any:
    return [d.index(d.shape(1, 1), 7)], {"minlength": d.pick([0, 9])}


ORDER = [
    Row("sort", of_torch(lambda x, **kw: _sorted(x, **kw).values), along(descending=[False, True]), dtypes=(*REAL, "uint8")),
    Row("argsort", of_torch(lambda x, **kw: _sorted(x, **kw).indices), along(descending=[False, True]), slope=False),
    Row("msort", lambda x: np.sort(x, axis=0), lambda d: ([d.array(d.shape(1))], {})),
    Row("topk", of_torch(_topk), topped, lambda x, **kw: dg.topk(x, **kw)[0]),
    Row("kthvalue", of_torch(lambda x, axis, k, largest: torch.kthvalue(x, k, axis).values), topped,
        lambda x, axis, k, largest: dg.kthvalue(x, k, axis)[0]),
    Row("lexsort", lambda x, axis: np.lexsort(x, axis), lambda d: (
        [_whole(d, (2, *d.shape(1, 2)))], {"axis": -1}), dtypes=("int32", "float32"), slope=False, corners=False),
    Row("searchsorted", lambda a, v, right: np.searchsorted(a, v, side="right" if right else "left"), searched, slope=False),
    Row("bucketize", of_torch(lambda a, v, right: torch.bucketize(v, a, right=right)), searched,
        lambda a, v, right: dg.bucketize(v, a, right=right), slope=False),
    Row("digitize", lambda a, v, right: np.digitize(v, a, right), searched, lambda a, v, right: dg.digitize(v, a, right),
        slope=False),
    Row("bincount", np.bincount, counted, dtypes=("int32",), slope=False),
    Row("histogram", wide(lambda x, bins: np.histogram(x, bins, range=(-2.0, 2.0))), lambda d: (
        [d.array(d.shape(1, 2), corners=False)], {"bins": d.pick([1, 7])}),
        lambda x, bins: dg.histogram(x, bins, range=(-2.0, 2.0)), dtypes=FLOATS, slope=False),
    Row("histc", of_torch(lambda x, bins: torch.histc(x, bins, -2, 2)), lambda d: (
        [d.array(d.shape(1, 2), corners=False)], {"bins": d.pick([1, 7])}),
        lambda x, bins: dg.histc(x, bins, -2, 2), dtypes=FLOATS, slope=False),
    *map(set_row, "isin in1d union1d intersect1d setdiff1d setxor1d".split()),
    Row("unique", np.unique, lambda d: ([_whole(d, d.shape(0, 2))], {}), dtypes=("float32", "int32"), slope=False,
        corners=False),
    Row("unique_consecutive", of_torch(torch.unique_consecutive), lambda d: ([_whole(d, d.shape(1, 1, 1))], {}), slope=False,
        corners=False),
    Row("unique_values", np.unique, lambda d: ([_whole(d, d.shape(0, 2))], {}), dtypes=("int32",), slope=False),
    Row("unique_counts", lambda x: np.unique(x, return_counts=True), lambda d: ([_whole(d, d.shape(0, 2))], {}),
        dtypes=("int32",), slope=False),
    Row("unique_inverse", lambda x: np.unique(x, return_inverse=True), lambda d: ([_whole(d, d.shape(0, 2))], {}),
        dtypes=("int32",), slope=False),
    Row("unique_all", lambda x: np.unique(x, True, True, True), lambda d: ([_whole(d, d.shape(0, 2))], {}),
        dtypes=("int32",), slope=False),
    Row("nonzero", np.nonzero, lambda d: ([_whole(d, d.shape(1))], {}), dtypes=("float32", "int32", "bool"), slope=False),
    Row("argwhere", np.argwhere, lambda d: ([_whole(d, d.shape(1))], {}), slope=False),
    Row("flatnonzero", np.flatnonzero, lambda d: ([_whole(d, d.shape(0))], {}), slope=False),
    Row("most_frequent", lambda x, axis, keepdims: _mode(x, axis, keepdims), lambda d: (
        lambda a, s: ([np.round(a[0]).astype(d.dtype)], {**s, "keepdims": d.pick([False, True])}))(*along(side=1)(d)),
        lambda x, **kw: dg.most_frequent(x, **kw)[0], dtypes=("int32", "float32"), corners=False, slope=False),
]  # fmt: skip


def _mode(x: np.ndarray, axis: int, keepdims: bool) -> Any:
    return scipy.stats.mode(x, axis=axis, keepdims=keepdims).mode


ROWS = REDUCE + SCAN + ORDER
