"""`custom_gradient`: a function with a gradient of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from . import dispatch, tree
from .declared import GradRule
from .errors import AutogradError, ShapeError
from .tape_op import TapeOp
from .value import Tensor


def custom_gradient(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator for a function that returns `(output, pull)`, where pull is its gradient.

    fn takes tensors (and plain values), computes without recording, and returns its output (a tensor or a tree of
    them, other values among them) and a function: `pull(*cotangents)`, one for each output tensor, gives the
    gradient of each tensor argument in order (a tuple; a single tensor for a single argument; None for no gradient).
    Written in ops, pull can be differentiated again. Works in both modes; tensors that fn finds by itself get no
    gradient.
    Raises: AutogradError for a pull that is missing or returns another number of gradients, ShapeError for a
    gradient of another shape.
    Example:
        @dg.custom_gradient
        def sign_through(x):
            return dg.sign(x), lambda g: g
    """

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        face = dispatch.state.executor.face
        everything = [*args, *kwargs.values()]
        inputs = [face(x) for x in tree.leaves(everything) if isinstance(x, Tensor)]
        with dispatch.set_grad(False):
            made = fn(*args, **kwargs)
        if not isinstance(made, tuple) or len(made) != 2 or not callable(made[1]):
            raise AutogradError(
                fn.__name__, "has a custom gradient but did not return (output, pull)",
                "return the output and a function from its gradient to the arguments' gradients",
            )  # fmt: skip
        out, pull = made
        return with_gradient(fn.__name__, inputs, out, pull) if dispatch.state.grad else out

    return run


def with_gradient(
    name: str, inputs: list[Any], out: Any, pull: Callable[..., Any], partial: bool = False
) -> Any:
    """`out`, a tree of tensors and other values, with `pull` as the gradient of its tensors to inputs.

    partial: pull takes None for the gradient of a tensor that nothing used, else zeros.
    """
    face = dispatch.state.executor.face
    outs = [face(o) for o in tree.leaves(out) if isinstance(o, Tensor)]
    # An argument handed back as it is must not get this node: it has a history of its own.
    fresh = tuple([o.clone() if any(o is x for x in inputs) else o for o in outs])
    made = iter(dispatch.state.executor.attach(_op(name, inputs, pull, partial), tuple(inputs), (), fresh))
    return tree.refill(out, iter([next(made) if isinstance(o, Tensor) else o for o in tree.leaves(out)]))


def _op(name: str, inputs: list[Any], pull: Callable[..., Any], partial: bool) -> TapeOp:
    types = [x.type for x in inputs]

    def rule(gs: tuple[Any, ...]) -> tuple[Any, ...]:
        found = pull(*gs)
        grads = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if len(grads) != len(types):
            raise AutogradError(
                name, f"pull returned {len(grads)} gradients for {len(types)} tensor arguments",
                "return one for each, None where there is none",
            )  # fmt: skip
        for g, t in zip(grads, types):
            if g is not None and (not isinstance(g, Tensor) or g.shape != t.shape):
                what = g.type if isinstance(g, Tensor) else type(g).__name__
                raise ShapeError(name, f"pull returned {what} for an argument {t}", "return equal shapes")
        return grads

    return TapeOp(name, tuple(f"input{k}" for k in range(len(inputs))), GradRule(rule, ("gs",)), partial)
