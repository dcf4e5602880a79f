"""What stands in classes and on functions is state like any other: replaced or set between calls, in both modes."""

import functools

import duograd as dg
import numpy as np
import pytest


class Given:
    def __init__(self, k):
        self.k = k

    def __get__(self, owner, cls):
        return self.k


class Scaled:
    def __init__(self, k):
        self.k = k

    def __call__(self, x):
        return x * self.k


def named_as_another(k):
    return functools.wraps(len)(lambda self, x: x * k)


#: what a class can hold under a name, made of a number, and whether it is called with `x`
HELD = {
    "a property": (lambda k: property(lambda self: k), False),
    "a descriptor": (Given, False),
    "a function": (lambda k: lambda self, x: x * k, True),
    "a function named as another": (named_as_another, True),
    "a static method": (lambda k: staticmethod(lambda x: x * k), True),
    "a class method": (lambda k: classmethod(lambda cls, x: x * k), True),
    "a partial method": (lambda k: functools.partialmethod(lambda self, q, x: x * q, k), True),
    "a dispatching method": (lambda k: functools.singledispatchmethod(lambda self, x: x * k), True),
    "a partial": (lambda k: functools.partial(lambda q, x: x * q, k), True),
    "an object that is called": (Scaled, True),
    "a graph function": (lambda k: dg.function(lambda self, x: x * k), True),
    "a static graph function": (lambda k: staticmethod(dg.function(lambda x: x * k)), True),
    "a graph function of the class": (lambda k: classmethod(dg.function(lambda cls, x: x * k)), True),
    "a custom gradient": (
        lambda k: staticmethod(dg.custom_gradient(lambda x: (x * k, lambda g: g * k))), True
    ),
    "a vmap": (lambda k: staticmethod(dg.vmap(lambda x: x * k)), True),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:functools.partial will be a method descriptor")
@pytest.mark.usefixtures("own_garbage")  # a trace looks for such a function among all objects
@pytest.mark.parametrize("where", ["class", "base", "super", "class itself"])
@pytest.mark.parametrize("kind", HELD)
def test_what_a_class_holds_is_replaced(kind, where):
    make, is_called = HELD[kind]

    def run(mode):
        class Base:
            pass

        class Derived(Base):
            def above(self):
                return super().held

        held = Base if where in ("base", "super") else Derived
        held.held = make(1)
        x = Derived()

        def fn(t):
            if where == "class itself":
                found = Derived.held
                return t + isinstance(found, property) if not is_called else x.held(t)
            found = x.above() if where == "super" else x.held
            return found(t) if is_called else t * found

        f, got = dg.function(fn, mode=mode), []
        for k in (1, 2, 3, 1):
            held.held = make(k)
            got.append(f(dg.ones(1)).item())
        return got

    assert run("graph") == run("eager")


def test_a_method_with_a_mode_gives_way_to_one_of_the_object():
    class Layer:
        @dg.function
        def scale(self, x):
            return x * 2

    layer = Layer()
    f = dg.function(lambda x: layer.scale(x))
    assert f(dg.ones(1)).item() == 2
    layer.scale = lambda x: x * 3
    assert f(dg.ones(1)).item() == 3
    del layer.scale
    assert f(dg.ones(1)).item() == 2


def holders(mode):
    """Objects that take attributes of the user's, by name."""
    layer = dg.nn.Linear(1, 1)

    class Own:
        def method(self, x):
            return x

    return {
        "a graph function": dg.function(lambda x: x, mode=mode),
        "a generator": dg.Generator(3),
        "a custom gradient": dg.custom_gradient(lambda x: (x, lambda g: g)),
        "a vmap": dg.vmap(lambda x: x),
        "a partial": functools.partial(max, 1),
        "a function of the framework": dg.nn.functional.mse_loss,
        "a class": Own,
        "an object": Own(),
        "a layer": layer,
        "an optimiser": dg.optim.SGD(layer.parameters(), lr=0.1),
    }


@pytest.mark.parametrize(
    ("kind", "name"), [*((k, "count") for k in holders("eager")), ("a graph function", "_n")]
)
def test_an_attribute_of_the_users_is_read_and_set(kind, name):
    def run(mode):
        holder = holders(mode)[kind]
        setattr(holder, name, 1)

        def fn(x):
            setattr(holder, name, getattr(holder, name) + 1)
            return x * getattr(holder, name)

        f = dg.function(fn, mode=mode)
        got = [f(dg.ones(1)).item() for _ in range(3)]
        setattr(holder, name, 10)
        got += [f(dg.ones(1)).item(), getattr(holder, name)]
        delattr(holder, name)
        return got

    assert run("graph") == run("eager") == [2, 3, 4, 11, 11]


def test_a_function_that_counts_its_calls():
    @dg.function
    def f(x):
        f.calls += 1
        if f.calls == 3:
            f.extra = True
        return x * f.calls + hasattr(f, "extra")

    f.calls = 0
    assert [f(dg.ones(1)).item() for _ in range(5)] == [1, 2, 4, 5, 6]
    assert f.calls == 5


def test_a_method_that_counts_its_calls():
    class Layer:
        @dg.function
        def step(self, x):
            Layer.step.calls += 1
            return x * self.step.calls

        def plain(self, x):
            return x * self.plain.scale

    Layer.step.calls, Layer.plain.scale = 0, 2
    layer = Layer()
    assert [layer.step(dg.ones(1)).item() for _ in range(4)] == [1, 2, 3, 4]
    f = dg.function(lambda x: layer.plain(x))
    assert f(dg.ones(1)).item() == 2
    Layer.plain.scale = 3
    assert f(dg.ones(1)).item() == 3


def test_the_mode_of_a_function_is_state():
    inner = dg.function(lambda x: x)

    def flip(x):
        y = x * 2 if inner.mode == "graph" else x * 3
        inner.mode = "eager" if inner.mode == "graph" else "graph"
        return y

    f = dg.function(flip)
    assert [f(dg.ones(1)).item() for _ in range(5)] == [2, 3, 2, 3, 2]
    assert inner.mode == "eager"


def test_a_call_that_fails_leaves_the_mode_of_a_function():
    inner = dg.function(lambda x: x)

    def fn(x):
        inner.mode = "eager"
        return dg.solve(x, x)

    f = dg.function(fn)
    with pytest.raises(dg.errors.LinAlgError):
        f(dg.zeros((2, 2)))
    assert inner.mode == "graph"
    np.testing.assert_array_equal(f(dg.eye(2)).numpy(), np.eye(2))
    assert inner.mode == "eager"


#: an expression that lets Python call a special method of `s`, or of its class, and what makes one of a number
SPECIAL = {
    "__call__": ("s()", lambda k: lambda self: k),
    "__init__": ("type(s)().k", lambda k: lambda self: setattr(self, "k", k)),
    "__new__": ("type(s)()[0]", lambda k: lambda cls: [k]),
    "__add__": ("s + 1", lambda k: lambda self, y: k + y),
    "__getitem__": ("s[1]", lambda k: lambda self, y: k + y),
    "__len__": ("len(s)", lambda k: lambda self: k),
    "__iter__": ("sum(s)", lambda k: lambda self: iter([k])),
    "__contains__": ("(3 in s)", lambda k: lambda self, y: y == k),
    "__hash__": ("hash(s)", lambda k: lambda self: k),
    "__float__": ("float(s)", lambda k: lambda self: float(k)),
    "__class_getitem__": ("type(s)[1]", lambda k: classmethod(lambda cls, y: k + y)),
    "__getattr__": ("s.missing", lambda k: lambda self, name: k),
}


@pytest.mark.usefixtures("own_garbage")  # a trace looks for such a function among all objects
@pytest.mark.parametrize("where", ["class", "base"])
@pytest.mark.parametrize("name", SPECIAL)
def test_a_special_method_is_replaced(name, where):
    text, make = SPECIAL[name]

    def run(mode):
        class Base:
            pass

        class Derived(Base):
            pass

        held = Base if where == "base" else Derived
        setattr(held, name, make(1))
        made = {"s": object.__new__(Derived)}
        f, got = dg.function(eval(f"lambda x: x * ({text})", made), mode=mode), []
        for k in (1, 2, 3, 1):
            setattr(held, name, make(k))
            got.append(f(dg.ones(1)).item())
        return got

    assert run("graph") == run("eager")
