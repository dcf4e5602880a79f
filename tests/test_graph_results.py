"""What a graph call hands out: strides, views of arguments and of each other, and gradients after changes of them."""

import duograd as dg
import numpy as np
import pytest
from results import leaf, seen, tried

# -- functions whose results lie in other memory than their own -------------------------------------------


def expanded(x, w):
    return (x * w).expand(2, 6)


def windows(x, w):
    return dg.sliding_window(x.round(), size=3, axis=-1)


def row_of_expanded(x, w):
    return (x * w).expand(2, 6)[0]


def turned(x, w):
    return (x * w).reshape(2, 3).permute(1, 0)


def every_other(x, w):
    return (x * w)[::2]


def backwards(x, w):
    return dg.flip(x * w)


def sliced(x, w):
    return (x * w)[1:4]


def column(x, w):
    return (x * w).reshape(2, 3)[:, 0]


def detached_turned(x, w):
    return (x * w).reshape(2, 3).T.detach()


def two_views(x, w):
    h = x * w
    return h[:4], h[2:]


def two_expanded(x, w):
    h = x * w
    return h.expand(2, 6), h.expand(3, 6)


def rows(x, w):
    a, b = (w * x).reshape(2, 3)
    return a, b


def view_and_base(x, w):
    h = x * w
    return h[:4], h


def view_of_a_view(x, w):
    a = (x * w).reshape(2, 3)
    return a[0], a


def detached_first(x, w):
    h = x * w
    return h.detach(), h


def detached_views(x, w):
    h = x * w
    return h.detach()[:4], h[2:], h.detach()


def view_of_an_argument(x, w):
    return x[:4], w * x


def the_argument(x, w):
    return x, w * x


def view_of_a_parameter(x, w):
    return w.reshape(2, 3), w * x


def detached_parameter(x, w):
    return w.detach()[:3], w * w * x


def what_a_gradient_reads(x, w):
    h = (x * w * 0.1).exp()
    return h, h * 2


def view_of_what_a_gradient_reads(x, w):
    h = (w * x * 0.1).exp()
    return h[:3], h * 2


def read_twice(x, w):
    h = dg.relu(w * x)
    return h[::2], h * h


def apart(x, w):
    return dg.relu(x * w), w * 2


def made_quietly(x, w):
    h = x * w
    with dg.no_grad():
        v = h[:4]
    return v, h


def made_quietly_alone(x, w):
    h = x * w
    with dg.no_grad():
        v = h[::2]
    return v, w * 2


def changed_inside(x, w):
    h = x * w
    v = h[::2]
    v.mul_(2)
    return v, w * 3


def twice_the_same(x, w):
    h = x * w
    return h, h


# -- what happens to them after the call ---------------------------------------------------------------------


def change(out, x, w):
    yield lambda: out[0].mul_(2)
    yield lambda: out[0].sum().backward()
    yield lambda: (out[-1] * out[-1]).sum().backward()


def change_tracked(out, x, w):
    yield lambda: out[0].mul_(w[: out[0].shape[-1]])
    yield lambda: sum((y * y).sum() for y in out).backward()


def change_unseen(out, x, w):
    yield lambda: out[0].detach().mul_(2)
    yield lambda: out[-1].sum().backward()
    yield lambda: out[0].sum().backward()


def change_quietly(out, x, w):
    def act():
        with dg.no_grad():
            return out[0].mul_(2)

    yield act
    yield lambda: sum(y.sum() for y in out).backward()


def change_the_last(out, x, w):
    yield lambda: out[-1].mul_(3)
    yield lambda: out[0].sum().backward()
    yield lambda: out[-1].sum().backward()


def change_what_was_reshaped(out, x, w):
    flat = out[0].detach().reshape(-1)
    yield lambda: flat.add_(1)


def change_the_argument(out, x, w):
    yield lambda: x.add_(1)
    yield lambda: out[0].sum().backward()
    yield lambda: out[-1].sum().backward()


def walk_twice(out, x, w):
    yield lambda: out[0].sum().backward()
    yield lambda: out[0].sum().backward()
    yield lambda: out[-1].sum().backward()


def walk_and_keep(out, x, w):
    yield lambda: out[0].sum().backward(retain_graph=True)
    yield lambda: out[-1].sum().backward()
    yield lambda: out[0].sum().backward()


