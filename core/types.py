"""Dtypes, tensor types, promotion and broadcasting: what can be known of a value before it is computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from .errors import ArgumentError, ArgumentTypeError, AxisError, DtypeError, ShapeError
from .numbers import most

Shape = tuple[int, ...]


class DType:
    """An element type. There is one object per type: compare with `is` or `==`.

    name: as NumPy spells it; np: the NumPy dtype of the storage; kind: "bool", "int", "uint", "float" or
    "complex"; rank: the order of kinds in promotion.
    """

    __slots__ = (
        "char", "has_gradient", "is_complex", "is_float", "is_floating_point", "is_half", "is_integer", "is_plain",
        "itemsize", "kind", "name", "np", "rank", "way",
    )  # fmt: skip

    def __init__(self, name: str, char: str, kind: str):
        self.name, self.char, self.kind = name, char, kind
        self.np = np.dtype(getattr(ml_dtypes, name, name))
        self.itemsize = self.np.itemsize
        #: the NumPy dtype by way of which numbers become it: see `array`
        self.way = np.dtype(np.float32) if name == "bfloat16" else self.np
        self.rank = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}[kind]
        #: gradients flow through floats and complex numbers
        self.has_gradient = self.rank >= 2
        #: a 16-bit float: stored in 16 bits, computed in float32, every op's result rounded
        self.is_half = kind == "float" and self.itemsize == 2
        self.is_float, self.is_complex = kind == "float", kind == "complex"
        self.is_floating_point = self.is_float  # PyTorch's name
        #: registers have it
        self.is_plain = not (self.is_half or self.is_complex)
        self.is_integer = kind in ("int", "uint")

    @property
    def real(self) -> DType:
        """The dtype of real and imaginary part of a complex dtype; any other dtype itself."""
        return DTYPES[f"float{self.itemsize * 4}"] if self.kind == "complex" else self

    @property
    def complex(self) -> DType:
        """The complex dtype whose parts hold this float; complex64 for floats of 16 bits and integers."""
        if self.kind == "complex":
            return self
        return DTYPES["complex128" if self.kind == "float" and self.itemsize == 8 else "complex64"]

    @property
    def computed(self) -> DType:
        """The dtype that ops compute and sum in: float32 for 16-bit floats."""
        return DTYPES["float32"] if self.is_half else self

    def array(self, data: Any, copy: bool = False) -> np.ndarray:
        """Data as a NumPy array of this dtype, converted as kernels convert: to bfloat16 by way of float32.

        NumPy's own conversion to bfloat16 rounds twice or once, as the version of ml_dtypes says. copy: also what is of
        this dtype.
        """
        array = np.asarray(data)
        if self.way is not self.np and array.dtype != self.np:
            with np.errstate(over="ignore", invalid="ignore"):
                array = array.astype(self.way, copy=False)
        return array.astype(self.np, copy=copy)

    def __repr__(self) -> str:
        return f"duograd.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return as_dtype, (self.name,)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, (str, np.dtype, type)) and _lookup(other) is self)

    def __hash__(self) -> int:
        return hash(self.name)


DTYPES: dict[str, DType] = {
    name: DType(name, char, kind)
    for name, char, kind in (
        ("bool", "b1", "bool"),
        ("int8", "i8", "int"), ("int16", "i16", "int"), ("int32", "i32", "int"), ("int64", "i64", "int"),
        ("uint8", "u8", "uint"), ("uint16", "u16", "uint"), ("uint32", "u32", "uint"), ("uint64", "u64", "uint"),
        ("float16", "f16", "float"), ("bfloat16", "bf16", "float"),
        ("float32", "f32", "float"), ("float64", "f64", "float"),
        ("complex64", "c64", "complex"), ("complex128", "c128", "complex"),
    )
}  # fmt: skip
bool_, float32, float64 = DTYPES["bool"], DTYPES["float32"], DTYPES["float64"]
float16, bfloat16 = DTYPES["float16"], DTYPES["bfloat16"]
complex64, complex128 = DTYPES["complex64"], DTYPES["complex128"]
int8, int16, int32, int64 = (DTYPES[f"int{n}"] for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (DTYPES[f"uint{n}"] for n in (8, 16, 32, 64))
default_float = float32
default_int = int64
default_complex = complex64

_aliases: dict[Any, DType] = {bool: bool_, int: int64, float: float32, complex: complex64}


def _lookup(value: Any) -> DType | None:
    if isinstance(value, DType) or value is None:  # NumPy takes None for float64
        return value
    found = _aliases.get(value) if isinstance(value, type) else None
    if found is not None:
        return found
    try:
        return DTYPES.get(np.dtype(value).name)
    except (TypeError, ValueError):
        return None


def as_dtype(value: Any, op: str = "dtype") -> DType:
    """The dtype meant by a DType, a NumPy dtype, a name or one of `bool`, `int`, `float`, `complex`.

    Raises: DtypeError for anything else.
    """
    found = _lookup(value)
    if found is None:
        raise DtypeError(op, f"{value!r} is not a dtype of duograd", f"use one of {', '.join(DTYPES)}")
    return found


class TensorType(NamedTuple):
    """What the type rule of an op sees and returns: dtype and shape."""

    dtype: DType
    shape: Shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """At most, where sizes are live."""
        size = math.prod(self.shape)
        return (size if type(size) is int else most(size)) * self.dtype.itemsize  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    def __call__(self, *_: Any) -> None:
        raise ArgumentTypeError("type", f"of a tensor is no method, but {self}", "convert by x.to(dtype)")


# ---------------------------------------------------------------- promotion

_promotions: dict[tuple[DType, DType], DType] = {}


def promote(a: DType, b: DType) -> DType:
    """The dtype that holds both, as NumPy 2's `result_type` says for arrays.

    bfloat16, which NumPy leaves open, stays itself beside integers and bool (as PyTorch and JAX have it), gives
    float32 beside float16, and the other dtype beside wider floats and complex numbers.
    """
    if a is b:
        return a
    found = _promotions.get((a, b))
    if found is None:
        found = _promotions[a, b] = _promoted(a, b)
    return found


def _promoted(a: DType, b: DType) -> DType:
    if bfloat16 in (a, b):
        other = b if a is bfloat16 else a
        if other is float16:
            return float32
        return other if other.rank >= 2 else bfloat16
    return DTYPES[np.promote_types(a.np, b.np).name]


def promote_all(dtypes: Iterable[DType]) -> DType:
    """The dtype that holds them all, in whatever order they stand: higher kinds first, as NumPy's `result_type`.

    int8, uint16 and float32 give float32, though the first two together would be an int32.
    """
    return functools.reduce(promote, sorted(dtypes, key=_descending))


def check_integers_in_common(op: str, dtypes: Iterable[DType]) -> None:
    """Raise DtypeError where integers are together floats: uint64 beside any with a sign."""
    kinds = tuple(dtypes)
    if promote_all(kinds).is_float:
        raise DtypeError(
            op, f"no integers hold both {' and '.join(map(str, kinds))}", "convert one: .to(dg.int64)"
        )


def _descending(dtype: DType) -> int:
    return -dtype.rank


def scalar_dtype(value: Any, other: DType | None) -> DType:
    """The dtype a Python number takes beside a tensor of dtype `other` (weak typing).

    A number never widens within its kind: float32 + 1.0 is float32. Beside a lower kind it brings the
    default of its own kind: int64 + 1.5 is float32, bool + 1 is int64. A complex number makes a float
    the complex dtype of its width: float64 + 1j is complex128, float16 + 1j complex64.
    """
    if isinstance(value, (bool, np.bool_)):
        return other or bool_
    if isinstance(value, (int, np.integer)):
        return other if other is not None and other.rank >= 1 else default_int
    if isinstance(value, (float, np.floating)):
        return other if other is not None and other.rank >= 2 else default_float
    if isinstance(value, (complex, np.complexfloating)):
        return other.complex if other is not None and other.rank >= 2 else default_complex
    raise ArgumentTypeError(
        "tensor", f"{type(value).__name__} is not a number or a tensor", "pass a number or a tensor"
    )


#: the largest integer that has a float
_LARGEST = 2**1024 - 2**970 - 1


def check_scalar_range(op: str, value: int, dtype: DType) -> None:
    """Raise when a Python integer does not fit the dtype it would take, as NumPy 2 does."""
    if not isinstance(value, int) or isinstance(value, bool):
        return
    if dtype.is_integer:
        info = np.iinfo(dtype.np)
        fits = info.min <= value <= info.max
    else:
        fits = -_LARGEST <= value <= _LARGEST
    if not fits:
        number = str(value) if value.bit_length() < 200 else f"{str(value)[:9]}..."
        raise ArgumentTypeError(
            op, f"the number {number} does not fit {dtype}", "convert the tensor to a wider dtype"
        )


# ---------------------------------------------------------------- shapes


def broadcast_shapes(op: str, *shapes: Shape) -> Shape:
    """The common shape by NumPy's rule. Raises ShapeError naming all shapes when there is none."""
    first = shapes[0]
    if all(s == first for s in shapes[1:]):
        return first
    ndim = max(map(len, shapes))
    out = [1] * ndim
    for shape in shapes:
        for k, size in enumerate(shape, ndim - len(shape)):
            if size != 1:
                if out[k] not in (1, size):
                    listed = " and ".join(str(list(s)) for s in shapes)
                    raise ShapeError(
                        op,
                        f"shapes {listed} do not broadcast: axis {k - ndim} is {out[k]} against {size}",
                        "make the sizes equal, or one of them 1 (reshape, expand_dims)",
                    )
                out[k] = size
    return tuple(out)


