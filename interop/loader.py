"""The loader: which samples make which batch, read here or by worker processes."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.attended import is_eager
from ..core.errors import ArgumentError, ArgumentTypeError, TraceError
from ..core.random import Generator, default_generator
from ..core.strangers import size
from .datasets import IterableDataset, Subset, TensorDataset, collate
from .orders import permutation
from .pool import Batches, Pool
from .samplers import BatchSampler
from .workers import Key, Reader, Task, seeded_streams

_host: Any = dispatch._State.executor


class DataLoader:
    """Batches of a data set, in order or shuffled; iterate it once for each epoch.

    dataset: has `__len__` and `__getitem__`, or is an IterableDataset; batch_size: samples in a batch; shuffle: a new
    order each epoch; drop_last: leave out a last smaller batch; collate_fn: makes a batch of a list of samples.
    sampler: gives positions in an order of its own; batch_sampler: gives lists of them, in place of batch_size,
    shuffle, sampler and drop_last.
    seed: the order of epoch e depends on the seed and e alone, in every run, on every machine, and so do random
    numbers that samples draw (of `random`, `np.random` and `dg`); `set_epoch(e)` says which epoch is next.
    generator: orders are drawn from it instead; with neither, from the generator that `dg.manual_seed` seeds.
    num_workers: processes that read samples, 0: this one. Batches come in the same order with the same values for
    any number of workers; what samples draw at random too, but without seed= and workers they draw from this
    process's own streams. Workers get a copy of the data set by pickle; what they change in it stays with them. An
    IterableDataset is read by each of them from first to last: share it out with `dg.data.get_worker_info()`.
    prefetch_factor: batches that each worker makes ahead, 2 when None; persistent_workers: keep workers for the next
    epoch (else each epoch starts new ones, some tenths of a second); worker_init_fn: called in each worker at its
    start with its number; timeout: seconds to wait for a worker's batch, 0: for ever.
    Iterating gives tuples (or what collate_fn gives) of new tensors, never views of the data set; those from workers
    are on the CPU. `len()` is the number of batches. A program that uses workers keeps what it does under
    `if __name__ == "__main__":`, for each worker imports its main file.
    Raises: ArgumentError, ArgumentTypeError (also for what cannot be pickled); TraceError inside a traced function;
    WorkerError when a worker dies or is late, or at a sample's exception in a worker, then of its class too.
    Example: `for x, y in dg.data.DataLoader(dataset, batch_size=32, shuffle=True, seed=0): ...`.
    """

    def __init__(
        self, dataset: Any, batch_size: int = 1, shuffle: bool = False, *, drop_last: bool = False,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Any] | None = None, collate_fn: Callable[[list[Any]], Any] | None = None,
        seed: int | None = None, generator: Generator | None = None, num_workers: int = 0,
        prefetch_factor: int | None = None, persistent_workers: bool = False,
        worker_init_fn: Callable[[int], Any] | None = None, timeout: float = 0.0,
    ):  # fmt: skip
        self.streams = isinstance(dataset, IterableDataset)
        if not self.streams and (not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__")):
            raise ArgumentTypeError(
                "DataLoader",
                f"a {type(dataset).__name__} has no len() and [index]",
                "pass a dg.data.Dataset or a list",
            )
        size("DataLoader", "batch_size", batch_size)
        size("DataLoader", "num_workers", num_workers, 0, 1024)
        if prefetch_factor is not None:
            size("DataLoader", "prefetch_factor", prefetch_factor, 1, 1024)
        if not isinstance(timeout, (int, float, np.number)) or not 0 <= timeout < math.inf:
            raise ArgumentError(
                "DataLoader", f"timeout={timeout!r} is not a number of seconds", "use 0 for no limit"
            )
        if num_workers == 0 and (persistent_workers or prefetch_factor is not None):
            raise ArgumentError(
                "DataLoader", "persistent_workers and prefetch_factor are for workers, and num_workers=0",
                "use num_workers=1 or more, or leave them out",
            )  # fmt: skip
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
        self.drop_last, self.collate_fn, self.num_workers = bool(drop_last), collate_fn, int(num_workers)
        self.prefetch_factor = prefetch_factor if num_workers == 0 else int(prefetch_factor or 2)
        self.persistent_workers, self.worker_init_fn = bool(persistent_workers), worker_init_fn
        self.timeout = float(timeout)
        self.seed, self.generator = seed, generator
        self.epoch = 0
        self._pool: Pool | None = None
        self._user: Any = None  # a weak reference to the pass that has the pool

    def __len__(self) -> int:
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]
        n = len(self.dataset if self.sampler is None else self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_user": None}  # a copy has no workers yet

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is: to go on with a training that was interrupted."""
        self.epoch = size("DataLoader", "epoch", epoch, 0)

    def __iter__(self) -> Iterator[Any]:
        dispatch.outside("loops over a DataLoader", "loop outside and pass each batch to the function")
        if not is_eager():
            raise TraceError(
                "DataLoader", "a loader cannot run inside a traced function: its batches would be constants",
                "loop over it outside and pass each batch to the function",
            )  # fmt: skip
        self.epoch += 1
        key = self._key()
        if self.num_workers:
            pool = self._workers(key)
            made = Batches(pool, None if self.streams else self._plan(), key, pool is not self._pool)
            if pool is self._pool:
                self._user = weakref.ref(made)
            return made
        if self.streams:
            return map(
                self.collate_fn or collate, BatchSampler(iter(self.dataset), self.batch_size, self.drop_last)
            )
        return self._read_here(self._plan(), key)

    def _key(self) -> Key:
        """What names this epoch's random numbers: known without drawing any."""
        if self.seed is not None:
            return "seed", int(self.seed), self.epoch - 1
        return "state", *_host.random_state(self.generator or default_generator), self.epoch - 1

    def _plan(self) -> Iterator[Any]:
        """The positions of each batch."""
        if self.batch_sampler is not None:
            return iter(self.batch_sampler)
        if self.sampler is not None:
            return iter(BatchSampler(self.sampler, self.batch_size, self.drop_last))
        order, size = self._order(), self.batch_size
        return (order[k * size : (k + 1) * size] for k in range(len(self)))

    def _order(self) -> np.ndarray:
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        if self.seed is not None:
            return permutation(n, self.seed, self.epoch - 1)
        return permutation(n, *_host.offset(self.generator or default_generator, 1))

    def _read_here(self, plan: Iterator[Any], key: Key) -> Iterator[Any]:
        reader = Reader(self.dataset, self.collate_fn)
        seeded = self.seed is not None and (self.collate_fn is not None or _draws(self.dataset))
        for number, indices in enumerate(plan):
            with seeded_streams((key, number)) if seeded else contextlib.nullcontext():
                batch = reader.read(indices)
            yield batch

    def _workers(self, key: Key) -> Pool:
        """Workers that no other pass uses: kept ones where they are to be kept, else new ones."""
        user = self._user() if self._user is not None else None
        taken = user is not None and not user.done
        kept = self._pool
        if kept is not None and kept.close.alive and not taken:
            return kept
        task = Task(
            self.dataset, self.collate_fn, self.worker_init_fn,
            (self.batch_size, self.drop_last) if self.streams else None,
        )  # fmt: skip
        made = Pool(task, self.num_workers, self.prefetch_factor or 2, self.timeout, key)
        if self.persistent_workers and not taken:
            self._pool = made
        return made


def _draws(dataset: Any) -> bool:
    """Whether samples may draw random numbers."""
    while type(dataset) is Subset:
        dataset = dataset.dataset
    return type(dataset) is not TensorDataset
