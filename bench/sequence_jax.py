"""The models of `sequence_cases.py` in JAX, as its users write them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .sequence_cases import ENCODER, GPT, LSTM


def _norm(w: Any, name: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred * scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def _linear(w: Any, name: str, x: Any) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _attend(qkv: Any, heads: int, causal: bool) -> Any:
    n, t, width = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(n, t, 3, heads, width // 3 // heads), 2, 0)
    out = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    return out.reshape(n, t, width // 3)


def _encoder(w: Any, x: Any) -> Any:
    qkv = x @ w["in_proj_weight"].T + w["in_proj_bias"]
    x = _norm(w, "norm1", x + _linear(w, "out_proj", _attend(qkv, ENCODER[1], False)))
    wide = jax.nn.relu(_linear(w, "linear1", x))
    return _norm(w, "norm2", x + _linear(w, "linear2", wide))


def _lstm(w: Any, x: Any) -> Any:
    x = jnp.swapaxes(x, 0, 1)
    for layer in range(2):
        made = x @ w[f"weight_ih_l{layer}"].T + w[f"bias_ih_l{layer}"] + w[f"bias_hh_l{layer}"]
        w_t = w[f"weight_hh_l{layer}"].T

        def step(state: Any, row: Any, w_t: Any = w_t) -> Any:
            h, c = state
            i, f, g, o = jnp.split(row + h @ w_t, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[1], LSTM), x.dtype)
        _, x = jax.lax.scan(step, (zero, zero), made)
    return jnp.swapaxes(x, 0, 1)


def _gpt(w: Any, x: Any) -> Any:
    x = w["words.weight"][x] + w["places.weight"]
    for k in range(GPT[2]):
        name = f"blocks.{k}"
        seen = _attend(_linear(w, f"{name}.qkv", _norm(w, f"{name}.norm1", x)), GPT[1], True)
        x = x + _linear(w, f"{name}.out", seen)
        wide = jax.nn.gelu(_linear(w, f"{name}.up", _norm(w, f"{name}.norm2", x)), approximate=False)
        x = x + _linear(w, f"{name}.down", wide)
    return (_norm(w, "norm", x) @ w["head.weight"].T).reshape(-1, GPT[3])


FORWARD = {"encoder": _encoder, "lstm": _lstm, "gpt_small": _gpt}
