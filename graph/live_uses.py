"""What becomes of live numbers in a trace: tensors, attributes of ops, sizes that fit, results, words of errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core.errors import DuogradError
from ..core.ops.creation import full_
from ..core.ops.joining import stack
from ..core.types import DType, default_float, float32, float64, int64
from .live import Formula, Live, as_now, work

#: rows of numbers up to this length become tensors with live elements
_SHORT = 16
#: integers up to this size are floats without rounding
_WHOLE = 2**53
#: its class in the words of an error
_NAMED = re.compile(r"\bLive\b")


def bound(x: Live, dtypes: Iterable[DType]) -> None:
    """Guard that an integer fits the dtypes that it fits now."""
    if type(x._live_value) is not int:
        return
    if not -(2**63) <= x._live_value < 2**63:
        x._settle()
        return
    for d in {int64, *(d for d in dtypes if d.is_integer)}:
        info = np.iinfo(d.np)
        x._compare("ge", int(info.min))
        x._compare("le", int(info.max))


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are equal at every call, as far as polynomials say."""
    if type(a) is Live and type(b) is Live:
        return a._live_poly is not None and a._live_poly == b._live_poly
    return type(a) is type(b) is int and a == b


def tensor_of(data: Any, dtype: DType | None, device: str) -> Any:
    """A live number, or a short list of numbers with such, as a tensor with the bits of eager mode's; None for anything
    else."""
    row, shape = _flat(data)
    if len(row) > _SHORT or not any(type(x) is Live for x in row):
        return None
    kinds = {type(as_now(x)) for x in row}
    wide = default_float if float in kinds else int64
    want = dtype or wide
    if not kinds <= {int, float} or want not in (wide, float32, float64):
        return None
    if want is not int64:
        if not all(-_WHOLE <= x <= _WHOLE for x in row if type(as_now(x)) is int):
            return None  # a float64 does not hold it, and it is to be rounded once
        row = [work(float, (x,)) if type(x) is Live else float(x) for x in row]
    made = [full_(x, shape=(), dtype=want, device=device) for x in row]
    return made[0] if not shape else stack(made).reshape(shape)


def _flat(data: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The elements of nested lists, and their shape; none for rows of several lengths."""
    if type(data) not in (list, tuple):
        return [data], ()
    rows = [_flat(x) for x in data]
    shapes = {shape for _, shape in rows}
    if len(shapes) != 1:
        return [], ()
    return [x for row, _ in rows for x in row], (len(rows), *shapes.pop())


def as_formulas(x: Any) -> Any:
    """Attributes with formulas in the places of live numbers."""
    if type(x) is Live:
        return x._formula()
    return tuple(map(as_formulas, x)) if x.__class__ is tuple else x


def at_call(x: Any, live: Any) -> Any:
    """The same in a call with these live numbers."""
    if x.__class__ is Formula:
        return x.at(live)
    return tuple([at_call(v, live) for v in x]) if x.__class__ is tuple else x


def names_live(error: Any) -> bool:
    """Whether an error that C code raised names the class of a live number, as no error in eager mode does."""
    if isinstance(error, DuogradError):  # in the form of errors, see core/spoken.py
        error = error.__cause__
    if error.__class__ is not TypeError and error.__class__ is not AttributeError:
        return False
    words = error.args[0] if error.args else None
    return words.__class__ is str and _NAMED.search(words) is not None


class Worked:
    """A live number in what a call hands out or finds: the step that gives it."""

    __slots__ = ("kind", "step")

    def __init__(self, x: Live):
        x._live_now.use(x._live_step)
        self.step, self.kind = x._live_step, type(x._live_value)
