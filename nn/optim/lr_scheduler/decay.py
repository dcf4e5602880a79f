"""Schedules that multiply a rate or follow a curve, without a cycle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ....core.errors import ArgumentError, ArgumentTypeError
from ....core.kinds import Count, Magnitude, Natural
from ....core.numbers import cos
from ....core.strangers import unfit
from ..optimizer import Optimizer
from .base import LRScheduler, positive


def _functions(name: str, optimizer: Optimizer, given: Any) -> list[Callable[[int], float]]:
    count = len(optimizer.param_groups)
    found = [given] * count if callable(given) else list(given)
    if len(found) != count:
        raise ArgumentError(name, f"{len(found)} functions for {count} groups", "give one for each")
    if not all(map(callable, found)):
        raise ArgumentTypeError(name, *unfit("lr_lambda", given, "a function, or one for each group"))
    return found


class LambdaLR(LRScheduler):
    """The initial rate times `lr_lambda(epoch)`; lr_lambda: a function, or one for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ):
        self.lr_lambdas = _functions("LambdaLR", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * fn(self.last_epoch) for fn, base in zip(self.lr_lambdas, self.base_lrs)]


class MultiplicativeLR(LRScheduler):
    """The rate is multiplied by `lr_lambda(epoch)` at every step; lr_lambda: a function, or one for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ):
        self.lr_lambdas = _functions("MultiplicativeLR", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        return [lr * fn(t) if t > 0 else lr for fn, (_, lr) in zip(self.lr_lambdas, self._rates())]


class StepLR(LRScheduler):
    """The rate is multiplied by gamma every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: Magnitude = 0.1, last_epoch: int = -1):
        self.step_size, self.gamma = positive("StepLR", "step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        turn = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if turn else lr for _, lr in self._rates()]


class MultiStepLR(LRScheduler):
    """The rate is multiplied by gamma at each step of `milestones` (as often as it stands there)."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: Magnitude = 0.1, last_epoch: int = -1
    ):
        self.milestones, self.gamma = dict(Counter(milestones)), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        # Compared, and not looked up: a key is read.
        factor = self.gamma ** next((n for at, n in self.milestones.items() if at == self.last_epoch), 0)
        return [lr * factor for _, lr in self._rates()]


class ConstantLR(LRScheduler):
    """The initial rate times `factor` for `total_iters` steps, then the initial rate."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: Natural = 5, last_epoch: int = -1
    ):
        if not 0 < factor <= 1:
            raise ArgumentError("ConstantLR", f"factor={factor} is not in (0, 1]", "use such as 0.3")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        factor = self.factor if t == 0 else 1 / self.factor if t == self.total_iters else 1.0
        return [lr * factor for _, lr in self._rates()]


class LinearLR(LRScheduler):
    """The initial rate times a factor that goes evenly from start_factor to end_factor in `total_iters` steps."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: Natural = 5,
        last_epoch: int = -1,
    ):  # fmt: skip
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ArgumentError(
                "LinearLR",
                f"factors {start_factor} and {end_factor} are outside (0, 1]",
                "use such as 0.1 and 1",
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, n = self.last_epoch, self.total_iters
        if t == 0:
            return [lr * self.start_factor for _, lr in self._rates()]
        if t > n:
            return [lr for _, lr in self._rates()]
        rise = self.end_factor - self.start_factor
        return [lr * (1 + rise / (n * self.start_factor + (t - 1) * rise)) for _, lr in self._rates()]


class PolynomialLR(LRScheduler):
    """The initial rate times `(1 - t / total_iters) ** power`, 0 after that."""

    def __init__(
        self, optimizer: Optimizer, total_iters: Count = 5, power: Magnitude = 1.0, last_epoch: int = -1
    ):
        self.total_iters, self.power = positive("PolynomialLR", "total_iters", total_iters), power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, n = self.last_epoch, self.total_iters
        if t == 0 or t > n:
            return [lr for _, lr in self._rates()]
        return [lr * ((1 - t / n) / (1 - (t - 1) / n)) ** self.power for _, lr in self._rates()]


class ExponentialLR(LRScheduler):
    """The rate is multiplied by gamma at every step."""

    def __init__(self, optimizer: Optimizer, gamma: Magnitude, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr * self.gamma if self.last_epoch > 0 else lr for _, lr in self._rates()]


class CosineAnnealingLR(LRScheduler):
    """`eta_min + (initial - eta_min) (1 + cos(pi t / T_max)) / 2`: down in T_max steps, then up again.

    Computed from the rate before, as in PyTorch, so that other schedules may act on the same rate.
    Source: Loshchilov and Hutter, 2016.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: Magnitude = 0.0, last_epoch: int = -1):
        self.T_max, self.eta_min = positive("CosineAnnealingLR", "T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, low = self.last_epoch, self.eta_min
        if t == 0:
            return [lr for _, lr in self._rates()]
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:
            # The rate before was eta_min itself: the recursion would stay there.
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (g["initial_lr"] - low) * rise for g, lr in self._rates()]
        ratio = (1 + cos(math.pi * t / self.T_max)) / (1 + cos(math.pi * (t - 1) / self.T_max))
        return [ratio * (lr - low) + low for _, lr in self._rates()]
