"""Gamma, beta, Dirichlet and Poisson draws: distributions against SciPy's, gradients, both modes, corner parameters."""

from __future__ import annotations

import duograd as dg
import numpy as np
import pytest
from duograd.core.ops.sampling import log_gamma_slope
from duograd.core.ops.special import digamma
from scipy import special, stats

#: a failing seed would be found once in ten thousand
LEAST = 1e-4


@pytest.fixture(autouse=True)
def _seeded():
    dg.manual_seed(11)


@pytest.mark.parametrize("a", [0.05, 0.9, 1.0, 4.0, 300.0])
def test_gamma_follows_its_distribution(a):
    x = dg.gamma(a, 2.0, shape=(4000,), dtype="float64").numpy()
    assert stats.kstest(x, stats.gamma(a, scale=0.5).cdf).pvalue > LEAST


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.6), (2.0, 5.0)])
def test_beta_follows_its_distribution(a, b):
    x = dg.beta(a, b, shape=(4000,), dtype="float64").numpy()
    assert stats.kstest(x, stats.beta(a, b).cdf).pvalue > LEAST


@pytest.mark.parametrize("rate", [0.5, 11.9, 12.0, 80.0, 3000.0])
def test_poisson_follows_its_distribution(rate):
    x, m = dg.poisson(rate, shape=(8000,), dtype="float64").numpy(), stats.poisson(rate)
    marks = np.unique(m.ppf(np.linspace(0.02, 0.98, 12)))
    expected = np.diff([0, *m.cdf(marks), 1]) * len(x)
    found = np.histogram(x, [-1, *(marks + 0.5), np.inf])[0]
    assert stats.chisquare(found, expected).pvalue > LEAST
    assert np.array_equal(x, np.floor(x))


def test_dirichlet_shares_add_up():
    a = dg.tensor([0.5, 1.0, 3.0])
    x = dg.dirichlet(a, shape=(2000,)).numpy()
    np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(x.mean(0), a.numpy() / 4.5, atol=0.03)


@pytest.mark.parametrize("a", [0.1, 0.9, 2.0, 500.0, 25000.0])
def test_the_slope_of_a_gamma_draw_is_that_at_a_fixed_share(a):
    p, h = np.array([0.001, 0.1, 0.5, 0.9, 0.999]), a * 1e-5

    def log_quantile(a):
        return np.log(np.where(p < 0.5, special.gammaincinv(a, p), special.gammainccinv(a, 1 - p)))

    at = dg.tensor(np.full(5, a))
    found = log_gamma_slope(at, dg.tensor(log_quantile(a)), digamma(at)).numpy()
    np.testing.assert_allclose(found, (log_quantile(a + h) - log_quantile(a - h)) / (2 * h), rtol=1e-6)


def test_gradients_flow_to_parameters():
    a, rate = dg.tensor([0.5, 2.0, 30.0], requires_grad=True), dg.tensor(2.0, requires_grad=True)
    x = dg.gamma(a, rate, shape=(4000, 3), dtype="float64")
    x.mean(axis=0).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), 0.5, rtol=0.1)  # the mean is a / rate
    np.testing.assert_allclose(rate.grad.item(), -x.detach().numpy().mean(0).sum() / 2, rtol=1e-5)
    b = dg.tensor(2.0, requires_grad=True)
    dg.beta(b, 3.0, shape=(4000,)).mean().backward()
    np.testing.assert_allclose(b.grad.item(), 3 / 25, rtol=0.1)  # d/db of b / (b + 3)


def test_both_modes_draw_the_same_and_shapes_broadcast():
    a, rate = dg.tensor([[0.3], [4.0]]), dg.tensor([1.0, 20.0, 7.0], dtype="float64")

    @dg.function
    def draw():
        return dg.gamma(a, rate), dg.poisson(rate, shape=(2, 3)), dg.beta(a, 2.0), dg.dirichlet(rate)

    for _ in range(2):
        dg.manual_seed(5)
        graph = draw()
        dg.manual_seed(5)
        eager = draw.eager()
        for g, e in zip(graph, eager, strict=True):
            np.testing.assert_array_equal(g.numpy(), e.numpy())
    assert [y.shape for y in eager] == [(2, 3), (2, 3), (2, 1), (3,)]
    assert [y.dtype for y in eager] == [dg.float64, dg.float64, dg.float32, dg.float64]


def test_corner_parameters():
    a = dg.tensor([0.0, -1.0, np.nan, np.inf])
    np.testing.assert_array_equal(dg.gamma(a).numpy(), [0, np.nan, np.nan, np.inf])
    np.testing.assert_array_equal(dg.poisson(a).numpy(), [0, np.nan, np.nan, np.nan])
    tiny = dg.beta(1e-4, 1e-4, shape=(50,)).numpy()
    assert np.isfinite(tiny).all()
    assert dg.gamma(dg.ones((2,), dtype="bfloat16")).dtype is dg.bfloat16


def test_misuse():
    with pytest.raises(ValueError, match=r"\[gamma\] concentration=-1.0 is not above 0"):
        dg.gamma(-1.0)
    with pytest.raises(ValueError, match=r"\[poisson\] rate=-1 is below 0"):
        dg.poisson(-1)
    with pytest.raises(TypeError, match=r"\[dirichlet\]"):
        dg.dirichlet(2.0)
