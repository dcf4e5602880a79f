"""What a random program may do besides computing: changes in place, branches, state, random numbers, gradients."""

from __future__ import annotations

from typing import Any

from .program import Step
from .steps import Hand, is_float, is_number


def in_place(h: Hand) -> Step | None:
    """A change of a tensor: of a result, a view, an input or state."""
    x = h.tensor(
        lambda t: not (t._requires_grad and t._node is None) and (is_number(t) or h.rng.random() < 0.3)
    )
    if x is None:
        return None
    t = h.space[x]
    other = h.like(t, lambda o: _fits_into(o, t)) or h.number()
    forms = [
        f"{x} += {other}",
        f"{x} *= {h.number()}",
        f"{x} -= {other}",
        f"{x}.add_({other})",
        f"{x}.fill_({h.number()})",
        f"{x}.zero_()",
        f"{x}.copy_({other})",
        f"{x}[...] = {other}",
    ]
    if is_float(t):
        forms += [f"{x} /= 2", f"{x}.div_(3)", f"{x} **= 2"]
    if t.ndim:
        forms += [
            f"{x}[0] = {h.number()}",
            f"{x}[..., 0] += 1",
            f"{x}[::2] *= 2",
            f"{x}[1:] = {x}[:-1].clone()",
            f"{x}[{x} > 0] = 0",
            f"{x}[dg.tensor([0, -1])] = 1",
            f"{x}.masked_fill_({x} < 0, 1)",
            f"{x}.reshape(-1)[0] = 3",
            f"{x}.mT[0] = 2" if t.ndim > 1 else f"{x}[-1:] += 2",
            f"{x}.index_add_(0, dg.tensor([0]), {x}[:1].clone())",
            f"{x}[1:] += {x}[:-1]",
            f"{x}[:] = {x}.flip(0)",
        ]
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
    form = h.rng.choice(
        (
            f"if {total} > {{c}}:\n    {y} = {x} * 2\nelse:\n    {y} = {x} + 1",
            f"{y} = {x}\nif {total} > {{c}}:\n    {y} = {y} - 1",
            f"{y} = {x} * 1.5\nwhile {y}.to(dg.float32).abs().sum() > 1 and m.count < 3:\n"
            f"    {y} = {y} * 0.5\n    m.count += 1\nm.count = 0",
            f"{y} = {x} if bool({total} < {{c}}) else -{x}",
            f"n = int(({x} > 0).sum()) % 3\n{y} = {x}\nfor _ in range(n):\n    {y} = {y} * 2 + 1",
            f"if not dg.isfinite({total}):\n    return {x}\n{y} = {x} + 0.5",
            f"{y} = {x} * float({total} > 0)",
            f"if {total} > {{c}}:\n    {x}[...] = 1\n{y} = {x} + 0",
        )
    )
    return Step(form.format(c=h.rng.choice((0, 1, -3, 10))), (y,))


def state(h: Hand) -> Step | None:
    """Reads and changes what the program keeps."""
    x = h.tensor(lambda t: is_float(t) and t.size)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(
        (
            f"m.count += 1\n{y} = {x} * m.count",
            f"{y} = {x} * m.scale\nm.scale = 2.5",
            f"m.log.append({x}.sum())\n{y} = m.log[-1] + 1",
            f"m.last = {x}\n{y} = m.last * 2",
            f"{y} = {x} + m.b.to({x}.dtype).sum()\nm.b += 1",
            f"m.b[0] += {x}.detach().to(dg.float32).sum()\n{y} = {x} * 1",
            f"{y} = {x} * m.w.to({x}.dtype)[0]",
            f"{y} = {x}.to(dg.float32).sum() + m.w",
            f"m.b.copy_(m.b * 0.9 + {x}.detach().to(dg.float32).mean() * 0.1)\n{y} = {x} - m.b[0].to({x}.dtype)",
            f"with dg.no_grad():\n    m.w -= 0.1\n{y} = m.w * 2",
            f"if len(m.log) < 2:\n    m.log.append(m.count)\n{y} = {x} + len(m.log)",
            f"m.b = m.b * 2\n{y} = m.b + 1",
            f"{y} = {x} * 2 if m.last is None else {x} + m.last.to({x}.dtype).sum()\nm.last = {y} * 0.5",
            f"m.last = {x} * 2 if m.last is None else m.last.detach() * 0.5\n{y} = m.last + 1",
            f"m.b.detach().add_(1)\n{y} = {x} * m.b[0].to({x}.dtype)",
        )
    )
    return Step(form, (y,))


