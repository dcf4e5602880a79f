"""Data sets and the loader that makes batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentError, ArgumentTypeError, IndexingError, ShapeError, TraceError
from ..core.ops.joining import stack
from ..core.ops.picking import take
from ..core.random import Generator, default_generator
from ..core.types import DTYPES, default_float
from ..core.value import Tensor
from . import samplers as _samplers
from .orders import permutation
from .readers import read_cifar10, read_idx
from .samplers import *  # noqa: F403
from .samplers import BatchSampler, place

__all__ = [
    "ConcatDataset", "DataLoader", "Dataset", "IterableDataset", "Subset", "TensorDataset", "collate",
    "default_collate", "random_split", "read_cifar10", "read_idx", "train_test_split", *_samplers.__all__,
]  # fmt: skip

_host: Any = dispatch._State.executor


class Dataset:
    """Base of data sets: define `__len__` and `__getitem__(index)`, which gives one sample.

    A sample is a tensor, an array, a number, or a tuple or dict of such.
    """

    def __len__(self) -> int:
        raise ArgumentTypeError(type(self).__name__, "has no length", "define __len__(self)")

    def __getitem__(self, index: int) -> Any:
        raise ArgumentTypeError(type(self).__name__, "has no samples", "define __getitem__(self, index)")

    def batch(self, indices: np.ndarray) -> Any:
        """The samples at these positions, collated. A data set that can do it at once overrides this."""
        return collate([self[int(i)] for i in indices])

    def __add__(self, other: Any) -> ConcatDataset:
        return ConcatDataset([self, other])


class TensorDataset(Dataset):
    """Tensors (or NumPy arrays) of equal length; sample i is the tuple of their elements i.

    Arrays are used in place. Raises: ShapeError for unequal lengths, ArgumentTypeError for something else.
    Example: `dg.data.TensorDataset(images, labels)`.
    """

    def __init__(self, *tensors: Any):
        if not tensors:
            raise ArgumentTypeError("TensorDataset", "got no tensors", "pass at least one")
        self.tensors = tuple(_as_tensor("TensorDataset", t) for t in tensors)
        if any(t.ndim == 0 for t in self.tensors):
            raise ShapeError(
                "TensorDataset", "a 0-d tensor has no samples", "the first axis counts the samples"
            )
        lengths = [t.shape[0] for t in self.tensors]
        if len(set(lengths)) > 1:
            raise ShapeError(
                "TensorDataset",
                f"tensors of unequal length: {', '.join(str(t.type) for t in self.tensors)}",
                "give each as many samples as the others",
            )
        # On the CPU, NumPy picks rows from the same memory without a pass through the op table.
        self._arrays = [_host.read(t) if t.device == "cpu" else None for t in self.tensors]

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __reduce__(self) -> Any:
        return type(self), self.tensors

    def batch(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        """The rows at these positions of every tensor, copied."""
        out = []
        for tensor, array in zip(self.tensors, self._arrays):
            if array is not None:
                out.append(_host.share(array.take(indices, axis=0)))
            else:
                out.append(take(tensor, _host.constant(indices, tensor.device), axis=0))
        return tuple(out)


class Subset(Dataset):
    """Some samples of a data set, by their positions."""

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray):
        self.dataset, self.indices = dataset, np.asarray(indices, np.int64)
        n = len(dataset)
        if self.indices.size and not (-n <= self.indices.min() and self.indices.max() < n):
            raise IndexingError("Subset", f"an index is outside the {n} samples", f"use 0 to {n - 1}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def batch(self, indices: np.ndarray) -> Any:
        return _batch_of(self.dataset, self.indices[indices])


class ConcatDataset(Dataset):
    """Several data sets, one after the other; `a + b` of two data sets is one."""

    def __init__(self, datasets: Sequence[Any]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError("ConcatDataset", "got no data sets", "pass at least one")
        self.cumulative_sizes = np.cumsum([len(d) for d in self.datasets]).tolist()

    def __len__(self) -> int:
        return int(self.cumulative_sizes[-1])

    def __getitem__(self, index: int) -> Any:
        k, at = place(self.cumulative_sizes, int(index), len(self))
        return self.datasets[k][at]


class IterableDataset:
    """Base of data sets that are read from first to last: define `__iter__`, which gives samples."""

    def __iter__(self) -> Iterator[Any]:
        raise ArgumentTypeError(type(self).__name__, "has no samples", "define __iter__(self)")


def _batch_of(dataset: Any, indices: np.ndarray) -> Any:
    if isinstance(dataset, Dataset):
        return dataset.batch(indices)
    return collate([dataset[int(i)] for i in indices])


def _as_tensor(op: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.name not in DTYPES:
            raise ArgumentTypeError(op, f"an array of {value.dtype} is not supported", "convert it")
        value = _host.share(value) if value.flags.writeable else _host.constant(value, "cpu")
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(
            op, f"takes tensors and arrays, got a {type(value).__name__}", "use dg.tensor(data)"
        )
    return value.detach()


def collate(samples: Sequence[Any]) -> Any:
    """One batch from a list of samples: a new first axis.

    Tensors and arrays are stacked, numbers become a tensor (floats the default float), tuples, lists and
    dicts are collated by element, anything else (texts) stays a list. Raises: ShapeError, ArgumentTypeError
    for samples that differ in kind or shape.
    """
    first = samples[0]
    if any(type(s) is not type(first) for s in samples[1:]):
        kinds = sorted({type(s).__name__ for s in samples})
        raise ArgumentTypeError(
            "collate", f"samples of different kinds: {', '.join(kinds)}", "pass collate_fn="
        )
    if isinstance(first, (Tensor, np.ndarray)):
        if any(s.shape != first.shape for s in samples[1:]):
            shapes = sorted({str(list(s.shape)) for s in samples})
            raise ShapeError(
                "collate",
                f"samples of different shapes: {', '.join(shapes)}",
                "pad them, or pass collate_fn=",
            )
        if isinstance(first, np.ndarray):
            return _host.share(np.stack(samples))
        return stack(samples)
    if isinstance(first, (bool, int, float, np.generic)):
        array = np.asarray(samples)
        return _host.share(array.astype(default_float.np) if isinstance(first, float) else array)
    if isinstance(first, Mapping):
        return {key: collate([s[key] for s in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(s) != len(first) for s in samples[1:]):
            raise ShapeError("collate", "samples of different lengths", "pass collate_fn=")
        columns = [collate(column) for column in zip(*samples)]
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    return list(samples)


#: PyTorch's name
default_collate = collate


class DataLoader:
    """Batches of a data set, in order or shuffled; iterate it once for each epoch.

    dataset: has `__len__` and `__getitem__`, or is an IterableDataset; batch_size: samples in a batch; shuffle: a new
    order each epoch; drop_last: leave out a last smaller batch; collate_fn: makes a batch of a list of samples.
    sampler: gives positions in an order of its own; batch_sampler: gives lists of them, in place of batch_size,
    shuffle, sampler and drop_last.
    seed: the order of epoch e depends on the seed and e alone, in every run, on every machine;
    `set_epoch(e)` says which epoch is next. generator: orders are drawn from it instead; with neither, from
    the generator that `dg.manual_seed` seeds. num_workers: only 0, samples are read in this process.
    Iterating gives tuples (or what collate_fn gives) of new tensors, never views of the data set. `len()` is
    the number of batches. Raises: ArgumentError, ArgumentTypeError; TraceError inside a traced function.
    Example: `for x, y in dg.data.DataLoader(dataset, batch_size=32, shuffle=True, seed=0): ...`.
    """

    def __init__(
        self, dataset: Any, batch_size: int = 1, shuffle: bool = False, *, drop_last: bool = False,
        sampler: Any = None, batch_sampler: Any = None, collate_fn: Callable[[list[Any]], Any] | None = None,
        seed: int | None = None, generator: Generator | None = None, num_workers: int = 0,
    ):  # fmt: skip
        self.streams = isinstance(dataset, IterableDataset)
        if not self.streams and (not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__")):
            raise ArgumentTypeError(
                "DataLoader",
                f"a {type(dataset).__name__} has no len() and [index]",
                "pass a dg.data.Dataset or a list",
            )
        if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
            raise ArgumentError(
                "DataLoader", f"batch_size={batch_size!r} is not a positive int", "use 1 or more"
            )
        if num_workers != 0:
            raise ArgumentError(
                "DataLoader",
                f"num_workers={num_workers} is not supported",
                "use num_workers=0: samples are read here",
            )
        if seed is not None and generator is not None:
            raise ArgumentError("DataLoader", "got both seed= and generator=", "pass one of them")
        if self.streams and (shuffle or sampler is not None or batch_sampler is not None):
            raise ArgumentError(
                "DataLoader", "an IterableDataset has its own order", "shuffle in its __iter__"
            )
        if sampler is not None and shuffle:
            raise ArgumentError("DataLoader", "got both sampler= and shuffle=", "pass one of them")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ArgumentError(
                "DataLoader",
                "batch_sampler= makes the batches",
                "leave batch_size, shuffle, sampler and drop_last out",
            )
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.dataset, self.batch_size, self.shuffle = dataset, int(batch_size), bool(shuffle)
        self.drop_last, self.collate_fn, self.num_workers = bool(drop_last), collate_fn, 0
        self.seed, self.generator = seed, generator
        self.epoch = 0

    def __len__(self) -> int:
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        n = len(self.dataset if self.sampler is None else self.sampler)
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is: to go on with a training that was interrupted."""
        self.epoch = int(epoch)

    def __iter__(self) -> Iterator[Any]:
        if dispatch.state.executor is not _host:
            raise TraceError(
                "DataLoader", "a loader cannot run inside a traced function: its batches would be constants",
                "loop over it outside and pass each batch to the function",
            )  # fmt: skip
        self.epoch += 1
        if self.streams:
            return map(
                self.collate_fn or collate, BatchSampler(iter(self.dataset), self.batch_size, self.drop_last)
            )
        if self.batch_sampler is not None:
            return map(self._batch, self.batch_sampler)
        if self.sampler is not None:
            return map(self._batch, BatchSampler(self.sampler, self.batch_size, self.drop_last))
        return self._batches(self._order())

    def _order(self) -> np.ndarray:
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        if self.seed is not None:
            return permutation(n, self.seed, self.epoch - 1)
        return permutation(n, *_host.offset(self.generator or default_generator, 1))

    def _batches(self, order: np.ndarray) -> Iterator[Any]:
        for k in range(len(self)):
            yield self._batch(order[k * self.batch_size : (k + 1) * self.batch_size])

    def _batch(self, indices: Any) -> Any:
        if self.collate_fn is not None:
            return self.collate_fn([self.dataset[int(i)] for i in indices])
        return _batch_of(self.dataset, np.asarray(indices, np.int64))


