"""Random tensors from the counter generator: the same numbers in both modes and on every device.

Base draws (uniform, normal, integers) are pointwise ops over Philox bits; distributions with parameters are
functions of them, so that gradients flow to parameters where the transform is smooth (`normal`, `laplace`,
...). Parameters are numbers or tensors that broadcast; `shape` is theirs when left out. `generator=` takes a
`dg.Generator`; the default one is seeded by `dg.manual_seed`.
"""

from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..dtype_info import finfo
from ..errors import ArgumentError, ArgumentTypeError
from ..op import pointwise, primitive, public
from ..random import default_generator
from ..scalar import philox_numpy, s
from ..strangers import check_numbers
from ..types import TensorType
from ..value import Tensor
from . import elementwise as E
from .creation import _dtype, _filled, arange, asked
from .indexing import take
from .outliers import refuse_outliers
from .reduction import argmax, max_, min_, sum_
from .scan import cumulative_sum
from .shape import as_shape, concat, expand_dims

#: random bits of a uniform number, by dtype: what its mantissa holds
_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


def _unit(seed, offset, dtype, words, centred=False):
    """A uniform number from 0 below 1 of one word (float64: two). centred: in the open interval, a bit less."""
    bits = _BITS[dtype.name] - centred
    if bits > 32:
        high = s.cast(s.philox(seed, offset, words[0]), T.uint64)
        low = s.shr(s.cast(s.philox(seed, offset, words[1]), T.uint64), 6)
        whole = s.shr(s.shr(high, 5) * (1 << 26) + low, 53 - bits)
        high_part = s.cast(whole, T.float64)
    else:
        high_part = s.cast(s.shr(s.philox(seed, offset, words[0]), 32 - bits), T.float32)
    if centred:
        high_part = high_part + 0.5
    return s.cast(high_part * 2.0**-bits, dtype)


# ONNX draws from a generator of its own: the same distributions, other numbers.


def _uniform_onnx(o, seed, offset, *, shape, dtype, device, centred):
    if not centred and dtype in (T.float32, T.float64):
        return o.random("RandomUniform", shape, dtype)
    # Of as many bits as `_unit` takes: neither rounded up to 1 nor, centred, 0.
    wide = T.float64 if dtype is T.float64 else T.float32
    bits = _BITS[dtype.name] - centred
    whole = o.Floor(o.Mul(o.random("RandomUniform", shape, wide), o.const(2.0**bits, wide)))
    whole = o.Add(whole, o.const(0.5, wide)) if centred else whole
    return o.cast(o.Mul(whole, o.const(2.0**-bits, wide)), dtype)


def _normal_onnx(o, seed, offset, *, shape, dtype, device):
    return o.random("RandomNormal", shape, dtype)


def _integers_onnx(o, seed, offset, low, span, *, shape, dtype, device):
    wide = o.Floor(o.Mul(o.random("RandomUniform", shape, T.float64), o.const(span, T.float64)))
    return o.cast(o.Add(o.cast(wide, T.int64), o.const(low, T.int64)), dtype)


def _permutation_onnx(o, seed, offset, *, size, device):
    return o.node("TopK", (o.random("RandomUniform", (size,), T.float32), o.ints((size,))), {"axis": 0}, 2)[1]


@pointwise(counts=True, internal=True, no_gradient="random", onnx=_uniform_onnx)
def random_uniform(seed, offset, *, shape, dtype=T.float32, device=None, centred=False):
    """Uniform floats in [0, 1): element i uses counter offset + i of Philox4x32-10 keyed by seed.

    24 random bits in float32, 53 in float64. centred: in (0, 1), for logarithms. Source: Salmon et al., SC 2011.
    """
    return _unit(seed, offset, dtype, (0, 1), centred)


@random_uniform.type
def _(seed, offset, *, shape, dtype=T.float32, device=None, centred=False):
    return _filled("rand", shape=shape, dtype=dtype)


