"""The array API's extensions linalg and fft, judged beside array_api_strict."""

import array_api_strict as xs
import duograd as dg
import numpy as np
import pytest
from duograd.tests.array_api_cases import COMPLEX, FLOATS, agree, call, values


def _matrices(dtype, *shape, seed=0):
    return values(dtype, shape, seed, corners=False)


@pytest.mark.parametrize("dtype", FLOATS + COMPLEX)
def test_linalg(dtype):
    a, b, v = _matrices(dtype, 2, 4, 4), _matrices(dtype, 2, 4, 3, seed=5), _matrices(dtype, 2, 4, seed=6)
    h = a @ np.conj(np.swapaxes(a, -1, -2)) + 5 * np.eye(4, dtype=a.dtype)
    at = lambda name, *arrays, **kw: call("linalg", name, list(arrays), scale=2e3, **kw)
    at("matmul", a, b)
    at("tensordot", a, b, axes=((1,), (1,)))
    at("vecdot", v, v)
    at("outer", v[0], v[1])
    at("matrix_transpose", b)
    at("trace", a)
    at("diagonal", a, offset=1)
    at("cross", _matrices(dtype, 2, 3), _matrices(dtype, 2, 3, seed=3))
    at("vector_norm", b)
    at("vector_norm", b, axis=-1, ord=1, keepdims=True)
    at("matrix_norm", b)
    at("det", a)
    at("inv", h)
    at("solve", h, b)
    at("cholesky", h)
    call("linalg", "matrix_power", [a], 3, scale=2e3)
    at("pinv", h)
    at("matrix_rank", b)
    at("svdvals", b)
    agree(dg.linalg.eigvalsh(dg.tensor(h)), xs.linalg.eigvalsh(xs.asarray(h)), 2e-3, 2e-3)
    agree(dg.linalg.slogdet(dg.tensor(h)), xs.linalg.slogdet(xs.asarray(h)), 2e-3, 2e-3)
    for full in (False, True):
        u, s, vh = dg.linalg.svd(dg.tensor(b), full_matrices=full)
        assert u.shape == (2, 4, 4 if full else 3)
        np.testing.assert_allclose(
            ((u[..., :3] * s[..., None, :].to(u.dtype)) @ vh[..., :3, :]).numpy(), b, atol=1e-4
        )
    q, r = dg.linalg.qr(dg.tensor(b))
    np.testing.assert_allclose((q @ r).numpy(), b, atol=1e-4)
    w, vectors = dg.linalg.eigh(dg.tensor(h))
    np.testing.assert_allclose(
        (dg.tensor(h) @ vectors).numpy(), (vectors * w[..., None, :].to(vectors.dtype)).numpy(), atol=2e-3
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [("eigh", ("eigenvalues", "eigenvectors")), ("qr", ("Q", "R")), ("slogdet", ("sign", "logabsdet")),
     ("svd", ("U", "S", "Vh"))],
)  # fmt: skip
def test_parts_of_decompositions_have_names(name, parts):
    h = dg.tensor(_matrices("float64", 3, 3) + 4 * np.eye(3))
    found = getattr(dg.linalg, name)(h)
    assert isinstance(found, tuple)
    assert type(found)._fields == parts
    assert all(getattr(found, part) is x for part, x in zip(parts, found, strict=True))
    assert type(dg.function(getattr(dg.linalg, name))(h)) is type(found)


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_fft(dtype, norm):
    real = "float32" if dtype == "complex64" else "float64"
    c, r = _matrices(dtype, 3, 8), _matrices(real, 3, 8)
    for name, x, more in (
        ("fft", c, {}), ("ifft", c, {"n": 5}), ("fft", c, {"n": 12, "axis": 0}), ("fftn", c, {}),
        ("ifftn", c, {"axes": (0,)}),
        ("rfft", r, {}), ("rfft", r, {"n": 7}), ("irfft", c, {}), ("irfft", c, {"n": 9}), ("rfftn", r, {}),
        ("irfftn", c, {}),
        ("hfft", c, {}), ("ihfft", r, {}),
    ):  # fmt: skip
        call("fft", name, [x], norm=norm, scale=50, **more)


def test_fft_helpers():
    agree(dg.fft.fftfreq(8, d=0.5, dtype=dg.float64), xs.fft.fftfreq(8, d=0.5, dtype=xs.float64))
    agree(dg.fft.rfftfreq(7, dtype=dg.float64), xs.fft.rfftfreq(7, dtype=xs.float64))
    x = _matrices("float32", 3, 5)
    call("fft", "fftshift", [x])
    call("fft", "ifftshift", [x], axes=(1,))
