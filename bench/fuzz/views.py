"""Arguments and state that are views of tensors outside of the program, which have a history and may be changed."""

from __future__ import annotations

import random

from .program import Given, Step
from .steps import Hand, is_float

#: {b}: the tensor outside; every one has the dims of x0 but for the last ones
SEEN = (
    "{b}[1:]", "{b}[0]", "{b}[::-1]", "{b}[..., :2]", "{b}.mT", "{b}.reshape(-1)", "{b}[None]", "{b}[...]",
    "{b}.expand(2, *{b}.shape)", "{b}.chunk(2)[0]", "{b}.chunk(2)[-1]", "{b}[1:][::2]", "{b}.flip(0)",
    "{b}.view_as({b})", "{b}.flatten()[:3]", "{b}.squeeze()", "{b}.detach()", "{b}.narrow(0, 0, 1)",
    "{b}.unbind(0)[-1]", "{b}.permute(*range({b}.ndim)[::-1])", "{b}[..., None]", "{b}",
)  # fmt: skip
#: what follows: other views are kept, or what is seen is changed; {x}: the argument
THEN = (
    "m.last = {b}[1:]", "m.last = {b}", "m.last = {b}[0]", "m.last = {x}[..., None]", "m.log.append({b}[:2])",
    "m.table['a'] = {b}[::-1]", "m.box.last = {x}", "m.pair.a = {b}.mT if {b}.ndim > 1 else {b}",
    "m.log[:] = [{b}[0], {x}]", "{b}.detach().mul_(2)", "{b}[0] = 2 if {b}._node is not None else 0",
    "{b}[...] = {b}.detach() * 0.5 + m.w.sum().to({b}.dtype)", "{x}.detach().zero_()", "{x}.register_hook(noted(m))",
    "{b}.register_hook(lambda g: g * 2)", "{b} += m.w.sum().to({b}.dtype)", "{x} *= 2",
    "{b}[:1] *= m.w[0].to({b}.dtype)", "{x}.retain_grad()", "{x}.grad = None",
)  # fmt: skip
#: between a call and the walk
BETWEEN = (
    "{b} *= 2", "{b}.detach().mul_(2)", "with dg.no_grad():\n    {b} += 1", "{b}[0] = 1", "{x} += 1",
    "{x}.detach()[...] = 0.5", "{b}[1:] = m.w.sum().to({b}.dtype)",
    "if isinstance(m.last, dg.Tensor):\n    m.last *= 2", "{b}.grad = None", "m.last = None",
    "out[0].register_hook(noted(m))\n{b}.register_hook(noted(m, 2.0))", "{x} *= out[0].detach().to({x}.dtype).sum()",
    "{b} -= out[0].to({b}.dtype).sum()",
)  # fmt: skip
#: {x}: a float tensor, {y}, {z}: the names to make; m.last may be a view of what is outside
KEPT = (
    "{y} = {x} * 2 if m.last is None else {x} + m.last.to({x}.dtype).sum()",
    "{y} = {x} * 2 if m.last is None else m.last * 3",
    "if isinstance(m.last, dg.Tensor) and m.last.dtype.is_float:\n    m.last += 1\n{y} = {x} * 2",
    "if isinstance(m.last, dg.Tensor) and m.last.dtype.is_float:\n"
    "    m.last[...] = m.last * m.w[0].to(m.last.dtype)\n{y} = {x} * 2",
    "{y} = sum(t.to(dg.float32).sum() for t in m.log if isinstance(t, dg.Tensor)) + {x}",
    "for t in m.log:\n    if isinstance(t, dg.Tensor):\n        t *= 0.5\n{y} = {x} + 1",
    "{y} = {x} * 1 if m.table.get('a') is None else m.table['a'] + {x}.to(dg.float32).sum()",
    "m.last = {x}[0] if {x}.ndim else {x}\n{y} = {x} * 2", "m.log.append({x}[..., None])\n{y} = {x} + len(m.log)",
    "{y} = {x}[1:] if {x}.ndim else {x}\nm.last = {y}\n{y} = {y} * 1", "{x} *= 2\n{y} = {x} + 0",
    "{x} += m.w.sum().to({x}.dtype)\n{y} = {x} * 1", "{y} = {x}.detach()\n{y} += 1",
    "{y} = {x}[:1] if {x}.ndim else {x}\n{y} *= 3", "v = {x}.reshape(-1)\nv[:1] = 2\n{y} = {x} * 2",
    "{y} = {x}.mT if {x}.ndim > 1 else {x}\n{y} += 1", "{x}.retain_grad()\n{y} = {x} * 2",
    "{x}.requires_grad_()\n{y} = {x} * m.scale", "{y} = {x} * (2 if {x}.is_leaf else 3)",
)  # fmt: skip
#: composites of several results
SEVERAL = (
    "{y}, {z} = {x}.chunk(2, -1)", "{y}, {z} = {x}.chunk(2, 0)", "{y}, {z} = dg.sort({x}, axis=-1)[0], {x}.sin()",
    "{y}, {z} = dg.tensor_split({x}, 2, 0)", "{y}, *_, {z} = {x}.unbind(0)",
    "{y}, {z} = dg.median({x}, axis=0)[0], {x} * 2", "{y}, {z} = dg.linalg.qr({x})",
    "{z}, {y} = dg.linalg.slogdet({x} @ {x}.mT + dg.eye({x}.shape[0]).to({x}.dtype))",
    "{y}, {z} = dg.checkpoint(lambda t: (t.tanh(), t * t), {x})",
    "{y}, {z} = dg.custom_gradient(lambda t: ((t * 2, t + 1), lambda a, b: a * 3 + b))({x})",
    "{y}, {z} = dg.scan(lambda c, t: (c * 0.5 + t, c), {x}[0], {x})",
    "{y}, {z} = dg.cond({x}.sum() > 0, lambda t: (t, t * 2), lambda t: (-t, t), {x})",
    "{y}, {z} = dg.linalg.svd({x}, full_matrices=False)[1:]",
)  # fmt: skip
HOOKED = (
    "", "{y}.register_hook(noted(m, 2.0))\n{z}.register_hook(noted(m, 0.5))", "{z}.register_hook(lambda g: g * 3)",
    "{y}.register_hook(lambda g: m.log.append(g.sum().item()))\n{z}.register_hook(lambda g: g + 1)",
    "{y}.register_hook(noted(m))()\n{z}.register_hook(noted(m))",
    "for t in ({y}, {z}):\n    t.register_hook(noted(m, 3.0))", "{y} += 1", "{z} *= 2\n{z}.register_hook(noted(m))",
    "m.last = {z}",
)  # fmt: skip
#: composites whose tape is one node once they are hot; {x}: a float tensor
HOT = (
    "{y} = dg.softmax({x}, axis=-1)", "{y} = dg.nn.functional.layer_norm({x}, ({x}.shape[-1],))",
    "{y} = dg.log_softmax({x}, axis=-1)", "{y} = dg.nn.functional.normalize({x}, dim=-1)", "{y} = {x}.var(axis=-1)",
    "{y} = dg.logsumexp({x}, axis=-1)", "{y} = dg.mse_loss({x}, {x}.detach() * 0.5)", "{y} = {x}.std(axis=0)",
    "{y} = dg.nn.functional.rms_norm({x}, ({x}.shape[-1],))",
)  # fmt: skip


def see(rng: random.Random, x: Given) -> Given:
    """An argument as a view of a tensor outside."""
    then = tuple(rng.choice(THEN) for _ in range(rng.choice((0, 0, 1, 1, 2))))
    dims = x.dims or ("A",)
    return x._replace(
        dims=dims,
        seen=rng.choice(SEEN),
        then=then,
        past=rng.random() < 0.7,
        grad=rng.random() < 0.85,
        layout="dense",
    )


def views(h: Hand) -> Step | None:
    """What is seen of tensors outside; several results of one op, with hooks."""
    x = h.tensor(is_float)
    asked = h.tensor(lambda t: is_float(t) and t._requires_grad and t.ndim)
    if x is None:
        return None
    y, z, r = h.fresh(), h.fresh(), h.rng
    if asked is not None and r.random() < 0.45:
        form = r.choice((r.choice(SEVERAL), r.choice(SEVERAL), r.choice(HOT) + "\n{z} = {y} * 2"))
        return Step(f"{form}\n{r.choice(HOOKED)}".strip().format(x=asked, y=y, z=z), (y, z))
    return Step(r.choice(KEPT).format(x=x, y=y, z=z), (y,))
