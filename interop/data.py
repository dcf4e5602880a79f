"""Data sets and the loader that makes batches of them: the names of `dg.data`."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentError
from ..core.random import Generator, default_generator
from ..core.spoken import spell as _spell
from . import datasets as _datasets
from . import samplers as _samplers
from .datasets import *  # noqa: F403
from .datasets import Subset
from .loader import DataLoader
from .orders import permutation
from .readers import read_cifar10, read_idx
from .samplers import *  # noqa: F403
from .workers import WorkerInfo, get_worker_info

__all__ = [
    "DataLoader", "WorkerInfo", "get_worker_info", "random_split", "read_cifar10", "read_idx", "train_test_split",
    *_datasets.__all__, *_samplers.__all__,
]  # fmt: skip

_host: Any = dispatch._State.executor


def random_split(
    dataset: Sized, lengths: Sequence[float], seed: int | None = None, generator: Generator | None = None
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


def train_test_split(dataset: Sized, test_share: float, seed: int | None = None) -> tuple[Subset, Subset]:
    """Random training and test parts; test_share: the test part's share, between 0 and 1."""
    if not 0.0 < test_share < 1.0:
        raise ArgumentError(
            "train_test_split", f"test_share={test_share} is not between 0 and 1", "use such as 0.3"
        )
    test = round(len(dataset) * test_share)
    first, second = random_split(dataset, [len(dataset) - test, test], seed)
    return first, second


_spell(globals(), __all__, strict=True)
