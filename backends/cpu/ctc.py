"""Connectionist temporal classification: sums over alignments, in float64, a sample at a time.

States are the labels with blanks between and around them: state k is a blank for even k, label k // 2 for odd k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.types import DType
from .indexing import _dense

# One step of the forward recursion: the log-sum of up to three states before. `back` is 1, or -1 for the
# recursion from the end, whose states and times run the other way.
_SOURCE = """# {note}: {dtype}
@inline
def log_sum(a, b, c):
    m = max(a, max(b, c))
    if m == -1e999:
        return m
    return m + v_log_f64(v_exp_f64(a - m) + v_exp_f64(b - m) + v_exp_f64(c - m))

@inline
def class_of(target, blank, classes, k):
    label = blank
    if k % 2 == 1:  # an illegal one is refused when the kernel has run: it must not touch other memory
        label = min(max(load_i64(target, k // 2), 0), classes - 1)
    return label

@inline
def advance(now, before, logp, target, blank, classes, states, first, back):
    for j in range(states):
        k = j
        if back < 0:
            k = states - 1 - j
        label = class_of(target, blank, classes, k)
        total = -1e999
        if first:
            if j < 2:
                total = 0.0
        else:
            a, b, c = load_f64(before, k), -1e999, -1e999
            if j > 0:
                b = load_f64(before, k - back)
            if j > 1 and k % 2 == 1 and class_of(target, blank, classes, k - 2 * back) != label:
                c = load_f64(before, k - 2 * back)
            total = log_sum(a, b, c)
        store_f64(now, k, total + types.float64(load_{c}(logp, label)))

{body}"""

_NLL = """def kernel(args, chunk, nchunks):
    logp, targets, lengths, target_lengths, out, work = args[0], args[1], args[2], args[3], args[4], args[5]
    times, samples, classes, width, blank = args[6], args[7], args[8], args[9], args[10]
    for n in range(samples * chunk // nchunks, samples * (chunk + 1) // nchunks):
        steps = max(min(load_i64(lengths, n), times), 0)
        count = max(min(load_i64(target_lengths, n), width), 0)
        target, states = targets + n * width * 8, 2 * count + 1
        rows = work + n * 2 * (2 * width + 1) * 8
        for t in range(steps):
            now = rows + t % 2 * (2 * width + 1) * 8
            before = rows + (t + 1) % 2 * (2 * width + 1) * 8
            advance(now, before, logp + (t * samples + n) * classes * {size}, target, blank, classes, states, t == 0, 1)
        found = -1e999
        if steps > 0:
            last = rows + (steps - 1) % 2 * (2 * width + 1) * 8
            found = load_f64(last, states - 1)
            if states > 1:
                found = log_sum(found, load_f64(last, states - 2), -1e999)
        elif count == 0:
            found = 0.0
        store_{c}(out, n, types.{dtype}(-found))
"""

_GRAD = """def kernel(args, chunk, nchunks):
    logp, targets, lengths, target_lengths, nll, out = args[0], args[1], args[2], args[3], args[4], args[5]
    work, times, samples, classes, width, blank, zero = args[6], args[7], args[8], args[9], args[10], args[11], args[12]
    pitch = (2 * width + 1) * 8
    for n in range(samples * chunk // nchunks, samples * (chunk + 1) // nchunks):
        steps = max(min(load_i64(lengths, n), times), 0)
        count = max(min(load_i64(target_lengths, n), width), 0)
        target, states = targets + n * width * 8, 2 * count + 1
        alpha = work + n * (times + 2) * pitch
        beta = alpha + times * pitch
        loss = types.float64(load_{c}(nll, n))
        fits = loss != 1e999
        for t in range(times):
            for k in range(classes):
                value = 0.0
                if t < steps and not fits and zero == 0:
                    value = 1e999 - 1e999
                store_{c}(out, (t * samples + n) * classes + k, types.{dtype}(value))
        if fits:
            for t in range(steps):
                row = logp + (t * samples + n) * classes * {size}
                advance(alpha + t * pitch, alpha + (t - 1) * pitch, row, target, blank, classes, states, t == 0, 1)
            for i in range(steps):
                t = steps - 1 - i
                row = logp + (t * samples + n) * classes * {size}
                now, before = beta + i % 2 * pitch, beta + (i + 1) % 2 * pitch
                advance(now, before, row, target, blank, classes, states, i == 0, -1)
                for k in range(states):
                    label = class_of(target, blank, classes, k)
                    place = (t * samples + n) * classes + label
                    both = load_f64(alpha + t * pitch, k) + load_f64(now, k)
                    share = v_exp_f64(both - types.float64(load_{c}(row, label)) + loss)
                    store_{c}(out, place, types.{dtype}(types.float64(load_{c}(out, place)) - share))
"""


def _source(note: str, body: str, dtype: DType) -> str:
    text = body.format(c=dtype.char, dtype=dtype.name, size=dtype.itemsize)
    return _SOURCE.format(note=note, c=dtype.char, dtype=dtype.name, body=text)


def ctc_nll(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, blank: int, zero_infinity: bool
) -> None:
    """out[n] from logp[T, N, C], target[N, S] and the lengths; two rows of states for each sample."""
    logp, target, *lengths = (_dense(program, v) for v in inputs)
    (times, samples, classes), width = logp.shape, target.shape[1]
    if not samples:
        return
    work = program.scratch(samples * 2 * (2 * width + 1) * 8)
    slots: list[Arg] = [v.slot for v in (logp, target, *lengths, outputs[0])]
    args = [*slots, work, times, samples, classes, width, blank]
    chunks = program.chunks(samples, samples * times * (2 * width + 1) * 100)
    program.launch(_source("ctc_nll", _NLL, logp.dtype), args, chunks)


def ctc_nll_logp_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, blank: int, zero_infinity: bool
) -> None:
    """out[T, N, C]; the forward table of a sample and two rows of the backward one are scratch."""
    logp, target, *rest = (_dense(program, v) for v in inputs)
    (times, samples, classes), width = logp.shape, target.shape[1]
    if not outputs[0].size:
        return
    work = program.scratch(samples * (times + 2) * (2 * width + 1) * 8)
    slots: list[Arg] = [v.slot for v in (logp, target, *rest, outputs[0])]
    args = [*slots, work, times, samples, classes, width, blank, int(zero_infinity)]
    chunks = program.chunks(samples, samples * times * (2 * width + 1) * 300)
    program.launch(_source("ctc_nll_logp_grad", _GRAD, logp.dtype), args, chunks)


KERNELS: dict[str, Kernel] = {"ctc_nll": ctc_nll, "ctc_nll_logp_grad": ctc_nll_logp_grad}
