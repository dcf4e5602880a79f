"""Losses. reduction: "mean", "sum" or "none"."""

from __future__ import annotations

import math

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, composite, pointwise
from ..scalar import cast, s
from . import elementwise as E
from .activation import log_softmax, softplus
from .creation import arange
from .reduction import mean, sum_
from .shape import expand_dims, reshape


def _reduced(op, x, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(op, f"reduction={reduction!r}", 'use "mean", "sum" or "none"')
    return mean(x) if reduction == "mean" else sum_(x) if reduction == "sum" else x


def _like(op, x, y):
    if x.shape != y.shape:
        raise ShapeError(
            op, f"input {x.type} and target {y.type} differ in shape", "reshape one; nothing broadcasts here"
        )


@composite(widen=True, floats=True)
def mse_loss(x, y, *, reduction="mean"):
    """The squared difference of prediction x and target y (equal shapes), reduced. Raises: ShapeError."""
    _like("mse_loss", x, y)
    return _reduced("mse_loss", E.square(x - y), reduction)


@mse_loss.grad_joint
def _(g, x, y, reduction):
    share = 2.0 / max(1, x.size) if reduction == "mean" else 2.0
    slope = (x - y) * (g * share)
    return slope, E.negative(slope)


mse_loss.sample((3, 4), (3, 4)).sample((5,), (5,), reduction="sum").sample((5,), (5,), reduction="none")
mse_loss.error_sample((2, 3), (3,), match="differ in shape")


@composite(widen=True, floats=True)
def l1_loss(x, y, *, reduction="mean"):
    """The absolute difference of x and y (equal shapes), reduced. The slope at 0 is 0."""
    _like("l1_loss", x, y)
    return _reduced("l1_loss", E.abs_(x - y), reduction)


l1_loss.sample((3, 4), (3, 4)).sample((5,), (5,), reduction="sum")


def _onnx_picked(o, logp, position, label, classes, *, ignore_index=-100):
    """The body, with a number of classes that may follow a dynamic size."""
    chosen = o.And(o.Equal(position, label), o.Not(o.Equal(label, o.const(ignore_index, label))))
    inside = o.And(o.GreaterOrEqual(label, o.const(0, label)), o.Less(label, o.cast(classes, label.dtype)))
    legal = o.Or(inside, o.Equal(label, o.const(ignore_index, label)))
    found = o.Where(legal, o.Where(chosen, o.Neg(logp), o.const(0, logp)), o.const(math.nan, logp))
    return o.cast(found, o.out_dtype)  # operands are promoted to the labels' dtype too


@pointwise(internal=True, onnx=_onnx_picked)
def picked(logp, position, label, classes, *, ignore_index=-100):
    """-logp where the position along the class axis is the label, else 0; NaN for a label outside
    0..classes-1.

    classes: an input, so that no kernel is for one number of them. Nothing is picked for the label ignore_index.
    """
    chosen = s.logical_and(s.eq(position, label), s.ne(label, ignore_index))
    place = cast(label, T.int64)
    inside = s.logical_and(s.ge(place, 0), s.lt(place, cast(classes, T.int64)))
    legal = s.logical_or(inside, s.eq(label, ignore_index))
    return s.where(legal, s.where(chosen, -logp, 0), math.nan)


@picked.grad
def logp(g, position_type, label, classes, ignore_index):
    position = reshape(arange(classes, device=label.device), shape=position_type.shape)
    chosen = E.equal(position, label)
    if 0 <= ignore_index < classes:
        chosen = E.logical_and(chosen, E.not_equal(label, ignore_index))
    return E.where(chosen, E.negative(g), 0.0)


def _classes_of(op, x, target, w):
    """The target's classes, in a dtype that holds any ignore_index."""
    if not target.dtype.is_integer:
        raise DtypeError(op, f"target: {target.type} holds no class indices", "convert it to int64")
    if x.ndim < 1 or target.shape != x.shape[:1] * (x.ndim > 1) + x.shape[2:]:
        raise ShapeError(
            op, f"target: {target.type} does not fit logits: {x.type}",
            "for logits [N, C] pass one class index for each row: [N]",
        )  # fmt: skip
    _check_weights(op, x, w)
    return target if target.dtype in (T.int32, T.int64) else E.cast(target, dtype=T.int64)


def _class_axis(x):
    return 1 if x.ndim > 1 else 0


def _check_weights(op, x, w):
    classes = x.shape[_class_axis(x)]
    if w is not None and w.shape != (classes,):
        raise ShapeError(op, f"w: {w.type} does not hold a weight for each of {classes} classes", "pass w[C]")


def _along_classes(x, v):
    """A vector over the classes, shaped to broadcast against x."""
    return reshape(v, shape=(v.shape[0],) + (1,) * (x.ndim - _class_axis(x) - 1))


def _pick(x, values, target, ignore_index):
    """Minus the values[..., class, ...] of each target's class; 0 for ignored targets."""
    axis = _class_axis(x)
    classes = x.shape[axis]
    position = _along_classes(x, arange(classes, device=x.device))
    label = expand_dims(target, axis=axis)
    chosen = picked(values, position, label, classes, ignore_index=ignore_index)
    return sum_(chosen, axis=axis)


def _class_loss(op, each, x, target, w, reduction, ignore_index):
    """Reduce losses by target; their mean is weighted by class and leaves out ignored targets."""
    if reduction != "mean":
        return _reduced(op, each, reduction)
    if w is None:
        share = E.cast(E.not_equal(target, ignore_index), dtype=x.dtype)
    else:
        share = _pick(x, E.negative(_along_classes(x, w)), target, ignore_index)
    return sum_(each) / sum_(share)


@composite(widen=True, floats=True)
def nll_loss(logp, target, w=None, *, reduction="mean", ignore_index=-100):
    """Minus the log-probability of the target class.

    logp: float[N, C, ...], target: int[N, ...] with classes from 0 to C - 1, w: float[C], a weight for each
    class, or None; targets equal to ignore_index count for nothing. reduction "mean" divides by the sum of
    weights. Raises: ShapeError, DtypeError for a target that is not integer. Numerics: a class outside
    0..C-1 gives NaN; so does a mean over nothing. Source: ONNX NegativeLogLikelihoodLoss.
    """
    target = _classes_of("nll_loss", logp, target, w)
    weighted = logp if w is None else logp * _along_classes(logp, w)
    each = _pick(logp, weighted, target, ignore_index)
    return _class_loss("nll_loss", each, logp, target, w, reduction, ignore_index)


nll_loss.sample((3, 4), Ints((3,), 0, 4)).sample((2, 4, 3), Ints((2, 3), 0, 4), reduction="sum")
nll_loss.sample((5, 4), Ints((5,), 0, 4), (4,), low=0.1, ignore_index=1)


@composite(widen=True, floats=True)
def cross_entropy(x, target, w=None, *, reduction="mean", ignore_index=-100, label_smoothing=0.0):
    """The cross entropy of logits and targets: `-log_softmax(x)[target]`, reduced.

    x: float[N, C, ...]; target: int[N, ...] (classes) or float like x (probabilities); w: float[C], a weight
    for each class, or None; class targets equal to ignore_index count for nothing; label_smoothing: share in
    [0, 1) spread evenly over the classes. reduction "mean" divides by the sum of the targets' weights
    (probabilities: by their number). Returns: float, 0-d unless reduction is "none".
    Raises: ShapeError, DtypeError, ArgumentError. Numerics: no overflow; a class outside 0..C-1 gives NaN;
    so does a mean over nothing. Source: ONNX SoftmaxCrossEntropyLoss.
    """
    op = "cross_entropy"
    if not 0.0 <= label_smoothing < 1.0:
        raise ArgumentError(op, f"label_smoothing={label_smoothing} is outside [0, 1)", "use a share as 0.1")
    axis = _class_axis(x)
    smooth = label_smoothing / x.shape[axis] if x.ndim and x.shape[axis] else 0.0
    if target.dtype.is_float:
        _like(op, x, target)
        _check_weights(op, x, w)
        logp = log_softmax(x, axis=axis)
        if label_smoothing:
            target = target * (1.0 - label_smoothing) + smooth
        weighted = logp * target if w is None else logp * target * _along_classes(x, w)
        each = E.negative(sum_(weighted, axis=axis))
        return _reduced(op, each, reduction)
    target = _classes_of(op, x, target, w)
    logp = log_softmax(x, axis=axis)
    weighted = logp if w is None else logp * _along_classes(x, w)
    each = _pick(x, weighted, target, ignore_index)
    if label_smoothing:
        spread = E.where(E.not_equal(target, ignore_index), sum_(weighted, axis=axis), 0.0)
        each = each * (1.0 - label_smoothing) - spread * smooth
    return _class_loss(op, each, x, target, w, reduction, ignore_index)


cross_entropy.sample((3, 4), Ints((3,), 0, 4)).sample((2, 4, 3), Ints((2, 3), 0, 4), reduction="none")
cross_entropy.sample((3, 4), Ints((3,), 0, 4), label_smoothing=0.1)
cross_entropy.sample((5, 4), Ints((5,), 0, 4), (4,), low=0.1, ignore_index=1, label_smoothing=0.1)
cross_entropy.error_sample((3, 4), Ints((4,), 0, 4), match="does not fit logits")


@composite(widen=True, floats=True)
def binary_cross_entropy_with_logits(x, y, *, reduction="mean"):
    """`softplus(x) - x * y` for logits x and targets y in [0, 1] (equal shapes), reduced; no overflow."""
    _like("binary_cross_entropy_with_logits", x, y)
    return _reduced("binary_cross_entropy_with_logits", softplus(x) - x * y, reduction)


binary_cross_entropy_with_logits.sample((3, 4), (3, 4))
