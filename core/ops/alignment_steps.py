"""The CTC loss as loops over time, for exporters to formats that have no such op. Kernels never run these.

A state is a label or a blank beside it, [N, 2 S + 1] of them; sums of probabilities are made of their logarithms, in
float64 as the kernel makes them.
"""

from __future__ import annotations

from typing import Any

from .. import types as T
from . import elementwise as E
from .creation import arange, full
from .linalg import matmul
from .picking import take_elements
from .reduction import max_, sum_
from .shape import broadcast_to, concat, expand_dims, reshape, slice_, stack, transpose

_NEVER = float("-inf")


def _filled(like: Any, value: Any, shape: Any, dtype: Any) -> Any:
    return full(shape, value, dtype=dtype, device=like.device)


def _log_sum(rows: list[Any]) -> Any:
    """The logarithm of the sum of exponentials of tensors, of which all may be -inf."""
    x = stack(rows, axis=0)
    top = max_(x, axis=0)
    safe = E.where(E.equal(top, _NEVER), 0, top)
    return E.log(sum_(E.exp(x - safe), axis=0)) + safe


def _moved(x: Any, count: int, back: bool) -> Any:
    """Each state's neighbour `count` places before it (back: behind it); -inf where there is none."""
    n = x.shape[-1]
    edge = _filled(x, _NEVER, (x.shape[0], count), x.dtype)
    joined = concat([x, edge] if back else [edge, x], axis=1)
    return slice_(joined, index=(slice(None), slice(count, n + count) if back else slice(0, n)))


class _States:
    """What both losses look at: labels, emissions [T, N, 2 S + 1], and which states follow each other."""

    def __init__(self, logp: Any, target: Any, lengths: Any, target_lengths: Any, blank: int):
        steps, batch, _ = logp.shape
        size = target.shape[1]
        self.lengths, self.batch = lengths, batch
        self.steps = arange(steps, dtype=T.int64)
        self.ends = expand_dims(2 * target_lengths, axis=-1)  # the last state that counts
        self.places = arange(2 * size + 1, dtype=T.int64)
        known = E.less(arange(size, dtype=T.int64), expand_dims(target_lengths, axis=-1))
        labels = E.where(known, target, blank)
        pairs = reshape(stack([E.add(labels * 0, blank), labels], axis=-1), shape=(batch, 2 * size))
        self.labels = concat([pairs, _filled(target, blank, (batch, 1), T.int64)], axis=1)
        wide = broadcast_to(self.labels, shape=(steps, *self.labels.shape))
        self.emissions = take_elements(logp.to(T.float64), wide, axis=2)
        # A blank between two labels may be left out, unless they are equal.
        odd = E.equal(self.places - E.floor_divide(self.places, 2) * 2, 1)
        before = _moved(self.labels.to(T.float64), 2, False)
        self.skips = E.logical_and(odd, E.not_equal(self.labels.to(T.float64), before))

    def start(self, at_end: bool) -> Any:
        place = self.ends if at_end else self.ends * 0
        return E.where(
            E.equal(self.places, place), 0.0, _filled(self.emissions, _NEVER, self.labels.shape, T.float64)
        )

    def walk(self, back: bool) -> tuple[Any, Any]:
        """The last state and those of all times, of all beginnings that end there (back: of all ends)."""
        from ..control import scan

        # Behind a state comes the one two places on, when that one may be come to by leaving a blank out.
        skips = self.skips
        if back:
            skips = E.greater(_moved(E.where(skips, 1.0, 0.0).to(T.float64), 2, True), 0)

        def step(carry: Any, row: Any) -> Any:
            emitted, t = row
            far = E.where(skips, _moved(carry, 2, back), _NEVER)
            new = _log_sum([carry, _moved(carry, 1, back), far]) + emitted
            going = expand_dims(E.less(t, self.lengths), axis=-1)
            new = E.where(going, new, carry)
            return new, new

        found: tuple[Any, Any] = scan(step, self.start(back), (self.emissions, self.steps), reverse=back)
        return found


def alignment_loss(
    logp: Any, target: Any, lengths: Any, target_lengths: Any, *, blank: int, zero_infinity: bool
) -> Any:
    """`ctc_nll`, forward in time."""
    states = _States(logp, target, lengths, target_lengths, blank)
    last, _ = states.walk(False)
    back = states.ends - states.places
    counted = E.logical_or(E.equal(back, 0), E.equal(back, 1))
    ends = E.where(counted, last, _NEVER)
    top = max_(ends, axis=1, keepdims=True)
    safe = E.where(E.equal(top, _NEVER), 0, top)
    total = E.log(sum_(E.exp(ends - safe), axis=1)) + reshape(safe, shape=(states.batch,))
    return (-total).to(logp.dtype)


def alignment_loss_grad(
    logp: Any, target: Any, lengths: Any, target_lengths: Any, nll: Any, *, blank: int, zero_infinity: bool
) -> Any:
    """`ctc_nll_logp_grad`: what comes to a state and what goes on from it, added up by classes."""
    states = _States(logp, target, lengths, target_lengths, blank)
    (_, alpha), (_, beta) = states.walk(False), states.walk(True)
    met = alpha + beta
    none = E.equal(met, _NEVER)
    cost = nll.to(T.float64)
    free = E.isinf(cost)
    cost = expand_dims(E.where(free, 0, cost), axis=-1)
    share = E.where(none, 0, E.exp(E.where(none, 0, met - states.emissions) + cost))
    classes = arange(logp.shape[2], dtype=T.int64)
    hit = E.equal(expand_dims(states.labels, axis=-1), classes).to(T.float64)  # [N, 2 S + 1, C]
    slope = -transpose(matmul(transpose(share, axis1=0, axis2=1), hit), axis1=0, axis2=1)
    free = reshape(free, shape=(states.batch, 1))
    slope = E.where(free, 0.0 if zero_infinity else float("nan"), slope)
    inside = E.less(expand_dims(states.steps, axis=-1), states.lengths)
    return E.where(expand_dims(inside, axis=-1), slope, 0).to(logp.dtype)
