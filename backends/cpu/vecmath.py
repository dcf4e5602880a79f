"""Vector math: `v_<function>_<dtype>` for kernels, as intrinsics that leave straight-line LLVM IR.

`VECMATH` lists them all. Names follow `core/scalar.py` (`v_exp_f32`, `v_add_i32`, `v_where_f64`) and the
short dtype names of `core/types.py`. Accuracy, speed and method: docs/vecmath.md.
"""

from . import (  # noqa: F401
    vecmath_erf,
    vecmath_exact,
    vecmath_exp,
    vecmath_log,
    vecmath_pow,
    vecmath_random,
    vecmath_trig,
)
from .vecmath_registry import VECMATH, VectorFunction
from .vecmath_value import KINDS

globals().update({name: entry.function for name, entry in VECMATH.items()})
__all__ = ["KINDS", "VECMATH", "VectorFunction", *VECMATH]
