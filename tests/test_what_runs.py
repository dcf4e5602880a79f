"""What decides which code runs is noticed when it changes: classes, special methods, code, names of modules."""

import abc
import builtins
import dataclasses
import functools
import math
import threading
import types
import weakref
from typing import NamedTuple

import duograd as dg
import pytest
from told_stories import module_of, told

Space = types.SimpleNamespace


def special(name, use, *values):
    """A special method of a class, or of its metaclass, is replaced by one that gives another value."""

    def make():
        meta = type("Meta", (type,), {})
        one = meta("One", (), {"__module__": __name__, name: lambda *args: values[0]})
        x = one()
        yield lambda t: use(t, x)
        for value in values[1:]:
            setattr(one, name, lambda *args, value=value: value)
            yield

        above = type("Above", (type,), {"__module__": __name__, name: lambda *args: values[0]})
        other = above("Other", (), {})
        yield lambda t: use(t, other)
        for value in values[1:]:
            setattr(above, name, lambda *args, value=value: value)
            yield

    return make


def hook_deleted():
    class Hooked:
        def __getattribute__(self, name):
            return 5.0 if name == "w" else object.__getattribute__(self, name)

        def __setattr__(self, name, value):
            object.__setattr__(self, name, value * 2)

    x = Hooked()

    def f(t):
        x.v = 3.0
        return t * x.w + x.v

    yield f
    del Hooked.__getattribute__
    x.w = 1.0
    yield
    del Hooked.__setattr__
    yield


def of_a_metaclass():
    class Meta(type):
        scale = 2.0

        @property
        def both(cls):
            return cls.k * cls.scale

        def __getattr__(cls, name):
            return cls.k + 1

        def times(cls, t):
            return t * cls.scale

    class Made(metaclass=Meta):
        k = 3.0

    yield lambda t: Made.times(t * Made.both + Made.other)
    Made.k = 4.0
    yield
    Meta.scale = 5.0
    yield
    Made.other = 100.0
    yield
    Meta.both = property(lambda cls: 1.0)
    yield
    Meta.times = lambda cls, t: t
    yield
    del Made.other
    yield


def constructor():
    @dataclasses.dataclass
    class Made:
        a: float = 1.0

    yield lambda t: t * Made().a
    Made.__init__ = lambda self, a=7.0: setattr(self, "a", a * 2)
    yield


def compared():
    @dataclasses.dataclass
    class Made:
        a: float = 1.0

    x, y = Made(), Made()
    yield lambda t: t + 1 if x == y else t - 1
    Made.__eq__ = lambda self, other: False
    yield
    del Made.__eq__
    yield


class Row(NamedTuple):
    a: float
    b: float


def method_of_a_named_tuple():
    class Own(Row):
        pass

    held = Space(row=Row(1.0, 2.0))
    yield lambda t: t * held.row._replace(a=3.0).a
    held.row = Row(4.0, 5.0)
    before = Row._replace
    Row._replace = lambda self, **named: Row(9.0, 9.0)
    yield
    Row._replace = before
    yield


def bases():
    class A:
        def w(self):
            return 1.0

    class B:
        def w(self):
            return 2.0

    class Made(A):
        def w(self):
            return super().w() * 3

    x = Made()
    yield lambda t: t * x.w()
    for row in ((B,), (A,), (B, A)):
        Made.__bases__ = row
        yield
    del B.w
    yield


def class_of_an_object():
    class A:
        def w(self):
            return 1.0

    class B:
        w = A.w

    x = A()

    def f(t):
        match x:
            case A():
                t = t * 3
        return t * x.w() + isinstance(x, A) + (type(x) is B) * 5 + len(x.__class__.__name__)

    yield f
    x.__class__ = B
    yield
    B.__name__ = "Longer"
    yield


