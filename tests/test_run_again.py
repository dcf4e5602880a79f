"""A function that runs once more for a gradient finds lengths, keys, emptiness and arrays as its call found them."""

import collections
from types import SimpleNamespace

import duograd as dg
import numpy as np
import pytest


def state():
    return SimpleNamespace(
        log=[], d={}, s=set(), q=collections.deque(), dd=collections.defaultdict(list), c=collections.Counter(),
        a=np.ones(3, np.float32),
    )  # fmt: skip


#: a number for the product, and then a change of what it comes from
CASES = {
    "an empty list": lambda m, x: (2 if m.log else 3, m.log.append(1)),
    "a list's length": lambda m, x: (len(m.log) + 1, m.log.append(x * 2)),
    "a sum over a list": lambda m, x: (sum(m.log) + 1, m.log.append(2)),
    "the last of a list": lambda m, x: (m.log[-1] + 1 if m.log else 5, m.log.append(len(m.log))),
    "a lost first element": lambda m, x: (m.log.pop(0) if m.log else 1, m.log.extend([3, 4])),
    "a key": lambda m, x: (2 if "a" in m.d else 3, m.d.update(a=1)),
    "a key with a tensor": lambda m, x: (2 if "a" in m.d else 3, m.d.update(a=x * 2)),
    "a value for a key": lambda m, x: (m.d.get("a", 3), m.d.update(a=m.d.get("a", 3) + 1)),
    "an empty dict": lambda m, x: (2 if m.d else 3, m.d.update({len(m.d): 1})),
    "an element of a set": lambda m, x: (2 if 3 in m.s else 3, m.s.add(3)),
    "a set's size": lambda m, x: (len(m.s) + 2, m.s.add(len(m.s))),
    "a deque's length": lambda m, x: (len(m.q) + 1, m.q.append(1)),
    "an empty deque": lambda m, x: (2 if m.q else 1, m.q.append(1)),
    "a default": lambda m, x: (len(m.dd["a"]) + 1, m.dd["a"].append(1)),
    "a count": lambda m, x: (m.c["a"] + 1, m.c.update(a=1)),
    "an attribute": lambda m, x: (2 if hasattr(m, "new") else 3, setattr(m, "new", 1)),
    "an array": lambda m, x: (float(m.a[0]) + 1, m.a.__iadd__(1)),
    "a tensor of an array": lambda m, x: (dg.tensor(m.a.copy())[0] + 1, m.a.__iadd__(1)),
}


def gradients(read, twice, mode):
    m, found = state(), []

    @dg.function(mode=mode)
    def fn(x):
        k, _ = read(m, x)
        _, rows = dg.scan(lambda c, t: (c + t, c * 2), x[0], x)
        return x * x * k, rows

    for _ in range(4):
        x = dg.tensor([1.0, 2.0, 3.0]).requires_grad_()
        loss = fn(x)[0].to(dg.float64).sum()
        if twice:
            (g,) = dg.autograd.grad(loss, (x,), create_graph=True)
            loss = (g * g).sum()
        loss.backward()
        found.append(x.grad.tolist())
    return found, {k: str(v).replace("multiply", "fn") for k, v in vars(m).items()}


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_state_is_found_as_the_call_found_it(name, twice):
    """The gradient was that of the function as it would run after the call."""
    eager = gradients(CASES[name], twice, "eager")
    assert gradients(CASES[name], twice, "graph") == eager
    assert eager[0][0] != eager[0][1]  # what was read has changed


class Plan:
    factor = 4

    def __init__(self):
        self.own = 2

    def method(self):
        return 5

    @property
    def known(self):
        return self.own + 1


def plain(q=3):
    return q


