"""Calls that give another value each time, which no guard can watch: clocks, random numbers, what is typed in."""

from __future__ import annotations

import contextvars
import os
import random
import types
from typing import Any

import numpy as np

_MODULES = frozenset(("time", "uuid", "secrets", "_random", "_datetime", "datetime"))
_CALLS = frozenset(map(id, (input, os.urandom)))
_OWNERS = (random.Random, np.random.Generator, np.random.RandomState, contextvars.ContextVar)
_FUNCTIONS = (types.BuiltinFunctionType, types.FunctionType, types.MethodType)


def impure(callee: Any) -> str | None:
    """The name of a function that gives another value each time; None for others."""
    owner = getattr(callee, "__self__", None)
    owned = isinstance(owner, _OWNERS)
    if not owned and not isinstance(callee, _FUNCTIONS):
        return None
    name = callee.__name__
    module = getattr(callee, "__module__", None) or getattr(owner, "__module__", None)
    if owned or (module in _MODULES and name != "sleep") or id(callee) in _CALLS:
        return f"{type(owner).__name__ if owned else module}.{name}"
    return None
