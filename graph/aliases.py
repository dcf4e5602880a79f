"""Arguments that are, or share memory with, other tensors of a graph: when a trace must not be used for them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..core.abstract import Abstract
from ..core.storage import overlapping
from ..core.value import Tensor
from ..core.vjp import ruleless
from .plain import hooks_of, sees
from .trace import Trace, effects


class Aliases:
    """Which tensors a variant takes to be one, and which to be apart; collected over its paths.

    met: arguments that the function also found by itself, by position; lifted: ids of all other tensors it
    found (the graphs keep them alive). Storages are kept by id for the same reason. leaves: whether arguments are
    leaves, their hooks, and of what they are views, by position, where that matters; grads: layouts of
    gradients that the function finds in arguments, and whether they have a history (None: there is none).
    """

    __slots__ = (
        "apart", "arrays", "asked", "grads", "leaves", "lifted", "met", "read_grads", "ruled", "storages", "whole",
        "written", "written_args", "written_grads",
    )  # fmt: skip

    def __init__(self) -> None:
        #: NumPy arrays that the function found, and whose memory no argument may have
        self.arrays: list[np.ndarray] = []
        #: tensors that no argument was, kept alive with their ids
        self.apart: list[Any] = []
        self.met: dict[int, Any] = {}
        self.leaves: dict[int, tuple[bool, tuple[Any, ...], str]] = {}
        self.grads: dict[int, Any] = {}
        self.lifted: set[int] = set()
        self.storages: set[int] = set()
        self.written: set[int] = set()
        self.written_args: set[int] = set()
        #: whose gradients the function finds (positions of arguments, other tensors); which of them it changes in place
        self.read_grads: dict[int, Any] = {}
        self.written_grads: set[int] = set()
        #: whether the function asks what is the same: then gradients that it finds are no other tensors
        self.asked = False
        #: arguments that are no views of others, by position, where that matters
        self.whole: set[int] = set()
        #: whether what changed arguments are views of takes changes, by position: see `_ruled`
        self.ruled: dict[int, tuple[bool, bool, bool]] = {}

    def add(
        self,
        trace: Trace,
        args: dict[int, int],
        outside: dict[int, Any],
        changed: Collection[int],
        asked: bool,
    ) -> None:
        """Take in a finished trace. args: position by id of the tensor; outside: by id, what the function found;
        changed: ids of what the function changes besides tensors; asked: whether it asked what is the same."""
        self.met.update(trace.met)
        self.apart += trace.apart
        if asked:
            found = (x for x in outside.values() if isinstance(x, Tensor) and id(x) not in args)
            self.apart += [
                x for x in found if not isinstance(x, Abstract)
            ]  # those are of a control op's function
        for tensor in self.apart:
            self.lifted.add(id(tensor))
            self.storages.add(id(tensor._storage))
        for tensor in trace.leaves.values():
            if id(tensor) in args:
                self.leaves[args[id(tensor)]] = _leaf(tensor)
        for tensor, absent in trace.grad_reads:
            if id(tensor) in args:
                self.grads[args[id(tensor)]] = None if absent else _facts(tensor._grad)
        for tensor, _ in trace.lifted.values():
            if id(tensor) not in args:
                self.lifted.add(id(tensor))
                self.storages.add(id(tensor._storage))
        for tensor, _ in effects(trace)[0]:
            if id(tensor) in args:
                self.written_args.add(args[id(tensor)])
                self.ruled[args[id(tensor)]] = _ruled(tensor)
            else:
                self.written.add(id(tensor._storage))
        arrays = [x for x in outside.values() if isinstance(x, np.ndarray)]
        self.asked |= asked
        self.arrays += [x for x in arrays if id(x) in changed or self.written_args]
        for key, (_, _, tensor) in trace.grad_inputs.items():
            whose = args.get(id(tensor), tensor)
            self.read_grads[id(tensor)] = whose
            if key in trace.written:
                self.written_grads.add(list(self.read_grads).index(id(tensor)))

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
        if any(tensors[position]._base is not None for position in self.whole):
            return False
        if any(_ruled(tensors[position]) != ruled for position, ruled in self.ruled.items()):
            return False
        if self.arrays and any(_shared(a, t) for t in tensors for a in self.arrays):
            return False
        for position, facts in self.grads.items():
            grad = tensors[position]._grad
            if grad is not facts and (grad is None or _facts(grad) != facts):
                return False
        if self.asked and self.read_grads:
            found = [(tensors[w] if w.__class__ is int else w)._grad for w in self.read_grads.values()]
            ids = [*map(id, tensors), *(id(g) for g in found if g is not None)]
            if len({*ids}) < len(ids) or not self.lifted.isdisjoint(ids):
                return False
        if self.written or self.written_args or self.written_grads:
            grads = [(tensors[w] if w.__class__ is int else w)._grad for w in self.read_grads.values()]
            storages = [id(t._storage) for t in (*tensors, *(g for g in grads if g is not None))]
            if not self.written.isdisjoint(storages):
                return False
            for position in (*self.written_args, *(len(tensors) + k for k in self.written_grads)):
                storage = storages[position]
                if storage in self.storages or storages.count(storage) > 1:
                    return False
        return True


def _facts(grad: Any) -> tuple[Any, bool]:
    return grad._layout, grad._requires_grad


def _ruled(t: Any) -> tuple[bool, bool, bool]:
    """Whether the tape has rules for a change of a tensor, whether elements share memory that it looks into, and
    whether nobody may write there."""
    return (
        t._base is None or ruleless(t) is None, t._base is not None and overlapping(t) is not None,
        t._storage.fixed,
    )  # fmt: skip


def _leaf(t: Any) -> tuple[bool, tuple[Any, ...], str]:
    return t._node is None, hooks_of(t), sees(t)


def check_arrays(trace: Trace, changed: Collection[int], met: dict[int, Any]) -> None:
    """Leave to Python what changes the memory of a NumPy array that it found, as an array or as a tensor: the graph
    knows the two as different things.

    changed: ids of what the function changes besides tensors; met: by id, what it found.
    """
    arrays = [x for x in met.values() if isinstance(x, np.ndarray)]
    written = {id(t) for t, _ in effects(trace)[0]}
    for a in arrays:
        for t, _ in trace.lifted.values():
            if (id(a) in changed or id(t) in written) and _shared(a, t):
                trace.leave(
                    f"changes memory that is both the tensor {t.type} and a NumPy array", "use one of the two"
                )


def _shared(a: np.ndarray, t: Any) -> bool:
    return t.device == "cpu" and bool(np.may_share_memory(a, t._array()))
