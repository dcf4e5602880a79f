"""Discrete Fourier transforms: sixteen transforms side by side, one in each lane, by Stockham's mixed radix passes.

A line of n points is transformed whole while its sixteen copies fit a cache, else as n1 x n2: transforms of the
columns, a turn of every element, transforms of the rows (lanes are then columns and rows of one line). Lengths
with a large prime factor are convolutions of a power of two (Bluestein). Tables of roots of unity are computed
once per length, in float64, and stay; kernels read them by address and know no size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.backend import Arg, Kernel, Operand, Program, float_bits
from ...core.lower import copy, fill
from ...core.types import DType, contiguous_strides
from .fft_source import split_source, whole_source

LANES = 16
#: prime factors up to this have passes of their own
LARGEST_PRIME = 31
#: lines of at least so many points are split in two when both parts can fill the lanes
SPLIT = 512

_kept: list[np.ndarray] = []


@functools.cache
def _roots(n: int, kind: str) -> int:
    """The address of exp(-2 pi i k / n), k < n, in pairs of `kind`."""
    angle = np.arange(n) * (2 * np.pi / n)
    return _keep(np.stack([np.cos(angle), -np.sin(angle)], axis=-1).astype(kind))


def _keep(table: np.ndarray) -> int:
    table = np.ascontiguousarray(table)
    _kept.append(table)
    return int(table.ctypes.data)


@functools.cache
def factors(n: int) -> tuple[int, ...]:
    """The radices of the passes: fours first, then twos, then odd primes."""
    found = []
    for p in (4, 2, 3, 5, *range(7, n + 1, 2)):
        if p * p > n and p > 5:
            break
        while n % p == 0:
            found.append(p)
            n //= p
    return (*found, n) if n > 1 else tuple(found)


@functools.cache
def _factor_table(n: int) -> int:
    return _keep(np.array([*factors(n), 0], np.int64))


@functools.cache
def split(n: int) -> tuple[int, int]:
    """n1 x n2, the divisors nearest to the root, n1 <= n2."""
    best = 1
    for d in range(1, math.isqrt(n) + 1):
        if n % d == 0:
            best = d
    return best, n // best


# ---------------------------------------------------------------- one transform of complex lines


def _axes(x: Operand, axis: int) -> tuple[int, int, int, int, int, int]:
    """(outer, inner, n, strides by outer, inner and k) of a contiguous operand, in elements."""
    n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    return math.prod(x.shape[:axis]), inner, n, n * inner, 1, inner


def transform(program: Program, x: Operand, out: Operand, axis: int, inverse: bool, scale: float) -> None:
    """Append out = scale * DFT(x) along an axis; x and out: complex, contiguous, of one shape."""
    n = x.shape[axis]
    if n == 1:
        _scaled_copy(program, x, out, scale)
        return
    if max(factors(n)) > LARGEST_PRIME:
        _bluestein(program, x, out, axis, inverse, scale)
        return
    real = x.dtype.real
    kind, size = real.name, real.itemsize
    outer, inner, _, by_outer, by_inner, by_k = _axes(x, axis)
    lines = outer * inner
    work = lines * n * (8.0 + 8 * math.log2(n))
    n1, n2 = split(n)
    table = _roots(n, kind)
    bits = float_bits(scale)
    if n < SPLIT or n1 < LANES // 2:
        # Lanes along what is contiguous beside the line, else from line to line.
        lanes, tasks_outer = (inner, outer) if inner > 1 else (outer, 1)
        lane, step = (by_inner, by_outer) if inner > 1 else (by_outer, 0)
        blocks = tasks_outer * -(-lanes // LANES)
        chunks = program.chunks(blocks, work)
        half = n * 2 * LANES * size
        area = 2 * half + 2 * LANES * LANES * size
        args: list[Arg] = [x.slot, out.slot, table, _factor_table(n), n, bits, tasks_outer, lanes]
        args += [step, lane, by_k, step, lane, by_k, int(inverse), program.scratch(area * chunks), area, half]
        program.launch(whole_source(real.char), args, chunks)
        return
    pitch = n2 + LANES
    middle_line = 2 * n1 * pitch * size
    half = n2 * 2 * LANES * size
    area = 2 * half + 2 * LANES * LANES * size
    together = lines >= 2 * program.backend.num_threads() or n <= 4096
    for phases in (3,) if together else (1, 2):
        items = lines * {1: -(-n2 // LANES), 2: -(-n1 // LANES), 3: 1}[phases]
        chunks = program.chunks(items, work)
        if phases != 2:
            middle = program.scratch(middle_line * (chunks if together else lines))
        args = [x.slot, out.slot, table, _factor_table(n1), _factor_table(n2), n1, n2, bits, lines, inner]
        args += [
            by_outer,
            by_inner,
            by_k,
            by_outer,
            by_inner,
            by_k,
            int(inverse),
            phases,
            middle,
            middle_line,
        ]
        args += [pitch, program.scratch(area * chunks), area, half]
        program.launch(split_source(real.char), args, chunks)
        program.wave()


@functools.cache
def _product_source(c: str) -> str:
    return f"""# complex lines times a table: cut or filled up with zeros
