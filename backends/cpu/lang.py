"""The names that kernel sources see: Numba's types, typed memory access and vector mathematics."""

from numba import types  # noqa: F401
from numba.extending import register_jitable

from .intrinsics import *  # noqa: F403

# Decorates a function that kernels call; it becomes part of its caller's code.
inline = register_jitable(error_model="numpy", no_cpython_wrapper=True, forceinline=True)
