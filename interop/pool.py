"""How a loader's process starts its workers, asks them for batches, and ends them.

Workers are spawned, for a fork after threads have started hangs. Each has two pipes and a few segments, all without
names. A job is a few words in a pipe with the indices in a segment; the batch comes back in the same segment, so no
pipe can fill up and nobody waits but for work. Whoever dies closes its pipes, which the other sees.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing as mp
import os
import pickle
import signal
import struct
import time
import weakref
from collections.abc import Iterator
from multiprocessing import connection, resource_tracker
from typing import Any

import numpy as np

from ..core.errors import ArgumentError, ArgumentTypeError, DuogradError, WorkerError
from .parcels import Segment, pack, unpack
from .samplers import positions
from .workers import LOADING, STOP, Answer, Failure, Job, Key, Setup, Task, serve

#: seconds that a worker has to finish its sample when its loader is done with it
GRACE = 2.0


class Pool:
    """The workers of a loader. Raises: ArgumentTypeError for a task that cannot be pickled, ArgumentError."""

    def __init__(self, task: Task, count: int, prefetch: int, timeout: float, key: Key):
        current = mp.current_process()
        if getattr(current, "_inheriting", False):
            raise ArgumentError(
                "DataLoader", "a worker that starts runs the program's main file, which starts workers",
                'keep what a program does under `if __name__ == "__main__":`',
            )  # fmt: skip
        if current.daemon:
            raise ArgumentError(
                "DataLoader", "a data worker, or another daemonic process, cannot have workers",
                "use num_workers=0 in it",
            )  # fmt: skip
        self.timeout, self.run, self.owner = timeout, 0, os.getpid()
        parcel, self.control = Segment(), Segment()
        self.slots = [[Segment() for _ in range(prefetch)] for _ in range(count)]
        self.free = [list(range(prefetch)) for _ in range(count)]
        self.ready = [False] * count
        self.processes: list[Any] = []
        self.jobs: list[Any] = []
        self.answers: list[Any] = []
        self.ask_for(0)
        segments = [parcel, self.control, *itertools.chain(*self.slots)]
        self.close = weakref.finalize(
            self,
            _end,
            self.owner,
            self.control,
            self.processes,
            self.ready,
            self.jobs,
            self.answers,
            segments,
        )
        try:
            self._start(task, count, key, parcel)
        except BaseException:
            self.close()
            raise

    def _start(self, task: Task, count: int, key: Key, parcel: Segment) -> None:
        try:
            place = pack(tuple(task), parcel)
        except (pickle.PicklingError, AttributeError, TypeError) as e:
            raise _unpicklable(task, e) from None
        context = mp.get_context("spawn")
        resource_tracker.ensure_running()  # itself changes the mask that is set below
        for k in range(count):
            jobs, to_worker = context.Pipe(duplex=False)
            from_worker, answers = context.Pipe(duplex=False)
            self.jobs.append(to_worker)
            self.answers.append(from_worker)
            setup = Setup(k, count, key, (parcel, *place), self.control, self.slots[k], jobs, answers)
            process = context.Process(
                target=serve, args=(setup,), name=f"duograd data worker {k}", daemon=True
            )
            # Ctrl-C is for the loader's process alone, which ends its workers; a mask is inherited.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                process.start()
                self.processes.append(process)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                jobs.close()
                answers.close()

    def ask_for(self, run: int) -> None:
        """Say which run is wanted: workers leave jobs of others undone."""
        self.run = run
        struct.pack_into("q", self.control.room(8), 0, run)

    def begin(self) -> None:
        """Start a new run; what is left of an earlier one is thrown away."""
        self.ask_for(self.run + 1)
        for k, slots in enumerate(self.slots):
            while len(self.free[k]) < len(slots):
                self.take(k)

    def send(self, k: int, key: Key, indices: Any) -> None:
        """Give worker k a job. indices: None for a stream."""
        slot, size = self.free[k].pop(), 0
        if indices is not None:
            words = np.ascontiguousarray(positions("DataLoader", indices))
            size = words.size
            self.slots[k][slot].room(max(1, words.nbytes))[: words.nbytes] = words.view(np.uint8).data
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its death is told when it is asked
            self.jobs[k].send(tuple(Job(self.run, slot, key, size)))

    def take(self, k: int) -> tuple[str, Any]:
        """Worker k's next answer and the batch or Failure in it. Raises: WorkerError when there will be none."""
        try:
            while True:
                answer = self._receive(k)
                if answer.kind != "ready":
                    break
                self.ready[k] = True
            value: Any = None
            if answer.size:
                value = unpack(self.slots[k][answer.slot], answer.start, answer.size)
            if answer.kind == "unfit":
                raise _retold(value, k)
            self.free[k].append(answer.slot)
            return answer.kind, value
        except BaseException:  # Ctrl-C too: an answer may be half taken
            self.close()
            raise

    def _receive(self, k: int) -> Answer:
        process, pipe = self.processes[k], self.answers[k]
        if os.getpid() != self.owner:
            raise WorkerError(
                "DataLoader", "its workers belong to another process", "make the iterator where it is used"
            )
        arrived = connection.wait([pipe, process.sentinel], self.timeout or None)
        if not arrived:
            raise WorkerError(
                "DataLoader", f"worker {k} gave no batch in timeout={self.timeout:g} seconds",
                "raise timeout (the first batch includes the worker's start), or look at what a sample waits for",
            )  # fmt: skip
        with contextlib.suppress(EOFError, ConnectionResetError):
            if pipe in arrived or pipe.poll():
                return Answer(*pipe.recv())
        process.join(GRACE)
        raise _died(k, process, self.ready[k])


