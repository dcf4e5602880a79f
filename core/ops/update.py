"""Optimiser updates: one op for one parameter, all its state in one pass over memory.

Numbers such as the learning rate are inputs, not attributes, so that a schedule compiles nothing.
"""

from __future__ import annotations

from .. import types as T
from ..op import pointwise
from ..scalar import cast, s

_NO_GRADIENT = "an optimiser step is not differentiated"
_NO_ONNX = "training is not exported"


@pointwise(no_gradient=_NO_GRADIENT, no_onnx=_NO_ONNX)
def sgd_update(p, grad, lr, weight_decay, *, maximize=False):
    """`p - lr * (grad + weight_decay * p)`."""
    d = (-grad if maximize else grad) + p * weight_decay
    return p - d * lr


sgd_update.sample((3, 4), (3, 4), 0.1, 0.01, grad=False)


@pointwise(no_gradient=_NO_GRADIENT, no_onnx=_NO_ONNX)
def sgd_momentum_update(p, grad, m, lr, weight_decay, momentum, dampening, *, nesterov=False, maximize=False):
    """SGD with momentum: `m = momentum * m + (1 - dampening) * d`; p goes along m (or `d + momentum * m`).

    Returns: (p, m). Source: Sutskever et al., 2013.
    """
    d = (-grad if maximize else grad) + p * weight_decay
    m = m * momentum + d * (1 - dampening)
    step = d + m * momentum if nesterov else m
    return p - step * lr, m


sgd_momentum_update.sample((3, 4), (3, 4), (3, 4), 0.1, 0.01, 0.9, 0.0, grad=False)


@pointwise(no_gradient=_NO_GRADIENT, no_onnx=_NO_ONNX)
def adam_scale(step, lr, beta1, beta2):
    """Adam's two scalars for step t (from 1), in float64: `lr / (1 - beta1**t)` and `1 / sqrt(1 - beta2**t)`."""
    t = cast(step, T.float64)
    one = cast(lr, T.float64)
    first = one / (1 - s.pow(cast(beta1, T.float64), t))
    second = 1 / s.sqrt(1 - s.pow(cast(beta2, T.float64), t))
    return first, second


adam_scale.sample((), 0.1, 0.9, 0.999, low=1.0, high=5.0, grad=False)


@pointwise(no_gradient=_NO_GRADIENT, no_onnx=_NO_ONNX)
def adam_update(
    p, grad, m, v, step_size, root_scale, lr, beta1, beta2, eps, weight_decay, *, decoupled=False, maximize=False
):
    """Adam (decoupled: AdamW): running moments m and v, `p - step_size * m / (sqrt(v) * root_scale + eps)`.

    step_size, root_scale: 0-d, from `adam_scale`. Returns: (p, m, v). Source: Kingma and Ba, 2014; Loshchilov
    and Hutter, 2017.
    """
    # Numbers stand beside float64 scalars here, so they are brought to the parameter's dtype by hand.
    lr, beta1, beta2, eps, weight_decay, step_size, root_scale = (
        cast(v, p.dtype) for v in (lr, beta1, beta2, eps, weight_decay, step_size, root_scale)
    )
    d = -grad if maximize else grad
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        d = d + p * weight_decay
    m = m + (d - m) * (1 - beta1)
    v = v * beta2 + d * d * (1 - beta2)
    denominator = s.sqrt(v) * root_scale + eps
    return p - m / denominator * step_size, m, v


adam_update.sample((3, 4), (3, 4), (3, 4), (3, 4), 0.1, 1.1, 0.1, 0.9, 0.999, 1e-8, 0.01, low=0.1, grad=False)