random_uniform.sample(3, 0, shape=(4, 5), grad=False).sample(3, 7, shape=(6,), dtype=T.float64, grad=False)
random_uniform.sample(3, 7, shape=(6,), centred=True, grad=False)


@pointwise(counts=True, internal=True, no_gradient="random", onnx=_normal_onnx)
def random_normal(seed, offset, *, shape, dtype=T.float32, device=None):
    """Standard normal floats by the Box-Muller transform: two Philox words, in float64 four (53 bits each).

    Source: Box and Muller, 1958.
    """
    if dtype is T.float64:
        u, v = _unit(seed, offset, dtype, (0, 1)), _unit(seed, offset, dtype, (2, 3))
        return s.sqrt(s.log1p(-u) * -2.0) * s.cos(v * (2.0 * math.pi))
    u = (s.cast(s.shr(s.philox(seed, offset, 0), 8), T.float32) + 1.0) * 2.0**-24
    v = s.cast(s.shr(s.philox(seed, offset, 1), 8), T.float32) * (2.0**-24 * 2.0 * math.pi)
    return s.cast(s.sqrt(s.log(u) * -2.0) * s.cos(v), dtype)


@random_normal.type
def _(seed, offset, *, shape, dtype=T.float32, device=None):
    return _filled("randn", shape=shape, dtype=dtype)


random_normal.sample(3, 0, shape=(4, 5), grad=False).sample(3, 0, shape=(6,), dtype=T.float64, grad=False)


@pointwise(counts=True, internal=True, no_gradient="random", onnx=_integers_onnx)
def random_integers(seed, offset, low, span, *, shape, dtype=T.int64, device=None):
    """Integers from low to low + span - 1: the high half of 64 random bits times the span (at most 2**32)."""
    high = s.cast(s.philox(seed, offset, 0), T.uint64) * s.cast(span, T.uint64)
    more = s.shr(s.cast(s.philox(seed, offset, 1), T.uint64) * s.cast(span, T.uint64), 32)
    return s.cast(s.cast(s.shr(high + more, 32), T.int64) + s.cast(low, T.int64), dtype)


@random_integers.type
def _(seed, offset, low, span, *, shape, dtype=T.int64, device=None):
    return _filled("randint", shape=shape, dtype=dtype)


random_integers.sample(3, 0, -2, 9, shape=(20,), grad=False)


@primitive(internal=True, no_gradient="random", onnx=_permutation_onnx)
def random_permutation(seed, offset, *, size, device=None):
    """The integers below `size` in random order: an exchange with a place not yet passed, for each place.

    Source: Fisher and Yates, 1938.
    """
    out = np.arange(size)
    bits = [philox_numpy(seed, offset, np.arange(size), k).tolist() for k in (0, 1)]
    for i in range(size - 1, 0, -1):
        j = (bits[0][i] * (i + 1) + (bits[1][i] * (i + 1) >> 32)) >> 32
        out[i], out[j] = out[j], out[i]
    return out


@random_permutation.type
def _(seed, offset, *, size, device=None):
    return TensorType(T.int64, (size,))


random_permutation.sample(3, 7, size=9, grad=False).sample(3, 7, size=0, grad=False)


def _draw(shape, generator=None):
    """Seed and first counter for a tensor of random elements."""
    return dispatch.state.executor.offset(generator or default_generator, max(1, math.prod(shape)))


def _sizes(op, shape):
    """`2, 3` or `(2, 3)` as a shape."""
    return as_shape(op, shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)


def _float(op, dtype, default=T.default_float):
    found = _dtype(op, dtype, default)
    if not found.is_float:
        raise ArgumentTypeError(op, f"dtype={found} is no float", "use a float dtype")
    return found


@public
def rand(*shape, dtype=None, device=None, generator=None, requires_grad=False):
    """Uniform random floats in [0, 1). shape: ints or one tuple. Seeded by `dg.manual_seed`."""
    size = _sizes("rand", shape)
    return asked(
        random_uniform(*_draw(size, generator), shape=size, dtype=_float("rand", dtype), device=device),
        requires_grad,
    )


