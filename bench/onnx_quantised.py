"""Networks on eight bits: integer weights, activations through QuantizeLinear and back, trained rounding."""

from __future__ import annotations

from typing import Any

import duograd as dg
import numpy as np

from .. import nn
from ..nn import functional as F


class QuantisedMlp(nn.Module):
    """Weights and activations as 8-bit numbers with a scale."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.register_buffer("weight", dg.tensor(rng.integers(-127, 127, (5, 6)).astype("int8")))
        self.register_buffer("scale", dg.tensor(np.float32(0.01)))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        scale, zero = dg.tensor(0.02), dg.tensor(np.uint8(128))
        x = dg.dequantize_linear(dg.quantize_linear(x, scale, zero), scale, zero)
        return self.head(dg.relu(x @ dg.dequantize_linear(self.weight, self.scale).T))


class QuantisedWeight(nn.Module):
    """A weight of int8 with a scale for each row, and the bias and range of what follows it."""

    def __init__(self, *shape: int):
        rng = np.random.default_rng(shape)
        self.register_buffer("weight", dg.tensor(rng.integers(-127, 128, shape).astype("int8")))
        self.register_buffer("scale", dg.tensor(rng.uniform(0.004, 0.02, shape[0]).astype("float32")))
        self.bias = nn.Parameter(dg.randn(shape[0]))

    def number(self) -> Any:
        return dg.dequantize_linear(self.weight, self.scale, axis=0)


def _through(x: Any, scale: float = 0.03, zero: int = 128) -> Any:
    """x as uint8 and back."""
    s, z = dg.tensor(scale), dg.tensor(np.uint8(zero))
    return dg.dequantize_linear(dg.quantize_linear(x, s, z), s, z)


class QuantisedLinear(QuantisedWeight):
    def forward(self, x: Any) -> Any:
        return F.linear(_through(x), self.number(), self.bias)


class QuantisedConv(QuantisedWeight):
    def __init__(self, *shape: int, stride: int = 1):
        super().__init__(*shape)
        self.stride = stride

    def forward(self, x: Any) -> Any:
        return F.conv2d(_through(x), self.number(), self.bias, stride=self.stride, padding=1)


class QuantisedCnn(nn.Module):
    """Convolutions and a head on int8 weights, uint8 between the layers."""

    def __init__(self) -> None:
        self.a, self.b = QuantisedConv(6, 3, 3, 3), QuantisedConv(8, 6, 3, 3, stride=2)
        self.head = QuantisedLinear(4, 8)

    def forward(self, x: Any) -> Any:
        x = dg.relu(self.b(dg.relu(self.a(x))))
        return self.head(x.mean(axis=(2, 3)))


class QuantisedAttention(nn.Module):
    """Queries, keys and values by int8 weights; both products on uint8 operands."""

    def __init__(self) -> None:
        self.q, self.k, self.v, self.out = (QuantisedLinear(8, 8) for _ in range(4))

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        q, k, v = (_through(p(x).reshape(n, t, 2, d // 2).transpose(1, 2)) for p in (self.q, self.k, self.v))
        weights = dg.softmax(q @ k.transpose(-1, -2) * (d // 2) ** -0.5, axis=-1)
        mixed = _through(weights, 1 / 255, 0) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, t, d))


class QuantisedProduct(nn.Module):
    """A product whose operands get their scales from their extremes."""

    def forward(self, x: Any, y: Any) -> Any:
        (a, a_scale, a_zero), (b, b_scale, b_zero) = map(dg.dynamic_quantize_linear, (x, y))
        return dg.dequantize_linear(a, a_scale, a_zero) @ dg.dequantize_linear(b, b_scale, b_zero)


class TrainedQuantised(nn.Module):
    """A net that is trained on rounded weights and activations, with a scale for each filter."""

    def __init__(self) -> None:
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.register_buffer("scale", dg.tensor(np.linspace(0.003, 0.008, 4, dtype="float32")))

    def forward(self, x: Any) -> Any:
        w = dg.fake_quantize(self.conv.weight, self.scale, 0, -127, 127, axis=0)
        x = F.conv2d(dg.fake_quantize(x, 0.03, 128, 0, 255), w, self.conv.bias)
        x = dg.fake_quantize(dg.relu(x).mean(axis=(2, 3)), 0.02, 0, 0, 255)
        return F.linear(x, dg.fake_quantize(self.head.weight, 0.01, 0, -128, 127), self.head.bias)


class FakeQuantised(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        x = dg.fake_quantize(x, 0.02, 128, 0, 255)
        w = dg.fake_quantize(self.conv.weight, 0.01, 0, -127, 127)
        return F.conv2d(x, w, self.conv.bias)
