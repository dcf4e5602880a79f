"""Multi-head attention and transformers, by PyTorch's names, arguments and parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.kinds import Magnitude
from ..core.ops import attention as _A
from ..core.ops import creation as _C
from ..core.ops import elementwise as _E
from ..core.ops import linalg as _L
from ..core.ops import shape as _S
from ..core.ops.reduction import mean
from ..core.types import as_dtype, bool_, float32
from . import functional as F
from . import init
from .arguments import LAYERS, only, probability, size
from .containers import ModuleList
from .layers import Dropout, LayerNorm, Linear
from .module import Module, Parameter

__all__ = [
    "MultiheadAttention", "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]  # fmt: skip


class MultiheadAttention(Module):
    """Attention of several heads, with projections before and after.

    embed_dim: E, the features of queries and of the result; num_heads: H, a divisor of E; dropout: probability of
    dropping a weight while training; bias: whether the projections have one; kdim, vdim: features of keys and
    values (E when None); batch_first: [N, L, E] instead of [L, N, E]. Parameters: in_proj_weight: float[3 * E, E]
    (or q_proj_weight, k_proj_weight, v_proj_weight), in_proj_bias: float[3 * E], out_proj.weight, out_proj.bias.
    Called with query: float[L, N, E], key: float[S, N, kdim], value: float[S, N, vdim] (all without N too);
    key_padding_mask: [N, S] and attn_mask: [L, S] or [N * H, L, S], bool (True: not seen) or float, added;
    is_causal: query i sees keys 0 to i.
    Returns: float[L, N, E], and with need_weights the weights: their mean over heads, float[N, L, S], or
    float[N, H, L, S] when not average_attn_weights; else None. Without need_weights memory is linear in L and S.
    Raises: ArgumentError, ShapeError for sizes that do not fit. Numerics: a query that sees no key gets zeros for
    its heads. Source: Vaswani et al., 2017.
    """

    _absent = dict.fromkeys(("in_proj_weight", "in_proj_bias"), "parameter")

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        name = "MultiheadAttention"
        only(name, "add_bias_kv", add_bias_kv, False)
        only(name, "add_zero_attn", add_zero_attn, False)
        self.embed_dim, self.num_heads = (
            size(name, "embed_dim", embed_dim),
            size(name, "num_heads", num_heads),
        )
        if self.embed_dim % self.num_heads:
            raise ArgumentError(
                name, f"num_heads={num_heads} does not divide embed_dim={embed_dim}", "use a divisor"
            )
        self.dropout, self.batch_first = probability(name, dropout), bool(batch_first)
        self.kdim = self.embed_dim if kdim is None else size(name, "kdim", kdim)
        self.vdim = self.embed_dim if vdim is None else size(name, "vdim", vdim)
        kind = float32 if dtype is None else as_dtype(dtype, name)

        def parameter(*shape: int) -> Parameter:
            return Parameter(_C.empty(shape, dtype=kind, device=device))

        e = self.embed_dim
        self.one_width = self.kdim == e and self.vdim == e
        self.in_proj_weight = parameter(3 * e, e) if self.one_width else None
        if not self.one_width:
            self.q_proj_weight, self.k_proj_weight = parameter(e, e), parameter(e, self.kdim)
            self.v_proj_weight = parameter(e, self.vdim)
        self.in_proj_bias = parameter(3 * e) if bias else None
        self.out_proj = Linear(e, e, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Projections by Glorot's uniform rule, biases 0."""
        weights: list[Any] = [self.in_proj_weight]
        if not self.one_width:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        for w in weights:
            init.xavier_uniform_(w)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def _projected(self, query: Any, key: Any, value: Any) -> list[Any]:
        """q, k, v of float[L, N, E] or float[N, L, E]."""
        e = self.embed_dim
        if self.one_width and query is key and key is value:
            return list(
                _S.split(_L.linear(query, self.in_proj_weight, self.in_proj_bias), sizes=(e,) * 3, axis=-1)
            )
        if self.one_width and key is value:
            w = _S.split(self.in_proj_weight, sizes=(e, 2 * e), axis=0)
            b = (
                [None] * 2
                if self.in_proj_bias is None
                else _S.split(self.in_proj_bias, sizes=(e, 2 * e), axis=0)
            )
            kv = _L.linear(key, w[1], b[1])
            return [_L.linear(query, w[0], b[0]), *_S.split(kv, sizes=(e, e), axis=-1)]
        if self.one_width:
            weights = _S.split(self.in_proj_weight, sizes=(e,) * 3, axis=0)
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        bias = (
            [None] * 3 if self.in_proj_bias is None else _S.split(self.in_proj_bias, sizes=(e,) * 3, axis=0)
        )
        return [_L.linear(x, w, b) for x, w, b in zip((query, key, value), weights, bias)]

    def _heads(self, x: Any) -> Any:
        """[L, N, E], or [N, L, E] when batch_first, as [N, H, L, E / H]."""
        shape = (*x.shape[:2], self.num_heads, x.shape[2] // self.num_heads)
        return _S.permute(_S.reshape(x, shape=shape), axes=(0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3))

    def _mask(self, attn_mask: Any, padding: Any, batch: int, rows: int, columns: int) -> Any:
        """Both masks as one for scores [N, H, L, S]: bool, True for what is seen, or float."""
        masks = []
        if attn_mask is not None:
            if attn_mask.ndim == 3:
                attn_mask = _S.reshape(attn_mask, shape=(batch, self.num_heads, rows, columns))
            masks.append(attn_mask)
        if padding is not None:
            if padding.shape != (batch, columns):
                raise ShapeError(
                    "MultiheadAttention",
                    f"key_padding_mask: {padding.type} is not [{batch}, {columns}]",
                    "[N, S]",
                )
            masks.append(_S.reshape(padding, shape=(batch, 1, 1, columns)))
        if not masks:
            return None
        if all(m.dtype is bool_ for m in masks):
            hidden = masks[0] if len(masks) == 1 else _E.logical_or(*masks)
            return _E.logical_not(hidden)
        floats = [_E.where(m, -math.inf, 0.0) if m.dtype is bool_ else m for m in masks]
        return floats[0] if len(floats) == 1 else floats[0] + floats[1]

    def forward(
        self, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
        attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
    ) -> Any:  # fmt: skip
        single = query.ndim == 2
        same_kv, same = key is value, query is key and key is value
        batch_axis = 0 if self.batch_first else 1
        if single:
            query, key, value = (_S.expand_dims(x, axis=batch_axis) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask[None]
        key = query if same else key
        value = key if same_kv else value
        for name, x, width in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            if x.ndim != 3 or x.shape[2] != width:
                raise ShapeError(
                    "MultiheadAttention", f"{name}: {x.type} does not end in {width} features", "check it"
                )
        rows, batch, columns = query.shape[1 - batch_axis], query.shape[batch_axis], key.shape[1 - batch_axis]
        q, k, v = (self._heads(x) for x in self._projected(query, key, value))
        # PyTorch takes is_causal as a hint about attn_mask; either says the same.
        mask = self._mask(
            None if is_causal and not need_weights else attn_mask, key_padding_mask, batch, rows, columns
        )
        causal = is_causal and (attn_mask is None or not need_weights)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            out, weights = _A.attention_with_weights(q, k, v, mask, is_causal=causal, dropout_p=p)
            weights = mean(weights, axis=1) if average_attn_weights else weights
        else:
            out = _A.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, dropout_p=p)
        out = _S.permute(out, axes=(0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3))
        out = self.out_proj(_S.reshape(out, shape=query.shape))
        if single:
            return _S.squeeze(out, axis=batch_axis), weights if weights is None else weights[0]
        return out, weights

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}"


