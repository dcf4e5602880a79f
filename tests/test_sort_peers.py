"""Sorting, selection, sets and bins against NumPy and torch: dtypes, lengths, ties, corner values, both modes."""

import duograd as dg
import numpy as np
import pytest
import torch

DTYPES = ["bool", "int8", "uint32", "int64", "uint64", "float32", "float64"]
CORNERS = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, np.nan, 0.0, -0.0, -1.0])


def _some(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        x = rng.normal(size=shape).astype(dtype)
        flat = x.reshape(-1)
        flat[: min(len(CORNERS), x.size)] = CORNERS[: x.size]
        flat[-(x.size // 3) :] = np.round(flat[-(x.size // 3) :], 1)  # many are equal
        return x
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def _bits(x):
    """Equal where every bit is, but for those of NaN."""
    return np.signbit(x) if x.dtype.kind == "f" else x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 30), 1), ((2, 300), 1), ((70, 3), 0), ((2, 5, 3), 1), ((1,), 0)]
)
def test_sort_equals_numpy(dtype, shape, axis):
    x = _some(dtype, shape)
    t = dg.tensor(x)
    order = np.argsort(x, axis=axis, kind="stable")
    values, indices = dg.sort(t, axis=axis, return_indices=True)
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_array_equal(dg.argsort(t, axis).numpy(), order)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, order, axis))
    same = np.isnan(values.numpy()) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    np.testing.assert_array_equal(
        _bits(values.numpy())[~same], _bits(np.take_along_axis(x, order, axis))[~same]
    )
    np.testing.assert_array_equal(dg.sort(t, axis).numpy(), np.sort(x, axis=axis))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64", "int64"])
@pytest.mark.parametrize("span", [3, 300, 2**31])
def test_rows_sorted_by_networks_and_by_digits(dtype, span):
    # Lengths about powers of two, where networks are padded; keys whose digits all vary, some, or one.
    for n in (2, 5, 15, 16, 17, 33, 64, 65, 500, 1025, 4096, 4097):
        x = np.random.default_rng(n).integers(-span, span, (3, n)).astype(dtype)
        order = np.argsort(x, axis=1, kind="stable")
        values, indices = dg.sort(dg.tensor(x), return_indices=True)
        np.testing.assert_array_equal(indices.numpy(), order)
        np.testing.assert_array_equal(values.numpy(), np.sort(x, axis=1))
        np.testing.assert_array_equal(dg.sort(dg.tensor(x)).numpy(), np.sort(x, axis=1))
        back = dg.argsort(dg.tensor(x), descending=True)
        want = n - 1 - np.argsort(x[:, ::-1], axis=1, kind="stable")[:, ::-1]
        np.testing.assert_array_equal(back.numpy(), want)


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64", "int64"])
@pytest.mark.parametrize("n", [0, 1, 40, 41, 257, 17_000])
def test_descending_equals_torch(dtype, n):
    x = _some(dtype, (2, n))
    got = dg.sort(dg.tensor(x), descending=True, return_indices=True)
    want = torch.sort(torch.tensor(x), descending=True, stable=True)
    np.testing.assert_array_equal(got.indices.numpy(), want.indices.numpy())
    np.testing.assert_array_equal(got.values.numpy(), want.values.numpy())
    np.testing.assert_array_equal(dg.sort(dg.tensor(x), descending=True).numpy(), want.values.numpy())


@pytest.mark.parametrize("dtype", ["int8", "float32", "int64", "float64"])
def test_one_long_row_is_sorted_by_all_chunks(run_kernel, dtype, monkeypatch):
    from duograd.backends.cpu.device import CpuBackend

    monkeypatch.setattr(CpuBackend, "num_threads", lambda self: 4)
    x = _some(dtype, (40_000,))
    order = np.argsort(x, kind="stable")
    for chunks in (1, 3, 7):
        values, indices = run_kernel(
            "sort_both", [x], [(x.shape, dtype), (x.shape, "int64")], chunks=chunks, axis=0, descending=False
        )
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_array_equal(values, x[order])
        (alone,) = run_kernel("sort", [x], [(x.shape, dtype)], chunks=chunks, axis=0, descending=False)
        np.testing.assert_array_equal(alone, np.sort(x))


