"""Statistics against NumPy and torch over axes, methods and corner values."""

import warnings

import duograd as dg
import numpy as np
import pytest
import torch
from duograd.core.ops.quantile import METHODS

RNG = np.random.default_rng(0)
WITH_NAN = RNG.normal(size=(3, 4, 5))
WITH_NAN[0, 0, 0] = WITH_NAN[1, :, 2] = np.nan
WHOLE = RNG.integers(0, 5, (4, 6)).astype("float64")


def _equal(got, want, **more):
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12, **more)


@pytest.fixture(autouse=True)
def quiet_numpy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns of rows that are all NaN
        yield


@pytest.mark.parametrize(
    "name", "nansum nanprod nanmean nanmax nanmin nanvar nanstd median nanmedian ptp".split()
)
def test_statistic_equals_numpy(name):
    for x in (WITH_NAN, WHOLE, WHOLE[:, :1]):
        for axis in (None, 0, -1, (0, 1)):
            for keepdims in (False, True):
                got = getattr(dg, name)(dg.tensor(x), axis=axis, keepdims=keepdims)
                _equal(got, getattr(np, name)(x, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("method", METHODS)
def test_quantile_equals_numpy(method):
    for x in (WITH_NAN, WHOLE):
        for axis in (None, 0, (0, 1)):
            for q in (0.3, [0.0, 0.5, 0.77, 1.0], 1 / 3):
                for name in ("quantile", "nanquantile"):
                    got = getattr(dg, name)(dg.tensor(x), q, axis=axis, method=method)
                    _equal(got, getattr(np, name)(x, q, axis=axis, method=method), err_msg=name)
    q = dg.tensor(np.array([0.25, 0.5]))
    _equal(
        dg.quantile(dg.tensor(WHOLE), q, axis=1, method=method),
        np.quantile(WHOLE, [0.25, 0.5], axis=1, method=method),
    )
    _equal(dg.percentile(dg.tensor(WHOLE), 30, method=method), np.percentile(WHOLE, 30, method=method))


def test_quantile_refuses_what_it_cannot_do():
    x = dg.tensor(WHOLE)
    with pytest.raises(dg.errors.ArgumentError, match="not between 0 and 1"):
        dg.quantile(x, 1.5)
    with pytest.raises(dg.errors.ArgumentError, match=r"method=.near."):
        dg.quantile(x, 0.5, method="near")
    with pytest.raises(dg.errors.ArgumentError, match="empty axis"):
        dg.median(x[:0], axis=0)


def test_neighbours_equal_numpy_and_torch():
    for axis in (0, 1):
        t = dg.tensor(WHOLE)
        n = WHOLE.shape[axis]
        _equal(
            dg.diff(t, 2, axis, prepend=0, append=t), np.diff(WHOLE, 2, axis=axis, prepend=0, append=WHOLE)
        )
        _equal(dg.trapezoid(t, axis=axis), np.trapezoid(WHOLE, axis=axis))
        x = np.arange(n) ** 2.0
        _equal(dg.trapezoid(t, dg.tensor(x), axis=axis), np.trapezoid(WHOLE, x, axis=axis))
        want = torch.cumulative_trapezoid(torch.tensor(WHOLE), dim=axis)
        _equal(dg.cumulative_trapezoid(t, axis=axis), want.numpy())
    np.testing.assert_array_equal(dg.diff(dg.tensor([True, False, False])).numpy(), [True, False])


@pytest.mark.parametrize("side", ["prepend", "append"])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_what_is_joined_before_a_difference_is_not_cut_off(mode, side):
    whole = np.array([1, 3, 7])
    found = dg.function(lambda x: dg.diff(x, **{side: 0.5}), mode=mode)(dg.tensor(whole))
    _equal(found, np.diff(whole, **{side: 0.5}))
    assert found.dtype is dg.float32
    assert dg.diff(dg.tensor(whole), **{side: 2}).dtype is dg.int64
    assert dg.diff(dg.tensor(whole).to("float16"), **{side: 0.5}).dtype is dg.float16
    _equal(dg.diff(dg.tensor([True, False]), **{side: 3}), np.diff([True, False], **{side: 3}))
    with pytest.raises(dg.errors.ArgumentTypeError, match=r"\[diff\] the number 300 does not fit uint8"):
        dg.function(lambda x: dg.diff(x, **{side: 300}), mode=mode)(dg.tensor(whole.astype(np.uint8)))


def test_several_variables_equal_numpy_and_torch():
    z, w = RNG.normal(size=(3, 10)), RNG.uniform(size=(3, 10))
    counts, weights = RNG.integers(1, 4, 10), RNG.uniform(size=10)
    t = dg.tensor(z)
    _equal(dg.cov(t), np.cov(z))
    _equal(dg.cov(t, rowvar=False, correction=0), np.cov(z, rowvar=False, ddof=0))
    got = dg.cov(t, fweights=dg.tensor(counts), aweights=dg.tensor(weights))
    _equal(got, np.cov(z, fweights=counts, aweights=weights))
    _equal(dg.cov(t[0]), np.cov(z[0]))
    _equal(dg.cov(t, dg.tensor(w)), np.cov(z, w))
    _equal(dg.corrcoef(t), np.corrcoef(z))
    _equal(dg.average(t, weights=dg.tensor(w), axis=1), np.average(z, weights=w, axis=1))
    _equal(dg.average(t, 1, weights=dg.tensor(weights)), np.average(z, weights=weights, axis=1))
    for p in (0.0, 1.0, 2.0, 3.0, np.inf):
        _equal(dg.cdist(t, dg.tensor(w), p), torch.cdist(torch.tensor(z), torch.tensor(w), p).numpy())
        _equal(dg.pdist(t, p), torch.pdist(torch.tensor(z), p).numpy())


@pytest.mark.parametrize("name", ["argmax", "argmin", "nanargmax", "nanargmin"])
def test_positions_of_extremes_with_nan_and_ties(name):
    x = np.array([[1.0, np.nan, 3.0, 3.0], [-0.0, 0.0, -1.0, -1.0], [np.inf, -np.inf, np.inf, -np.inf]])
    for axis in (None, 0, 1):
        np.testing.assert_array_equal(
            getattr(dg, name)(dg.tensor(x), axis=axis).numpy(), getattr(np, name)(x, axis=axis)
        )
