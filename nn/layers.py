"""Layers with weights or shapes: Linear, LayerNorm, Dropout, Flatten."""

from __future__ import annotations

import math
from typing import Any

from ..core.errors import ShapeError
from ..core.kinds import Magnitude
from . import functional as F
from . import init
from .arguments import Ints, probability, size
from .module import Module
from .parameters import parameter, reset_weight_and_bias


class Identity(Module):
    """Its input. Takes and ignores any constructor arguments, so that it can stand in for another layer."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def forward(self, x: Any) -> Any:
        return x


class Linear(Module):
    """`x @ weight.T + bias`: a fully connected layer.

    in_features, out_features: sizes of the last axis before and after; bias: whether there is one.
    Parameters: weight: float[out_features, in_features], bias: float[out_features] or None, at first uniform
    within `1 / sqrt(in_features)`. Called with float[..., in_features]; returns float[..., out_features].
    Raises: ShapeError for another last axis.
    Example: `dg.nn.Linear(3, 2)(dg.ones((5, 3))).shape` is `(5, 2)`.
    """

    _absent = dict.fromkeys(("bias",), "parameter")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ):
        self.in_features = size("Linear", "in_features", in_features, 0)
        self.out_features = size("Linear", "out_features", out_features, 0)
        self.weight = parameter("Linear", (self.out_features, self.in_features), device, dtype)
        self.bias = parameter("Linear", (self.out_features,), device, dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        reset_weight_and_bias(self.weight, self.bias)

    def forward(self, x: Any) -> Any:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


class Bilinear(Module):
    """`x1 weight[k] x2 + bias[k]` for each output k.

    in1_features, in2_features, out_features: sizes of the last axes. Parameters: weight: float[out, in1, in2],
    bias: float[out] or None, at first uniform within `1 / sqrt(in1_features)`.
    Example: `dg.nn.Bilinear(3, 4, 2)(dg.ones((5, 3)), dg.ones((5, 4))).shape` is `(5, 2)`.
    """

    _absent = dict.fromkeys(("bias",), "parameter")

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        self.in1_features = size("Bilinear", "in1_features", in1_features, 1)
        self.in2_features = size("Bilinear", "in2_features", in2_features, 0)
        self.out_features = size("Bilinear", "out_features", out_features, 0)
        shape = (self.out_features, self.in1_features, self.in2_features)
        self.weight = parameter("Bilinear", shape, device, dtype)
        self.bias = parameter("Bilinear", (self.out_features,), device, dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        bound = 1 / math.sqrt(self.in1_features)
        for p in (self.weight, self.bias):
            if p is not None:
                init.uniform_(p, -bound, bound)

    def forward(self, x1: Any, x2: Any) -> Any:
        return F.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}"
        return f"{sizes}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """The axes from start_dim to end_dim as one: [N, ...] to [N, features] by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Any:
        return F.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Dropout(Module):
    """While training, elements are set to 0 with probability p and the rest divided by 1 - p.

    The mask is seeded by `dg.manual_seed`, the same in both modes. inplace is taken for PyTorch's sake: the
    result is always a new tensor. Raises: ArgumentError unless 0 <= p <= 1.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        self.p, self.inplace = probability("Dropout", p), inplace

    def forward(self, x: Any) -> Any:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LayerNorm(Module):
    """`(x - mean) / sqrt(var + eps) * weight + bias` over the last axes.

    normalized_shape: int or sizes of these axes; elementwise_affine: whether there are weight (ones at
    first) and, if `bias`, bias (zeros at first), of that shape. Raises: ShapeError for an input with other
    last axes.
    """

    _absent = dict.fromkeys(("weight", "bias"), "parameter")

    def __init__(
        self, normalized_shape: Ints, eps: Magnitude = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        sizes = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        self.normalized_shape = tuple(size("LayerNorm", "normalized_shape", n) for n in sizes)
        if not self.normalized_shape:
            raise ShapeError(
                "LayerNorm", "normalized_shape=() names no axis", "pass the size of the last axis"
            )
        self.eps, self.elementwise_affine = eps, bool(elementwise_affine)
        self.weight = (
            parameter("LayerNorm", self.normalized_shape, device, dtype) if elementwise_affine else None
        )
        has_bias = elementwise_affine and bias
        self.bias = parameter("LayerNorm", self.normalized_shape, device, dtype) if has_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Ones and zeros."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Any) -> Any:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
