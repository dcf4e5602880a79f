"""Windows and short-time Fourier transforms: PyTorch's numbers, both modes, gradients, exports, errors."""

from __future__ import annotations

import duograd as dg
import numpy as np
import pytest
from duograd.core.errors import ArgumentError, DtypeError, ShapeError

WINDOWS = ["hann", "hamming", "blackman", "bartlett", "kaiser"]
SETTINGS = {
    "none": ({}, {}),
    "a step and a window": ({"hop_length": 5}, {"window": 16}),
    "a shorter window": ({"win_length": 10, "hop_length": 3}, {"window": 10}),
    "a shorter window of ones": ({"win_length": 9, "hop_length": 4}, {}),
    "not centred": ({"center": False, "hop_length": 4}, {"window": 16}),
    "normalized": ({"normalized": True}, {"window": 16}),
    "two-sided": ({"onesided": False}, {"window": 16}),
}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: signals are not compared with it")


def signal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def windows(size, torch):
    w = 0.1 + np.random.default_rng(size).random(size).astype(np.float32)
    return dg.tensor(w), torch.from_numpy(w)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("periodic", [True, False])
def test_windows_are_those_of_torch(name, periodic, torch):
    for n in (0, 1, 2, 5, 16):
        got = getattr(dg, f"{name}_window")(n, periodic=periodic)
        want = getattr(torch, f"{name}_window")(n, periodic=periodic, dtype=torch.float64)
        assert (got.dtype, got.shape) == (dg.float32, (n,))
        np.testing.assert_allclose(got.numpy(), want.numpy(), atol=2e-7, err_msg=f"{name} {n}")
    assert getattr(dg, f"{name}_window")(4, dtype=dg.float64, requires_grad=True).requires_grad


def test_windows_take_their_factors(torch):
    np.testing.assert_allclose(
        dg.kaiser_window(9, periodic=False, beta=5.0).numpy(),
        torch.kaiser_window(9, periodic=False, beta=5.0, dtype=torch.float64).numpy(), atol=2e-7,
    )  # fmt: skip
    np.testing.assert_allclose(
        dg.hamming_window(9, alpha=0.6, beta=0.4).numpy(), torch.hamming_window(9, True, 0.6, 0.4).numpy(), atol=2e-7
    )  # fmt: skip


def test_a_window_made_in_a_graph_is_new_at_every_call():
    make = dg.function(lambda: dg.hann_window(8))
    make().mul_(0)
    np.testing.assert_array_equal(make().numpy(), dg.hann_window(8).numpy())


@pytest.mark.filterwarnings("ignore:A window was not provided", "ignore:The length of signal is shorter")
@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("shape", [(70,), (3, 41)])
def test_transforms_and_their_inverses_are_those_of_torch(case, shape, torch):
    settings, wanted = SETTINGS[case]
    here, there = dict(settings), dict(settings)
    if "window" in wanted:
        here["window"], there["window"] = windows(wanted["window"], torch)
    x = signal(*shape)
    call = lambda x: dg.stft(x, 16, **here)
    want = torch.stft(torch.from_numpy(x), 16, return_complex=True, **there)
    for f in (call, dg.function(call)):
        np.testing.assert_allclose(f(dg.tensor(x)).numpy(), want.numpy(), atol=2e-5)
    assert dg.stft(dg.tensor(x), 16, return_complex=False, **here).shape == (*want.shape, 2)
    for length in (None, shape[-1]):
        back = lambda y, length=length: dg.istft(y, 16, length=length, **here)
        again = torch.istft(want, 16, length=length, **there).numpy()
        whole = slice(0, shape[-1] - 16)  # all windows reach these
        for f in (back, dg.function(back)):
            got = f(dg.tensor(want.numpy())).numpy()
            assert got.shape == again.shape
            np.testing.assert_allclose(got, again, atol=2e-5)
            np.testing.assert_allclose(got[..., whole], x[..., whole], atol=2e-5)


