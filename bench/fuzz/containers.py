"""What a random program may do with Python state: containers and objects changed and looked at; and other Python."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: statements; {v}: a value to keep, {c}: a small number
CHANGES = (
    "m.log.append({v})", "m.log.append({v})", "m.log.extend([{c}, {v}])", "m.log.insert(0, {v})", "m.log += [{v}]",
    "m.log[-1:] = [{c}]", "m.log[0] = {v}", "m.log[-1] = {v}", "del m.log[0]", "m.log.pop()", "m.log.reverse()",
    "m.log.clear()", "m.log = m.log[-2:]", "m.log = [*m.log, {c}]", "push = m.log.append\npush({v})",
    "list(map(m.log.append, [{c}, {v}]))", "m.table['a'] = {v}", "m.table['b'] = {c}",
    "m.table.setdefault('r', []).append({v})", "m.table.pop('a', 0)", "m.table.update(c={v})",
    "if 'a' in m.table:\n    del m.table['a']", "m.table['n'] = m.table.get('n', 0) + 1", "m.table |= {{'d': {c}}}",
    "m.table = dict(reversed(m.table.items()))", "m.table.pop('b')", "m.seen.add({c})", "m.seen.discard({c})",
    "m.seen |= {{{c}, 9}}", "m.seen.add(len(m.seen))", "m.seen = set()", "m.queue.append({v})",
    "m.queue.appendleft({v})", "m.queue.rotate(1)", "if m.queue:\n    m.queue.popleft()", "m.queue[0] = {c}",
    "m.rows[0].append({v})", "m.rows.append([{c}])", "m.rows[-1][0] = {c}", "m.rows.insert(0, m.rows[-1])",
    "for r in m.rows:\n    r.append(len(r))", "m.box.n += {c}", "m.box.items.append({v})", "m.box = Box({c})",
    "m.box.items, m.log = m.log, m.box.items", "m.log = m.rows[0]", "m.box.last = {v}", "m.count += {c}",
)  # fmt: skip
#: expressions of plain values or tensors
LOOKS = (
    "len(m.log)", "bool(m.log)", "not m.log", "m.log[-1] if m.log else None", "m.log[0] if m.log else None",
    "[q for q in m.log if isinstance(q, int)]", "[k for k, _ in enumerate(m.log)]", "m.log[:2]", "m.log[1]",
    "m.log[-2]", "{c} in [q for q in m.log if isinstance(q, int)]", "m.log", "m.log is m.box.items",
    "list(m.table)", "len(m.table)", "'a' in m.table", "'b' in m.table", "m.table.get('a')", "m.table['b']",
    "m.table.get('n', 0)", "list(m.table.values())", "[k for k, v in m.table.items() if isinstance(v, int)]",
    "1 if m.table else 0", "m.table", "sorted(m.seen)", "{c} in m.seen", "len(m.seen)", "len(m.queue)",
    "list(m.queue)", "m.queue[-1] if m.queue else 0", "len(m.rows[0])", "[len(r) for r in m.rows]", "m.rows[-1][0]",
    "m.rows[0] is m.rows[-1]", "m.box.n", "m.box", "len(m.box.items)", "m.box.last",
    "getattr(m.box, 'n') + m.count", "hasattr(m.box, 'other')", "{{'k': m.count, 'r': [m.count]}}",
    "{{m.count, 3}}", "Box(m.count)",
)  # fmt: skip


def containers(h: Hand) -> Step | None:
    """Some changes and a few looks at what is there then."""
    x = h.tensor(lambda t: t.size <= 100)
    if x is None:
        return None
    r = h.rng
    lines: list[str] = []
    made: list[str] = []
    for _ in range(r.choice((2, 3, 3, 4, 5))):
        c = r.randrange(4)
        v = r.choice((str(c), f"{x}", f"{x}.detach()", "m.count", f"{x} * 2"))
        if r.random() < 0.5:
            lines.append(r.choice(CHANGES).format(c=c, v=v))
        else:
            name = "p" + h.fresh()[1:]
            made.append(name)
            lines.append(f"{name} = " + r.choice(LOOKS).format(c=c))
    return Step("\n".join(lines), tuple(made))


def python(h: Hand) -> Step | None:
    """Other Python around tensors: functions in both modes, generators, exceptions, layers, control flow."""
    x = h.tensor(lambda t: is_float(t) and t.ndim and t.shape[0])
    if x is None:
        return None
    y = h.fresh()
    t = h.space[x]
    forms = [
        "{y} = dg.function(lambda t: t * m.scale + 1)({x})",
        "{y} = dg.function(lambda t: t * 2 + len(m.log), mode='eager')({x})",
        "with dg.mode('eager'):\n    {y} = dg.function(lambda t: t - m.count)({x})",
        "def part(t, k=2):\n    m.count += 1\n    return t * k\n{y} = part({x}) + part({x}, 3)",
        "{y} = sum(t * 2 for t in ({x}, {x} + 1))",
        "def made(t):\n    for k in range(2):\n        yield t * k\n{y} = [*made({x})][m.count % 2]",
        "try:\n    m.count += 1\n    if m.count > 1:\n        raise ValueError\n    {y} = {x} * 2\n"
        "except ValueError:\n    {y} = {x} - 1",
        "try:\n    {y} = {x} + 1\nfinally:\n    m.count += 1",
        "m.count += 1\n{y} = {x} * 2\nif m.count > 2:\n    raise ValueError('late')",
        "m.net.train(m.count % 2 == 0)\nm.count += 1\n{y} = m.net({x})",
        "opt = dg.optim.SGD([m.w], lr=0.1)\n(m.w * m.w).sum().backward()\nopt.step()\nopt.zero_grad()\n{y} = {x} * 1",
        "(m.w * 2).sum().backward()\n{y} = m.w.grad * 1",
        "{y} = dg.cond({x}.sum() > 0, lambda t: t * 2, lambda t: t + 1, {x})",
        "{y} = dg.scan(lambda c, t: (c * 0.5 + t, c), {x}[0] * 0, {x})[0]",
        "_, {y} = dg.scan(lambda c, t: (c + t, c * t), {x}[0], {x})",
        "{y} = dg.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 0.5), (dg.tensor(0), {x}))[1]",
        "rate = [m.scale, 2.0][m.count % 2]\nm.count += 1\n{y} = {x} * rate",
        "first, *rest = ({x}, {x} * 2, {x} + 1)\n{y} = rest[-1] - first",
        "{y} = max(({x}, {x} * 2), key=lambda t: t.ndim)",
        "{y} = {x} * (2 if m.box.n else 3)\nm.box.n = 1 - m.box.n",
    ]
    if t.size <= 8 and t.ndim == 1:
        forms += [
            "{y} = dg.jacobian(lambda t: t * t)({x})",
            "{y} = dg.hessian(lambda t: (t * t * t).sum())({x})",
        ]
    return Step(h.rng.choice(forms).format(x=x, y=y), (y,))
