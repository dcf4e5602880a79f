"""Connectionist temporal classification: the likelihood of a label sequence over all alignments."""

# ruff: noqa: F811

from __future__ import annotations

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError, AutogradError, DtypeError, IndexingError, ShapeError
from ..op import Ints, primitive, public
from ..types import TensorType
from ..value import Tensor
from . import elementwise as E
from .creation import arange, zeros
from .loss import _reduced
from .reduction import max_, mean, min_
from .shape import expand_dims, stack


def _check(logp, target, lengths, target_lengths):
    if logp.ndim != 3 or not logp.dtype.is_float:
        raise ShapeError(
            "ctc_loss", f"logp: {logp.dtype}{list(logp.shape)} is no float[T, N, C]", "pass log_softmax"
        )
    n = logp.shape[1]
    for name, v, shape in (("lengths", lengths, (n,)), ("target_lengths", target_lengths, (n,))):
        if v.shape != shape or v.dtype is not T.int64:
            raise ShapeError(
                "ctc_loss", f"{name}: {v.dtype}{list(v.shape)} is no int64[{n}]", "one length a sample"
            )
    if target.ndim != 2 or target.shape[0] != n or target.dtype is not T.int64:
        raise ShapeError(
            "ctc_loss",
            f"target: {target.dtype}{list(target.shape)} is no int64[{n}, S]",
            "pad the label sequences",
        )


def _extended(target, length, blank):
    """Labels with blanks around them."""
    out = np.full(2 * length + 1, blank)
    out[1::2] = target[:length]
    return out


def _forward(logp, labels):
    """alpha[t, s]: the log-probability of all beginnings that end at time t in state s."""
    steps, states = len(logp), len(labels)
    alpha = np.full((steps, states), -np.inf)
    for t in range(steps):
        for k in range(states):
            before = [0.0 if k < 2 else -np.inf] if t == 0 else [alpha[t - 1, j] for j in _from(labels, k)]
            alpha[t, k] = np.logaddexp.reduce(before) + logp[t, labels[k]]
    return alpha


def _from(labels, k):
    skip = k > 1 and labels[k] != labels[k - 2] and k % 2
    return [j for j in (k, k - 1, k - 2 if skip else -1) if j >= 0]


@primitive(internal=True, parts="alignment_loss")
def ctc_nll(logp, target, lengths, target_lengths, *, blank=0, zero_infinity=False):
    """Minus the log-likelihood of each sample's labels: float[N].

    logp: float[T, N, C], target: int64[N, S] (padded), lengths, target_lengths: int64[N]. Numerics: sums in
    float64; infinite where no alignment fits. Source: Graves et al., 2006.
    """
    out = np.zeros(logp.shape[1])
    for n in range(logp.shape[1]):
        labels = _extended(target[n], int(target_lengths[n]), blank)
        alpha = _forward(logp[: int(lengths[n]), n].astype(np.float64), labels)
        out[n] = -np.logaddexp.reduce(alpha[-1, -2:]) if len(alpha) else (0.0 if len(labels) == 1 else np.inf)
    return out


@ctc_nll.type
def _(logp, target, lengths, target_lengths, *, blank=0, zero_infinity=False):
    _check(logp, target, lengths, target_lengths)
    return TensorType(logp.dtype, logp.shape[1:2])


@ctc_nll.grad
def logp(g, logp, target, lengths, target_lengths, out, blank, zero_infinity):
    slope = ctc_nll_logp_grad(
        logp, target, lengths, target_lengths, out, blank=blank, zero_infinity=zero_infinity
    )
    return expand_dims(expand_dims(g, axis=0), axis=-1) * slope


@primitive(internal=True, parts="alignment_loss_grad")
def ctc_nll_logp_grad(logp, target, lengths, target_lengths, nll, *, blank=0, zero_infinity=False):
    """Minus the probability of each class at each time, given the labels: float[T, N, C].

    Where no alignment fits it is NaN, or 0 with zero_infinity.
    """
    out = np.zeros(logp.shape)
    for n in range(logp.shape[1]):
        steps = int(lengths[n])
        labels = _extended(target[n], int(target_lengths[n]), blank)
        if np.isinf(nll[n]):
            out[:steps, n] = 0.0 if zero_infinity else np.nan
            continue
        x = logp[:steps, n].astype(np.float64)
        alpha, beta = _forward(x, labels), _forward(x[::-1], labels[::-1])[::-1, ::-1]
        for t in range(steps):
            for k, label in enumerate(labels):
                out[t, n, label] -= np.exp(alpha[t, k] + beta[t, k] - x[t, label] + float(nll[n]))
    return out


@ctc_nll_logp_grad.type
def _(logp, target, lengths, target_lengths, nll, *, blank=0, zero_infinity=False):
    _check(logp, target, lengths, target_lengths)
    return TensorType(logp.dtype, logp.shape)


