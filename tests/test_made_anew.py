"""What a call makes and hands out is made anew at each call, whatever its class: nothing that a caller does to it is
seen by the next one, in both modes."""

import array
import collections
import functools
import itertools
import types
import weakref
from typing import NamedTuple

import duograd as dg
import numpy as np
import pytest


class Rows(list):
    def __iter__(self):
        raise AssertionError("nobody walks it")


class Table(dict):
    def __setitem__(self, key, value):
        super().__setitem__(f"{key}!", value)


class Itself(dict):
    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


class Pair(NamedTuple):
    a: object
    b: object


class Number(float):
    pass


class Weakly:
    pass


def having(x, **attributes):
    for name, value in attributes.items():
        setattr(x, name, value)
    return x


def fixed(a):
    a.flags.writeable = False
    return a


def with_view(a):
    return a, a[1:], a[::-2], a


def both(x, make):
    return x, make(x)


MAKERS = {
    "counter": lambda x: collections.Counter("aab"),
    "ordered": lambda x: collections.OrderedDict(b=[x], a=2),
    "ordered_moved": lambda x: having(collections.OrderedDict(b=1, a=2), k=1).move_to_end("b"),
    "default": lambda x: collections.defaultdict(list, a=[1]),
    "default_of_tensors": lambda x: collections.defaultdict(lambda: x, a=1),
    "deque": lambda x: collections.deque([1, x], 3),
    "list_of_a_class": lambda x: having(Rows([1, x]), note=[x]),
    "dict_of_a_class": lambda x: Table(a=x),
    "its_own_attributes": lambda x: Itself(a=1, b=x),
    "a_chain": lambda x: collections.ChainMap({"a": 1}, {}),
    "user_dict": lambda x: collections.UserDict(a=x),
    "namespace": lambda x: types.SimpleNamespace(a=1, b=[x]),
    "read_only_dict": lambda x: types.MappingProxyType({"a": [1]}),
    "pair_twice": lambda x: [Pair(x, [1])] * 2,
    "number_with_attributes": lambda x: having(Number(2.0), unit=[x]),
    "slice_of_tensors": lambda x: slice(x, None),
    "exception": lambda x: ValueError("a", [1]),
    "partial": lambda x: functools.partial(max, 1, key=[2].index),
    "method": lambda x: [1].append,
    "class": lambda x: type("Made", (), {"a": 1}),
    "weak_reference": lambda x: (lambda o: (o, weakref.ref(o)))(Weakly()),
    "iterator": lambda x: iter([1, 2, 3, 4, 5]),
    "range_iterator": lambda x: iter(range(5)),
    "generator": lambda x: (k for k in range(5)),
    "zip": lambda x: zip("abcde", "abcde"),
    "count": lambda x: itertools.count(),
    "bytearray": lambda x: bytearray(b"abc"),
    "memory": lambda x: both(bytearray(b"abc"), memoryview),
    "array": lambda x: array.array("d", [1.0]),
    "ndarray": lambda x: np.arange(6.0).reshape(2, 3),
    "ndarray_columns": lambda x: np.asfortranarray(np.ones((2, 3))),
    "ndarray_turned": lambda x: np.arange(6.0).reshape(2, 3).T,
    "ndarray_views": lambda x: with_view(np.arange(6.0)),
    "ndarray_repeated": lambda x: np.broadcast_to(np.ones(1), (3,)),
    "ndarray_read_only": lambda x: fixed(np.ones(2)),
    "ndarray_dates": lambda x: with_view(np.array(["2020-01-01", "2021-01-01"], "M8[D]")),
    "ndarray_rows": lambda x: with_view(np.zeros(3, [("a", "f4"), ("b", "i8")])),
    "ndarray_of_tensors": lambda x: np.array([x, None], object),
    "ndarray_of_lists": lambda x: np.array([[1], None], object),
    "ndarray_masked": lambda x: np.ma.array([1, 2], mask=[0, 1]),
    "ndarray_scalar": lambda x: np.array(3.0),
}


