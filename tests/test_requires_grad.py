"""A function that changes `requires_grad` of tensors from outside is one graph: same numbers, same flags afterwards."""

from itertools import pairwise

import duograd as dg
import numpy as np
import pytest
from duograd import nn

CALLS = 6


def _net(*sizes):
    return nn.Sequential(*[layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())][:-1])


def _data(seed, *shape):
    return dg.tensor(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def _bits(x):
    if isinstance(x, dg.Tensor):
        grad = None if x.grad is None else x.grad.detach().numpy().tobytes()
        return str(x.type), x.requires_grad, x.is_leaf, x.detach().numpy().tobytes(), grad
    if isinstance(x, (list, tuple)):
        return [_bits(y) for y in x]
    if isinstance(x, nn.Module):
        return [_bits([*x.parameters(), *x.buffers()])]
    return repr(x)


def _story(make, mode, calls=CALLS):
    """What a program gives and leaves, and how often it was traced. make: its step, arguments, state, and what is done
    with a result outside of it."""
    dg.manual_seed(0)
    step, args, state, *after = make()
    fn = dg.function(step)
    told = []
    with dg.mode(mode):
        for k in range(calls):
            try:
                result = fn(*args(k))
                told += [_bits(result), _bits(state)]
                told += [_bits(then(k, result)) for then in after]
            except (ValueError, dg.errors.DuogradError) as e:
                told.append(str(e).splitlines()[0])
            told.append(_bits(state))
    return told, fn


def gan():
    made, judge = _net(4, 8, 6), _net(6, 8, 1)
    opts = [dg.optim.Adam(m.parameters(), lr=1e-2) for m in (made, judge)]

    def step(x, z):
        judge.requires_grad_(True)
        opts[1].zero_grad()
        with dg.no_grad():
            fake = made(z)
        first = nn.functional.softplus(-judge(x)).mean() + nn.functional.softplus(judge(fake)).mean()
        first.backward()
        opts[1].step()
        for p in judge.parameters():
            p.requires_grad = False
        opts[0].zero_grad()
        second = nn.functional.softplus(-judge(made(z))).mean()
        second.backward()
        opts[0].step()
        return first, second

    return step, lambda k: (_data(k, 5, 6), _data(k + 50, 5, 4)), [made, judge]


def gan_with_a_penalty():
    made, judge = _net(4, 8, 6), _net(6, 8, 1)
    opts = [dg.optim.Adam(m.parameters(), lr=1e-2) for m in (made, judge)]

    def step(x, z):
        judge.requires_grad_(True)
        opts[1].zero_grad()
        fake = made(z).detach()
        a = dg.rand((5, 1))
        between = (a * x + (1 - a) * fake).requires_grad_(True)
        (g,) = dg.autograd.grad(judge(between).sum(), [between], create_graph=True)
        penalty = ((g.square().sum(axis=1).sqrt() - 1) ** 2).mean()
        (judge(fake).mean() - judge(x).mean() + 10 * penalty).backward()
        opts[1].step()
        judge.requires_grad_(False)
        opts[0].zero_grad()
        loss = -judge(made(z)).mean()
        loss.backward()
        opts[0].step()
        judge.requires_grad_(True)
        return loss, penalty

    return step, lambda k: (_data(k, 5, 6), _data(k + 50, 5, 4)), [made, judge]


def layers_thawed_by_epoch():
    model = _net(6, 8, 8, 2)
    opt = dg.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)

    def step(x, epoch):
        for k, layer in enumerate(model):
            for p in layer.parameters():
                p.requires_grad = k >= 4 - epoch
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    return step, lambda k: (_data(k, 5, 6), k), model


def an_argument():
    w = _data(7, 6)

    def step(w, x):
        loss = (w.requires_grad_(True) * x).sum()
        loss.backward()
        w.requires_grad_(False)
        return loss

    return step, lambda k: (w, _data(k, 6)), w


def changed_in_place_while_frozen():
    w = _data(7, 6).requires_grad_()

    def step(x):
        (w * x).sum().backward()
        w.requires_grad_(False)
        w.sub_(0.1 * w.grad)
        w.requires_grad_(True)
        w.grad = None

    return step, lambda k: (_data(k, 6),), w


def frozen_behind_a_result():
    model = _net(6, 8, 2)

    def step(x):
        y = model(x)
        model.requires_grad_(False)
        return y

    def then(k, y):
        y.sum().backward()
        model.requires_grad_(True)

    return step, lambda k: (_data(k, 5, 6),), model, then


def asked_for_one_of_two_results():
    model = _net(6, 8, 2)

    def step(x):
        model.requires_grad_(True)
        y = model(x)
        model.requires_grad_(False)
        return y, model(x)

    def then(k, results):
        (results[0] * results[0]).sum().backward(create_graph=True)
        norms = [p.grad.square().sum() for p in model.parameters() if p.grad.requires_grad]
        if norms:
            sum(norms).backward()
        return results[1]

    return step, lambda k: (_data(k, 5, 6),), model, then


def frozen_before_a_second_gradient():
    model = _net(6, 8, 2)

    def then(k, y):
        model.zero_grad()
        model[0].weight.requires_grad_(False)
        y.backward(create_graph=True)
        sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None).backward()
        model[0].weight.requires_grad_(True)

    return (lambda x: model(x).sum()), lambda k: (_data(k, 5, 6),), model, then


