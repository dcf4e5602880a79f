"""Losses. reduction: "mean", "sum" or "none"."""

# ruff: noqa: F811
from __future__ import annotations

import math

from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, composite, pointwise
from ..scalar import s
from . import elementwise as E
from .activation import log_softmax
from .creation import arange
from .reduction import mean, sum_
from .shape import expand_dims, reshape


def _reduced(op, x, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(op, f"reduction={reduction!r}", 'use "mean", "sum" or "none"')
    return mean(x) if reduction == "mean" else sum_(x) if reduction == "sum" else x


def _like(op, x, y):
    if x.shape != y.shape:
        raise ShapeError(op, f"input {x.type} and target {y.type} differ in shape", "reshape one; nothing broadcasts here")


@composite
def mse_loss(x, y, *, reduction="mean"):
    """The squared difference of prediction x and target y (equal shapes), reduced. Raises: ShapeError."""
    _like("mse_loss", x, y)
    return _reduced("mse_loss", E.square(x - y), reduction)


mse_loss.sample((3, 4), (3, 4)).sample((5,), (5,), reduction="sum").sample((5,), (5,), reduction="none")
mse_loss.error_sample((2, 3), (3,), match="differ in shape")


@composite
def l1_loss(x, y, *, reduction="mean"):
    """The absolute difference of x and y (equal shapes), reduced. The slope at 0 is 0."""
    _like("l1_loss", x, y)
    return _reduced("l1_loss", E.abs_(x - y), reduction)


l1_loss.sample((3, 4), (3, 4)).sample((5,), (5,), reduction="sum")


@pointwise(no_onnx="part of losses")
def picked(logp, position, label, *, classes):
    """-logp where the position along the class axis is the label, else 0; NaN for a label outside 0..classes-1."""
    inside = s.logical_and(s.ge(label, 0), s.lt(label, classes))
    return s.where(inside, s.where(s.eq(position, label), -logp, 0), math.nan)


@picked.grad
def logp(g, position, label):
    return E.where(E.equal(position, label), E.negative(g), 0.0)


@composite
def nll_loss(logp, target, *, reduction="mean"):
    """Minus the log-probability of the target class.

    logp: float[N, C, ...], target: int[N, ...] with classes from 0 to C - 1.
    Raises: ShapeError, DtypeError for a target that is not integer. Numerics: a class outside 0..C-1 gives NaN.
    """
    if not target.dtype.is_integer:
        raise DtypeError("nll_loss", f"target: {target.type} holds no class indices", "convert it to int64")
    if logp.ndim < 1 or target.shape != logp.shape[:1] * (logp.ndim > 1) + logp.shape[2:]:
        raise ShapeError(
            "nll_loss", f"target: {target.type} does not fit logits: {logp.type}",
            "for logits [N, C] pass one class index for each row: [N]",
        )  # fmt: skip
    axis = 1 if logp.ndim > 1 else 0
    classes = logp.shape[axis]
    position = reshape(arange(classes, device=logp.device), shape=(classes,) + (1,) * (logp.ndim - axis - 1))
    chosen = picked(logp, position, expand_dims(target, axis=axis), classes=classes)
    return _reduced("nll_loss", sum_(chosen, axis=axis), reduction)


nll_loss.sample((3, 4), Ints((3,), 0, 4)).sample((2, 4, 3), Ints((2, 3), 0, 4), reduction="sum")


@composite
def cross_entropy(x, target, *, reduction="mean", label_smoothing=0.0):
    """The cross entropy of logits and targets: `-log_softmax(x)[target]`, reduced.

    x: float[N, C, ...]; target: int[N, ...] (classes) or float like x (probabilities); label_smoothing: share
    in [0, 1) spread evenly over the classes. Returns: float, 0-d unless reduction is "none".
    Raises: ShapeError, DtypeError. Numerics: no overflow; a class outside 0..C-1 gives NaN.
    Source: ONNX SoftmaxCrossEntropyLoss.
    """
    axis = 1 if x.ndim > 1 else 0
    logp = log_softmax(x, axis=axis)
    if target.dtype.is_float:
        _like("cross_entropy", x, target)
        if label_smoothing:
            target = target * (1.0 - label_smoothing) + label_smoothing / x.shape[axis]
        total = E.negative(sum_(logp * target, axis=axis))
        return _reduced("cross_entropy", total, reduction)
    if not target.dtype.is_integer:
        raise DtypeError("cross_entropy", f"target: {target.type} is neither classes nor probabilities", "use int64")
    if target.shape != x.shape[:1] * (x.ndim > 1) + x.shape[2:]:
        raise ShapeError(
            "cross_entropy", f"target: {target.type} does not fit logits: {x.type}",
            "for logits [N, C] pass one class index for each row: [N]",
        )  # fmt: skip
    hard = nll_loss(logp, target, reduction="none")
    if label_smoothing:
        hard = hard * (1.0 - label_smoothing) - mean(logp, axis=axis) * label_smoothing
    return _reduced("cross_entropy", hard, reduction)


cross_entropy.sample((3, 4), Ints((3,), 0, 4)).sample((2, 4, 3), Ints((2, 3), 0, 4), reduction="none")
cross_entropy.sample((3, 4), Ints((3,), 0, 4), label_smoothing=0.1)
cross_entropy.error_sample((3, 4), Ints((4,), 0, 4), match="does not fit logits")


@composite
def binary_cross_entropy_with_logits(x, y, *, reduction="mean"):
    """`softplus(x) - x * y` for logits x and targets y in [0, 1] (equal shapes), reduced; no overflow."""
    _like("binary_cross_entropy_with_logits", x, y)
    each = E.maximum(x, 0.0) - x * y + E.log1p(E.exp(E.negative(E.abs_(x))))
    return _reduced("binary_cross_entropy_with_logits", each, reduction)


binary_cross_entropy_with_logits.sample((3, 4), (3, 4))
