"""`dg.fft`: Fourier transforms by the names of the array API's extension, NumPy and PyTorch."""

from __future__ import annotations

from .ops import fft as _functions
from .spoken import spell as _spell

globals().update({name: getattr(_functions, name) for name in _functions.NAMES})

__all__ = list(_functions.NAMES)
_spell(globals(), __all__)
