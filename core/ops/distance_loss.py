"""Losses that measure a distance or a likelihood, element by element. reduction: "mean", "sum" or "none"."""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import math

from ..errors import ArgumentError, ShapeError
from ..op import composite, pointwise
from ..scalar import s
from . import elementwise as E
from .loss import _like, _reduced
from .outliers import refuse_outliers
from .reduction import max_, sum_
from .shape import expand_dims


def _above_zero(op, name, value):
    if not value > 0:
        raise ArgumentError(op, f"{name}={value} is not above 0", f"use a positive {name}")


@composite(widen=True, floats=True)
def huber_loss(x, y, *, delta=1.0, reduction="mean"):
    """`d*d / 2` where `|d| = |x - y|` is below delta, else `delta * (|d| - delta/2)`; equal shapes; reduced.

    Raises: ShapeError, ArgumentError for a delta that is not above 0. Source: Huber, 1964.
    """
    _like("huber_loss", x, y)
    _above_zero("huber_loss", "delta", delta)
    d = x - y
    size = E.abs_(d)
    each = E.where(E.less(size, delta), E.square(d) * 0.5, (size - 0.5 * delta) * delta)
    return _reduced("huber_loss", each, reduction)


huber_loss.sample((3, 4), (3, 4)).sample((5,), (5,), delta=0.5, reduction="none")
huber_loss.error_sample((2, 3), (3,), match="differ in shape")


@composite(widen=True, floats=True)
def smooth_l1_loss(x, y, *, beta=1.0, reduction="mean"):
    """`huber_loss / beta`: `d*d / (2 beta)` near 0, `|d| - beta/2` beyond; beta = 0: the absolute difference.

    Source: Girshick, 2015.
    """
    if beta < 0:
        raise ArgumentError("smooth_l1_loss", f"beta={beta} is negative", "use a number from 0")
    _like("smooth_l1_loss", x, y)
    d = x - y
    size = E.abs_(d)
    if beta == 0:
        return _reduced("smooth_l1_loss", size, reduction)
    each = E.where(E.less(size, beta), E.square(d) * (0.5 / beta), size - 0.5 * beta)
    return _reduced("smooth_l1_loss", each, reduction)


smooth_l1_loss.sample((3, 4), (3, 4), beta=0.5)


@composite(widen=True, floats=True)
def kl_div(x, target, *, reduction="mean", log_target=False):
    """The Kullback-Leibler divergence `target * (log(target) - x)` of log-probabilities x, reduced.

    target: like x, probabilities, or their logarithms with log_target. reduction "batchmean": the sum divided
    by the size of the first axis. Numerics: a target of 0 counts for nothing.
    """
    _like("kl_div", x, target)
    each = E.exp(target) * (target - x) if log_target else E.xlogy(target, target) - target * x
    if reduction == "batchmean":
        return sum_(each) * (1 / max(x.shape[0] if x.shape else 1, 1))
    return _reduced("kl_div", each, reduction)


kl_div.sample((3, 4), (3, 4), low=0.1).sample((3, 4), (3, 4), reduction="batchmean", log_target=True)


@pointwise(internal=True, to_float=True)
def cross_entropy_of_shares(x, y):
    """`-(y log(x) + (1 - y) log(1 - x))`, each logarithm at least -100."""
    return (y - 1) * s.maximum(s.log1p(-x), -100) - y * s.maximum(s.log(x), -100)


@cross_entropy_of_shares.grad
def x(g, x, y):
    return g * ((x - y) / E.clip(x * (1 - x), min=1e-12))


@cross_entropy_of_shares.grad
def y(g, x):
    return g * (E.clip(E.log1p(E.negative(x)), min=-100.0) - E.clip(E.log(x), min=-100.0))


cross_entropy_of_shares.sample((3, 4), (3, 4), low=0.1, high=0.9)


@composite(widen=True, floats=True)
def binary_cross_entropy(x, y, w=None, *, reduction="mean"):
    """`-(y log(x) + (1 - y) log(1 - x))` of probabilities x and targets y in [0, 1] (equal shapes), reduced.

    w: a factor of each loss that broadcasts, or None. Raises: ShapeError, ArgumentError for a value below 0 or
    above 1. Numerics: logarithms are at least -100; NaN gives NaN.
    """
    _like("binary_cross_entropy", x, y)
    each = cross_entropy_of_shares(x, y)
    return _reduced("binary_cross_entropy", each if w is None else each * w, reduction)


