"""New tensors: constant, counted, random; and moves between devices."""

from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError
from ..op import pointwise, primitive, public
from ..scalar import cast, s
from ..types import TensorType
from .shape import as_shape

_FROM_SHAPE = "constant"


def _dtype(op, dtype, default):
    return default if dtype is None else T.as_dtype(dtype, op)


def _filled(op, *tensors, shape, dtype, device=None):
    if min(shape, default=0) < 0:
        raise ArgumentError(op, f"shape {list(shape)} has a negative size", "use sizes from 0")
    return TensorType(dtype, shape)


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
def full(shape, fill_value, dtype=None, device=None):
    """A tensor filled with one number (or a 0-d tensor). dtype: from the number when left out."""
    return full_(fill_value, shape=shape, dtype=dtype, device=device)


@public
def zeros(shape, dtype=None, device=None):
    """A tensor of zeros: float32 unless dtype says otherwise."""
    return full_(0, shape=shape, dtype=dtype or T.default_float, device=device)


@public
def ones(shape, dtype=None, device=None):
    """A tensor of ones: float32 unless dtype says otherwise."""
    return full_(1, shape=shape, dtype=dtype or T.default_float, device=device)


@public
def empty(shape, dtype=None, device=None):
    """A tensor whose values nobody may rely on (zeros here: reading them is never a surprise)."""
    return zeros(shape, dtype, device)


@public
def zeros_like(x, dtype=None):
    """Zeros with x's shape, device and (unless given) dtype."""
    return zeros(x.shape, dtype or x.dtype, x.device)


@public
def ones_like(x, dtype=None):
    """Ones with x's shape, device and (unless given) dtype."""
    return ones(x.shape, dtype or x.dtype, x.device)


@public
def full_like(x, fill_value, dtype=None):
    """A constant with x's shape, device and (unless given) dtype."""
    return full_(fill_value, shape=x.shape, dtype=dtype or x.dtype, device=x.device)


