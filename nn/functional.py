"""Layers as functions, by the names and arguments of torch.nn.functional, over the ops of the registry."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentTypeError as _ArgumentTypeError
from ..core.errors import ShapeError
from ..core.foreign import unknown as _unknown
from ..core.kinds import truth as _truth
from ..core.numbers import real
from ..core.old_values import write_over as _write_over
from ..core.ops import activation as _A
from ..core.ops import elementwise as _E
from ..core.ops.activation import elu, gelu, leaky_relu, relu, silu
from ..core.ops.elementwise import sigmoid, tanh
from ..core.ops.linalg import linear
from ..core.ops.loss import binary_cross_entropy_with_logits as _bce
from ..core.ops.loss import cross_entropy as _cross_entropy
from ..core.ops.loss import l1_loss, mse_loss
from ..core.ops.loss import nll_loss as _nll_loss
from ..core.ops.products import bilinear
from ..core.spoken import spell as _spell
from ..core.strangers import unfit as _unfit
from ..core.types import as_dtype as _as_dtype
from ..core.value import Tensor
from . import functional_activation as _activation
from . import functional_attention as _attention
from . import functional_loss as _loss
from . import functional_norm as _norm
from . import functional_shape as _shape
from . import spatial as _spatial
from .arguments import probability
from .fractional import fractional_max_pool2d, fractional_max_pool3d
from .functional_activation import *  # noqa: F403
from .functional_attention import *  # noqa: F403
from .functional_loss import *  # noqa: F403
from .functional_norm import *  # noqa: F403
from .functional_shape import *  # noqa: F403
from .spatial import *  # noqa: F403

__all__ = [
    "bilinear", "binary_cross_entropy_with_logits", "cross_entropy", "dropout", "elu", "fractional_max_pool2d",
    "fractional_max_pool3d",
    "gelu", "l1_loss", "leaky_relu", "linear", "log_softmax",
    "mse_loss", "nll_loss", "relu", "sigmoid", "silu", "softmax",
    "softplus", "tanh",
    *_spatial.__all__, *_activation.__all__, *_attention.__all__, *_loss.__all__, *_shape.__all__, *_norm.__all__,
]  # fmt: skip


def _over(fn: Any, name: str) -> Any:
    """A function of these that takes `inplace=True`, too: the result is written over x, which is returned."""

    def call(*args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        if inplace.__class__ is not bool and not _truth(inplace):
            raise _ArgumentTypeError(name, *_unfit("inplace", inplace, "True or False"))
        return _write_over(fn, *args, **kwargs) if inplace and args else fn(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"{fn.__doc__}\n\n    inplace: write the result over x, and return x."
    return call


# ---------------------------------------------------------------- activations


def softmax(x: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:
    """`exp(x) / sum(exp(x))` along axis `dim`, of x in `dtype` where that is given; see `dg.softmax`."""
    return _A.softmax(x if dtype is None else x.to(_as_dtype(dtype)), axis=dim)


def log_softmax(x: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:
    """`log(softmax(x))` along axis `dim`, of x in `dtype` where that is given; see `dg.log_softmax`."""
    return _A.log_softmax(x if dtype is None else x.to(_as_dtype(dtype)), axis=dim)


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """`log(1 + exp(beta * x)) / beta`; x itself where beta * x is above the threshold.

    Numerics: with beta = 1 and threshold = 20 the formula is used everywhere: no overflow, and at most 2e-9
    off x.
    """
    if beta == 1 and threshold == 20:
        return _A.softplus(x)
    scaled = x * beta
    return _E.where(_E.greater(scaled, threshold), x, _A.softplus(scaled) / beta)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """x with each element set to 0 with probability p and the rest divided by 1 - p; x itself when not
    training.

    Raises: ArgumentError unless 0 <= p <= 1.
    """
    if not training:
        return x
    if probability("dropout", p) == 1.0:
        return x * 0.0
    return _A.dropout(x, p=real(p), training=True)


# ---------------------------------------------------------------- losses


def cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """The cross entropy of logits and classes or probabilities; see `dg.cross_entropy`."""
    return _cross_entropy(
        x, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


def nll_loss(
    x: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Minus the log-probability of the target class; see `dg.nll_loss`."""
    return _nll_loss(x, target, weight, ignore_index=ignore_index, reduction=reduction)


def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """The binary cross entropy of logits x and targets in [0, 1] of equal shape.

    weight: factor of each loss; pos_weight: factor of its positive part; both broadcast to x. Numerics: no
    overflow.
    """
    if weight is None and pos_weight is None:
        return _bce(x, target, reduction=reduction)
    if pos_weight is None:
        each = _bce(x, target, reduction="none")
    else:
        positive = target * _A.softplus(_E.negative(x)) * pos_weight
        each = positive + (1 - target) * _A.softplus(x)
        if x.shape != target.shape or each.shape != x.shape:
            raise ShapeError(
                "binary_cross_entropy_with_logits",
                f"input {x.type}, target {target.type} and pos_weight {pos_weight.type} do not fit",
                "input and target have one shape, pos_weight broadcasts to it",
            )
    if weight is not None:
        each = each * weight
    return each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each


_spell(globals(), __all__)
for _name in (
    "alpha_dropout celu dropout dropout1d dropout2d dropout3d elu feature_alpha_dropout hardsigmoid hardswish hardtanh "
    "leaky_relu mish relu relu6 rrelu selu silu threshold"
).split():
    globals()[_name] = _over(globals()[_name], _name)


def __getattr__(name: str) -> Any:
    raise _unknown("dg.nn.functional", name, globals())
