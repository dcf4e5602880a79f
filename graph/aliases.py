"""Arguments that are, or share memory with, other tensors of a graph: when a trace must not be used for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .symbol import Symbol
from .trace import Trace, effects


class Aliases:
    """Which tensors a variant takes to be one, and which to be apart; collected over its paths.

    met: arguments that the function also found by itself, by position; lifted: ids of all other tensors it
    found (the graphs keep them alive). Storages are kept by id for the same reason. leaves: whether arguments are
    leaves, and their hooks, by position, where that matters; grads: layouts of gradients that the function finds in
    arguments (None: there is none).
    """

    __slots__ = ("grads", "leaves", "lifted", "met", "storages", "written", "written_args")

    def __init__(self) -> None:
        self.met: dict[int, Any] = {}
        self.leaves: dict[int, tuple[bool, tuple[Any, ...]]] = {}
        self.grads: dict[int, Any] = {}
        self.lifted: set[int] = set()
        self.storages: set[int] = set()
        self.written: set[int] = set()
        self.written_args: set[int] = set()

    def add(self, trace: Trace, args: dict[int, int]) -> None:
        """Take in a finished trace. args: position by id of the tensor."""
        self.met.update(trace.met)
        for tensor in trace.leaves.values():
            if id(tensor) in args:
                self.leaves[args[id(tensor)]] = _leaf(tensor)
        for tensor, absent in trace.grad_reads:
            if id(tensor) in args:
                self.grads[args[id(tensor)]] = None if absent else tensor._grad._layout
        for tensor, _ in trace.lifted.values():
            if id(tensor) not in args:
                self.lifted.add(id(tensor))
                self.storages.add(id(tensor._storage))
        for tensor, _ in effects(trace)[0]:
            if id(tensor) in args:
                self.written_args.add(args[id(tensor)])
            else:
                self.written.add(id(tensor._storage))

    def fit(self, tensors: list[Any]) -> bool:
        """Whether the arguments of a call are one, and are apart, where the traced ones were."""
        if not self.lifted.isdisjoint(map(id, tensors)):
            return False
        for position, tensor in self.met.items():
            if tensors[position] is not tensor:
                return False
        for position, leaf in self.leaves.items():
            if _leaf(tensors[position]) != leaf:
                return False
        for position, layout in self.grads.items():
            grad = tensors[position]._grad
            if grad is not layout and (grad is None or grad._layout is not layout):
                return False
        if self.written or self.written_args:
            storages = [id(t._storage) for t in tensors]
            if not self.written.isdisjoint(storages):
                return False
            for position in self.written_args:
                storage = storages[position]
                if storage in self.storages or storages.count(storage) > 1:
                    return False
        return True


def _leaf(t: Any) -> tuple[bool, tuple[Any, ...]]:
    return t._node is None, tuple(t._hooks or ())


def check_aliases(trace: Trace, writes: Sequence[tuple[Any, Symbol]], args: dict[int, int]) -> None:
    """Leave a written tensor that shares memory with another lifted one to Python: the graph would miss it."""
    for tensor, _ in writes:
        for other, _ in trace.lifted.values():
            if other is not tensor and other._storage is tensor._storage:
                trace.overlap = id(tensor) in args and id(other) in args
                trace.leave(
                    f"changes {tensor.type} in place, which shares memory with another input {other.type}",
                    "pass only the base and take views inside the function",
                )


def overlap(tensors: Sequence[Any]) -> bool:
    """Whether some of these share memory without being one."""
    return len({id(t) for t in tensors}) > len({id(t._storage) for t in tensors})
