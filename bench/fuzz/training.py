"""What a random program may do to train: a layer, optimisers with groups, schedules, checkpoints, views of state."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

OPTIMISERS = (
    "SGD([m.w], lr=0.1, momentum=0.9)",
    "Adam([m.w], lr=0.1)",
    "AdamW([m.w], lr=0.1)",
    "RMSprop([m.w])",
    "SGD([{'params': [m.w]}, {'params': list(m.layer.parameters()), 'lr': 0.5}], lr=0.1)",
    "SGD([{'params': [m.w], 'momentum': 0.5}, {'params': list(m.layer.parameters())}], lr=0.1, weight_decay=0.1)",
    "Adam([{'params': [m.w], 'lr': 0.01}, {'params': list(m.layer.parameters()), 'betas': (0.5, 0.9)}])",
    "Adam([{'params': [m.layer.weight]}, {'params': [m.layer.bias], 'weight_decay': 0.1}, {'params': [m.w]}], lr=0.1)",
    "Adagrad(m.layer.parameters())",
    "NAdam([*m.layer.parameters(), m.w], lr=0.1)",
)
LOSSES = (
    "((m.w - 1) ** 2).sum()",
    "m.layer(m.grid).square().mean()",
    "(m.layer(m.grid) * m.w[0]).sum() + m.w.square().sum()",
    "dg.mse_loss(m.layer(m.grid[1:]), m.grid[:2])",
    "m.layer(m.row).sum()",
)
TRAINING = (
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.opt.param_groups[0]['lr'] *= 0.5",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.opt.param_groups[-1]['lr'] = m.count + 0.5\nm.count += 1",
    "{loss}.backward()\nm.count += 1\nif m.count % 2 == 0:\n    m.opt.step()\n    m.opt.zero_grad()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.norm = dg.nn.utils.clip_grad_norm_(m.layer.parameters(), 0.1)\n"
    "m.opt.step()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.saved = m.opt.state_dict()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nif m.saved is not None and len(m.saved) == 2:\n"
    "    m.opt.load_state_dict(m.saved)",
    "for _ in range(2):\n    m.opt.zero_grad()\n    {loss}.backward()\n    m.opt.step()",
    "def closing():\n    m.opt.zero_grad()\n    loss = {loss}\n    loss.backward()\n    return loss\n"
    "m.norm = m.opt.step(closing)",
    "m.plan = m.plan or dg.optim.lr_scheduler.StepLR(m.opt, 2, 0.5)\n{loss}.backward()\nm.opt.step()\nm.plan.step()",
)
LAYERS = (
    "{y} = m.layer(m.grid) + {x}.to(dg.float32).sum()",
    "m.kept = {{k: v.clone() for k, v in m.layer.state_dict().items()}}\n{y} = {x} * len(m.kept)",
    "if m.kept:\n    m.layer.load_state_dict(m.kept)\n{y} = m.layer(m.grid) * 2",
    "m.layer.load_state_dict(m.layer.state_dict())\n{y} = {x} * 2",
    "{loss}.backward()\n{y} = m.layer.weight.grad if m.layer.weight.grad is not None else {x} * 1",
    "{loss}.backward()\nwith dg.no_grad():\n    for p in m.layer.parameters():\n        if p.grad is not None:\n"
    "            p -= 0.1 * p.grad\n            p.grad = None\n{y} = {x} + 1",
    "m.layer.zero_grad()\n{loss}.backward()\n{y} = {x} * 2",
    "{loss}.backward()\nfor p in m.layer.parameters():\n    p.grad = None if p.grad is None else p.grad * 0.5\n"
    "{y} = {x} * 2",
    "with dg.no_grad():\n    m.layer.weight[0] += 0.1\n{y} = m.layer(m.grid)",
    "with dg.no_grad():\n    m.layer.bias.copy_(m.layer.weight[0] * 2)\n{y} = m.layer(m.row)",
    "m.layer.weight.requires_grad_(m.count % 2 == 0)\nm.count += 1\n{y} = m.layer(m.grid)",
    "m.layer.train(not m.layer.training)\n{y} = {x} * (2 if m.layer.training else 3)",
    "dg.nn.init.constant_(m.layer.bias, 0.5)\n{y} = m.layer(m.row) + 1",
    "{y} = sum(p.sum() for p in m.layer.parameters()) + {x}.to(dg.float32).sum()",
    "{y} = {x} * sum(isinstance(p, dg.nn.Parameter) for p in m.layer.parameters())",
)
VIEWS = (
    "m.row += 1\n{y} = {x} + m.grid[0, 0].to({x}.dtype)",
    "m.grid[1:] *= 0.5\n{y} = m.row * 2",
    "v = m.grid.mT\nv[0] = 3\n{y} = m.row + m.grid[0]",
    "m.grid[0] = m.grid[1]\n{y} = m.row * 1",
    "m.grid = m.grid * 2\n{y} = m.row + m.grid[0]",
    "m.row = m.grid[1]\n{y} = m.row * 2",
    "m.row = m.grid[2]\nm.row[0] = m.count\n{y} = m.grid * 1",
    "m.row.copy_(m.row * 0.5)\n{y} = m.grid.sum()",
    "r = m.row.detach()\nr.zero_()\n{y} = m.row + 1",
    "m.last = m.grid[:2]\nm.last += 1\n{y} = m.grid * 1",
    "{y} = m.grid[1:] + 0\nm.grid[1:] = {y} * 2\n{y} += m.grid[:2]",
)
RANDOM = (
    "{y} = dg.rand((3,), generator=m.random) + {x}.to(dg.float32).sum()",
    "m.random.manual_seed(m.count)\nm.count += 1\n{y} = dg.randn((2,), generator=m.random)",
    "g = dg.Generator(5)\n{y} = dg.rand((2,), generator=g) + dg.rand((2,), generator=g)",
    "dg.manual_seed(m.count % 2)\nm.count += 1\n{y} = dg.rand((3,))",
    "before = m.random.get_state()\n{y} = dg.rand((2,), generator=m.random)\nm.random.set_state(before)",
    "{y} = dg.nn.functional.dropout({x}, 0.5) + dg.rand((1,), generator=m.random).to({x}.dtype)",
)


def training(h: Hand) -> Step | None:
    """A layer, an optimiser's step, checkpoints, views of state, generators of the program's own."""
    x = h.tensor(is_float)
    if x is None:
        return None
    y, r = h.fresh(), h.rng
    loss = r.choice(LOSSES)
    if r.random() < 0.45:
        made = f"m.opt = m.opt or dg.optim.{r.choice(OPTIMISERS)}\n"
        return Step(f"{made}{r.choice(TRAINING).format(loss=loss)}\n{y} = m.w * 2", (y,))
    return Step(r.choice(r.choice((LAYERS, LAYERS, VIEWS, RANDOM))).format(x=x, y=y, loss=loss), (y,))
