"""The base of all schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....core.errors import ArgumentError, ArgumentTypeError, CheckpointError
from ....core.spoken import spell_methods
from ..optimizer import Optimizer, ParamGroup


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
        self._set(self.last_epoch + 1)

    def restart(self) -> None:
        """Go to step 0, and to the rate that it begins with."""
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = lr
        self._set(0)

    def _set(self, epoch: int) -> None:
        self.last_epoch = epoch
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
            raise self._other(state)
        self.__dict__.update(state)

    def _other(self, state: Mapping[str, Any]) -> CheckpointError:
        return CheckpointError(
            self.name,
            f"the state has {sorted(state)}, this schedule {sorted(self.state_dict())}",
            "pass what state_dict() gave",
        )

    def _rates(self) -> list[tuple[ParamGroup, float]]:
        return [(g, g["lr"]) for g in self.optimizer.param_groups]


def positive(name: str, key: str, value: int) -> int:
    """A number of steps from 1."""
    if value < 1:
        raise ArgumentError(name, f"{key}={value} is below 1", "use 1 or more")
    return value


spell_methods(LRScheduler, "load_state_dict")
