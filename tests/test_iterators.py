"""A function that advances an iterator from outside is left to Python before an element is taken."""

import array
import collections
import io
import itertools
import re
from types import SimpleNamespace

import duograd as dg
import numpy as np
import pytest


class Letters:
    def __getitem__(self, k):
        return "abc"[k]


KINDS = {
    "list": lambda: iter([1, 2, 3]),
    "range, backwards": lambda: reversed(range(3)),
    "count": lambda: itertools.islice(itertools.count(), 3),
    "generator": lambda: (k for k in range(3)),
    "zip": lambda: zip("ab", "ab"),
    "deque": lambda: iter(collections.deque([1, 2, 3])),
    "deque, backwards": lambda: reversed(collections.deque([1, 2, 3])),
    "dict, backwards": lambda: reversed({1: 2, 3: 4}),
    "ordered dict": lambda: iter(collections.OrderedDict(a=1, b=2)),
    "bytearray": lambda: iter(bytearray(b"abc")),
    "memoryview": lambda: iter(memoryview(b"abc")),
    "array": lambda: iter(array.array("i", [1, 2, 3])),
    "a class with __getitem__": lambda: iter(Letters()),
    "a function and an end": lambda: iter(iter([1, 2, 3]).__next__, 3),
    "matches": lambda: re.finditer(".", "abc"),
    "ndarray": lambda: iter(np.arange(3)),
    "flat": lambda: np.arange(3).flat,
    "nditer": lambda: np.nditer(np.arange(3)),
    "ndenumerate": lambda: np.ndenumerate(np.arange(3)),
    "tensor": lambda: iter(dg.tensor([1.0, 2.0, 3.0])),
}
USES = {
    "next": lambda x, m: (x, next(m.it)),
    "__next__": lambda x, m: (x, m.it.__next__()),
    "for": lambda x, m: [x for _ in m.it],
    "in": lambda x, m: x * (None in m.it),
    "unpacked": lambda x, m: [x, *m.it],
    "arguments": lambda x, m: (x, max(*m.it, key=str)),
    "islice": lambda x, m: (x, list(itertools.islice(m.it, 1))),
    "of a map": lambda x, m: (x, next(map(str, m.it))),
    "in a graph function of its own": lambda x, m: dg.function(lambda t: (t, next(m.it)))(x),
    "by example": lambda x, m: (x, dg.vmap(lambda t: t * (next(m.it) is not None))(x)),
    "in a branch": lambda x, m: dg.cond(x.sum() > 0, lambda t: t * (next(m.it) is not None), lambda t: t, x),
    "in a loop": lambda x, m: dg.scan(lambda c, t: (c + t * (next(m.it) is not None), t), x[0], x),
    "after a value was read": lambda x, m: (x, next(m.it)) if x.sum() > 0 else x,
}


def left(it):
    return [str(v) for v in it]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_iterator_from_outside_is_advanced_as_in_eager_mode(kind, use):
    """Some were advanced by the trace alone, without a word, and the others lost elements to the call that failed."""

    def run(mode):
        m = SimpleNamespace(it=KINDS[kind](), log=[])

        @dg.function(mode=mode)
        def fn(x):
            m.log.append(1)
            return USES[use](x, m)

        story = []
        for _ in range(2):
            try:
                story.append(str(fn(dg.ones((2,)))))
            except (StopIteration, TypeError, ValueError) as e:  # none are left
                story.append(str(e))
        return story, m.log, left(m.it), str(fn.explain())

    *got, told = run("graph")
    *want, _ = run("eager")
    assert got == want
    assert "takes elements from" in told or use == "in a graph function of its own"
    assert "iterator from outside" in told or use == "in a graph function of its own"
    assert __file__.rpartition("/")[2] in told


