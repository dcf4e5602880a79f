"""The order in which a loader reads a data set, and data sets made of others: PyTorch's names."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentError, IndexingError
from ..core.random import Generator, default_generator
from ..core.strangers import size, whole_numbers
from ..core.value import Tensor
from .orders import permutation

__all__ = [
    "BatchSampler", "RandomSampler", "Sampler", "SequentialSampler", "SubsetRandomSampler", "WeightedRandomSampler",
]  # fmt: skip

_host: Any = dispatch._State.executor


class Sampler:
    """Base of orders: define `__iter__` (positions in the data set, anew for each epoch) and `__len__`."""

    def __iter__(self) -> Iterator[Any]:
        raise ArgumentError(type(self).__name__, "has no order", "define __iter__(self)")


def _stream(generator: Generator | None) -> np.random.Generator:
    """A stream of random numbers, another one at each call, given by a generator's next place."""
    seed, offset = _host.offset(generator or default_generator, 1)
    return np.random.Generator(np.random.Philox(key=np.array([seed, offset]).astype(np.uint64)))


def positions(op: str, given: Any) -> np.ndarray:
    """Positions in a data set as int64[n]. Raises: ArgumentTypeError."""
    return whole_numbers(op, "indices", given)


class SequentialSampler(Sampler):
    """The positions from first to last."""

    def __init__(self, data_source: Sized):
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))


class RandomSampler(Sampler):
    """Positions in random order; with replacement, or num_samples of them (more than there are: several orders)."""

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None,
        generator: Generator | None = None,
    ):  # fmt: skip
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        n = len(data_source) if num_samples is None else num_samples
        self.num_samples = size("RandomSampler", "num_samples", n, 0)

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        n = len(self.data_source)
        if self.replacement:
            return iter(_stream(self.generator).integers(0, n, self.num_samples).tolist())
        rounds = -(-self.num_samples // n) if n else 0
        orders = (
            permutation(n, *_host.offset(self.generator or default_generator, 1)) for _ in range(rounds)
        )
        return itertools.islice((int(i) for order in orders for i in order), self.num_samples)


class SubsetRandomSampler(Sampler):
    """Some positions, in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None):
        self.indices, self.generator = positions("SubsetRandomSampler", indices), generator

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        order = permutation(len(self.indices), *_host.offset(self.generator or default_generator, 1))
        return (int(self.indices[k]) for k in order)


class WeightedRandomSampler(Sampler):
    """num_samples positions, each drawn with a probability in proportion to its weight.

    weights: numbers from 0, one for each sample of the data set. Raises: ArgumentError for others, or for more samples
    than there are positive weights without replacement.
    """

    def __init__(
        self, weights: Iterable[float], num_samples: int, replacement: bool = True, generator: Generator | None = None
    ):  # fmt: skip
        size("WeightedRandomSampler", "num_samples", num_samples)
        values = np.asarray(weights.tolist() if isinstance(weights, Tensor) else list(weights), np.float64)
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
            raise ArgumentError(
                "WeightedRandomSampler",
                "weights are not numbers from 0 with a positive sum",
                "pass one for each sample",
            )
        if num_samples < 1 or (not replacement and num_samples > np.count_nonzero(values)):
            raise ArgumentError(
                "WeightedRandomSampler",
                f"num_samples={num_samples} cannot be drawn",
                "use fewer, or replacement=True",
            )
        self.weights, self.num_samples, self.replacement, self.generator = (
            values,
            num_samples,
            replacement,
            generator,
        )

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        p = self.weights / self.weights.sum()
        drawn = _stream(self.generator).choice(len(p), self.num_samples, self.replacement, p)
        return iter(drawn.tolist())


class BatchSampler(Sampler):
    """Batches of what a sampler gives, as lists."""

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool = False):
        self.sampler, self.drop_last = sampler, drop_last
        self.batch_size = size("BatchSampler", "batch_size", batch_size)

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rest = iter(self.sampler)
        while batch := list(itertools.islice(rest, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


def place(ends: Sequence[int], index: int, n: int) -> tuple[int, int]:
    """Which of several data sets holds a position, and where; ends: the number of samples up to the end of each."""
    if not -n <= index < n:
        raise IndexingError("ConcatDataset", f"index {index} is outside {n} samples", f"use 0 to {n - 1}")
    index %= n
    k = bisect.bisect_right(ends, index)
    return k, index - (ends[k - 1] if k else 0)
