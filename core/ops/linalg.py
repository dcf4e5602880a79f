"""Matrix products."""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..backend import Operand
from ..errors import DtypeError, ShapeError
from ..op import Ints, composite, primitive
from ..types import TensorType, contiguous_strides
from .shape import expand_dims, permute, reshape, sum_to, transpose


def _onnx_matmul(o, x, y):
    x, y, row = o.cast(x, o.out_dtype), o.cast(y, o.out_dtype), o.ints((-1,))
    if (
        x.ndim > 1 and y.ndim == 1
    ):  # onnxruntime merges a transposition into the product, and then misreads a vector
        return o.Squeeze(o.MatMul(x, o.Unsqueeze(y, row)), row)
    return o.MatMul(x, y)


@primitive(complex="bilinear", onnx=_onnx_matmul)
def matmul(x, y):
    """The matrix product of the last two axes; leading axes broadcast; a vector stands for a row or a column.

    x: [..., M, K], y: [..., K, N]. Returns: [..., M, N] of the promoted dtype. Raises: ShapeError when K differs
    or an operand is 0-d, DtypeError for bools. Numerics: operands are converted to the result's dtype first; sums
    run in it, in a fixed order; integers wrap around. Source: ONNX MatMul.
    """
    return np.matmul(x, y)


@matmul.type
def _(x, y):
    if not (isinstance(x, TensorType) and isinstance(y, TensorType)) or not x.shape or not y.shape:
        raise ShapeError("matmul", f"needs vectors or matrices, got {x} and {y}", "use * for numbers")
    dtype = T.promote(x.dtype, y.dtype)
    if dtype is T.bool_:
        raise DtypeError("matmul", f"takes numbers, got {x}", "convert with .to(dg.float32)")
    k_x, k_y = x.shape[-1], y.shape[-2] if y.ndim > 1 else y.shape[0]
    if k_x != k_y:
        raise ShapeError(
            "matmul",
            f"x: {x} has {k_x} columns, y: {y} has {k_y} rows",
            "transpose one, or check the layer's in_features",
        )
    batch = T.broadcast_shapes("matmul", x.shape[:-2], y.shape[:-2])
    rows = x.shape[-2:-1]
    columns = y.shape[-1:] if y.ndim > 1 else ()
    return TensorType(dtype, (*batch, *rows, *columns))


@matmul.operands
def _(inputs, outputs):
    x, y = inputs
    out = outputs[0]
    if len(x.shape) == 1:
        x = x._replace(shape=(1, *x.shape), strides=(0, *x.strides))
    if len(y.shape) == 1:
        y = y._replace(shape=(*y.shape, 1), strides=(*y.strides, 0))
    batch = T.broadcast_shapes("matmul", x.shape[:-2], y.shape[:-2])
    m, n = x.shape[-2], y.shape[-1]
    if len(y.shape) == 2 and len(x.shape) > 2 and x.is_contiguous:
        # One tall product instead of a batch of small ones.
        rows = math.prod(x.shape[:-1])
        x = x._replace(shape=(rows, x.shape[-1]), strides=(x.shape[-1], 1))
        out = out._replace(shape=(rows, n), strides=(n, 1))
        return [x, y], [out]
    x, y = _batched(x, batch), _batched(y, batch)
    shape = (*batch, m, n)
    return [x, y], [out._replace(shape=shape, strides=contiguous_strides(shape))]


def _batched(x: Operand, batch: tuple[int, ...]) -> Operand:
    lead = len(batch) - (len(x.shape) - 2)
    strides = tuple(0 if n == 1 else st for n, st in zip(x.shape[:-2], x.strides))
    return x._replace(shape=(*batch, *x.shape[-2:]), strides=(0,) * lead + strides + x.strides[-2:])


def _rows(x):
    # no -1: an axis may be empty
    return reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))


@matmul.grad
def x(g, y, x_type):
    if y.ndim == 1:
        return expand_dims(g, axis=-1) * y if x_type.ndim > 1 else g * y
    if x_type.ndim == 1:
        grad = matmul(expand_dims(g, axis=-2), transpose(y))
        return sum_to(reshape(grad, shape=(*grad.shape[:-2], grad.shape[-1])), shape=x_type.shape)
    return matmul(g, transpose(y))


@matmul.grad
def y(g, x, y_type):
    if y_type.ndim == 1:
        if x.ndim == 1:
            return g * x
        return matmul(transpose(_rows(x)), reshape(g, shape=(math.prod(g.shape),)))
    if x.ndim == 1:
        grad = expand_dims(x, axis=-1) * expand_dims(g, axis=-2)
        return sum_to(grad, shape=y_type.shape)
    if y_type.ndim == 2 and x.ndim > 2:
        return matmul(transpose(_rows(x)), _rows(g))
    return matmul(transpose(x), g)


matmul.sample((3, 4), (4, 5)).sample((2, 3, 4), (4, 5)).sample((2, 1, 3, 4), (5, 4, 2)).sample((4,), (4, 3))
matmul.sample((3, 4), (4,)).sample((4,), (4,)).sample((2, 3, 4), (4,)).sample(Ints((2, 3)), Ints((3, 2)))
matmul.sample(Ints((2, 3), dtype="int32"), Ints((3, 2))).sample(
    Ints((2, 3), dtype="int32"), (3, 2), grad=False
)
matmul.sample((0, 3), (3, 2)).sample((2, 0), (0, 3))
matmul.error_sample((2, 3), (4, 5), match="3 columns")


def _onnx_linear(o, x, w, b=None):
    if x.ndim == 2:
        return o.Gemm(x, w, *(() if b is None else (b,)), transB=1)
    y = o.MatMul(x, o.Transpose(w, perm=[1, 0]))
    return y if b is None else o.Add(y, b)


@composite(onnx=_onnx_linear)
def linear(x, w, b=None):
    """`x @ w.T + b`: a fully connected layer.

    x: float[..., in], w: float[out, in], b: float[out] or None. Returns: float[..., out].
    Raises: ShapeError when the last axis of x is not `in`. Source: ONNX Gemm.
    """
    if x.ndim == 0 or x.shape[-1] != w.shape[-1]:
        raise ShapeError(
            "linear", f"x: {x.type} does not end in the {w.shape[-1]} features of w: {w.type}",
            "check in_features, or flatten x first",
        )  # fmt: skip
    y = matmul(x, permute(w, axes=(1, 0)))
    return y if b is None else y + b


linear.sample((3, 4), (5, 4), (5,)).sample((2, 3, 4), (5, 4))
linear.error_sample((3, 4), (5, 3), match="features")
