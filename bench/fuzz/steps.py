"""What a random program may do: each maker draws one step from the names at hand, or None when none fits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np

import duograd as dg

from ...core.op import REGISTRY, Ints, Op, Sample
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
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

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


def _attrs(attrs: dict[str, Any]) -> str:
    return "".join(f", {k}={_literal(v)}" for k, v in attrs.items())


PUBLIC_OPS = [
    op for op in REGISTRY.values() if not op.internal and op.name not in LEFT_OUT and not op.creates
]
POINTWISE = [op for op in PUBLIC_OPS if op.kind == "pointwise" and op.samples]
SAMPLED = [(op, s) for op in PUBLIC_OPS for s in op.samples]
REDUCTIONS = [op for op in PUBLIC_OPS if {"axis", "keepdims"} <= set(op.attr_names) and len(op.input_names) == 1]
ALONG = [
    op for op in PUBLIC_OPS
    if len(op.input_names) == 1 and op not in REDUCTIONS and not op.variadic and set(op.attr_names) & set(AXIS_WORDS)
]  # fmt: skip


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
    sign = h.rng.choice(("+", "-", "*", "+", "-", "*", "/", "//", "%", "**", "<", ">=", "==", "!=", "&", "|", "^", "<<"))
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
    form = h.rng.choice((
        "-{x}", "abs({x})", "{x}.exp()", "dg.relu({x})", "{x}.sigmoid()", "dg.tanh({x})", "{x} ** 2", "{x}.clone()",
        "~({x} > 0)", "{x}.detach()", "dg.gelu({x})", "{x}.clip(-1, 1)", "{x}.sqrt()", "dg.sin({x})", "dg.log({x})",
        "1 / {x}", "{x} * {x}", "dg.where({x} > 0, {x}, {x} * 0.5)", "dg.silu({x})", "{x}.round()",
    ))  # fmt: skip
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
    return Step(f"{', '.join(ys)}{',' if outs > 1 else ''} = dg.{op.name}({x}{_attrs(attrs)})", ys)


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
    form = h.rng.choice((
        "dg.softmax({x}, axis={a})", "dg.log_softmax({x}, axis={a})", "dg.logsumexp({x}, axis={a})",
        "{x} - {x}.mean(axis={a}, keepdims=True)", "dg.layer_norm({x}, {n})", "dg.rms_norm({x}, {n})",
        "{x} / ({x} * {x}).sum(axis={a}, keepdims=True)", "({x} * {x}).sum(axis={a})", "dg.cumsum({x}, axis={a})",
        "{x} / {x}.abs().max(axis={a}, keepdims=True)", "dg.sort({x}, axis={a})[0]",
    ))  # fmt: skip
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
        return Step(f"{y} = dg.linear({x}, {other})" if h.space[other].ndim == 2 else f"{y} = {x} @ {other}.mT", (y,))
    w = add_given(h, (t.shape[-1], h.rng.choice((1, 3, 5, 16))), t.dtype.name)
    tail = h.rng.choice(("", " + 1", ".tanh()", " * 0.5"))
    return Step(f"{y} = ({x} @ {w}){tail}", (y,))


def einsum(h: Hand) -> Step | None:
    x = h.tensor(lambda t: is_float(t) and t.ndim == 2)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(("'ij->ji', {x}", "'ij,ij->i', {x}, {x}", "'ij,kj->ik', {x}, {x}", "'ij->', {x}", "'ij,ij->j', {x}, {x}"))
    return Step(f"{y} = dg.einsum({form.format(x=x)})", (y,))


def add_given(h: Hand, shape: tuple[int, ...], dtype: str, **options: Any) -> str:
    """A new input of the program."""
    name = f"x{len(h.new)}"
    made = Given(name, tuple(shape), dtype, **options)
    h.new.append(made)
    h.names.append(name)
    h.space[name] = eval_given(made, len(h.new) - 1)
    return name


def eval_given(made: Given, number: int) -> Any:
    from .program import given

    return eval(made.text({}, number), {"given": given})


def sampled(h: Hand) -> Step | None:
    """Any op of the registry with a sample's arguments; tensors at hand stand in where shapes allow."""
    op, sample = h.rng.choice(SAMPLED)
    return call_sample(h, op, sample)


