"""Orthogonal and spectral factors: QR, singular values, eigenvalues of symmetric matrices.

Matrices are the last two axes. Failures are LinAlgErrors as in `solve`; the `_ex` forms return LAPACK's codes.
"""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import numpy as np

from .. import types as T
from ..errors import ArgumentError, AutogradError
from ..op import composite, primitive
from ..types import TensorType
from . import elementwise as E
from .linalg import matmul
from .matrices import NEARLY, adjoint, check, hermitian, lower, need_matrix, offsets, real_dtype, upper
from .shape import concat, expand_dims
from .solve import solve_triangular


def _turn(x):
    return np.swapaxes(x, -1, -2)


def _phases(rows):
    """The phase of the largest component of each row (of nearly equal ones the first): [..., K, 1]."""
    if not rows.size:
        return np.ones((*rows.shape[:-1], 1), rows.dtype)
    size = np.abs(rows) ** 2
    place = np.argmax(size >= size.max(-1, keepdims=True) * size.dtype.type(NEARLY), -1)
    found = np.take_along_axis(rows, place[..., None], -1)
    return found / np.abs(found)


# ---------------------------------------------------------------- QR


@primitive(complex="own", parts="qr")
def qr(x, *, mode="reduced"):
    """Q with orthonormal columns and upper triangular R with `x = Q R`.

    x: float[..., M, N]. mode: "reduced" (Q: [..., M, K], R: [..., K, N], K the smaller size) or "complete"
    (Q: [..., M, M], R: [..., M, N]). Raises: ArgumentError, ShapeError, DtypeError. Numerics: Householder's
    reflections, so R's diagonal may be negative. Gradient: where the first K columns of x are independent; none
    for "complete" with M > N, whose further columns of Q are arbitrary. Source: LAPACK geqrf, array API qr.
    """
    return np.linalg.qr(x, mode)


@qr.normalize
def _(inputs, mode):
    if mode not in ("reduced", "complete"):
        raise ArgumentError("qr", f"mode={mode!r}", 'use "reduced" or "complete"')
    return (mode,)


@qr.type
def _(x, *, mode):
    need_matrix("qr", x)
    *batch, m, n = x.shape
    k = m if mode == "complete" else min(m, n)
    return TensorType(x.dtype, (*batch, m, k)), TensorType(x.dtype, (*batch, k, n))


@qr.grad
def x(gs, outs, mode):
    (gq, gr), (q, r) = gs, outs
    m, n = q.shape[-2], r.shape[-1]
    if mode == "complete" and m > n:
        raise AutogradError(
            "qr", f'mode="complete" has no gradient for {m} rows and {n} columns', 'use "reduced"'
        )
    gr = upper(gr)
    if m >= n:
        return _qr_grad(gq, gr, q, r)
    # Wide: the columns beyond the square Y are Q V
    square, rest = r[..., :, :m], r[..., :, m:]
    beside = gr[..., :, m:]
    first = _qr_grad(gq + matmul(matmul(q, rest), adjoint(beside)), gr[..., :, :m], q, square)
    return concat([first, matmul(q, beside)], axis=-1)


def _qr_grad(gq, gr, q, r):
    # S. Walter, L. Lehmann, Algorithmic differentiation of linear algebra functions, 2010
    inner = matmul(r, adjoint(gr)) - matmul(adjoint(gq), q)
    inner = lower(inner)
    inner = inner + adjoint(inner)
    inner = E.where(E.equal(offsets(inner), 0), inner * 0.5, inner)
    return solve_triangular(r, gq + matmul(q, inner), upper=True, left=False, adjoint=True)


qr.sample((3, 3)).sample((4, 2)).sample((2, 2, 4)).sample((2, 4, 3), mode="complete", grad=False)
qr.sample((2, 3), mode="complete").sample((2, 0, 3), grad=False).sample((3, 0), mode="complete", grad=False)
qr.error_sample((3,), match="is no matrix")
qr.error_sample((3, 3), mode="r", match="mode='r'")


# ---------------------------------------------------------------- singular values


def _completed(x):
    """Orthonormal columns and, from the reflections that give them, those that make a basis of them."""
    return np.concatenate([x, np.linalg.qr(x, "complete")[0][..., x.shape[-1] :]], axis=-1)


@primitive(complex="own", parts="singular_vectors")
def svd_ex(x, *, full_matrices=True):
    """The singular value decomposition and LAPACK's status codes; see `svd`."""
    v, s, uh = np.linalg.svd(_turn(x), full_matrices=False)
    u, vh = _turn(uh), _turn(v)
    phases = _phases(vh)
    u, vh = u * _turn(phases), vh * phases.conj()
    if full_matrices:
        u, vh = _completed(u), _turn(_completed(_turn(vh)))
    return u, s, vh, np.zeros(x.shape[:-2], np.int64)