@binary_cross_entropy.look
def _(x, y, w=None, *, reduction="mean"):
    if x.shape == y.shape and not x.dtype.is_complex and not y.dtype.is_complex:
        refuse_outliers(
            "binary_cross_entropy", (("x", x), ("y", y)), 0.0, 1.0, "from 0 to 1",
            "take a sigmoid first, or give binary_cross_entropy_with_logits what it would take",
        )  # fmt: skip


binary_cross_entropy.sample((3, 4), (3, 4), low=0.1, high=0.9)
binary_cross_entropy.sample((3, 4), (3, 4), (4,), low=0.1, high=0.9, reduction="sum")


@composite(widen=True, floats=True)
def poisson_nll_loss(x, target, *, log_input=True, full=False, eps=1e-8, reduction="mean"):
    """`exp(x) - target * x` for the logarithm x of a Poisson rate (log_input=False: of the rate itself), reduced.

    full: with Stirling's approximation of `log(target!)` for targets above 1; eps keeps the logarithm finite.
    """
    _like("poisson_nll_loss", x, target)
    each = E.exp(x) - target * x if log_input else x - target * E.log(x + eps)
    if full:
        safe = E.where(E.greater(target, 1), target, 1.0)
        more = safe * E.log(safe) - safe + E.log(safe * (2 * math.pi)) * 0.5
        each = each + E.where(E.greater(target, 1), more, 0.0)
    return _reduced("poisson_nll_loss", each, reduction)


poisson_nll_loss.sample((3, 4), (3, 4), low=0.2, high=3.0, full=True)
poisson_nll_loss.sample((3, 4), (3, 4), low=0.2, high=3.0, log_input=False)


@composite(widen=True, floats=True)
def gaussian_nll_loss(x, target, var, *, full=False, eps=1e-6, reduction="mean"):
    """`(log(var) + (x - target)**2 / var) / 2` for the mean x and variance var of a normal law, reduced.

    var: like x, or with a last axis of 1, or without it; at least eps, which the gradient does not see. full:
    with the constant `log(2 pi) / 2`.
    """
    _like("gaussian_nll_loss", x, target)
    _above_zero("gaussian_nll_loss", "eps", eps)
    if var.shape != x.shape:
        if var.shape == x.shape[:-1]:
            var = expand_dims(var, axis=-1)
        elif var.shape != (*x.shape[:-1], 1):
            raise ShapeError(
                "gaussian_nll_loss",
                f"var: {var.type} does not fit x: {x.type}",
                "pass a variance for each row",
            )
    var = var + (E.clip(var.detach(), min=eps) - var.detach())
    each = (E.log(var) + E.square(x - target) / var) * 0.5
    return _reduced("gaussian_nll_loss", each + 0.5 * math.log(2 * math.pi) if full else each, reduction)


gaussian_nll_loss.sample((3, 4), (3, 4), (3, 4), low=0.3, high=2.0, full=True)


# ---------------------------------------------------------------- distances


def norm_of(d, p, axis, keepdims):
    """The p-norm along an axis, p from 0."""
    if p == 2:
        return E.sqrt(sum_(E.square(d), axis=axis, keepdims=keepdims))
    size = E.abs_(d)
    if p == math.inf:
        return max_(size, axis=axis, keepdims=keepdims)
    if p == 1:
        return sum_(size, axis=axis, keepdims=keepdims)
    return E.power(sum_(E.power(size, p), axis=axis, keepdims=keepdims), 1 / p)


@composite(widen=True, floats=True)
def pairwise_distance(x, y, *, p=2.0, eps=1e-6, keepdims=False):
    """The p-norm of `x - y + eps` along the last axis; x and y broadcast. Raises: ArgumentError unless p is above 0."""
    _above_zero("pairwise_distance", "p", p)
    return norm_of(x - y + eps, p, -1, keepdims)


pairwise_distance.sample((3, 4), (3, 4)).sample((3, 4), (4,), p=1.0, keepdims=True).sample(
    (3, 4), (3, 4), p=3.0
)


@composite(widen=True, floats=True)
def cosine_similarity(x, y, *, axis=1, eps=1e-8):
    """`x.y / (|x| |y|)` along an axis, each norm at least eps; x and y broadcast."""

    def unit(v):
        return v / E.clip(norm_of(v, 2, axis, True), min=eps)

    return sum_(unit(x) * unit(y), axis=axis)


cosine_similarity.sample((3, 4), (3, 4)).sample((3, 4), (4,), axis=-1)
