"""Probability distributions with PyTorch's words: draws, log-densities, entropies, divergences; all differentiable."""

from __future__ import annotations

import math
from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.foreign import unknown as _unknown
from ..core.op import PUBLIC
from ..core.ops import elementwise as E
from ..core.ops.exponential import xlogy
from ..core.spoken import spell as _spell
from ..core.value import Tensor
from . import distribution as C
from . import transforms
from .discrete import Bernoulli, Categorical, OneHotCategorical, Poisson
from .distribution import Distribution
from .divergence import kl_divergence, register_kl
from .location_scale import Gumbel, Laplace, Normal, StudentT, Value, tensors
from .mixture import MixtureSameFamily
from .multivariate import MultivariateNormal
from .transformed import LogNormal, TransformedDistribution

__all__ = [
    "Bernoulli", "Beta", "Categorical", "Dirichlet", "Distribution", "Exponential", "Gamma", "Gumbel", "Independent",
    "Laplace", "LogNormal", "MixtureSameFamily", "MultivariateNormal", "Normal", "OneHotCategorical", "Poisson",
    "StudentT", "TransformedDistribution", "Uniform", "kl_divergence", "register_kl", "transforms",
]  # fmt: skip


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return E.lgamma(a) + E.lgamma(b) - E.lgamma(a + b)  # type: ignore[no-any-return]


class Uniform(Distribution):
    """From low up to high."""

    has_rsample = True

    def __init__(self, low: Value, high: Value, validate_args: bool | None = None):
        self.low, self.high = tensors(low, high)
        super().__init__(self.low.shape, (), validate_args, low=(C.real, low), high=(C.real, high))
        if self._validate:
            C.require("Uniform", "high - low", high - low, C.positive)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC["uniform"](self.low, self.high, shape=shape)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def variance(self) -> Tensor:
        return E.square(self.high - self.low) / 12  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        if self._validate:
            C.require("Uniform", "value - low", value - self.low, C.nonnegative)
            C.require("Uniform", "high - value", self.high - value, C.nonnegative)
        inside = E.logical_and(self.low <= value, self.high > value)
        return E.where(inside, -E.log(self.high - self.low), -math.inf)  # type: ignore[no-any-return]

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one."""
        return E.clip_((value - self.low) / (self.high - self.low), 0.0, 1.0)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return E.log(self.high - self.low)  # type: ignore[no-any-return]


class Exponential(Distribution):
    """Values from 0 with mean `1 / rate`."""

    has_rsample = True
    support = C.nonnegative

    def __init__(self, rate: Value, validate_args: bool | None = None):
        (self.rate,) = tensors(rate)
        super().__init__(self.rate.shape, (), validate_args, rate=(C.positive, rate))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC["exponential"](self.rate, shape=shape)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return 1 / self.rate

    @property
    def variance(self) -> Tensor:
        return 1 / E.square(self.rate)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        return E.log(self.rate) - self.rate * self._checked(value)  # type: ignore[no-any-return]

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one."""
        return -E.expm1(-self.rate * self._checked(value))  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return 1 - E.log(self.rate)  # type: ignore[no-any-return]


class Gamma(Distribution):
    """Shape concentration, mean `concentration / rate`."""

    has_rsample = True

    support = C.nonnegative

    def __init__(self, concentration: Value, rate: Value, validate_args: bool | None = None):
        self.concentration, self.rate = tensors(concentration, rate)
        given = {"concentration": (C.positive, concentration), "rate": (C.positive, rate)}
        super().__init__(self.rate.shape, (), validate_args, **given)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC["gamma"](self.concentration, self.rate, shape=shape)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def variance(self) -> Tensor:
        return self.concentration / E.square(self.rate)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        a, b, value = self.concentration, self.rate, self._checked(value)
        return xlogy(a, b) + xlogy(a - 1, value) - b * value - E.lgamma(a)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - E.log(self.rate) + E.lgamma(a) + (1 - a) * E.digamma(a)  # type: ignore[no-any-return]


class Beta(Distribution):
    """Values in (0, 1) with density in proportion to `x^(a - 1) (1 - x)^(b - 1)`."""

    has_rsample = True

    support = C.unit_interval

    def __init__(
        self,
        concentration1: Value,
        concentration0: Value,
        validate_args: bool | None = None,
    ):
        self.concentration1, self.concentration0 = tensors(concentration1, concentration0)
        given = {
            "concentration1": (C.positive, concentration1),
            "concentration0": (C.positive, concentration0),
        }
        super().__init__(self.concentration1.shape, (), validate_args, **given)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC["beta"](self.concentration1, self.concentration0, shape=shape)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total * total * (total + 1))

    def log_prob(self, value: Any) -> Tensor:
        a, b, value = self.concentration1, self.concentration0, self._checked(value)
        return xlogy(a - 1, value) + xlogy(b - 1, 1 - value) - _log_beta(a, b)

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        total = a + b
        terms = _log_beta(a, b) - (a - 1) * E.digamma(a) - (b - 1) * E.digamma(b)
        return terms + (total - 2) * E.digamma(total)  # type: ignore[no-any-return]


