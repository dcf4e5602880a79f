"""Control flow that stays inside one graph: `cond`, `while_loop`, `scan`.

Bodies are functions of trees of tensors. Here they become flat functions (`control_trees`), which `control_flat` runs
and differentiates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import control_flat, tree
from .control_flat import Flat
from .control_trees import join, predicate, results, same_structure, split, tensors, words
from .errors import ArgumentError, ArgumentTypeError, ShapeError
from .numbers import whole


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
    pred = predicate("cond", pred)
    given, skeleton = split(operands)
    shapes: dict[int, Any] = {}

    def alike() -> None:
        if shapes[0] != shapes[1]:
            raise ArgumentError(
                "cond", f"true_fn returns {words(shapes[0])}, false_fn {words(shapes[1])}", "return one structure"
            )  # fmt: skip

    def flat(k: int, fn: Callable[..., Any]) -> Flat:
        def run(*args: Any) -> tuple[Any, ...]:
            result = fn(*join(skeleton, args))
            row, shapes[k] = results("cond", result)
            return row

        return run

    outs = control_flat.branch(pred, (flat(0, true_fn), flat(1, false_fn)), given, alike)
    return join(next(iter(shapes.values())), outs)  # one where a function of another control op runs


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
    carry, skeleton = tensors(init)
    if not carry:
        raise ArgumentError(
            "while_loop", "the carry has no tensor", "pass what changes from turn to turn as init"
        )

    def test(*args: Any) -> tuple[Any, ...]:
        return (predicate("while_loop", cond_fn(join(skeleton, args))),)

    def body(*args: Any) -> tuple[Any, ...]:
        row, made = results("while_loop", body_fn(join(skeleton, args)), carry)
        same_structure("while_loop", made, skeleton)
        return row

    return join(skeleton, control_flat.repeat(test, body, carry))


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
    carry, skeleton = tensors(init)
    slices, below = tensors(xs)
    sizes: list[Any] = []
    for x in slices:
        if x.ndim and x.shape[0] not in sizes:
            sizes.append(x.shape[0])
    if any(x.ndim == 0 for x in slices):
        raise ShapeError("scan", "an x has no axis to walk along", "give every tensor of xs a first axis")
    if length is not None:
        length = whole(length)
        sizes += [] if length in sizes else [length]
    if len(sizes) != 1:
        what = f"first axes of sizes {sorted(sizes)}" if sizes else "neither xs nor a length"
        raise ShapeError("scan", f"got {what}", "give all of xs one first size, equal to length")
    k, found = len(carry), {}

    def body(*args: Any) -> tuple[Any, ...]:
        result = f(join(skeleton, args[:k]), join(below, args[k:]))
        if not isinstance(result, tuple) or len(result) != 2:
            raise ArgumentTypeError("scan", f"f returned {tree.describe(result)}", "return (carry, y)")
        row, made = results("scan", result[0], carry)
        same_structure("scan", made, skeleton)
        ys, found["ys"] = results("scan", result[1])
        return (*row, *ys)

    outs = control_flat.scan(body, carry, slices, sizes.pop(), bool(reverse))
    return join(skeleton, outs[:k]), join(found["ys"], outs[k:])
