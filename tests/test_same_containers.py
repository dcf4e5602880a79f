"""Containers that are arguments and state at once, and what of them a later call must find again: both modes."""

import collections
import copy
import dataclasses
import functools
import itertools
import threading

import duograd as dg
import numpy as np
import pytest


@dataclasses.dataclass
class Record:
    n: int = 1
    row: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    row: list


class State:
    def __init__(self):
        self.log, self.other, self.rows, self.table = [], [], [[], []], {}
        self.record, self.seen, self.queue, self.n = Record(), set(), collections.deque(maxlen=3), 0


def T(*values):
    return dg.tensor(list(values or (1.0, 2.0)))


def see(x):
    if isinstance(x, dg.Tensor):
        return x.detach().numpy().tolist(), x.requires_grad
    if isinstance(x, dict):
        return [(k, see(v)) for k, v in x.items()]
    if isinstance(x, (State, Record)):
        return [(k, see(v)) for k, v in vars(x).items()]
    if isinstance(x, Frozen):
        return see(x.row)
    if isinstance(x, np.ndarray):
        return type(x).__name__, x.tolist()
    return [see(y) for y in x] if isinstance(x, (list, tuple, set, collections.deque)) else x


def calls(jit, fn, arguments, keep=(), n=5):
    """What calls give, and what they leave in their arguments and in `keep`; errors by their words."""
    f, found = jit(fn), []
    for k in range(n):
        given = arguments(k)
        try:
            found.append(see(f(*given)))
        except Exception as e:
            found.append(f"{type(e).__name__}: {e}")
        found.append([see(x) for x in (*given, *keep)])
    return found


def with_log(jit, fn, n=4, log=None):
    """Calls with a tensor and `m.log`, which starts anew from `log` at each of them, if that is given."""
    m = State()

    def arguments(k):
        if log is not None:
            m.log[:] = log
        return T(), m.log

    return calls(jit, lambda x, a: fn(m, x, a), arguments, [m], n)


# ---------------------------------------------------------------- changed under both names


def changed_and_put_back(jit):
    def fn(m, x, a):
        a.append(1)
        y = x * len(m.log)
        a.clear()
        return y

    return with_log(jit, fn)


def read_under_the_other_name(jit):
    def fn(m, x, a):
        a.append(x)
        m.log.append(x * 2)
        return m.log[-2] + m.log[-1]

    return with_log(jit, fn)


def a_loop_that_ends_by_the_other_name(jit):
    def fn(m, x, a):
        while len(m.log) < 4:
            a.append(x)
        return x * len(a)

    return with_log(jit, fn)


def emptied_under_the_other_name(jit):
    def fn(m, x, a):
        t = 0
        while m.log:
            t += a.pop()
        return x * t

    return with_log(jit, fn, log=[1, 2, 3])


def an_error_caught(jit):
    def fn(m, x, a):
        a.append(1)
        try:
            v = m.log[1]
        except IndexError:
            v = 10
            m.log.append(5)
        return x * v

    return with_log(jit, fn)


def an_effect_while_an_error_passes(jit):
    def fn(m, x, a):
        try:
            a.append(1)
            return m.log[0] * x
        finally:
            m.n += 1

    return with_log(jit, fn)


def slices_and_order(jit):
    def fn(m, x, a):
        a[1:2] = [7, 8]
        m.log[::2] = [0] * len(m.log[::2])
        a.sort()
        m.log.reverse()
        m.log += [len(a)]
        a *= 2
        return x * m.log[1]

    return with_log(jit, fn, log=[3, 1, 2])


def generators_and_c_code(jit):
    def fn(m, x, a):
        list(map(m.log.append, [1, 2]))
        a.extend(v for v in m.log[:1])
        return x * sum(filter(None, a)) * max(m.log)

    return with_log(jit, fn)


def functions_made_inside(jit):
    def fn(m, x, a):
        def add(v):
            m.log.append(v)
            a.append(v)

        add(1)
        add(2)
        return dg.vmap(lambda t: t * len(m.log))(x)

    return with_log(jit, fn)