def call_sample(h: Hand, op: Op, sample: Sample, spoil: bool = False) -> Step | None:
    row = []
    dtype = h.dtype if h.rng.random() < 0.8 else "float32"
    for a in sample.args:
        if isinstance(a, Ints):
            row.append(add_given(h, a.shape, a.dtype, low=a.low, high=a.high))
        elif isinstance(a, tuple):
            here = h.tensor(lambda t, s=a: t.shape == s and is_float(t)) if h.rng.random() < 0.4 else None
            layout = h.rng.choice(("dense", "dense", "dense", "strided", "transposed", "shifted"))
            grad = sample.grad and DTYPES[dtype].has_gradient and h.rng.random() < 0.5
            row.append(here or add_given(
                h, a, dtype, low=sample.low, high=sample.high, layout=layout, grad=grad,
            ))  # fmt: skip
        elif isinstance(a, np.ndarray):
            kind = dtype if a.dtype.kind == "f" else a.dtype.name
            row.append(add_given(h, a.shape, kind, values=tuple(a.reshape(-1).tolist())))
        else:
            row.append(_literal(a))
    attrs = dict(sample.attrs)
    outs = _count(op, [h.space[n] if n in h.space else _value(n) for n in row], attrs)
    ys = tuple(h.fresh() for _ in range(outs))
    return Step(f"{', '.join(ys)}{',' if outs > 1 else ''} = dg.{op.name}({', '.join(row)}{_attrs(attrs)})", ys)


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
        f"{x}.reshape(-1)", f"{x}[1:]", f"{x}[..., ::2]", f"{x}[::-1]", f"{x}[None]", f"{x}[..., None]",
        f"{x}.unsqueeze({a})", f"{x}.flip({a})", f"{x}[:, None]", f"{x}.squeeze()", f"{x}[-1]", f"{x}[..., 0]",
        f"dg.roll({x}, 1, {a})", f"{x}.reshape({x}.shape[0], -1)", f"{x}[..., 1:-1]", f"{x}.narrow({a}, 0, {max(n // 2, 1)})",
        f"dg.moveaxis({x}, {a}, 0)", f"{x}.expand(2, *{x}.shape)", f"dg.broadcast_to({x}, (2, *{x}.shape))",
        f"{x}[:2]", f"{x}[...]", f"{x}.contiguous()", f"dg.tile({x}, (2,))", f"{x}.select({a}, {r.randrange(max(n, 1))})",
    ]  # fmt: skip
    if t.ndim > 1:
        order = list(range(t.ndim))
        r.shuffle(order)
        forms += [f"{x}.mT", f"{x}.permute({', '.join(map(str, order))})", f"{x}.flatten()", f"{x}[:, 1:]"]
        forms += [f"dg.diagonal({x})", f"{x}[1:, ::2]", f"{x}.reshape(-1, {x}.shape[0])", f"{x}[:, -1]", f"dg.tril({x})"]
    return Step(f"{y} = {r.choice(forms)}", (y,))


def join(h: Hand) -> Step | None:
    x = h.tensor(lambda t: t.ndim)
    if x is None:
        return None
    t = h.space[x]
    y, a = h.fresh(), h.axis(t)
    other = h.tensor(lambda o: o.shape == t.shape) or x
    form = h.rng.choice((
        f"dg.concat([{x}, {other}], axis={a})", f"dg.stack([{x}, {other}], axis={a})",
        f"dg.concat([{x}, {other} * 2, {x}], axis={a})", f"dg.concat([{x}[:1], {other}])",
    ))  # fmt: skip
    return Step(f"{y} = {form}", (y,))


def pieces(h: Hand) -> Step | None:
    x = h.tensor(lambda t: t.ndim and max(t.shape) > 1)
    if x is None:
        return None
    t = h.space[x]
    a = max(range(t.ndim), key=lambda k: t.shape[k])
    y, z = h.fresh(), h.fresh()
    form = h.rng.choice((f"{x}.chunk(2, {a})", f"dg.tensor_split({x}, 2, {a})", f"{x}.split([1, {x}.shape[{a}] - 1], {a})"))
    return Step(f"{y}, {z} = {form}", (y, z))


def index(h: Hand) -> Step | None:
    x = h.tensor(lambda t: t.ndim and t.shape[0] > 0)
    if x is None:
        return None
    t = h.space[x]
    y, n = h.fresh(), t.shape[0]
    whole = h.tensor(lambda o: o.dtype is dg.int64 and o.ndim <= 2 and o.size and _within(o, n))
    forms = [
        f"{x}[dg.tensor({[h.rng.randrange(-n, n) for _ in range(3)]})]", f"{x}[{x} > 0]", f"dg.take({x}, dg.tensor([0, {n - 1}]), axis=0)",
        f"dg.argsort({x}, axis=0)", f"dg.take_along_axis({x}, dg.argsort({x}, axis=0), axis=0)", f"dg.nonzero({x})[0]",
        f"{x}[dg.tensor([True] + [False] * {n - 1})]", f"dg.unique({x})", f"{x}.repeat_interleave(2, 0)",
        f"dg.masked_fill({x}, {x} > 0, 0)", f"dg.scatter_add({x}, 0, dg.argsort({x}, axis=0), {x})",
        f"dg.index_select({x}, 0, dg.tensor([{n - 1}, 0]))",
    ]  # fmt: skip
    if whole is not None:
        forms += [f"{x}[{whole}]", f"dg.take({x}, {whole}, axis=0)"] * 3
    return Step(f"{y} = {h.rng.choice(forms)}", (y,))


