"""A live number that is asked for more than it can say, where code that handles errors stands around it."""

import duograd as dg
import pytest


class State:
    def __init__(self):
        self.count, self.log = 0, []


def in_finally(ask, m):
    def fn(x, t):
        try:
            k = len(type(t).__name__) if ask == "type" else 2 if t is None else 3
        finally:
            m.count += 1
            m.log.append(1)
        return x * k

    return fn


def caught_all(ask, m):
    def fn(x, t):
        try:
            k = len(type(t).__name__) if ask == "type" else t.hex()
        except BaseException:
            k = 7
        m.count += 1
        return x * (k if isinstance(k, int) else len(str(k)))

    return fn


@pytest.mark.parametrize("make", [in_finally, caught_all])
@pytest.mark.parametrize("ask", ["type", "is", "hex"])
def test_what_is_asked_within_a_handler_has_the_answer_of_eager_mode(make, ask):
    """A `finally` ran unseen where the trace ended, and then again; an `except` for all took that end for an error."""

    def run(mode):
        m = State()
        f = dg.function(make(ask, m), mode=mode)
        row = [(f(dg.ones(1), t).item(), m.count, len(m.log)) for t in (1.5, 2.5, 3.5, 4.5, 1.5)]
        return row, m.count

    assert run("graph") == run("eager")
