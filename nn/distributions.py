"""Probability distributions with PyTorch's words: draws, log-densities, entropies, divergences; all differentiable."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from ..core.dtype_info import finfo
from ..core.errors import ArgumentError, ShapeError
from ..core.foreign import unknown as _unknown
from ..core.kinds import NumberOrNan
from ..core.op import PUBLIC, REGISTRY
from ..core.ops import elementwise as E
from ..core.spoken import spell as _spell
from ..core.types import broadcast_shapes, default_float
from ..core.value import Tensor
from . import distribution as C
from .distribution import Distribution
from .divergence import kl_divergence, register_kl
from .multivariate import MultivariateNormal

__all__ = [
    "Bernoulli", "Beta", "Categorical", "Dirichlet", "Distribution", "Exponential", "Gamma", "Gumbel", "Independent",
    "Laplace", "MultivariateNormal", "Normal", "OneHotCategorical", "Poisson", "Uniform", "kl_divergence",
    "register_kl",
]  # fmt: skip

Value: TypeAlias = "Tensor | NumberOrNan"

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _tensors(*values: Any) -> list[Tensor]:
    """Numbers and tensors as tensors of one shape."""
    device = next((v.device for v in values if isinstance(v, Tensor)), None)
    row = [
        v if isinstance(v, Tensor) else PUBLIC["full"]((), float(v), dtype=default_float, device=device)
        for v in values
    ]
    shape = broadcast_shapes("distribution", *(v.shape for v in row))
    return [v if v.shape == shape else v.expand(shape) for v in row]


def _xlogy(x: Any, y: Any) -> Tensor:
    return REGISTRY["xlogy"](x, y)  # type: ignore[no-any-return]


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return E.lgamma(a) + E.lgamma(b) - E.lgamma(a + b)  # type: ignore[no-any-return]


class _LocationScale(Distribution):
    """Place loc and width scale of one shape, drawn by the op `_op`."""

    _op: str
    has_rsample = True
    support = C.real

    def __init__(self, loc: Value, scale: Value, validate_args: bool | None = None):
        self.loc, self.scale = _tensors(loc, scale)
        super().__init__(self.loc.shape, (), validate_args, loc=(C.real, loc), scale=(C.positive, scale))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC[self._op](self.loc, self.scale, shape=shape)  # type: ignore[no-any-return]


class Normal(_LocationScale):
    """Mean loc, standard deviation scale."""

    _op = "normal"

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return E.square(self.scale)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        z = (self._checked(value) - self.loc) / self.scale
        return -0.5 * z * z - E.log(self.scale) - _HALF_LOG_2PI  # type: ignore[no-any-return]

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one."""
        return 0.5 * (1 + E.erf((self._checked(value) - self.loc) / (self.scale * math.sqrt(2))))  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return 0.5 + _HALF_LOG_2PI + E.log(self.scale)  # type: ignore[no-any-return]


class Laplace(_LocationScale):
    """Mean loc, mean distance scale."""

    _op = "laplace"

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return 2 * E.square(self.scale)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        return -E.abs_(self._checked(value) - self.loc) / self.scale - E.log(2 * self.scale)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return 1 + E.log(2 * self.scale)  # type: ignore[no-any-return]


class Gumbel(_LocationScale):
    """Location loc, width scale: of the largest of many values."""

    _op = "gumbel"

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * 0.5772156649015329

    @property
    def variance(self) -> Tensor:
        return E.square(self.scale) * (math.pi**2 / 6)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        z = (self._checked(value) - self.loc) / self.scale
        return -z - E.exp(-z) - E.log(self.scale)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return E.log(self.scale) + 1.5772156649015329  # type: ignore[no-any-return]


class Uniform(Distribution):
    """From low up to high."""

    has_rsample = True

    def __init__(self, low: Value, high: Value, validate_args: bool | None = None):
        self.low, self.high = _tensors(low, high)
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

    def entropy(self) -> Tensor:
        return E.log(self.high - self.low)  # type: ignore[no-any-return]


