"""Benchmarks against other frameworks; see README.md beside this file.

`dg.bench(fn, ...)` is a function of the public face, and importing this subpackage puts it at `duograd.bench`.
So the module is callable: both names work.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from ..interop.measure import bench

        return bench(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