def a_graph_function_inside(jit):
    m = State()

    @dg.function
    def inner(x, a):
        a.append(1)
        return x * len(m.log)

    def fn(x, a):
        m.log.append(2)
        return inner(x, a) * len(a)

    return calls(jit, fn, lambda k: (T(), m.log if k % 2 else []), [m])


# ---------------------------------------------------------------- ways to find it


def twice_and_state(jit):
    m = State()

    def fn(x, a, b):
        a.append(1)
        b.append(2)
        m.log.append(3)
        return x * len(a), a is b, a is m.log, b is m.log

    def arguments(k):
        m.log, other = [], []
        pairs = [(m.log, m.log), (m.log, other), (other, m.log), (other, other), (other, [])]
        return T(), *pairs[k % 5]

    return calls(jit, fn, arguments, [m], 10)


def in_a_list_of_state(jit):
    m = State()

    def fn(x, a):
        m.rows[0].append(1)
        y = x * len(a)
        a.append(5)
        return y * sum(sum(r) for r in m.rows)

    def arguments(k):
        m.rows = [[], []]
        return T(), m.rows[k % 2]

    return calls(jit, fn, arguments, [m])


def found_by_c_code(jit):
    m = State()

    def fn(x, a):
        a.append(3)
        m.rows.remove(a)
        return x * len([*itertools.chain(*m.rows)]) * max(map(len, m.rows))

    def arguments(k):
        m.rows = [[1], [1], [1]]
        return T(), m.rows[k % 3]

    return calls(jit, fn, arguments, [m])


def state_in_an_argument(jit):
    m = State()

    def fn(x, d, pair):
        d["l"].append(pair[1])
        d["n"] = len(m.log)
        pair[0].append(1)
        return x * len(m.log)

    return calls(jit, fn, lambda k: (T(), {"l": m.log, "n": 0}, (m.log, T(5.0))), [m])


def an_argument_put_into_state(jit):
    m = State()
    m.rows = [[1]]

    def fn(x, a):
        m.rows.append(a)
        m.table["l"] = a
        a.append(2)
        m.table["l"].append(3)
        m.other = m.rows[0]
        return x * len(m.rows[-1]) * len(m.other)

    return calls(jit, fn, lambda k: (T(), m.rows[0] if k % 2 else []), [m])


def moved_about_in_state(jit):
    m = State()

    def fn(x, a):
        m.other, m.log = m.log, a
        m.other.append(1)
        return x * len(a)

    return calls(jit, fn, lambda k: (T(), m.log if k % 2 else m.other), [m], 7)


def parts_of_one_dict(jit):
    m = State()
    m.table = {"x": {(1, 2): [1]}}

    def fn(x, a, b):
        a[1, 2].append(2)
        b.append(3)
        m.table["x"]["z"] = len(m.table["x"][1, 2])
        return x * sum(b) * a["z"]

    def arguments(k):
        if k == 2:
            m.table = {"x": {(1, 2): [1]}}
        return T(), m.table["x"], m.table["x"][1, 2] if k != 3 else []

    return calls(jit, fn, arguments, [m])


def a_closure_cell(jit):
    log = []

    def fn(x, a):
        nonlocal log
        a.append(1)
        log.append(2)
        if len(log) > 5:
            log = []
        return x * len(log) * len(a)

    return calls(jit, fn, lambda k: (T(), log))


def a_default(jit):
    kept = [1]

    def fn(x, a=kept, b=kept):
        a.append(1)
        return x * len(b)

    return calls(jit, fn, lambda k: [(T(), []), (T(),), (T(), kept)][k % 3], [kept], 6)


def a_bound_method(jit):
    kept = [1]
    add = kept.append

    def fn(x, a):
        add(2)
        return x * len(a)

    return calls(jit, fn, lambda k: (T(), kept if k != 2 else [1, 2, 2]), [kept])


