"""What a function deletes, and what was deleted, emptied or put in its place between calls."""

import functools
import sys
import types

import duograd as dg
import pytest
from told_stories import module_of, told

Space = types.SimpleNamespace


def imported():
    sys.modules["held_by_the_test"] = module_of("w = 2.0", "held_by_the_test")

    def f(t):
        import held_by_the_test
        from held_by_the_test import w

        return t * w + held_by_the_test.w

    yield f
    for k in (3.0, 4.0):
        sys.modules["held_by_the_test"] = module_of(f"w = {k}", "held_by_the_test")
        yield
    sys.modules["held_by_the_test"] = Space(w=5.0)
    yield
    del sys.modules["held_by_the_test"]


def subclasses():
    class Made:
        a: int = 1

    yield lambda t: t * len(Made.__subclasses__()) + len(Made.__annotations__)
    more = type("More", (Made,), {})
    yield
    Made.__annotations__["b"] = more
    yield


def slots_deleted():
    class Made:
        __slots__ = ("a", "b")

    x = Made()

    def f(t):
        x.a = t * 2
        found = x.a
        del x.a
        try:
            del x.b
        except AttributeError:
            return found
        return found + hasattr(x, "a") * 10 + hasattr(x, "b") * 100 + 1000

    yield f
    x.b = 1
    yield
    x.b, x.a = 2, 3
    yield


def names_of_a_class_deleted():
    class Made:
        pass

    def f(t):
        try:
            del Made.w
        except AttributeError:
            return t
        return t * 2

    yield f
    Made.w = 1
    yield
    Made.w = 2
    yield


def cells_emptied():
    def make():
        def get():
            try:
                return v
            except NameError:
                return 7.0

        def put(x):
            nonlocal v
            v = x

        def empty():
            nonlocal v
            try:
                del v
            except NameError:
                return 100.0
            return 1.0

        v = 1.0
        return get, put, empty

    get, put, empty = make()
    yield lambda t: t * empty() + get()
    put(3.0)
    yield
    yield lambda t: t * get()
    put(4.0)
    yield


def partials_of_partials():
    held = Space(f=functools.partial(lambda t, a, b: t * a + b, a=2.0))

    def f(t):
        held.f = functools.partial(held.f, b=held.f.keywords.get("b", 0.0) + 1)
        return held.f(t)

    yield f
    yield
    yield lambda t: t * len(held.f.keywords)


CASES = [
    imported, subclasses, slots_deleted, names_of_a_class_deleted, cells_emptied, partials_of_partials,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_gone_is_gone_as_without_compiling(case):
    assert told(case, "graph") == told(case, "eager")


def _deleted_and_set(o, x):
    del o.a
    o.a, o.b = 5, 7
    del o.b
    o.b = x.sum()


def _set_twice(o, x):
    o.y, o.z = x.sum().item(), 2
    del o.y
    o.y = x * 2


def _put_back(o, x):
    held = o.a
    del o.a
    o.a = held


def _popped(o, x):
    o.a = vars(o).pop("a") + 1


def _item_of_a_namespace(o, x):
    space = vars(o)
    del space["a"]
    space["a"] = 3


def _deleted_last(o, x):
    o.q = 1
    del o.q, o.b


@pytest.mark.parametrize(
    "change", [_deleted_and_set, _set_twice, _put_back, _popped, _item_of_a_namespace, _deleted_last]
)
def test_names_that_were_deleted_come_back_in_the_order_of_eager_mode(change):
    def run(mode):
        o, orders = types.SimpleNamespace(), []

        def fn(x):
            change(o, x)
            return x * 2

        f = dg.function(fn, mode=mode)
        for names in ("abc", "abc", "cab", "abc", "ab"):
            vars(o).clear()
            vars(o).update({name: k for k, name in enumerate(names)})
            f(dg.ones(2))
            orders.append([*vars(o)])
        return orders

    assert run("graph") == run("eager")


def test_a_call_that_fails_leaves_the_order_of_names():
    holder, settings = types.SimpleNamespace(a=1, b=2), {"a": 1, "b": 2}

    def fn(x):
        del holder.a
        del settings["a"]
        raise KeyError("a")

    with pytest.raises(KeyError):
        dg.function(fn)(dg.ones((1,)))
    assert [*vars(holder)] == [*settings] == ["a", "b"]
