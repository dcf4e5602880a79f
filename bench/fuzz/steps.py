"""What a random program may do: each maker draws one step from the names at hand, or None when none fits."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import duograd as dg
import numpy as np

from ...core.declared import Ints, Sample
from ...core.op import REGISTRY, Op
from ...core.types import DTYPES, DType
from .program import Given, Step

Tensor = dg.Tensor
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int8", "uint8", "int16", "uint16", "uint32", "uint64")
AXIS_WORDS = ("axis", "dim")
#: reads clocks or devices, or is the machinery of other ops
LEFT_OUT = frozenset(("to_device",))


class Hand:
    """The names that a program has so far, with their values of the first call.

    fixed: names that may be changed in place for what the eager run says about them.
    """

    def __init__(self, rng: random.Random, dtype: str):
        self.rng, self.dtype = rng, dtype
        self.space: dict[str, Any] = {}
        self.names: list[str] = []
        self.new: list[Given] = []
        self.state: list[Given] = []
        #: what the named dims are in the first call
        self.sizes: dict[str, int] = {}
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def keep(self, x: Given) -> str:
        """New state of the program, `m.<name>`."""
        setattr(self.space["m"], x.name, eval(x.text({}, 7000 + len(self.state)), self.space))
        self.state.append(x)
        return f"m.{x.name}"

    def give(self, x: Given) -> str:
        """A new argument of the program."""
        for line in x.lines(self.sizes, len(self.new)):
            exec(line, self.space)
        self.new.append(x)
        self.names.append(x.name)
        return x.name

    def tensor(self, test: Callable[[Any], bool] = lambda x: True) -> str | None:
        """A name of a tensor that passes; late ones are likelier."""
        fit = [n for n in self.names if test(self.space[n])]
        if not fit:
            return None
        return fit[-1] if self.rng.random() < 0.5 else self.rng.choice(fit)

    def like(self, x: Any, test: Callable[[Any], bool] = lambda x: True) -> str | None:
        """A name of a tensor that broadcasts with x."""
        return self.tensor(lambda y: test(y) and _fits(x.shape, y.shape))

    def number(self) -> str:
        return self.rng.choice(("2", "0.5", "-1", "3", "1", "0", "1.5", "-0.25", "1e-3", "True", "100"))

    def axis(self, x: Any) -> int:
        n = x.ndim
        return self.rng.randrange(-n, n) if n else self.rng.choice((0, -1))

    def axes(self, x: Any) -> str:
        r = self.rng.random()
        if r < 0.3 or not x.ndim:
            return "None"
        if r < 0.7 or x.ndim < 2:
            return str(self.axis(x))
        return str(tuple(sorted(self.rng.sample(range(x.ndim), self.rng.randint(1, x.ndim)))))


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or m == 1 or n == 1 for m, n in zip(reversed(a), reversed(b)))


def is_float(x: Any) -> bool:
    return bool(x.dtype.is_float)


def is_number(x: Any) -> bool:
    return x.dtype is not dg.bool


def _literal(value: Any) -> str:
    if isinstance(value, DType):
        return f"dg.{value.name}"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, (tuple, list)):
        inner = ", ".join(map(_literal, value))
        return f"({inner}{',' if len(value) == 1 else ''})" if isinstance(value, tuple) else f"[{inner}]"
    return repr(value)


def _named(names: tuple[str, ...]) -> str:
    """The left side of an assignment; nothing where there are no results."""
    return f"{', '.join(names)}{',' if len(names) > 1 else ''} = " if names else ""


def _attrs(attrs: dict[str, Any]) -> str:
    return "".join(f", {k}={_literal(v)}" for k, v in attrs.items())


PUBLIC_OPS = [
    op for op in REGISTRY.values() if not op.internal and op.name not in LEFT_OUT and not op.creates
]
POINTWISE = [op for op in PUBLIC_OPS if op.kind == "pointwise" and op.samples]
SAMPLED = [(op, s) for op in PUBLIC_OPS for s in op.samples]
REDUCTIONS = [
    op for op in PUBLIC_OPS if {"axis", "keepdims"} <= set(op.attr_names) and len(op.input_names) == 1
]
ALONG = [
    op
    for op in PUBLIC_OPS
    if len(op.input_names) == 1
    and op not in REDUCTIONS
    and not op.variadic
    and set(op.attr_names) & set(AXIS_WORDS)
]


# -- computing -----------------------------------------------------------------------------


def pointwise(h: Hand) -> Step | None:
    """A pointwise op of the registry on one to three operands, numbers among them."""
    op = h.rng.choice(POINTWISE)
    sample = h.rng.choice(op.samples)
    x = h.tensor()
    if x is None:
        return None
    row = [x]
    for a in sample.args[1:]:
        other = h.like(h.space[x])
        if a is None or (isinstance(a, (int, float)) and h.rng.random() < 0.6):
            row.append(_literal(a))
        elif other is None or h.rng.random() < 0.2:
            row.append(h.number())
        else:
            row.append(other)
    if len(row) > 1 and h.rng.random() < 0.15:
        h.rng.shuffle(row)
    y = h.fresh()
    return Step(f"{y} = dg.{op.name}({', '.join(row)}{_attrs(sample.attrs)})", (y,))


def operator(h: Hand) -> Step | None:
    """A Python operator."""
    x = h.tensor(is_number) or h.tensor()
    if x is None:
        return None
    sign = h.rng.choice(
        ("+", "-", "*", "+", "-", "*", "/", "//", "%", "**", "<", ">=", "==", "!=", "&", "|", "^", "<<")
    )
    other = h.number() if sign == "**" or h.rng.random() < 0.35 else h.like(h.space[x])
    if other is None:
        return None
    y = h.fresh()
    a, b = (x, other) if h.rng.random() < 0.75 else (other, x)
    return Step(f"{y} = {a} {sign} {b}", (y,))


def unary(h: Hand) -> Step | None:
    x = h.tensor(is_float) or h.tensor()
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(
        (
            "-{x}",
            "abs({x})",
            "{x}.exp()",
            "dg.relu({x})",
            "{x}.sigmoid()",
            "dg.tanh({x})",
            "{x} ** 2",
            "{x}.clone()",
            "~({x} > 0)",
            "{x}.detach()",
            "dg.gelu({x})",
            "{x}.clip(-1, 1)",
            "{x}.sqrt()",
            "dg.sin({x})",
            "dg.log({x})",
            "1 / {x}",
            "{x} * {x}",
            "dg.where({x} > 0, {x}, {x} * 0.5)",
            "dg.silu({x})",
            "{x}.round()",
        )
    )
    return Step(f"{y} = {form.format(x=x)}", (y,))


def cast(h: Hand) -> Step | None:
    x = h.tensor()
    if x is None:
        return None
    y = h.fresh()
    return Step(f"{y} = {x}.to(dg.{h.rng.choice([*FLOATS, *INTEGERS[:4], 'bool', 'complex64'])})", (y,))


def reduction(h: Hand) -> Step | None:
    op = h.rng.choice(REDUCTIONS)
    if h.rng.random() < 0.5:
        op = REGISTRY[h.rng.choice(("sum", "mean", "max", "min", "var", "argmax", "prod", "any"))]
    x = h.tensor()
    if x is None:
        return None
    y = h.fresh()
    axis = str(h.axis(h.space[x])) if op.name.startswith("arg") else h.axes(h.space[x])
    keep = h.rng.choice(("", "", ", keepdims=True"))
    return Step(f"{y} = dg.{op.name}({x}, axis={axis}{keep})", (y,))


def along(h: Hand) -> Step | None:
    """An op along an axis: softmax, cumsum, sort, ..."""
    op = h.rng.choice(ALONG)
    x = h.tensor()
    if x is None:
        return None
    sample = h.rng.choice(op.samples) if op.samples else Sample(())
    attrs = {k: v for k, v in sample.attrs.items() if k not in AXIS_WORDS}
    word = next(w for w in AXIS_WORDS if w in op.attr_names)
    attrs[word] = h.axis(h.space[x])
    outs = _count(op, [h.space[x]], attrs)
    ys = tuple(h.fresh() for _ in range(outs))
    return Step(f"{_named(ys)}dg.{op.name}({x}{_attrs(attrs)})", ys)


def _count(op: Op, row: list[Any], attrs: dict[str, Any]) -> int:
    """How many results an op has; 1 when it refuses."""
    try:
        with dg.no_grad():
            made = op(*row, **attrs)
    except Exception:
        return 1
    return len(made) if isinstance(made, tuple) else 1


def softmax_like(h: Hand) -> Step | None:
    x = h.tensor(lambda t: is_float(t) and t.ndim)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(
        (
            "dg.softmax({x}, axis={a})",
            "dg.log_softmax({x}, axis={a})",
            "dg.logsumexp({x}, axis={a})",
            "{x} - {x}.mean(axis={a}, keepdims=True)",
            "dg.nn.functional.layer_norm({x}, {n})",
            "dg.nn.functional.rms_norm({x}, {n})",
            "{x} / ({x} * {x}).sum(axis={a}, keepdims=True)",
            "({x} * {x}).sum(axis={a})",
            "dg.cumsum({x}, axis={a})",
            "{x} / {x}.abs().max(axis={a}, keepdims=True)",
            "dg.sort({x}, axis={a})[0]",
        )
    )
    t = h.space[x]
    return Step(f"{y} = {form.format(x=x, a=h.axis(t), n=(t.shape[-1],))}", (y,))


def product(h: Hand) -> Step | None:
    x = h.tensor(lambda t: is_float(t) and t.ndim >= 1)
    if x is None:
        return None
    t = h.space[x]
    y = h.fresh()
    other = h.tensor(lambda o: o.dtype is t.dtype and o.ndim >= 1 and o.shape[-1] == t.shape[-1])
    k = h.rng.randrange(4)
    if t.ndim >= 2 and k == 0:
        return Step(f"{y} = {x}.mT @ {x}", (y,))
    if other is not None and h.space[other].ndim >= 2 and k == 1:
        return Step(
            f"{y} = dg.linear({x}, {other})" if h.space[other].ndim == 2 else f"{y} = {x} @ {other}.mT", (y,)
        )
    w = add_given(h, (t.shape[-1], h.rng.choice((1, 3, 5, 16))), t.dtype.name)
    tail = h.rng.choice(("", " + 1", ".tanh()", " * 0.5"))
    if h.rng.random() < 0.35:
        half = f"dg.{h.rng.choice(('bfloat16', 'float16'))}"
        return Step(h.rng.choice(_NARROW).format(y=y, x=x, w=w, half=half, tail=tail), (y,))
    return Step(f"{y} = ({x} @ {w}){tail}", (y,))


#: products of 16-bit floats: of casts, which their kernels may do, and of casts that others read, too
_NARROW = (
    "{y} = ({x}.to({half}) @ {w}.to({half})){tail}",
    "{y} = ({x}.to({half}) @ {w}.to({half})){tail}",
    "{y} = ({x} @ {w}.to({half})){tail}",
    "{y} = ({w}.to({half}).mT @ {x}.to({half}).reshape(-1, {x}.shape[-1]).mT){tail}",
    "{y} = {w}.to({half})\n{y} = ({x}.to({half}) @ {y} @ {y}.mT){tail}",
    "{y} = {w}.to({half})\n{y} = ({x}.to({half}) @ {y}){tail} + {y}.sum()",
    "with dg.amp.autocast(dtype={half}):\n    {y} = ({x} @ {w}){tail}",
    "with dg.amp.autocast(dtype={half}):\n    {y} = dg.relu(dg.linear({x}, {w}.mT)){tail}",
)


def einsum(h: Hand) -> Step | None:
    x = h.tensor(lambda t: is_float(t) and t.ndim == 2)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(
        (
            "'ij->ji', {x}",
            "'ij,ij->i', {x}, {x}",
            "'ij,kj->ik', {x}, {x}",
            "'ij->', {x}",
            "'ij,ij->j', {x}, {x}",
        )
    )
    return Step(f"{y} = dg.einsum({form.format(x=x)})", (y,))


def add_given(h: Hand, shape: tuple[int, ...], dtype: str, **options: Any) -> str:
    """A new input of the program."""
    return h.give(Given(f"x{len(h.new)}", tuple(shape), dtype, **options))


def sampled(h: Hand) -> Step | None:
    """Any op of the registry with a sample's arguments; tensors at hand stand in where shapes allow."""
    op, sample = h.rng.choice(SAMPLED)
    return call_sample(h, op, sample)