#: a number, and what changes it between the call and its gradient
PUT_BACK = {
    "an attribute": (lambda m, c: c.own, lambda m, c: setattr(c, "own", 9)),
    "what a property reads": (lambda m, c: c.known, lambda m, c: setattr(c, "own", 9)),
    "a value of a class": (lambda m, c: c.factor, lambda m, c: setattr(type(c), "factor", 9)),
    "a value over a class's": (lambda m, c: c.factor, lambda m, c: setattr(c, "factor", 9)),
    "a value of a class with slots": (
        lambda m, c: m.fixed.factor,
        lambda m, c: setattr(type(m.fixed), "factor", 9),
    ),
    "a value of a class above": (
        lambda m, c: m.fixed.above,
        lambda m, c: setattr(type(m.fixed).__base__, "above", 9),
    ),
    "a value that a class finds above": (
        lambda m, c: type(m.fixed).above,
        lambda m, c: setattr(type(m.fixed).__base__, "above", 9),
    ),
    "an item": (lambda m, c: m.d["k"], lambda m, c: m.d.update(k=9)),
    "a lost item": (lambda m, c: m.d["k"], lambda m, c: m.d.clear()),
    "a longer list": (lambda m, c: len(m.log), lambda m, c: m.log.append(1)),
    "a list with elements": (lambda m, c: 2 if m.q else 3, lambda m, c: m.q.append(1)),
    "a sum": (lambda m, c: sum(m.log), lambda m, c: m.log.append(40)),
    "an array": (lambda m, c: float(m.a[0]), lambda m, c: m.a.fill(9)),
    "a shorter list": (lambda m, c: len(m.log), lambda m, c: m.log.pop()),
    "a lost key": (lambda m, c: 2 if "k" in m.d else 3, lambda m, c: m.d.clear()),
    "a cleared list": (lambda m, c: 2 if m.log else 3, lambda m, c: m.log.clear()),
    "a cleared dict": (lambda m, c: len(m.d), lambda m, c: m.d.clear()),
    "a smaller set": (lambda m, c: 2 if 9 in m.s else len(m.s), lambda m, c: m.s.pop()),
    "an element of a list that is gone": (lambda m, c: m.log[1] + len(m.log), lambda m, c: m.log.pop(0)),
    "a set": (lambda m, c: len(m.s) + 2, lambda m, c: m.s.add(9)),
}
LOST = {
    "a method": (lambda m, c: c.method(), lambda m, c: setattr(type(c), "method", lambda self: 9)),
    "a property": (lambda m, c: c.known, lambda m, c: setattr(type(c), "known", 9)),
    "a class": (lambda m, c: 2 if isinstance(c, Plan) else 3, lambda m, c: setattr(c, "__class__", Other)),
    "a value that a class with slots had": (
        lambda m, c: m.fixed.factor,
        lambda m, c: delattr(type(m.fixed), "factor"),
    ),
    "defaults": (lambda m, c: m.plain(), lambda m, c: setattr(m.plain, "__defaults__", (9,))),
}


class Other:
    pass


def walked(read, change, mode):
    kind = type("Plan", (Plan,), {})
    c, m = kind(), state()
    m.fixed = type(
        "Fixed", (type("Above", (), {"__slots__": (), "above": 4}),), {"__slots__": (), "factor": 4}
    )()
    m.d["k"], m.log, m.s, m.plain = 3, [1, 2], {4}, type(plain)(plain.__code__, globals(), "plain", (3,))

    @dg.function(mode=mode)
    def fn(x):
        _, rows = dg.scan(lambda c, t: (c + t, c * 2), x[0], x)
        return x * x * read(m, c), rows

    found = []
    for k in range(2):
        x = dg.tensor([1.0, 2.0, 3.0]).requires_grad_()
        y = fn(x)[0]
        if k:
            change(m, c)
        y.sum().backward()
        found.append(x.grad.tolist())
    return found


@pytest.mark.parametrize("name", PUT_BACK)
def test_what_changes_before_the_gradient_is_put_back_for_a_while(name):
    """The gradient was that of another function."""
    assert walked(*PUT_BACK[name], "graph") == walked(*PUT_BACK[name], "eager")