@ctc_nll_logp_grad.grad
def logp(g):
    raise AutogradError(
        "ctc_loss", "its second derivative is not written", "take first derivatives, or detach the gradient"
    )


_LENGTHS = (Ints((2,), 4, 6), Ints((2,), 1, 3))
ctc_nll.sample((5, 2, 4), Ints((2, 2), 1, 4), *_LENGTHS, low=-3.0, high=-0.1, grad=False)
ctc_nll_logp_grad.sample((5, 2, 4), Ints((2, 2), 1, 4), *_LENGTHS, (2,), low=-3.0, high=-0.1, grad=False)


def _check_values(logp, target, lengths, target_lengths, blank):
    """Raise for what the kernel would look for outside of its operands."""
    longest, _, classes = logp.shape
    if not lengths.size:
        return
    bounds = [("lengths", longest), ("target_lengths", target.shape[1])]

    def refuse(found):
        found = np.asarray(found).tolist()
        for (name, most), low, high in zip(bounds, found[0::2], found[1::2]):
            if low < 0 or high > most:
                bad = low if low < 0 else high
                raise ArgumentError("ctc_loss", f"{name} has {bad}", f"use 0 to {most} here")
        for bad in found[4:]:
            if not 0 <= bad < classes:
                raise IndexingError(
                    "ctc_loss", f"label {bad} is no class of logp: {logp.type}", f"use 0 to {classes - 1}"
                )

    with dispatch.set_grad(False):
        facts = [f(v) for v in (lengths, target_lengths) for f in (min_, max_)]
        if target.shape[1]:
            places = arange(target.shape[1], dtype=T.int64, device=target.device)
            used = E.where(E.less(places, expand_dims(target_lengths, axis=-1)), target, blank)
            facts += [min_(used), max_(used)]
        dispatch.state.executor.check(stack(facts, axis=0), refuse)


def _lengths(value, device):
    if isinstance(value, Tensor):
        return E.cast(value, dtype=T.int64) if value.dtype is not T.int64 else value
    return dispatch.state.executor.constant(np.asarray(value, np.int64).reshape(-1), device)


@public
def ctc_loss(logp, target, lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    """Minus the log-likelihood of label sequences over all alignments with blanks, reduced.

    logp: float[T, N, C] or float[T, C], log-probabilities (of log_softmax); target: int[N, S], padded, or all
    sequences one after the other, int[sum of target_lengths] (then the lengths are read); lengths,
    target_lengths: int[N] or sequences of ints; blank: the class of no label. reduction "mean": losses are
    divided by the target lengths first. zero_infinity: a loss that no alignment fits is 0.
    Returns: float. Raises: ShapeError, DtypeError; ArgumentError for lengths that are negative or too long,
    IndexingError for labels that are no class. Source: Graves et al., 2006.
    """
    if not isinstance(target, Tensor) or not target.dtype.is_integer:
        raise DtypeError("ctc_loss", "target is no integer tensor", "pass class numbers as int64")
    single = logp.ndim == 2
    if single:
        logp = expand_dims(logp, axis=1)
    if logp.ndim == 3 and not 0 <= blank < logp.shape[2]:
        raise ArgumentError("ctc_loss", f"blank={blank} is no class of logp: {logp.type}", "use 0 to C - 1")
    lengths, target_lengths = (_lengths(v, logp.device) for v in (lengths, target_lengths))
    if single:
        lengths, target_lengths = (v.reshape(1) for v in (lengths, target_lengths))
        target = target.reshape(1, -1)
    if target.ndim == 1:
        target = _padded(target, target_lengths.tolist())
    target = E.cast(target, dtype=T.int64)
    _check(logp, target, lengths, target_lengths)
    _check_values(logp, target, lengths, target_lengths, blank)
    each = ctc_nll(logp, target, lengths, target_lengths, blank=blank, zero_infinity=zero_infinity)
    if zero_infinity:
        each = E.where(E.isinf(each), 0.0, each)
    if reduction == "mean":
        return mean(each / E.cast(E.maximum(target_lengths, 1), dtype=each.dtype))
    each = _reduced("ctc_loss", each, reduction)
    return each[0] if single and reduction == "none" else each


def _padded(target, counts):
    """Sequences that stand one after the other, as rows."""
    rows, start, longest = [], 0, max(counts, default=0)
    if sum(counts) != target.shape[0]:
        raise ShapeError(
            "ctc_loss", f"target: {target.type} does not hold target_lengths={counts}", "check the lengths"
        )
    for n in counts:
        row = zeros((longest,), dtype=target.dtype, device=target.device)
        row[:n] = target[start : start + n]
        rows.append(row)
        start += n
    return stack(rows, axis=0)