class Exponential(Distribution):
    """Values from 0 with mean `1 / rate`."""

    has_rsample = True
    support = C.nonnegative

    def __init__(self, rate: Value, validate_args: bool | None = None):
        (self.rate,) = _tensors(rate)
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

    def entropy(self) -> Tensor:
        return 1 - E.log(self.rate)  # type: ignore[no-any-return]


class Gamma(Distribution):
    """Shape concentration, mean `concentration / rate`."""

    has_rsample = True

    support = C.nonnegative

    def __init__(self, concentration: Value, rate: Value, validate_args: bool | None = None):
        self.concentration, self.rate = _tensors(concentration, rate)
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
        return _xlogy(a, b) + _xlogy(a - 1, value) - b * value - E.lgamma(a)

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
        self.concentration1, self.concentration0 = _tensors(concentration1, concentration0)
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
        return _xlogy(a - 1, value) + _xlogy(b - 1, 1 - value) - _log_beta(a, b)

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
        return _xlogy(self.concentration - 1, self._checked(value)).sum(axis=-1) - self._log_norm()

    def entropy(self) -> Tensor:
        a = self.concentration
        total, k = a.sum(axis=-1), a.shape[-1]
        mixed = ((a - 1) * E.digamma(a)).sum(axis=-1)
        return self._log_norm() + (total - k) * E.digamma(total) - mixed  # type: ignore[no-any-return]


class Poisson(Distribution):
    """Counts with mean rate."""

    support = C.nonnegative_integer

    def __init__(self, rate: Value, validate_args: bool | None = None):
        (self.rate,) = _tensors(rate)
        super().__init__(self.rate.shape, (), validate_args, rate=(C.nonnegative, rate))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC["poisson"](self.rate, shape=shape)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def variance(self) -> Tensor:
        return self.rate

    def log_prob(self, value: Any) -> Tensor:
        value = self._checked(value)
        return _xlogy(value, self.rate) - self.rate - E.lgamma(value + 1)


