"""Vector math: `v_<function>_<dtype>` for kernels, as intrinsics that leave straight-line LLVM IR.

`VECMATH` lists them all. Names follow `core/scalar.py` (`v_exp_f32`, `v_add_i32`, `v_where_f64`) and the
short dtype names of `core/types.py`. Accuracy, speed and method: docs/vecmath.md.
"""

# Importing a family registers its functions.
from .vecmath_erf import erf  # noqa: F401
from .vecmath_exact import where  # noqa: F401
from .vecmath_exp import exp  # noqa: F401
from .vecmath_log import log  # noqa: F401
from .vecmath_pow import pow_f32  # noqa: F401
from .vecmath_random import philox  # noqa: F401
from .vecmath_registry import VECMATH, VectorFunction
from .vecmath_trig import sin  # noqa: F401
from .vecmath_value import KINDS

globals().update({name: entry.function for name, entry in VECMATH.items()})
__all__ = ["KINDS", "VECMATH", "VectorFunction", *VECMATH]
