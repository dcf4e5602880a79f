"""Averages of a model's weights over training: plain means (SWA), exponential ones (EMA), and what goes with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...core import dispatch
from ...core.errors import ArgumentError, ShapeError
from ...core.op import PUBLIC
from ...core.ops import elementwise as E
from ...core.spoken import spell as _spell
from ...core.types import float32, int64
from ...core.value import Tensor
from ..module import Module
from .lr_scheduler.base import LRScheduler
from .optimizer import Optimizer

__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
    "update_bn",
]  # fmt: skip


def _toward(average: Tensor, current: Tensor, weight: Any) -> Tensor:
    """The average, moved to the current value by a share; integers are truncated by who stores them."""
    if average.dtype.is_float or average.dtype.is_complex:
        return E.lerp(average, current, weight)  # type: ignore[no-any-return]
    return average * (1 - weight) + current * weight


def _share(average: Tensor, count: Tensor) -> Tensor:
    return 1 / (count + 1).to(average.dtype if average.dtype.is_float else float32)


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`decay * average + (1 - decay) * current`, as `AveragedModel`'s avg_fn. Raises: ArgumentError outside [0, 1]."""
    _checked("get_ema_avg_fn", decay)
    return lambda average, current, count: decay * average + (1 - decay) * current


def get_swa_avg_fn() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`average + (current - average) / (count + 1)`, as `AveragedModel`'s avg_fn."""
    return lambda average, current, count: average + (current - average) * _share(average, count)


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Tensor], None]:
    """The exponential mean of whole lists, as `AveragedModel`'s multi_avg_fn. Raises: ArgumentError outside [0, 1]."""
    _checked("get_ema_multi_avg_fn", decay)

    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], count: Tensor) -> None:
        for average, current in zip(averages, currents):
            average.copy_(_toward(average, current, 1 - decay).to(average.dtype))

    return update


def get_swa_multi_avg_fn() -> Callable[[Any, Any, Tensor], None]:
    """The plain mean of whole lists, as `AveragedModel`'s multi_avg_fn."""

    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], count: Tensor) -> None:
        for average, current in zip(averages, currents):
            average.copy_(_toward(average, current, _share(average, count)).to(average.dtype))

    return update


def _checked(name: str, decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ArgumentError(name, f"decay={decay} is outside [0, 1]", "use such as 0.999")


class AveragedModel(Module):
    """A copy of a model (`module`) whose weights are an average of that model's weights over training.

    model: copied now; device: of the copy; avg_fn(average, current, count): the next average of a tensor;
    multi_avg_fn(averages, currents, count): writes the next averages over the lists; neither: the plain mean;
    use_buffers: buffers are averaged too, else they are copied from the model at each update. `n_averaged`: int64[],
    how many updates there were; the first one copies. Called: as `module`.
    Raises: ShapeError from `update_parameters` for a model of another kind. Numerics: in the dtype of the weights.
    Source: Izmailov et al., 2018. `update_parameters` may stand within a graph function, beside the step.
    Example: `ema = dg.optim.swa_utils.AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))`, then
    `ema.update_parameters(model)` after each `optimizer.step()`.
    """

    n_averaged: Tensor

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Callable[..., Any] | None = None,
        multi_avg_fn: Callable[..., Any] | None = None,
        use_buffers: bool = False,
    ):  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("AveragedModel", "avg_fn and multi_avg_fn are both given", "give one of them")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        place = next((t.device for t in self.module.parameters()), "cpu")
        self.register_buffer("n_averaged", PUBLIC["zeros"]((), dtype=int64, device=place))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _averaged(self, model: Module) -> list[Tensor]:
        parts = [*model.parameters(), *(model.buffers() if self.use_buffers else ())]
        return [t.detach() for t in parts]

    def update_parameters(self, model: Module) -> None:
        """Take the model's weights, as they are now, into the average."""
        with dispatch.set_grad(False):
            averages, currents = self._averaged(self.module), self._averaged(model)
            if [a.shape for a in averages] != [c.shape for c in currents]:
                raise ShapeError(
                    "AveragedModel", "update_parameters got a model with other parameters",
                    "pass the model that was averaged from the start",
                )  # fmt: skip
            currents = [c.to(a.device) for a, c in zip(averages, currents)]
            news: list[Any]
            if self.multi_avg_fn is not None:
                news = [a.clone() for a in averages]
                self.multi_avg_fn(news, currents, self.n_averaged)
            else:
                fn = self.avg_fn or get_swa_avg_fn()
                news = [fn(a, c, self.n_averaged) for a, c in zip(averages, currents)]
            first = self.n_averaged == 0
            for average, current, new in zip(averages, currents, news):
                average.copy_(E.where(first, current.to(average.dtype), new.to(average.dtype)))
            if not self.use_buffers:
                for own, other in zip(self.module.buffers(), model.buffers()):
                    own.copy_(other)
            self.n_averaged.add_(1)


class SWALR(LRScheduler):
    """From the rate that it finds to `swa_lr` in `anneal_epochs` steps, and constant from then on.

    swa_lr: a rate, or one for each group; anneal_strategy: "cos" or "linear".
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: float | Sequence[float], anneal_epochs: int = 10,
        anneal_strategy: str = "cos", last_epoch: int = -1,
    ):  # fmt: skip
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(
                "SWALR", f"anneal_strategy={anneal_strategy!r} is unknown", 'use "cos" or "linear"'
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ArgumentError(
                "SWALR", f"anneal_epochs={anneal_epochs} is no number from 0", "use such as 10"
            )
        groups = len(optimizer.param_groups)
        self.swa_lrs = (
            [float(r) for r in swa_lr] if isinstance(swa_lr, Sequence) else [float(swa_lr)] * groups
        )
        if len(self.swa_lrs) != groups:
            raise ArgumentError(
                "SWALR", f"{len(self.swa_lrs)} rates for {groups} groups", "give one for each"
            )
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _part(self, step: int) -> float:
        """How much of the way is gone after so many steps."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        step = max(1, self.last_epoch) if self.anneal_epochs == 0 else self.last_epoch
        before, now = self._part(step - 1), self._part(step)
        rates = zip(self._rates(), self.swa_lrs)
        starts = [
            (last if before == 1 else (lr - before * last) / (1 - before), last) for (_, lr), last in rates
        ]
        return [last * now + lr * (1 - now) for lr, last in starts]


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Give the batch normalisations of an averaged model their statistics, by one pass over data without gradients.

    loader: batches, of which the first element is the model's input where it is a tuple or list; device: where inputs
    are moved first. Averages are plain means over all batches.
    """
    layers: list[Any] = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
    if not layers:
        return
    was_training, momenta = model.training, [m.momentum for m in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        model.train()
        with dispatch.set_grad(False):
            for batch in loader:
                x = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(x if device is None else x.to(device))
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
        model.train(was_training)


_spell(globals(), __all__, strict=True)
