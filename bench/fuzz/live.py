"""What a random program may do with Python numbers that change from call to call, as bounds, sizes and shapes."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: k0 and k1: containers of numbers as arguments
PACKS = (
    ([0.1, 2], [0.2, 3], [0.3, 4], [0.1, 5], [0.2, 2]),
    ({"lr": 0.1, "n": 1}, {"lr": 0.2, "n": 2}, {"lr": 0.3, "n": 3}), ((1, 2), (1, 3), (2, 3), (1.5, 2)),
    ([1], [1, 2], [1, 2, 3]), ({"a": 1}, {"a": 2, "b": 3}, {"b": 4}),
    ({"o": {"lr": 0.5}}, {"o": {"lr": 0.25}}, {"o": {"lr": 2}}), ([[1, 2], [3]], [[2, 2], [4]], [[5, 6], [7]]),
)  # fmt: skip
#: with a pack k1
PACKED = (
    "{y} = {x} * (k1[0] if not isinstance(k1, dict) else next(iter(k1.values())))", "{y} = {x} * len(k1)",
    "{y} = {x} * sum(v for v in (k1.values() if isinstance(k1, dict) else k1) if isinstance(v, (int, float)))",
    "for v in (k1.values() if isinstance(k1, dict) else k1):\n    m.log.append(v)\n{y} = {x} * len(m.log)",
    "{y} = {x}\nfor v in (k1.items() if isinstance(k1, dict) else enumerate(k1)):\n    {y} = {y} + len(str(v[0]))",
    "m.table['k'] = k1\n{y} = {x} * len(m.table)", "m.box.last = k1\n{y} = {x} + len(m.box.last)",
    "{y} = {x} * k1['lr'] if isinstance(k1, dict) and 'lr' in k1 else {x} - 1",
    "if isinstance(k1, dict):\n    k1['n'] = k1.get('n', 0) + 1\n{y} = {x} * len(k1)",
    "if isinstance(k1, list):\n    k1.append(m.count)\nm.count += 1\n{y} = {x} * len(k1)",
    "{y} = {x} * (k1 == m.box.last) + 1\nm.box.last = k1", "{y} = dg.full((2,), float(len(k1))) * 2",
    "{p} = k1, len(k1), {x}.ndim", "{y} = dg.function(lambda t, k: t * len(k))({x}, k1)",
    "{y} = {x} * dg.tensor([float(v) for v in (k1.values() if isinstance(k1, dict) else k1) if isinstance(v, "
    "(int, float))] or [1.0]).sum().to({x}.dtype)",
)  # fmt: skip
#: {x}: a float tensor, {y}: the name to make, {p}: a plain value's name
LIVE = (
    "m.scale *= 0.9\n{y} = {x} * math.exp(-m.scale)", "m.count += 1\n{y} = {x} * math.sin(m.count)",
    "m.count += 1\n{y} = {x} / math.sqrt(m.count)",
    "m.count += 1\nm.scale = 0.5 * (1 + math.cos(math.pi * m.count / 10))\n{y} = {x} * m.scale",
    "m.count += 1\n{y} = {x} * math.log1p(m.count)",
    "m.count += 1\n{y} = {x} * (0.9 ** m.count) / (1 - 0.9 ** m.count)",
    "m.count += 1\n{y} = {x} * math.floor(m.scale * m.count)", "m.scale = min(m.scale * 1.5, 10)\n{y} = {x} * m.scale",
    "m.scale = max(m.scale - 0.5, 0)\n{y} = {x} * m.scale + m.scale",
    "m.count += 1\n{y} = {x}.clip(-1 / m.count, m.count * 0.5)", "m.count += 1\n{y} = {x}.clip(max=m.count * 0.1)",
    "m.count += 1\n{y} = dg.where({x} > m.count * 0.1, {x}, m.scale)",
    "m.count += 1\n{y} = dg.zeros((m.count, 2)) + {x}.to(dg.float32).sum()",
    "m.count += 1\n{y} = dg.arange(m.count) * 2", "m.count += 1\n{y} = dg.full((2, m.count % 3), m.scale)",
    "m.count += 1\n{y} = dg.linspace(0, m.count, 4) * m.scale", "m.count += 1\n{y} = dg.arange(0, m.count, 0.5)",
    "m.count += 1\n{y} = dg.eye(m.count % 4)", "m.count += 1\n{y} = {x}.reshape(-1)[m.count % max({x}.size, 1) :]",
    "m.count += 1\n{y} = {x}.reshape(-1)[: m.count]", "m.count += 1\n{y} = {x}[..., : m.count] if {x}.ndim else {x}",
    "m.count += 1\n{y} = {x}[..., m.count % {x}.shape[-1]] if {x}.ndim and {x}.shape[-1] else {x}",
    "m.count += 1\n{y} = {x}[-m.count :] if {x}.ndim else {x}",
    "m.count += 1\n{y} = {x}[:: m.count] if {x}.ndim else {x}", "m.count += 1\n{y} = {x}.expand(m.count, *{x}.shape)",
    "m.count += 1\n{y} = dg.roll({x}, m.count, -1) if {x}.ndim else {x}",
    "m.count += 1\n{y} = dg.tile({x}, (m.count % 3,))", "m.count += 1\n{y} = {x}.unsqueeze(m.count % ({x}.ndim + 1))",
    "m.count += 1\n{y} = {x}.sum(axis=m.count % {x}.ndim) if {x}.ndim else {x}",
    "m.count += 1\n{y} = dg.one_hot(dg.tensor([m.count % 3]), 3)",
    "m.count += 1\n{y} = {x}.repeat_interleave(m.count % 3, 0) if {x}.ndim else {x}",
    "m.count += 1\n{y} = dg.tril({x}, m.count % 3 - 1) if {x}.ndim > 1 else {x}",
    "m.count += 1\n{y} = {x}.reshape(-1)\n{y} = {y}.narrow(0, 0, min(m.count, {y}.shape[0]))",
    "m.count += 1\nm.b[m.count % 2] = m.count\n{y} = m.b * 2",
    "m.count += 1\nm.b[: m.count % 3] += m.scale\n{y} = m.b + 1",
    "m.count += 1\nm.grid[m.count % 3, m.count % 2] = m.scale\n{y} = m.grid * 1",
    "m.count += 1\n{y} = dg.nn.functional.dropout({x}, min(m.count * 0.1, 0.9))",
    "m.count += 1\n{y} = {x} + dg.rand((m.count % 3 + 1, 1)).to({x}.dtype).sum()",
    "m.count += 1\n{y} = dg.normal(0.0, m.scale * m.count, (3,))",
    "m.count += 1\n{y} = dg.randint(0, m.count + 1, (3,))",
    "m.count += 1\n{y} = dg.nn.functional.leaky_relu({x}, m.count * 0.01)",
    "m.count += 1\n{y} = dg.nn.functional.elu({x}, m.scale)\nm.scale *= 0.5",
    "m.count += 1\n{y} = dg.nn.functional.huber_loss({x}, {x} * 0.5, delta=m.scale)\nm.scale += 0.5",
    "m.count += 1\n{y} = dg.nn.functional.layer_norm({x}, ({x}.shape[-1],), eps=1e-5 * m.count) if {x}.ndim else {x}",
    "m.count += 1\n{y} = {x}.var(correction=m.count % 2)",
    "m.count += 1\n{y} = dg.nn.functional.softplus({x}, beta=m.count)",
    "m.count += 1\n{y} = {x}.lerp({x} * 2, m.scale / m.count)",
    "m.last = {x}.to(dg.float32).sum().item()\n{y} = {x} * 2",
    "m.log.append({x}.to(dg.float32).mean().item())\n{y} = {x} * len(m.log)",
    "k = {x}.to(dg.float32).sum().item()\nm.scale = 0.9 * m.scale + 0.1 * k\n{y} = {x} + 1",
    "k = {x}.to(dg.float32).sum().item()\n{y} = {x} * k",
    "k = {x}.to(dg.float32).sum().item()\nm.box.last = k if m.box.last is None else min(m.box.last, k)\n"
    "{y} = {x} - 1", "k = float({x}.to(dg.float32).abs().max()) if {x}.size else 1.0\n{y} = {x} / (k + 1)",
    "m.table['best'] = max(m.table.get('best', -1e9), {x}.to(dg.float32).sum().item())\n{y} = {x} * 2",
    "k = {x}.to(dg.float32).sum().item()\n{y} = {x} * math.tanh(k) if math.isfinite(k) else {x}",
    "n = int({x}.to(dg.float32).abs().sum().clip(0, 3).item()) if dg.isfinite({x}.to(dg.float32).sum()) else 0\n"
    "{y} = dg.zeros(n) + 1",
    "m.table['s'] = m.table.get('s', np.float32(0.5)) * np.float32(1.5)\n{y} = {x} * m.table['s']",
    "m.table['s'] = np.float64(m.count) + 0.25\nm.count += 1\n{y} = {x} * m.table['s']",
    "m.table['s'] = np.int64(m.count)\nm.count += 1\n{y} = {x} + m.table['s']",
    "m.count += 1\n{y} = {x} * np.sqrt(m.count)", "m.count += 1\n{y} = {x} * np.float32(m.count * 0.1)",
    "m.count += 1\n{y} = {x} * float(np.mean([m.count, m.scale]))",
    "m.count += 1\n{y} = {x} + dg.tensor(np.arange(m.count, dtype=np.float32)).sum().to({x}.dtype)",
    "m.box.n += 1\nm.rows[0][0] *= 0.5\n{y} = {x} * m.rows[0][0] ** m.box.n",
    "m.count += 1\nm.rows[m.count % 2][0] += m.count\n{y} = {x} * m.rows[0][0] - m.rows[1][0]",
    "m.rows = [[r[0] + 1, *r[1:]] for r in m.rows]\n{y} = {x} * m.rows[-1][0]",
    "m.table['a'] = [m.count, m.scale]\nm.count += 1\n{y} = {x} * m.table['a'][0]",
    "m.table = {{**m.table, 'n': m.count}}\nm.count += 1\n{y} = {x} * m.table['n']",
    "m.table['o'] = m.table.get('o', {{'lr': 1.0}})\nm.table['o']['lr'] *= 0.5\n{y} = {x} * m.table['o']['lr']",
    "m.box.last = (m.box.last or 0) + 0.5\n{y} = {x} ** m.box.last",
    "setattr(m, 'scale', m.scale * 0.5)\n{y} = {x} * getattr(m, 'scale')",
    "m.count += 1\nfor n, v in enumerate((m.count, m.scale)):\n    m.scale = v * 0.5 + n\n{y} = {x} * m.scale",
    "m.count += 1\n{y} = {x}\nfor k in range(0, 10, m.count):\n    {y} = {y} + k",
    "m.count += 1\n{y} = {x} * divmod(m.count, 3)[1] + m.count // 2",
    "m.count += 1\n{y} = {x} * (m.count << 2) - (m.count & 1)",
    "m.count += 1\n{y} = {x} * int(f'{{m.count}}') + len(str(m.count))",
    "m.count += 1\n{y} = {x} if m.count % 2 else {x} * m.count\nm.scale = -m.scale",
    "m.count, m.scale = m.count + 1, m.count * 0.5\n{y} = {x} * m.scale",
    "m.count += 1\n{y} = {x} * complex(m.count, 1).imag * m.count",
    "m.count += 1\nm.w.grad = None\n((m.w * m.count) ** 2).sum().backward()\n{y} = m.w.grad * m.scale",
    "m.count += 1\n{y} = dg.grad(lambda t: (t ** m.count).sum())({x})",
    "m.count += 1\n"
    "{y} = dg.while_loop(lambda c: c[0] < m.count % 4, lambda c: (c[0] + 1, c[1] * m.scale), (0, {x}))[1]",
    "m.count += 1\n{y} = dg.scan(lambda c, _: (c * m.scale, c), {x}, length=m.count % 3)[0]",
    "m.count += 1\n{y} = dg.vmap(lambda t: t * m.count + m.scale)({x}) if {x}.ndim else {x}",
    "m.count += 1\n{p} = math.exp(-m.count), np.float32(m.count), m.count / 3, {x}.shape\n",
)  # fmt: skip


def live(h: Hand) -> Step | None:
    """Numbers that are other ones at the next call."""
    x = h.tensor(is_float)
    if x is None:
        return None
    y = h.fresh()
    form = h.rng.choice(PACKED if "k1" in h.space and h.rng.random() < 0.5 else LIVE)
    p = "p" + y[1:]
    return Step(form.strip().format(x=x, y=y, p=p), (p if "{p}" in form else y,))
