"""ONNX: `export`, `load` and `check`."""

from __future__ import annotations

from .export import export
from .load import OnnxModule, load

__all__ = ["OnnxModule", "export", "load"]
