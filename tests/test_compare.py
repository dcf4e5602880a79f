"""`dg.compare` and `dg.bench`: both modes side by side, without lasting effects."""

import dataclasses
import functools
import queue
import re
import sys
import threading
import time
import types

import duograd as dg
import numpy as np
import pytest
from duograd.core.backend import get_backend


def _step():
    model = dg.nn.Sequential(dg.nn.Linear(4, 8), dg.nn.ReLU(), dg.nn.Dropout(0.5), dg.nn.Linear(8, 3))
    optimizer = dg.optim.Adam(model.parameters(), lr=0.1)

    def step(x, y):
        optimizer.zero_grad()
        loss = dg.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def test_compare_finds_modes_equal_and_undoes_effects():
    model, step = _step()
    x, y = dg.randn(6, 4), dg.tensor([0, 1, 2, 0, 1, 2])
    before = [p.detach().numpy().copy() for p in model.parameters()]
    state = dg.default_generator.get_state()
    found = dg.compare(step, x, y)
    assert found.equal
    assert found.difference == 0
    assert "agree bit for bit" in str(found)
    for p, b in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), b)
        assert p.grad is None
    assert dg.default_generator.get_state() == state


@pytest.fixture
def fault(monkeypatch):
    """Wrong compilers: `fault(change)` has `change(graph, passes)` work on a copy of every graph, which is compiled."""
    import duograd.graph.compile as compiler
    import duograd.graph.segment as segment

    original = compiler.compile_graph

    def install(change):
        def broken(graph, device, passes=compiler.PASSES):
            wrong = graph.copy()
            change(wrong, frozenset(passes))
            return original(wrong, device, passes)

        monkeypatch.setattr(segment, "compile_graph", broken)
        monkeypatch.setattr(compiler, "compile_graph", broken)

    return install


def _becomes(old, new, needed="", beside=""):
    """A change: op `old` becomes `new`, when a pass is on and another op is there."""

    def change(graph, passes):
        if (not needed or needed in passes) and (not beside or any(n.op.name == beside for n in graph.nodes)):
            for node in graph.nodes:
                if node.op.name == old:
                    node.op = dg._REGISTRY[new]

    return change


def _line_of(text):
    with open(__file__) as file:
        return next(k for k, line in enumerate(file, 1) if text in line and "_line_of" not in line)


def _chain(x):
    a = x * 2
    b = dg.tanh(a)  # the op at fault
    return dg.exp(b) + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_becomes("tanh", "sin"), "its kernel in a graph differs"),
        (_becomes("tanh", "sin", "algebra"), "the pass 'algebra'"),
        (_becomes("tanh", "sin", "fuse"), "the fusion of multiply"),
        (_becomes("tanh", "sin", "cse", "exp"), "the pass 'cse'"),
    ],
)
def test_compare_names_the_first_op_pass_or_fusion_that_differs(fault, change, words):
    fault(change)
    found = dg.compare(_chain, dg.tensor([0.5, 1.0]))
    assert not found.equal
    assert found.difference > 0.01
    assert words in found.first_op
    assert f"test_compare.py:{_line_of('# the op at fault')}" in found.first_op


def test_compare_sees_gradients_and_changes_in_place(fault):
    w, state = dg.tensor([0.5, 1.0]).requires_grad_(), dg.zeros(2)

    def inside(x):
        (dg.sin(w) * x).sum().backward()

    def outside(x):
        return dg.sin(w) * x

    def in_place(x):
        state.add_(dg.cos(x))

    x = dg.tensor([1.0, 2.0])
    assert all(dg.compare(f, x).equal for f in (inside, outside, in_place))
    fault(_becomes("cos", "tanh"))
    for f in (inside, outside, in_place):
        found = dg.compare(f, x)
        assert not found.equal
        assert found.first_op.startswith("cos at ")
        assert w.grad is None
        np.testing.assert_array_equal(state.numpy(), 0)


