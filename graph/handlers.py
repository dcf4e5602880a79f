"""Whether the user's code might catch an error raised where it is now, so that its values matter at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FrameType

from ..core.errors import is_internal
from .bytecode import analyse
from .evaluate import evaluate
from .opcodes import instructions


def caught(until: CodeType) -> bool:
    """Whether a frame of the user's own, above that of the code `until`, has a handler for an error raised now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not until:
        if not is_internal(frame.f_code) and frame.f_code.co_exceptiontable and _catches(frame):
            return True
        frame = frame.f_back
    return False


_known: dict[int, tuple[CodeType, list[tuple[int, int, int, str]]]] = {}


def _handlers(code: CodeType) -> list[tuple[int, int, int, str]]:
    """Ranges of instructions with their handlers: (start, end, target, "with" or "except" or "" for cleaning up)."""
    found = _known.get(id(code))
    if found is None:
        names = {i.offset: i.name for i in instructions(code)}
        offsets = sorted(names)
        rows = []
        for start, end, target in _entries(code.co_exceptiontable):
            first, second = [names[k] for k in offsets if k >= target][:2]
            kind = "" if first != "PUSH_EXC_INFO" else "with" if second == "WITH_EXCEPT_START" else "except"
            rows.append((start, end, target, kind))
        found = _known[id(code)] = code, rows
    return found[1]


def _entries(table: bytes) -> Iterator[tuple[int, int, int]]:
    """An exception table as (start, end, target), in bytes of code."""
    it = iter(table)

    def number(first: int) -> int:
        value = first & 63
        while first & 64:
            first = next(it)
            value = value << 6 | first & 63
        return value

    for first in it:
        start, length, target = number(first), number(next(it)), number(next(it))
        number(next(it))
        yield 2 * start, 2 * (start + length), 2 * target


def _catches(frame: FrameType) -> bool:
    rows, offset = _handlers(frame.f_code), frame.f_lasti
    for _ in rows:  # a handler that raises on leads to the next one outside
        row = next((r for r in rows if r[0] <= offset < r[1]), None)
        if row is None:
            return False
        start, _, offset, kind = row
        if kind == "except" or (kind == "with" and not _passes(frame, start)):
            return True
    return False


def _passes(frame: FrameType, start: int) -> bool:
    """Whether the context manager of a `with` is one of ours, which catch nothing."""
    expr = analyse(frame.f_code).managers.get(start)
    made = evaluate(expr[2], frame, {}) if expr is not None and expr[0] == "result" else None
    return str(getattr(made, "__module__", "")).startswith("duograd.")
