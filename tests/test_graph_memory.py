"""The memory plan: what lives at the same time shares no bytes; a call needs no more than eager mode."""

import itertools

import duograd as dg
import numpy as np
import pytest
from duograd.bench import run_duograd
from duograd.bench.cases import find
from duograd.core import dispatch, vjp
from duograd.core.backend import get_backend
from duograd.core.ops import REGISTRY
from duograd.graph import compile as compiling
from duograd.graph.assemble import Sources, assemble
from duograd.graph.compile import compile_graph
from duograd.graph.layout import find_layouts
from duograd.graph.memory import ARENA, plan_below, plan_memory
from duograd.graph.passes.fuse import fuse
from duograd.graph.placement import place_results
from duograd.graph.schedule import SMALL_BYTES, _held, in_turn, schedule
from duograd.graph.trace import Trace


def trace(fn, *tensors):
    tracer = Trace(fn.__name__, dispatch._State.executor)
    with dispatch.executing(tracer):
        result = fn(*(tracer.argument(k, t) for k, t in enumerate(tensors)))
        outs = result if isinstance(result, tuple) else (result,)
        tracer.graph.outputs = [tracer._use(tracer.face(y)._value) for y in outs]
    tracer.done = True
    return tracer.graph


def plan(graph, fused):
    """Groups as lowered, their levels, the memory plan and the places of results."""
    backend = get_backend("cpu")
    layouts = find_layouts(graph)
    places = place_results(graph, layouts)
    fusion = fuse(graph, layouts, places, backend, fused)
    sources = Sources()
    lowered = [assemble(g, fusion, sources, backend) for g in fusion.groups]
    start = schedule(lowered)
    return lowered, start, plan_memory(lowered, start, places), places


def normal(*shape, grad=False):
    rng = np.random.default_rng(shape)
    return dg.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=grad)


def deep(x, ws):
    for w in ws:
        x = dg.tanh(x @ w)
    return x


def training(x, *ws):
    loss = (deep(x, ws) ** 2).sum()
    return loss.detach(), *vjp.walk([loss], [dg.ones(())], list(ws))


def branches(x):
    parts = [dg.softmax(x * float(k), axis=0).sum(axis=1, keepdims=True) for k in range(1, 6)]
    return parts[0] * parts[1] + parts[2] * parts[3] - parts[4] @ dg.ones((1, x.shape[1]))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("fn", "shapes"), [
    (training, [(32, 20), *[(20, 20)] * 4]),
    (branches, [(30, 40)]),
])  # fmt: skip
def test_what_lives_at_the_same_time_has_its_own_bytes(fn, shapes, fused):
    graph = trace(fn, *(normal(*s, grad=True) for s in shapes))
    lowered, start, memory, places = plan(graph, fused)
    life: dict = {}
    sizes: dict = {}
    for k, g in enumerate(lowered):
        for v in (*g.stores, *g.reads):
            if v in memory.spots:
                first, last = g.span(v)
                life.setdefault(v, set()).update(range(start[k] + first, start[k] + last + 1))
        for source, (nbytes, first, last) in g.scratch.items():
            life[source] = {start[k] + first, start[k] + last}
            sizes[source] = nbytes
    spans = []
    for key, levels in life.items():
        region, at = memory.spots[key]
        size = sizes[key] if isinstance(key, int) else key.type.nbytes
        assert at % (64 if size > 48 else 16) == 0
        if region == ARENA:
            assert at + size <= memory.nbytes
        else:
            output = next(v for v, place in places.of.items() if place == region)
            assert at + size <= output.type.nbytes
            assert max(levels) < min(k for g, k in zip(lowered, start) if output in g.stores)
        at += (region + 1) << 40
        spans.append((key, at, at + size, min(levels), max(levels)))
    for a, b in itertools.combinations(spans, 2):
        together = a[3] <= b[4] and b[3] <= a[4]
        if together and a[1] < b[2] and b[1] < a[2]:
            # The one exception: a result that takes over, element by element, what its own kernel reads last.
            first, second = sorted((a, b), key=lambda s: s[3])
            assert first[1] == second[1]
            assert first[4] == second[3]
            maker = next(g for g in lowered if second[0] in g.stores)
            assert maker.reads[first[0]] == [(maker.stores[second[0]], 0)]


def test_nothing_runs_before_what_it_reads():
    lowered, start, _, _ = plan(trace(branches, normal(30, 40)), False)
    made = {v: start[k] + len(g.phases) for k, g in enumerate(lowered) for v in g.stores}
    for k, g in enumerate(lowered):
        assert all(made.get(v, 0) <= start[k] for v in g.reads)