def test_compare_follows_branches_on_values(fault):
    def f(x):
        y = x * 2
        if y.sum() > 0:
            y = dg.tanh(y)
        return y + 1

    assert dg.compare(f, dg.tensor([0.5])).equal
    fault(_becomes("tanh", "sin"))
    assert dg.compare(f, dg.tensor([0.5])).first_op.startswith("tanh at ")
    assert dg.compare(f, dg.tensor([-0.5])).equal


def test_a_wrong_kernel_of_one_fusion_among_others_is_named_with_its_line(monkeypatch):
    backend = type(get_backend("cpu"))
    load, planted = backend.load, []

    def wrong(self, program, *rest, **named):
        for k, launch in enumerate(program.launches):
            if launch.source and "rsqrt" in launch.source.partition("\n")[0] and "w_sub_f32" in launch.source:
                planted.append(k)
                program.launches[k] = launch._replace(source=launch.source.replace("w_sub_f32", "w_add_f32"))
        return load(self, program, *rest, **named)

    def fn(x, w):
        a = dg.softmax(x, axis=1)
        b = a @ w
        c = (b - b.mean(axis=1, keepdims=True)) * dg.rsqrt((b * b).sum(axis=1, keepdims=True) + 1)
        return c @ w - a

    x, w = dg.randn(64, 64), dg.randn(64, 64)
    assert dg.compare(fn, x, w).equal
    monkeypatch.setattr(backend, "load", wrong)
    found = dg.compare(fn, x, w)
    assert planted
    line = rf"test_compare.py:{fn.__code__.co_firstlineno + 3}"
    assert re.match(rf"multiply at .*{line}, by the fusion of (\w+(, )?)+ \(.*{line}\)$", found.first_op)


@pytest.mark.parametrize(("fault", "op"), [("w_neg_f32", "sum"), ("w_exp_f32", "subtract")])
def test_a_wrong_kernel_of_a_loss_is_named_and_not_the_product_of_its_line(monkeypatch, fault, op):
    """Compiled alone the kernel is another one, and the last op of the graph was named."""
    w, x, y = dg.randn(16, 32, requires_grad=True), dg.randn(64, 16), dg.randint(0, 32, (64,))

    def fn(x, y):
        loss = dg.cross_entropy(x @ w, y)
        loss.backward()
        return loss

    traced = dg.function(fn)
    traced(x, y)
    w.grad = None
    kernels = [
        v for variant in traced.variants for r in variant.runners() for v in r.compiled.program.launches
    ]
    right = next(v.source for v in kernels if (v.source or "").startswith("# max subtract exp sum log"))
    more = r"\g<0>\n\1\2 = w_mul_f32(\2, w_fill_f32(1.001))"
    source = re.sub(rf"^( *)(\w+) = {fault}\(.*$", more, right, flags=re.M)
    backend = type(get_backend("cpu"))
    load, planted = backend.load, []

    def wrong(self, program, *rest, **named):
        for k, launch in enumerate(program.launches):
            if launch.source == right:
                planted.append(source != right)
                program.launches[k] = launch._replace(source=source)
        return load(self, program, *rest, **named)

    assert dg.compare(fn, x, y).equal
    monkeypatch.setattr(backend, "load", wrong)
    found = dg.compare(fn, x, y)
    assert any(planted)
    assert re.match(rf"{op} at .*, by the fusion of max, ", found.first_op)


# ---------------------------------------------------------------- DUOGRAD_CHECK=1


@pytest.fixture
def checking(monkeypatch):
    monkeypatch.setenv("DUOGRAD_CHECK", "1")


def test_checked_training_gives_what_eager_training_gives(checking):
    x, y = dg.randn(6, 4), dg.tensor([0, 1, 2, 0, 1, 2])
    runs = []
    for graph in (True, False):
        dg.manual_seed(3)
        model, step = _step()
        step = dg.function(step) if graph else step
        losses = [step(x, y).item() for _ in range(3)]
        runs.append([losses, *(p.detach().numpy().tolist() for p in model.parameters())])
    assert runs[0] == runs[1]


