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


def _any_size(body, rows, *rest):
    """A function that has an entry for any size of its arguments' first axes."""
    fn = dg.function(body)
    for n in rows:
        fn(*(dg.ones(n, *shape) for shape in rest))
    assert fn._entries[0][1].live.sized
    return fn, fn._entries[0][0]


def _bits(x):
    return [(y.numpy().tobytes(), y.shape, y.strides) if isinstance(y, dg.Tensor) else y for y in x]


def test_any_size_has_an_entry_that_does_what_eager_mode_does(monkeypatch):
    monkeypatch.setattr(entry, "_KNOWN", 8)
    total = dg.zeros((3,))

    def body(x, y):
        n = x.shape[0]
        total.add_(x.sum(0))
        z = dg.softmax(x @ y.mT, -1) @ y
        return z, [x[1:] * n, {"half": x[: n // 2].sum(0), "n": n * 2}], x.reshape(-1) / n, y[n - 1]

    def flat(out):
        z, (a, row), b, c = out
        return _bits([z, a, row["half"], row["n"], b, c, total])

    fn, enter = _any_size(body, (3, 4, 5, 6, 7, 8, 9), (3,), (3,))
    rng = np.random.default_rng(0)
    for n in (*range(4, 65), 33, 5):  # halves of 2 and 3 rows are one row
        args = [dg.tensor(rng.standard_normal((n, 3)).astype(np.float32)) for _ in range(2)]
        total.zero_()
        want = flat(body(*args))
        total.zero_()
        assert flat(enter(args)) == want
        total.zero_()
        assert flat(fn(*args)) == want


def test_what_no_size_of_an_entry_is_goes_the_general_way():
    fn, enter = _any_size(lambda x, y: (x * y).sum(-1), range(3, 10), (2,), (2,))
    a, b, out = dg.ones(9, 2), dg.ones(9, 2), dg.ones(2, 9).mT
    assert enter((a, b)).shape == (9,)
    for x, y in ((a, dg.ones(8, 2)), (out, b), (a, out), (dg.ones(1, 2), dg.ones(1, 2)), (dg.ones(65, 2),) * 2,
                 (a, dg.ones(9, 2, dtype="float64")), (a, dg.ones(9, 3)), (dg.ones(9), b), (a, a), (a, 1.0),
                 (a, dg.ones(9, 2).requires_grad_())):  # fmt: skip
        assert enter((x, y)) is entry.MISS
    x = dg.ones(9, 2)[:0]
    assert enter((x, x.clone())) is entry.MISS
    assert fn(a, out).numpy().tolist() == [2.0] * 9
    assert fn(a, dg.ones(9, 2, dtype="float64")).dtype is dg.float64


def test_an_entry_for_any_place_moves_addresses():
    cache = dg.zeros(40, 3)

    @dg.function
    def step(x, i):
        cache[i] = x
        return cache[: i + 1].sum(0), cache[i]

    want = dg.zeros(40, 3)
    for i in range(1, 40):
        x = dg.full((3,), float(i))
        want[i] = x
        assert _bits(step(x, i)) == _bits((want[: i + 1].sum(0), want[i]))
    assert step._entries[0][1].live.sized
    assert len(step._entries[0][1].root.runner._moved) > 0


def test_containers_that_an_entry_returns_are_new_at_each_call():
    def body(x):
        row = [x + 1, 3]
        return {"row": row, "pair": (row[0], None)}, row, [row, x]

    fn = dg.function(body)
    x = dg.ones(2)
    for _ in range(4):
        first, row, pair = fn(x)
        assert first["row"] is row is pair[0]
        assert pair[1] is x
        row.append(4)
    apart = dg.function(lambda x: ({"a": [x + 1, 2.5]}, (x * 2, "b")))
    kept = [_warm(apart, x) for _ in range(2)]
    assert kept[0][0] is not kept[1][0]
    assert kept[0][0]["a"] is not kept[1][0]["a"]
    assert [type(kept[0][0]), kept[0][0]["a"][1], kept[0][1][1]] == [dict, 2.5, "b"]


def test_values_are_checked_before_anything_is_handed_out():
    table, count = dg.tensor(np.arange(12.0, dtype=np.float32).reshape(4, 3)), [0]

    @dg.function
    def pick(x, i):
        count[0] += 1
        return dg.take(x, i, axis=0) * 2

    good, bad = dg.tensor([3, 0, -1]), dg.tensor([1, 2, 4])
    out = _warm(pick, table, good)
    np.testing.assert_array_equal(out.numpy(), table.numpy()[[3, 0, -1]] * 2)
    before = count[0]
    said = []
    for call in (pick, pick.eager):
        with pytest.raises(IndexError) as caught:
            call(table, bad)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert count[0] == before + 1  # eager mode has counted before it failed
    np.testing.assert_array_equal(pick(table, good).numpy(), out.numpy())


@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_that_looks_at_values_changes_nothing_where_they_are_refused(scaled):
    model = dg.nn.Embedding(5, 3)
    optimizer = dg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    lr = dg.tensor(0.5)

    @dg.function
    def step(i):
        optimizer.zero_grad()
        loss = (model(i) ** 2).sum() * (lr if scaled else 1.0)
        loss.backward()
        optimizer.step()
        return loss

    plain = dg.nn.Embedding(5, 3)
    plain.load_state_dict(model.state_dict())
    other = dg.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    good, bad = dg.tensor([3, 0, 3]), dg.tensor([1, 5, 0])
    for k in range(6):
        other.zero_grad()
        loss = (plain(good) ** 2).sum() * (lr if scaled else 1.0)
        loss.backward()
        other.step()
        assert step(good).item() == loss.item()
        if k == 4:
            assert step._entries
            with pytest.raises(IndexError, match="5"):
                step(bad)
    np.testing.assert_array_equal(model.weight.detach().numpy(), plain.weight.detach().numpy())


def test_what_is_printed_goes_the_general_way(capsys):
    @dg.function
    def shown(x):
        dg.print("sum {:.1f}", x.sum())
        return x + 1

    x = dg.ones((3,))
    for _ in range(4):
        shown(x)
    assert not shown._entries
    assert capsys.readouterr().out == "sum 3.0\n" * 4
