"""Distributions of whole numbers: counts, events that happen or not, one of K."""

from __future__ import annotations

import math
from typing import Any

from ..core.dtype_info import finfo
from ..core.errors import ArgumentError, ShapeError
from ..core.op import PUBLIC, REGISTRY
from ..core.ops import elementwise as E
from ..core.ops.exponential import xlogy
from ..core.types import broadcast_shapes
from ..core.value import Tensor
from . import distribution as C
from .distribution import Distribution
from .divergence import register_kl
from .location_scale import Value, tensors


class Poisson(Distribution):
    """Counts with mean rate."""

    support = C.nonnegative_integer

    def __init__(self, rate: Value, validate_args: bool | None = None):
        (self.rate,) = tensors(rate)
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
        return xlogy(value, self.rate) - self.rate - E.lgamma(value + 1)


def _either(name: str, probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise ArgumentError(name, "takes probs or logits", "pass one of them")


class _ZeroOrOne(Distribution):
    """Numbers that are 1 with probability probs, else 0."""

    probs: Tensor

    @property
    def mean(self) -> Tensor:
        return self.probs  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)  # type: ignore[no-any-return]


class Bernoulli(_ZeroOrOne):
    """1 with probability probs (of logits: their sigmoid), else 0. Of probs 0 and 1 logarithms are of an eps less."""

    support = C.boolean

    def __init__(
        self,
        probs: Value | None = None,
        logits: Value | None = None,
        validate_args: bool | None = None,
    ):
        _either("Bernoulli", probs, logits)
        (given,) = tensors(logits if probs is None else probs)
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


class OneHotCategorical(_ZeroOrOne, Categorical):
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

    def log_prob(self, value: Any) -> Tensor:
        return E.where(self._checked(value) > 0, self.logits, 0.0).sum(axis=-1)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- divergence


@register_kl(Poisson, Poisson)
def _(p: Poisson, q: Poisson) -> Tensor:
    return xlogy(p.rate, p.rate / q.rate) - p.rate + q.rate


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