def test_rows_of_one_value_and_sorted_rows():
    for row in (
        np.full(50_000, 7.0, "float32"),
        np.arange(50_000, dtype="int32"),
        np.arange(50_000.0)[::-1].copy(),
    ):
        got = dg.sort(dg.tensor(row), return_indices=True)
        np.testing.assert_array_equal(got.indices.numpy(), np.argsort(row, kind="stable"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_sorted_exactly(dtype):
    x = dg.tensor(_some("float32", (3, 100))).to(dtype)
    wide = x.to(dg.float32).numpy()
    np.testing.assert_array_equal(dg.argsort(x).numpy(), np.argsort(wide, axis=-1, kind="stable"))
    np.testing.assert_array_equal(dg.sort(x).to(dg.float32).numpy(), np.sort(wide, axis=-1))


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "k"), [((3, 20), 1), ((3, 200), 7), ((2, 2000), 300), ((4, 50), 40), ((70_000,), 5)]
)
def test_topk_equals_a_stable_sort(dtype, shape, k):
    x = _some(dtype, shape)
    for largest in (True, False):
        got = dg.topk(dg.tensor(x), k, largest=largest)
        want = dg.sort(dg.tensor(x), descending=largest, return_indices=True)
        np.testing.assert_array_equal(got.indices.numpy(), want.indices.numpy()[..., :k])
        np.testing.assert_array_equal(got.values.numpy(), want.values.numpy()[..., :k])
        peer = torch.topk(torch.tensor(x), k, largest=largest)
        np.testing.assert_array_equal(got.values.numpy(), peer.values.numpy())


def test_kthvalue_and_most_frequent_equal_torch():
    x = np.random.default_rng(0).permutation(60).reshape(5, 12).astype("float32")
    for k in (1, 2, 7, 12):
        got, want = dg.kthvalue(dg.tensor(x), k, 1), torch.kthvalue(torch.tensor(x), k, 1)
        np.testing.assert_array_equal(got.values.numpy(), want.values.numpy())
        np.testing.assert_array_equal(got.indices.numpy(), want.indices.numpy())
    y = np.random.default_rng(1).integers(0, 4, (5, 12))
    for axis in (0, 1):
        got, want = dg.most_frequent(dg.tensor(y), axis), torch.mode(torch.tensor(y), axis)
        np.testing.assert_array_equal(got.values.numpy(), want.values.numpy())
        np.testing.assert_array_equal(got.indices.numpy(), want.indices.numpy())


@pytest.mark.parametrize(
    "pick",
    [
        lambda lib, x: lib.sort(x, 1, return_indices=True)[0] if lib is dg else lib.sort(x, 1)[0],
        lambda lib, x: dg.sort(x, 0) if lib is dg else lib.sort(x, 0)[0],
        lambda lib, x: lib.topk(x, 3, 1)[0],
        lambda lib, x: lib.kthvalue(x, 2, 0)[0],
        lambda lib, x: lib.quantile(x, 0.3),
        lambda lib, x: lib.masked_select(x, x > 0),
        lambda lib, x: lib.cummax(x, 1)[0],
        lambda lib, x: lib.amax(x, axis=1) if lib is dg else lib.amax(x, 1),
    ],
)
def test_gradients_equal_torch(pick, close):
    x = np.random.default_rng(0).normal(size=(4, 7))
    grads = []
    for lib, make in ((dg, dg.tensor), (torch, torch.tensor)):
        t = make(x, requires_grad=True)
        y = pick(lib, t)
        weights = make(np.linspace(1, 2, int(np.prod(y.shape))).reshape(tuple(y.shape)))
        (y * y * weights).sum().backward()
        grads.append(t.grad.numpy())
    close(*grads)


def test_lexsort_equals_numpy():
    rng = np.random.default_rng(0)
    keys = [rng.integers(0, 4, 50) for _ in range(3)]
    np.testing.assert_array_equal(dg.lexsort([dg.tensor(k) for k in keys]).numpy(), np.lexsort(keys))


# ---------------------------------------------------------------- places, sets, bins


@pytest.mark.parametrize("dtype", ["bool", "int8", "float32"])
def test_nonzero_equals_numpy(dtype):
    x = np.random.default_rng(0).integers(0, 2, (5, 6, 7)).astype(dtype)
    if dtype == "float32":
        x[0, 0, :2] = np.nan, -0.0
    for got, want in zip(dg.nonzero(dg.tensor(x)), np.nonzero(x), strict=True):
        np.testing.assert_array_equal(got.numpy(), want)
    np.testing.assert_array_equal(dg.argwhere(dg.tensor(x)).numpy(), np.argwhere(x))
    np.testing.assert_array_equal(dg.flatnonzero(dg.tensor(x)).numpy(), np.flatnonzero(x))
    assert dg.argwhere(dg.tensor(3.0)).shape == (1, 0)
    assert dg.nonzero(dg.tensor(np.zeros((0, 2))))[1].shape == (0,)
    with pytest.raises(dg.errors.ArgumentError, match="has no axes"):
        dg.nonzero(dg.tensor(1))


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32", "float64", "uint8"])
def test_unique_and_sets_equal_numpy(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (7, 6)).astype(dtype), rng.integers(3, 12, (9,)).astype(dtype)
    t, u = dg.tensor(x), dg.tensor(y)
    want = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
    for a, b in zip(dg.unique_all(t), want, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.reshape(a.shape))
    rows = np.unique(x % 3, axis=0, return_index=True, return_inverse=True, return_counts=True)
    got = dg.unique(dg.tensor(x % 3), axis=0, return_index=True, return_inverse=True, return_counts=True)
    for a, b in zip(got, rows, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.reshape(a.shape))
    for name in "union1d intersect1d setdiff1d setxor1d isin".split():
        np.testing.assert_array_equal(getattr(dg, name)(t, u).numpy(), getattr(np, name)(x, y), err_msg=name)
    np.testing.assert_array_equal(dg.isin(t, u, invert=True).numpy(), np.isin(x, y, invert=True))