def a_partial(jit):
    kept = [1]

    def add(row, v):
        row.append(v)
        return len(row)

    grown = functools.partial(add, kept)

    def fn(x, a):
        return x * grown(2) * len(a)

    return calls(jit, fn, lambda k: (T(), kept if k != 2 else [1, 2, 2]), [kept])


def keywords(jit):
    m = State()

    def fn(x, **named):
        named["a"].append(1)
        m.log.append(2)
        named["c"] = 3
        return x * len(named["a"]) * len(named)

    f = jit(fn)
    return [(see(f(T(), a=m.log, b=[])), see(m)) for _ in range(4)]


def attributes_by_other_ways(jit):
    class Shared:
        pass

    m = State()
    Shared.log = m.log

    def fn(x, a):
        a.append(1)
        Shared.log.append(2)
        m.__dict__["log"].append(3)
        vars(m)["log"].append(4)
        getattr(m, "log").append(5)  # noqa: B009
        return x * len(a)

    return calls(jit, fn, lambda k: (T(), Shared.log), [m])


def views_of_a_dict(jit):
    m = State()
    m.table = {"a": 1, "b": 2}
    keys = m.table.keys()

    def fn(x, d):
        d["c"] = d.pop("a")
        m.table["a"] = len(keys)
        return x * next(iter(m.table.values()))

    return calls(jit, fn, lambda k: (T(), m.table), [m])


def copies(jit):
    m = State()
    m.rows = [[1], [2]]

    def fn(x, a):
        shallow, deep = copy.copy(a), copy.deepcopy(m.rows)
        a[0].append(1)
        deep[0].append(5)
        m.rows = deep
        return x * len(shallow[0]) * len(m.rows[0])

    return calls(jit, fn, lambda k: (T(), m.rows), [m])


def a_part_handed_out_after_it_was_replaced(jit):
    m = State()

    def fn(x, d):
        before = d["l"]
        d["l"] = [len(before)]
        return x, before, m.table

    f, found = jit(fn), []
    for _ in range(3):
        m.table = {"l": [1, 2]}
        before = m.table["l"]
        _, part, whole = f(T(), m.table)
        found.append((part is before, whole is m.table, see(m)))
    return found


def what_it_made_itself_in_an_argument(jit):
    m = State()
    m.table = {"l": [3]}

    def fn(x, d):
        m.rows.append([x, d["l"]])
        m.table["l"] = m.rows[-1]
        return x * len(m.table) + len(d)

    return calls(jit, fn, lambda k: (T(), m.table if k else {"l": [3]}), [m], 3)


# ---------------------------------------------------------------- kinds of containers


def a_record(jit):
    m = State()

    def fn(x, r):
        r.n += 1
        m.record.row.append(r.n)
        vars(r)["n"] += 1
        m.record.__dict__["n"] += 1
        return x * m.record.n * len(r.row)

    return calls(jit, fn, lambda k: (T(), m.record if k % 2 else Record()), [m])


def a_record_whose_fields_change_places(jit):
    m = State()

    def fn(x, r):
        n = m.record.n
        del r.n
        m.record.n = n + 1
        return x * list(vars(r).values())[1]

    return calls(jit, fn, lambda k: (T(), m.record), [m])


def a_frozen_record(jit):
    m = State()
    m.record = Frozen([T()])

    def fn(x, r):
        r.row.append(x)
        return m.record.row[-1] * len(m.record.row)

    return calls(jit, fn, lambda k: (T(), m.record), [m])


def sets_and_queues(jit):
    m = State()

    def fn(x, s, q):
        s.add(len(s))
        q.append(x)
        m.queue.appendleft(x * len(m.seen))
        m.seen.discard(0)
        return q[0] + m.queue[-1] * len(s)

    return calls(jit, fn, lambda k: (T(), m.seen if k % 2 else {5}, m.queue), [m])