def test_a_handler_around_it_leaves_all_to_python():
    """What runs in it must be seen, to be taken back."""

    def run(mode):
        m = SimpleNamespace(it=iter([1, 2, 3]), count=0)

        @dg.function(mode=mode)
        def fn(x):
            try:
                return x * next(m.it)
            except BaseException:
                return x
            finally:
                m.count += 1

        return [fn(dg.ones((2,))).tolist() for _ in range(4)], m.count

    assert run("graph") == run("eager")


def test_what_is_not_advanced_is_not_refused():
    class Numbers:
        """An iterator in Python, whose state is seen."""

        def __init__(self):
            self.n = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.n += 1
            return self.n

    def run(mode):
        m = SimpleNamespace(it=iter([1, 2]), own=Numbers(), last=None)

        @dg.function(mode=mode)
        def fn(x):
            m.last = m.it
            k = next(iter([5])) + next(zip([1], [2]))[1]
            return x * k * next(m.own), m.it is m.last

        return [(y.tolist(), same) for y, same in [fn(dg.ones((2,))) for _ in range(4)]], list(m.it)

    assert run("graph") == run("eager")


def test_functions_in_eager_mode_advance_it():
    rows = iter(range(1, 9))
    take = dg.function(lambda t: t * next(rows), mode="eager")
    fn = dg.function(lambda x: take(x) + 1)
    assert [fn(dg.ones(())).item() for _ in range(3)] == [2, 3, 4]


@pytest.mark.parametrize(
    "read",
    [
        lambda x, f: [x * len(line) for line in f],
        lambda x, f: x * ("a\n" in f),
        lambda x, f: x * len(next(f)),
        lambda x, f: x * len([*f]),
    ],
)
def test_lines_of_a_file_from_outside_are_read_at_every_call(read):
    """A loop over a file, and `in`, gave the lines of the first call to all."""

    def run(mode):
        file = io.StringIO("a\nbbb\ncc\n")
        fn = dg.function(lambda x: read(x, file), mode=mode)
        found = []
        for _ in range(3):
            try:
                found.append(str(fn(dg.ones(2))))
            except StopIteration as e:
                found.append(repr(e))
        return found, file.read()

    assert run("graph") == run("eager")


class Kept:
    def __init__(self):
        self.log, self.count = [], 0


def deleted(x, m):
    def made():
        try:
            yield x
        finally:
            m.log.append("end")

    g = made()
    y = next(g) * 2
    del g
    return y * max((1, 2, m.count))


def replaced(x, m):
    def made(k):
        try:
            yield x * k
        finally:
            m.log.append(k)

    y = 0
    for k in range(1, 3):
        g = made(k)
        y = y + next(g)
    g = None
    return y * max((1, 2, m.count))


def in_a_cell(x, m):
    def made():
        try:
            yield x
        finally:
            m.log.append("end")

    def take():
        return next(g)

    g = made()
    y = take() * 2
    g = None
    return y * max((1, 2, m.count))


@pytest.mark.parametrize("fn", [deleted, replaced, in_a_cell])
def test_what_runs_when_a_variable_lets_go_of_a_generator_is_an_effect(fn):
    """The trace looked at copies of the variables, and what ran when these were renewed was seen by nobody."""

    def run(mode):
        m = Kept()
        f = dg.function(lambda x: fn(x, m), mode=mode)
        return [(f(dg.tensor([1.0 + k])).tolist(), [*m.log]) for k in range(4)]

    assert run("graph") == run("eager")


def test_elements_taken_within_try_are_taken_once():
    """The trace had taken one before it met what leaves the function to Python: the call went on with the next one."""

    def run(mode):
        box = SimpleNamespace(it=iter(np.arange(4)), rows=np.arange(3.0))

        def f(x):
            try:
                k = next(box.it)
            except StopIteration:
                k = 0
            box.rows.resize(2, refcheck=False)
            return x * float(k)

        f = dg.function(f, mode=mode)
        return [f(dg.ones(1)).item() for _ in range(6)], box.rows.shape

    assert run("graph") == run("eager")
