"""What the terminal shows: one console, progress and tables in one style."""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def rich(name: str) -> Any:
    """A module of rich, which draws from Python's random generator when it is imported: the user's stays as it is."""
    full = f"rich.{name}"
    if full in sys.modules:
        return sys.modules[full]
    state = random.getstate()
    try:
        return importlib.import_module(full)
    finally:
        random.setstate(state)


def console() -> Any:
    """A rich console as wide as the terminal; COLUMNS or 120 columns when output goes to a file."""
    Console = rich("console").Console
    found = Console(highlight=False)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(highlight=False, width=120)


@contextmanager
def status(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner whose text can be changed; plain lines where there is no terminal."""
    out = console()
    if not out.is_terminal:
        yield lambda text: out.print(f"{title}: {text}")
        return
    with out.status(title) as spinner:
        yield lambda text: spinner.update(f"{title}: {text}")


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar; `show(text, steps=1)` advances it and shows a text.

    total: the number of steps, None when nobody knows it. Where there is no terminal, the last text is printed at
    the end; without a title nothing is shown.
    """
    kit = rich("progress")
    out = console()
    if not title or not out.is_terminal:
        last = [""]

        def keep(text: str, steps: int = 1) -> None:
            last[0] = text

        yield keep
        if title:
            out.print(f"{title}: {last[0]}")
        return
    columns = (
        kit.TextColumn("{task.description}"),
        kit.BarColumn(None),
        kit.MofNCompleteColumn(),
        kit.TimeElapsedColumn(),
        kit.TextColumn("{task.fields[text]}"),
    )
    with kit.Progress(*columns, console=out) as bars:
        task = bars.add_task(title, total=total, text="")
        yield lambda text, steps=1: bars.update(task, advance=steps, text=text)


def table(title: str, columns: list[str], rows: list[list[str]]) -> Any:
    """A table with its first column on the left and numbers on the right; the last column may take several lines."""
    made = rich("table").Table(
        title=title,
        box=rich("box").SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
    )
    for k, name in enumerate(columns):
        made.add_column(name, justify="left" if k == 0 else "right", no_wrap=k < len(columns) - 1)
    for row in rows:
        made.add_row(*row)
    return made


def seconds(value: float) -> str:
    """A time in the unit that reads best."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def size(value: float) -> str:
    """A number of bytes in the unit that reads best."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"
