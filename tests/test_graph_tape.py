"""The tape of a graph call: walks one after the other, through results, past what was changed, and their errors."""

import gc
import weakref

import duograd as dg
import pytest
from results import leaf, seen, tried


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
                dg.errors.AutogradError, match=r"the tape of sum \(recorded at .*test_graph_tape"
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


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.repeat_interleave(2, 0),
        lambda x: dg.tile(x, (2, 1)),
        lambda x: x.T.reshape(4),
        lambda x: x.T.reshape(4)[1:],
        lambda x: dg.broadcast_to(x[:, None], (2, 2, 2)).reshape(4, 2).T,
    ],
)
@pytest.mark.parametrize("kind", ["argument", "state", "result"])
def test_what_a_reshape_had_to_copy_is_kept_when_its_source_changes(make, kind):
    found = []
    for mode in ("eager", "graph"):
        leaf = dg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        x = leaf * 1

        def fn(t, x=x):
            t = x if kind == "state" else t * 3 if kind == "result" else t
            v = make(t)
            return t if kind == "result" else None, v.sum() * v

        t, y = dg.function(fn, mode=mode)(x)
        (x if t is None else t).mul_(10)
        y.sum().backward()
        found.append(leaf.grad.tolist())
    assert found[0] == found[1]
