"""ONNX: `export` writes models, `load` makes modules of them, `check` says what is in the way."""

from __future__ import annotations

from ...core.spoken import spell as _spell
from .check import Problem, Report, check
from .export import export
from .load import OnnxModule, load
from .table import register

__all__ = ["OnnxModule", "Problem", "Report", "check", "export", "load", "register"]

_spell(globals(), __all__)
