"""Importers of new tensors: Constant in its forms, ConstantOfShape, Range, EyeLike, random tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.ops.creation import eye
from ...core.ops.random import multinomial as draw_classes
from ...core.ops.random import rand, randn
from .coded import Coded, coded, is_coded
from .dtypes import from_code
from .table import adapter


@adapter("Constant")
def constant(
    *,
    value=None,
    value_float=None,
    value_floats=None,
    value_int=None,
    value_ints=None,
    value_string=None,
    value_strings=None,
):
    """A tensor that the file holds."""
    if value is not None:
        return value
    for found, dtype in (
        (value_float, np.float32), (value_floats, np.float32), (value_int, np.int64), (value_ints, np.int64),
        (value_string, object), (value_strings, object),
    ):  # fmt: skip
        if found is not None:
            return np.array(found, dtype)
    raise ValueError("Constant without a value")


@adapter("ConstantOfShape", host=("shape",), grows=True)
def constant_of_shape(shape, *, value=None):
    """One number everywhere; float32 zeros when none is given."""
    cell = np.zeros(1, np.float32) if value is None else value
    if is_coded(cell):
        one = coded(cell)
        sizes = tuple(int(n) for n in shape)
        return Coded(
            ops["broadcast_to"](ops["reshape"](one.codes, shape=(1,) * len(sizes)), shape=sizes), one.book
        )
    return ops["full"](cell.item(), shape=tuple(int(n) for n in shape), dtype=T.as_dtype(cell.dtype))


@adapter("Range", host=("start", "limit", "delta"), grows=True)
def range_(start, limit, delta):
    """From start by delta, before limit."""
    first, last, step = (v.item() for v in (start, limit, delta))
    size = max(0, math.ceil((last - first) / step))
    return ops["arange_from"](first, step, size=size, dtype=T.as_dtype(start.dtype))


@adapter("EyeLike", grows=True)
def eye_like(x, *, k=0, dtype=None):
    """Ones on a diagonal of a matrix shaped like x."""
    kind = x.dtype if dtype is None else from_code(dtype)
    return eye(*x.shape, k, kind)


def _uniform(shape: Any, low: float, high: float, dtype: Any) -> Any:
    return rand(tuple(shape), dtype=dtype) * (high - low) + low


def _normal(shape: Any, mean: float, scale: float, dtype: Any) -> Any:
    return randn(tuple(shape), dtype=dtype) * scale + mean


@adapter("RandomUniform", fold=False)
def random_uniform(*, shape, low=0.0, high=1.0, dtype=1, seed=0.0):
    """From duograd's generator; the seed of the file is not used."""
    return _uniform(shape, low, high, from_code(dtype))


@adapter("RandomNormal", fold=False)
def random_normal(*, shape, mean=0.0, scale=1.0, dtype=1, seed=0.0):
    """From duograd's generator; the seed of the file is not used."""
    return _normal(shape, mean, scale, from_code(dtype))


@adapter("RandomUniformLike", fold=False)
def random_uniform_like(x, *, low=0.0, high=1.0, dtype=None, seed=0.0):
    """Shaped like x."""
    return _uniform(x.shape, low, high, x.dtype if dtype is None else from_code(dtype))


@adapter("RandomNormalLike", fold=False)
def random_normal_like(x, *, mean=0.0, scale=1.0, dtype=None, seed=0.0):
    """Shaped like x."""
    return _normal(x.shape, mean, scale, x.dtype if dtype is None else from_code(dtype))


@adapter("Bernoulli", fold=False)
def bernoulli(x, *, dtype=None, seed=0.0):
    """One with probability x."""
    kind = x.dtype if dtype is None else from_code(dtype)
    return ops["less"](rand(x.shape, dtype=T.float32), x).to(kind)


@adapter("Multinomial", fold=False)
def multinomial(x, *, dtype=6, sample_size=1, seed=0.0):
    """Classes drawn with replacement; x holds logarithms of weights."""
    weights = ops["exp"](x - x.max(axis=-1, keepdims=True))
    return draw_classes(weights, sample_size, True).to(from_code(dtype))
