"""Data sets, and how samples are collated to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentError, ArgumentTypeError, IndexingError, ShapeError
from ..core.ops.joining import stack
from ..core.ops.picking import take
from ..core.types import DTYPES, default_float
from ..core.value import Tensor
from .samplers import place, positions

__all__ = [
    "ConcatDataset", "Dataset", "IterableDataset", "Subset", "TensorDataset", "collate", "default_collate",
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
                try:
                    rows = array.take(indices, axis=0)
                except IndexError:
                    n = len(self)
                    what = f"an index of {indices.tolist()} is outside the {n} samples"
                    raise IndexingError("TensorDataset", what, f"use {-n} to {n - 1}") from None
                out.append(_host.share(rows))
            else:
                out.append(take(tensor, _host.constant(indices, tensor.device), axis=0))
        return tuple(out)


class Subset(Dataset):
    """Some samples of a data set, by their positions."""

    def __init__(self, dataset: Sized, indices: Sequence[int] | np.ndarray):
        self.dataset: Any = dataset
        self.indices = positions("Subset", indices)
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

    def __init__(self, datasets: Sequence[Sized]):
        self.datasets: list[Any] = list(datasets)
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
