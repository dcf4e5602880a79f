"""Convolution by Winograd's transform: its error's bound, odd sizes, epilogues in both modes, batches."""

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import conv_winograd, pool
from duograd.core.ops import convolution

F = dg.nn.functional
#: The largest error of a result of normal numbers, in units of the results' root mean square. Measured: 6e-5 for 256
#: channels, 4.5e-5 for 128, 2e-5 for 32; the direct sum has 2e-6.
BOUND = 1e-4


@pytest.fixture
def launched(monkeypatch):
    """How often the kernel was put into a program."""
    count = []
    kept = conv_winograd.windowed
    monkeypatch.setattr(conv_winograd, "windowed", lambda *a: (count.append(1), kept(*a)))
    return count


def normal(*shape):
    return np.random.standard_normal(shape).astype("float32")


def check(run_kernel, x_shape, filters, padding):
    n, c, h, w = x_shape
    attrs = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
    (top, bottom), (left, right) = padding
    x, f = normal(*x_shape), normal(filters, c, 3, 3)
    g = normal(n, filters, h + top + bottom - 2, w + left + right - 2)
    wide = [a.astype("float64") for a in (x, f, g)]
    expected = (
        convolution.conv.fn(wide[0], wide[1], **attrs),
        convolution.conv_x_grad.fn(wide[2], wide[1], size=(h, w), **attrs),
    )
    for op, inputs, want in (("conv", [x, f], expected[0]), ("conv_x_grad", [g, f], expected[1])):
        out = run_kernel(op, inputs, [(want.shape, x.dtype)], **attrs)[0]
        assert np.abs(out - want).max() <= BOUND * want.std(), op


def test_winograd_is_near_the_direct_sum_in_registers_of_all_widths(run_kernel, vector_bits, launched):
    check(run_kernel, (2, 33, 13, 18), 34, ((1, 1), (1, 1)))
    assert len(launched) == 2


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 2), (2, 1))], ids=["same", "uneven"])
def test_winograd_of_wide_images_and_uneven_padding(run_kernel, launched, padding):
    check(run_kernel, (1, 32, 13, 150), 32, padding)
    assert len(launched) == 2


@pytest.mark.parametrize(
    ("channels", "filters"),
    [(16, 70), (256, 40), (40, 256)],
    ids=["few channels", "many channels", "many filters"],
)
def test_winograd_of_few_and_many_channels(run_kernel, launched, channels, filters):
    check(run_kernel, (2, channels, 14, 14), filters, ((1, 1), (1, 1)))
    assert len(launched) == 2


@pytest.mark.parametrize("threads", [1, 3], ids=["one thread", "three threads"])
def test_no_result_depends_on_how_tiles_and_filters_are_divided(threads):
    x, conv = dg.tensor(normal(3, 48, 30, 13)), dg.nn.Conv2d(48, 100, 3, padding=1)
    alone = dg.tensor(normal(1, 48, 30, 13))
    alone.copy_(x[:1])
    with dg.no_grad():
        want, kept = conv(x).numpy(), pool.get_num_threads()
        pool.set_num_threads(threads)
        try:
            np.testing.assert_array_equal(dg.function(conv)(x).numpy(), want)
            np.testing.assert_array_equal(conv(alone).numpy(), want[:1])
        finally:
            pool.set_num_threads(kept)


def test_both_modes_and_every_batch_give_the_same_bits(launched):
    x, r, b = dg.tensor(normal(3, 32, 14, 15)), dg.tensor(normal(3, 40, 14, 15)), dg.tensor(normal(40))
    conv = dg.nn.Conv2d(32, 40, 3, padding=1)

    def body(x, r):
        return F.relu(conv(x) * b[:, None, None] + r)

    with dg.no_grad():
        eager, graph = body(x, r).numpy(), dg.function(body)(x, r).numpy()
        alone = body(x[1:2], r[1:2]).numpy()
    assert launched
    np.testing.assert_array_equal(eager, graph)
    np.testing.assert_array_equal(eager[1:2], alone)


def test_filters_are_divided_where_there_are_few_tiles(run_kernel, launched):
    check(run_kernel, (1, 32, 12, 12), 37, ((1, 1), (1, 1)))
    assert len(launched) == 2
