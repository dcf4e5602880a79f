"""Updates of many parameters as one launch: listed kernels, optimiser steps in both modes, memory."""

import itertools

import duograd as dg
import numpy as np
import pytest
from duograd.core import dispatch
from duograd.core import types as T
from duograd.core.backend import Operand, Program, get_backend
from duograd.core.listed import FEW, gather, listed
from duograd.core.lower import lower_map
from duograd.core.scalar import Expr, call
from duograd.eager import lists
from duograd.graph import compile as compiling
from duograd.graph.report import kernels
from duograd.graph.variant import start_path
from duograd.nn.optim import SGD, Adam

SIZES = (1, 3, 64, 65, 1000, 5000, 63)


def arg(k):
    return Expr("arg", T.float32, (), k)


ROOT = call("add", call("mul", arg(0), arg(0)), arg(1))


def operand(program, array, dynamic):
    dynamic.append(array.ctypes.data)
    steps = tuple(st // array.itemsize for st in array.strides)
    return Operand(program.dynamic(), 0, T.float32, array.shape, steps)


def run_list(pairs, chunks):
    """`x * x + y` for pairs (x, y) by one listed kernel in so many chunks."""
    program, dynamic = Program(get_backend("cpu")), []
    outs = [np.full(x.shape, np.nan, np.float32) for x, _ in pairs]
    for (x, y), out in zip(pairs, outs):
        lower_map(program, x.shape, [operand(program, a, dynamic) for a in (x, y)], [ROOT],
                  [operand(program, out, dynamic)])  # fmt: skip
    assert len({launch.source for launch in program.launches}) == 1
    program.launches = [listed(program.backend, program.launches)._replace(chunks=chunks)]
    program.backend.load(program).run(dynamic)
    return outs


@pytest.mark.parametrize("chunks", [1, 2, 7, 100])
def test_a_listed_kernel_does_what_its_loops_do(chunks):
    rng = np.random.default_rng(chunks)
    flat = [[rng.standard_normal(n).astype(np.float32) for _ in range(2)] for n in SIZES if n > 1]
    rows = [(rng.standard_normal((n, 12)).astype(np.float32)[:, :10], rng.standard_normal((n, 10)).astype(np.float32))
            for n in (1000, 2, 77)]  # fmt: skip
    for pairs in (flat, rows):
        for (x, y), out in zip(pairs, run_list(pairs, chunks)):
            np.testing.assert_array_equal(out, x * x + y)


def test_few_loops_stay_launches_of_their_own():
    program, dynamic = Program(get_backend("cpu")), []
    for n in SIZES[2 : 1 + FEW]:
        x, out = (operand(program, np.zeros(n, np.float32), dynamic) for _ in range(2))
        lower_map(program, (n,), [x], [call("neg", arg(0))], [out])
    assert [members for _, members in gather(program.backend, program.launches)] == [(0,), (1,)]


def parameters(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [dg.tensor(rng.standard_normal(s).astype(np.float32), requires_grad=True) for s in shapes]


def give_gradients(params, seed):
    for p, g in zip(params, parameters([p.shape for p in params], seed)):
        p.grad = g.detach()


SHAPES = ((4, 3), (5,), (), (0,), (70, 9), (1,), (64,))
STEPS = {"adam": lambda ps: Adam(ps, lr=0.01), "momentum": lambda ps: SGD(ps, lr=0.1, momentum=0.9)}


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
def test_a_step_over_a_list_has_the_bits_of_steps_one_by_one(make):
    together, alone = parameters(SHAPES), parameters(SHAPES)
    one, many = make(together), [make([p]) for p in alone]
    for seed in range(1, 5):
        give_gradients(together, seed)
        give_gradients(alone, seed)
        if seed == 3:  # some parameters get no gradient
            together[1].grad = alone[1].grad = None
        versions = [p._storage.version for p in together]
        one.step()
        for optimizer, p in zip(many, alone):
            if p.grad is not None:
                optimizer.step()
        for p, q, version in zip(together, alone, versions):
            np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())
            assert (p._storage.version > version) == (p.grad is not None)


@pytest.mark.parametrize("shape", [(1,), (2, 2)])
def test_a_list_is_kept_for_its_parameters_not_for_equal_ones(shape):
    params = [dg.zeros(shape).requires_grad_() for _ in range(3)]
    optimizer = SGD(params, lr=1.0)
    for chosen in ((0, 1), (0, 2), (1, 2), (0, 1)):
        for k, p in enumerate(params):
            p.grad = dg.ones(shape) if k in chosen else None
        optimizer.step()
    for p, steps in zip(params, (3, 3, 2)):
        np.testing.assert_array_equal(p.detach().numpy(), np.full(shape, -steps, np.float32))


def test_a_number_in_the_memory_of_a_parameter_is_read_when_its_turn_comes():
    """Op by op, the second parameter sees what the first update has made of the rate."""
    owner, found = set, []
    for together in (True, False):
        rate = dg.tensor([0.5])
        params = [rate, dg.ones((1,)), dg.ones((1,))]
        rows = [((p,), dg.full((1,), 0.5)) for p in params]
        op = dg._REGISTRY["sgd_update"]
        for part in [rows] if together else [[row] for row in rows]:
            dispatch.update_rows(owner, op, part, (rate[0], 0.0), op.defaults)
        found.append([p.numpy().tolist() for p in params])
    assert found[0] == found[1]


def test_a_step_is_one_native_call(monkeypatch):
    params = parameters(SHAPES)
    optimizer = SGD(params, lr=0.1)
    give_gradients(params, 1)
    optimizer.step()
    (kept,) = lists._lists[optimizer._plans[0].clocks[0]]
    calls = []
    run = kept.execute
    monkeypatch.setattr(kept, "execute", lambda values: calls.append(run(values)))
    give_gradients(params, 2)
    optimizer.step()
    assert len(calls) == 1


@pytest.mark.parametrize(
    "case", ["gradient is another parameter", "parameters share memory", "layouts change"]
)
def test_what_depends_on_its_order_goes_row_by_row(case):
    def make():
        if case == "parameters share memory":
            flat = dg.arange(12, dtype="float32")
            params = [
                flat[:6].detach().requires_grad_(),
                flat[6:].detach().requires_grad_(),
                dg.ones(3).requires_grad_(),
            ]
        else:
            params = parameters(((6, 4), (6, 4), (6, 4)))
        give_gradients(params, 1)
        if case == "gradient is another parameter":
            params[1].grad = params[0].detach()
        if case == "layouts change":
            params[2].grad = dg.ones((4, 6)).T
        return params

    together, alone = make(), make()
    optimizer = SGD(together, lr=0.5)
    for _ in range(2):
        optimizer.step()
        for p in alone:
            with dg.no_grad():
                p -= p.grad * 0.5
        for p, q in zip(together, alone):
            np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def train_step(widths, optimizer=Adam):
    nn = dg.nn
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*layers)
    made = optimizer(model.parameters(), lr=0.01)

    @dg.function
    def step(x):
        made.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        made.step()
        return loss

    return step


