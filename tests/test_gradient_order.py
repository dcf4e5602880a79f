"""Gradients of what a compiled call uses several times, and others use too, are added in the order of eager mode."""

import duograd as dg
import numpy as np
import pytest


class Rounded(dg.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return dg.round(x * 8) / 8

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() < 1)


def several(x, w):
    return x * dg.tanh(x) + dg.exp(x) * 0.3


def own_rules(x, w):
    return Rounded.apply(x) * dg.tanh(x) + dg.checkpoint(lambda v: dg.exp(v) * v, x)


def unrolled(x, w):
    for _ in range(3):
        x = dg.tanh(x @ w + x)
    return x


def shared(x, w):
    y = x @ w
    return dg.tanh(y) @ w * x, dg.exp(y * 0.1) * x


def beside(fn, x, w, c):
    h = x * 1.3
    y = fn(h, w)
    (y + h * c).sum().backward()


def beside_a_leaf(fn, x, w, c):
    y = fn(x, w)
    return dg.autograd.grad((y + x * c).sum(), [x])


def one_after_the_other(fn, x, w, c):
    h = x
    for _ in range(3):
        h = fn(h, w)
    ((h @ w) * c).sum().backward()


def some_results(fn, x, w, c):
    p, q = fn(x, w)
    (p + x * c).sum().backward(retain_graph=True)
    (q * x).sum().backward()


def residual(fn, x, w, c):
    h = x
    for _ in range(3):
        p, q = fn(h, w)
        h = h + p * 0.1
        h = h + q * 0.01
    (h * c).sum().backward()


def hooked(fn, x, w, c):
    h = x * 1.3
    h.register_hook(lambda g: g * 2)
    p, q = fn(h, w)
    p.register_hook(lambda g: g * 3)
    (p + q + h * c).sum().backward()


def given_twice(fn, x, w, c):
    p, _ = fn(w, w)
    (p + w * c).sum().backward()


CASES = [
    (several, beside), (several, beside_a_leaf), (own_rules, beside), (unrolled, one_after_the_other),
    (shared, some_results), (shared, residual), (shared, hooked), (shared, given_twice),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "use"), CASES, ids=lambda f: f.__name__)
def test_gradients_are_added_in_the_order_of_eager_mode(fn, use):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=(24, 24)).astype("float32") for _ in range(3))

    def run(made):
        x, w = dg.tensor(a).requires_grad_(), dg.tensor(b * 0.3).requires_grad_()
        found = use(made, x, w, dg.tensor(c)) or [t.grad for t in (x, w) if t.grad is not None]
        return [g.numpy() for g in found]

    graph = dg.function(fn)
    want = run(fn)
    for _ in range(2):
        for g, e in zip(run(graph), want, strict=True):
            np.testing.assert_array_equal(g, e)
