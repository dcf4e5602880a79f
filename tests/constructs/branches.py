"""Rows: branches and loops on values."""

from __future__ import annotations

from .row import raises, row


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
        for line in x:
            total = total * 2 + line
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
    return [f(m.x), raises(lambda: f(-m.x)), f(m.x)]


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
