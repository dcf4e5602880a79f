"""What is done to the parameters of a model as a whole: bounds, vectors, parametrizations, calls with others.

`rnn`: sequences of any lengths; `parametrize`, `parametrizations`: parameters computed from others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...core import dispatch
from ...core.errors import ArgumentError, AutogradError
from ...core.floats import refuse_integers as _refuse_integers
from ...core.ops import elementwise as E
from ...core.ops.creation import zeros
from ...core.spoken import spell as _spell
from ...core.value import Tensor
from . import parametrize, rnn
from . import parametrize as parametrizations
from .parametrize import spectral_norm, weight_norm
from .stateless import functional_call
from .vectors import clip_grad_value_, parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "functional_call", "get_total_norm", "parameters_to_vector",
    "parametrizations", "parametrize", "rnn", "spectral_norm", "vector_to_parameters", "weight_norm",
]  # fmt: skip


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor so that their norm, taken together, is at most max_norm.

    parameters: tensors (those without a gradient are left out) or one tensor; norm_type: p of the norm, or
    inf; error_if_nonfinite: raise AutogradError when the norm is NaN or infinite (a graph is cut there to
    read it). Returns: 0-d, the norm before. Numerics: the factor is `min(1, max_norm / (norm + 1e-6))`, as
    in PyTorch. Example: `dg.nn.utils.clip_grad_norm_(model.parameters(), 1.0)` between `backward()` and
    `step()`.
    """
    if norm_type <= 0:
        raise ArgumentError(
            "clip_grad_norm_", f"norm_type={norm_type} is not above 0", "use 2.0 or float('inf')"
        )
    leaves: Iterable[Tensor] = (parameters,) if isinstance(parameters, Tensor) else parameters
    executor = dispatch.state.executor
    found = [(p, g) for p in leaves if (g := executor.get_grad(p)) is not None]
    if not found:
        return zeros(())
    with dispatch.set_grad(False):
        norm = _norm([g for _, g in found], float(norm_type))
        if error_if_nonfinite and not math.isfinite(norm.item()):
            raise AutogradError(
                "clip_grad_norm_",
                "the norm of the gradients is not finite",
                "look for NaN in the loss, or lower the lr",
            )
        factor = E.minimum(max_norm / (norm + 1e-6), 1.0)
        for p, g in found:
            executor.set_grad(p, g * factor)
    return norm


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The p-norm of all elements of tensors (gradients) taken together: 0-d. Raises: as `clip_grad_norm_`."""
    row = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if norm_type <= 0:
        raise ArgumentError("get_total_norm", f"norm_type={norm_type} is not above 0", "use 2.0 or inf")
    if not row:
        return zeros(())
    for x in row:
        _refuse_integers("get_total_norm", x)
    norm = _norm(row, float(norm_type))
    if error_if_nonfinite and not math.isfinite(norm.item()):
        raise AutogradError("get_total_norm", "the norm is not finite", "look for NaN in the loss")
    return norm


def _norm(grads: list[Any], p: float) -> Tensor:
    total: Any = None
    if p == math.inf:
        for g in grads:
            largest = g.abs().max()
            total = largest if total is None else E.maximum(total, largest)
        return total
    for g in grads:
        part = E.square(g).sum() if p == 2.0 else (g.abs() ** p).sum()
        total = part if total is None else total + part
    return E.sqrt(total) if p == 2.0 else E.power(total, 1.0 / p)


_spell(globals(), __all__, strict=True)
