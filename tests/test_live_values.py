"""Values of tensors that Python takes as numbers (`loss.item()`, `float(loss)`): any is traced twice."""

import math
import threading

import duograd as dg
import numpy as np
import pytest
from changing_numbers import State, check, facts, story
from duograd import nn

NUMBERS = (0.5, 0.25, -1.5, 3.0, 7.7, 0.1, -2.0, 11.0)


def paths(body, numbers=NUMBERS):
    """How many ways there are through all variants."""
    m, f = State(), dg.function(body, limit=1000)
    for n in numbers:
        f(m, dg.tensor([1.0, -2.0, 3.5]) * n, 0)
    return sum(v.paths for v in f.variants)


def returned(m, x, _):
    return (x * x).sum().item()


def as_float(m, x, _):
    y = x * 2
    return float(y.sum()), int(y.sum()), round(float(y.max()), 2), y


def logged(m, x, _):
    loss = (x * x).sum()
    m.log.append(loss.item())
    m.last = {"loss": float(loss)}
    return loss


def summed(m, x, _):
    m.lr += x.sum().item()
    m.t += 1
    return m.lr / m.t, x * m.lr


def onwards(m, x, _):
    a = x.sum().item()
    b = (x * a).sum().item() + math.exp(-abs(a))
    return x * a + b, dg.where(x > a, x, b), a * b


def best(m, x, _):
    v = (x * x).sum().item()
    if v < m.lr:
        m.lr, m.t = v, 0
    else:
        m.t += 1
    return x * m.t


def whole(m, x, _):
    n = (x > 0).sum().item()
    return x * n, n, n + 1, x / (n + 1)


def clipped(m, x, _):
    m.w.grad = None
    ((m.w * x) ** 2).sum().backward()
    norm = float((m.w.grad**2).sum() ** 0.5)
    scale = min(1.0, 2.0 / (norm + 1e-6))
    with dg.no_grad():
        m.w -= 0.01 * scale * m.w.grad
    return norm


def over(body):
    return lambda m, x, a: body(m, x * a, a)


@pytest.mark.parametrize(
    "body", [returned, as_float, logged, summed, onwards, best, whole, clipped], ids=lambda f: f.__name__
)
def test_numbers_that_are_read(body):
    check(over(body), NUMBERS)
    special = (1.0, math.nan, 2.0, math.inf, -0.0, 0.0, -math.inf, 3.0)
    check(
        over(body), special if body is not onwards else (1.0, -0.0, 0.0, 2.0)
    )  # NaN + NaN has either's sign


@pytest.mark.parametrize("body", [returned, as_float, logged, onwards], ids=lambda f: f.__name__)
def test_a_value_is_traced_twice(body):
    assert paths(body) == 2


def test_state_that_values_make_is_traced_a_few_times():
    assert paths(summed) <= 3
    assert paths(best) <= 4
    assert paths(clipped) <= 4


def test_what_is_read_of_a_value_decides():
    def branch(m, x, a):
        v = x.sum().item() * a
        return x * v if v > 3 else x + v

    def index(m, x, a):
        k = int((x * a > 1).sum())
        return x[k % 3] * 2, list(range(k)), x * k

    def formatted(m, x, a):
        return f"{(x * a).sum().item():.2f}", x

    def loop(m, x, a):
        n = 0
        while (x * a).sum().item() > 1 and n < 5:
            x, n = x * 0.5, n + 1
        return x, n

    def truth(m, x, a):
        return (x if (x * a).sum().item() else x * 2), bool((x * a).max().item())

    for body in (branch, index, formatted, loop, truth):
        check(body, (*NUMBERS, 0.0))
    assert story(branch, NUMBERS * 2, "graph")[1] == 2


def test_many_values_are_no_error():
    f = dg.function(lambda x: (x * 2).sum().item())
    for k in range(200):
        assert f(dg.ones((3,)) * k) == 6.0 * k
    assert sum(v.paths for v in f.variants) == 2
    assert len(f.variants) == 1


