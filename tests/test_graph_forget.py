"""Values that are read again much later are made again: less memory, the same bits, little more work."""

import random

import duograd as dg
import numpy as np
import pytest
from duograd.core import dispatch, vjp
from duograd.core.backend import get_backend
from duograd.graph.compile import compile_graph
from duograd.graph.layout import find_layouts
from duograd.graph.passes import PASSES, forget
from duograd.graph.passes.fuse import fuse
from duograd.graph.placement import place_results
from duograd.graph.trace import Trace

F = dg.nn.functional
KEEP = tuple(name for name in PASSES if name != "forget")


@pytest.fixture(autouse=True)
def verified(monkeypatch):
    """Every graph is verified after every pass."""
    monkeypatch.setenv("DUOGRAD_VERIFY", "1")


@pytest.fixture
def small(monkeypatch):
    """Graphs of some kilobytes are worth it, and as much work as it takes."""
    monkeypatch.setattr(forget, "LEAST", 1 << 12)
    monkeypatch.setattr(forget, "SHARE", 1.0)


@pytest.fixture
def all_that_can_be(monkeypatch):
    """Forget whatever may be, also where it saves nothing. Returns the list that grows by what was."""
    found = []

    def choose(choices, use, budget):
        chosen = []
        for c in choices:
            gone, needed = {x.value for x in chosen}, {x for d in chosen for x in d.large}
            if c.value not in needed and not c.large & gone:
                chosen.append(c)
        found.extend(chosen)
        return chosen

    monkeypatch.setattr(forget, "LEAST", 1)
    monkeypatch.setattr(forget, "GAIN", 0)
    monkeypatch.setattr(forget, "_choose", choose)
    return found


def normal(*shape, grad=False):
    rng = np.random.default_rng(shape)
    return dg.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=grad)


def trace(fn, *tensors):
    tracer = Trace(fn.__name__, dispatch._State.executor)
    with dispatch.executing(tracer):
        result = fn(*(tracer.argument(k, t) for k, t in enumerate(tensors)))
        tracer.graph.outputs = [tracer._use(tracer.face(y)._value) for y in result]
    tracer.done = True
    return tracer.graph


def block(x, w, scale, shift):
    """Convolution, normalisation over the batch, relu."""
    y = F.conv2d(x, w, padding=1)
    y = y - y.mean(axis=(0, 2, 3), keepdims=True)
    y = y * dg.rsqrt((y * y).mean(axis=(0, 2, 3), keepdims=True) + 1e-5)
    return dg.relu(y * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1))


def training(x, *params):
    y = x
    for k in range(0, len(params), 3):
        y = block(y, *params[k : k + 3])
    loss = (y * y).mean()
    return loss.detach(), *vjp.walk([loss], [dg.ones(())], list(params))


def network(depth=4, n=32, channels=16, size=12):
    """An image, and the parameters of some blocks."""
    params = []
    for _ in range(depth):
        params += [normal(channels, channels, 3, 3, grad=True), normal(channels, grad=True) + 1]
        params += [normal(channels, grad=True)]
    return normal(n, channels, size, size), *(p.detach().requires_grad_() for p in params)


def values(graph, name):
    return [v for n in graph.nodes if n.op.name == name for v in n.outputs]


def test_what_a_training_step_saves_is_made_again_where_memory_gets_less(small):
    tensors = network()
    graph = trace(training, *tensors)
    kept, made = compile_graph(graph, "cpu", KEEP), compile_graph(graph, "cpu")
    image = tensors[0].nbytes
    # Of four results of relu three are convolved; the last is read at once, the one before it where most is in use.
    assert (len(values(kept.optimised, "relu")), len(values(made.optimised, "relu"))) == (4, 6)
    assert made.arena_bytes <= kept.arena_bytes - 2 * image
    assert any("made again for late readers, not kept: 2 of relu" in note for note in made.optimised.notes)
    step = dg.function(training)
    for a, b in zip(step(*tensors), training(*tensors)):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("twice", [False, True])
