"""Gradients of gradients through a call of a graph: the function runs again, and nobody can tell."""

import functools

import duograd as dg
import numpy as np
import pytest


class State:
    pass


def both(body, **start):
    """Second derivatives outside a call, and all state afterwards, in both modes."""
    rows = []
    for mode in ("eager", "graph"):
        dg.manual_seed(3)
        m = State()
        m.count, m.scale, m.log = 0, 2.0, []
        m.w = dg.tensor([0.5, -1.0]).requires_grad_()
        m.h = dg.tensor([1.0, 1.0])
        vars(m).update(start)
        f = dg.function(functools.partial(body, m), mode=mode)
        row = []
        for k in range(3):
            x = dg.tensor([1.0 + k, 2.0]).requires_grad_()
            y = f(x)
            (g,) = dg.core.vjp.walk([y], [dg.ones_like(y)], [x], create_graph=True)
            m.scale += 1  # later than the call, so no part of its gradient
            g.sum().backward()
            row += [y.tolist(), g.tolist(), x.grad.tolist(), None if m.w.grad is None else m.w.grad.tolist()]
        rows.append((row, m.count, m.scale, [np.asarray(t.detach()).tolist() for t in m.log], m.h.tolist(),
                     dg.core.random.default_generator.get_state()))  # fmt: skip
    return rows


def counts(m, x):
    m.count += 1
    return x**3 * m.scale * m.count


def logs(m, x):
    m.log.append(x.detach() * 2)
    return x**3 * len(m.log)


def carries(m, x):
    m.h = m.h * 2 + x.detach()
    return x**3 * m.h


def changes_in_place(m, x):
    m.count += 1
    y = x**3 * m.count
    m.h += m.count
    return y


def draws(m, x):
    return x**3 * dg.rand((2,))


def reads(m, x):
    return dg.exp(m.w * x) * x


def branches(m, x):
    m.count += 1
    return x**3 if x.sum() > 3.5 else x**2 * m.count


@pytest.mark.parametrize("body", [counts, logs, carries, changes_in_place, draws, reads, branches])
def test_second_derivatives_and_state_are_those_of_eager_mode(body):
    eager, graph = both(body)
    assert str(eager) == str(graph)


def normalises(m, x):
    m.h.mul_(0.9).add_(x.detach() * 0.1)  # a running mean, which the result does not depend on
    return x**3 / (x.detach().mean() + 1)


def test_a_running_mean_is_not_updated_twice():
    eager, graph = both(normalises)
    assert str(eager) == str(graph)


def test_what_the_call_changes_is_there_again_for_a_second_gradient():
    w = dg.tensor([2.0])

    @dg.function
    def f(x):
        y = x**3 + w
        w.add_(1)
        return y

    x = dg.tensor([3.0]).requires_grad_()
    (g,) = dg.core.vjp.walk([f(x)], [dg.ones((1,))], [x])
    assert g.tolist() == [27.0]
    (g,) = dg.core.vjp.walk([f(x)], [dg.ones((1,))], [x], create_graph=True)
    assert dg.autograd.grad(g, x)[0].tolist() == [18.0]
    assert w.tolist() == [4.0]


def adds(w, buffer):
    def step(x):
        y = dg.sin(w * x)
        z = y * y + buffer.clone() * w
        with dg.no_grad():
            buffer.mul_(0.5).add_(x.detach())
        return z, y

    return step


def normalises_first(w, buffer):
    """As a spectral norm: what the call has changed is part of the result."""

    def step(x):
        with dg.no_grad():
            buffer.copy_(dg.sin(buffer) * 2 + w)
        y = dg.sin(w * x) * buffer
        return y * w, y

    return step


def reads_before_and_after(w, buffer):
    def step(x):
        y = w * buffer.clone()
        with dg.no_grad():
            buffer.mul_(0.5)
            buffer[0] = 3.0
            buffer[1:3].add_(1)
        y = dg.sin(y) * buffer
        return y * w, y

    return step


