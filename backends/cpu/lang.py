"""The names that kernel sources see: Numba's types, typed memory access and vector mathematics."""

from numba import types  # noqa: F401
from numba.extending import register_jitable

from .emit_intrinsics import *  # noqa: F403
from .intrinsics import *  # noqa: F403
from .numba_front import KernelCompiler
from .vecmath import *  # noqa: F403
from .wide import *  # noqa: F403
from .wide_reduce import *  # noqa: F403
from .wide_scan import *  # noqa: F403

# Decorators of functions that kernels call: `inline` makes them part of their caller's code, `function`
# leaves that to LLVM.
inline = register_jitable(
    error_model="numpy", no_cpython_wrapper=True, pipeline_class=KernelCompiler, forceinline=True
)
function = register_jitable(error_model="numpy", no_cpython_wrapper=True, pipeline_class=KernelCompiler)