@public
def randn(*shape, dtype=None, device=None, generator=None, requires_grad=False):
    """Standard normal random floats. shape: ints or one tuple. Seeded by `dg.manual_seed`."""
    size = _sizes("randn", shape)
    return asked(
        random_normal(*_draw(size, generator), shape=size, dtype=_float("randn", dtype), device=device),
        requires_grad,
    )


@public
def randint(low, high=None, shape=(), dtype=None, device=None, generator=None):
    """Random integers from low (0 when only one bound is given) up to but without high."""
    if high is None:
        low, high = 0, low
    check_numbers("randint", low=low, high=high)
    if not low < high <= low + 2**32:
        raise ArgumentError(
            "randint", f"the range from {low} to {high} is empty or above 2**32", "use low < high"
        )
    size, kind = as_shape("randint", shape), _dtype("randint", dtype, T.default_int)
    return random_integers(*_draw(size, generator), low, high - low, shape=size, dtype=kind, device=device)


@public
def rand_like(x, dtype=None, device=None, generator=None, requires_grad=False):
    """`rand` with x's shape and, unless given, its dtype and device."""
    return asked(
        rand(x.shape, dtype=dtype or x.dtype, device=device or x.device, generator=generator), requires_grad
    )


@public
def randn_like(x, dtype=None, device=None, generator=None, requires_grad=False):
    """`randn` with x's shape and, unless given, its dtype and device."""
    return asked(
        randn(x.shape, dtype=dtype or x.dtype, device=device or x.device, generator=generator), requires_grad
    )


@public
def randint_like(x, low, high=None, dtype=None, device=None, generator=None):
    """`randint` with x's shape and, unless given, its dtype and device."""
    return randint(low, high, x.shape, dtype or x.dtype, device or x.device, generator)


@public
def randperm(n, device=None, generator=None):
    """The integers below n in random order, int64. Raises: ArgumentError for a negative n."""
    (size,) = as_shape("randperm", (n,))
    _filled("randperm", shape=(size,), dtype=None)
    return random_permutation(*_draw((size,), generator), size=size, device=device)


@public
def permutation(x, axis=0, generator=None):
    """`randperm(x)` for an int; for a tensor its slices along axis in random order."""
    if not isinstance(x, Tensor):
        return randperm(x, generator=generator)
    return take(x, randperm(x.shape[axis], x.device, generator), axis=axis)


@public
def shuffle(x, axis=0, generator=None):
    """The slices of a tensor along axis in random order, as a new tensor."""
    return permutation(x, axis, generator)


# ---------------------------------------------------------------- distributions with parameters


def _shared(op, shape, dtype, device, *params):
    """(shape, dtype, device) of a draw from numbers and tensors."""
    tensors = [p for p in params if isinstance(p, Tensor)]
    if shape is None:
        shape = T.broadcast_shapes(op, *(p.shape for p in tensors)) if tensors else ()
    common = None
    for p in tensors:
        kind = p.dtype if p.dtype.is_float else T.default_float
        common = kind if common is None else T.promote(common, kind)
    home = device or (tensors[0].device if tensors else None)
    return as_shape(op, shape), _float(op, dtype, common or T.default_float), home


def _positive(op, name, value):
    """Refuse a number that is not above 0; tensors are not read."""
    if not isinstance(value, Tensor) and not value > 0:
        raise ArgumentError(op, f"{name}={value} is not above 0", f"use a positive {name}")


def _open(op, shape, dtype, device, generator, *params):
    """Uniform numbers in (0, 1) for a draw with these parameters."""
    size, kind, home = _shared(op, shape, dtype, device, *params)
    return random_uniform(*_draw(size, generator), shape=size, dtype=kind, device=home, centred=True)


