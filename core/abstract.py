"""Ops on types alone: what shape and dtype a composite gives, without memory, values or kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import dispatch
from .backend import normalize_device
from .errors import TraceError
from .op import Attrs, Op
from .region import Branch, Repeat, Scan
from .types import DTYPES, DType, Shape, TensorType, contiguous_strides
from .value import Tensor


class Abstract(Tensor):
    """A tensor without values."""

    __slots__ = ("_kind", "_place")

    def __init__(self, kind: TensorType, place: str = "cpu"):
        self._kind, self._place = kind, place
        self._begin()

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        return self._kind.shape

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self._kind.dtype

    @property
    def type(self) -> TensorType:  # type: ignore[override]
        return self._kind

    @property
    def device(self) -> str:  # type: ignore[override]
        return self._place

    @property
    def strides(self) -> Shape:  # type: ignore[override]
        return contiguous_strides(self._kind.shape)

    def _alias(self) -> Abstract:
        return Abstract(self._kind, self._place)

    def detach(self) -> Abstract:
        return self._alias()

    def numpy(self) -> Any:
        return dispatch.state.executor.read(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return dispatch.state.executor.read(self)

    def __repr__(self) -> str:
        return f"abstract({self.type})"


class TypeExecutor:
    """The executor that asks type rules and computes nothing; ops that read a value raise TraceError."""

    def call(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
        return dispatch.call(self, op, inputs, attrs)

    def prepare(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        out = [
            self.constant(x, "cpu")
            if isinstance(x, np.ndarray)
            else x.item()
            if isinstance(x, np.generic)
            else self.face(x)
            for x in inputs
        ]
        if op.input_names and not any(isinstance(x, Tensor) for x in out) and not op.creates:
            out = [x if x is None else self.constant(np.asarray(x), "cpu") for x in out]
        return tuple(out)

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[Any, ...] | None = None
    ) -> tuple[Any, ...]:
        made = op.infer([x.type if isinstance(x, Tensor) else x for x in inputs], attrs)
        if into is not None:
            return into
        places = [x.device for x in inputs if isinstance(x, Tensor)]
        place = places[0] if places else normalize_device(op.attrs_dict(attrs).get("device") or "cpu")
        return tuple(Abstract(t, place) for t in made)

    def face(self, x: Any) -> Any:
        """x without its values."""
        return Abstract(x.type, x.device) if isinstance(x, Tensor) and not isinstance(x, Abstract) else x

    def constant(self, array: Any, device: Any) -> Tensor:
        return Abstract(TensorType(DTYPES[array.dtype.name], array.shape), normalize_device(device))

    def write(self, target: Tensor, value: Any) -> Tensor:
        return target

    def check(self, x: Tensor, refuse: Callable[[Any], None]) -> None:
        """There is no value to refuse."""

    def read(self, x: Tensor) -> Any:
        raise TraceError(
            "abstract", f"the value of {x.type} was read, and there is none", "run it on tensors"
        )

    def get_grad(self, x: Tensor) -> Tensor | None:
        return None

    def set_grad(self, x: Tensor, value: Tensor | None) -> None:
        """Nothing has a gradient."""

    def number(self, owner: Any, key: str) -> Any:
        return owner[key]

    def offset(self, generator: Any, count: int) -> tuple[Any, Any]:
        return 0, 0

    def attach(
        self, op: Any, inputs: tuple[Any, ...], attrs: Attrs, outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        return outputs

    def random_state(self, generator: Any) -> Any:
        return 0

    def set_random_state(self, generator: Any, state: Any) -> None:
        """Nothing was drawn."""

    def seed(self, generator: Any, seed: int) -> None:
        """Nothing is drawn."""

    def branch(self, c: Branch) -> tuple[Tensor, ...]:
        return tuple(Abstract(t, c.pred.device) for t in c.types)

    def repeat(self, c: Repeat) -> tuple[Tensor, ...]:
        return tuple(Abstract(t, x.device) for t, x in zip(c.types, c.carry))

    def scan(self, c: Scan) -> tuple[Tensor, ...]:
        device = next((x.device for x in (*c.carry, *c.xs)), "cpu")
        return tuple(Abstract(t, device) for t in c.results())


def types_of(op: Op, arguments: list[Any], attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    """The types of an op's results; arrays among the arguments count for their type alone.

    Raises: what the op raises for such types; TraceError where it reads a value.
    """
    executor = TypeExecutor()
    with dispatch.executing(executor), dispatch.set_grad(False):
        given = [executor.constant(a, "cpu") if isinstance(a, np.ndarray) else a for a in arguments]
        made = op(*given, **attrs)
    return tuple(y.type for y in (made if isinstance(made, tuple) else (made,)))
