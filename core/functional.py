"""Derivatives of functions: `grad`, `value_and_grad`, `vjp`, `jvp`, `jacobian`, `hessian`. They nest, in both modes.

All rest on the tape. A product with the Jacobian from the right (`jvp`) is the reverse pass of the reverse
pass: the first is linear in the cotangent, so its own transpose is the Jacobian again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import dispatch, tree
from . import vjp as _vjp
from .errors import ArgumentError, ArgumentTypeError, AutogradError, ShapeError
from .kinds import is_index
from .value import Tensor


def _face(x: Any) -> Any:
    return dispatch.state.executor.face(x)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _fresh(x: Any, name: str) -> Tensor:
    """A leaf with x's memory that requires a gradient, connected to x when x itself is on a tape."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(
            name, f"differentiates tensors, the argument is a {type(x).__name__}", "use dg.tensor(x)"
        )
    if not _vjp.has_gradient(x.dtype):
        raise ArgumentTypeError(
            name, f"differentiates floats, the argument is {x.type}", "convert it to a float dtype"
        )
    face = _face(x)
    if face._requires_grad and dispatch.state.grad:
        return face.clone()  # type: ignore[no-any-return]  # a node of its own, so that the target is unique
    out = face._alias()
    out._requires_grad = True
    return out  # type: ignore[no-any-return]


def _fresh_tree(x: Any, name: str) -> Any:
    """`_fresh` at every float tensor of a tree; at least one there must be."""
    targets = []

    def make(leaf: Any) -> Any:
        if not (_is_tensor(leaf) and _vjp.has_gradient(leaf.dtype)):
            return leaf
        targets.append(_fresh(leaf, name))
        return targets[-1]

    made = tree.map_leaves(make, x) if not _is_tensor(x) else _fresh(x, name)
    if not _is_tensor(x) and not targets:
        raise ArgumentTypeError(
            name, f"differentiates tensors, the argument is {tree.describe(x)}", "use dg.tensor(x)"
        )
    return made


def _targets(made: Any) -> list[Any]:
    return [t for t in tree.leaves(made) if _is_tensor(t) and t._requires_grad]


def _recorded(outs: Iterable[Tensor], args: Any, targets: Sequence[Tensor], outer: bool) -> bool:
    """Whether the derivative itself must be on the tape: somebody else's gradient may flow through it."""
    if not outer:
        return False
    if any(_is_tensor(a) and _face(a)._requires_grad for a in tree.leaves(args)):
        return True
    return _vjp.reaches_other_leaves([_face(o) for o in outs], targets)


def _no_history(result: Any) -> Any:
    return tree.map_leaves(lambda r: r.detach() if _is_tensor(r) else r, result)


def _zeros_like(t: Tensor) -> Tensor:
    from .ops.creation import zeros_like

    return zeros_like(t)


def _pick(args: tuple[Any, ...], argnums: int | Sequence[int], name: str) -> tuple[int, ...]:
    numbers: Any = (argnums,) if is_index(argnums) else tuple(argnums)  # type: ignore[arg-type]
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise ArgumentError(
                name, f"argnums={argnums} is outside the {len(args)} positional arguments", "count from 0"
            )
    places = tuple(int(n) % len(args) for n in numbers)
    if len(set(places)) < len(places):
        raise ArgumentError(name, f"argnums={argnums} names an argument twice", "name each once")
    return places


# ---------------------------------------------------------------- gradients of numbers


