"""Fourier transforms against NumPy and PyTorch: lengths of every kind, axes, norms, gradients, both modes."""

import duograd as dg
import numpy as np
import pytest

RNG = np.random.default_rng(5)
#: powers of two, mixed radices, primes, primes above the passes (Bluestein), lines in two parts, 1
LENGTHS = [1, 2, 3, 8, 12, 25, 31, 37, 60, 97, 128, 576, 1024, 1155, 4099, 6000]
NORMS = ["backward", "ortho", "forward"]


@pytest.fixture
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: transforms are not compared with it"
    )


def values(shape, dtype):
    x = RNG.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * RNG.standard_normal(shape)
    return x.astype(dtype)


def near(got, want, dtype):
    """Errors of a transform are spread over all outputs: they are judged by its root mean square."""
    assert got.shape == want.shape
    wide = np.dtype(got.dtype).name in ("float64", "complex128")
    scale = np.sqrt(np.mean(np.abs(want) ** 2)) if want.size else 1.0
    assert np.abs(got - want).max(initial=0.0) <= (2e-14 if wide else 3e-6) * max(scale, 1e-30)
    assert np.dtype(got.dtype) == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("n", LENGTHS)
def test_complex_transforms_equal_numpy(n, dtype):
    for shape, axis in (((n,), 0), ((3, n), 1), ((18, n), 1), ((n, 3), 0), ((2, n, 17), 1)):
        if n * np.prod(shape) > 5e7:
            continue
        x = values(shape, dtype)
        for name in ("fft", "ifft"):
            want = getattr(np.fft, name)(x.astype(np.complex128), axis=axis)
            near(getattr(dg.fft, name)(dg.tensor(x), axis=axis).numpy(), want, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [*LENGTHS[1:10], 576, 577])
def test_real_transforms_equal_numpy(n, dtype):
    complex_ = "complex64" if dtype == "float32" else "complex128"
    x, half = values((3, n), dtype), values((3, n // 2 + 1), complex_)
    for name in ("rfft", "ihfft"):
        near(getattr(dg.fft, name)(dg.tensor(x)).numpy(), getattr(np.fft, name)(x.astype(float)), complex_)
    for name in ("irfft", "hfft"):
        want = getattr(np.fft, name)(half.astype(complex), n)
        near(getattr(dg.fft, name)(dg.tensor(half), n).numpy(), want, dtype)
    near(dg.fft.irfft(dg.fft.rfft(dg.tensor(x)), n).numpy(), x, dtype)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 5, 12])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_points_axes_and_norms_are_as_in_numpy(name, n, norm):
    for axis in (0, 1, -1):
        x = values((6, 8), "float64" if name in ("rfft", "ihfft") else "complex128")
        want = getattr(np.fft, name)(x, n, axis, norm)
        near(getattr(dg.fft, name)(dg.tensor(x), n=n, axis=axis, norm=norm).numpy(), want, want.dtype)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("s", "axes"), [(None, None), ((4, 9), (0, 2)), ((3, 5), (-1, 1)), (None, (1,))])
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_several_axes_are_as_in_numpy(name, s, axes, norm):
    x = values((4, 5, 6), "float64" if name == "rfftn" else "complex128")
    want = getattr(np.fft, name)(x, s, axes, norm)
    near(getattr(dg.fft, name)(dg.tensor(x), s=s, axes=axes, norm=norm).numpy(), want, want.dtype)


