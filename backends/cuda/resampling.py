"""Weighted picks along an axis and their transpose on a GPU, in the CPU's order of additions: see `resample.cuh`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import fill
from ...core.types import DType
from .written import dense, per_item, start


@functools.cache
def _source(name: str, dtype: DType) -> str:
    kind = dtype.char
    slots = [
        "picks: Picks 5",
        f"x: const {kind}*",
        "index: const i64*",
        f"weight: const {kind}*",
        f"out: {kind}*",
    ]
    return per_item(f"{name} {dtype}", "resample", slots, f"{name}(picks, number, x, index, weight, out);")


def _operands(program: Program, inputs: Sequence[Any]) -> list[Operand]:
    made = [dense(program, v) for v in inputs]
    program.wave()
    return made


def resample(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int) -> None:
    """Append the weighted sums of picks along an axis."""
    out = outputs[0]
    if out.size == 0:
        return
    x, index, weight = _operands(program, inputs)
    m, taps = index.shape
    rest = math.prod(x.shape[axis + 1 :])
    args: list[Arg] = [
        x.shape[axis],
        m,
        rest,
        taps,
        int(rest == 1),
        x.slot,
        index.slot,
        weight.slot,
        out.slot,
    ]
    start(program, _source("resample", x.dtype), out.size, args)


def resample_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, axis: int
) -> None:
    """Append the transpose of resample."""
    out = outputs[0]
    if out.size == 0:
        return
    if inputs[0].size == 0:
        return fill(program, 0, out)
    dy, index, weight = _operands(program, inputs)
    m, taps = index.shape
    rest = math.prod(dy.shape[axis + 1 :])
    args: list[Arg] = [size, m, rest, taps, 1, dy.slot, index.slot, weight.slot, out.slot]
    start(program, _source("resample_gradient", dy.dtype), out.size // size, args)


KERNELS: dict[str, Kernel] = {"resample": resample, "resample_x_grad": resample_x_grad}
