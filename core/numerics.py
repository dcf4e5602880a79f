"""Where a NaN comes from: an executor that looks at what every op makes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .attended import Attended
from .errors import NanError, line_of, user_line
from .op import Attrs, Op
from .step import fitted
from .value import Tensor


class Watching(Attended):
    """Says which op makes a NaN of operands without one, or raises an error."""

    def __init__(self, host: Any, raises: bool):
        super().__init__(host)
        self.raises = raises
        #: the node of the tape whose rule runs
        self.node: Any = None

    def rule(self, node: Any, grads: list[Any], create_graph: bool) -> Any:
        """A step back on the tape."""
        around, self.node = self.node, node
        try:
            return fitted(node, grads, create_graph)
        finally:
            self.node = around

    def run(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: Any = None) -> tuple[Any, ...]:
        known = any(_count(self._values(x)) for x in inputs) if into else None  # it may be overwritten
        made: tuple[Any, ...] = self.host.run(op, inputs, attrs, into)
        for y in made:
            values = self._values(y)
            if not _count(values) or not any(isinstance(x, Tensor) for x in inputs):
                continue
            if known is None:
                known = any(_count(self._values(x)) for x in inputs)
            if not known:
                self._tell(op, inputs, y, values)
                break
        return made

    def _values(self, x: Any) -> np.ndarray:
        if not isinstance(x, Tensor):
            return np.array(x if isinstance(x, (int, float, complex)) else 0.0)
        return np.asarray(self.host.read(x)) if x.dtype.has_gradient else np.zeros(())

    def _tell(self, op: Op, inputs: tuple[Any, ...], y: Any, values: np.ndarray) -> None:
        first = np.argwhere(np.isnan(values))[0].tolist()
        operands = ", ".join(
            f"{x.type} {_range(self._values(x))}" if isinstance(x, Tensor) else repr(x)
            for x in inputs
            if x is not None
        )
        text = f"made {_count(values)} NaN in {y.type}, the first at {first}, of {operands}"
        if self.node is not None:
            text += f"; in the gradient of {self.node.op.name} at {line_of(self.node.where)}"
        if self.raises:
            raise NanError(op.name, text, "look at the ranges; clamp, or add an epsilon, before")
        print(f"nan: {op.name} {text}; at {user_line()}", file=sys.stderr)


def _count(values: np.ndarray) -> int:
    return int(np.isnan(values).sum()) if values.dtype.kind not in "biu" else 0


def _range(values: np.ndarray) -> str:
    if not values.size:
        return "(empty)"
    size = np.abs(values) if values.dtype.kind == "c" else values
    return f"from {float(size.min()):g} to {float(size.max()):g}"
