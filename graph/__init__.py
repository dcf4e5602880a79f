"""Graph mode: trace once, optimise the whole, replay as a few native kernels."""

from __future__ import annotations

from .function import Function, function
from .overrides import mode

__all__ = ["Function", "function", "mode"]
