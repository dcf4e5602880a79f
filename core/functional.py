"""Gradients of functions: `grad`, `value_and_grad`, `vjp`. They work in both modes and nest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from . import dispatch
from . import vjp as _vjp
from .errors import ArgumentTypeError, AutogradError
from .value import Tensor


def _fresh(x: Any, name: str) -> Tensor:
    """A leaf with x's memory that requires a gradient, connected to x when x itself is on a tape."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(
            name, f"differentiates tensors, the argument is a {type(x).__name__}", "use dg.tensor(x)"
        )
    if not x.dtype.is_float:
        raise ArgumentTypeError(
            name, f"differentiates floats, the argument is {x.type}", "convert it to a float dtype"
        )
    face = dispatch.state.executor.face(x)
    if face._requires_grad:
        return face.clone()  # type: ignore[attr-defined,no-any-return]  # a node of its own, so that the target is unique
    out = face._alias()
    out._requires_grad = True
    return out


def _differentiate(
    fn: Callable[..., Any],
    argnums: tuple[int, ...],
    args: tuple[Any, ...],
    kwargs: Any,
    name: str,
    has_aux: bool,
) -> tuple[Any, list[Any]]:
    outer = dispatch.state.grad
    row = list(args)
    for k in argnums:
        row[k] = _fresh(args[k], name)
    targets = [row[k] for k in argnums]
    with dispatch.set_grad(True):
        result = fn(*row, **kwargs)
        out = result[0] if has_aux else result
        if not isinstance(out, Tensor) or out.size != 1:
            what = out.type if isinstance(out, Tensor) else type(out).__name__
            raise AutogradError(
                name, f"needs a function that returns one number, it returned {what}", "reduce it: .sum()"
            )
        from .ops.creation import ones, zeros_like

        face = dispatch.state.executor.face(out)
        nested = outer and any(
            isinstance(a, Tensor) and dispatch.state.executor.face(a)._requires_grad for a in args
        )
        if not face._requires_grad:
            return result, [zeros_like(t) for t in targets]
        found = _vjp.walk(
            [face],
            [ones(out.shape, dtype=out.dtype, device=out.device)],
            targets,
            create_graph=nested or _inside(),
        )
        grads = [zeros_like(t) if g is None else g for t, g in zip(targets, found)]
    return result, grads


_depth = [0]


def _inside() -> bool:
    """Whether another of these functions is at work outside: then the backward pass is recorded too."""
    return _depth[0] > 1


def _argnums(argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def value_and_grad(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `(fn(...), gradient)`.

    fn returns one number (with has_aux, a tuple whose first element it is). argnums: the position(s) to
    differentiate; a tuple gives a tuple of gradients. Raises: AutogradError when fn returns no single number.
    """
    numbers = _argnums(argnums)

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        _depth[0] += 1
        try:
            result, grads = _differentiate(fn, numbers, args, kwargs, "value_and_grad", has_aux)
        finally:
            _depth[0] -= 1
        if _depth[0] == 0 and not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            result = _detached(result)
        return result, grads[0] if isinstance(argnums, int) else tuple(grads)

    return run


def _detached(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_detached(r) for r in result)
    return result.detach() if isinstance(result, Tensor) else result  # type: ignore[attr-defined]


def grad(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of `fn`; see `value_and_grad`. Nests: `dg.grad(dg.grad(f))`.

    Example: `dg.grad(lambda x: (x * x).sum())(dg.tensor([3.0]))` is `[6.0]`.
    """
    both = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return run


def vjp(fn: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Tensor], tuple[Tensor, ...]]]:
    """`(fn(*args), pull)`: pull(g) is the product of g with the Jacobian, one tensor for each argument."""
    row = [_fresh(a, "vjp") for a in args]
    with dispatch.set_grad(True):
        out = fn(*row)

    def pull(g: Tensor) -> tuple[Tensor, ...]:
        from .ops.creation import zeros_like

        found = _vjp.walk([dispatch.state.executor.face(out)], [g], row, retain_graph=True)
        return tuple(zeros_like(t) if f is None else f for t, f in zip(row, found))

    return out.detach(), pull
