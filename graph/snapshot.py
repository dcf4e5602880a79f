"""State around a call: what looking at a function in both modes, or timing it, must leave as it was."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.storage import writes
from .given import Watch


class Snapshot:
    """What the call of a traced path may change: values, gradients, generators; and how to put it back."""

    def __init__(self, path: Any):
        trace = path.recorded
        self.tensors = list(
            {id(t): t for t in [*path.tensors, *(t for t, _ in trace.lifted.values())]}.values()
        )
        self.values = [np.array(t._array()) for t in self.tensors]
        self.grads = [
            (t, t._grad, None if t._grad is None else np.array(t._grad._array())) for t in self.tensors
        ]
        self.asking = [(t, t._requires_grad) for t in self.tensors]
        self.recorder = path.recorder
        self.given = Watch(path.given)
        self.generators = [(g, g.get_state()) for g, _ in trace.drawn.values()]

    def restore(self) -> None:
        """Put everything back as it was."""
        for t, value in zip(self.tensors, self.values):
            if not t._storage.fixed:
                t._array()[...] = value
            t._storage.version += 1
        writes.last = object()
        for t, g, saved in self.grads:
            t._grad = g
            if g is not None:
                g._array()[...] = saved
        for t, asks in self.asking:
            if t._node is None:
                t._requires_grad = asks
        for generator, state in self.generators:
            generator.set_state(state)
        self.recorder.undo()
        self.given.restore()

    def state(self) -> dict[str, np.ndarray]:
        """Everything that can be compared after a call, by name."""
        found = {}
        for k, t in enumerate(self.tensors):
            found[f"tensor {k} ({t.type})"] = np.array(t._array())
            found[f"requires_grad of tensor {k} ({t.type})"] = np.array(t._requires_grad)
            if t._grad is not None:
                found[f"gradient of tensor {k} ({t.type})"] = np.array(t._grad._array())
        return found