@public
def uniform(low=0.0, high=1.0, shape=None, dtype=None, device=None, generator=None):
    """Uniform floats from low up to high: `low + (high - low) * rand`. low, high: numbers or tensors."""
    size, kind, home = _shared("uniform", shape, dtype, device, low, high)
    return rand(size, dtype=kind, device=home, generator=generator) * (high - low) + low


@public
def normal(mean=0.0, std=1.0, shape=None, dtype=None, device=None, generator=None):
    """Normal floats: `mean + std * randn`. mean, std: numbers or tensors."""
    size, kind, home = _shared("normal", shape, dtype, device, mean, std)
    return randn(size, dtype=kind, device=home, generator=generator) * std + mean


@public
def log_normal(mean=0.0, std=1.0, shape=None, dtype=None, device=None, generator=None):
    """Floats whose logarithm is normal: `exp(normal(mean, std))`."""
    return E.exp(normal(mean, std, shape, dtype, device, generator))


@public
def bernoulli(p=0.5, shape=None, dtype=None, device=None, generator=None):
    """1 with probability p, else 0. p: a number or a tensor, from 0 to 1. Returns: p's dtype (else float32)."""
    if not isinstance(p, Tensor) and not 0 <= p <= 1:
        raise ArgumentError("bernoulli", f"p={p} is not a probability", "use a number from 0 to 1")
    size, kind, home = _shared("bernoulli", shape, None, device, p)
    draw = E.less(rand(size, dtype=kind, device=home, generator=generator), p)
    return E.cast(draw, dtype=_dtype("bernoulli", dtype, kind))


@public
def exponential(rate=1.0, shape=None, dtype=None, device=None, generator=None):
    """Exponential floats: `-log(u) / rate`, mean `1 / rate`. rate: a positive number or tensor."""
    _positive("exponential", "rate", rate)
    return E.negative(E.log(_open("exponential", shape, dtype, device, generator, rate))) / rate


@public
def gumbel(loc=0.0, scale=1.0, shape=None, dtype=None, device=None, generator=None):
    """Gumbel floats: `loc - scale * log(-log(u))`."""
    u = _open("gumbel", shape, dtype, device, generator, loc, scale)
    return loc - E.log(E.negative(E.log(u))) * scale


@public
def laplace(loc=0.0, scale=1.0, shape=None, dtype=None, device=None, generator=None):
    """Laplace floats: `loc - scale * sign(v) * log1p(-2 |v|)`, v uniform about 0."""
    v = _open("laplace", shape, dtype, device, generator, loc, scale) - 0.5
    return loc - E.copysign(E.log1p(E.abs_(v) * -2.0), v) * scale


@public
def cauchy(loc=0.0, scale=1.0, shape=None, dtype=None, device=None, generator=None):
    """Cauchy floats: `loc + scale * tan(pi * (u - 1/2))`."""
    u = _open("cauchy", shape, dtype, device, generator, loc, scale)
    return E.tan((u - 0.5) * math.pi) * scale + loc


@public
def geometric(p, shape=None, dtype=None, device=None, generator=None):
    """How many trials of probability p the first success takes, from 1: `ceil(log(u) / log(1 - p))`."""
    if not isinstance(p, Tensor) and not 0 < p < 1:
        raise ArgumentError("geometric", f"p={p} is not between 0 and 1", "use a number between them")
    u = _open("geometric", shape, dtype, device, generator, p)
    spread = E.log1p(E.negative(p)) if isinstance(p, Tensor) else math.log1p(-p)
    return E.maximum(E.ceil(E.log(u) / spread), 1.0)