def an_object_and_its_list(jit):
    m = State()

    def fn(x, o, a):
        o.log.append(1)
        a.append(2)
        m.n += 1
        return x * len(m.log) * o.n

    return calls(jit, fn, lambda k: (T(), m, m.log if k < 3 else []), [m])


def a_list_that_holds_itself(jit):
    m = State()
    m.log = [1]
    m.log.append(m.log)

    def fn(x, a):
        a.append(1)
        return x * len(m.log[1])

    f = jit(fn)
    return [see(f(T(), m.log)) for _ in range(3)]


def a_tuple_compared(jit):
    m = State()
    m.other = (T(), 2)
    f = jit(lambda x, p: x * (2 if p is m.other else 3))
    return [see(f(T(), p)) for p in (m.other, (T(), 2), m.other)]


# ---------------------------------------------------------------- tensors in it


def elements_replaced(jit):
    m = State()
    m.log = [T(0.0, 0.0), T()]

    def fn(x, h):
        h[0] = h[0] + x
        m.log[1] = m.log[0] * h[1]
        return h[1]

    return calls(jit, fn, lambda k: (T(), m.log), [m])


def elements_changed_in_place(jit):
    m = State()
    m.log = [T(3.0, 4.0)]

    def fn(x, a):
        a[0].add_(1)
        m.log[0].mul_(2)
        return x + a[0]

    return calls(jit, fn, lambda k: (T(), m.log if k != 2 else [m.log[0]]), [m])


def one_tensor_in_two_lists(jit):
    t, m = T(3.0, 4.0), State()
    m.log = [t]

    def fn(x, a):
        a.append(x)
        m.log[0].add_(1)
        return a[0] + len(m.log)

    return calls(jit, fn, lambda k: (T(), [t] if k % 2 else m.log), [m])


def views_of_elements(jit):
    def fn(m, x, a):
        a.append(a[0][:1])
        m.log[1].add_(5)
        return m.log[0] * 1

    return with_log(jit, fn, log=[T()])


def arrays_as_elements(jit):
    m = State()
    m.log = [np.ones(2, np.float32), 0]

    def fn(x, a):
        a.append(a.pop(0))
        return x + m.log[-1] * len(m.log)

    return calls(jit, fn, lambda k: (T(), m.log), [m])


def gradients_of_elements(jit):
    m = State()
    m.log = [T().requires_grad_()]

    def fn(x, a):
        a.append(a[0] * x)
        return (m.log[-1] * a[0]).sum()

    f, found = jit(fn), []
    for _ in range(3):
        del m.log[1:]
        m.log[0].grad = None
        y = f(T(), m.log)
        y.backward()
        found.append((see(y), see(m.log[0].grad), see(m)))
    return found


def gradients_of_gradients(jit):
    m = State()

    def fn(x, a):
        a.append(1.0)
        return (x**3 * a[0] * len(m.log)).sum()

    f, found = jit(fn), []
    for k in range(3):
        m.log = [2.0]
        x = T(1.0, float(k)).requires_grad_()
        y = f(x, m.log)
        m.log = [3.0]
        (g,) = dg.autograd.grad(y, [x], create_graph=True)
        found.append((see(y), see(g), see(dg.autograd.grad(g.sum(), [x])[0]), see(m)))
    return found


# ---------------------------------------------------------------- values that decide


def branches(jit):
    m = State()

    def fn(x, a):
        a.append(1) if x.sum() > 4 else a.append(2)
        if x[0] > 1.5:
            m.log.append(x)
        return x * len(a) * len(m.log)

    return calls(jit, fn, lambda k: (T(float(k % 3), 2.0), m.log if k < 5 else []), [m], 8)


def branches_after_it_was_found(jit):
    def fn(m, x, a):
        a.append(x * 2)
        if m.log[-1].sum() > 4:
            m.log.append(1)
        return x * len(a)

    return with_log(jit, fn)


# ---------------------------------------------------------------- replaced between calls


