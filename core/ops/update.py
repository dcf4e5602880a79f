"""Optimiser updates: one op for one parameter, all its state in one pass over memory.

Numbers such as the learning rate are inputs, not attributes, so that a schedule compiles nothing.
"""

from __future__ import annotations

from .. import types as T
from ..dtype_info import finfo
from ..op import pointwise
from ..scalar import cast, const, s

_NO_GRADIENT = "an optimiser step is not differentiated"


def _narrow(p, *numbers):
    """Numbers in p's dtype. Beside a float64 0-d input they come in float64: work on them loses nothing."""
    return tuple(cast(v, p.dtype) for v in numbers)


@pointwise(internal=True, no_gradient=_NO_GRADIENT)
def sgd_update(p, grad, lr, weight_decay, *, maximize=False):
    """`p - lr * (grad + weight_decay * p)`."""
    d = (-grad if maximize else grad) + p * weight_decay
    return p - d * lr


sgd_update.sample((3, 4), (3, 4), 0.1, 0.01, grad=False)


@pointwise(internal=True, no_gradient=_NO_GRADIENT)
def sgd_share(step, dampening):
    """How much of a gradient enters SGD's momentum: all of the first one (step 0), then `1 - dampening`."""
    return s.where(s.eq(step, 0), 1.0, 1 - dampening)


sgd_share.sample((), 0.1, grad=False)


@pointwise(internal=True, no_gradient=_NO_GRADIENT)
def sgd_momentum_update(p, grad, m, lr, weight_decay, momentum, share, *, nesterov=False, maximize=False):
    """SGD with momentum: `m = momentum * m + share * d`; p goes along m (nesterov: along `d + momentum * m`).

    share: a number, or 0-d from `sgd_share`. Returns: (p, m). Source: Sutskever et al., 2013.
    """
    lr, weight_decay, momentum, share = _narrow(p, lr, weight_decay, momentum, share)
    d = (-grad if maximize else grad) + p * weight_decay
    m = m * momentum + d * share
    step = d + m * momentum if nesterov else m
    return p - step * lr, m


sgd_momentum_update.sample((3, 4), (3, 4), (3, 4), 0.1, 0.01, 0.9, 1.0, grad=False)


@pointwise(internal=True, no_gradient=_NO_GRADIENT)
def adam_scale(step, lr, beta1, beta2):
    """Adam's scalars for step t (from 1), in float64: `lr / (1 - beta1**t)`, `1 / sqrt(1 - beta2**t)`."""
    t = cast(step, T.float64)
    first = cast(lr, T.float64) / (1 - s.pow(cast(beta1, T.float64), t))
    second = 1 / s.sqrt(1 - s.pow(cast(beta2, T.float64), t))
    return first, second


adam_scale.sample((), 0.1, 0.9, 0.999, low=1.0, high=5.0, grad=False)


def _moments(p, grad, m, v, step_size, root_scale, lr, beta1, beta2, eps, weight_decay, decoupled, maximize):
    """What Adam's forms share: (p after decoupled decay, m, v, and the numbers of the step in p's dtype)."""
    step_size, root_scale, beta2, rest1, rest2, eps, kept, decay = _narrow(
        p, step_size, root_scale, beta2, 1 - beta1, 1 - beta2, eps, 1 - lr * weight_decay, weight_decay
    )
    d = -grad if maximize else grad
    if decoupled:
        p = p * kept
    else:
        d = d + p * decay
    m = m + (d - m) * rest1
    v = v * beta2 + d * d * rest2
    return p, m, v, step_size, root_scale, eps


@pointwise(internal=True, no_gradient=_NO_GRADIENT)
def adam_update(
    p, grad, m, v, step_size, root_scale, lr, beta1, beta2, eps, weight_decay, *,
    decoupled=False, maximize=False,
):  # fmt: skip
    """Adam (decoupled: AdamW): running moments m and v, `p - step_size * m / (sqrt(v) * root_scale + eps)`.

    step_size, root_scale: 0-d float64, from `adam_scale`. Returns: (p, m, v). Numerics: `1 - beta` and
    `1 - lr * weight_decay` are computed in float64. Source: Kingma and Ba, 2014; Loshchilov and Hutter, 2017.
    """
    p, m, v, step_size, root_scale, eps = _moments(
        p, grad, m, v, step_size, root_scale, lr, beta1, beta2, eps, weight_decay, decoupled, maximize
    )
    return p - m / (s.sqrt(v) * root_scale + eps) * step_size, m, v