class Dirichlet(Distribution):
    """Shares that add up to 1; concentration: float[..., K]."""

    has_rsample = True

    support = C.simplex

    def __init__(self, concentration: Tensor, validate_args: bool | None = None):
        if concentration.ndim < 1:
            raise ShapeError(
                "Dirichlet", f"concentration: {concentration.type} has no axis", "give one for each share"
            )
        self.concentration, shape = concentration, concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args, concentration=(C.positive, concentration))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC["dirichlet"](self.concentration, shape[: len(shape) - self.concentration.ndim])  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(axis=-1, keepdims=True)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(axis=-1, keepdims=True)
        return self.concentration * (total - self.concentration) / (total * total * (total + 1))

    def _log_norm(self) -> Tensor:
        a = self.concentration
        return E.lgamma(a).sum(axis=-1) - E.lgamma(a.sum(axis=-1))  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        return xlogy(self.concentration - 1, self._checked(value)).sum(axis=-1) - self._log_norm()

    def entropy(self) -> Tensor:
        a = self.concentration
        total, k = a.sum(axis=-1), a.shape[-1]
        mixed = ((a - 1) * E.digamma(a)).sum(axis=-1)
        return self._log_norm() + (total - k) * E.digamma(total) - mixed  # type: ignore[no-any-return]


class Independent(Distribution):
    """The last axes of a distribution's batch as one event: log-densities and entropies are summed over them."""

    def __init__(
        self,
        base_distribution: Distribution,
        reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ):
        base, n = base_distribution, reinterpreted_batch_ndims
        if not 0 <= n <= len(base.batch_shape):
            raise ArgumentError("Independent", f"{n} axes of a batch {list(base.batch_shape)}", "use fewer")
        self.base_dist, self.count, self.has_rsample = base, n, base.has_rsample
        cut = len(base.batch_shape) - n
        super().__init__(base.batch_shape[:cut], (*base.batch_shape[cut:], *base.event_shape), validate_args)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self.base_dist._draw(shape)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean  # type: ignore[attr-defined, no-any-return]

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance  # type: ignore[attr-defined, no-any-return]

    def _summed(self, x: Tensor) -> Tensor:
        return x.sum(axis=tuple(range(-self.count, 0))) if self.count else x

    def log_prob(self, value: Any) -> Tensor:
        return self._summed(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        return self._summed(self.base_dist.entropy())


# ---------------------------------------------------------------- divergence


@register_kl(Uniform, Uniform)
def _(p: Uniform, q: Uniform) -> Tensor:
    outside = E.logical_or(q.low > p.low, q.high < p.high)
    return E.where(outside, math.inf, E.log((q.high - q.low) / (p.high - p.low)))  # type: ignore[no-any-return]


@register_kl(Exponential, Exponential)
def _(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - E.log(ratio)  # type: ignore[no-any-return]


@register_kl(Gamma, Gamma)
def _(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    first = b * E.log(p.rate / q.rate) + E.lgamma(b) - E.lgamma(a)
    return first + (a - b) * E.digamma(a) + (q.rate - p.rate) * (a / p.rate)  # type: ignore[no-any-return]


@register_kl(Beta, Beta)
def _(p: Beta, q: Beta) -> Tensor:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    first = _log_beta(c, d) - _log_beta(a, b) + (a - c) * E.digamma(a) + (b - d) * E.digamma(b)
    return first + (c - a + d - b) * E.digamma(a + b)  # type: ignore[no-any-return]


@register_kl(Dirichlet, Dirichlet)
def _(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    spread = E.digamma(a) - E.digamma(a.sum(axis=-1, keepdims=True))
    return q._log_norm() - p._log_norm() + ((a - b) * spread).sum(axis=-1)


@register_kl(Independent, Independent)
def _(p: Independent, q: Independent) -> Tensor:
    if p.count != q.count:
        raise ArgumentError(
            "kl_divergence", f"{p.count} and {q.count} axes are one event", "use equal numbers"
        )
    return p._summed(kl_divergence(p.base_dist, q.base_dist))


_spell(globals(), [n for n in __all__ if n != "transforms"], strict=True)


def __getattr__(name: str) -> Any:
    raise _unknown("dg.distributions", name, __all__)
