"""Rows of tests/test_families_random.py: products, linear algebra, Fourier transforms, distances."""

from __future__ import annotations

from typing import Any

import duograd as dg
import numpy as np
import scipy.linalg
import torch
from drawing import FLOATS, REAL, Row, of_torch, wide

F = torch.nn.functional


def row(name: str, peer: Any, draw: Any, call: Any = None, **kwargs: Any) -> Row:
    return Row(name, peer, draw, call, **{"dtypes": REAL, "scale": 20.0, "corners": False, **kwargs})


def shapes(*choices: Any, **settings: Any) -> Any:
    """Arrays of one of these lists of shapes, where letters are drawn sizes; settings: lists to pick from."""

    def draw(d: Any) -> Any:
        size = {c: d.pick([0, 1, 2, 3, 18]) for c in "bmnk"}
        made = [d.array([size.get(c, c) for c in shape]) for shape in d.pick(choices)]
        return made, {k: d.pick(v) for k, v in settings.items()}

    return draw


MATMUL = shapes(
    ("mk", "kn"),
    ("bmk", "kn"),
    ("bmk", "bkn"),
    ((2, 1, "m", "k"), "bkn"),
    ("k", "kn"),
    ("mk", "k"),
    ("k", "k"),
)
PRODUCTS = [
    row("matmul", wide(np.matmul), MATMUL, corners="nan"),
    row("mm", wide(np.matmul), shapes(("mk", "kn"))), row("bmm", wide(np.matmul), shapes(("bmk", "bkn"))),
    row("mv", wide(np.matmul), shapes(("mk", "k"))), row("dot", wide(np.dot), shapes(("k", "k"))),
    row("inner", wide(np.inner), shapes(("mk", "nk"), ("k", "k"), ("mk", "k"))),
    row("outer", wide(np.outer), shapes(("m", "n"))),
    row("kron", wide(np.kron), shapes(("mn", (2, 3)), ("m", "n"))),
    row("vecdot", wide(lambda x, y, axis: (x * y).sum(axis)), shapes(("mk", "mk"), ("bmk", "bmk"), axis=[-1, 0, 1])),
    row("cross", wide(lambda x, y, axis: np.cross(x, y, axis=axis)), shapes((("m", 3), ("m", 3)), ((3,), (3,)), axis=[-1])),
    row("tensordot", wide(lambda x, y, axes: np.tensordot(x, y, axes)), shapes(("bmk", "mkn"), axes=[2, ([1, 2], [0, 1])])),
    row("einsum", wide(lambda x, y, equation: np.einsum(equation, x, y)), shapes(("bmk", "bkn"), equation=[
        "bij,bjk->bik", "bij,bjk->ik", "bij,bjk->bi", "bij,bjk->kb"]), lambda x, y, equation: dg.einsum(equation, x, y)),
    row("chain_matmul", wide(lambda x, y, z: x @ y @ z), shapes(("mk", "kn", ("n", 2))), lambda *xs: dg.chain_matmul(xs)),
    row("multi_dot", wide(lambda x, y, z: x @ y @ z), shapes(("mk", "kn", ("n", 2))), lambda *xs: dg.multi_dot(xs)),
    row("addmm", wide(lambda c, x, y, beta, alpha: beta * c + alpha * (x @ y)), shapes(("mn", "mk", "kn"), ("n", "mk", "kn"),
        beta=[1, 2], alpha=[1, -1])),
    row("addmv", wide(lambda c, x, y, beta, alpha: beta * c + alpha * (x @ y)), shapes(("m", "mk", "k"), beta=[1, 2], alpha=[1, -1])),
    row("addr", wide(lambda c, x, y, beta, alpha: beta * c + alpha * np.outer(x, y)), shapes(("mn", "m", "n"), beta=[1, 2],
        alpha=[1, -1])),
    row("baddbmm", wide(lambda c, x, y, beta, alpha: beta * c + alpha * (x @ y)), shapes(("bmn", "bmk", "bkn"), beta=[1, 2],
        alpha=[1, -1])),
    row("addbmm", wide(lambda c, x, y, beta, alpha: beta * c + alpha * (x @ y).sum(0)), shapes(("mn", "bmk", "bkn"), beta=[1, 2],
        alpha=[1, -1])),
    row("linear", of_torch(F.linear), shapes(("mk", "nk", "n"), ("bmk", "nk"), ("k", "nk")), dtypes=FLOATS),
    row("bilinear", of_torch(F.bilinear), shapes((("m", 3), ("m", 2), (4, 3, 2), (4,))), dtypes=FLOATS),
    row("trace", wide(np.trace), shapes(("mn",), offset=[0, 1, -1])),
    row("cdist", of_torch(lambda x, y, p: torch.cdist(x, y, p)), shapes(((5, 3), ("n", 3)), p=[2.0, 1.0, 3.0]), dtypes=FLOATS,
        scale=100),
    row("pdist", of_torch(lambda x, p: F.pdist(x, p)), shapes((("n", 3),), p=[2.0, 1.0]), dtypes=FLOATS, scale=100),
    row("cov", of_torch(lambda x, correction: torch.cov(x, correction=correction)), shapes(((3, 18),), correction=[0, 1]),
        dtypes=FLOATS, scale=50),
    row("corrcoef", of_torch(torch.corrcoef), shapes(((3, 18),)), dtypes=FLOATS, scale=50, repeated=False),
]  # fmt: skip