def kernel(args, chunk, nchunks):
    x, out, table, lines, count, x_n, out_n = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    swap_in, swap_out, scale = args[7], args[8], types.{"float32" if c == "f32" else "float64"}(bits_f64(args[9]))
    for line in range(share(lines, chunk, nchunks), share(lines, chunk + 1, nchunks)):
        at = 2 * line * x_n
        to = 2 * line * out_n
        for k in range(count):
            xr = load_{c}(x, at + 2 * k + swap_in)
            xi = load_{c}(x, at + 2 * k + 1 - swap_in)
            wr = load_{c}(table, 2 * k)
            wi = load_{c}(table, 2 * k + 1)
            store_{c}(out, to + 2 * k + swap_out, scale * (xr * wr - xi * wi))
            store_{c}(out, to + 2 * k + 1 - swap_out, scale * (xr * wi + xi * wr))
        for k in range(2 * count, 2 * out_n):
            store_{c}(out, to + k, types.{"float32" if c == "f32" else "float64"}(0))
"""


def _times(
    program: Program, x: Operand, out: Operand, table: int, count: int, swaps: tuple[bool, bool], scale: float
) -> None:
    real = x.dtype.real
    lines = math.prod(x.shape[:-1])
    args: list[Arg] = [x.slot, out.slot, table, lines, count, x.shape[-1], out.shape[-1]]
    args += [int(swaps[0]), int(swaps[1]), float_bits(scale)]
    program.launch(_product_source(real.char), args, program.chunks(lines, lines * count * 16.0))
    program.wave()


@functools.cache
def _chirp(n: int, m: int, kind: str) -> tuple[int, int]:
    """Tables of Bluestein's convolution: exp(-i pi k^2 / n), and the transform of its padded conjugate."""
    k = np.arange(n, dtype=np.int64)
    w = np.exp(-1j * np.pi * ((k * k) % (2 * n)) / n)
    ring = np.zeros(m, np.complex128)
    ring[:n] = w.conj()
    ring[m - n + 1 :] = w.conj()[1:][::-1]
    spectrum = np.fft.fft(ring)
    pairs = lambda z: _keep(np.stack([z.real, z.imag], axis=-1).astype(kind))
    return pairs(w), pairs(spectrum)


def _bluestein(program: Program, x: Operand, out: Operand, axis: int, inverse: bool, scale: float) -> None:
    """A transform as a convolution of a power of two, along the last axis of copies."""
    n, dtype = x.shape[axis], x.dtype
    m = 1 << (2 * n - 2).bit_length()
    chirp, spectrum = _chirp(n, m, dtype.real.name)
    rest = tuple(k for a, k in enumerate(x.shape) if a != axis)
    if axis != len(x.shape) - 1:
        turned = program.scratch_operand(dtype, (*rest, n))
        _copy_pairs(program, _axis_last(x, axis), turned)
        program.wave()
        x = turned
    lines = math.prod(rest)
    x = x._replace(shape=(lines, n), strides=(n, 1))
    first, second = (program.scratch_operand(dtype, (lines, m)) for _ in range(2))
    _times(program, x, first, chirp, n, (inverse, False), 1.0)
    transform(program, first, second, 1, False, 1.0)
    program.wave()
    _times(program, second, first, spectrum, m, (False, False), 1.0)
    transform(program, first, second, 1, True, 1.0 / m)
    program.wave()
    last = axis == len(out.shape) - 1
    flat = (
        out._replace(shape=(lines, n), strides=(n, 1)) if last else program.scratch_operand(dtype, (lines, n))
    )
    _times(program, second, flat, chirp, n, (False, inverse), scale)
    if not last:
        shape = (*rest, n)
        dense = program.scratch_operand(dtype, shape)._replace(source=flat.source, offset=flat.offset)
        _copy_pairs(program, dense, _axis_last(out, axis))


def _axis_last(x: Operand, axis: int) -> Operand:
    order = [a for a in range(len(x.shape)) if a != axis] + [axis]
    return x._replace(shape=tuple(x.shape[a] for a in order), strides=tuple(x.strides[a] for a in order))


# ---------------------------------------------------------------- copies of complex and real lines