@svd_ex.type
def _(x, *, full_matrices):
    need_matrix("svd", x)
    *batch, m, n = x.shape
    k = min(m, n)
    return (
        TensorType(x.dtype, (*batch, m, m if full_matrices else k)),
        TensorType(real_dtype(x.dtype), (*batch, k)),
        TensorType(x.dtype, (*batch, n if full_matrices else k, n)),
        TensorType(T.int64, tuple(batch)),
    )


@svd_ex.grad
def x(gs, outs):
    u, s, vh, _ = outs
    m, n = u.shape[-2], vh.shape[-1]
    if max(u.shape[-1], vh.shape[-2]) > s.shape[-1]:
        raise AutogradError(
            "svd",
            f"full_matrices=True has no gradient for {m} rows and {n} columns",
            "use full_matrices=False",
        )
    return _svd_grad(*gs[:3], u, s, vh)


def _over(x, gap):
    """x / gap, and 0 where x is 0: what does not turn vectors of equal values has no part there."""
    return x / E.where(E.equal(x, 0), 1.0, gap)


def _svd_grad(gu, gs, gvh, u, s, vh):
    row, column = expand_dims(s, axis=-2), expand_dims(s, axis=-1)
    diagonal = E.equal(offsets(column * row), 0)
    gap = (row - column) * (row + column)
    # The antisymmetric parts are what turns the singular vectors into each other
    uu, vv = matmul(adjoint(u), gu), matmul(vh, adjoint(gvh))
    uu, vv = uu - adjoint(uu), vv - adjoint(vv)
    core = _over(uu, gap) * row + column * _over(vv, gap)
    on_diagonal = expand_dims(gs, axis=-1)
    if u.dtype.is_complex:  # and phases
        on_diagonal = on_diagonal + uu / (row * 2)
    core = E.where(diagonal, on_diagonal, core)
    k = s.shape[-1]
    out = matmul(matmul(u, core), vh)
    if u.shape[-2] > k:
        part = gu / row
        out = out + matmul(part - matmul(u, matmul(adjoint(u), part)), vh)
    if vh.shape[-1] > k:
        part = gvh / column
        out = out + matmul(u, part - matmul(matmul(part, adjoint(vh)), vh))
    return out


svd_ex.sample((3, 3), full_matrices=False).sample((4, 2), full_matrices=False).sample(
    (2, 2, 4), full_matrices=False
)
svd_ex.sample((2, 4, 3), grad=False).sample((2, 3), grad=False).sample((2, 0, 3), grad=False).sample(
    (3, 0), grad=False
)


def _check_converged(op, x, info):
    why = "has NaN, or the iteration did not converge"
    check(op, "x", x, info, lambda k: why, "look for NaN and infinities in it")


@composite
def svd(x, *, full_matrices=True):
    """U, S and V^H with `x = U diag(S) V^H`: orthonormal columns, descending singular values, orthonormal rows.

    x: float[..., M, N]. Returns: U: [..., M, M], S: [..., K] with K the smaller size, V^H: [..., N, N]; without
    full_matrices [..., M, K] and [..., K, N]. Raises: LinAlgError when the iteration fails (NaN in x).
    Numerics: divide and conquer. The largest component of each row of V^H that has a singular value is real and
    positive (of nearly equal ones the first), and vectors that have none are the further columns of Q in the QR
    factorisation of those that do: signs, phases and the basis are ours to choose; the gradient is right for functions
    that do not depend on it, and infinite where two singular values are equal or one is zero (M != N). None for
    full_matrices with M != N. Source: LAPACK gesdd, array API svd.
    """
    *outs, info = svd_ex(x, full_matrices=full_matrices)
    _check_converged("svd", x, info)
    return tuple(outs)


svd.sample((3, 3)).sample((4, 2), full_matrices=False).sample((2, 2, 4), full_matrices=False)
svd.error_sample((3,), match="is no matrix")
svd.error_sample(np.full((2, 2), np.nan), match="has NaN")


@primitive(complex="own", parts="singular_values")
def svdvals_ex(x):
    """The singular values and LAPACK's status codes; see `svdvals`."""
    return np.linalg.svd(_turn(x), compute_uv=False), np.zeros(x.shape[:-2], np.int64)


@svdvals_ex.type
def _(x):
    need_matrix("svdvals", x)
    return TensorType(real_dtype(x.dtype), (*x.shape[:-2], min(x.shape[-2:]))), TensorType(
        T.int64, x.shape[:-2]
    )


@svdvals_ex.grad
def x(gs, x):
    u, _, vh, _ = svd_ex(x, full_matrices=False)
    return matmul(u * expand_dims(gs[0], axis=-2), vh)


svdvals_ex.sample((3, 3)).sample((2, 4, 3)).sample((2, 3)).sample((0, 3), grad=False)


@composite
def svdvals(x):
    """The singular values of matrices in descending order. x: float[..., M, N]. Returns: float[..., min(M, N)].

    Raises: LinAlgError when the iteration fails. Numerics: differentiable also where values are equal.
    """
    s, info = svdvals_ex(x)
    _check_converged("svdvals", x, info)
    return s


