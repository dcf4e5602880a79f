"""Importers of attention and rotary positions; what they do not know goes by ONNX's own definition."""

from __future__ import annotations

from ...core.op import REGISTRY as ops
from .table import adapter


def _beyond(proto):
    """Whether a node asks for what the fused op does not do: caps, windows, padded caches, the scores themselves."""
    if len(proto.input) > 6 or len([n for n in proto.output if n]) > 3 or len(proto.output) > 3:
        return True
    given = {a.name: a for a in proto.attribute}
    windows = any(given[n].i >= 0 for n in ("left_window_size", "right_window_size") if n in given)
    caps = "softcap" in given and given["softcap"].f > 0
    return windows or caps or ("softmax_precision" in given and given["softmax_precision"].i != 1)


def _heads(x, count):
    """[B, S, H * D] as [B, H, S, D]; 4-d as it is."""
    if x.ndim == 4:
        return x
    return ops["permute"](
        ops["reshape"](x, shape=(*x.shape[:2], count, x.shape[2] // count)), axes=(0, 2, 1, 3)
    )


@adapter("Attention", since=23, declines=_beyond)
def attention(
    node, q, k, v, mask=None, past_k=None, past_v=None, *, is_causal=0, scale=None, q_num_heads=None, kv_num_heads=None,
    softcap=0.0, softmax_precision=None, qk_matmul_output_mode=0, left_window_size=-1, right_window_size=-1,
):  # fmt: skip
    """Fused attention; earlier keys and values stand before the new ones, and query i comes after them."""
    flat = q.ndim == 3
    q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    past = 0
    if past_k is not None:
        past = past_k.shape[2]
        k, v = ops["concat"](past_k, k, axis=2), ops["concat"](past_v, v, axis=2)
    if mask is not None and mask.shape[-1] < k.shape[2]:
        missing = ((0, 0),) * (mask.ndim - 1) + ((0, k.shape[2] - mask.shape[-1]),)
        low = False if mask.dtype.name == "bool" else float("-inf")
        mask = ops["pad"](mask, padding=missing, value=low)
    if is_causal and past:
        rows = ops["reshape"](ops["arange_from"](past, 1, size=q.shape[2], dtype=_int64()), shape=(-1, 1))
        seen = ops["less_equal"](ops["arange_from"](0, 1, size=k.shape[2], dtype=_int64()), rows)
        if mask is None:
            mask = seen
        elif mask.dtype.name == "bool":
            mask = ops["logical_and"](mask, seen)
        else:
            mask = ops["where"](seen, mask, float("-inf"))
    y = ops["scaled_dot_product_attention"](
        q, k, v, mask, is_causal=bool(is_causal and not past), scale=scale
    )
    if flat:
        y = ops["permute"](y, axes=(0, 2, 1, 3))
        y = ops["reshape"](y, shape=(*y.shape[:2], y.shape[2] * y.shape[3]))
    return (y, k, v)[: node.n_outputs] if node.n_outputs > 1 else y


def _int64():
    from ...core.types import int64

    return int64


@adapter("RotaryEmbedding", since=23)
def rotary_embedding(x, cos, sin, positions=None, *, interleaved=0, num_heads=0, rotary_embedding_dim=0):
    """Pairs of features turned by an angle that grows with the position."""
    flat = x.ndim == 3
    heads = _heads(x, num_heads)
    dim = rotary_embedding_dim or None
    y = ops["rotary_embedding"](heads, cos, sin, positions, interleaved=bool(interleaved), rotary_dim=dim)
    return ops["reshape"](ops["permute"](y, axes=(0, 2, 1, 3)), shape=x.shape) if flat else y
