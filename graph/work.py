"""The arithmetic of a node: floating-point operations of one run, for floors and for people."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .group import cost_of
from .ir import Node, Value
from .passes.fuse import number_kinds


def flops(node: Node) -> float:
    """Operations of one run of an op: a multiply-add counts two, exp and its like as many as their kernel has."""
    rule = _RULES.get(node.op.name)
    if rule is not None:
        return float(rule(node, [x.type.shape if isinstance(x, Value) else () for x in node.inputs]))
    if node.op.is_view or not node.outputs:
        return 0.0
    if node.op.kind == "pointwise":
        return float(node.outputs[0].type.size * cost_of(node.op.form(number_kinds(node), node.attrs))[0])
    values = [v.type.size for v in node.values()]
    return float(values[0]) if node.op.reduction is not None and values else 0.0


def _out(node: Node) -> int:
    return node.outputs[0].type.size


def _attention(products: int) -> Callable[[Node, Any], float]:
    """Attention: `products` matrix products of [M, N] scores with D columns."""

    def rule(node: Node, shapes: Any) -> float:
        (b, h, m, d), n = shapes[0], shapes[1][2]
        seen = 0.5 if node.named.get("is_causal") else 1.0
        return 2.0 * products * b * h * m * n * d * seen

    return rule


def _fft(node: Node, shapes: Any) -> float:
    n = shapes[0][node.named["axis"]] if shapes[0] else 1
    return 5.0 * _out(node) * math.log2(max(2, n))


def _cube(factor: float) -> Callable[[Node, Any], float]:
    """Factorisations of batched [..., M, N] matrices: factor * M * N * min(M, N)."""

    def rule(node: Node, shapes: Any) -> float:
        *batch, m, n = shapes[0]
        return factor * math.prod(batch) * m * n * min(m, n)

    return rule


_RULES: dict[str, Callable[[Node, Any], float]] = {
    "matmul": lambda node, s: 2.0 * _out(node) * s[0][-1],
    "conv": lambda node, s: 2.0 * _out(node) * math.prod(s[1][1:]),
    "conv_x_grad": lambda node, s: 2.0 * math.prod(s[0]) * math.prod(s[1][1:]),
    "conv_w_grad": lambda node, s: 2.0 * math.prod(s[0]) * math.prod(node.outputs[0].type.shape[1:]),
    "attention": _attention(2),
    "attention_grad": _attention(5),
    "attention_grad_joined": _attention(5),
    "recurrent": lambda node, s: 2.0 * math.prod(s[0]) * s[1][1],
    "recurrent_grad": lambda node, s: 2.0 * _out(node) * s[2][1],
    "fft_c2c": _fft,
    "fft_r2c": _fft,
    "fft_c2r": _fft,
    "cholesky_ex": _cube(1 / 3),
    "lu_factor_ex": _cube(2 / 3),
    "qr": _cube(2.0),
    "svd_ex": _cube(12.0),
    "svdvals_ex": _cube(4.0),
    "eigh_ex": _cube(9.0),
    "eigvalsh_ex": _cube(4 / 3),
    "solve_triangular": _cube(1.0),
    "solve_with": _cube(2.0),
}
