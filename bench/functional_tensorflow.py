"""The layers of `functional_layers.py` whose forward is TensorFlow code.

Images are NHWC, as TensorFlow's CPU kernels want them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from . import functional_layers as layers
from .functional_layers import Module, Sequential

__all__ = [
    "AdaptiveAvgPool2d", "BatchNorm2d", "Conv2d", "Flatten", "Linear", "MaxPool2d", "Module", "ReLU", "ReLU6",
    "Sequential",
]  # fmt: skip


def _padded(x: Any, padding: int, value: float = 0.0) -> Any:
    edge = (padding, padding)
    return tf.pad(x, ((0, 0), edge, edge, (0, 0)), constant_values=value) if padding else x


class Conv2d(layers.Conv2d):
    """As torch.nn.Conv2d, square windows; the weight is (height, width, channels / groups, filters)."""

    def forward(self, x: Any) -> Any:
        weight, step = self.own["weight"], self.stride
        if self.groups == 1:
            padding = "SAME" if 2 * self.padding == weight.shape[0] - 1 and step == 1 else "VALID"
            x = x if padding == "SAME" else _padded(x, self.padding)
            y = tf.nn.conv2d(x, weight, step, padding)
        else:
            weight = tf.transpose(weight, (0, 1, 3, 2))
            y = tf.nn.depthwise_conv2d(_padded(x, self.padding), weight, (1, step, step, 1), "VALID")
        return y + self.own["bias"] if "bias" in self.own else y


class BatchNorm2d(layers.BatchNorm2d):
    """As torch.nn.BatchNorm2d, by the fused kernel."""

    def forward(self, x: Any) -> Any:
        own, (mean, var) = self.own, (self.statistics["mean"], self.statistics["var"])
        if not self.training:
            return tf.compat.v1.nn.fused_batch_norm(
                x, own["weight"], own["bias"], mean, var, 1e-5, is_training=False
            )[0]
        y, new_mean, new_var = tf.compat.v1.nn.fused_batch_norm(x, own["weight"], own["bias"], epsilon=1e-5)
        # the kernel's variance is the unbiased one
        self.statistics = {"mean": 0.9 * mean + 0.1 * new_mean, "var": 0.9 * var + 0.1 * new_var}
        return y


class Linear(layers.Linear):
    """As torch.nn.Linear."""

    def forward(self, x: Any) -> Any:
        return tf.matmul(x, self.own["weight"], transpose_b=True) + self.own["bias"]


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Any:
        return tf.nn.relu(x)


class ReLU6(Module):
    """x between 0 and 6."""

    def forward(self, x: Any) -> Any:
        return tf.nn.relu6(x)


class MaxPool2d(layers.MaxPool2d):
    """As torch.nn.MaxPool2d, square windows."""

    def forward(self, x: Any) -> Any:
        return tf.nn.max_pool2d(_padded(x, self.padding, float("-inf")), self.size, self.stride, "VALID")


class AdaptiveAvgPool2d(layers.AdaptiveAvgPool2d):
    """The mean of every image."""

    def forward(self, x: Any) -> Any:
        return tf.reduce_mean(x, (1, 2), keepdims=True)


class Flatten(Module):
    """One row for each example."""

    def forward(self, x: Any) -> Any:
        return tf.reshape(x, (x.shape[0], -1))


def first_statistics(model: Module) -> list[Any]:
    """Running statistics before the first step: means 0, variances 1."""
    start = {"mean": tf.zeros, "var": tf.ones}
    return [start[k](m.own["weight"]) for m in model.modules() for k in m.statistics]


def from_torch(model: Module, values: Sequence[Any]) -> list[Any]:
    """Parameters in PyTorch's layouts as this module's: windows first, and a linear layer after Flatten by pixels."""
    given, out, channels, flat = iter(values), [], 0, False
    for m in model.modules():
        flat = flat or isinstance(m, Flatten)
        for name in m.own:
            value = next(given)
            if isinstance(m, Conv2d) and name == "weight":
                channels, value = value.shape[0], value.transpose(2, 3, 1, 0)
            elif isinstance(m, Linear) and name == "weight" and flat:
                rows, columns = value.shape
                side = round((columns // channels) ** 0.5)
                value = value.reshape(rows, channels, side, side).transpose(0, 2, 3, 1).reshape(rows, columns)
                flat = False
            out.append(value)
    return out