@pytest.mark.parametrize("slots", [False, True])
def test_a_class_that_the_function_changes_is_as_the_call_found_it(slots):
    """It was put back in the object, which cannot have one with slots, and hid the change else."""

    def run(mode):
        kind = type("Kind", (), {"rate": 0.75} | ({"__slots__": ()} if slots else {}))
        c, found = kind(), []

        @dg.function(mode=mode)
        def fn(x):
            _, rows = dg.scan(lambda c, t: (c + t, c * 2), x[0], x)
            y = x * x * c.rate
            kind.rate = kind.rate + 3
            return y * c.rate, rows

        for _ in range(3):
            x = dg.tensor([1.0, 2.0, 3.0]).requires_grad_()
            y = fn(x)[0]
            y.register_hook(lambda g: found.append(g.sum().item()))
            (g,) = dg.autograd.grad(y.sum(), (x,), create_graph=True)
            (g * g).sum().backward()
            found.append((y.tolist(), x.grad.tolist(), kind.rate, [*getattr(c, "__dict__", ())]))
        return found

    assert run("graph") == run("eager")


@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_put_back_is_an_error(name):
    walked(*LOST[name], "eager")
    with pytest.raises(
        dg.errors.AutogradError, match="what the function reads to be what it was at the call"
    ):
        walked(*LOST[name], "graph")


KEPT = SimpleNamespace()


def test_the_names_of_an_object_are_in_their_order_after_a_function_has_run_again():
    """Its dict had been read as a whole, and a name was set since."""

    class Counting:
        def __init__(self):
            self.n = 2

        def __getattr__(self, name):
            if name.startswith("_") or "n" not in vars(self):
                raise AttributeError(name)
            return self.n + len(name)

        def __setattr__(self, name, value):
            object.__setattr__(self, name, value)
            object.__setattr__(self, "sets", vars(self).get("sets", 0) + 1)

    def step(x):
        y = KEPT.m.next * 2 if isinstance(KEPT.m.next, dg.Tensor) else x + 1
        KEPT.m.step = lambda t: t * KEPT.m.n
        z = KEPT.m.step(y)
        KEPT.m.next = KEPT.m
        return (y, z) if hasattr(KEPT.m, "extra") else (z, y)

    def run(mode):
        KEPT.m = Counting()
        x = dg.ones(1).requires_grad_()
        y, z = dg.function(step, mode=mode)(x)
        y.register_hook(lambda g: None)
        dg.autograd.grad(z.sum(), [x], retain_graph=True)
        return list(vars(KEPT.m)), KEPT.m.sets

    assert run("graph") == run("eager")


def named(t):
    return t * 2


@pytest.mark.parametrize(
    "look",
    [lambda: len(named.__name__), lambda: len(SimpleNamespace.__qualname__), lambda: len(Named.__qualname__)],
)
def test_the_name_of_a_class_or_function_that_was_read_is_no_thing_to_put_back(look):
    """No dict holds it, so it was set, and then there was nothing to take away."""

    def run(mode):
        x = dg.ones(1).requires_grad_()
        y = dg.function(lambda x: named(x) ** 3 * look(), mode=mode)(x)
        (g,) = dg.autograd.grad(y.sum(), [x], create_graph=True)
        g.sum().backward()
        return y.tolist(), g.tolist(), x.grad.tolist(), named.__name__, Named.__qualname__

    assert run("graph") == run("eager")


class Named:
    """Has a name."""


def _a_view_of_it(x):
    part = x[1:]
    part *= 2
    return dg.checkpoint(lambda t: t * dg.rand(t.shape), x)


def _found_by_itself(x):
    x *= 2
    return dg.checkpoint(lambda: x * dg.rand(x.shape))


def _handed_out_as_well(x):
    x *= 2
    return dg.checkpoint(lambda t: t * dg.rand(t.shape), x) + x


@pytest.mark.parametrize(
    ("step", "whole"),
    [(_a_view_of_it, True), (_a_view_of_it, False), (_found_by_itself, True), (_handed_out_as_well, True)],
)
def test_a_checkpoint_computes_again_from_what_the_call_has_changed(step, whole):
    """The function runs again for the gradient, and what it was given had the history of the first run by then."""

    def told(mode):
        dg.manual_seed(3)
        leaf = dg.ones(4, requires_grad=True)
        x = leaf * 1 if whole else (leaf * 1)[:3]
        out = dg.function(step, mode=mode)(x)
        out.sum().backward()
        return leaf.grad.tolist(), x.tolist(), x.requires_grad

    assert told("graph") == told("eager")
    assert any(told("graph")[0])
