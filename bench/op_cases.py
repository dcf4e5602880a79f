"""The table of single ops: what is called here and in PyTorch, on which operands, at three sizes.

A row's two texts are expressions over its operands. In scope are `dg`, `F` (duograd's functional layers) on one
side, `torch`, `F` (PyTorch's) on the other, and on both `pull(y, x)`, the gradient of `y.sum()` for x, and
`adam(p, g)`, a step of a kept Adam optimiser on p with gradient g.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .case import Arrays, Case

SIZES = ("16", "4096", "4M")
_M = 1 << 20
_Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

FLAT: _Shapes = ((16,), (4096,), (4 * _M,))
MATRIX: _Shapes = ((4, 4), (64, 64), (4096, 1024))
IMAGE: _Shapes = ((1, 1, 4, 4), (1, 4, 32, 32), (64, 16, 64, 64))
HEADS: _Shapes = ((1, 1, 4, 4), (1, 4, 16, 64), (8, 8, 1024, 64))


class Operand(NamedTuple):
    """An operand: its shape by size, and how an array of that shape is drawn."""

    shapes: _Shapes
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _normal(shapes: _Shapes) -> Operand:
    return Operand(shapes, lambda rng, shape: rng.normal(size=shape).astype(np.float32))


def _positive(shapes: _Shapes) -> Operand:
    return Operand(shapes, lambda rng, shape: rng.uniform(0.1, 2.0, shape).astype(np.float32))


def _integers(shapes: _Shapes, high: int) -> Operand:
    return Operand(shapes, lambda rng, shape: rng.integers(0, high, shape))


def _mask(shapes: _Shapes) -> Operand:
    return Operand(shapes, lambda rng, shape: rng.random(shape) < 0.5)


_ROWS: _Shapes = ((4,), (64,), (4096,))
_COLUMNS: _Shapes = ((4,), (64,), (1024,))
_TALL: _Shapes = ((4, 4), (64, 64), (1024, 256))
_WEIGHT: _Shapes = ((4, 4), (64, 64), (256, 1024))
_FILTERS: _Shapes = ((1, 1, 3, 3), (4, 4, 3, 3), (16, 16, 3, 3))

#: operands by name; a row lists the names that its texts use
OPERANDS: dict[str, Operand] = {
    "x": _normal(FLAT), "z": _normal(FLAT), "a": _positive(FLAT), "b": _positive(FLAT),
    "i": _integers(FLAT, 10), "j": _integers(FLAT, 10), "c": _mask(FLAT),
    "m": _normal(MATRIX), "q": _normal(MATRIX), "w": _positive(_COLUMNS), "v": _normal(_COLUMNS),
    "labels": _integers(_ROWS, 4), "picks": _integers(_ROWS, 4), "places": _integers(MATRIX, 4),
    "tall": _normal(_TALL), "weight": _normal(_WEIGHT), "bias": _normal(((4,), (64,), (256,))),
    "image": _normal(IMAGE), "filters": _normal(_FILTERS),
    "heads": _normal(HEADS), "keys": _normal(HEADS), "values": _normal(HEADS),
}  # fmt: skip


class OpRow(NamedTuple):
    """One op: operands, ours, PyTorch's. traffic: bytes per element of the first operand; flops: arithmetic.

    grad: operands that require a gradient; random: values are not compared.
    """

    name: str
    operands: str
    ours: str
    torch: str
    traffic: float = 0.0
    flops: Callable[[dict[str, tuple[int, ...]]], float] | None = None
    grad: str = ""
    random: bool = False


def _unary(*names: str, x: str = "x", traffic: float = 8.0) -> list[OpRow]:
    return [OpRow(n, x, f"dg.{n}({x})", f"torch.{n}({x})", traffic) for n in names]


def _matmul_flops(s: dict[str, tuple[int, ...]]) -> float:
    return 2.0 * math.prod(s["m"]) * s["tall"][-1]


def _linear_flops(s: dict[str, tuple[int, ...]]) -> float:
    return 2.0 * math.prod(s["m"]) * s["weight"][0]


def _conv_flops(s: dict[str, tuple[int, ...]]) -> float:
    n, _, h, w = s["image"]
    return 2.0 * n * h * w * math.prod(s["filters"])


def _attention_flops(s: dict[str, tuple[int, ...]]) -> float:
    batch, heads, length, depth = s["heads"]
    return 4.0 * batch * heads * length * length * depth


_ACTIVATIONS = ("relu", "gelu", "silu", "elu", "softplus", "leaky_relu")

ROWS: dict[str, OpRow] = {
    r.name: r
    for r in (
        # arithmetic
        OpRow("add", "x z", "x + z", "x + z", 12),
        OpRow("add_number", "x", "x + 1.5", "x + 1.5", 8),
        OpRow("add_rows", "m w", "m + w", "m + w", 8),
        OpRow("sub", "x z", "x - z", "x - z", 12),
        OpRow("mul", "x z", "x * z", "x * z", 12),
        OpRow("div", "x b", "x / b", "x / b", 12),
        OpRow("power", "a z", "a ** z", "a ** z", 12),
        OpRow("remainder", "x b", "x % b", "x % b", 12),
        OpRow("maximum", "x z", "dg.maximum(x, z)", "torch.maximum(x, z)", 12),
        OpRow("add_int", "i j", "i + j", "i + j", 24),
        OpRow("add_in_place", "x", "x.add_(1.5)", "x.add_(1.5)", 8),
        OpRow("add_recorded", "x z", "x + z", "x + z", 12, grad="x z"),
        *_unary("abs", "square", "sqrt", "rsqrt", "reciprocal", "floor", "round", x="a"),
        OpRow("negative", "x", "-x", "-x", 8),
        OpRow("clip", "x", "dg.clip(x, -1.0, 1.0)", "torch.clip(x, -1.0, 1.0)", 8),
        # exponentials and angles
        *_unary("exp", "expm1", "sin", "cos", "tanh", "sigmoid", "erf"),
        *_unary("log", "log1p", x="a"),
        # comparisons, choices, conversions
        OpRow("greater", "x z", "x > z", "x > z", 9),
        OpRow("equal", "i j", "i == j", "i == j", 17),
        *_unary("isnan", traffic=5),
        OpRow("where", "c x z", "dg.where(c, x, z)", "torch.where(c, x, z)", 13),
        OpRow("cast_int", "x", "x.to('int64')", "x.to(torch.int64)", 12),
        OpRow("cast_float64", "x", "x.to('float64')", "x.to(torch.float64)", 12),
        # activations
        *(OpRow(n, "x", f"F.{n}(x)", f"F.{n}(x)", 8) for n in _ACTIVATIONS),
        OpRow("dropout", "x", "F.dropout(x, 0.5)", "F.dropout(x, 0.5)", 8, random=True),
        # reductions
        OpRow("sum", "x", "dg.sum(x)", "torch.sum(x)", 4),
        OpRow("sum_last", "m", "m.sum(axis=-1)", "m.sum(-1)", 4),
        OpRow("sum_first", "m", "m.sum(axis=0)", "m.sum(0)", 4),
        OpRow("mean", "m", "m.mean(axis=-1)", "m.mean(-1)", 4),
        OpRow("max", "x", "dg.max(x)", "torch.max(x)", 4),
        OpRow("max_last", "m", "m.max(axis=-1)", "m.amax(-1)", 4),
        OpRow("argmax_last", "m", "m.argmax(axis=-1)", "m.argmax(-1)", 4),
        OpRow("var", "m", "m.var(axis=-1)", "m.var(-1, correction=0)", 4),
        OpRow("logsumexp", "m", "dg.logsumexp(m, axis=-1)", "torch.logsumexp(m, -1)", 4),
        OpRow("softmax", "m", "dg.softmax(m, axis=-1)", "torch.softmax(m, -1)", 8),
        OpRow("softmax_first", "m", "dg.softmax(m, axis=0)", "torch.softmax(m, 0)", 8),
        OpRow("log_softmax", "m", "dg.log_softmax(m, axis=-1)", "torch.log_softmax(m, -1)", 8),
        # running results, order, selection
        OpRow("cumsum", "x", "dg.cumsum(x, 0)", "torch.cumsum(x, 0)", 8),
        OpRow("cumsum_first", "m", "dg.cumsum(m, 0)", "torch.cumsum(m, 0)", 8),
        OpRow("cummax_last", "m", "dg.cummax(m, 1).values", "torch.cummax(m, 1).values", 16),
        OpRow("sort", "x", "dg.sort(x, return_indices=True)[0]", "torch.sort(x)[0]", 16),
        OpRow("sort_last", "m", "dg.sort(m, return_indices=True)[0]", "torch.sort(m)[0]", 16),
        OpRow("topk", "m", "dg.topk(m, 4)[0]", "torch.topk(m, 4)[0]", 4),
        OpRow("nonzero", "c", "dg.nonzero(c)[0]", "torch.nonzero(c, as_tuple=True)[0]", 5),
        OpRow("masked_select", "x c", "dg.masked_select(x, c)", "torch.masked_select(x, c)", 7),
        OpRow("unique", "i", "dg.unique(i)", "torch.unique(i)", 8),
        OpRow("min_first", "m", "m.min(axis=0)", "m.amin(0)", 4),
        OpRow("std", "m", "m.std(axis=0)", "m.std(0, correction=0)", 4),
        OpRow("any", "c", "dg.any(c)", "torch.any(c)", 1),
        OpRow("cumsum", "m", "dg.cumsum(m, axis=-1)", "torch.cumsum(m, -1)", 8),
        OpRow("sort", "m", "dg.sort(m)", "torch.sort(m)[0]", 8),
        OpRow("argsort", "m", "dg.argsort(m)", "torch.argsort(m)", 12),
        OpRow("topk", "m", "dg.topk(m, 2)", "torch.topk(m, 2)", 4),
        # norms and losses
        OpRow("rms_norm", "m w", "F.rms_norm(m, m.shape[-1:], w)", "F.rms_norm(m, m.shape[-1:], w)", 8),
        OpRow("group_norm", "image", "F.group_norm(image, 1)", "F.group_norm(image, 1)", 8),
        OpRow("layer_norm", "m w v", "F.layer_norm(m, m.shape[-1:], w, v)", "F.layer_norm(m, m.shape[-1:], w, v)", 8),
        OpRow("cross_entropy", "m labels", "F.cross_entropy(m, labels)", "F.cross_entropy(m, labels)", 4),
        OpRow("mse_loss", "x z", "F.mse_loss(x, z)", "F.mse_loss(x, z)", 8),
        # products
        OpRow("matmul", "m tall", "m @ tall", "m @ tall", flops=_matmul_flops),
        OpRow("linear", "m weight bias", "F.linear(m, weight, bias)", "F.linear(m, weight, bias)", flops=_linear_flops),
        OpRow("einsum", "m tall", "dg.einsum('ij,jk->ik', m, tall)", "torch.einsum('ij,jk->ik', m, tall)",
              flops=_matmul_flops),
        OpRow("attention", "heads keys values", "F.scaled_dot_product_attention(heads, keys, values)",
              "F.scaled_dot_product_attention(heads, keys, values)", flops=_attention_flops),
        # images
        OpRow("conv2d", "image filters", "F.conv2d(image, filters, padding=1)",
              "F.conv2d(image, filters, padding=1)", flops=_conv_flops),
        OpRow("max_pool2d", "image", "F.max_pool2d(image, 2)", "F.max_pool2d(image, 2)", 5),
        OpRow("avg_pool2d", "image", "F.avg_pool2d(image, 2)", "F.avg_pool2d(image, 2)", 5),
        # shapes and indices
        OpRow("transpose_copy", "m", "m.T.clone()", "m.T.contiguous()", 8),
        OpRow("concat", "m q", "dg.concat([m, q], axis=1)", "torch.concat([m, q], 1)", 16),
        OpRow("stack", "x z", "dg.stack([x, z])", "torch.stack([x, z])", 16),
        OpRow("pad", "m", "F.pad(m, (1, 1))", "F.pad(m, (1, 1))", 8),
        OpRow("reshape", "x", "x.reshape(4, -1)", "x.reshape(4, -1)"),
        OpRow("slice", "m", "m[1:, ::2]", "m[1:, ::2]"),
        OpRow("split", "x", "dg.split(x, x.shape[0] // 2)", "torch.split(x, x.shape[0] // 2)"),
        OpRow("take", "m picks", "dg.take(m, picks, axis=0)", "torch.index_select(m, 0, picks)", 8),
        OpRow("embedding", "picks m", "F.embedding(picks, m)", "F.embedding(picks, m)"),
        OpRow("gather", "m places", "dg.take_along_axis(m, places, axis=1)", "torch.gather(m, 1, places)", 16),
        OpRow("scatter_add", "m places q", "dg.scatter_add(m, 1, places, q)", "torch.scatter_add(m, 1, places, q)", 20),
        OpRow("nonzero", "c", "dg.nonzero(c)", "torch.nonzero(c, as_tuple=True)", 5),
        OpRow("flip", "m", "dg.flip(m, axis=1).clone()", "torch.flip(m, (1,))", 8),
        OpRow("roll", "m", "dg.roll(m, shift=1, axis=1)", "torch.roll(m, 1, 1)", 8),
        OpRow("tril", "m", "dg.tril(m)", "torch.tril(m)", 8),
        OpRow("one_hot", "labels m", "F.one_hot(labels, m.shape[1])", "F.one_hot(labels, m.shape[1])"),
        # making tensors
        OpRow("zeros", "x", "dg.zeros(x.shape)", "torch.zeros(x.shape)", 4),
        OpRow("arange", "x", "dg.arange(x.shape[0])", "torch.arange(x.shape[0])", 8),
        OpRow("rand", "x", "dg.rand(x.shape)", "torch.rand(x.shape)", 4, random=True),
        OpRow("randn", "x", "dg.randn(x.shape)", "torch.randn(x.shape)", 4, random=True),
        # forward and backward
        OpRow("exp_backward", "x", "pull(dg.exp(x), x)", "pull(torch.exp(x), x)", 16, grad="x"),
        OpRow("softmax_backward", "m", "pull(dg.softmax(m), m)", "pull(torch.softmax(m, -1), m)", 16, grad="m"),
        OpRow("layer_norm_backward", "m w v", "pull(F.layer_norm(m, m.shape[-1:], w, v), m)",
              "pull(F.layer_norm(m, m.shape[-1:], w, v), m)", 16, grad="m w v"),
        OpRow("linear_backward", "m weight bias", "pull(F.linear(m, weight, bias), weight)",
              "pull(F.linear(m, weight, bias), weight)", grad="weight bias"),
        OpRow("adam_step", "x z", "adam(x, z)", "adam(x, z)", 28, grad="x"),
    )
}  # fmt: skip


def names() -> list[str]:
    """The names of all op cases: `<op>_<size>`."""
    return [f"{op}_{size}" for op in ROWS for size in SIZES]


def split_name(name: str) -> tuple[OpRow, int]:
    """A case name's row and the number of its size. Raises KeyError."""
    op, _, size = name.rpartition("_")
    if op not in ROWS or size not in SIZES:
        raise KeyError(name)
    return ROWS[op], SIZES.index(size)


def op_case(name: str) -> Case:
    """The case of one op at one size. Raises KeyError."""
    row, k = split_name(name)
    operands = {key: OPERANDS[key] for key in row.operands.split()}
    shapes = {key: operand.shapes[k] for key, operand in operands.items()}

    def data() -> Arrays:
        rng = np.random.default_rng(0)
        return {key: operand.draw(rng, shapes[key]) for key, operand in operands.items()}

    work = row.flops(shapes) if row.flops is not None else 0.0
    traffic = row.traffic * math.prod(next(iter(shapes.values())))
    return Case(name, ("op",), data, dict, "", {"op": work}, {"op": traffic}, row.ours)


def compile_op(name: str, text: str, scope: dict[str, Any]) -> Callable[..., Any]:
    """The function of a row's text over its operands."""
    row, _ = split_name(name)
    return eval(f"lambda {', '.join(row.operands.split())}: {text}", scope)  # type: ignore[no-any-return]