def test_complex_signals_go_there_and_back(torch):
    z = signal(2, 60, seed=1) + 1j * signal(2, 60, seed=2)
    here, there = windows(16, torch)
    got = dg.stft(dg.tensor(z), 16, window=here)
    want = torch.stft(torch.from_numpy(z), 16, window=there, return_complex=True)
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=2e-5)
    back = dg.istft(got, 16, window=here, return_complex=True)
    np.testing.assert_allclose(back.numpy(), z[:, : back.shape[-1]], atol=2e-5)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_gradients_are_those_of_torch(mode, torch):
    x, (here, there) = signal(2, 50), windows(12, torch)
    a, b = dg.tensor(x, requires_grad=True), torch.from_numpy(x).requires_grad_()

    def loss(x, window):
        y = dg.stft(x, 12, hop_length=5, window=window)
        return (abs(dg.istft(y * 2, 12, hop_length=5, window=window)) ** 3).sum() + (abs(y) ** 2).sum()

    (dg.function(loss) if mode == "graph" else loss)(a, here).backward()
    y = torch.stft(b, 12, hop_length=5, window=there, return_complex=True)
    ((abs(torch.istft(y * 2, 12, hop_length=5, window=there)) ** 3).sum() + (abs(y) ** 2).sum()).backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=2e-4, atol=2e-3)


def test_a_longer_result_is_filled_with_zeros():
    x = dg.randn(64)
    y = dg.istft(dg.stft(x, 16), 16, length=90)
    assert y.shape == (90,)
    np.testing.assert_allclose(y[:64].numpy(), x.numpy(), atol=1e-5)
    assert not y[80:].any()


ERRORS = {
    "a negative length": (lambda: dg.hann_window(-1), ArgumentError, "window_length=-1 is too small"),
    "integers": (lambda: dg.hann_window(4, dtype=dg.int64), DtypeError, "not a float"),
    "no signal": (lambda: dg.stft(dg.tensor(1.0), 4), ShapeError, "no signal"),
    "a window of another length": (lambda: dg.stft(dg.ones(30), 8, window=dg.ones(6)), ShapeError, "win_length"),
    "too long a window": (lambda: dg.stft(dg.ones(30), 8, win_length=9), ArgumentError, "win_length=9"),
    "no step": (lambda: dg.stft(dg.ones(30), 8, hop_length=0), ArgumentError, "hop_length=0"),
    "too long a piece": (lambda: dg.stft(dg.ones(6), 8, center=False), ArgumentError, "more than the 6"),
    "too much to reflect": (lambda: dg.stft(dg.ones(4), 8), ArgumentError, "reflects"),
    "half of complex ones": (lambda: dg.stft(dg.ones(30) * 1j, 8, onesided=True), ArgumentError, "onesided"),
    "no spectrum": (lambda: dg.istft(dg.ones((5, 3)), 8), ShapeError, "frequencies"),
    "other frequencies": (lambda: dg.istft(dg.ones((4, 3)) * 1j, 8), ShapeError, "frequencies of n_fft=8"),
    "both": (lambda: dg.istft(dg.ones((5, 3)) * 1j, 8, onesided=True, return_complex=True), ArgumentError, "onesided"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_an_error(case):
    call, kind, words = ERRORS[case]
    with pytest.raises(kind, match=words):
        call()


def test_a_spectrogram_is_exported(tmp_path):
    window = dg.hann_window(32)
    model = lambda x: abs(dg.stft(x, 32, hop_length=8, window=window)) ** 2
    dg.onnx.export(model, (dg.randn(2, 200),), tmp_path / "m.onnx", dynamic={"x": {0: "batch"}})
    again = dg.onnx.load(tmp_path / "m.onnx")
    x = dg.randn(3, 200)
    np.testing.assert_allclose(again(x).numpy(), model(x).numpy(), rtol=1e-3, atol=1e-3)
