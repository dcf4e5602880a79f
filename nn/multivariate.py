"""The normal distribution of vectors, by Cholesky's factor of its covariance."""

from __future__ import annotations

import math
from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.linalg import diagonal
from ..core.op import PUBLIC
from ..core.ops import elementwise as E
from ..core.ops.creation import eye
from ..core.ops.shape import flip
from ..core.ops.solve import cholesky, cholesky_inverse, solve_triangular
from ..core.types import broadcast_shapes
from ..core.value import Tensor
from . import distribution as C
from .distribution import Distribution
from .divergence import register_kl

_NAME = "MultivariateNormal"


def _inverted(factor: Tensor) -> Tensor:
    """The inverse of a lower triangular matrix."""
    one = eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return solve_triangular(factor, one, upper=False)  # type: ignore[no-any-return]


def _solved(factor: Tensor, rows: Tensor) -> Tensor:
    """`factor^-1 row` for each row: float[..., N]."""
    if factor.ndim > 2:
        return solve_triangular(factor, rows[..., None], upper=False)[..., 0]  # type: ignore[no-any-return]
    flat = rows.reshape(-1, rows.shape[-1])  # one factor for all: one solution with many right sides
    return solve_triangular(factor, flat.T, upper=False).T.reshape(rows.shape)  # type: ignore[no-any-return]


class MultivariateNormal(Distribution):
    """Vectors about loc: float[..., N] with a covariance, its inverse or its lower factor: float[..., N, N].

    Give one of covariance_matrix, precision_matrix and scale_tril (with a positive diagonal), which is the quickest.
    Raises: LinAlgError where a matrix is not positive definite.
    """

    has_rsample = True
    support = C.real

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        given = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        row = [(name, x) for name, x in given.items() if x is not None]
        if len(row) != 1:
            raise ArgumentError(_NAME, f"got {len(row)} matrices", f"give one of {', '.join(given)}")
        name, matrix = row[0]
        if loc.ndim < 1 or matrix.shape[-2:] != (loc.shape[-1],) * 2:
            raise ShapeError(
                _NAME,
                f"{name}: {matrix.type} is no square of loc: {loc.type}",
                f"pass {name} of [..., N, N] for loc of [..., N]",
            )
        if name == "covariance_matrix":
            factor = cholesky(matrix)
        elif name == "precision_matrix":
            # P = U U' with U upper triangular, so the inverse of U' is the covariance's factor
            axes = (-2, -1)
            factor = _inverted(flip(cholesky(flip(matrix, axis=axes)), axis=axes).mT)
        else:
            factor = matrix
        batch = broadcast_shapes(_NAME, loc.shape[:-1], factor.shape[:-2])
        shape = (*batch, loc.shape[-1])
        self.loc = loc if loc.shape == shape else loc.expand(shape)
        self.scale_tril = factor
        super().__init__(
            batch, shape[-1:], validate_args, loc=(C.real, loc), scale_tril=(C.positive, diagonal(factor))
        )

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    def _of_batch(self, x: Tensor, ndim: int) -> Tensor:
        """What the factors have, for each distribution. ndim: how many of its axes belong to one."""
        return x.expand((*self.batch_shape, *x.shape[x.ndim - ndim :]))

    @property
    def variance(self) -> Tensor:
        return self._of_batch(E.square(self.scale_tril).sum(axis=-1), 1)

    @property
    def covariance_matrix(self) -> Tensor:
        return self._of_batch(self.scale_tril @ self.scale_tril.mT, 2)

    @property
    def precision_matrix(self) -> Tensor:
        return self._of_batch(cholesky_inverse(self.scale_tril), 2)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        z = PUBLIC["randn"](shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ z[..., None])[..., 0]  # type: ignore[no-any-return]

    def _half_log_det(self) -> Tensor:
        return E.log(diagonal(self.scale_tril)).sum(axis=-1)  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        far = self._checked(value) - self.loc
        n = self.loc.shape[-1]
        squares = E.square(_solved(self.scale_tril, far)).sum(axis=-1)
        return -0.5 * (n * math.log(2 * math.pi) + squares) - self._half_log_det()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        n = self.loc.shape[-1]
        return self._of_batch(self._half_log_det() + 0.5 * n * (1 + math.log(2 * math.pi)), 0)


@register_kl(MultivariateNormal, MultivariateNormal)
def _(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ShapeError(
            "kl_divergence", f"vectors of {p.event_shape[0]} and {q.event_shape[0]}", "use equal sizes"
        )
    ratio = E.square(solve_triangular(q.scale_tril, p.scale_tril, upper=False)).sum(axis=(-2, -1))
    far = E.square(_solved(q.scale_tril, q.loc - p.loc)).sum(axis=-1)
    log_ratio = q._half_log_det() - p._half_log_det()
    return log_ratio + 0.5 * (ratio + far - p.event_shape[0])  # type: ignore[no-any-return]
