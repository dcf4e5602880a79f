"""The cases in TensorFlow: tf.function, and tf.function compiled by XLA."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from . import functional_layers, functional_tensorflow, vision_models
from .case import Case
from .sequence_tensorflow import FORWARD

EXPRESSIONS = {
    "arithmetic": lambda x: x * tf.clip_by_value(x * 0.2 + 0.5, 0.0, 1.0) * 1.1 + x - 0.25,
    "activation": lambda x: tf.nn.gelu(x * 1.5 + 0.5) + x,
    "pointwise": lambda x: tf.nn.gelu(x * 1.5 + 0.5) * tf.sigmoid(x),
    "softmax": lambda x: tf.nn.softmax(x * 2 + 1),
    "layer_norm": lambda x: tf.nn.batch_normalization(
        x, *tf.nn.moments(x, -1, keepdims=True), None, None, 1e-5
    ),
}


def _dense(w: dict[str, Any], x: Any) -> Any:
    count = len(w) // 2
    for k in range(count):
        x = tf.matmul(x, w[f"w{k}"], transpose_b=True) + w[f"b{k}"]
        x = tf.nn.relu(x) if k + 1 < count else x
    return x


def _model(case: Case) -> tuple[Any, dict[str, Any], list[Any]]:
    """A function (x, training) -> result, its variables by name and its running statistics."""
    weights = case.weights()
    make = vision_models.MODELS.get(case.name)
    if make is None:
        w = {k: tf.Variable(v) for k, v in weights.items()}
        forward = FORWARD.get(case.name, _dense)
        return lambda x, training: forward(w, x), w, []
    model = make(functional_tensorflow)
    values = functional_tensorflow.from_torch(model, list(weights.values()))
    w = {k: tf.Variable(v) for k, v in zip(weights, values)}
    kept = [tf.Variable(v) for v in functional_tensorflow.first_statistics(model)]

    def forward_images(x: Any, training: bool) -> Any:
        out, after = functional_layers.run(model, list(w.values()), kept, x, training)
        if training:
            for k, v in zip(kept, after):
                k.assign(v)
        return out

    return forward_images, w, kept


def mean_size(out: Any) -> float:
    """See run_duograd.mean_size."""
    return float(np.abs(out.numpy()).mean())


def _adam_alone(p: Any, g: Any, jit: Any) -> Any:
    """Adam for one parameter."""
    p, m, v, t = (tf.Variable(x) for x in (p, tf.zeros_like(p), tf.zeros_like(p), 0.0))

    @jit
    def step(g: Any) -> Any:
        t.assign_add(1.0)
        m.assign(0.9 * m + 0.1 * g)
        v.assign(0.999 * v + 0.001 * g * g)
        size, root = 1e-3 / (1 - 0.9**t), tf.sqrt(1 - 0.999**t)
        p.assign_sub(size * m / (tf.sqrt(v) / root + 1e-8))
        return t

    def run() -> Any:
        step(g)
        return p

    return run, mean_size


def build(case: Case, phase: str, mode: str) -> Any:
    """See run_duograd.build. mode: "function" or "xla"."""
    jit = tf.function(jit_compile=mode == "xla")
    data = {k: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for k, v in case.data().items()}
    inputs = {k: tf.constant(v) for k, v in data.items()}
    if case.name == "adam":
        return _adam_alone(inputs["p"], inputs["g"], jit)
    if phase == "op":
        fn = jit(EXPRESSIONS[case.name])
        return lambda: fn(*inputs.values()), mean_size
    forward, weights, _ = _model(case)
    x, y = inputs["x"], inputs["y"]
    if phase == "infer":
        predict = jit(lambda x: forward(x, False))
        return lambda: predict(x), mean_size
    variables = list(weights.values())
    moments = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in variables]
    steps = tf.Variable(0.0)

    def loss_of(x: Any, y: Any) -> Any:
        out = forward(x, True)
        if y.dtype == tf.float32:
            return tf.reduce_mean((out - y) ** 2)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, out))

    @jit
    def update(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(x, y)
        slopes = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
        if case.optimizer == "sgd":
            for v, g in zip(variables, slopes):
                tf.raw_ops.ResourceApplyGradientDescent(var=v.handle, alpha=1e-3, delta=g)
            return loss
        t = steps.assign_add(1.0)
        for v, g, (m, u) in zip(variables, slopes, moments):
            tf.raw_ops.ResourceApplyAdam(
                var=v.handle, m=m.handle, v=u.handle, beta1_power=0.9**t, beta2_power=0.999**t, lr=1e-3, beta1=0.9,
                beta2=0.999, epsilon=1e-8, grad=g,
            )  # fmt: skip
        return loss

    return lambda: update(x, y), lambda loss: float(loss.numpy())


def set_threads(n: int) -> None:
    """Use n threads, within an op and for ops side by side."""
    tf.config.threading.set_intra_op_parallelism_threads(n)
    tf.config.threading.set_inter_op_parallelism_threads(n)
