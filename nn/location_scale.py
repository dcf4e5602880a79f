"""Distributions of real numbers by a place and a width: normal, Laplace, Gumbel, Student."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from ..core.kinds import NumberOrNan
from ..core.op import PUBLIC
from ..core.ops import elementwise as E
from ..core.types import broadcast_shapes, default_float
from ..core.value import Tensor
from . import distribution as C
from .distribution import Distribution
from .divergence import register_kl

Value: TypeAlias = "Tensor | NumberOrNan"

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def tensors(*values: Any) -> list[Tensor]:
    """Numbers and tensors as tensors of one shape."""
    device = next((v.device for v in values if isinstance(v, Tensor)), None)
    row = [
        v if isinstance(v, Tensor) else PUBLIC["full"]((), float(v), dtype=default_float, device=device)
        for v in values
    ]
    shape = broadcast_shapes("distribution", *(v.shape for v in row))
    return [v if v.shape == shape else v.expand(shape) for v in row]


class LocationScale(Distribution):
    """Place loc and width scale of one shape, drawn by the op `_op`."""

    _op: str
    has_rsample = True
    support = C.real

    def __init__(self, loc: Value, scale: Value, validate_args: bool | None = None):
        self.loc, self.scale = tensors(loc, scale)
        super().__init__(self.loc.shape, (), validate_args, loc=(C.real, loc), scale=(C.positive, scale))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return PUBLIC[self._op](self.loc, self.scale, shape=shape)  # type: ignore[no-any-return]


class Normal(LocationScale):
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


class Laplace(LocationScale):
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

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one."""
        z = (self._checked(value) - self.loc) / self.scale
        tail = 0.5 * E.exp(-E.abs_(z))
        return E.where(z > 0, 1 - tail, tail)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return 1 + E.log(2 * self.scale)  # type: ignore[no-any-return]


class Gumbel(LocationScale):
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

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one."""
        return E.exp(-E.exp((self.loc - self._checked(value)) / self.scale))  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return E.log(self.scale) + 1.5772156649015329  # type: ignore[no-any-return]


#: from here on, differences of lgamma and digamma are series: both terms are large, and few digits of theirs were left
_FAR = 16.0
#: lgamma(h) - lgamma(h + 1/2) + log(h) / 2, and (h + 1/2) (digamma(h + 1/2) - digamma(h)) - 1/2, by powers of 1 / h
_LGAMMA = 1 / 8, 0.0, -1 / 192, 0.0, 1 / 640, 0.0, -17 / 14336
_SLOPE = 3 / 8, 1 / 16, -1 / 64, -1 / 128, 1 / 128, 1 / 256, -17 / 2048, -17 / 4096


def _series(h: Tensor, row: tuple[float, ...]) -> Tensor:
    """The sum of `row[k] / h^(k + 1)`, of nearer ones as from `_FAR` on."""
    r = 1 / E.maximum(h, _FAR)
    total = r * row[-1]
    for c in reversed(row[:-1]):
        total = r * (total + c)
    return total  # type: ignore[no-any-return]


class StudentT(LocationScale):
    """Place loc and width scale, df degrees of freedom: tails like `|x|^(-df - 1)`.

    The mean is NaN up to df 1, the variance NaN up to 1 and infinite up to 2.
    """

    def __init__(self, df: Value, loc: Value = 0.0, scale: Value = 1.0, validate_args: bool | None = None):
        self.df, self.loc, self.scale = tensors(df, loc, scale)
        given = {"df": (C.positive, df), "loc": (C.real, loc), "scale": (C.positive, scale)}
        Distribution.__init__(self, self.df.shape, (), validate_args, **given)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        half = 0.5 * self.df
        wide = PUBLIC["gamma"](half, half, shape=shape)
        return self.loc + self.scale * PUBLIC["randn"](shape, dtype=half.dtype, device=half.device) * E.rsqrt(
            wide
        )  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return E.where(self.df > 1, self.loc, math.nan)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        finite = E.square(self.scale) * self.df / E.maximum(self.df - 2, 0.0)
        return E.where(self.df > 1, E.where(self.df > 2, finite, math.inf), math.nan)  # type: ignore[no-any-return]

    def _log_norm(self) -> Tensor:
        """The logarithm of the density's largest value, for scale 1, turned round."""
        half = 0.5 * self.df
        exact = E.lgamma(half) - E.lgamma(half + 0.5) + 0.5 * (E.log(self.df) + math.log(math.pi))
        return E.where(half < _FAR, exact, 0.5 * math.log(2 * math.pi) + _series(half, _LGAMMA))  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        z = (self._checked(value) - self.loc) / self.scale
        return -0.5 * (self.df + 1) * E.log1p(z * z / self.df) - E.log(self.scale) - self._log_norm()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        half = 0.5 * self.df
        exact = (half + 0.5) * (E.digamma(half + 0.5) - E.digamma(half))
        slope = E.where(half < _FAR, exact, 0.5 + _series(half, _SLOPE))
        return E.log(self.scale) + slope + self._log_norm()  # type: ignore[no-any-return]


# ---------------------------------------------------------------- divergence


@register_kl(Normal, Normal)
def _(p: Normal, q: Normal) -> Tensor:
    ratio, shift = E.square(p.scale / q.scale), E.square((p.loc - q.loc) / q.scale)
    return 0.5 * (ratio + shift - 1 - E.log(ratio))  # type: ignore[no-any-return]


@register_kl(Laplace, Laplace)
def _(p: Laplace, q: Laplace) -> Tensor:
    ratio, far = p.scale / q.scale, E.abs_(p.loc - q.loc)
    return -E.log(ratio) + far / q.scale + ratio * E.exp(-far / p.scale) - 1  # type: ignore[no-any-return]