def _has_shape(shape: tuple[int, ...], t: Any) -> bool:
    return bool(t.shape == shape and t.dtype.is_float)


def call_sample(h: Hand, op: Op, sample: Sample, spoil: bool = False) -> Step | None:
    row = []
    dtype = h.dtype if h.rng.random() < 0.8 else "float32"
    for a in sample.args:
        if isinstance(a, Ints):
            row.append(add_given(h, a.shape, a.dtype, low=a.low, high=a.high))
        elif isinstance(a, tuple):
            fit = functools.partial(_has_shape, a)
            here = h.tensor(fit) if h.rng.random() < 0.4 else None
            layout = h.rng.choice(("dense", "dense", "dense", "strided", "transposed", "shifted"))
            grad = sample.grad and DTYPES[dtype].has_gradient and h.rng.random() < 0.5
            row.append(
                here
                or add_given(
                    h,
                    a,
                    dtype,
                    low=sample.low,
                    high=sample.high,
                    layout=layout,
                    grad=grad,
                )
            )
        elif isinstance(a, np.ndarray):
            kind = dtype if a.dtype.kind == "f" else a.dtype.name
            row.append(add_given(h, a.shape, kind, values=tuple(a.reshape(-1).tolist())))
        else:
            row.append(_literal(a))
    attrs = dict(sample.attrs)
    outs = _count(op, [h.space[n] if n in h.space else _value(n) for n in row], attrs)
    ys = tuple(h.fresh() for _ in range(outs))
    return Step(f"{_named(ys)}dg.{op.name}({', '.join(row)}{_attrs(attrs)})", ys)