def test_a_deep_chain_needs_no_more_memory_than_a_short_one():
    def chain(n):
        return compile_graph(
            trace(lambda x, w: deep(x, [w] * n), normal(64, 64), normal(64, 64)), "cpu"
        ).arena_bytes

    assert chain(20) == chain(4)


def test_reuse_saves_most_of_a_deep_chain():
    compiled = compile_graph(trace(lambda x, w: deep(x, [w] * 12), normal(64, 64), normal(64, 64)), "cpu", ())
    assert compiled.arena_bytes < compiled.unplanned_bytes / 4


def test_small_values_lie_side_by_side():
    def four(x):
        a, b, c, d = (dg.sum(x[k]) for k in range(4))
        return a * b + c * d

    graph = trace(four, normal(4, 3))
    lowered, _, memory, _ = plan(graph, False)
    assert sum(len(g.stores) for g in lowered) == 7
    assert memory.nbytes <= 128


def test_what_is_made_of_nothing_is_made_late():
    """Random masks of all layers are ready from the start; they must not all live from the start."""

    def f(x, w):
        for _ in range(6):
            x = dg.matmul(x, w) * dg.rand(x.shape)
        return x

    graph = trace(f, normal(64, 64), normal(64, 64))
    one = 64 * 64 * 4
    assert compile_graph(graph, "cpu", ()).arena_bytes < 6 * one


def mlp_loss(x, y, w1, b1, w2, b2):
    return dg.cross_entropy(dg.linear(dg.relu(dg.linear(x, w1, b1)), w2, b2), y)


def cnn_loss(x, y, w1, b1, w2, b2):
    h = dg.relu(REGISTRY["conv"](x, w1, padding=1) + b1.reshape(1, -1, 1, 1))
    h = REGISTRY["max_pool"](h, window=2)
    return dg.cross_entropy(dg.linear(dg.flatten(h, start_axis=1), w2, b2), y)


@pytest.mark.parametrize(("loss", "shapes"), [
    (mlp_loss, [(64, 784), (128, 784), (128,), (10, 128), (10,)]),
    (cnn_loss, [(16, 3, 32, 32), (16, 3, 3, 3), (16,), (10, 16 * 16 * 16), (10,)]),
])  # fmt: skip
def test_a_training_step_needs_no_more_memory_than_eager_mode(loss, shapes):
    def step(x, y, *params):
        value = loss(x, y, *params)
        return value.detach(), *vjp.walk([value], [dg.ones(())], list(params))

    x, *params = (normal(*s, grad=k > 0) for k, s in enumerate(shapes))
    y = dg.tensor(np.arange(x.shape[0]) % 10)
    step(x, y, *params)  # kernels are loaded, free lists are filled
    allocator = get_backend("cpu").allocator
    before = allocator.stats()["current_bytes"]
    allocator.reset_peak()
    step(x, y, *params)
    eager = allocator.stats()["peak_bytes"] - before
    compiled = compile_graph(trace(step, x, y, *params), "cpu")
    outputs = sum(t.nbytes for t in compiled.outputs)
    assert compiled.arena_bytes + outputs <= eager


def test_a_late_reader_holds_what_nobody_else_reads_later():
    made = type("Made", (), {"producer": object(), "nbytes": 100})()
    given = type("Given", (), {"producer": None, "nbytes": 10})()
    group = type("Group", (), {"reads": {made: [], given: []}})()
    readers = {made: [0, 1], given: [0]}
    assert _held(group, 0, 5, [1, 3], readers) == 100
    assert _held(group, 0, 2, [1, 3], readers) == 0


def test_what_frees_memory_runs_early():
    """A gradient of a shortcut comes last in the program; until it has run, its operands are held."""

    def f(x, w):
        held = x @ w
        return deep(w, [w] * 5), held @ w

    lowered, _, _, places = plan(trace(f, normal(272, 272), normal(272, 272)), False)
    start = schedule(lowered, in_turn(lowered, places.of), places.of)
    last = next(k for k, g in enumerate(lowered) if any(places.of.get(v) == 1 for v in g.stores))
    program = schedule(lowered, range(len(lowered)), places.of)
    assert sum(s < start[last] for s in start) == 1
    assert start[last] < program[last]


