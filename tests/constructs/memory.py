"""Rows: memory that is shared, changed in place and put back."""

from __future__ import annotations

from contextlib import contextmanager

from .row import Config, raises, row


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
    return [f(m.x, False), raises(lambda: f(m.x, True)), f(m.x, False), len(c.sizes)]


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
