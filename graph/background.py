"""`compile="background"`: eager mode runs until the plan is ready.

A call that no variant fits is traced in its own thread, for tracing runs the user's code; that takes milliseconds. The
passes and the kernels, which take seconds, are done by one thread of ours with the help of worker processes, and
the call itself runs in eager mode. Nothing of the trace has taken place by then, so effects happen once. A value that
the function reads ends the trace; the rest is traced when the part before is ready.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from ..core import forks
from ..core.backend import get_backend
from .given import containers_of
from .path import Path
from .segment import Segment
from .variant import Variant

_queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
_thread: threading.Thread | None = None
_lock = forks.lock()


class Job:
    """A traced path that is being compiled. publish: called in the compiling thread when it is there."""

    __slots__ = ("done", "error", "path", "pid", "publish", "segment")

    def __init__(self, path: Path, segment: Segment, publish: Callable[[], None]):
        self.path, self.segment, self.publish = path, segment, publish
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.pid = os.getpid()

    def run(self) -> None:
        """Compile and publish; an error waits for the next call."""
        device = self.path.tensors[0].device if self.path.tensors else "cpu"
        background = getattr(get_backend(device), "background", None)
        try:
            if background is None:
                self.path.finish_later(self.segment)
            else:
                with background():
                    self.path.finish_later(self.segment)
            self.publish()
        except Exception as error:
            self.error = error
        self.done.set()


def _submit(job: Job) -> None:
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_work, name="duograd compile", daemon=True)
            _thread.start()
    _queue.put(job)


def _work() -> None:
    while True:
        _queue.get().run()


class Background:
    """The jobs of one function: of its first paths by key, of others by the segment and outcome they follow."""

    def __init__(self) -> None:
        self._jobs: dict[Any, list[Job]] = {}
        self._lock = forks.lock()

    def _find(self, place: Any, tensors: list[Any], containers: tuple[int, ...]) -> Job | None:
        """The job that the call waits for. Raises the error that it ended with, once."""
        with self._lock:
            row = self._jobs.get(place, [])
            # Jobs of a parent process are not done here.
            row[:] = [job for job in row if job.pid == os.getpid() and (job.error or not job.done.is_set())]
            for job in row:
                variant = job.path.variant
                if variant.fits(tensors, containers):
                    if job.error is not None:
                        row.remove(job)
                        raise job.error
                    return job
        return None

    def _start(self, place: Any, path: Path, publish: Callable[[Segment], None]) -> None:
        path.defers = True
        segment = path.ready()
        job = Job(path, segment, lambda: publish(segment))
        with self._lock:
            self._jobs.setdefault(place, []).append(job)
        _submit(job)

    def first(
        self,
        key: Any,
        tensors: list[Any],
        containers: tuple[int, ...],
        start: Callable[[], Path],
        publish: Callable[[Path], None],
    ) -> None:
        """See to it that a variant for this key will be there; `start` begins its first path."""
        if self._find(key, tensors, containers) is None:
            path = start()
            path.variant.unseen = self.unseen
            self._start(key, path, lambda segment: publish(path))

    def unseen(self, variant: Variant, path: Path) -> Any:
        """A path that begins with an outcome not seen before: eager now, compiled for later."""
        place = id(path.after), path.after.key(path.outcomes[-1])
        if self._find(place, path.called, containers_of(path.given)) is None:
            self._start(place, path, lambda segment: None)
        return variant.eager(path.called) if path.given is None else variant.python(path.given)

    def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is being compiled. Returns whether that is so."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            jobs = [job for row in self._jobs.values() for job in row if job.pid == os.getpid()]
        return all(job.done.wait(None if end is None else max(0.0, end - time.monotonic())) for job in jobs)


def _after_fork() -> None:
    """A child has none of the parent's threads; its calls start jobs of their own."""
    global _thread, _queue
    _thread, _queue = None, queue.SimpleQueue()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
