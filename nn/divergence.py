"""The Kullback-Leibler divergence of two distributions: a rule for each pair of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import ArgumentError
from ..core.value import Tensor
from .distribution import Distribution

_RULES: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(p: type, q: type) -> Callable[[Any], Any]:
    """A decorator for a function of two distributions of these classes that gives their divergence."""

    def keep(fn: Any) -> Any:
        _RULES[p, q] = fn
        return fn

    return keep


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of p from q, for each distribution. Raises: ArgumentError without a rule."""
    for a in type(p).__mro__:
        for b in type(q).__mro__:
            rule = _RULES.get((a, b))
            if rule is not None:
                return rule(p, q)
    raise ArgumentError(
        "kl_divergence",
        f"no rule for {type(p).__name__} and {type(q).__name__}",
        "see dg.distributions.register_kl",
    )
