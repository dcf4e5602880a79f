"""Eigenvalues and eigenvectors of any square matrices: complex, whatever the matrix is."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import numpy as np

from .. import types as T
from ..op import composite, primitive
from ..types import TensorType
from . import elementwise as E
from .complex import conj, imag, real
from .decomposition import _check_converged, _over
from .linalg import matmul
from .matrices import NEARLY, adjoint, need_matrix, offsets
from .picking import take_elements
from .reduction import argmax, max_
from .shape import expand_dims
from .solve import solve
from .sort import argsort
from .views import broadcast_to

#: how much a part above the real axis counts as one to the left of it: enough to order a pair, whose real parts may
#: differ by rounding, and little beside them
_UPPER_FIRST = 1 / 128


def _like(x, x_type):
    """A gradient as the matrix is: its real part for a real one."""
    return x if x_type.dtype.is_complex else real(x)


def _between(inner, v):
    """V^-H inner V^H."""
    turned = adjoint(v)
    return solve(turned, matmul(inner, turned))


def _order(w):
    return argsort(real(w) - imag(w) * _UPPER_FIRST, axis=-1)


def _phases(v):
    """The phase of the largest component of each column, of nearly equal ones the first: [..., 1, N]."""
    size = E.square(real(v)) + E.square(imag(v))
    near = E.greater_equal(size, max_(size, axis=-2, keepdims=True) * NEARLY)
    found = take_elements(v, argmax(E.cast(near, dtype=T.int32), axis=-2, keepdims=True), axis=v.ndim - 2)
    return found / E.abs_(found)


@primitive(internal=True, complex="own", parts="eig_unordered")
def eig_unordered(x):
    """Eigenvalues, eigenvectors and LAPACK's status codes, as they are found."""
    w, v = np.linalg.eig(x.astype(np.result_type(x.dtype, np.float32), copy=False))
    kind = np.result_type(w.dtype, np.complex64)
    return w.astype(kind), v.astype(kind), np.zeros(x.shape[:-2], np.int64)


@eig_unordered.type
def _(x):
    need_matrix("eig", x, square=True)
    kind = x.dtype.complex
    return TensorType(kind, x.shape[:-1]), TensorType(kind, x.shape), TensorType(T.int64, x.shape[:-2])


@eig_unordered.grad
def x(gs, outs, x_type):
    # C. Boeddeker et al., On the computation of complex-valued gradients, 2017; vectors have length 1
    w, v, _ = outs
    turned = adjoint(v)
    inner = matmul(turned, gs[1])
    diagonal = E.equal(offsets(inner), 0)
    along = E.where(diagonal, real(inner), 0.0)
    inner = inner - matmul(matmul(turned, v), along)
    gap = conj(expand_dims(w, axis=-2) - expand_dims(w, axis=-1))
    inner = E.where(diagonal, expand_dims(gs[0], axis=-1), _over(E.where(diagonal, 0.0, inner), gap))
    return _like(_between(inner, v), x_type)


def _apart(n, *batch):
    """An example with well separated eigenvalues, two of them a pair."""
    x = np.random.default_rng(n).uniform(-0.2, 0.2, (*batch, n, n)) + np.diag(np.arange(n) * 1.5)
    x[..., 0, 1] += 2.0
    x[..., 1, 0] -= 2.0
    return x


eig_unordered.sample(_apart(3), grad=False).sample(_apart(2, 2), grad=False).sample(np.zeros((2, 0, 0)))


@composite
def eig_ex(x):
    """Eigenvalues, eigenvectors and LAPACK's status codes; see `eig`."""
    w, v, info = eig_unordered(x)
    if w.size == 0:
        return w, v, info
    order = _order(w)
    v = take_elements(v, broadcast_to(expand_dims(order, axis=-2), shape=v.shape), axis=v.ndim - 1)
    return take_elements(w, order, axis=w.ndim - 1), v * conj(_phases(v)), info


eig_ex.sample(_apart(3)).sample(_apart(2, 2)).sample(np.zeros((2, 0, 0)))


@composite
def eig(x):
    """The eigenvalues w and eigenvectors v (columns, of length 1) of square matrices: `x v = v diag(w)`.

    x: float or complex[..., N, N]. Returns: complex[..., N], complex[..., N, N].
    Raises: ShapeError, DtypeError; LinAlgError when the iteration fails (NaN in x).
    Numerics: in ascending order of `real - imag / 128`: by the real part, the upper one of a pair first. The largest
    component of each vector is real and positive (of nearly equal ones the first). The gradient is infinite where
    eigenvalues are equal. 16-bit floats are computed in float32.
    Source: LAPACK geev. Example: `dg.linalg.eig(dg.tensor([[2.0]]))[0].numpy()` is `[2+0j]`.
    """
    w, v, info = eig_ex(x)
    _check_converged("eig", x, info)
    return w, v


eig.sample(_apart(3)).sample(_apart(2, 2))
eig.error_sample((2, 3), match="is not square")
eig.error_sample(np.full((2, 2), np.nan), match="has NaN")


@primitive(internal=True, complex="own", parts="eigvals_unordered")
def eigvals_unordered(x):
    """Eigenvalues and LAPACK's status codes, as they are found."""
    w = np.linalg.eigvals(x.astype(np.result_type(x.dtype, np.float32), copy=False))
    return w.astype(np.result_type(w.dtype, np.complex64)), np.zeros(x.shape[:-2], np.int64)


@eigvals_unordered.type
def _(x):
    need_matrix("eigvals", x, square=True)
    return TensorType(x.dtype.complex, x.shape[:-1]), TensorType(T.int64, x.shape[:-2])


@eigvals_unordered.grad
def x(gs, outs, x):
    # The values of this call, in its order: those of a call for vectors may come in another.
    w, _ = outs
    place = argsort(_order(w), axis=-1)
    v = eig_ex(x)[1]
    v = take_elements(v, broadcast_to(expand_dims(place, axis=-2), shape=v.shape), axis=v.ndim - 1)
    inner = matmul(adjoint(v), v) * 0.0
    inner = E.where(E.equal(offsets(inner), 0), expand_dims(gs[0], axis=-1), inner)
    return _like(_between(inner, v), x.type)


eigvals_unordered.sample(_apart(3), grad=False).sample(_apart(4, 2), grad=False).sample(np.zeros((2, 0, 0)))


@composite
def eigvals_ex(x):
    """Eigenvalues and LAPACK's status codes; see `eigvals`."""
    w, info = eigvals_unordered(x)
    return take_elements(w, _order(w), axis=w.ndim - 1), info


eigvals_ex.sample(_apart(3)).sample(_apart(4, 2)).sample(np.zeros((2, 0, 0)))


@composite
def eigvals(x):
    """The eigenvalues of square matrices, in the order of `eig`. x: float or complex[..., N, N].

    Returns: complex[..., N]. Raises: as eig. Numerics: differentiable where eigenvalues differ.
    """
    w, info = eigvals_ex(x)
    _check_converged("eigvals", x, info)
    return w


eigvals.sample(_apart(3)).sample(_apart(4, 2))
eigvals.error_sample((2, 3), match="is not square")