def loses_what_a_gradient_needs(w, buffer):
    def step(x):
        y = w * buffer
        with dg.no_grad():
            buffer.mul_(0.5)
        return y * w, y

    return step


def changes_on_a_value(w, buffer):
    def step(x):
        y = dg.sin(w * x) * dg.rand((4,)) + buffer.clone()
        with dg.no_grad():
            if buffer.sum() > 0:
                buffer.sub_(1.0)
            else:
                buffer.add_(0.7)
                buffer.add_(0.3)
        return y * w, y

    return step


def changes_an_argument_with_a_history(w, buffer):
    def step(x):
        y = dg.sin(w * x.clone())
        x.mul_(w)
        return y * w, x

    return step


def twice(w, z, y):
    (g,) = dg.autograd.grad(z.sum(), w, create_graph=True)
    return g, dg.autograd.grad((g * g).sum(), w)[0]


def backwards(w, z, y):
    w.grad = None
    z.square().sum().backward(create_graph=True)
    g, w.grad = w.grad, None
    ((g * g).sum() + y.sum()).backward()
    return g, w.grad


def with_a_hook(w, z, y):
    y.register_hook(lambda g: g * 3)
    return dg.autograd.grad((z + y).sum(), [w, y])


@pytest.mark.parametrize("walk", [twice, backwards, with_a_hook])
@pytest.mark.parametrize(
    "make",
    [adds, normalises_first, reads_before_and_after, loses_what_a_gradient_needs, changes_on_a_value,
     changes_an_argument_with_a_history],
)  # fmt: skip
def test_a_function_that_runs_again_has_what_it_changed(make, walk):
    def story(mode):
        dg.manual_seed(1)
        w, buffer = dg.tensor([0.5, -1.0, 2.0, 0.1]).requires_grad_(), dg.tensor([1.0, -0.5, 0.2, 0.4])
        f, told = dg.function(make(w, buffer), mode=mode), []
        for k in range(4):
            results = f(dg.arange(4) * (0.3 * k + 0.1))
            try:
                told.append([g.tolist() for g in walk(w, *results)])
            except dg.errors.AutogradError as e:
                told.append(e.message)
            told.append(buffer.tolist())
        return told

    assert story("graph") == story("eager")


def test_a_tensor_that_the_function_found_and_somebody_changed_is_not_read_again():
    w, c = dg.tensor([1.0, 2.0]).requires_grad_(), dg.zeros(2)
    f = dg.function(lambda x: (x * w * w) * c.exp())
    y = f(dg.ones(2)).sum()
    c.add_(1)
    with pytest.raises(dg.errors.AutogradError, match="changed in place after the call"):
        dg.autograd.grad(y, w, create_graph=True)
    (g,) = dg.autograd.grad(y, w)
    assert g.tolist() == [2.0, 4.0]


SCHEDULES = {
    "cycle": lambda opt: dg.optim.lr_scheduler.OneCycleLR(opt, 0.5, total_steps=20),
    "steps": lambda opt: dg.optim.lr_scheduler.StepLR(opt, 1, 0.5),
    "cosine": lambda opt: dg.optim.lr_scheduler.CosineAnnealingLR(opt, 6),
}


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "after"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "make", [dg.optim.Adam, functools.partial(dg.optim.SGD, momentum=0.9)], ids=["Adam", "SGD"]
)
def test_a_function_that_runs_again_finds_the_settings_of_the_call(make, schedule, inside):
    """A schedule sets the optimizer's next rate and momentum in the call, or between it and the gradient."""

    def run(mode):
        w = dg.tensor([1.0, 2.0, 3.0]).requires_grad_()
        opt = make([w], lr=0.1)
        plan = SCHEDULES[schedule](opt)

        def step():
            opt.step()
            if inside:
                plan.step()
            return w * w * w

        f, row = dg.function(step, mode=mode), []
        for _ in range(6):
            y = f()
            if not inside:
                plan.step()
            rate = opt.param_groups[0]["lr"]
            (g,) = dg.autograd.grad(y.sum(), w, create_graph=True)
            g.sum().backward()
            assert opt.param_groups[0]["lr"] == rate
            row.append((y.tolist(), g.tolist(), w.tolist(), w.grad.tolist(), rate))
        return row

    assert run("graph") == run("eager")


