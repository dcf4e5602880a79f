"""Optimisers and learning-rate schedules."""

from __future__ import annotations

from typing import Any

from ...core.foreign import unknown as _unknown
from ...core.spoken import spell as _spell
from . import lr_scheduler, swa_utils
from .adam import Adam, AdamW
from .adaptive import ASGD, Adadelta, Adagrad, Adamax, Lion, NAdam, RAdam, RMSprop, Rprop
from .factored import Adafactor, Muon
from .lbfgs import LBFGS
from .optimizer import Optimizer, ParamGroup
from .sgd import SGD

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Muon", "NAdam",
    "Optimizer", "ParamGroup", "RAdam", "RMSprop", "Rprop", "lr_scheduler", "swa_utils",
]  # fmt: skip

_spell(globals(), __all__)


def __getattr__(name: str) -> Any:
    raise _unknown("dg.optim", name, globals())
