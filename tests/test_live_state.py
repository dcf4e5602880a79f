"""Numbers of state that change at every call: one variant works out what they give."""

import collections
import gc
import weakref

import duograd as dg
import pytest
from changing_numbers import FLOATS, check, facts


def adam_by_hand(m, x, _):
    m.t += 1
    m.lr *= 0.9
    return x * m.lr * (1 - 0.999**m.t) ** 0.5 / (1 - 0.9**m.t)


def of_containers(m, x, _):
    m.table["lr"] *= 0.5
    m.row[0] += 1
    m.row[-1] -= 0.25
    m.table["n"] += m.row[0]
    return x * m.table["lr"] + m.row[1] - m.table["n"]


def that_are_kept(m, x, a):
    m.last = a * 2
    m.log.append(m.last + 1)
    m.table["a"] = a
    m.t += a
    return x * m.t, m.log[-1]


def before_and_after_a_value(m, x, a):
    m.t += 1
    y = x * m.t
    if y.sum() > 8:
        m.lr = m.lr * 0.5 + a
    return y + m.lr


@pytest.mark.parametrize("body", [adam_by_hand, of_containers, that_are_kept], ids=lambda f: f.__name__)
def test_state_that_changes_at_every_call_is_traced_twice(body):
    check(body, range(1, 12), 2)


