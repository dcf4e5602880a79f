"""The quick way into a variant does what the general way does: results, effects, guards."""

from __future__ import annotations

import duograd as dg
import numpy as np
import pytest
from duograd.graph import entry
from duograd.graph.entry import _ALONE, _ALONE_IN_IT


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Variants get their entry at the second call."""
    monkeypatch.setattr(entry, "CALLS", 1)


def _warm(fn, *args):
    for _ in range(3):
        out = fn(*args)
    assert fn._entries
    return out


def _training():
    dg.manual_seed(3)
    model = dg.nn.Sequential(dg.nn.Linear(4, 3), dg.nn.Dropout(0.5), dg.nn.Linear(3, 1))
    optimizer = dg.optim.Adam(model.parameters(), lr=1e-2)

    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def test_a_train_step_is_the_same_with_a_changing_setting_and_random_numbers():
    x = dg.tensor(np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32))
    losses = []
    for traced in (False, True):
        _, optimizer, step = _training()
        fn = dg.function(step) if traced else step
        row = []
        for k in range(8):
            if k == 5:
                optimizer.param_groups[0]["lr"] = 0.5
            row.append(fn(x).item())
        losses.append(row)
    assert fn._entries
    assert len(fn.variants) == 1
    assert losses[0] == losses[1]


def test_a_gradient_that_somebody_holds_keeps_its_value():
    w = dg.ones((3,)).requires_grad_(True)

    @dg.function
    def step(x):
        w.grad = None
        (w * x).sum().backward()

    _warm(step, dg.ones((3,)))
    kept, seen, part = w.grad, w.grad.numpy(), w.grad[:2]
    step(dg.ones((3,)) * 2)
    assert kept.numpy().tolist() == [1, 1, 1]
    assert seen.tolist() == [1, 1, 1]
    assert part.numpy().tolist() == [1, 1]
    step(dg.ones((3,)) * 3)
    array = w.grad.numpy()
    step(dg.ones((3,)) * 4)
    assert array.tolist() == [3, 3, 3]
    assert w.grad.numpy().tolist() == [4, 4, 4]


def test_a_gradient_that_nobody_holds_is_used_again():
    w = dg.ones((3,)).requires_grad_(True)

    @dg.function
    def step(x):
        w.grad = None
        (w * x).sum().backward()

    _warm(step, dg.ones((3,)))
    before = id(w.grad), w.grad.ptr
    step(dg.ones((3,)))
    assert before == (id(w.grad), w.grad.ptr)
    assert _ALONE > 0
    assert _ALONE_IN_IT > 0


def test_what_does_not_fit_goes_the_general_way():
    scale = 2.0
    fn = dg.function(lambda x, y: x * scale + y)
    x, y = dg.ones((3,)), dg.zeros((3,))
    _warm(fn, x, y)
    assert fn(x, x).numpy().tolist() == [3, 3, 3]  # one tensor twice
    assert fn(dg.ones((2,)), dg.ones((2,))).shape == (2,)
    assert fn(dg.ones((3,), dtype=dg.float64), y).dtype is dg.float64
    assert fn(x, 1.0).numpy().tolist() == [3, 3, 3]
    assert fn(x, y=y).numpy().tolist() == [2, 2, 2]
    scale = 3.0
    assert fn(x, y).numpy().tolist() == [3, 3, 3]
    w = dg.ones((3,)).requires_grad_(True)
    assert fn(w, y).requires_grad
    with dg.no_grad():
        assert not fn(w, y).requires_grad
    with dg.mode("eager"):
        assert fn(x, y).numpy().tolist() == [3, 3, 3]
    fn.mode = "eager"
    assert fn(x, y).numpy().tolist() == [3, 3, 3]
    with pytest.raises(TypeError):
        fn(x)


def test_inside_another_trace_and_a_vmap_it_is_part_of_them():
    fn = dg.function(lambda x: x * 2 + 1)
    _warm(fn, dg.ones((3,)))
    outer = dg.function(lambda x: fn(x) * 3)
    assert outer(dg.ones((3,))).numpy().tolist() == [9, 9, 9]
    assert dg.vmap(fn)(dg.ones((2, 3))).numpy().tolist() == [[3, 3, 3]] * 2


def test_effects_and_structures_of_python():
    seen: list[object] = []
    total = dg.zeros((2,))

    @dg.function
    def f(x):
        seen.append(x.sum())
        total.add_(x)
        x.mul_(2.0)
        return {"twice": x, "sum": (x + 1, 5)}

    for _ in range(4):
        x = dg.ones((2,))
        out = f(x)
        assert out["twice"] is x
        assert x.numpy().tolist() == [2, 2]
        assert out["sum"][0].numpy().tolist() == [3, 3]
        assert out["sum"][1] == 5
    assert f._entries
    assert [s.item() for s in seen] == [2.0] * 4
    assert total.numpy().tolist() == [4, 4]
    assert f(total)["twice"] is total  # an argument that it writes besides
    assert total.numpy().tolist() == [16, 16]


def test_gradients_flow_out_of_it():
    fn = dg.function(lambda x: dg.sin(x) * 2)
    x = dg.ones((3,)).requires_grad_(True)
    for _ in range(4):
        x.grad = None
        fn(x).sum().backward()
    assert np.allclose(x.grad.numpy(), 2 * np.cos(1.0))