# ---------------------------------------------------------------- linear algebra


def square(*more: Any, **settings: Any) -> Any:
    """Well-conditioned matrices, and right sides of them."""

    def draw(d: Any) -> Any:
        n, batch = d.pick([1, 2, 5]), d.pick([(), (2,), (0,)])
        x = d.array((*batch, n, n), -1, 1) + 3 * np.eye(n, dtype=d.dtype)
        return [x, *(d.array((*batch, n, k)) for k in more)], {k: d.pick(v) for k, v in settings.items()}

    return draw


def definite(*more: Any, **settings: Any) -> Any:
    def draw(d: Any) -> Any:
        arrays, chosen = square(*more, **settings)(d)
        x = arrays[0]
        return [(x @ np.swapaxes(x, -1, -2)).astype(d.dtype), *arrays[1:]], chosen

    return draw


def tall(**settings: Any) -> Any:
    def draw(d: Any) -> Any:
        m, n = d.pick([(3, 2), (2, 3), (5, 5), (1, 4)])
        x = d.array((*d.pick([(), (2,)]), m, n), -1, 1)
        x = x + 3 * np.eye(m, n, dtype=d.dtype) * np.arange(1, n + 1, dtype=d.dtype)
        return [x.astype(d.dtype)], {k: d.pick(v) for k, v in settings.items()}

    return draw


