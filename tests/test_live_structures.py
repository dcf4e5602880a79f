"""Numbers in structures that a function replaces as a whole: `self.state = h, n + 1` is traced twice, not for each."""

import collections
import copy
import dataclasses
import threading
from typing import Any, NamedTuple

import duograd as dg
import numpy as np
import pytest
from changing_numbers import facts
from duograd.graph.changing import Changing


@dataclasses.dataclass
class Plain:
    h: Any
    n: int
    t: float = 0.5


@dataclasses.dataclass(frozen=True)
class Frozen:
    h: Any
    n: int
    t: float = 0.5


class Named(NamedTuple):
    h: Any
    n: int
    t: float = 0.5


class Slotted:
    __slots__ = ("h", "n", "t")

    def __init__(self, h, n, t=0.5):
        self.h, self.n, self.t = h, n, t


class Hooked:
    """One whose attributes are set and found through code of its own."""

    def __init__(self, h, n, t=0.5):
        self.h, self.n, self.t = h, n, t

    def __setattr__(self, name, value):
        super().__setattr__("_" + name, value)

    @property
    def h(self):
        return self._h

    @property
    def n(self):
        return self._n

    @property
    def t(self):
        return self._t


def of(state):
    """What a structure holds, with types."""
    if dataclasses.is_dataclass(state) or isinstance(state, (Slotted, Hooked)):
        return type(state).__name__, facts([state.h, state.n, state.t])
    return facts(state)


class Model:
    def __init__(self, state, step):
        self.state, self.own = state, step
        self.seen = None

    def step(self, x):
        return self.own(self, x)


def story(first, step, mode, calls=12, before=lambda m, k: None):
    m = Model(first(), step)
    f, found = dg.function(m.step, mode=mode, limit=1000), []
    for k in range(calls):
        before(m, k)
        try:
            found.append(facts(f(dg.ones((3,)) * (k % 3 + 1))))
        except Exception as e:
            found.append((type(e).__name__, str(e).partition("\n")[0]))
        found.append((of(m.state), facts(m.seen) if not isinstance(m.seen, (Plain, Frozen)) else of(m.seen)))
    return found, len(f.variants)


def check(first, step, variants=2, **options):
    want, got = story(first, step, "eager", **options), story(first, step, "graph", **options)
    for a, b in zip(want[0], got[0], strict=True):
        assert a == b
    if variants is not None:
        assert got[1] == variants


def h():
    return dg.tensor([0.5, -1.0, 2.0])


@pytest.mark.parametrize("kind", [Plain, Frozen, Named, Slotted, Hooked])
def test_counters_in_objects(kind):
    def step(m, x):
        s = m.state
        m.state = kind(s.h * 0.9 + x / (s.n + 1), s.n + 1, s.t * 0.9)
        return m.state.h * m.state.t

    check(lambda: kind(h(), 0), step, None if kind is Hooked else 2)


@pytest.mark.parametrize("kind", [Plain, Frozen])
def test_counters_that_replace_counts_up(kind):
    def step(m, x):
        m.state = dataclasses.replace(m.state, h=m.state.h + x * m.state.n, n=m.state.n + 1)
        return m.state.h

    check(lambda: kind(h(), 1), step)


def in_tuple(m, x):
    a, n = m.state
    a = a * 0.9 + x / (n + 1)
    m.state = (a, n + 1)
    return a


def in_dict(m, x):
    m.state = {"h": m.state["h"] * 0.9 + x, "n": m.state["n"] + 1, 3: m.state[3]}
    return m.state["h"] * m.state["n"] + m.state[3]


def spread(m, x):
    m.state = {**m.state, "n": m.state["n"] + 1, 3: m.state[3] * 0.5}
    return m.state["h"] * x * m.state["n"] + m.state[3]


def in_list(m, x):
    a, n = m.state
    m.state = [a + x, n * 0.9]
    return a * n


def nested(m, x):
    (a, (n, t)), row = m.state
    m.state = (a + x * t, (n + 1, t * 0.9)), [*row[:1], row[1] + n]
    return a * n + row[1]


def alone(m, x):
    n, t = m.state
    m.state = n + 1, t * 0.9
    return x * t + n


