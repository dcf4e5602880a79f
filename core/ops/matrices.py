"""What the ops of linear algebra share: checks of matrices, failures by status code, triangles, adjoints."""

from __future__ import annotations

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import DtypeError, LinAlgError, ShapeError
from ..op import REGISTRY
from .creation import arange, eye
from .shape import expand_dims, transpose
from .triangles import tril, triu

#: of a vector's components whose magnitudes are nearly equal the first one counts as the largest, which is made
#: real and positive: squares are compared with the largest square times this
NEARLY = 0.998


def need_matrix(op, x, name="x", square=False):
    """Refuse what is no matrix (or batch of them) of floats."""
    kind = x if isinstance(x, T.TensorType) else x.type
    if kind.ndim < 2:
        raise ShapeError(op, f"{name}: {kind} is no matrix", "it needs two axes or more")
    if square and kind.shape[-1] != kind.shape[-2]:
        raise ShapeError(op, f"{name}: {kind} is not square", "its last two axes must agree")
    if not (kind.dtype.is_float or kind.dtype.is_complex):
        fix = "convert with .to(dg.float32) or .to(dg.float64)"
        raise DtypeError(op, f"{name}: {kind} is not of a dtype that LAPACK takes", fix)


def real_dtype(dtype):
    """The dtype of the absolute value."""
    return {"complex64": T.float32, "complex128": T.float64}.get(dtype.name, dtype)


def check(op, name, x, info, why, fix):
    """Raise LinAlgError for the first matrix of x whose status code is not 0. why(code): what is wrong with it."""
    kind = x.type

    def refuse(codes):
        if codes.any():
            k = int(np.flatnonzero(codes)[0])
            code = int(codes.reshape(-1)[k])
            place = ""
            if codes.ndim:
                place = f"matrix {[int(i) for i in np.unravel_index(k, codes.shape)]} of "
            raise LinAlgError(op, f"{place}{name}: {kind} {why(code)}", fix)

    dispatch.state.executor.check(info, refuse)


def conjugate(x):
    """The complex conjugate; x itself when it is real."""
    return REGISTRY["conj"](x) if x.dtype.is_complex else x


def adjoint(x):
    """x with its last two axes swapped, and conjugate."""
    return conjugate(transpose(x))


def offsets(x):
    """Column minus row for the last two axes of x."""
    m, n = x.shape[-2:]
    return arange(n, device=x.device) - expand_dims(arange(m, device=x.device), axis=-1)


def lower(x, k=0):
    """x with zeros above diagonal number k."""
    return tril(x, k=k)


def upper(x, k=0):
    """x with zeros below diagonal number k."""
    return triu(x, k=k)


def identity(n, like):
    """The unit matrix of n rows, with the dtype and the device of `like`."""
    return eye(n, dtype=like.dtype, device=like.device)


def hermitian(x):
    """The mean of x and its adjoint."""
    return (x + adjoint(x)) * 0.5
