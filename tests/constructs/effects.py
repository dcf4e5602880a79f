"""Rows: what a function changes."""

from __future__ import annotations

from .row import Config, row

COUNT = 0


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
