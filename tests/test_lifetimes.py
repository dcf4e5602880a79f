"""What lives how long, and what other threads and processes do meanwhile: nothing leaks, nothing is mistaken."""

import copy
import gc
import os
import pickle
import signal
import threading
import weakref

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.core.backend import get_backend


class Pair:
    """A result that a function makes."""

    def __init__(self, first, second):
        self.first, self.second = first, second


@dg.function
def doubled(x):
    return x * 2


@pytest.mark.usefixtures("own_garbage")
def test_a_collection_inside_a_trace_changes_nothing():
    """Calls of `gc.collect()` stand in many training loops."""

    @dg.function
    def f(x):
        row = [x * 2, {"a": x + 1}]
        gc.collect()
        return row, Pair(x, [x + 3])

    for _ in range(3):
        row, pair = f(dg.tensor([1.0]))
        assert row[0].item() == 2
        assert row[1]["a"].item() == 2
        assert pair.second[0].item() == 4


def test_objects_from_before_stay_themselves_where_the_collector_rests():
    gc.disable()
    try:
        row = [Pair(5, 6)]
        found = dg.function(lambda x: (x + 1, max(row, key=id), [x]))(dg.tensor([1.0]))
    finally:
        gc.enable()
    assert found[1] is row[0]
    assert found[2][0].item() == 1


@pytest.mark.parametrize("third", [False, True])
def test_traces_of_two_threads_may_overlap(third):
    """The first one to begin ends first; what the other one makes is still known to be new."""
    began, met, ended = threading.Event(), threading.Event(), threading.Event()
    got = []

    @dg.function
    def first(x):
        began.set()
        met.wait(10)
        return [x + 3]

    @dg.function
    def second(x):
        pair, row = Pair(x * 2, {"a": [x]}), [x + 1]
        met.set()
        ended.wait(10)
        return pair, row

    a = threading.Thread(target=lambda: first(dg.tensor([1.0])))
    b = threading.Thread(target=lambda: got.append(second(dg.tensor([1.0]))))
    a.start()
    began.wait(10)
    b.start()
    a.join()
    if third:
        dg.function(lambda x: [x * 7])(dg.tensor([1.0]))
    ended.set()
    b.join()
    pair, row = got[0]
    assert pair.first.item() == 2
    assert pair.second["a"][0].item() == 1
    assert row[0].item() == 2
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
# JAX and Python 3.12 warn of any fork beside threads; what JAX raises in its hook nobody catches
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_is_free_of_what_another_thread_traces():
    began, ended = threading.Event(), threading.Event()
    waits = [True]

    @dg.function
    def f(x):
        if waits[0]:
            began.set()
            ended.wait(10)
        return [x + 1]

    thread = threading.Thread(target=lambda: f(dg.tensor([1.0])))
    thread.start()
    began.wait(10)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        waits[0] = False
        good = f(dg.tensor([2.0]))[0].item() == 3 and gc.isenabled()
        os._exit(0 if good else 1)
    ended.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0


def test_a_mode_is_set_for_the_own_thread():
    inside, done = threading.Event(), threading.Event()
    f = dg.function(lambda x: x + 1)

    def other():
        with dg.mode("eager"):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    f(dg.tensor([1.0]))
    traced = len(f.variants)
    with dg.mode("graph"):
        done.set()
        thread.join()
        f(dg.tensor([1.0, 2.0]))
    assert (traced, len(f.variants)) == (1, 2)


def _in_use():
    return get_backend("cpu").memory_stats()["current_bytes"]


def _loss(way):
    w = dg.tensor([2.0], requires_grad=True)
    return {
        "call": lambda x: (x * w).sum(),
        "checkpoint": lambda x: dg.checkpoint(lambda x: (x * w).sum(), x),
        "scan": lambda x: dg.scan(lambda c, y: (c + (y * w).sum(), None), dg.tensor(0.0), x)[0],
    }[way]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("way", ["call", "checkpoint", "scan"])
def test_a_loss_that_is_kept_keeps_no_arguments_once_its_gradient_was_taken(mode, way):
    f = dg.function(_loss(way), mode=mode)
    losses = []
    for n in range(14):
        if n == 4:
            before = _in_use()
        loss = f(dg.ones((4, 10_000)))
        loss.backward()
        losses.append(loss)
    assert _in_use() - before < 40_000


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_functions_are_copied_as_python_copies_functions(clone):
    assert clone(doubled) is doubled
    net = nn.Linear(2, 1)
    net.run = dg.function(net.forward)
    x = dg.ones((3, 2))
    before = net.run(x)
    other = clone(net)
    with dg.no_grad():
        other.weight.copy_(other.weight * 3)
    assert other.run is not net.run
    assert len(other.run.variants) == 0
    np.testing.assert_array_equal(other.run(x).detach().numpy(), other(x).detach().numpy())
    np.testing.assert_array_equal(net.run(x).detach().numpy(), before.detach().numpy())


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_an_optimizer_goes_on_with_a_module_that_was_converted_and_back(mode):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    opt = dg.optim.Adam(net.parameters(), lr=0.1)

    @dg.function(mode=mode)
    def step(x):
        loss = net(x).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()

    for _ in range(4):
        step(dg.ones((2, 3)))
    old = [weakref.ref(p._storage) for p in net.parameters()]
    net.to("float64").to("float32")
    before = [p.detach().numpy().copy() for p in net.parameters()]
    for _ in range(4):
        step(dg.ones((2, 3)))
    assert all((p.detach().numpy() != b).any() for p, b in zip(net.parameters(), before))
    if mode == "eager":  # a graph's variant may wait for its memory to come back
        gc.collect()
        assert not any(ref() for ref in old)


class Layer(nn.Module):
    def __init__(self, n):
        self.weight = nn.Parameter(dg.ones((n,)))

    @dg.function(limit=8)
    def forward(self, x):
        return (self.weight * x if self.training else x).sum()


@pytest.mark.usefixtures("own_garbage")
def test_modules_may_come_and_go():
    """A function that is a method keeps the last of its modules, not all; and none of them is an error."""
    made = []
    for _ in range(30):
        layer = Layer(5)
        assert layer(dg.ones((5,))).item() == 5
        assert layer(dg.ones((2, 5))).item() == 10
        layer.eval()
        assert layer(dg.ones((5,))).item() == 5
        made.append(weakref.ref(layer))
    del layer
    gc.collect()
    assert sum(r() is not None for r in made) <= 8
    assert len(Layer.forward.variants) <= 3 * 8


def test_a_value_that_is_read_and_changes_with_every_call_of_a_module_is_an_error():
    net, factors = nn.Linear(2, 2), [0.5] * 6
    f = dg.function(lambda net, x, k: net(x) * factors[k], limit=5)
    for k in range(5):
        f(net, dg.ones((1, 2)), k)
    with pytest.raises(dg.errors.RetraceError, match="its limit"):
        f(net, dg.ones((1, 2)), 5)