adam_update.sample((3, 4), (3, 4), (3, 4), (3, 4), 0.1, 1.1, 0.1, 0.9, 0.999, 1e-8, 0.01, low=0.1, grad=False)


@pointwise(internal=True, no_gradient=_NO_GRADIENT)
def adam_max_update(
    p, grad, m, v, v_max, step_size, root_scale, lr, beta1, beta2, eps, weight_decay, *,
    decoupled=False, maximize=False,
):  # fmt: skip
    """AMSGrad: `adam_update` with the largest v so far in the denominator.

    Returns: (p, m, v, v_max). Source: Reddi et al., 2018.
    """
    p, m, v, step_size, root_scale, eps = _moments(
        p, grad, m, v, step_size, root_scale, lr, beta1, beta2, eps, weight_decay, decoupled, maximize
    )
    v_max = s.maximum(v_max, v)
    return p - m / (s.sqrt(v_max) * root_scale + eps) * step_size, m, v, v_max


adam_max_update.sample(
    (3, 4), (3, 4), (3, 4), (3, 4), (3, 4), 0.1, 1.1, 0.1, 0.9, 0.999, 1e-8, 0.01, low=0.1, grad=False
)


# ---------------------------------------------------------------- others; numbers arrive in float64


def _rule(*sample, low=0.1):
    """An update op over (p, grad, state ..., numbers ...); the sample gives tensors as shapes."""

    def declare(fn):
        op = pointwise(internal=True, no_gradient=_NO_GRADIENT, wide_numbers=True)(fn)
        return op.sample(*sample, low=low, grad=False)

    return declare


_P = (3, 4)


def _direction(p, grad, weight_decay, maximize):
    return (-grad if maximize else grad) + p * weight_decay


@_rule(_P, _P, _P, 0.1, 0.99, 1e-8, 0.01)
def rmsprop_update(p, grad, v, lr, alpha, eps, weight_decay, *, maximize=False):
    """`p - lr * d / (sqrt(v) + eps)`, v the running mean square. Returns: (p, v). Source: Hinton, 2012."""
    rest = 1 - alpha
    lr, alpha, rest, eps, weight_decay = _narrow(p, lr, alpha, rest, eps, weight_decay)
    d = _direction(p, grad, weight_decay, maximize)
    v = v * alpha + d * d * rest
    return p - d / (s.sqrt(v) + eps) * lr, v


@_rule(_P, _P, _P, _P, 0.1, 0.99, 1e-8, 0.01, 0.9)
def rmsprop_momentum_update(p, grad, v, buffer, lr, alpha, eps, weight_decay, momentum, *, maximize=False):
    """RMSprop along a buffer: `buffer = momentum * buffer + d / (sqrt(v) + eps)`. Returns: (p, v, buffer)."""
    rest = 1 - alpha
    lr, alpha, rest, eps, weight_decay, momentum = _narrow(p, lr, alpha, rest, eps, weight_decay, momentum)
    d = _direction(p, grad, weight_decay, maximize)
    v = v * alpha + d * d * rest
    buffer = buffer * momentum + d / (s.sqrt(v) + eps)
    return p - buffer * lr, v, buffer


@_rule(_P, _P, _P, _P, _P, 0.1, 0.99, 1e-8, 0.01, 0.9, low=0.5)
def rmsprop_centered_update(
    p, grad, v, mean, buffer, lr, alpha, eps, weight_decay, momentum, *, maximize=False
):
    """RMSprop by the running variance `v - mean**2`, with a buffer. Returns: (p, v, mean, buffer)."""
    rest = 1 - alpha
    lr, alpha, rest, eps, weight_decay, momentum = _narrow(p, lr, alpha, rest, eps, weight_decay, momentum)
    d = _direction(p, grad, weight_decay, maximize)
    v = v * alpha + d * d * rest
    mean = mean + (d - mean) * rest
    buffer = buffer * momentum + d / (s.sqrt(s.maximum(v - mean * mean, 0)) + eps)
    return p - buffer * lr, v, mean, buffer


