"""Optimiser updates: one op for one parameter, all its state in one pass over memory.

Numbers such as the learning rate are inputs, not attributes, so that a schedule compiles nothing.
"""

from __future__ import annotations

from .. import types as T
from ..op import pointwise
from ..scalar import cast, s

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


@pointwise(internal=True, no_gradient=_NO_GRADIENT)
def adam_update(
    p, grad, m, v, step_size, root_scale, lr, beta1, beta2, eps, weight_decay, *,
    decoupled=False, maximize=False,
):  # fmt: skip
    """Adam (decoupled: AdamW): running moments m and v, `p - step_size * m / (sqrt(v) * root_scale + eps)`.

    step_size, root_scale: 0-d float64, from `adam_scale`. Returns: (p, m, v). Numerics: `1 - beta` and
    `1 - lr * weight_decay` are computed in float64. Source: Kingma and Ba, 2014; Loshchilov and Hutter, 2017.
    """
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
    return p - m / (s.sqrt(v) * root_scale + eps) * step_size, m, v


adam_update.sample((3, 4), (3, 4), (3, 4), (3, 4), 0.1, 1.1, 0.1, 0.9, 0.999, 1e-8, 0.01, low=0.1, grad=False)
