"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...core.dispatch import apply, update, update_rows
from ...core.ops.elementwise import add
from ...core.ops.update import adam_max_update, adam_scale, adam_update
from .optimizer import Clock, Optimizer, ParamGroup, Plan, Row


class Adam(Optimizer):
    """Adam: steps along the running mean of the gradient, divided by the root of its running mean square.

    `d = grad + weight_decay * p`, `m = m + (1 - beta1) (d - m)`, `v = beta2 v + (1 - beta2) d**2`, then
    `p = p - lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps)`. t counts the steps of the parameter.
    params: parameters or groups; betas: two numbers in [0, 1); maximize: go up instead of down. Parameters
    without a gradient are left alone. Raises: ArgumentError for a setting outside its range.
    amsgrad: the largest v so far stands in the denominator (Reddi et al., 2018).
    Source: Kingma and Ba, 2014. Example: `dg.optim.Adam(model.parameters(), lr=1e-3)`.
    """

    numbers = ("lr", "eps", "weight_decay")
    flags = ("maximize", "amsgrad")
    _decoupled = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "amsgrad": amsgrad, "maximize": maximize})

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq") + (("max_exp_avg_sq",) if group["amsgrad"] else ())

    def counts_steps(self, group: ParamGroup) -> bool:
        return True

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        return self._decoupled, group["maximize"]

    def _update(self, executor: Any, plan: Plan, clock: Clock, found: list[tuple[Row, Any]]) -> None:
        group, attrs, step, number = plan.group, plan.attrs, clock.step, executor.number
        lr, beta1, beta2 = number(group, "lr"), number(group.numbers, "beta1"), number(group.numbers, "beta2")
        eps, weight_decay = number(group, "eps"), number(group, "weight_decay")
        update(add, (step,), (step, 1.0), ())
        size, scale = apply(adam_scale, (step, lr, beta1, beta2), ())
        op = adam_update if len(found[0][0]) == 3 else adam_max_update
        update_rows(clock, op, found, (size, scale, lr, beta1, beta2, eps, weight_decay), attrs)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: `p = p (1 - lr * weight_decay)` before each step.

    Settings as Adam's. Source: Loshchilov and Hutter, 2017.
    Example: `dg.optim.AdamW(model.parameters(), lr=1e-3)`.
    """

    _decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
