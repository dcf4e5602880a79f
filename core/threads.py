"""How many threads work on the CPU."""

from __future__ import annotations

from typing import Any

from .backend import get_backend
from .dispatch import outside


def get_num_threads() -> int:
    """How many threads an op or a graph may use on the CPU, the caller's own included.

    Returns: what `set_num_threads` set, else `DUOGRAD_NUM_THREADS`, else the number of CPUs that this process may use.
    Raises: FlagError when `DUOGRAD_NUM_THREADS` is no positive integer.
    Example: `dg.get_num_threads()`
    """
    outside("asks for the number of threads", "ask outside and pass it as an argument")
    return get_backend("cpu").num_threads()


def set_num_threads(n: int) -> None:
    """Let ops and graphs use `n` threads on the CPU from now on, the caller's own included.

    n: 1 or more; 1 means that no other thread works.
    Raises: ArgumentError when n is no positive integer.
    Numerics: results have the same bits with any number. What was planned before (a traced function, an op on
        shapes that it has had) keeps the number of pieces in which its work is shared out, so set it first.
    Example: `dg.set_num_threads(2)`
    """
    outside("sets the number of threads", "set it outside")
    backend: Any = get_backend("cpu")
    backend.set_num_threads(n)
