"""Control flow that stays inside one graph: `cond`, `while_loop`, `scan`.

Bodies are functions of trees of tensors. Here they are made flat functions of tensors with what they read from
outside as explicit arguments; the executor runs them (Python in eager mode, a region of the graph in a trace).
Gradients are written in the same functions: the way back through a `scan` is a `scan` in the other direction that
runs the body again. So all of it nests, in each other and with grad, vjp, jvp and vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import dispatch, functional, tree
from .errors import ArgumentError, ArgumentTypeError, ShapeError, TraceError
from .op import GradRule
from .region import Body, Branch, Repeat, Scan, Stream
from .scout import Found, scout
from .swap import Swap
from .tape_op import TapeOp
from .types import TensorType, bool_, int64
from .value import Tensor

_NUMBERS = (bool, int, float, complex)
Flat = Callable[..., tuple[Any, ...]]


# ---------------------------------------------------------------- what users call


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """`true_fn(*operands)` where pred is True, else `false_fn(*operands)`; in graph mode both stay in the graph.

    pred: bool[] (a tensor of one element; numbers count as True when they are not 0). operands: tensors or trees
    of them, anything else is handed on. The functions may read tensors from outside; both return trees of tensors
    of one structure, with equal shapes and dtypes.
    Returns: what the chosen function returns. Raises: ShapeError when the results differ, TraceError for a function
    that reads values or changes tensors in place.
    Numerics: gradients flow through the chosen branch only, zeros elsewhere. Under `vmap` with a pred for each
    example both branches run and `where` chooses. Random numbers come from a block that every call draws.
    Source: ONNX If.
    Example: `dg.cond(x.sum() > 0, lambda x: x, lambda x: -x, x)`.
    """
    if isinstance(pred, bool):
        return (true_fn if pred else false_fn)(*operands)
    pred = _predicate("cond", pred)
    given, skeleton = _split(operands)
    shapes: dict[int, Any] = {}

    def flat(k: int, fn: Callable[..., Any]) -> Flat:
        def run(*args: Any) -> tuple[Any, ...]:
            result = fn(*_join(skeleton, args))
            row, shapes[k] = _results("cond", result)
            return row

        return run

    outs = _branch(pred, (flat(0, true_fn), flat(1, false_fn)), given, shapes)
    return _join(shapes[0], outs)


def while_loop(cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], init: Any) -> Any:
    """`while cond_fn(carry): carry = body_fn(carry)`, from `carry = init`; in graph mode a loop inside the graph.

    init: a tree of tensors and numbers. cond_fn returns bool[]; body_fn returns the next carry: the structure,
    shapes and dtypes of init. Both may read tensors from outside.
    Returns: the last carry. Raises: ShapeError when the carry changes its type, naming both; TraceError for functions
    that read values, change tensors in place, or draw random numbers in cond_fn.
    Numerics: differentiable any number of times. The way back keeps nothing but init and the number of turns: it
    runs stretches of 64 turns again, each from the start, so n turns cost about n * n / 128 more; use `scan` where
    the number of turns is known. A body that draws random numbers has no gradient. A loop without end does not return.
    Source: ONNX Loop.
    Example: `dg.while_loop(lambda i: i < 10, lambda i: i * 2, dg.tensor(1))` is 16.
    """
    carry, skeleton = _tensors(init)
    if not carry:
        raise ArgumentError(
            "while_loop", "the carry has no tensor", "pass what changes from turn to turn as init"
        )

    def test(*args: Any) -> tuple[Any, ...]:
        return (_predicate("while_loop", cond_fn(_join(skeleton, args))),)

    def body(*args: Any) -> tuple[Any, ...]:
        row, made = _results("while_loop", body_fn(_join(skeleton, args)), carry)
        _same_structure("while_loop", made, skeleton)
        return row

    return _join(skeleton, _repeat(test, body, carry))


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`carry, y = f(carry, x)` for every x along the first axis of xs; in graph mode one loop inside the graph.

    init: a tree of tensors and numbers. xs: a tree of tensors of one first size N, or None; f gets slices without that
    axis. length: N where xs is None. reverse: from the last slice to the first (results stand where their slice
    stands). f returns the next carry (structure, shapes and dtypes of init) and a tree of tensors, or None.
    Returns: the last carry, and the tree of results stacked along a new first axis of size N.
    Raises: ShapeError when the carry changes its type or sizes differ, TraceError for an f that reads values or
    changes tensors in place. Numerics: the way back keeps the carry of each turn and runs f again, so it can be
    differentiated any number of times. Random numbers differ from turn to turn and come from one block.
    Source: ONNX Scan.
    Example: `dg.scan(lambda c, x: (c + x, c), dg.tensor(0.0), dg.arange(4.0))[1]` is `[0.0, 0.0, 1.0, 3.0]`.
    """
    carry, skeleton = _tensors(init)
    slices, below = _tensors(xs)
    sizes = {x.shape[0] for x in slices if x.ndim}
    if any(x.ndim == 0 for x in slices):
        raise ShapeError("scan", "an x has no axis to walk along", "give every tensor of xs a first axis")
    if length is not None:
        sizes.add(int(length))
    if len(sizes) != 1:
        what = f"first axes of sizes {sorted(sizes)}" if sizes else "neither xs nor a length"
        raise ShapeError("scan", f"got {what}", "give all of xs one first size, equal to length")
    k, found = len(carry), {}

    def body(*args: Any) -> tuple[Any, ...]:
        result = f(_join(skeleton, args[:k]), _join(below, args[k:]))
        if not isinstance(result, tuple) or len(result) != 2:
            raise ArgumentTypeError("scan", f"f returned {tree.describe(result)}", "return (carry, y)")
        row, made = _results("scan", result[0], carry)
        _same_structure("scan", made, skeleton)
        ys, found["ys"] = _results("scan", result[1])
        return (*row, *ys)

    outs = _scan(body, carry, slices, sizes.pop(), bool(reverse))
    return _join(skeleton, outs[:k]), _join(found["ys"], outs[k:])


