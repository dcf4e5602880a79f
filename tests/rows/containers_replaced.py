"""Containers of state that are others at a later call: equal ones, exchanged ones, one in the place of two."""

import duograd as dg
from containers import State, T, calls, see


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


def _one_tensor_in_two_places(jit, change, keep, give):
    """State that the function replaces: two tensors, which are one at some of the calls."""
    x = T()

    def arguments(k):
        a, b = keep()
        if k % 3 == 2:
            give(a, a)
        if k == 4:
            give(b, a)
        if k == 6:
            give(x.detach().clone().requires_grad_(), b)
        return (x,)

    def fn(x):
        a, b = keep()
        give(*change(a, b, x))
        return (a * x).detach()

    return [calls(jit, fn, arguments, [], 9), [see(t) for t in keep()]]


def _leaves():
    return T(1.0, 2.0).requires_grad_(), T(3.0, 4.0).requires_grad_()


def _descend(a, b, x):
    ga, gb = dg.autograd.grad((a * b * b * x).sum(), [a, b])
    return (a - 0.1 * ga).detach().requires_grad_(), (b - 0.1 * gb).detach().requires_grad_()


def _compare(a, b, x):
    return ((a + x) * (3 if a is b else 2)).detach(), (b * 2).detach()


def one_leaf_in_two_places_of_a_list(jit):
    row = [*_leaves()]
    return _one_tensor_in_two_places(
        jit, _descend, lambda: tuple(row), lambda a, b: row.__setitem__(slice(None), [a, b])
    )


def one_leaf_in_two_attributes(jit):
    m = State()
    m.log, m.other = _leaves()

    def give(a, b):
        m.log, m.other = a, b

    return _one_tensor_in_two_places(jit, _descend, lambda: (m.log, m.other), give)


def two_attributes_that_are_compared(jit):
    m = State()
    m.log, m.other = T(), T(3.0, 4.0)

    def give(a, b):
        m.log, m.other = a, b

    return _one_tensor_in_two_places(jit, _compare, lambda: (m.log, m.other), give)
