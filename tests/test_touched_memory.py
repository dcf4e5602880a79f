"""What a kernel reads and writes in each of its phases is what the memory plan thinks: the rest may be overwritten."""

import duograd as dg
import numpy as np
import pytest
from duograd.core.reference import samples
from duograd.graph import assemble
from duograd.tests import guarded_memory, poisoned_memory

SAMPLES = {k: row for k, *row in guarded_memory.of_samples()}
OWN = [f"{op.name}-{k}" for op, k, _ in samples("primitive") if f"{op.name}-{k}" in SAMPLES]
EDGES = {name: row for name, *row in guarded_memory.Edges(3).calls(5)}


def compare(call, arrays, wants):
    """Results of both modes, which are to be equal."""
    results = []
    for mode in ("eager", "graph"):
        dg.manual_seed(7)
        xs = [dg.tensor(a) for a in arrays]
        run, xs = guarded_memory.with_gradients(call, xs) if wants else (call, xs)
        made = dg.function(run, mode=mode)(*xs)
        results.append(made if isinstance(made, tuple) else (made,))
    for a, b in zip(*results, strict=True):
        if a is not None or b is not None:
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.fixture
def poisoned(monkeypatch):
    return poisoned_memory.install(monkeypatch)


@pytest.mark.parametrize("name", OWN)
def test_samples_leave_alone_what_their_plan_leaves_alone(name, poisoned):
    compare(*SAMPLES[name])
    assert poisoned


@pytest.mark.parametrize("name", EDGES)
def test_kernels_of_many_sizes_leave_alone_what_their_plan_leaves_alone(name, poisoned):
    compare(*EDGES[name])


def test_it_is_noticed_when_a_plan_is_wrong(monkeypatch, poisoned):
    """A product's operand that counts as dead after its first phase, and a result that counts as made in the last."""
    x, w = (np.random.default_rng(n).standard_normal((300, 300)).astype(np.float32) for n in range(2))

    def f(x, w):
        return dg.relu(x * 2.0 @ w + 1.0) @ w

    compare(f, [x, w], True)
    monkeypatch.setattr(assemble.Lowered, "span", lambda self, v: (0, 0))
    with pytest.raises(AssertionError):
        compare(f, [x, w], True)
