"""Errors of C code that was given what stands for a number: the function gets none of them."""

import collections
import functools
import json
import math
import operator

import duograd as dg
import numpy as np
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


@pytest.mark.parametrize("kind", [np.int64, np.float64, float, int])
def test_divmod_of_a_number_and_a_tensor(kind):
    def body(m, x, n):
        try:
            return [type(v).__name__ for v in (*divmod(n, x), *divmod(x, n))]
        except TypeError:
            return x * n

    check(body, [kind(k) for k in range(1, 6)])


def test_an_error_at_an_outcome_not_seen_before_has_no_context():
    fn = dg.function(lambda x: x * int(x[0]))
    for value in (1.0, 2.0, 3.0):
        fn(dg.full(2, value))
    with pytest.raises(ValueError, match="NaN") as caught:
        fn(dg.full(2, math.nan))
    assert caught.value.__context__ is None
