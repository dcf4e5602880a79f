"""Rows: what a function reads."""

# ruff: noqa: B006, B023  (these are the constructs)

from __future__ import annotations

import functools
from typing import Any

from .row import Config, row

SCALE = 2.0
HOOK: Any = None


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