def alone_nested(m, x):
    m.state = {"a": (m.state["a"][0] + 1, 2.0), "b": m.state["b"] * 0.5}
    return x * m.state["a"][0] + m.state["b"]


STRUCTURES = {
    "tuple": (lambda: (h(), 0), in_tuple),
    "dict": (lambda: {"h": h(), "n": 0, 3: 1.5}, in_dict),
    "spread": (lambda: {"h": h(), "n": 0, 3: 1.5}, spread),
    "list": (lambda: [h(), 2.0], in_list),
    "nested": (lambda: ((h(), (1, 1.0)), [h(), 2]), nested),
    "alone": (lambda: (0, 1.0), alone),
    "alone, nested": (lambda: {"a": (0, 2.0), "b": 1.5}, alone_nested),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_counters_in_containers(name):
    check(*STRUCTURES[name])


@pytest.mark.parametrize("name", STRUCTURES)
def test_others_put_numbers_there_between_calls(name):
    first, step = STRUCTURES[name]

    def before(m, k):
        if k == 5:
            m.state = copy.deepcopy(m.state)
        if k == 8:
            m.state = first()

    check(first, step, None, before=before)


def test_elements_of_a_list_that_are_replaced():
    def step(m, x):
        for k, (a, n) in enumerate(m.state):
            m.state[k] = a * 0.9 + x / (n + 1), n + 1
            x = m.state[k][0]
        return x

    check(lambda: [(h(), 0), (h(), 5)], step)


def test_a_cell_and_a_global():
    found = []
    for mode in ("eager", "graph"):
        state = (h(), 0)

        def step(x):
            nonlocal state
            a, n = state
            state = a + x * n, n + 1
            return a

        f = dg.function(step, mode=mode)
        found.append([(facts(f(dg.ones((3,)))), facts(state)) for _ in range(6)])
    assert found[0] == found[1]
    assert len(f.variants) == 2


def test_what_python_reads_of_them_is_guarded():
    def branch(m, x):
        a, n = m.state
        m.state = (a * 2 if n % 4 == 0 else a + x, n + 1)
        return m.state[0]

    def value(m, x):
        a, n = m.state
        m.state = (a + 1 if (x.sum() > 4) else a - x, n + 1)
        return a * n

    def formatted(m, x):
        a, n = m.state
        m.state, m.seen = (a + x, n + 1), f"{n}"
        return a

    check(lambda: (h(), 0), branch, None)
    check(lambda: (h(), 0), value, None)
    check(lambda: (h(), 0), formatted, 12)


def test_types_lengths_and_classes_of_them_are_guarded():
    def before(m, k):
        if k == 4:
            m.state = (m.state[0], float(m.state[1]))
        if k == 6:
            m.state = (m.state[0], True)
        if k == 8:
            m.state = [m.state[0], 7]
        if k == 10:
            m.state = (m.state[0], 7, 1)

    check(lambda: (h(), 0), in_tuple, None, before=before)


def test_the_old_structure_is_handed_on():
    def returned(m, x):
        old = m.state
        m.state = (old[0] + x, old[1] + 1)
        return old

    def kept(m, x):
        m.seen, m.state = m.state, (m.state[0] + x, m.state[1] + 1)
        return x * m.seen[1]

    def twice(m, x):
        m.seen = m.state = (m.state[0] + x, m.state[1] + 1)
        return x * m.state[1]

    def object_kept(m, x):
        m.seen, m.state = m.state, Plain(m.state.h + x, m.state.n + 1)
        return x * m.seen.n

    def changed(m, x):
        m.state.n += 1
        m.state = Plain(m.state.h + x, m.state.n + 1)
        return x * m.state.n

    def compared(m, x):
        same = m.state is m.seen
        m.state = (m.state[0] + x, m.state[1] + 1)
        return x * 2 if same else x * m.state[1]

    for step in (returned, kept, twice, compared):
        check(lambda: (h(), 0), step, None)
    for step in (object_kept, changed):
        check(lambda: Plain(h(), 0), step, None)


def test_an_exception_leaves_them_as_they_were():
    def step(m, x):
        a, n = m.state
        m.state = (a + x, n + 1)
        if n == 5 and m.seen is None:
            m.seen = 1
            raise ValueError("five")
        return a

    got, want = (story(lambda: (h(), 0), step, mode)[0][:10] for mode in ("graph", "eager"))
    assert got == want
    m = Model({"n": 0, "h": h()}, lambda m, x: (_ for _ in ()).throw(KeyError(m.state["n"])))
    f = dg.function(m.step)
    for n in range(4):
        m.state = {"n": n, "h": h()}
        with pytest.raises(KeyError):
            f(dg.ones((3,)))
        assert type(m.state["n"]) is int


def test_a_structure_under_two_names():
    shared = {}

    def step(m, x):
        n = m.state["n"] + shared["same"]["n"]
        m.state = {"h": m.state["h"] + x * n, "n": n + 1}
        shared["same"] = m.state
        return x * n

    def first():
        shared["same"] = {"h": h(), "n": 0}
        return shared["same"]

    check(first, step, None)


def test_gradients_through_such_a_call():
    def run(mode):
        m = Model((h(), 0), None)

        def step(x):
            a, n = m.state
            m.state = (a.detach() + 1, n + 1)
            return (a * x**3 * (n + 1)).sum()

        f, found = dg.function(step, mode=mode), []
        for _ in range(5):
            x = dg.tensor([1.0, 2.0, 3.0]).requires_grad_()
            y = f(x)
            y.backward()
            found.append(facts(x.grad))
            found.append(facts(dg.grad(lambda t: dg.grad(f)(t).sum())(x.detach())))
        return found, len(f.variants)

    assert run("eager")[0] == run("graph")[0]


def test_threads_meet_them():
    models = [Model((h(), k), in_tuple) for k in range(4)]
    step = dg.function(lambda m, x: m.step(x))

    def run(m):
        for _ in range(20):
            step(m, dg.ones((3,)))

    threads = [threading.Thread(target=run, args=(m,)) for m in models]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [m.state[1] for m in models] == [20, 21, 22, 23]
    assert all(type(m.state[1]) is int for m in models)


def test_a_trace_puts_nothing_into_other_objects(monkeypatch):
    """Their calls may be running in another thread, which lost what it changed meanwhile."""
    owners, program = [], Changing.program

    def noted(*args):
        found = program(*args)
        owners.extend(s.owner for s in (found.sites if found is not None else ()))
        return found

    monkeypatch.setattr(Changing, "program", noted)
    models = [Model((h(), k), in_tuple) for k in range(2)]
    step = dg.function(lambda m, x: m.step(x))
    for m in models:
        owners.clear()
        for _ in range(4):
            step(m, dg.ones((3,)))
        assert owners
        assert all(owner is m for owner in owners)


def test_arguments_that_are_frozen():
    found = []
    for mode in ("eager", "graph"):
        f = dg.function(
            lambda x, s: (s.h + x, Frozen(s.h * 0.9 + x / (s.n + 1), s.n + 1, s.t / 2)), mode=mode
        )
        s, rows = Frozen(h(), 0), []
        for _ in range(8):
            y, s = f(dg.ones((3,)), s)
            rows.append((facts(y), of(s)))
        found.append(rows)
    assert found[0] == found[1]
    assert len(f.variants) == 2


def test_guards_say_what_may_be_any():
    m = Model({"h": h(), "n": 0}, lambda m, x: None)

    def step(x):
        m.state = {"h": m.state["h"] + x, "n": m.state["n"] + 1}
        return x * m.state["n"]

    f = dg.function(step)
    for _ in range(4):
        f(dg.ones((3,)))
    text = f.explain(guards=True)
    assert "m.state['n'] is any int" in text
    m.state["n"] = 1.0
    f(dg.ones((3,)))
    assert "m.state" in f.explain().split("variant 3")[1].splitlines()[0]


def test_other_containers_hold_them():
    def step(m, x):
        q = m.state
        m.state = collections.deque([q[0] + x, q[1] + 1], maxlen=2)
        return x * q[1]

    check(lambda: collections.deque([h(), 1], maxlen=2), step, None)

    def ordered(m, x):
        m.state = collections.OrderedDict(h=m.state["h"] + x, n=m.state["n"] + 1)
        return x * m.state["n"]

    check(lambda: collections.OrderedDict(h=h(), n=1), ordered, None)

    def array(m, x):
        m.state = (np.array([1.0]), m.state[1] + 1)
        return x * m.state[1]

    check(lambda: (np.array([1.0]), 1), array, None)
