"""New tensors: constant and counted; and moves between devices."""

from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError
from ..numbers import whole
from ..op import REGISTRY, pointwise, primitive, public
from ..scalar import cast, s
from ..strangers import check_numbers
from ..types import TensorType
from .shape import as_shape

_FROM_SHAPE = "constant"


def _dtype(op, dtype, default):
    return default if dtype is None else T.as_dtype(dtype, op)


def _filled(op, *tensors, shape, dtype, device=None):
    if min(shape, default=0) < 0:
        raise ArgumentError(op, f"shape {list(shape)} has a negative size", "use sizes from 0")
    return TensorType(dtype, shape)


def asked(x, requires_grad):
    """A new tensor, as a leaf that requires a gradient where that was asked for."""
    return x.requires_grad_() if requires_grad else x


@pointwise(
    internal=True,
    no_gradient=_FROM_SHAPE,
    onnx=lambda o, value, *, shape, dtype, device: o.full(shape, value, dtype),
)
def full_(value, *, shape, dtype=None, device=None):
    """A tensor filled with one number. dtype: from the number when left out. Source: ONNX ConstantOfShape."""
    return cast(value, dtype)


@full_.normalize
def _(inputs, shape, dtype, device):
    value = inputs[0]
    default = value.dtype if hasattr(value, "dtype") and isinstance(value.dtype, T.DType) else None
    return (as_shape("full", shape), _dtype("full", dtype, default or T.scalar_dtype(value, None)), device)


@full_.type
def _(value, *, shape, dtype, device=None):
    return _filled("full", shape=shape, dtype=dtype)


full_.sample(2.5, shape=(2, 3), grad=False).sample(7, shape=(), grad=False).sample(
    1, shape=(0, 2), dtype="float64", grad=False
)


@public
def full(shape, fill_value, dtype=None, device=None, requires_grad=False):
    """A tensor filled with one number (or a 0-d tensor). dtype: from the number when left out."""
    return asked(full_(fill_value, shape=shape, dtype=dtype, device=device), requires_grad)


def _spelt(op, first, rest, dtype):
    """Shape and dtype of `zeros(2, 3)`, and of `zeros((2, 3), "int64")`."""
    if all(isinstance(n, (int, np.integer)) for n in (first, *rest)):
        return (first, *rest), dtype
    if len(rest) > 1 or dtype is not None:
        raise ArgumentError(op, f"got {(first, *rest)} for a shape", "pass ints, or one tuple and dtype=")
    return first, rest[0]


@public
def zeros(shape, *sizes, dtype=None, device=None, requires_grad=False):
    """A tensor of zeros: float32 unless dtype says otherwise. shape: ints, or one tuple (and dtype)."""
    if sizes:
        shape, dtype = _spelt("zeros", shape, sizes, dtype)
    return asked(full_(0, shape=shape, dtype=dtype or T.default_float, device=device), requires_grad)


@public
def ones(shape, *sizes, dtype=None, device=None, requires_grad=False):
    """A tensor of ones: float32 unless dtype says otherwise. shape: ints, or one tuple (and dtype)."""
    if sizes:
        shape, dtype = _spelt("ones", shape, sizes, dtype)
    return asked(full_(1, shape=shape, dtype=dtype or T.default_float, device=device), requires_grad)


@public
def empty(shape, *sizes, dtype=None, device=None, requires_grad=False):
    """A tensor whose values nobody may rely on (zeros here: reading them is never a surprise)."""
    return asked(zeros(shape, *sizes, dtype=dtype, device=device), requires_grad)


@public
def zeros_like(x, dtype=None, device=None, requires_grad=False):
    """Zeros with x's shape and, unless given, its dtype and device."""
    return asked(zeros(x.shape, dtype=dtype or x.dtype, device=device or x.device), requires_grad)


@public
def ones_like(x, dtype=None, device=None, requires_grad=False):
    """Ones with x's shape and, unless given, its dtype and device."""
    return asked(ones(x.shape, dtype=dtype or x.dtype, device=device or x.device), requires_grad)


@public
def empty_like(x, dtype=None, device=None, requires_grad=False):
    """`empty` with x's shape and, unless given, its dtype and device."""
    return asked(empty(x.shape, dtype=dtype or x.dtype, device=device or x.device), requires_grad)


