"""What C code reads out of sight is noticed when it changes: attributes by name, indices, state of the system."""

import collections
import concurrent.futures
import configparser
import contextvars
import copy
import ctypes
import datetime
import decimal
import email.message
import functools
import gzip
import inspect
import io
import itertools
import json
import logging
import multiprocessing
import operator
import os
import pickle
import queue
import random
import string
import threading
import time
import types
import weakref
import zipfile
from typing import NamedTuple
from xml.etree import ElementTree

import duograd as dg
import numpy as np
import pytest
import rich.progress
import safetensors.numpy
from guarded import assert_noticed, guards_of


class Plain:
    def __init__(self, **values):
        self.__dict__.update(values)


class Slotted:
    __slots__ = ("rows",)


class Owner:
    rows = 2.0


class Shown:
    """An attribute that Python code finds."""

    def __init__(self):
        self.kept = 2.0

    @property
    def rows(self):
        return self.kept

    def get(self):
        return self.kept


class Row(NamedTuple):
    o: Plain


class State:
    """What the functions of this file read."""

    def __init__(self):
        self.o, self.p = Plain(rows=2.0, cols=3.0, sub=Plain(rows=5.0), held={"k": 2.0}), Plain(rows=7.0)
        self.objs, self.names, self.index = [self.o], ["rows"], np.array([0])
        self.slotted, self.shown, self.row = Slotted(), Shown(), Row(self.o)
        self.slotted.rows = 2.0
        self.space = types.SimpleNamespace(rows=2.0)
        self.array, self.values = np.array([2.0, 3.0]), [2.0, 3.0]
        self.d = {"a": 2.0}
        self.get_rows = operator.attrgetter("rows")
        self.partial = functools.partial(getattr, self.o)
        self.variable = contextvars.ContextVar("variable", default=2.0)
        self.text, self.lock = io.StringIO("1"), threading.Lock()
        self.weak = weakref.WeakSet(self.objs)
        self.logger = logging.getLogger("duograd.test_guard_unseen")
        self.logger.setLevel(10)
        Owner.rows = 2.0

        def helper(a=2.0, *, b=2.0):
            return self.o

        self.helper = helper


def _bump(path):
    """What adds one to an attribute or item of the state: "o.rows", "values[0]"."""
    return lambda s: exec(f"s.{path} += 1", {"s": s})


def _list_attribute(s):
    first = s.names[0][:2]
    return sum(map(getattr, s.objs, [first + "ws"]))


