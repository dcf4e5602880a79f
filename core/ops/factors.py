"""Decompositions as users call them: the ops of `decomposition`, `solve` and `norms`, with names for their parts.

The names are the array API standard's where it has some (eigh, qr, slogdet, svd), PyTorch's elsewhere.
"""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable
from typing import Any

from ..op import Op, public
from . import decomposition, eigen, norms, solve

PARTS = {
    decomposition.eigh: "eigenvalues eigenvectors",
    eigen.eig: "eigenvalues eigenvectors",
    decomposition.qr: "Q R",
    decomposition.svd: "U S Vh",
    norms.lstsq: "solution residuals rank singular_values",
    solve.cholesky_ex: "L info",
    solve.inv_ex: "inverse info",
    solve.lu: "P L U",
    solve.lu_factor: "LU pivots",
    solve.lu_factor_ex: "LU pivots info",
    solve.slogdet: "sign logabsdet",
    solve.solve_ex: "result info",
}


def _named(op: Op, parts: str) -> Callable[..., Any]:
    """`op` as a function whose result is a named tuple."""
    form = namedtuple(f"{op.name}_result", parts)  # type: ignore[misc]
    form.__module__, form.__doc__ = __name__, f"What `{op.name}` returns: {', '.join(parts.split())}."

    def call(*args: Any, **kwargs: Any) -> Any:
        return form._make(op(*args, **kwargs))

    globals()[form.__name__] = form  # where pickle finds it
    call.__name__ = call.__qualname__ = op.name
    call.__doc__, call.__signature__ = op.__doc__, inspect.signature(op)  # type: ignore[attr-defined]
    return call


for _op, _parts in PARTS.items():
    public(_named(_op, _parts))
