"""Containers that are arguments and state at once, and what of them a later call must find again: both modes."""

import inspect
import threading

import containers_found
import containers_held
import containers_replaced
import duograd as dg
import pytest
from containers import State, T
from containers_found import changed_and_put_back
from containers_held import a_record, branches, elements_replaced
from containers_replaced import replaced_by_an_equal_one

#: every function of these files that takes a `jit` alone
CASES = [
    fn
    for module in (containers_found, containers_held, containers_replaced)
    for fn in vars(module).values()
    if inspect.isfunction(fn) and [*inspect.signature(fn).parameters] == ["jit"]
]


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
