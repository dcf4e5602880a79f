"""Normalisation layers as ops."""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

from ..errors import ShapeError
from ..op import composite
from . import elementwise as E
from .reduction import mean


def _onnx_layer_norm(o, x, w, b, *, n_axes, eps):
    axis = -n_axes
    if w is None:
        w = o.full(x.shape[axis:], 1.0, x.dtype)
    inputs = (x, w) if b is None else (x, w, b)
    return o.LayerNormalization(*inputs, axis=axis, epsilon=eps)


@composite(widen=True, onnx=_onnx_layer_norm)
def layer_norm(x, w=None, b=None, *, n_axes=1, eps=1e-5):
    """`(x - mean) / sqrt(var + eps) * w + b` over the last n_axes axes.

    x: float[..., D], w, b: float[D] or None. Returns: as x. Raises: ShapeError when w or b do not have the
    shape of those axes. Numerics: two passes for the variance; population variance. Source: Ba et al., 2016;
    ONNX LayerNormalization.
    """
    axes = tuple(range(x.ndim - n_axes, x.ndim))
    for name, p in (("w", w), ("b", b)):
        if p is not None and p.shape != x.shape[axes[0] :]:
            raise ShapeError(
                "layer_norm", f"{name}: {p.type} is not like the last axes of x: {x.type}", "check the shape"
            )
    centred = x - mean(x, axis=axes, keepdims=True)
    out = centred * E.rsqrt(mean(centred * centred, axis=axes, keepdims=True) + eps)
    if w is not None:
        out = out * w
    return out if b is None else out + b


layer_norm.sample((3, 4), (4,), (4,)).sample((2, 3, 4), n_axes=2).sample((2, 6), (6,))
layer_norm.error_sample((2, 5), (4,), match="last axes")
