"""Functions with hooks whose tape is used up when they end, as a train step's is: graphs, with eager mode's hooks."""

import duograd as dg
import numpy as np
import pytest

grad = dg.autograd.grad


def _data(seed):
    return dg.tensor(np.random.default_rng(seed).standard_normal(4).astype("float32"))


def _told(f, *args):
    """What a walk gives, or its error."""
    try:
        made = f(*args)
    except dg.errors.AutogradError as e:
        return e.message
    return None if made is None else [g.tolist() for g in made]


def _story(body, walks, mode):
    """What each of the walks over a new call's results tells, with what hooks have noted and gradients."""
    told = []
    for walk in [None, *walks]:
        w, log = dg.tensor([0.5, -1.0, 2.0, 0.1], requires_grad=True), []
        step = dg.function(body(w, log))
        with dg.mode(mode):
            for k in range(3):
                results = step(_data(k))
                if walk is not None:
                    told += [_told(walk, *results), _told(walk, *results)]
                told.append([g.tolist() for g in log])
                told.append(None if w.grad is None else w.grad.tolist())
    return told, step


def used_up(w, log):
    def step(x):
        y = w * x
        y.register_hook(lambda g: g * 3)
        (y * y).sum().backward()
        return (y,)

    return step


def used_up_with_a_log(w, log):
    def step(x):
        y = w * x
        y.register_hook(lambda g: log.append(g * 3))
        (y * y).sum().backward()
        return (y,)

    return step


def computed_of_what_is_used_up(w, log):
    """As class activation maps are."""

    def step(x):
        y, found = w * x, []
        y.register_hook(lambda g: log.append(g * 3))
        y.register_hook(found.append)
        (y * y).sum().backward()
        return y * found[0].mean(), y

    return step


def a_metric_beside_a_step(w, log):
    w.register_hook(lambda g: log.append(g.detach()))

    def step(x):
        h = dg.tanh(w * x)
        h.register_hook(lambda g: log.append(g * 2))
        y = h * 2
        w.grad = None
        loss = (y * y).sum()
        loss.backward()
        with dg.no_grad():
            w.sub_(0.1 * w.grad)
        return loss, (y - 1).abs().mean(), y

    return step


def a_step(w, log):
    def step(x):
        h = w * x
        h.register_hook(lambda g: g / (1 + g.abs()))
        w.grad = None
        loss = (h * h).sum()
        loss.backward()
        with dg.no_grad():
            w.sub_(0.1 * w.grad)
        return loss, h.detach()

    return step


def a_hook_for_the_call(w, log):
    def step(x):
        let_go = w.register_hook(lambda g: log.append(g * 2))
        y = w * x
        y.sum().backward(retain_graph=True)
        let_go()
        return (y,)

    return step


PROGRAMS = [
    (used_up, [lambda y: y.sum().backward(), lambda y: grad((y * 2).sum(), y)]),
    (used_up_with_a_log, [lambda y: y.sum().backward(), lambda y: grad((y * 2).sum(), y)]),
    (
        computed_of_what_is_used_up,
        [
            lambda z, y: z.sum().backward(),
            lambda z, y: grad(z.sum(), y),
            lambda z, y: grad(z.square().sum(), [y, z], create_graph=True),
        ],
    ),
    (
        a_metric_beside_a_step,
        [lambda _, m, y: m.backward(), lambda _, m, y: grad(m, y), lambda x, m, y: (x * m).backward()],
    ),
    (a_step, [lambda loss, _: loss.backward()]),
    (a_hook_for_the_call, [lambda y: y.sum().backward(), lambda y: grad((y * y).sum(), y)]),
]


@pytest.mark.parametrize(("body", "walks"), PROGRAMS, ids=[body.__name__ for body, _ in PROGRAMS])
def test_hooks_run_as_in_eager_mode(body, walks):
    want, _ = _story(body, walks, "eager")
    got, step = _story(body, walks, "graph")
    assert got == want
    assert "its Python runs" not in step.explain()


def test_hooks_of_a_call_keep_the_place_of_their_leaves():
    def told(mode):
        w, v, log = _data(1).requires_grad_(), _data(2).requires_grad_(), []

        @dg.function
        def step(x):
            for let_go in [v.register_hook(lambda g: g * 2), w.register_hook(lambda g: g * 5)]:
                let_go()
            return w * x * v

        with dg.mode(mode):
            for k in range(3):
                y = step(_data(k))
                handles = [
                    w.register_hook(lambda g: log.append("w")),
                    v.register_hook(lambda g: log.append("v")),
                ]
                y.sum().backward()
                for let_go in handles:
                    let_go()
        return log, len(step.variants), step.explain()

    assert told("eager")[0] == told("graph")[0] == ["v", "w"] * 3
    assert told("graph")[1] == 1


def test_a_list_of_the_call_that_a_hook_fills_is_made_anew_at_each_call():
    w = _data(1).requires_grad_()

    @dg.function
    def step(x):
        norms = []
        h = w * x
        h.register_hook(lambda g: norms.append(g.sum()))
        h.sum().backward()
        return norms

    assert [len(step(_data(k))) for k in range(4)] == [1] * 4
    assert len(step.variants) == 2  # the first call finds no gradient


def test_a_hook_of_an_earlier_call_is_from_outside():
    def told(mode):
        w, log = _data(1).requires_grad_(), []

        def fn(x, first):
            seen = log
            if first:
                w.register_hook(lambda g: seen.append(g.sum()))
            (w * x).sum().backward()
            return len(log)

        step = dg.function(fn)
        with dg.mode("eager"):
            step(_data(0), True)
        with dg.mode(mode):
            return [step(_data(k), False) for k in range(4)], [g.tolist() for g in log]

    assert told("graph") == told("eager")


def test_a_hook_that_stays_on_a_leaf_is_left_to_python():
    def told(mode):
        w = _data(1).requires_grad_()

        @dg.function
        def step(x):
            w.register_hook(lambda g: g * 0.5)
            w.grad = None
            (w * x).sum().backward()
            return w.grad

        with dg.mode(mode):
            return [step(_data(3)).tolist() for _ in range(3)], step.explain()

    assert told("eager")[0] == told("graph")[0]
    assert "which stays there after the call" in told("graph")[1]


@pytest.mark.parametrize("way", ["returned", "kept", "in a list", "asked first", "removed"])
def test_a_hook_on_a_leaf_that_the_call_makes_and_hands_out(way):
    """A walk after the call runs it."""

    def told(mode):
        log, kept = [], []

        def step(x):
            leaf = x.detach().requires_grad_()
            handle = leaf.register_hook(lambda g: log.append(g.sum().item()) or g * 0.5)
            if way == "asked first":
                (leaf * leaf).sum().backward()
            if way == "removed":
                handle.remove()
            if way == "kept":
                kept[:] = [leaf]
                return x + 1
            return [leaf] if way == "in a list" else leaf

        fn, rows = dg.function(step, mode=mode), []
        for k in range(3):
            made = fn(_data(k))
            leaf = kept[0] if kept else made[0] if way == "in a list" else made
            (leaf * 3).sum().backward()
            rows.append(leaf.grad.tolist())
        return rows, log

    assert told("graph") == told("eager")
