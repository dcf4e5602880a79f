"""Rows: kinds of arguments and results."""

from __future__ import annotations

import enum
from collections import namedtuple

from .row import Config, row


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


Pair = namedtuple("Pair", "a b")


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
