"""Python constructs that graph compilers get wrong: one function a row, written once for every framework.

A row gets a namespace m (array, sin, where, stack, rand, grad, jit, host, ...) and returns what an onlooker sees:
results and effects of several calls, with state that changes in between. A row is right when it returns the same with
a `jit` that compiles as with one that does nothing. Its docstring is the text of the table in docs/graph.md.
"""

# ruff: noqa: B006, B023  (these are the constructs)

from __future__ import annotations

import enum
import functools
from collections import namedtuple
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

ROWS: dict[str, Callable[[Any], Any]] = {}


def row(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    ROWS[fn.__name__] = fn
    return fn


SCALE = 2.0
COUNT = 0
HOOK: Any = None


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


Pair = namedtuple("Pair", "a b")


@dataclass
class Config:
    scale: float = 2.0
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    weight: Any = None


# ---------------------------------------------------------------- what a function reads


@row
def closure_changed(m):
    """a closure cell that changes between calls"""
    k = 2.0
    f = m.jit(lambda x: x * k)
    out = [f(m.x)]
    k = 3.0
    return [*out, f(m.x)]


@row
def global_changed(m):
    """a global number that changes between calls"""
    global SCALE
    f = m.jit(lambda x: x * SCALE)
    SCALE = 2.0
    out = [f(m.x)]
    SCALE = 5.0
    return [*out, f(m.x)]


@row
def global_tensor_replaced(m):
    """a tensor of a global dict replaced between calls"""
    table = {"w": m.array([1.0, 2.0, 3.0])}
    f = m.jit(lambda x: x * table["w"])
    out = [f(m.x)]
    table["w"] = m.array([4.0, 5.0, 6.0])
    return [*out, f(m.x)]


@row
def attribute_changed(m):
    """an attribute of an object that changes between calls"""
    c = Config()
    f = m.jit(lambda x: x * c.scale)
    out = [f(m.x)]
    c.scale = 7.0
    return [*out, f(m.x)]


@row
def class_attribute_changed(m):
    """an attribute of a class, read through an instance, that changes between calls"""

    class A:
        scale = 2.0

    a = A()
    f = m.jit(lambda x: x * a.scale)
    out = [f(m.x)]
    A.scale = 3.0
    out.append(f(m.x))
    a.scale = 4.0
    return [*out, f(m.x)]


@row
def list_mutated_between(m):
    """a list that grows between calls"""
    scales = [1.0, 2.0]
    f = m.jit(lambda x: sum((x * s for s in scales), x))
    out = [f(m.x)]
    scales.append(10.0)
    out.append(f(m.x))
    scales[0] = 5.0
    return [*out, f(m.x)]


@row
def dict_order(m):
    """a dict whose order of keys changes"""
    d = {"a": 1.0, "b": 2.0}

    @m.jit
    def f(x):
        for k in d:
            x = x * d[k] + len(k) + (1 if k == "a" else 0)
        return x

    out = [f(m.x)]
    d["a"] = d.pop("a")
    return [*out, f(m.x)]


@row
def sorted_dict(m):
    """sorted keys of a dict argument"""

    @m.jit
    def f(d):
        y = 0.0
        for k in sorted(d):
            y = y * 2 + d[k]
        return y

    return [f({"b": m.x, "a": m.x + 1}), f({"a": m.x, "b": m.x + 1}), f({"c": m.x, "b": m.x + 1})]


@row
def set_iteration(m):
    """a set that is walked and changed between calls"""
    s = {1, 2, 3}
    f = m.jit(lambda x: sum((x * k for k in s), x))
    out = [f(m.x)]
    s.add(4)
    return [*out, f(m.x)]


@row
def default_mutable(m):
    """a mutable default argument that the function changes"""

    def g(x, seen=[]):
        seen.append(1)
        return x * len(seen)

    f = m.jit(g)
    return [f(m.x), f(m.x), f(m.x), len(g.__defaults__[0])]


@row
def monkeypatched(m):
    """a called function that is replaced between calls"""
    global HOOK
    HOOK = lambda x: x + 1
    f = m.jit(lambda x: HOOK(x))
    out = [f(m.x)]
    HOOK = lambda x: x * 10
    return [*out, f(m.x)]


@row
def method_replaced(m):
    """a method that is replaced on its class"""

    class A:
        def go(self, x):
            return x + 1

    a = A()
    f = m.jit(lambda x: a.go(x))
    out = [f(m.x)]
    A.go = lambda self, x: x * 10
    return [*out, f(m.x)]


@row
def property_read(m):
    """a property that computes from state"""

    class A:
        n = 1

        @property
        def scale(self):
            return self.n * 2.0

    a = A()
    f = m.jit(lambda x: x * a.scale)
    out = [f(m.x)]
    a.n = 4
    return [*out, f(m.x)]


@row
def getattr_hook(m):
    """an object with __getattr__"""

    class A:
        def __init__(self):
            self.table = {"scale": 2.0}

        def __getattr__(self, name):
            return self.__dict__["table"][name]

    a = A()
    f = m.jit(lambda x: x * a.scale)
    out = [f(m.x)]
    a.table["scale"] = 3.0
    return [*out, f(m.x)]


@row
def lambda_in_loop(m):
    """lambdas made in a loop, which share a late-bound variable"""
    fs = []
    for k in (1.0, 2.0, 3.0):
        fs.append(m.jit(lambda x: x * k))
    return [f(m.x) for f in fs]


@row
def partial_object(m):
    """functools.partial with a keyword"""
    g = lambda x, k: x * k
    return [m.jit(functools.partial(g, k=2.0))(m.x), m.jit(functools.partial(g, k=3.0))(m.x)]


@row
def callable_object(m):
    """an object with __call__ and state"""

    class A:
        k = 1.0

        def __call__(self, x):
            self.k += 1
            return x * self.k

    a = A()
    f = m.jit(lambda x: a(x))
    return [f(m.x), f(m.x), f(m.x), a.k]


@row
def nan_guard(m):
    """a NaN among the values that are read"""
    k = float("nan")
    f = m.jit(lambda x: x * 2 if k != k else x)
    out = [f(m.x), f(m.x)]
    k = 1.0
    return [*out, f(m.x)]


# ---------------------------------------------------------------- what a function changes


@row
def counter(m):
    """a global counter that the function raises"""
    global COUNT
    COUNT = 0

    def g(x):
        global COUNT
        COUNT += 1
        return x * COUNT

    f = m.jit(g)
    return [f(m.x), f(m.x), f(m.x), COUNT]


@row
def nonlocal_counter(m):
    """a nonlocal counter"""
    n = 0

    def g(x):
        nonlocal n
        n += 1
        return x + n

    f = m.jit(g)
    return [f(m.x), f(m.x), n]


@row
def list_append(m):
    """a list that the function appends Python values to"""
    seen = []

    def g(x):
        seen.append(len(seen))
        return x * 2

    f = m.jit(g)
    return [f(m.x), f(m.x), f(m.x), list(seen)]


@row
def tensor_appended(m):
    """a list that the function appends its tensors to"""
    seen = []

    def g(x):
        y = x * 2
        seen.append(y)
        return y + 1

    f = m.jit(g)
    return [f(m.x), f(m.x + 1), list(seen)]


@row
def attribute_written(m):
    """attributes that the function sets, tensors too"""
    c = Config()

    def g(x):
        c.scale += 1
        c.weight = x * c.scale
        return c.weight + 1

    f = m.jit(g)
    return [f(m.x), c.weight, f(m.x), c.weight, c.scale]


@row
def state_carried(m):
    """self.h = f(self.h): a new tensor each call"""

    class Cell:
        def __init__(self):
            self.h = m.array([0.0, 0.0, 0.0])

        def step(self, x):
            self.h = m.sin(self.h + x)
            return self.h * 2

    c = Cell()
    f = m.jit(c.step)
    return [f(m.x), f(m.x), f(m.x), c.h]


@row
def attribute_deleted(m):
    """an attribute made and deleted inside"""
    c = Config()

    def g(x):
        c.extra = 3.0
        y = x * c.extra
        del c.extra
        return y

    f = m.jit(g)
    return [f(m.x), f(m.x), hasattr(c, "extra")]


@row
def set_and_dict_changed(m):
    """a set and a dict that the function changes"""
    names, table = set(), {}

    def g(x, name):
        names.add(name)
        table[name] = table.get(name, 0) + 1
        return x * table[name]

    f = m.jit(g)
    return [f(m.x, "a"), f(m.x, "b"), f(m.x, "a"), sorted(names), dict(table)]


@row
def printed(m):
    """something printed (a host function called at each call)"""
    lines = []

    def g(x):
        m.print("x is {}", x, lines)
        return x * 2

    f = m.jit(g)
    return [f(m.x), f(m.x + 1), list(lines)]


@row
def host_function(m):
    """a function that must run in Python, called inside"""
    calls = []

    def g(x):
        y = m.eager(lambda x: _noted(calls, x))(x * 2)
        return y + 1

    f = m.jit(g)
    return [f(m.x), f(m.x + 1), len(calls)]


def _noted(calls, x):
    calls.append(1)
    return x + 1


# ---------------------------------------------------------------- branches and loops on values


@row
def early_return(m):
    """an early return on a tensor's value"""

    def g(x):
        if x.sum() > 0:
            return x * 2
        return x - 1

    f = m.jit(g)
    return [f(m.x), f(-m.x), f(m.x)]


@row
def while_on_value(m):
    """a while loop on a tensor's value"""

    def g(x):
        n = 0
        while x.sum() < 100:
            x = x * 2
            n += 1
        return x, n

    f = m.jit(g)
    return [f(m.x), f(m.x * 10), f(m.x)]


@row
def for_over_tensor(m):
    """a for loop over a tensor"""

    def g(x):
        total = 0.0
        for row in x:
            total = total * 2 + row
        return total

    f = m.jit(g)
    return [f(m.x), f(m.array([1.0, 2.0, 3.0, 4.0]))]


@row
def tensor_as_bool(m):
    """`and`, `or`, `not` on tensors"""
    f = m.jit(lambda a, b: a + 1 if (a.sum() > 0 and not b.sum() > 0) else b)
    return [f(m.x, -m.x), f(m.x, m.x), f(-m.x, m.x)]


@row
def tensor_as_int(m):
    """int(tensor) and float(tensor)"""
    f = m.jit(lambda x, n: x * int(n) + float(x[0]))
    return [f(m.x, m.ints([2])[0]), f(m.x, m.ints([3])[0])]


@row
def tensor_as_index(m):
    """a tensor as the index of a list"""
    table = [1.0, 10.0, 100.0]
    f = m.jit(lambda x, n: x * table[int(n)])
    return [f(m.x, m.ints([0])[0]), f(m.x, m.ints([2])[0])]


@row
def tensor_len(m):
    """len(tensor) in a range, varying lengths"""

    def g(x):
        y = 0.0
        for k in range(len(x)):
            y = y + x[k] * k
        return y

    f = m.jit(g)
    return [f(m.x), f(m.array([1.0, 2.0])), f(m.x)]


@row
def item_read(m):
    """.item() in the middle"""

    def g(x):
        top = x.max().item()
        return x / top, round(top, 3)

    f = m.jit(g)
    return [f(m.x), f(m.x * 3)]


@row
def comparison_chain(m):
    """a chained comparison of tensors"""
    f = m.jit(lambda x: x * 2 if 0 < x.sum() < 10 else x)
    return [f(m.x), f(m.x * 10), f(m.x)]


@row
def assertion(m):
    """an assert on a tensor's value"""

    def g(x):
        assert x.min() > 0, "negative"
        return x * 2

    f = m.jit(g)
    return [f(m.x), _raises(lambda: f(-m.x)), f(m.x)]


@row
def walrus(m):
    """the walrus operator on a tensor's value"""

    def g(x):
        if (s := x.sum()) > 3:
            return x / s
        return x * s

    f = m.jit(g)
    return [f(m.x), f(m.x * 0.1)]


@row
def match_statement(m):
    """a match statement on structure and values"""

    def g(x, what):
        match what:
            case {"kind": "scale", "by": k}:
                return x * k
            case [a, b]:
                return x * a + b
            case None:
                return x
        return -x

    f = m.jit(g)
    return [f(m.x, {"kind": "scale", "by": 3.0}), f(m.x, [2.0, 1.0]), f(m.x, None), f(m.x, "?")]


@row
def recursion(m):
    """recursion with a Python bound"""

    def fib(x, n):
        return x if n < 2 else fib(x, n - 1) + fib(x, n - 2)

    f = m.jit(lambda x, n: fib(x, n))
    return [f(m.x, 5), f(m.x, 6)]


@row
def recursion_on_value(m):
    """recursion that ends on a tensor's value"""

    def halve(x):
        return x if x.max() < 1 else halve(x / 2)

    f = m.jit(lambda x: halve(x))
    return [f(m.x), f(m.x * 4), f(m.x)]


@row
def generator(m):
    """a generator that yields tensors"""

    def parts(x):
        for k in range(3):
            yield x * k

    def g(x):
        return m.stack(list(parts(x)))

    f = m.jit(g)
    return [f(m.x), f(m.x + 1)]


@row
def comprehension_scope(m):
    """comprehensions with conditions and scopes of their own"""
    k = 10.0

    def g(x):
        ys = [x * k for k in range(3) if k != 1]
        return ys[0] + ys[1] * k

    f = m.jit(g)
    out = [f(m.x)]
    k = 20.0
    return [*out, f(m.x)]


@row
def sorted_by_value(m):
    """a Python sort of tensors by value"""

    def g(x):
        order = sorted(range(3), key=lambda k: float(x[k]))
        return [x[k] for k in order], order

    f = m.jit(g)
    return [f(m.array([3.0, 1.0, 2.0])), f(m.array([1.0, 3.0, 2.0]))]


@row
def shape_from_value(m):
    """a shape that depends on a tensor's value"""

    def g(x, n):
        return m.stack([x] * int(n)).sum(0)

    f = m.jit(g)
    return [f(m.x, m.ints([2])[0]), f(m.x, m.ints([4])[0])]


# ---------------------------------------------------------------- memory


@row
def same_argument_twice(m):
    """one tensor given as two arguments, then two"""
    f = m.jit(lambda a, b: a * 2 + b)
    y = m.x + 1
    return [f(m.x, m.x), f(m.x, y), f(y, y)]


@row
def in_place_argument(m):
    """an argument changed in place"""

    def g(x):
        x += 1
        return x * 2

    f = m.jit(g)
    a = m.array([1.0, 2.0, 3.0])
    return [f(a), a, f(a), a]


@row
def in_place_alias(m):
    """two arguments that are one tensor, one of them changed in place"""

    def g(a, b):
        a += 1
        return b * 2

    f = m.jit(g)
    a, b = m.array([1.0, 2.0, 3.0]), m.array([1.0, 2.0, 3.0])
    return [f(a, b), a, b, f(a, a), a]


@row
def overlapping_views(m):
    """two overlapping views of one base as arguments, one changed in place"""

    def g(a, b):
        a += 1
        return b * 2

    f = m.jit(g)
    base = m.array([1.0, 2.0, 3.0, 4.0])
    return [f(base[:3], base[1:]), base, f(base[:2], base[2:]), base]


@row
def in_place_view(m):
    """a view of a local tensor changed in place"""

    def g(x):
        y = x * 1
        m.assign(y[:2], 7.0)
        return y + x

    f = m.jit(g)
    return [f(m.x), f(m.x + 1), m.x]


@row
def in_place_closure(m):
    """a tensor from a closure changed in place"""
    total = m.array([0.0, 0.0, 0.0])

    def g(x):
        nonlocal total
        total += x
        return total * 2

    f = m.jit(g)
    return [f(m.x), f(m.x), total]


@row
def returned_argument(m):
    """an argument handed back: the same object"""
    f = m.jit(lambda x: (x, x + 1))
    y, _ = f(m.x)
    return [y is m.x, f(m.x)]


@row
def exception_undone(m):
    """an exception after state was changed, and the calls after it"""
    c = Config(sizes=[])

    def g(x, fail):
        y = x * 2
        if fail:
            raise ValueError("no")
        c.sizes.append(1)
        return y

    f = m.jit(g)
    return [f(m.x, False), _raises(lambda: f(m.x, True)), f(m.x, False), len(c.sizes)]


@row
def exception_caught(m):
    """an exception raised and caught inside"""
    table = {"a": 2.0}

    def g(x, key):
        try:
            return x * table[key]
        except KeyError as e:
            return x - len(str(e))

    f = m.jit(g)
    return [f(m.x, "a"), f(m.x, "b"), f(m.x, "a")]


@row
def try_finally(m):
    """try and finally around a change of state"""
    c = Config(scale=1.0)

    def g(x):
        c.scale = 5.0
        try:
            return x * c.scale
        finally:
            c.scale = 1.0

    f = m.jit(g)
    return [f(m.x), f(m.x), c.scale]


@row
def with_block(m):
    """a context manager of the user's own, with state"""
    depth = [0]

    @contextmanager
    def deeper():
        depth[0] += 1
        try:
            yield depth[0]
        finally:
            depth[0] -= 1

    def g(x):
        with deeper() as d, deeper() as e:
            return x * d + e

    f = m.jit(g)
    return [f(m.x), f(m.x), depth]


# ---------------------------------------------------------------- arguments


@row
def args_and_kwargs(m):
    """*args and **kwargs"""

    def g(*args, **kwargs):
        y = args[0]
        for a in args[1:]:
            y = y + a
        for name in kwargs:
            y = y * kwargs[name] + len(name)
        return y

    f = m.jit(g)
    return [f(m.x), f(m.x, m.x), f(m.x, m.x, long=2.0), f(m.x, b=3.0, a=m.x), f(m.x, a=m.x, b=3.0)]


@row
def dataclass_argument(m):
    """a dataclass as argument and as result, with tensors and numbers, changed between calls"""

    def g(c):
        return Config(c.scale * 2, c.sizes, c.weight * c.scale)

    f = m.jit(g)
    c = Config(2.0, [1], m.x)
    first = f(c)
    c.scale, c.weight = 3.0, m.x + 1
    second = f(c)
    third = f(Config(4.0, [1], m.x))
    return [(r.scale, r.weight) for r in (first, second, third)]


@row
def namedtuple_argument(m):
    """a named tuple in and out"""
    f = m.jit(lambda p: Pair(p.b, p.a * 2))
    made = f(Pair(m.x, m.x + 1))
    return [made, made.a, type(made).__name__]


@row
def string_argument(m):
    """a string that chooses"""
    f = m.jit(lambda x, how: {"double": x * 2, "negate": -x}[how])
    return [f(m.x, "double"), f(m.x, "negate")]


@row
def enum_argument(m):
    """an enum member as argument"""
    f = m.jit(lambda x, c: x * c.value if c is Colour.BLUE else x)
    return [f(m.x, Colour.RED), f(m.x, Colour.BLUE), f(m.x, Colour.RED)]


@row
def optional_argument(m):
    """None or a tensor"""
    f = m.jit(lambda x, b=None: x if b is None else x + b)
    return [f(m.x), f(m.x, m.x), f(m.x, None)]


@row
def float_argument(m):
    """a Python float that changes at every call"""
    f = m.jit(lambda x, k: x * k)
    return [f(m.x, k / 4) for k in range(5)]


@row
def huge_int(m):
    """an int of more than 64 bits, in Python arithmetic"""
    f = m.jit(lambda x, n: x * (n % 7))
    return [f(m.x, 10**30), f(m.x, 10**30 + 1)]


@row
def bool_is_not_int(m):
    """True, 1 and 1.0 as arguments"""
    f = m.jit(lambda x, k: (x * 2 if k is True else x * 3) if isinstance(k, int) else x)
    return [f(m.x, True), f(m.x, 1), f(m.x, 1.0)]


@row
def number_or_tensor(m):
    """a 0-d tensor and then a Python number"""
    f = m.jit(lambda x, k: x * k)
    return [f(m.x, m.array([2.0])[0]), f(m.x, 2.0), f(m.x, 2)]


@row
def dtype_changes(m):
    """arguments of another dtype"""
    f = m.jit(lambda x: x * 2 + 1)
    return [f(m.x), f(m.ints([1, 2, 3])), f(m.x)]


@row
def star_unpacking(m):
    """star-unpacking a tensor"""

    def g(x):
        first, *rest = x
        return first * 10 + rest[-1]

    f = m.jit(g)
    return [f(m.x), f(m.x * 2)]


@row
def instance_check(m):
    """isinstance on tensors inside"""
    f = m.jit(lambda x, y: x + 1 if isinstance(y, m.Tensor) else x * y)
    return [f(m.x, m.x), f(m.x, 2.0)]


@row
def formatted(m):
    """an f-string of a tensor's value"""

    def g(x):
        return x * 2, f"sum {x.sum().item():.1f} of {len(x)}"

    f = m.jit(g)
    return [f(m.x), f(m.x * 2)]


@row
def numpy_inside(m):
    """NumPy on a tensor's value inside"""

    def g(x):
        import numpy as np

        top = float(np.max(m.host(x)))
        return x / top

    f = m.jit(g)
    return [f(m.x), f(m.x * 3)]


@row
def returned_function(m):
    """a function in the result, which reads a tensor of the call"""

    def g(x):
        y = x * 2
        return lambda z: y + z

    f = m.jit(g)
    return [f(m.x)(m.x), f(m.x + 1)(m.x)]


# ---------------------------------------------------------------- numbers and gradients


@row
def random_numbers(m):
    """random numbers: the same as in eager mode, other ones at each call"""
    m.seed(3)
    f = m.jit(lambda x: x + m.rand(3) + m.rand(3))
    return [f(m.x), f(m.x), m.rand(3)]


@row
def seeded_inside(m):
    """the seed set inside"""

    def g(x):
        m.seed(7)
        return x + m.rand(3)

    f = m.jit(g)
    return [f(m.x), f(m.x), m.rand(3)]


@row
def nested_gradient(m):
    """a gradient of a gradient inside"""
    cube = lambda x: (x * x * x).sum()
    f = m.jit(lambda x: m.grad(lambda x: (m.grad(cube)(x) * x).sum())(x))
    return [f(m.x), f(m.x * 2)]


@row
def gradient_through(m):
    """the gradient of a compiled function, with a branch on a value"""

    @m.jit
    def f(x):
        return (x * x).sum() if x.sum() > 0 else x.sum()

    return [m.grad(lambda x: f(x) * 2)(m.x), m.grad(lambda x: f(x) * 2)(-m.x)]


@row
def nested_modes(m):
    """a compiled function called by another"""
    inner = m.jit(lambda x, k: x * k)
    f = m.jit(lambda x: inner(x, 2.0) + inner(x, 3.0))
    return [f(m.x), inner(m.x, 4.0), f(m.x + 1)]


def _raises(fn):
    try:
        fn()
    except Exception as e:
        return type(e).__name__
    return "nothing"


#: rows that graph mode refuses, and what its error says
REFUSED: dict[str, str] = {}
