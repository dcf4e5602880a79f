"""What a random program may do with functions: in both modes, with records, generators, recursion, errors, printing."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: {x}: a float tensor with a first axis, {y}: the name to make
MODES = (
    "{y} = dg.function(lambda t: t * m.scale + 1)({x})",
    "{y} = dg.function(lambda t: t * 2 + len(m.log), mode='eager')({x})",
    "with dg.mode('eager'):\n    {y} = dg.function(lambda t: t - m.count)({x})",
    "f = dg.function(lambda t: dg.function(lambda s: s * m.scale, mode='eager')(t) + 1)\n{y} = f({x})",
    "inner = dg.function(lambda t: (t * 2, m.count))\n{y}, k = inner({x})\nm.count = k + 1",
    "{y} = m.inner({x}) + 1",
    "{y} = m.host({x}) + m.count",
    "{y} = m.inner.eager({x})",
    "{y} = m.inner(m.host({x}).detach())",
    "{y} = dg.grad(lambda t: m.inner(t).sum())({x})",
    "m.inner.mode = 'graph' if m.count % 2 else 'eager'\nm.count += 1\n{y} = m.inner({x})",
    "{y} = dg.checkpoint(m.inner, {x})",
    "{y} = dg.vmap(m.inner)({x})",
    "def part(t, k=2):\n    m.count += 1\n    return t * k\n{y} = part({x}) + part({x}, 3)",
)
RECORDS = (
    "r = Record({x}, m.count)\n{y} = r.a * (r.n + 1)",
    "m.pair = Record({x} * 2, m.count)\n{y} = m.pair.a + m.pair.n",
    "m.pair = replace(m.pair, n=m.pair.n + 1)\n{y} = {x} * m.pair.n",
    "m.pair.n += 1\nm.pair.a = {x}\n{y} = m.pair.a * m.pair.n",
    "m.pair.a = {x} * 0.5 if m.pair.a is None else m.pair.a.to(dg.float32).sum() + {x}\n{y} = m.pair.a * 1",
    "two = Two({x}, {x} + 1)\n{y} = two.b - two.a",
    "{y} = Two({x}, 2)._replace(a={x} * 3).a",
    "m.two = Two({x}, m.count)\n{y} = m.two[0] * 2",
    "a, b = m.two if m.two else ({x}, 1)\n{y} = {x} + b\nm.two = Two({x}, b + 1)",
    "{y} = dg.function(lambda r: r.a * r.n)(Record({x}, 3))",
    "{y} = dg.function(lambda r: Record(r.a * 2, r.n))(Record({x}, m.count)).a",
)
GENERATORS = (
    "{y} = sum(t * 2 for t in ({x}, {x} + 1))",
    "def made(t):\n    for k in range(2):\n        yield t * k\n{y} = [*made({x})][m.count % 2]",
    "def made(t):\n    while True:\n        yield t\n        t = t * 0.5\ng = made({x})\nnext(g)\n{y} = next(g)",
    "def made(t):\n    got = yield t\n    m.count += got\n    yield t * got\ng = made({x})\nnext(g)\n{y} = g.send(2)",
    "def made():\n    yield {x}\n    yield from ({x} * 2, {x} + 1)\n{y} = sum(made())",
    "def made(t):\n    try:\n        yield t * 2\n    finally:\n        m.count += 1\ng = made({x})\n{y} = next(g)\n"
    "g.close()",
    "{y} = max((t for t in ({x}, {x} * 2)), key=lambda t: t.ndim)",
    "{y} = dict((k, {x} * k) for k in range(3))[m.count % 3]",
    "{y} = {x} * 0\nfor r in zip(range(2), iter([{x}, {x} * 2])):\n    {y} = {y} + r[0] * r[1]",
)
RECURSIVE = (
    "def down(t, n):\n    return t if n == 0 else down(t * 0.5 + m.count, n - 1)\n{y} = down({x}, 3)",
    "def down(t, n=4):\n    return t if n == 0 or t.to(dg.float32).abs().sum() < 1 else down(t * 0.25, n - 1)\n"
    "{y} = down({x})",
    "def count(n):\n    m.log.append(n)\n    return 1 if n < 2 else n * count(n - 1)\n{y} = {x} * count(3)",
    "def both(n):\n    return [{x} * n] if n < 2 else both(n - 1) + both(n - 2)\n{y} = sum(both(3))",
)
ERRORS = (
    "try:\n    m.count += 1\n    if m.count > 1:\n        raise ValueError\n    {y} = {x} * 2\n"
    "except ValueError:\n    {y} = {x} - 1",
    "try:\n    {y} = {x} + 1\nfinally:\n    m.count += 1",
    "m.count += 1\n{y} = {x} * 2\nif m.count > 2:\n    raise ValueError('late')",
    "m.log.append({x} * 2)\nm.b += 1\n{y} = {x} * 2\nm.count += 1\nif m.count > 1:\n    raise ValueError('later')",
    "try:\n    m.log.append(1)\n    {y} = {x} * 2\n    raise KeyError\nexcept KeyError:\n    {y} = {x} * 3",
    "try:\n    {y} = {x}.reshape(7, 11, 13)\nexcept Exception as e:\n    m.box.last = type(e).__name__\n"
    "    {y} = {x} + 1",
    "try:\n    {y} = {x} + dg.ones((7, 11))\nexcept dg.errors.ShapeError:\n    {y} = {x} * 2",
    "try:\n    {y} = dg.take({x}, dg.tensor([m.count * 50]), axis=0)\nexcept Exception:\n    {y} = {x} - 2\n"
    "m.count += 1",
    "try:\n    {y} = dg.take({x}, (m.b * 0 + m.count * 50).to(dg.int64), axis=0)\nexcept Exception:\n"
    "    {y} = {x} - 2\n"
    "m.count += 1",
    "try:\n    m.b += 1\n    {y} = m.table['none']\nexcept KeyError:\n    {y} = {x} + m.b[0].to({x}.dtype)",
    "assert m.count < 2, 'enough'\nm.count += 1\n{y} = {x} * m.count",
    "assert {x}.to(dg.float32).sum() < 5\n{y} = {x} * 2",
    "class Quiet:\n    def __enter__(self):\n        m.count += 1\n    def __exit__(self, *error):\n"
    "        m.count += 2\n"
    "        return True\n{y} = {x}\nwith Quiet():\n    {y} = {x} * 2\n    raise KeyError",
)
PRINTS = (
    "dg.print('{{}} {{}}', {x}.to(dg.float32).sum(), m.count, to=m.printed.append)\n{y} = {x} * 2",
    "{y} = {x} + 1\nfor k in range(2):\n    dg.print('{{}}', {y}.to(dg.float32).sum() * k, to=m.printed.append)",
    "dg.print('before', to=m.printed.append)\n{y} = {x} * 2 if {x}.to(dg.float32).sum() > 0 else -{x}\n"
    "dg.print('after {{}}', {y}.shape, to=m.printed.append)",
)
OTHERS = (
    "rate = [m.scale, 2.0][m.count % 2]\nm.count += 1\n{y} = {x} * rate",
    "first, *rest = ({x}, {x} * 2, {x} + 1)\n{y} = rest[-1] - first",
    "{y} = {x} * (2 if m.box.n else 3)\nm.box.n = 1 - m.box.n",
    "m.net.train(m.count % 2 == 0)\nm.count += 1\n{y} = m.net({x})",
    "k = m.count\ndef more():\n    nonlocal k\n    k += 1\n    return {x} * k\nmore()\n{y} = more()\nm.count = k % 3",
    "match (m.count % 3, {x}):\n    case (0, t):\n        {y} = t + 1\n    case (k, t) if k > 1:\n        {y} = t * k\n"
    "    case _:\n        {y} = -{x}\nm.count += 1",
    "{y} = {x} * (isinstance({x}, dg.Tensor) + isinstance({x}, dg.nn.Parameter) * 2)",
)
#: products of one row with what lies turned in memory since before a value was read
TURNED = (
    "turned = {x}.mT if {x}.ndim > 1 else {x}\n{y} = {x} * (2 if {x}.to(dg.float32).sum() > 0 else 3)\n"
    "{y} = {y}[..., :1, :] @ turned if {x}.ndim > 1 else {y} + turned",
    "w = dg.rand((3, {x}.shape[-1] * 2)).to({x}.dtype)\nturned, w = (w * 2).mT[::2], w.mT\n"
    "if {x}.to(dg.float32).sum() > 1:\n    m.count += 1\n"
    "{y} = {x}[..., :1, :] @ (turned + w[::2]) if {x}.ndim > 1 else {x} @ turned + {x} @ w[1::2]",
)


def functions(h: Hand) -> Step | None:
    """Functions within the program, and other Python around tensors."""
    x = h.tensor(lambda t: is_float(t) and t.ndim and t.shape[0])
    if x is None:
        return None
    y = h.fresh()
    table = h.rng.choice(
        (MODES, MODES, RECORDS, GENERATORS, RECURSIVE, ERRORS, ERRORS, PRINTS, OTHERS, TURNED)
    )
    return Step(h.rng.choice(table).format(x=x, y=y), (y,))