def _end(
    owner: int, control: Segment, processes: list[Any], ready: list[bool], jobs: list[Any], answers: list[Any],
    segments: list[Segment],
) -> None:  # fmt: skip
    """End workers and give back all that was theirs: those at a sample may finish it, for GRACE seconds."""
    if os.getpid() != owner:  # a fork has copies of the pipes, and no say
        return
    struct.pack_into("q", control.room(8), 0, STOP)
    for pipe in jobs:
        pipe.close()
    for process, begun, pipe in zip(processes, ready, answers):
        with contextlib.suppress(EOFError, OSError):
            begun = begun or pipe.poll()
        if not begun:  # still importing
            process.terminate()
    until = time.monotonic() + GRACE
    for action in ("", "terminate", "kill"):
        for process in processes:
            if action and process.is_alive():
                getattr(process, action)()
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
        until = time.monotonic() + GRACE
    for pipe in answers:
        pipe.close()
    for process in processes:
        with contextlib.suppress(ValueError):  # one that not even a kill ends, in a system call
            process.close()
    for segment in segments:
        segment.close()


def _unpicklable(task: Task, e: Exception) -> ArgumentTypeError:
    guilty = "the data set"
    for name, part in zip(("the data set", "collate_fn", "worker_init_fn"), task):
        segment = Segment()
        try:
            pack(part, segment)
        except Exception:
            guilty = name
            break
        finally:
            segment.close()
    return ArgumentTypeError(
        "DataLoader", f"{guilty} cannot be sent to workers: {e}",
        "define it at the top of a file (no lambda, no class in a function), or use num_workers=0",
    )  # fmt: skip


def _died(k: int, process: Any, ready: bool) -> WorkerError:
    code = process.exitcode
    how = f"ended with exit code {code}"
    if code is not None and code < 0:
        try:
            how = f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            how = f"was killed by signal {-code}"
    if ready:
        fix = "is memory short? num_workers=0 shows what else happens at a sample"
    else:
        fix = 'keep what a program does under `if __name__ == "__main__":`; see what the worker printed'
    when = "" if ready else " before it began"
    return WorkerError("DataLoader", f"worker {k} (process {process.pid}) {how}{when}", fix)


_classes: dict[type, type] = {}


def _retold(failure: Failure, k: int) -> DuogradError:
    """The error to raise for one in a worker: a WorkerError that is also of the class raised there."""
    if failure.where == LOADING:
        fix = "define classes in files that can be imported, not in an interactive session; or use num_workers=0"
    else:
        fix = "num_workers=0 reads samples here, where a debugger sees them"
    trace = failure.traceback.replace("\n", "\n    ")
    said = f"{failure.kind}: {failure.text}" if failure.text else failure.kind
    message = f"{failure.where} failed in worker {k}: {said}\n    {trace}"
    cause: Any = None
    with contextlib.suppress(Exception):
        cause = pickle.loads(failure.error)
    made: DuogradError | None = None
    if isinstance(cause, Exception) and not isinstance(cause, (StopIteration, StopAsyncIteration)):
        with contextlib.suppress(
            Exception
        ):  # a class that cannot be another's base, or wants arguments of its own
            kind = type(cause)
            if kind not in _classes:
                own = {"__str__": DuogradError.__str__, "__reduce__": lambda self: (WorkerError, self.args)}
                _classes[kind] = type(f"Worker{kind.__name__}", (WorkerError, kind), own)
            made = _classes[kind]("DataLoader", message, fix)
    error = made or WorkerError("DataLoader", message, fix)
    error.__cause__ = cause
    return error


class Batches:
    """One pass over a loader's data by workers, in the order in which one process would give it.

    plan: the indices of each batch, None for streams. Worker k makes the batches k, k + count, ...; streams end one
    by one.
    """

    def __init__(self, pool: Pool, plan: Iterator[Any] | None, key: Key, own: bool):
        self.pool, self.plan, self.key, self.own = pool, plan, key, own
        self.made = 0
        self.ended: set[int] = set()
        #: the workers of the jobs under way, in the order of the batches; an exception of the sampler in its place
        self.order: list[Any] = []
        self.done = False
        pool.begin()
        count, prefetch = len(pool.slots), len(pool.slots[0])
        for _, k in itertools.product(range(prefetch), range(count)):
            self._send(k)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        while self.order:
            k = self.order[0]
            if not isinstance(k, int):
                self.close()
                raise k
            try:
                kind, value = self.pool.take(k)
            except BaseException:
                self.close()
                raise
            self.order.pop(0)
            if kind == "end":
                self.ended.add(k)
                continue
            self._send(k)
            if kind == "error":
                raise _retold(value, k)
            return value
        self.close()
        raise StopIteration

    def _send(self, k: int) -> None:
        if k in self.ended or (self.order and not isinstance(self.order[-1], int)):
            return
        indices = None
        if self.plan is not None:
            try:
                indices = next(self.plan)
            except StopIteration:
                return
            except Exception as e:
                self.order.append(e)
                return
        self.pool.send(k, (self.key, self.made) if self.plan is not None else self.key, indices)
        self.made += 1
        self.order.append(k)

    def close(self) -> None:
        """Be done with: workers that are this pass's own end."""
        self.done, self.order = True, []
        if self.own:
            self.pool.close()