def replaced_by_an_equal_one(jit):
    m = State()

    def fn(x, a):
        a.append(1)
        return x * len(m.log), a is m.log

    def arguments(k):
        m.log = []
        return T(), m.log if k % 2 else []

    return calls(jit, fn, arguments, [m], 8)


def exchanged(jit):
    m, a, b = State(), [], []

    def fn(x, p, q):
        p.append(1)
        q += [2, 3]
        return x * len(m.log) + len(m.other)

    def arguments(k):
        a.clear()
        b.clear()
        m.log, m.other = (a, b) if k % 2 else (b, a)
        return T(), *((a, b) if k % 3 else (b, a))

    return calls(jit, fn, arguments, [m], 8)


def a_changed_one_replaced_by_an_equal_one(jit):
    m = State()

    def fn(x):
        m.log.append(3)
        m.table["a"]["l"].append(1)
        return x

    def arguments(k):
        m.log, m.table = list(m.log), {"a": {"l": [1] * k}}
        return (T(),)

    return calls(jit, fn, arguments, [m])


def two_of_state_that_become_one(jit):
    m, a, b = State(), [], []

    def fn(x):
        m.log.append(1)
        return x * len(m.other)

    def arguments(k):
        a.clear()
        b.clear()
        m.log, m.other = a, a if k % 2 else b
        return (T(),)

    return calls(jit, fn, arguments, [m])


def compared_and_handed_out(jit):
    m, a, b = State(), [], []
    m.other = b
    f, found = jit(lambda x: (x * (2 if m.log is m.other else 3), m.log)), []
    for k in range(5):
        m.log = a if k % 2 else b
        y, log = f(T())
        found.append((see(y), log is m.log))
    return found


def put_where_it_was(jit):
    m = State()
    m.other = m.rows[0]

    def fn(x):
        m.rows[0] = m.other
        return x * sum(map(len, m.rows))

    def arguments(k):
        if k == 2:
            m.other = []
        return (T(),)

    f, found = jit(fn), []
    for k in range(4):
        y = f(*arguments(k))
        found.append((see(y), m.rows[0] is m.other))
    return found


def put_where_it_was_by_a_slice(jit):
    m = State()
    m.other = m.rows[0]

    def fn(x):
        m.rows[:1] = [m.other]
        return x

    f, found = jit(fn), []
    for k in range(4):
        m.other = [] if k == 2 else m.other
        f(T())
        found.append(m.rows[0] is m.other)
    return found


def a_list_looked_for_in_state(jit):
    m = State()
    m.rows, m.other = [[1], [2]], [1]

    def fn(x):
        found = m.other in m.rows
        m.other.append(5)
        return x * (2 if found else 3)

    def arguments(k):
        m.other[:] = [1 + k]
        return (T(),)

    return calls(jit, fn, arguments, [m])


def new_state_that_becomes_an_argument(jit):
    m = State()
    m.log = [T()]

    def fn(x, a):
        a.append(x)
        y = x * len(m.log)
        m.log = [x * 2 + m.log[0]]
        return y

    return calls(jit, fn, lambda k: (T(), m.log if k in (2, 4) else [T(3.0, 4.0)]), [m], 6)


def new_state_with_an_argument_in_it(jit):
    m = State()
    m.log = [[T()], []]

    def fn(x, a):
        a.append(1)
        y = x * len(m.log[1])
        m.log = [[x + m.log[0][0]], []]
        return y

    return calls(jit, fn, lambda k: (T(), m.log[1] if k in (0, 2, 4) else []), [m], 6)


def told_apart_by_id(jit):
    m = State()
    f = jit(lambda x, a: x * len({id(m.log), id(a)}))
    return [see(f(T(), m.log if k % 2 else [])) for k in range(4)]


