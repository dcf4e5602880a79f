"""Gradients of gradients through compiled calls and hot composites are added in the order of eager mode's ops."""

import functools
import gc
import weakref

import duograd as dg
import numpy as np
import pytest
from duograd.core import hot
from duograd.core.errors import AutogradError
from duograd.nn import functional as F
from duograd.tests.test_gradient_order import own_rules, several, shared, unrolled

grad = functools.partial(dg.autograd.grad, create_graph=True)


@dg.custom_gradient
def steep(x):
    y = dg.exp(x * 0.3)
    return y, lambda g: g * y * 0.31 + x * 0.01


def composites(x, w):
    y = F.layer_norm(x, (24,)) * dg.std(x, axis=0, keepdims=True)
    return F.gelu(y) + dg.softmax(x) @ w


def custom(x, w):
    return steep(x) @ w * x


def rerun(x, w):
    return dg.checkpoint(lambda v: dg.tanh(v @ w) * v, x) + x * 0.1


def one_from_another(x, w):
    y = dg.exp(dg.tanh(x @ w) * 0.3)
    return dg.logsumexp(y, axis=1, keepdims=True) * y, y


def first(made):
    return made[0] if isinstance(made, tuple) else made


def penalty(fn, x, w, c):
    """The value that the call gets is used elsewhere too."""
    h = x * 1.3
    (g,) = grad(first(fn(h, w)).sum() + h.sin().sum(), h)
    (g**2).sum().backward()


def with_its_result(fn, x, w, c):
    """The result is used by both walks."""
    h = dg.tanh(x)
    y = first(fn(h, w))
    g, gw = grad((y * c).sum() + (h * y).sum() + (h @ w).sum(), [h, w])
    ((g**2).sum() + dg.tanh(gw).sum() + (y * y).mean() + h.cos().sum()).backward()


def twice(fn, x, w, c):
    y = first(fn(first(fn(x, w)) * 0.5 + x, w))
    (g,) = grad((y * c).mean(), x)
    ((g**2).sum() + y.sum()).backward()


def third(fn, x, w, c):
    h = x * 1.3
    (g,) = grad(first(fn(h, w)).sum() + (h * c).sum(), h)
    (gg,) = grad((g**2).sum() + h.sin().sum(), h)
    ((gg * c).sum() + (g * gg).mean()).backward()


def several_walks(fn, x, w, c):
    """The second walk finds ops on the tape that the first one has recorded."""
    y = first(fn(x * 0.9, w))
    loss = (y * y).mean()
    (g,) = grad(loss, x)
    (g**2).sum().backward(retain_graph=True)
    loss.backward()


def hooked(fn, x, w, c):
    """Hooks from before and after the first walk, one of which is gone by then."""
    h = x * 1.3
    y = first(fn(h, w))
    remove = y.register_hook(lambda g: g * 1.7)
    y.register_hook(lambda g: g * 1.1)
    (g,) = grad((y * h).sum(), h)
    remove()
    y.register_hook(lambda g: g + c)
    ((g * g).sum() + y.sum()).backward()


def to_a_result(fn, x, w, c):
    p, q = fn(x, w)
    g, gq = grad((p * c).sum() + (q * p).sum(), [x, q])
    ((g**2).sum() + (gq * p).sum()).backward()
    return [gq, x.grad]


def to_a_result_alone(fn, x, w, c):
    """A walk that ends at a result which another one is computed from."""
    p, q = fn(x, w)
    (gq,) = grad((p * c).sum() + (q * q).sum(), [q])
    ((gq**2).sum() + p.sum()).backward()


def into_a_checkpoint(fn, x, w, c):
    """A walk inside of the walk ends at one result of two."""
    p, q = fn(x, w)
    g, gw = grad(dg.checkpoint(lambda v: dg.tanh(v @ w), q).mean() + (q * x).sum(), [x, w])
    ((g**2).sum() + (gw**2).sum() + p.mean()).backward()