def test_the_second_value_is_made_just_before_its_readers(small, twice):
    """Also where the kernel that the way back starts with makes a copy for a result, last of all in the program."""

    def f(x, *params):
        results = training(x, *params)
        return *results, *results[-1:] * twice

    made = compile_graph(trace(f, *network()), "cpu")
    groups = made.plan.fusion.groups
    seconds = [k for k, g in enumerate(groups) if g.again < 0]
    assert seconds
    for k in seconds:
        value = groups[k].items[-1].node.outputs[0]
        readers = [n for n, g in enumerate(groups) if any(value in i.node.values() for i in g.items)]
        assert min(readers) == k + 1
        # The first one has no reader after the convolution that it was made for.
        assert max(readers) - min(readers) < len(groups) / 4


def test_what_is_made_of_what_is_gone_stays(small):
    """The operand of a relu that dies before its late reader would have to be kept instead."""

    def f(x, w):
        y = dg.relu(dg.sort(x, axis=0) * 2.0 + 1.0)
        z = y
        for _ in range(6):
            z = dg.tanh(z @ w)
        return z @ y.mT, z.sum()

    made = compile_graph(trace(f, normal(64, 64), normal(64, 64)), "cpu")
    assert len(values(made.optimised, "relu")) == 1


def test_a_result_of_the_call_stays(small):
    def f(x, *params):
        y = block(x, *params[:3])
        loss = (block(block(y, *params[3:6]), *params[6:9]) ** 2).mean()
        return y, *vjp.walk([loss], [dg.ones(())], list(params[:9]))

    graph = trace(f, *network(3))
    kept, made = compile_graph(graph, "cpu", KEEP), compile_graph(graph, "cpu")
    shared = values(made.optimised, "relu")[0]
    assert shared in made.optimised.outputs
    assert len(values(made.optimised, "relu")) <= len(values(kept.optimised, "relu")) + 1


def test_it_costs_a_small_part_of_the_work(small, monkeypatch):
    graph = trace(training, *network())
    monkeypatch.setattr(forget, "SHARE", 0.0)
    kept, made = compile_graph(graph, "cpu", KEEP), compile_graph(graph, "cpu")
    assert made.arena_bytes == kept.arena_bytes
    assert len(made.groups) == len(kept.groups)


def test_what_would_not_lower_the_peak_stays(small):
    """An image that lives while little else does is not worth the work."""

    def f(x, *params):
        wide = dg.softmax(dg.concat([x] * 40, axis=0), axis=1)
        total = (dg.tanh(wide) @ normal(12, 12)).sum()
        return total, *training(x, *params)

    graph = trace(f, *network())
    kept, made = compile_graph(graph, "cpu", KEEP), compile_graph(graph, "cpu")
    assert len(values(made.optimised, "relu")) == len(values(kept.optimised, "relu"))


def fused(graph):
    """How a graph is divided into groups before anything is forgotten."""
    layouts = find_layouts(graph)
    return fuse(graph, layouts, place_results(graph, layouts), get_backend("cpu"))


def test_memory_that_a_result_takes_over_counts_once():
    """In softmax's loop, not in the second sort."""
    fusion = fused(trace(lambda x: (dg.sort(dg.softmax(dg.sort(x)), axis=0).sum(),), normal(40, 40)))
    n = 40 * 40 * 4
    assert [g.title for g in fusion.groups][::2] == ["sort", "sort"]
    assert forget._in_use(fusion.groups, fusion.rules) == [n - 4, n - 4, 2 * n - 4, n]


def test_what_lives_while_a_result_takes_over_memory_is_not_made_again(small):
    """Of logits and their gradient there is one at a time, so the most is in use while the last norm is needed."""

    def f(x, y, scale, shift, *ws):
        for k in range(0, len(ws) - 1, 2):
            x = x + dg.tanh(dg.layer_norm(x, scale, shift) @ ws[k]) @ ws[k + 1]
        loss = F.cross_entropy(dg.layer_norm(x, scale, shift) @ ws[-1], y)
        return loss.detach(), *vjp.walk([loss], [dg.ones(())], list(ws))

    shapes = [(32, 64), (64, 32)] * 4 + [(32, 64)]
    params = (normal(*s, grad=True) for s in [(32,), (32,), *shapes])
    graph = trace(f, normal(128, 32), dg.tensor(np.arange(128) % 64), *params)
    notes = compile_graph(graph, "cpu").optimised.notes
    assert any(note.startswith("made again for late readers, not kept: 4 of ") for note in notes)


