"""What a function does on its way out of a trace that is given up (`finally`, `with`) is taken back as all it does."""

import contextlib
import sys
from types import SimpleNamespace

import duograd as dg
import pytest


class Own:
    pass


def looks_around(m, x, k):
    return x * len([name for name in dir(m) if name == "log"])


def is_renamed(m, x, k):
    Own.__name__ = "Own"
    return x * 2


def makes_a_class_of(m, x, k):
    m.own.__class__ = Own
    return x * 3


def a_number_is_asked_what_it_is(m, x, k):
    return x * (k if k is m.k else 2)


def in_try(body):
    def f(m, x, k):
        m.log.append("begin")
        try:
            return body(m, x, k)
        finally:
            m.log.append("end")
            m.n += 1

    return f


def in_with(body):
    class Counted:
        def __init__(self, m):
            self.m = m

        def __enter__(self):
            self.m.log.append("enter")

        def __exit__(self, *error):
            self.m.n += 1
            self.m.log.append(error[0])

    def f(m, x, k):
        with Counted(m):
            return body(m, x, k)

    return f


def in_a_call(body):
    def inner(m, x, k):
        try:
            return body(m, x, k)
        finally:
            m.log = [*m.log, len(m.log)]

    def f(m, x, k):
        for _ in range(2):
            try:
                y = inner(m, x, k)
            finally:
                setattr(m, "n" + str(m.n), m.n)
        return y

    return f


def in_a_generator(body):
    def f(m, x, k):
        def made():
            try:
                yield 2
            finally:
                m.log.append("gone")

        it = made()
        return body(m, x, k) * next(it)

    return f


def with_callbacks(body):
    def f(m, x, k):
        with contextlib.ExitStack() as stack:
            stack.callback(m.log.append, "called")
            stack.callback(lambda: setattr(m, "n", m.n + 1))
            return body(m, x, k)

    return f


def in_a_manager(body):
    @contextlib.contextmanager
    def kept(m):
        m.n += 1
        try:
            yield
        finally:
            m.log.append("end")

    def f(m, x, k):
        with kept(m), contextlib.suppress(ValueError):
            return body(m, x, k)

    return f


AROUND = (in_try, in_with, in_a_call, in_a_generator, with_callbacks, in_a_manager)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("body", [looks_around, is_renamed, makes_a_class_of, a_number_is_asked_what_it_is])
def test_what_runs_on_the_way_out_of_a_trace_is_taken_back(body, around):
    """The trace function raises there, and Python takes it away then: what `finally` did was seen by nobody."""

    def run(mode):
        m = SimpleNamespace(log=[], n=0, own=Own(), k=1.5)
        f = dg.function(lambda x, k: around(body)(m, x, k), mode=mode)
        return [(f(dg.ones(1), 0.5 + k).item(), {k: v for k, v in vars(m).items() if k != "own"} | {"log": [*m.log]})
                for k in range(4)]  # fmt: skip

    assert run("graph") == run("eager")


def test_the_end_of_a_trace_that_the_function_catches_is_no_error_of_its_own():
    def f(m, x):
        for _ in range(3):
            try:
                y = x * len([name for name in dir(m) if name == "log"])
            except BaseException:
                m.log.append("caught")
                continue
            finally:
                m.n += 1
            break
        return y

    m = SimpleNamespace(log=[], n=0)
    g = dg.function(lambda x: f(m, x))
    assert [g(dg.ones(1)).item() for _ in range(3)] == [1.0] * 3
    assert vars(m) == {"log": [], "n": 3}


def test_a_tracer_of_others_is_called_along_after_that():
    seen = []

    def tracer(frame, event, arg):
        if frame.f_code is marked.__code__:
            seen.append(event)
        return tracer

    def marked():
        return 1

    m = SimpleNamespace(log=[], n=0)
    f = dg.function(lambda x: in_try(looks_around)(m, x, 0))
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        f(dg.ones(1))
        assert sys.gettrace() is tracer
        marked()
    finally:
        sys.settrace(before)
    assert seen == ["call", "line", "return"]
    assert m.log == ["begin", "end"]


def test_a_generator_that_a_trace_leaves_ends_before_it_is_taken_back():
    """Python 3.12 ended it later, and what its `finally` did stayed."""

    def rows(x, log):
        try:
            while True:
                try:
                    k = yield x
                except KeyError:
                    log.append("caught")
                    k = 5
                x = x + (k or 1)
        finally:
            log.append("closed")

    def run(mode):
        log = []

        @dg.function(mode=mode)
        def f(x, k):
            g = rows(x, log)
            found = [next(g), g.send(k), g.throw(KeyError()) if k % 2 else next(g)]
            g.close()
            return found

        return [[y.tolist() for y in f(dg.ones(2), k)] for k in range(5)], log

    assert run("graph") == run("eager")