def _within(o: Any, n: int) -> bool:
    a = np.asarray(o.detach())
    return bool(((a >= -n) & (a < n)).all())


# -- effects -----------------------------------------------------------------------------------


def in_place(h: Hand) -> Step | None:
    """A change of a tensor: of a result, a view, an input or state."""
    x = h.tensor(lambda t: not (t._requires_grad and t._node is None) and (is_number(t) or h.rng.random() < 0.3))
    if x is None:
        return None
    t = h.space[x]
    other = h.like(t, lambda o: _fits_into(o, t)) or h.number()
    forms = [
        f"{x} += {other}", f"{x} *= {h.number()}", f"{x} -= {other}", f"{x}.add_({other})", f"{x}.fill_({h.number()})",
        f"{x}.zero_()", f"{x}.copy_({other})", f"{x}[...] = {other}",
    ]  # fmt: skip
    if is_float(t):
        forms += [f"{x} /= 2", f"{x}.div_(3)", f"{x} **= 2"]
    if t.ndim:
        forms += [
            f"{x}[0] = {h.number()}", f"{x}[..., 0] += 1", f"{x}[::2] *= 2", f"{x}[1:] = {x}[:-1].clone()", f"{x}[{x} > 0] = 0",
            f"{x}[dg.tensor([0, -1])] = 1", f"{x}.masked_fill_({x} < 0, 1)", f"{x}.reshape(-1)[0] = 3", f"{x}.mT[0] = 2" if t.ndim > 1 else f"{x}[-1:] += 2",
            f"{x}.index_add_(0, dg.tensor([0]), {x}[:1].clone())", f"{x}[1:] += {x}[:-1]", f"{x}[:] = {x}.flip(0)",
        ]  # fmt: skip
    return Step(h.rng.choice(forms))


def _fits_into(o: Any, t: Any) -> bool:
    if len(o.shape) > len(t.shape) or (o.dtype.has_gradient and not t.dtype.has_gradient):
        return False
    return all(m == n or m == 1 for m, n in zip(reversed(o.shape), reversed(t.shape)))


def branch(h: Hand) -> Step | None:
    """A Python branch or loop on a tensor's value."""
    x = h.tensor(lambda t: is_number(t) and not t.dtype.is_complex)
    if x is None:
        return None
    y = h.fresh()
    total = f"{x}.to(dg.float32).sum()"
    form = h.rng.choice((
        f"if {total} > {{c}}:\n    {y} = {x} * 2\nelse:\n    {y} = {x} + 1",
        f"{y} = {x}\nif {total} > {{c}}:\n    {y} = {y} - 1",
        f"{y} = {x} * 1.5\nwhile {y}.to(dg.float32).abs().sum() > 1 and m.count < 3:\n    {y} = {y} * 0.5\n    m.count += 1\nm.count = 0",
        f"{y} = {x} if bool({total} < {{c}}) else -{x}",
        f"n = int(({x} > 0).sum()) % 3\n{y} = {x}\nfor _ in range(n):\n    {y} = {y} * 2 + 1",
        f"if not dg.isfinite({total}):\n    return {x}\n{y} = {x} + 0.5",
        f"{y} = {x} * float({total} > 0)",
        f"if {total} > {{c}}:\n    {x}[...] = 1\n{y} = {x} + 0",
    ))  # fmt: skip
    return Step(form.format(c=h.rng.choice((0, 1, -3, 10))), (y,))


def state(h: Hand) -> Step | None:
    """Reads and changes what the program keeps."""
    x = h.tensor(lambda t: is_float(t) and t.size)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice((
        f"m.count += 1\n{y} = {x} * m.count", f"{y} = {x} * m.scale\nm.scale = 2.5", f"m.log.append({x}.sum())\n{y} = m.log[-1] + 1",
        f"m.last = {x}\n{y} = m.last * 2", f"{y} = {x} + m.b.to({x}.dtype).sum()\nm.b += 1", f"m.b[0] += {x}.detach().to(dg.float32).sum()\n{y} = {x} * 1",
        f"{y} = {x} * m.w.to({x}.dtype)[0]", f"{y} = {x}.to(dg.float32).sum() + m.w", f"m.b.copy_(m.b * 0.9 + {x}.detach().to(dg.float32).mean() * 0.1)\n{y} = {x} - m.b[0].to({x}.dtype)",
        f"with dg.no_grad():\n    m.w -= 0.1\n{y} = m.w * 2", f"if len(m.log) < 2:\n    m.log.append(m.count)\n{y} = {x} + len(m.log)",
        f"m.b = m.b * 2\n{y} = m.b + 1",
    ))  # fmt: skip
    return Step(form, (y,))


