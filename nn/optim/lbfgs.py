"""L-BFGS: a quasi-Newton method for whole losses without noise, which calls the loss several times a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...core import dispatch
from ...core.attended import is_eager
from ...core.errors import ArgumentError, ArgumentTypeError, CheckpointError, TraceError
from ...core.kinds import Count
from ...core.op import PUBLIC
from ...core.ops.creation import zeros_like
from ...core.value import Tensor
from .optimizer import Optimizer, ParamGroup


def _cubic(
    x1: float, f1: float, g1: float, x2: float, f2: float, g2: float, low: float, high: float
) -> float:
    """The minimum within [low, high] of the cubic with these values and slopes; the middle where it has none."""
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if not square >= 0:
        return (low + high) / 2
    d2 = square**0.5
    if x1 <= x2:
        at = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    else:
        at = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    return min(max(at, low), high)


class LBFGS(Optimizer):
    """Limited-memory BFGS.

    params: one list of parameters; lr: the first step length tried; max_iter: iterations of a step; max_eval: calls of
    the closure in a step (1.25 times max_iter when None); tolerance_grad, tolerance_change: a step ends where no
    gradient element, or no change, is larger; history_size: pairs kept; line_search_fn: None (the length is lr) or
    "strong_wolfe". `step(closure)` needs a closure that clears gradients, computes the loss, calls `backward()` and
    returns the loss; it may be a graph function, `step` itself runs in Python. Raises: ArgumentError, TraceError
    in a graph function. Source: Nocedal and Wright, chapters 3 and 7.
    """

    numbers = ("lr", "tolerance_grad", "tolerance_change")
    flags = ()

    def __init__(
        self, params: Any, lr: float = 1.0, max_iter: int = 20, max_eval: Count | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ):  # fmt: skip
        if line_search_fn not in (None, "strong_wolfe"):
            raise ArgumentError("LBFGS", f"line_search_fn={line_search_fn!r}", 'use None or "strong_wolfe"')
        if max_iter < 1 or history_size < 1:
            raise ArgumentError("LBFGS", f"max_iter={max_iter}, history_size={history_size}", "use 1 or more")
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn,
        })  # fmt: skip
        if len(self.param_groups) != 1:
            raise ArgumentError("LBFGS", "takes one group of parameters", "pass one list")
        self._forget()

    def _forget(self) -> None:
        #: (change of the parameters, change of the gradient, 1 / their product) of the last iterations
        self._pairs: list[tuple[Tensor, Tensor, float]] = []
        self._direction: Any = None
        self._before: Any = None
        self._length = 1.0
        self._curve = 1.0
        self._iterations = 0

    def _gradient(self) -> Tensor:
        get = dispatch.state.executor.get_grad
        rows = [(get(p), p) for p in self._leaves]
        found: Tensor = PUBLIC["concat"]([(zeros_like(p) if g is None else g).reshape(-1) for g, p in rows])
        return found

    def _parameters(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._leaves]

    def _move(self, start: list[Tensor], length: float, direction: Tensor) -> None:
        at = 0
        for p, x in zip(self._leaves, start):
            p.copy_(x + direction[at : at + p.size].reshape(p.shape) * length)
            at += p.size

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to max_iter iterations. closure: computes the loss and its gradients anew. Returns: the first loss."""
        if closure is None:
            raise ArgumentTypeError(
                "LBFGS", "step needs a closure", "pass a function that gives the loss anew"
            )
        if not is_eager():
            fix = "call step outside, with a graph function as the closure"
            dispatch.outside("runs LBFGS.step, which calls the closure as often as values say", fix)
            raise TraceError("LBFGS", "step cannot run in a function that is mapped or part of a loop", fix)
        group, calls = self.param_groups[0], 0

        def evaluate() -> tuple[Any, float, Tensor]:
            nonlocal calls
            calls += 1
            with dispatch.set_grad(True):
                loss = closure()
            return loss, float(loss), self._gradient()

        with dispatch.set_grad(False):
            first, loss, g = evaluate()
            if float(g.abs().max()) <= group["tolerance_grad"]:
                return first
            for k in range(group["max_iter"]):
                d = self._next_direction(group, g)
                slope = float((g * d).sum())
                self._before = g
                if slope > -group["tolerance_change"]:
                    break
                length = (
                    min(1.0, 1.0 / float(g.abs().sum())) * group["lr"]
                    if self._iterations == 1
                    else group["lr"]
                )
                start, old = self._parameters(), loss
                if group["line_search_fn"] is not None:
                    length, loss, g = self._search(evaluate, start, d, length, loss, g, slope, group)
                    self._move(start, length, d)
                else:
                    self._move(start, length, d)
                    if k + 1 < group["max_iter"]:
                        _, loss, g = evaluate()
                self._length = length
                small = float((d * length).abs().max()) <= group["tolerance_change"]
                flat = float(g.abs().max()) <= group["tolerance_grad"]
                if calls >= group["max_eval"] or flat or small or abs(loss - old) < group["tolerance_change"]:
                    break
        return first

    def _next_direction(self, group: ParamGroup, g: Tensor) -> Tensor:
        """Minus the inverse Hessian, as the kept pairs have it, times the gradient."""
        self._iterations += 1
        if self._direction is None:
            self._direction = -g
            return -g
        y, s = g - self._before, self._direction * self._length
        product = float((y * s).sum())
        if product > 1e-10:
            self._pairs = [*self._pairs, (s, y, 1 / product)][-group["history_size"] :]
            self._curve = product / float((y * y).sum())
        q, shares = -g, []
        for s, y, weight in reversed(self._pairs):
            share = (s * q).sum() * weight
            q = q - y * share
            shares.append(share)
        r = q * self._curve
        for (s, y, weight), share in zip(self._pairs, reversed(shares)):
            r = r + s * (share - (y * r).sum() * weight)
        self._direction = r
        return r

    def _search(
        self, evaluate: Any, start: list[Tensor], d: Tensor, t: float, loss: float, g: Tensor, slope: float,
        group: ParamGroup,
    ) -> tuple[float, float, Tensor]:  # fmt: skip
        """A length with the strong Wolfe conditions (c1 = 1e-4, c2 = 0.9): a bracket, then cubic steps within it."""
        c1, c2, calls_left = 1e-4, 0.9, 25
        norm = float(d.abs().max())

        def at(t: float) -> tuple[float, float, Tensor, float]:
            self._move(start, t, d)
            _, f, g = evaluate()
            return t, f, g, float((g * d).sum())

        origin = last = (0.0, loss, g, slope)
        now = at(t)
        bracket: list[Any] = []
        steps = 0
        while steps < calls_left:
            if now[1] > loss + c1 * now[0] * slope or (steps > 1 and now[1] >= last[1]):
                bracket = [last, now]
                break
            if abs(now[3]) <= -c2 * slope:
                return now[0], now[1], now[2]
            if now[3] >= 0:
                bracket = [last, now]
                break
            least, most = now[0] + 0.01 * (now[0] - last[0]), now[0] * 10
            t = _cubic(last[0], last[1], last[3], now[0], now[1], now[3], least, most)
            last, now = now, at(t)
            steps += 1
        if not bracket:
            bracket = [origin, now]
        low, high = sorted(bracket, key=lambda p: p[1])
        stuck = False
        while steps < calls_left and abs(high[0] - low[0]) * norm >= group["tolerance_change"]:
            ends = sorted((low[0], high[0]))
            t = _cubic(low[0], low[1], low[3], high[0], high[1], high[3], *ends)
            margin = 0.1 * (ends[1] - ends[0])
            near = min(ends[1] - t, t - ends[0]) < margin
            if near and (stuck or t >= ends[1] or t <= ends[0]):
                t = ends[1] - margin if abs(t - ends[1]) < abs(t - ends[0]) else ends[0] + margin
                near = False
            stuck = near
            now = at(t)
            steps += 1
            if now[1] > loss + c1 * now[0] * slope or now[1] >= low[1]:
                low, high = sorted((low, now), key=lambda p: p[1])
            else:
                if abs(now[3]) <= -c2 * slope:
                    return now[0], now[1], now[2]
                high = low if now[3] * (high[0] - low[0]) >= 0 else high
                low = now
        return low[0], low[1], low[2]

    def state_dict(self) -> dict[str, Any]:
        """Settings, and what is kept of the last iterations."""
        kept = {
            "pairs": [list(p) for p in self._pairs], "direction": self._direction, "before": self._before,
            "length": self._length, "curve": self._curve, "iterations": self._iterations,
        }  # fmt: skip
        return {**super().state_dict(), "state": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        kept = state.get("state") if isinstance(state, Mapping) else None
        if not isinstance(kept, Mapping) or "pairs" not in kept:
            raise CheckpointError("LBFGS", "the state is another optimizer's", "pass what state_dict() gave")
        super().load_state_dict({**state, "state": {}})
        self._pairs = [(s, y, w) for s, y, w in kept["pairs"]]
        self._direction, self._before = kept["direction"], kept["before"]
        self._length, self._curve, self._iterations = kept["length"], kept["curve"], kept["iterations"]