# ---------------------------------------------------------------- trees


def _split(row: Any) -> tuple[tuple[Any, ...], Any]:
    """The tensors of a tree, and the tree with True in their places and a box round anything else."""
    found: list[Any] = []

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return _Kept(leaf)
        found.append(leaf)
        return True

    skeleton = tree.map_leaves(take, row)
    return tuple(found), skeleton


class _Kept:
    """A leaf that is no tensor."""

    __slots__ = ("leaf",)

    def __init__(self, leaf: Any):
        self.leaf = leaf

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept)

    __hash__ = None  # type: ignore[assignment]


def _join(skeleton: Any, tensors: Sequence[Any]) -> Any:
    it = iter(tensors)
    return tree.map_leaves(lambda leaf: next(it) if leaf is True else leaf.leaf, skeleton)


def _as_tensor(leaf: Any, like: Any = None) -> Any:
    """Numbers and arrays as tensors; a number beside a tensor of a carry takes its dtype."""
    from .ops.creation import full

    if isinstance(leaf, Tensor) or leaf is None:
        return leaf
    if isinstance(leaf, _NUMBERS):
        return full((), leaf) if like is None else full((), leaf, dtype=like.dtype, device=like.device)
    if hasattr(leaf, "__array__"):
        import numpy as np

        return dispatch.state.executor.constant(np.asarray(leaf), "cpu")
    return leaf


def _tensors(row: Any) -> tuple[tuple[Any, ...], Any]:
    """`_split` after numbers have become tensors; what is neither is refused."""
    return _split(tree.map_leaves(_as_tensor, row))


def _results(name: str, row: Any, like: Sequence[Any] = ()) -> tuple[tuple[Any, ...], Any]:
    """What a function returned: its tensors and their tree. like: the carry, whose dtypes numbers take."""
    beside = iter(like)
    made = tree.map_leaves(
        lambda leaf: _as_tensor(leaf, next(beside, None) if leaf is not None else None), row
    )
    for leaf in tree.leaves(made):
        if leaf is not None and not isinstance(leaf, Tensor):
            raise ArgumentTypeError(
                name,
                f"a function returned a {type(leaf).__name__}",
                "return tensors, in lists, tuples or dicts",
            )
    return _split(made)


def _same_structure(name: str, made: Any, skeleton: Any) -> None:
    if made != skeleton:
        raise ArgumentError(
            name, f"the carry went in as {_words(skeleton)} and came out as {_words(made)}",
            "return the structure of init",
        )  # fmt: skip


def _words(skeleton: Any) -> str:
    return tree.describe(tree.map_leaves(lambda leaf: "tensor" if leaf is True else None, skeleton)).replace(
        "str", "tensor"
    )


def _predicate(name: str, pred: Any) -> Any:
    pred = _as_tensor(pred)
    if not isinstance(pred, Tensor) or pred.size != 1:
        what = pred.type if isinstance(pred, Tensor) else type(pred).__name__
        raise ShapeError(name, f"the condition is {what}", "give one bool, as x.any() or x.all() do")
    if pred.dtype is not bool_:
        pred = pred != 0
    return pred if pred.ndim == 0 else pred.reshape(())


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


