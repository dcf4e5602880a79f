"""A network solves the heat equation: u_t = u_xx on 0 < x < 1, from u = sin(pi x), held at 0 at both ends.

The loss holds derivatives of the network with respect to its inputs, up to the second, by `dg.grad` and `dg.vmap`; the
gradient for its weights goes through them. Everything is one graph. The exact solution is exp(-pi**2 t) sin(pi x).
"""

import argparse
import math

import duograd as dg
from duograd import nn


def main(steps=1500, points=256):
    """Train; returns the largest error of the solution at 21 x 21 points."""
    dg.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = dg.optim.Adam(net.parameters(), lr=4e-3)
    schedule = dg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    def u(x, t):
        """A number at a point; 0 at both ends and sin(pi x) at t = 0, whatever the weights are."""
        inside = net(dg.stack([x, t]))[0]
        return dg.sin(math.pi * x) * (1 + 10 * t * inside)

    u_t = dg.grad(u, argnums=1)
    u_xx = dg.grad(dg.grad(u))

    @dg.function
    def step():
        x, t = dg.rand(points), dg.rand(points) * 0.5
        optimizer.zero_grad()
        residual = dg.vmap(u_t)(x, t) - dg.vmap(u_xx)(x, t)
        loss = (residual**2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    for k in range(steps):
        loss = step()
        if k % 250 == 0 or k == steps - 1:
            print(f"step {k}: mean square of u_t - u_xx {loss.item():.2e}")
    with dg.no_grad():
        x, t = dg.meshgrid(dg.linspace(0, 1, 21), dg.linspace(0, 0.5, 21), indexing="ij")
        exact = dg.exp(-(math.pi**2) * t) * dg.sin(math.pi * x)
        error = abs(dg.vmap(u)(x.flatten(), t.flatten()) - exact.flatten()).max().item()
    print(f"largest error of u: {error:.1e}")
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    main(parser.parse_args().steps)