def see(x, known):
    """All that a holder of x can see: classes, order, and what is the same object, by numbers."""
    if isinstance(x, (int, float, str, bytes, type(None))) and not hasattr(x, "__dict__"):
        return x
    if id(x) in known:
        return "same", known[id(x)][0]
    known[id(x)] = len(known), x
    found = [type(x).__name__]
    if isinstance(x, dg.Tensor):
        found.append(x.tolist())
    elif isinstance(x, np.ndarray) and not x.dtype.hasobject:
        found += [x.tolist(), x.dtype, x.strides, x.flags.writeable]
    elif isinstance(x, (bytearray, memoryview, array.array)):
        found.append(bytes(x))
    elif isinstance(x, (dict, types.MappingProxyType)):
        items = collections.OrderedDict.items if isinstance(x, collections.OrderedDict) else dict.items
        items = items(x) if isinstance(x, dict) else x.items()
        found += [(see(k, known), see(v, known)) for k, v in items]
    elif isinstance(x, (list, tuple, collections.deque, np.ndarray)):
        found += [see(y, known) for y in (list.__iter__(x) if isinstance(x, list) else x)]
    elif isinstance(x, BaseException):
        found.append(see(x.args, known))
    elif isinstance(x, functools.partial):
        found.append(see(x.keywords["key"].__self__, known))
    elif isinstance(x, types.BuiltinFunctionType):
        found.append(see(x.__self__, known))
    elif isinstance(x, (weakref.ref, slice)):
        found.append(see(x() if isinstance(x, weakref.ref) else x.start, known))
    attributes = {} if isinstance(x, (types.FunctionType, type(x).__class__, *SILENT)) else vars_of(x)
    return found + [(k, see(v, known)) for k, v in attributes.items() if not k.startswith("_")]


#: their attributes are what they hold, or nothing of theirs
SILENT = (dg.Tensor, np.ma.MaskedArray, Itself, BaseException, functools.partial)


def vars_of(x):
    return dict(getattr(x, "__dict__", {}))


def change(x, k):
    """What a caller does to it."""
    if isinstance(x, (tuple, list)) and not isinstance(x, Rows):
        change(x[0], k)
    elif isinstance(x, dict):
        dict.__setitem__(x, f"k{k}", k)
    elif isinstance(x, collections.deque):
        x.append(k)
    elif isinstance(x, (bytearray, array.array)):
        x[0] = k + 5
    elif isinstance(x, np.ndarray) and x.flags.writeable and x.dtype.kind == "f":
        x += k + 1
    elif isinstance(x, types.BuiltinFunctionType):
        x(k)
    elif hasattr(x, "__next__"):
        return next(x)
    elif hasattr(x, "__dict__") and not isinstance(x, np.ndarray):
        setattr(x, f"k{k}", k)
    return None


def results(make, mode):
    x, known, found = dg.tensor([1.0, 2.0]), {}, []
    f = dg.function(lambda x: (make(x), x * 2), mode=mode)
    for k in range(4):
        made = f(x)[0]
        found += [see(made, known), change(made, k)]
    return found


def state(make, mode):
    x, log, found = dg.tensor([1.0, 2.0]), [], []
    self = Weakly()

    def fn(x):
        self.last = make(x)
        log.append(self.last)
        return x * 2

    f = dg.function(fn, mode=mode)
    for _ in range(4):
        f(x)
        found.append(see([self.last, log], {}))
    return found


@pytest.mark.parametrize("run", [results, state])
@pytest.mark.parametrize("kind", MAKERS)
def test_both_modes_make_it_anew(kind, run):
    assert run(MAKERS[kind], "graph") == run(MAKERS[kind], "eager")


@pytest.mark.parametrize(
    "kind", ["counter", "ordered", "default", "list_of_a_class", "namespace", "ndarray_views"]
)
def test_a_graph_makes_it(kind):
    f = dg.function(lambda x: (MAKERS[kind](x), x * 2))
    for _ in range(3):
        f(dg.tensor([1.0, 2.0]))
    assert "Python" not in f.explain()


