"""What Python or NumPy raised over an argument, in our words: which argument, and what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import DuogradError
from .strangers import brief, kind_of, told
from .types import TensorType

#: what is asked of tensors alone, or of dtypes
_OF_TENSORS = frozenset((
    "type", "shape", "ndim", "dtype", "size", "device", "reshape", "expand", "to", "is_floating_point", "requires_grad",
    "detach", "clone", "contiguous", "sum", "T", "mT", "numpy", "item", "unsqueeze", "squeeze", "_requires_grad",
))  # fmt: skip
_NUMBERS = (bool, int, float, complex, np.generic)
#: words of an error -> whether a value may have caused it
_SAID = (
    ("truth value of an array", lambda x: _axes(x) > 0), ("inhomogeneous", lambda x: isinstance(x, (list, tuple))),
    ("could not convert string", lambda x: isinstance(x, (str, bytes)) or _holds_texts(x)),
    ("invalid literal", lambda x: isinstance(x, (str, bytes))), ("dimensional arrays can", lambda x: _axes(x) > 0),
    ("ufunc", lambda x: isinstance(x, np.ndarray) and x.dtype.kind not in "biufc"),
    ("unpack", lambda x: isinstance(x, (list, tuple, dict, str, bytes, set))),
    ("too large to convert", lambda x: isinstance(x, int) and abs(x) >= 1 << 63),
    ("convert float NaN", lambda x: isinstance(x, float) and x != x),
    ("convert float infinity", lambda x: isinstance(x, float) and abs(x) == float("inf")),
)  # fmt: skip


def _axes(x: Any) -> int:
    return int(getattr(x, "ndim", 0) or 0) if not isinstance(x, type) else 0


def _holds_texts(x: Any) -> bool:
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "SU"
    return isinstance(x, (list, tuple)) and any(isinstance(v, (str, bytes)) for v in x)


def _rows(given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Arguments, and what lists among them hold."""
    yield from given.items()
    for name, x in given.items():
        if isinstance(x, (list, tuple)):
            yield from ((f"{name}[{k}]", v) for k, v in enumerate(x))


def blamed(error: Exception, given: dict[str, Any]) -> tuple[str, Any] | None:
    """The argument (or part of one) that an error of Python's is about; None where that is not clear."""
    if isinstance(error, AttributeError) and error.obj is not None:
        for name, x in _rows(given):
            if x is error.obj:
                return name, x
    text = error.message if isinstance(error, DuogradError) else str(error)
    for words, fits in _SAID:
        if words in text:
            return next(((name, x) for name, x in _rows(given) if fits(x)), None)
    quoted = re.findall(r"'([^']+)'", text)
    classes = {words.rpartition(".")[2] for words in (*quoted, *text.split())}
    found = [(name, x) for name, x in _rows(given) if type(x).__name__ in classes and not _is_tensor(x)]
    odd = [row for row in found if not isinstance(row[1], _NUMBERS)]
    return next(iter(odd or found), None)


def _is_tensor(x: Any) -> bool:
    return isinstance(getattr(x, "type", None), TensorType)


def blame(error: Exception, given: dict[str, Any], defaults: dict[str, Any], usage: str) -> tuple[str, str]:
    """What is wrong, and the fix, of a call with these arguments."""
    row = blamed(error, given)
    if row is None:
        return _all(given), usage
    name, x = row
    rest = {n: v for n, v in given.items() if n != name}
    got = f"; got {_listed(rest)}" if rest else ""
    said = told(name, x)
    if "inhomogeneous" in str(error):
        said = f"{name}={brief(x)} has rows of unequal lengths"
    elif isinstance(x, float) and not math.isfinite(x):
        said = f"{name}={brief(x)} is not finite"
    default = defaults.get(name)
    if (
        isinstance(error, AttributeError)
        and error.name in _OF_TENSORS
        and name.partition("[")[0] not in defaults
    ):
        return said + got, f"give {name} as a tensor; {usage}"
    if default not in (None, ()) and kind_of(default) != kind_of(x) and not callable(default):
        return said + got, f"give {name} as {kind_of(default)}; {usage}"
    return said + got, usage


def _all(given: dict[str, Any]) -> str:
    return f"cannot work with {_listed(given)}" if given else "failed"


def _listed(given: dict[str, Any]) -> str:
    return ", ".join(f"{n}={brief(x)}" for n, x in given.items())
