"""Neural networks: modules, layers, losses, initialisers, optimisers."""

from __future__ import annotations

import importlib
from typing import Any

from ..core.foreign import unknown as _unknown
from ..core.spoken import spell as _spell
from . import activation as _activation
from . import attention as _attention
from . import convolution as _convolution
from . import functional, init, utils
from . import lazy as _lazy
from . import loss as _loss
from . import normalization as _normalization
from . import pooling as _pooling
from . import recurrent as _recurrent
from . import resampling as _resampling
from . import shaping as _shaping
from .activation import *  # noqa: F403
from .attention import *  # noqa: F403
from .containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from .convolution import *  # noqa: F403
from .fractional import FractionalMaxPool2d, FractionalMaxPool3d
from .layers import Bilinear, Dropout, Flatten, Identity, LayerNorm, Linear
from .lazy import *  # noqa: F403
from .loss import *  # noqa: F403
from .module import Module, Parameter
from .normalization import *  # noqa: F403
from .pooling import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .resampling import *  # noqa: F403
from .shaping import *  # noqa: F403

__all__ = [
    "Bilinear", "Dropout", "Flatten", "FractionalMaxPool2d", "FractionalMaxPool3d", "Identity",
    "LayerNorm", "Linear", "Module", "ModuleDict", "ModuleList",
    "Parameter", "ParameterDict", "ParameterList", "Sequential", "functional", "init", "utils",
]  # fmt: skip
__all__ += [
    *_activation.__all__,
    *_attention.__all__,
    *_convolution.__all__,
    *_lazy.__all__,
    *_loss.__all__,
    *_shaping.__all__,
    *_pooling.__all__,
    *_resampling.__all__,
    *_normalization.__all__,
    *_recurrent.__all__,
]
_spell(globals(), __all__)

# Training in one call stands with data, files and the terminal, which layers do not know: loaded by name.
_ELSEWHERE = {
    "Trainer": "..interop.trainer:Trainer",
    "callbacks": "..interop.callbacks",
    "summary": "..interop.summary:summary",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise _unknown("dg.nn", name, __dir__())
    path, _, attribute = _ELSEWHERE[name].partition(":")
    found = importlib.import_module(path, __name__)
    globals()[name] = getattr(found, attribute) if attribute else found
    _spell(globals(), [name], strict=True)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_ELSEWHERE})
