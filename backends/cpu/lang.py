"""The names that kernel sources see: Numba's types, typed memory access and vector mathematics."""

from numba import types  # noqa: F401

from .intrinsics import *  # noqa: F403
