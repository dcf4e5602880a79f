"""The counter-based generator: a seed and an offset; every random op takes the next offsets in program order."""

from __future__ import annotations

from typing import Any

from . import dispatch
from .errors import ArgumentError
from .kinds import is_index
from .spoken import spell_methods
from .strangers import brief


def wrap_int64(n: int) -> int:
    """The int64 with the last 64 bits of n: seeds and offsets are operands of kernels, and go round."""
    return (n + 2**63) % 2**64 - 2**63


class Generator:
    """Seed and offset of Philox4x32-10. The same seed means the same numbers in both modes, on every device."""

    def __init__(self, seed: int = 0):
        self._seed = int(seed) & (2**63 - 1)
        self._offset = 0
        executor: Any = getattr(dispatch.state, "executor", None)
        if hasattr(executor, "leave"):  # one that is made in a trace starts anew at each call
            executor.seed(self, self._seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed` (63 bits are used); in graph mode at every call."""
        dispatch.state.executor.seed(self, int(seed) & (2**63 - 1))
        return self

    def get_state(self) -> tuple[int, int]:
        """Seed and offset, for a checkpoint."""
        dispatch.outside("reads the state of a random generator", "do it outside")
        return self._seed, self._offset % 2**64

    def set_state(self, state: tuple[int, int]) -> None:
        """Go on from a state that `get_state` gave."""
        dispatch.outside("sets the state of a random generator", "do it outside, or use manual_seed")
        pair = isinstance(state, (tuple, list)) and len(state) == 2 and all(map(is_index, state))
        if not pair or not (-(2**63) <= state[0] < 2**63 and 0 <= state[1] < 2**64):
            raise ArgumentError(
                "set_state", f"{brief(state)} is no state of a generator", "pass what get_state gave"
            )
        self._start(*state)

    def _start(self, seed: int, offset: int) -> None:
        """Draw from these 64 bits of seed and offset on."""
        self._seed, self._offset = wrap_int64(seed), wrap_int64(offset)

    def _advance(self, count: int) -> int:
        """The offset of the next number; `count` are taken."""
        start = self._offset
        self._offset = wrap_int64(start + count)
        return start


spell_methods(Generator, "manual_seed")
default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the generator that `dg.rand`, dropout and initialisers use. Returns it."""
    return default_generator.manual_seed(seed)
