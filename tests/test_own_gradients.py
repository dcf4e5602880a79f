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


# ---------------------------------------------------------------- PyTorch's other words, beside PyTorch


def _peers():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its Function is not compared with")
    return (dg, torch)


def _apart(of, needs_y=True):
    class Scaled(of.autograd.Function):
        @staticmethod
        def forward(x, y, power=2):
            return x**power * y, x * 3

        @staticmethod
        def setup_context(ctx, inputs, output):
            x, y, ctx.power = inputs
            assert len(output) == 2
            ctx.save_for_backward(x, y)

        @staticmethod
        def backward(ctx, g, h):
            x, y = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, needs_y, False)
            return g * ctx.power * x ** (ctx.power - 1) * y + 3 * h, g * x**ctx.power, None

    return Scaled


@pytest.mark.parametrize("mode", MODES)
def test_forward_without_a_context_and_setup_context(mode):
    found = []
    for of in _peers():
        op = _apart(of)

        def run(x, y, op=op):
            a, b = op.apply(x, y, power=3) if op.apply(x, y)[0].sum() > 0 else op.apply(x, y)
            (a * b).sum().backward()
            return a

        x, y = (of.tensor([1.0, 3.0], requires_grad=True) for _ in range(2))
        a = (dg.function(run, mode=mode) if of is dg else run)(x, y)
        found.append([a.tolist(), x.grad.tolist(), y.grad.tolist()])
    assert found[0] == found[1]


@pytest.mark.parametrize("mode", MODES)
def test_own_gradients_run_under_vmap_jvp_and_again(mode):
    op = _apart(dg, needs_y=False)
    x, y = dg.tensor([[1.0, 3.0], [2.0, -1.0]]), dg.tensor([0.5, 2.0])

    def own(x):
        return op.apply(x, y)[0].sum()

    def plain(x):
        return (x**2 * y).sum()

    for make in (
        lambda f: dg.vmap(f)(x),
        lambda f: dg.vmap(dg.grad(f))(x),
        lambda f: dg.jvp(f, (x[0],), (y,))[1],
        lambda f: dg.grad(lambda v: dg.grad(f)(v).square().sum())(x[0]),
        lambda f: dg.vmap(lambda v: dg.jvp(f, (v,), (y,))[1])(x),
    ):
        want = make(plain)
        got = dg.function(lambda make=make: make(own), mode=mode)()
        np.testing.assert_allclose(got.numpy(), want.numpy(), 1e-6)


def _in_place(of, saves, alone=False):
    class Doubled(of.autograd.Function):
        @staticmethod
        def forward(ctx, x, k):
            if saves == "before":
                ctx.save_for_backward(x)
            x.mul_(k)
            ctx.mark_dirty(x)
            if saves == "after":
                ctx.save_for_backward(x)
            ctx.k = k
            return x if alone else (x, x.sum())

        @staticmethod
        def backward(ctx, g, h=0.0):
            seen = ctx.saved_tensors[0] if saves else 1.0
            return (g + h) * ctx.k * seen, None

    return Doubled


@pytest.mark.parametrize("saves", [None, "before", "after"])
@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_arguments_changed_in_place_are_results(mode, view, saves):
    found = []
    for of in _peers():
        op = _in_place(of, saves, alone=view)  # PyTorch takes a view alone

        def run(x, op=op, of=of):
            y = x * 2
            part = y[1:] if view else y
            made, total = (op.apply(part, 5.0), 0.0) if view else op.apply(part, 5.0)
            assert made is part
            loss = (y * of.tensor([1.0, 2.0, 3.0])).sum() + total
            loss.backward()
            return y, loss

        x = of.tensor([1.0, 3.0, 4.0], requires_grad=True)
        y, loss = (dg.function(run, mode=mode) if of is dg else run)(x)
        found.append([y.tolist(), loss.item(), x.grad.tolist()])
    assert found[0] == found[1]


@pytest.mark.parametrize("mode", MODES)
def test_arguments_changed_in_place_without_a_gradient(mode):
    op = _in_place(dg, None)

    @dg.function(mode=mode)
    def run(x):
        made, _ = op.apply(x, 5.0)
        assert made is x
        with dg.no_grad():
            op.apply(x, 2.0)

    x = dg.tensor(X)
    run(x)
    np.testing.assert_array_equal(x.numpy(), 10 * X)
    with pytest.raises(dg.errors.AutogradError, match="a leaf that requires a gradient"):
        run(dg.tensor(X, requires_grad=True))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_unused_results_are_none_on_request(mode):
    found = []
    for of in _peers():
        seen = []

        class Several(of.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.set_materialize_grads(False)
                place = x.argmax()
                ctx.mark_non_differentiable(place)
                return x * 2, x * 3, place

            @staticmethod
            def backward(ctx, g, h, place, seen=seen):
                seen.append((g is None, h is None, place is None))
                return h * 3

        def run(x, op=Several):
            op.apply(x)[1].sum().backward()

        x = of.tensor([1.0, 3.0], requires_grad=True)
        (dg.function(run, mode=mode) if of is dg else run)(x)
        found.append([seen, x.grad.tolist()])
    assert found[0] == found[1] == [[(True, False, True)], [3.0, 3.0]]


@pytest.mark.parametrize("mode", MODES)
def test_a_backward_that_is_not_differentiable_says_so(mode):
    class Outside(dg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @dg.autograd.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x**2

    @dg.function(mode=mode)
    def once(x):
        return dg.grad(lambda v: Outside.apply(v).sum())(x)

    @dg.function(mode=mode)
    def twice(x):
        return dg.grad(lambda v: dg.grad(lambda u: Outside.apply(u).sum())(v).sum())(x)

    np.testing.assert_array_equal(once(dg.tensor(X)).numpy(), 3 * X**2)
    with pytest.raises(
        dg.errors.AutogradError, match=r"\[Outside\] has a backward that is once_differentiable"
    ):
        twice(dg.tensor(X))
    with pytest.raises(dg.errors.AutogradError, match="once_differentiable"):
        dg.jvp(Outside.apply, (dg.tensor(X),), (dg.tensor(X),))


def test_what_does_not_fit_is_named():
    def op(**methods):
        methods = {"backward": lambda ctx, *g: g, **methods}
        return type("Own", (dg.autograd.Function,), {k: staticmethod(f) for k, f in methods.items()})

    x = dg.tensor(X, requires_grad=True) * 1
    raises = pytest.raises
    with raises(dg.errors.ArgumentTypeError, match=r"\[Own\] ctx.save_for_backward got a int as argument 1"):
        op(forward=lambda ctx, x: ctx.save_for_backward(x, 2)).apply(x)
    with raises(dg.errors.ArgumentTypeError, match=r"\[Own\] apply takes arguments by position, got k="):
        op(forward=lambda ctx, x, k: x).apply(x, k=2)
    with raises(dg.errors.AutogradError, match=r"\[Own\] ctx.mark_dirty got float32\[2\], no argument"):
        op(forward=lambda ctx, x: [ctx.mark_dirty(x * 1), x][1]).apply(x)
    with raises(
        dg.errors.AutogradError,
        match=r"\[Own\] ctx.mark_dirty got float32\[2\], which forward did not return",
    ):
        op(forward=lambda ctx, x: [ctx.mark_dirty(x), x * 2][1]).apply(x)
