"""Containers that a function has as arguments and finds by itself, whatever it does to them under either name."""

import copy
import functools
import itertools

import duograd as dg
from containers import State, T, calls, see, with_log

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