@_rule((), 0.1, 0.01, low=1.0)
def adagrad_scale(step, lr, lr_decay):
    """Adagrad's step size at step t (from 1): `lr / (1 + (t - 1) * lr_decay)`."""
    t = cast(step, T.float64)
    return lr / ((t - 1) * lr_decay + 1)


@_rule(_P, _P, _P, 0.1, 1e-10, 0.01)
def adagrad_update(p, grad, total, step_size, eps, weight_decay, *, maximize=False):
    """`p - step_size * d / (sqrt(total) + eps)`, total the sum of squares. Returns: (p, total).

    Source: Duchi et al., 2011.
    """
    step_size, eps, weight_decay = _narrow(p, step_size, eps, weight_decay)
    d = _direction(p, grad, weight_decay, maximize)
    total = total + d * d
    return p - d / (s.sqrt(total) + eps) * step_size, total


@_rule(_P, _P, _P, _P, 1.0, 0.9, 1e-6, 0.01)
def adadelta_update(p, grad, v, moved, lr, rho, eps, weight_decay, *, maximize=False):
    """`step = sqrt(moved + eps) / sqrt(v + eps) * d`; v and moved: running means of d**2 and step**2.

    Returns: (p, v, moved). Source: Zeiler, 2012.
    """
    rest = 1 - rho
    lr, rho, rest, eps, weight_decay = _narrow(p, lr, rho, rest, eps, weight_decay)
    d = _direction(p, grad, weight_decay, maximize)
    v = v * rho + d * d * rest
    step = s.sqrt(moved + eps) / s.sqrt(v + eps) * d
    moved = moved * rho + step * step * rest
    return p - step * lr, v, moved


@_rule((), 0.1, 0.9, low=1.0)
def adamax_scale(step, lr, beta1):
    """Adamax's step size at step t (from 1): `lr / (1 - beta1**t)`."""
    return lr / (1 - s.pow(beta1, cast(step, T.float64)))


@_rule(_P, _P, _P, _P, 0.1, 0.9, 0.999, 1e-8, 0.01)
def adamax_update(p, grad, m, top, step_size, beta1, beta2, eps, weight_decay, *, maximize=False):
    """`p - step_size * m / top`, `top = max(beta2 * top, |d| + eps)`. Returns: (p, m, top).

    Source: Kingma and Ba, 2014, section 7.
    """
    rest = 1 - beta1
    step_size, rest, beta2, eps, weight_decay = _narrow(p, step_size, rest, beta2, eps, weight_decay)
    d = _direction(p, grad, weight_decay, maximize)
    m = m + (d - m) * rest
    top = s.maximum(top * beta2, s.abs(d) + eps)
    return p - m / top * step_size, m, top


@_rule((), (), 0.1, 0.9, 0.999, 4e-3, low=1.0)
def nadam_scale(step, product, lr, beta1, beta2, momentum_decay):
    """NAdam's scalars for step t (from 1), in float64: of the gradient, of the momentum, of the root, product.

    product: of the momenta so far, `mu(t) = beta1 * (1 - 0.96**(t * momentum_decay) / 2)`.
    """
    t = cast(step, T.float64)

    def mu(t):
        return beta1 * (1 - s.pow(const(0.96, T.float64), t * momentum_decay) * 0.5)

    now, following = mu(t), mu(t + 1)
    product = cast(product, T.float64) * now
    direct = (1 - now) * lr / (1 - product)
    along = following * lr / (1 - product * following)
    return direct, along, 1 / s.sqrt(1 - s.pow(beta2, t)), product


