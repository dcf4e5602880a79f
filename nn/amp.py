"""Mixed precision: `autocast`, and losses scaled so that 16-bit gradients do not underflow."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ..core import dispatch
from ..core.autocast import autocast, is_autocast_enabled
from ..core.errors import ArgumentError, CheckpointError
from ..core.ops import elementwise as E
from ..core.ops.creation import full
from ..core.spoken import spell as _spell
from ..core.spoken import spell_methods as _spell_methods
from ..core.types import int64
from ..core.value import Tensor

__all__ = ["GradScaler", "autocast", "is_autocast_enabled"]


class GradScaler:
    """Multiplies the loss before `backward()`, divides gradients before the step, leaves it out where they overflow.

    init_scale: the factor at first; after growth_interval steps without an overflow it is multiplied by growth_factor,
    after an overflow by backoff_factor. enabled: False passes everything through. Each optimiser has an
    overflow of its own, as in PyTorch; one of them is enough for a smaller scale. Scale and counter are tensors: a
    graph function holds them, is cut where the overflow is asked for, and is not traced again when the scale changes.
    Example: `scaler.scale(loss).backward(); scaler.step(opt); scaler.update()`; with clipping, `scaler.unscale_(opt)`
    before it.
    """

    def __init__(
        self, device: str = "cpu", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ):  # fmt: skip
        if growth_factor <= 1 or not 0 < backoff_factor < 1 or growth_interval < 1 or init_scale <= 0:
            raise ArgumentError(
                "GradScaler", "a factor or an interval is outside its range",
                "growth_factor above 1, backoff_factor in (0, 1), growth_interval from 1, init_scale above 0",
            )  # fmt: skip
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval, self.enabled = growth_interval, enabled
        self._scale = full((), float(init_scale), device=device)
        self._good = full((), 0, dtype=int64, device=device)
        #: id of an optimiser -> how far its step is, and 1 if a gradient was not finite; until update()
        self._steps: dict[int, tuple[str, Tensor | None]] = {}

    def scale(self, loss: Any) -> Any:
        """The loss times the scale (float32); of a list or tuple of losses, each."""
        if isinstance(loss, (list, tuple)):
            return type(loss)(self.scale(v) for v in loss)
        return loss.to("float32") * self._scale if self.enabled else loss

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimiser's parameters by the scale, once for each step."""
        if not self.enabled:
            return
        stage, _ = self._steps.get(id(optimizer), ("", None))
        if stage:
            what = "twice for one step" if stage == "unscaled" else "after step()"
            raise ArgumentError(
                "GradScaler",
                f"unscale_ was called {what} of {type(optimizer).__name__}",
                "call update() after step()",
            )
        executor = dispatch.state.executor
        with dispatch.set_grad(False):
            factor, bad = 1.0 / self._scale, None
            for group in optimizer.param_groups:
                for p in group["params"]:
                    g = executor.get_grad(p)
                    if g is None:
                        continue
                    g = (g.to("float32") * factor).to(g.dtype)
                    executor.set_grad(p, g)
                    here = E.logical_not(E.isfinite(g).all())
                    bad = here if bad is None else E.logical_or(bad, here)
            self._note(optimizer, "unscaled", None if bad is None else bad.to("float32"))

    def _note(self, optimizer: Any, stage: str, bad: Tensor | None) -> None:
        """Say how far a step is: in another dict, since one that is changed would have to be the same at every call."""
        self._steps = {**self._steps, id(optimizer): (stage, bad)}

    def step(self, optimizer: Any) -> Any:
        """The optimiser's step, unless one of its gradients is NaN or infinite (of another optimiser: it steps);
        unscales first where that was not done. Raises: ArgumentError for a second step before `update()`."""
        if not self.enabled:
            return optimizer.step()
        stage, _ = self._steps.get(id(optimizer), ("", None))
        if stage == "stepped":
            raise ArgumentError(
                "GradScaler",
                f"step was called twice for {type(optimizer).__name__}",
                "call update() after step()",
            )
        if not stage:
            self.unscale_(optimizer)
        _, bad = self._steps[id(optimizer)]
        self._note(optimizer, "stepped", bad)
        return optimizer.step() if bad is None or bad.item() == 0 else None

    def update(self) -> None:
        """Set the scale for the next step: smaller if a gradient of any optimiser was not finite.

        Where no gradient was looked at since the last call nothing changes.
        """
        flags = [bad.to(self._scale.device) for _, bad in self._steps.values() if bad is not None]
        self._steps = {}
        if not flags:
            return
        with dispatch.set_grad(False):
            bad = functools.reduce(E.maximum, flags) != 0
            good = E.where(bad, 0, self._good + 1)
            grows = good == self.growth_interval
            larger = E.where(grows, self._scale * self.growth_factor, self._scale)
            self._scale.copy_(E.where(bad, self._scale * self.backoff_factor, larger))
            self._good.copy_(E.where(grows, 0, good))

    def get_scale(self) -> float:
        """The scale as a number."""
        return float(self._scale.item()) if self.enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self.enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale and counter, as tensors."""
        return {"scale": self._scale.detach(), "growth_tracker": self._good.detach()} if self.enabled else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state. Raises: CheckpointError when it is none."""
        if set(state) != set(self.state_dict()):
            raise CheckpointError(
                "GradScaler", f"the state has {sorted(state)}", "pass what state_dict() gave"
            )
        for mine, name in ((self._scale, "scale"), (self._good, "growth_tracker")):
            if name in state:
                value: Tensor = state[name]
                mine.copy_(value)


_spell(globals(), __all__, strict=True)
_spell_methods(GradScaler, "load_state_dict")