@pytest.mark.parametrize("case", ["mlp", "cifar_cnn", "encoder", "lstm", "gpt_small"])
def test_a_train_step_of_the_benchmark_needs_less_memory_than_eager_mode(case, monkeypatch):
    """Parameters and the optimiser's state apart; both modes keep the gradients."""
    found = find(case)
    allocator = get_backend("cpu").allocator
    before = allocator.stats()["current_bytes"]
    step, _ = run_duograd.build(found, "train", "eager")
    step()
    state = allocator.stats()["current_bytes"] - before - sum(v.nbytes for v in found.weights().values())
    allocator.reset_peak()
    step()
    eager = allocator.stats()["peak_bytes"] - before - state
    plans = []
    plan = compiling.plan_graph
    monkeypatch.setattr(compiling, "plan_graph", lambda *a: plans.append(plan(*a)) or plans[-1])
    step, _ = run_duograd.build(found, "train", "graph")
    step()
    compiled = max(plans, key=lambda c: c.arena_bytes)
    graph = compiled.arena_bytes + sum(t.nbytes for t in compiled.outputs)
    assert graph < 0.95 * eager


def last_reads(lowered, placed):
    """Bytes that each group reads for the last time, in this order."""
    last = {v: k for k in in_turn(lowered, placed) for v in lowered[k].reads if v.producer is not None}
    return [sum(v.type.nbytes for v in last if last[v] == k and v not in placed) for k in range(len(lowered))]


def test_what_frees_much_runs_alone_where_that_saves_memory(monkeypatch):
    """An encoder's loss is one number, but the errors that it is made of would live beside a large product's.

    Where threads have areas for packed operands of their own, another step may need the most.
    """
    plans = []
    monkeypatch.setattr(get_backend("cpu"), "num_threads", lambda: 1)
    plan = compiling.plan_graph
    monkeypatch.setattr(compiling, "plan_graph", lambda *a: plans.append(plan(*a)) or plans[-1])
    step, _ = run_duograd.build(find("encoder"), "train", "graph")
    step()
    lowered, _, _, places, _ = max(plans, key=lambda c: c.arena_bytes).plan
    start, memory = compiling._levels(lowered, places, get_backend("cpu"))
    monkeypatch.setattr(compiling, "IN_TURN", 1.0)
    assert memory.nbytes < compiling._levels(lowered, places, get_backend("cpu"))[1].nbytes * (1 - 1 / 64)
    many = [k for k, n in enumerate(last_reads(lowered, places.of)) if n > SMALL_BYTES]
    assert len(many) > 10
    for a, b in itertools.combinations(many, 2):
        first, second = sorted((a, b), key=start.__getitem__)
        assert start[first] + len(lowered[first].phases) <= start[second]


def products(x, w):
    """What two readers take, one of them in the second of its phases."""
    a = dg.sort(x, axis=0)
    return dg.sort(a @ dg.sort(w, axis=0), axis=0), dg.sort(dg.tanh(a), axis=0)


def test_operands_go_and_results_come_while_a_kernel_is_at_work():
    """A product packs an operand first, which it reads no more when it writes its result."""
    lowered, *_ = plan(trace(products, normal(300, 256), normal(256, 300)), False)
    product = next(g for g in lowered if g.group.title == "matmul")
    (result,) = product.stores
    left, right = (product.span(v) for v in sorted(product.reads, key=lambda v: v.type.shape[1]))
    assert len(product.phases) == 2
    assert (left, right, product.span(result)) == ((1, 1), (0, 0), (1, 1))


def test_a_result_takes_over_no_memory_that_another_kernel_still_reads():
    """At the same level, in its second phase: it began before."""
    lowered, start, _, places = plan(trace(products, normal(300, 256), normal(256, 300)), False)
    number = {g.group.title: k for k, g in enumerate(lowered)}
    product, tanh = number["matmul"], number["tanh"]
    for level, taken in ((start[product], False), (start[product] + 1, False), (start[product] + 2, True)):
        later = [s + 20 if k > tanh else s for k, s in enumerate(start)]
        later[tanh] = level
        spots = plan_memory(lowered, later, places).spots
        (given,), (result,) = lowered[tanh].reads, lowered[tanh].stores
        assert (spots[given] == spots[result]) is taken


def test_a_program_of_one_thread_runs_in_turn_where_that_takes_less_memory(monkeypatch):
    def f(x):
        ways = [(dg.cumsum, 0), (dg.cumsum, 1), (dg.cumprod, 0), (dg.cumprod, 1)]
        a, b, c, d = [dg.sort(scan(x, axis=axis)) @ x[0] for scan, axis in ways]
        return (a + b) * (c + d)

    graph = trace(f, normal(16, 16))
    in_turn = compile_graph(graph, "cpu").arena_bytes
    monkeypatch.setattr(compiling, "_in_one_thread", lambda lowered, backend: False)
    assert in_turn <= compile_graph(graph, "cpu").arena_bytes - 2 * 16 * 16 * 4


