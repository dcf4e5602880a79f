"""What the function says while it is traced, by `print`, `sys.stdout` and `logging`: said again at every call."""

from __future__ import annotations

import copy
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..core import forks


class Text:
    """Pieces of text for `sys.stdout`; None stands for a flush."""

    prints = True

    def __init__(self, pieces: list[str | None] | None = None) -> None:
        self.pieces: list[str | None] = [] if pieces is None else pieces

    def __call__(self, _: Any = None) -> None:
        out = sys.stdout
        for piece in self.pieces if out is not None else ():
            if piece is None:
                out.flush()
            else:
                out.write(piece)


class Record:
    """A record of a logger, which gets the time of the call."""

    prints = True

    def __init__(self, logger: logging.Logger, record: logging.LogRecord):
        self.logger, self.record = logger, record
        record.msg, record.args = record.getMessage(), None  # what tensors hold is read where it was said

    def __call__(self, _: Any = None) -> None:
        if self.logger.isEnabledFor(self.record.levelno):
            said = copy.copy(self.record)
            now = time.time()
            said.relativeCreated += 1000 * (now - said.created)
            said.created, said.msecs = now, 1000 * (now % 1)
            self.logger.handle(said)


class Asked:
    """A logger was asked whether it says anything of a level."""

    def __init__(self, logger: logging.Logger, level: int, answer: bool):
        self.logger, self.level, self.answer = logger, level, answer


#: takes what a thread says; returns whether it did
Taker = Callable[[Any], bool]


class _Out:
    """Stands for `sys.stdout` while functions are traced: each thread that traces keeps its own words."""

    def __init__(self) -> None:
        self.target: Any = None
        self.handle: Any = None
        self.enabled: Any = None
        self.takers: dict[int, Taker] = {}
        self._lock = forks.lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def take(self, what: Any) -> bool:
        taker = self.takers.get(threading.get_ident())
        return taker is not None and taker(what)

    def write(self, text: str) -> int:
        return len(text) if self.take(text) else self.target.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self.take(None):
            self.target.flush()

    def begin(self, taker: Taker) -> None:
        with self._lock:
            if not self.takers:
                self.handle, self.enabled = logging.Logger.handle, logging.Logger.isEnabledFor
                logging.Logger.handle, logging.Logger.isEnabledFor = _handle, _enabled  # type: ignore[method-assign,assignment]
            if sys.stdout is not None and sys.stdout is not self:
                self.target, sys.stdout = sys.stdout, self
            self.takers[threading.get_ident()] = taker

    def end(self) -> None:
        with self._lock:
            self.takers.pop(threading.get_ident(), None)
            if not self.takers:
                logging.Logger.handle, logging.Logger.isEnabledFor = self.handle, self.enabled  # type: ignore[method-assign]
                if sys.stdout is self:
                    sys.stdout = self.target


_out = _Out()


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    if not _out.take((logger, record)):
        _out.handle(logger, record)


def _enabled(logger: logging.Logger, level: int) -> bool:
    answer: bool = _out.enabled(logger, level)
    _out.take(Asked(logger, level, answer))
    return answer


@contextmanager
def listening(taker: Taker) -> Iterator[None]:
    """What this thread says inside is given to `taker`; said at once where it does not take it."""
    _out.begin(taker)
    try:
        yield
    finally:
        _out.end()
