"""What a random program may do with what is set again: gradients asked for or kept or not, train or eval."""

from __future__ import annotations

from .program import Given, Step
from .steps import Hand, is_float
from .training import LOSSES

#: between calls, from outside
SET = (
    "m.w.requires_grad_(not m.w.requires_grad)", "m.w.grad = None", "m.layer.zero_grad()", "m.b = m.b * 1",
    "m.layer.zero_grad(set_to_none=False)", "m.layer.train(not m.layer.training)", "m.net.train(not m.net.training)",
    "m.layer.weight.requires_grad_(m.count % 2 == 0)", "for p in m.layer.parameters():\n    p.requires_grad_(False)",
    "m.layer.requires_grad_(not m.layer.bias.requires_grad)", "m.w.grad = dg.ones_like(m.w)",
    "if m.w.grad is not None:\n    m.w.grad *= 0.5", "if m.w.grad is not None:\n    m.w.grad.zero_()",
    "if m.plan is not None and m.opt is not None and hasattr(m.opt, 'param_groups'):\n    m.plan.step()",
    "if m.opt is not None:\n    m.opt.param_groups[0]['lr'] *= 0.5", "if m.opt is not None:\n    m.opt.zero_grad()",
    "if m.opt is not None:\n    m.opt.zero_grad(set_to_none=False)", "if m.opt is not None:\n    m.opt.step()",
    "if m.opt is not None:\n    m.opt.load_state_dict(m.opt.state_dict())", "m.opt = None\nm.plan = None",
    "if m.opt is not None:\n    m.opt.param_groups[-1]['weight_decay'] = 0.25", "m.scale += 0.5",
    "with dg.no_grad():\n    m.w *= 0.5", "m.w = dg.nn.Parameter(m.w.detach() * 2)", "m.w = m.w.detach()",
    "m.layer.weight = dg.nn.Parameter(m.layer.weight.detach() * 0.5)", "m.grid.requires_grad_(m.count % 2 == 0)",
    "m.layer.load_state_dict(m.layer.state_dict())", "m.net.p = 0.25", "m.net = dg.nn.Dropout(0.25)", "m.count += 1",
    "m.saved = m.opt and m.opt.state_dict()", "m.layer.weight.grad = m.layer.weight.detach() * 0.5",
    "dg.nn.utils.clip_grad_norm_(m.layer.parameters(), 0.1)", "m.row = m.grid[1]", "m.grid = m.grid * 1",
    "m.w.detach().mul_(2)",
)  # fmt: skip
#: {x}: a float tensor, {y}: the name to make, {loss}: a number
FLAGS = (
    "m.w.requires_grad_(m.count % 2 == 0)\nm.count += 1\n{y} = m.w * 2",
    "m.w.requires_grad_(not m.w.requires_grad)\n{y} = m.w * {x}.to(dg.float32).sum()",
    "m.w.requires_grad = m.count % 3 != 1\nm.count += 1\n{y} = (m.w * 3).sum()",
    "for p in m.layer.parameters():\n    p.requires_grad_(m.count % 2 == 0)\nm.count += 1\n{y} = m.layer(m.grid)",
    "m.layer.requires_grad_(m.count % 2 == 1)\nm.count += 1\n{y} = m.layer(m.row)",
    "m.layer.weight.requires_grad_(not m.layer.weight.requires_grad)\nif m.layer.weight.requires_grad:\n"
    "    {loss}.backward()\n{y} = {x} * 2",
    "if m.w.requires_grad:\n    {loss}.backward()\n{y} = {x} + (1 if m.w.grad is None else 2)",
    "if m.w.requires_grad:\n    (m.w * {x}.to(dg.float32).sum()).sum().backward()\n{y} = m.w.detach() * 1",
    "m.w.grad = None if m.count % 2 else dg.zeros_like(m.w)\nm.count += 1\n(m.w * 2).sum().backward()\n"
    "{y} = m.w.grad * 1", "m.w.grad = None\n(m.w ** 2).sum().backward()\n{y} = m.w.grad",
    "(m.w ** 2).sum().backward()\nm.count += 1\nif m.count % 3 == 0:\n    m.w.grad = None\n{y} = {x} * 2",
    "(m.w ** 2).sum().backward()\nm.w.grad *= 0.5\n{y} = m.w.grad * 1",
    "{loss}.backward()\ntotal = dg.nn.utils.clip_grad_norm_(m.layer.parameters(), 0.5, norm_type=1.0)\n{y} = {x} * 1",
    "m.w.grad = dg.ones(3)\n(m.w * 2).sum().backward()\n{y} = m.w.grad + 0",
    "m.layer.zero_grad(set_to_none=False)\n{loss}.backward()\n{y} = {x} * 2",
    "m.layer.zero_grad(set_to_none=m.count % 2 == 0)\nm.count += 1\n{loss}.backward()\n{y} = {x} * 2",
    "{loss}.backward()\ndg.nn.utils.clip_grad_norm_([*m.layer.parameters(), m.w], 0.1)\n{y} = m.layer.weight * 1",
    "{loss}.backward()\n"
    "m.norm = dg.nn.utils.clip_grad_norm_(m.layer.parameters(), float('inf'), norm_type=float('inf'))\n"
    "{y} = m.norm * 2", "{loss}.backward()\ndg.nn.utils.clip_grad_value_(m.layer.parameters(), 0.05)\n{y} = {x} * 2",
    "m.norm = dg.nn.utils.get_total_norm([p.grad for p in m.layer.parameters() if p.grad is not None])\n"
    "{loss}.backward()\n{y} = {x} * 2", "with dg.no_grad():\n    {y} = m.w * 2\n{y} = {y}.requires_grad_() * 3",
    "with dg.set_grad_enabled(m.count % 2 == 0):\n    {y} = m.w * {x}.to(dg.float32).sum()\nm.count += 1",
    "{y} = m.w.detach().requires_grad_(m.count % 2 == 0) * 2\nm.count += 1",
    "m.last = m.w.detach().clone().requires_grad_()\n(m.last ** 2).sum().backward()\n{y} = m.last.grad",
    "if m.last is None:\n    m.last = dg.ones(3).requires_grad_()\n(m.last * m.w).sum().backward()\n"
    "{y} = m.last.grad + 0",
    "m.grid.requires_grad_()\n{y} = m.layer(m.grid)\nif m.grid.grad is not None:\n    {y} = {y} + m.grid.grad",
    "{y} = {x} * (2 if {x}.requires_grad else 3)", "{y} = {x} * (2 if {x}.grad is None else 3)",
    "{x}.grad = None\n{y} = {x} * 2", "{y} = {x} + 0 if {x}.grad is None else {x}.grad * 2",
    "m.net.train(m.count % 2 == 0)\nm.count += 1\n{y} = m.net({x})",
    "m.net.train(not m.net.training)\n{y} = m.net({x}) * 2",
    "m.net.p = 0.5 if m.count % 2 else 0.25\nm.count += 1\n{y} = m.net({x})",
    "{y} = dg.nn.functional.dropout({x}, 0.3, m.net.training)",
    "{y} = m.net({x}) if m.net.training else {x} * 1\nm.net.eval()", "m.net.eval()\n{y} = m.net({x})\nm.net.train()",
)  # fmt: skip
#: batch norm and dropout as state, {n}: the layer, {x}: float32[3, 2]
NORMS = (
    "{y} = {n}({x})", "{n}.train(m.count % 2 == 0)\nm.count += 1\n{y} = {n}({x})",
    "{n}.eval()\n{y} = {n}({x})\n{n}.train()", "{n}.train(not {n}.training)\n{y} = {n}({x})\n{y}.sum().backward()",
    "{y} = {n}({x}).sum()\n{n}.running_mean.zero_()", "{n}.reset_running_stats()\n{y} = {n}({x})",
    "{n}.momentum = 0.5 if m.count % 2 else 0.1\nm.count += 1\n{y} = {n}({x})", "{y} = {n}({x}) + {n}({x} * 2)",
    "with dg.no_grad():\n    {n}({x})\n{y} = {n}({x} * 2)", "{y} = {n}({x}) * {n}.running_var",
    "{n}.running_mean = {n}.running_mean * 0.5\n{y} = {n}({x})", "{y} = {n}({x}) + {n}.num_batches_tracked",
    "{y} = dg.checkpoint({n}, {x})", "{y} = dg.grad(lambda t: ({n}(t) ** 2).sum())({x})",
    "m.kept = {{k: v.clone() for k, v in {n}.state_dict().items()}}\n{y} = {n}({x})",
    "if m.kept and 'running_mean' in m.kept:\n    {n}.load_state_dict(m.kept)\n{y} = {n}({x})",
)  # fmt: skip
LAYERS = (
    "dg.nn.BatchNorm1d(2)", "dg.nn.BatchNorm1d(2, momentum=None)", "dg.nn.BatchNorm1d(2, momentum=0.5, affine=False)",
    "dg.nn.BatchNorm1d(2, eps=0.1)",
)  # fmt: skip


def flags(h: Hand) -> Step | None:
    """What asks for gradients, keeps them, trains."""
    x = h.tensor(is_float)
    if x is None:
        return None
    y, r = h.fresh(), h.rng
    if r.random() < 0.3:
        n = next((f"m.{g.name}" for g in h.state if "BatchNorm1d" in str(g.values)), None)
        n = n or h.keep(Given(f"n{len(h.state)}", (), "made", values=(r.choice(LAYERS),)))
        t = h.tensor(lambda t: t.shape[1:] == (2,) and t.ndim == 2 and t.dtype.name == "float32")
        return Step(r.choice(NORMS).format(x=t or "m.grid", y=y, n=n), (y,))
    return Step(r.choice(FLAGS).format(x=x, y=y, loss=r.choice(LOSSES)), (y,))
