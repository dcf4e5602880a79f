"""Normalisation by the names and arguments of torch.nn.functional."""

from __future__ import annotations

from typing import Any

from ..core import dispatch
from ..core.errors import ArgumentError, ShapeError
from ..core.ops import normalization as _N
from ..core.ops import reduction as _R
from ..core.value import Tensor
from .arguments import Ints

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
]


def _last_axes(op: str, x: Tensor, normalized_shape: Ints) -> int:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(op, f"x: {x.type} does not end in {list(shape)}", "check normalized_shape")
    return len(shape)


def layer_norm(
    x: Tensor,
    normalized_shape: Ints,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`(x - mean) / sqrt(var + eps) * weight + bias` over the last axes, which must have normalized_shape."""
    n_axes = _last_axes("layer_norm", x, normalized_shape)
    return _N.layer_norm(x, weight, bias, n_axes=n_axes, eps=eps)  # type: ignore[no-any-return]


def rms_norm(
    x: Tensor, normalized_shape: Ints, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """`x / sqrt(mean(x * x) + eps) * weight` over the last axes, which must have normalized_shape."""
    n_axes = _last_axes("rms_norm", x, normalized_shape)
    return _N.rms_norm(x, weight, n_axes=n_axes, eps=eps)  # type: ignore[no-any-return]


def _follow(running: Tensor, now: Tensor, momentum: Any) -> None:
    """running = (1 - momentum) running + momentum now, in place."""
    running.copy_(running * (1 - momentum) + now.detach().to(running.dtype) * momentum)  # type: ignore[attr-defined]


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`(x - mean) / sqrt(var + eps) * weight + bias` by channel of float[N, C, ...].

    training: with the statistics of the batch, which the running ones then follow in place:
    `running = (1 - momentum) * running + momentum * now`, with the unbiased variance; else with the running
    statistics. Raises: ShapeError for other shapes, ArgumentError for one value by channel while training.
    """
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError(
                "batch_norm", "has no running statistics to use", "pass them, or training=True"
            )
        return _N.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)  # type: ignore[no-any-return]
    count = x.size // x.shape[1] if x.ndim > 1 and x.shape[1] else 0
    if count == 1:
        raise ArgumentError(
            "batch_norm",
            f"needs more than one value by channel while training, got x: {x.type}",
            "use a larger batch",
        )
    out, mean, var = _N.batch_norm_training(x, weight, bias, eps=eps)
    if running_mean is not None or running_var is not None:
        with dispatch.set_grad(False):
            if running_mean is not None:
                _follow(running_mean, mean, momentum)
            if running_var is not None:
                _follow(running_var, var.detach() * (count / max(1, count - 1)), momentum)
    return out  # type: ignore[no-any-return]


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`(x - mean) / sqrt(var + eps) * weight + bias`, every channel of every image of float[N, C, ...] by itself.

    use_input_stats: with the statistics of the image (the running ones follow their means over the batch, in
    place); else with the running statistics, as batch_norm.
    """
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = tuple(range(2, x.ndim))
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    if count == 1:
        raise ArgumentError(
            "instance_norm",
            f"needs more than one value by channel and image, got x: {x.type}",
            "use larger images",
        )
    if running_mean is not None or running_var is not None:
        with dispatch.set_grad(False):
            fixed = x.detach()
            if running_mean is not None:
                _follow(running_mean, _R.mean(_R.mean(fixed, axis=axes), axis=0), momentum)
            if running_var is not None:
                spread = _R.mean(_R.var(fixed, axis=axes), axis=0) * (count / (count - 1))
                _follow(running_var, spread, momentum)
    return _N.instance_norm(x, weight, bias, eps=eps)  # type: ignore[no-any-return]


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`(x - mean) / sqrt(var + eps) * weight + bias` over num_groups groups of channels; see `dg.group_norm`."""
    return _N.group_norm(x, weight, bias, num_groups=num_groups, eps=eps)  # type: ignore[no-any-return]


def local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """`x / (k + alpha * m) ** beta`, m the mean square of `size` neighbouring channels."""
    return _N.local_response_norm(x, size=size, alpha=alpha, beta=beta, k=k)  # type: ignore[no-any-return]


def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """`x / max(norm(x), eps)` with the p-norm along axis dim."""
    return _N.normalize(x, p=p, axis=dim, eps=eps)  # type: ignore[no-any-return]