def _parts(x: Operand) -> Operand:
    """A complex operand as real pairs."""
    real = x.dtype.real
    return Operand(x.source, x.offset, real, (*x.shape, 2), (*(2 * st for st in x.strides), 1))


def _part(x: Operand, which: int) -> Operand:
    """The real (0) or imaginary (1) part of a complex operand."""
    real = x.dtype.real
    offset = x.offset + which * real.itemsize
    return Operand(x.source, offset, real, x.shape, tuple(2 * st for st in x.strides))


def _copy_pairs(program: Program, x: Operand, out: Operand) -> None:
    copy(program, _parts(x), _parts(out))


def _scaled_copy(program: Program, x: Operand, out: Operand, scale: float) -> None:
    table = _keep_one(x.dtype.real.name)
    flat = lambda v: v._replace(shape=(v.size, 1), strides=(1, 1))
    _times(program, flat(x), flat(out), table, 1, (False, False), scale)


@functools.cache
def _keep_one(kind: str) -> int:
    return _keep(np.array([1, 0], kind))


def _dense(program: Program, x: Operand) -> Operand:
    if x.is_contiguous:
        return x
    full = program.scratch_operand(x.dtype, x.shape)
    _copy_pairs(program, x, full)
    program.wave()
    return full


def _as_complex(program: Program, x: Operand, dtype: DType) -> Operand:
    """x itself when it is complex and contiguous, else a copy that is."""
    if x.dtype.kind == "complex":
        return _dense(program, x)
    whole = program.scratch_operand(dtype, x.shape)
    copy(program, x, _part(whole, 0))
    fill(program, 0, _part(whole, 1))
    program.wave()
    return whole


def fft_c2c(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    axis: int,
    inverse: bool,
    scale: float,
    real: bool,
) -> None:
    """Complex or real to complex, or to its real part."""
    x, out = inputs[0], outputs[0]
    if out.size == 0:
        return
    dtype = x.dtype.complex
    target = program.scratch_operand(dtype, out.shape) if real else out
    transform(program, _as_complex(program, x, dtype), target, axis, inverse, scale)
    if real:
        program.wave()
        copy(program, _part(target, 0), out)


def _cut(x: Operand, axis: int, start: int, count: int, step: int = 1) -> Operand:
    """A slice of an operand along an axis."""
    shape, strides = list(x.shape), list(x.strides)
    offset = x.offset + start * strides[axis] * x.dtype.itemsize
    shape[axis], strides[axis] = count, strides[axis] * step
    return Operand(x.source, offset, x.dtype, tuple(shape), tuple(strides))


def _negated(program: Program, x: Operand, out: Operand) -> None:
    from ...core.lower import lower_map
    from ...core.scalar import Expr

    root = Expr("neg", out.dtype, (Expr("arg", x.dtype, (), 0),))
    lower_map(program, out.shape, [x], [root], [out], ("conjugate",))


def _doubled(program: Program, x: Operand) -> None:
    from ...core.lower import lower_map
    from ...core.scalar import Expr

    arg = Expr("arg", x.dtype, (), 0)
    lower_map(program, x.shape, [x], [Expr("add", x.dtype, (arg, arg))], [x], ("double",))


@functools.cache
def _halves_source(c: str, forward: bool) -> str:
    """Between n real points and the transform of their n / 2 pairs, taken as complex numbers."""
    number = "float32" if c == "f32" else "float64"
    head = f"""    x, out, table, lines, m, turned = args[0], args[1], args[2], args[3], args[4], args[5]
    inside = types.{number}(bits_f64(args[6]))
    half = types.{number}(0.5)
    sign = types.{number}(-1 if turned != 0 else 1)
    for line in range(share(lines, chunk, nchunks), share(lines, chunk + 1, nchunks)):
"""
    if forward:
        return f"""# fft {c}: spectrum of real lines from that of their pairs
def kernel(args, chunk, nchunks):
{head}        at = 2 * m * line
        to = 2 * (m + 1) * line
        for k in range(m + 1):
            i = k if k < m else 0
            j = m - k if k > 0 else 0
            ar = load_{c}(x, at + 2 * i)
            ai = load_{c}(x, at + 2 * i + 1)
            br = load_{c}(x, at + 2 * j)
            bi = -load_{c}(x, at + 2 * j + 1)
            wr = load_{c}(table, 2 * k)
            wi = load_{c}(table, 2 * k + 1)
            dr = ar - br
            di = ai - bi
            weight = half * inside if 0 < k < m else half
            store_{c}(out, to + 2 * k, weight * (ar + br + (di * wr + dr * wi)))
            store_{c}(out, to + 2 * k + 1, weight * sign * (ai + bi + (di * wi - dr * wr)))
"""
    return f"""# fft {c}: spectrum of pairs from that of real lines
def kernel(args, chunk, nchunks):
{head}        at = 2 * (m + 1) * line
        to = 2 * m * line
        for k in range(m):
            j = m - k
            first = inside if k > 0 else half + half
            last = inside if j < m else half + half
            ar = first * load_{c}(x, at + 2 * k)
            ai = first * sign * load_{c}(x, at + 2 * k + 1)
            br = last * load_{c}(x, at + 2 * j)
            bi = -last * sign * load_{c}(x, at + 2 * j + 1)
            if k == 0:  # frequency 0 and the highest one are real
                ai = half - half
                bi = half - half
            wr = load_{c}(table, 2 * k)
            wi = load_{c}(table, 2 * k + 1)
            dr = ar - br
            di = ai - bi
            store_{c}(out, to + 2 * k, ar + br - (wr * di - wi * dr))
            store_{c}(out, to + 2 * k + 1, ai + bi + (wr * dr + wi * di))
"""


