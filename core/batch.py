"""`vmap`: a function of one example becomes a function of many, without a loop.

A `Batched` tensor is a face over a tensor that has one more axis, its first, which the function does not see. The
`Batcher` stands behind the door: it takes each op to the inner tensors by the op's rule (core/batch_rules.py) and hands
them to the executor outside. So vmap works in both modes, nests, and mixes with gradients in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import batch_control, dispatch, tree, vjp
from .declared import GradRule
from .errors import ArgumentError, ArgumentTypeError, AutogradError, ShapeError, VmapError
from .op import Attrs, Op
from .over import Over
from .strangers import no_tensor
from .tape_op import TapeOp
from .types import DType, Shape, TensorType, contiguous_strides, normalize_axis
from .value import Tensor


class Batched(Tensor):
    """One example's view of a tensor with a batch axis in front."""

    __slots__ = ("_batcher", "_inner")

    def __init__(self, inner: Any, batcher: Batcher):
        self._inner, self._batcher = inner, batcher
        self._begin()

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        return self._inner.shape[1:]  # type: ignore[no-any-return]

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self._inner.dtype  # type: ignore[no-any-return]

    @property
    def type(self) -> TensorType:  # type: ignore[override]
        return TensorType(self._inner.dtype, self._inner.shape[1:])

    @property
    def device(self) -> str:  # type: ignore[override]
        return self._inner.device  # type: ignore[no-any-return]

    @property
    def strides(self) -> Shape:  # type: ignore[override]
        """As of examples that lie one after the other: how the batch lies is no matter of the function's."""
        return contiguous_strides(self._inner.shape[1:])

    def _get_version(self) -> int:
        return self._inner._get_version()  # type: ignore[no-any-return]

    def _changed_place(self) -> Any:
        return self._inner._changed_place()

    def _alias(self) -> Batched:
        return Batched(self._inner, self._batcher)

    def detach(self) -> Batched:
        """The same values without history."""
        first = self._batcher
        with dispatch.executing((first.below(dispatch.state.executor) or first).outer):
            return first.wrap(self._inner.detach())

    def numpy(self) -> Any:
        return self._batcher.read(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self._batcher.read(self)

    def _text(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"batched({self.type} x {self._inner.shape[0]})"

    def _leaked(self, op: str) -> None:
        raise VmapError(
            op, f"a tensor {self.type} of a mapped function was used outside of it",
            "return it from the function instead of keeping it",
        )  # fmt: skip


class Batcher(Over):
    """The executor of one vmap: size of the batch, and the executor outside.

    first: the one that stands over the executor of the call, for another that stands over what runs a walk.
    """

    def __init__(self, outer: Any, size: int, first: Batcher | None = None):
        self.outer, self.size = outer, size
        self.first: Batcher = self if first is None else first

    def owns(self, x: Any) -> bool:
        return x.__class__ is Batched and x._batcher is self.first

    def below(self, executor: Any) -> Batcher | None:
        """The batcher of this vmap that an executor is, or stands over."""
        while executor is not None:
            if executor.__class__ is Batcher and executor.first is self.first:
                return executor  # type: ignore[no-any-return]
            executor = getattr(executor, "outer", None)
        return None

    def over(self, outer: Any) -> Batcher:
        """This vmap over another executor: what runs a walk, such as the vmap of a Jacobian."""
        return self.below(outer) or Batcher(outer, self.size, self.first)

    def wrap(self, inner: Any) -> Batched:
        return Batched(inner, self.first)

    def whole(self, x: Any) -> Any:
        """The inner tensor, with the batch axis also where x has none."""
        if self.owns(x):
            return x._inner
        from .ops.creation import full
        from .ops.shape import broadcast_to

        if not isinstance(x, Tensor):
            return full((self.size,), x)
        return broadcast_to(x, shape=(self.size, *x.shape))

    # -- the door's side --------------------------------------------------------------------

    def call(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
        return dispatch.call(self, op, inputs, attrs)

    def prepare(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        out = [self.constant(x, "cpu") if isinstance(x, np.ndarray) else x for x in inputs]
        if any(self.owns(x) for x in out):
            for x in out:
                if x is not None and not isinstance(x, (Tensor, int, float, bool, complex, np.generic)) \
                        and not hasattr(x, "kind"):  # fmt: skip
                    raise no_tensor(op, x)
            return tuple(x.item() if isinstance(x, np.generic) else x for x in out)
        with dispatch.executing(self.outer):
            return self.outer.prepare(op, tuple(out))  # type: ignore[no-any-return]

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[Any, ...] | None = None
    ) -> tuple[Any, ...]:
        if into is not None:
            made = self.run(op, inputs, attrs)
            for target, value in zip(into, made, strict=True):
                self.write(target, value)
            return into
        if not any(self.owns(x) for x in inputs):
            with dispatch.executing(self.outer):
                return self.outer.run(op, inputs, attrs)  # type: ignore[no-any-return]
        if op.kind == "composite":  # one with a gradient of its own
            return self._composite(op, inputs, attrs)
        from .batch_rules import apply_rule

        types = [x.type if isinstance(x, Tensor) else x for x in inputs]
        op.infer(types, attrs)  # errors speak of the shapes that the function sees
        with dispatch.executing(self.outer):
            return tuple(map(self.wrap, apply_rule(self, op, inputs, attrs)))

    def _composite(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> tuple[Any, ...]:
        """A composite with its own gradient: its body on batched tensors, its rules on the tape outside."""
        named = op.attrs_dict(attrs)
        with dispatch.executing(self, _keeps), dispatch.set_grad(False):
            made = op.fn(*inputs, **named)
        outputs = made if isinstance(made, tuple) else (made,)
        return self._attach_outside(op, inputs, attrs, outputs)

    def attach(
        self, op: Any, inputs: tuple[Any, ...], attrs: Attrs, outputs: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        if not any(self.owns(x) for x in inputs):
            return self.outer.attach(op, inputs, attrs, outputs)  # type: ignore[no-any-return]
        outputs = self._attach_outside(op, inputs, attrs, outputs)
        return vjp.attach(op, inputs, attrs, outputs)

    def _attach_outside(
        self, op: Any, inputs: tuple[Any, ...], attrs: Attrs, outputs: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """Put an op with its own gradient on the tape of the inner tensors. Returns outputs, all of them batched."""
        if not dispatch.state.grad:
            return outputs
        with dispatch.executing(self.outer):
            outputs = tuple(y if self.owns(y) else self.wrap(self.whole(y)) for y in outputs)
            inner = [x._inner if self.owns(x) else x for x in inputs]
            faces = tuple(self.outer.face(x) if isinstance(x, Tensor) else x for x in inner)
            proxy = _mapped(self, op, [self.owns(x) for x in inputs], attrs)
            made = self.outer.attach(proxy, faces, (), tuple(y._inner for y in outputs))
        return tuple(y if y._inner is m else self.wrap(m) for y, m in zip(outputs, made))

    # -- in-place, values, state ----------------------------------------------------------------

    def face(self, x: Any) -> Any:
        return x if self.owns(x) else self.outer.face(x)

    def write(self, target: Any, value: Any) -> Any:
        if not self.owns(target):
            if self.owns(value):
                raise VmapError(
                    "in-place", f"a batched value {value.type} does not fit into {target.type}, which has no batch",
                    "make the target from the mapped arguments, or return the value",
                )  # fmt: skip
            return self.outer.write(target, value)
        if value.type != target.type:
            raise ShapeError(
                "in-place",
                f"{value.type} does not fit in place into {target.type}",
                "convert or reshape the value",
            )
        if dispatch.state.grad and (target._requires_grad or value._requires_grad):
            raise AutogradError(
                "in-place", "a mapped tensor cannot be changed in place while its gradient is taken",
                "use an out-of-place op (x = x + 1)",
            )  # fmt: skip
        with dispatch.executing(self.outer):
            face = self.outer.face
            self.outer.write(face(target._inner), face(self.whole(value)))
        return target

    def constant(self, array: np.ndarray, device: str) -> Any:
        return self.outer.constant(array, device)

    def read(self, x: Any) -> Any:
        if not self.owns(x):
            with dispatch.executing(self.outer):
                return self.outer.read(x)
        raise VmapError(
            "vmap", f"the value of {x.type} was asked for, which is another one for each of {self.size} examples",
            "use dg.where(condition, a, b) in place of a Python branch",
        )  # fmt: skip

    def check(self, x: Any, refuse: Any) -> None:
        with dispatch.executing(self.outer):
            self.outer.check(x._inner if self.owns(x) else x, refuse)

    def get_grad(self, x: Any) -> Any:
        return x._grad if self.owns(x) else self.outer.get_grad(x)

    def set_grad(self, x: Any, value: Any) -> None:
        if self.owns(x):
            x._grad = value
        elif self.owns(value):
            raise VmapError(
                "backward", f"the gradient of {x.type}, which has no batch, is another one for each example",
                "use dg.grad inside the mapped function and return the gradient",
            )  # fmt: skip
        else:
            self.outer.set_grad(x, value)

    def branch(self, c: Any) -> tuple[Any, ...]:
        return batch_control.branch(self, c)

    def repeat(self, c: Any) -> tuple[Any, ...]:
        return batch_control.repeat(self, c)

    def scan(self, c: Any) -> tuple[Any, ...]:
        return batch_control.scan(self, c)


def _keeps(op: Op) -> bool:
    return bool(op.grads) or op.joint is not None


def _mapped(batcher: Batcher, op: Any, owned: list[bool], attrs: Attrs) -> TapeOp:
    """An op for the tape outside: op's gradient rules, run on batched tensors."""
    named = op.attrs_dict(attrs)
    rules = {n: op.grads.get(n) for n in op.input_names}
    wants = set(op.joint.wants if op.joint else (w for r in rules.values() if r for w in r.wants))
    batch = dict(zip(op.input_names, owned))
    asked = [n for n in op.input_names if n in wants]
    types = [n for n in op.input_names if n + "_type" in wants]
    keep = (
        "gs",
        "needs",
        *(("outs",) if wants & {"out", "outs"} else ()),
        *asked,
        *(n + "_type" for n in types),
    )

    def rule(*values: Any) -> tuple[Any, ...]:
        have: dict[str, Any] = dict(zip(keep, values))
        given = {**named, "needs": have["needs"]}
        here, wrap = batcher.over(dispatch.state.executor), batcher.wrap
        gs = tuple(None if g is None else wrap(g) for g in have["gs"])
        given["gs"], given["g"] = gs, gs[0]
        if "outs" in have:
            given["outs"] = tuple(map(wrap, have["outs"]))
            given["out"] = next(iter(given["outs"]), None)
        for n in asked:
            given[n] = wrap(have[n]) if batch[n] else have[n]
        for n in types:
            t = have[n + "_type"]
            given[n + "_type"] = TensorType(t.dtype, t.shape[1:]) if batch[n] else t
        with dispatch.executing(here, _keeps):
            if op.joint is not None:
                made = op.joint.fn(*[given[w] for w in op.joint.wants])
                found = list(made) if isinstance(made, tuple) else [made]
            else:
                found = [
                    r.fn(*[given[w] for w in r.wants]) if r is not None and need else None
                    for r, need in zip(rules.values(), have["needs"])
                ]
        with dispatch.executing(here.outer):
            return tuple(_gathered(here, g, own) for g, own in zip(found, owned))

    partial = getattr(op, "partial", False)
    return TapeOp(op.name, op.input_names, GradRule(rule, keep), partial, first_out=op.first_out)


def _gathered(batcher: Batcher, g: Any, own: bool) -> Any:
    """A gradient as the tape outside wants it: with the batch axis, or summed over it."""
    from .ops.reduction import sum_

    if g is None:
        return None
    whole = batcher.whole(g)
    return whole if own else sum_(whole, axis=0)


def vmap(fn: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """A function that applies `fn` to every element along an axis of its arguments, all at once.

    in_axes: the axis to map of each argument, None for an argument that all examples share; a number for all
    arguments, or a tuple with one entry for each (an entry may be a tree like its argument). out_axes:
    where the new axis stands in each result. Keyword arguments are mapped along axis 0 where they are tensors.
    Returns: a function like fn whose tensors have one more axis. Raises: ArgumentError when sizes differ or no
    argument is mapped; VmapError for a branch on a mapped value. Numerics: random ops draw once, the same
    numbers for every example. Nests, and mixes with `grad`, `jvp`, `jacobian` and `dg.function`.
    Example: `dg.vmap(dg.dot)(a, b)` multiplies rows: float[N, K] and float[N, K] give float[N].
    """

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        axes = in_axes if isinstance(in_axes, (tuple, list)) else (in_axes,) * len(args)
        if len(axes) != len(args):
            raise ArgumentError(
                "vmap", f"in_axes={in_axes} names {len(axes)} arguments of {len(args)}", "one entry for each"
            )
        try:
            spots = [list(tree.spread(a, x)) for a, x in zip(axes, args)]
        except ValueError as e:
            raise ArgumentError("vmap", f"in_axes={in_axes}: {e}", "give an axis for each tensor") from None
        flat = [x for a in args for x in tree.leaves(a)] + [
            x for x in kwargs.values() for x in tree.leaves(x)
        ]
        places = [p for s in spots for p in s]
        places += [0 if isinstance(x, Tensor) else None for x in flat[len(places) :]]
        moved, size = _moved(flat, places)
        batcher = Batcher(dispatch.state.executor, size)
        it = iter([x if p is None else batcher.wrap(x) for x, p in zip(moved, places)])
        row = [tree.refill(a, it) for a in args]
        named = {k: tree.refill(v, it) for k, v in kwargs.items()}
        with dispatch.executing(batcher, _keeps):
            result = fn(*row, **named)
        try:
            where = list(tree.spread(out_axes, result))
        except ValueError as e:
            raise ArgumentError("vmap", f"out_axes={out_axes}: {e}", "give an axis for each result") from None
        return tree.refill(result, iter([_out(batcher, r, a) for r, a in zip(tree.leaves(result), where)]))

    return run


def _moved(flat: list[Any], places: list[Any]) -> tuple[list[Any], int]:
    """Mapped arguments with their axis in front, and the size that they share."""
    from .ops.shape import permute

    size, first, moved = None, None, []
    for x, p in zip(flat, places):
        if p is None:
            moved.append(x)
            continue
        if not isinstance(x, Tensor):
            raise ArgumentTypeError("vmap", f"maps tensors, got {type(x).__name__}", "give it in_axes=None")
        p = normalize_axis("vmap", p, x.ndim, x.type)
        if size is None:
            size, first = x.shape[p], x.type
        elif size != x.shape[p]:
            raise ArgumentError(
                "vmap", f"axis {p} of {x.type} has {x.shape[p]} elements, that of {first} has {size}",
                "map axes of equal size",
            )  # fmt: skip
        order = (p, *(a for a in range(x.ndim) if a != p))
        moved.append(x if p == 0 else permute(x, axes=order))
    if size is None:
        raise ArgumentError("vmap", "no argument is mapped", "give at least one tensor an axis in in_axes")
    return moved, size


def _out(batcher: Batcher, x: Any, axis: Any) -> Any:
    """A result with the batch axis where it is wanted."""
    from .ops.shape import permute

    if x is None:
        return None
    if not isinstance(x, (Tensor, int, float, bool)):
        raise ArgumentTypeError("vmap", f"the function returned {type(x).__name__}", "return tensors")
    if axis is None:
        if isinstance(x, Batched) and batcher.owns(x):
            raise VmapError(
                "vmap",
                f"a result {x.type} differs between examples, but its out_axes is None",
                "give it an axis",
            )
        return x
    inner = batcher.whole(x)
    axis = normalize_axis("vmap", axis, inner.ndim)
    order = [*range(1, inner.ndim)]
    order.insert(axis, 0)
    return inner if axis == 0 else permute(inner, axes=tuple(order))
