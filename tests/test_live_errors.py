"""Errors of C code that was given what stands for a number: the function gets none of them."""

import collections
import functools
import json
import math
import operator

import pytest
from changing_numbers import FLOATS, check

SWALLOWED = {
    "ldexp in a map": lambda n: next(map(math.ldexp, [1.0], [n])),
    "ldexp by a partial": lambda n: functools.partial(math.ldexp, 1.0)(n),
    "ldexp by its name": lambda n: getattr(math, "ldex" + "p")(1.0, n),
    "ldexp in a reduction": lambda n: functools.reduce(math.ldexp, [1.0, n]),
    "a method's name": lambda n: operator.methodcaller("__add__", n)(1),
    "a queue's length": lambda n: collections.deque([1.0, 2.0], n).maxlen,
    "json": lambda n: json.loads(json.dumps({"a": n}))["a"],
    "json of a list": lambda n: json.loads(json.dumps([n]))[0],
}


@pytest.mark.parametrize("name", SWALLOWED)
def test_an_error_of_c_code_that_the_function_catches(name):
    def body(m, x, n):
        try:
            found = SWALLOWED[name](n)
        except (TypeError, ValueError):
            return x * -5.0
        return x * (found if isinstance(found, (int, float)) else 77.0)

    check(body, range(1, 7))


def test_an_error_that_a_followed_function_raises_is_no_reason_to_give_up_numbers():
    def refuses(n):
        raise TypeError("no")

    def body(m, x, n):
        try:
            refuses(n)
        except TypeError:
            return x * n

    check(body, FLOATS, 2)
