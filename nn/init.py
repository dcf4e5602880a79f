"""Initialisers: fill a tensor in place, with random numbers seeded by `dg.manual_seed`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentError, ShapeError
from ..core.kinds import NumberOrNan
from ..core.op import PUBLIC, REGISTRY
from ..core.ops.creation import eye
from ..core.ops.random import rand, randn, truncated_normal
from ..core.spoken import spell as _spell
from ..core.value import Tensor


def _fill(x: Tensor, values: Any) -> Tensor:
    with dispatch.set_grad(False):
        x.copy_(values)
    return x


def uniform_(x: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill x with uniform numbers from [a, b). Returns x."""
    with dispatch.set_grad(False):
        return _fill(x, rand(x.shape, dtype=x.dtype, device=x.device) * (b - a) + a)


def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill x with normal numbers. Returns x."""
    with dispatch.set_grad(False):
        values = randn(x.shape, dtype=x.dtype, device=x.device)
        return _fill(x, values if mean == 0.0 and std == 1.0 else values * std + mean)


def constant_(x: Tensor, val: NumberOrNan) -> Tensor:
    """Fill x with one number. Returns x."""
    return _fill(x, val)


def zeros_(x: Tensor) -> Tensor:
    """Fill x with zeros. Returns x."""
    return _fill(x, 0)


def ones_(x: Tensor) -> Tensor:
    """Fill x with ones. Returns x."""
    return _fill(x, 1)


def fans(op: str, x: Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit of a weight `[out, in, *window]`. Raises: ShapeError below two axes."""
    if x.ndim < 2:
        raise ShapeError(
            op, f"{x.type} has no fan-in and fan-out", "initialise vectors with uniform_ or zeros_"
        )
    window = math.prod(x.shape[2:])
    return x.shape[1] * window, x.shape[0] * window


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which an initialisation makes up for a nonlinearity. param: leaky_relu's slope."""
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope * slope))
    if nonlinearity in ("linear", "sigmoid", "conv1d", "conv2d", "conv3d"):
        return 1.0
    if nonlinearity not in gains:
        raise ArgumentError(
            "calculate_gain",
            f"nonlinearity={nonlinearity!r}",
            f"use one of linear, sigmoid, leaky_relu, {', '.join(gains)}",
        )
    return gains[nonlinearity]


def _kaiming_std(op: str, x: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(op, f"mode={mode!r}", 'use "fan_in" or "fan_out"')
    fan = fans(op, x)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(
    x: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Fill x with uniform numbers of variance gain**2 / fan. a: leaky_relu's slope. Returns x.

    Source: He et al., 2015.
    """
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", x, a, mode, nonlinearity)
    return uniform_(x, -bound, bound)


def kaiming_normal_(
    x: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Fill x with normal numbers of variance gain**2 / fan. a: leaky_relu's slope. Returns x.

    Source: He et al., 2015.
    """
    return normal_(x, 0.0, _kaiming_std("kaiming_normal_", x, a, mode, nonlinearity))


def xavier_uniform_(x: Tensor, gain: float = 1.0) -> Tensor:
    """Fill x with uniform numbers of variance 2 gain**2 / (fan_in + fan_out). Returns x.

    Source: Glorot and Bengio, 2010.
    """
    bound = gain * math.sqrt(6.0 / max(1, sum(fans("xavier_uniform_", x))))
    return uniform_(x, -bound, bound)


def xavier_normal_(x: Tensor, gain: float = 1.0) -> Tensor:
    """Fill x with normal numbers of variance 2 gain**2 / (fan_in + fan_out). Returns x.

    Source: Glorot and Bengio, 2010.
    """
    return normal_(x, 0.0, gain * math.sqrt(2.0 / max(1, sum(fans("xavier_normal_", x)))))


def trunc_normal_(x: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fill x with normal numbers, drawn from those between a and b. Returns x."""
    if not a < b or std <= 0:
        raise ArgumentError("trunc_normal_", f"std={std}, from {a} to {b}", "use std above 0 and a < b")
    with dispatch.set_grad(False):
        return _fill(x, truncated_normal(mean, std, a, b, x.shape, x.dtype, x.device))


def orthogonal_(x: Tensor, gain: float = 1.0) -> Tensor:
    """Fill x with a random matrix of orthonormal rows or columns (of [n, rest]) times gain. Returns x.

    Raises: ShapeError below two axes. Source: Saxe et al., 2013.
    """
    if x.ndim < 2:
        raise ShapeError(
            "orthogonal_", f"{x.type} is no matrix", "initialise vectors with uniform_ or zeros_"
        )
    if not x.size:
        return x
    with dispatch.set_grad(False):
        rows, columns = x.shape[0], x.size // x.shape[0]
        wide = rows < columns
        draw = randn((columns, rows) if wide else (rows, columns), dtype=x.dtype, device=x.device)
        q, r = PUBLIC["qr"](draw)
        # Signs that make it uniform over all such matrices.
        q = q * r.diagonal().sign()
        return _fill(x, (q.T if wide else q).reshape(x.shape) * gain)


def eye_(x: Tensor) -> Tensor:
    """Fill a matrix with the identity. Returns x. Raises: ShapeError for another rank."""
    if x.ndim != 2:
        raise ShapeError("eye_", f"{x.type} is no matrix", "use dirac_ for convolutions")
    return _fill(x, eye(*x.shape, dtype=x.dtype, device=x.device))


def dirac_(x: Tensor, groups: int = 1) -> Tensor:
    """Fill a filter [out, in, *window] so that the convolution hands its channels on. Returns x.

    Raises: ShapeError for another rank, ArgumentError for groups that do not divide the outputs.
    Source: Zagoruyko and Komodakis, 2017.
    """
    if x.ndim not in (3, 4, 5):
        raise ShapeError("dirac_", f"{x.type} is no filter", "pass a convolution's weight")
    if x.shape[0] % groups:
        raise ArgumentError("dirac_", f"groups={groups} does not divide {x.shape[0]}", "use a divisor")
    each, middle = x.shape[0] // groups, tuple(n // 2 for n in x.shape[2:])
    values = np.zeros(x.shape, np.float32)
    for g in range(groups):
        for k in range(min(each, x.shape[1])):
            values[(g * each + k, k, *middle)] = 1
    return _fill(x, dispatch.state.executor.constant(values, x.device).to(x.dtype))


def sparse_(x: Tensor, sparsity: float, std: float = 0.01) -> Tensor:
    """Fill a matrix with normal numbers and set that share of each column to zero. Returns x.

    Raises: ShapeError for another rank, ArgumentError for a share outside [0, 1]. Source: Martens, 2010.
    """
    if x.ndim != 2:
        raise ShapeError("sparse_", f"{x.type} is no matrix", "use normal_")
    if not 0 <= sparsity <= 1:
        raise ArgumentError("sparse_", f"sparsity={sparsity} is outside [0, 1]", "use such as 0.1")
    with dispatch.set_grad(False):
        gone = math.ceil(sparsity * x.shape[0])
        place = REGISTRY["argsort"](rand(x.shape, device=x.device), axis=0)
        values = randn(x.shape, dtype=x.dtype, device=x.device) * std
        return _fill(x, values * (REGISTRY["argsort"](place, axis=0) >= gone).to(x.dtype))


_spell(globals(), [n for n in globals() if (n.endswith("_") and n[0] != "_") or n == "calculate_gain"])