CASES = [
    changed_and_put_back, read_under_the_other_name, a_loop_that_ends_by_the_other_name, emptied_under_the_other_name,
    an_error_caught, an_effect_while_an_error_passes, slices_and_order, generators_and_c_code, functions_made_inside,
    a_graph_function_inside, twice_and_state, in_a_list_of_state, found_by_c_code, state_in_an_argument,
    an_argument_put_into_state, moved_about_in_state, parts_of_one_dict, a_closure_cell, a_default, a_bound_method,
    a_part_handed_out_after_it_was_replaced, what_it_made_itself_in_an_argument,
    a_partial, keywords, attributes_by_other_ways, views_of_a_dict, copies, a_record,
    a_record_whose_fields_change_places, a_frozen_record, sets_and_queues, an_object_and_its_list,
    a_list_that_holds_itself, a_tuple_compared, elements_replaced, elements_changed_in_place,
    one_tensor_in_two_lists, views_of_elements, arrays_as_elements, gradients_of_elements, gradients_of_gradients,
    branches, branches_after_it_was_found, replaced_by_an_equal_one, exchanged,
    a_changed_one_replaced_by_an_equal_one, two_of_state_that_become_one, compared_and_handed_out, put_where_it_was,
    put_where_it_was_by_a_slice, a_list_looked_for_in_state,
    new_state_that_becomes_an_argument, new_state_with_an_argument_in_it, told_apart_by_id,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_both_modes_give_the_same(case):
    found = [case(lambda fn, mode=mode: dg.function(fn, mode=mode)) for mode in ("eager", "graph")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "case", [changed_and_put_back, replaced_by_an_equal_one, elements_replaced, branches, a_record]
)
def test_calls_are_checked_with_their_containers(case, monkeypatch):
    eager = case(lambda fn: dg.function(fn, mode="eager"))
    monkeypatch.setenv("DUOGRAD_CHECK", "1")
    assert case(dg.function) == eager


@pytest.mark.parametrize("case", [changed_and_put_back, replaced_by_an_equal_one, branches])
def test_compiled_in_the_background(case):
    def jit(fn):
        f = dg.function(fn, compile="background")

        def call(*args):
            result = f(*args)
            f.wait()
            return result

        return call

    assert case(jit) == case(lambda fn: dg.function(fn, mode="eager"))


def test_a_new_container_that_is_argument_and_state_again_needs_no_new_trace():
    m = State()

    @dg.function
    def f(x, a):
        a.append(1)
        return x * len(m.log)

    for _ in range(5):
        m.log = [3]
        assert f(T(), m.log).tolist() == [2.0, 4.0]
        assert m.log == [3, 1]
    assert len(f.variants) == 1
    m.log = [3]
    assert f(T(), [3]).tolist() == [1.0, 2.0]
    assert len(f.variants) == 2


def test_a_list_that_is_only_read_may_be_replaced_by_an_equal_one():
    m = State()
    f = dg.function(lambda x, a: x * sum(m.log) * len(a))
    for _ in range(5):
        m.log = [1, 2]
        assert f(T(), [0]).tolist() == [3.0, 6.0]
    assert len(f.variants) == 1
    assert f(T(), [1]).tolist() == [3.0, 6.0]


def test_an_error_gives_the_containers_back():
    m = State()
    m.log = [T(), [1]]
    before = [*m.log]

    @dg.function
    def f(x, a):
        a[0] = x
        m.log[1].append(2)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        f(T(), m.log)
    assert all(x is y for x, y in zip(m.log, before, strict=True))
    assert m.log[1] == [1]


def test_a_profile_gives_the_containers_back():
    m = State()
    m.log = [T()]

    @dg.function
    def f(x, a):
        a.append(x)
        return x * len(m.log)

    f.profile(T(), m.log, seconds=0.01)
    assert len(m.log) == 1


def test_threads_with_one_container():
    m = State()
    m.table = {"w": T(2.0, 3.0), "n": 2}
    f, found = dg.function(lambda x, d: x * d["w"] * m.table["n"]), []

    def work():
        found.extend(f(T(), m.table).tolist() for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [[4.0, 12.0]] * 40
