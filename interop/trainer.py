"""`Trainer`: train, evaluate and predict in one call; a step is one function, in graph or in eager mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..core import tree
from ..core.errors import ArgumentError, ArgumentTypeError
from ..core.kinds import Count, Natural
from ..core.modes import no_grad
from ..core.ops.joining import concat
from ..core.spoken import spell_methods as _spell_methods
from ..core.value import Tensor
from ..graph import function
from ..nn.module import Module
from ..nn.optim.optimizer import Optimizer
from ..nn.utils import clip_grad_norm_
from .callbacks import Callback, OnEpochEnd
from .data import DataLoader, Dataset, TensorDataset
from .metrics import named
from .terminal import progress

#: seconds between two updates of the bar, so that short steps do not wait for the terminal
_PAUSE = 0.05


class _Means:
    """Running means of numbers that come once a batch, weighted by its samples."""

    def __init__(self, names: Sequence[str]):
        self.names, self.samples = names, 0
        self.sums = [0.0] * len(names)

    def add(self, values: Sequence[Tensor], samples: int) -> None:
        self.samples += samples
        for k, value in enumerate(values):
            self.sums[k] += float(value.item()) * samples

    def result(self) -> dict[str, float]:
        return {name: total / self.samples for name, total in zip(self.names, self.sums)}


class Trainer:
    """Trains a model on batches: forward, loss, gradients and update are one step, one graph in graph mode.

    model: a module, called with the inputs of a batch. loss: a module or function of (output, target) that gives a
    scalar; optimizer: over the model's parameters; both may be left out where only `predict` is used.
    metrics: functions of (output, target) that give a scalar tensor (its mean over a batch), or the names
    "accuracy" (classes on axis 1, labels), "binary_accuracy" (logits, 0 or 1), "mean_absolute_error",
    "mean_squared_error"; a dict names functions. mode: "graph" or "eager", which `trainer.mode = ...` switches at
    any time. clip_norm: the largest norm of all gradients together, None for no limit.

    Data are a `DataLoader` (or whatever gives batches anew each time it is iterated), a data set, or a tuple of
    tensors or arrays; of each batch, the last part is the target and the others are the model's inputs.
    Raises: ArgumentTypeError, ArgumentError.
    Example: `Trainer(model, loss=dg.nn.CrossEntropyLoss(), optimizer=opt, metrics=["accuracy"]).fit((x, y), epochs=5)`.
    """

    def __init__(
        self, model: Module, loss: Callable[..., Any] | None = None, optimizer: Optimizer | None = None,
        metrics: Sequence[Any] | Mapping[str, Callable[..., Any]] = (), mode: str = "graph",
        clip_norm: float | None = None,
    ):  # fmt: skip
        if not isinstance(model, Module):
            raise ArgumentTypeError("Trainer", f"model is a {type(model).__name__}", "pass a dg.nn.Module")
        if loss is not None and not callable(loss):
            raise ArgumentTypeError(
                "Trainer", f"loss is a {type(loss).__name__}", "pass such as dg.nn.MSELoss()"
            )
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(
                "Trainer", f"optimizer is a {type(optimizer).__name__}",
                "pass such as dg.optim.Adam(model.parameters())",
            )  # fmt: skip
        if clip_norm is not None and not clip_norm > 0:
            raise ArgumentError("Trainer", f"clip_norm={clip_norm} is not above 0", "use None for no limit")
        self.model, self.loss, self.optimizer, self.clip_norm = model, loss, optimizer, clip_norm
        self.metrics = named("Trainer", metrics)
        #: epochs that `fit` has finished
        self.epoch = 0
        #: set it in a callback: `fit` ends after this epoch
        self.stop = False
        self._train = function(self._train_step, mode=mode, name="train_step")
        self._evaluate = function(self._evaluate_step, mode=mode, name="evaluate_step")
        self._predict = function(self._predict_step, mode=mode, name="predict_step")

    @property
    def mode(self) -> str:
        """ "graph" or "eager": how steps run."""
        return self._train.mode

    @mode.setter
    def mode(self, mode: str) -> None:
        for step in (self._train, self._evaluate, self._predict):
            step.mode = mode

    # -- steps -----------------------------------------------------------------------------------

    def _train_step(self, inputs: tuple[Any, ...], target: Any) -> list[Tensor]:
        assert self.loss is not None
        assert self.optimizer is not None
        self.optimizer.zero_grad()
        output = self.model(*inputs)
        loss = self.loss(output, target)
        loss.backward()
        if self.clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return self._judged(loss, output, target)

    def _evaluate_step(self, inputs: tuple[Any, ...], target: Any) -> list[Tensor]:
        assert self.loss is not None
        with no_grad():
            output = self.model(*inputs)
            return self._judged(self.loss(output, target), output, target)

    def _predict_step(self, inputs: tuple[Any, ...]) -> Any:
        with no_grad():
            return self.model(*inputs)

    def _judged(self, loss: Tensor, output: Any, target: Any) -> list[Tensor]:
        with no_grad():
            output = tree.map_leaves(lambda x: x.detach() if isinstance(x, Tensor) else x, output)
            return [loss.detach(), *(metric(output, target) for metric in self.metrics.values())]

    # -- loops -----------------------------------------------------------------------------------

    def fit(
        self, data: Any, epochs: Natural = 1, validation_data: Any = None, callbacks: Iterable[Any] = (), *,
        batch_size: Count = 32, shuffle: bool = True, verbose: bool = True,
    ) -> dict[str, list[float]]:  # fmt: skip
        """Train for a number of passes over the data.

        data, validation_data: see the class; batch_size and shuffle (of the training data) hold for tensors and data
        sets, loaders have their own. callbacks: `dg.nn.callbacks.Callback`s, or functions of (trainer, epoch, logs)
        that are called after each epoch. verbose: show a bar with running means.
        Returns: one list of numbers per epoch for "loss", each metric, and the same with "val_" where
        validation_data is given. The model is in training mode inside and each module in its own again after.
        Raises: ArgumentError for data without batches, or that can be iterated only once where epochs ask for more.
        """
        self._needs("fit", loss=self.loss, optimizer=self.optimizer)
        calls = [self._callback(c) for c in callbacks]
        batches = self._batches("fit", data, batch_size, shuffle)
        if epochs > 1 and isinstance(batches, Iterator):
            raise ArgumentError(
                "fit", f"a {type(data).__name__} is used up after one of {epochs} epochs",
                "pass a DataLoader, a data set or tensors",
            )  # fmt: skip
        history: dict[str, list[float]] = {}
        self.stop = False
        with self._modules_as_they_were():
            for call in calls:
                call.on_train_begin(self)
            for number in range(1, epochs + 1):
                logs = self._one_epoch(
                    batches, validation_data, batch_size, calls, f"epoch {number}/{epochs}" * verbose
                )
                for name, value in logs.items():
                    history.setdefault(name, []).append(value)
                self.epoch += 1
                for call in calls:
                    call.on_epoch_end(self, self.epoch, logs)
                if self.stop:
                    break
            for call in calls:
                call.on_train_end(self)
        return history

    def _one_epoch(
        self, batches: Any, validation: Any, batch_size: int, calls: list[Callback], title: str
    ) -> dict[str, float]:
        self.model.train()
        for call in calls:
            call.on_epoch_begin(self, self.epoch + 1)
        means = _Means(["loss", *self.metrics])
        with progress(title, _length(batches)) as show:
            shown, waiting = time.perf_counter(), 0
            for number, batch in enumerate(batches, 1):
                inputs, target = _parts("fit", batch)
                means.add(self._train(inputs, target), _samples("fit", target))
                waiting += 1
                if title and time.perf_counter() - shown > _PAUSE:
                    show(_written(means.result()), waiting)
                    shown, waiting = time.perf_counter(), 0
                for call in calls:
                    call.on_batch_end(self, number, means.result())
            if not means.samples:
                raise ArgumentError("fit", "the data have no batches", "check their length and drop_last")
            logs = means.result()
            if validation is not None:
                show(_written(logs), waiting)
                waiting = 0
                found = self.evaluate(validation, batch_size=batch_size)
                logs.update({f"val_{name}": value for name, value in found.items()})
            show(_written(logs), waiting)
        return logs

    def evaluate(self, data: Any, *, batch_size: Count = 32) -> dict[str, float]:
        """Loss and metrics over data, their means over all samples, with the model in evaluation mode.

        Returns: numbers by name, "loss" first. Raises: as `fit`.
        """
        self._needs("evaluate", loss=self.loss)
        means = _Means(["loss", *self.metrics])
        with self._modules_as_they_were():
            self.model.eval()
            for batch in self._batches("evaluate", data, batch_size, False):
                inputs, target = _parts("evaluate", batch)
                means.add(self._evaluate(inputs, target), _samples("evaluate", target))
        if not means.samples:
            raise ArgumentError("evaluate", "the data have no batches", "check their length and drop_last")
        return means.result()

    def predict(self, data: Any, *, batch_size: Count = 32, targets: bool = False) -> Any:
        """What the model gives for all data, in evaluation mode, joined on the first axis.

        data: as in `fit`, but all parts of a batch are inputs; a tensor or an array alone is one input.
        targets: True leaves out the last part of each batch. Returns: a tensor, or whatever of tensors
        the model gives. Raises: as `fit`.
        """
        if isinstance(data, (Tensor, np.ndarray)):
            data = (data,)
        results = []
        with self._modules_as_they_were():
            self.model.eval()
            for batch in self._batches("predict", data, batch_size, False):
                inputs = _parts("predict", batch)[0] if targets else _all_parts("predict", batch)
                results.append(self._predict(inputs))
        if not results:
            raise ArgumentError("predict", "the data have no batches", "check their length and drop_last")
        return tree.map_leaves(lambda *parts: concat(list(parts), axis=0), *results)

    # -- what they share -------------------------------------------------------------------------

    def _needs(self, op: str, **parts: Any) -> None:
        for name, part in parts.items():
            if part is None:
                raise ArgumentError(op, f"the trainer has no {name}", f"pass {name}= to dg.nn.Trainer")

    @staticmethod
    def _callback(given: Any) -> Callback:
        if isinstance(given, Callback):
            return given
        if callable(given) and not isinstance(given, type):
            return OnEpochEnd(given)
        raise ArgumentTypeError(
            "fit", f"a callback is a {getattr(given, '__name__', type(given).__name__)}",
            "pass an instance of dg.nn.callbacks.Callback, or a function of (trainer, epoch, logs)",
        )  # fmt: skip

    @staticmethod
    def _batches(op: str, data: Any, batch_size: int, shuffle: bool) -> Any:
        if (
            isinstance(data, (tuple, list))
            and data
            and all(isinstance(x, (Tensor, np.ndarray)) for x in data)
        ):
            data = TensorDataset(*data)
        if isinstance(data, Dataset):
            return DataLoader(data, batch_size, shuffle=shuffle)
        if isinstance(data, (Tensor, np.ndarray, Mapping, str)) or not isinstance(data, Iterable):
            raise ArgumentTypeError(
                op,
                f"takes no {type(data).__name__} as data",
                "pass a DataLoader, a data set, or tensors (x, y)",
            )
        return data

    @contextmanager
    def _modules_as_they_were(self) -> Iterator[None]:
        before = [(module, module.training) for module in self.model.modules()]
        try:
            yield
        finally:
            for module, training in before:
                module.training = training


_spell_methods(Trainer, "fit evaluate predict")


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:  # a stream
        return None


def _all_parts(op: str, batch: Any) -> tuple[Any, ...]:
    if isinstance(batch, (Tensor, np.ndarray)):
        batch = (batch,)
    if not isinstance(batch, (tuple, list)):
        raise ArgumentTypeError(
            op,
            f"a batch is a {type(batch).__name__}",
            "give tuples (input, ..., target), by collate_fn= perhaps",
        )
    return tuple(batch)


def _parts(op: str, batch: Any) -> tuple[tuple[Any, ...], Any]:
    parts = _all_parts(op, batch)
    if len(parts) < 2:
        raise ArgumentError(op, "a batch has no target", "give tuples (input, ..., target)")
    return parts[:-1], parts[-1]


def _samples(op: str, target: Any) -> int:
    """The number of samples in a batch: the length of what is first in its target."""
    for leaf in tree.leaves(target):
        if isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim:
            return int(leaf.shape[0])
    raise ArgumentError(
        op, "a target has no first axis that counts samples", "give it the shape [batch, ...]"
    )


def _written(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
