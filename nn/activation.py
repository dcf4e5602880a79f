"""Activation layers."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentError
from ..core.kinds import NumberOrNan
from ..core.ops.creation import full
from . import functional as F
from .arguments import probability, size
from .module import Module, Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "AlphaDropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]  # fmt: skip

# `inplace` is taken because models written for PyTorch pass it; results are always new tensors, with equal
# values.


class ReLU(Module):
    """`max(x, 0)`, element by element. Example: `dg.nn.ReLU()(dg.tensor([-1.0, 2.0]))` is `[0, 2]`."""

    def __init__(self, inplace: bool = False):
        self.inplace = inplace

    def forward(self, x: Any) -> Any:
        return F.relu(x)


class GELU(Module):
    """`x * Phi(x)`, Phi the normal distribution function; approximate="tanh" uses tanh for it."""

    def __init__(self, approximate: str = "none"):
        if approximate not in ("none", "tanh"):
            raise ArgumentError("GELU", f"approximate={approximate!r}", 'use "none" or "tanh"')
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """`x * sigmoid(x)`, element by element."""

    def __init__(self, inplace: bool = False):
        self.inplace = inplace

    def forward(self, x: Any) -> Any:
        return F.silu(x)


class Sigmoid(Module):
    """`1 / (1 + exp(-x))`, element by element."""

    def forward(self, x: Any) -> Any:
        return F.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, element by element."""

    def forward(self, x: Any) -> Any:
        return F.tanh(x)


class LeakyReLU(Module):
    """x above 0, `negative_slope * x` below."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, x: Any) -> Any:
        return F.leaky_relu(x, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x above 0, `alpha * (exp(x) - 1)` below."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        self.alpha, self.inplace = alpha, inplace

    def forward(self, x: Any) -> Any:
        return F.elu(x, alpha=self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(Module):
    """`log(1 + exp(beta * x)) / beta`; x itself where beta * x is above the threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        if beta == 0:
            raise ArgumentError("Softplus", "beta=0 divides by zero", "use another beta")
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Any) -> Any:
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """`exp(x) / sum(exp(x))` along axis dim (the last one when left out)."""

    def __init__(self, dim: int | None = None):
        self.dim = -1 if dim is None else dim

    def forward(self, x: Any) -> Any:
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """`log(softmax(x))` along axis dim (the last one when left out)."""

    def __init__(self, dim: int | None = None):
        self.dim = -1 if dim is None else dim

    def forward(self, x: Any) -> Any:
        return F.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class _Settings(Module):
    """An activation that is a function of x and of settings with the names of the constructor's arguments."""

    function: Any = None
    settings: tuple[str, ...] = ()

    def forward(self, x: Any) -> Any:
        return type(self).function(x, **{name: getattr(self, name) for name in self.settings})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.settings)


class _Plain(_Settings):
    """An activation without settings."""

    def __init__(self, inplace: bool = False):
        self.inplace = inplace


class ReLU6(_Plain):
    """`min(max(x, 0), 6)`."""

    function = staticmethod(F.relu6)


class Hardswish(_Plain):
    """`x * clip(x / 6 + 1/2, 0, 1)`."""

    function = staticmethod(F.hardswish)


class Hardsigmoid(_Plain):
    """`clip(x / 6 + 1/2, 0, 1)`."""

    function = staticmethod(F.hardsigmoid)


class SELU(_Plain):
    """`scale * x` above 0, `scale * alpha * (exp(x) - 1)` below."""

    function = staticmethod(F.selu)


class Mish(_Plain):
    """`x * tanh(softplus(x))`."""

    function = staticmethod(F.mish)


class Softsign(_Settings):
    """`x / (1 + |x|)`."""

    function = staticmethod(F.softsign)


class LogSigmoid(_Settings):
    """`log(sigmoid(x))`."""

    function = staticmethod(F.logsigmoid)


class Tanhshrink(_Settings):
    """`x - tanh(x)`."""

    function = staticmethod(F.tanhshrink)


class Hardtanh(_Settings):
    """x limited to [min_val, max_val]."""

    function, settings = staticmethod(F.hardtanh), ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        if not min_val < max_val:
            raise ArgumentError("Hardtanh", f"min_val={min_val} is not below max_val={max_val}", "swap them")
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace


class CELU(_Settings):
    """x above 0, `alpha * (exp(x / alpha) - 1)` below."""

    function, settings = staticmethod(F.celu), ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        if alpha == 0:
            raise ArgumentError("CELU", "alpha=0 divides by zero", "use another alpha")
        self.alpha, self.inplace = alpha, inplace


class Threshold(_Settings):
    """x above the threshold, else `value`."""

    function, settings = staticmethod(F.threshold), ("threshold", "value")

    def __init__(self, threshold: float, value: NumberOrNan, inplace: bool = False):
        self.threshold, self.value, self.inplace = threshold, value, inplace


class Hardshrink(_Settings):
    """x outside [-lambd, lambd], else 0."""

    function, settings = staticmethod(F.hardshrink), ("lambd",)

    def __init__(self, lambd: float = 0.5):
        if not lambd >= 0:
            raise ArgumentError(type(self).__name__, f"lambd={lambd} is negative", "use a number from 0")
        self.lambd = lambd


class Softshrink(Hardshrink):
    """x moved towards 0 by lambd; 0 within it."""

    function = staticmethod(F.softshrink)


class RReLU(_Settings):
    """x above 0, below it times a random number in [lower, upper) (their mean in eval mode)."""

    function, settings = staticmethod(F.rrelu), ("lower", "upper", "training")

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False):
        if not lower <= upper:
            raise ArgumentError("RReLU", f"lower={lower} is above upper={upper}", "swap them")
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}"


class GLU(_Settings):
    """The first half of x along axis dim times the sigmoid of the second."""

    function, settings = staticmethod(F.glu), ("dim",)

    def __init__(self, dim: int = -1):
        self.dim = dim


class Softmin(_Settings):
    """`softmax(-x)` along axis dim (the last one when left out)."""

    function, settings = staticmethod(F.softmin), ("dim",)

    def __init__(self, dim: int | None = None):
        self.dim = -1 if dim is None else dim


class PReLU(Module):
    """x above 0, `weight * x` below; weight is learned: one number, or one for each channel of x[N, C, ...].

    num_parameters: 1 or C; init: the first value. Source: He et al., 2015.
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25):
        self.num_parameters = size("PReLU", "num_parameters", num_parameters)
        self.weight = Parameter(full((self.num_parameters,), float(init)))

    def forward(self, x: Any) -> Any:
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class _Dropout(_Settings):
    """A dropout that works in train mode only. p: the probability, from 0 to 1."""

    settings = ("p", "training")

    def __init__(self, p: float = 0.5, inplace: bool = False):
        self.p, self.inplace = probability(type(self).__name__, p), inplace

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout1d(_Dropout):
    """Dropout of whole channels of float[N, C, L]."""

    function = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """Dropout of whole channels of float[N, C, H, W]."""

    function = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """Dropout of whole channels of float[N, C, D, H, W]."""

    function = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance behind SELU."""

    function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels of float[N, C, ...]."""

    function = staticmethod(F.feature_alpha_dropout)
