"""Losses that ask for a margin between right and wrong. reduction: "mean", "sum" or "none"."""

from __future__ import annotations

import math

from ..errors import ArgumentError, ShapeError
from ..op import Ints, composite
from . import elementwise as E
from .activation import logsigmoid, softplus
from .creation import arange
from .distance_loss import pairwise_distance
from .loss import _like, _reduced
from .reduction import any_, mean, sum_
from .scan import cumulative_sum
from .shape import expand_dims

# Slopes at the margin itself are 1, as PyTorch's clamp_min has them.


@composite(widen=True, floats=True)
def hinge_embedding_loss(x, y, *, margin=1.0, reduction="mean"):
    """x where y is 1, `max(0, margin - x)` where y is -1 (equal shapes), reduced."""
    _like("hinge_embedding_loss", x, y)
    far = E.where(E.not_equal(y, 1), E.clip(margin - x, min=0.0), 0.0)
    near = E.where(E.not_equal(y, -1), x, 0.0)
    return _reduced("hinge_embedding_loss", far + near, reduction)


hinge_embedding_loss.sample((3, 4), (3, 4))


@composite(widen=True, floats=True)
def margin_ranking_loss(x, y, target, *, margin=0.0, reduction="mean"):
    """`max(0, margin - target * (x - y))`: x shall rank above y where target is 1, below where -1; reduced."""
    each = E.clip(E.negative(target) * (x - y) + margin, min=0.0)
    return _reduced("margin_ranking_loss", each, reduction)


margin_ranking_loss.sample((5,), (5,), (5,), margin=0.5)


@composite(widen=True, floats=True)
def soft_margin_loss(x, y, *, reduction="mean"):
    """`log(1 + exp(-y * x))` for targets y of 1 and -1 (equal shapes), reduced."""
    _like("soft_margin_loss", x, y)
    return _reduced("soft_margin_loss", softplus(E.negative(y) * x), reduction)


soft_margin_loss.sample((3, 4), (3, 4))


def _rows(op, x):
    if x.ndim not in (1, 2):
        raise ShapeError(op, f"x: {x.type} is neither [C] nor [N, C]", "reshape it")
    return x if x.ndim == 2 else expand_dims(x, axis=0)


@composite(widen=True, floats=True)
def multi_margin_loss(x, target, w=None, *, p=1, margin=1.0, reduction="mean"):
    """The mean over classes i but the target's of `max(0, margin - x[target] + x[i]) ** p`, reduced.

    x: float[N, C] or float[C], target: int[N] or int[], w: float[C], a weight for each class, or None; p: 1 or 2.
    Numerics: NaN for a target that is no class.
    """
    if p not in (1, 2):
        raise ArgumentError("multi_margin_loss", f"p={p}", "use 1 or 2")
    rows = _rows("multi_margin_loss", x)
    if target.shape != x.shape[:-1]:
        raise ShapeError(
            "multi_margin_loss",
            f"target: {target.type} does not fit x: {x.type}",
            "pass a class for each row",
        )
    label = expand_dims(target if x.ndim == 2 else expand_dims(target, axis=0), axis=1)
    chosen = E.equal(arange(rows.shape[1], device=x.device), label)
    right = sum_(E.where(chosen, rows, 0.0), axis=1, keepdims=True)
    right = E.where(any_(chosen, axis=1, keepdims=True), right, math.nan)
    gap = E.clip(rows - right + margin, min=0.0)
    gap = E.where(chosen, 0.0, gap if p == 1 else E.square(gap))
    if w is not None:
        gap = gap * sum_(E.where(chosen, w, 0.0), axis=1, keepdims=True)
    each = mean(gap, axis=1)
    return _reduced("multi_margin_loss", each if x.ndim == 2 else each[0], reduction)


multi_margin_loss.sample((3, 4), Ints((3,), 0, 4)).sample((3, 4), Ints((3,), 0, 4), (4,), p=2, low=0.1)
multi_margin_loss.error_sample((3, 4), Ints((4,), 0, 4), match="does not fit x")