BY_NAME = {
    "map of getattr": lambda s: next(map(getattr, [s.o], ["rows"])),
    "objects and names from outside": lambda s: sum(map(getattr, s.objs, s.names)),
    "objects of a generator": lambda s: sum(map(getattr, (v for v in s.objs), s.names)),
    "names of a generator": lambda s: sum(map(getattr, s.objs, (n for n in s.names))),
    "names that are put together": _list_attribute,
    "repeat": lambda s: sum(map(getattr, (s.p, s.o), itertools.repeat("rows"))),
    "zip": lambda s: sum(map(getattr, *zip(*[(s.o, "rows")], strict=True))),
    "starmap": lambda s: next(itertools.starmap(getattr, [(s.o, "rows")])),
    "attrgetter": lambda s: sum(map(s.get_rows, s.objs)),
    "attrgetter of a made name": lambda s: next(map(operator.attrgetter(s.names[0][:2] + "ws"), s.objs)),
    "attrgetter of a generator": lambda s: sorted(map(operator.attrgetter("rows"), (v for v in s.objs)))[0],
    "attrgetter of a dict's values": lambda s: sum(map(s.get_rows, {"k": s.o}.values())),
    "attrgetter in a filter": lambda s: 1.0 + len(list(filter(lambda v: v > 2.5, map(s.get_rows, s.objs)))),
    "sort": lambda s: (row := [s.o, Plain(rows=2.5)], row.sort(key=s.get_rows))[0][0].rows,
    "partial": lambda s: functools.partial(getattr, s.o)("rows"),
    "partial from outside": lambda s: sum(map(s.partial, ["rows"])),
    "partial of an attrgetter": lambda s: functools.partial(operator.attrgetter("rows"), s.o)(),
    "method of a C function": lambda s: types.MethodType(getattr, s.o)("rows"),
    "methodcaller": lambda s: operator.methodcaller("__getattribute__", "rows")(s.o),
    "__getattribute__": lambda s: sum(map(s.o.__getattribute__, ["rows"])),
    "object.__getattribute__": lambda s: sum(map(object.__getattribute__, [s.o], ["rows"])),
    "vars": lambda s: next(map(vars, s.objs))["rows"],
    "vars in json": lambda s: json.loads(json.dumps([Plain(rows=s.o.rows), s.p], default=vars))[0]["rows"],
    "vectorize": lambda s: float(np.vectorize(s.get_rows)([s.o])[0]),
    "format": lambda s: float("{0.rows}".format(s.o)),  # noqa: UP030, UP032
    "format by name": lambda s: float("{v.rows}".format(v=s.o)),  # noqa: UP032
    "format_map": lambda s: float("{v.rows}".format_map({"v": s.o})),
    "format in a map": lambda s: float(next(map("{0.rows}".format, s.objs))),
    "format of an item": lambda s: float("{0[0].rows}".format(s.objs)),  # noqa: UP030, UP032
    "width": lambda s: 1.0 + "{0:{1.rows}f}".format(1.0, Plain(rows=int(s.o.rows) + 8)).count(" "),
    "text that is put together": lambda s: float("".join(["{0", ".rows}"]).format(s.o)),
    "str.format": lambda s: float(str.format("{0.rows}", s.o)),
    "Formatter": lambda s: float(string.Formatter().format("{0.rows}", s.o)),
    "getattr_static": lambda s: inspect.getattr_static(s.o, "rows"),
    "pickle": lambda s: pickle.loads(pickle.dumps(s.o)).rows,
    "locals": lambda s: (lambda q: locals()["q"].rows)(s.o),
    "a dict's item": lambda s: dict(k=s.o)["k"].rows,  # noqa: C408
    "a slice": lambda s: s.objs[:1][0].rows,
    "__getitem__": lambda s: s.objs.__getitem__(0).rows,
    "accumulate": lambda s: next(itertools.accumulate([s.o], max)).rows,
    "a weak reference": lambda s: weakref.ref(s.o)().rows,
    "a named tuple": lambda s: s.row.o.rows,
    "_replace": lambda s: s.row._replace().o.rows,
    "a closure's cell": lambda s: s.helper.__closure__[0].cell_contents.o.rows,
}  # fmt: skip
OTHERS = {
    "a chain of names": ("o.sub.rows", lambda s: functools.reduce(getattr, ["sub", "rows"], s.o)),
    "a path": ("o.sub.rows", lambda s: functools.reduce(getattr, "sub.rows".split("."), s.o)),
    "format of a path": ("o.sub.rows", lambda s: float("{0.sub.rows}".format(s.o))),  # noqa: UP030, UP032
    "format of what an object holds": ("o.held['k']", lambda s: float("{0.held[k]}".format(s.o))),  # noqa: UP030, UP032
    "slots": ("slotted.rows", lambda s: sum(map(getattr, [s.slotted], ["rows"]))),
    "a slot's descriptor": ("slotted.rows", lambda s: Slotted.rows.__get__(s.slotted)),
    "a slot's descriptor in a map": ("slotted.rows", lambda s: sum(map(Slotted.rows.__get__, [s.slotted]))),
    "copied slots": ("slotted.rows", lambda s: copy.copy(s.slotted).rows),
    "deeply copied slots": ("slotted.rows", lambda s: copy.deepcopy(s.slotted).rows),
    "a property": ("shown.kept", lambda s: sum(map(getattr, [s.shown], ["rows"]))),
    "a method": ("shown.kept", lambda s: sum(map(operator.methodcaller("get"), [s.shown]))),
    "a class": ("__class__.owner.rows", lambda s: sum(map(getattr, [Owner], ["rows"]))),
    "an object of a class": ("__class__.owner.rows", lambda s: sum(map(getattr, [Owner()], ["rows"]))),
    "a class's __dict__": ("__class__.owner.rows", lambda s: Owner.__dict__["rows"]),
    "a class's vars": ("__class__.owner.rows", lambda s: vars(Owner).get("rows")),
    "a namespace compared": ("space.rows", lambda s: 1.0 + (s.space == types.SimpleNamespace(rows=2.0))),
    "a namespace among others": ("space.rows", lambda s: 1.0 + (s.space in [types.SimpleNamespace(rows=2.0)])),
    "a namespace in words": ("space.rows", lambda s: float(f"{[s.space]}"[-5:-2])),
    "a namespace's repr": ("space.rows", lambda s: float(repr(s.space)[-4:-1])),
    "an index array": ("index[0]", lambda s: np.array([1.0, 2.0, 3.0])[s.index][0]),
    "an index array of a tensor": ("index[0]", lambda s: dg.tensor([1.0, 2.0, 3.0])[s.index]),
    "an index among others": ("index[0]", lambda s: np.array([[1.0, 2.0, 3.0]])[:, s.index][0, 0]),
    "an array with a sign": ("array[0]", lambda s: float((-s.array)[0])),
    "default arguments": ("helper.__kwdefaults__['b']", lambda s: s.helper.__kwdefaults__["b"]),
    "precision": ("__class__.context().prec", lambda s: decimal.getcontext().prec),
}  # fmt: skip
State.owner, State.context = Owner, staticmethod(decimal.getcontext)


