"""What can be asked about dtypes: limits, kinds, promotion. The words of the Python array API standard 2024.12."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import types as T
from .errors import ArgumentTypeError, DtypeError
from .types import DTYPES, DType, as_dtype, broadcast_shapes, promote, promote_all, scalar_dtype
from .value import Tensor

e, pi, inf, nan = math.e, math.pi, math.inf, math.nan
newaxis = None
#: NumPy's limit; our kernels have none, but printing a tensor and reading a number out of it go through NumPy
MAX_DIMENSIONS = 64


class FloatInfo(NamedTuple):
    """Limits of a float dtype (of a complex one: of its parts); numbers are Python floats."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


class IntegerInfo(NamedTuple):
    """Limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def _of(x: Any, name: str) -> DType:
    return x.dtype if isinstance(x, Tensor) else as_dtype(x, name)


def finfo(type: Any) -> FloatInfo:
    """The limits of a floating-point or complex dtype, or of a tensor's. Raises: DtypeError for others."""
    dtype = _of(type, "finfo")
    if dtype.kind not in ("float", "complex"):
        raise DtypeError("finfo", f"{dtype} is not a floating-point dtype", "use iinfo for integers")
    part = DTYPES[f"float{dtype.itemsize * 4}"] if dtype.kind == "complex" else dtype
    if part.name == "bfloat16":
        return FloatInfo(16, 2.0**-7, (2 - 2.0**-7) * 2.0**127, -(2 - 2.0**-7) * 2.0**127, 2.0**-126, part)
    i = np.finfo(part.np)
    return FloatInfo(i.bits, float(i.eps), float(i.max), float(i.min), float(i.smallest_normal), part)


def iinfo(type: Any) -> IntegerInfo:
    """The limits of an integer dtype, or of a tensor's. Raises: DtypeError for others."""
    dtype = _of(type, "iinfo")
    if not dtype.is_integer:
        raise DtypeError("iinfo", f"{dtype} is not an integer dtype", "use finfo for floats")
    i = np.iinfo(dtype.np)
    return IntegerInfo(i.bits, int(i.max), int(i.min), dtype)


_KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",), "signed integer": ("int",), "unsigned integer": ("uint",), "integral": ("int", "uint"),
    "real floating": ("float",), "complex floating": ("complex",),
    "numeric": ("int", "uint", "float", "complex"),
}  # fmt: skip


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: another dtype, a kind's name ("bool", "signed integer", "unsigned integer",
    "integral", "real floating", "complex floating", "numeric"), or a tuple of these.
    """
    found = as_dtype(dtype, "isdtype")
    if isinstance(kind, tuple):
        return any(isdtype(found, k) for k in kind)
    if isinstance(kind, str) and kind not in DTYPES:
        if kind not in _KINDS:
            raise ArgumentTypeError(
                "isdtype", f"{kind!r} is not a kind of dtypes", f"use one of {', '.join(_KINDS)}"
            )
        return found.kind in _KINDS[kind]
    if kind == "bool":
        return found is T.bool_
    return found is as_dtype(kind, "isdtype")


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that an op gives for these tensors, dtypes and Python numbers (weakly typed).

    Raises: ArgumentTypeError without a tensor or dtype.
    """
    numbers = [x for x in arrays_and_dtypes if isinstance(x, (bool, int, float, complex))]
    kinds = [
        _of(x, "result_type") for x in arrays_and_dtypes if not isinstance(x, (bool, int, float, complex))
    ]
    if not kinds:
        raise ArgumentTypeError("result_type", "needs a tensor or a dtype", "use the number's own type")
    common = promote_all(kinds)
    for n in numbers:
        kind = scalar_dtype(n, common)
        # A Python float beside integers brings the default float, not the one that holds them all.
        common = kind if common.is_integer and not kind.is_integer else promote(common, kind)
    return common


def can_cast(from_: Any, to: Any) -> bool:
    """Whether every value of a dtype (or of a tensor's) has a place in another by the promotion rules."""
    source, target = _of(from_, "can_cast"), as_dtype(to, "can_cast")
    try:
        return promote(source, target) is target
    except (DtypeError, KeyError, TypeError):
        return False


def astype(x: Tensor, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """x converted to a dtype (and moved to a device); a copy also where nothing changes, unless copy is False.

    Raises: DtypeError for complex to integers or floats, as the array API asks; `x.to` drops the imaginary part.
    """
    target = as_dtype(dtype, "astype")
    if x.dtype.is_complex and target.rank in (1, 2):
        raise DtypeError(
            "astype", f"{x.type} to {target} drops the imaginary part", "take x.real, or use x.to"
        )
    out = x.to(target)
    out = out if device is None else out.to(device)
    return out.clone() if copy and out is x else out


def shape_of_broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that shapes broadcast to. Raises: ShapeError naming them when there is none."""
    return broadcast_shapes("broadcast_shapes", *map(tuple, shapes)) if shapes else ()


class Info:
    """What `__array_namespace_info__()` gives: devices, dtypes and capabilities."""

    def capabilities(self) -> dict[str, Any]:
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": MAX_DIMENSIONS}

    def default_device(self) -> str:
        return "cpu"

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The dtypes of new tensors by kind, on every device alike. Raises: DeviceError for one not here."""
        _must_exist(device)
        found = {"real floating": T.default_float, "integral": T.default_int, "indexing": T.default_int}
        if "complex64" in DTYPES:
            found["complex floating"] = DTYPES["complex64"]
        return found

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The standard's dtypes by name, on every device alike; kind as in `isdtype`.

        Raises: DeviceError for a device that is not here.
        """
        _must_exist(device)
        return {n: d for n, d in DTYPES.items() if n not in _BEYOND and (kind is None or isdtype(d, kind))}

    def devices(self) -> list[str]:
        from .backend import available_devices

        return available_devices()


def _must_exist(device: Any) -> None:
    from .backend import normalize_device

    if device is not None:
        normalize_device(device)


_BEYOND = ("float16", "bfloat16")  # dtypes that the standard does not know
