"""Gradients that eager code takes through a call of a graph lie in memory as eager mode's, and have their bits."""

import duograd as dg
import numpy as np
import pytest
from duograd.graph import ways


def normal(*shape):
    rng = np.random.default_rng([3, *shape])
    return dg.tensor(rng.standard_normal(shape).astype(np.float32))


W = normal(6, 6)
own = dg.custom_gradient
#: of float32[6, 6]
FUNCTIONS = {
    "more": lambda t: t + 1,
    "turned": lambda t: t.mT,
    "cut": lambda t: t[1:4, 2:5],
    "every_second": lambda t: t[::2, ::-1],
    "summed": lambda t: t.sum(axis=0),
    "mean": lambda t: t.mean(axis=1, keepdims=True),
    "product": lambda t: W @ t.mT,
    "linear": lambda t: dg.linear(W, t),
    "joined": lambda t: dg.concat([t.mT, t * 2], axis=1),
    "stacked": lambda t: dg.stack([t, t], axis=-1),
    "reshaped": lambda t: t.mT.reshape(4, 9),
    "repeated": lambda t: dg.broadcast_to(t, (3, 6, 6)),
    "softmax": lambda t: dg.softmax(t @ W.mT, axis=-1).mT,
    "own_gradient_turned": lambda t: own(lambda s: (s * 2, lambda g: g.mT))(t),
    "own_gradient_from_outside": lambda t: own(lambda s: (s * 2, lambda g: W.mT))(t),
}
#: what eager code makes of the result
LOSSES = {
    "sum": lambda y: y.sum(),
    "squares": lambda y: (y * y).sum(),
    "turned": lambda y: (y.mT * normal(*y.mT.shape)).sum() if y.ndim > 1 else y.mean(),
    "rows": lambda y: (y.sum(axis=0) ** 2).sum(),
    "every_second": lambda y: y.reshape(-1)[::2].sum(),
}


