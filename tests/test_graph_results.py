"""What a graph call hands out: strides, views of arguments and of each other, and gradients after changes of them."""

import gc
import weakref

import duograd as dg
import numpy as np
import pytest


def leaf(*values):
    return dg.tensor([float(v) for v in values], requires_grad=True)


def seen(t):
    """All of a tensor that its holder can see."""
    if isinstance(t, tuple):
        return [seen(x) for x in t]
    if not isinstance(t, dg.Tensor):
        return t
    return t.detach().numpy().tolist(), t.requires_grad, t.is_leaf, t.strides


def tried(act, *args, **kwargs):
    """What an act gives, or the whole text of its error."""
    try:
        return seen(act(*args, **kwargs))
    except dg.errors.DuogradError as e:
        return type(e).__name__, str(e)


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


# -- the tape of a call ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_two_losses_of_a_call_are_walked_one_after_the_other(mode):
    w = leaf(1, 2, 3)
    f = dg.function(lambda x: ((x * w * w).sum(), (x + w * 3).sum()), mode=mode)
    for _ in range(2):
        w.grad = None
        a, b = f(dg.ones(3))
        a.backward()
        b.backward()
        assert w.grad.tolist() == [5.0, 7.0, 9.0]
        for loss in (a, b):
            with pytest.raises(
                dg.errors.AutogradError, match=r"the tape of sum \(recorded at .*test_graph_results"
            ):
                loss.backward()


def test_what_a_walk_has_met_is_gone_for_others():
    w, found = leaf(1, 2, 3), []

    def fn(x):
        h = (x * w).exp()
        return (h * h).sum(), (h + 1).sum(), (w * 2).sum()

    for mode in ("eager", "graph"):
        f, row = dg.function(fn, mode=mode), []
        for order in ((0, 1, 1, 2, 2), (1, 0, 2, 1), (2, 1, 0, 0)):
            out, w.grad = f(dg.ones(3)), None
            row.append([tried(lambda y=out[k]: y.backward()) for k in order])
            row.append(w.grad.tolist())
        found.append(row)
    assert found[0] == found[1]


def test_a_walk_lets_go_of_what_no_other_walk_can_use():
    w = leaf(1, 2, 3)

    def fn(x):
        h = (x * w).exp()
        return (h * h).sum(), h

    loss, h = dg.function(fn)(dg.ones(3))
    kept = weakref.ref(h._storage)
    h = h.detach().clone()
    gc.disable()
    try:
        assert kept() is not None
        loss.backward()
        assert kept() is None
    finally:
        gc.enable()


def container_of_an_argument(mode):
    w = leaf(1)

    def fn(x, d):
        d["n"] = x * 2
        return dg.scan(lambda c, _: (c * 0.9 + w[0], None), x, length=3)[0]

    f, row = dg.function(fn, mode=mode), []
    for _ in range(3):
        x, d = leaf(3), {"a": 1}
        f(x, d).sum().backward()
        row += [x.grad.tolist(), w.grad.tolist()]
        (g,) = dg.autograd.grad((f(x, d) ** 2).sum(), x, create_graph=True)
        g.sum().backward()
        row += [x.grad.tolist(), seen(d["n"])]
    return row


class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b


def object_made_inside(mode):
    f, row = dg.function(lambda x: Pair(x * x, [x**3, (x, "text")]), mode=mode), []
    for _ in range(3):
        x = leaf(3)
        made = f(x)
        (g,) = dg.autograd.grad((made.a * made.b[0]).sum(), x, create_graph=True)
        g.sum().backward()
        row += [g.tolist(), x.grad.tolist(), made.b[1][1]]
    return row