def second_order(out, x, w):
    def act():
        (g,) = dg.autograd.grad((out[-1] * out[-1]).sum(), w, create_graph=True)
        (g * g).sum().backward()
        return g

    yield act


FUNCTIONS = (
    expanded, windows, row_of_expanded, turned, every_other, backwards, sliced, column, detached_turned, two_views,
    two_expanded, rows, view_and_base, view_of_a_view, detached_first, detached_views, view_of_an_argument,
    the_argument, view_of_a_parameter, detached_parameter, what_a_gradient_reads, view_of_what_a_gradient_reads,
    read_twice, apart, made_quietly, made_quietly_alone, changed_inside, twice_the_same,
)  # fmt: skip
ACTS = (
    change, change_tracked, change_unseen, change_quietly, change_the_last, change_what_was_reshaped,
    change_the_argument, walk_twice, walk_and_keep, second_order,
)  # fmt: skip


def facts(fn, act, mode, calls=2):
    f, w, log = dg.function(fn, mode=mode), leaf(1, 2, 3, 4, 5, 6), []
    for _ in range(calls):
        x, w.grad = dg.arange(6, dtype=dg.float32), None
        out = f(x, w)
        out = out if isinstance(out, tuple) else (out,)
        log.append([seen(y) for y in out])
        log += [tried(step) for step in act(out, x, w)]
        log.append([seen(y) for y in (*out, x, w, w.grad)])
    return log


@pytest.mark.parametrize("act", ACTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda f: f.__name__)
def test_results_are_those_of_eager_mode_whatever_is_done_to_them(fn, act):
    assert facts(fn, act, "graph") == facts(fn, act, "eager")


def test_a_result_that_shares_memory_with_itself_is_not_changed_in_place():
    f = dg.function(lambda x: x.round().expand(2, 3))
    y = f(dg.ones(3))
    with pytest.raises(dg.errors.ArgumentError, match="share memory"):
        y.add_(1)
    assert y.strides == (0, 1)


def test_an_alias_of_repeated_memory_is_changed_as_in_eager_mode():
    def fn(x):
        y = x.expand(2, 2)
        y[0].detach().add_(1)
        return y

    for mode in ("eager", "graph"):
        x, f = dg.zeros(2), dg.function(fn, mode=mode)
        for n in (1.0, 2.0, 3.0):
            assert f(x).tolist() == [[n, n], [n, n]]
            assert x.tolist() == [n, n]


def test_turned_results_take_the_quick_way():
    f = dg.function(lambda x: (x * 2).T)
    x = dg.arange(6, dtype=dg.float32).reshape(2, 3)
    for _ in range(5):
        y = f(x)
        np.testing.assert_array_equal(y.numpy(), x.numpy().T * 2)
        assert y.strides == (1, 3)
        assert y._base.shape == (2, 3)


def _turned(x, w):
    t, u = w.T, (x * 2).T
    if x.sum() < 1e9:  # what follows is another graph
        return x[:1] @ t, x[:1] @ u, t, u


def _sliced(x, w):
    u, z, k = (x * 2).T[:, ::2], (x + 1)[:, ::3], w.transpose(0, 1)[None].expand(3, 8, 16)
    for _ in range(2):
        if x.sum() > 1e9:
            break
    return x[:1] @ u, z @ dg.ones(3, 1), k @ dg.ones(16, 1), u, z, k


def _learnt(x, w):
    y = dg.nn.functional.linear(x[:1], w)
    if y.sum() < 1e9:
        y.square().sum().backward()
    return y.detach(), w.grad


@pytest.mark.parametrize("body", [_turned, _sliced, _learnt], ids=lambda f: f.__name__)
def test_what_lies_turned_lies_so_after_a_value_was_read(body):
    """Sums of a product with a vector go by the strides: a layer's weights became dense, and gradients others."""
    w = dg.randn(16, 8).requires_grad_()
    seen = []
    for f in (body, dg.function(body)):
        dg.manual_seed(2)
        for _ in range(3):
            w.grad = None
            rows = f(dg.randn(8, 8), w)
            seen.append([(y.strides, y.detach().numpy().tobytes()) for y in rows])
    assert seen[:3] == seen[3:]
