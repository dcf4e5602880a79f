"""What a random program may do with Python numbers that are other ones at every call: state and the argument k0."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: what k0 is at the calls, in turn
CHANGING = (
    (0.1, 0.25, -0.5, 1.25, 3.0, 7.5), (1, 2, 3, 4, 5, 6), (1.5, 2.5, -0.0, 0.0, float("inf"), float("nan")),
    (3, 2**40, -1, 7, 2**70, 5), (1, 2.0, 3, 4.5, True, 6), (2, 0, -3, 1, 300, -(2**31)),
)  # fmt: skip
#: {x}: a float tensor, {y}: the name to make
STATE = (
    "m.count += 1\n{y} = {x} * (1 - 0.9 ** m.count)",
    "m.scale *= 0.9\n{y} = {x} * m.scale",
    "m.scale = m.scale * 0.5 + m.count\nm.count += 1\n{y} = {x} / (m.scale + 1)",
    "m.count += 1\n{y} = {x} + 1 if m.count % 3 == 0 else {x} * m.count",
    "m.table['n'] = m.table.get('n', 0) + 1\n{y} = {x} * m.table['n']",
    "m.table['b'] *= 3\n{y} = {x} - m.table['b'] % 5",
    "m.rows[0][0] += 1\n{y} = {x} - m.rows[0][0]",
    "m.rows[1][-1] *= 2\n{y} = {x} + sum(m.rows[1])",
    "m.box.n += 2\n{y} = {x} * m.box.n\nm.log.append(m.box.n)",
    "m.pair.n -= 1\n{y} = {x} ** 2 * m.pair.n",
    "m.table['last'] = m.scale\nm.scale += 0.25\n{y} = {x} * m.table['last']",
    "m.count += 1\n{y} = {x} * m.count\n{y} += m.scale\nm.scale = -m.scale",
    "m.count += 1\n{y} = dg.custom_gradient(lambda t: (t * m.count, lambda g: g * m.count))({x})",
    "m.count += 1\n{y} = dg.grad(lambda t: (t * t * m.count).sum())({x})",
    "m.count += 1\n{y} = dg.scan(lambda c, _: (c * m.scale + m.count, c), {x}, length=2)[0]",
    "m.count += 1\n{y} = dg.cond({x}.sum() > 0, lambda t: t * m.count, lambda t: t - m.count, {x})",
    "m.count += 1\n{y} = dg.checkpoint(lambda t: t.tanh() * m.scale * m.count, {x})",
    "m.count += 1\n{y} = dg.vmap(lambda t: t * m.count)({x}) if {x}.ndim else {x} / m.count",
    "n = m.count\nm.count += 1\ndef late(t, n=n):\n    return t * n\n{y} = late({x})",
    "m.count += 1\n{y} = {x}\nfor k in range(m.count % 3):\n    {y} = {y} * (k + m.count)",
    "m.count += 1\nm.table[m.count] = m.count * 2\n{y} = {x} * len(m.table)",
    "m.count += 1\n{y} = {x} * round(m.scale * m.count, 2)",
    "m.count += 1\n{y} = {x} * max(m.count, 3) - min(m.scale, m.count)",
    "m.count += 1\nm.log.append(f'{{m.count}}')\n{y} = {x} * m.count",
    "m.count += 1\ndg.print('{{}} {{}}', m.count, {x}.sum(), to=m.printed.append)\n{y} = {x} * m.count",
    "m.count += 1\n{y} = m.inner({x})",
    "m.count = m.count * 1000003 + 1\n{y} = {x} + m.count % 7",
    "m.count += 1\n{y} = {x} * (2 if type(m.count) is int else 3) * m.count",
    "m.count += 1\n{y} = {x} * (isinstance(m.count, int) + m.count)",
    "m.count += 1\nm.pair = replace(m.pair, n=m.count)\n{y} = {x} * m.pair.n",
    "m.count += 1\nm.queue.append(m.count)\n{y} = {x} * sum(m.queue)",
    "m.count += 1\nm.seen.add(m.count)\n{y} = {x} * len(m.seen)",
    "m.count += 1\nif {x}.to(dg.float32).sum() > m.count:\n    m.scale *= 2\n{y} = {x} * m.scale + m.count",
    "m.count += 1\nif m.count == 3:\n    raise ValueError(m.count)\n{y} = {x} * m.count",
    "m.count += 1\n{y} = ({x} > m.scale).to({x}.dtype) * m.count",
    "m.count += 1\n{y} = {x}.clip(-m.count, m.count)",
    "m.count += 1\n{y} = dg.full_like({x}, m.count) * dg.tensor(m.scale)",
    "m.count += 1\n{y} = {x} * m.count\nm.b += m.count",
    "m.count += 1\nwith dg.no_grad():\n    m.w -= 0.1 * m.count\n{y} = m.w * 2",
    "m.count += 1\nm.last = {x} * m.count\n{y} = m.last + m.count",
    "m.count += 1\n{p} = m.count, m.scale * m.count, [m.count, {{'n': m.count}}], Two(m.count, -m.count)",
)
#: with the number k0 besides
GIVEN = (
    "{y} = {x} * k0", "{y} = k0 - {x}", "{y} = {x} / k0", "{y} = {x} * (1 - 0.9 ** abs(k0))", "{y} = {x} * k0 + k0 * 2",
    "{y} = {x} + k0 if k0 > 1 else {x}", "m.log.append(k0)\n{y} = {x} * k0", "m.scale = k0\n{y} = {x} * m.scale",
    "m.scale += k0\n{y} = {x} * m.scale", "{y} = {x} * 1\n{y} *= k0\n{y}[...] += k0",
    "{y} = dg.where({x} > k0, {x}, k0)", "try:\n    {y} = {x} * (1 / k0)\nexcept ZeroDivisionError:\n    {y} = {x}",
    "m.table['k'] = k0 + 1\n{y} = {x} * m.table['k']", "{y} = {x} * [k0, k0 + 1][int(k0 > 1)]",
    "{y} = dg.function(lambda t, k: t * k)({x}, k0 * 2)", "{y} = dg.exp(k0) * {x}", "{y} = dg.maximum({x}, k0)",
    "{y} = {x}.to(dg.int32) * k0", "{y} = ({x} > 0) * k0", "{y} = {x}.to(dg.complex64) * k0",
    "{y} = {x} * np.float32(k0)", "{y} = {x} * (np.ones(2) * k0).sum().item()", "{y} = {x} * float(k0)",
    "{y} = {x}.masked_fill({x} > 0, k0)", "{y} = {x} ** k0", "{y} = k0 ** {x}",
    "{y} = {x} * {{1: 5}}.get(k0, k0)", "{y} = {x} * (k0 in (1, 2, 3)) + k0", "{p} = k0 * 3, -k0, (k0,)",
    "{y} = {x} * 1\n{y}.fill_(k0)", "{y} = {x}.fill_(k0) if {x}._node is None and not {x}.requires_grad else {x} * k0",
    "m.last = lambda t: t * k0\n{y} = m.last({x})\nm.last = None", "{y} = {x} * hash(k0)", "{y} = {x} * k0.real",
    "m.count += int(k0 == k0)\n{y} = {x} * m.count", "{y} = {x} * (k0 * 1j).imag", "{y} = {x} * k0 * m.scale - m.count",
)  # fmt: skip


def numbers(h: Hand) -> Step | None:
    """Numbers that meet tensors, each other, or Python."""
    x = h.tensor(is_float)
    if x is None:
        return None
    y = h.fresh()
    with_k0 = type(h.space.get("k0")) in (int, float) and h.rng.random() < 0.5
    form = h.rng.choice(GIVEN if with_k0 else STATE)
    p = "p" + y[1:]
    return Step(form.format(x=x, y=y, p=p), (p if "{p}" in form else y,))