def _renew_defaults(s):
    s.helper.__defaults__ = (s.helper.__defaults__[0] + 1,)


def _toggle(s):
    return s.lock.acquire(blocking=False) or s.lock.release()


SYSTEM = {
    "default": (_renew_defaults, lambda s: s.helper.__defaults__[0]),
    "dir": (lambda s: setattr(s.o, "new", 1), lambda s: 1.0 + ("new" in dir(s.o))),
    "hasattr": (lambda s: setattr(s.o, "new", 1), lambda s: 1.0 + any(map(hasattr, s.objs, ["new"]))),
    "a context variable": (
        lambda s: s.variable.set(s.variable.get() + 1),
        lambda s: sum(map(contextvars.ContextVar.get, [s.variable])),
    ),
    "a context": (
        lambda s: s.variable.set(s.variable.get() + 1),
        lambda s: contextvars.copy_context().get(s.variable, 2.0),
    ),
    "a text in memory": (lambda s: s.text.write("11"), lambda s: float(s.text.getvalue())),
    "a lock": (_toggle, lambda s: 1.0 + s.lock.locked()),
    "a weak set": (lambda s: s.weak.clear(), lambda s: 1.0 + (s.o in s.weak)),
    "how many are in a weak set": (lambda s: s.weak.clear(), lambda s: 1.0 + len(s.weak)),
    "the folder": (lambda s: os.chdir("/"), lambda s: float(len(os.getcwd()))),
    "the environment": (
        lambda s: os.environ.__setitem__("DUOGRAD_TEST", "22"),
        lambda s: float(len(os.path.expandvars("$DUOGRAD_TEST"))),
    ),
    "a logger": (lambda s: s.logger.setLevel(50), lambda s: logging.getLogger(s.logger.name).level),
    "whether a logger speaks": (lambda s: s.logger.setLevel(50), lambda s: 1.0 + s.logger.isEnabledFor(20)),
}  # fmt: skip


def _assert_noticed_in_graph_mode(read, change):
    """A function gives what eager mode gives, also after what it reads has changed."""
    state = State()

    def body(x):
        return x * read(state)

    f, x = dg.function(body), dg.tensor([1.0, 2.0])
    seen = []
    for _ in range(2):
        for _ in range(2):
            seen.append(f.eager(x).tolist())
            assert f(x).tolist() == seen[-1]
        change(state)
    assert seen[0] != seen[-1]


