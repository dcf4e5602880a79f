"""Activations and dropout by the names and arguments of torch.nn.functional."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.kinds import NumberOrNan
from ..core.numbers import real
from ..core.ops import activation as _A
from ..core.ops import rectifier as _R
from ..core.ops.activation import logsigmoid, mish, softsign, tanhshrink
from ..core.ops.random import uniform as _uniform
from ..core.ops.rectifier import hardsigmoid, hardswish, selu
from ..core.ops.shape import reshape as _reshape
from ..core.types import as_dtype as _as_dtype
from ..core.value import Tensor
from .arguments import probability as _probability

__all__ = [
    "alpha_dropout", "celu", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "glu", "gumbel_softmax",
    "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "logsigmoid", "mish", "prelu", "relu6", "rrelu", "selu",
    "softmin", "softshrink", "softsign", "tanhshrink", "threshold",
]  # fmt: skip


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x limited to [min_val, max_val]; the slope on the bounds is 0."""
    return _R.hardtanh(x, min_val=real(min_val), max_val=real(max_val))


def relu6(x: Tensor) -> Tensor:
    """`min(max(x, 0), 6)`; the slope at 0 and 6 is 0."""
    return _R.hardtanh(x, min_val=0.0, max_val=6.0)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x above 0, `alpha * (exp(x / alpha) - 1)` below; see `dg.celu`."""
    return _R.celu(x, alpha=alpha)


def threshold(x: Tensor, threshold: float, value: NumberOrNan) -> Tensor:
    """x above the threshold, else `value`."""
    return _R.threshold(x, threshold=real(threshold), value=real(value))


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """x outside [-lambd, lambd], else 0."""
    return _R.hardshrink(x, lambd=lambd)


def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd; 0 within it."""
    return _R.softshrink(x, lambd=lambd)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x above 0, `weight * x` below. x: float[N, C, ...]; weight: float[1], or float[C], one for each channel."""
    if weight.size == 1 or x.ndim < 2:
        return _R.prelu(x, weight)
    if weight.shape != (x.shape[1],):
        raise ShapeError(
            "prelu", f"weight: {weight.type} does not fit the channels of x: {x.type}", "pass [1] or [C]"
        )
    return _R.prelu(x, _reshape(weight, shape=(-1,) + (1,) * (x.ndim - 2)))


def rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Tensor:
    """x above 0, below it times a random number in [lower, upper), or times their mean when not training.

    Source: Xu et al., 2015.
    """
    if not lower <= upper:
        raise ArgumentError("rrelu", f"lower={lower} is above upper={upper}", "swap them")
    if not training:
        return _A.leaky_relu(x, negative_slope=(lower + upper) / 2)
    return _R.prelu(x, _uniform(lower, upper, x.shape, x.dtype, x.device))


def softmin(x: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:
    """`softmax(-x)` along axis `dim`, of x in `dtype` where that is given."""
    return _A.softmin(x if dtype is None else x.to(_as_dtype(dtype)), axis=dim)


def glu(x: Tensor, dim: int = -1) -> Tensor:
    """The first half of x along axis `dim` times the sigmoid of the second."""
    return _A.glu(x, axis=dim)


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, dim: int = -1) -> Tensor:
    """A random one-hot row, relaxed; see `dg.gumbel_softmax`."""
    return _A.gumbel_softmax(logits, tau, hard, dim)


# ---------------------------------------------------------------- dropout


def _drop(op: str, x: Tensor, p: float, training: bool, *ranks: int) -> Tensor:
    if x.ndim not in ranks:
        legal = " or ".join(str(n) for n in ranks)
        raise ShapeError(op, f"x: {x.type} has no {legal} axes", "pass x[N, C, ...] or x[C, ...]")
    if not training:
        return x
    if _probability(op, p) == 1.0:
        return x * 0.0
    batched = x.ndim == ranks[-1]
    y = x if batched else _reshape(x, shape=(1, *x.shape))
    out = _A.dropout_channels(y, p=real(p), training=True)
    return out if batched else _reshape(out, shape=x.shape)


def dropout1d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout of whole channels of float[N, C, L] or float[C, L]."""
    return _drop("dropout1d", x, p, training, 2, 3)


def dropout2d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout of whole channels of float[N, C, H, W] or float[C, H, W]."""
    return _drop("dropout2d", x, p, training, 3, 4)


def dropout3d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout of whole channels of float[N, C, D, H, W] or float[C, D, H, W]."""
    return _drop("dropout3d", x, p, training, 4, 5)


def alpha_dropout(x: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """Dropout that keeps mean and variance behind selu; see `dg.alpha_dropout`."""
    return _alpha("alpha_dropout", x, p, training, False)


def feature_alpha_dropout(x: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of float[N, C, ...]."""
    return _alpha("feature_alpha_dropout", x, p, training, True)


def _alpha(op: str, x: Tensor, p: float, training: bool, channels: bool) -> Tensor:
    if not training:
        return x
    if _probability(op, p) == 1.0:
        return x * 0.0
    return _A.alpha_dropout(x, p=real(p), training=True, channels=channels)
