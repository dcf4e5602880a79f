"""RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam: steps by running measures of the gradient; Lion, Rprop, ASGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from ...core.dispatch import apply, update, update_rows
from ...core.errors import ArgumentError
from ...core.ops import update as U
from ...core.ops.elementwise import add, assign
from .optimizer import Clock, Optimizer, ParamGroup, Plan, Row, numbers_of


class _Rule(Optimizer):
    """An optimiser that is an update op, and a scale op for what is the same for all parameters of a group.

    op: over (parameter, gradient, state ..., scales ..., `given` ...); scale: over (step, `scaled` ...).
    """

    op: Any = None
    scale: Any = None
    given: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()

    def counts_steps(self, group: ParamGroup) -> bool:
        return self.scale is not None

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        return (group["maximize"],)

    def _chosen(self, group: ParamGroup) -> tuple[Any, tuple[str, ...]]:
        """The update op and the settings it takes."""
        return self.op, self.given

    def _scales(self, clock: Clock, numbers: tuple[Any, ...]) -> tuple[Any, ...]:
        made = apply(self.scale, (clock.step, *numbers), ())
        return made if isinstance(made, tuple) else (made,)

    def _update(self, executor: Any, plan: Plan, clock: Clock, found: list[tuple[Row, Any]]) -> None:
        group, number = plan.group, executor.number

        def numbers(names: tuple[str, ...]) -> tuple[Any, ...]:
            row = []
            for name in names:
                owner = group if name in group else group.numbers
                row.append(number(owner, name))
            return tuple(row)

        op, given = self._chosen(group)
        scales: tuple[Any, ...] = ()
        if clock.step is not None:
            update(add, (clock.step,), (clock.step, 1.0), ())
            scales = self._scales(clock, numbers(self.scaled))
        rest = numbers(given)
        update_rows(clock, op, found, (*scales, *rest), plan.attrs)


class RMSprop(_Rule):
    """Steps along the gradient, divided by the root of its running mean square.

    `v = alpha v + (1 - alpha) d**2`, `p = p - lr * d / (sqrt(v) + eps)`, `d = grad + weight_decay * p`. momentum:
    steps along `b = momentum * b + d / (sqrt(v) + eps)`; centered: the running variance in place of v.
    Source: Hinton, 2012. Example: `dg.optim.RMSprop(model.parameters(), lr=1e-2)`.
    """

    numbers = ("lr", "alpha", "eps", "weight_decay", "momentum")
    switches = ("momentum",)
    flags = ("maximize", "centered")
    given = ("lr", "alpha", "eps", "weight_decay")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**defaults, "centered": centered, "maximize": maximize})

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        if group["centered"]:
            return "square_avg", "grad_avg", "momentum_buffer"
        return ("square_avg", "momentum_buffer") if group["momentum"] else ("square_avg",)

    def _chosen(self, group: ParamGroup) -> tuple[Any, tuple[str, ...]]:
        if group["centered"]:
            return U.rmsprop_centered_update, (*self.given, "momentum")
        if group["momentum"]:
            return U.rmsprop_momentum_update, (*self.given, "momentum")
        return U.rmsprop_update, self.given


class Adagrad(_Rule):
    """Steps along the gradient, divided by the root of the sum of its squares so far.

    `p = p - lr / (1 + (t - 1) lr_decay) * d / (sqrt(sum) + eps)`; the sum starts at initial_accumulator_value.
    Source: Duchi et al., 2011. Example: `dg.optim.Adagrad(model.parameters(), lr=1e-2)`.
    """

    numbers = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
    op, scale = U.adagrad_update, U.adagrad_scale
    given, scaled = ("eps", "weight_decay"), ("lr", "lr_decay")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        start = {"initial_accumulator_value": initial_accumulator_value, "maximize": maximize}
        super().__init__(params, {**defaults, **start})

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return ("sum",)

    def start(self, group: ParamGroup, name: str) -> float:
        return float(group["initial_accumulator_value"])


class Adadelta(_Rule):
    """Steps as long as the steps before, relative to the gradients before.

    `step = sqrt(moved + eps) / sqrt(v + eps) * d`; v, moved: running means of d**2 and step**2, with rho.
    Source: Zeiler, 2012. Example: `dg.optim.Adadelta(model.parameters())`.
    """

    numbers = ("lr", "rho", "eps", "weight_decay")
    op, given = U.adadelta_update, ("lr", "rho", "eps", "weight_decay")

    def __init__(
        self, params: Iterable[Any], lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0.0, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return "square_avg", "acc_delta"


class Adamax(_Rule):
    """Adam with a running maximum of |d| in place of the root of the mean square.

    Settings as Adam's. Source: Kingma and Ba, 2014. Example: `dg.optim.Adamax(model.parameters())`.
    """

    numbers = ("lr", "eps", "weight_decay")
    op, scale = U.adamax_update, U.adamax_scale
    given, scaled = ("beta1", "beta2", "eps", "weight_decay"), ("lr", "beta1")

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return "exp_avg", "exp_inf"


class NAdam(_Rule):
    """Adam with Nesterov's momentum, whose weight grows with the steps by momentum_decay.

    decoupled_weight_decay: as AdamW. Other settings as Adam's. Source: Dozat, 2016.
    Example: `dg.optim.NAdam(model.parameters())`.
    """

    numbers = ("lr", "eps", "weight_decay", "momentum_decay")
    flags = ("maximize", "decoupled_weight_decay")
    op, scale = U.nadam_update, U.nadam_scale
    given = ("lr", "beta1", "beta2", "eps", "weight_decay")
    scaled = ("lr", "beta1", "beta2", "momentum_decay")

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        more = {"momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, {**defaults, **more, "maximize": maximize})

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        return {"step": 0.0, "mu_product": 1.0}

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        return group["decoupled_weight_decay"], group["maximize"]

    def _scales(self, clock: Clock, numbers: tuple[Any, ...]) -> tuple[Any, ...]:
        *scales, product = apply(self.scale, (clock.step, clock.product, *numbers), ())
        update(assign, (clock.product,), (product,), ())
        return tuple(scales)


class RAdam(_Rule):
    """Adam that steps along the plain momentum until the mean square is known well enough.

    decoupled_weight_decay: as AdamW. Other settings as Adam's. Source: Liu et al., 2019.
    Example: `dg.optim.RAdam(model.parameters())`.
    """

    numbers = ("lr", "eps", "weight_decay")
    flags = ("maximize", "decoupled_weight_decay")
    op, scale = U.radam_update, U.radam_scale
    given, scaled = ("lr", "beta1", "beta2", "eps", "weight_decay"), ("lr", "beta1", "beta2")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled_weight_decay: bool = False, *,
        maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params, {**defaults, "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize}
        )

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        return group["decoupled_weight_decay"], group["maximize"]


class Lion(_Rule):
    """Steps of equal length in every coordinate: the sign of a mean of gradient and momentum.

    `p = p (1 - lr * weight_decay) - lr * sign(beta1 m + (1 - beta1) d)`, `m = beta2 m + (1 - beta2) d`.
    Source: Chen et al., 2023. Example: `dg.optim.Lion(model.parameters(), lr=1e-4)`.
    """

    op, given = U.lion_update, ("lr", "beta1", "beta2", "weight_decay")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(
            params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        )

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return ("exp_avg",)


class Rprop(_Rule):
    """Steps against the sign of the gradient, each coordinate's of its own length; for whole batches.

    A length grows by the second of etas while the sign stays, shrinks by the first when it turns (then there is no
    step), and stays within step_sizes; the first is lr. Source: Riedmiller and Braun, 1993.
    Example: `dg.optim.Rprop(model.parameters(), lr=1e-2)`.
    """

    numbers = ("lr",)
    several: ClassVar[dict[str, tuple[str, ...]]] = {
        "etas": ("eta_minus", "eta_plus"), "step_sizes": ("step_least", "step_most"),
    }  # fmt: skip
    op, scale = U.rprop_update, U.rprop_first
    given, scaled = ("eta_minus", "eta_plus", "step_least", "step_most"), ("lr",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0), *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize})

    @classmethod
    def setting(cls, group: ParamGroup, key: str, value: Any) -> Any:
        if key in cls.several:
            low, high = value = numbers_of("Rprop", key, value, 2)
            if key == "etas" and not 0 < low < 1 < high:
                raise ArgumentError("Rprop", f"etas={value} do not lie around 1", "use such as (0.5, 1.2)")
            if key == "step_sizes" and not 0 <= low <= high:
                raise ArgumentError("Rprop", f"step_sizes={value} are no range", "use such as (1e-6, 50)")
        return super().setting(group, key, value)

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return "prev", "step_size"


class ASGD(_Rule):
    """Averaged stochastic gradient descent: plain steps that become shorter, and the mean of the parameters they meet.

    `p = p (1 - lambd eta) - eta d`, `eta = lr / (1 + lambd lr t)**alpha` after step t; the mean, `state[p]["ax"]`, is
    that of the steps after t0. Source: Polyak and Juditsky, 1992.
    Example: `dg.optim.ASGD(model.parameters(), lr=1e-2)`.
    """

    numbers = ("lr", "lambd", "alpha", "t0", "weight_decay")
    op, scale = U.asgd_update, U.asgd_scale
    given, scaled = ("lambd", "weight_decay"), ("lr", "lambd", "alpha", "t0")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
        weight_decay: float = 0.0, *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "maximize": maximize})

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        return {"step": 0.0, "eta": 0.0}

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return ("ax",)

    def _scales(self, clock: Clock, numbers: tuple[Any, ...]) -> tuple[Any, ...]:
        eta, mu, following = apply(self.scale, (clock.step, clock.product, *numbers), ())
        update(assign, (clock.product,), (following,), ())
        return eta, mu
