"""Keys of dicts and sets that hold numbers which change: tuples, named tuples, frozen sets, dataclasses."""

import collections
import dataclasses
from typing import NamedTuple

import duograd as dg
import pytest


class Pair(NamedTuple):
    kind: int
    scale: float


@dataclasses.dataclass(frozen=True)
class Setting:
    kind: int
    scale: float
    note: float = dataclasses.field(default=0.5, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    kind: int
    scale: float


class State:
    def __init__(self):
        self.d, self.s = {}, set()
        self.counter, self.rows = collections.Counter(), collections.defaultdict(list)


def _pop(s, key, y):
    s.d.pop(key, None)
    s.d[key] = y


def _only_once(s, key, y):
    if key not in s.d:
        s.d[key] = y
    else:
        del s.d[key]


USES = {
    "set": lambda s, key, y: s.d.__setitem__(key, y),
    "get": lambda s, key, y: s.d.update({key: s.d.get(key, 0) + 1}),
    "pop": _pop,
    "in": _only_once,
    "setdefault": lambda s, key, y: s.d.setdefault(key, []).append(key.scale),
    "counter": lambda s, key, y: s.counter.update([key]),
    "rows": lambda s, key, y: s.rows[key].append(y),
    "add": lambda s, key, y: s.s.add(key),
    "nested": lambda s, key, y: s.d.__setitem__((1, (key,)), y),
    "frozen set": lambda s, key, y: s.d.__setitem__(frozenset([key, key.scale]), y),
}


def _tell(v):
    return v.tolist() if isinstance(v, dg.Tensor) else [*map(_tell, v)] if type(v) is list else v


def _told(mode, cls, use):
    """What each of several calls gives and leaves."""
    state, told = State(), []

    def body(x, key):
        y = x * key.scale
        use(state, key, y)
        return y

    fn = dg.function(body, mode=mode)
    for k in [0, 1, 2, 3, 4, 2, 5, 2]:
        y = fn(dg.tensor([1.0, 2.0]), cls(k % 2, 0.5 + k))
        held = [{k: _tell(v) for k, v in d.items()} for d in (state.d, state.counter, state.rows)]
        told.append((y.tolist(), held, state.s.copy()))
    return told


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("cls", [Pair, Setting, Slotted])
def test_a_key_that_holds_a_number_which_changes(cls, use):
    assert _told("graph", cls, USES[use]) == _told("eager", cls, USES[use])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_key_that_is_an_argument_is_the_calls_own(mode):
    held = {}

    @dg.function(mode=mode)
    def put(x, key):
        held[key] = x.sum()
        return x

    for k in range(10):
        if k == 5:
            held.clear()
        key = Setting("abcde"[k % 5], 2.0)
        put(dg.ones(1) * k, key)
        assert list(held)[-1] is key
        assert held[key] == k