class Table(dict):
    """A dict with methods of its own."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)

    def more(self):
        self["n"] = self["n"] + 1
        return self["n"]


class Whole(Table):
    """One that makes up what it has not."""

    def __missing__(self, key):
        self.asked = getattr(self, "asked", 0) + 1
        return 7


@pytest.mark.parametrize(
    ("kind", "variants"),
    [(Table, 2), (collections.OrderedDict, 2), (Whole, None), (collections.defaultdict, None)],
    ids=lambda x: getattr(x, "__name__", "n"),
)
def test_items_of_classes_of_dicts_change(kind, variants):
    def before(m, k):
        if k == 0:
            m.last = kind(int) if kind is collections.defaultdict else kind()
            m.last.update(n=1, lr=0.5)
        if k == 5 and variants is None:
            dict.pop(m.last, "n")

    def body(m, x, _):
        m.last["lr"] *= 0.9
        n = m.last.more() if isinstance(m.last, Table) else m.last["n"] + 1
        m.last["n"] = n
        return x * m.last["lr"] + n, len(m.last), getattr(m.last, "asked", 0)

    check(body, range(9), variants, before=before)


@pytest.mark.parametrize("make", [collections.Counter, lambda: collections.defaultdict(int)])
def test_counters_count_in_three_variants(make):
    """One where the key is missing, one where it is there, one for any number; a guard does not make the key."""

    def before(m, k):
        if k == 0:
            m.last = make()
        if k == 6:
            m.last.clear()

    def body(m, x, _):
        m.last["seen"] += 1
        return x * m.last["seen"], len(m.last)

    check(body, [1] * 12, 3, before=before)


def test_a_class_among_several_is_asked_for():
    def body(m, x, a):
        m.t += 1
        return x * m.t if isinstance(m.t, (int, float)) and not isinstance(a, (str, bytes)) else x

    check(body, FLOATS, 2)


def in_rows(m, x, a):
    for t, k in zip((m.table, m.table), (1, 2)):
        t["lr"] *= 0.5 + k
    for k, t in enumerate([m.table]):
        t["n"] += 1 + k
    return x * m.table["lr"] + m.table["n"]


def test_a_loop_over_rows_of_containers_does_not_look_into_them():
    check(in_rows, range(9), 2)


def in_an_element_of_a_generator(m, x, a):
    for t in (t for t in (m.table,) if t):
        t["lr"] *= 0.5
    return x * m.table["lr"]


def in_the_next_element(m, x, a):
    rows = [m.table]
    t = next(iter(rows))
    t["lr"] *= 0.5
    return x * m.table["lr"]


@pytest.mark.parametrize("body", [in_an_element_of_a_generator, in_the_next_element])
def test_what_a_generator_gives_is_not_looked_into(body):
    check(body, range(9), 2)


def test_a_segment_ends_between_numbers():
    check(before_and_after_a_value, [0.1 * k for k in range(9)], 3)  # `lr` is the same in the first two calls


def test_lines_are_printed_once_where_a_trace_with_numbers_comes_to_nothing():
    def lines(mode):
        said, log, rows = [], [], [[1]]
        state = {"count": 0}

        def fn(x, y):
            z = y if bool(y.sum() < 10) else -y
            log.insert(0, state["count"])
            rows[-1][0] = 2
            dg.print("before", to=said.append)
            z = z * 2 if z.sum() > 0 else -z
            dg.print("after {}", z.shape, to=said.append)
            state["count"] += 1
            return z, x * 2 if x.sum() > 0 else -x

        f = dg.function(fn, mode=mode)
        for n, sign in ((16, 1), (16, 1), (5, -1), (16, -1), (5, 1)):
            f(dg.ones(n, n) * sign, dg.ones(n) * sign)
        return said

    assert lines("graph") == lines("eager")


def test_a_gradient_is_found_again_beside_lines_that_are_printed():
    """The function runs again for it: what it changes in place is no change then, what it prints is one."""

    def found(mode):
        w, log, said = dg.ones(3, requires_grad=True), [], []

        class State:
            bias, count = dg.zeros(2), 0

        def fn(x):
            y = dg.cond(x.sum() > 0, lambda t: t * w[0], lambda t: t, dg.tanh(x))
            log.append(y * 2)
            State.bias += 1
            State.count += 1
            dg.print("{} {}", y.sum(), State.count, to=said.append)
            return -1 % y

        y = dg.function(fn, mode=mode)(dg.ones(1, 1))
        (g,) = dg.autograd.grad(y.sum(), w, create_graph=True)
        return g.tolist(), said, len(log), State.count

    assert found("graph") == found("eager")


COUNT = 0


def test_globals_and_cells_and_classes():
    global COUNT
    for mode in ("eager", "graph"):
        count, step, COUNT = 0, 0.5, 0

        class Held:
            n = 1

        def f(x):
            global COUNT
            nonlocal count, step
            count += 1
            COUNT += 3
            step *= 0.9
            Held.n += 2
            return x * count + step - Held.n * COUNT

        f = dg.function(f, mode=mode)
        out = [facts(f(dg.ones((2,)) * k)) for k in range(8)], count, step, Held.n, COUNT
        if mode == "eager":
            want = out
    assert out == want
    assert len(f.variants) == 2


def that_is_replaced_with_tensors(m, x, a):
    kept = m.last or {"h": x, "n": 0, "box": [a, x]}
    y = x * kept["n"] + kept["h"] + kept["box"][0] * kept["box"][1]
    m.last = {"h": y * 0.5, "n": kept["n"] + 1, "box": [a, y]}
    return y


def that_changes_beside_tensors(m, x, a):
    if m.last is None:
        m.last = {"h": x, "n": 0, "row": [x, 1.0]}
    m.last["h"] = m.last["h"] * 0.5 + x * m.last["n"]
    m.last["n"] += a
    m.last["row"][1] *= 0.5
    m.last["row"][0] = m.last["row"][0] * m.last["row"][1]
    return m.last["h"] + m.last["row"][0]


@pytest.mark.parametrize(
    "body", [that_is_replaced_with_tensors, that_changes_beside_tensors], ids=lambda f: f.__name__
)
def test_numbers_beside_tensors_in_state(body):
    check(body, range(1, 9))
    check(body, [0.5] * 9)


def test_state_changed_from_outside():
    def between(m, k):
        m.lr, m.table["n"] = 0.1 * k, k * k

    check(lambda m, x, _: x * m.lr + m.table["n"], (0,) * 8, 2, before=between)


def test_another_type_in_the_place_is_noticed():
    values = (1, 2, 3.5, True, None, 4, "a", dg.ones((3,)), 5, 6)

    def between(m, k):
        m.lr = values[k]

    check(lambda m, x, _: x if m.lr is None or m.lr == "a" else x * m.lr, (0,) * len(values), before=between)


def test_state_that_is_absent_is_noticed():
    def between(m, k):
        m.t += 1
        if k == 4:
            del m.last
        elif k == 6:
            m.last = 9
        elif k < 4:
            m.last = k

    check(lambda m, x, _: x * getattr(m, "last", 100) * m.t, (0,) * 9, before=between)


@pytest.mark.usefixtures("own_garbage")
def test_modules_have_numbers_of_their_own():
    class Layer(dg.nn.Module):
        def __init__(self, t):
            super().__init__()
            self.t = t

        @dg.function
        def forward(self, x):
            self.t += 1
            return x * self.t

    layers = [Layer(10 * k) for k in range(3)]
    for turn in range(1, 5):
        for k, layer in enumerate(layers):
            assert layer(dg.ones((1,))).item() == 10 * k + turn
    dead = weakref.ref(layers.pop())
    del layer
    for _ in range(70):  # more than a function keeps
        Layer(3)(dg.ones((1,)))
    gc.collect()
    assert dead() is None


@pytest.mark.parametrize("kind", [list, lambda: collections.deque(maxlen=7)])
def test_a_log_that_is_looked_through_now_and_then(kind, capsys):
    """From the first look on it was state, whose contents a variant held, so that each call had a variant."""

    def run(mode):
        log = kind()

        @dg.function(mode=mode)
        def step(x, i):
            log.append((x * i).sum().item())
            if i % 10 == 9:
                print(f"step {i}: {sum(log) / len(log)}, at most {max(log)}")
            return x * i

        found = [step(dg.ones(2), i).tolist() for i in range(35)]
        return (found, list(log), capsys.readouterr().out), step

    want, _ = run("eager")
    got, step = run("graph")
    assert got == want
    assert len(step.variants) <= 6, step.explain(guards=True)
    assert "Python" not in step.explain()


def test_numbers_that_are_printed_now_and_then_stay_any_between(capsys):
    """Where a later path took the value, the variant was for that value alone, and each call after it had one."""

    def run(mode):
        log = []

        @dg.function(mode=mode)
        def step(x, i):
            log.append((x * i).sum().item())
            if i % 10 == 9:
                print(f"step {i:03d}: {sum(log) / len(log):.3f}")
            return x * i

        return [step(dg.ones(2), i).tolist() for i in range(64)], capsys.readouterr().out, step

    *want, _ = run("eager")
    *got, step = run("graph")
    assert got == want
    assert len(step.variants) <= 8, step.explain()  # one for each line
    assert "Python" not in step.explain()


def test_counters_of_paths_are_any():
    """A place that the first path did not come to was let go, so that its number was a guard on the later ones."""

    def run(mode):
        exits = collections.Counter()

        @dg.function(mode=mode)
        def f(x):
            for n in range(3):
                x = dg.tanh(x * 1.5)
                if x.max() > 0.8:
                    exits[n] += 1
                    return x, exits[n]
            exits["none"] += 1
            return x, exits["none"]

        dg.manual_seed(0)
        rows = [
            [y.tolist() if isinstance(y, dg.Tensor) else y for y in f(dg.rand(4) * (k % 5) / 4)]
            for k in range(90)
        ]
        return rows, dict(exits), f

    *want, _ = run("eager")
    *got, f = run("graph")
    assert got == want
    assert len(got[1]) >= 3
    assert len(f.variants) <= 10, f.explain(guards=True)
    assert "Python" not in f.explain()
