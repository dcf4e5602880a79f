"""The cases in JAX, compiled by jax.jit; buffers are donated in training as JAX users do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .case import Case
from .sequence_jax import FORWARD

EXPRESSIONS = {
    "pointwise": lambda x: jax.nn.gelu(x * 1.5 + 0.5, approximate=False) * jax.nn.sigmoid(x),
    "softmax": lambda x: jax.nn.softmax(x * 2 + 1, -1),
    "layer_norm": lambda x: (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5),
}


def _conv(x: Any, w: Any, b: Any) -> Any:
    y = jax.lax.conv_general_dilated(
        x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW")
    )
    y = jax.nn.relu(y + b[:, None, None])
    return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def _forward(name: str, w: dict[str, Any], x: Any) -> Any:
    if name == "linreg":
        return x @ w["w0"].T + w["b0"]
    if name == "mlp":
        x = jax.nn.relu(x @ w["w0"].T + w["b0"])
        return jax.nn.relu(x @ w["w1"].T + w["b1"]) @ w["w2"].T + w["b2"]
    if name in FORWARD:
        return FORWARD[name](w, x)
    x = _conv(_conv(x, w["w0"], w["b0"]), w["w1"], w["b1"]).reshape(x.shape[0], -1)
    return jax.nn.relu(x @ w["w2"].T + w["b2"]) @ w["w3"].T + w["b3"]


def build(case: Case, phase: str, mode: str) -> Any:
    """See run_duograd.build."""
    data = {k: jnp.asarray(v) for k, v in case.data().items()}
    if phase == "op":
        fn = jax.jit(EXPRESSIONS[case.name])
        return lambda: fn(*data.values()).block_until_ready(), lambda out: float(jnp.abs(out).mean())
    weights = {k: jnp.asarray(v) for k, v in case.weights().items()}
    x, y = data["x"], data["y"]
    if phase == "infer":
        predict = jax.jit(lambda w, x: _forward(case.name, w, x))
        return lambda: predict(weights, x).block_until_ready(), lambda out: float(jnp.abs(out).mean())

    def loss_of(w: Any, x: Any, y: Any) -> Any:
        out = _forward(case.name, w, x)
        if y.dtype == jnp.float32:
            return ((out - y) ** 2).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1).mean()

    def sgd(state: Any, x: Any, y: Any) -> Any:
        w, *_ = state
        loss, g = jax.value_and_grad(loss_of)(w, x, y)
        return loss, (jax.tree.map(lambda p, d: p - 1e-3 * d, w, g), state[1], state[2], state[3])

    def adam(state: Any, x: Any, y: Any) -> Any:
        w, m, v, t = state
        t = t + 1
        loss, g = jax.value_and_grad(loss_of)(w, x, y)
        m = jax.tree.map(lambda a, d: 0.9 * a + 0.1 * d, m, g)
        v = jax.tree.map(lambda a, d: 0.999 * a + 0.001 * d * d, v, g)
        size, root = 1e-3 / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        w = jax.tree.map(lambda p, a, b: p - size * a / (jnp.sqrt(b) / root + 1e-8), w, m, v)
        return loss, (w, m, v, t)

    zeros = lambda: jax.tree.map(jnp.zeros_like, weights)
    holder = [(weights, zeros(), zeros(), jnp.float32(0))]
    update = jax.jit(sgd if case.optimizer == "sgd" else adam, donate_argnums=0)

    def step() -> Any:
        loss, holder[0] = update(holder[0], x, y)
        jax.block_until_ready(holder[0])
        return loss

    return step, float


def set_threads(n: int) -> None:
    """Threads are set by XLA_FLAGS and the process's CPU set before JAX starts (see worker.py)."""
