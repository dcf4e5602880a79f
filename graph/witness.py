"""Eager mode, watched: an executor that runs op by op, remembers every call, and can take all of it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core.attended import Attended
from ..core.errors import user_line
from ..core.op import Attrs, Op
from ..core.storage import writes
from ..core.value import Tensor


class Call(NamedTuple):
    """An op that ran: what it was given besides tensors, what came out, and the user's line."""

    op: Op
    attrs: Attrs
    numbers: tuple[Any, ...]
    outputs: tuple[np.ndarray, ...]
    line: str


def copied(t: Any) -> np.ndarray:
    """A copy of a tensor's values."""
    return np.array(t._array())


def undo_of(target: Any) -> Callable[[], None]:
    """What puts a tensor's memory back as it is now, and its place on the tape, and those of what it is a view of."""
    values, storage, rest = copied(target), target._storage, Place(target)
    version, changed = storage.version, storage.changed

    def undo() -> None:
        rest.put(values)
        storage.version, storage.changed = version, changed

    return undo


class Place:
    """A tensor's place on the tape, as it is now, and those of what it is a view of."""

    def __init__(self, target: Any):
        self.target, self.tape_version = target, target._storage.tape_version
        self.chain: list[tuple[Any, ...]] = []
        x = target
        while x is not None:
            self.chain.append((x, x._node, x._index, x._requires_grad, x._seen))
            x = x._base

    def put(self, values: Any) -> None:
        """Put the tensor back there, with these values."""
        storage = self.target._storage
        if not storage.fixed:
            self.target._array()[...] = values
        writes.look(storage)  # its old number says nothing about what was made of it meanwhile
        self.recall()

    def recall(self) -> None:
        """Put it back there, whatever its values are."""
        self.target._storage.tape_version = self.tape_version
        for y, *place in self.chain:
            y._node, y._index, y._requires_grad, y._seen = place


class Once:
    """A run of a function whose results Python keeps: it stays."""

    def begin(self, frame: Any) -> None:
        """Nothing in it is watched."""

    def end(self, result: Any) -> None:
        """Nothing of it is taken back."""


class Witness(Attended):
    """The host executor with a memory.

    calls: every op, in order; met: tensors from before that ops read or changed, with their first values;
    finals (after `look`): what was changed, at the end.
    """

    def __init__(self, host: Any):
        super().__init__(host)
        self.calls: list[Call] = []
        self.met: dict[int, tuple[Any, np.ndarray, Any, bool]] = {}
        self.generators: dict[int, tuple[Any, Any]] = {}
        self._made: dict[int, Any] = {}
        #: something happened that no graph holds
        self.left = False
        self._log: list[Callable[[], None]] = []

    def run(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: Any = None) -> tuple[Any, ...]:
        for x in inputs:
            self._meet(x)
        for t in into or ():
            self._keep(t)
        made: tuple[Any, ...] = self.host.run(op, inputs, attrs, into)
        for t in made:
            self._made[id(t)] = t
        numbers = tuple(x for x in inputs if x is not None and not isinstance(x, Tensor))
        self.calls.append(Call(op, attrs, numbers, tuple(map(copied, made)), user_line(2)))
        return made

    def write(self, target: Any, value: Any) -> Any:
        self._keep(target)
        return self.host.write(target, value)

    def get_grad(self, x: Any) -> Any:
        self._meet(x)
        return self.host.get_grad(x)

    def set_grad(self, x: Any, value: Any) -> None:
        self._meet(x)
        before = x._grad
        self._log.append(lambda: setattr(x, "_grad", before))
        self.host.set_grad(x, value)

    def before_asking(self, x: Any) -> None:
        self._meet(x)
        before = x._requires_grad
        self._log.append(lambda: setattr(x, "_requires_grad", before))

    def offset(self, generator: Any, count: int) -> Any:
        self._draw(generator)
        return self.host.offset(generator, count)

    def set_random_state(self, generator: Any, state: Any) -> None:
        self._draw(generator)
        self.host.set_random_state(generator, state)

    def _draw(self, generator: Any) -> None:
        if id(generator) not in self.generators:
            state = generator.get_state()
            self.generators[id(generator)] = generator, state
            self._log.append(lambda: generator.set_state(state))

    def _meet(self, x: Any) -> None:
        if isinstance(x, Tensor) and id(x) not in self._made and id(x) not in self.met:
            g = x._grad
            self.met[id(x)] = x, copied(x), None if g is None else copied(g), x._requires_grad

    def _keep(self, target: Any) -> None:
        """Remember a tensor's memory and its place on the tape, and those of what it is a view of."""
        self._meet(target)
        self._log.append(undo_of(target))

    def leave(self, why: str, fix: str) -> None:
        """The graph's call would leave the function to Python here."""
        self.left = True

    def runs_aside(self, cached: Any, ledger: Any) -> Once:
        """A function is about to run whose results Python keeps, so that it would do no more at the graph's call."""
        ledger.odd = ledger.odd or ("runs a function whose results are cached", "call it outside first")
        return Once()

    def meet_all(self, tensors: list[Any]) -> None:
        """Take in tensors that the call is given."""
        for t in tensors:
            self._meet(t)

    def look(self) -> dict[int, tuple[np.ndarray, Any, bool]]:
        """Values, gradients and `requires_grad`, now, of all tensors from before."""
        return {
            k: (copied(t), None if t._grad is None else copied(t._grad), t._requires_grad)
            for k, (t, *_) in self.met.items()
        }

    def undo(self) -> None:
        """Put everything back as it was."""
        while self._log:
            self._log.pop()()

    def restore(self) -> None:
        """Values, gradients and generators of what was met, as they were, whoever changed them since."""
        for t, values, g, asks in self.met.values():
            if t._node is None:
                t._requires_grad = asks
            if t._array().tobytes() != values.tobytes():
                t._array()[...] = values
                t._storage.version += 1
                writes.last = object()
            if g is None:
                t._grad = None
            elif t._grad is not None and t._grad._array().tobytes() != g.tobytes():
                t._grad._array()[...] = g
        for generator, state in self.generators.values():
            generator.set_state(state)