def test_values_and_tensors_that_are_read_otherwise():
    def body(m, x, a):
        y = x * a
        first = y.sum().item()
        rest = y.tolist(), y.numpy().copy(), y[0].item()
        return first, rest, y * rest[2]

    check(body, (0.5, 0.25, 0.5, 0.25))


def test_gradients_through_such_a_call():
    def run(mode):
        def step(w):
            s = w.sum().item()
            return (w**3 * s).sum()

        f, rows = dg.function(step, mode=mode), []
        for k in range(6):
            w = (dg.tensor([1.0, 2.0]) * (k + 1)).requires_grad_()
            y = f(w)
            y.backward()
            rows.append((facts(y.detach()), facts(w.grad)))
            rows.append(facts(dg.grad(lambda t: (dg.grad(f)(t) ** 2).sum())(w.detach())))
        return rows

    assert run("graph") == run("eager")


def test_errors_leave_all_as_it_was():
    def body(m, x, a):
        m.t += 1
        v = (x * a).sum().item()
        m.log.append(v)
        if v > 8:
            raise ValueError("large")
        m.lr = math.sqrt(v)
        return x * m.lr

    numbers = (0.5, 1.0, 2.0, -1.0, 7.0, 1.5, -2.0, 3.0, 0.1)
    m, f = State(), dg.function(body)
    for n in numbers:
        before, ok = m.seen(), True
        try:
            f(m, dg.tensor([1.0, 2.0]), n)
        except ValueError:
            ok = False
        assert ok is (0 <= 3 * n <= 8)
        assert (m.seen() == before) is not ok
        if ok:
            assert (m.lr, m.log[-1]) == (math.sqrt(float(np.float32(3) * np.float32(n))), m.log[-1])


def test_a_schedule_and_early_stopping_by_the_loss():
    def run(mode):
        dg.manual_seed(0)
        net = nn.Linear(3, 1)
        o = dg.optim.SGD(net.parameters(), lr=0.3)
        s = dg.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5)

        def step(x):
            loss = ((net(x) - 1) ** 2).mean()
            o.zero_grad()
            loss.backward()
            o.step()
            s.step(loss)
            return loss.item()

        f, rows = dg.function(step, mode=mode), []
        x = dg.tensor(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
        for k in range(80):
            rows.append((f(x * (1 + k % 7)), o.param_groups[0]["lr"], s.best, s.num_bad_epochs))
        return rows, f

    (want, _), (got, f) = run("eager"), run("graph")
    assert got == want
    assert len(f.variants) <= 8
    assert sum(v.paths for v in f.variants) <= 16


def test_threads_read_values():
    f = dg.function(lambda x, n: ((x * n).sum().item(), x * (x * n).sum().item()))
    bad = []

    def run(start):
        for k in range(start, start + 40):
            a, b = f(dg.ones((2,)), float(k))
            if a != 2.0 * k or float(b[0]) != 2.0 * k:
                bad.append((k, a))

    threads = [threading.Thread(target=run, args=(100 * t,)) for t in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad


def test_background_and_checked_calls(monkeypatch):
    f = dg.function(lambda x: ((x * 2).sum().item(), x * x.sum().item()), compile="background")
    for k in range(12):
        assert f(dg.ones((3,)) * k)[0] == 6.0 * k
        f.wait()
    monkeypatch.setenv("DUOGRAD_CHECK", "1")
    g = dg.function(lambda x: ((x * 2).sum().item(), x * x.sum().item()))
    for k in range(6):
        assert g(dg.ones((3,)) * k)[0] == 6.0 * k


def test_explain_shows_such_variants():
    f = dg.function(lambda x: x * (x * 2).sum().item())
    for k in range(6):
        f(dg.ones((3,)) * k)
    assert "variant 1" in f.explain(guards=True)
    assert f.show()
    assert f.source()
