"""Neural networks: modules, layers, losses, initialisers, optimisers."""

from __future__ import annotations

from . import activation as _activation
from . import functional, init, utils
from . import loss as _loss
from . import normalization as _normalization
from .activation import *  # noqa: F403
from .containers import ModuleList, ParameterList, Sequential
from .convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .layers import Bilinear, Dropout, Embedding, Flatten, Identity, LayerNorm, Linear
from .loss import *  # noqa: F403
from .module import Module, Parameter
from .normalization import *  # noqa: F403
from .pooling import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)

__all__ = [
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "Bilinear", "Conv1d", "Conv2d",
    "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Dropout", "Embedding",
    "Flatten", "Identity", "LPPool1d", "LPPool2d", "LPPool3d", "LayerNorm", "Linear",
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
    "Module", "ModuleList", "Parameter", "ParameterList", "Sequential",
    "functional", "init", "utils",
]  # fmt: skip
__all__ += [*_activation.__all__, *_loss.__all__, *_normalization.__all__]