def within_a_hook(fn, x, w, c):
    """A hook's own walk comes to the call before the walk that runs the hook."""
    p, q = fn(x, w)
    y = p * q + x
    y.register_hook(lambda g: g + grad((q * q).sum() * 0.1 + p.sum(), x)[0])
    g, gq = grad((y * c).sum(), [x, q], retain_graph=True)
    ((g**2).sum() + (gq * x).sum()).backward(retain_graph=True)
    (h,) = grad((y * c).sum() + p.sum(), x)  # it has come to the call before the hook does
    (h**2).sum().backward()


def between_walks(fn, x, w, c):
    """The second walk goes to the leaves that the first one did not go to, through what it has unfolded."""
    p, q = fn(x, w)
    (g,) = grad((p * c).sum(), x)
    (gw,) = grad((q * p).sum() + (g**2).sum(), w)
    ((gw**2).sum() + g.sum()).backward()


ONE = [several, own_rules, unrolled, composites, custom, rerun]
TWO = [shared, one_from_another]
CASES = [
    (fn, use) for fn in ONE + TWO for use in (penalty, with_its_result, twice, third, several_walks, hooked)
]
CASES += [
    (fn, use) for fn in TWO
    for use in (to_a_result, to_a_result_alone, into_a_checkpoint, within_a_hook, between_walks)
]  # fmt: skip


def outcome(use, fn):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=(24, 24)).astype("float32") for _ in range(3))
    x, w = dg.tensor(a).requires_grad_(), dg.tensor(b * 0.3).requires_grad_()
    found = use(fn, x, w, dg.tensor(c)) or [t.grad for t in (x, w) if t.grad is not None]
    return [g.detach().numpy() for g in found]


@pytest.mark.parametrize(("fn", "use"), CASES, ids=lambda f: f.__name__)
def test_a_call_adds_as_eager_mode_does(fn, use):
    graph = dg.function(fn)
    want = outcome(use, fn)
    for _ in range(2):
        for g, e in zip(outcome(use, graph), want, strict=True):
            np.testing.assert_array_equal(g, e)


def spread(x, w):
    return dg.std(x, axis=0, keepdims=True)


def loss_within(x, w):
    return F.huber_loss(x, x * x)


@pytest.mark.parametrize("use", [penalty, with_its_result, twice, third, several_walks, hooked])
@pytest.mark.parametrize("fn", [composites, spread, loss_within])
def test_a_hot_composite_adds_as_a_cold_one_does(fn, use):
    want = outcome(use, fn)
    for _ in range(hot.CALLS + 2):
        for g, e in zip(outcome(use, fn), want, strict=True):
            np.testing.assert_array_equal(g, e)


def test_a_hot_composite_in_another_one_is_unfolded_with_it():
    x = dg.tensor(np.ones((24, 24), "float32")).requires_grad_()
    want = outcome(hooked, loss_within)
    for _ in range(hot.CALLS + 1):
        x.mean().backward()
    for _ in range(hot.CALLS + 2):
        for g, e in zip(outcome(hooked, loss_within), want, strict=True):
            np.testing.assert_array_equal(g, e)


def test_the_tape_of_an_unfolded_call_is_used_up_as_any():
    fn = dg.function(lambda x: dg.tanh(x) * dg.exp(x))
    x = dg.tensor([0.5, 1.0]).requires_grad_()
    y = fn(x)
    (g,) = grad(y.sum(), x)
    (g.sum() + y.sum()).backward()
    with pytest.raises(AutogradError, match="already used and freed"):
        y.sum().backward()


@pytest.mark.usefixtures("own_garbage")
def test_a_walk_keeps_nothing_alive():
    fn = dg.function(lambda x: dg.tanh(x) * dg.exp(x))
    x = dg.tensor([0.5, 1.0]).requires_grad_()
    gc.collect()
    gc.disable()
    try:
        (g,) = dg.autograd.grad(fn(x).sum(), x)
        memory = weakref.ref(g._storage)
        del g
        assert memory() is None
    finally:
        gc.enable()
