"""What a random program may do with iterators and generators, and with state that changes before its gradient."""

from __future__ import annotations

import random

from .program import Given, Step
from .steps import Hand, is_float

#: the temper's name
ITERATORS = "iterators"
#: {x}: a float tensor with a first axis, {y}: the name to make, {p}: a plain value's name
MADE = (
    "{y} = {x} * 0\nfor k, t in enumerate(({x}, {x} + 1), m.count):\n    {y} = {y} + t * k",
    "{y} = sum(map(lambda t: t * m.scale, [{x}, {x} + 1]))", "{y} = sum(filter(lambda t: t.ndim, ({x}, {x} * 3)))",
    "{y} = {x}\nfor r in reversed(m.rows):\n    {y} = {y} + len(r)",
    "it = iter(m.log)\nnext(it, None)\n{p} = list(it)", "{p} = [q for q in zip(m.table, itertools.count())]",
    "it = iter({x})\nt = next(it)\n{y} = t + sum(it)",
    "{y} = {x} * sum(itertools.islice(itertools.count(m.count), 3))",
    "c = itertools.cycle((1, {x}, m.count))\nnext(c)\n{y} = next(c) * next(c) + next(c)",
    "{y} = sum(a * b for a, b in itertools.product((1, m.count), ({x}, {x} + 1)))",
    "*_, {y} = itertools.accumulate(({x}, {x} * 2, m.scale))",
    "*_, {y} = itertools.accumulate([{x}] * 3, lambda a, b: a * 0.5 + b)",
    "{y} = sum(itertools.chain([{x}], (t * 2 for t in ({x},)), m.rows[0]))",
    "a, b = itertools.tee(({x}, {x} + 1))\nnext(a)\n{y} = next(a) * next(b)",
    "{y} = {x}\nfor k, g in itertools.groupby([1, 1, 2, m.count]):\n    {y} = {y} * k + len(list(g))",
    "{y} = {x}\nfor a, b in itertools.pairwise((1, m.count, m.scale)):\n    {y} = {y} * a + b",
    "{y} = {x} * sum(1 for _ in itertools.takewhile(lambda v: m.count < 2, m.rows[-1]))",
    "{y} = {x} * sum(1 for _ in itertools.dropwhile(lambda k: k != 'b', m.table))",
    "it = iter(m.log)\nm.log.append(m.count)\n{p} = sum(1 for _ in it), len(m.log)",
    "for q in m.log:\n    if len(m.log) > 5:\n        break\n    m.log.append(1)\n{y} = {x} * len(m.log)",
    "try:\n    for k in m.table:\n        m.table[k + 'x'] = m.count\nexcept RuntimeError as e:\n"
    "    m.box.last = str(e)\n{y} = {x} * len(m.table)",
    "m.queue.append(m.count)\ntry:\n    for q in m.queue:\n        m.queue.append(1)\n"
    "except RuntimeError as e:\n    m.box.last = str(e)\n{y} = {x} * len(m.queue)",
    "{p} = [*iter(lambda: m.queue.popleft() if m.queue else None, None)]\nm.queue.extend([m.count, 2])",
    "g = ({x} * k for k in range(4))\nnext(g)\n{y} = next(g) + sum(g)",
    "it = iter(range(m.count % 3 + 1))\nnext(it)\n{y} = {x} * (1 + sum(it))\nm.count += 1",
    "a, *b = (t for t in ({x}, {x} * 2, {x} + 1))\n{y} = a + b[-1]", "{y} = dict(zip('ab', ({x}, {x} + 1)))['b']",
    "try:\n    for a, b in zip([1, 2], m.rows[0], strict=True):\n        m.count += 1\n"
    "except ValueError as e:\n    m.box.last = str(e)\n{y} = {x} * m.count",
    "{p} = any(m.log.append(k) or k > m.count % 3 for k in range(4)), all(q != 2 for q in m.rows[-1])",
    "{p} = sorted((k * -1 for k in range(3)), key=lambda k: k % 2), max(map(len, m.rows)), "
    "min(m.seen, default=0)",
    "{y} = {x} * (2 in iter([1, 2, m.count])) + (m.count in range(3))",
    "it = iter([1, 2, 3])\nfor k in it:\n    m.count += k + next(it, 0)\n{y} = {x} * m.count",
    "q = [1, 2, 3]\nit = iter(q)\nfor k in it:\n    q.remove(k)\n{y} = {x} * len(q)",
    "{y} = sum(t for t in {x}.split(1)) * 2", "{y} = dg.stack([*map(dg.tanh, ({x}, {x}))])",
    "{y} = dg.concat([t for _ in range(2) for t in ({x},)])", "m.it = iter([{x}.ndim, 2, 3])\n{y} = {x} * next(m.it)",
    "{y} = {x}\nfor n, p in m.layer.named_parameters():\n    {y} = {y} * len(n) + p.sum().to({x}.dtype)",
    "{y} = {x}\nfor (k, v), r in zip(m.table.items(), itertools.cycle(m.rows)):\n"
    "    {y} = {y} * (len(k) + len(r))",
    "next(iter([]))\n{y} = {x}", "{y} = {x} * functools.reduce(lambda a, b: a * 2 + b, (m.count, 1, 2))",
    "it = enumerate([{x}, {x} * 2])\n{y} = next(it)[1]\nfor k, t in it:\n    {y} = {y} + t * k",
    "{p} = [''.join(k) for k in itertools.permutations('abc', 2)][m.count % 6]\nm.count += 1",
    "for t in {x}.reshape(-1)[:3]:\n    if t.to(dg.float32) > 0:\n        break\n{y} = {x} * t",
    "class Walk:\n    def __init__(self):\n        self.n = m.count\n    def __iter__(self):\n"
    "        return self\n    def __next__(self):\n        self.n += 1\n        if self.n > 3:\n"
    "            raise StopIteration\n        return self.n\n{y} = {x}\nfor k in Walk():\n    {y} = {y} * k\n"
    "m.count += 1",
)  # fmt: skip
GENERATORS = (
    "def made(t):\n    total = t\n    while True:\n        got = yield total\n        if got is None:\n"
    "            return total * m.scale\n        total = total + got\ng = made({x})\nnext(g)\ng.send(1)\n"
    "g.send({x} * 2)\ntry:\n    next(g)\nexcept StopIteration as e:\n    {y} = e.value",
    "def inner():\n    try:\n        got = yield {x}\n        return (got or 1) * 2\n    finally:\n"
    "        m.count += 1\ndef outer():\n    k = yield from inner()\n    yield {x} * k\n{y} = sum(outer())",
    "def inner():\n    try:\n        yield {x}\n        yield {x} * 2\n    finally:\n"
    "        m.log.append('closed')\ndef outer():\n    yield from inner()\ng = outer()\n{y} = next(g)\n"
    "g.close()",
    "def made():\n    try:\n        yield {x}\n    except ValueError as e:\n        m.box.last = str(e)\n"
    "        yield {x} * 3\ng = made()\nnext(g)\n{y} = g.throw(ValueError('no'))",
    "def made():\n    try:\n        yield {x} * 2\n    finally:\n        m.count += 1\nfor {y} in made():\n"
    "    break",
    "def made():\n    try:\n        yield {x} * 2\n        yield {x}\n    finally:\n        m.count += 1\n"
    "{y} = next(made())",
    "def made():\n    with dg.no_grad():\n        yield {x} * 2\n    yield {x} * 3\na, {y} = made()",
    "def made():\n    with dg.no_grad():\n        yield {x} * 2\ng = made()\n{y} = next(g)\nv = {x} + 1\n"
    "g.close()\n{y} = {y} + v",
    "m.count += 1\n{y} = {x}\nfor k in itertools.count():\n    if k == 3:\n        break\n    if m.count > 2:\n"
    "        return {x} * k\n    {y} = {y} * 0.5 + k",
    "m.count += 1\n{y} = {x}\nfor k in (1, 2, 3):\n    try:\n        if k == 2:\n            continue\n"
    "        {y} = {y} * k\n        if m.count > 1:\n            break\n    finally:\n        m.log.append(k)\n"
    "else:\n    {y} = {y} + 100",
    "def made():\n    raise StopIteration\n    yield\ntry:\n    next(made())\nexcept RuntimeError as e:\n"
    "    m.box.last = str(e)\n{y} = {x} * 2",
    "def made(n):\n    if n:\n        yield {x} * n\n        yield from made(n - 1)\n{y} = sum(made(3))",
    "def made():\n    for r in m.rows:\n        r.append(m.count)\n        yield len(r)\n"
    "{y} = {x} * sum(made())",
    "def made():\n    m.b += 1\n    yield {x} * m.b[0].to({x}.dtype)\n    m.b *= 2\ng = made()\n{y} = next(g)",
    "def made():\n    for p in (m.w, m.b):\n        yield p.sum()\n{y} = sum(made()) * 2",
    "def made():\n    while m.count < 3:\n        m.count += 1\n        yield m.count\n"
    "{y} = {x} * (sum(made()) + 1)\nm.count = 0",
    "def made():\n    got = None\n    while got != 'stop':\n        got = yield {x} * len(got or '')\n"
    "g = made()\ng.send(None)\n{y} = g.send('ab')\ntry:\n    g.send('stop')\nexcept StopIteration:\n"
    "    m.count += 1",
    "def made():\n    try:\n        yield {x}\n    except GeneratorExit:\n        m.log.append('end')\n"
    "        raise\ng = made()\n{y} = next(g) * 2\ndel g",
    "fs = [lambda k=k: {x} * k for k in range(3)]\n{y} = sum(f() for f in fs)",
    "def made(t):\n    while t.ndim:\n        yield t\n        t = t.sum(axis=0)\n*_, {y} = made({x})",
    "def made():\n    yield dg.rand(2)\n    yield dg.rand(2)\na, b = made()\n{y} = a - b",
    "@contextlib.contextmanager\ndef held(k):\n    before, m.scale = m.scale, k\n    try:\n"
    "        yield {x} * k\n    finally:\n        m.scale = before\nwith held(3.0) as t:\n    {y} = t + m.scale",
    "m.box.last = ({x} for _ in range(2))\n{y} = {x} * 2", "m.it = (k for k in range(3))\n{y} = {x} + next(m.it)",
    "if m.last is None:\n    m.box.last, m.last = iter([1, 2, 3]), {x} * 1\n{y} = {x} * 2",
    "{p} = iter([1, m.count]), zip([1], 'a'), (k for k in (1, 2))",
    "{p} = itertools.count(m.count)\nm.count += next({p})",
)  # fmt: skip
#: {i}: an iterator from outside, whose elements are numbers; most are refused
OUTSIDE = (
    "{y} = {x} * next({i})", "{y} = {x}\nfor k in {i}:\n    {y} = {y} * k\n    break",
    "{p} = [*itertools.islice({i}, 2)]", "{y} = {x} * sum(k for k, _ in zip({i}, range(2)))",
    "m.count += 1\nm.b += 1\nm.log.append({x})\nm.rows[0] = [2]\n{y} = {x} * next({i})",
    "try:\n    k = next({i})\nexcept StopIteration:\n    k = 0\nm.count += 1\n{y} = {x} * k",
    "m.log.append(1)\ntry:\n    {y} = {x} * next({i})\nfinally:\n    m.count += 1",
    "def one():\n    return next({i})\n{y} = {x} * one()", "{y} = dg.function(lambda t: t * next({i}))({x})",
    "{y} = dg.function(lambda t: t * next({i}, 1), mode='eager')({x})", "{p} = {i} is None, isinstance({i}, list)",
    "m.box.last = {i}\n{y} = {x} * 2", "m.it = iter([5, 6])\n{y} = {x} * next(m.it)",
    "k = next({i}, 1) if m.count > 1 else 0\nm.count += 1\n{y} = {x} * k",
    "{y} = {x} * next({i}) if {x}.to(dg.float32).sum() > 0 else {x}", "{y} = {x} * (2 in itertools.islice({i}, 3))",
    "*_, k = itertools.islice({i}, 2)\n{y} = {x} * k", "{y} = {x} * next(map(lambda k: k * 2, {i}))",
    "{y} = {x} * next(itertools.chain([], {i}))", "def made():\n    yield from {i}\n{y} = {x} * next(made())",
    "{y} = {x} * next(k + 1 for k in {i})", "m.log.extend(itertools.islice({i}, 2))\n{y} = {x} * len(m.log)",
    "{y} = {x} * dg.tensor([*itertools.islice({i}, 2)]).sum()", "{y} = {x} * max(*itertools.islice({i}, 2), 1)",
    "m.it = iter(m.log)\n{y} = {x} * len([*m.it])",
    "{y} = {x} * float(np.fromiter(itertools.islice({i}, 2), float).sum())",
    "step = {i}.__next__\n{y} = {x} * step()", "{y} = {x} * functools.reduce(max, itertools.islice({i}, 2), 0)",
    "{p} = [k for k, _ in zip(range(2), m.rows)], {i}", "{y} = dg.grad(lambda t: (t * next({i})).sum())({x})",
    "{y} = dg.checkpoint(lambda t: t * next({i}), {x})", "{y} = dg.vmap(lambda t: t * next({i}))({x})",
    "{y} = dg.cond({x}.to(dg.float32).sum() > 0, lambda t: t * next({i}), lambda t: t, {x})",
)  # fmt: skip
SOURCES = (
    "iter([1, 2, 3, 4, 5, 6, 7, 8, 9])", "iter((2, 3, 4, 5, 6))", "iter(range(1, 9))", "itertools.count(1)",
    "itertools.cycle((1, 2))", "(k for k in range(1, 9))", "map(abs, [1, 2, -3, 4])", "reversed([1, 2, 3, 4])",
    "itertools.repeat(2)", "itertools.chain([1, 2], [3, 4])", "itertools.accumulate([1, 2, 3])",
    "filter(None, [1, 2, 3])", "iter({1: 2, 3: 4})", "iter({1, 2})", "iter(m.rows[1])",
    "itertools.islice(itertools.count(), 5)", "iter(b'abc')", "iter(deque([1, 2, 3]))", "iter(np.arange(4))",
    "iter([1, 2, 3, 4].pop, 1)", "iter(bytearray(b'abc'))", "np.arange(5).flat", "reversed({1: 2, 3: 4})",
    "itertools.tee([1, 2, 3])[0]", "iter([])",
)  # fmt: skip
#: what a gradient hangs on that is no tensor; {a}: an array that is kept
READ = (
    "{y} = {x} * {x} * (len(m.log) + 1)", "{y} = {x}.tanh() * m.scale", "{y} = {x} ** 2 * (m.count + 1)",
    "{y} = {x}.exp() * m.table.get('k', 2)", "{y} = {x} * {x} * m.rows[0][0]", "{y} = ({x} * float({a}[0])).sin()",
    "{y} = {x}.tanh() * dg.tensor({a}.copy())[1].to({x}.dtype)", "{y} = {x} * {x} * sum(v for v in {a}.tolist())",
    "{y} = {x}.tanh() * (2 if 'k' in m.table else 3)", "{y} = {x} ** 2 * (2 if m.log else 3) * (m.box.n + 1)",
    "{y} = {x} ** 3 * (m.pair.n + 1) * len(m.rows)", "{y} = ({x}.to(dg.float32).sum() * m.w).tanh()",
    "{y} = ({x}.to(dg.float32).sum() * m.b).tanh()", "{y} = {x}.tanh() * (2 in m.seen) + len(m.seen)",
    "{y} = {x} * {x} * sum(map(len, m.rows))", "{y} = {x} ** 2 * next(reversed(m.rows))[-1]",
    "{y} = {x}.tanh() * (m.queue[0] if m.queue else 1)", "{y} = m.inner({x}) * {x}",
    "{y} = {x} * {x} * max(m.table, key=len).count('k')", "{y} = dg.checkpoint(lambda t: t.tanh() * m.scale, {x})",
    "{y} = dg.nn.functional.dropout({x} * {x}, 0.5)", "{y} = {x}.tanh() * dg.rand({x}.shape).to({x}.dtype)",
    "m.layer.weight.requires_grad_(m.count % 2 == 0)\nm.count += 1\n"
    "{y} = m.layer({x}.to(dg.float32).sum() + dg.ones(2)).tanh()",
    "m.box.n += 1\nm.log.append(m.box.n)\n{y} = {x} ** 2 * m.log[-1]", "{a} += 1\n{y} = {x}.tanh() * float({a}[0])",
    "m.table['k'] = len(m.log) + 1\n{y} = {x} ** 2 * m.table['k']\nm.log.append(1)",
    "_, {y} = dg.scan(lambda c, t: (c + t, c * t * m.scale), {x}[0], {x})",
    "{y} = {x} ** 2 * m.box.last.n if m.box.last else {x}",
    "{y} = dg.cond({x}.to(dg.float32).sum() > 0, lambda t: t * t * m.scale, lambda t: t.tanh(), {x})",
    "{y} = {x} * {x} * ({x}.detach() * m.scale)",
    "p0 = {x} * {x}\np0.register_hook(lambda g: g * m.scale)\n{y} = p0 * 2",
    "def made():\n    for k in m.rows:\n        yield {x} ** 2 * len(k)\n{y} = sum(made())",
)  # fmt: skip
#: changes before the gradient; {a} may not be there
BETWEEN = (
    "m.log.append(7)", "m.log.insert(0, 1)", "m.log.clear()", "m.log = [1, 2]", "m.scale = 3.0", "m.scale *= 0.5",
    "m.count += 1", "m.count = 2.5", "m.table['k'] = 5", "m.table.pop('k', 0)", "m.table = {}", "m.table['b'] = m.w",
    "m.rows = [[4], [5, 6]]", "m.rows[0][0] = 9", "m.rows.append([1])", "m.rows[-1].append(2)", "m.seen.add(7)",
    "m.seen.discard(2)", "m.queue.append(3)", "m.queue.clear()", "m.box.n += 2", "m.box.last = Box(2)",
    "m.box = Box(4)", "m.pair.n = 5", "m.pair = Record(None, 2)", "{a} += 1", "{a}[0] = 9",
    "{a} = np.full(3, 0.5, np.float32)", "m.b += 1", "m.b = dg.ones(2)", "m.b[0] = 5",
    "with dg.no_grad():\n    m.w *= 2", "with dg.no_grad():\n    m.w.copy_(m.w * 0 + 1)",
    "with dg.no_grad():\n    m.layer.weight += 1", "m.layer.weight.requires_grad_(False)", "m.layer.zero_grad()",
    "m.w.grad = None", "m.w.grad = m.w.detach() * 1", "dg.rand((2,))", "dg.manual_seed(7)", "m.random.manual_seed(3)",
    "m.layer.eval()", "m.net.eval()", "m.last = None", "m.grid += 1", "m.row.mul_(2)", "m.inner.mode = 'eager'",
    "with dg.no_grad():\n    dg.ones(2) * 2", "(m.w * 2).sum().backward()", "m.inner(dg.ones(2))", "m.it = None",
    "if isinstance(out, tuple) and isinstance(out[0], dg.Tensor) and out[0].dtype.is_float:\n"
    "    out[0].detach().mul_(2)",
    "with dg.no_grad():\n    leaves({leaves})[0].mul_(2)", "leaves({leaves})[0].grad = None", "f(*({names},))",
)  # fmt: skip


