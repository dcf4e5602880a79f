"""`autograd.Function`: what its results may be, which arguments get gradients, errors that name what is missing."""

import duograd as dg
import numpy as np
import pytest

MODES = ("eager", "graph")
X = np.array([1.0, 3.0], "float32")


class Sorted(dg.autograd.Function):
    """Two tensors, one of them without a gradient, and other values."""

    @staticmethod
    def forward(ctx, x, factors, scale=2):
        largest = x.max()
        ctx.mark_non_differentiable(largest)
        ctx.factor = factors[0] * scale
        return x * ctx.factor, largest, x.argmax(), "name", None

    @staticmethod
    def backward(ctx, g, largest, place, name, nothing):
        assert largest.shape == place.shape == ()
        assert name is None
        assert nothing is None
        return g * ctx.factor, None, None, None


@pytest.mark.parametrize("mode", MODES)
def test_results_may_be_other_values_and_tensors_without_a_gradient(mode):
    @dg.function(mode=mode)
    def run(x):
        y, largest, place, name, nothing = Sorted.apply(x, [3.0])
        assert (name, nothing) == ("name", None)
        assert [t.requires_grad for t in (y, largest, place)] == [True, False, False]
        (y.sum() + largest * 7).backward()
        return y, largest, place

    x = dg.tensor(X, requires_grad=True)
    y, largest, place = run(x)
    np.testing.assert_array_equal(y.detach().numpy(), 6 * X)
    assert (largest.item(), place.item()) == (3.0, 1)
    np.testing.assert_array_equal(x.grad.numpy(), [6.0, 6.0])


@pytest.mark.parametrize("mode", MODES)
def test_tensors_within_lists_get_no_gradient(mode):
    class Mixed(dg.autograd.Function):
        @staticmethod
        def forward(ctx, row, y):
            return {"sum": row[0] + y, "rest": [row[0] * 2]}

        @staticmethod
        def backward(ctx, g, h):
            return None, g

    @dg.function(mode=mode)
    def run(x, y):
        made = Mixed.apply([x], y)
        made["sum"].sum().backward()
        return made["rest"][0]

    x, y = dg.tensor(X, requires_grad=True), dg.tensor(X, requires_grad=True)
    np.testing.assert_array_equal(run(x, y).detach().numpy(), 2 * X)
    assert x.grad is None
    np.testing.assert_array_equal(y.grad.numpy(), [1.0, 1.0])


def test_another_number_of_gradients_is_named():
    class Wrong(dg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g, g

    with pytest.raises(dg.errors.AutogradError, match="2 gradients for 1 arguments"):
        Wrong.apply(dg.tensor(X, requires_grad=True)).sum().backward()


def test_backward_of_a_tensor_without_history_is_named():
    with pytest.raises(dg.errors.AutogradError, match="depends on no tensor"):
        dg.autograd.backward(dg.ones(()))


@pytest.mark.parametrize("mode", MODES)
def test_custom_gradients_may_give_other_values_too(mode):
    @dg.custom_gradient
    def doubled(x):
        return (x * 2, "two"), lambda g: g * 5

    @dg.function(mode=mode)
    def run(x):
        y, name = doubled(x)
        y.sum().backward()
        return y, name

    x = dg.tensor(X, requires_grad=True)
    _, name = run(x)
    assert name == "two"
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, 5.0])
