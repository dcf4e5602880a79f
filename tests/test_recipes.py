"""The eager door: a signature's work is done once; what may change between calls is read at each call."""

import threading
from pathlib import Path

import duograd as dg
import numpy as np
import pytest
from duograd.core.backend import get_backend
from duograd.core.op import REGISTRY
from duograd.core.storage import PIECE
from duograd.eager import execute, executor


def _kernel_lookups():
    stats = get_backend("cpu").kernel_stats()
    return sum(stats[k] for k in ("compiled", "loaded", "hits"))


def test_the_second_call_of_a_signature_makes_nothing():
    def calls():
        a, b = dg.ones((3, 5)), dg.ones((5,))
        (a + b, a * 2.0, dg.sum(a, axis=-1), a.sum(axis=0, keepdims=True), a[1:, ::2], a.reshape(5, 3))

    calls()
    before, kept = _kernel_lookups(), len(executor._kept)
    calls()
    assert _kernel_lookups() == before
    assert len(executor._kept) == kept


def test_numbers_are_read_at_each_call():
    x = dg.tensor([1.0, 2.0])
    for n in (1.5, -2.0, 1.5, 0.0):
        np.testing.assert_array_equal((x * n).numpy(), np.float32([n, 2 * n]))
    i = dg.tensor([1, 2], dtype="int8")
    assert (i + 100).tolist() == [101, 102]
    with pytest.raises(dg.errors.DuogradError):
        i + 1000
    assert (i + 100).tolist() == [101, 102]


def test_layouts_are_told_apart():
    x = dg.tensor(np.arange(16, dtype="float32").reshape(4, 4))
    for y in (x, x.T, x[::2], x[:, 1:3]):
        np.testing.assert_array_equal((y + 1).numpy(), y.numpy() + 1)
        np.testing.assert_array_equal(y.sum(axis=0).numpy(), y.numpy().sum(0))


def test_attributes_by_position_and_by_name_mean_the_same():
    x = dg.tensor(np.arange(6, dtype="float32").reshape(2, 3))
    for _ in range(2):
        assert dg.sum(x, axis=1).tolist() == dg.sum(x, 1).tolist() == x.sum(1).tolist() == [3.0, 12.0]
        assert dg.sum(x, axis=(0, 1)).item() == dg.sum(x, axis=[0, 1]).item() == 15.0
        assert dg.concat([x, x], axis=1).shape == dg.concat((x, x), axis=1).shape == (2, 6)


def test_errors_are_the_same_on_every_call():
    x = dg.ones((2, 5))
    messages = set()
    for _ in range(3):
        dg.softmax(x, axis=1)
        with pytest.raises(dg.errors.ArgumentError) as caught:
            dg.softmax(x, axis=3)
        messages.add(caught.value.message)
        with pytest.raises(dg.errors.ShapeError):
            x + dg.ones((3,))
    assert len(messages) == 1


def test_the_record_names_the_line_of_the_call():
    x = dg.ones((3,)).requires_grad_()
    for _ in range(3):
        y = x * 2  # this line
        z = dg.exp(y)
    lines = Path(__file__).read_text().splitlines()
    first = next(k for k, line in enumerate(lines, 1) if line.endswith("# this line"))
    assert y._node.line == f"{__file__}:{first}"
    assert z._node.line == f"{__file__}:{first + 1}"


def test_a_view_shortcut_shares_memory_and_history():
    x = dg.tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad_()
    for _ in range(3):
        x.grad = None
        y = x * 1.0
        part = y.T[0]
        part.mul_(10.0)
        assert y.tolist() == [[10.0, 2.0], [30.0, 4.0]]
        y.sum().backward()
        assert x.grad.tolist() == [[10.0, 1.0], [10.0, 1.0]]


def test_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(execute, "LIMIT", 10)
    for n in range(1, 40):
        dg.exp(dg.ones((n,)))
    assert len(executor._kept) <= 12
    assert sum(len(t) for t in REGISTRY["exp"].recipes.values()) <= 12


def test_many_threads_share_recipes():
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            a = rng.normal(size=(3, int(rng.integers(1, 6)))).astype("float32")
            x = dg.tensor(a).requires_grad_()
            y = (x * float(seed) + 1.0).sum(axis=1)
            y.sum().backward()
            if not (np.allclose(y.detach().numpy(), (a * seed + 1).sum(1), rtol=1e-4, atol=1e-4)
                    and np.all(x.grad.numpy() == seed)):  # fmt: skip
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_small_ops_allocate_their_result_only():
    allocator = get_backend("cpu").allocator
    x, y = dg.ones((16,)), dg.ones((16,))
    for op, nbytes in (
        (lambda: x + y, 64),
        (lambda: dg.exp(x), 64),
        (lambda: x * 2.0, 64),
        (lambda: x.sum(), PIECE),
    ):
        op()
        allocator.reset_peak()
        before = allocator.stats()["current_bytes"]
        out = op()
        assert allocator.stats()["peak_bytes"] - before == nbytes
        del out
