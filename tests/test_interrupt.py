"""Ctrl-C in a loop of native code: it ends between turns, and nothing outside has changed."""

import signal
import threading

import duograd as dg
import pytest

#: turns that would take many seconds
MANY = 40_000_000


def turns(x, n):
    return dg.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 1.0001), (dg.tensor(0), x))[1]


def soon(seconds=0.05):
    threading.Timer(seconds, lambda: signal.pthread_kill(
        threading.main_thread().ident, signal.SIGINT)).start()  # fmt: skip


@pytest.fixture(autouse=True)
def interrupts():
    """Python's own handler, which a process started in the background of a shell does not have."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.fixture
def state():
    """A function with every kind of effect around a loop; what an onlooker sees of it."""
    p, row, w = dg.zeros((2,)), [], dg.ones((2,)).requires_grad_()
    w.grad = dg.ones((2,))

    @dg.function
    def f(x, n):
        p.add_(1)  # does not wait for the loop by itself
        row.append(1)
        w.grad = None
        (w * 3).sum().backward()
        y = turns(x, n)
        p.add_(y)
        return y

    def look():
        return p.tolist(), list(row), w.grad.tolist(), dg.core.random.default_generator.get_state()

    return f, look


def test_a_loop_ends_at_ctrl_c_and_leaves_everything_as_it_was(state):
    f, look = state
    x = dg.ones((2,))
    f(x, dg.tensor(3))
    before = look()
    soon()
    with pytest.raises(KeyboardInterrupt):
        f(x, dg.tensor(MANY))
    assert look() == before
    f(x, dg.tensor(3))
    assert look()[1] == [1, 1]


def test_a_loop_within_a_loop_ends_at_ctrl_c():
    @dg.function
    def f(x, n):
        return dg.scan(lambda c, t: (turns(c, n) + t, t), x, dg.zeros((3, 2)))[0]

    f(dg.ones((2,)), dg.tensor(3))
    soon()
    with pytest.raises(KeyboardInterrupt):
        f(dg.ones((2,)), dg.tensor(MANY))
    assert f(dg.zeros((2,)), dg.tensor(3)).tolist() == [0, 0]


def test_a_handler_that_does_not_raise_lets_the_loop_go_on(state):
    f, _ = state
    seen = []

    def handler(*_):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        soon()  # the loop, which is far from its end, is asked again

    signal.signal(signal.SIGINT, handler)
    soon()
    with pytest.raises(KeyboardInterrupt):
        f(dg.ones((2,)), dg.tensor(MANY))
    assert seen == [1, 1]