def _value(text: str) -> Any:
    return eval(text, {"dg": dg})


# -- shapes ----------------------------------------------------------------------------------


def view(h: Hand) -> Step | None:
    x = h.tensor(lambda t: t.ndim)
    if x is None:
        return None
    t = h.space[x]
    y, r, a = h.fresh(), h.rng, h.axis(t)
    n = t.shape[a]
    forms = [
        f"{x}.reshape(-1)",
        f"{x}[1:]",
        f"{x}[..., ::2]",
        f"{x}[::-1]",
        f"{x}[None]",
        f"{x}[..., None]",
        f"{x}.unsqueeze({a})",
        f"{x}.flip({a})",
        f"{x}[:, None]",
        f"{x}.squeeze()",
        f"{x}[-1]",
        f"{x}[..., 0]",
        f"dg.roll({x}, 1, {a})",
        f"{x}.reshape({x}.shape[0], -1)",
        f"{x}[..., 1:-1]",
        f"{x}.narrow({a}, 0, {max(n // 2, 1)})",
        f"dg.moveaxis({x}, {a}, 0)",
        f"{x}.expand(2, *{x}.shape)",
        f"dg.broadcast_to({x}, (2, *{x}.shape))",
        f"{x}[:2]",
        f"{x}[...]",
        f"{x}.contiguous()",
        f"dg.tile({x}, (2,))",
        f"{x}.select({a}, {r.randrange(max(n, 1))})",
    ]
    if t.ndim > 1:
        order = list(range(t.ndim))
        r.shuffle(order)
        forms += [f"{x}.mT", f"{x}.permute({', '.join(map(str, order))})", f"{x}.flatten()", f"{x}[:, 1:]"]
        forms += [
            f"dg.diagonal({x})",
            f"{x}[1:, ::2]",
            f"{x}.reshape(-1, {x}.shape[0])",
            f"{x}[:, -1]",
            f"dg.tril({x})",
        ]
    return Step(f"{y} = {r.choice(forms)}", (y,))


