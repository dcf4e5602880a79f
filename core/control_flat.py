"""`cond`, `while_loop` and `scan` of flat functions of tensors, and their gradients.

Functions get what they read from outside as explicit arguments; the executor runs them (Python in eager mode, a
region of the graph in a trace). Gradients are written in the same functions: the way back through a `scan` is a
`scan` in the other direction that runs the body again. So all of it nests, in each other and with grad, vjp, jvp and
vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import dispatch, functional
from .declared import GradRule
from .errors import ShapeError, TraceError
from .region import Body, Branch, Repeat, Scan, Stream
from .scout import Found, scout
from .swap import Swap
from .tape_op import TapeOp
from .types import TensorType, int64

Flat = Callable[..., tuple[Any, ...]]


# ---------------------------------------------------------------- flat functions with explicit closures


def _closed(fn: Flat, closures: tuple[Any, ...]) -> Body:
    """fn with the tensors that it reads from outside as arguments."""

    def run(consts: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, ...]:
        if all(a is b for a, b in zip(closures, consts)):
            return fn(*args)
        swapped = Swap(dispatch.state.executor, list(zip(closures, consts)))
        with dispatch.executing(swapped, dispatch.state.keeps):  # type: ignore[arg-type]
            return tuple(map(swapped.swap, fn(*args)))

    return run


def _typed(tensors: Sequence[Any]) -> list[tuple[TensorType, str]]:
    return [(x.type, x.device) for x in tensors]


def _streams(found: Found) -> tuple[Stream, ...]:
    """A block of random numbers from each generator that the functions use."""
    executor = dispatch.state.executor
    return tuple((g, *executor.offset(g, 1)) for g in found.generators)


def _is_float(x: Any) -> bool:
    return x.dtype.has_gradient  # type: ignore[no-any-return]


def _faces(tensors: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(map(dispatch.state.executor.face, tensors))


def _wanted(inputs: Sequence[Any], outs: Sequence[Any]) -> bool:
    """Whether the call must be on the tape."""
    return dispatch.state.grad and any(map(_on_tape, inputs)) and any(_is_float(y) for y in outs)


def _on_tape(x: Any) -> bool:
    while x is not None:
        if x._requires_grad:
            return True
        x = getattr(x, "_inner", None)  # under vmap the tape is that of the tensor inside
    return False


def _record(
    name: str, rule: Any, inputs: tuple[Any, ...], outs: tuple[Any, ...], private: int
) -> tuple[Any, ...]:
    """Put a control op on the tape. rule: of gs, needs, the results from `private` on, which no user sees, and the
    inputs.
    """
    names = tuple(f"input{k}" for k in range(len(inputs)))
    op = TapeOp(name, names, GradRule(rule, ("gs", "needs", "outs", *names)), quiet=True, first_out=private)
    return dispatch.state.executor.attach(op, inputs, (), outs)  # type: ignore[arg-type]


def _check_carry(name: str, outs: Sequence[Any], carry: Sequence[Any]) -> None:
    for k, (y, h) in enumerate(zip(outs, carry)):
        if y.type != h.type:
            raise ShapeError(
                name, f"the carry must keep its type: tensor {k} goes in as {h.type} and comes out as {y.type}",
                "bring it to the shape and dtype of init inside the function, or start from one that fits",
            )  # fmt: skip


def _fresh(x: Any, wanted: bool) -> Any:
    """x as the start of a tape of its own, connected to x when gradients are recorded here."""
    if not wanted:
        return x
    face = dispatch.state.executor.face(x)
    if dispatch.state.grad and face._requires_grad:
        return face.clone()
    out = face._alias()
    out._requires_grad = True
    return out


def _pulled(outs: Sequence[Any], gs: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
    """Gradients of the targets; recorded when the caller is."""
    return functional._pull(outs, gs, targets, dispatch.state.grad)


def _looked_over() -> bool:
    """Whether the functions can run as they are: inside of one that was looked over with all that it calls, without
    draws or gradients, whose ops see what they read from outside by themselves.
    """
    executor = dispatch.state.executor
    while isinstance(executor, Swap):
        executor = executor.outer
    return dispatch.state.looked_over and not dispatch.state.grad and executor is dispatch._State.executor


def _open(fn: Flat) -> Body:
    return lambda consts, args: fn(*args)


def _own(outs: Sequence[Any]) -> tuple[Any, ...]:
    """Copies: where nobody knows what was read from outside, a result may be part of it."""
    return tuple(y.clone() for y in outs)


# ---------------------------------------------------------------- cond


def branch(
    pred: Any, fns: tuple[Flat, Flat], operands: tuple[Any, ...], alike: Callable[[], None] = lambda: None,
    streams: tuple[Stream, ...] | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """alike: raises where what the functions returned, seen as trees, differs; called when both were looked over."""
    if _looked_over():
        known = Branch(
            (_open(fns[0]), _open(fns[1])), _faces([pred])[0], (), _faces(operands), streams or (), ()
        )
        return _own(dispatch.state.executor.branch(known))
    found = scout("cond", fns, _typed(operands))
    a, b = ([y.type for y in outs] for outs in found.outs)
    alike()
    if a != b:
        raise ShapeError(
            "cond", f"true_fn returns {', '.join(map(str, a))}, false_fn {', '.join(map(str, b))}",
            "return equal shapes and dtypes from both",
        )  # fmt: skip
    if streams is None:
        streams = _streams(found)
    closures = found.closures
    bodies = (_closed(fns[0], closures), _closed(fns[1], closures))
    pred, operands, consts = _faces([pred])[0], _faces(operands), _faces(closures)
    call = Branch(bodies, pred, closures, operands, streams, tuple(a))
    recorded = _wanted((*consts, *operands), found.outs[0])
    with dispatch.set_grad(False):
        outs = dispatch.state.executor.branch(call)
    if not recorded:
        return outs
    n = len(consts)

    def rule(gs: Any, needs: Any, _: Any, pred: Any, *inputs: Any) -> tuple[Any, ...]:
        wants = [k for k, (x, need) in enumerate(zip(inputs, needs[1:])) if need and _is_float(x)]
        floats = [k for k, g in enumerate(gs) if g is not None]
        m = len(inputs)

        def back(body: Body) -> Flat:
            def run(*args: Any) -> tuple[Any, ...]:
                row = [_fresh(x, k in wants) for k, x in enumerate(args[:m])]
                with dispatch.set_grad(True):
                    made = body(tuple(row[:n]), tuple(row[n:]))
                return tuple(_pulled([made[k] for k in floats], args[m:], [row[k] for k in wants]))

            return run

        grads = iter(branch(
            pred, (back(bodies[0]), back(bodies[1])), (*inputs, *(gs[k] for k in floats)), streams=streams
        ))  # fmt: skip
        return (None, *(next(grads) if k in wants else None for k in range(m)))

    return _record("cond", rule, (pred, *consts, *operands), outs, len(outs))


# ---------------------------------------------------------------- scan


def scan(
    body: Flat, carry: tuple[Any, ...], xs: tuple[Any, ...], length: int, reverse: bool,
    streams: tuple[Stream, ...] | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    k = len(carry)
    if length and _looked_over():
        known = Scan(_open(body), (), _faces(carry), _faces(xs), length, reverse, streams or (), ())
        return _own(dispatch.state.executor.scan(known))
    slices = [(x.type._replace(shape=x.shape[1:]), x.device) for x in xs]
    found = scout("scan", (body,), [*_typed(carry), *slices])
    made = found.outs[0]
    _check_carry("scan", made, carry)
    if streams is None:
        streams = _streams(found)
    closures = found.closures
    closed = _closed(body, closures)
    carry, xs, consts = _faces(carry), _faces(xs), _faces(closures)
    types = tuple(y.type for y in made)
    call = Scan(closed, closures, carry, xs, length, reverse, streams, types)
    if not _wanted((*consts, *carry, *xs), made):
        with dispatch.set_grad(False):
            return dispatch.state.executor.scan(call)  # type: ignore[no-any-return]

    def keeping(consts: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*closed(consts, args), *args[:k])

    with dispatch.set_grad(False):
        outs = dispatch.state.executor.scan(
            call._replace(body=keeping, types=types + tuple(h.type for h in carry))
        )
    rule = _scan_rule(call, len(made) - k)
    return _record("scan", rule, (*consts, *carry, *xs), outs, len(made))[: len(made)]


def _scan_rule(call: Scan, rows: int) -> Any:
    """The way back through a scan: a scan the other way round, over what it walked and the carries it kept."""
    n, k = len(call.consts), len(call.carry)

    def rule(gs: Any, needs: Any, kept: Any, *inputs: Any) -> tuple[Any, ...]:
        consts, carry, xs = inputs[:n], inputs[n : n + k], inputs[n + k :]
        moving = [i for i in range(k) if _is_float(carry[i])]
        floats = [i for i in range(k, k + rows) if gs[i] is not None]
        want_c = [i for i in range(n) if needs[i] and _is_float(consts[i])]
        want_x = [i for i in range(len(xs)) if needs[n + k + i] and _is_float(xs[i])]
        a, b, m = len(moving), len(want_c), len(xs)

        def step(*args: Any) -> tuple[Any, ...]:
            g_carry, sums, rest = args[:a], args[a : a + b], args[a + b :]
            x, h, g_rows, g_kept = (
                rest[:m], rest[m : m + k], rest[m + k : m + k + len(floats)], rest[m + k + len(floats) :],
            )  # fmt: skip
            cs = [_fresh(c, i in want_c) for i, c in enumerate(consts)]
            hs = [_fresh(t, i in moving) for i, t in enumerate(h)]
            ts = [_fresh(t, i in want_x) for i, t in enumerate(x)]
            with dispatch.set_grad(True):
                made = call.body(tuple(cs), (*hs, *ts))
            pulled = _pulled(
                [made[i] for i in (*moving, *floats)], [*g_carry, *g_rows],
                [*(hs[i] for i in moving), *(cs[i] for i in want_c), *(ts[i] for i in want_x)],
            )  # fmt: skip
            return (
                *(p + g for p, g in zip(pulled[:a], g_kept)), *(s + p for s, p in zip(sums, pulled[a : a + b])),
                *pulled[a + b :],
            )  # fmt: skip

        start = (*(gs[i] for i in moving), *(functional._zeros_like(consts[i]) for i in want_c))
        walked = (*xs, *kept, *(gs[i] for i in floats), *(gs[k + rows + i] for i in moving))
        grads = scan(step, start, walked, call.length, not call.reverse, call.streams)
        found: list[Any] = [None] * len(inputs)
        for spot, g in zip((*(n + i for i in moving), *want_c, *(n + k + i for i in want_x)), grads):
            found[spot] = g
        return tuple(found)

    return rule


# ---------------------------------------------------------------- while_loop

#: turns that the way back through a while_loop keeps at a time
STRETCH = 64


def repeat(test: Flat, body: Flat, carry: tuple[Any, ...]) -> tuple[Any, ...]:
    if _looked_over():
        known = Repeat(_open(test), _open(body), (), _faces(carry), (), ())
        return _own(dispatch.state.executor.repeat(known))
    found = scout("while_loop", (test, body), _typed(carry))
    made = found.outs[1]
    _check_carry("while_loop", made, carry)
    if found.draws[0]:
        raise TraceError(
            "while_loop",
            "its condition draws random numbers",
            "draw in the body and keep what was drawn in the carry",
        )
    streams = _streams(found)
    closures = found.closures
    carry, consts = _faces(carry), _faces(closures)
    types = tuple(h.type for h in carry)
    call = Repeat(_closed(test, closures), _closed(body, closures), closures, carry, streams, types)
    if not _wanted((*consts, *carry), carry):
        with dispatch.set_grad(False):
            return dispatch.state.executor.repeat(call)  # type: ignore[no-any-return]
    if streams:
        raise TraceError(
            "while_loop", "its body draws random numbers, which its gradient cannot draw again", "use dg.scan"
        )
    k = len(carry)
    start = _count(0, carry[0])

    def counting(consts: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*call.body(consts, args[:k]), args[k] + 1)

    counted = call._replace(
        test=lambda consts, args: call.test(consts, args[:k]), body=counting, carry=(*carry, start),
        types=(*types, start.type),
    )  # fmt: skip
    with dispatch.set_grad(False):
        outs = dispatch.state.executor.repeat(counted)
    return _record("while_loop", _repeat_rule(call), (*consts, *carry), outs, k)[:k]


def _count(n: int, like: Any) -> Any:
    from .ops.creation import full

    return full((), n, dtype=int64, device=like.device)


def _repeat_rule(call: Repeat) -> Any:
    """The way back through a while_loop: stretch by stretch from the end, each made again from the start."""
    n, k = len(call.consts), len(call.carry)

    def rule(gs: Any, needs: Any, private: Any, *inputs: Any) -> tuple[Any, ...]:
        from .ops.creation import arange

        consts, init, (turns,) = inputs[:n], inputs[n:], private
        moving = [i for i in range(k) if _is_float(init[i])]
        want_c = [i for i in range(n) if needs[i] and _is_float(consts[i])]
        a, b = len(moving), len(want_c)
        places = arange(STRETCH, dtype=int64, device=turns.device)

        def forward(*h: Any) -> tuple[Any, ...]:
            return call.body(consts, h)

        def back(*args: Any) -> tuple[Any, ...]:
            cs = [_fresh(c, i in want_c) for i, c in enumerate(consts)]
            hs = [_fresh(t, i in moving) for i, t in enumerate(args[a + b :])]
            with dispatch.set_grad(True):
                made = call.body(tuple(cs), tuple(hs))
            targets = [*(hs[i] for i in moving), *(cs[i] for i in want_c)]
            pulled = _pulled([made[i] for i in moving], args[:a], targets)
            return (*pulled[:a], *(s + p for s, p in zip(args[a : a + b], pulled[a:])))

        def stretch(end: Any, *sums: Any) -> tuple[Any, ...]:
            first = (end - 1) // STRETCH * STRETCH

            def fill(*args: Any) -> tuple[Any, ...]:
                h = args[:k]
                return (*branch(first + args[k] < end, (forward, lambda *h: h), h), *h)

            def walk(*args: Any) -> tuple[Any, ...]:
                kept, place, h = args[: a + b], args[a + b], args[a + b + 1 :]
                return branch(first + place < end, (back, lambda *args: args[: a + b]), (*kept, *h))

            h = repeat(
                lambda i, *_: (i < first,), lambda i, *h: (i + 1, *forward(*h)), (_count(0, turns), *init)
            )[1:]
            rows = scan(fill, h, (places,), STRETCH, False)[k:]
            return (first, *scan(walk, sums, (places, *rows), STRETCH, True))

        begin = (*(gs[i] for i in moving), *(functional._zeros_like(consts[i]) for i in want_c))
        grads = repeat(lambda end, *_: (end > 0,), stretch, (turns, *begin))[1:]
        found: list[Any] = [None] * (n + k)
        for spot, g in zip((*(n + i for i in moving), *want_c), grads):
            found[spot] = g
        return tuple(found)

    return rule
