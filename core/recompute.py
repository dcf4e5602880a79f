"""`checkpoint`: forget what a function saved for its gradient, and compute it again when it is needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from . import dispatch, reach, tree, vjp
from .declared import GradRule
from .random import default_generator
from .tape_op import TapeOp
from .value import Tensor

_repetitions = itertools.count(1)


def checkpoint(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`fn(*args, **kwargs)`, keeping only its inputs for the gradient: less memory for more work.

    The backward pass runs fn once more, with the same random numbers, and goes back through it at once.
    Gradients reach the arguments and every tensor that fn finds by itself (the parameters of a module). fn may
    be a Module. Returns: what fn returns. Numerics: the same bits as without, when fn gives the same result
    for the same input. Source: Chen et al., 2016.
    Example: `y = dg.checkpoint(block, x)`.
    """
    if not dispatch.state.grad:
        return fn(*args, **kwargs)
    executor = dispatch.state.executor
    random_state = executor.random_state(default_generator)
    start = vjp.mark()
    result = fn(*args, **kwargs)
    outs = [executor.face(x) for x in tree.leaves(result) if isinstance(x, Tensor)]
    roots = [o for o in outs if o._requires_grad and o._node is not None and o._node.number > start]
    if not roots:
        return result
    frontier = reach.frontier(roots, start)
    types = [o.type for o in roots]
    given = [executor.face(x) for x in tree.leaves([args, kwargs]) if isinstance(x, Tensor)]
    saved = {f"its argument {k}": (x, x._get_version()) for k, x in enumerate(given, 1)}

    def rule(gs: tuple[Any, ...], *_: Any) -> tuple[Any, ...]:
        again = dispatch.state.grad
        outer = dispatch.state.executor
        after = outer.random_state(default_generator)
        outer.set_random_state(default_generator, random_state)
        begin = vjp.mark()
        outside, dispatch.state.again = dispatch.state.again, next(_repetitions)
        try:
            with dispatch.set_grad(True):
                made = fn(*args, **kwargs)
        finally:
            dispatch.state.again = outside
            outer.set_random_state(default_generator, after)
        faces = [outer.face(x) for x in tree.leaves(made) if isinstance(x, Tensor)]
        live = [o for o in faces if o._requires_grad and o._node is not None and o._node.number > begin]
        used = [(o, g) for o, g in zip(live, gs) if g is not None]
        ends, ways = [o for o, _ in used], [g for _, g in used]
        return tuple(vjp.walk(ends, ways, frontier, create_graph=again, cut=True, inner=True))

    op = TapeOp("checkpoint", (), GradRule(rule, ("gs", *saved)), partial=True)
    node = vjp.Node(op, (), tuple(frontier), op.joint, saved, tuple(types), roots[0]._node.where)
    for k, o in enumerate(roots):
        o._node, o._index = node, k
    return result
