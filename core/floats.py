"""Functions of floats: what is computed in a wider dtype and rounded once, what takes no integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import DtypeError
from .types import DType, TensorType, float32, promote


def widened(fn: Callable[..., Any], floats: str = "") -> Callable[..., Any]:
    """The function of tensors `fn`, computed in float32 and rounded once where its result is a 16-bit float.

    floats: the name of an op that takes none but floats and complex numbers.
    """

    def run(*inputs: Any, **attrs: Any) -> Any:
        result: DType | None = None
        for x in inputs:
            dtype = getattr(x, "dtype", None)
            if dtype is not None and dtype.is_float:
                result = dtype if result is None else promote(result, dtype)
        if result is None and floats:
            refuse_integers(floats, *inputs)
        if result is None or not result.is_half:
            return fn(*inputs, **attrs)
        wide = [x.to(float32) if getattr(x, "dtype", None) is result else x for x in inputs]
        made = fn(*wide, **attrs)
        row = made if isinstance(made, tuple) else (made,)
        back = tuple(y.to(result) if y.dtype is float32 else y for y in row)
        return back if isinstance(made, tuple) else back[0]

    return run


def refuse_integers(op: str, *inputs: Any) -> None:
    """Raise DtypeError unless one of the tensors is of floats or complex numbers: integers would wrap around."""
    tensors = [x for x in inputs if isinstance(getattr(x, "dtype", None), DType)]
    if tensors and not any(x.dtype.is_float or x.dtype.is_complex for x in tensors):
        shown = ", ".join(str(TensorType(x.dtype, x.shape)) for x in tensors)
        raise DtypeError(op, f"takes floats, got {shown}", "convert with .to(dg.float32)")