def class_of_a_layer():
    layer = dg.nn.Linear(2, 2)
    dg.nn.init.ones_(layer.weight)
    dg.nn.init.zeros_(layer.bias)

    class Twice(dg.nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    yield lambda t: layer(t)
    layer.__class__ = Twice
    yield
    Twice.forward = lambda self, x: x
    yield
    layer.__class__ = dg.nn.Linear
    yield


def layers_of_the_framework():
    layer = dg.nn.Linear(2, 2)
    dg.nn.init.ones_(layer.weight)
    dg.nn.init.zeros_(layer.bias)
    yield lambda t: layer(t)
    for cls, name in ((dg.nn.Linear, "forward"), (dg.nn.Module, "__call__")):
        before = getattr(cls, name)
        setattr(cls, name, lambda self, x: x * 10)
        yield
        setattr(cls, name, before)
        yield


def method_of_tensors():
    dg.Tensor.twice = lambda self: self * 2
    yield lambda t: t.twice()
    dg.Tensor.twice = lambda self: self * 3
    yield
    del dg.Tensor.twice


def covered_by_the_object():
    class Made:
        @classmethod
        def c(cls, t):
            return t * 2

        def __call__(self, t):
            return t + 1

    x = Made()
    yield lambda t: x.c(x(t))
    x.c = lambda t: t * 5
    yield
    del x.c
    yield


def covered_by_a_class():
    class A:
        n = 0

    class B(A):
        pass

    x = B()

    def f(t):
        A.n += 1
        return t * A.n + B.n * 100 + x.n * 10_000

    yield f
    yield
    yield
    yield
    B.n = 50
    yield
    x.n = 60
    yield
    yield


def code():
    def one(t):
        return t * 2

    def two(t):
        return t * 3

    class Made:
        def m(self, t):
            return t + 1

    x = Made()
    yield lambda t: x.m(one(t))
    before, one.__code__ = one.__code__, two.__code__
    yield
    one.__code__ = before
    yield
    Made.m.__code__ = (lambda self, t: t + 7).__code__
    yield


def code_of_the_function_itself():
    def f(t):
        return t * 2

    yield f
    f.__code__ = (lambda t: t * 3).__code__
    yield


def built_in_names():
    m = module_of("def f(t): return t * len([1, 2]) + abs(-3.0) + max(1, 2)")
    yield m.f
    m.len = lambda x: 10
    yield
    m.abs = lambda x: 0.0
    yield
    del m.len
    yield
    before = builtins.max
    builtins.max = lambda *args, **named: 77 if args == (1, 2) else before(*args, **named)
    yield
    builtins.max = before
    yield


def names_added_to_what_is_built_in():
    m = module_of("def f(t): return t * gain_of_all")
    builtins.gain_of_all = 3.0
    yield m.f
    builtins.gain_of_all = 4.0
    yield
    m.gain_of_all = 5.0
    yield
    del m.gain_of_all
    yield
    del builtins.gain_of_all


def names_taken_from_modules():
    m = module_of(
        "import math\nimport duograd as dg\nfrom math import sqrt\nfrom duograd import relu\n"
        "def f(t): return relu(t) * sqrt(4.0) + dg.relu(t) * math.floor(2.5)"
    )
    yield m.f
    kept = (m, "sqrt"), (m, "relu"), (dg, "relu"), (math, "floor")
    for space, name in kept:
        before = getattr(space, name)
        setattr(space, name, lambda x: x * 10)
        yield
        setattr(space, name, before)
        yield


def modules_under_a_name():
    inner = module_of("w = 1.0", "held_by_another")
    m = module_of(
        "import math\ndef f(t): return t * math.floor(2.5) + inner.w + inner.deep.w", "held_by_nobody"
    )
    m.inner, inner.deep = inner, module_of("w = 2.0")
    yield m.f
    m.math = Space(floor=lambda x: 7.0)
    yield
    inner.deep = module_of("w = 5.0")
    yield
    m.inner = Space(w=10.0, deep=Space(w=20.0))
    yield


def special_methods_that_are_added():
    class Made:
        k = 1.0

    x, y = Made(), Made()

    def f(t):
        x.v = 2.0
        found = getattr(x, "other", 1.0) * Made().k * x.v
        return (
            t * found * (2 if x == y else 3) * (1 if x else 5) + len(str(x)[:1]) + (7 if callable(x) else 0)
        )

    yield f
    for name, method in {
        "__eq__": lambda self, other: True,
        "__bool__": lambda self: False,
        "__str__": lambda self: "",
        "__getattr__": lambda self, name: 4.0 if name == "other" else object.__getattribute__(self, name),
        "__setattr__": lambda self, name, value: object.__setattr__(self, name, value * 2),
        "__init__": lambda self: setattr(self, "k", 3.0),
        "__call__": lambda self: 1,
    }.items():
        setattr(Made, name, method)
        yield
    for name in ("__eq__", "__setattr__", "__init__"):
        delattr(Made, name)
        yield


def a_property_that_is_added():
    class Made:
        pass

    x, log = Made(), []

    def f(t):
        x.k = 2.0
        return t * x.k + len(log)

    yield f
    Made.k = property(lambda self: 5.0, lambda self, value: log.append(value))
    yield


def behind_a_weak_proxy():
    class Made:
        k = 1.0

    x = Made()
    proxy = weakref.proxy(x)

    def f(t):
        proxy.n = getattr(proxy, "n", 0) + 1
        proxy.last = t
        return t * proxy.k + proxy.n + x.last

    yield f
    x.k = 3.0
    yield
    x.n = 10
    yield
    proxy.k = 5.0
    yield


def data_set_in_a_module_of_others():
    math.gain_of_all = 2.0
    yield lambda t: t * math.gain_of_all
    math.gain_of_all = 3.0
    yield
    del math.gain_of_all


def getattr_of_a_module():
    m = module_of("found = {'w': 2.0}\ndef __getattr__(name): return found[name]\n")
    yield lambda t: t * m.w
    m.found["w"] = 3.0
    yield
    m.w = 5.0
    yield
    m.w = 6.0
    yield
    del m.w
    yield
    m.__getattr__ = lambda name: 8.0
    yield


def registered():
    class Kind(abc.ABC):  # noqa: B024
        pass

    class Made:
        pass

    x = Made()
    yield lambda t: t * 2 if isinstance(x, Kind) else t * 3
    Kind.register(Made)
    yield


def body_of_a_class():
    held = Space(k=2.0)

    def f(t):
        class Made:
            w = held.k

            class Inner:
                v = held.k + 1

        return t * Made.w + Made.Inner.v

    yield f
    for k in (3.0, 4.0):
        held.k = k
        yield


def weak_dictionaries():
    class Made:
        pass

    x, y = Made(), Made()
    held = Space(k=1.0)
    values, keys = weakref.WeakValueDictionary(x=x), weakref.WeakKeyDictionary()
    keys[x] = 3.0
    yield lambda t: t * held.k + len(values) * keys.get(x, 10.0)
    for k in (2.0, 3.0):
        held.k = k
        yield
    values["y"] = y
    yield
    keys[x] = 5.0
    yield
    del keys[x]
    yield


def found_by_what_c_code_gives():
    held = {"ab": 1.0}
    yield lambda t: t * held.get("-".join(["a", "b"]).replace("-", ""), 5.0)
    held["ab"] = 2.0
    yield
    held.clear()
    yield


def written_to_a_thread():
    local = threading.local()
    local.a = 1.0

    def f(t):
        local.n = getattr(local, "n", 0) + 1
        return t * local.a * local.n

    yield f
    local.a = 2.0
    yield
    local.n = 10
    yield
    del local.n
    yield


def wrapped():
    @functools.singledispatch
    def h(v, t):
        return t

    h.register(int, lambda v, t: t * v)
    held = Space(v=2)
    yield lambda t: h(held.v, t)
    held.v = "s"
    yield
    h.register(str, lambda v, t: t * 50)
    yield


CASES = {
    f.__name__: f
    for f in (
        hook_deleted, of_a_metaclass, constructor, compared, method_of_a_named_tuple, bases, class_of_an_object,
        class_of_a_layer, layers_of_the_framework, method_of_tensors, covered_by_the_object, covered_by_a_class, code,
        code_of_the_function_itself, built_in_names, names_added_to_what_is_built_in, names_taken_from_modules,
        modules_under_a_name, special_methods_that_are_added, behind_a_weak_proxy,
        a_property_that_is_added,
        data_set_in_a_module_of_others, getattr_of_a_module, registered, body_of_a_class, weak_dictionaries,
        found_by_what_c_code_gives, written_to_a_thread, wrapped,
    )
} | {
    "len": special("__len__", lambda t, x: t * len(x), 2, 3),
    "bool": special("__bool__", lambda t, x: t if x else -t, True, False),
    "contains": special("__contains__", lambda t, x: t if 3 in x else -t, True, False),
    "item": special("__getitem__", lambda t, x: t * x[2], 2.0, 3.0),
    "iter": special("__iter__", lambda t, x: t * sum(x), iter(()), iter(())),
    "call": special("__call__", lambda t, x: t * x(), 2.0, 3.0),
    "add": special("__add__", lambda t, x: t * (x + 1), 2.0, 3.0),
    "less": special("__lt__", lambda t, x: t if x < 1 else -t, True, False),
    "hash": special("__hash__", lambda t, x: t * hash(x), 2, 3),
    "str": special("__str__", lambda t, x: t * len(str(x)), "a", "bc"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_runs_is_what_would_run_without_compiling(name):
    assert told(CASES[name], "graph") == told(CASES[name], "eager")


def test_what_an_object_has_from_its_class_is_not_put_into_it():
    def run(mode, fails):
        class Made:
            n = 3.0
            m = 4.0

        x = Made()
        x.m = 5.0

        def f(t, i):
            x.n = x.n
            del x.m
            return t[i]

        f = dg.function(f, mode=mode)
        index = dg.tensor(7 if fails else 0)
        try:
            f(dg.ones(2), index)
        except IndexError:
            return vars(x)
        Made.n = Made.m = 10.0
        return vars(x), x.n, x.m

    assert run("graph", False) == run("eager", False)
    assert run("graph", True) == {"m": 5.0}  # a call that fails changes nothing
