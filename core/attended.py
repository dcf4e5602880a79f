"""The executor of the moment with something done at each op and each tensor that is made."""

from __future__ import annotations

from typing import Any

from . import dispatch
from .op import Attrs, Op


def is_eager() -> bool:
    """Whether ops run one by one here, perhaps attended, and are not traced, mapped or part of a loop."""
    executor: Any = dispatch.state.executor
    while isinstance(executor, Attended):
        executor = executor.host
    return executor is dispatch._State.executor


class Attended:
    """An executor in front of `host`, whose results it hands on; subclasses look at them."""

    #: the host's quick ways past `run`
    call_raw = sized = None

    def __init__(self, host: Any):
        self.host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def call(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
        return dispatch.call(self, op, inputs, attrs)  # type: ignore[arg-type]
