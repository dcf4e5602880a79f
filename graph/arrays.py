"""NumPy arrays among the arguments of a call: the function sees tensors over their memory, however it runs.

Tuples that hold arrays are made anew. Other containers are the caller's own, also where the function finds them by
itself: tensors stand in them while calls go on, and when the last of these has ended what has stayed of the tensors,
wherever in them it stands, is arrays again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..core import dispatch, forks
from ..core.value import Tensor
from .arguments import is_record, record_names
from .given import children, put

#: classes of arguments that are no arrays and hold none; those of tensors follow
LEAVES: set[type] = {int, float, bool, str, bytes, complex, type(None)}
#: by id, other classes whose objects are neither arrays nor containers
_plain: dict[int, weakref.ref[type]] = {}
_OTHERS = (np.ndarray, Tensor, tuple)
are_leaves: Callable[[Iterable[type]], bool] = LEAVES.issuperset


class _Lent:
    """A container in which tensors stand. calls: how many use it; back: by id, what is put in again for what."""

    __slots__ = ("back", "calls", "x")

    def __init__(self, x: Any):
        self.x, self.calls = x, 0
        self.back: dict[int, tuple[Any, Any]] = {}


#: containers in use by id
_lent: dict[int, _Lent] = {}
forks.after(_lent.clear)
_lock = forks.lock()


def have_arrays(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether there are arrays among arguments, or containers that another call has put tensors into."""
    for x in (*args, *kwargs.values()) if kwargs else args:
        cls = type(x)
        if cls not in LEAVES and id(cls) not in _plain and _holds(x, None):
            return True
    return False


def _holds(x: Any, seen: set[int] | None) -> bool:
    """Whether x, whose class is no leaf, is or holds an array. seen: ids of containers around it."""
    cls = type(x)
    inside: Any
    if cls is list or cls is dict:
        if id(x) in _lent:
            return True
        inside = x if cls is list else x.values()
        if are_leaves(map(type, inside)):
            return False
    elif isinstance(x, _OTHERS):
        if isinstance(x, np.ndarray):
            return True
        if isinstance(x, Tensor):
            if cls.__module__.startswith("duograd."):
                LEAVES.add(cls)
            return False
        if cls is not tuple and not hasattr(x, "_fields"):
            return False
        inside = x
    elif hasattr(cls, "__dataclass_fields__") and is_record(x):
        if id(x) in _lent:
            return True
        inside = [getattr(x, n) for n in record_names(x)]
    else:
        key = id(cls)
        _plain[key] = weakref.ref(cls, lambda _: _plain.pop(key, None))
        return False
    seen = set() if seen is None else seen
    if id(x) in seen:
        return False
    seen.add(id(x))
    return any(type(y) not in LEAVES and _holds(y, seen) for y in list(inside))


class Sharing:
    """`with Sharing(args, kwargs) as (args, kwargs):` arguments with tensors in the places of arrays."""

    __slots__ = ("_arrays", "_back", "_containers", "_seen", "_tensors", "args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        #: by id: arrays, tensors and containers, each once
        self._arrays: dict[int, Any] = {}
        self._tensors: dict[int, Any] = {}
        self._containers: dict[int, Any] = {}
        self._seen: set[int] = set()
        self._back: dict[int, tuple[Any, Any]] = {}
        host: Any = dispatch._State.executor
        with _lock:
            for x in (*args, *kwargs.values()):
                self._look(x, host.can_share)
            trace: Any = dispatch.tracing()
            made: dict[int, Any] = {}
            if self._arrays:
                tensors = host.share_together([*self._arrays.values()], [*self._tensors.values()])
                for a, t in zip(self._arrays.values(), tensors):
                    made[id(a)] = t
                    self._back[id(t)] = t, a
                    if hasattr(trace, "note_memory"):
                        trace.note_memory(a, t)
            if trace is not None:
                self._refuse_containers(trace, made)
            self.args = tuple([self._put(x, made) for x in args])
            self.kwargs = {name: self._put(x, made) for name, x in kwargs.items()}
            found, self._containers = self._containers, {}
            try:
                for key, x in found.items():
                    self._lend(key, x, made)
            except BaseException:  # of a record that cannot be written to
                self.end()
                raise

    def _lend(self, key: int, x: Any, made: dict[int, Any]) -> None:
        """Put tensors into a container."""
        lent = _lent.get(key)
        if lent is None:
            lent = _lent[key] = _Lent(x)
        lent.calls += 1
        self._containers[key] = x
        for step, child in children(x) or ():
            new = self._put(child, made)
            if new is not child:
                put(x, step, new)
                lent.back[id(new)] = self._back[id(new)]

    def _look(self, x: Any, can_share: Callable[[Any], bool]) -> None:
        """Find arrays, and the containers around them."""
        cls = type(x)
        if isinstance(x, np.ndarray):
            if can_share(x):
                self._arrays[id(x)] = x
        elif isinstance(x, Tensor):
            if cls is dispatch._State.executor.tensor_class:  # type: ignore[attr-defined]
                self._tensors[id(x)] = x
        elif cls not in LEAVES and id(x) not in self._seen:
            row = children(x)
            if row is not None:
                self._seen.add(id(x))
                if not isinstance(x, tuple):
                    self._containers[id(x)] = x
                for _, child in row:
                    self._look(child, can_share)

    def _refuse_containers(self, trace: Any, made: dict[int, Any]) -> None:
        """Leave a trace to Python that would have tensors in its containers; it needs none for others."""
        for x in self._containers.values():
            if any(self._put(child, made) is not child for _, child in children(x) or ()):
                trace.leave(
                    "calls a function with NumPy arrays in a container", "pass tensors: dg.asarray(array)"
                )
        self._containers = {}

    def _put(self, x: Any, made: dict[int, Any]) -> Any:
        """What stands for x: a tensor, a tuple of them, or itself."""
        if isinstance(x, np.ndarray):
            return made.get(id(x), x)
        if not isinstance(x, tuple) or (type(x) is not tuple and not hasattr(x, "_fields")):
            return x
        new = made.get(id(x))
        if new is None:
            row = [self._put(v, made) for v in x]
            if all(a is b for a, b in zip(row, x)):
                return x
            new = made[id(x)] = tuple(row) if type(x) is tuple else type(x)(*row)
            self._back[id(new)] = new, x
        return new

    def end(self) -> None:
        """The call has ended: arrays again where nobody else uses a container."""
        if not self._containers:
            return
        with _lock:
            for key, x in self._containers.items():
                lent = _lent.get(key)
                if lent is None:  # a child process
                    continue
                lent.calls -= 1
                if lent.calls:
                    lent.back.update(self._back)
                    continue
                del _lent[key]
                for step, child in children(x) or ():
                    new = lent.back.get(id(child), self._back.get(id(child)))
                    if new is not None and new[0] is child:
                        put(x, step, new[1])

    def __enter__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.args, self.kwargs

    def __exit__(self, *_: object) -> None:
        self.end()