def test_all_updates_of_a_train_step_are_one_launch():
    step = train_step((6, 33, 20, 7))
    x = dg.tensor(np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32))
    step(x)
    assert "adam_update x6" in step.explain()
    (runner,) = step.variants[0].runners()
    updates = [k for k in kernels(runner.compiled) if "adam_update" in k.title]
    assert [(k.title, len(k.launches), len(k.others)) for k in updates] == [("adam_update x6", 1, 5)]
    assert updates[0].over == f"{6 * 33 + 33 + 33 * 20 + 20 + 20 * 7 + 7} elements in 6 lists"
    profile = step.profile(x, seconds=0.01)
    assert "adam_update x6" in str(profile)


def test_which_kernel_updates_have_does_not_depend_on_sizes():
    """At one batch size all updates run together, at the other some run early, where they free memory."""
    model = dg.nn.Sequential(*[dg.nn.Linear(64, 64) for _ in range(5)])
    optimizer = SGD(model.parameters(), lr=0.01)

    def step(x):
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    sources, waves = [], []
    for batch in (512, 2):
        path = start_path(dg.function(step), (dg.ones((batch, 64)),), {})
        path.defers = True
        planned = compiling.plan_graph(path.ready().runner[0], get_backend("cpu"))
        labels = dict(zip(planned.program.launches, planned.labels()))
        updates = [launch for launch, label in labels.items() if label.startswith("sgd_update")]
        sources.append({launch.source for launch in updates})
        waves.append(len(updates))
    assert waves[0] == 1 < waves[1]
    assert len(sources[0]) == 1
    assert sources[0] == sources[1]


def test_updates_wait_for_each_other_only_where_that_takes_no_memory(monkeypatch):
    from duograd.graph.memory import plan_memory

    peaks = []
    plan = compiling._plan

    def both(lowered, places, kinds, backend):
        start, memory = plan(lowered, places, kinds, backend)
        before = compiling._levels(lowered, places, backend)[1]
        assert memory.nbytes <= before.nbytes * 1.001 + compiling.SLACK
        assert plan_memory(lowered, start, places).nbytes == memory.nbytes
        peaks.append((memory.nbytes, start))
        return start, memory

    monkeypatch.setattr(compiling, "_plan", both)
    nn = dg.nn
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(5)])
    optimizer = SGD(model.parameters(), lr=0.01)

    @dg.function
    def step(x):
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # gradients do not outlive the call: each is freed after its update
        return loss

    step(dg.ones((2, 64)))
    assert peaks