def test_a_plan_that_needs_too_much_is_given_up():
    lowered, start, memory, places = plan(trace(branches, normal(30, 40)), False)
    assert plan_below(lowered, start, places, memory.nbytes) is None
    found = plan_below(lowered, start, places, memory.nbytes + 1)
    assert found.nbytes == memory.nbytes


def dense(x, *ws):
    """Each layer's result is joined to what it reads."""
    for w in ws:
        x = dg.concat([x * 2.0, dg.tanh(x.sum(axis=0, keepdims=True) @ w)], axis=0)
    return dg.concat([x[:1], x, dg.relu(x)], axis=0)


def joins(x, y):
    a, b, c = x @ y, dg.softmax(x, axis=1) @ y, (x + 1) @ y
    twice = dg.concat([a, b, a], axis=0)
    other = dg.concat([b, c, x], axis=0)
    beside = dg.concat([c, b], axis=1)
    inner = dg.concat([dg.tanh(c), twice], axis=0)
    changed = dg.concat([a * 3, b * 3], axis=0)
    changed[1] = 7.0
    return (
        other,
        twice.sum(),
        beside,
        a,
        inner * 2,
        dg.concat([inner[None], inner[None] + 1], axis=1),
        changed,
    )


def joins_of_parts(x, y):
    """What is joined as a whole is joined in part, too, before and after it."""
    a, b, c = x @ y, dg.softmax(x, axis=1) @ y, dg.sort(x[:, 0] * 2)
    return (
        dg.concat([a[-1:], a, a[1:3]], axis=0),
        dg.concat([b.flip(0), b, b[::2], b], axis=0),
        dg.concat([c.reshape(4, -1)[-1], c, c[1:2]]),
        dg.stack([c.reshape(2, 2).T, c.reshape(2, 2)]),
    )


@pytest.mark.parametrize(("fn", "shapes"), [
    (dense, [(3, 5), (5, 5), (5, 5)]), (joins, [(4, 6), (6, 6)]), (joins_of_parts, [(4, 6), (6, 6)]),
])  # fmt: skip
def test_what_a_join_puts_side_by_side_is_computed_there(fn, shapes):
    xs = [normal(*s) for s in shapes]
    want = fn(*xs)
    for _ in range(3):
        got = dg.function(fn)(*xs)
        for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, want))):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    lowered, start, memory, places = plan(trace(fn, *xs), True)
    assert places.parts
    for v, (whole, at) in places.parts.items():
        root, _ = places.root(v)
        ends = memory.spots[v], memory.spots.get(whole, (places.of.get(whole), 0))
        assert ends[0] == (ends[1][0], ends[1][1] + at)
        # Nothing else lies there from the time of the first part on.
        last = max(start[k] + g.span(v)[1] for k, g in enumerate(lowered) if v in g.reads or v in g.stores)
        for k, g in enumerate(lowered):
            for other in g.stores:
                if other in memory.spots and places.root(other)[0] is not root:
                    region, offset = memory.spots[other]
                    apart = region != ends[0][0] or offset >= ends[0][1] + v.type.nbytes
                    apart = apart or offset + other.type.nbytes <= ends[0][1]
                    assert (
                        apart or start[k] + g.span(other)[0] > last or _dies_before(other, v, lowered, start)
                    )


def _dies_before(other, v, lowered, start):
    """Whether a value is read for the last time before another is made."""
    made = min(start[k] + g.span(v)[0] for k, g in enumerate(lowered) if v in g.stores)
    used = max(
        start[k] + g.span(other)[1] for k, g in enumerate(lowered) if other in g.reads or other in g.stores
    )
    return used < made


def test_a_join_of_what_is_computed_for_it_copies_nothing():
    def fn(x, y):
        return dg.concat([x @ y, dg.softmax(x @ y.T, axis=1) @ y], axis=0)

    xs = normal(8, 16), normal(16, 16)
    compiled = compile_graph(trace(fn, *xs), "cpu")
    assert not any("concat" in label for label in compiled.labels())
    rows = compile_graph(trace(lambda x, y: dg.concat([x @ y, x @ y.T], axis=1), *xs), "cpu")
    assert any("concat" in label for label in rows.labels())