def iterators(h: Hand) -> Step | None:
    """Iterators and generators, made in the function or advanced there though they come from outside."""
    x = h.tensor(lambda t: is_float(t) and t.ndim and t.shape[0] and t.size <= 200)
    if x is None:
        return None
    y, r = h.fresh(), h.rng
    table = r.choices((MADE, GENERATORS, OUTSIDE), (5, 4, 2))[0]
    form, p = r.choice(table), "p" + y[1:]
    names = {}
    if "{i}" in form:
        kept = r.random() < 0.7
        given = Given("i0" if kept else "i1", (), "made", values=(r.choice(SOURCES),))
        known = [s.name for s in (h.state if kept else h.new) if s.name == given.name]
        names["i"] = f"m.{given.name}" if kept else given.name
        if not known and kept:
            h.keep(given)
        elif not known:
            h.give(given)
            h.names.remove(given.name)
    return Step(form.format(x=x, y=y, p=p, **names), (p if "{p}" in form else y,))


def read(h: Hand) -> Step | None:
    """A product with what may have changed when its gradient is taken."""
    x = h.tensor(lambda t: is_float(t) and t.ndim and t.shape[0])
    if x is None:
        return None
    form, y, a = h.rng.choice(READ), h.fresh(), "m.a0"
    if "{a}" in form and not any(s.name == "a0" for s in h.state):
        h.keep(Given("a0", (), "made", values=("np.arange(1, 4, dtype=np.float32)",)))
    return Step(form.format(x=x, y=y, a=a), (y,))


def changed_since(rng: random.Random, inputs: tuple[Given, ...]) -> str:
    """What happens between a call of such a program and its gradient."""
    if rng.random() < 0.3:
        return ""
    leaves = ", ".join([*(n for x in inputs if x.is_tensor for n in (x.name, *x.behind)), "m.w"])
    names = ", ".join(x.name for x in inputs)
    rows = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        line = (
            rng.choice(BETWEEN).replace("{a}", "m.a0").replace("{leaves}", leaves).replace("{names}", names)
        )
        line = line.replace("\n", "\n    ")
        rows.append(
            f"try:\n    {line}\nexcept (dg.errors.DuogradError, AttributeError, IndexError):\n    m.box.n += 1"
        )
    return "\n".join(rows)
