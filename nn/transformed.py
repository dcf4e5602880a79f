"""Distributions of what transforms make of draws, the log-normal among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.ops import elementwise as E
from ..core.value import Tensor
from . import distribution as C
from .distribution import Distribution
from .divergence import kl_divergence, register_kl
from .location_scale import Normal, Value
from .transforms import ComposeTransform, ExpTransform, Transform, summed


class TransformedDistribution(Distribution):
    """What transforms (one, or a list of them) make of the draws of base_distribution.

    The density is that of the base at the inverse, over the transform's slope; the mean, variance and entropy have no
    general form. Axes of the batch that a transform takes for one event become one.
    """

    def __init__(
        self,
        base_distribution: Distribution,
        transforms: Transform | Sequence[Transform],
        validate_args: bool | None = None,
    ):
        name = type(self).__name__
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        for t in self.transforms:
            if not isinstance(t, Transform):
                raise ArgumentError(name, f"{t!r} is no transform", "see dg.distributions.transforms")
        self.base_dist, self.has_rsample = base_distribution, base_distribution.has_rsample
        whole = ComposeTransform(self.transforms)
        base = (*base_distribution.batch_shape, *base_distribution.event_shape)
        if len(base) < whole.rank.domain:
            raise ShapeError(
                name, f"draws of shape {list(base)} have not the {whole.rank.domain} axes of one event",
                "give the base more axes",
            )  # fmt: skip
        shape = whole.forward_shape(base)
        #: of one draw of the base, spread over the transforms' own batches
        self._base_shape = whole.inverse_shape(shape)
        events = len(base_distribution.event_shape)
        #: axes of the base's batch that a transform takes for its event
        self._joined = max(0, whole.rank.domain - events)
        ndim = whole.rank.codomain + max(0, events - whole.rank.domain)
        cut = len(shape) - ndim
        self.support = self.transforms[-1].codomain if self.transforms else base_distribution.support
        super().__init__(shape[:cut], shape[cut:], validate_args)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        extra = shape[: len(shape) - len(self.batch_shape) - len(self.event_shape)]
        x = self.base_dist._draw((*extra, *self._base_shape))
        for t in self.transforms:
            x = t(x)
        return x

    def log_prob(self, value: Any) -> Tensor:
        y = self._checked(value)
        events, total = len(self.event_shape), None
        for t in reversed(self.transforms):
            x = t.inv(y)
            events += t.rank.domain - t.rank.codomain
            slope = summed(t.log_abs_det_jacobian(x, y), events - t.rank.domain)
            total = slope if total is None else total + slope
            y = x
        found = summed(self.base_dist.log_prob(y), self._joined)
        return found if total is None else found - total

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one (of scalars)."""
        y, sign = self._checked(value), 1
        for t in reversed(self.transforms):
            y, sign = t.inv(y), sign * t.sign
        found = self.base_dist.cdf(y)
        return sign * (found - 0.5) + 0.5 if isinstance(sign, Tensor) else (found if sign > 0 else 1 - found)  # type: ignore[no-any-return]


class LogNormal(TransformedDistribution):
    """Values above 0 whose logarithms are normal, with mean loc and standard deviation scale."""

    base_dist: Normal

    def __init__(self, loc: Value, scale: Value, validate_args: bool | None = None):
        given = {"loc": (C.real, loc), "scale": (C.positive, scale)}
        super().__init__(Normal(loc, scale, validate_args=False), ExpTransform(), validate_args)
        Distribution.__init__(self, self.batch_shape, (), validate_args, **given)

    @property
    def loc(self) -> Tensor:
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        return E.exp(self.loc + 0.5 * E.square(self.scale))  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        return E.exp(self.loc - E.square(self.scale))  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        squared = E.square(self.scale)
        return E.expm1(squared) * E.exp(2 * self.loc + squared)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc


@register_kl(TransformedDistribution, TransformedDistribution)
def _(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise ArgumentError(
            "kl_divergence",
            f"{p.transforms} and {q.transforms} are not the same",
            "use one transform for both",
        )
    return summed(kl_divergence(p.base_dist, q.base_dist), p._joined)