def test_two_axes_real_inputs_and_integers():
    x = values((3, 4, 6), "float32")
    for name in ("fft2", "ifft2", "rfft2", "irfft2"):
        given = values((3, 4), "complex64") if name == "irfft2" else x
        want = getattr(np.fft, name)(given.astype(np.result_type(given, np.float64)))
        kind = "float32" if name == "irfft2" else "complex64"
        near(getattr(dg.fft, name)(dg.tensor(given)).numpy(), want, kind)
    whole = np.arange(6)
    near(dg.fft.fft(dg.tensor(whole)).numpy(), np.fft.fft(whole), "complex64")


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_frequencies_and_shifts(n, close):
    close(dg.fft.fftfreq(n, d=0.5, dtype="float64").numpy(), np.fft.fftfreq(n, 0.5))
    close(dg.fft.rfftfreq(n, d=0.5, dtype="float64").numpy(), np.fft.rfftfreq(n, 0.5))
    x = values((n, 5), "float32")
    for axes in (None, 0, (1,)):
        close(dg.fft.fftshift(dg.tensor(x), axes=axes).numpy(), np.fft.fftshift(x, axes))
        close(dg.fft.ifftshift(dg.tensor(x), axes=axes).numpy(), np.fft.ifftshift(x, axes))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 5, 12])
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft of reals"])
def test_gradients_equal_torch(name, size, n, norm, torch):
    x = values((2, size), "float64" if name in ("rfft", "ihfft", "fft of reals") else "complex128")
    name = name.split()[0]
    a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got = getattr(dg.fft, name)(a, n=n, norm=norm)
    want = getattr(torch.fft, name)(b, n=n, norm=norm)
    want = want.resolve_conj()
    g = values(tuple(want.shape), want.detach().numpy().dtype)
    got.backward(dg.tensor(g))
    want.backward(torch.tensor(g))
    near(a.grad.numpy(), b.grad.resolve_conj().numpy(), x.dtype)


def test_the_gradient_of_a_gradient_is_linear_in_it(torch):
    """Transforms are linear: the second derivative of a real function of them goes through the chain twice."""
    x, h = values((16,), "float64"), values((16,), "float64")

    def energy(l, x, h):
        y = l.irfft(l.rfft(x), 16)
        return (y * y * y * h).sum()

    a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    energy(dg.fft, a, dg.tensor(h)).backward(create_graph=True)
    first = a.grad
    a.grad = None
    (first * first).sum().backward()
    (want,) = torch.autograd.grad(energy(torch.fft, b, torch.tensor(h)), b, create_graph=True)
    (want,) = torch.autograd.grad((want * want).sum(), b)
    near(a.grad.numpy(), want.numpy(), "float64")


def test_both_modes_are_equal():
    x = values((5, 96), "float32")

    def chain(x):
        y = dg.fft.irfft(dg.fft.rfft(x, norm="ortho"), norm="ortho")
        z = dg.fft.ifft(dg.fft.fft(y))
        return y, z

    for got, want in zip(dg.function(chain)(dg.tensor(x)), chain(dg.tensor(x)), strict=True):
        np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_strided_inputs_are_transformed_too():
    x = values((6, 20), "complex64")
    near(dg.fft.fft(dg.tensor(x)[::2, ::2]).numpy(), np.fft.fft(x[::2, ::2].astype(complex)), "complex64")
    near(dg.fft.fft(dg.tensor(x).T).numpy(), np.fft.fft(x.T.astype(complex)), "complex64")


def test_errors_tell_the_fix():
    x = dg.tensor(np.ones((2, 4), np.complex64))
    for run, what in (
        (lambda: dg.fft.fft(x, norm="none"), r"\[fft\] norm='none'"),
        (lambda: dg.fft.fft(x, n=0), r"\[fft\] n=0"),
        (lambda: dg.fft.fft(x, axis=2), r"\[fft\] axis=2"),
        (lambda: dg.fft.rfft(x), r"\[rfft\] x: complex64\[2, 4\] is complex"),
        (lambda: dg.fft.fftn(x, s=(2, 2), axes=(0,)), r"\[fftn\] s="),
    ):
        with pytest.raises(dg.errors.DuogradError, match=what):
            run()


def test_an_empty_batch_stays_empty():
    assert dg.fft.fft(dg.zeros((0, 4))).shape == (0, 4)
    assert dg.fft.rfft(dg.zeros((0, 4))).shape == (0, 3)


def test_maps_over_examples_are_one_transform():
    x = values((3, 4, 8), "float64")
    got = dg.vmap(lambda row: dg.fft.irfft(dg.fft.rfft(row, axis=0), n=4, axis=0))(dg.tensor(x))
    near(got.numpy(), x, "float64")