@pointwise(internal=True,
    name="arange_from", no_gradient=_FROM_SHAPE,
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
def arange(start, stop=None, step=1, dtype=None, device=None):
    """Numbers from start (0 when only stop is given) up to but without stop. int64 for integers, else float32.

    Raises: ArgumentError when step is 0.
    """
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ArgumentError("arange", "step is 0", "use another step")
    whole = all(isinstance(v, (int, np.integer)) for v in (start, stop, step))
    kind = _dtype("arange", dtype, T.default_int if whole else T.default_float)
    size = max(0, math.ceil((stop - start) / step))
    return arange_from(start, step, size=size, dtype=kind, device=device)


@public
def linspace(start, stop, num, endpoint=True, dtype=None, device=None):
    """`num` numbers evenly spaced from start to stop (without it when endpoint is False)."""
    if num < 0:
        raise ArgumentError("linspace", f"num={num} is negative", "use 0 or more")
    steps = num - 1 if endpoint else num
    step = (stop - start) / steps if steps > 0 else 0.0
    return arange_from(
        float(start), float(step), size=num, dtype=_dtype("linspace", dtype, T.default_float), device=device
    )


@pointwise(
    internal=True,
    no_gradient=_FROM_SHAPE,
    onnx=lambda o, *, rows, columns, offset, dtype, device: o.eye(rows, columns, offset, dtype),
)
def eye_(*, rows, columns, offset=0, dtype=T.float32, device=None):
    """Ones on a diagonal, zeros elsewhere. Source: ONNX EyeLike."""
    i = s.index()
    return cast(s.eq(i % max(columns, 1) - s.floordiv(i, max(columns, 1)), offset), dtype)


@eye_.type
def _(*, rows, columns, offset=0, dtype=T.float32, device=None):
    return TensorType(dtype, (rows, columns))


eye_.sample(rows=3, columns=4, offset=1, grad=False)


@public
def eye(n, m=None, k=0, dtype=None, device=None):
    """An n x m matrix (n x n by default) with ones on diagonal k."""
    return eye_(
        rows=n,
        columns=n if m is None else m,
        offset=k,
        dtype=_dtype("eye", dtype, T.default_float),
        device=device,
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


# ---------------------------------------------------------------- random numbers

_NO_ONNX = "ONNX's random ops use another generator; the exporter writes them for dropout only"


@pointwise(internal=True, no_gradient="random", no_onnx=_NO_ONNX)
def random_uniform(seed, offset, *, shape, dtype=T.float32, device=None):
    """Uniform floats in [0, 1): element i uses counter offset + i of Philox4x32-10 keyed by seed.

    24 random bits in float32, 53 in float64, 11 in float16, 8 in bfloat16. Source: Salmon et al., SC 2011.
    """
    if dtype is T.float64:
        high = s.shr(s.cast(s.philox(seed, offset, 0), T.uint64), 11 - 6)
        low = s.shr(s.cast(s.philox(seed, offset, 1), T.uint64), 6)
        return s.cast(high * (1 << 26) + low, T.float64) * 2.0**-53
    bits = {T.float16: 11, T.bfloat16: 8}.get(dtype, 24)
    return s.cast(s.cast(s.shr(s.philox(seed, offset, 0), 32 - bits), T.float32) * 2.0**-bits, dtype)


@random_uniform.type
def _(seed, offset, *, shape, dtype=T.float32, device=None):
    return _filled("rand", shape=shape, dtype=dtype)


random_uniform.sample(3, 0, shape=(4, 5), grad=False).sample(3, 7, shape=(6,), dtype=T.float64, grad=False)


@pointwise(internal=True, no_gradient="random", no_onnx=_NO_ONNX)
def random_normal(seed, offset, *, shape, dtype=T.float32, device=None):
    """Standard normal floats by the Box-Muller transform of two Philox words. Source: Box and Muller, 1958."""
    kind = T.float64 if dtype is T.float64 else T.float32
    u = (s.cast(s.shr(s.philox(seed, offset, 0), 8), kind) + 1.0) * 2.0**-24
    v = s.cast(s.shr(s.philox(seed, offset, 1), 8), kind) * (2.0**-24 * 2.0 * math.pi)
    return s.cast(s.sqrt(s.log(u) * -2.0) * s.cos(v), dtype)


@random_normal.type
def _(seed, offset, *, shape, dtype=T.float32, device=None):
    return _filled("randn", shape=shape, dtype=dtype)


random_normal.sample(3, 0, shape=(4, 5), grad=False)


@pointwise(internal=True, no_gradient="random", no_onnx=_NO_ONNX)
def random_integers(seed, offset, low, span, *, shape, dtype=T.int64, device=None):
    """Integers from low to low + span - 1: the high half of a 32-bit random number times the span."""
    bits = s.cast(s.philox(seed, offset, 0), T.uint64)
    scaled = s.shr(bits * s.cast(span, T.uint64), 32)
    return s.cast(s.cast(scaled, T.int64) + s.cast(low, T.int64), dtype)


@random_integers.type
def _(seed, offset, low, span, *, shape, dtype=T.int64, device=None):
    return _filled("randint", shape=shape, dtype=dtype)


random_integers.sample(3, 0, -2, 9, shape=(20,), grad=False)


def _draw(shape):
    from ..random import default_generator

    return dispatch.state.executor.offset(default_generator, max(1, math.prod(shape)))


@public
def rand(*shape, dtype=None, device=None):
    """Uniform random floats in [0, 1). shape: ints or one tuple. Seeded by `dg.manual_seed`."""
    size = as_shape("rand", shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)
    return random_uniform(
        *_draw(size), shape=size, dtype=_dtype("rand", dtype, T.default_float), device=device
    )


@public
def randn(*shape, dtype=None, device=None):
    """Standard normal random floats. shape: ints or one tuple. Seeded by `dg.manual_seed`."""
    size = as_shape("randn", shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)
    return random_normal(
        *_draw(size), shape=size, dtype=_dtype("randn", dtype, T.default_float), device=device
    )


@public
def randint(low, high=None, shape=(), dtype=None, device=None):
    """Random integers from low (0 when only one bound is given) up to but without high."""
    if high is None:
        low, high = 0, low
    if not low < high <= low + 2**32:
        raise ArgumentError(
            "randint", f"the range from {low} to {high} is empty or above 2**32", "use low < high"
        )
    size = as_shape("randint", shape)
    return random_integers(
        *_draw(size),
        low,
        high - low,
        shape=size,
        dtype=_dtype("randint", dtype, T.default_int),
        device=device,
    )
