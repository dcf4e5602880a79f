"""The variables of a kernel's functions: what type and which stack slot a name stands for, in the text's order.

A name may take a value of another type, and gets another slot then. In one walk over the text that is right where every
read of such a name surely follows an assignment of that type: one in the read's own region (the body of a loop or of a
branch) or in one around it, with no loop in between that gives the name another type. Everything else is `Unsupported`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .operations import Unsupported

Value = tuple[Any, Any]  # Numba's type, LLVM's value


class Variables:
    """The variables of one function while it is walked."""

    def __init__(self) -> None:
        self._slots: dict[str, Value] = {}
        #: the regions around the place where the walk is: a number, negative for the body of a loop
        self._path: tuple[int, ...] = ()
        self._regions = 0
        #: the paths at which a name's present slot was assigned
        self._assigned: dict[str, list[tuple[int, ...]]] = {}
        #: loops in which a name was read that was assigned outside
        self._carried: dict[str, set[int]] = {}
        #: names that were read where another way may lead round their assignment
        self._uncertain: set[str] = set()
        self._several: set[str] = set()

    @contextmanager
    def region(self, loop: bool) -> Iterator[None]:
        """The body of a loop, with its condition, or of a branch."""
        around = self._path
        self._regions += 1
        self._path = (*around, -self._regions if loop else self._regions)
        yield
        self._path = around

    def slot(self, name: str, kind: Any, make: Callable[[], Any]) -> Any:
        """Where a value of this type that is assigned to a name goes; `make` makes a new slot."""
        held = self._slots.get(name)
        if held is None or held[0] != kind:
            if held is not None and self._path:
                if name in self._uncertain or not self._carried.get(name, set()).isdisjoint(self._path):
                    raise Unsupported(f"{name} is {held[0]} and {kind}")
                self._several.add(name)
            held = self._slots[name] = kind, make()
            self._assigned[name] = []
        self._assigned[name].append(self._path)
        return held[1]

    def place(self, name: str) -> Any:
        """The slot of a name, if it has one."""
        return self._slots[name][1] if name in self._slots else None

    def move(self, name: str, slot: Any) -> None:
        """Let another slot be that of a name."""
        self._slots[name] = self._slots[name][0], slot

    def read(self, name: str) -> tuple[Any, Any, bool]:
        """The type and the slot of a name where it is read, and whether every way there leads past its assignment."""
        if name not in self._slots:
            raise Unsupported(f"{name} is read before it is assigned")
        before = [p for p in self._assigned[name] if self._path[: len(p)] == p]
        if before:
            inside = self._path[max(map(len, before)) :]
            self._carried.setdefault(name, set()).update(n for n in inside if n < 0)
        elif name in self._several:
            raise Unsupported(f"{name} is of several types")
        else:
            self._uncertain.add(name)
        return *self._slots[name], bool(before)


def disjoint(stores: Iterable[tuple[str, tuple[int, ...]]]) -> set[str]:
    """The names none of whose assignments stands in a region inside that of another one.

    stores: each assigned name with its region, as a path of numbers. Where such a name is read in a region in which it
    has been assigned, or inside that, it has the value of the last assignment in the text.
    """
    regions: dict[str, set[tuple[int, ...]]] = {}
    for name, path in stores:
        regions.setdefault(name, set()).add(path)
    return {
        name
        for name, paths in regions.items()
        if len(paths) == 1 or not any(path[:k] in paths for path in paths for k in range(len(path)))
    }