def _mT(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


def symmetric(**settings: Any) -> Any:
    """Eigenvalues far apart."""

    def draw(d: Any) -> Any:
        n = d.pick([1, 2, 5])
        x = d.array((*d.pick([(), (2,)]), n, n), -0.3, 0.3)
        x = x + _mT(x) + np.diag(np.arange(1.0, n + 1) * 2)
        return [x.astype(d.dtype)], {k: d.pick(v) for k, v in settings.items()}

    return draw


def _product(parts: str) -> Any:
    """The matrix that a decomposition gives back: factors are unique to signs alone."""

    def qr(x: Any) -> Any:
        q, r = dg.linalg.qr(x)
        return q @ r, dg.abs(r)

    def svd(x: Any) -> Any:
        u, s, v = dg.linalg.svd(x, full_matrices=False)
        return (u * s[..., None, :]) @ v, s

    def eigh(x: Any) -> Any:
        w, v = dg.linalg.eigh(x)
        return (v * w[..., None, :]) @ v.mT, w

    return {"qr": qr, "svd": svd, "eigh": eigh}[parts]


L = dg.linalg
LINALG = [
    row("det", wide(np.linalg.det), square(), L.det, dtypes=FLOATS),
    row("slogdet", wide(np.linalg.slogdet), square(), lambda x: tuple(L.slogdet(x)), dtypes=FLOATS),
    row("logdet", of_torch(torch.logdet), definite(), dtypes=FLOATS),
    row("inv", wide(np.linalg.inv), square(), L.inv, dtypes=FLOATS),
    row("solve", wide(np.linalg.solve), square(3), L.solve, dtypes=FLOATS),
    row("solve_triangular", of_torch(lambda a, b, upper: torch.linalg.solve_triangular(a, b, upper=upper)),
        square(2, upper=[True, False]), dtypes=FLOATS, slope=False),
    row("cholesky", wide(np.linalg.cholesky), definite(), L.cholesky, dtypes=FLOATS, slope=False),
    row("cholesky_solve", of_torch(torch.cholesky_solve), lambda d: (lambda a, s: ([a[1], np.tril(a[0])], s))(*square(2)(d)),
        dtypes=FLOATS),
    row("cholesky_inverse", of_torch(torch.cholesky_inverse), lambda d: (lambda a, s: ([np.tril(a[0])], s))(*square()(d)),
        dtypes=FLOATS),
    row("qr", lambda x: (x.astype(float), np.abs(np.linalg.qr(x.astype(float))[1])), tall(), _product("qr"), dtypes=FLOATS, slope=False),
    row("svd", lambda x: (x.astype(float), np.linalg.svd(x.astype(float), compute_uv=False)), tall(), _product("svd"), dtypes=FLOATS),
    row("svdvals", wide(lambda x: np.linalg.svd(x, compute_uv=False)), tall(), L.svdvals, dtypes=FLOATS),
    row("eigh", lambda x: (x.astype(float), np.linalg.eigvalsh(x.astype(float))), symmetric(), _product("eigh"), dtypes=FLOATS,
        slope=False),
    row("eigvalsh", wide(np.linalg.eigvalsh), symmetric(), L.eigvalsh, dtypes=FLOATS, slope=False),
    row("pinv", wide(np.linalg.pinv), tall(), L.pinv, dtypes=FLOATS),
    row("lstsq", wide(lambda a, b: np.linalg.lstsq(a, b, rcond=None)[0]), lambda d: (
        [d.array((5, 2)), d.array((5, 3))], {}), lambda a, b: dg.lstsq(a, b)[0], dtypes=FLOATS, scale=200),
    row("matrix_power", wide(lambda x, n: np.linalg.matrix_power(x, n)), square(n=[0, 1, 3, -1]), L.matrix_power, dtypes=FLOATS,
        scale=100),
    row("matrix_exp", wide(scipy.linalg.expm), square(), dg.matrix_exp, dtypes=FLOATS, scale=100),
    row("matrix_norm", wide(lambda x, ord, keepdims: np.linalg.norm(x, ord, (-2, -1), keepdims)),
        tall(ord=["fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf], keepdims=[False, True]), L.matrix_norm, dtypes=FLOATS, scale=50),
    row("matrix_rank", np.linalg.matrix_rank, tall(), L.matrix_rank, dtypes=FLOATS, slope=False),
    row("lu", of_torch(lambda x: torch.linalg.lu(x)), square(), lambda x: dg.lu(x), dtypes=FLOATS),
    row("tensorinv", wide(lambda x, ind: np.linalg.tensorinv(x, ind)), lambda d: (
        [(d.array((6, 2, 3), -1, 1) + 3 * np.eye(6).reshape(6, 2, 3)).astype(d.dtype)], {"ind": 1}), dtypes=FLOATS),
    row("tensorsolve", wide(np.linalg.tensorsolve), lambda d: (
        [(d.array((6, 2, 3), -1, 1) + 3 * np.eye(6).reshape(6, 2, 3)).astype(d.dtype), d.array((6,))], {}), dtypes=FLOATS),
]  # fmt: skip

# ---------------------------------------------------------------- Fourier


def transformed(d: Any) -> Any:
    shape = d.shape(1, 2, 2)
    settings = {"axis": d.axis(len(shape)), "norm": d.pick(["backward", "ortho", "forward"])}
    return [d.array(shape)], {**settings, "n": d.pick([None, 4, 5])}


def several_axes(d: Any) -> Any:
    shape = d.shape(2, 3, 2)
    return [d.array(shape)], {
        "axes": d.pick([None, (0, 1), (-1,)]),
        "norm": d.pick(["backward", "ortho", "forward"]),
    }


def shifted(d: Any) -> Any:
    return [d.array(d.shape(2, 3))], {"axes": d.pick([None, (0, 1), (-1,)])}


FOURIER = [
    *[row(n, wide(getattr(np.fft, n)), transformed, getattr(dg.fft, n), dtypes=FLOATS, scale=40)
      for n in ("fft", "ifft", "rfft", "ihfft", "irfft", "hfft")],
    *[row(n, wide(getattr(np.fft, n)), several_axes, getattr(dg.fft, n), dtypes=FLOATS, scale=40)
      for n in ("fftn", "ifftn", "rfftn", "irfftn")],
    *[row(n, getattr(np.fft, n), shifted, getattr(dg.fft, n), dtypes=FLOATS) for n in ("fftshift", "ifftshift")],
]  # fmt: skip
ROWS = PRODUCTS + [r._replace(repeated=False) for r in LINALG] + FOURIER
