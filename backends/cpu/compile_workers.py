"""Compiling several kernels side by side: this process and a few worker processes share one list of jobs.

A worker is a fresh interpreter that reads jobs from its standard input and writes object code to its standard
output; it never forks from a process with threads, and it ends by itself when it is left alone. Whatever
goes wrong with a worker, its job is done here instead.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from .progress import Line

# A worker needs about 0.6 s before its first result, in which this process compiles some ten kernels.
_JOBS_PER_WORKER = 10
_MAX_WORKERS = 8
_IDLE_SECONDS = 30.0
_PATIENCE_SECONDS = 120.0


class Job(NamedTuple):
    """A source, the functions to export (name, argument letters, result letter) and their symbols' prefix."""

    source: str
    entries: tuple[tuple[str, str, str], ...]
    prefix: str


class _Worker:
    def __init__(self) -> None:
        start = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C at the terminal is for this process alone.
            start_new_session=True,
        )

    def compile(self, job: Job) -> bytes:
        """Object code; raises CompileFailure, or OSError when the worker is gone."""
        from .compile import CompileFailure

        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()
        head = self.process.stdout.readline()
        if not head:
            raise EOFError("the compile worker has ended")
        reply = json.loads(head)
        if reply["error"] is not None:
            raise CompileFailure(reply["error"])
        code = self.process.stdout.read(reply["size"])
        if len(code) != reply["size"]:
            raise EOFError("the compile worker ended in the middle of a kernel")
        return code

    def end(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.wait()


_workers: list[_Worker] = []
#: workers that serve a batch now
_busy: set[_Worker] = set()
_lock = threading.RLock()
# Numba has one compiler for the process.
_compiler = threading.Lock()


class _Calm(threading.local):
    on = False


_calm = _Calm()


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """This thread leaves compiling to workers, so that the interpreter is free for the others; and says nothing."""
    before, _calm.on = _calm.on, True
    try:
        yield
    finally:
        _calm.on = before


def compile_all(
    jobs: Sequence[Job], keep: Callable[[int, bytes], None] = lambda k, code: None
) -> list[bytes | Exception]:
    """Object code of each job, or the CompileFailure that it met. keep: called with each code when it is there."""
    workers = _enlist(len(jobs))
    line = Line(len(jobs), not _calm.on)
    try:
        return _compile_all(jobs, keep, workers, line)
    finally:
        line.end()
        with _lock:
            _busy.difference_update(workers)


def _compile_all(
    jobs: Sequence[Job], keep: Callable[[int, bytes], None], workers: list[_Worker], line: Line
) -> list[bytes | Exception]:
    from .compile import CompileFailure, compile_object

    results: list[Any] = [None] * len(jobs)

    def done(k: int, code: bytes) -> None:
        results[k] = code
        keep(k, code)
        line.step()

    # The longest first, so that nobody starts a long one when the others are done.
    waiting = collections.deque(sorted(range(len(jobs)), key=lambda k: -len(jobs[k].source)))
    feeders = [
        threading.Thread(target=_feed, args=(worker, jobs, waiting, results, done), daemon=True)
        for worker in workers
    ]
    for feeder in feeders:
        feeder.start()

    def work_here(k: int) -> None:
        try:
            with _compiler:
                code = compile_object(*jobs[k])
        except CompileFailure as error:
            results[k] = error
        else:
            done(k, code)

    while waiting and not (feeders and _calm.on):
        try:
            k = waiting.popleft()
        except IndexError:
            break
        work_here(k)
    for feeder in feeders:
        feeder.join(_PATIENCE_SECONDS)
    for k, result in enumerate(results):
        if result is None:
            work_here(k)
    return results


def expect() -> None:
    """Start a worker before there are jobs, so that it has read Numba when they come."""
    with _lock:
        if not _workers and sys.executable and _cpus() > 1:
            with contextlib.suppress(OSError):
                _workers.append(_Worker())


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _enlist(count: int) -> list[_Worker]:
    """The workers for `count` jobs: those that live and are free, and new ones where that pays."""
    if count < 2 and not _calm.on:
        return []
    with _lock:
        for worker in [w for w in _workers if w.process.poll() is not None]:
            _dismiss(worker)
        wanted = min(_cpus() - 1, count // _JOBS_PER_WORKER, _MAX_WORKERS)
        if _calm.on:
            wanted = max(wanted, 1)
        found = [w for w in _workers if w not in _busy][: count if _calm.on else count - 1]
        # Without a path to the interpreter (an embedded one) there are no workers.
        while sys.executable and len(found) < wanted and len(_workers) < _MAX_WORKERS:
            try:
                _workers.append(_Worker())
            except OSError:
                break
            found.append(_workers[-1])
        _busy.update(found)
        return found


def _feed(
    worker: _Worker, jobs: Sequence[Job], waiting: collections.deque[int], results: list[Any],
    done: Callable[[int, bytes], None],
) -> None:  # fmt: skip
    from .compile import CompileFailure

    while waiting:
        try:
            k = waiting.popleft()
        except IndexError:
            return
        try:
            done(k, worker.compile(jobs[k]))
        except CompileFailure as error:
            results[k] = error
        except (OSError, EOFError, ValueError, KeyError):
            _dismiss(worker)
            return


def _dismiss(worker: _Worker) -> None:
    with _lock:
        if worker in _workers:
            _workers.remove(worker)
    worker.end()


@atexit.register
def end_workers() -> None:
    """End all workers now."""
    while _workers:
        _workers.pop().end()


def _after_fork() -> None:
    """The workers belong to the parent: forget them, without waiting for them."""
    global _lock, _compiler
    _lock, _compiler = threading.RLock(), threading.Lock()
    _busy.clear()
    while _workers:
        _workers.pop().process.returncode = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def serve() -> None:
    """A worker's life: compile what comes in, until the input ends or nothing comes for a while."""
    jobs = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    # Nothing that a library prints may get between the answers.
    os.dup2(2, 1)
    from .compile import CompileFailure, collector_rests, compile_object

    with collector_rests():
        from .numba_front import operations

        with operations():
            pass  # what every job needs is read before the first one comes
    while _readable(jobs):
        line = jobs.readline()
        if not line:
            return
        source, entries, prefix = json.loads(line)
        try:
            code, error = compile_object(source, [tuple(entry) for entry in entries], prefix), None
        except CompileFailure as failure:
            code, error = b"", str(failure)
        answers.write(json.dumps({"error": error, "size": len(code)}).encode() + b"\n" + code)
        answers.flush()


def _readable(file: BinaryIO) -> bool:
    # Windows cannot wait for a pipe; there a worker stays until its input ends.
    return os.name == "nt" or bool(select.select([file], [], [], _IDLE_SECONDS)[0])
