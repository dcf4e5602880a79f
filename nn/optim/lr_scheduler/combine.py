"""Schedules made of schedules, and the one that watches a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ....core.errors import ArgumentError
from ....core.kinds import Magnitude, Natural
from ....core.numbers import real
from ..optimizer import Optimizer
from .base import LRScheduler


class _Many(LRScheduler):
    """Several schedules of one optimiser; their states are saved with it."""

    schedulers: list[LRScheduler]

    def _take(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        self.name = type(self).__name__
        if not schedulers:
            raise ArgumentError(self.name, "got no schedules", "pass at least one")
        first = schedulers[0].optimizer if optimizer is None else optimizer
        if any(s.optimizer is not first for s in schedulers):
            raise ArgumentError(self.name, "the schedules are of different optimizers", "make all for one")
        self.optimizer, self.schedulers = first, list(schedulers)

    def _note(self) -> None:
        self._last_lr = [g["lr"] for g in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        own = super().state_dict()
        return {**own, "schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        parts = state.get("schedulers")
        if not isinstance(parts, (list, tuple)) or len(parts) != len(self.schedulers):
            raise self._other(state)
        super().load_state_dict({**state, "schedulers": self.schedulers})
        for schedule, part in zip(self.schedulers, parts):
            schedule.load_state_dict(part)


class SequentialLR(_Many):
    """One schedule after the other: from each of `milestones` on the next, which begins at its step 0."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int],
        last_epoch: int = -1,
    ):  # fmt: skip
        self._take(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ArgumentError(
                self.name,
                f"{len(milestones)} milestones between {len(schedulers)} schedules",
                "give one less",
            )
        self.milestones, self.last_epoch = list(milestones), last_epoch + 1
        # The others have set the rate when they were made.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for schedule in self.schedulers:
            schedule.last_epoch -= 1
        self.schedulers[0].step()
        self._note()

    def step(self) -> None:
        self.last_epoch += 1
        k = sum(at <= self.last_epoch for at in self.milestones)
        schedule = self.schedulers[k]
        if k > 0 and self.milestones[k - 1] == self.last_epoch:
            schedule.restart()
        else:
            schedule.step()
        self._note()


class ChainedScheduler(_Many):
    """Several schedules at once: each acts on the rate that the one before it has set."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self._take(schedulers, optimizer)
        self._note()

    def step(self) -> None:
        for schedule in self.schedulers:
            schedule.step()
        self._note()


class ReduceLROnPlateau(LRScheduler):
    """The rate is multiplied by `factor` when a number has not got better for more than `patience` steps.

    mode: "min" or "max", what better means; threshold: by how much at least, a share of the best ("rel") or a
    difference ("abs"); cooldown: steps after a reduction that do not count; min_lr: a number, or one for each group;
    eps: smaller changes are left out. Call `step(metrics)` with a Python number or a tensor of one.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: Natural = 10,
        threshold: Magnitude = 1e-4, threshold_mode: str = "rel", cooldown: Natural = 0,
        min_lr: Magnitude | Sequence[Magnitude] = 0.0, eps: Magnitude = 1e-8,
    ):  # fmt: skip
        self.name = type(self).__name__
        if not 0 < factor < 1:
            raise ArgumentError(self.name, f"factor={factor} is not between 0 and 1", "use such as 0.1")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ArgumentError(
                self.name,
                f"mode={mode!r}, threshold_mode={threshold_mode!r}",
                'use "min" or "max", "rel" or "abs"',
            )
        count = len(optimizer.param_groups)
        self.min_lrs = list(min_lr) if isinstance(min_lr, (list, tuple)) else [min_lr] * count
        if len(self.min_lrs) != count:
            raise ArgumentError(
                self.name, f"{len(self.min_lrs)} values of min_lr for {count} groups", "give one for each"
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = (
            threshold,
            threshold_mode,
            cooldown,
            eps,
        )
        self.best, self.num_bad_epochs, self.cooldown_counter = math.inf if mode == "min" else -math.inf, 0, 0
        self.last_epoch = 0
        self._last_lr = [g["lr"] for g in optimizer.param_groups]

    def is_better(self, value: float) -> bool:
        """Whether a number is better than the best so far by the threshold."""
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            return sign * value < sign * self.best * (1 - sign * self.threshold)
        return sign * value < sign * self.best - self.threshold

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Go on by one step with the number that is watched."""
        value = real(metrics)
        self.last_epoch += 1
        if self.is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs):
                new = max(group["lr"] * self.factor, least)
                if group["lr"] - new > self.eps:
                    group["lr"] = new
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = [g["lr"] for g in self.optimizer.param_groups]
