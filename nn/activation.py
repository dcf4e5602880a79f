"""Activation layers."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentError
from . import functional as F
from .module import Module

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
