"""Rows: random numbers, gradients, functions within functions."""

from __future__ import annotations

from .row import row


@row
def random_numbers(m):
    """random numbers: the same as in eager mode, other ones at each call"""
    m.seed(3)
    f = m.jit(lambda x: x + m.rand(3) + m.rand(3))
    return [f(m.x), f(m.x), m.rand(3)]


@row
def seeded_inside(m):
    """the seed set inside"""

    def g(x):
        m.seed(7)
        return x + m.rand(3)

    f = m.jit(g)
    return [f(m.x), f(m.x), m.rand(3)]


@row
def nested_gradient(m):
    """a gradient of a gradient inside"""
    cube = lambda x: (x * x * x).sum()
    f = m.jit(lambda x: m.grad(lambda x: (m.grad(cube)(x) * x).sum())(x))
    return [f(m.x), f(m.x * 2)]


@row
def gradient_through(m):
    """the gradient of a compiled function, with a branch on a value"""

    @m.jit
    def f(x):
        return (x * x).sum() if x.sum() > 0 else x.sum()

    return [m.grad(lambda x: f(x) * 2)(m.x), m.grad(lambda x: f(x) * 2)(-m.x)]


@row
def nested_modes(m):
    """a compiled function called by another"""
    inner = m.jit(lambda x, k: x * k)
    f = m.jit(lambda x: inner(x, 2.0) + inner(x, 3.0))
    return [f(m.x), inner(m.x, 4.0), f(m.x + 1)]
