"""Mixed precision: `autocast`, and losses scaled so that 16-bit gradients do not underflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core import dispatch
from ..core.autocast import autocast, is_autocast_enabled
from ..core.errors import ArgumentError, CheckpointError
from ..core.ops import elementwise as E
from ..core.ops.creation import full
from ..core.types import int64
from ..core.value import Tensor

__all__ = ["GradScaler", "autocast", "is_autocast_enabled"]


class GradScaler:
    """Multiplies the loss before `backward()`, divides gradients before the step, leaves it out where they overflow.

    init_scale: the factor at first; after growth_interval steps without an overflow it is multiplied by growth_factor,
    after an overflow by backoff_factor. enabled: False passes everything through. Scale and counter are tensors: a
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
        #: 1 where a gradient of the step was not finite
        self._found = full((), 0.0, device=device)
        self._unscaled: tuple[int, ...] = ()

    def scale(self, loss: Any) -> Any:
        """The loss times the scale (float32); of a list or tuple of losses, each."""
        if isinstance(loss, (list, tuple)):
            return type(loss)(self.scale(v) for v in loss)
        return loss.to("float32") * self._scale if self.enabled else loss

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimiser's parameters by the scale, once for each step."""
        if not self.enabled:
            return
        if id(optimizer) in self._unscaled:
            raise ArgumentError(
                "GradScaler", "unscale_ was called twice for one step", "call update() after step()"
            )
        self._unscaled = (*self._unscaled, id(optimizer))
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
            if bad is not None:
                self._found.copy_(E.maximum(self._found, bad.to("float32")))

    def step(self, optimizer: Any) -> Any:
        """The optimiser's step, unless a gradient is NaN or infinite; unscales first where that was not done."""
        if not self.enabled:
            return optimizer.step()
        if id(optimizer) not in self._unscaled:
            self.unscale_(optimizer)
        return optimizer.step() if self._found.item() == 0 else None

    def update(self) -> None:
        """Set the scale for the next step."""
        if not self.enabled:
            return
        with dispatch.set_grad(False):
            bad = self._found != 0
            good = E.where(bad, 0, self._good + 1)
            grows = good == self.growth_interval
            larger = E.where(grows, self._scale * self.growth_factor, self._scale)
            self._scale.copy_(E.where(bad, self._scale * self.backoff_factor, larger))
            self._good.copy_(E.where(grows, 0, good))
            self._found.zero_()
        self._unscaled = ()

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
