"""What a benchmark case is, and how the data and weights of cases are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class Case(NamedTuple):
    """One benchmark case.

    phases: "train", "infer" or "op"; data: inputs of a step; weights: initial parameters by name, in the
    order of the layers; optimizer: "sgd" or "adam"; flops and bytes: arithmetic and least memory traffic of one
    call by phase, for the physical limit.
    """

    name: str
    phases: tuple[str, ...]
    data: Callable[[], Arrays]
    weights: Callable[[], Arrays]
    optimizer: str
    flops: dict[str, float]
    bytes: dict[str, float]
    text: str


def generator() -> np.random.Generator:
    """The numbers of a case: the same at each call."""
    return np.random.default_rng(0)


def uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """A weight as PyTorch draws it."""
    bound = 1 / np.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def layers(*shapes: tuple[int, ...]) -> Callable[[], Arrays]:
    """Weights and biases w0, b0, w1, b1, ... as PyTorch initialises them."""

    def make() -> Arrays:
        rng, out = generator(), {}
        for k, shape in enumerate(shapes):
            fan_in = int(np.prod(shape[1:]))
            out[f"w{k}"] = uniform(rng, shape, fan_in)
            out[f"b{k}"] = uniform(rng, shape[:1], fan_in)
        return out

    return make
