"""What a data worker does: reads the samples of a batch and sends it; `pool.py` starts, asks and ends it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import random
import struct
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import is_internal
from ..core.random import default_generator
from .datasets import Dataset, Subset, collate
from .parcels import Segment, pack, unpack
from .samplers import positions

#: the run that is asked for when none is
STOP = -1
LOADING = "loading the data set"
#: what names a stream of random numbers; see `seed_streams`
Key = tuple[Any, ...]


class WorkerInfo(NamedTuple):
    """Which worker this process is. id: from 0; seed: of its random numbers at its start; dataset: its copy."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a data worker its `WorkerInfo` (`id`, `num_workers`, `seed`, `dataset`), elsewhere None.

    An IterableDataset asks for it to give each worker its share of the samples.
    Example: `info = dg.data.get_worker_info()`.
    """
    return _info


class Task(NamedTuple):
    """What every worker of a loader is to do. stream: (batch_size, drop_last) of an IterableDataset."""

    dataset: Any
    collate_fn: Callable[[list[Any]], Any] | None
    worker_init_fn: Callable[[int], Any] | None
    stream: tuple[int, bool] | None


class Setup(NamedTuple):
    """What one worker is given at its start."""

    id: int
    workers: int
    key: Key
    parcel: tuple[Segment, int, int]
    control: Segment
    slots: list[Segment]
    jobs: Any
    answers: Any


class Job(NamedTuple):
    """A batch to make. key: names its random numbers; size: how many indices the slot holds."""

    run: int
    slot: int
    key: Key
    size: int


class Answer(NamedTuple):
    """kind: "ready", "batch", "end" of a stream, "stale" (of an earlier run), "error", or "unfit" (cannot start)."""

    kind: str
    slot: int = 0
    start: int = 0
    size: int = 0


class Failure(NamedTuple):
    """An exception in a worker. error: its pickle, or b"" where it has none."""

    where: str
    kind: str
    text: str
    traceback: str
    error: bytes


class _StaleError(Exception):
    """The batch being made is no longer asked for."""


class Reader:
    """Reads samples by their positions; `where` says what it was at when something failed."""

    def __init__(self, dataset: Any, collate_fn: Any, check: Callable[[], None] = lambda: None):
        self.dataset, self.collate_fn, self.check = dataset, collate_fn, check
        self.where = ""

    def read(self, indices: Any) -> Any:
        """The batch of these samples."""
        data, at = self.dataset, positions("DataLoader", indices)
        self.where = f"the batch of samples {_some(at)}"
        if self.collate_fn is None:
            while type(data) is Subset:
                data, at = data.dataset, data.indices[at]
            if isinstance(data, Dataset) and type(data).batch is not Dataset.batch:
                return data.batch(at)
        samples = []
        for i in at.tolist():
            self.check()
            self.where = f"sample {i}"
            samples.append(data[i])
        self.where = f"the batch of samples {_some(at)}"
        return (self.collate_fn or collate)(samples)


def _some(indices: np.ndarray) -> str:
    text = ", ".join(map(str, indices[:8].tolist()))
    return text + (", ..." if len(indices) > 8 else "")


def seed_streams(key: Key) -> int:
    """Start the random numbers of Python, NumPy and `dg` anew, as the key says. Returns: a seed of 63 bits."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=32).digest()
    words = np.frombuffer(digest, np.uint32)
    seed = int.from_bytes(digest[:8], "little") >> 1
    random.seed(digest)
    np.random.seed(words)
    default_generator.manual_seed(seed)
    return seed


@contextlib.contextmanager
def seeded_streams(key: Key) -> Iterator[None]:
    """Random numbers as a worker has them; this process's go on afterwards from where they were."""
    kept = random.getstate(), np.random.get_state(legacy=False), default_generator.get_state()
    seed_streams(key)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        default_generator.set_state(kept[2])


def serve(setup: Setup) -> None:
    """A worker's life: until its loader closes the pipe or is gone."""
    os.environ["DUOGRAD_NUM_THREADS"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        work = _Work(setup)
        try:
            work.load()
        except Exception as e:
            setup.answers.send(Answer("unfit", 0, *pack(_failure(e, work.where), setup.slots[0])))
            return
        setup.answers.send(Answer("ready"))
        while True:
            setup.answers.send(work.answer(Job(*setup.jobs.recv())))


class _Work:
    def __init__(self, setup: Setup):
        self.setup, self.run, self.samples, self.where = setup, 0, iter(()), LOADING

    def load(self) -> None:
        """Take the data set in and call worker_init_fn."""
        global _info
        setup = self.setup
        segment, start, size = setup.parcel
        seed = seed_streams((setup.key, "worker", setup.id))
        self.task = task = Task(*unpack(segment, start, size, shared=True))
        segment.close()
        _info = WorkerInfo(setup.id, setup.workers, seed, task.dataset)
        if task.worker_init_fn is not None:
            self.where = "worker_init_fn"
            task.worker_init_fn(setup.id)
        self.reader = Reader(task.dataset, task.collate_fn, self.check)

    def check(self) -> None:
        (asked,) = struct.unpack_from("q", self.setup.control.view(8))
        if asked != self.run:
            raise _StaleError

    def answer(self, job: Job) -> Answer:
        slot = self.setup.slots[job.slot]
        try:
            new, self.run = job.run != self.run, job.run
            self.check()
            if self.task.stream is not None:
                made = self.next(job, *self.task.stream, new)
                if made is None:
                    return Answer("end", job.slot)
            else:
                seed_streams(job.key)
                made = self.reader.read(np.frombuffer(slot.view(8 * job.size), np.int64, job.size).copy())
            self.reader.where += ", being sent"
            return Answer("batch", job.slot, *pack(made, slot))
        except _StaleError:
            return Answer("stale", job.slot)
        except (Exception, SystemExit) as e:
            return Answer("error", job.slot, *pack(_failure(e, self.reader.where), slot))

    def next(self, job: Job, batch_size: int, drop_last: bool, new: bool) -> Any:
        """The next batch of this worker's stream in one element, None at its end."""
        if new:
            seed_streams((job.key, "stream", self.setup.id))
            self.reader.where, self.read = "the stream", 0
            self.samples = iter(self.task.dataset)
        batch: list[Any] = []
        while len(batch) < batch_size:
            self.check()
            self.reader.where = f"sample {self.read} of the worker's stream"
            try:
                batch.append(next(self.samples))
            except StopIteration:
                break
            self.read += 1
        if not batch or (drop_last and len(batch) < batch_size):
            return None
        self.reader.where = f"the batch before sample {self.read} of the worker's stream"
        return (self.task.collate_fn or collate)(batch)


def _failure(e: BaseException, where: str) -> Failure:
    at = e.__traceback__
    while at is not None and at.tb_next is not None and is_internal(at.tb_frame.f_code):
        at = at.tb_next
    text = "".join(traceback.format_exception(type(e), e, at)).rstrip()
    try:
        pickled = pickle.dumps(e)
        pickle.loads(pickled)
    except Exception:
        pickled = b""
    return Failure(where, type(e).__name__, str(e), text, pickled)