def test_what_a_call_makes_anew_is_no_difference(checking, monkeypatch):
    monkeypatch.setitem(sys.modules, "made_by_a_call", None)

    @functools.singledispatch
    def rate(x):
        return 1

    @dg.function
    def f(x):
        made = types.ModuleType("made_by_a_call")
        made.scale = 3
        sys.modules["made_by_a_call"] = made
        rate.register(dg.Tensor)(lambda x: 2)
        import made_by_a_call

        return x * made_by_a_call.scale * rate(x)

    make = dg.function(lambda x: dg.nn.Linear(2, 2)(x))
    for _ in range(3):
        assert f(dg.ones(2)).tolist() == [6, 6]
        assert make(dg.ones(2)).shape == (2,)


def test_a_check_runs_both_modes_and_leaves_one_effect(checking):
    class Counter:
        n = 0

    w, drawn = dg.zeros(3).requires_grad_(), []

    @dg.function
    def step(x):
        Counter.n += 1
        drawn.append(dg.rand(2))
        (w * x).sum().backward()
        with dg.no_grad():
            w.sub_(w.grad)
        return w * 1

    x = dg.ones(3)
    for k in range(1, 4):
        assert step(x).detach().numpy()[0] == w.detach().numpy()[0]
        assert Counter.n == len(drawn) == k
        np.testing.assert_array_equal(w.grad.numpy(), k)
    assert len({a.numpy().tobytes() for a in drawn}) == 3
    again = dg.Generator(dg.default_generator.get_state()[0])
    dg.manual_seed(again.get_state()[0])
    for a in drawn:
        np.testing.assert_array_equal(dg.rand(2).numpy(), a.numpy())


def test_a_check_finds_a_wrong_kernel_and_puts_everything_back(checking, fault):
    fault(_becomes("tanh", "sin"))
    state = dg.zeros(2)

    @dg.function
    def f(x):
        state.add_(1)
        return dg.tanh(x)  # wrong here

    with pytest.raises(
        dg.errors.CheckError, match=r"result 0 differs; first op that differs: tanh at "
    ) as caught:
        f(dg.tensor([1.0, 2.0]))
    assert f"test_compare.py:{_line_of('# wrong here')}" in str(caught.value)
    np.testing.assert_array_equal(state.numpy(), 0)


def test_a_check_finds_a_wrong_kernel_beside_state_that_is_replaced(checking, fault):
    fault(_becomes("tanh", "sin"))

    class State:
        h = dg.ones(2)

    @dg.function
    def f(x):
        State.h = State.h * 0.5 + x
        return dg.tanh(State.h)  # wrong here

    with pytest.raises(dg.errors.CheckError, match="first op that differs: tanh at "):
        f(dg.ones(2))
    assert State.h.tolist() == [1, 1]


def test_a_check_finds_a_value_that_no_guard_watches(checking):
    """A missing guard, made by taking the guards of a variant away: the graph keeps a constant."""

    class Settings:
        scale = 2.0

    @dg.function
    def f(x):
        return x * Settings.scale  # a constant

    x = dg.tensor([1.0, 2.0])
    f(x)
    f.variants[0].check = lambda: True
    Settings.scale = 3.0
    with pytest.raises(dg.errors.CheckError) as caught:
        f(x)
    place = f"multiply at {__file__}:{_line_of('# a constant')}"
    assert f"{place}: the graph has the number 2.0, eager mode the number 3.0" in str(caught.value)


class Made:
    def __init__(self, x):
        self.x = x


def _in_thread(run):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


#: what a function does with a log and an object, and whether a call begins a thread
DOES = {
    "prints": lambda x, log, o: print("it runs") or x,
    "makes a list in an object": lambda x, log, o: (
        vars(o).setdefault("rows", []).append(1) or x * len(o.rows)
    ),
    "gives back a function": lambda x, log, o: (lambda: log.append(1)) if log.append(0) is None else x,
    "gives back a generator": lambda x, log, o: (x * k for k in range(2)),
    "gives back an object": lambda x, log, o: Made(x * 2),
    "gives back a dataclass": lambda x, log, o: Record(x * 2, log),
    "begins a thread": lambda x, log, o: _in_thread(lambda: log.append(1)) or x * len(log),
    "puts something into a queue": lambda x, log, o: o.queue.put(1) or x,
    "has a loop in the graph": lambda x, log, o: dg.while_loop(lambda h: h.sum() < 9, lambda h: h * 2, x) + 1,
}