@public
def truncated_normal(
    mean=0.0, std=1.0, low=-2.0, high=2.0, shape=None, dtype=None, device=None, generator=None
):
    """Normal floats within [low, high], by the inverse of the distribution function, in float64.

    mean, std: numbers or tensors; low, high: numbers, in the units of the result. Numerics: right while the
    bounds lie within 8 std of the mean.
    """
    if not low < high:
        raise ArgumentError("truncated_normal", f"low={low} is not below high={high}", "swap them")
    size, kind, home = _shared("truncated_normal", shape, dtype, device, mean, std)
    u = random_uniform(*_draw(size, generator), shape=size, dtype=T.float64, device=home, centred=True)
    root = math.sqrt(0.5)

    def share(bound):
        z = (bound - mean) / std * root
        return E.erf(E.cast(z, dtype=T.float64)) if isinstance(z, Tensor) else math.erf(z)

    first, last = share(low), share(high)
    z = E.erfinv(u * (last - first) + first) * math.sqrt(2.0)
    return clip_to(E.cast(z, dtype=kind) * std + mean, low, high)


def clip_to(x, low, high):
    """x within bounds, of which infinite ones are none."""
    return E.clip(x, min=low if low > -math.inf else None, max=high if high < math.inf else None)


# ---------------------------------------------------------------- choices


@public
def categorical(logits, axis=-1, generator=None):
    """A class for each slice along axis, drawn with probabilities `softmax(logits)`: argmax of logits + Gumbel.

    logits: float[..., C, ...]. Returns: int64, without the axis. Source: Gumbel, 1954.
    """
    noise = gumbel(shape=logits.shape, dtype=logits.dtype, device=logits.device, generator=generator)
    return argmax(logits + noise, axis=axis)


def _check_weights(p):
    """Raise ArgumentError for what is no weight, and for a row of zeros."""
    words, fix = "a finite number from 0", "pass weights of that kind"
    refuse_outliers("multinomial", (("p", p),), 0.0, float(finfo(p.dtype).max), words, fix)
    if not p.size:
        return
    kind = p.type

    def refuse(least):
        if least == 0:
            raise ArgumentError(
                "multinomial", f"p: {kind} has a row of zeros", "give each row a weight above 0"
            )
        if least != least:
            raise ArgumentError("multinomial", f"p: {kind} has nan, which is not {words}", fix)

    with dispatch.set_grad(False):
        dispatch.state.executor.check(min_(max_(p, axis=-1)), refuse)


@public
def multinomial(p, num_samples, replacement=False, generator=None):
    """num_samples classes for each row of weights, in the order they are drawn.

    p: float[C] or float[N, C], weights from 0 that need not add up to 1; without replacement no class comes
    twice. Returns: int64[num_samples] or int64[N, num_samples].
    Raises: ArgumentError for more samples than classes without replacement, a weight that is negative or not finite,
    or a row without one above 0; ArgumentTypeError for a p of another rank.
    """
    if not isinstance(p, Tensor) or p.ndim not in (1, 2) or not p.dtype.is_float:
        raise ArgumentTypeError("multinomial", "p is no float tensor of one or two axes", "pass p[N, C]")
    classes = p.shape[-1]
    if num_samples < 1 or (not replacement and num_samples > classes):
        raise ArgumentError(
            "multinomial", f"cannot draw {num_samples} of {classes} classes", "use replacement=True"
        )
    _check_weights(p)
    if replacement:
        # The class whose share of the running sum holds u times the total.
        running = cumulative_sum(p, axis=-1)
        size = (*p.shape[:-1], num_samples)
        u = rand(size, dtype=p.dtype, device=p.device, generator=generator)
        mark = expand_dims(u * running[..., -1:], axis=-1)
        passed = E.less_equal(expand_dims(running, axis=-2), mark)
        return E.clip(sum_(E.cast(passed, dtype=T.int64), axis=-1), max=classes - 1)
    keys = E.log(p) + gumbel(shape=p.shape, dtype=p.dtype, device=p.device, generator=generator)
    drawn = []
    for _ in range(num_samples):
        best = argmax(keys, axis=-1, keepdims=True)
        drawn.append(best)
        keys = E.where(E.equal(arange(classes, device=p.device), best), -math.inf, keys)
    return concat(drawn, axis=-1)
