"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...core.dispatch import apply, update, update_rows
from ...core.errors import ArgumentError
from ...core.ops.elementwise import add
from ...core.ops.update import sgd_momentum_update, sgd_share, sgd_update
from .optimizer import Clock, Optimizer, ParamGroup, Plan, Row


class SGD(Optimizer):
    """Stochastic gradient descent.

    `d = grad + weight_decay * p`, `m = momentum * m + (1 - dampening) * d` (all of d the first time), then
    `p = p - lr * m`, or `lr * (d + momentum * m)` with nesterov; without momentum `p = p - lr * d`.
    params: parameters or groups; maximize: go up instead of down. Parameters without a gradient are left
    alone. Raises: ArgumentError for a negative lr, momentum or weight_decay, or nesterov without momentum.
    Source: Sutskever et al., 2013. Example: `dg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)`.
    """

    numbers = ("lr", "momentum", "dampening", "weight_decay")
    switches = ("momentum", "dampening")
    flags = ("nesterov", "maximize")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "nesterov": nesterov, "maximize": maximize})

    def _check_group(self, group: ParamGroup) -> None:
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ArgumentError(
                "SGD", "nesterov needs momentum and no dampening", "set momentum=0.9, dampening=0"
            )

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def counts_steps(self, group: ParamGroup) -> bool:
        return bool(group["momentum"] and group["dampening"])

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        return (group["nesterov"], group["maximize"]) if group["momentum"] else (group["maximize"],)

    def _update(self, executor: Any, plan: Plan, clock: Clock, found: list[tuple[Row, Any]]) -> None:
        group, attrs, step, number = plan.group, plan.attrs, clock.step, executor.number
        lr, weight_decay = number(group, "lr"), number(group, "weight_decay")
        if len(attrs) == 1:
            update_rows(clock, sgd_update, found, (lr, weight_decay), attrs)
            return
        momentum, share = number(group, "momentum"), 1.0
        if step is not None:
            share = apply(sgd_share, (step, number(group, "dampening")), ())
            update(add, (step,), (step, 1.0), ())
        update_rows(clock, sgd_momentum_update, found, (lr, weight_decay, momentum, share), attrs)
