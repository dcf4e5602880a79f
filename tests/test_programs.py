"""Programs as their users write them: what a few lines of well-known tutorials need, in both modes."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import functional as F


def _normal(*shape):
    return dg.tensor(np.random.default_rng(len(shape)).normal(size=shape).astype("float32"))


def _gan(first):
    """A step of a GAN that freezes its critic while the generator learns."""
    dg.manual_seed(0)
    maker = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    own = [dg.optim.Adam(m.parameters(), lr=0.01) for m in (maker, critic)]

    def step(real, z):
        fake = maker(z)
        if first == "thaw":
            for p in critic.parameters():
                p.requires_grad = True
        own[1].zero_grad()
        loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
        loss.backward()
        own[1].step()
        for p in critic.parameters():
            p.requires_grad = False
        own[0].zero_grad()
        wish = F.softplus(-critic(fake)).mean()
        wish.backward()
        own[0].step()
        if first == "freeze":
            critic.requires_grad_(True)
        return loss.detach(), wish.detach()

    return step, maker, critic


@pytest.mark.parametrize("first", ["freeze", "thaw"])
def test_a_step_freezes_and_thaws_parameters(first):
    told = {}
    for mode in ("eager", "graph"):
        step, maker, critic = _gan(first)
        fn = dg.function(step, mode=mode)
        losses = [fn(_normal(5, 4), _normal(5, 3)) for _ in range(5)]
        asked = [p.requires_grad for p in critic.parameters()]
        told[mode] = [[x.tolist() for x in row] for row in losses], asked
        told[mode] += ([p.tolist() for m in (maker, critic) for p in m.parameters()],)
        grads = [p.grad for p in critic.parameters()]
        told[mode] += ([None if g is None else g.tolist() for g in grads],)
    assert told["eager"] == told["graph"]
    assert len(fn.variants) == (1 if first == "freeze" else 2)
    assert "Python" not in str(fn.explain())


def test_a_result_with_a_history_and_a_changed_requires_grad_are_left_to_python():
    w = nn.Parameter(dg.ones(3))

    @dg.function
    def scaled(x):
        w.requires_grad = not w.requires_grad
        return (x * w).sum()

    for _ in range(4):
        y = scaled(dg.ones(3))
        assert y.requires_grad is w.requires_grad
    assert "changes requires_grad of float32[3]" in str(scaled.explain())


def test_a_loss_whose_classes_are_the_batch_compiles_nothing_for_another_batch():
    from duograd.core.backend import get_backend

    @dg.function
    def contrast(z, scale):
        s = z @ z.T / scale
        loss = F.cross_entropy(
            s.masked_fill(dg.eye(z.shape[0], dtype=dg.bool), -10.0), dg.arange(z.shape[0]).roll(1)
        )
        return loss, (z.mean(0) * 0.25).sum(), (z.sum(1) * 0.2).clip(-0.2, 0.25).mean()

    def misses():
        stats = get_backend("cpu").kernel_stats()
        return stats["compiled"] + stats["loaded"]

    for n in (6, 7):
        contrast(_normal(n, 8), 0.5)
    before = misses()
    for n in (4, 5, 8, 10):
        contrast(_normal(n, 8), 0.5)
    assert misses() == before
