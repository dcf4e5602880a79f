"""Complex functions on pairs of real expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .scalar import Expr
from .types import DType


class Pair(NamedTuple):
    """A complex value: real and imaginary part, of one real dtype."""

    re: Expr
    im: Expr


COMPLEX_MATH: dict[str, Callable[..., Any]] = {"complex": Pair}


def complex_cast(x: Any, target: DType) -> Any:
    raise NotImplementedError
