"""Schedules that come back: warm restarts, cycles, one cycle of rate and momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ....core.errors import ArgumentError
from ....core.kinds import Magnitude
from ....core.numbers import cos
from ..optimizer import Optimizer, ParamGroup
from .base import LRScheduler, positive


def _each(name: str, optimizer: Optimizer, key: str, given: Any) -> list[float]:
    count = len(optimizer.param_groups)
    found = list(given) if isinstance(given, (list, tuple)) else [given] * count
    if len(found) != count:
        raise ArgumentError(name, f"{len(found)} values of {key} for {count} groups", "give one for each")
    return [float(v) for v in found]


def _set_momentum(group: ParamGroup, value: float) -> None:
    """A group's momentum: of Adam and its kin the first of betas."""
    if "betas" in group:
        group["betas"] = (value, group.numbers["beta2"])
    else:
        group["momentum"] = value


def _check_momentum(name: str, optimizer: Optimizer) -> None:
    for n, group in enumerate(optimizer.param_groups):
        if "betas" not in group and not group.get("momentum"):
            raise ArgumentError(
                name,
                f"group {n} has no momentum to cycle",
                "give the optimizer one, or pass cycle_momentum=False",
            )


class CosineAnnealingWarmRestarts(LRScheduler):
    """From the initial rate to eta_min along a cosine, again and again: T_0 steps, then T_mult times as many each time.

    `step(epoch)` takes fractions too, where batches count. Source: Loshchilov and Hutter, 2016.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: Magnitude = 0.0, last_epoch: int = -1
    ):
        name = "CosineAnnealingWarmRestarts"
        self.T_0, self.T_i = positive(name, "T_0", T_0), T_0
        self.T_mult, self.eta_min = positive(name, "T_mult", T_mult), eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        share = (1 + cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def restart(self) -> None:
        self.step(0)

    def step(self, epoch: float | None = None) -> None:
        """Go on by one step, or to `epoch`."""
        at = self.last_epoch + 1 if epoch is None else epoch
        if at < 0:
            raise ArgumentError(self.name, f"epoch={epoch} is negative", "count from 0")
        rounds = 0
        start: float = 0
        if self.T_mult == 1:
            start = at // self.T_0 * self.T_0
        else:
            while at >= start + self.T_0 * self.T_mult**rounds:
                start += self.T_0 * self.T_mult**rounds
                rounds += 1
        self.T_i, self.T_cur = self.T_0 * self.T_mult**rounds, at - start
        self._set(math.floor(at))


class OneCycleLR(LRScheduler):
    """One cycle for the whole training: up from `max_lr / div_factor` to max_lr, down to nearly nothing.

    optimizer: its momentum goes the other way (from max_momentum to base_momentum and back) unless cycle_momentum is
    False. max_lr: a number, or one for each group. total_steps: of `step()`; or epochs and steps_per_epoch. pct_start:
    the share of steps that go up. anneal_strategy: "cos" or "linear". three_phase: down the way it came up, then on to
    the end. Raises: ArgumentError; a step past the last is one. Source: Smith and Topin, 2017.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float = 0.85,
        max_momentum: float = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1,
    ):  # fmt: skip
        name = "OneCycleLR"
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError(
                    name, "does not know its length", "pass total_steps, or epochs and steps_per_epoch"
                )
            total_steps = epochs * steps_per_epoch
        if not 0 <= pct_start <= 1:
            raise ArgumentError(name, f"pct_start={pct_start} is outside [0, 1]", "use such as 0.3")
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(name, f"anneal_strategy={anneal_strategy!r}", 'use "cos" or "linear"')
        self.total_steps, self.anneal_strategy = positive(name, "total_steps", total_steps), anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        if cycle_momentum:
            _check_momentum(name, optimizer)
        top = _each(name, optimizer, "max_lr", max_lr)
        if last_epoch == -1:
            for group, high in zip(optimizer.param_groups, top):
                group["initial_lr"] = high / div_factor
        self.max_lrs = top
        self.min_lrs = [high / div_factor / final_div_factor for high in top]
        n, up = self.total_steps, pct_start * self.total_steps - 1
        # (last step, where from, where to), for the rate; momentum goes between its two ends.
        self.phases = [(up, "low", "high"), (n - 1, "high", "least")]
        if three_phase:
            self.phases = [(up, "low", "high"), (2 * up, "high", "low"), (n - 1, "low", "least")]
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (cos(math.pi * share) + 1)

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        if t > self.total_steps:
            raise ArgumentError(
                self.name, f"step {t} is past the last of {self.total_steps}", "make the cycle longer"
            )
        k = next((k for k, phase in enumerate(self.phases[:-1]) if t <= phase[0]), len(self.phases) - 1)
        start = self.phases[k - 1][0] if k else 0.0
        end, here, there = self.phases[k]
        share = (t - start) / (end - start) if end != start else 1.0
        if self.cycle_momentum:
            ends = {"low": self.max_momentum, "high": self.base_momentum, "least": self.max_momentum}
            for group in self.optimizer.param_groups:
                _set_momentum(group, self._between(ends[here], ends[there], share))
        levels = ({"low": lo, "high": hi, "least": least}
                  for lo, hi, least in zip(self.base_lrs, self.max_lrs, self.min_lrs))  # fmt: skip
        return [self._between(level[here], level[there], share) for level in levels]


class CyclicLR(LRScheduler):
    """Up from base_lr to max_lr in step_size_up steps and down in step_size_down, again and again.

    mode: "triangular", "triangular2" (half the height each time), "exp_range" (the height times gamma**step); scale_fn
    (of the number of the cycle, or of the step if scale_mode is "iterations") is a height of the user's own.
    cycle_momentum: momentum goes the other way. Source: Smith, 2017.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: float | Sequence[float], max_lr: float | Sequence[float],
        step_size_up: int = 2000, step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
        base_momentum: float = 0.8, max_momentum: float = 0.9, last_epoch: int = -1,
    ):  # fmt: skip
        name = "CyclicLR"
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ArgumentError(
                name, f"mode={mode!r}", 'use "triangular", "triangular2", "exp_range" or scale_fn='
            )
        for group, low in zip(optimizer.param_groups, _each(name, optimizer, "base_lr", base_lr)):
            if last_epoch == -1:
                group["lr"] = group["initial_lr"] = low
        self.max_lrs = _each(name, optimizer, "max_lr", max_lr)
        up = positive(name, "step_size_up", step_size_up)
        self.total_size = float(up + (up if step_size_down is None else step_size_down))
        self.step_ratio, self.mode, self.gamma = up / self.total_size, mode, gamma
        self.lr_lambdas, self.scale_mode = [scale_fn], "iterations" if mode == "exp_range" else scale_mode
        self.cycle_momentum = cycle_momentum
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        if cycle_momentum:
            _check_momentum(name, optimizer)
        super().__init__(optimizer, last_epoch)

    def _height(self, x: float) -> float:
        own = self.lr_lambdas[0]
        if own is not None:
            return own(x)
        return {"triangular": 1.0, "triangular2": 1 / 2.0 ** (x - 1), "exp_range": self.gamma**x}[self.mode]

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        cycle = math.floor(1 + t / self.total_size)
        x = 1.0 + t / self.total_size - cycle
        share = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        share *= self._height(cycle if self.scale_mode == "cycle" else t)
        if self.cycle_momentum:
            value = self.max_momentum - (self.max_momentum - self.base_momentum) * share
            for group in self.optimizer.param_groups:
                _set_momentum(group, value)
        return [low + (high - low) * share for low, high in zip(self.base_lrs, self.max_lrs)]