def value_and_grad(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `(fn(...), gradient)`.

    fn returns one number (with has_aux, a tuple of that and anything else). argnums: the position(s) to
    differentiate, of tensors or trees of them (lists, tuples, dicts); a tuple gives a tuple of gradients.
    Returns: the value and gradients like the arguments. Raises: AutogradError when fn returns no single
    number. Numerics: tensors that fn does not depend on get zeros.
    """

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        outer = dispatch.state.grad
        numbers = _pick(args, argnums, "value_and_grad")
        row = list(args)
        for k in numbers:
            row[k] = _fresh_tree(args[k], "value_and_grad")
        targets = [t for k in numbers for t in _targets(row[k])]
        with dispatch.set_grad(True):
            result = fn(*row, **kwargs)
            out = result[0] if has_aux else result
            if not isinstance(out, Tensor) or out.size != 1:
                what = out.type if isinstance(out, Tensor) else type(out).__name__
                raise AutogradError(
                    "grad",
                    f"needs a function that returns one number, it returned {what}",
                    "reduce it: .sum(), or use dg.vjp or dg.jacobian",
                )
            nested = _recorded([out], args, targets, outer)
            found = _pull([out], [_ones_like(out)], targets, nested)
        if not nested:
            result = _no_history(result)
        it = iter(found)
        grads = [tree.map_leaves(lambda t: next(it) if _is_target(t) else None, row[k]) for k in numbers]
        return result, grads[0] if is_index(argnums) else tuple(grads)

    return run


def _is_target(x: Any) -> bool:
    return _is_tensor(x) and bool(x._requires_grad)


def _ones_like(t: Tensor) -> Tensor:
    from .ops.creation import ones_like

    return ones_like(t)


def _pull(
    outs: Sequence[Any],
    cotangents: Sequence[Any],
    targets: Sequence[Any],
    create_graph: bool,
    retain: bool = False,
) -> list[Any]:
    """The cotangents pulled back to the targets; zeros where nothing depends on one."""
    pairs = [(o, g) for o, g in zip(map(_face, outs), cotangents) if o._requires_grad]
    if not pairs:
        return [_zeros_like(t) for t in targets]
    found = _vjp.walk([o for o, _ in pairs], [g for _, g in pairs], targets, create_graph, retain, cut=True)
    return [_zeros_like(t) if g is None else g for t, g in zip(targets, found)]


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


# ---------------------------------------------------------------- products with the Jacobian


def _checked_like(name: str, what: str, given: Any, expected: Sequence[Any], structure: Any) -> list[Any]:
    """Tensors given beside others: as many, of equal shapes."""
    found = list(tree.leaves(given))
    if len(found) != len(expected):
        raise ArgumentError(
            name, f"{what} {tree.describe(given)} has not the structure of {tree.describe(structure)}",
            "pass one tensor for each",
        )  # fmt: skip
    for g, t in zip(found, expected):
        if not _is_tensor(g) or g.shape != t.shape:
            raise ShapeError(
                name, f"{what} {tree.describe(g)} stands beside {t.type}", "pass one of equal shape"
            )
    return [g if g.dtype is t.dtype else g.to(t.dtype) for g, t in zip(found, expected)]


def _float_leaves(result: Any, name: str) -> list[Any]:
    outs = list(tree.leaves(result))
    for o in outs:
        if not _is_tensor(o):
            raise AutogradError(
                name, f"needs a function of tensors, it returned {tree.describe(o)}", "return tensors only"
            )
    return outs


def vjp(fn: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """`(fn(*primals), pull)`: pull(g) is the product of g with the Jacobian, one result for each primal.

    primals: tensors or trees of them. pull takes cotangents with the structure of the output and may be
    called again. has_aux: fn returns `(output, anything)`, and so does vjp: `(output, pull, anything)`.
    Raises: AutogradError for outputs that are not tensors, ShapeError for a cotangent of another shape.
    Example: `dg.vjp(lambda x: x * x, dg.tensor([3.0]))[1](dg.tensor([1.0]))[0]` is `[6.0]`.
    """
    outer = dispatch.state.grad
    row = tuple(_fresh_tree(p, "vjp") for p in primals)
    targets = _targets(row)
    with dispatch.set_grad(True):
        result = fn(*row)
    out, aux = result if has_aux else (result, None)
    outs = _float_leaves(out, "vjp")
    nested = _recorded(outs, primals, targets, outer)

    def pull(*cotangents: Any) -> Any:
        given: Any = cotangents[0] if len(cotangents) == 1 else cotangents
        gs = _checked_like("vjp", "the cotangent", given, outs, out)
        again = nested or (dispatch.state.grad and any(_face(g)._requires_grad for g in gs))
        it = iter(_pull(outs, gs, targets, again, True))
        return tuple(tree.map_leaves(lambda t: next(it) if _is_target(t) else None, r) for r in row)

    value = out if nested else _no_history(out)
    return (value, pull, aux) if has_aux else (value, pull)


def jvp(
    fn: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> tuple[Any, ...]:
    """`(fn(*primals), tangent)`: the derivative of fn along the tangents; no Jacobian is built.

    primals, tangents: tuples of tensors or trees, equal in structure and shapes. Returns the output and its
    tangent (with has_aux also what fn returned beside). Raises: ArgumentError, ShapeError where they differ.
    Example: `dg.jvp(lambda x: x * x, (dg.tensor([3.0]),), (dg.tensor([1.0]),))[1]` is `[6.0]`.
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise ArgumentTypeError("jvp", "takes tuples of primals and tangents", "pass (x,) and (v,)")
    outer = dispatch.state.grad
    row = tuple(_fresh_tree(p, "jvp") for p in primals)
    targets = _targets(row)
    wanted = [
        v for p, v in zip(tree.leaves(tuple(primals)), _tangent_leaves(primals, tangents)) if _counts(p)
    ]
    vs = _checked_like("jvp", "the tangent", wanted, targets, list(targets))
    with dispatch.set_grad(True):
        result = fn(*row)
        out, aux = result if has_aux else (result, None)
        outs = _float_leaves(out, "jvp")
        nested = _recorded(outs, (primals, tangents), targets, outer)
        moving = [o for o in outs if _face(o)._requires_grad]
        cotangents = []
        for o in moving:
            u = _zeros_like(o)
            u._requires_grad = True
            cotangents.append(u)
        found: dict[int, Any] = {}
        if moving:
            pulled = _vjp.walk([_face(o) for o in moving], cotangents, targets, create_graph=True, cut=True)
            pairs = [(g, v) for g, v in zip(pulled, vs) if g is not None and g._requires_grad]
            if pairs:
                pushed = _vjp.walk(
                    [_face(g) for g, _ in pairs],
                    [v for _, v in pairs],
                    cotangents,
                    create_graph=nested,
                    cut=True,
                )
                found = {id(o): t for o, t in zip(moving, pushed) if t is not None}
    tangent = tree.map_leaves(lambda o: found[id(o)] if id(o) in found else _zeros_like(o), out)
    if not nested:
        out, tangent = _no_history(out), _no_history(tangent)
    return (out, tangent, aux) if has_aux else (out, tangent)


def _counts(p: Any) -> bool:
    return _is_tensor(p) and _vjp.has_gradient(p.dtype)


def _tangent_leaves(primals: Any, tangents: Any) -> list[Any]:
    found, expected = list(tree.leaves(tuple(tangents))), list(tree.leaves(tuple(primals)))
    if len(found) != len(expected):
        raise ArgumentError(
            "jvp",
            f"tangents {tree.describe(tuple(tangents))} do not have the structure of the primals"
            f" {tree.describe(tuple(primals))}",
            "pass one tangent for each primal",
        )
    return found


# ---------------------------------------------------------------- whole Jacobians


def jacobian(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False, mode: str = "reverse"
) -> Callable[..., Any]:
    """A function that returns the Jacobian of `fn`: for an output of shape S and an argument of shape T, `[*S, *T]`.

    Trees of outputs or arguments give trees of Jacobians (outputs outside, arguments inside). mode:
    "reverse" pulls all rows back at once, good when the output is smaller than the argument; "forward" pushes
    all columns at once. has_aux as in `value_and_grad`. Use `vjp` or `jvp` where a product will do.
    Example: `dg.jacobian(lambda x: x * x)(dg.tensor([1.0, 2.0]))` is `[[2.0, 0.0], [0.0, 4.0]]`.
    """
    if mode not in ("reverse", "forward"):
        raise ArgumentError("jacobian", f"mode={mode!r}", 'use "reverse" or "forward"')

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        numbers = _pick(args, argnums, "jacobian")

        def partial(*chosen: Any) -> Any:
            row = list(args)
            for k, x in zip(numbers, chosen):
                row[k] = x
            return fn(*row, **kwargs)

        chosen = tuple(args[k] for k in numbers)
        out, rows, aux = (_by_rows if mode == "reverse" else _by_columns)(partial, chosen, has_aux)
        made = tree.refill(out, iter([r[0] if is_index(argnums) else r for r in rows]))
        return (made, aux) if has_aux else made

    return run


def _basis(t: Any) -> Any:
    """The unit tensors of t's shape, one after the other: `[t.size, *t.shape]`."""
    from .ops.creation import eye

    return eye(t.size, dtype=t.dtype, device=t.device).reshape((t.size, *t.shape))


def _by_rows(fn: Any, chosen: tuple[Any, ...], has_aux: bool) -> tuple[Any, list[Any], Any]:
    from .batch import vmap

    made = vjp(fn, *chosen, has_aux=has_aux)
    out, pull = made[0], made[1]
    outs = list(tree.leaves(out))
    rows = []
    for k, o in enumerate(outs):

        def pull_one(g: Any, k: int = k) -> Any:
            gs = [g if j == k else _zeros_like(x) for j, x in enumerate(outs)]
            return pull(tree.refill(out, iter(gs)))

        found = vmap(pull_one)(_basis(o))
        rows.append(
            tree.map_leaves(lambda r, o=o: None if r is None else r.reshape((*o.shape, *r.shape[1:])), found)
        )
    return out, rows, made[2] if has_aux else None


def _by_columns(fn: Any, chosen: tuple[Any, ...], has_aux: bool) -> tuple[Any, list[Any], Any]:
    from .batch import vmap

    leaves = list(tree.leaves(chosen))
    made: Any = fn(*chosen)
    out, aux = made if has_aux else (made, None)
    outs = _float_leaves(out, "jacobian")
    columns: list[list[Any]] = [[] for _ in outs]
    for k, x in enumerate(leaves):
        if not _counts(x):
            for c in columns:
                c.append(None)
            continue

        def push_one(v: Any, k: int = k) -> Any:
            vs = [v if j == k else _zeros_like(p) if _is_tensor(p) else p for j, p in enumerate(leaves)]
            return jvp(fn, chosen, tree.refill(chosen, iter(vs)), has_aux)[1]

        pushed = list(tree.leaves(vmap(push_one, out_axes=-1)(_basis(x))))
        for c, t in zip(columns, pushed):
            c.append(t.reshape((*t.shape[:-1], *x.shape)))
    return out, [tree.refill(chosen, iter(c)) for c in columns], aux


def hessian(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the second derivatives of a number: `[*T, *T]` for an argument of shape T.

    Rows of the gradient's Jacobian, all at once. A product with the Hessian needs none of it:
    `dg.jvp(dg.grad(fn), (x,), (v,))[1]`.
    """
    return jacobian(grad(fn, argnums, has_aux), argnums, has_aux)