@pytest.mark.parametrize("name", BY_NAME)
def test_an_attribute_that_c_code_looks_up(name):
    _assert_noticed_in_graph_mode(BY_NAME[name], _bump("o.rows"))


@pytest.mark.parametrize("name", OTHERS)
def test_what_c_code_finds(name):
    path, read = OTHERS[name]
    with decimal.localcontext():
        _assert_noticed_in_graph_mode(read, _bump(path))


@pytest.mark.parametrize("name", SYSTEM)
def test_state_that_c_code_has(name, monkeypatch):
    change, read = SYSTEM[name]
    monkeypatch.chdir(os.path.dirname(__file__))
    monkeypatch.setenv("DUOGRAD_TEST", "1")
    contextvars.copy_context().run(_assert_noticed_in_graph_mode, read, change)


def test_what_is_looked_up_by_name_has_guards():
    state = State()
    guards = guards_of(lambda: sum(map(getattr, state.objs, state.names)))
    state.o.cols = 9.0
    assert guards.check()
    state.o.rows = 4.0
    assert_noticed(guards, "rows was 2.0, now 4.0")


def test_objects_that_cannot_be_seen_are_left_to_python():
    state = State()
    f = dg.function(lambda x: x * sum(map(getattr, (v for v in state.objs), state.names)))
    f(dg.tensor([1.0]))
    assert "looks up rows in objects that cannot be seen" in str(f.explain())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: next(map(random.uniform, [1.0], [2.0])),
        lambda: sum(map(operator.methodcaller("__call__"), [random.random])),
        lambda: functools.partial(random.uniform, 1.0, 2.0)(),
        lambda: collections.deque(map(random.uniform, [1.0], [2.0])).pop(),
    ],
)  # fmt: skip
def test_random_numbers_that_c_code_draws(draw):
    f, x = dg.function(lambda x: x * draw()), dg.tensor([1.0])
    assert len({f(x).item() for _ in range(4)}) == 4


named = operator.methodcaller("random")
#: each gives another value at every call; s: generators, all seeded
DRAWN = {
    "by a method's name": lambda s: operator.methodcaller("random")(random),
    "by a kept method's name": lambda s: named(random),
    "of a generator by a method's name": lambda s: operator.methodcaller("normal")(s.rng),
    "of NumPy by a method's name": lambda s: operator.methodcaller("rand")(np.random),
    "of what is imported": lambda s: __import__("numpy").random.rand(),
    "of a module by its name": lambda s: getattr(__import__("numpy.random").random, s.word)(),
    "by an attrgetter": lambda s: operator.attrgetter("random.rand")(np)(),
    "by what a dict holds": lambda s: {"a": np.random.rand}["a"](),
    "by an index": lambda s: (np.random.rand, np.random.randn)[len(s.log) % 1](),
    "by its __call__": lambda s: random.random.__call__(),
    "of bits": lambda s: s.rng.bit_generator.random_raw() % 1000,
    "by its class": lambda s: type(s.rng).random(s.rng),
    "by Python's class": lambda s: random.Random.random(s.python),
    "by NumPy's older class": lambda s: np.random.RandomState.rand(s.old),
    "by a key": lambda s: max([s.rng, s.rng], key=operator.methodcaller("random")).random(),
    "into an array": lambda s: operator.methodcaller("random", out=np.empty(3))(s.rng)[1],
    "by a permutation": lambda s: operator.methodcaller("permutation", 10)(s.rng)[0],
    "by a library": lambda s: np.random.mtrand.__dict__["rand"](),
}
ANYWHERE = {
    "of the system": lambda s: np.random.default_rng().random(),
    "of the system, said": lambda s: np.random.default_rng(None).random(),
    "of bits of the system": lambda s: np.random.Generator(np.random.PCG64()).random(),
    "of an older one": lambda s: np.random.RandomState().rand(),
    "of a sequence": lambda s: np.random.default_rng(np.random.SeedSequence()).random(),
    "of children": lambda s: s.rng.spawn(1)[0].random(),
    "a clock": lambda s: operator.methodcaller("perf_counter")(time),
    "a date": lambda s: operator.methodcaller("now")(datetime.datetime).timestamp(),
    "a clock's __call__": lambda s: time.perf_counter.__call__(),
}


