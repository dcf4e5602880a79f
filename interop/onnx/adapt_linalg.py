"""Importers of matrix products: MatMul, Gemm, Einsum, Det."""

from __future__ import annotations

from ...core.op import REGISTRY as ops
from .table import adapter

adapter("MatMul")(lambda x, y: ops["matmul"](x, y))
adapter("Det")(lambda x: ops["det"](x))


@adapter("Gemm", since=7)
def gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    """`alpha * A @ B + beta * C`; the plain case is dg.linear."""
    if transA:
        a = ops["permute"](a, axes=(1, 0))
    scaled = c if c is None or beta == 1 else (c * beta).to(c.dtype)
    if transB and alpha == 1 and (c is None or (scaled.ndim == 1 and scaled.shape[0] == b.shape[0])):
        return ops["linear"](a, b, scaled)
    y = ops["matmul"](a, ops["permute"](b, axes=(1, 0)) if transB else b)
    if alpha != 1:
        y = (y * alpha).to(y.dtype)
    return y if scaled is None or beta == 0 else y + scaled


@adapter("Gemm", since=1)
def gemm_1(a, b, c, *, alpha=1.0, beta=1.0, transA=0, transB=0, broadcast=0):
    """C broadcasts only on request."""
    return gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@adapter("Einsum")
def einsum(*xs, equation):
    """The equation as it stands: ours has the same rules."""
    return ops["einsum"](*xs, equation=equation)
