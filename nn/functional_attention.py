"""Attention by the names and arguments of torch.nn.functional."""

from __future__ import annotations

from ..core.ops import attention as _A
from ..core.value import Tensor
from .arguments import probability

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(scale query key' + mask) value; see `dg.scaled_dot_product_attention`.

    attn_mask: bool (True: may be seen) or float, added. is_causal: query i sees keys 0 to i, beside attn_mask.
    enable_gqa: heads of key and value may be fewer than query's, shared by groups.
    """
    p = probability("scaled_dot_product_attention", dropout_p)
    return _A.scaled_dot_product_attention(  # type: ignore[no-any-return]
        query, key, value, attn_mask, is_causal=is_causal, scale=scale, dropout_p=p, enable_gqa=enable_gqa
    )
