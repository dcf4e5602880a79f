"""The base of probability distributions, and what their parameters and values may be.

A check is one or two reductions (the smallest, the largest value); in graph mode they are looked at when the graph has
run, before its effects, so that they end no segment.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentError, is_own_file
from ..core.ops import elementwise as E
from ..core.ops.reduction import max_, min_
from ..core.spoken import spell_methods
from ..core.value import Tensor

#: whether distributions that were not told look at their arguments
_default = True


def set_default_validate_args(value: bool) -> None:
    """Whether distributions made from now on without `validate_args` check their parameters and values (True).

    Graphs that were traced before keep theirs.
    """
    global _default
    _default = bool(value)


def decided(validate_args: bool | None) -> bool:
    """What `validate_args` stands for."""
    return _default if validate_args is None else bool(validate_args)


class Constraint(NamedTuple):
    """words: what it asks for, after "is not". tests: (a number of a tensor, whether it is as it should be)."""

    words: str
    tests: tuple[tuple[Callable[[Tensor], Tensor], Callable[[Any], Any]], ...]


def _fraction(x: Tensor) -> Tensor:
    return max_(E.abs_(x - E.floor(x)))


def _sum_off(x: Tensor) -> Tensor:
    return max_(E.abs_(x.sum(axis=-1) - 1))


_WHOLE = (_fraction, lambda v: v == 0)
_FROM_0 = (min_, lambda v: v >= 0)
_TO_1 = (max_, lambda v: v <= 1)

real = Constraint("a number", ((max_, lambda v: v == v),))
positive = Constraint("above 0", ((min_, lambda v: v > 0),))
nonnegative = Constraint("0 or above", (_FROM_0,))
symmetric_interval = Constraint("from -1 to 1", ((min_, lambda v: v >= -1), _TO_1))
unit_interval = Constraint("from 0 to 1", (_FROM_0, _TO_1))
nonnegative_integer = Constraint("a whole number from 0", (_FROM_0, _WHOLE))
boolean = Constraint("0 or 1", (_FROM_0, _TO_1, _WHOLE))
simplex = Constraint("a row of shares from 0 that add up to 1", (_FROM_0, (_sum_off, lambda v: v <= 1e-5)))
one_hot = Constraint("a row of zeros with a single 1", (*boolean.tests, (_sum_off, lambda v: v == 0)))


def integer_below(n: int) -> Constraint:
    """Whole numbers from 0 to n - 1."""
    return Constraint(f"a whole number from 0 to {n - 1}", (_FROM_0, (max_, lambda v: v < n), _WHOLE))


def require(owner: str, name: str, x: Any, asked: Constraint) -> None:
    """Raises: ArgumentError for a value of x, a tensor or a number, that is not what is asked for."""
    if not isinstance(x, Tensor):
        for number, good in asked.tests:
            v = float(x)
            off = v if number in (min_, max_) else abs(v - math.floor(v)) if math.isfinite(v) else v
            _refusing(owner, name, asked, number, good)(off)
        return
    if x.size == 0:
        return
    with dispatch.set_grad(False):
        for number, good in asked.tests:
            if number is _fraction and not x.dtype.is_float:
                continue
            dispatch.state.executor.check(number(x), _refusing(owner, name, asked, number, good))


def _refusing(owner: str, name: str, asked: Constraint, number: Any, good: Any) -> Callable[[Any], None]:
    def refuse(found: Any) -> None:
        row = np.asarray(found).astype(np.float64).ravel()
        bad = row[~good(row)]
        if bad.size:
            is_value = number in (min_, max_)
            raise ArgumentError(
                owner, f"{name}{f'={bad[0]:g}' if is_value else ''} is not {asked.words}"
                + ("" if is_value else f" (off by {bad[0]:g})"),
                f"pass other values of {name}, or validate_args=False",
            )  # fmt: skip

    return refuse


class Distribution:
    """Base: `batch_shape` counts the distributions, `event_shape` is the shape of one draw.

    `sample(shape)` draws without a gradient, `rsample(shape)` through the parameters (where that is possible); results
    are `[*shape, *batch_shape, *event_shape]`. `log_prob(value)` is the logarithm of density or probability.
    validate_args: parameters and values that have no meaning (a negative scale, NaN) are an ArgumentError; False where
    they may come, or where two reductions are too much; None: as `set_default_validate_args` says, True at first.
    """

    def __init_subclass__(cls) -> None:
        _explained(cls)

    has_rsample = False
    #: what values may be
    support: Constraint | None = None

    def __init__(
        self,
        batch_shape: tuple[int, ...],
        event_shape: tuple[int, ...] = (),
        validate_args: bool | None = None,
        **given: tuple[Constraint, Any],
    ):
        self.batch_shape, self.event_shape = tuple(batch_shape), tuple(event_shape)
        self._validate = decided(validate_args)
        for name, (asked, x) in given.items() if self._validate else ():
            require(type(self).__name__, name, x, asked)

    set_default_validate_args = staticmethod(set_default_validate_args)

    def _checked(self, value: Any) -> Any:
        """A value whose probability is asked for."""
        if self._validate and self.support is not None:
            require(type(self).__name__, "value", value, self.support)
        return value

    def _shape(self, sample_shape: Any) -> tuple[int, ...]:
        extra = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        return (*extra, *self.batch_shape, *self.event_shape)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        raise ArgumentError(type(self).__name__, "cannot be drawn from", "define _draw(self, shape)")

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws without a gradient."""
        with dispatch.set_grad(False):
            return self._draw(self._shape(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws whose gradient flows to the parameters. Raises: ArgumentError where there is none."""
        if not self.has_rsample:
            raise ArgumentError(
                type(self).__name__, "draws have no gradient", "use sample() and log_prob (REINFORCE)"
            )
        return self._draw(self._shape(sample_shape))

    @property
    def stddev(self) -> Tensor:
        return E.sqrt(self.variance)  # type: ignore[attr-defined, no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        """The logarithm of the density (of the probability where values are discrete)."""
        raise ArgumentError(type(self).__name__, "has no log_prob", "define it in the subclass")

    def cdf(self, value: Any) -> Tensor:
        """The probability of values up to this one."""
        raise ArgumentError(type(self).__name__, "has no cdf", "define it in the subclass")

    def entropy(self) -> Tensor:
        """The entropy of each distribution, in nats."""
        raise ArgumentError(type(self).__name__, "has no entropy", "define it in the subclass")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={self.batch_shape}, event_shape={self.event_shape})"


def _explained(cls: type) -> None:
    """Let methods of a class of ours say what is wrong with their arguments."""
    if is_own_file(sys.modules[cls.__module__].__file__ or ""):
        spell_methods(cls, " ".join(n for n in ("sample", "rsample", "log_prob", "cdf") if n in cls.__dict__))


_explained(Distribution)
