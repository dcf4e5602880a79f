"""What `Trainer.fit` calls on the way: stop early, keep the best, step a schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import ArgumentError, ArgumentTypeError
from ..core.kinds import Magnitude, Natural
from ..core.spoken import spell as _spell
from ..nn.optim.lr_scheduler.base import LRScheduler
from ..nn.optim.lr_scheduler.combine import ReduceLROnPlateau
from .checkpoint import save

__all__ = ["Callback", "EarlyStopping", "ModelCheckpoint", "Schedule"]


class Callback:
    """Base of callbacks: override what is needed. Epochs and batches count from 1; logs are means so far by name."""

    def on_train_begin(self, trainer: Any) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        """Before an epoch."""

    def on_batch_end(self, trainer: Any, batch: int, logs: Mapping[str, float]) -> None:
        """After a step."""

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Mapping[str, float]) -> None:
        """After an epoch and its validation."""

    def on_train_end(self, trainer: Any) -> None:
        """After the last epoch, when none failed."""


class OnEpochEnd(Callback):
    """A function of (trainer, epoch, logs) as a callback."""

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Mapping[str, float]) -> None:
        self.fn(trainer, epoch, logs)


class _Watch(Callback):
    """Knows whether the number that it watches has got better."""

    def __init__(self, monitor: str, mode: str, min_delta: Magnitude = 0.0):
        self.name = type(self).__name__
        if mode not in ("min", "max"):
            raise ArgumentError(self.name, f"mode={mode!r} is unknown", 'use "min" or "max"')
        self.monitor, self.sign, self.min_delta = monitor, 1 if mode == "min" else -1, min_delta
        self.best = math.nan

    def better(self, logs: Mapping[str, float]) -> bool:
        """Whether the number is the best so far; NaN never is."""
        value = watched(self.name, self.monitor, logs)
        if math.isnan(value) or (self.best - value) * self.sign <= self.min_delta:
            return False
        self.best = value
        return True


def watched(name: str, monitor: str, logs: Mapping[str, float]) -> float:
    """The number to watch. Raises: ArgumentError when fit does not report it."""
    if monitor not in logs:
        raise ArgumentError(
            name, f"there is no {monitor!r} to watch",
            f"watch one of {', '.join(logs)}; names with val_ need validation_data=",
        )  # fmt: skip
    return logs[monitor]


class EarlyStopping(_Watch):
    """Ends the training when a number has not got better for more than `patience` epochs.

    monitor: the number's name; mode: "min" or "max", what better means; min_delta: by how much at least.
    restore_best: the model's state of the best epoch comes back at the end. `best` is the best number,
    `stopped_epoch` the epoch that ended it (0: none did). Example: `EarlyStopping("val_loss", patience=3)`.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: Natural = 5, mode: str = "min", min_delta: Magnitude = 0.0,
        restore_best: bool = True,
    ):  # fmt: skip
        super().__init__(monitor, mode, min_delta)
        self.patience, self.restore_best = patience, restore_best
        self.stopped_epoch = 0
        self._since = 0
        self._state: dict[str, Any] | None = None

    def on_train_begin(self, trainer: Any) -> None:
        self.best, self.stopped_epoch, self._since, self._state = math.nan, 0, 0, None

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Mapping[str, float]) -> None:
        if self.better(logs):
            self._since = 0
            if self.restore_best:
                self._state = {name: t.detach().clone() for name, t in trainer.model.state_dict().items()}
            return
        self._since += 1
        if self._since > self.patience:
            self.stopped_epoch, trainer.stop = epoch, True

    def on_train_end(self, trainer: Any) -> None:
        if self._state is not None:
            trainer.model.load_state_dict(self._state)
            self._state = None


class ModelCheckpoint(_Watch):
    """Saves the model after each epoch, or after those that are the best so far.

    path: a file, which may have {epoch} and the reported numbers in it: "best-{epoch:03d}-{val_loss:.3f}.safetensors".
    monitor: the number that has to get better ("min" or "max" says mode); None saves every epoch.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str | None = None, mode: str = "min"):
        super().__init__(monitor or "", mode)
        self.path = os.fspath(path)

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Mapping[str, float]) -> None:
        if self.monitor and not self.better(logs):
            return
        try:
            path = self.path.format(epoch=epoch, **logs)
        except (KeyError, IndexError, ValueError) as error:
            raise ArgumentError(
                self.name, f"path {self.path!r} cannot be filled: {error}", f"use epoch, {', '.join(logs)}"
            ) from None
        save(trainer.model, path)


class Schedule(Callback):
    """Steps a schedule of learning rates. every: "epoch" or "batch"; monitor: what ReduceLROnPlateau watches.

    Example: `Schedule(dg.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10))`.
    """

    def __init__(self, scheduler: Any, every: str = "epoch", monitor: str | None = None):
        if not isinstance(scheduler, LRScheduler):
            raise ArgumentTypeError(
                "Schedule", f"takes a schedule, got a {type(scheduler).__name__}", "see dg.optim.lr_scheduler"
            )
        if every not in ("epoch", "batch"):
            raise ArgumentError("Schedule", f"every={every!r} is unknown", 'use "epoch" or "batch"')
        self.scheduler, self.every = scheduler, every
        if monitor is None and isinstance(scheduler, ReduceLROnPlateau):
            monitor = "val_loss"
        self.monitor = monitor

    def _step(self, logs: Mapping[str, float]) -> None:
        if self.monitor is None:
            self.scheduler.step()
        else:
            self.scheduler.step(watched("Schedule", self.monitor, logs))  # type: ignore[call-arg]

    def on_batch_end(self, trainer: Any, batch: int, logs: Mapping[str, float]) -> None:
        if self.every == "batch":
            self._step(logs)

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Mapping[str, float]) -> None:
        if self.every == "epoch":
            self._step(logs)


_spell(globals(), __all__, strict=True)
