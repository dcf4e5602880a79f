"""What a random program may do with `cond`, `while_loop` and `scan`, and with gradients through them."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: {x}: a float tensor with a first axis, {y}: the name to make
LOOPS = (
    "{y} = dg.cond({x}.sum() > 0, lambda t: t * 2, lambda t: t + 1, {x})",
    "{y} = dg.cond({x}.sum() > 0, lambda t: t * m.w.to(t.dtype)[0], lambda t: t.sin(), {x})",
    "{y} = dg.cond(m.b.sum() > m.count, lambda: {x} * 2, lambda: {x} * 3)",
    "{y} = dg.cond({x}.sum() > 0, lambda r: (r['a'], r['b']), lambda r: (r['b'], r['a']), dict(a={x}, b={x} * 2))[0]",
    "{y} = dg.cond(m.count > 1, lambda t: t * 2, lambda t: t - 1, {x})\nm.count += 1",
    "{y} = dg.cond({x}.sum() > 0, lambda t: dg.nn.functional.dropout(t, 0.5), "
    "lambda t: t * dg.rand(t.shape).to(t.dtype), "
    "{x})",
    "{y} = dg.grad(lambda t: dg.cond(t.sum() > 0, lambda s: (s * s).sum(), lambda s: s.sin().sum(), t))({x})",
    "{y} = dg.vmap(lambda t: dg.cond(t.sum() > 0, lambda s: s * 2, lambda s: s - 1, t))({x})",
    "{y} = dg.scan(lambda c, t: (c * 0.5 + t, c), {x}[0] * 0, {x})[0]",
    "_, {y} = dg.scan(lambda c, t: (c + t, c * t), {x}[0], {x})",
    "_, {y} = dg.scan(lambda c, t: ((c[0] + t, c[1] * 0.5), c[0] * c[1]), ({x}[0], {x}[0] * 0 + 1), {x}, reverse=True)",
    "{y} = dg.scan(lambda c, _: (c * 0.9 + m.w.to(c.dtype)[1], None), {x}, length=3)[0]",
    "_, {y} = dg.scan(lambda c, t: (c * 0.5 + dg.rand(c.shape).to(c.dtype) * t, c), {x}[0], {x})",
    "{y} = dg.grad(lambda t: dg.scan(lambda c, s: (c * s, c + s), t[0] * 0 + 1, t)[1].sum())({x})",
    "{y} = dg.grad(lambda t: dg.grad(lambda s: dg.scan(lambda c, r: (c * r, None), s[0], s)[0].sum())(t).sum())({x})",
    "_, {y} = dg.scan(lambda c, t: (dg.cond(c.sum() > 0, lambda a: a - t, lambda a: a + t, c), c), {x}[0], {x})",
    "_, {y} = dg.scan(lambda c, t: (c + dg.scan(lambda d, _: (d * 0.5, d), t, length=2)[0], c), {x}[0], {x})",
    "_, {y} = dg.scan(lambda c, k: (c + k.to(c.dtype), c), {x}, dg.arange(3))",
    "_, {y} = dg.jvp(lambda t: dg.scan(lambda c, s: (c * s, c), t[0], t)[0], ({x},), ({x} * 0 + 1,))",
    "{y} = dg.vmap(lambda t: dg.scan(lambda c, _: (c * 0.5 + t, c), t * 0, length=2)[0])({x})",
    "{y} = dg.checkpoint(lambda t: dg.scan(lambda c, s: (c.tanh() + s, c), t[0], t)[1], {x})",
    "{y} = dg.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 0.5), (dg.tensor(0), {x}))[1]",
    "{y} = dg.while_loop(lambda c: (c[0] < 5) & (c[1].abs().sum() > 1), lambda c: (c[0] + 1, c[1] * 0.5 + m.b[0]), "
    "(0, {x}.to(dg.float32)))[1]",
    "{y} = dg.grad(lambda t: dg.while_loop(lambda c: c[0] < m.count % 3 + 1, lambda c: (c[0] + 1, c[1] * c[1]), "
    "(dg.tensor(0), t))[1].sum())({x})\nm.count += 1",
    "m.last = dg.scan(lambda c, t: (c + t, c), {x}[0], {x})[1]\n{y} = m.last * 2",
    "carry, {y} = dg.scan(lambda c, t: (c + t, c * 2), {x}[0], {x})\n{y} += carry",
)


def loops(h: Hand) -> Step | None:
    """Branches and loops inside the graph."""
    x = h.tensor(lambda t: is_float(t) and t.ndim and t.shape[0])
    if x is None:
        return None
    y = h.fresh()
    return Step(h.rng.choice(LOOPS).format(x=x, y=y), (y,))