svdvals.sample((3, 3)).sample((2, 4, 3))
svdvals.error_sample((3,), match="is no matrix")


# ---------------------------------------------------------------- symmetric matrices


def _triangle(op):
    def normalize(inputs, UPLO):
        if UPLO not in ("L", "U"):
            raise ArgumentError(op, f"UPLO={UPLO!r}", 'use "L" (the lower triangle is read) or "U"')
        return (UPLO,)

    return normalize


@primitive(complex="own", parts="eigenvectors")
def eigh_ex(x, *, UPLO="L"):
    """Eigenvalues, eigenvectors and LAPACK's status codes of symmetric matrices; see `eigh`."""
    w, v = np.linalg.eigh(x, UPLO)
    return w, v * _turn(_phases(_turn(v)).conj()), np.zeros(x.shape[:-2], np.int64)


eigh_ex.normalize(_triangle("eigh"))


@eigh_ex.type
def _(x, *, UPLO):
    need_matrix("eigh", x, square=True)
    return TensorType(real_dtype(x.dtype), x.shape[:-1]), x, TensorType(T.int64, x.shape[:-2])


@eigh_ex.grad
def x(gs, outs):
    w, v, _ = outs
    inner = matmul(adjoint(v), gs[1])
    diagonal = E.equal(offsets(inner), 0)
    gap = expand_dims(w, axis=-2) - expand_dims(w, axis=-1)
    inner = E.where(diagonal, expand_dims(gs[0], axis=-1), _over(E.where(diagonal, 0.0, inner), gap))
    return hermitian(matmul(matmul(v, inner), adjoint(v)))


def _symmetric(n, *batch):
    """An example with well separated eigenvalues."""
    x = np.random.default_rng(n).uniform(-0.3, 0.3, (*batch, n, n))
    return x + _turn(x) + np.diag(np.arange(n) * 1.5)


eigh_ex.sample(_symmetric(3), grad=False).sample(_symmetric(4, 2), grad=False, UPLO="U").sample(
    np.zeros((2, 0, 0))
)


@composite
def eigh(x, *, UPLO="L"):
    """The eigenvalues w, ascending, and eigenvectors v (columns) of symmetric x: `x = v diag(w) v^H`.

    x: float[..., N, N]. UPLO: "L" or "U", the triangle that is read. Returns: float[..., N], float[..., N, N].
    Raises: LinAlgError when the iteration fails. Numerics: the largest component of each eigenvector is real and
    positive (of nearly equal ones the first); the gradient is the symmetric one, for functions that do not depend on
    signs, and infinite where eigenvalues are equal.
    Source: LAPACK syevd, array API eigh.
    """
    w, v, info = eigh_ex(x, UPLO=UPLO)
    _check_converged("eigh", x, info)
    return w, v


eigh.sample(_symmetric(3), grad=False).sample(_symmetric(4, 2), grad=False, UPLO="U")
eigh.error_sample((2, 3), match="is not square")
eigh.error_sample((2, 2), UPLO="X", match="UPLO='X'")


@primitive(complex="own", parts="eigenvalues")
def eigvalsh_ex(x, *, UPLO="L"):
    """Eigenvalues and LAPACK's status codes of symmetric matrices; see `eigvalsh`."""
    return np.linalg.eigvalsh(x, UPLO), np.zeros(x.shape[:-2], np.int64)


eigvalsh_ex.normalize(_triangle("eigvalsh"))


@eigvalsh_ex.type
def _(x, *, UPLO):
    need_matrix("eigvalsh", x, square=True)
    return TensorType(real_dtype(x.dtype), x.shape[:-1]), TensorType(T.int64, x.shape[:-2])


@eigvalsh_ex.grad
def x(gs, x, UPLO):
    _, v, _ = eigh_ex(x, UPLO=UPLO)
    return matmul(v * expand_dims(gs[0], axis=-2), adjoint(v))


eigvalsh_ex.sample(_symmetric(3), grad=False).sample(_symmetric(4, 2), grad=False, UPLO="U")


@composite
def eigvalsh(x, *, UPLO="L"):
    """The eigenvalues of symmetric matrices in ascending order; see `eigh`. Returns: float[..., N].

    Numerics: differentiable also where values are equal.
    """
    w, info = eigvalsh_ex(x, UPLO=UPLO)
    _check_converged("eigvalsh", x, info)
    return w


eigvalsh.sample(_symmetric(3), grad=False).sample(_symmetric(4, 2), grad=False, UPLO="U")
eigvalsh.error_sample((2, 3), match="is not square")


def spectral(x, function):
    """`function` of the eigenvalues of symmetric x, between its eigenvectors."""
    w, v = eigh(x)
    return matmul(v * expand_dims(function(w), axis=-2), adjoint(v))
