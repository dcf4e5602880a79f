"""Scaled dot-product attention: one fused op whose memory grows with the length of the sequence, not its square.

`attention` gives the result and each row's logarithm of summed exponentials; `attention_grad` makes the scores
again from them. What differentiates `attention_grad`, and dropout, is written in ops that do hold all scores.
"""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import composite, primitive
from ..types import TensorType
from . import elementwise as E
from .activation import dropout
from .creation import arange
from .linalg import matmul
from .reduction import logsumexp, sum_
from .shape import broadcast_to, expand_dims, permute, reshape, sum_to, transpose

_INF = math.inf


# ---------------------------------------------------------------- in NumPy: what the kernels compute


def _np_scores(q, k, mask, is_causal, scale, offset):
    group = q.shape[1] // k.shape[1]
    s = np.matmul(q, np.repeat(k, group, axis=1).swapaxes(-1, -2)) * q.dtype.type(scale)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if is_causal:
        m, n = s.shape[-2:]
        s = np.where(np.arange(n) <= np.arange(m)[:, None] + offset, s, -np.inf)
    return s


def _check(op, q, k, v, mask):
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, TensorType) or x.ndim != 4:
            raise ShapeError(
                op, f"{name}: {x} is not [B, H, N, D]", "reshape it, with B = 1 and H = 1 if need be"
            )
        if not x.dtype.is_float or x.dtype is not q.dtype:
            raise DtypeError(
                op, f"q: {q}, k: {k}, v: {v} differ in dtype or are not floats", "convert with .to"
            )
    if q.shape[3] != k.shape[3] or k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0]:
        raise ShapeError(
            op, f"q: {q}, k: {k} and v: {v} do not fit", "q[B, H, M, D], k[B, G, N, D], v[B, G, N, V]"
        )
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ShapeError(
            op, f"the {q.shape[1]} heads of q are not a multiple of k's {k.shape[1]}", "repeat heads"
        )
    if mask is not None:
        whole = (*q.shape[:3], k.shape[2])
        if mask.dtype not in (T.bool_, q.dtype):
            raise DtypeError(op, f"mask: {mask} is neither bool nor {q.dtype}", "convert it with .to")
        if T.broadcast_shapes(op, mask.shape, whole) != whole:
            raise ShapeError(op, f"mask: {mask} does not broadcast to scores{list(whole)}", "reshape it")


# ---------------------------------------------------------------- in ops: all scores