@dataclasses.dataclass
class Record:
    x: object
    log: list


@pytest.mark.parametrize("does", DOES)
def test_a_check_leaves_what_one_call_leaves(checking, capsys, does):
    def run(mode):
        log, o, got = [], types.SimpleNamespace(queue=queue.Queue()), []
        f = dg.function(lambda x: DOES[does](x, log, o), mode=mode)
        for _ in range(3):
            result = f(dg.ones(2))
            got.append((type(result), list(log), str(vars(o).get("rows")), o.queue.qsize()))
            got.append(capsys.readouterr().out)
        return got

    assert run("graph") == run("eager")


def test_a_check_finds_a_difference_beside_a_loop(checking, fault):
    fault(_becomes("tanh", "sin"))
    f = dg.function(lambda x: dg.tanh(dg.while_loop(lambda h: h.sum() < 9, lambda h: h * 2, x)))
    with pytest.raises(dg.errors.CheckError, match="result 0 differs"):
        f(dg.ones(2))


def test_a_check_lets_the_functions_own_error_through(checking):
    @dg.function
    def f(x):
        return x.reshape(7)

    with pytest.raises(dg.errors.ShapeError, match="has 2 elements"):
        f(dg.ones(2))


def test_a_wrong_word_for_the_check_is_an_error(monkeypatch):
    monkeypatch.setenv("DUOGRAD_CHECK", "yes")
    with pytest.raises(dg.errors.FlagError, match="use 0 or 1"):
        dg.function(lambda x: x)


def test_bench_measures_both_modes_and_undoes_effects():
    model, step = _step()
    x, y = dg.randn(6, 4), dg.tensor([0, 1, 2, 0, 1, 2])
    before = model[0].weight.detach().numpy().copy()
    found = dg.bench(step, x, y, seconds=0.05)
    np.testing.assert_array_equal(model[0].weight.detach().numpy(), before)
    assert found.difference == 0
    assert found.kernels > 0
    assert found.eager.median_s > 0
    assert "graph" in str(found)


def test_a_function_that_is_left_to_python_cannot_be_compared():
    fn = dg.function(lambda x: x * time.time(), name="clock")
    for look in (dg.compare, dg.bench):
        with pytest.raises(
            dg.errors.TraceError, match=r"clock has no graph, its Python runs at every call: it calls"
        ):
            look(fn, dg.ones(2))


def test_a_fast_function_is_compared_as_it_runs():
    x = dg.randn(64, 300)
    fn = dg.function(lambda x: (x / 3 + x * 0.1).sum(axis=1) / 7, precision="fast", name="fast")
    found = dg.compare(fn, x)
    np.testing.assert_array_equal(found.difference, abs(fn(x) - fn.eager(x)).max().item())
    assert not found.equal
    assert found.name == "fast"


def test_the_peak_of_a_graph_holds_its_arena_though_another_call_has_made_it():
    a, b = dg.randn(200, 300), dg.randn(300, 200)
    fn = dg.function(lambda a, b: dg.softmax(a @ b, axis=0) @ a)
    fn(a, b)
    found = dg.bench(fn, a, b, seconds=0.02)
    (runner,) = fn.variants[0].runners()
    result = 200 * 300 * 4
    assert result + runner.compiled.arena_bytes <= found.graph.peak_bytes <= found.eager.peak_bytes


def test_bench_is_a_function_and_a_package():
    import duograd.bench.cases as cases

    assert "mlp" in cases.CASES
    assert dg.bench(lambda x: x + 1, dg.ones((3,)), seconds=0.01).difference == 0


def test_bench_refuses_no_time():
    with pytest.raises(dg.errors.ArgumentError, match="seconds=0 is no length of time"):
        dg.bench(lambda x: x, dg.ones((1,)), seconds=0)