def test_a_training_step_needs_less_memory_than_eager_mode(small):
    tensors = network(6)
    training(*tensors)  # kernels are loaded, free lists are filled
    allocator = get_backend("cpu").allocator
    before = allocator.stats()["current_bytes"]
    allocator.reset_peak()
    training(*tensors)
    eager = allocator.stats()["peak_bytes"] - before
    compiled = compile_graph(trace(training, *tensors), "cpu")
    outputs = sum(t.nbytes for t in compiled.outputs)
    assert compiled.arena_bytes + outputs <= eager - 2 * tensors[0].nbytes


class Residual(dg.nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = dg.nn.ModuleList([dg.nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(6)])
        self.norms = dg.nn.ModuleList([dg.nn.BatchNorm2d(16) for _ in range(6)])
        self.fc = dg.nn.Linear(16, 10)

    def forward(self, x):
        for k in range(0, 6, 2):
            y = dg.relu(self.norms[k](self.convs[k](x)))
            x = dg.relu(self.norms[k + 1](self.convs[k + 1](y)) + x)
        return self.fc(x.mean(axis=(2, 3)))


def test_parameters_change_after_what_is_made_again_has_read_them(small):
    x, y = normal(8, 16, 16, 16), dg.tensor(np.arange(8))
    losses, states = [], []
    for mode in ("eager", "graph"):
        dg.manual_seed(0)
        model = Residual()
        optimizer = dg.optim.Adam(model.parameters(), lr=1e-2)

        def run(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        step = dg.function(run, mode=mode)
        losses.append([step(x, y).item() for _ in range(4)])
        states.append([t.detach().numpy().copy() for t in (*model.parameters(), *model.buffers())])
        if mode == "graph":
            assert "made again for late readers" in step.explain()
    assert losses[0] == losses[1]
    for a, b in zip(*states):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- any choice gives the same bits


def random_network(seed):
    """Products, normalisation, cheap maps, views, residuals, branches and checkpoints, and the gradients of all."""
    r = random.Random(seed)
    size = r.choice([4, 8, 12])
    ops = [r.randrange(9) for _ in range(r.randrange(4, 12))]

    def layer(op, x, earlier, w):
        if op == 0:
            return dg.relu(x)
        if op == 1:
            return dg.relu(x * 2.0 + w[0])
        if op == 2:
            x = x - x.mean(axis=-1, keepdims=True)
            return x * dg.rsqrt((x * x).mean(axis=-1, keepdims=True) + 1e-3)
        if op == 3:
            return dg.maximum(x + earlier, -1.0)
        if op == 4:
            return (x.mT * 0.5 + w).mT
        if op == 5:
            return dg.checkpoint(lambda x: dg.relu(x @ w + 0.1), x)
        if op == 6:
            return dg.where(x > 0, x, x * 0.1)
        if op == 7:
            return x.reshape(-1)[: x.size].reshape(x.shape) + w[:, :1].mT
        return dg.tanh(x @ w)

    def program(x, *ws):
        pool = [x]
        for k, op in enumerate(ops):
            w = ws[k % len(ws)]
            pool.append(layer(op, pool[-1], pool[k // 2], w) @ w * 0.5)
        loss = sum((y * y).mean() for y in pool[-2:])
        return loss.detach(), *vjp.walk([loss], [dg.ones(())], list(ws))

    return program, (normal(size, size), *(normal(size, size, grad=True) * 0.4 for _ in range(3)))


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_have_the_bits_of_eager_mode(seed, all_that_can_be):
    program, tensors = random_network(seed)
    tensors = [t.detach().requires_grad_(k > 0) for k, t in enumerate(tensors)]
    for a, b in zip(dg.function(program)(*tensors), program(*tensors)):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_random_networks_have_something_to_forget(all_that_can_be):
    for seed in range(12):
        program, tensors = random_network(seed)
        compile_graph(
            trace(program, *(t.detach().requires_grad_(k > 0) for k, t in enumerate(tensors))), "cpu"
        )
    assert len(all_that_can_be) > 12
    assert any(len(c.inner) > 1 for c in all_that_can_be)
