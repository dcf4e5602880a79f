"""Functions of C code of numbers that change (`math.cos(step)`, `float(n)`, `np.sqrt(t)`): worked out at each call."""

import functools
import math
import threading
from math import exp, log
from math import sin as sine

import duograd as dg
import numpy as np
import pytest
from changing_numbers import FLOATS, check, facts
from duograd.graph.functions import STAND_INS

T = tuple(k / 7 for k in range(12))


def schedule(step, *, warm, total):
    if step < warm:
        return float(step) / float(max(1, warm))
    progress = float(step - warm) / float(max(1, total - warm))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))


def many(m, x, a):
    return (
        x * math.sqrt(a), math.exp(-a), math.log(a + 1), math.log(a + 2, 10), math.pow(0.9, a), math.tanh(a),
        math.hypot(a, 1.0, a), math.atan2(a, 2), math.fmod(a, 0.3), math.copysign(a, -1.0), x * math.erf(a),
    )  # fmt: skip


def whole(m, x, a):
    return x * 0.5 ** int(a * 10), int(a), int(-a), float(int(a * 3)), type(m) is not int, math.trunc(a)


def by_name(m, x, a):
    return x * exp(-a) + log(a + 1) + sine(a), [exp(b) for b in (a, 2 * a, 1.0)], sum(map(exp, [1.0, 2.0]))


def of_numpy(m, x, a):
    b = np.cos(np.pi * a)
    return (
        x * b,
        b,
        0.5 * (1 + b),
        np.float64(2) * b,
        np.clip(a, 0.1, 0.9) * x,
        np.minimum(1.0, a / 2),
        -b,
        b.item(),
    )


def handed_on(m, x, a):
    m.lr = math.sqrt(a)
    m.table["a"], m.last = np.exp(-a), float(a)
    m.log.append(math.cos(a))
    return {"lr": m.lr, "rows": [m.last, m.log[-1]]}, x * m.table["a"]


@pytest.mark.parametrize("body", [many, whole, by_name, of_numpy, handed_on], ids=lambda f: f.__name__)
def test_functions_of_a_number_are_traced_twice(body):
    check(body, T, 2)
    check(body, range(1, 9))


def test_what_they_say_is_guarded():
    check(lambda m, x, a: x * a if math.isfinite(a) else x, (*FLOATS, math.inf, 2.0, math.nan, 3.0), 3)
    check(lambda m, x, a: x * a if np.isnan(a) else x, (*FLOATS, math.nan, 2.0), 3)
    check(lambda m, x, a: (x * 2 if np.sqrt(a) > 1 else x, np.sqrt(a) > 1, bool(np.sqrt(a))), T)
    check(lambda m, x, a: x * a if math.isclose(a, 0.25) else x, FLOATS, 3)


def test_schedules_of_the_users_own():
    check(lambda m, x, a: x * schedule(a, warm=4, total=40), range(40), 3)
    check(lambda m, x, a: x * functools.partial(schedule, warm=4)(a, total=40), range(40), 3)

    def step(m, x, _):
        m.t += 1
        beta = 1 / (1 + math.exp(-0.1 * (m.t - 10)))
        return x * beta, beta

    check(step, range(30), 2)


def test_errors_are_those_of_the_number():
    check(lambda m, x, a: x * math.sqrt(a), (1.0, 2.0, -1.0, 3.0, 4.0, -1.0), 2)
    check(lambda m, x, a: x * math.factorial(a), (1, 2, 3, -1, 4))
    check(lambda m, x, a: x * int(a), (1.5, 2.5, math.nan, math.inf, 3.5), 2)
    check(lambda m, x, a: x * math.gcd(a, 2.5), (1, 2, 3, 4))
    check(lambda m, x, a: x * float(a, 1), (1, 2, 3, 4))
    check(lambda m, x, a: x * math.exp(a), (1, 2, 1000, 3, 10**400), 2)
    check(lambda m, x, a: x * float(a), (1, 2, 10**400, 3), 2)


class Odd(float):
    def __float__(self):
        return 7.0


def test_other_arguments_are_those_of_the_function():
    def body(m, x, a):
        return (
            x * float("2.5") + float(Odd(1)) + int("11", 2) + int(x[0]) + math.sqrt(4),
            a * 2,
            0.0,
            math.log(8, 2),
        )

    check(body, T, 2)
    check(lambda m, x, a: (np.exp(x.numpy()), np.add(np.ones(2), 1), a * 2), T)
    check(
        lambda m, x, a: (
            np.exp(x),
            float(x[0]) * a,
            isinstance(a, float),
            float,
            [float][0] is float,
        ),
        T,
        2,
    )
    check(lambda m, x, a, cos=math.cos: x * cos(a) + (math.sin if m.t else math.cos)(a), T)
    check(lambda m, x, a: (x * a, math.cos is STAND_INS, float, int, math.exp), T, 2)


def test_stand_ins_are_gone_after_the_trace():
    before = dict(vars(math)), dict(vars(np)), set(globals())
    check(whole, T, 2)
    check(of_numpy, T, 2)

    def broken(m, x, a):
        b = math.sqrt(a) * float(a)
        raise ValueError(str(b))

    check(broken, T)
    assert (dict(vars(math)), dict(vars(np)), set(globals())) == before
    assert not any(v is w for v in {**vars(math), **globals()}.values() for w in STAND_INS.values())


