"""Eager mode: each op runs at once and the tape records it."""

from __future__ import annotations

from ..core import dispatch
from .execute import EagerExecutor
from .tensor import EagerTensor

executor = EagerExecutor()
dispatch.install(executor)

__all__ = ["EagerExecutor", "EagerTensor", "executor"]
