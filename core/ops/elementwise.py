"""The element-wise families under one name (`E.exp`, `E.where`), and NumPy's and PyTorch's other names for them."""

from __future__ import annotations

from ..op import PUBLIC
from .arithmetic import *  # noqa: F403
from .bitwise import *  # noqa: F403
from .comparison import *  # noqa: F403
from .exponential import *  # noqa: F403
from .rounding import *  # noqa: F403
from .special import *  # noqa: F403
from .trigonometry import *  # noqa: F403

#: other name -> name
ALIASES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh",
    "arccosh": "acosh", "arctanh": "atanh", "absolute": "abs_", "fix": "trunc", "mod": "remainder",
    "true_divide": "divide", "invert": "bitwise_invert", "bitwise_not": "bitwise_invert",
    "left_shift": "bitwise_left_shift", "right_shift": "bitwise_right_shift", "clamp": "clip_",
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "degrees": "rad2deg", "radians": "deg2rad", "expit": "sigmoid", "sub": "subtract", "mul": "multiply",
    "neg": "negative", "pow": "power", "sgn": "sign",
}  # fmt: skip
PUBLIC |= {other: PUBLIC.get(name.rstrip("_")) or globals()[name] for other, name in ALIASES.items()}
