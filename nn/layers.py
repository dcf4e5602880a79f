"""Layers with weights, windows or shapes: Linear, Conv2d, pooling, LayerNorm, Embedding, Dropout, Flatten."""

from __future__ import annotations

import math
from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.ops.convolution import padding_pairs, pair
from ..core.ops.creation import empty
from ..core.types import as_dtype, float32
from ..core.value import Tensor
from . import functional as F
from . import init
from .arguments import only, probability, size
from .module import Module, Parameter


def _parameter(op: str, shape: tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    kind = float32 if dtype is None else as_dtype(dtype, op)
    return Parameter(empty(shape, dtype=kind, device=device))


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

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ):
        self.in_features = size("Linear", "in_features", in_features, 0)
        self.out_features = size("Linear", "out_features", out_features, 0)
        self.weight = _parameter("Linear", (self.out_features, self.in_features), device, dtype)
        self.bias = _parameter("Linear", (self.out_features,), device, dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        _reset_weight_and_bias(self.weight, self.bias)

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
        self.weight = _parameter("Bilinear", shape, device, dtype)
        self.bias = _parameter("Bilinear", (self.out_features,), device, dtype) if bias else None
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


def _reset_weight_and_bias(weight: Parameter, bias: Parameter | None) -> None:
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in = init.fans("reset_parameters", weight)[0]
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(bias, -bound, bound)


class Conv2d(Module):
    """Cross-correlation of images with trained filters.

    in_channels, out_channels: C and K; kernel_size, stride, dilation: int or (vertical, horizontal);
    padding: int, pair, "valid" or (stride 1) "same"; groups: channels and filters in that many independent
    parts. Parameters: weight: float[K, C/groups, R, S], bias: float[K] or None, at first uniform within
    `1 / sqrt(C/groups * R * S)`. Called with float[N, C, H, W]; returns float[N, K, P, Q].
    Raises: ArgumentError, ShapeError for other channels or an image smaller than the window.
    Example: `dg.nn.Conv2d(3, 8, 3, padding=1)(dg.ones((2, 3, 5, 5))).shape` is `(2, 8, 5, 5)`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        only("Conv2d", "padding_mode", padding_mode, "zeros")
        self.in_channels = size("Conv2d", "in_channels", in_channels)
        self.out_channels = size("Conv2d", "out_channels", out_channels)
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        self.stride, self.dilation = pair("Conv2d", "stride", stride), pair("Conv2d", "dilation", dilation)
        self.groups = size("Conv2d", "groups", groups)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ArgumentError(
                "Conv2d",
                f"groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}",
                "use a divisor of both",
            )  # fmt: skip
        self.padding = padding if isinstance(padding, str) else _short(padding_pairs("Conv2d", padding))
        if isinstance(padding, str):
            F.string_padding("Conv2d", padding, self.kernel_size, self.stride, self.dilation)
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = _parameter("Conv2d", shape, device, dtype)
        self.bias = _parameter("Conv2d", (self.out_channels,), device, dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        _reset_weight_and_bias(self.weight, self.bias)

    def forward(self, x: Any) -> Any:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        text += f", padding={self.padding!r}" if self.padding != (0, 0) else ""
        text += f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        return text + ("" if self.bias is not None else ", bias=False")


def _short(pads: Any) -> Any:
    """Padding as a pair when both sides are equal: what is printed and exported."""
    (top, bottom), (left, right) = pads
    return (top, left) if top == bottom and left == right else pads


class MaxPool2d(Module):
    """The maximum of each window of float[N, C, H, W].

    kernel_size, stride (kernel_size when None), padding, dilation: int or pair; padding counts as -inf.
    ceil_mode: a last window that ends outside the image counts too. Raises: ArgumentError for
    return_indices=True.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ):  # fmt: skip
        only("MaxPool2d", "return_indices", return_indices, False)
        self.kernel_size = pair("MaxPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("MaxPool2d", "stride", stride)
        self.padding = _short(padding_pairs("MaxPool2d", padding))
        self.dilation, self.ceil_mode = pair("MaxPool2d", "dilation", dilation), bool(ceil_mode)

    def forward(self, x: Any) -> Any:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        text = (
            f"kernel_size={_one(self.kernel_size)}, stride={_one(self.stride)}, padding={_one(self.padding)}"
        )
        return f"{text}, dilation={_one(self.dilation)}, ceil_mode={self.ceil_mode}"


def _one(value: Any) -> Any:
    return value[0] if value[0] == value[1] else value


class AvgPool2d(Module):
    """The mean of each window of float[N, C, H, W].

    kernel_size, stride (kernel_size when None), padding: int or pair; count_include_pad: padding counts as
    zeros. Raises: ArgumentError for ceil_mode=True or a divisor_override.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ):  # fmt: skip
        only("AvgPool2d", "ceil_mode", ceil_mode, False)
        only("AvgPool2d", "divisor_override", divisor_override, None)
        self.kernel_size = pair("AvgPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("AvgPool2d", "stride", stride)
        self.padding = _short(padding_pairs("AvgPool2d", padding))
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Any) -> Any:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, False, self.count_include_pad)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={_one(self.kernel_size)}, stride={_one(self.stride)}, padding={_one(self.padding)}"
        )


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

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
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
            _parameter("LayerNorm", self.normalized_shape, device, dtype) if elementwise_affine else None
        )
        has_bias = elementwise_affine and bias
        self.bias = _parameter("LayerNorm", self.normalized_shape, device, dtype) if has_bias else None
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


class Embedding(Module):
    """Rows of a trained table, picked by integers.

    num_embeddings, embedding_dim: its rows and columns; padding_idx: a row of zeros at first that gets no
    gradient. Parameter: weight: float[num_embeddings, embedding_dim], at first standard normal. Called with
    int[...]; returns float[..., embedding_dim]. Raises: IndexingError for an index outside (eager mode; NaN
    in a graph), ArgumentError for settings of PyTorch's that are not supported.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        only("Embedding", "max_norm", max_norm, None)
        only("Embedding", "norm_type", norm_type, 2.0)
        only("Embedding", "scale_grad_by_freq", scale_grad_by_freq, False)
        only("Embedding", "sparse", sparse, False)
        self.num_embeddings = size("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = size("Embedding", "embedding_dim", embedding_dim)
        if padding_idx is not None:
            if not -self.num_embeddings <= padding_idx < self.num_embeddings:
                raise ArgumentError(
                    "Embedding",
                    f"padding_idx={padding_idx} is outside {self.num_embeddings} rows",
                    "use one of them",
                )
            padding_idx %= self.num_embeddings
        self.padding_idx = padding_idx
        self.weight = _parameter("Embedding", (self.num_embeddings, self.embedding_dim), device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            row: Tensor = self.weight.detach()[self.padding_idx]
            init.zeros_(row)

    def forward(self, index: Any) -> Any:
        return F.embedding(index, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        pad = f", padding_idx={self.padding_idx}" if self.padding_idx is not None else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{pad}"
