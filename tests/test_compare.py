"""`dg.compare` and `dg.bench`: both modes side by side, without lasting effects."""

import duograd as dg
import numpy as np
import pytest


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


def test_compare_names_the_first_op_that_differs(monkeypatch):
    """With a wrong graph kernel for one op, compare points at that op."""
    from duograd.graph import compile as compiler

    original = compiler.compile_graph

    def broken(graph, device):
        for node in graph.nodes:
            if node.op.name == "tanh":
                node.op = dg._REGISTRY["sin"]
        return original(graph, device)

    import duograd.graph.variant as variant
    import duograd.interop.measure as measure

    monkeypatch.setattr(variant, "compile_graph", broken)
    monkeypatch.setattr(measure, "compile_graph", broken)
    found = dg.compare(lambda x: dg.tanh(x * 2) + 1, dg.tensor([0.5, 1.0]))
    assert not found.equal
    assert found.difference > 0.01
    assert found.first_op is not None
    assert "test_compare.py" in found.first_op


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


def test_bench_is_a_function_and_a_package():
    import duograd.bench.cases as cases

    assert "mlp" in cases.CASES
    assert dg.bench(lambda x: x + 1, dg.ones((3,)), seconds=0.01).difference == 0


def test_bench_refuses_no_time():
    with pytest.raises(dg.errors.ArgumentError, match="not positive"):
        dg.bench(lambda x: x, dg.ones((1,)), seconds=0)
