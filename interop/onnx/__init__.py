"""ONNX: `export` writes models, `load` makes modules of them, `check` says what is in the way."""

from __future__ import annotations

from .check import Problem, Report, check
from .export import export
from .load import OnnxModule, load
from .table import register

__all__ = ["OnnxModule", "Problem", "Report", "check", "export", "load", "register"]