def _halves(
    program: Program, x: Operand, out: Operand, n: int, forward: bool, turned: bool, inside: float
) -> None:
    dtype = (out if forward else x).dtype.real
    lines = math.prod(out.shape[:-1])
    args: list[Arg] = [
        x.slot,
        out.slot,
        _roots(n, dtype.name),
        lines,
        n // 2,
        int(turned),
        float_bits(inside),
    ]
    program.launch(_halves_source(dtype.char, forward), args, program.chunks(lines, lines * n * 16.0))


def _paired(x: Operand, dtype: DType) -> Operand:
    """Contiguous real lines of even length as complex ones of half the length."""
    shape = (*x.shape[:-1], x.shape[-1] // 2)
    return Operand(x.source, x.offset, dtype, shape, contiguous_strides(shape))


def fft_r2c(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    axis: int,
    inverse: bool,
    scale: float,
    double: bool,
) -> None:
    """Real lines to half a spectrum; double: what stands for two frequencies counts twice."""
    x, out = inputs[0], outputs[0]
    n, half = x.shape[axis], out.shape[axis]
    if out.size == 0:
        return
    inside = (n - 1) // 2
    if n % 2 == 0 and axis == len(x.shape) - 1:
        if x.dtype is not out.dtype.real or not x.is_contiguous:
            full = program.scratch_operand(out.dtype.real, x.shape)
            copy(program, x, full)
            program.wave()
            x = full
        pairs = _paired(x, out.dtype)
        made = program.scratch_operand(out.dtype, pairs.shape)
        transform(program, pairs, made, axis, False, scale)
        program.wave()
        _halves(program, made, out, n, True, inverse, 2.0 if double else 1.0)
        return
    whole = _as_complex(program, x, out.dtype)
    result = program.scratch_operand(out.dtype, x.shape)
    transform(program, whole, result, axis, inverse, scale)
    program.wave()
    _copy_pairs(program, _cut(result, axis, 0, half), out)
    if double and inside:
        program.wave()
        _doubled(program, _parts(_cut(out, axis, 1, inside)))


def fft_c2r(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    size: int,
    axis: int,
    inverse: bool,
    scale: float,
    double: bool,
) -> None:
    """Half a spectrum to real lines; double: the missing half is the conjugate of the other, else zero."""
    x, out = inputs[0], outputs[0]
    if out.size == 0:
        return
    if size % 2 == 0 and axis == len(out.shape) - 1 and out.dtype is x.dtype.real:
        x = _dense(program, x)
        pairs = _paired(out, x.dtype)
        made = program.scratch_operand(x.dtype, pairs.shape)
        _halves(program, x, made, size, False, not inverse, 1.0 if double else 0.5)
        program.wave()
        transform(program, made, pairs, axis, True, scale)
        return
    whole = program.scratch_operand(x.dtype, out.shape)
    # Imaginary parts of what is its own mirror image fall out with the imaginary part of the result.
    half, inside = size // 2 + 1, (size - 1) // 2
    _copy_pairs(program, x, _cut(whole, axis, 0, half))
    if inside:
        mirror = _cut(whole, axis, size - 1, inside, -1)
        source = _cut(x, axis, 1, inside)
        if double:
            copy(program, _part(source, 0), _part(mirror, 0))
            _negated(program, _part(source, 1), _part(mirror, 1))
        else:
            fill(program, 0, _parts(mirror))
    program.wave()
    result = program.scratch_operand(x.dtype, out.shape)
    transform(program, whole, result, axis, inverse, scale)
    program.wave()
    copy(program, _part(result, 0), out)


KERNELS: dict[str, Kernel] = {"fft_c2c": fft_c2c, "fft_c2r": fft_c2r, "fft_r2c": fft_r2c}