def random_split(
    dataset: Any, lengths: Sequence[float], seed: int | None = None, generator: Generator | None = None
) -> list[Subset]:
    """Disjoint random parts of a data set.

    lengths: sizes that add up to the data set's, or shares that add up to 1 (what rounding leaves over goes
    to the first parts, one each). seed: of the order; else it is drawn from the generator (the default one when None).
    Raises: ArgumentError for lengths that do not add up.
    """
    n = len(dataset)
    sizes: list[int]
    if any(isinstance(v, float) for v in lengths) and math.isclose(sum(lengths), 1.0):
        sizes = [math.floor(n * v) for v in lengths]
        for k in range(n - sum(sizes)):
            sizes[k % len(sizes)] += 1
    else:
        sizes = [int(v) for v in lengths]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ArgumentError(
            "random_split", f"lengths={list(lengths)} do not add up to {n} samples", "or use shares of 1"
        )
    order = permutation(
        n, *((seed, 0) if seed is not None else _host.offset(generator or default_generator, 1))
    )
    ends = np.cumsum(sizes)
    return [Subset(dataset, order[end - size : end]) for end, size in zip(ends, sizes)]


def train_test_split(dataset: Any, test_share: float, seed: int | None = None) -> tuple[Subset, Subset]:
    """Random training and test parts; test_share: the test part's share, between 0 and 1."""
    if not 0.0 < test_share < 1.0:
        raise ArgumentError(
            "train_test_split", f"test_share={test_share} is not between 0 and 1", "use such as 0.3"
        )
    test = round(len(dataset) * test_share)
    first, second = random_split(dataset, [len(dataset) - test, test], seed)
    return first, second
