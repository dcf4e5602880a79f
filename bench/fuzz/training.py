"""What a random program may do to train: a layer, optimisers with groups, schedules, checkpoints, views of state."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

OPTIMISERS = (
    "SGD([m.w], lr=0.1, momentum=0.9)", "Adam([m.w], lr=0.1)", "AdamW([m.w], lr=0.1)", "RMSprop([m.w])",
    "SGD([{'params': [m.w]}, {'params': list(m.layer.parameters()), 'lr': 0.5}], lr=0.1)",
    "SGD([{'params': [m.w], 'momentum': 0.5}, {'params': list(m.layer.parameters())}], lr=0.1, weight_decay=0.1)",
    "Adam([{'params': [m.w], 'lr': 0.01}, {'params': list(m.layer.parameters()), 'betas': (0.5, 0.9)}])",
    "Adam([{'params': [m.layer.weight]}, {'params': [m.layer.bias], 'weight_decay': 0.1}, {'params': "
    "[m.w]}], lr=0.1)", "Adagrad(m.layer.parameters())", "NAdam([*m.layer.parameters(), m.w], lr=0.1)",
    "SGD(m.layer.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)",
    "SGD([m.w], lr=0.1, momentum=0.5, dampening=0.25, maximize=True)",
    "Adam([m.w, m.layer.weight], lr=0.1, amsgrad=True, weight_decay=0.1)",
    "AdamW(m.layer.parameters(), lr=0.05, betas=(0.8, 0.95), eps=1e-3, maximize=True)",
    "RMSprop([m.w, *m.layer.parameters()], alpha=0.9, momentum=0.5, centered=True)",
    "RMSprop([m.w], weight_decay=0.1, centered=True)",
    "Adagrad([m.w], lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5)",
    "Adadelta([m.w, *m.layer.parameters()], lr=0.5, weight_decay=0.1)", "Adamax([m.w], lr=0.1)",
    "RAdam([m.w, m.layer.bias], lr=0.1, decoupled_weight_decay=True, weight_decay=0.1)",
    "NAdam([m.w], lr=0.1, momentum_decay=0.1)", "Lion([m.w, *m.layer.parameters()], lr=0.01, weight_decay=0.1)",

)  # fmt: skip
PLANS = (
    "StepLR(m.opt, 2, 0.5)", "ExponentialLR(m.opt, 0.9)", "MultiStepLR(m.opt, [1, 3], 0.1)",
    "CosineAnnealingLR(m.opt, 4)", "LinearLR(m.opt, 0.25, total_iters=3)", "ConstantLR(m.opt, 0.5, total_iters=2)",
    "PolynomialLR(m.opt, 4, 2.0)", "CosineAnnealingWarmRestarts(m.opt, 2)", "LambdaLR(m.opt, lambda k: 0.9 ** k)",
    "MultiplicativeLR(m.opt, lambda k: 0.95)", "OneCycleLR(m.opt, 0.5, total_steps=20)",
    "CyclicLR(m.opt, 0.01, 0.5, step_size_up=2, cycle_momentum=False)",
    "SequentialLR(m.opt, [dg.optim.lr_scheduler.ConstantLR(m.opt, 0.5, 2), "
    "dg.optim.lr_scheduler.StepLR(m.opt, 1)], [2])",
    "ChainedScheduler([dg.optim.lr_scheduler.StepLR(m.opt, 2), dg.optim.lr_scheduler.ExponentialLR(m.opt, 0.9)])",
)  # fmt: skip
#: {x}: a float tensor
SCALED = (
    "m.table['s'] = m.table.get('s') or dg.amp.GradScaler(init_scale=256.0, growth_interval=2)\nm.opt.zero_grad()\n"
    "m.table['s'].scale({loss}).backward()\nm.table['s'].step(m.opt)\nm.table['s'].update()",
    "m.table['s'] = m.table.get('s') or dg.amp.GradScaler(init_scale=4.0)\nm.opt.zero_grad()\n"
    "m.table['s'].scale({loss}).backward()\nm.table['s'].unscale_(m.opt)\n"
    "dg.nn.utils.clip_grad_norm_(m.layer.parameters(), 0.5)\nm.table['s'].step(m.opt)\nm.table['s'].update()",
    "m.table['s'] = m.table.get('s') or dg.amp.GradScaler(init_scale=2.0 ** 15)\nm.opt.zero_grad()\n"
    "m.table['s'].scale({loss} * float('inf') if m.count == 1 else {loss}).backward()\nm.count += 1\n"
    "m.table['s'].step(m.opt)\nm.table['s'].update()",
    "m.opt.zero_grad(set_to_none=False)\nwith dg.amp.autocast(dtype=dg.bfloat16):\n    loss = {loss}\n"
    "loss.backward()\nm.opt.step()",
    "with dg.amp.autocast(dtype=dg.float16, enabled=m.count % 2 == 0):\n    loss = {loss}\nm.count += 1\n"
    "loss.backward()\nm.opt.step()\nm.opt.zero_grad()",
)  # fmt: skip
#: with a schedule m.plan
PLANNED = (
    "m.plan.step()", "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.plan.step()",
    "{loss}.backward()\nm.opt.step()\nm.plan.step()\nm.log.append(m.plan.get_last_lr()[0])",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.count += 1\nif m.count % 2:\n    m.plan.step()",
    "m.saved = m.plan.state_dict()\nm.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.plan.step()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()",
)  # fmt: skip
LOSSES = (
    "((m.w - 1) ** 2).sum()", "m.layer(m.grid).square().mean()",
    "(m.layer(m.grid) * m.w[0]).sum() + m.w.square().sum()", "dg.mse_loss(m.layer(m.grid[1:]), m.grid[:2])",
    "m.layer(m.row).sum()",
)  # fmt: skip
TRAINING = (
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.opt.param_groups[0]['lr'] *= 0.5",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.opt.param_groups[-1]['lr'] = m.count + 0.5\nm.count += 1",
    "m.opt.zero_grad(set_to_none=False)\n{loss}.backward()\nm.opt.step()",
    "{loss}.backward()\nm.count += 1\nif m.count % 3 == 0:\n    m.opt.step()\n    m.opt.zero_grad(set_to_none=False)",
    "({loss} / 2).backward()\n({loss} / 2).backward()\nm.opt.step()\nm.opt.zero_grad()",
    "loss = {loss}\nloss.backward()\nm.opt.step()\nm.log.append(loss.item())",
    "m.opt.zero_grad()\nloss = {loss}\nif loss > 0.5:\n    loss.backward()\n    m.opt.step()",
    "for g in m.opt.param_groups:\n    g['lr'] *= 0.9\n{loss}.backward()\nm.opt.step()",
    "m.opt.param_groups[0]['weight_decay'] = m.count * 0.1\nm.count += 1\n{loss}.backward()\nm.opt.step()",
    "{loss}.backward()\nm.count += 1\nif m.count % 2 == 0:\n    m.opt.step()\n    m.opt.zero_grad()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.norm = dg.nn.utils.clip_grad_norm_(m.layer.parameters(), 0.1)\n"
    "m.opt.step()", "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nm.saved = m.opt.state_dict()",
    "m.opt.zero_grad()\n{loss}.backward()\nm.opt.step()\nif m.saved is not None and len(m.saved) == 2:\n"
    "    m.opt.load_state_dict(m.saved)",
    "for _ in range(2):\n    m.opt.zero_grad()\n    {loss}.backward()\n    m.opt.step()",
    "def closing():\n    m.opt.zero_grad()\n    loss = {loss}\n    loss.backward()\n    return loss\n"
    "m.norm = m.opt.step(closing)",
    "m.plan = m.plan or dg.optim.lr_scheduler.StepLR(m.opt, 2, 0.5)\n{loss}.backward()\nm.opt.step()\nm.plan.step()",
)  # fmt: skip
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
    "{y} = {x} * 2", "with dg.no_grad():\n    m.layer.weight[0] += 0.1\n{y} = m.layer(m.grid)",
    "with dg.no_grad():\n    m.layer.bias.copy_(m.layer.weight[0] * 2)\n{y} = m.layer(m.row)",
    "m.layer.weight.requires_grad_(m.count % 2 == 0)\nm.count += 1\n{y} = m.layer(m.grid)",
    "m.layer.train(not m.layer.training)\n{y} = {x} * (2 if m.layer.training else 3)",
    "dg.nn.init.constant_(m.layer.bias, 0.5)\n{y} = m.layer(m.row) + 1",
    "{y} = sum(p.sum() for p in m.layer.parameters()) + {x}.to(dg.float32).sum()",
    "{y} = {x} * sum(isinstance(p, dg.nn.Parameter) for p in m.layer.parameters())",
)  # fmt: skip
VIEWS = (
    "m.row += 1\n{y} = {x} + m.grid[0, 0].to({x}.dtype)", "m.grid[1:] *= 0.5\n{y} = m.row * 2",
    "v = m.grid.mT\nv[0] = 3\n{y} = m.row + m.grid[0]", "m.grid[0] = m.grid[1]\n{y} = m.row * 1",
    "m.grid = m.grid * 2\n{y} = m.row + m.grid[0]", "m.row = m.grid[1]\n{y} = m.row * 2",
    "m.row = m.grid[2]\nm.row[0] = m.count\n{y} = m.grid * 1", "m.row.copy_(m.row * 0.5)\n{y} = m.grid.sum()",
    "r = m.row.detach()\nr.zero_()\n{y} = m.row + 1", "m.last = m.grid[:2]\nm.last += 1\n{y} = m.grid * 1",
    "{y} = m.grid[1:] + 0\nm.grid[1:] = {y} * 2\n{y} += m.grid[:2]",
)  # fmt: skip
RANDOM = (
    "{y} = dg.rand((3,), generator=m.random) + {x}.to(dg.float32).sum()",
    "m.random.manual_seed(m.count)\nm.count += 1\n{y} = dg.randn((2,), generator=m.random)",
    "g = dg.Generator(5)\n{y} = dg.rand((2,), generator=g) + dg.rand((2,), generator=g)",
    "dg.manual_seed(m.count % 2)\nm.count += 1\n{y} = dg.rand((3,))",
    "before = m.random.get_state()\n{y} = dg.rand((2,), generator=m.random)\nm.random.set_state(before)",
    "{y} = dg.nn.functional.dropout({x}, 0.5) + dg.rand((1,), generator=m.random).to({x}.dtype)",
)  # fmt: skip


def training(h: Hand) -> Step | None:
    """A layer, an optimiser's step, checkpoints, views of state, generators of the program's own."""
    x = h.tensor(is_float)
    if x is None:
        return None
    y, r = h.fresh(), h.rng
    loss = r.choice(LOSSES)
    if r.random() < 0.55:
        optimiser, does = r.choice(OPTIMISERS), r.choice(r.choice((TRAINING, TRAINING, SCALED, PLANNED)))
        made = f"m.opt = m.opt or dg.optim.{optimiser}\n"
        if does in PLANNED:
            made += f"m.plan = m.plan or dg.optim.lr_scheduler.{r.choice(PLANS)}\n"
        return Step(f"{made}{does.format(loss=loss)}\n{y} = m.w * 2", (y,))
    return Step(r.choice(r.choice((LAYERS, LAYERS, VIEWS, RANDOM))).format(x=x, y=y, loss=loss), (y,))