@public
def full_like(x, fill_value, dtype=None, device=None, requires_grad=False):
    """A constant with x's shape and, unless given, its dtype and device."""
    return asked(
        full_(fill_value, shape=x.shape, dtype=dtype or x.dtype, device=device or x.device), requires_grad
    )


@pointwise(internal=True,
    name="arange_from", no_gradient=_FROM_SHAPE, wide_numbers=True,
    onnx=lambda o, start, step, *, size, dtype, device: o.counted(start, step, size, dtype),
)  # fmt: skip
def arange_from(start, step, *, size, dtype, device=None):
    """`start + step * i` for i from 0 to size - 1. Integers are exact; floats are computed in float64."""
    i = s.index()
    if dtype.is_float:
        return cast(cast(start, T.float64) + cast(step, T.float64) * cast(i, T.float64), dtype)
    return cast(cast(start, T.int64) + cast(step, T.int64) * i, dtype)


@arange_from.type
def _(start, step, *, size, dtype, device=None):
    return TensorType(dtype, (size,))


arange_from.sample(2, 3, size=5, dtype=T.int64, grad=False).sample(
    0.5, 0.25, size=4, dtype=T.float32, grad=False
)


@public
def arange(start, stop=None, step=1, dtype=None, device=None, requires_grad=False):
    """Numbers from start (0 when only stop is given) up to but without stop. int64 for integers, else float32.

    Raises: ArgumentError when step is 0.
    """
    if stop is None:
        start, stop = 0, start
    check_numbers("arange", start=start, stop=stop, step=step)
    if step == 0:
        raise ArgumentError("arange", "step is 0", "use another step")
    integers = type(start) is type(stop) is type(step) is int
    integers = integers or all(isinstance(v, (int, np.integer)) for v in (start, stop, step))
    kind = _dtype("arange", dtype, T.default_int if integers else T.default_float)
    # A quotient of large integers is no float.
    try:
        size = (
            -((whole(start) - whole(stop)) // whole(step)) if integers else math.ceil((stop - start) / step)
        )
    except (ValueError, OverflowError):
        words = f"from {start} to {stop} by {step} there is no number of steps"
        raise ArgumentError("arange", words, "use finite numbers") from None
    size = max(0, size)
    if integers and step < 0 and kind.kind == "uint":  # the step itself has no place in the dtype
        return asked(
            arange_from(start, step, size=size, dtype=T.int64, device=device).to(kind), requires_grad
        )
    return asked(arange_from(start, step, size=size, dtype=kind, device=device), requires_grad)


def _spaced(kind):
    """linspace and geomspace: from `start` by `step` (a difference, or the logarithm of a ratio), then `stop`.

    last: the number of the element that is exactly stop, -1 for none.
    """

    def body(start, step, stop, last, *, size, dtype, device=None):
        i = s.index()
        k = cast(i, T.float64)
        value = start + step * k if kind == "linspace" else start * s.exp(step * k)
        value = s.where(s.eq(i, last), stop, s.where(s.eq(i, 0), start, value))
        return cast(s.floor(value) if dtype.is_integer else value, dtype)

    body.__name__ = f"{kind}_from"
    body.__doc__ = f"The elements of {kind}, computed in float64."
    op = pointwise(internal=True, no_gradient=_FROM_SHAPE, wide_numbers=True, counts=True)(body)

    @op.type
    def _(start, step, stop, last, *, size, dtype, device=None):
        return TensorType(dtype, (size,))

    return op.sample(1.5, 0.25, 2.5, 4, size=5, dtype=T.float32, grad=False)


linspace_from, geomspace_from = _spaced("linspace"), _spaced("geomspace")


def _steps(op, num, endpoint):
    """(how many steps lie between start and stop, the number of the last element or -1)."""
    if not isinstance(num, (int, np.integer)) or num < 0:
        raise ArgumentError(op, f"num={num!r} is not a size", "use an int from 0")
    return (num - 1 if endpoint else num), (num - 1 if endpoint and num > 1 else -1)


@public
def linspace(start, stop, num, endpoint=True, dtype=None, device=None, requires_grad=False):
    """`num` numbers evenly spaced from start to stop, both exact (without stop when endpoint is False).

    dtype: float32 (complex64 for complex ends) when left out; integers are rounded down.
    Raises: ArgumentError for a negative num.
    Source: array API standard 2024.12. Example: `dg.linspace(0, 1, 5)` is `[0, 0.25, 0.5, 0.75, 1]`.
    """
    if isinstance(start, complex) or isinstance(stop, complex):
        kind = _dtype("linspace", dtype, T.DTYPES["complex64"])
        parts = [(complex(start).real, complex(stop).real), (complex(start).imag, complex(stop).imag)]
        re, im = (linspace(a, b, num, endpoint, kind.real, device) for a, b in parts)
        return asked(REGISTRY["complex"](re, im), requires_grad)
    check_numbers("linspace", start=start, stop=stop)
    steps, last = _steps("linspace", num, endpoint)
    start, stop = float(start), float(stop)
    step = (stop - start) / steps if steps > 0 else 0.0
    kind = _dtype("linspace", dtype, T.default_float)
    return asked(
        linspace_from(start, step, stop, last, size=whole(num), dtype=kind, device=device), requires_grad
    )


@public
def logspace(start, stop, num, endpoint=True, base=10.0, dtype=None, device=None):
    """`num` powers of base with exponents evenly spaced from start to stop. Source: numpy.logspace."""
    check_numbers("logspace", start=start, stop=stop, base=base)
    steps, last = _steps("logspace", num, endpoint)
    first, end = float(base) ** float(start), float(base) ** float(stop)
    step = (float(stop) - float(start)) / steps * math.log(base) if steps > 0 else 0.0
    kind = _dtype("logspace", dtype, T.default_float)
    return geomspace_from(first, step, end, last, size=whole(num), dtype=kind, device=device)


@public
def geomspace(start, stop, num, endpoint=True, dtype=None, device=None):
    """`num` numbers from start to stop, each a fixed multiple of the one before.

    start, stop: numbers of one sign. Raises: ArgumentError for 0 or different signs.
    Source: numpy.geomspace. Example: `dg.geomspace(1, 8, 4)` is `[1, 2, 4, 8]`.
    """
    check_numbers("geomspace", start=start, stop=stop)
    steps, last = _steps("geomspace", num, endpoint)
    start, stop = float(start), float(stop)
    if not start * stop > 0:
        raise ArgumentError("geomspace", f"from {start} to {stop} there is no constant ratio", "use one sign")
    step = math.log(stop / start) / steps if steps > 0 else 0.0
    kind = _dtype("geomspace", dtype, T.default_float)
    return geomspace_from(start, step, stop, last, size=whole(num), dtype=kind, device=device)


@pointwise(
    internal=True,
    counts=True,
    no_gradient=_FROM_SHAPE,
    onnx=lambda o, width, offset, *, rows, columns, dtype, device: o.eye(rows, columns, offset, dtype),
)
def eye_(width, offset, *, rows, columns, dtype=T.float32, device=None):
    """Ones on a diagonal, zeros elsewhere; width: the columns as a number, no part of a kernel's source.

    Source: ONNX EyeLike.
    """
    i = s.index()
    column = s.mod(i, cast(width, T.int64))
    return cast(s.eq(column - s.floordiv(i, cast(width, T.int64)), cast(offset, T.int64)), dtype)


@eye_.type
def _(width, offset, *, rows, columns, dtype=T.float32, device=None):
    return TensorType(dtype, (rows, columns))


eye_.sample(4, 1, rows=3, columns=4, grad=False)


@public
def eye(n, m=None, k=0, dtype=None, device=None, requires_grad=False):
    """An n x m matrix (n x n by default) with ones on diagonal k. Raises: ArgumentError for a negative size."""
    rows, columns = as_shape("eye", (n, n if m is None else m))
    _filled("eye", shape=(rows, columns), dtype=None)
    kind = _dtype("eye", dtype, T.default_float)
    k = min(max(k, -rows), columns)  # diagonals outside the matrix are all alike, however far
    return asked(
        eye_(max(columns, 1), k, rows=rows, columns=columns, dtype=kind, device=device), requires_grad
    )


@primitive(internal=True, transfer=True, onnx=lambda o, x, *, device: x)
def to_device(x, *, device):
    """A copy of x on another device."""
    return np.array(x)


@to_device.type
def _(x, *, device):
    return x


@to_device.grad
def x(g, x):
    return to_device(g, device=x.device)
