"""Control flow under `vmap`: the loop runs once, over tensors that have the batch axis inside.

Carries and results are batched throughout. A `cond` with a predicate for each example runs both branches; a
`while_loop` goes on until no example wants another turn, and those that are done keep their carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import dispatch
from .region import Branch, Repeat, Scan
from .types import TensorType


def _grown(b: Any, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
    return tuple(t._replace(shape=(b.size, *t.shape)) for t in types)


def _inner(b: Any, xs: Sequence[Any]) -> tuple[tuple[Any, ...], list[bool]]:
    """The inner tensors of batched ones, others as they are; and which is which."""
    owned = [b.owns(x) for x in xs]
    return tuple(x._inner if own else b.outer.face(x) for x, own in zip(xs, owned)), owned


def _wholes(b: Any, xs: Sequence[Any]) -> tuple[Any, ...]:
    with dispatch.executing(b.outer):
        return tuple(map(b.whole, xs))


class _Inside:
    """A batcher over whatever executor runs a body: bodies get inner tensors and give them back."""

    def __init__(self, b: Any):
        self.b = b

    def run(self, body: Callable[..., Any], groups: Sequence[tuple[Sequence[Any], Sequence[bool]]]) -> Any:
        """The batcher used, and the results of the body on (tensors, batched or not), still batched."""
        from .batch import _keeps

        again = type(self.b)(dispatch.state.executor, self.b.size)
        rows = [tuple(again.wrap(x) if own else x for x, own in zip(xs, owned)) for xs, owned in groups]
        with dispatch.executing(again, _keeps):
            return again, body(*rows)


def branch(b: Any, c: Branch) -> tuple[Any, ...]:
    if b.owns(c.pred):
        from .ops.elementwise import where

        a, d = (body(c.consts, c.operands) for body in c.bodies)
        return tuple(where(c.pred, x, y) for x, y in zip(a, d))
    consts, of_consts = _inner(b, c.consts)
    operands, of_operands = _inner(b, c.operands)
    inside = _Inside(b)

    def flat(body: Callable[..., Any]) -> Any:
        def run(consts: Any, operands: Any) -> Any:
            again, made = inside.run(body, [(consts, of_consts), (operands, of_operands)])
            return _wholes(again, made)

        return run

    bodies = (flat(c.bodies[0]), flat(c.bodies[1]))
    with dispatch.executing(b.outer):
        made = b.outer.branch(c._replace(
            bodies=bodies, pred=b.outer.face(c.pred), consts=consts, operands=operands, types=_grown(b, c.types)
        ))  # fmt: skip
    return tuple(map(b.wrap, made))


def repeat(b: Any, c: Repeat) -> tuple[Any, ...]:
    from .ops.elementwise import where

    consts, owned = _inner(b, c.consts)
    carry = _wholes(b, c.carry)
    all_of_it = [True] * len(carry)
    inside = _Inside(b)

    def test(consts: Any, carry: Any) -> Any:
        again, (more,) = inside.run(c.test, [(consts, owned), (carry, all_of_it)])
        return (_wholes(again, [more])[0].any(),)

    def body(consts: Any, carry: Any) -> Any:
        def both(*args: Any) -> Any:
            (more,) = c.test(*args)
            return tuple(where(more, new, old) for new, old in zip(c.body(*args), args[1]))

        again, made = inside.run(both, [(consts, owned), (carry, all_of_it)])
        return _wholes(again, made)

    with dispatch.executing(b.outer):
        made = b.outer.repeat(
            c._replace(test=test, body=body, consts=consts, carry=carry, types=_grown(b, c.types))
        )
    return tuple(map(b.wrap, made))


def scan(b: Any, c: Scan) -> tuple[Any, ...]:
    from .ops.shape import moveaxis

    k = len(c.carry)
    consts, of_consts = _inner(b, c.consts)
    carry = _wholes(b, c.carry)
    xs, of_xs = _inner(b, c.xs)
    inside = _Inside(b)

    def body(consts: Any, args: Any) -> Any:
        def run(consts: Any, carry: Any, slices: Any) -> Any:
            return c.body(consts, (*carry, *slices))

        again, made = inside.run(run, [(consts, of_consts), (args[:k], [True] * k), (args[k:], of_xs)])
        return _wholes(again, made)

    with dispatch.executing(b.outer):
        # The walked axis comes before the batch.
        xs = tuple(moveaxis(x, 1, 0) if own else x for x, own in zip(xs, of_xs))
        made = b.outer.scan(
            c._replace(body=body, consts=consts, carry=carry, xs=xs, types=_grown(b, c.types))
        )
        made = (*made[:k], *(moveaxis(y, 0, 1) for y in made[k:]))
    return tuple(map(b.wrap, made))
