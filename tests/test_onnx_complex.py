"""Complex numbers go out as pairs, Fourier transforms as DFT, alignments and vectors of matrices as loops."""

import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import duograd as dg  # noqa: E402
from duograd.interop.onnx.pairs import packed  # noqa: E402


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return dg.tensor((rng.uniform(-2, 2, shape) + 1j * rng.uniform(-2, 2, shape)).astype(np.complex64))


def real(*shape, seed=0):
    return dg.tensor(np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32))


def goes_round(function, *tensors, close, **settings):
    """Export (which compares with onnxruntime), load, and compare again; the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # onnxruntime must run it
        model = dg.onnx.export(function, tensors, **settings)
    found = dg.onnx.load(model)(*[dg.tensor(packed(t.numpy())) for t in tensors])
    wanted = function(*tensors)
    for a, b in zip(*(y if isinstance(y, tuple) else (y,) for y in (found, wanted)), strict=True):
        close(a.numpy(), packed(b.detach().numpy()), scale=20)
    return model


def op_types(model):
    return {n.op_type for n in model.graph.node}


def assigned(z):
    z = z * 1
    z[0] = 2.0
    z[1:, 0] = 1j
    return z


FUNCTIONS = {
    "arithmetic": lambda z: (z * 2j + z.conj()) / (z - 3) - 1,
    "exponentials": lambda z: dg.exp(z) + dg.log(z) + dg.sqrt(z) + z**2.5,
    "trigonometry": lambda z: dg.sin(z) + dg.tan(z) + dg.tanh(z) + dg.asin(z) + dg.atan(z),
    "parts": lambda z: (dg.abs(z), dg.angle(z), z.real, z.imag, dg.view_as_real(z)),
    "product": lambda z: z @ z.conj().T,
    "reductions": lambda z: (z.sum(), z.mean(axis=0), dg.prod(z, axis=1), dg.any(z), dg.linalg.norm(z)),
    "moves": lambda z: dg.concat([z.T, z.T[::2]], axis=0).reshape(-1, 3)[1:],
    "assignment": assigned,
    "choice": lambda z: dg.where(dg.abs(z) > 1, z, 0.5j),
    "scan": lambda z: dg.scan(lambda c, row: (c * row, c + row), z[0], z),
    "while": lambda z: dg.while_loop(lambda c: dg.abs(c).max() < 50, lambda c: c * (1.5 + 0.5j), z),
    "cond": lambda z: dg.cond(dg.abs(z).sum() > 3, lambda z: z * 1j, lambda z: z.conj(), z),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_complex_function_goes_round(name, close):
    goes_round(FUNCTIONS[name], draw(3, 4), close=close)


def test_inputs_and_outputs_are_pairs_and_axes_stay_dynamic(close):
    model = goes_round(lambda z: z * 1j, draw(3, 4), close=close, dynamic={"z": {0: "n"}})
    for v in (*model.graph.input, *model.graph.output):
        sizes = [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        assert v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert sizes == ["n", 4, 2]


def test_a_part_that_is_empty_for_the_example_is_not_for_other_sizes():
    inner = lambda z: z[1:-1]
    model = dg.onnx.export(inner, (draw(2, 4),), dynamic={"z": {0: "n"}})
    loaded = dg.onnx.load(model)
    for n in (2, 3, 5):
        z = draw(n, 4)
        got = loaded(dg.view_as_real(z))
        np.testing.assert_array_equal(dg.view_as_complex(got).numpy(), inner(z).numpy())


def filtered(x):
    spectrum = dg.fft.rfft(x)
    keep = dg.where(dg.arange(spectrum.shape[-1]) < 3, 1.0, 0.0)
    return dg.fft.irfft(spectrum * keep, n=x.shape[-1])


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("n", [7, 8])
def test_filter_of_any_length_and_batch(opset, n, close):
    model = goes_round(filtered, real(3, n), close=close, opset=opset, dynamic={"x": {0: "b", 1: "n"}})
    assert ("DFT" in op_types(model)) == (opset >= 17)
    loaded = dg.onnx.load(model)
    for shape in ((1, 9), (2, 12)):  # sizes that no trace has seen
        x = real(*shape, seed=1)
        close(loaded(x).numpy(), filtered(x).numpy(), scale=20)


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
def test_transform_keeps_its_norm(norm, close):
    goes_round(lambda z: dg.fft.ifft(dg.fft.fft2(z, norm=norm), norm=norm), draw(3, 4), close=close)


def test_transform_is_one_node():
    model = dg.onnx.export(lambda z: dg.fft.fft(z), draw(3, 4), dynamic={"z": {1: "n"}})
    assert [n.op_type for n in model.graph.node if n.op_type != "Constant"] == ["DFT"]


def hermitian(*shape):
    x = draw(*shape).numpy()
    return dg.tensor(x + np.swapaxes(x.conj(), -1, -2))


LINALG = {
    "eigh": (lambda x: dg.linalg.eigh(x), hermitian(5, 5)),
    "eigh of real x": (lambda x: dg.linalg.eigh(x, UPLO="U"), dg.tensor(hermitian(2, 4, 4).numpy().real)),
    "svd": (lambda x: dg.linalg.svd(x, full_matrices=False), draw(2, 3, 5)),
    "svd of real x": (lambda x: dg.linalg.svd(x, full_matrices=False), real(5, 4)),
    "svd, tall, all vectors": (lambda x: dg.linalg.svd(x), draw(2, 5, 3)),
    "svd, wide, all vectors": (lambda x: dg.linalg.svd(x), real(3, 5)),
    "eig": (lambda x: dg.linalg.eig(x), draw(2, 4, 4)),
    "eig of real x": (lambda x: dg.linalg.eig(x), real(5, 5)),
    "eigvals of real x": (lambda x: dg.linalg.eigvals(x), real(2, 3, 3)),
    "pinv": (lambda x: dg.linalg.pinv(x), draw(4, 3)),
    "solve": (lambda x: dg.linalg.solve(x, x[:, :2] * 3), draw(4, 4)),
    "qr": (lambda x: dg.linalg.qr(x), draw(4, 3)),
    "cholesky": (lambda x: dg.linalg.cholesky(x @ x.conj().T + 3), draw(3, 3)),
}


@pytest.mark.parametrize("name", LINALG)
def test_factors_go_round(name, close):
    function, x = LINALG[name]
    goes_round(function, x, close=close)


def test_largest_component_of_a_vector_is_positive():
    for x in (hermitian(6, 6), dg.tensor(hermitian(6, 6).numpy().real)):
        _, v = (y.numpy() for y in dg.linalg.eigh(x))
        _, _, vh = (y.numpy() for y in dg.linalg.svd(x))
        for columns in (v, vh.T):
            found = np.take_along_axis(columns, np.abs(columns).argmax(0)[None], 0)
            assert (found.real > 0).all()
            assert np.abs(found.imag).max() < 1e-6


@pytest.mark.parametrize("name", ["asin", "acos", "asinh", "acosh"])
def test_inverse_functions_of_large_and_small_numbers_go_out(name):
    parts = np.array([1e200, 1e160, 1e100, 3.0, 1e-9, 1e-160])
    x = np.array([complex(a * s, b) for a in parts for b in parts for s in (-1, 1)])
    function = lambda v: getattr(dg, name)(v)
    model = dg.onnx.export(function, (dg.tensor(x.reshape(-1, 1)),), verify=False)
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    (got,) = session.run(None, {session.get_inputs()[0].name: packed(x.reshape(-1, 1))})
    want = packed(function(dg.tensor(x.reshape(-1, 1))).numpy())
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logarithms_and_exponentials_near_nothing_keep_their_bits(dtype):
    near = 1e-6 if dtype == "float32" else 1e-14
    x = np.array([1e-20, -1e-10, 1e-5, 0.3, -0.9, 0.0, 30.0, -30.0 + 29.5, np.inf], dtype)
    for function in (lambda v: dg.log1p(v), lambda v: dg.expm1(v)):
        model = dg.onnx.export(function, (dg.tensor(x),))
        session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
        (got,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(got, function(dg.tensor(x)).numpy(), rtol=near)


LABELS = dg.tensor(np.array([[1, 2, 2], [3, 1, 0]]))


@pytest.mark.parametrize("lengths", [([7, 5], [3, 2]), ([7, 3], [3, 0]), ([2, 5], [3, 2])])
@pytest.mark.parametrize("opset", [13, 20])
def test_ctc_goes_round(lengths, opset, close):
    steps, counts = (dg.tensor(np.array(v)) for v in lengths)

    def loss(x, labels, steps, counts):
        logp = dg.log_softmax(x, axis=-1)
        return dg.nn.functional.ctc_loss(logp, labels, steps, counts, reduction="none", zero_infinity=True)

    def both(x, labels, steps, counts):
        slope = dg.grad(lambda v: loss(v, labels, steps, counts).sum())(x)
        return loss(x, labels, steps, counts), slope

    goes_round(both, real(7, 2, 5), LABELS, steps, counts, close=close, opset=opset)
