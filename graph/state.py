"""State that a function replaces: `self.h = f(self.h)`. It is found by its place at each call, like an argument."""

from __future__ import annotations

from typing import Any

from .guards import Guard
from .reads import Effect, Read, now_at


class State:
    """A place outside that holds a tensor when the call begins and another one when it ends."""

    def __init__(self, effect: Effect):
        self.kind, self.owner, self.key, self.name = effect.kind, effect.owner, effect.key, effect.name
        t = self.tensor = effect.before
        self.expected = t.__class__, t._layout, t._requires_grad, t.device

    def find(self) -> Any:
        """The tensor there now."""
        return now_at(self.kind, self.owner, self.key)

    def is_read_by(self, read: Read) -> bool:
        """Whether a recorded read is the one of this tensor."""
        return (
            read.kind == self.kind
            and read.owner is self.owner
            and read.key == self.key
            and read.value is self.tensor
        )

    def guard(self) -> Guard:
        """That a tensor of this layout is there, which needs a gradient or not as that one did."""
        find, (cls, layout, requires_grad, device) = self.find, self.expected

        def fits() -> bool:
            t = find()
            return (
                t.__class__ is cls and t._layout is layout and t._requires_grad is requires_grad
                and t.device == device and t._base is None
            )  # fmt: skip

        return Guard(
            35, "{0}()", (fits,), f"{self.name} holds a tensor {layout.type}, any", str(layout.type), find
        )