def randomness(h: Hand) -> Step | None:
    x = h.tensor(is_float)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice((
        "{x} + dg.rand({x}.shape).to({x}.dtype)", "dg.nn.functional.dropout({x}, 0.5)", "dg.randn({x}.shape)", "{x} * dg.bernoulli(dg.full({x}.shape, 0.5)).to({x}.dtype)",
        "dg.randint(0, 5, {x}.shape)", "dg.rand_like({x}) * {x}", "dg.randperm(5)", "dg.normal(0.0, 1.0, (3,))",
    ))  # fmt: skip
    return Step(f"{y} = {form.format(x=x)}", (y,))


def gradient(h: Hand) -> Step | None:
    """A gradient inside the function: backward and .grad, functional, nested."""
    x = h.tensor(lambda t: is_float(t) and t._requires_grad)
    t = h.tensor(lambda t: is_float(t) and t.ndim)
    leaf = h.tensor(lambda t: is_float(t) and t._requires_grad and t._node is None)
    y = h.fresh()
    forms = []
    if x is not None:
        forms += [
            f"{x}.sum().backward(retain_graph=True)\n{y} = {x}.detach() * 1", f"({x} * {x}).sum().backward(retain_graph=True)\n{y} = {x}.detach() + 1",
        ]  # fmt: skip
        if leaf is not None:
            forms += [
                f"{x}.sum().backward(retain_graph=True)\n{y} = {leaf}.grad", f"{leaf}.grad = None\n({x} * {x}).sum().backward(retain_graph=True)\n{y} = {leaf}.grad",
                f"{x}.tanh().sum().backward(create_graph=True)\n{y} = {leaf}.grad",
                f"with dg.no_grad():\n    {leaf} -= 0.1 * {leaf}\n{y} = {leaf} * 2",
            ]  # fmt: skip
    if t is not None:
        forms += [
            f"{y} = dg.grad(lambda t: (dg.sin(t) * t).sum())({t})", f"{y} = dg.grad(lambda t: dg.grad(lambda s: (s ** 3).sum())(t).sum())({t})",
            f"v, {y} = dg.value_and_grad(lambda t: (t * t).mean())({t})", f"_, {y} = dg.jvp(dg.tanh, ({t},), ({t} * 0 + 1,))",
            f"_, pull = dg.vjp(dg.exp, {t})\n{y} = pull({t} * 0 + 1)", f"{y} = dg.vmap(lambda t: t.sum() * t)({t})", f"{y} = dg.checkpoint(lambda t: dg.gelu(t) * t, {t})",
        ]  # fmt: skip
    if not forms:
        return None
    return Step(h.rng.choice(forms), (y,))


def attention_like(h: Hand) -> Step | None:
    """Small pieces of models."""
    x = h.tensor(lambda t: is_float(t) and t.ndim >= 2 and t.size)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice((
        "dg.softmax({x} @ {x}.mT * 0.5, axis=-1) @ {x}", "dg.mse_loss({x}, {x} * 0.5)", "dg.cross_entropy({x}.reshape(-1, {x}.shape[-1]), dg.zeros(({x}.size // {x}.shape[-1],), dtype=dg.int64))",
        "dg.layer_norm({x}, ({x}.shape[-1],)) + {x}", "dg.relu({x} @ {x}.mT + 1).mean(axis=-1)", "(({x} - {x}.mean(axis=0)) / ({x}.var(axis=0) + 1e-5).sqrt()).sum(axis=1)",
    ))  # fmt: skip
    return Step(f"{y} = {form.format(x=x)}", (y,))


#: makers with their weights, by the temper of a program
TEMPERS: dict[str, dict[Callable[[Hand], Step | None], int]] = {
    "ops": {sampled: 8, pointwise: 4, operator: 2, reduction: 2, view: 2, along: 3, cast: 1},
    "chain": {pointwise: 3, operator: 5, unary: 5, reduction: 5, softmax_like: 3, view: 4, join: 1, cast: 1, product: 1},
    "shapes": {view: 6, join: 3, pieces: 3, index: 5, operator: 3, reduction: 2, along: 2, unary: 1},
    "effects": {in_place: 8, view: 4, operator: 3, unary: 2, state: 4, branch: 2, randomness: 1, reduction: 1, index: 1},
    "gradients": {gradient: 5, operator: 4, unary: 4, reduction: 2, softmax_like: 2, view: 2, product: 2, in_place: 1, attention_like: 2},
    "control": {branch: 5, state: 3, operator: 3, unary: 2, randomness: 2, reduction: 2, gradient: 1, index: 1},
    "models": {product: 4, attention_like: 4, softmax_like: 3, einsum: 2, operator: 2, unary: 2, reduction: 1, gradient: 1, randomness: 1},
}  # fmt: skip
