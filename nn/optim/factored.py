"""Adafactor and Muon: optimisers that see a parameter as a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from ...core import dispatch
from ...core.dispatch import apply, update
from ...core.errors import ArgumentError, ShapeError
from ...core.ops import update as U
from ...core.ops.creation import full
from ...core.ops.elementwise import add, assign, negative, square
from ...core.ops.linalg import matmul
from ...core.ops.reduction import mean, sum_
from ...core.ops.shape import transpose
from ...core.value import Tensor
from .optimizer import Clock, Optimizer, ParamGroup, Plan, Row, numbers_of


class Adafactor(Optimizer):
    """Adam's denominator from the means of rows and columns of d**2: two vectors of state for a matrix.

    Steps are as long as the parameter is large (at least the second of eps), times min(lr, 1/sqrt(t)), and at most
    about d times that; the mean of squares takes `t**beta2_decay` of a new one. Along the last two axes; parameters of
    one axis have the mean of each element. eps: the least root of a mean square (None: the dtype's eps), the least size
    of a parameter. Source: Shazeer and Stern, 2018. Example: `dg.optim.Adafactor(model.parameters(), lr=1e-2)`.
    """

    numbers = ("lr", "d", "weight_decay")
    several: ClassVar[dict[str, tuple[str, ...]]] = {"eps": ("eps1", "eps2")}

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *,
        maximize: bool = False,
    ):  # fmt: skip
        defaults = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "maximize": maximize})

    @classmethod
    def setting(cls, group: ParamGroup, key: str, value: Any) -> Any:
        if key == "eps":
            first, *rest = tuple(value) if hasattr(value, "__iter__") else (value,)
            known = numbers_of("Adafactor", key, (0.0 if first is None else first, *rest), 2)
            if not all(v >= 0 for v in known):
                raise ArgumentError("Adafactor", f"eps={value} has a negative number", "use (None, 1e-3)")
            value = None if first is None else known[0], known[1]
        elif key == "beta2_decay":
            (value,) = numbers_of("Adafactor", key, value, 1)
            if not value <= 0:
                raise ArgumentError("Adafactor", f"beta2_decay={value} is above 0", "use such as -0.8")
        elif key == "d" and not (numbers_of("Adafactor", key, value, 1)[0] >= 1):
            raise ArgumentError("Adafactor", f"d={value} is below 1", "use a number from 1")
        return super().setting(group, key, value)

    def counts_steps(self, group: ParamGroup) -> bool:
        return True

    def names_of(self, group: ParamGroup, p: Tensor) -> tuple[str, ...]:
        return ("variance",) if p.ndim < 2 else ("row_var", "col_var")

    def tensor(self, group: ParamGroup, name: str, p: Tensor) -> Tensor:
        shape = p.shape
        if name != "variance":
            shape = (*shape[:-1], 1) if name == "row_var" else (*shape[:-2], 1, shape[-1])
        return full(shape, 0.0, p.dtype, p.device)  # type: ignore[no-any-return]

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        return (group["maximize"],)

    def _update(self, executor: Any, plan: Plan, clock: Clock, found: list[tuple[Row, Any]]) -> None:
        group, number = plan.group, executor.number
        lr, clip, weight_decay = (number(group, name) for name in ("lr", "d", "weight_decay"))
        eps1, eps2 = number(group.numbers, "eps1"), number(group.numbers, "eps2")
        update(add, (clock.step,), (clock.step, 1.0), ())
        rest, longest = apply(U.adafactor_scale, (clock.step, lr, number(group, "beta2_decay")), ())
        with dispatch.set_grad(False):
            for (p, *state), grad in found:
                d = negative(grad) if plan.attrs[0] else grad
                squares = square(d)
                if p.ndim < 2:
                    (v,) = state
                    update(U.adafactor_mean, (v,), (v, squares, rest), ())
                    u = apply(U.adafactor_vector_direction, (d, v, eps1), ())
                else:
                    rows, columns = state
                    update(U.adafactor_mean, (rows,), (rows, mean(squares, axis=-1, keepdims=True), rest), ())
                    update(
                        U.adafactor_mean,
                        (columns,),
                        (columns, mean(squares, axis=-2, keepdims=True), rest),
                        (),
                    )
                    top = mean(rows, axis=-2, keepdims=True)
                    u = apply(U.adafactor_direction, (d, rows, columns, top, eps1), ())
                sizes = mean(square(p)), mean(square(u))
                update(U.adafactor_update, (p,), (p, u, *sizes, longest, lr, eps2, clip, weight_decay), ())


class Muon(Optimizer):
    """Steps of momentum whose singular values are brought to about 1 by Newton-Schulz steps; for matrices.

    `x = a x + (b A + c A A) x`, `A = x x.T`, ns_steps times, from the direction over its norm (at least eps). lr is
    multiplied by `sqrt(max(1, rows / columns))`, with adjust_lr_fn="match_rms_adamw" by `0.2 sqrt(max(rows, columns))`.
    Give embeddings, biases and the last layer to another optimiser. Raises: ShapeError for what is no matrix.
    Numerics: in the parameter's dtype (PyTorch's is bfloat16). Source: Jordan et al., 2024.
    Example: `dg.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.02)`.
    """

    numbers = ("lr", "weight_decay", "momentum", "eps")
    flags = ("nesterov",)
    choices = ("ns_steps", "adjust_lr_fn")
    several: ClassVar[dict[str, tuple[str, ...]]] = {"ns_coefficients": ("ns_a", "ns_b", "ns_c")}

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ):  # fmt: skip
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "eps": eps,
        }
        more = {"ns_coefficients": ns_coefficients, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, {**defaults, **more})

    @classmethod
    def setting(cls, group: ParamGroup, key: str, value: Any) -> Any:
        if key == "ns_coefficients":
            value = numbers_of("Muon", key, value, 3)
        elif key == "ns_steps" and not 0 <= value < 100:
            raise ArgumentError("Muon", f"ns_steps={value} is not from 0 to 99", "use 5")
        elif key == "adjust_lr_fn" and value not in _RATIOS:
            raise ArgumentError("Muon", f"adjust_lr_fn={value!r}", 'use "original" or "match_rms_adamw"')
        return super().setting(group, key, value)

    def _check_group(self, group: ParamGroup) -> None:
        for p in group["params"]:
            if p.ndim != 2:
                raise ShapeError("Muon", f"optimises matrices, got {p.type}", "give it to dg.optim.AdamW")

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        return group["nesterov"], group["ns_steps"], group["adjust_lr_fn"]

    def _update(self, executor: Any, plan: Plan, clock: Clock, found: list[tuple[Row, Any]]) -> None:
        group, number = plan.group, executor.number
        nesterov, steps, kind = plan.attrs
        lr, weight_decay, momentum, eps = (number(group, name) for name in self.numbers)
        a, b, c = (number(group.numbers, name) for name in self.several["ns_coefficients"])
        with dispatch.set_grad(False):
            for (p, m), grad in found:
                x, following = apply(U.muon_momentum, (m, grad, momentum), (nesterov,))
                update(assign, (m,), (following,), ())
                tall = p.shape[0] > p.shape[1]
                x = apply(U.muon_unit, (transpose(x) if tall else x, sum_(square(x)), eps), ())
                for _ in range(steps):
                    products = matmul(x, transpose(x))
                    products = apply(U.muon_mix, (products, matmul(products, products), b, c), ())
                    x = apply(U.muon_mix, (x, matmul(products, x), a, 1.0), ())
                u = transpose(x) if tall else x
                update(U.muon_update, (p,), (p, u, lr, weight_decay, _RATIOS[kind](*p.shape)), ())


def _of_rows(rows: int, columns: int) -> float:
    return math.sqrt(max(1.0, rows / columns))


_RATIOS: dict[str | None, Any] = {
    None: _of_rows, "original": _of_rows, "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}  # fmt: skip