def normalize_axis(op: str, axis: int, ndim: int, of: TensorType | None = None) -> int:
    """A non-negative axis of x (of type `of`). Raises AxisError when it is outside."""
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool):
        shown = f"a tensor {axis.type}" if hasattr(axis, "type") else f"{axis!r}"
        raise ArgumentTypeError(op, f"axis={shown} is not an integer", "pass an int or a tuple of ints")
    if not -ndim <= axis < ndim:
        legal = (
            f"use an axis from {-ndim} to {ndim - 1}" if ndim else "the tensor has no axes: leave axis out"
        )
        raise AxisError(
            op, f"axis={axis} is outside {f'a tensor of {ndim} axes' if of is None else f'x: {of}'}", legal
        )
    return int(axis) % ndim


def normalize_axes(
    op: str, axis: int | tuple[int, ...] | None, ndim: int, of: TensorType | None = None
) -> tuple[int, ...]:
    """Sorted, non-negative, distinct axes; None means all."""
    if axis is None:
        return tuple(range(ndim))
    if hasattr(axis, "type"):
        fix = (
            f"of two tensors, element by element: dg.{op}imum(x, y)" if op in ("max", "min") else "pass ints"
        )
        raise ArgumentTypeError(op, f"axis=a tensor {axis.type} is not an integer", fix)
    axes = (axis,) if isinstance(axis, (int, np.integer, str, bytes, dict)) else tuple(axis)
    out = sorted(normalize_axis(op, a, ndim, of) for a in axes)
    if len(set(out)) != len(out):
        raise ArgumentError(op, f"axis={axis} names an axis twice", "name each axis once")
    return tuple(out)


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    n = len(shape)
    if n < 3:
        return (shape[1], 1) if n == 2 else (1,) * n
    if n == 3:
        return shape[1] * shape[2], shape[2], 1
    if n == 4:
        step = shape[2] * shape[3]
        return shape[1] * step, step, shape[3], 1
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
