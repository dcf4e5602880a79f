"""precision="fast": what it may change, and the bounds that docs/design.md states."""

import duograd as dg
import numpy as np
import pytest
from duograd.core.relax import relax
from duograd.core.scalar import Expr, evaluate
from duograd.core.types import float32
from duograd.graph.ir import Graph


def fast(fn):
    return dg.function(fn, precision="fast")


def test_match_is_the_default_and_keeps_eager_modes_bits():
    x = dg.tensor(np.linspace(-3, 3, 1000).astype(np.float32))
    fn = lambda x: dg.tanh(x * 0.3 + 0.1) / 7
    assert dg.function(fn).precision == "match"
    np.testing.assert_array_equal(dg.function(fn)(x).numpy(), fn(x).numpy())
    assert (fast(fn)(x).numpy() != fn(x).numpy()).any()
    np.testing.assert_allclose(fast(fn)(x).numpy(), fn(x).numpy(), rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize(("dtype", "half_ulp"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_values_between_ops_of_16_bit_floats_are_not_rounded(dtype, half_ulp):
    h = dg.tensor(np.linspace(0.25, 2, 500).astype(np.float32)).to(dtype)
    fn = lambda x: ((x * 0.125 + 0.25) * x + 0.375) * x
    exact = fn(h.to(dg.float64)).numpy()
    errors = [np.abs(f(h).to(dg.float64).numpy() / exact - 1).max() for f in (fn, fast(fn))]
    assert errors[1] <= 1.001 * half_ulp < errors[0]


@pytest.mark.parametrize(
    ("fn", "ops"),
    [
        (lambda x: x * 2.0 * 3.0, ["multiply"]),
        (lambda x: (x + 1.5) + 2.5 + 3.0, ["add"]),
        (lambda x: x / 4.0 / 5.0, ["multiply"]),
        (lambda x: x**3, ["square", "multiply"]),
        (lambda x: x**0.5, ["sqrt"]),
        (lambda x: x**4.0, ["square", "square"]),
        (lambda x: x**2.5, ["power"]),
    ],
)
def test_numbers_are_put_together_and_small_powers_are_products(fn, ops):
    x = dg.tensor([0.5, 1.25, 3.0])
    step = fast(fn)
    np.testing.assert_allclose(step(x).numpy(), fn(x).numpy(), rtol=5e-7)
    (runner,) = step.variants[0].runners()
    assert [n.op.name for n in runner.compiled.optimised.nodes] == ops


def test_a_product_and_a_sum_are_one_multiply_add():
    a, b, c = (Expr("arg", float32, (), k) for k in range(3))
    for root in (a * b + c, c + a * b, a * b - c, c - a * b):
        (got,) = relax([root], ())
        assert got.op == "fma"
        arrays = [np.float32([3.0, -0.5]), np.float32([2.0, 4.0]), np.float32([7.0, 1.0])]
        np.testing.assert_array_equal(evaluate([got], arrays, (2,)), evaluate([root], arrays, (2,)))
    product = a * b
    kept = relax([product + c, product], ())
    assert kept[0].op == "add"  # the product is wanted by itself
    assert relax([a / c], {2})[0].op == "mul"
    assert relax([a / c], ())[0].op == "div"


@pytest.mark.parametrize(
    ("fn", "ulp"),
    [(lambda x: x / 7.0, 2.0), (lambda x: x**3, 2.0), (lambda x: x**4, 3.0), (lambda x: x * 1.1 / 1.3, 2.0),
     (lambda x: x / x.sum(axis=1, keepdims=True), 4.0)],
)  # fmt: skip
def test_results_keep_their_bounds(fn, ulp):
    x = np.random.default_rng(1).uniform(0.1, 9, (40, 999)).astype(np.float32)
    exact = fn(dg.tensor(x.astype(np.float64))).numpy()
    got = fast(fn)(dg.tensor(x)).numpy()
    assert (np.abs(got - exact) / np.spacing(exact.astype(np.float32))).max() < ulp


def test_gradients_and_training_steps_are_fast_too():
    w = dg.tensor(np.linspace(-1, 1, 64).astype(np.float32).reshape(8, 8)).requires_grad_()

    def step(x):
        loss = dg.softmax(dg.gelu(x @ w) / 3, axis=-1).var()
        loss.backward()
        return loss.detach()

    x = dg.tensor(np.linspace(-2, 2, 32).astype(np.float32).reshape(4, 8))
    found = []
    for fn in (step, fast(step)):
        w.grad = None
        found.append((fn(x).numpy(), w.grad.numpy().copy()))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-4)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-3, atol=1e-6)


def test_a_copy_of_a_graph_is_as_fast_as_the_graph():
    assert Graph("f", True).copy().fast
    assert not Graph("f").fast