def argument_overwritten(mode):
    w, row = leaf(2), []

    def fn(x, buffer):
        buffer.copy_(w * 2)
        return w**3 * x

    f = dg.function(fn, mode=mode)
    for _ in range(3):
        buffer, w.grad = dg.zeros(1), None
        y = f(dg.ones(1), buffer)
        (g,) = dg.autograd.grad((y * y).sum(), w, create_graph=True)
        g.sum().backward()
        row += [g.tolist(), w.grad.tolist(), seen(buffer)]
    return row


@pytest.mark.parametrize(
    "case", [container_of_an_argument, object_made_inside, argument_overwritten], ids=lambda f: f.__name__
)
def test_a_function_that_runs_again_for_a_gradient_hands_out_the_same(case):
    assert case("graph") == case("eager")


# -- the error for what was changed ------------------------------------------------------------------------------


class Double(dg.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


def sine(x):
    return dg.sin(x).sum()


def attention(x):
    return dg.softmax(x * 2).sum()


def own_gradient(x):
    return Double.apply(x).sum()


def at_a_checkpoint(x):
    return dg.checkpoint(lambda t: t.exp() * t, x).sum()


def several_kept(x):
    return (dg.concat([x, x * 2]) ** 3).prod() + dg.maximum(x, 0.5).sum()


@pytest.mark.parametrize(
    "fn", [sine, attention, own_gradient, at_a_checkpoint, several_kept], ids=lambda f: f.__name__
)
def test_the_error_for_a_changed_argument_is_that_of_eager_mode(fn):
    found = []
    for mode in ("eager", "graph"):
        f, row = dg.function(fn, mode=mode), []
        for _ in range(3):
            w = leaf(1, 2)
            x = w * 1
            loss = f(x)
            with dg.no_grad():
                x.add_(1)
            row += [tried(loss.backward), seen(w.grad)]
        found.append(row)
    assert found[0] == found[1]


def test_it_names_the_op_and_both_lines():
    def fn(x):
        return dg.sin(x).sum()

    x = leaf(1, 2) * 1
    loss = dg.function(fn)(x)
    x.detach().add_(1)  # changes it
    with pytest.raises(dg.errors.AutogradError) as caught:
        loss.backward()
    text, here = str(caught.value), test_it_names_the_op_and_both_lines.__code__.co_firstlineno
    assert text.startswith(f"[sin] needs x: float32[2] as it was at {__file__}:{here + 2} for its gradient")
    assert f"changed in place at {__file__}:{here + 6}\n" in text


def test_a_change_that_a_graph_makes_has_its_line():
    found = []
    for mode in ("eager", "graph"):

        def change(x):
            x.add_(1)

        f, row = dg.function(change, mode=mode), []
        for _ in range(5):
            x = dg.ones(2)
            loss = (leaf(1, 2) * x).sum()
            f(x)
            row.append(tried(loss.backward))
        found.append(row)
    assert found[0] == found[1]
    assert all(f":{change.__code__.co_firstlineno + 1}\n" in text for _, text in found[1])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_change_of_what_a_walk_does_not_look_at_is_no_error(mode):
    w = leaf(1, 2)
    f = dg.function(lambda x: ((x * w).exp(), w * w), mode=mode)
    for _ in range(3):
        x, w.grad = dg.ones(2), None
        a, b = f(x)
        a.detach().zero_()
        x.zero_()
        b.sum().backward()
        assert w.grad.tolist() == [2.0, 4.0]
        with pytest.raises(dg.errors.AutogradError, match="needs its output"):
            a.sum().backward()


# -- walks to targets, and through results that others are computed from ------------------------------------------


def middle(mode):
    w, v = leaf(1, 2), leaf(3, 4)

    def fn(x):
        h = x * w
        return h, (h * h * v).sum(), h[:1]

    f, row = dg.function(fn, mode=mode), []
    for _ in range(2):
        h, y, part = f(dg.arange(1, 3, dtype=dg.float32))
        for targets in ([h], [h, w], [v, h], [part]):
            found = dg.autograd.grad(y + h.sum(), targets, retain_graph=True, allow_unused=True)
            row.append([None if g is None else g.tolist() for g in found])
        row += [
            tried(dg.autograd.grad, y, h),
            tried(h.sum().backward),
            tried(y.backward),
        ]
        row.append(w.grad.tolist())
    return row


def second_order_at_the_middle(mode):
    w = leaf(1, 2)

    def fn(x):
        h = x * w
        return h, (h * h * h).sum()

    h, y = dg.function(fn, mode=mode)(dg.ones(2))
    (g,) = dg.autograd.grad(y, h, create_graph=True)
    (g * g).sum().backward()
    return g.tolist(), w.grad.tolist()


def hook_in_the_middle(mode):
    w, seen, kept = leaf(1, 2), [], []

    def fn(x):
        h = x * w
        kept[:] = [h + 0]
        return h, (h * h).sum(), kept[0] * 2

    f, row = dg.function(fn, mode=mode), []
    for use in (
        lambda h, y, z: y,
        lambda h, y, z: y + h.sum(),
        lambda h, y, z: h.sum(),
        lambda h, y, z: z.sum() + y,
    ):
        out, w.grad = f(dg.ones(2)), None
        out[0].register_hook(lambda g: (seen.append(g.tolist()), g * 3)[1])
        out[1].register_hook(lambda g: g * 5)
        use(*out).backward()
        row.append(w.grad.tolist())
    return row, seen


def leaves_one_by_one(mode):
    a, b, c = leaf(1, 2), leaf(2, 3), leaf(3, 4)

    def fn(x):
        p, q = (a * x).exp(), (b * x).exp()
        return (p * q).sum(), (q * c).sum()

    f, row = dg.function(fn, mode=mode), []
    for order in (
        ((0, a), (0, a), (0, b), (1, b), (1, c), (1, None)),
        ((1, c), (0, b), (0, None)),
        ((0, None), (1, c), (1, c), (1, b)),
    ):
        out = f(dg.ones(2))
        for k, target in order:
            if target is None:
                row.append(tried(out[k].backward))
            else:
                row.append(tried(dg.autograd.grad, out[k], target))
    return row


def changed_beside_the_way(mode):
    w, v, row = leaf(3, 4), leaf(1, 2), []
    f = dg.function(lambda x, v: (x * w).sum() + (v * v).exp().sum(), mode=mode)
    for _ in range(2):
        x, u = leaf(1, 2), v * 0.1
        y = f(x, u)
        u.detach().add_(1)
        row += [
            tried(dg.autograd.grad, y, x, retain_graph=True),
            tried(dg.autograd.grad, y, x),
        ]
        row.append(tried(y.backward))
    return row


def hook_on_what_is_kept(mode):
    w, seen, kept = leaf(1, 2), [], {}

    def fn(x):
        kept["h"] = (x * w).tanh()
        return (kept["h"] * kept["h"]).sum()

    f, row = dg.function(fn, mode=mode), []
    for _ in range(2):
        y, w.grad = f(dg.ones(2)), None
        row.append(dg.autograd.grad(y, kept["h"], retain_graph=True)[0].tolist())
        kept["h"].register_hook(lambda g: seen.append(g.tolist()))
        y.backward()
        row.append(w.grad.tolist())
    return row, seen


def hook_without_a_leaf_outside(mode):
    def fn(x):
        h = x.detach().requires_grad_().sin()
        return h, h * h

    h, y = dg.function(fn, mode=mode)(dg.ones(2))
    h.register_hook(lambda g: g * 3)
    return dg.autograd.grad([h.sum(), y.sum()], h)[0].tolist()


@pytest.mark.parametrize(
    "case",
    [
        middle, second_order_at_the_middle, hook_in_the_middle, leaves_one_by_one, changed_beside_the_way,
        hook_on_what_is_kept, hook_without_a_leaf_outside,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_a_walk_takes_the_way_through_a_call_that_it_takes_in_eager_mode(case):
    assert case("graph") == case("eager")
