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


def _ask(x):
    return x.requires_grad


def _hook(x):
    (x * 2).register_hook(lambda g: None)


def _refuse(x):
    if x.sum().item() < 10:
        raise ValueError


def _loop(x):
    """Ends where the write has arrived."""
    while x.sum().item() < 10:
        x = x * 1


SHAPES = ((1, 1), (2, 3))
SEES = (_ask, _hook, _refuse, _loop)


def _sharing(kind, shape, see, first):
    """A function that changes what shares memory with an argument of it, and looks at that one; its arguments."""
    x = dg.full(shape, 1.0) * 1
    view, holder = x[0], {"last": x if kind == "the base in state" else x[0]}
    w = dg.tensor([30.0], requires_grad=True)

    def body(seen, changed):
        before = seen * 5 if first else None
        changed[...] = changed * w
        found = see(seen)
        return seen * 2, before, found

    functions = {
        "state": (lambda x: body(x, holder["last"]), (x,)),
        "the base in state": (lambda v: body(v, holder["last"]), (view,)),
        "a closure": (lambda x: body(x, view), (x,)),
        "two views, one in state": (lambda v: body(v, holder["last"]), (x[:1],)),
        "an argument": (body, (x, view)),
        "an argument before it": (lambda v, x: body(x, v), (view, x)),
        "state, both": (lambda: body(x, holder["last"]), ()),
    }
    return *functions[kind], x


@pytest.mark.parametrize("first", [True, False], ids=["read before", "read after"])
@pytest.mark.parametrize("see", SEES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "kind",
    [
        "state", "the base in state", "a closure", "two views, one in state", "an argument",
        "an argument before it", "state, both",
    ],
)  # fmt: skip
def test_what_shares_memory_with_a_changed_tensor_is_seen_changed(kind, shape, see, first):
    """Also by what ends the function with an error, and by a loop that waits for it."""
    found = []
    for mode in ("eager", "graph"):
        f, args, x = _sharing(kind, shape, see, first)
        f = dg.function(f, mode=mode)
        y, before, asks = f(*args)
        rows = [t if t is None else (t.requires_grad, t.detach().numpy().tolist()) for t in (y, before, x)]
        found.append((*rows, asks))
    assert found[0] == found[1]
    assert found[0][0][0]
    assert "shares memory" in f.explain()


def test_a_changed_gradient_that_shares_memory_with_an_argument():
    def f(x, part):
        x.grad += 4
        if part.sum().item() < 4:
            raise ValueError
        return part + x.grad

    found = []
    for mode in ("eager", "graph"):
        for whole in (True, False):
            x = dg.tensor([1.0, 2.0], requires_grad=True)
            (x * 3).sum().backward()
            x.grad.zero_()
            y = dg.function(f, mode=mode)(x, x.grad if whole else x.grad[:1])
            found.append((y.numpy().tolist(), x.grad.numpy().tolist()))
    assert found[:2] == found[2:]


#: changes in place of a gradient `g` through what looks into it
_CHANGES = {
    "detach": "g.detach().add_(1)",
    "scaled": "g.detach().mul_(0.5)",
    "reshape": "v = g.reshape(-1)\nv += 1",
    "slice": "g[:1] *= 3",
    "turned": "v = g.T\nv += 1",
    "a view of a view": "v = g.T[1:]\nv.detach().mul_(2)",
    "a view of an alias": "v = g.detach()[0]\nv -= 5",
    "itself": "g += 1",
    "after another use": "y = g * 2\ng.detach().mul_(y.mean().abs() + 1)",
    "after a branch on it": "v = g.detach()\nif v.sum() > -1e9:\n    v += 1",
}


@pytest.mark.parametrize("kind", _CHANGES)
@pytest.mark.parametrize(
    "returned", ["None", "g", "g.detach()", "g.T", "g[1:]", "(g[0], g.detach())", "g * 1"]
)
@pytest.mark.parametrize("owner", ["an argument", "a parameter"])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("create", [False, True])
def test_a_gradient_changed_through_a_view_is_the_one_that_stays(kind, returned, owner, fresh, create):
    """And what the call hands out of it shares its memory."""
    lines = [
        *(["x.grad = None"] if fresh else []), f"((x * x) * x).sum().backward(create_graph={create})", "g = x.grad",
        *(["with dg.no_grad():", *("    " + s for s in _CHANGES[kind].split("\n"))]), f"return {returned}",
    ]  # fmt: skip
    found = {}
    for mode in ("eager", "graph"):
        x = dg.tensor(np.arange(6, dtype=np.float32).reshape(2, 3) - 2)
        x.requires_grad = True
        space = {"dg": dg, "x": x}
        name = "x" if owner == "an argument" else ""
        exec(f"def f({name}):\n" + "\n".join("    " + s for s in lines), space)
        f = dg.function(space["f"], mode=mode)
        found[mode] = rows = []
        for _ in range(4):
            out = f(*[x] * (owner == "an argument"))
            outs = [] if out is None else [*out] if isinstance(out, tuple) else [out]
            rows += [*(np.array(y.detach().numpy()) for y in (x.grad, *outs))]
            for y in outs:  # as far as they share memory, all show it
                y.detach().add_(1)
                rows += [*(np.array(y.detach().numpy()) for y in (x.grad, *outs))]
    assert len(found["eager"]) == len(found["graph"])
    for a, b in zip(found["eager"], found["graph"]):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_gradient_of_a_leaf_made_inside_shows_changes_through_a_view(mode):
    @dg.function(mode=mode)
    def f(x):
        w = (x * 1).detach().requires_grad_()
        (w * w).sum().backward()
        v = w.grad.detach()
        v += 1
        return w, v

    w, v = f(_full(3.0))
    np.testing.assert_array_equal(w.grad.numpy(), [7, 7, 7])
    v += 1
    np.testing.assert_array_equal(w.grad.numpy(), [8, 8, 8])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_one_tensor_set_as_two_gradients_is_one(mode):
    x, y = _full(3.0).requires_grad_(), _full(1.0).requires_grad_()

    @dg.function(mode=mode)
    def f(x, y):
        x.grad = y.grad = (x * 2).detach()
        x.grad.detach().add_(1)

    for _ in range(3):
        f(x, y)
        assert x.grad is y.grad
        np.testing.assert_array_equal(y.grad.numpy(), [7, 7, 7])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_what_was_there_before_becomes_a_gradient(mode):
    """An argument, a tensor from outside, a view of it, the gradient of another leaf, and a constant."""
    w, made = _full(5.0), _full(6.0)
    for kind in ("w", "made", "w[:]", "y.grad", "dg.tensor([7.0, 7.0, 7.0])", "x.grad.detach()"):
        x, y = _full(3.0).requires_grad_(), _full(1.0).requires_grad_()
        x.grad, y.grad = _full(8.0), _full(9.0)
        space = {"dg": dg, "made": made}
        exec(f"def f(x, y, w): x.grad = {kind}", space)
        f = dg.function(space["f"], mode=mode)
        expected = float(eval(kind, {**space, "x": x, "y": y, "w": w})[0].item())
        for _ in range(3):
            f(x, y, w)
            np.testing.assert_array_equal(x.grad.numpy(), np.full(3, expected))
            if kind in ("w", "made", "y.grad"):
                assert x.grad is eval(kind, {**space, "y": y, "w": w})
            x.grad = _full(expected if "x" in kind else 0.0)
