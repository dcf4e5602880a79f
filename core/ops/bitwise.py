"""Bits of integers, and logic on booleans, element by element with broadcasting."""

from __future__ import annotations

import numpy as np

from .. import types as T
from ..errors import DtypeError
from ..lower import copy
from ..op import Ints, pointwise, primitive
from ..scalar import s
from ..types import TensorType

_NO_GRADIENT = "integers have no gradient"


def _bits(name, scalar, onnx, text, shifts=False):
    def check(*operands):
        for v in operands:
            if v.dtype.is_float or (shifts and v.dtype is T.bool_):
                fit = "integers" if shifts else "integers and booleans"
                raise DtypeError(name, f"takes {fit}, not {v.dtype}", "convert with .to(dg.int64)")
        T.check_integers_in_common(name, [v.dtype for v in operands])

    if scalar == "invert":

        def body(x):
            check(x)
            return s.invert(x)
    else:

        def body(x, y):
            check(x, y)
            return getattr(s, scalar)(x, y)

    body.__name__ = name
    body.__doc__ = f"{text} Raises: DtypeError for floats. Source: ONNX {onnx}."
    op = pointwise(no_gradient=_NO_GRADIENT)(body)
    if scalar == "invert":
        return op.sample(Ints((5,), -4, 4)).sample(Ints((4,), 0, 2, "bool"))
    op.error_sample((3,), Ints((3,)), match="not float32")
    op.error_sample(Ints((3,)), Ints((3,), 0, 9, "uint64"), match="no integers hold both int64 and uint64")
    if shifts:
        return op.sample(Ints((3, 4), -9, 9, "int32"), Ints((4,), 0, 8, "int32")).sample(Ints((5,)), 2)
    return op.sample(Ints((3, 4), -9, 9), Ints((4,), -9, 9)).sample(
        Ints((4,), 0, 2, "bool"), Ints((4,), 0, 2, "bool")
    )


bitwise_and = _bits(
    "bitwise_and", "and", "BitwiseAnd", "The bits set in both; on booleans whether both are true."
)
bitwise_or = _bits(
    "bitwise_or", "or", "BitwiseOr", "The bits set in either; on booleans whether one is true."
)
bitwise_xor = _bits(
    "bitwise_xor", "xor", "BitwiseXor", "The bits set in one; on booleans whether just one is true."
)
bitwise_invert = _bits("bitwise_invert", "invert", "BitwiseNot", "All bits turned; on booleans the opposite.")
bitwise_left_shift = _bits(
    "bitwise_left_shift", "shl", "BitShift",
    "The bits of x moved up by y places, zeros moving in; 0 where y is no legal count.", True,
)  # fmt: skip
bitwise_right_shift = _bits(
    "bitwise_right_shift", "shr", "BitShift",
    "The bits of x moved down by y places, copies of the sign moving in.", True,
)  # fmt: skip


def _onnx_bitcast(o, x, *, dtype):
    if x.dtype.is_integer and dtype.is_integer:
        return o.cast(x, dtype)  # which keeps the bits between integers of one width
    return o.BitCast(x, to=o.dtype(dtype))


@primitive(no_gradient="bits are no numbers", onnx=_onnx_bitcast)
def bitcast(x, *, dtype):
    """The bits of x as numbers of another dtype of the same width.

    x: any[...] but complex128; dtype: any but bool. Returns: dtype, x's shape.
    Raises: DtypeError when the widths differ. Source: ONNX BitCast.
    Example: `dg.bitcast(dg.tensor([1.0]), dtype="int32")` is `[1065353216]`.
    """
    return np.ascontiguousarray(x).view(dtype).reshape(x.shape)


@bitcast.normalize
def _(inputs, dtype):
    return (T.as_dtype(dtype, "bitcast"),)


@bitcast.type
def _(x, *, dtype):
    if x.dtype.itemsize != dtype.itemsize or x.dtype.itemsize > 8 or dtype is T.bool_:
        raise DtypeError(
            "bitcast",
            f"the bits of x: {x} are not those of {dtype}",
            "use a dtype of the same width, or x.to(dtype)",
        )
    return TensorType(dtype, x.shape)


@bitcast.lower
def _(program, inputs, outputs, *, dtype):
    # Integers carry the bits, so that no load or store takes them for a number.
    carrier = T.DTYPES[f"uint{8 * dtype.itemsize}"]
    copy(program, inputs[0]._replace(dtype=carrier), outputs[0]._replace(dtype=carrier))


bitcast.sample(Ints((3, 4), -9, 9, "int32"), dtype="float32").sample(Ints((2, 3), 0, 99), dtype="float64")
bitcast.sample(Ints((), 0, 99, "uint16"), dtype="float16").sample(Ints((0, 3), dtype="int32"), dtype="uint32")
bitcast.error_sample((2, 3), dtype="int16", match="the bits of x")
