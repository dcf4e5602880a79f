"""Functions whose sizes depend on data: out as NonZero and shapes that follow, right for data never seen."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from duograd.interop.onnx.evaluator import evaluator  # noqa: E402

OnnxError = dg.errors.OnnxError


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def classes(seed, *shape):
    return np.random.default_rng(seed).integers(0, 4, shape)


CASES = {
    "nonzero": (lambda x: dg.nonzero(x > 0), numbers, (3, 5)),
    "argwhere": (lambda x: dg.argwhere(x > 0), numbers, (3, 5)),
    "mask": (lambda x: x[x > 0], numbers, (3, 5)),
    "rows": (lambda x: x[x.sum(axis=1) > 0], numbers, (6, 5)),
    "mask of a mask": (lambda x: (lambda v: v[v < 1])(x[x > 0]), numbers, (3, 5)),
    "masked_select": (lambda x: dg.masked_select(x, x > 0).reshape(-1, 1) * 2, numbers, (3, 5)),
    "compress": (lambda x: dg.compress(x[0] > 0, x, axis=1), numbers, (3, 5)),
    "unique": (lambda x: tuple(dg.unique_all(x)), classes, (12,)),
    "repeat": (lambda x: dg.repeat(dg.arange(12), x), classes, (12,)),
    "size": (lambda x: dg.arange((x > 1).sum().item() + 2) * 3, classes, (12,)),
    "bincount": (lambda x: dg.bincount(x, minlength=2), classes, (12,)),
    "mean": (lambda x: x[x > 0].sum() / x[x > 0].shape[0], numbers, (3, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_follow_the_data(name, close):
    fn, make, shape = CASES[name]
    proto = dg.onnx.export(fn, dg.tensor(make(0, *shape)), input_names=["x"])
    loaded, run = dg.onnx.load(proto), evaluator(proto)
    for seed in (1, 2, 3):
        x = make(seed, *shape)
        want = fn(dg.tensor(x))
        want = [y.numpy() for y in (want if isinstance(want, tuple) else (want,))]
        got = loaded(dg.tensor(x))
        for y, z in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
            close(y.numpy(), z)
        for y, z in zip(run.run(None, {"x": x}), want, strict=True):
            close(y, z)


def test_data_and_dynamic_axes_go_together(close):
    fn = lambda x: x[x.sum(axis=1) > 0] * 2
    axes = {"x": {0: "n"}}
    proto = dg.onnx.export(fn, dg.tensor(numbers(0, 6, 4)), dynamic=axes)
    again = dg.onnx.export(dg.onnx.load(proto), dg.tensor(numbers(1, 5, 4)), dynamic=axes)
    for n in (1, 3, 9):
        x = numbers(n, n, 4)
        close(evaluator(again).run(None, {"x": x})[0], fn(dg.tensor(x)).numpy())


def test_a_number_among_the_inputs_is_a_size(close):
    proto = dg.onnx.export(lambda x, n: x[: n.item()], (dg.arange(9), dg.tensor(np.array(4))))
    assert [i.name for i in proto.graph.input] == ["x", "n"]
    for n in (1, 7):
        got = evaluator(proto).run(None, {"x": np.arange(9), "n": np.array(n)})
        np.testing.assert_array_equal(got[0], np.arange(n))


def branch_on_a_count(x):
    return x * 2 if (x > 0).sum().item() > 7 else x * 3


def branch_on_a_found_size(x):
    y = x[x > 0]
    return y.sum() if y.shape[0] > 7 else y.sum() * 3


@pytest.mark.parametrize("fn", [branch_on_a_count, branch_on_a_found_size])
def test_branch_on_a_count_is_refused(fn):
    with pytest.raises(OnnxError, match=r"test_onnx_data_sizes\.py:"):
        dg.onnx.export(fn, dg.tensor(numbers(0, 3, 5)))


def test_count_that_never_changes_is_refused():
    with pytest.raises(OnnxError, match="15 for all data tried") as caught:
        dg.onnx.export(lambda x: x[x > 0], dg.tensor(abs(numbers(0, 3, 5)) + 1))
    assert "a mask with both values" in str(caught.value)


def test_a_number_that_no_input_decides_is_a_constant(close):
    keep = dg.tensor(np.array([True, False, True]))
    proto = dg.onnx.export(lambda x: x[keep] + 1, dg.tensor(numbers(0, 3)))
    x = numbers(1, 3)
    close(evaluator(proto).run(None, {"x": x})[0], x[[0, 2]] + 1)


@pytest.mark.parametrize("opset", [13, 16])
def test_samples_of_a_region_are_as_many_as_it_has_pixels(opset):
    # Elements drawn anew put corners in the place of images, which the function refuses: rows are drawn.
    x, f = dg.rand(2, 1, 8, 8), lambda x, boxes: dg.roi_align(x, boxes, (2, 3))
    small, large = ([[0, 0.5, 0.5, 5, 6], last] for last in ([1, 1, 2, 6, 7], [1, -3, -2, 16, 17]))
    loaded = dg.onnx.load(dg.onnx.export(f, (x, dg.tensor(small)), opset=opset))
    got, want = (g(x, dg.tensor(large)).numpy() for g in (loaded, f))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["unique_values", "unique_counts", "unique_inverse", "unique_all"])
def test_the_different_elements_of_none_are_none(name):
    """The first of no rows was one of them: onnxruntime and the loaded model failed."""

    def fn(x):
        found = getattr(dg, name)(x)
        return tuple(found) if isinstance(found, tuple) else (found,)

    x = dg.tensor([[3.0, 1.0, 3.0], [2.0, 2.0, 1.0]])
    loaded = dg.onnx.load(dg.onnx.export(fn, (x,), dynamic={"x": {0: "n"}}))
    for given in (x, x[:1], x[:0]):
        found = loaded(given)
        for a, b in zip(found if isinstance(found, tuple) else (found,), fn(given), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