def test_what_a_result_does_not_depend_on_may_change():
    w, x, c = dg.tensor([1.0, 2.0]).requires_grad_(), dg.ones(2), dg.ones(2)

    @dg.function
    def f(x, c):
        c += 1
        return w**3, w * x.exp(), w * c.exp()

    a, b, d = f(x, c)
    x.add_(1)
    (g,) = dg.autograd.grad(a.sum(), w, create_graph=True)
    g.sum().backward()
    assert w.grad.tolist() == [6.0, 12.0]
    with pytest.raises(dg.errors.AutogradError, match="changed in place after the call"):
        dg.autograd.grad(b.sum(), w, create_graph=True)
    (g,) = dg.autograd.grad(d.sum(), w, create_graph=True)
    assert g.tolist() == dg.exp(dg.full((2,), 2.0)).tolist()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_function_that_runs_again_finds_the_gradients_of_the_call(mode):
    def fn(x):
        (x * x * x).sum().backward(create_graph=True)
        return x.grad

    f = dg.function(fn, mode=mode)
    for _ in range(2):
        x = dg.tensor([1.0, 2.0]).requires_grad_()
        g = f(x)
        g.mul_(2)
        (second,) = dg.autograd.grad(g.sum(), x, create_graph=True)
        assert second.tolist() == [12.0, 24.0]
        assert x.grad is g


@pytest.mark.parametrize("then", [False, True])
def test_a_function_that_runs_again_finds_the_hooks_of_the_call(then):
    """The gradient inside met hooks that the leaf has got since, and none of those that it has lost."""

    def twice(x):
        x.tanh().sum().backward(create_graph=True)
        return x.grad, dg.scan(lambda c, t: (c * 0.5, c), x.grad[0], x.grad)[1]

    found = []
    for mode in ("eager", "graph"):
        x, seen = dg.tensor([2.0, 0.5]).requires_grad_(), []
        hook = lambda g, seen=seen: seen.append(g.tolist()) or g * 0.5
        kept = x.register_hook(hook) if then else None
        y, _ = dg.function(twice, mode=mode)(x)
        if kept is None:
            x.register_hook(hook)
        else:
            kept()
        found.append((dg.autograd.grad(y.sum(), x)[0].tolist(), seen))
    assert found[0] == found[1]


@pytest.mark.parametrize("part", [0, 1])
def test_an_argument_with_a_history_is_changed_before_a_loop(part):
    """No graph holds the way back through the loop: it leads to where the argument stood when the call began."""

    def found(mode):
        leaf = dg.ones(3, 2).requires_grad_()
        x = leaf * 1

        def fn(x):
            x *= 2
            return dg.scan(lambda c, t: (c * 0.5 + t, c), x[0], x)[part]

        dg.function(fn, mode=mode)(x).sum().backward()
        return leaf.grad.tolist()

    assert found("graph") == found("eager")


def reads_a_gradient_twice(x):
    with dg.no_grad():
        y = x.grad * 2
    return y * x + x.grad


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "body",
    [
        reads_a_gradient_twice,
        lambda x: x.grad * 2,
        lambda x: x.tanh().sum().backward(create_graph=True) or x.grad,
        lambda x: (x * 3).sum().backward() or x.grad + x * 2,
        lambda x: (x.grad.mul_(2), x * 1)[1],
    ],
)
def test_the_history_of_a_gradient_that_a_function_finds_is_kept(body, given):
    """It was lost where the gradient of a tensor outside had been taken with create_graph=True."""

    def found(mode):
        x = dg.tensor([0.5, -1.0]).requires_grad_()
        f = dg.function(body if given else lambda: body(x), mode=mode)
        rows = []
        for history in (False, True, False, True, True):
            x.grad = None
            x.tanh().sum().backward(create_graph=history)
            y = f(x) if given else f()
            z = y + x.grad  # what it is now may have changed
            rows.append([y.tolist(), z.requires_grad])
            if z.requires_grad:
                (g,) = dg.autograd.grad(z.sum(), x, create_graph=True)
                rows.append([g.tolist(), g.requires_grad])
        return rows

    assert found("graph") == found("eager")


