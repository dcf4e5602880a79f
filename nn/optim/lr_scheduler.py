"""Learning-rate schedules: each call of `step()` (after an epoch, or a batch) sets every group's "lr"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...core.errors import ArgumentError, ArgumentTypeError, CheckpointError
from .optimizer import Optimizer, ParamGroup


class LRScheduler:
    """Base of all schedules. A subclass defines `get_lr()`: the next rate of each group.

    optimizer: whose groups are set; last_epoch: -1 at the start, else the number of the step to go on from
    (the groups must have an "initial_lr" then). The rate is a setting read at each call: graphs are not
    traced again.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        self.name = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(
                self.name, f"takes an optimizer, got a {type(optimizer).__name__}", "pass one"
            )
        self.optimizer = optimizer
        for n, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    self.name, f'group {n} has no "initial_lr" to go on from', "leave last_epoch out"
                )
        self.base_lrs: list[float] = [g["initial_lr"] for g in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def get_lr(self) -> list[float]:
        """The rate of each group for step number `last_epoch`."""
        raise ArgumentTypeError(self.name, "has no get_lr", "define it in the subclass")

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as it was set last."""
        return list(self._last_lr)

    def step(self) -> None:
        """Go on by one step."""
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr()):
            group["lr"] = lr
        self._last_lr = [g["lr"] for g in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All settings and counters but the optimiser and functions."""
        return {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "lr_lambdas", "name")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from `state_dict()`. Raises: CheckpointError when it is another schedule's."""
        own = self.state_dict()
        if set(state) != set(own):
            raise CheckpointError(
                self.name,
                f"the state has {sorted(state)}, this schedule {sorted(own)}",
                "pass what state_dict() gave",
            )
        self.__dict__.update(state)

    def _rates(self) -> list[tuple[ParamGroup, float]]:
        return [(g, g["lr"]) for g in self.optimizer.param_groups]


class LambdaLR(LRScheduler):
    """The initial rate times `lr_lambda(epoch)`; lr_lambda: a function, or one for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ):
        count = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != count:
            raise ArgumentError(
                "LambdaLR", f"{len(self.lr_lambdas)} functions for {count} groups", "give one for each"
            )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * fn(self.last_epoch) for fn, base in zip(self.lr_lambdas, self.base_lrs)]


class StepLR(LRScheduler):
    """The rate is multiplied by gamma every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        if step_size < 1:
            raise ArgumentError("StepLR", f"step_size={step_size} is below 1", "use 1 or more")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        turn = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if turn else lr for _, lr in self._rates()]


class ExponentialLR(LRScheduler):
    """The rate is multiplied by gamma at every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr * self.gamma if self.last_epoch > 0 else lr for _, lr in self._rates()]


class CosineAnnealingLR(LRScheduler):
    """`eta_min + (initial - eta_min) (1 + cos(pi t / T_max)) / 2`: down in T_max steps, then up again.

    Computed from the rate before, as in PyTorch, so that other schedules may act on the same rate.
    Source: Loshchilov and Hutter, 2016.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        if T_max < 1:
            raise ArgumentError("CosineAnnealingLR", f"T_max={T_max} is below 1", "use 1 or more")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, low = self.last_epoch, self.eta_min
        if t == 0:
            return [lr for _, lr in self._rates()]
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:
            # The rate before was eta_min itself: the recursion would stay there.
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (g["initial_lr"] - low) * rise for g, lr in self._rates()]
        ratio = (1 + math.cos(math.pi * t / self.T_max)) / (1 + math.cos(math.pi * (t - 1) / self.T_max))
        return [ratio * (lr - low) + low for _, lr in self._rates()]
