"""Normalisation layers, by PyTorch's names, with its parameters and buffers."""

from __future__ import annotations

from typing import Any

from ..core import dispatch
from ..core.errors import ArgumentError, ShapeError
from ..core.kinds import Count, Magnitude, Share
from ..core.ops.creation import ones, zeros
from ..core.types import as_dtype, float32, int64
from . import functional_norm as F
from . import init
from .arguments import Ints, size
from .module import Module, Parameter

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LocalResponseNorm", "RMSNorm",
]  # fmt: skip


class _Channels(Module):
    """A norm with one weight and bias for each channel, and perhaps running statistics. ndim: axes it takes."""

    ndim: tuple[int, ...] = ()
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    _absent = dict.fromkeys(("weight", "bias"), "parameter")

    def __init__(
        self,
        num_features: int,
        eps: Magnitude,
        momentum: Share | None,
        affine: bool,
        track_running_stats: bool,
        device: Any,
        dtype: Any,
    ):
        name = type(self).__name__
        kind = float32 if dtype is None else as_dtype(dtype, name)
        self.num_features = size(name, "num_features", num_features)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = bool(affine), bool(track_running_stats)
        shape = (self.num_features,)
        self.weight = Parameter(ones(shape, dtype=kind, device=device)) if affine else None
        self.bias = Parameter(zeros(shape, dtype=kind, device=device)) if affine else None
        tracks = self.track_running_stats
        self.register_buffer("running_mean", zeros(shape, dtype=kind, device=device) if tracks else None)
        self.register_buffer("running_var", ones(shape, dtype=kind, device=device) if tracks else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=int64, device=device) if tracks else None)

    def reset_running_stats(self) -> None:
        """Running statistics as at first: mean 0, variance 1."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            self.num_batches_tracked.copy_(0)

    def reset_parameters(self) -> None:
        """Ones and zeros, and running statistics as at first."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check(self, x: Any) -> None:
        name = type(self).__name__
        if x.ndim not in self.ndim:
            raise ShapeError(
                name, f"takes {' or '.join(map(str, self.ndim))} axes, got x: {x.type}", "reshape x"
            )

    def extra_repr(self) -> str:
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        return f"{text}, track_running_stats={self.track_running_stats}"


class _BatchNorm(_Channels):
    def __init__(
        self, num_features: int, eps: Magnitude = 1e-5, momentum: Share | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, x: Any) -> Any:
        self._check(x)
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:
            with dispatch.set_grad(False):
                self.num_batches_tracked += 1
                if self.momentum is None:
                    momentum = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
        by_batch = self.training or self.running_mean is None
        follows = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if follows else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, by_batch, momentum, self.eps)


_BATCH = """`(x - mean) / sqrt(var + eps) * weight + bias` by channel.

    num_features: C; momentum: the share of a new batch in the running statistics (None: their plain mean over all
    batches); affine: whether there are weight (ones at first) and bias (zeros); track_running_stats: whether there
    are the buffers running_mean, running_var (unbiased) and num_batches_tracked, which training updates in
    place and evaluation uses. Called with {shape}; returns the same. Raises: ShapeError for other axes,
    ArgumentError for one value by channel while training.
    """


class BatchNorm1d(_BatchNorm):
    __doc__ = _BATCH.format(shape="float[N, C] or float[N, C, L]")
    ndim = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BATCH.format(shape="float[N, C, H, W]")
    ndim = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = _BATCH.format(shape="float[N, C, D, H, W]")
    ndim = (5,)


class _InstanceNorm(_Channels):
    def __init__(
        self, num_features: int, eps: Magnitude = 1e-5, momentum: Share = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, x: Any) -> Any:
        self._check(x)
        single = x.ndim == min(self.ndim)  # one image without a batch axis
        by_image = self.training or not self.track_running_stats
        out = F.instance_norm(
            x[None] if single else x, self.running_mean, self.running_var, self.weight, self.bias, by_image,
            self.momentum or 0.0, self.eps,
        )  # fmt: skip
        return out[0] if single else out


_INSTANCE = """`(x - mean) / sqrt(var + eps) * weight + bias`, every channel of every image by itself.

    num_features: C; affine: whether there are weight (ones at first) and bias (zeros); track_running_stats: whether
    evaluation uses running statistics (buffers running_mean, running_var, updated in training with momentum).
    Called with {shape}, or without N; returns the same. Raises: ShapeError for other axes.
    """


class InstanceNorm1d(_InstanceNorm):
    __doc__ = _INSTANCE.format(shape="float[N, C, L]")
    ndim = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = _INSTANCE.format(shape="float[N, C, H, W]")
    ndim = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = _INSTANCE.format(shape="float[N, C, D, H, W]")
    ndim = (4, 5)


class GroupNorm(Module):
    """`(x - mean) / sqrt(var + eps) * weight + bias` over groups of channels of each image.

    num_groups: a divisor of num_channels; affine: whether there are weight (ones at first) and bias (zeros), one
    number for each channel. Called with float[N, C, ...]; returns the same.
    Raises: ArgumentError for a num_groups that is no divisor.
    """

    _absent = dict.fromkeys(("weight", "bias"), "parameter")

    def __init__(
        self, num_groups: int, num_channels: int, eps: Magnitude = 1e-5, affine: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        self.num_groups = size("GroupNorm", "num_groups", num_groups)
        self.num_channels = size("GroupNorm", "num_channels", num_channels)
        if self.num_channels % self.num_groups:
            raise ArgumentError(
                "GroupNorm",
                f"num_groups={num_groups} does not divide num_channels={num_channels}",
                "use a divisor",
            )
        self.eps, self.affine = eps, bool(affine)
        kind = float32 if dtype is None else as_dtype(dtype, "GroupNorm")
        shape = (self.num_channels,)
        self.weight = Parameter(ones(shape, dtype=kind, device=device)) if affine else None
        self.bias = Parameter(zeros(shape, dtype=kind, device=device)) if affine else None

    def forward(self, x: Any) -> Any:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class RMSNorm(Module):
    """`x / sqrt(mean(x * x) + eps) * weight` over the last axes.

    normalized_shape: int or sizes of these axes; eps: the dtype's epsilon when None; elementwise_affine: whether
    there is a weight (ones at first). Called with float[..., *normalized_shape]; returns the same.
    Raises: ShapeError for other last axes.
    """

    _absent = dict.fromkeys(("weight",), "parameter")

    def __init__(
        self, normalized_shape: Ints, eps: Magnitude | None = None, elementwise_affine: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        sizes = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        self.normalized_shape = tuple(size("RMSNorm", "normalized_shape", n) for n in sizes)
        self.eps, self.elementwise_affine = eps, bool(elementwise_affine)
        kind = float32 if dtype is None else as_dtype(dtype, "RMSNorm")
        self.weight = (
            Parameter(ones(self.normalized_shape, dtype=kind, device=device)) if elementwise_affine else None
        )

    def forward(self, x: Any) -> Any:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """`x / (k + alpha * m) ** beta`, m the mean square of `size` neighbouring channels of float[N, C, ...]."""

    def __init__(self, size: Count, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Any) -> Any:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
