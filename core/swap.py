"""Other tensors in the place of some: an executor in front of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .over import Over
from .region import Branch, Repeat, Scan
from .value import Tensor


class Swap(Over):
    """An executor in front of another that hands other tensors to it in the place of some."""

    def __init__(self, outer: Any, pairs: Sequence[tuple[Any, Any]]):
        self.outer = outer
        self.instead = {id(a._known()): b for a, b in pairs}

    def swap(self, x: Any) -> Any:
        return self.instead.get(id(x._known()), x) if isinstance(x, Tensor) else x

    def call(self, op: Any, inputs: tuple[Any, ...], attrs: Any) -> Any:
        return self.outer.call(op, tuple(map(self.swap, inputs)), attrs)

    def prepare(self, op: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return self.outer.prepare(op, tuple(map(self.swap, inputs)))  # type: ignore[no-any-return]

    def run(self, op: Any, inputs: tuple[Any, ...], attrs: Any, into: Any = None) -> tuple[Any, ...]:
        into = None if into is None else tuple(map(self.swap, into))
        return self.outer.run(op, tuple(map(self.swap, inputs)), attrs, into)  # type: ignore[no-any-return]

    def face(self, x: Any) -> Any:
        return self.outer.face(self.swap(x))

    def write(self, target: Any, value: Any) -> Any:
        return self.outer.write(self.swap(target), self.swap(value))

    def read(self, x: Any) -> Any:
        return self.outer.read(self.swap(x))

    def check(self, x: Any, refuse: Any) -> None:
        self.outer.check(self.swap(x), refuse)

    def attach(self, op: Any, inputs: tuple[Any, ...], attrs: Any, outputs: tuple[Any, ...]) -> Any:
        return self.outer.attach(op, tuple(map(self.swap, inputs)), attrs, outputs)

    def get_grad(self, x: Any) -> Any:
        return self.outer.get_grad(self.swap(x))

    def set_grad(self, x: Any, value: Any) -> None:
        self.outer.set_grad(self.swap(x), value)

    def branch(self, c: Branch) -> Any:
        return self.outer.branch(c._replace(
            pred=self.swap(c.pred), consts=tuple(map(self.swap, c.consts)), operands=tuple(map(self.swap, c.operands))
        ))  # fmt: skip

    def repeat(self, c: Repeat) -> Any:
        return self.outer.repeat(
            c._replace(consts=tuple(map(self.swap, c.consts)), carry=tuple(map(self.swap, c.carry)))
        )

    def scan(self, c: Scan) -> Any:
        return self.outer.scan(c._replace(
            consts=tuple(map(self.swap, c.consts)), carry=tuple(map(self.swap, c.carry)),
            xs=tuple(map(self.swap, c.xs)),
        ))  # fmt: skip

    def constant(self, array: Any, device: Any) -> Any:
        return self.outer.constant(array, device)
