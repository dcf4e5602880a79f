"""Mixtures: one of K distributions of a kind is drawn, then a value of it."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.op import PUBLIC, REGISTRY
from ..core.ops import elementwise as E
from ..core.types import int64
from ..core.value import Tensor
from .discrete import Categorical
from .distribution import Distribution

_NAME = "MixtureSameFamily"


class MixtureSameFamily(Distribution):
    """component_distribution has K on the last axis of its batch; mixture_distribution, a Categorical over them, draws
    which one counts. There is no gradient through a draw, and no entropy in closed form."""

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ):
        mixture, parts = mixture_distribution, component_distribution
        if not isinstance(mixture, Categorical) or mixture.event_shape:
            raise ArgumentError(_NAME, f"the mixture is {mixture!r}", "pass a Categorical")
        if not isinstance(parts, Distribution):
            raise ArgumentError(_NAME, f"the component is {parts!r}", "pass a distribution")
        *batch, count = parts.batch_shape or (0,)
        k = mixture.probs.shape[-1]
        if not parts.batch_shape or count != k or mixture.batch_shape not in ((), tuple(batch)):
            raise ShapeError(
                _NAME, f"a mixture over {k} with batch {list(mixture.batch_shape)} does not fit components of batch "
                f"{list(parts.batch_shape)}", "give the components a last axis of batch with K of them",
            )  # fmt: skip
        self.mixture_distribution, self.component_distribution = mixture, parts
        self.support = parts.support
        super().__init__(tuple(batch), parts.event_shape, validate_args)

    def _weights(self) -> Tensor:
        """Probabilities [*batch, K], with axes for the event."""
        p = self.mixture_distribution.probs
        return p.reshape(*p.shape, *(1 for _ in self.event_shape))  # type: ignore[no-any-return]

    @property
    def _axis(self) -> int:
        """The components' axis."""
        return -1 - len(self.event_shape)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self.component_distribution.mean).sum(axis=self._axis)  # type: ignore[attr-defined, no-any-return]

    @property
    def variance(self) -> Tensor:
        w, parts = self._weights(), self.component_distribution
        far = parts.mean - (w * parts.mean).sum(axis=self._axis, keepdims=True)  # type: ignore[attr-defined]
        return (w * (parts.variance + E.square(far))).sum(axis=self._axis)  # type: ignore[attr-defined, no-any-return]

    def _padded(self, value: Any) -> Any:
        """A value beside all components."""
        return value.unsqueeze(self._axis) if isinstance(value, Tensor) else value

    def log_prob(self, value: Any) -> Tensor:
        each = self.component_distribution.log_prob(self._padded(self._checked(value)))
        return REGISTRY["logsumexp"](each + self.mixture_distribution.logits, axis=-1)  # type: ignore[no-any-return]

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one (of scalars)."""
        each = self.component_distribution.cdf(self._padded(self._checked(value)))
        return (each * self.mixture_distribution.probs).sum(axis=-1)  # type: ignore[no-any-return]

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        events = len(self.event_shape)
        cut = len(shape) - events
        k = self.mixture_distribution.probs.shape[-1]
        which = self.mixture_distribution._draw(shape[:cut])
        each = self.component_distribution._draw((*shape[:cut], k, *shape[cut:]))
        ways = PUBLIC["arange"](k, dtype=int64, device=which.device)
        chosen = (which.unsqueeze(-1) == ways).reshape(*shape[:cut], k, *(1,) * events)
        # One of them: a product with 0 would carry what is infinite over.
        return E.where(chosen, each, 0).sum(axis=self._axis).to(each.dtype)  # type: ignore[no-any-return]
