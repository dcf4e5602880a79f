"""Hooks around a graph call: on leaves, arguments, results and what is inside; when they run, and in which order."""

import collections
import gc
import types
import weakref

import duograd as dg
import pytest
from ways_back import X, leaf, noted, taken, through


def hooked(w, x, seen):
    h = w * x
    h.register_hook(noted(seen))
    return h.sum()


def hook_that_reads(w, x, seen):
    h = w * x
    h.register_hook(lambda g: seen.append(float(g.sum())))
    return h.sum()


def hook_of_ops(w, x, seen):
    h = w * x
    h.register_hook(lambda g: g.clip(-1, 0.5))
    return h.sum()


def hooks_at_a_checkpoint(w, x, seen):
    h = w * x
    h.register_hook(noted(seen, 3.0))
    return dg.checkpoint(lambda t: t.tanh() * w, h).sum()


def hook_of_an_argument(mode):
    seen, w = [], leaf()
    f = dg.function(lambda x: (x * x).sum().backward(), mode=mode)
    for k in range(5):
        if k == 3:
            w.register_hook(noted(seen))
        f(w)
    return taken(w), seen


def hook_registered_inside(mode):
    seen, w = [], leaf()

    def fn(x):
        x.register_hook(noted(seen))
        return (x * x).sum()

    f = dg.function(fn, mode=mode)
    for _ in range(3):
        f(w).backward()
    return taken(w), seen


def order_of_hooks_on_results(mode):
    """The younger of two results first, however they are registered, also where others lead to one of them."""
    seen = []

    def fn(x):
        z, h = x.log(), x.exp()
        return h, z, h * 2, x * 1

    f = dg.function(fn, mode=mode)
    for order in ((0, 1), (1, 0), (3, 0, 2, 1), (1, 2, 0, 3)):
        for used in ((0, 1, 2, 3), (0, 1, 3), (1, 2)):
            row = f(leaf())
            for k in order:
                row[k].register_hook(lambda g, k=k: seen.append(k))
            sum(row[k].sum() for k in used).backward()
            seen.append("done")
    return seen


def order_of_hooks_on_leaves(mode):
    """As they were registered: ops, hot composites and graphs come to the leaves in orders of their own."""
    seen = []
    f = dg.function(lambda x, w, b: dg.nn.functional.linear(x, w, b) * b, mode=mode)
    for k in range(12):
        row = [*(leaf([[1.0, 2.0], [0.5, 3.0]]) for _ in range(2)), leaf([1.0, 2.0])]
        for n in (0, 1, 2) if k % 2 else (1, 2, 0):
            row[n].register_hook(lambda g, n=n: seen.append(n))
        row[0].register_hook(lambda g, b=row[2]: seen.append(b.grad is None))
        f(*row).sum().backward()
    return seen


def one_result_of_two_with_a_hook(mode):
    w, seen = leaf(), []
    f = dg.function(lambda x: (hooked(w, x, seen), w.log()), mode=mode)
    for _ in range(2):
        f(dg.tensor(X))[1].sum().backward()
    return taken(w), seen


def state_read_by_a_hook(mode):
    w, scale = leaf(), [2.0]

    def fn(x):
        h = w * x
        h.register_hook(lambda g: g * scale[0])
        return h.sum()

    f, found = dg.function(fn, mode=mode), []
    for k in range(4):
        w.grad = None
        y = f(dg.tensor(X))
        scale[0] += k % 2
        y.backward()
        found.append(taken(w))
    return found


def hook_of_a_leaf_made_inside(mode):
    seen = []

    def fn(x):
        z = x.detach().requires_grad_()
        (z * z).sum().backward()
        z.register_hook(noted(seen))
        return z * 2

    f, w = dg.function(fn, mode=mode), leaf()
    for _ in range(3):
        f(w).sum().backward()
    return seen, taken(w)


def hook_registered_between(mode):
    """A leaf that had a hook once gets another one between the call and the gradient of one of its results."""
    w, seen = leaf(), []
    w.register_hook(noted(seen))()
    f = dg.function(lambda x: (w * x, w.exp()), mode=mode)
    for _ in range(3):
        y = f(dg.tensor(X))[0]
        end = w.register_hook(noted(seen))
        y.sum().backward()
        end()
    return taken(w), seen