def used_up_and_frozen():
    model = _net(6, 8, 2)

    def step(x):
        y = model(x).sum()
        y.backward()
        model.requires_grad_(False)
        return y

    def then(k, y):
        model.requires_grad_(True)
        y.backward()

    return step, lambda k: (_data(k, 5, 6),), model, then


def overwritten_with_a_history():
    v, ws = _data(9, 6).requires_grad_(), [_data(k, 6).requires_grad_() for k in range(CALLS)]

    def step(w):
        w.requires_grad_(False)
        w *= v
        if v.size > 3:
            w.copy_(dg.ones(6))
        return w.is_leaf

    return step, lambda k: (ws[k],), [v, ws]


def flags_that_are_read():
    model = _net(6, 8, 2)

    def step(x):
        for p in model.parameters():
            p.requires_grad_(not p.requires_grad)
        y = model(x).sum()
        if y.requires_grad:
            y.backward()
        return y, [p.requires_grad for p in model.parameters()]

    return step, lambda k: (_data(k, 5, 6),), model


def thawed_on_a_value():
    model = _net(6, 8, 2)

    def step(x):
        model.requires_grad_(False)
        if model(x).sum() > 0:
            model.requires_grad_(True)
        z = model(x).sum() * 2
        if z.requires_grad:
            z.backward()
        return z

    return step, lambda k: (_data(k, 5, 6),), model


def a_tensor_of_state():
    class Holder:
        pass

    here = Holder()
    here.h, row = dg.zeros(6), []

    def step(x):
        y = (here.h.requires_grad_(True) * x).sum()
        y.backward()
        row.append(here.h)
        here.h = here.h.detach() + x + here.h.grad
        return y

    return step, lambda k: (_data(k, 6),), row


def computed_from_by_the_caller():
    def step(w):
        return w.requires_grad_(False)

    ws = [_data(k, 6).requires_grad_() for k in range(CALLS)]
    return step, lambda k: (ws[k] * 2,), ws


PROGRAMS = [
    gan, gan_with_a_penalty, layers_thawed_by_epoch, an_argument, changed_in_place_while_frozen, frozen_behind_a_result,
    asked_for_one_of_two_results, frozen_before_a_second_gradient, used_up_and_frozen, overwritten_with_a_history,
    flags_that_are_read, thawed_on_a_value, a_tensor_of_state, computed_from_by_the_caller,
]  # fmt: skip


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda f: f.__name__)
def test_flags_changed_inside_are_those_of_eager_mode(make):
    want, _ = _story(make, "eager")
    got, fn = _story(make, "graph")
    assert got == want
    assert "its Python runs" not in fn.explain()


def test_a_second_gradient_through_a_hot_op_has_the_edges_of_the_call():
    dg.manual_seed(0)
    step, args, model, then = frozen_before_a_second_gradient()
    then(0, step(*args(0)))
    first = _bits(model)
    for _ in range(12):
        then(0, step(*args(0)))
    assert all(p.grad is not None for p in model.parameters())
    assert _bits(model) == first


def test_gan_step_is_traced_once_more_for_its_own_flags_only():
    _, fn = _story(gan, "graph", 10)
    assert len(fn.variants) == 2  # before the first call the judge was not frozen


def test_what_looks_at_both_modes_puts_flags_back(monkeypatch):
    want, _ = _story(gan, "eager", 3)
    monkeypatch.setenv("DUOGRAD_CHECK", "1")
    assert _story(gan, "graph", 3)[0] == want
    monkeypatch.undo()
    step, args, (_, judge) = gan()
    assert dg.compare(step, *args(0)).equal
    assert all(p.requires_grad for p in judge.parameters())


def test_gradients_are_recorded_or_not_from_a_call_on_as_it_says():
    def told(mode):
        w, row = _data(1, 4).requires_grad_(), []

        @dg.function
        def step(x, on):
            dg.set_grad_enabled(on)
            return w * x

        with dg.mode(mode):
            for on in (False, False, True, False, True, False, True, True):
                try:
                    row.append((step(w.detach(), on).requires_grad, dg.is_grad_enabled()))
                finally:
                    if len(row) % 3 == 0:
                        dg.set_grad_enabled(True)
        dg.set_grad_enabled(True)
        return row

    assert told("graph") == told("eager")


def test_a_failed_call_leaves_flags_as_it_leaves_all_state():
    model = _net(6, 8, 2)

    @dg.function
    def step(x, good):
        model.requires_grad_(False)
        if not good:
            raise ValueError("no")
        return model(x)

    with pytest.raises(ValueError, match="no"):
        step(_data(1, 5, 6), False)
    assert all(p.requires_grad for p in model.parameters())
    assert not step(_data(1, 5, 6), True).requires_grad
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_bodies_of_loops_change_no_flags(mode):
    w = _data(1, 6)

    def body(c, t):
        w.requires_grad_(True)
        return c + t * w, c

    with (
        dg.mode(mode),
        pytest.raises(dg.errors.TraceError, match=r"\[scan\] .* changes requires_grad of float32\[6\]"),
    ):
        dg.function(lambda x: dg.scan(body, dg.zeros(6), x))(_data(2, 3, 6))
    assert not w.requires_grad
    w.requires_grad_(True)
    with dg.mode(mode):
        assert dg.function(lambda x: dg.scan(body, dg.zeros(6), x))(_data(2, 3, 6))[0].requires_grad