def test_a_stand_in_is_what_it_stands_for_to_another_thread():
    whole = STAND_INS[id(int)]
    assert isinstance(3, whole)
    assert not isinstance(3.5, whole)
    assert issubclass(bool, whole)
    assert whole("11", base=2) == 3
    assert STAND_INS[id(math.cos)](0.5) == math.cos(0.5)
    found, stop = [], threading.Event()

    def other():
        while not stop.is_set():
            found.append((math.sqrt(2.25), float("1.5"), isinstance(1.5, float), int(3.7)))

    thread = threading.Thread(target=other)
    thread.start()
    for _ in range(10):
        f = dg.function(lambda x, a: x * float(int(a * 4)) + math.sqrt(a))
        for a in T:
            f(dg.ones((2,)), a)
    stop.set()
    thread.join()
    assert set(found) == {(1.5, 1.5, True, 3)}


def test_guards_name_the_functions():
    f = dg.function(lambda x, t: x * t if math.isfinite(t) and int(t) < 5 else x)
    for t in (0.5, 1.5, 2.5):
        f(dg.ones((2,)), t)
    text = f.explain(guards=True)
    assert "t is any float" in text
    assert "isfinite(t)" in text
    assert "(int(t)) < 5" in text
    f(dg.ones((2,)), 7.5)
    assert "(int(t)) < 5 was True, now False" in f.explain()


def test_a_learning_rate_that_a_function_of_math_gives():
    def train(mode):
        w = dg.tensor([1.0, -2.0])
        w.requires_grad_()
        o = dg.optim.AdamW([w], lr=0.1)
        rate = lambda s: 0.5 * (1 + math.cos(math.pi * s / 20)) if s > 2 else float(s + 1) / float(3)
        s = dg.optim.lr_scheduler.LambdaLR(o, rate)

        def step(x):
            loss = ((w - x) ** 2).sum()
            o.zero_grad()
            loss.backward()
            o.step()
            s.step()
            return loss

        f = dg.function(step, mode=mode)
        return [
            (facts(f(dg.ones((2,))).detach()), facts(w.detach()), o.param_groups[0]["lr"]) for _ in range(20)
        ], f

    (want, _), (got, f) = train("eager"), train("graph")
    assert want == got
    assert len(f.variants) <= 4


# ---------------------------------------------------------------- numbers of NumPy's


def kinds(m, x, a):
    b = a * 2 + 1
    m.lr = b
    return (
        x * a,
        x + b,
        b,
        1 - a,
        a / 3,
        -a,
        abs(a),
        a > 0.3,
        x * float(a),
        b.item(),
        dg.full((3,), a) * x,
    )


def picked(m, x, a):
    table = m.table.setdefault("table", np.linspace(0.0, 1.0, 12))
    return x * table[3] * a + np.sqrt(a * a)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.int32])
def test_numbers_of_numpy_are_live(kind):
    check(kinds, [kind(k) for k in (1, 2, 3, 4, 50)], 2 if kind in (np.float64, np.float32) else None)
    check(lambda m, x, a: (x * a, a.dtype.name, a.reshape(1)), [kind(k) for k in (1, 2, 3)])
    check(lambda m, x, a: (x * a, a + a, a * 0.5), [kind(k) for k in (1, 2, 3, 4, 50)], 2)
    check(lambda m, x, a: (x * a, a), [kind(1), 2, kind(3), 4.0, kind(5), 6, kind(7), 8.0])


def test_numbers_of_arrays_as_arguments_and_state():
    check(lambda m, x, t: x * t + (1 - t), list(np.linspace(0, 1, 30)), 2)
    check(lambda m, x, i: x * 0.9**i, list(np.arange(1, 30)), 2)
    check(picked, list(np.linspace(0.1, 1, 9)))

    def state(m, x, a):
        m.lr = m.lr * np.float64(0.9)
        m.t = m.t + np.int64(1)
        return x * m.lr + m.t

    check(state, range(20), 3)
    check(lambda m, x, a: x * a, [np.float16(0.5), np.float16(0.25), np.uint8(3), np.bool_(True)])
    special = [np.float32(v) for v in (math.nan, -0.0, 0.0, math.inf, 0.5)]
    check(lambda m, x, a: (x + a, a * 2, a == 0.5), special)


def test_tensors_of_one_element_are_what_they_are_to_each_function():
    def body(m, x, a):
        one, count = (x * a).sum(), (x > 0).sum()
        return (
            math.sqrt(abs(one)), math.isfinite(one), np.exp(one.numpy()), np.sqrt(x[:1] * x[:1]).shape,
            np.add(count, 1),
            float(one), int(one), math.factorial(count), math.exp(count) * a, a * 2,
        )  # fmt: skip

    check(body, (0.5, 0.25, 1.5, 2.0, 0.75))
    check(lambda m, x, a: (math.factorial(x[0]), a * 2), (0.5, 0.25, 1.5))
    check(lambda m, x, a: (float(x), a * 2), (0.5, 0.25, 1.5))
    check(lambda m, x, a: (np.exp(x[0]), a * 2), (0.5, 0.25, 1.5))
