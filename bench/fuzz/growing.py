"""What a random program may do with tensors that are larger or smaller at every call, and with lists of them."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: {x}: a float tensor with a first axis, {y}: the name to make; m.last is what grows
GROWING = (
    "m.last = {x} if m.last is None else dg.concat([m.last, {x}])\n{y} = m.last.sum(axis=0)",
    "m.last = {x}.detach() if m.last is None else dg.concat([m.last, {x}.detach()])\n{y} = m.last * 2",
    "m.last = {x}.detach() if m.last is None else dg.concat([m.last, {x}.detach()])[-5:]\n{y} = m.last.mean(axis=0)",
    "m.last = {x}.detach() if m.last is None or m.last.shape[0] < 2 else m.last[1:]\n{y} = m.last * 2",
    "m.last = {x}.detach() if m.last is None or m.last.shape[0] == 0 else m.last[:-1].clone()\n"
    "{y} = m.last.sum() + {x}",
    "m.last = dg.zeros((0, *{x}.shape[1:]), dtype={x}.dtype) if m.last is None else m.last\n"
    "m.last = dg.concat([m.last, {x}[:1].detach()])\n{y} = m.last.max(axis=0) if m.last.shape[0] else m.last",
    "m.b = dg.concat([m.b, dg.ones(1)])\n{y} = m.b * 2",
    "m.b = m.b[1:] if m.b.shape[0] > 1 else dg.ones(4)\n{y} = m.b.cumsum(0)",
    "m.b = dg.concat([m.b, m.b])[:7]\n{y} = m.b + 1",
    "m.b = dg.zeros({x}.shape[0])\n{y} = m.b + m.count\nm.count += 1",
    "m.b = m.b.new_zeros({x}.shape[0] + m.count)\nm.count += 1\n{y} = m.b + 1",
    "m.grid = dg.concat([m.grid, m.grid[:1] * 0.5])\n{y} = m.layer(m.grid)",
    "m.grid = m.grid[1:] if m.grid.shape[0] > 1 else dg.ones((4, 2))\n{y} = m.layer(m.grid).sum(axis=0)",
    "m.grid = m.grid[:, :] if m.count % 2 else m.grid.repeat(2, 1)\nm.count += 1\n{y} = m.layer(m.grid)",
    "m.log.append({x})\n{y} = dg.concat([t for t in m.log if isinstance(t, dg.Tensor)])",
    "m.log.append({x}.detach())\nm.log = m.log[-3:]\n{y} = dg.concat(m.log).sum(axis=0)",
    "m.queue.append({x}.sum())\n{y} = dg.stack(list(m.queue)).mean()",
    "m.queue.append({x}.detach())\n{y} = dg.concat(list(m.queue))",
    "m.table[{x}.shape[0]] = {x}.detach() * 2\n"
    "{y} = sum(t.to(dg.float32).sum() for k, t in m.table.items() if k != 'b')",
    "m.table[{x}.shape] = m.table.get({x}.shape, 0) + 1\n{y} = {x} * m.table[{x}.shape]",
    "m.rows[0] = list({x}.shape)\n{y} = {x} * sum(m.rows[0])",
    "{y} = {x}.reshape({x}.shape[0], -1)\nm.count = {x}.shape[0]", "{y} = {x} / max({x}.shape[0], 1)",
    "{y} = {x}.sum(axis=0) / {x}.shape[0] if {x}.shape[0] else {x}.sum(axis=0)",
    "{y} = {x} * dg.arange({x}.shape[0]).to({x}.dtype).reshape(-1, *[1] * ({x}.ndim - 1))",
    "{y} = {x}[: {x}.shape[0] // 2]", "{y} = {x}[{x}.shape[0] - 1 :]", "{y} = dg.zeros({x}.shape[0] + 1) + 1",
    "{y} = {x}[m.count:]\nm.count += 1", "{y} = {x}[: m.count]\nm.count += 1",
    "{y} = {x}[m.count % max({x}.shape[0], 1)] if {x}.shape[0] else {x}\nm.count += 1", "{y} = {x}.mean(axis=0)",
    "{y} = {x}.var(axis=0)", "{y} = {x}.max(axis=0) if len({x}) else {x}", "{y} = dg.softmax({x}, axis=0)",
    "{y} = dg.sort({x}, axis=0)[0]", "{y} = {x}[{x}.to(dg.float32).reshape({x}.shape[0], -1).sum(axis=1) > 0]",
    "{y} = dg.nonzero({x})", "{y} = {x}\nfor row in {x}:\n    {y} = {y} + row.sum()",
    "{y} = dg.stack([r * k for k, r in enumerate({x})]) if len({x}) else {x}",
    "{y} = dg.scan(lambda c, t: (c + t, c * 2), {x}.sum(axis=0) * 0, {x})[1]",
    "{y} = dg.vmap(lambda t: t * t.sum())({x})", "{y} = sum({x}.unbind(0)) + {x}.sum()",
    "{y} = dg.concat([*{x}.split(2)][::-1])",
    "{y} = dg.nn.functional.layer_norm({x}, {x}.shape[1:]) if {x}.ndim > 1 else {x}",
    "{y} = {x}.T @ {x} if {x}.ndim == 2 else {x} * 2", "{y} = {x} @ {x}.mT if {x}.ndim >= 2 else {x}",
    "{y} = m.layer({x}.to(dg.float32)[..., :2]) if {x}.ndim > 1 and {x}.shape[-1] > 1 else {x} * 2",
    "loss = ({x} * m.w.to({x}.dtype).sum()).mean()\nm.w.grad = None\nloss.backward()\n{y} = m.w.grad * 1",
    "m.opt = m.opt or dg.optim.SGD([m.w], lr=0.1)\nm.opt.zero_grad()\n"
    "(m.w.sum() * {x}.detach().to(dg.float32)).square().mean().backward()\nm.opt.step()\n{y} = m.w * 1",
    "m.last = dg.nn.functional.dropout({x}.detach(), 0.5)\n{y} = m.last * 2",
    "{y} = {x} + dg.rand({x}.shape[0], 1).to({x}.dtype).sum()", "m.row = dg.rand({x}.shape[0])\n{y} = m.row * 2",
    "m.box.items.append({x}.shape[0])\n{y} = {x} * sum(m.box.items)",
    "if {x}.shape[0] == 1:\n    {y} = {x} * 3\nelse:\n    {y} = {x} - 1",
    "if {x}.shape[0] > m.count:\n    m.count = {x}.shape[0]\n{y} = {x} * m.count",
    "{y} = dg.broadcast_to({x}[:1], {x}.shape)",
    "{y} = dg.tile({x}, ({x}.shape[0],) + (1,) * ({x}.ndim - 1)) if {x}.shape[0] < 8 else {x}",
    "{y} = {x}.flatten()[:: max({x}.shape[0] - 1, 1)]", "{y} = dg.nn.functional.pad({x}, (0, {x}.shape[0] % 3))",
    "{y} = {x}.roll({x}.shape[0] // 2, 0)",
    "{y} = dg.checkpoint(lambda t: (t * t).sum(axis=0) / max(t.shape[0], 1), {x})",
    "{y} = dg.grad(lambda t: (t * t).mean())({x})",
)  # fmt: skip


def growing(h: Hand) -> Step | None:
    """Sizes of arguments and of state."""
    x = h.tensor(lambda t: is_float(t) and t.ndim)
    if x is None:
        return None
    y = h.fresh()
    return Step(h.rng.choice(GROWING).format(x=x, y=y), (y,))
