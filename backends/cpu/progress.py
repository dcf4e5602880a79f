"""A line on the terminal while kernels compile for longer than a second; nothing where nobody looks."""

from __future__ import annotations

import sys
import threading
import time

_PATIENCE_SECONDS = 1.0


class Line:
    """`step()` counts; the line is drawn on standard error when it is a terminal, and erased by `end()`."""

    def __init__(self, total: int, on: bool = True):
        self.total, self.count, self.shown = total, 0, False
        self.start = time.monotonic()
        self.on = on and _is_terminal()
        self._lock = threading.Lock()

    def step(self) -> None:
        """One more kernel is there."""
        with self._lock:
            self.count += 1
            seconds = time.monotonic() - self.start
            if self.on and seconds > _PATIENCE_SECONDS:
                self.shown = True
                self._write(
                    f"\r\x1b[Kduograd: {self.count} of {self.total} kernels compiled in {seconds:.0f} s"
                )

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self.shown:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # the terminal is gone
            self.on = self.shown = False


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False
