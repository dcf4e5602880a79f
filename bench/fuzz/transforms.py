"""What a random program may do with functions of functions: vmap, jvp, jacobian, checkpoint, nested."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: what is transformed: of one tensor {t}, to one of the same shape
BODIES = (
    "t * t", "t.sin() * m.scale", "dg.tanh(t) + m.w.to(t.dtype)[0]", "dg.softmax(t, axis=-1)", "t / (1 + t.abs())",
    "t.cumsum(-1)", "t - t.mean()", "t * dg.relu(t)", "dg.gelu(t)", "t * t.sum()", "dg.sort(t, axis=-1)[0]",
    "t.flip(-1) * t", "dg.where(t > 0, t, t * 0.5)",
    "dg.nn.functional.layer_norm(t, (t.shape[-1],))", "t ** 3", "dg.exp(-t * t)",
    "t * m.count", "t.clip(-1, 1) * t", "t.detach() * t", "dg.custom_gradient(lambda s: (s * 2, lambda g: g * 3))(t)",
    "dg.checkpoint(lambda s: s.tanh() * s, t)", "t.roll(1, -1) + t",
    "dg.scan(lambda c, _: (c * 0.5 + t, None), t, length=2)[0]",
    "dg.cond(t.sum() > 0, lambda s: s * 2, lambda s: s - 1, t)", "dg.logsumexp(t, axis=-1, keepdims=True) + t",
    "(t[..., None] * t[..., None, :]).sum(axis=-1)", "t.masked_fill(t > 1, 0)", "m.inner(t)",
    "t.to(dg.float64).sin().to(t.dtype)", "t.max(axis=-1, keepdims=True) * t", "t + dg.rand(t.shape).to(t.dtype)",
)  # fmt: skip
#: {x}: a float tensor of one axis or more, {f}: a body as a function, {y}: the name to make
FORMS = (
    "{y} = dg.vmap({f})({x})", "{y} = dg.vmap(dg.grad(lambda t: ({f})(t).sum()))({x})",
    "{y} = dg.vmap({f}, in_axes=-1, out_axes=-1)({x})",
    "{y} = dg.vmap(lambda t, s: ({f})(t) * s, in_axes=(0, None))({x}, {x}[0])",
    "{y} = dg.vmap(dg.vmap({f}))({x}) if {x}.ndim > 2 else {x}", "_, {y} = dg.jvp({f}, ({x},), ({x} * 0 + 1,))",
    "v, {y} = dg.jvp({f}, ({x},), ({x},))\n{y} = v + {y}",
    "_, {y} = dg.jvp(lambda t: dg.jvp({f}, (t,), (t * 0 + 1,))[1], ({x},), ({x} * 0 + 1,))",
    "v, pull = dg.vjp({f}, {x})\n{y} = pull(v)", "v, pull = dg.vjp({f}, {x})\n{y} = pull(v) + pull(v * 2)",
    "{y} = dg.grad(lambda t: (({f})(t) ** 2).sum())({x})",
    "v, {y} = dg.value_and_grad(lambda t: ({f})(t).mean())({x})",
    "{y} = dg.grad(lambda t: dg.grad(lambda s: ({f})(s).sum())(t).sum())({x})",
    "{y} = dg.jacobian({f})({x}[..., :3].reshape(-1)[:4])",
    "{y} = dg.hessian(lambda t: (({f})(t) ** 2).sum())({x}.reshape(-1)[:3])", "{y} = dg.checkpoint({f}, {x})",
    "{y} = dg.checkpoint(lambda t: dg.checkpoint({f}, t * 2) + 1, {x})",
    "{y} = dg.vmap(lambda t: dg.checkpoint({f}, t))({x})", "{y} = dg.grad(lambda t: dg.checkpoint({f}, t).sum())({x})",
    "{y} = dg.checkpoint({f}, {x})\n({y} * {y}).sum().backward(retain_graph=True)",
    "{y} = dg.custom_gradient(lambda t: (({f})(t), lambda g: g * t))({x})",
    "{y} = dg.custom_gradient(lambda t: (({f})(t), lambda g: ({f})(g)))({x})",
    "{y} = dg.jacobian(lambda t: dg.vmap({f})(t).sum(axis=0))({x}) if {x}.size < 13 else {x}",
    "{y} = dg.vmap(lambda t: dg.jvp({f}, (t,), (t,))[1])({x})", "{y} = dg.function({f})({x}) * 2",
    "{y} = dg.grad(lambda t: dg.function({f})(t).sum())({x})", "{y} = dg.vmap(dg.function({f}))({x})",
    "{y} = dg.scan(lambda c, t: (({f})(c) * 0.5, c), {x}[0], {x})[1]",
    "{y} = dg.grad(lambda t: dg.scan(lambda c, s: (({f})(c) + s, c), t[0], t)[0].sum())({x})",
    "{y} = dg.cond({x}.sum() > 0, {f}, lambda t: ({f})(t * 2), {x})",
    "with dg.no_grad():\n    {y} = dg.grad(lambda t: ({f})(t).sum())({x})",
    "with dg.amp.autocast(dtype=dg.bfloat16):\n"
    "    {y} = dg.grad(lambda t: (({f})(t) @ ({f})(t).mT).sum())({x}) if {x}.ndim > 1 else {x}",
    "{y} = dg.vmap({f})({x}).sum()\n{y}.backward(retain_graph=True) if {y}.requires_grad else None",
    "m.count += 1\n{y} = dg.vmap({f})({x}) * m.count",
)  # fmt: skip


def transforms(h: Hand) -> Step | None:
    """Functions of functions."""
    x = h.tensor(lambda t: is_float(t) and t.ndim and t.size and t.size < 200)
    if x is None:
        return None
    y, r = h.fresh(), h.rng
    return Step(r.choice(FORMS).format(x=x, y=y, f=f"lambda t: {r.choice(BODIES)}"), (y,))
