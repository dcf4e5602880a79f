"""Importers of matrix products: MatMul, Gemm, Einsum, Det of small matrices."""

from __future__ import annotations

from ...core.errors import OnnxError
from ...core.op import REGISTRY as ops
from .table import adapter

adapter("MatMul")(lambda x, y: ops["matmul"](x, y))


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
    """Products by broadcasting, one pair at a time as a matrix product where the letters allow it."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        raise OnnxError(
            "Einsum", f"{equation} has {len(terms)} terms for {len(xs)} inputs", "give one input a term"
        )
    terms = [_letters(t, x.ndim) for t, x in zip(terms, xs)]
    if arrow:
        widest = max((t for t in terms), key=lambda t: sum(c.isupper() and c in _DOTS for c in t))
        dots = "".join(c for c in widest if c in _DOTS)
        out = right.replace("...", dots)
    else:
        joined = "".join(terms)
        dots = "".join(sorted({c for c in joined if c in _DOTS}, key=_DOTS.index))
        out = dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in _DOTS))
    operands = [_diagonal(t, x) for t, x in zip(terms, xs)]
    term, x = operands[0]
    for k, (other, y) in enumerate(operands[1:], 1):
        later = set(out).union(*[t for t, _ in operands[k + 1 :]])
        term, x = _pair(term, x, other, y, later)
    gone = tuple(k for k, c in enumerate(term) if c not in out)
    if gone:
        x = ops["sum"](x, axis=gone).to(x.dtype)
        term = "".join(c for c in term if c in out)
    return ops["permute"](x, axes=tuple(term.index(c) for c in out)) if term != out else ops["assign"](x)


#: letters that stand for the axes of "...", last axis last
_DOTS = "ÀÁÂÃÄÅÆÇÈÉÊË"


def _letters(term, ndim):
    if "..." not in term:
        return term
    n = ndim - len(term.replace("...", ""))
    return term.replace("...", _DOTS[len(_DOTS) - n :] if n else "")


def _diagonal(term, x):
    """Repeated letters reduced to one."""
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            i, j = term.index(c), term.rindex(c)
            n = x.shape[i]
            order = [k for k in range(x.ndim) if k not in (i, j)] + [i, j]
            x = ops["permute"](x, axes=tuple(order))
            flat = ops["reshape"](x, shape=(*x.shape[:-2], n * n))
            x = ops["slice"](flat, index=(Ellipsis, slice(None, None, n + 1)))
            term = "".join(term[k] for k in order[:-2]) + c
    return term, x


def _pair(a, x, b, y, later):
    """Two operands as one: letters of both that nobody needs later are summed by a matrix product."""
    batch = [c for c in a if c in b and c in later]
    common = [c for c in a if c in b and c not in later]
    only_a, only_b = [c for c in a if c not in b], [c for c in b if c not in a]
    if any(x.shape[a.index(c)] != y.shape[b.index(c)] for c in (*batch, *common)):
        # A size of 1 broadcasts: multiply and leave the sums to the end.
        letters = [*batch, *common, *only_a, *only_b]
        return "".join(letters), _aligned(a, x, letters) * _aligned(b, y, letters)
    sizes = {**dict(zip(a, x.shape)), **dict(zip(b, y.shape))}
    left = _grouped(a, x, batch, only_a, common)
    right = _grouped(b, y, batch, common, only_b)
    out = ops["matmul"](left, right)
    letters = [*batch, *only_a, *only_b]
    return "".join(letters), ops["reshape"](out, shape=tuple(sizes[c] for c in letters))


def _aligned(term, x, letters):
    present = [c for c in letters if c in term]
    x = ops["permute"](x, axes=tuple(term.index(c) for c in present)) if present else x
    sizes = dict(zip(present, x.shape))
    return ops["reshape"](x, shape=tuple(sizes.get(c, 1) for c in letters))


def _grouped(term, x, *groups):
    batch, rows, columns = groups
    order = [*batch, *rows, *columns]
    sizes = dict(zip(term, x.shape))
    x = ops["permute"](x, axes=tuple(term.index(c) for c in order)) if order else x

    def product(letters):
        n = 1
        for c in letters:
            n *= sizes[c]
        return n

    return ops["reshape"](x, shape=(*(sizes[c] for c in batch), product(rows), product(columns)))