def randomness(h: Hand) -> Step | None:
    x = h.tensor(is_float)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(
        (
            "{x} + dg.rand({x}.shape).to({x}.dtype)",
            "dg.nn.functional.dropout({x}, 0.5)",
            "dg.randn({x}.shape)",
            "{x} * dg.bernoulli(dg.full({x}.shape, 0.5)).to({x}.dtype)",
            "dg.randint(0, 5, {x}.shape)",
            "dg.rand_like({x}) * {x}",
            "dg.randperm(5)",
            "dg.normal(0.0, 1.0, (3,))",
        )
    )
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
            f"{x}.sum().backward(retain_graph=True)\n{y} = {x}.detach() * 1",
            f"({x} * {x}).sum().backward(retain_graph=True)\n{y} = {x}.detach() + 1",
        ]
        if leaf is not None:
            forms += [
                f"{x}.sum().backward(retain_graph=True)\n{y} = {leaf}.grad",
                f"{leaf}.grad = None\n({x} * {x}).sum().backward(retain_graph=True)\n{y} = {leaf}.grad",
                f"{x}.tanh().sum().backward(create_graph=True)\n{y} = {leaf}.grad",
                f"with dg.no_grad():\n    {leaf} -= 0.1 * {leaf}\n{y} = {leaf} * 2",
            ]
    if t is not None:
        forms += [
            f"{y} = dg.grad(lambda t: (dg.sin(t) * t).sum())({t})",
            f"{y} = dg.grad(lambda t: dg.grad(lambda s: (s ** 3).sum())(t).sum())({t})",
            f"v, {y} = dg.value_and_grad(lambda t: (t * t).mean())({t})",
            f"_, {y} = dg.jvp(dg.tanh, ({t},), ({t} * 0 + 1,))",
            f"_, pull = dg.vjp(dg.exp, {t})\n{y} = pull({t} * 0 + 1)",
            f"{y} = dg.vmap(lambda t: t.sum() * t)({t})",
            f"{y} = dg.checkpoint(lambda t: dg.gelu(t) * t, {t})",
        ]
        if h.space[t].size <= 8 and h.space[t].ndim == 1:
            forms += [
                f"{y} = dg.jacobian(lambda t: t * t)({t})",
                f"{y} = dg.hessian(lambda t: (t * t * t).sum())({t})",
            ]
    if not forms:
        return None
    return Step(h.rng.choice(forms), (y,))


def attention_like(h: Hand) -> Step | None:
    """Small pieces of models."""
    x = h.tensor(lambda t: is_float(t) and t.ndim >= 2 and t.size)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(
        (
            "dg.softmax({x} @ {x}.mT * 0.5, axis=-1) @ {x}",
            "dg.mse_loss({x}, {x} * 0.5)",
            "dg.cross_entropy({x}.reshape(-1, {x}.shape[-1]), dg.zeros(({x}.size // {x}.shape[-1],), dtype=dg.int64))",
            "dg.nn.functional.layer_norm({x}, ({x}.shape[-1],)) + {x}",
            "dg.relu({x} @ {x}.mT + 1).mean(axis=-1)",
            "(({x} - {x}.mean(axis=0)) / ({x}.var(axis=0) + 1e-5).sqrt()).sum(axis=1)",
        )
    )
    return Step(f"{y} = {form.format(x=x)}", (y,))
