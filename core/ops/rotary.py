"""Rotary positions: pairs of features turned by angles."""

from __future__ import annotations

from ..errors import ShapeError
from ..op import Ints, composite
from .indexing import take
from .shape import concat, expand_dims, reshape, slice_


def _onnx_rotary(o, x, cos, sin, positions=None, *, interleaved, rotary_dim):
    if x.ndim != 4 or (positions is None and cos.ndim != 3):
        o.schema("RotaryEmbedding of other shapes")
    return o.RotaryEmbedding(
        x, cos, sin, positions, interleaved=int(interleaved), rotary_embedding_dim=rotary_dim or 0
    )


@composite(widen=True, onnx=_onnx_rotary)
def rotary_embedding(x, cos, sin, positions=None, *, interleaved=False, rotary_dim=None):
    """Pairs (a, b) of x's features turned to (a cos - b sin, a sin + b cos).

    x: float[..., S, D]; cos, sin: float[S, R / 2], float[N, S, R / 2] (one for each of N, before the heads of
    x[N, H, S, D]), or with positions, int[S] or int[N, S], tables float[P, R / 2] that they pick rows of.
    rotary_dim: R, the leading features that are turned (all D when None), an even number; interleaved: pairs are
    neighbours (0, 1), (2, 3) ..., else features k and k + R / 2.
    Returns: as x. Raises: ShapeError for an odd R or tables that do not fit.
    Source: Su et al., 2021; ONNX RotaryEmbedding.
    """
    size = x.shape[-1] if rotary_dim is None else rotary_dim
    if positions is not None:
        cos, sin = take(cos, positions, axis=0), take(sin, positions, axis=0)
    half = size // 2
    if (
        x.ndim < 2
        or size % 2
        or not 0 < size <= x.shape[-1]
        or cos.shape[-1] != half
        or cos.shape != sin.shape
    ):
        raise ShapeError(
            "rotary_embedding",
            f"x: {x.type} with rotary_dim={size} and cos: {cos.type}, sin: {sin.type} do not fit",
            "tables need rotary_dim / 2 columns, and rotary_dim must be even",
        )
    if cos.ndim == 3 and x.ndim == 4:
        cos, sin = expand_dims(cos, axis=1), expand_dims(sin, axis=1)
    lead = (Ellipsis,)
    turned = x if size == x.shape[-1] else slice_(x, index=(*lead, slice(0, size)))
    if interleaved:
        pairs = reshape(turned, shape=(*x.shape[:-1], half, 2))
        a, b = slice_(pairs, index=(*lead, 0)), slice_(pairs, index=(*lead, 1))
    else:
        a, b = slice_(turned, index=(*lead, slice(0, half))), slice_(turned, index=(*lead, slice(half, size)))
    real, imaginary = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        parts = [expand_dims(real, axis=-1), expand_dims(imaginary, axis=-1)]
        out = reshape(concat(parts, axis=-1), shape=(*x.shape[:-1], size))
    else:
        out = concat([real, imaginary], axis=-1)
    return out if size == x.shape[-1] else concat([out, slice_(x, index=(*lead, slice(size, None)))], axis=-1)


rotary_embedding.sample((2, 3, 4, 6), (5, 3), (5, 3), Ints((2, 4), 0, 5)).sample((2, 4, 6), (4, 3), (4, 3))
rotary_embedding.sample((2, 2, 3, 6), (2, 3, 2), (2, 3, 2), interleaved=True, rotary_dim=4)
rotary_embedding.error_sample((2, 3, 5), (3, 2), (3, 2), match="do not fit")