@_rule(_P, _P, _P, _P, 0.1, 0.1, 1.0, 0.1, 0.9, 0.999, 1e-8, 0.01)
def nadam_update(
    p, grad, m, v, direct, along, root_scale, lr, beta1, beta2, eps, weight_decay, *,
    decoupled=False, maximize=False,
):  # fmt: skip
    """`p - (direct * d + along * m) / (sqrt(v) * root_scale + eps)`: Adam with Nesterov's momentum.

    Returns: (p, m, v). Source: Dozat, 2016.
    """
    direct, along, root_scale, beta2, rest1, rest2, eps, kept, decay = _narrow(
        p, direct, along, root_scale, beta2, 1 - beta1, 1 - beta2, eps, 1 - lr * weight_decay, weight_decay
    )
    d = -grad if maximize else grad
    if decoupled:
        p = p * kept
    else:
        d = d + p * decay
    m = m + (d - m) * rest1
    v = v * beta2 + d * d * rest2
    root = s.sqrt(v) * root_scale + eps
    return p - d / root * direct - m / root * along, m, v


@_rule((), 0.1, 0.9, 0.999, low=1.0)
def radam_scale(step, lr, beta1, beta2):
    """RAdam's scalars for step t (from 1), in float64: the step size, and the rectification (0 while unknown).

    Source: Liu et al., 2019.
    """
    t = cast(step, T.float64)
    power = s.pow(beta2, t)
    longest = 2 / (1 - beta2) - 1
    length = longest - t * 2 * power / (1 - power)
    ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    known = s.gt(length, 5)
    rectified = s.sqrt(s.where(known, ratio, 1.0)) * s.sqrt(1 - power)
    return lr / (1 - s.pow(beta1, t)), s.where(known, rectified, 0.0)


@_rule(_P, _P, _P, _P, 0.1, 0.5, 0.1, 0.9, 0.999, 1e-8, 0.01)
def radam_update(
    p, grad, m, v, step_size, rectified, lr, beta1, beta2, eps, weight_decay, *, decoupled=False, maximize=False,
):  # fmt: skip
    """Adam whose denominator is left out while its variance is unknown (rectified = 0). Returns: (p, m, v)."""
    p, m, v, step_size, rectified, eps = _moments(
        p, grad, m, v, step_size, rectified, lr, beta1, beta2, eps, weight_decay, decoupled, maximize
    )
    share = s.where(s.gt(rectified, 0), rectified / (s.sqrt(v) + eps), 1.0)
    return p - m * share * step_size, m, v


@_rule((), 0.1, low=1.0)
def rprop_first(step, lr):
    """The first lengths of Rprop's steps: lr at step 1, 0 later, when parameters have their own."""
    return s.where(s.eq(step, 1), lr, 0.0)


@_rule(_P, _P, _P, _P, 0.0, 0.5, 1.2, 1e-6, 50.0)
def rprop_update(p, grad, prev, size, first, eta_minus, eta_plus, least, most, *, maximize=False):
    """Steps of length `size` against the gradient's sign; size grows while the sign stays and shrinks when it turns.

    After a turn the gradient counts as 0. Returns: (p, prev, size). Source: Riedmiller and Braun, 1993.
    """
    first, eta_minus, eta_plus, least, most = _narrow(p, first, eta_minus, eta_plus, least, most)
    d = -grad if maximize else grad
    turn = d * prev
    factor = s.where(s.gt(turn, 0), eta_plus, s.where(s.lt(turn, 0), eta_minus, 1.0))
    size = s.minimum(s.maximum(s.where(s.gt(first, 0), first, size) * factor, least), most)
    d = s.where(s.lt(turn, 0), 0.0, d)
    return p - s.sign(d) * size, d, size


@_rule((), (), 0.1, 1e-4, 0.75, 1e6, low=1.0)
def asgd_scale(step, eta, lr, lambd, alpha, t0):
    """ASGD's scalars for step t (from 1), in float64: the step size, the weight of the mean, the next step size."""
    t = cast(step, T.float64)
    now = s.where(s.eq(t, 1), lr, cast(eta, T.float64))
    return now, 1 / s.maximum(t - 1 - t0, 1.0), lr / s.pow(lr * lambd * t + 1, alpha)


@_rule(_P, _P, _P, 0.1, 1.0, 1e-4, 0.01)
def asgd_update(p, grad, mean, eta, mu, lambd, weight_decay, *, maximize=False):
    """`p * (1 - lambd * eta) - eta * d`, and the mean of the parameters since t0. Returns: (p, mean).

    Source: Polyak and Juditsky, 1992.
    """
    kept = 1 - lambd * eta
    eta, mu, kept, weight_decay = _narrow(p, eta, mu, kept, weight_decay)
    p = p * kept - _direction(p, grad, weight_decay, maximize) * eta
    return p, s.where(s.eq(mu, 1), p, mean + (p - mean) * mu)


