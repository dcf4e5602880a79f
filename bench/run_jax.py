"""The cases in JAX, compiled by jax.jit; buffers are donated in training as JAX users do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from . import functional_layers, vision_models
from .case import Case
from .sequence_jax import FORWARD

EXPRESSIONS = {
    "arithmetic": lambda x: x * (x * 0.2 + 0.5).clip(0, 1) * 1.1 + x - 0.25,
    "activation": lambda x: jax.nn.gelu(x * 1.5 + 0.5, approximate=False) + x,
    "pointwise": lambda x: jax.nn.gelu(x * 1.5 + 0.5, approximate=False) * jax.nn.sigmoid(x),
    "softmax": lambda x: jax.nn.softmax(x * 2 + 1, -1),
    "layer_norm": lambda x: (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5),
}


def _forward(name: str, w: dict[str, Any], x: Any) -> Any:
    """The result of a model without running statistics."""
    if name == "linreg":
        return x @ w["w0"].T + w["b0"]
    if name in FORWARD:
        return FORWARD[name](w, x)
    x = jax.nn.relu(x @ w["w0"].T + w["b0"])
    return jax.nn.relu(x @ w["w1"].T + w["b1"]) @ w["w2"].T + w["b2"]


def _model(name: str, order: list[str]) -> tuple[Any, list[Any]]:
    """A function (weights, running statistics, x, training) -> (result, statistics after it), and the first ones.

    order: the names of the weights (JAX sorts the keys of dictionaries).
    """
    make = vision_models.MODELS.get(name)
    if make is None:
        return lambda w, kept, x, training: (_forward(name, w, x), kept), []
    model = make(functional_layers)

    def forward(w: dict[str, Any], kept: list[Any], x: Any, training: bool) -> tuple[Any, list[Any]]:
        return functional_layers.run(model, [w[k] for k in order], kept, x, training)

    return forward, functional_layers.first_statistics(model)


def _adam(p: Any, m: Any, v: Any, g: Any, t: Any) -> tuple[Any, Any, Any]:
    """Step t of Adam: (p, m, v)."""
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    size, root = 1e-3 / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
    return p - size * m / (jnp.sqrt(v) / root + 1e-8), m, v


def _adam_alone(p: Any, g: Any) -> Any:
    """Adam for one parameter, its state donated."""

    def following(state: Any, g: Any) -> Any:
        p, m, v, t = state
        return (*_adam(p, m, v, g, t + 1), t + 1)

    update = jax.jit(following, donate_argnums=0)
    holder = [(p, jnp.zeros_like(p), jnp.zeros_like(p), jnp.float32(0))]

    def step() -> Any:
        holder[0] = jax.block_until_ready(update(holder[0], g))
        return holder[0][0]

    return step, lambda out: float(jnp.abs(out).mean())


def build(case: Case, phase: str, mode: str) -> Any:
    """See run_duograd.build."""
    data = {k: jnp.asarray(v) for k, v in case.data().items()}
    if case.name == "adam":
        return _adam_alone(data["p"], data["g"])
    if phase == "op":
        fn = jax.jit(EXPRESSIONS[case.name])
        return lambda: fn(*data.values()).block_until_ready(), lambda out: float(jnp.abs(out).mean())
    weights = {k: jnp.asarray(v) for k, v in case.weights().items()}
    x, y = data["x"], data["y"]
    forward, kept = _model(case.name, list(weights))
    if phase == "infer":
        predict = jax.jit(lambda w, kept, x: forward(w, kept, x, False)[0])
        return lambda: predict(weights, kept, x).block_until_ready(), lambda out: float(jnp.abs(out).mean())

    def loss_of(w: Any, kept: Any, x: Any, y: Any) -> Any:
        out, kept = forward(w, kept, x, True)
        if y.dtype == jnp.float32:
            return ((out - y) ** 2).mean(), kept
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1).mean(), kept

    slopes = jax.value_and_grad(loss_of, has_aux=True)

    def sgd(state: Any, x: Any, y: Any) -> Any:
        w, kept, *rest = state
        (loss, kept), g = slopes(w, kept, x, y)
        return loss, (jax.tree.map(lambda p, d: p - 1e-3 * d, w, g), kept, *rest)

    def adam(state: Any, x: Any, y: Any) -> Any:
        w, kept, m, v, t = state
        t = t + 1
        (loss, kept), g = slopes(w, kept, x, y)
        each = jax.tree.map(lambda p, m, v, g: _adam(p, m, v, g, t), w, m, v, g)
        w, m, v = jax.tree.transpose(jax.tree.structure(w), jax.tree.structure((0, 0, 0)), each)
        return loss, (w, kept, m, v, t)

    zeros = lambda: jax.tree.map(jnp.zeros_like, weights)
    holder = [(weights, kept, zeros(), zeros(), jnp.float32(0))]
    update = jax.jit(sgd if case.optimizer == "sgd" else adam, donate_argnums=0)

    def step() -> Any:
        loss, holder[0] = update(holder[0], x, y)
        jax.block_until_ready(holder[0])
        return loss

    return step, float


def set_threads(n: int) -> None:
    """Threads are set by XLA_FLAGS and the process's CPU set before JAX starts (see worker.py)."""
