"""What containers that are arguments and state are, and hold: every kind, tensors, values that decide."""

import duograd as dg
import numpy as np
from containers import Frozen, Record, State, T, calls, see, with_log

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
