"""A NumPy array given to a `@dg.function` is a tensor over its memory, whichever way the function runs."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any, NamedTuple

import duograd as dg
import numpy as np
import pytest
from duograd.core.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Sample:
    x: Any
    n: int = 1


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: Any


class Pair(NamedTuple):
    a: Any
    b: Any


def arr(*values):
    return np.array(values or (1.0, 2.0, 3.0))


def kind(x):
    if isinstance(x, (list, tuple)):
        return type(x).__name__, [kind(v) for v in x]
    if isinstance(x, dict):
        return {k: kind(v) for k, v in x.items()}
    return kind(x.x) if isinstance(x, (Sample, Slotted)) else type(x).__name__


# ---- ways to be called


def left(f):
    """As a function that no graph holds."""

    def opens(*args, **kwargs):
        with open("/dev/null") as file:
            file.read()
        return f(*args, **kwargs)

    return dg.function(opens)


def checked(f):
    g = dg.function(f)
    g._checks = True
    return g


def in_mode(f):
    g = dg.function(f)

    def call(*args, **kwargs):
        with dg.mode("eager"):
            return g(*args, **kwargs)

    return call


def inlined(f):
    """Within another graph, which has the arrays from its closure."""
    inner = dg.function(f)

    def call(*args, **kwargs):
        return dg.function(lambda: inner(*args, **kwargs))()

    return call


WAYS = {
    "mode": lambda f: dg.function(f, mode="eager"),
    "eager": lambda f: dg.function(f).eager,
    "with": in_mode,
    "graph": lambda f: dg.function(f),
    "by name": lambda f: dg.function(f).graph,
    "left": left,
    "background": lambda f: dg.function(f, compile="background"),
    "checked": checked,
    "inlined": inlined,
    "inlined eager": lambda f: inlined(dg.function(f, mode="eager")),
}


# ---- kinds of arguments: the function, its arguments; the result, and what the arguments hold afterwards


def see(*args):
    return kind(args)


def pops(batch):
    x = batch.pop("x")
    batch["z"] = x * 2
    batch["y2"] = batch["y"]
    return x.sum() + batch["y"].sum()


def logs(log, a):
    log.append(a)
    log.append(a + 1)
    return a.sum()


def grows(a):
    a += 1
    return a * 2


def puts(a):
    a[0] = 7
    return a.sum()


def both(a, b):
    a += 1
    return a is b, b.sum()


def twice(a, b):
    a["x"] = a["x"] + 1
    return a is b, b["x"].sum()


def views(a, b, c):
    a[1] = 10
    c *= 2
    return a.sum() + b.sum() * 3 + c.sum() * 5


def overlapping():
    a = arr()
    return a, a[1:], a[::-1]


def with_tensor():
    x = dg.tensor([1.0, 2.0, 3.0])
    return x, np.asarray(x)[1:], np.asarray(x)[::-1]


def again(a):
    return a[0] if isinstance(a, tuple) else a


ROWS: dict[str, tuple[Any, Any]] = {
    "type": (see, lambda: (arr(), 1, np.float32(2), arr(1, 2).astype(np.int16), np.array(True))),
    "list": (see, lambda: ([arr(), 1, arr()],)),
    "dict": (see, lambda: ({"x": arr(), "n": 1, "deep": [{"y": arr()}]},)),
    "tuple": (see, lambda: ((arr(), (arr(), [arr()])), Pair(arr(), 2))),
    "dataclass": (see, lambda: (Sample(arr()), Slotted([arr()]), Sample(Sample((arr(), 1))))),
    "tuple in a list": (see, lambda: ([(arr(), 1), Pair(1, arr())],)),
    "texts": (see, lambda: (np.array(["a", "b"]), [np.array(["a"])])),
    "other bytes": (see, lambda: (arr().astype(">f8"), np.zeros(3, "u1,f4")["f1"])),
    "arithmetic": (lambda a, w: w + a[0] + a.max(), lambda: (arr(), dg.ones(4))),
    "in place": (grows, lambda: (arr(),)),
    "element": (puts, lambda: (arr(),)),
    "element of a column": (puts, lambda: (np.zeros((3, 3))[:, 1],)),
    "in a list, in place": (lambda row: grows(row[0]), lambda: ([arr()],)),
    "in a tuple, in place": (lambda row: grows(row[0]), lambda: ((arr(), 1),)),
    "in a dataclass, in place": (lambda row: grows(row.x), lambda: (Sample(arr()),)),
    "popped": (pops, lambda: ({"x": arr(), "y": arr(4.0)},)),
    "appended": (logs, lambda: ([], arr())),
    "appended to arrays": (logs, lambda: ([arr()], arr())),
    "one twice": (both, lambda: (arr(),) * 2),
    "one in lists": (lambda a, b: both(a[0], b[0]), lambda: tuple([x] for x in (arr(),) * 2)),
    "one dict twice": (twice, lambda: ({"x": arr()},) * 2),
    "views": (views, overlapping),
    "views in a list": (lambda row: views(*row), lambda: ([*overlapping()],)),
    "memory of a tensor": (views, with_tensor),
    "handed back": (again, lambda: (arr(),)),
    "handed back in a tuple": (lambda t: (t, t[0]), lambda: ((arr(), 1),)),
    "the container": (lambda d: d, lambda: ({"x": arr()},)),
}


def plain(x):
    """Values with their types, to compare."""
    if isinstance(x, (list, tuple)):
        return type(x).__name__, [plain(v) for v in x]
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, (Sample, Slotted)):
        return type(x).__name__, plain(x.x)
    if isinstance(x, (np.ndarray, dg.Tensor)):
        return type(x).__name__, str(x.dtype), np.asarray(x).tolist()
    return x


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS)
def test_every_way_gives_the_same(row, way):
    f, make = ROWS[row]
    want_call, call = dg.function(f, mode="eager"), WAYS[way](f)
    for _ in range(4):
        want_args, args = make(), make()
        want = plain(want_call(*want_args))
        assert plain(call(*args)) == want
        assert plain(args) == plain(want_args)


SEEN = {
    "type": ("tuple", ["Tensor", "int", "float32", "Tensor", "Tensor"]),
    "list": ("tuple", [("list", ["Tensor", "int", "Tensor"])]),
    "dict": ("tuple", [{"x": "Tensor", "n": "int", "deep": ("list", [{"y": "Tensor"}])}]),
    "tuple": ("tuple", [
        ("tuple", ["Tensor", ("tuple", ["Tensor", ("list", ["Tensor"])])]), ("Pair", ["Tensor", "int"]),
    ]),
    "dataclass": ("tuple", ["Tensor", ("list", ["Tensor"]), ("tuple", ["Tensor", "int"])]),
    "tuple in a list": ("tuple", [("list", [("tuple", ["Tensor", "int"]), ("Pair", ["int", "Tensor"])])]),
    "texts": ("tuple", ["ndarray", ("list", ["ndarray"])]),
    "other bytes": ("tuple", ["ndarray", "ndarray"]),
}  # fmt: skip


@pytest.mark.parametrize("row", SEEN)
def test_the_function_sees_tensors(row):
    f, make = ROWS[row]
    assert dg.function(f, mode="eager")(*make()) == SEEN[row]


def holds_tensors(x):
    if isinstance(x, (list, tuple)):
        return any(map(holds_tensors, x))
    if isinstance(x, dict):
        return any(map(holds_tensors, x.values()))
    return holds_tensors(x.x) if isinstance(x, (Sample, Slotted)) else isinstance(x, dg.Tensor)


@pytest.mark.parametrize("way", WAYS)
def test_containers_have_their_arrays_again(way):
    args = (
        [arr(), (arr(), 1)],
        {"x": arr(), "deep": [arr()]},
        Sample((arr(),)),
        Slotted(arr()),
        Pair([arr()], 1),
    )
    before = [args[0][0], args[0][1], args[1]["x"], args[2].x, args[3].x, args[4].a[0]]
    call = WAYS[way](lambda *args: dg.ones(2) * args[1]["x"].sum())
    for _ in range(3):
        call(*args)
        assert not holds_tensors(args)
        now = [args[0][0], args[0][1], args[1]["x"], args[2].x, args[3].x, args[4].a[0]]
        assert all(a is b for a, b in zip(now, before))


@pytest.mark.parametrize("way", ["mode", "graph", "left", "background", "checked"])
def test_containers_have_their_arrays_again_after_an_error(way):
    def f(batch):
        raise ValueError("no")

    batch = {"x": arr()}
    with pytest.raises(ValueError, match="no"):
        WAYS[way](f)(batch)
    assert type(batch["x"]) is np.ndarray


@pytest.mark.parametrize("way", WAYS)
def test_values_are_those_of_the_call(way):
    a = arr()
    call = WAYS[way](lambda a, w: (w * a).sum())
    for k in range(6):
        a[0] = k
        assert call(a, dg.ones(3)).item() == k + 5.0


@pytest.mark.parametrize("way", ["mode", "graph", "left", "checked", "background"])
def test_a_container_that_the_function_finds_by_itself(way):
    state = {"m": arr()}

    def f(given):
        given["m"] = given["m"] * 2
        return state["m"].sum(), kind(state)

    call = WAYS[way](f)
    for k in range(4):
        total, seen = call(state)
        assert (total.item(), seen) == (6.0 * 2 ** (k + 1), {"m": "Tensor"})
        assert isinstance(state["m"], dg.Tensor)


@pytest.mark.parametrize("way", ["mode", "graph", "left"])
def test_keywords_methods_and_defaults(way):
    class Layer:
        def __init__(self):
            self.run = WAYS[way](self.inner)

        def inner(self, a, *rest, b=None, **more):
            return kind([a, *rest, b, *more.values()])

    layer = Layer()
    for _ in range(3):
        assert layer.run(arr(), arr(), b=arr(), c=[arr()]) == (
            "list",
            ["Tensor"] * 3 + [("list", ["Tensor"])],
        )

    def default(a, b=arr()):  # noqa: B008
        return kind([a, b])

    assert WAYS[way](default)(arr()) == ("list", ["Tensor", "ndarray"])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_methods_and_modules(mode):
    class Net(dg.nn.Module):
        def forward(self, x):
            return kind(x), x * 2

        @dg.function(mode=mode)
        def step(self, x):
            return kind(x)

    net = Net()
    for _ in range(3):
        assert net.step(arr()) == "Tensor"
        assert dg.function(net, mode=mode)(arr())[0] == "Tensor"


def test_a_function_with_too_many_variants_sees_tensors_still():
    def f(a, n, w):
        return kind(a), w * len(str(float(w.sum()) + n))

    call = dg.function(f)
    seen = {call(arr(), k * 1.37, dg.ones(2) * k)[0] for k in range(40)}
    assert seen == {"Tensor"}
    assert call._python or any(b.python for b in call._budgets.values())  # it was left to Python


def test_compare_and_bench_give_tensors_in_both_modes():
    def f(a, batch):
        return a.max() + batch["x"].sum(), len(kind([a, batch])[1])

    batch = {"x": arr()}
    assert dg.compare(f, arr(), batch).equal
    assert dg.bench(f, arr(), batch, seconds=0.01).difference == 0
    call = dg.function(f)
    assert call.warmup(arr(), batch)
    assert not call.warmup(arr(), batch)
    call.profile(arr(), batch, seconds=0.01)
    assert type(batch["x"]) is np.ndarray


def test_threads_share_a_container():
    batch, waits = {"x": arr()}, threading.Barrier(2)
    seen = []

    def f(given, n):
        waits.wait(10)
        if n:
            leave.wait(10)
        seen.append(kind(given["x"]))
        return given["x"].sum()

    leave = threading.Event()
    call = dg.function(f, mode="eager")
    threads = [threading.Thread(target=call, args=(batch, n)) for n in range(2)]
    for t in threads:
        t.start()
    threads[0].join()
    assert isinstance(batch["x"], dg.Tensor)
    leave.set()
    threads[1].join()
    assert seen == ["Tensor"] * 2
    assert type(batch["x"]) is np.ndarray


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_many_calls_at_once_share_containers(mode):
    batch, wrong = {"x": np.arange(4.0), "y": [np.ones(4), (np.ones(4), 1)]}, []

    @dg.function(mode=mode)
    def f(b, deep):
        if kind(b) != {"x": "Tensor", "y": ("list", ["Tensor", ("tuple", ["Tensor", "int"])])}:
            wrong.append(kind(b))
        return f(b, deep - 1) if deep else (b["x"] * b["y"][0] + b["y"][1][0]).sum()

    def run():
        for k in range(60):
            if f(batch, k % 3).item() != 10.0:
                wrong.append(k)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert not holds_tensors([batch])


def test_containers_have_their_arrays_again_where_one_cannot_take_tensors():
    @dataclasses.dataclass
    class Odd:
        x: Any

    row, odd = [arr()], Odd(arr())
    Odd.x = property(lambda self: self.__dict__["x"])
    for mode in ("eager", "graph"):
        with pytest.raises(AttributeError):
            dg.function(lambda *args: None, mode=mode)(row, odd)
        assert type(row[0]) is np.ndarray


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_tensor_that_the_function_finds_has_the_memory_of_an_array(mode):
    a = arr()
    t = dg.asarray(a)

    def f(given):
        given += 1
        return t * 2

    call = dg.function(f, mode=mode)
    for k in range(4):
        assert call(a).tolist() == [2 * (v + k + 1) for v in (1.0, 2.0, 3.0)]
        assert call(arr()).tolist() == [2 * (v + k + 1) for v in (1.0, 2.0, 3.0)]


def test_a_graph_calls_a_function_with_an_array_that_changes():
    buf = arr()
    inner = dg.function(lambda a: a * 2)

    def grows():
        buf[0] += 1
        return inner(buf)

    for f in (
        lambda: inner(buf) + 1,
        grows,
        lambda: inner(np.full(3, 2.0)) + 1,
        lambda: inner({"x": buf}["x"]),
    ):
        call = dg.function(f)
        for k in range(4):
            buf[:] = k
            want = np.asarray(f())
            buf[:] = k
            np.testing.assert_array_equal(np.asarray(call()), want)


def test_a_graph_calls_a_function_that_changes_an_array():
    def f():
        local = np.zeros(3)
        inner(local)
        return dg.ones(3) * local.sum()

    @dg.function
    def inner(a):
        a += 1

    buf = np.zeros(3)
    call, outside = dg.function(f), dg.function(lambda w: (inner(buf), w * 2)[1])
    for k in range(3):
        assert call().tolist() == [3.0] * 3
        outside(dg.ones(1))
        assert buf.tolist() == [k + 1.0] * 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", [grows, puts, lambda a: a[1:].fill_(2)])
def test_an_array_that_is_read_only_is_read_alone(way, change):
    fixed, call, reads = arr(), WAYS[way](change), WAYS[way](lambda a: a * 2)
    fixed.flags.writeable = False
    for _ in range(3):
        call(arr())
        with pytest.raises(ArgumentError, match="read-only"):
            call(fixed)
        assert reads(fixed).tolist() == [2.0, 4.0, 6.0]
        assert fixed.tolist() == [1.0, 2.0, 3.0]


def test_a_read_only_array_is_compared():
    fixed = arr()
    fixed.flags.writeable = False
    assert dg.compare(lambda a: a * 2, fixed).equal


def test_gradients_with_respect_to_arrays_are_refused_alike():
    w = dg.ones(3, requires_grad=True)
    for mode in ("eager", "graph"):
        w.grad = None
        (dg.function(lambda a: (w * a).sum(), mode=mode)(arr().astype(np.float32))).backward()
        assert w.grad.tolist() == [1.0, 2.0, 3.0]
