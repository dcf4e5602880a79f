"""Results whose size is found while they are made: with and without a count before, the same; indices outside."""

from __future__ import annotations

import duograd as dg
import numpy as np
import pytest
from duograd.core.ops import counted

ROWS = {
    "float32": [2.0, 1.0, np.nan, 2.0, -0.0, 0.0, np.nan],
    "int16": [3, 0, 3, 3, -1, 0, 2],
    "bool": [True, False, True, True, False, True, False],
    "bfloat16": [2.0, 1.0, 2.0, 0.0, -1.0, 0.0, 2.0],
    "complex128": [1 + 1j, 0, 1 + 1j, 2, 0, 1j, 2],
}


@pytest.mark.parametrize("dtype", ROWS)
def test_counting_first_or_meanwhile_gives_the_same(dtype, monkeypatch):
    x = dg.tensor(ROWS[dtype], dtype=dtype)
    mask = dg.tensor([True, False, True, True, False, False, True])

    def found():
        made = [dg.flatnonzero(x), dg.masked_select(x, mask), dg.unique(x), dg.masked_select(x, mask & False)]
        return [np.array(y.to("float32").numpy() if dtype == "bfloat16" else y.numpy()) for y in made]

    meanwhile = found()
    monkeypatch.setattr(counted, "FEW", 0)
    for a, b in zip(meanwhile, found(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_a_count_meanwhile_is_differentiable_by_the_other_way():
    x = dg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    dg.masked_select(x, x > 1.5).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 1])


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("op", ["take", "take_rows", "gather", "put", "add"])
def test_an_index_outside_is_told_after_the_kernel_and_forgotten(op, size):
    x = dg.zeros((size, 2)) if op == "take_rows" else dg.zeros((size,))
    calls = {
        "take": lambda i: dg.take(x, i, axis=0),
        "take_rows": lambda i: dg.take(x, i, axis=0),
        "gather": lambda i: dg.take_along_axis(x, i, 0),
        "put": lambda i: dg.scatter(x, 0, i, dg.ones(i.shape)),
        "add": lambda i: dg.scatter_add(x, 0, i, dg.ones(i.shape)),
    }
    right, wrong = (dg.tensor(np.resize(row, size)) for row in ([0, 1, -1], [0, 1, size]))
    for _ in range(2):
        with pytest.raises(IndexError, match=rf"index {size} is outside axis 0 of x: float32\[{size}"):
            calls[op](wrong)
        calls[op](right)
