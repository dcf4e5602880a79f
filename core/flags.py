"""Settings from the environment that have a form: what is wrong with one is an error that names it."""

from __future__ import annotations

import os

from .errors import FlagError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size_from_environment(name: str, default: int) -> int:
    """A size: a number of bytes, or one with K, M or G behind it (`512M`, `2GiB`)."""
    given = os.environ.get(name, "").strip()
    if not given:
        return default
    text = given.upper().removesuffix("B").removesuffix("I")
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("K", "M", "G") else (text, "")
    try:
        size = float(number) * _UNITS[unit]
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise FlagError(name, f"{given!r} is not a size", "set a number of bytes, or such as 512M or 2G")
    return int(size)
