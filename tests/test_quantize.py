"""Quantisation against ONNX's own definition and PyTorch: by tensor, axis and block; straight-through gradients."""

import duograd as dg
import numpy as np
import pytest

KINDS = ["int8", "uint8", "int16", "uint16"]


def expected(x, scale, zero, dtype):
    """ONNX's formula in NumPy; scale and zero broadcast."""
    info = np.iinfo(dtype)
    return np.clip(np.rint(x / scale) + zero, info.min, info.max).astype(dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("by", ["tensor", "axis", "block"])
def test_quantize_saturates_and_comes_back(by, dtype):
    x = (np.random.randn(4, 6) * 300).astype("float32")
    x[0, :3] = [1e9, -1e9, 0.5]
    rng = np.random.default_rng(1)
    shape = {"tensor": (), "axis": (6,), "block": (2, 6)}[by]
    scale = rng.uniform(0.5, 2.0, shape).astype("float32")
    zero = np.asarray(rng.integers(0, 9, shape)).astype(dtype)
    wide = {"tensor": lambda v: v, "axis": lambda v: v, "block": lambda v: np.repeat(v, 2, 0)}[by]
    settings = {"axis": 0, "block_size": 2} if by == "block" else {"axis": 1}
    q = dg.quantize_linear(dg.tensor(x), dg.tensor(scale), dg.tensor(zero), **settings)
    assert q.dtype == dtype
    np.testing.assert_array_equal(q.numpy(), expected(x, wide(scale), wide(zero).astype(float), dtype))
    back = dg.dequantize_linear(q, dg.tensor(scale), dg.tensor(zero), **settings).numpy()
    want = (q.numpy().astype(np.int32) - wide(zero).astype(np.int32)).astype("float32") * wide(scale)
    np.testing.assert_array_equal(back, want)


def test_halves_go_to_even():
    x = dg.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
    assert dg.quantize_linear(x, dg.tensor(1.0), dtype="int8").tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize(
    "values", [[0.0, 2.0, -3.0, -2.5, 1.34, 0.5], [1.0, 2.1, 1.3, 2.5, 3.34, 4.0], [-1.0, -2.1], [0.0]]
)
def test_dynamic_quantisation_is_onnxs(values):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx.reference import ReferenceEvaluator

    node = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    x = np.array(values, np.float32)
    y, scale, zero = dg.dynamic_quantize_linear(dg.tensor(x))
    if not any(values):
        assert y.tolist() == [0]
        return
    want = ReferenceEvaluator(node).run(None, {"x": x})
    np.testing.assert_array_equal(y.numpy(), want[0])
    np.testing.assert_allclose(scale.numpy(), want[1], rtol=1e-6)
    assert zero.item() == want[2]


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_fake_quantisation_agrees_with_torch(axis):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: it is not compared with it")
    values = (np.random.randn(4, 6) * 8).astype("float32")
    x, y = dg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    # Powers of two: PyTorch multiplies by the inverse.
    if axis is None:
        a = dg.fake_quantize(x, 0.25, 3, 0, 31)
        b = torch.fake_quantize_per_tensor_affine(y, 0.25, 3, 0, 31)
    else:
        scale, zero = (
            np.exp2(np.arange(-3, values.shape[axis] - 3), dtype="float32"),
            np.arange(values.shape[axis]),
        )
        a = dg.fake_quantize(x, dg.tensor(scale), dg.tensor(zero), -8, 7, axis)
        b = torch.fake_quantize_per_channel_affine(
            y, torch.tensor(scale), torch.tensor(zero, dtype=torch.int32), axis, -8, 7
        )
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    weight = np.random.randn(4, 6).astype("float32")
    (a * dg.tensor(weight)).sum().backward()
    (b * torch.tensor(weight)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: dg.quantize_linear(dg.ones((2, 3)), dg.ones(()), dtype="int64"), "cannot quantise to int64"),
        (lambda: dg.quantize_linear(dg.ones((2, 3)), dg.ones((2,))), "does not fit axis 1"),
        (
            lambda: dg.quantize_linear(dg.ones((4, 3)), dg.ones((4, 3)), axis=0, block_size=2),
            "does not fit blocks",
        ),
        (lambda: dg.fake_quantize(dg.ones((2,)), 0.1, 0, 5, 5), "low=5 is not below high=5"),
    ],
)
def test_what_does_not_fit_is_refused(call, match):
    with pytest.raises(dg.errors.DuogradError, match=match):
        call()