def test_unique_keeps_every_nan_and_no_elements():
    x = dg.tensor([1.0, np.nan, -0.0, np.nan, 0.0])
    values, counts = dg.unique_counts(x)
    np.testing.assert_array_equal(values.numpy(), [0.0, 1.0, np.nan, np.nan])
    np.testing.assert_array_equal(counts.numpy(), [2, 1, 1, 1])
    empty = dg.unique_all(dg.tensor(np.zeros((0, 2), "float32")))
    assert [tuple(v.shape) for v in empty] == [(0,), (0,), (0, 2), (0,)]


def test_unique_consecutive_equals_torch():
    x = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    for axis in (None, 0, 1):
        got = dg.unique_consecutive(dg.tensor(x), return_inverse=True, return_counts=True, axis=axis)
        want = torch.unique_consecutive(torch.tensor(x), return_inverse=True, return_counts=True, dim=axis)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_equals_numpy_and_torch(side):
    row = np.sort(_some("float32", (50,)))
    values = _some("float32", (4, 30), 1)
    np.testing.assert_array_equal(
        dg.searchsorted(dg.tensor(row), dg.tensor(values), side=side).numpy(),
        np.searchsorted(row, values, side),
    )
    rows = np.sort(np.random.default_rng(0).integers(0, 9, (2, 3, 8)), axis=-1)
    asked = np.random.default_rng(1).integers(0, 9, (2, 3, 5))
    got = dg.searchsorted(dg.tensor(rows), dg.tensor(asked), side=side).numpy()
    np.testing.assert_array_equal(
        got, torch.searchsorted(torch.tensor(rows), torch.tensor(asked), side=side).numpy()
    )
    mixed = np.array([5, 1, 3])
    order = dg.argsort(dg.tensor(mixed))
    assert dg.searchsorted(dg.tensor(mixed), 4, sorter=order).item() == 2
    assert dg.bucketize(dg.tensor(3), dg.tensor([1, 3, 5]), right=True).item() == 2


def test_digitize_bincount_histogram_equal_numpy():
    x = np.random.default_rng(0).normal(size=300).astype("float32")
    for edges in (np.array([-1.0, 0.0, 0.5]), np.array([0.5, 0.0, -1.0])):
        for right in (False, True):
            got = dg.digitize(dg.tensor(x), dg.tensor(edges), right=right).numpy()
            np.testing.assert_array_equal(got, np.digitize(x, edges, right=right))
    n = np.random.default_rng(1).integers(0, 8, 50)
    np.testing.assert_array_equal(
        dg.bincount(dg.tensor(n), minlength=12).numpy(), np.bincount(n, minlength=12)
    )
    w = np.random.default_rng(2).uniform(size=50)
    np.testing.assert_allclose(dg.bincount(dg.tensor(n), dg.tensor(w)).numpy(), np.bincount(n, w))
    for settings in (
        {},
        {"bins": 7, "range": (-1, 1)},
        {"bins": np.array([-2.0, -1, 0.5, 3])},
        {"density": True},
    ):
        got, want = dg.histogram(dg.tensor(x), **settings), np.histogram(x, **settings)
        np.testing.assert_allclose(got.hist.numpy(), want[0], rtol=1e-6)
        np.testing.assert_allclose(got.bin_edges.numpy(), want[1], rtol=1e-6, atol=1e-6)
    with pytest.raises(dg.errors.ArgumentError, match="negative"):
        dg.bincount(dg.tensor([1, -1]))


def test_sizes_that_depend_on_values_work_in_graph_mode():
    def f(x):
        a, b = dg.nonzero(x > 0)
        return (
            a + b,
            dg.unique_values(x),
            dg.masked_select(x, x > 1),
            dg.median(x, axis=1),
            dg.topk(x, 2).indices,
        )

    traced = dg.function(f)
    for seed in (0, 1, 0):
        x = dg.tensor(np.random.default_rng(seed).integers(-3, 4, (4, 5)).astype("float32"))
        for got, want in zip(traced(x), f(x), strict=True):
            np.testing.assert_array_equal(got.numpy(), want.numpy())
