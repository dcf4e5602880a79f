"""Graph mode when arguments are one tensor, are found by other ways too, or share memory."""

import duograd as dg
import numpy as np
import pytest


def _full(value):
    return dg.full((3,), value)


@pytest.mark.parametrize("same_first", [True, False])
def test_one_tensor_twice_is_a_variant_of_its_own(same_first):
    @dg.function
    def f(a, b):
        return a * 2 + b

    x, y, z = _full(1.0), _full(10.0), _full(100.0)
    for a, b in ((x, x), (y, z)) if same_first else ((y, z), (x, x)):
        np.testing.assert_array_equal(f(a, b).numpy(), f.eager(a, b).numpy())
    assert len(f.variants) == 2


def test_an_argument_that_is_also_a_closure_tensor_is_that_tensor_only_there():
    w = _full(5.0)

    @dg.function
    def f(x):
        return x * 10 + w

    for x in (w, _full(1.0), w, _full(2.0)):
        np.testing.assert_array_equal(f(x).numpy(), f.eager(x).numpy())


def test_an_argument_that_becomes_a_closure_tensor_adds_to_one_gradient():
    w = dg.tensor([5.0])
    w.requires_grad = True

    @dg.function
    def f(x):
        (x * 10 + w * 3).sum().backward()

    x = dg.tensor([1.0])
    x.requires_grad = True
    f(x)
    w.grad = None
    f(w)
    assert w.grad.item() == 13.0


def test_a_written_argument_that_shares_memory_with_another_is_left_to_python():
    @dg.function
    def f(a, b):
        a += 1
        return a + b

    f(_full(0.0), _full(0.0))
    base = dg.zeros(4)
    for n in (1.0, 2.0):
        np.testing.assert_array_equal(f(base[:3], base[1:]).numpy(), [2 * n, 2 * n, n])
    np.testing.assert_array_equal(base.numpy(), [2, 2, 2, 0])
    assert "shares memory" in f.explain()
    x = _full(0.0)
    np.testing.assert_array_equal(f(x, x).numpy(), np.full(3, 2, np.float32))
    assert len(f.variants) == 2


def test_a_written_closure_tensor_that_comes_as_argument_too():
    state = _full(0.0)

    @dg.function
    def f(x):
        state.add_(1)
        return x + state

    f(_full(7.0))
    np.testing.assert_array_equal(f(state).numpy(), np.full(3, 4, np.float32))
    np.testing.assert_array_equal(f(state[:]).numpy(), np.full(3, 6, np.float32))
    np.testing.assert_array_equal(state.numpy(), np.full(3, 3, np.float32))