def drawn(draw, mode):
    s = State()
    random.seed(0), np.random.seed(0)
    s.rng, s.python, s.old = np.random.default_rng(0), random.Random(0), np.random.RandomState(0)
    s.log, s.word = [], "rand"
    f, x = dg.function(lambda x: x * draw(s), mode=mode), dg.ones(1, dtype="float64")
    return [f(x).item() for _ in range(4)]


@pytest.mark.parametrize("name", DRAWN)
def test_random_numbers_however_they_are_found(name):
    """That of the trace was repeated at every call."""
    assert drawn(DRAWN[name], "graph") == drawn(DRAWN[name], "eager")


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_is_another_value_each_time(name):
    assert len(set(drawn(ANYWHERE[name], "graph"))) == 4


def test_generators_with_a_seed_of_their_own():
    f = dg.function(lambda x: x * np.random.default_rng(3).random() + random.Random(3).random())
    x = dg.ones(1, dtype="float64")
    assert {f(x).item() for _ in range(3)} == {f.eager(x).item()}


def test_random_numbers_of_another_library():
    torch = pytest.importorskip("torch")
    found = []
    for mode in ("eager", "graph"):
        torch.manual_seed(0)
        f = dg.function(lambda x: x * torch.rand(1).item(), mode=mode)
        found.append([f(dg.ones(1, dtype="float64")).item() for _ in range(4)])
    assert found[0] == found[1]