def test_views_of_an_array_from_outside_look_into_it():
    a = np.arange(4.0)

    def fn(x):
        return a[1:], x * 2

    for mode in ("eager", "graph"):
        f = dg.function(fn, mode=mode)
        for _ in range(3):
            view = f(dg.tensor([1.0]))[0]
            assert np.shares_memory(view, a)
            assert view.tolist() == a[1:].tolist()
            a += 1


def test_a_tuple_that_holds_itself_is_made_once():
    def fn(x):
        t = (x * 2, [])
        t[1].append(t)
        return t

    f = dg.function(fn)
    for _ in range(3):
        t = f(dg.tensor([1.0]))
        assert t[1][0] is t


@pytest.mark.parametrize("base", [list, tuple, set, frozenset, collections.deque])
def test_methods_of_a_container_run_when_the_function_calls_them_alone(base):
    class Counted(base):
        walks = sizes = 0
        __hash__ = base.__hash__

        def __iter__(self):
            self.walks += 1
            return super().__iter__()

        def __len__(self):
            self.sizes += 1
            return super().__len__()

    def run(mode, fn):
        c = Counted([1, 2])
        state = types.SimpleNamespace(c=c, n=0)
        f = dg.function(lambda x: fn(state, x), mode=mode)
        found = []
        for _ in range(4):
            f(dg.tensor([1.0]))
            found.append((c.walks, c.sizes))
        return found

    def kept(m, x):
        m.other, m.n = m.c, m.n + 1
        return x * m.n

    asked = (
        lambda m, x: (x * 1, m.c is m),
        lambda m, x: [v * x for v in m.c],
        lambda m, x: x * len(m.c),
        lambda m, x: x * (1 in m.c),
        lambda m, x: x * sum(m.c),
        lambda m, x: (m.c, x * 1),
        lambda m, x: (str(m.c), x * 1),
        lambda m, x: (m.c == m.c, x * 1),
        lambda m, x: x * 1 if m.c else x * 2,
        kept,
    )
    for fn in asked:
        assert run("graph", fn) == run("eager", fn)


@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam", "RMSprop", "Adagrad", "Lion"])
@pytest.mark.parametrize("kept", [False, True])
def test_settings_of_an_optimiser_that_a_function_makes_change_in_the_function(name, kept):
    """A graph had the last ones for all of its steps."""

    def run(mode):
        w, made = dg.nn.Parameter(dg.ones(2)), []

        def step(x):
            opt = getattr(dg.optim, name)([w], lr=0.1)
            schedule = dg.optim.lr_scheduler.MultiStepLR(opt, [1, 3], 0.1)
            for _ in range(2):
                opt.zero_grad()
                ((w * x) ** 2).sum().backward()
                opt.step()
                schedule.step()
            opt.param_groups[0]["weight_decay"] = 0.5
            if "betas" in opt.param_groups[0]:
                opt.param_groups[0]["betas"] = (0.5, 0.6)
            opt.step()
            if kept:
                made[:] = [opt]
            return w * 2

        f = dg.function(step, mode=mode)
        return [f(dg.ones(2) * k).tolist() for k in (1, 2, 3)]

    assert run("graph") == run("eager")


def test_one_object_in_two_places_stays_one():
    kept = types.SimpleNamespace()

    @dg.function
    def f(x):
        row = [x * 2]
        kept.row = row
        return row, {"row": row}

    a, b = f(dg.ones((2,)))
    assert a is b["row"] is kept.row
    c, _ = f(dg.ones((2,)))
    assert c is not a
    assert kept.row is c


def test_an_object_with_slots_whose_class_gets_an_answer_to_every_name():
    """`__dict__` is a name, too."""

    def told(mode):
        class Slotted:
            __slots__ = ("extra", "items", "n")

            def __init__(self, n):
                self.n, self.items = n, []

        made = Slotted(2)

        def step(x):
            made.items.append(Slotted(0))
            Slotted.__getattr__ = lambda self, name: 3
            made.n = float(x.sum())
            return x * made.n, made.extra

        fn = dg.function(step, mode=mode)
        rows = [(y.tolist(), extra) for y, extra in (fn(dg.ones(2) * k) for k in range(3))]
        return rows, [other.n for other in made.items]

    assert told("graph") == told("eager")
