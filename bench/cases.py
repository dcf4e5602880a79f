"""The table of benchmark cases: data, initial weights and the physical work of each, the same for every runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import onnx_zoo, sequence_cases, vision_cases
from .case import Arrays, Case, generator, layers


def _labelled(shape: tuple[int, ...], classes: int) -> Callable[[], Arrays]:
    def make() -> Arrays:
        rng = generator()
        return {
            "x": rng.normal(size=shape).astype(np.float32),
            "y": rng.integers(0, classes, shape[0]).astype(np.int64),
        }

    return make


def _regression() -> Arrays:
    rng = generator()
    return {
        "x": rng.normal(size=(32, 10)).astype(np.float32),
        "y": rng.normal(size=(32, 1)).astype(np.float32),
    }


def _normal(*shape: int) -> Callable[[], Arrays]:
    return lambda: {"x": generator().normal(size=shape).astype(np.float32)}


def _parameters() -> Arrays:
    rng = generator()
    return {k: rng.normal(size=(4 * _M,)).astype(np.float32) for k in ("p", "g")}


def _none() -> Arrays:
    return {}


_MLP = 2 * 64 * (784 * 128 + 128 * 64 + 64 * 10)
_M = 1 << 20

CASES: dict[str, Case] = {
    c.name: c
    for c in (
        Case(
            "linreg", ("train", "infer"), _regression, layers((1, 10)), "sgd",
            {"train": 3 * 640, "infer": 640}, {}, "linear regression 10->1, batch 32, SGD",
        ),
        Case(
            "mlp", ("train", "infer"), _labelled((64, 784), 10), layers((128, 784), (64, 128), (10, 64)), "adam",
            {"train": 3 * _MLP - 2 * 64 * 784 * 128, "infer": _MLP}, {}, "MLP 784-128-64-10, batch 64, Adam",
        ),
        Case("arithmetic", ("op",), _normal(4 * _M), _none, "", {}, {"op": 32.0 * _M}, "x*clip(x*a+b, 0, 1)*c+x-d, 4M"),
        Case("activation", ("op",), _normal(4 * _M), _none, "", {}, {"op": 32.0 * _M}, "gelu(x*a+0.5)+x, 4M"),
        Case("pointwise", ("op",), _normal(4 * _M), _none, "", {}, {"op": 32.0 * _M}, "gelu(x*a+0.5)*sigmoid(x), 4M"),
        Case("softmax", ("op",), _normal(4096, 1024), _none, "", {}, {"op": 32.0 * _M}, "softmax(2x+1), 4096x1024"),
        Case("layer_norm", ("op",), _normal(4096, 1024), _none, "", {}, {"op": 32.0 * _M}, "layer norm, 4096x1024"),
        Case("adam", ("op",), _parameters, _none, "", {}, {"op": 28.0 * 4 * _M}, "a step of Adam, 4M parameters"),
        *vision_cases.CASES,
        *sequence_cases.CASES,
        *onnx_zoo.CASES,
    )
}  # fmt: skip


#: cases that only some runners have, found by name
APART: dict[str, Case] = {c.name: c for c in sequence_cases.APART}


def find(name: str) -> Case:
    """A case by name. Raises KeyError."""
    from .op_cases import op_case

    return CASES.get(name) or APART.get(name) or op_case(name)


def names(ops: bool = False) -> list[str]:
    """All case names, single ops on request."""
    from .op_cases import names as op_names

    return [*CASES, *op_names()] if ops else list(CASES)


def describe(case: Case, phase: str) -> dict[str, Any]:
    """Work of a case for the report."""
    return {"flops": case.flops.get(phase, 0.0), "bytes": case.bytes.get(phase, 0.0)}