def join(h: Hand) -> Step | None:
    x = h.tensor(lambda t: t.ndim)
    if x is None:
        return None
    t = h.space[x]
    y, a = h.fresh(), h.axis(t)
    other = h.tensor(lambda o: o.shape == t.shape) or x
    form = h.rng.choice(
        (
            f"dg.concat([{x}, {other}], axis={a})",
            f"dg.stack([{x}, {other}], axis={a})",
            f"dg.concat([{x}, {other} * 2, {x}], axis={a})",
            f"dg.concat([{x}[:1], {other}])",
        )
    )
    return Step(f"{y} = {form}", (y,))


def pieces(h: Hand) -> Step | None:
    x = h.tensor(lambda t: t.ndim and max(t.shape) > 1)
    if x is None:
        return None
    t = h.space[x]
    a = max(range(t.ndim), key=lambda k: t.shape[k])
    y, z = h.fresh(), h.fresh()
    form = h.rng.choice(
        (f"{x}.chunk(2, {a})", f"dg.tensor_split({x}, 2, {a})", f"{x}.split([1, {x}.shape[{a}] - 1], {a})")
    )
    return Step(f"{y}, {z} = {form}", (y, z))


def index(h: Hand) -> Step | None:
    x = h.tensor(lambda t: t.ndim and t.shape[0] > 0)
    if x is None:
        return None
    t = h.space[x]
    y, n = h.fresh(), t.shape[0]
    whole = h.tensor(lambda o: o.dtype is dg.int64 and o.ndim <= 2 and o.size and _within(o, n))
    forms = [
        f"{x}[dg.tensor({[h.rng.randrange(-n, n) for _ in range(3)]})]",
        f"{x}[{x} > 0]",
        f"dg.take({x}, dg.tensor([0, {n - 1}]), axis=0)",
        f"dg.argsort({x}, axis=0)",
        f"dg.take_along_axis({x}, dg.argsort({x}, axis=0), axis=0)",
        f"dg.nonzero({x})[0]",
        f"{x}[dg.tensor([True] + [False] * {n - 1})]",
        f"dg.unique({x})",
        f"{x}.repeat_interleave(2, 0)",
        f"dg.masked_fill({x}, {x} > 0, 0)",
        f"dg.scatter_add({x}, 0, dg.argsort({x}, axis=0), {x})",
        f"dg.index_select({x}, 0, dg.tensor([{n - 1}, 0]))",
    ]
    if whole is not None:
        forms += [f"{x}[{whole}]", f"dg.take({x}, {whole}, axis=0)"] * 3
    return Step(f"{y} = {h.rng.choice(forms)}", (y,))


def _within(o: Any, n: int) -> bool:
    a = np.asarray(o.detach())
    return bool(((a >= -n) & (a < n)).all())
