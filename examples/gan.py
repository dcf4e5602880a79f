"""A generator and a critic, in turns: points on a ring of eight heaps (a Wasserstein GAN with a penalty on gradients).

The critic's penalty holds a gradient of a gradient. Each network stands still while the other learns: its parameters
ask for no gradient then (`requires_grad_`), inside of the graph.
"""

import argparse
import math

import duograd as dg
from duograd import nn


def heaps(count):
    """float32[count, 2]: points about eight places on the unit circle."""
    angle = dg.randint(0, 8, (count,)) * (2 * math.pi / 8)
    return dg.stack([dg.cos(angle), dg.sin(angle)], axis=1) + dg.randn(count, 2) * 0.05


def network(inputs, outputs, width=96):
    row = [nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*row, nn.Linear(width, outputs))


def main(steps=2000, batch=256):
    """Train; returns the share of made points within 0.25 of a heap, and how many heaps have some."""
    dg.manual_seed(0)
    generator, critic = network(8, 2), network(2, 1)
    optimizers = [dg.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.9)) for net in (generator, critic)]

    def of_critic():
        real, made = heaps(batch), generator(dg.randn(batch, 8)).detach()
        between = (made + (real - made) * dg.rand(batch, 1)).requires_grad_()
        (slope,) = dg.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = ((slope.norm(axis=1) - 1) ** 2).mean()
        return critic(made).mean() - critic(real).mean() + penalty

    def of_generator():
        return -critic(generator(dg.randn(batch, 8))).mean()

    @dg.function
    def step(turn):
        learns, waits = (critic, generator) if turn else (generator, critic)
        learns.requires_grad_(True)
        waits.requires_grad_(False)
        optimizer = optimizers[turn]
        optimizer.zero_grad()
        loss = of_critic() if turn else of_generator()
        loss.backward()
        optimizer.step()
        return loss

    for k in range(steps):
        for turn in (1, 1, 1, 0):
            loss = step(turn)
        if k % 250 == 249:
            print(f"step {k + 1}: loss of the generator {loss.item():.3f}")
    with dg.no_grad():
        made = generator(dg.randn(2000, 8))
        angle = dg.arange(8) * (2 * math.pi / 8)
        places = dg.stack([dg.cos(angle), dg.sin(angle)], axis=1)
        apart = (made[:, None] - places).norm(axis=2)
        near, which = apart.min(axis=1) < 0.25, apart.argmin(axis=1)
        share, kinds = near.mean(dtype=dg.float32).item(), len(set(which[near].tolist()))
    print(f"{share:.0%} of the points are near a heap, {kinds} of 8 heaps have some")
    return share, kinds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    main(parser.parse_args().steps)
