"""What a random program may do with code of its own on the way back, with arguments that are no tensors, and alone."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: {x}: a float tensor, {y}: the name to make
RULES = (
    "{y} = dg.custom_gradient(lambda t: (t.sign(), lambda g: g))({x})",
    "{y} = dg.custom_gradient(lambda t: (t * 2, lambda g: g.clip(-1, 0.5)))({x})",
    "{y} = dg.custom_gradient(lambda t: (t * 2, noted(m)))({x})",
    "{y} = dg.custom_gradient(lambda t: (t * m.scale, lambda g: g * m.scale))({x})",
    "{y} = dg.custom_gradient(lambda t: (t + 1, lambda g: g * dg.rand(g.shape).to(g.dtype)))({x})",
    "def pair(s, t):\n    return (s * t, s + t), lambda a, b: (a * t + b, None)\n"
    "{y}, _ = dg.custom_gradient(pair)({x}, {x} * 2)",
    "def block(t):\n    m.count += 1\n    return t.tanh() * m.scale\n{y} = dg.checkpoint(block, {x})",
    "{y} = dg.checkpoint(lambda t: dg.nn.functional.dropout(t * t, 0.5), {x})",
    "{y} = dg.checkpoint(lambda t: (t * m.w.to(t.dtype)[0]).sin(), {x})",
    "{y}, _ = dg.checkpoint(lambda t: (t.exp(), t * 2), {x})",
    "{y} = {x}.detach().requires_grad_()\n({y} * {y}).sum().backward()",
    "{y} = {x}.detach().requires_grad_()\n({y} * {y}).sum().backward()\n{y} = {y}.grad",
    "{y} = dg.grad(lambda t: dg.custom_gradient(lambda s: (s * 2, lambda g: g * 3))(t).sum())({x})",
    "{y} = dg.vmap(dg.custom_gradient(lambda t: (t * 2, lambda g: g * 5)))({x})",
)
#: {x}: a tensor with a gradient, {y}: the name to make
HOOKS = (
    "{y} = {x} * 2\n{y}.register_hook(lambda g: g * 3)",
    "{y} = {x} * 2\n{y}.register_hook(noted(m, 2.0))",
    "{y} = {x} + 1\n{y}.register_hook(lambda g: m.log.append(g.sum().item()))",
    "{y} = {x} + 1\n{y}.register_hook(lambda g: m.log.append(1))",
    "{y} = {x} * 2\n{y}.register_hook(lambda g: g * m.scale)",
    "{y} = {x} * 2\nremove = {y}.register_hook(noted(m))\nremove()",
    "{x}.register_hook(noted(m, 0.5))\n{y} = {x} * 2",
    "{y} = ({x}.is_leaf, {x}.requires_grad).count(True) * {x}",
    "{y} = ({x} * {x}).sum()\n{y}.register_hook(noted(m))\n{y}.backward(retain_graph=True)",
    "m.last = {x} * 3\n{y} = {x} * 2",
    "m.log.append({x}.exp())\n{y} = {x}.sin()",
    "with dg.no_grad():\n    {y} = {x} * 2",
)
#: with the plain argument k0
PLAIN = (
    "{y} = {x} * (2 if k0 else 3)",
    "{y} = {x} * k0",
    "{y} = {x}.sum(axis=k0) if k0 is None else {x} + 1",
    "{y} = {x} * {{2: 3, 1.5: 2, 'a': 4, None: 5}}.get(k0, 1)",
    "m.table[k0] = {x} * 2\n{y} = {x} * len(m.table)",
    "{y} = {x} ** k0",
    "{y} = {x}\nfor _ in range(min(int(k0 or 0), 9)):\n    {y} = {y} * 2",
    "m.count += isinstance(k0, bool)\n{y} = {x} + m.count",
)
#: with the dict argument d0
PACKED = (
    "{y} = d0['a'] * 2",
    "{y} = sum(t.to(dg.float32).sum() for t in d0.values())",
    "d0['n'] = {x} * 2\n{y} = d0['n'] + 1",
    "{y} = d0.pop('a') * 2",
    "m.last = d0\n{y} = {x} * len(d0)",
    "d0['a'] = d0['a'] + 1\n{y} = d0['a'] * {x}",
    "{y} = dg.function(lambda d: d['a'] * 3)(d0)",
)
#: with the list arguments l0 and {l}, which is l0 or another one
LISTED = (
    "l0.append({x})\n{y} = {x} * len({l})",
    "l0.append(1)\n{y} = {x} + len(m.log)",
    "m.log.append(2)\n{y} = {x} * len({l})",
    "{y} = {x} * len(l0) + ({l} is l0)",
    "{y} = {x} * (2 if l0 is m.log else 3)",
    "{l}.append(len(l0))\nm.table['l'] = l0\n{y} = {x} - len({l})",
    "{y} = {x} + sum(v for v in {l} if isinstance(v, int))\nl0.clear()",
    "{y} = {x} * 2\nm.log = {l}",
)
#: from nothing; {a}: a size
CREATION = (
    "{y} = dg.arange({a}) * 2", "{y} = dg.arange({a}, 0, -1, dtype=dg.int32)", "{y} = dg.linspace(0, 1, {a})",
    "{y} = dg.eye({a}, 3)", "{y} = dg.zeros(({a}, 2)) - 1", "{y} = dg.full(({a},), 2.5)", "{y} = dg.ones_like({x})",
    "{y} = dg.full_like({x}, 3) + {x}", "{y} = dg.tensor([1.0, m.scale, {a}])", "{y} = dg.tri({a}, {a}) * 2",
    "{y} = dg.asarray(np.arange({a}, dtype=np.float32)) * 2", "{y} = dg.zeros((3,), requires_grad=True) * 2",
    "{y} = dg.meshgrid(dg.arange({a}), dg.arange(2))[0]", "{y} = dg.empty_like({x})\n{y}.fill_(2)",
)  # fmt: skip


def rules(h: Hand) -> Step | None:
    """Gradients of the program's own, checkpoints, hooks."""
    x = h.tensor(is_float)
    asked = h.tensor(lambda t: is_float(t) and t._requires_grad)
    if x is None:
        return None
    y = h.fresh()
    if asked is not None and h.rng.random() < 0.5:
        return Step(h.rng.choice(HOOKS).format(x=asked, y=y), (y,))
    return Step(h.rng.choice(RULES).format(x=x, y=y), (y,))


def arguments(h: Hand) -> Step | None:
    """Arguments that are no tensors."""
    x = h.tensor(is_float)
    given = {"k0": PLAIN, "d0": PACKED, "l0": LISTED}
    forms = [form for name, table in given.items() if name in h.space for form in table]
    if x is None or not forms:
        return None
    y = h.fresh()
    return Step(h.rng.choice(forms).format(x=x, y=y, l="l1" if "l1" in h.space else "l0"), (y,))


def creation(h: Hand) -> Step | None:
    """Tensors from nothing."""
    x = h.tensor(is_float)
    if x is None:
        return None
    y = h.fresh()
    size = h.rng.choice(("3", "4", f"({x}.size % 7 + 1)"))
    return Step(h.rng.choice(CREATION).format(x=x, y=y, a=size), (y,))