def same(a, b):
    assert a.strides == b.strides
    np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_through_a_call_lie_as_eager_mode_s(name, loss):
    fn, total, x = FUNCTIONS[name], LOSSES[loss], normal(6, 6)
    graph = dg.function(fn)
    for _ in range(2):
        same(dg.grad(lambda t: total(graph(t)))(x), dg.grad(lambda t: total(fn(t)))(x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_ops_before_a_call_get_gradients_as_in_eager_mode(name):
    found = []
    for fn in (FUNCTIONS[name], dg.function(FUNCTIONS[name])):
        x, seen = normal(6, 6).requires_grad_(), []
        z = x @ W
        z.register_hook(lambda g, seen=seen: seen.append(g.strides))
        fn(z).sum().backward()
        found.append((seen, x.grad.numpy().tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("rows", [7, 65, 200])
def test_products_before_a_call_add_up_as_their_gradients_lie(rows):
    """One repeated number, or what is turned: a product adds its elements up in another order than of rows."""
    x = normal(rows, 1)
    gradient = lambda fn, before: dg.grad(lambda t: (fn(before(t)) * x[:, 0]).sum())(x)
    for fn in (lambda t: t.mean(axis=1), lambda t: t.mT.mean(axis=1), lambda t: t.mean()):
        graph = dg.function(fn)
        for before in (lambda t: t @ x.mT, lambda t: dg.linear(x, t), lambda t: dg.linear(t, x)):
            same(gradient(graph, before), gradient(fn, before))


def test_leaves_keep_rows_of_their_own():
    f = dg.function(lambda a, b: (a + b).mT)
    a, b = normal(4, 5).requires_grad_(), (normal(4, 5) * 2).requires_grad_()
    g = normal(5, 4)
    for _ in range(2):
        a.grad = b.grad = None
        f(a, b).backward(g)
        assert a.grad.strides == b.grad.strides == (5, 1)
        a.grad[0, 0] = 7
        assert b.grad[0, 0].item() == g[0, 0].item() != 7


def test_what_a_call_hands_on_is_the_gradient_itself():
    f = dg.function(lambda a, b: (a + b, a.mT))
    a, b = normal(4, 5).requires_grad_(), (normal(4, 5) * 2).requires_grad_()
    g = normal(4, 5)
    first, second = dg.autograd.grad(f(a, b)[0], [a, b], g)
    assert first is second is g
    (turned,) = dg.autograd.grad(f(a, b)[1], [a], g.reshape(5, 4))
    assert turned.strides == (1, 4)
    assert np.shares_memory(turned.numpy(), g.numpy())


def test_a_leaf_with_a_hook_sees_what_eager_mode_gives_it():
    found = []
    for fn in (lambda t: t.mT.mean(axis=0), dg.function(lambda t: t.mT.mean(axis=0))):
        x, seen = normal(6, 6).requires_grad_(), []
        x.register_hook(lambda g, seen=seen: seen.append(g.strides))
        fn(x).sum().backward()
        found.append((seen, x.grad.strides, x.grad.tolist()))
    assert found[0] == found[1]


def test_gradients_beyond_the_limit_of_layouts_run_the_function_again(monkeypatch):
    monkeypatch.setattr(ways, "LAYOUTS", 2)
    f = dg.function(lambda t: t.mT * 2)
    x = normal(6, 4).requires_grad_()
    for step in range(1, 6):
        g = normal(4, 6 * step)[:, ::step]
        same(dg.autograd.grad(f(x), x, g)[0], dg.autograd.grad(x.mT * 2, x, g)[0])


def test_settings_of_a_call_are_those_of_then_whatever_layout_its_gradient_has():
    optimiser = dg.optim.SGD([normal(2)], lr=0.5)
    group = optimiser.param_groups[0]
    f = dg.function(lambda t: (t * t * group["lr"]).mT)
    x = normal(4, 4).requires_grad_()
    for lr in (0.5, 0.25, 0.125):
        group["lr"] = lr
        y = f(x)
        group["lr"] = 100.0
        (g,) = dg.autograd.grad(y.sum(), x)
        np.testing.assert_array_equal(g.numpy(), 2 * lr * x.detach().numpy())


def test_gradients_of_hot_composites_lie_as_those_of_cold_ones():
    for gradient in (dg.broadcast_to(dg.ones(()), (8, 8)), normal(8, 8).mT):
        seen = set()
        for _ in range(12):
            z = normal(6, 6).requires_grad_() * 1
            z.register_hook(lambda g, seen=seen: seen.add(g.strides))
            dg.pad(z, ((1, 1), (0, 2))).backward(gradient)
        assert len(seen) == 1, seen


def _flat(a, b, x):
    ga, gb = dg.autograd.grad((a * x).sum() + (b * b * x).sum(), [a, b])
    flat = dg.concat([ga.reshape(-1), gb.reshape(-1)])
    a.grad, b.grad = flat[: a.size].reshape(a.shape), flat[a.size :].reshape(b.shape)
    return flat


def _turned(a, b, x):
    a.grad = (x * 2).T
    b.grad = a.grad
    return a.grad, a.grad.sum()


def _repeated(a, b, x):
    a.grad = x.sum(0).broadcast_to(a.shape)


def _with_a_history(a, b, x):
    b.grad = (a.T * x).T


def _part_of_a_result(a, b, x):
    y = a * x
    b.grad = y.detach().T
    return y


def _of_a_leaf_that_it_makes(a, b, x):
    w = x.T.detach().requires_grad_()
    w.grad = (x * 3).T
    return w, w.grad


def _from_outside_of_a_leaf_that_it_makes(a, b, x):
    w = x.detach().clone().requires_grad_()
    v = x.detach().clone().requires_grad_()
    w.grad, v.grad = x, W[:3, :3]
    return w, v, w.grad, v.grad, x, W


def _aliases(a, b, x):
    (a * x).sum().backward()
    b.grad = a.grad.detach()
    return a.grad[0], b.grad.detach()


def _alias_of_a_result(a, b, x):
    y = a * x
    a.grad = y.detach()
    b.grad = a.grad.detach()
    return y


@pytest.mark.parametrize(
    "fn",
    [
        _flat,
        _from_outside_of_a_leaf_that_it_makes,
        _aliases,
        _alias_of_a_result,
        _turned,
        _repeated,
        _with_a_history,
        _part_of_a_result,
        _of_a_leaf_that_it_makes,
    ],
)
def test_gradients_that_a_function_sets_look_into_the_memory_that_they_are_part_of(fn):
    seen = []
    for mode in ("eager", "graph"):
        a, b, x = dg.ones((3, 3)).requires_grad_(), dg.ones((3, 3)).requires_grad_(), normal(3, 3)
        graph, rows = dg.function(lambda x, a=a, b=b: fn(a, b, x), mode=mode), []
        for _ in range(5):
            out = graph(x)
            out = [] if out is None else [*out] if isinstance(out, tuple) else [out]
            seeing = [t for t in (*out, a.grad, b.grad) if t is not None]
            shared = [
                np.shares_memory(s.detach().numpy(), t.detach().numpy()) for s in seeing for t in seeing
            ]
            if a.grad is not None and 0 not in a.grad.strides:
                with dg.no_grad():
                    a.grad.mul_(2.0)
            rows.append((shared, [(t.strides, t.requires_grad, t.tolist()) for t in seeing]))
        seen.append(rows)
    assert seen[0] == seen[1]