def _either(name: str, probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise ArgumentError(name, "takes probs or logits", "pass one of them")


class Bernoulli(Distribution):
    """1 with probability probs (of logits: their sigmoid), else 0. Of probs 0 and 1 logarithms are of an eps less."""

    support = C.boolean

    def __init__(
        self,
        probs: Value | None = None,
        logits: Value | None = None,
        validate_args: bool | None = None,
    ):
        _either("Bernoulli", probs, logits)
        (given,) = _tensors(logits if probs is None else probs)
        self.probs = given if logits is None else E.sigmoid(given)
        if probs is None:
            self.logits = given
        else:  # finite, as in PyTorch
            eps = finfo(given.dtype).eps
            near = E.clip_(given, eps, 1 - eps)
            self.logits = E.log(near) - E.log1p(-near)
        #: when probabilities were given: where 1 cannot come, where 0 cannot
        self.never = None if probs is None else (given == 0, given == 1)
        checked = {"logits": (C.real, logits)} if probs is None else {"probs": (C.unit_interval, probs)}
        super().__init__(given.shape, (), validate_args, **checked)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC["bernoulli"](self.probs.expand(shape))  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return self.probs  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        # log sigmoid(l) = -softplus(-l), by value; exact for large logits.
        return self._checked(value) * self.logits - REGISTRY["softplus"](self.logits)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return REGISTRY["softplus"](self.logits) - self.probs * self.logits  # type: ignore[no-any-return]


class Categorical(Distribution):
    """One of K numbers; probs: float[..., K] in any scale, or logits, of which the softmax counts. Draws: int64.

    Of probs 0 logarithms are of an eps. Such numbers are never drawn.
    """

    def __init__(
        self,
        probs: Value | None = None,
        logits: Value | None = None,
        validate_args: bool | None = None,
    ):
        _either(type(self).__name__, probs, logits)
        given = logits if probs is None else probs
        if not isinstance(given, Tensor) or given.ndim < 1:
            raise ShapeError(
                type(self).__name__, "needs a tensor with a last axis of weights", "pass float[..., K]"
            )
        total = given.sum(axis=-1, keepdims=True) if logits is None else None
        self.probs = REGISTRY["softmax"](given, axis=-1) if probs is None else given / total
        #: logarithms of the probabilities
        self.logits = (
            REGISTRY["log_softmax"](given, axis=-1)
            if probs is None
            else E.log(E.maximum(self.probs, finfo(given.dtype).eps))
        )
        checked = {"logits": (C.real, self.logits)} if probs is None else {"probs": (C.nonnegative, probs)}
        super().__init__(given.shape[:-1], (), validate_args, **checked)
        if total is not None and self._validate:
            C.require(type(self).__name__, "the sum of probs", total, C.positive)
        self.support = C.integer_below(given.shape[-1])

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        drawn = E.where(self.probs > 0, self.logits, -math.inf)
        return PUBLIC["categorical"](drawn.expand((*shape, drawn.shape[-1])))  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        self._checked(value)
        shape = broadcast_shapes("log_prob", value.shape, self.batch_shape)
        index = value.to("int64").expand(shape).unsqueeze(-1)
        return self.logits.expand((*shape, self.logits.shape[-1])).gather(-1, index).squeeze(-1)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        least = finfo(self.logits.dtype).min  # logits may be -inf
        return -(self.probs * E.maximum(self.logits, least)).sum(axis=-1)  # type: ignore[no-any-return]


class OneHotCategorical(Categorical):
    """`Categorical` whose draws are rows with a single 1."""

    def __init__(
        self,
        probs: Value | None = None,
        logits: Value | None = None,
        validate_args: bool | None = None,
    ):
        super().__init__(probs, logits, validate_args)
        self.event_shape, self.support = self.logits.shape[-1:], C.one_hot

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        index = super()._draw(shape[:-1])
        return REGISTRY["one_hot"](index, num_classes=shape[-1]).to(self.logits.dtype)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return self.probs  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        return E.where(self._checked(value) > 0, self.logits, 0.0).sum(axis=-1)  # type: ignore[no-any-return]


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


@register_kl(Normal, Normal)
def _(p: Normal, q: Normal) -> Tensor:
    ratio, shift = E.square(p.scale / q.scale), E.square((p.loc - q.loc) / q.scale)
    return 0.5 * (ratio + shift - 1 - E.log(ratio))  # type: ignore[no-any-return]


@register_kl(Laplace, Laplace)
def _(p: Laplace, q: Laplace) -> Tensor:
    ratio, far = p.scale / q.scale, E.abs_(p.loc - q.loc)
    return -E.log(ratio) + far / q.scale + ratio * E.exp(-far / p.scale) - 1  # type: ignore[no-any-return]


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


@register_kl(Poisson, Poisson)
def _(p: Poisson, q: Poisson) -> Tensor:
    return _xlogy(p.rate, p.rate / q.rate) - p.rate + q.rate


@register_kl(Bernoulli, Bernoulli)
def _(p: Bernoulli, q: Bernoulli) -> Tensor:
    # -p log q + p log p, and of the other value: by logits, without logarithms of 0.
    here, there = REGISTRY["softplus"](p.logits), REGISTRY["softplus"](q.logits)
    found = there - here + p.probs * (p.logits - q.logits)
    if q.never is None:
        return found  # type: ignore[no-any-return]
    no_one, no_zero = q.never
    beyond = E.logical_or(E.logical_and(no_one, p.probs > 0), E.logical_and(no_zero, p.probs < 1))
    return E.where(beyond, math.inf, found)  # type: ignore[no-any-return]


@register_kl(Categorical, Categorical)
def _(p: Categorical, q: Categorical) -> Tensor:
    parts = E.where(q.probs > 0, p.probs * (p.logits - q.logits), math.inf)
    return E.where(p.probs > 0, parts, 0.0).sum(axis=-1)  # type: ignore[no-any-return]


@register_kl(Independent, Independent)
def _(p: Independent, q: Independent) -> Tensor:
    if p.count != q.count:
        raise ArgumentError(
            "kl_divergence", f"{p.count} and {q.count} axes are one event", "use equal numbers"
        )
    return p._summed(kl_divergence(p.base_dist, q.base_dist))


_spell(globals(), __all__, strict=True)


def __getattr__(name: str) -> Any:
    raise _unknown("dg.distributions", name, __all__)