@_rule((), 0.1, -0.8, low=1.0)
def adafactor_scale(step, lr, beta2_decay):
    """Adafactor's scalars for step t (from 1), in float64: the weight of a new square, the longest step."""
    t = cast(step, T.float64)
    return s.pow(t, beta2_decay), s.minimum(lr, 1 / s.sqrt(t))


@_rule(_P, _P, 0.3)
def adafactor_mean(mean, value, rest):
    """`mean + (value - mean) * rest`, in the dtype of the mean."""
    (rest,) = _narrow(mean, rest)
    return mean + (value - mean) * rest


def _least(p, eps):
    """eps in p's dtype; NaN stands for the dtype's own."""
    return s.where(s.ne(eps, eps), float(finfo(p.dtype).eps), *_narrow(p, eps))


@_rule(_P, (3, 1), (1, 4), (1, 1), 1e-3)
def adafactor_direction(d, rows, columns, top, eps):
    """d over the root of `rows * columns / top`, which stands for the mean of `d**2`."""
    eps = _least(d, eps)
    return d / s.sqrt(s.maximum(rows * columns / s.maximum(top, eps), eps * eps))


@_rule(_P, _P, 1e-3)
def adafactor_vector_direction(d, v, eps):
    """d over the root of its mean square v."""
    eps = _least(d, eps)
    return d / s.sqrt(s.maximum(v, eps * eps))


@_rule(_P, _P, (), (), 0.1, 0.1, 1e-3, 1.0, 0.01)
def adafactor_update(p, u, p_square, u_square, longest, lr, eps, clip, weight_decay):
    """A step along u: as long as the parameter is large, at least eps, and not far above clip. Returns: p.

    p_square, u_square: mean squares. Source: Shazeer and Stern, 2018.
    """
    longest, eps, clip, kept = _narrow(p, longest, eps, clip, 1 - lr * weight_decay)
    length = s.maximum(s.sqrt(p_square), eps) * longest
    return p * kept - u * (length / s.maximum(s.sqrt(u_square) / clip, 1.0))


@_rule(_P, _P, 0.95)
def muon_momentum(m, grad, momentum, *, nesterov=True):
    """The running mean m of gradients, and the direction: m, or with nesterov the gradient drawn to it."""
    rest = 1 - momentum
    momentum, rest = _narrow(m, momentum, rest)
    m = m + (grad - m) * rest
    return (grad + (m - grad) * momentum if nesterov else m), m


@_rule(_P, (), 1e-7)
def muon_unit(x, square, eps):
    """x over its norm, whose square is given, or over eps."""
    return x / s.maximum(s.sqrt(square), *_narrow(x, eps))


@_rule(_P, _P, 2.0, 0.5)
def muon_mix(x, y, a, b):
    """`a x + b y`."""
    a, b = _narrow(x, a, b)
    return x * a + y * b


@_rule(_P, _P, 0.1, 0.1, 1.0)
def muon_update(p, u, lr, weight_decay, ratio):
    """`p * (1 - lr * weight_decay) - lr * ratio * u`. Source: Jordan et al., 2024."""
    kept, size = _narrow(p, 1 - lr * weight_decay, lr * ratio)
    return p * kept - u * size


@_rule(_P, _P, _P, 0.1, 0.9, 0.99, 0.01)
def lion_update(p, grad, m, lr, beta1, beta2, weight_decay, *, maximize=False):
    """`p * (1 - lr * weight_decay) - lr * sign(beta1 * m + (1 - beta1) * d)`. Returns: (p, m).

    Source: Chen et al., 2023.
    """
    kept, rest1, rest2 = 1 - lr * weight_decay, 1 - beta1, 1 - beta2
    lr, kept, beta1, rest1, beta2, rest2 = _narrow(p, lr, kept, beta1, rest1, beta2, rest2)
    d = -grad if maximize else grad
    out = p * kept - s.sign(m * beta1 + d * rest1) * lr
    return out, m * beta2 + d * rest2
