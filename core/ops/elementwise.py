"""The element-wise families under one name: `E.exp`, `E.where`, as gradient rules and other families write them."""

from __future__ import annotations

from .arithmetic import *  # noqa: F403
from .comparison import *  # noqa: F403
from .exponential import *  # noqa: F403
from .trigonometry import *  # noqa: F403
