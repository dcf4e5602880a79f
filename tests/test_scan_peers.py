"""Running results and sums against NumPy and torch: values, gradients to order two, corner values, chunks."""

import duograd as dg
import numpy as np
import pytest
import torch

CORNERS = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, 1.0, -2.5]


def _some(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-1.5, 1.5, shape).astype(dtype)
    return rng.integers(0, 2 if dtype == "bool" else 5, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int32", "bool"])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 40), 1), ((3, 40), 0), ((2, 3, 5), 1), ((33,), None), ((2, 3), None)]
)
def test_scan_equals_numpy(name, dtype, shape, axis, close):
    x = _some(dtype, shape)
    want = getattr(np, name)(x, axis=axis)
    close(getattr(dg, name)(dg.tensor(x), axis).numpy(), want, scale=20)
    back = getattr(np, name)(np.flip(x, axis).ravel() if axis is None else np.flip(x, axis), axis=axis)
    got = getattr(dg, name)(dg.tensor(x), axis, reverse=True).numpy()
    close(got, np.flip(back, axis), scale=20)


@pytest.mark.parametrize("shape", [(70_000,), (3, 66_000), (66_000, 2)])
def test_long_scans_round_once(shape):
    x = _some("float32", shape)
    axis = int(np.argmax(shape))
    want = np.cumsum(x.astype("float64"), axis=axis)
    got = dg.cumsum(dg.tensor(x), axis).numpy()
    np.testing.assert_allclose(got, want, rtol=1.2e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["cumsum", "logcumsumexp", "cummax"])
def test_chunks_change_nothing(run_kernel, name):
    for shape, axis in (((1, 66_000), 1), ((5, 300), 1), ((9, 70), 0)):
        x = _some("float32", shape)
        outputs = [(shape, "float32"), (shape, "int64")][: 2 if name == "cummax" else 1]
        runs = [run_kernel(name, [x], outputs, chunks=c, axis=axis) for c in (1, 3, 8)]
        for other in runs[1:]:
            for a, b in zip(runs[0], other):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_running_extremes_equal_torch(name, dtype):
    x = _some("int64", (4, 50)).astype(dtype)
    if dtype == "float32":
        x[0, :8], x[1, 20:28], x[2] = CORNERS, CORNERS, -np.inf
    for axis in (0, 1):
        got, want = getattr(dg, name)(dg.tensor(x), axis), getattr(torch, name)(torch.tensor(x), axis)
        np.testing.assert_array_equal(got.values.numpy(), want.values.numpy())
        np.testing.assert_array_equal(got.indices.numpy(), want.indices.numpy())


def test_logcumsumexp_equals_torch(close):
    x = _some("float64", (4, 50)) * 300
    x[0, :3], x[1, 5], x[2, 7] = -np.inf, np.inf, np.nan
    for axis in (0, 1):
        close(dg.logcumsumexp(dg.tensor(x), axis).numpy(), torch.logcumsumexp(torch.tensor(x), axis).numpy())


def _first(lib, loss, x):
    """The gradient of loss, with its own history."""
    if lib is torch:
        return torch.autograd.grad(loss, x, create_graph=True)[0]
    loss.backward(create_graph=True)
    first, x.grad = x.grad, None
    return first


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp"])
def test_gradients_equal_torch_to_order_two(name, close):
    x = _some("float64", (3, 6))
    x[0, 2] = x[1, 0] = x[1, 4] = 0.0  # one zero, and two in a row
    weights = np.random.default_rng(1).uniform(-1, 1, (2, 3, 6))
    results = []
    for lib, make in ((dg, dg.tensor), (torch, torch.tensor)):
        t = make(x, requires_grad=True)
        w, v = make(weights[0]), make(weights[1])
        loss = (getattr(lib, name)(t, 1) * w).sum()
        if name == "cumsum":  # linear: there is no second order
            loss.backward()
            results.append((t.grad.numpy(),))
            continue
        first = _first(lib, loss, t)
        (first * v).sum().backward()
        results.append((first.detach().numpy(), t.grad.numpy()))
    for got, want in zip(*results, strict=True):
        close(got, want)


def test_prod_gradient_is_exact_with_zeros_to_order_two(close):
    x = np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 5.0]])
    both = []
    for lib, make in ((dg, dg.tensor), (torch, torch.tensor)):
        t = make(x, requires_grad=True)
        first = _first(lib, (t.prod(1) * make(np.array([1.0, 2.0]))).sum(), t)
        (first * make(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))).sum().backward()
        both.append((first.detach().numpy(), t.grad.numpy()))
    for got, want in zip(*both):
        close(got, want)


def test_cumulative_names_of_the_array_api():
    x = dg.tensor(np.array([[1, 2], [3, 4]], "int8"))
    np.testing.assert_array_equal(
        dg.cumulative_sum(x, axis=1, include_initial=True).numpy(), [[0, 1, 3], [0, 3, 7]]
    )
    np.testing.assert_array_equal(dg.cumulative_prod(x, axis=0, dtype=dg.float32).numpy(), [[1, 2], [3, 8]])
    assert dg.cumulative_sum(x, axis=0).dtype is dg.int64
    with pytest.raises(dg.errors.ArgumentError, match="axis is missing"):
        dg.cumulative_sum(x)


def test_the_error_of_a_sum_does_not_grow_with_its_length():
    """Lanes add up 64 elements each in a block, blocks in float64: a few roundings for ten million numbers."""
    x = np.random.default_rng(0).uniform(0, 0.2, 10_000_000).astype("float32")
    want = x.astype(np.float64).sum()
    assert abs(dg.tensor(x).sum().item() - want) / want < 1e-7
    np.testing.assert_allclose(
        dg.tensor(x.reshape(-1, 10)).sum(axis=0).numpy(),
        x.reshape(-1, 10).astype("float64").sum(0),
        rtol=3e-7,
    )
    same = np.full(10_000_000, 0.1, np.float32)  # all roundings in one direction
    assert dg.tensor(same).sum().item() == pytest.approx(same.astype("float64").sum(), rel=1e-6)
    half = dg.tensor(same[:100_000]).to(dg.float16)
    assert half.mean().item() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("axis", [None, (), 0, (0, 2), [1], -1])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all", "mean", "var", "std"])
def test_reductions_over_any_axes_equal_numpy(name, axis, close):
    x = _some("float64", (3, 4, 5))
    axes = tuple(axis) if isinstance(axis, list) else axis
    for keepdims in (False, True):
        want = getattr(np, name)(x, axis=axes, keepdims=keepdims)
        close(getattr(dg, name)(dg.tensor(x), axis=axis, keepdims=keepdims).numpy(), want)


@pytest.mark.parametrize("name", ["sum", "prod", "any", "all", "count_nonzero", "logsumexp"])
def test_reductions_over_empty_axes(name):
    x = dg.tensor(np.zeros((0, 3), "float32"))
    want = -np.inf if name == "logsumexp" else getattr(np, name)(np.zeros((0, 3), "float32"), axis=0)
    np.testing.assert_array_equal(getattr(dg, name)(x, axis=0).numpy(), np.broadcast_to(want, 3))
    assert getattr(dg, name)(x, axis=1).shape == (0,)


def test_dtype_of_a_sum_is_that_of_its_elements():
    x = dg.tensor(np.full((200,), 200, "uint8"))
    assert x.sum(dtype=dg.uint8).item() == np.full(200, 200, "uint8").sum(dtype="uint8")
    assert x.sum().dtype is dg.uint64
    assert x.prod(dtype="float32").dtype is dg.float32
    assert x.mean(dtype=dg.float64).item() == 200.0