def _record(name: str, rule: Any, inputs: tuple[Any, ...], outs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put a control op on the tape. rule: of gs, needs, outs and the inputs."""
    names = tuple(f"input{k}" for k in range(len(inputs)))
    op = TapeOp(name, names, GradRule(rule, ("gs", "needs", "outs", *names)))
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


# ---------------------------------------------------------------- cond


def _branch(
    pred: Any, fns: tuple[Flat, Flat], operands: tuple[Any, ...], skeletons: dict[int, Any] | None = None,
    streams: tuple[Stream, ...] | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    found = scout("cond", fns, _typed(operands))
    a, b = ([y.type for y in outs] for outs in found.outs)
    if skeletons is not None and skeletons[0] != skeletons[1]:
        raise ArgumentError(
            "cond",
            f"true_fn returns {_words(skeletons[0])}, false_fn {_words(skeletons[1])}",
            "return one structure",
        )
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

    def rule(gs: Any, needs: Any, outs: Any, pred: Any, *inputs: Any) -> tuple[Any, ...]:
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

        grads = iter(_branch(
            pred, (back(bodies[0]), back(bodies[1])), (*inputs, *(gs[k] for k in floats)), None, streams
        ))  # fmt: skip
        return (None, *(next(grads) if k in wants else None for k in range(m)))

    return _record("cond", rule, (pred, *consts, *operands), outs)


# ---------------------------------------------------------------- scan


def _scan(
    body: Flat, carry: tuple[Any, ...], xs: tuple[Any, ...], length: int, reverse: bool,
    streams: tuple[Stream, ...] | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    k = len(carry)
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
    return _record("scan", rule, (*consts, *carry, *xs), outs)[: len(made)]


def _scan_rule(call: Scan, rows: int) -> Any:
    """The way back through a scan: a scan the other way round, over what it walked and the carries it kept."""
    n, k = len(call.consts), len(call.carry)

    def rule(gs: Any, needs: Any, outs: Any, *inputs: Any) -> tuple[Any, ...]:
        consts, carry, xs = inputs[:n], inputs[n : n + k], inputs[n + k :]
        kept = outs[k + rows :]
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
        grads = _scan(step, start, walked, call.length, not call.reverse, call.streams)
        found: list[Any] = [None] * len(inputs)
        for spot, g in zip((*(n + i for i in moving), *want_c, *(n + k + i for i in want_x)), grads):
            found[spot] = g
        return tuple(found)

    return rule


# ---------------------------------------------------------------- while_loop

#: turns that the way back through a while_loop keeps at a time
STRETCH = 64


def _repeat(test: Flat, body: Flat, carry: tuple[Any, ...]) -> tuple[Any, ...]:
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
    return _record("while_loop", _repeat_rule(call), (*consts, *carry), outs)[:k]


def _count(n: int, like: Any) -> Any:
    from .ops.creation import full

    return full((), n, dtype=int64, device=like.device)


def _repeat_rule(call: Repeat) -> Any:
    """The way back through a while_loop: stretch by stretch from the end, each made again from the start."""
    n, k = len(call.consts), len(call.carry)

    def rule(gs: Any, needs: Any, outs: Any, *inputs: Any) -> tuple[Any, ...]:
        from .ops.creation import arange

        consts, init, turns = inputs[:n], inputs[n:], outs[k]
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
                return (*_branch(first + args[k] < end, (forward, lambda *h: h), h), *h)

            def walk(*args: Any) -> tuple[Any, ...]:
                kept, place, h = args[: a + b], args[a + b], args[a + b + 1 :]
                return _branch(first + place < end, (back, lambda *args: args[: a + b]), (*kept, *h))

            h = _repeat(
                lambda i, *_: (i < first,), lambda i, *h: (i + 1, *forward(*h)), (_count(0, turns), *init)
            )[1:]
            rows = _scan(fill, h, (places,), STRETCH, False)[k:]
            return (first, *_scan(walk, sums, (places, *rows), STRETCH, True))

        begin = (*(gs[i] for i in moving), *(functional._zeros_like(consts[i]) for i in want_c))
        grads = _repeat(lambda end, *_: (end > 0,), stretch, (turns, *begin))[1:]
        found: list[Any] = [None] * (n + k)
        for spot, g in zip((*(n + i for i in moving), *want_c), grads):
            found[spot] = g
        return tuple(found)

    return rule
