"""Random numbers that are not ours, however they are drawn: states of generators before and after a trace.

A call of `random.random()` is known before it is made (`impure.py`); one that C code makes or finds (`methodcaller`, an
element of a dict, a library that draws) may not be. It leaves another state in its generator.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

#: what has a state of random numbers
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)


class Draws:
    """Generators that a trace may draw from, as they were when it came to them. `changed()`: one that it has drawn
    from; `undo()` puts them back."""

    def __init__(self) -> None:
        self._states: list[tuple[str, Callable[[], Any], Callable[[Any], Any], Any]] = []
        self._drawn = self._states[:0]

    def begin(self) -> None:
        """Keep what is drawn from by no more than a module's name."""
        self._keep("random", random.getstate, random.setstate)
        self._keep("np.random", lambda: np.random.get_state(legacy=False), np.random.set_state)
        torch: Any = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "get_rng_state"):
            self._keep("torch", torch.get_rng_state, torch.set_rng_state)

    def meet(self, x: Any) -> None:
        """The code got hold of a generator from outside."""
        name = type(x).__name__
        if isinstance(x, random.Random):
            if not isinstance(x, random.SystemRandom):  # which has no state
                self._keep(name, lambda: random.Random.getstate(x), lambda s: random.Random.setstate(x, s))
        elif isinstance(x, np.random.RandomState):
            self._keep(name, lambda: x.get_state(legacy=False), x.set_state)
        else:
            bits = getattr(x, "bit_generator", x)
            self._keep(name, lambda: bits.state, lambda s: setattr(bits, "state", s))

    def _keep(self, name: str, get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        self._states.append((name, get, put, get()))

    def changed(self) -> str | None:
        """The name of a generator that has another state now; None where none has."""
        self._drawn = [row for row in self._states if not _same(row[1](), row[3])]
        return self._drawn[0][0] if self._drawn else None

    def undo(self) -> None:
        """Put back the states of those that `changed` has found."""
        for _, _, put, state in self._drawn:
            put(state)
        self._drawn = []


def _same(a: Any, b: Any) -> bool:
    """Whether two states are equal."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(x, b[k]) for k, x in a.items())
    if hasattr(a, "shape"):
        return bool((a == b).all())
    return bool(a == b)
