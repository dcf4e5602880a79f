"""ONNX: `export`, `load` and `check`."""

from __future__ import annotations

from .export import export

__all__ = ["export"]