@composite(widen=True, floats=True)
def multilabel_margin_loss(x, target, *, reduction="mean"):
    """The sum over right classes j and wrong classes i of `max(0, 1 - (x[j] - x[i])) / C`, reduced.

    x: float[N, C] or float[C]; target: int, like x: the right classes of each row, then -1. Numerics: NaN for a target
    that is no class.
    """
    _like("multilabel_margin_loss", x, target)
    rows, labels = _rows("multilabel_margin_loss", x), _rows("multilabel_margin_loss", target)
    classes = rows.shape[1]
    # What follows the first -1 counts for nothing.
    ends = cumulative_sum(E.cast(E.less(labels, 0), dtype="int64"), axis=1)
    listed = expand_dims(E.equal(ends, 0), axis=2)
    one = E.logical_and(E.equal(arange(classes, device=x.device), expand_dims(labels, axis=2)), listed)
    wrong = expand_dims(E.logical_not(any_(one, axis=1)), axis=1)
    across = expand_dims(rows, axis=1)
    right = sum_(E.where(one, across, 0.0), axis=2, keepdims=True)
    right = E.where(expand_dims(labels < classes, axis=2), right, math.nan)
    gap = E.where(E.logical_and(listed, wrong), E.clip(1 - (right - across), min=0.0), 0.0)
    each = sum_(gap, axis=(1, 2)) * (1 / max(classes, 1))
    return _reduced("multilabel_margin_loss", each if x.ndim == 2 else each[0], reduction)


multilabel_margin_loss.sample((3, 4), Ints((3, 4), -1, 4))


@composite(widen=True, floats=True)
def multilabel_soft_margin_loss(x, y, w=None, *, reduction="mean"):
    """The binary cross entropy of logits x and targets y in [0, 1], averaged over the last axis, reduced.

    w: a weight for each class, or None.
    """
    _like("multilabel_soft_margin_loss", x, y)
    each = E.negative(y * logsigmoid(x) + (1 - y) * logsigmoid(E.negative(x)))
    return _reduced("multilabel_soft_margin_loss", mean(each if w is None else each * w, axis=-1), reduction)


multilabel_soft_margin_loss.sample((3, 4), (3, 4)).sample((3, 4), (3, 4), (4,), reduction="none")


@composite(widen=True, floats=True)
def triplet_margin_loss(
    anchor, positive, negative, *, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction="mean"
):
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)`, d the p-norm along the last axis; reduced.

    swap: the smaller of the negative's distances to anchor and positive. Source: Schroff et al., 2015;
    Balntas et al., 2016.
    """
    near, far = (pairwise_distance(anchor, v, p=p, eps=eps) for v in (positive, negative))
    if swap:
        far = E.minimum(far, pairwise_distance(positive, negative, p=p, eps=eps))
    return _reduced("triplet_margin_loss", E.clip(near - far + margin, min=0.0), reduction)


triplet_margin_loss.sample((3, 4), (3, 4), (3, 4)).sample(
    (3, 4), (3, 4), (3, 4), p=3.0, swap=True, margin=2.0
)


@composite(widen=True, floats=True)
def cosine_embedding_loss(x, y, target, *, margin=0.0, reduction="mean"):
    """`1 - cos(x, y)` where target is 1, `max(0, cos(x, y) - margin)` where it is -1, reduced.

    x, y: float[N, D] or float[D]; target: [N] or []. Numerics: 1e-12 is added to each squared norm.
    """
    dot = sum_(x * y, axis=-1)
    squares = (sum_(E.square(x), axis=-1) + 1e-12) * (sum_(E.square(y), axis=-1) + 1e-12)
    cos = dot * E.rsqrt(squares)
    apart = E.where(E.equal(target, -1), E.clip(cos - margin, min=0.0), 0.0)
    return _reduced("cosine_embedding_loss", E.where(E.equal(target, 1), 1 - cos, apart), reduction)


cosine_embedding_loss.sample((3, 4), (3, 4), Ints((3,), 1, 2)).sample((3, 4), (3, 4), Ints((3,), -1, 0))
