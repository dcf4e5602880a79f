"""What Python reads of a number that changes from call to call is guarded, and is as without compiling."""

import collections
import copy
import functools
import json
import math
import threading
import typing
from decimal import Decimal
from fractions import Fraction

import duograd as dg
import duograd.nn.functional as F
import numpy as np
import pytest
from changing_numbers import Record, check

READS = {
    "branch": (lambda m, x, a: x * a if a > 2 else x - a, 3),
    "chain": (lambda m, x, a: x * a if 0 < a <= 3 else x - a, None),
    "every third": (lambda m, x, a: x * a + (1 if a % 3 == 0 else 0), 3),
    "whole": (lambda m, x, a: x * int(a // 4), None),
    "loop": (lambda m, x, a: sum((x for _ in range(a)), start=x), 8),
    "index": (lambda m, x, a: x[a % 3] * m.row[a % 2], None),
    "part": (lambda m, x, a: x[: a % 3] * a, None),
    "key": (lambda m, x, a: x * {1: 5}.get(a, a), None),
    "set key": (lambda m, x, a: (m.table.__setitem__(a % 2, a), x * a)[1], None),
    "format": (lambda m, x, a: (f"{a:.2f} {a}", x * a), 8),
    "percent": (lambda m, x, a: ("%d %s" % (a, a), x * a), 8),  # noqa: UP031
    "shape": (lambda m, x, a: dg.zeros((a,)), 4),  # the last is for any
    "axis": (lambda m, x, a: x[None].sum(axis=a % 2), None),
    "repeat": (lambda m, x, a: ([1] * a, "ab" * a, x * a), 8),
    "type": (lambda m, x, a: x * (2 if type(a) is int else 3) * a, 8),
    "class": (lambda m, x, a: (x * a, a.__class__, isinstance(a, int), isinstance(a, float)), 2),
    "methods": (lambda m, x, a: (x * a, a.bit_length(), a.real, a.conjugate()), 8),
    "math": (lambda m, x, a: (x * math.sqrt(a), math.floor(a / 3), math.comb(a, 2)), 2),
    "least": (lambda m, x, a: (x * max(a, 3), min(a, 4), sorted([a, 3]), sum([a, a])), None),
    "numpy": (lambda m, x, a: (np.asarray(a), np.float32(a), np.arange(a), np.ones(2) * a), 8),
    "numpy operators": (lambda m, x, a: (np.ones(2, np.float32) * a, np.float32(2) * a, a + np.int8(1)), 8),
    "tensor": (lambda m, x, a: (dg.tensor(a), dg.tensor([a, 1.0]), dg.asarray([a])), 2),
    "complex": (lambda m, x, a: (a * 1j, complex(a), x * abs(a * 1j)), 8),
    "exact": (lambda m, x, a: (Fraction(a) / 3, Decimal(a) + 1, Fraction(1, 3) + a), 8),
    "json": (lambda m, x, a: (json.dumps({"a": a}), x * a), 8),
    "copy": (lambda m, x, a: (copy.deepcopy([a, {"a": a}]), copy.copy(a), x * a), None),
    "identity": (lambda m, x, a: (setattr(m, "last", a), m.last is a, x * a)[1:], 8),
    "truth": (lambda m, x, a: x * a if a else x - 1, None),
    "membership": (lambda m, x, a: x * a if a in (1, 5, 7) else x + a, None),
    "whole dict": (lambda m, x, a: (m.table.update(a=a), [x * v for v in m.table.values()])[1], 3),
    "dropout": (lambda m, x, a: F.dropout(x, 1 / (a + 1)), None),
    "attribute of an op": (lambda m, x, a: (F.leaky_relu(x, 1 / a), x.clip(-a, a)), 2),
    "attribute of integers": (lambda m, x, a: (x.to(dg.int32).clip(-a, a), dg.quantile(x, a / 9)), 8),
    "eps": (lambda m, x, a: F.layer_norm(x, (3,), eps=1e-3 * a), 2),
    "text": (lambda m, x, a: (a == "a", a != None, x * a), 2),  # noqa: E711
    "record": (lambda m, x, a: (lambda r: (x * r.n, r, r.m + 1))(Record(a, a * 2)), 2),
    "deque": (lambda m, x, a: (collections.deque([a], maxlen=2), x * a), 2),
    "exception": (lambda m, x, a: _raised_and_caught(a) * x, 2),
    "slice": (lambda m, x, a: (setattr(m, "last", slice(a, None)), slice(a), (slice(a, a), 1), x * a)[1:], 8),
    "protocols": (lambda m, x, a: (x * a, *(isinstance(a, c) for c in PROTOCOLS), isinstance(1 / a, PROTOCOLS)), 8),
    "has": (lambda m, x, a: (x * a, [hasattr(a, k) for k in ("__bytes__", "__array__", "__copy__", "real")]), 8),
    "dunders": (lambda m, x, a: (x * a, a.__radd__(2.5), a.__doc__[:4], a.__add__(1), a.__round__(1)), 8),
    "lacks": (lambda m, x, a: x * a if getattr(a, "__array__", None) is None else x, 8),
    "words": (lambda m, x, a: (x * a, [_words_of(w, a) for w in WRONG]), 8),
    "words of a float": (lambda m, x, a: (x * a, [_words_of(w, a / 3) for w in WRONG], _words_of(_part, x, a / 3)), 8),
    "thread": (lambda m, x, a: (r := _in_a_thread(lambda: (a, a + 1, -a, a > 3, bool(a - 3))), x * r[1]), 0),
    "cache": (lambda m, x, a: x * _doubled(a) + _doubled(a + 1), 8),
    "class of its own": (lambda m, x, a: (x * Celsius(a), x * Count(a) + Celsius(a) * a), 8),
    "printed": (lambda m, x, a: (dg.print("{} {}", a, x, to=m.log.append), x * a)[1], 8),
}  # fmt: skip


def _raised_and_caught(a):
    try:
        raise KeyError(a)
    except KeyError as e:
        return e.args[0]


PROTOCOLS = typing.SupportsIndex, typing.SupportsBytes, typing.SupportsComplex
WRONG = (
    lambda a: a(), lambda a: a[0], len, lambda a: [*a], lambda a: 1 in a, lambda a: a < "a", lambda a: a + None,
    lambda a: "a" + a, lambda a: a @ 2, lambda a: a.name, lambda a: [1, 2][a * 10], lambda a: divmod(a, 0),
    lambda a: divmod(a / 2, 0), lambda a: a.__array__,
)  # fmt: skip


def _words_of(wrong, *args):
    try:
        return wrong(*args)
    except Exception as e:
        return type(e).__name__, str(e).split("\n")[0]


def _part(x, a):
    return x[a]


def _in_a_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.extend(work()))
    thread.start()
    thread.join()
    return found


@functools.lru_cache
def _doubled(n):
    return n * 2


class Celsius(float):
    """A number of a class of its own."""


class Count(int):
    """Another one."""


@pytest.mark.parametrize("name", READS)
def test_what_python_reads_is_as_without_compiling(name):
    body, variants = READS[name]
    check(body, range(1, 9), variants)
    check(body, (1, 3, 1, 4, 3, 2**40 % 7, 1))


def match_statement(m, x, a):
    match a:
        case 2:
            return x
        case int() if a > 5:
            return x * a
        case float(v):
            return x - v
        case _:
            return x + a


def caught(m, x, a):
    try:
        m.last = 1 / a
    except ZeroDivisionError:
        m.last = 7
    return x * m.last


def refused(m, x, a):
    if a == 5:
        raise ValueError(f"no {a}")
    m.t += a
    return x / (a - 3)


def finite(m, x, a):
    return x * (1 / a), 2.0**a


@pytest.mark.parametrize("body", [match_statement, caught, refused, finite], ids=lambda f: f.__name__)
def test_branches_and_exceptions_follow_the_number(body):
    check(body, (1, 2, 3, 4, 5, 6, 0, 7, 8, 3, 5))
    check(body, (0.5, 2.0, 0.0, 3.0, -0.0, 1e308, 5000.0, 1.5))


def test_an_error_for_one_number_leaves_the_others_live():
    check(lambda m, x, a: (x * (1 / a), a + 1), (1, 2, 0, 4, 5, 6, 7), 2)


def test_a_function_that_reads_a_number_ends_at_its_limit():
    f = dg.function(lambda x, n: x * float(f"{n}"), limit=3)
    for n in range(3):
        f(dg.ones((1,)), n)
    with pytest.raises(dg.errors.RetraceError, match="2 became 3"):
        f(dg.ones((1,)), 3)
