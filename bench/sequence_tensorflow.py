"""The models of `sequence_cases.py` in TensorFlow."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .sequence_cases import ENCODER, GPT, LSTM


def _norm(w: Any, name: str, x: Any) -> Any:
    mean, var = tf.nn.moments(x, -1, keepdims=True)
    return tf.nn.batch_normalization(x, mean, var, w[f"{name}.bias"], w[f"{name}.weight"], 1e-5)


def _product(x: Any, weight: Any) -> Any:
    """x @ weight.T with the rows of x as one matrix."""
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), weight, transpose_b=True)
    return tf.reshape(flat, (*x.shape[:-1], weight.shape[0]))


def _linear(w: Any, name: str, x: Any) -> Any:
    return _product(x, w[f"{name}.weight"]) + w[f"{name}.bias"]


def _attend(qkv: Any, heads: int, causal: bool) -> Any:
    n, t, width = qkv.shape
    q, k, v = tf.unstack(
        tf.transpose(tf.reshape(qkv, (n, t, 3, heads, width // 3 // heads)), (2, 0, 3, 1, 4))
    )
    scores = tf.matmul(q, k, transpose_b=True) * q.shape[-1] ** -0.5
    if causal:
        past = tf.linalg.band_part(tf.ones((t, t), tf.bool), -1, 0)
        scores = tf.where(past, scores, float("-inf"))
    out = tf.matmul(tf.nn.softmax(scores), v)
    return tf.reshape(tf.transpose(out, (0, 2, 1, 3)), (n, t, width // 3))


def _encoder(w: Any, x: Any) -> Any:
    qkv = _product(x, w["in_proj_weight"]) + w["in_proj_bias"]
    x = _norm(w, "norm1", x + _linear(w, "out_proj", _attend(qkv, ENCODER[1], False)))
    wide = tf.nn.relu(_linear(w, "linear1", x))
    return _norm(w, "norm2", x + _linear(w, "linear2", wide))


def _lstm(w: Any, x: Any) -> Any:
    x = tf.transpose(x, (1, 0, 2))
    for layer in range(2):
        bias = w[f"bias_ih_l{layer}"] + w[f"bias_hh_l{layer}"]
        made = _product(x, w[f"weight_ih_l{layer}"]) + bias
        hidden = w[f"weight_hh_l{layer}"]

        def step(state: Any, row: Any, hidden: Any = hidden) -> Any:
            h, c = state
            i, f, g, o = tf.split(row + tf.matmul(h, hidden, transpose_b=True), 4, -1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            return tf.sigmoid(o) * tf.tanh(c), c

        zero = tf.zeros((x.shape[1], LSTM))
        x, _ = tf.scan(step, made, (zero, zero))
    return tf.transpose(x, (1, 0, 2))


def _gpt(w: Any, x: Any) -> Any:
    x = tf.gather(w["words.weight"], x) + w["places.weight"]
    for k in range(GPT[2]):
        name = f"blocks.{k}"
        seen = _attend(_linear(w, f"{name}.qkv", _norm(w, f"{name}.norm1", x)), GPT[1], True)
        x = x + _linear(w, f"{name}.out", seen)
        wide = tf.nn.gelu(_linear(w, f"{name}.up", _norm(w, f"{name}.norm2", x)))
        x = x + _linear(w, f"{name}.down", wide)
    return tf.reshape(_product(_norm(w, "norm", x), w["head.weight"]), (-1, GPT[3]))


FORWARD = {"encoder": _encoder, "lstm": _lstm, "gpt_small": _gpt}
