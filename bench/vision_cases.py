"""The image cases: a small network, ResNet-18 in two sizes, and a net of depthwise convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from . import functional_layers, vision_models
from .case import Arrays, Case, generator, layers


def _images(batch: int, size: int, classes: int) -> Callable[[], Arrays]:
    def make() -> Arrays:
        rng = generator()
        return {
            "x": rng.normal(size=(batch, 3, size, size)).astype(np.float32),
            "y": rng.integers(0, classes, batch).astype(np.int64),
        }

    return make


def _weights(name: str) -> Callable[[], Arrays]:
    """Weights by He's rule; a norm's weight and bias near 1 and 0, so that a wrong one shows."""

    def make() -> Arrays:
        rng, out = generator(), {}
        for k, (kind, shape) in enumerate(vision_models.MODELS[name](functional_layers).shapes()):
            if len(shape) > 1:
                value = rng.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))
            else:
                value = rng.uniform(-0.1, 0.1, shape) + (kind == "weight")
            out[f"p{k}"] = value.astype(np.float32)
        return out

    return make


def _conv(batch: int, filters: int, channels: int, window: int, result: int) -> int:
    return 2 * batch * filters * channels * window * window * result * result


def _resnet(first: int, size: int, batch: int) -> int:
    """Operations of ResNet-18's forward pass from its first stage, whose images have `size` pixels a side."""
    total, channels = first, 64
    for k, filters in enumerate((64, 128, 256, 512)):
        side = size >> k
        total += _conv(batch, filters, channels, 3, side) + 3 * _conv(batch, filters, filters, 3, side)
        if channels != filters:
            total += _conv(batch, filters, channels, 1, side)
        channels = filters
    return total


def _mobilenet() -> int:
    side, channels = 112, 32
    total = _conv(1, 32, 3, 3, side)
    for filters, stride in vision_models._SEPARABLE:
        side //= stride
        total += _conv(1, channels, 1, 3, side) + _conv(1, filters, channels, 1, side)
        channels = filters
    return total + 2 * 1024 * 1000


_CONV1, _CONV2 = _conv(64, 32, 3, 3, 32), _conv(64, 64, 32, 3, 16)
_CNN = _CONV1 + _CONV2 + 2 * 64 * (4096 * 64 + 640)
_STEM = _conv(16, 64, 3, 3, 32)
_RESNET = _resnet(_STEM, 32, 16) + 2 * 16 * 5120

CASES = (
    Case(
        "cifar_cnn", ("train", "infer"), _images(64, 32, 10),
        layers((32, 3, 3, 3), (64, 32, 3, 3), (64, 4096), (10, 64)), "adam",
        {"train": 3 * _CNN - _CONV1, "infer": _CNN}, {}, "conv 32, conv 64, pools, fc 64, fc 10, batch 64, Adam",
    ),
    Case(
        "resnet18_cifar", ("train",), _images(16, 32, 10), _weights("resnet18_cifar"), "adam",
        {"train": 3 * _RESNET - _STEM}, {}, "ResNet-18, 3x32x32, batch 16, Adam",
    ),
    Case(
        "resnet18", ("infer",), _images(1, 224, 1000), _weights("resnet18"), "",
        {"infer": _resnet(_conv(1, 64, 3, 7, 112), 56, 1) + 2 * 512000}, {}, "ResNet-18, 1x3x224x224",
    ),
    Case(
        "mobilenet", ("infer",), _images(1, 224, 1000), _weights("mobilenet"), "",
        {"infer": _mobilenet()}, {}, "MobileNet (depthwise), 1x3x224x224",
    ),
)  # fmt: skip