#: f: a file of the user's; each writes it, and what is there is deleted between calls
FILES = {
    "an array": lambda f: np.save(f, np.arange(3)),
    "arrays": lambda f: np.savez(f, a=np.arange(3)),
    "a text": lambda f: np.savetxt(f, np.arange(3)),
    "its bytes": lambda f: np.arange(3).tofile(f),
    "its pickle": lambda f: np.arange(3).dump(f),
    "a map of it": lambda f: np.memmap(f, mode="w+", shape=(3,)),
    "an open map": lambda f: np.lib.format.open_memmap(f, mode="w+", shape=(3,)),
    "an archive": lambda f: zipfile.ZipFile(f, "w").writestr("a", "b"),
    "compressed bytes": lambda f: gzip.GzipFile(f, "wb").write(b"a"),
    "tensors of others": lambda f: safetensors.numpy.save_file({"a": np.arange(3)}, f),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_c_code_writes_is_written_at_every_call(name, tmp_path):
    """It was while the function was traced, and not again."""

    @dg.function
    def f(x):
        FILES[name](str(tmp_path / "f"))
        return x * 2

    for k in range(3):
        assert f(dg.ones(1) * k).item() == 2 * k
        (found,) = tmp_path.iterdir()
        found.unlink()


@pytest.mark.parametrize("read", [np.loadtxt, np.genfromtxt, lambda f: np.fromfile(f, sep=" ")[0]])
def test_a_file_that_numpy_reads_is_read_at_every_call(read, tmp_path):
    file = tmp_path / "f"
    f = dg.function(lambda x: x * float(read(str(file))))
    for k in range(3):
        file.write_text(str(k))
        assert f(dg.ones(1)).item() == k


def test_objects_of_packages_that_are_not_watched_change_at_every_call():
    """A progress bar stood still."""
    bar = rich.progress.Progress(disable=True)
    task = bar.add_task("steps", total=9)

    @dg.function
    def f(x):
        bar.update(task, advance=1)
        return x * 2

    for k in range(4):
        f(dg.ones(1))
        assert bar.tasks[0].completed == k + 1
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    f = dg.function(lambda x: x * scaler.partial_fit(np.ones((1, 2))).n_samples_seen_)
    assert [f(dg.ones(1)).item() for _ in range(3)] == [1, 2, 3]


def test_an_error_that_a_random_number_raises():
    """It was raised again and again, for the number of the trace was put back."""

    def run(mode):
        random.seed(2)

        @dg.function(mode=mode)
        def f(x):
            if named(random) > 0.5:
                raise ValueError
            return x * 2

        found = []
        for _ in range(8):
            try:
                found.append(f(dg.ones(1)).item())
            except ValueError:
                found.append("error")
        return found

    assert run("graph") == run("eager")
    assert len(set(run("eager"))) == 2


def test_a_level_that_is_lowered_lets_a_logger_speak():
    heard = []
    state = State()
    handler = logging.Handler()
    handler.emit = heard.append
    state.logger.addHandler(handler)
    state.logger.setLevel(30)

    @dg.function
    def f(x):
        state.logger.info("called")
        return x * 2

    x = dg.tensor([1.0])
    try:
        f(x), f(x)
        assert not heard
        state.logger.setLevel(10)
        f(x), f(x)
        assert len(heard) == 2
    finally:
        state.logger.removeHandler(handler)


def test_what_is_written_to_a_file_is_written_at_every_call():
    text = io.StringIO()

    @dg.function
    def f(x):
        print("called", file=text)
        return x * 2

    f(dg.ones(2)), f(dg.ones(2))
    assert text.getvalue() == "called\ncalled\n"


WRITTEN = {
    "a map of setattr": lambda s: list(map(setattr, s.objs, s.names, [s.o.rows + 1])),
    "a partial": lambda s: functools.partial(setattr, s.o, "rows")(s.o.rows + 1),
    "a partial in a map": lambda s: list(map(functools.partial(setattr, s.o, "rows"), [s.o.rows + 1])),
    "__setattr__": lambda s: list(map(s.o.__setattr__, ["rows"], [s.o.rows + 1])),
    "object.__setattr__": lambda s: list(map(object.__setattr__, [s.o], ["rows"], [s.o.rows + 1])),
    "a methodcaller": lambda s: operator.methodcaller("__setattr__", "rows", s.o.rows + 1)(s.o),
    "starmap": lambda s: list(itertools.starmap(setattr, [(s.o, "rows", s.o.rows + 1)])),
    "a class": lambda s: type.__setattr__(Owner, "rows", Owner.rows + 1),
    "a class in a map": lambda s: list(map(setattr, [Owner], ["rows"], [Owner.rows + 1])),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_attribute_that_c_code_writes_is_written_at_every_call(name):
    state = State()

    @dg.function
    def f(x):
        WRITTEN[name](state)
        return x * 2

    x = dg.tensor([1.0, 2.0])
    for k in range(1, 4):
        assert f(x).tolist() == [2.0, 4.0]
        assert max(state.o.rows, Owner.rows) == 2.0 + k


class Begun(threading.Thread):
    def __init__(self, log):
        super().__init__()
        self.log = log

    def run(self):
        self.log.append(len(self.log))


def _in_thread(run):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


#: what a call does with a log, an object of each kind that has memory of its own, and a tensor
DONE = {
    "a thread": lambda s, x: _in_thread(lambda: s.log.append(len(s.log))) or x * len(s.log),
    "a thread of a class": lambda s, x: s.log.append(0) or ([t := Begun(s.log), t.start(), t.join()] and x),
    "a thread computes": lambda s, x: _in_thread(lambda: s.log.append(x * 2)) or s.log[-1] * 1,
    "a pool": lambda s, x: x * sum(s.pool.map(lambda k: s.log.append(k) or k, [1, 2])),
    "a queue": lambda s, x: s.queue.put(1) or x * 2,
    "a queue of C": lambda s, x: s.simple.put(1) or x * 2,
    "an event": lambda s, x: s.event.clear() or x if s.event.is_set() else s.event.set() or x * 2,
    "a semaphore": lambda s, x: x * s.semaphore.acquire(),
    "an attribute of the thread": lambda s, x: setattr(s.local, "n", s.local.n + 1) or x * s.local.n,
    "a memory view": lambda s, x: s.view.__setitem__(0, s.view[0] + 1) or x * s.view[0],
    "memory of ctypes": lambda s, x: setattr(s.number, "value", s.number.value + 1) or x * s.number.value,
}


@pytest.mark.parametrize("name", DONE)
def test_what_others_see_is_done_at_every_call(name):
    def run(mode):
        s = types.SimpleNamespace(
            log=[], pool=concurrent.futures.ThreadPoolExecutor(1), queue=queue.Queue(), simple=queue.SimpleQueue(),
            event=threading.Event(), semaphore=threading.Semaphore(9), local=threading.local(),
            view=memoryview(bytearray(2)), number=ctypes.c_int(0),
        )  # fmt: skip
        s.local.n = 0
        f, got = dg.function(lambda x: DONE[name](s, x), mode=mode), []
        for _ in range(4):
            got.append(f(dg.tensor([1.0, 2.0])).tolist())
            got.append([v.tolist() if isinstance(v, dg.Tensor) else v for v in s.log])
            got.append((s.queue.qsize(), s.simple.qsize(), s.event.is_set(), s.semaphore._value))
            got.append((vars(s.local).copy(), bytes(s.view), s.number.value))
        s.pool.shutdown()
        return got

    assert run("graph") == run("eager")


def test_an_attribute_of_a_thread_is_deleted_and_each_thread_has_its_own():
    def run(mode):
        local, got = threading.local(), []

        def fn(x):
            local.n = getattr(local, "n", 0) + 1
            if hasattr(local, "once"):
                del local.once
            return x * local.n

        f = dg.function(fn, mode=mode)

        def calls():
            for k in range(4):
                if k % 2:
                    local.once = k
                got.append((f(dg.ones(1)).item(), dict(vars(local))))

        calls()
        _in_thread(calls)
        calls()
        return got

    assert run("graph") == run("eager")


def _dropping(log):
    class Kept:
        def __init__(self, n):
            self.n = n

        def __del__(self):
            log.append(self.n)

    def f(x, n):
        first, second = Kept(n), [kind(n) for kind in (Kept,)]
        del first
        return x * second[0].n

    return f


def test_an_object_with_a_del_of_its_own_goes_at_every_call():
    logs, results = ([], []), ([], [])
    for log, row, mode in zip(logs, results, ("eager", "graph")):
        f = dg.function(_dropping(log), mode=mode)
        row += [f(dg.ones(1), n).item() for n in (1, 2, 3, 1, 2.5, 4)]
    assert logs[0] == logs[1]
    assert results[0] == results[1]


SETTINGS = configparser.ConfigParser()
ELEMENT = ElementTree.Element("a")
SHARED, ROW = multiprocessing.Value("d", 2.0), multiprocessing.Array("d", [2.0])
MESSAGE = email.message.Message()
#: what the standard library keeps for its users
KEPT = {
    "a file of settings": lambda: SETTINGS.getfloat("train", "rate"),
    "its sections": lambda: float(SETTINGS["train"]["rate"]),
    "an attribute of an element": lambda: float(ELEMENT.get("rate")),
    "attributes of an element": lambda: float(ELEMENT.attrib["rate"]),
    "the text of an element": lambda: float(ELEMENT.text),
    "a number of processes": lambda: SHARED.value,
    "an array of processes": lambda: ROW[0],
    "a part of it": lambda: ROW[:][0],
    "a message": lambda: float(MESSAGE["rate"]),
}


@pytest.mark.parametrize("which", KEPT)
def test_what_the_standard_library_keeps_does_not_stand_still(which):
    read = KEPT[which]
    fn = dg.function(lambda x: x * read())
    for value in (2.0, 3.0, 4.0, 2.0):
        SETTINGS.read_dict({"train": {"rate": str(value)}})
        ELEMENT.set("rate", str(value))
        ELEMENT.text, SHARED.value, ROW[0] = str(value), value, value
        del MESSAGE["rate"]
        MESSAGE["rate"] = str(value)
        assert fn(dg.ones(())).item() == value
    if "settings" in which or "sections" in which:
        assert fn.variants  # these are watched
