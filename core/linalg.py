"""`dg.linalg`: linear algebra by the names of the array API's extension, of NumPy and of PyTorch."""

from __future__ import annotations

from .errors import LinAlgError
from .op import PUBLIC, REGISTRY
from .spoken import spelled
from .value import Tensor

_NAMES = """
    bmm chain_matmul cholesky cholesky_ex cholesky_inverse cholesky_solve cross det dot eig eigh eigvals eigvalsh inner
    inv inv_ex kron lstsq lu lu_factor lu_factor_ex lu_solve matmul matrix_exp matrix_norm matrix_power matrix_rank
    matrix_transpose multi_dot norm outer pinv qr slogdet solve solve_ex solve_triangular svd svdvals tensordot
    tensorinv tensorsolve trace vecdot vector_norm
""".split()

globals().update({name: PUBLIC.get(name) or REGISTRY[name] for name in _NAMES})
cond = REGISTRY["condition"]


@spelled
def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices: the last two axes of x (`dg.diagonal` takes the first two, as NumPy does).

    offset: 0 for the main one, above it positive. Returns: x's leading axes and one for the diagonal, a view.
    """
    return REGISTRY["diagonal"](x, offset=offset, axis1=-2, axis2=-1)  # type: ignore[no-any-return]


__all__ = ["LinAlgError", "cond", "diagonal", *_NAMES]