def _spread(x, heads):
    """[B, G, N, D] with every head repeated for its group: [B, heads, N, D]."""
    b, g, n, d = x.shape
    if g == heads:
        return x
    wide = broadcast_to(expand_dims(x, axis=2), shape=(b, g, heads // g, n, d))
    return reshape(wide, shape=(b, heads, n, d))


def _gather(x, groups):
    """The transpose of `_spread`: heads of a group added up."""
    b, h, n, d = x.shape
    return x if h == groups else sum_(reshape(x, shape=(b, groups, h // groups, n, d)), axis=2)


def _scores(q, k, mask, is_causal, scale, offset):
    s = matmul(q, transpose(_spread(k, q.shape[1]))) * scale
    if mask is not None:
        s = E.where(mask, s, -_INF) if mask.dtype is T.bool_ else s + mask
    if is_causal:
        rows = reshape(arange(s.shape[2], device=s.device), shape=(-1, 1)) + offset
        s = E.where(E.less_equal(arange(s.shape[3], device=s.device), rows), s, -_INF)
    return s


def _by_heads(x):
    """[B, M, H, D] as [B, H, M, D], and back."""
    return permute(x, axes=(0, 2, 1, 3))


def _finite(lse):
    """lse, but 0 for rows that see no key: exp(-inf - 0) is 0."""
    return E.where(E.equal(lse, -_INF), 0.0, lse)


def _probabilities(q, k, mask, lse, is_causal, scale, offset):
    return E.exp(_scores(q, k, mask, is_causal, scale, offset) - expand_dims(_finite(lse), axis=-1))


# ---------------------------------------------------------------- attention


def _onnx_scores(o, q, k, mask, is_causal, scale, offset):
    b, g, n, d = k.shape
    h, m = q.shape[1:3]
    if g != h:
        wide = o.Expand(o.Unsqueeze(k, o.ints((2,))), o.ints((b, g, h // g, n, d)))
        k = o.reshape(wide, (b, h, n, d))
    s = o.Mul(o.MatMul(q, o.Transpose(k, perm=[0, 1, 3, 2])), o.const(scale, q.dtype))
    low = o.const(-_INF, q.dtype)
    if mask is not None:
        s = o.Where(mask, s, low) if mask.dtype is T.bool_ else o.Add(s, mask)
    if is_causal:
        rows = o.reshape(o.counted(offset, 1, m, T.int64), (m, 1))
        s = o.Where(o.Less(rows, o.counted(0, 1, n, T.int64)), low, s)
    return s


def _onnx_attention(o, q, k, v, mask=None, *, is_causal, scale, offset):
    s = _onnx_scores(o, q, k, mask, is_causal, scale, offset)
    b, g, n, d = v.shape
    h, m = q.shape[1:3]
    if g != h:
        v = o.reshape(o.Expand(o.Unsqueeze(v, o.ints((2,))), o.ints((b, g, h // g, n, d))), (b, h, n, d))
    s.shape = (b, h, m, n)
    lse = o.reduce("ReduceLogSumExp", s, -1, False)
    p = o.Softmax(s, axis=-1)
    if mask is not None or is_causal:
        # A row without keys is 0, where Softmax says NaN.
        p = o.Where(o.IsNaN(p), o.const(0.0, q.dtype), p)
    return o.Transpose(o.MatMul(p, v), perm=[0, 2, 1, 3]), lse


@primitive(internal=True, onnx=_onnx_attention)
def attention(q, k, v, mask=None, *, is_causal=False, scale=1.0, offset=0):
    """(softmax(scale q k' + mask) v, the logarithm of every row's sum of exponentials), made in blocks.

    q: float[B, H, M, D], k: float[B, G, N, D], v: float[B, G, N, V], H a multiple of G; mask: bool (True: seen)
    or float (added), broadcast to [B, H, M, N]; is_causal: query i sees keys up to i + offset.
    Returns: float[B, M, H, V], the heads of a row side by side as the next layer wants them, and float[B, H, M].
    Numerics: a row that sees no key is 0, its logarithm -inf.
    """
    s = _np_scores(q, k, mask, is_causal, scale, offset)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(top), top, 0))
    total = p.sum(axis=-1, keepdims=True)
    weights = p / np.where(total == 0, 1, total)
    lse = np.where(np.isfinite(top), top, 0) + np.log(total)
    out = np.matmul(weights, np.repeat(v, q.shape[1] // v.shape[1], axis=1))
    return out.swapaxes(1, 2), lse[..., 0]


@attention.type
def _(q, k, v, mask=None, *, is_causal, scale, offset):
    _check("attention", q, k, v, mask)
    batch, heads, rows = q.shape[:3]
    return TensorType(q.dtype, (batch, rows, heads, v.shape[3])), TensorType(q.dtype, (batch, heads, rows))


@attention.grad_joint
def _(gs, q, k, v, mask, outs, needs, is_causal, scale, offset):
    (g, g_lse), (out, lse) = gs, outs
    delta = sum_(g * out, axis=-1) - permute(g_lse, axes=(0, 2, 1))
    settings = {"is_causal": is_causal, "scale": scale, "offset": offset}
    dq, dk, dv = map(_by_heads, attention_grad(q, k, v, mask, g, lse, delta, **settings))
    if not needs[3]:
        return dq, dk, dv, None
    p = _probabilities(q, k, mask, lse, **settings)
    slopes = matmul(_by_heads(g), transpose(_spread(v, q.shape[1]))) - _by_heads(expand_dims(delta, axis=-1))
    slopes = p * slopes
    return dq, dk, dv, sum_to(slopes, shape=mask.shape)


attention.sample((1, 2, 5, 4), (1, 2, 7, 4), (1, 2, 7, 3)).sample(
    (2, 4, 3, 4), (2, 2, 6, 4), (2, 2, 6, 4), (3, 6)
)
attention.sample((1, 2, 6, 3), (1, 1, 6, 3), (1, 1, 6, 3), is_causal=True, scale=0.5)
attention.sample((0, 1, 2, 3), (0, 1, 4, 3), (0, 1, 4, 3))
attention.error_sample((1, 3, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4), match="not a multiple")
attention.error_sample((1, 2, 2, 4), (1, 2, 2, 3), (1, 2, 2, 3), match="do not fit")


@primitive(internal=True, parts="attention_grad")
def attention_grad(
    q, k, v, mask=None, dy=None, lse=None, delta=None, *, is_causal=False, scale=1.0, offset=0
):
    """The gradients of q, k and v in attention: with p = exp(scores - lse), slopes p (dy v' - delta).

    dy: float[B, M, H, V], delta: float[B, M, H]. Returns: float[B, M, H, D], float[B, N, G, D], float[B, N, G, V].
    """
    dy, delta = dy.swapaxes(1, 2), delta.swapaxes(1, 2)
    heads, groups = q.shape[1], k.shape[1]
    s = _np_scores(q, k, mask, is_causal, scale, offset)
    p = np.exp(s - np.where(np.isneginf(lse), 0, lse)[..., None])
    wide_k, wide_v = (np.repeat(x, heads // groups, axis=1) for x in (k, v))
    slopes = p * (np.matmul(dy, wide_v.swapaxes(-1, -2)) - delta[..., None]) * q.dtype.type(scale)
    dk, dv = np.matmul(slopes.swapaxes(-1, -2), q), np.matmul(p.swapaxes(-1, -2), dy)
    grouped = (x.reshape(x.shape[0], groups, heads // groups, *x.shape[2:]).sum(axis=2) for x in (dk, dv))
    return tuple(x.swapaxes(1, 2) for x in (np.matmul(slopes, wide_k), *grouped))


@attention_grad.type
def _(q, k, v, mask, dy, lse, delta, *, is_causal, scale, offset):
    _check("attention_grad", q, k, v, mask)
    return tuple(TensorType(x.dtype, (x.shape[0], x.shape[2], x.shape[1], x.shape[3])) for x in (q, k, v))


@attention_grad.grad_joint
def _(gs, q, k, v, mask, dy, lse, delta, needs, is_causal, scale, offset):
    """Of gradients a, b, c of dq, dk, dv; all scores are held."""
    heads, groups = q.shape[1], k.shape[1]
    a, b, c = _by_heads(gs[0]), *(_spread(_by_heads(g), heads) for g in gs[1:])
    dy, delta = _by_heads(dy), permute(delta, axes=(0, 2, 1))
    wide_k, wide_v = _spread(k, heads), _spread(v, heads)
    p = _probabilities(q, k, mask, lse, is_causal, scale, offset)
    rest = matmul(dy, transpose(wide_v)) - expand_dims(delta, axis=-1)
    slopes = p * rest * scale
    w = (matmul(a, transpose(wide_k)) + matmul(q, transpose(b))) * scale
    from_slopes = p * w
    scores = p * (matmul(dy, transpose(c)) + w * rest)
    dq = matmul(scores, wide_k) * scale + matmul(slopes, b)
    dk = matmul(transpose(scores), q) * scale + matmul(transpose(slopes), a)
    dv = matmul(transpose(from_slopes), dy)
    dg = matmul(p, c) + matmul(from_slopes, wide_v)
    d_mask = sum_to(scores, shape=mask.shape) if needs[3] else None
    d_lse, d_delta = -sum_(scores, axis=-1), -sum_(from_slopes, axis=-1)
    d_delta = permute(d_delta, axes=(0, 2, 1))
    return dq, _gather(dk, groups), _gather(dv, groups), d_mask, _by_heads(dg), d_lse, d_delta


attention_grad.sample((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 3), None, (1, 3, 2, 3), (1, 2, 3), (1, 3, 2))
attention_grad.sample(
    (1, 2, 4, 3),
    (1, 1, 4, 3),
    (1, 1, 4, 2),
    (4, 4),
    (1, 4, 2, 2),
    (1, 2, 4),
    (1, 4, 2),
    is_causal=True,
    scale=0.5,
)


@primitive(
    internal=True,
    parts="attention_grad_joined",
    no_gradient="made of attention_grad by a pass over graphs, after all differentiation",
)
def attention_grad_joined(
    q, k, v, mask=None, dy=None, lse=None, delta=None, *, is_causal=False, scale=1.0, offset=0
):
    """The results of attention_grad side by side, for q, k, v cut out of one tensor. Returns: float[B, M, 3, H, D]."""
    settings = {"is_causal": is_causal, "scale": scale, "offset": offset}
    return np.stack(attention_grad.fn(q, k, v, mask, dy, lse, delta, **settings), axis=2)


@attention_grad_joined.type
def _(q, k, v, mask, dy, lse, delta, *, is_causal, scale, offset):
    _check("attention_grad_joined", q, k, v, mask)
    if not q.shape == k.shape == v.shape:
        raise ShapeError(
            "attention_grad_joined", f"q: {q}, k: {k}, v: {v} differ in shape", "use attention_grad"
        )
    (b, h, m, d) = q.shape
    return TensorType(q.dtype, (b, m, 3, h, d))


attention_grad_joined.sample(
    (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4), None, (1, 3, 2, 4), (1, 2, 3), (1, 3, 2), is_causal=True,
    low=-0.5, high=0.5,
)  # fmt: skip


# ---------------------------------------------------------------- what users call


def _onnx_sdpa(o, q, k, v, mask=None, *, is_causal, scale, dropout_p, enable_gqa):
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        o.schema("Attention of tensors that are not 4-d")
    if dropout_p or (mask is not None and is_causal):
        o.schema("Attention with dropout")
    if mask is not None and mask.shape[-2:-1] != q.shape[2:3]:
        mask = o.Expand(mask, o.ints((q.shape[2], 1)))  # onnxruntime wants a row for every query
    return o.Attention(q, k, v, mask, is_causal=int(is_causal), scale=scale)


@composite(onnx=_onnx_sdpa)
def scaled_dot_product_attention(
    q, k, v, mask=None, *, is_causal=False, scale=None, dropout_p=0.0, enable_gqa=True
):
    """softmax(scale q k' + mask) v over the last two axes, without holding the scores.

    q: float[..., H, M, D], k: float[..., G, N, D], v: float[..., G, N, V]; leading axes broadcast, and H is a
    multiple of G: heads of k and v are shared by groups of q's (refused with enable_gqa=False, save G = 1).
    mask: bool, True where a query sees a key, or float, added to the scores; broadcasts to [..., H, M, N].
    is_causal: query i sees keys 0 to i only, beside what the mask says. scale: `1 / sqrt(D)` when None.
    dropout_p: probability of dropping a weight.
    Returns: float[..., H, M, V]. Raises: ShapeError, DtypeError for what does not fit.
    Numerics: float32 and float64 as they are, narrower floats in float32. A query that sees no key gets 0,
    and gives no gradient. Memory is linear in M and N, except with dropout, for a mask's gradient and for
    gradients of gradients, which hold the scores. Source: Vaswani et al., 2017; Dao et al., 2022; ONNX Attention.
    Example: `dg.scaled_dot_product_attention(q, k, v, is_causal=True).shape`
    """
    op = "scaled_dot_product_attention"
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim < 2 or not x.dtype.is_float:
            raise ShapeError(
                op, f"{name}: {x.type} is not float[..., N, D]", "pass floats of two axes or more"
            )
        if x.dtype is not q.dtype:
            raise DtypeError(op, f"q: {q.type} and {name}: {x.type} differ in dtype", "convert one with .to")
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            op,
            f"q: {q.type}, k: {k.type} and v: {v.type} do not fit",
            "q[..., M, D], k[..., N, D], v[..., N, V]",
        )
    if not 0 <= dropout_p <= 1:
        raise ArgumentError(op, f"dropout_p={dropout_p} is not a probability", "use a number from 0 to 1")
    heads = [x.shape[-3] if x.ndim > 2 else 1 for x in (q, k, v)]
    groups = max(heads[1:])
    if min(heads[1:]) not in (1, groups) or (heads[0] % max(groups, 1) and heads[0] != 1):
        raise ShapeError(
            op,
            f"q: {q.type} has {heads[0]} heads, k: {k.type} and v: {v.type} do not divide them",
            "repeat heads",
        )
    if not enable_gqa and groups not in (1, heads[0]) and heads[0] != 1:
        raise ShapeError(
            op,
            f"q: {q.type} has {heads[0]} heads, k: {k.type} has {groups}",
            "pass enable_gqa=True to share them",
        )
    batch = T.broadcast_shapes(op, *(x.shape[:-3] for x in (q, k, v)))
    heads = max(heads[0], groups)
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    dtype = q.dtype
    work = dtype if dtype is T.float64 else T.float32
    rows = [_as_four(x.to(work), batch, h) for x, h in ((q, heads), (k, groups), (v, groups))]
    whole = (*batch, heads, q.shape[-2], k.shape[-2])
    if mask is not None:
        if T.broadcast_shapes(op, mask.shape, whole) != whole:
            raise ShapeError(op, f"mask: {mask.type} does not broadcast to scores{list(whole)}", "reshape it")
        if mask.dtype is not T.bool_:
            if not mask.dtype.is_float:
                raise DtypeError(
                    op, f"mask: {mask.type} is neither bool nor float", "compare it, or convert it"
                )
            mask = mask.to(work)
        if len(batch) > 1 and mask.ndim > 3:
            mask = reshape(broadcast_to(mask, shape=(*batch, *_last(mask, 3))), shape=(-1, *_last(mask, 3)))
    if dropout_p:
        out = _dropped(*rows, mask, is_causal, scale, dropout_p)
    else:
        out = _by_heads(attention(*rows, mask, is_causal=bool(is_causal), scale=scale, offset=0)[0])
    shape = (*batch, *((heads,) if max(x.ndim for x in (q, k, v)) > 2 else ()), q.shape[-2], v.shape[-1])
    return reshape(out, shape=shape).to(dtype)


def _last(x, n):
    return x.shape[-n:]


def _as_four(x, batch, heads):
    """[..., h, N, D] as [B, heads, N, D]."""
    tail = x.shape[-2:]
    shape = (*batch, heads, *tail)
    if (x.ndim > 2 and x.shape != shape) or (x.ndim == 2 and shape[:-2] != (1,)):
        x = broadcast_to(x, shape=shape)
    return reshape(x, shape=(math.prod(batch), heads, *tail))


def _dropped(q, k, v, mask, is_causal, scale, p):
    weights = _weights(q, k, mask, is_causal, scale)
    weights = weights * 0.0 if p == 1 else dropout(weights, p=p)
    return matmul(weights, _spread(v, q.shape[1]))


def _weights(q, k, mask, is_causal, scale):
    s = _scores(q, k, mask, is_causal, scale, 0)
    return E.exp(s - _finite(logsumexp(s, axis=-1, keepdims=True)))


def attention_with_weights(q, k, v, mask=None, *, is_causal=False, dropout_p=0.0):
    """Attention [B, H, M, D] scaled by `1 / sqrt(D)`, and its weights [B, H, M, N], with dropout."""
    weights = _weights(q, k, mask, is_causal, 1 / math.sqrt(q.shape[-1]))
    if dropout_p:
        weights = weights * 0.0 if dropout_p == 1 else dropout(weights, p=dropout_p)
    return matmul(weights, v), weights


scaled_dot_product_attention.sample((2, 3, 4), (2, 5, 4), (2, 5, 3)).sample(
    (3, 4), (5, 4), (5, 2), is_causal=True
)
scaled_dot_product_attention.sample((2, 4, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (2, 1, 3, 5), scale=0.3)
scaled_dot_product_attention.sample((2, 3, 2, 3, 4), (3, 2, 5, 4), (2, 1, 2, 5, 4), (2, 1, 2, 3, 5))
scaled_dot_product_attention.sample((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4))
scaled_dot_product_attention.error_sample((2, 3, 4), (2, 5, 3), (2, 5, 3), match="do not fit")