CASES = {
    **{fn.__name__: through(fn) for fn in (hooked, hook_that_reads, hook_of_ops, hooks_at_a_checkpoint)},
    **{fn.__name__: fn for fn in (
        hook_of_an_argument, hook_registered_inside, order_of_hooks_on_results, order_of_hooks_on_leaves,
        one_result_of_two_with_a_hook, state_read_by_a_hook, hook_of_a_leaf_made_inside, hook_registered_between,
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_hooks_run_as_in_eager_mode(name):
    assert CASES[name]("eager") == CASES[name]("graph")


def test_a_hook_of_ops_stays_in_the_graph():
    w = leaf()
    f = dg.function(lambda x: hook_of_ops(w, x, []))
    f(dg.tensor(X)).backward()
    assert len(f.variants) == 1
    assert taken(w) == [1.5, 2.0]


def test_what_no_graph_holds_is_explained():
    w = leaf()
    f = dg.function(lambda x: hooked(w, x, []))
    f(dg.tensor(X))
    assert not f.variants
    assert "changes state" in f.explain()


def test_a_hook_at_a_checkpoint_runs_once():
    w, seen = leaf(), []
    hooks_at_a_checkpoint(w, dg.tensor(X), seen).backward()
    assert seen == [0]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_hook_after_the_call_leaves_the_order_of_what_the_call_added(ordered):
    """The walk runs the function once more, with what it had added taken away."""
    space, table = types.SimpleNamespace(), collections.OrderedDict() if ordered else {}

    def fn(w):
        for key in ("first", "second"):
            table[key] = table.get(key, 0) + 1
            setattr(space, key, getattr(space, key, 0) + 1)
        y = w * 2
        return y, y + 1

    x, seen = leaf(), []
    y, z = dg.function(fn)(x)
    table["third"] = space.third = 3
    y.register_hook(noted(seen))
    (y * z).sum().backward()
    assert seen
    assert [*table] == [*vars(space)] == ["first", "second", "third"]


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.usefixtures("own_garbage")
def test_hooks_do_not_outlive_their_tensor(captured):
    class Hook:
        def __call__(self, g):
            return g * 2

    w, x, hook = leaf(), leaf(X), Hook()
    f = dg.function(lambda x: ((w * x).sum().backward(), x * 3))
    end = (w if captured else x).register_hook(hook)
    for _ in range(3):
        f(x)[1].sum().backward()
    end()
    gone, x = weakref.ref(hook), None
    hook = end = None
    gc.collect()
    assert f.variants
    assert gone() is None


def test_a_hook_before_a_value_that_was_changed():
    found = []
    for mode in ("eager", "graph"):
        seen = []

        def fn(x, seen=seen):
            h = x.tanh()
            h.div_(3)
            y = h + 1
            y.register_hook(lambda g: seen.append(g.sum().item()))
            return y

        f, row = dg.function(fn, mode=mode), []
        for k in range(3):
            y = f(leaf([1.0, k]))
            with pytest.raises(dg.errors.AutogradError, match="changed in place"):
                y.sum().backward()
            row.append(y.detach().numpy().tolist())
        found.append((row, seen))
    assert found[0] == found[1]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(("inside", "needs"), [(True, False), (True, True), (False, True)])
def test_a_functions_own_hook_on_a_result_runs_in_a_walk_to_that_result_alone(inside, needs, used):
    """Whether or not a way leads from there to the caller, and after the tape behind it has been used up."""
    found = []
    for mode in ("eager", "graph"):

        def steps(x):
            v = (x.detach().requires_grad_() if inside else x) * 2 + 0
            v.register_hook(lambda g: g * 3)
            return x * v, v

        f, row = dg.function(steps, mode=mode), []
        for _ in range(3):
            x = dg.tensor(X, requires_grad=needs)
            y, v = f(x)
            if used:
                y.sum().backward()
            row += [taken(x), dg.autograd.grad(v.sum(), v, retain_graph=True)[0].tolist()]
            row.append(dg.autograd.grad(v.sum(), v)[0].tolist())
        found.append(row)
    assert found[0] == found[1]
    assert len(f.variants) == 1


def test_a_hook_that_gets_another_class_is_called_as_that():
    class Twice:
        def __call__(self, g):
            return g * 2

    class FiveTimes:
        def __call__(self, g):
            return g * 5

    w, x, hooks, found = leaf(), leaf(X), (Twice(), Twice()), []
    for t, hook in zip((w, x), hooks):
        t.register_hook(hook)
    f = dg.function(lambda x: (w * x).sum().backward())
    for k in range(6):
        w.grad = x.grad = None
        if k in (2, 4):
            hooks[k == 4].__class__ = FiveTimes
        f(x)
        found.append((w.grad / x, x.grad / w))
    assert [(a[0].item(), b[0].item()) for a, b in found] == [(2, 2)] * 2 + [(5, 2)] * 2 + [(5, 5)] * 2
