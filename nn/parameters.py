"""Parameters of layers: how they are made and drawn at first."""

from __future__ import annotations

import math
from typing import Any

from ..core.ops.creation import empty
from ..core.types import as_dtype, float32
from . import init
from .module import Parameter


def parameter(op: str, shape: tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """An undrawn parameter; float32 when dtype is None."""
    kind = float32 if dtype is None else as_dtype(dtype, op)
    return Parameter(empty(shape, dtype=kind, device=device))


def reset_weight_and_bias(weight: Parameter, bias: Parameter | None) -> None:
    """Uniform within 1 / sqrt(fan in), both."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in = init.fans("reset_parameters", weight)[0]
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(bias, -bound, bound)