@pytest.mark.parametrize(
    "change", ["zero_()", "fill_(2)", "copy_(dg.ones(2))", "detach().zero_()", "mul_(2)"]
)
def test_a_function_that_runs_again_takes_the_history_from_an_argument(change):
    """It had none by then and seemed to be a leaf, which must not be changed in place."""

    def fn(x, y):
        v = dg.checkpoint(lambda t: dg.nn.functional.dropout(t * t, 0.5), x)
        eval(f"y.{change}", {"y": y, "dg": dg})
        return v.sum() * v, v

    def found(mode):
        dg.manual_seed(3)
        x, leaf = (dg.tensor([0.5, -1.0]).requires_grad_() for _ in range(2))
        y = leaf * 1
        out = dg.function(fn, mode=mode)(x, y)
        out[1].sum().backward()
        return x.grad.tolist(), y.tolist(), y.requires_grad

    assert found("graph") == found("eager")


@pytest.mark.parametrize("change", ["zero_()", "fill_(2)", "copy_(x)", "detach().fill_(3)", "mul_(2)"])
@pytest.mark.parametrize("given", [True, False])
def test_a_function_that_runs_again_reads_what_it_has_filled(change, given):
    """Of what nothing depends on as it was, versions went on: what was read after the change seemed to be changed."""

    def found(mode):
        w, kept = dg.tensor([0.5, -1.0]).requires_grad_(), dg.tensor([1.0, 2.0])

        def fn(x, t):
            t = t if given else kept
            eval(f"t.{change}", {"t": t, "x": x})
            return (w * w * t).sum()

        f, rows = dg.function(fn, mode=mode), []
        for k in range(3):
            y = f(dg.tensor([1.0 + k, 2.0]), kept if given else w)
            (g,) = dg.autograd.grad(y, w, create_graph=True)
            g.sum().backward()
            rows.append([g.tolist(), w.grad.tolist(), kept.tolist(), kept._storage.version > k])
        return rows

    assert found("graph") == found("eager")


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("returned", ["nothing", "the loss", "the gradient", "what is computed of it"])
def test_a_gradient_that_a_call_leaves_behind_has_its_history(returned, again, given):
    """It had none unless it was returned, too."""

    def found(mode):
        w, kept = dg.tensor([0.5, -1.0]).requires_grad_(), dg.tensor([2.0, 3.0]).requires_grad_()

        def fn(x):
            x = x if given else kept
            loss = (w * w * x * x * x).sum()
            loss.backward(create_graph=True)
            return {"nothing": None, "the loss": loss, "the gradient": x.grad}.get(returned, x.grad * w)

        f, rows = dg.function(fn, mode=mode), []
        for _ in range(3):
            w.grad = kept.grad = None
            y = f(kept if given else dg.ones(1))
            (g,) = dg.autograd.grad((w.grad * kept.grad).sum(), kept, create_graph=again, retain_graph=True)
            rows.append([g.tolist(), g.requires_grad, w.grad.requires_grad, w.grad.is_leaf])
            if again:
                rows.append(dg.autograd.grad(g.sum(), w, retain_graph=True)[0].tolist())
            if y is not None:
                rows.append(dg.autograd.grad(y.sum() + kept.grad.sum(), [w, kept])[1].tolist())
        return rows

    assert found("graph") == found("eager")