def _activation(name: str, activation: Any) -> Callable[[Any], Any]:
    found: Any = (
        {"relu": F.relu, "gelu": F.gelu}.get(activation) if isinstance(activation, str) else activation
    )
    if not callable(found):
        raise ArgumentError(
            name, f"activation={activation!r} is not known", 'use "relu", "gelu" or a function'
        )
    return found  # type: ignore[no-any-return]


class _Layer(Module):
    """Attention blocks and a feed-forward block, each with a residual and a norm."""

    blocks = 1

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: Any = "relu",
        layer_norm_eps: Magnitude = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        end = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **end)
        if self.blocks == 2:
            self.multihead_attn = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, **end
            )
        self.linear1 = Linear(d_model, dim_feedforward, bias, **end)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **end)
        for k in range(self.blocks + 1):
            setattr(self, f"norm{k + 1}", LayerNorm(d_model, layer_norm_eps, bias=bias, **end))
            setattr(self, f"dropout{k + 1}", Dropout(dropout))
        self.norm_first, self.activation = bool(norm_first), _activation(type(self).__name__, activation)

    def _block(self, k: int, x: Any, run: Callable[[Any], Any]) -> Any:
        norm, dropout = getattr(self, f"norm{k}"), getattr(self, f"dropout{k}")
        if self.norm_first:
            return x + dropout(run(norm(x)))
        return norm(x + dropout(run(x)))

    def _feed_forward(self, x: Any) -> Any:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention, then two linear layers; each with dropout, a residual and a layer norm.

    d_model: E; nhead: heads; dim_feedforward: width between the linear layers; activation: "relu", "gelu" or a
    function; layer_norm_eps; batch_first: [N, S, E] instead of [S, N, E]; norm_first: norms before the blocks, not
    after the residuals. Called with src, src_mask, src_key_padding_mask and is_causal as MultiheadAttention's
    masks; returns as src. Source: Vaswani et al., 2017.
    """

    def forward(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Any:
        def attend(x: Any) -> Any:
            return self.self_attn(
                x, x, x, key_padding_mask=src_key_padding_mask, need_weights=False, attn_mask=src_mask,
                is_causal=is_causal,
            )[0]  # fmt: skip

        return self._block(2, self._block(1, src, attend), self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to an encoder's output (memory), then two linear layers; settings as the encoder's."""

    blocks = 2

    def forward(
        self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None,
        tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None, tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Any:  # fmt: skip
        def attend(x: Any) -> Any:
            return self.self_attn(
                x, x, x, key_padding_mask=tgt_key_padding_mask, need_weights=False, attn_mask=tgt_mask,
                is_causal=tgt_is_causal,
            )[0]  # fmt: skip

        def attend_memory(x: Any) -> Any:
            return self.multihead_attn(
                x, memory, memory, key_padding_mask=memory_key_padding_mask, need_weights=False,
                attn_mask=memory_mask, is_causal=memory_is_causal,
            )[0]  # fmt: skip

        x = self._block(2, self._block(1, tgt, attend), attend_memory)
        return self._block(3, x, self._feed_forward)


class TransformerEncoder(Module):
    """num_layers copies of an encoder layer, one after the other, and perhaps a norm at the end."""

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
        enable_nested_tensor: bool = False, mask_check: bool = True,
    ):  # fmt: skip
        self.num_layers = size("TransformerEncoder", "num_layers", num_layers, high=LAYERS)
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(self.num_layers)])
        self.norm = norm

    def forward(
        self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Any:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """num_layers copies of a decoder layer, one after the other, and perhaps a norm at the end."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        self.num_layers = size("TransformerDecoder", "num_layers", num_layers, high=LAYERS)
        self.layers = ModuleList([copy.deepcopy(decoder_layer) for _ in range(self.num_layers)])
        self.norm = norm

    def forward(
        self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None,
        tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None, tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:  # fmt: skip
        for layer in self.layers:
            tgt = layer(
                tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
                bool(tgt_is_causal), memory_is_causal,
            )  # fmt: skip
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder and a decoder that attends to its output; settings as the layers'. Source: Vaswani et al., 2017."""

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
        dim_feedforward: int = 2048, dropout: float = 0.1, activation: Any = "relu",
        custom_encoder: Module | None = None, custom_decoder: Module | None = None,
        layer_norm_eps: Magnitude = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        row = (
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
        )

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*row, device, dtype), num_encoder_layers, norm()
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*row, device, dtype), num_decoder_layers, norm()
        )
        self.d_model, self.nhead, self.batch_first = d_model, nhead, bool(batch_first)
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(
        self, src: Any, tgt: Any, src_mask: Any = None, tgt_mask: Any = None, memory_mask: Any = None,
        src_key_padding_mask: Any = None, tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None, tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Any:  # fmt: skip
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return self.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal,
            memory_is_causal,
        )  # fmt: skip

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Any:
        """float[sz, sz]: 0 where a query may see a key, -inf above the diagonal."""
        places = _C.arange(sz, device=device)
        ahead = _E.greater(places, _S.reshape(places, shape=(-1, 1)))
        zero = _C.zeros(
            (sz, sz), dtype=float32 if dtype is None else as_dtype(dtype, "Transformer"), device=device
        )
        return _E.where(ahead, -math.inf, zero)
