"""Convolution and pooling on the CPU: windows, borders, layouts, gradients, epilogues, chunks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from duograd.backends.cpu import conv_direct, conv_lines
from duograd.core import types as T
from duograd.core.ops import convolution, pooling
from duograd.core.ops.window import out_size
from duograd.core.scalar import Expr, const, s

NONE, ONE = ((0, 0), (0, 0)), ((1, 1), (1, 1))


def normal(shape, dtype="float64"):
    return np.random.standard_normal(shape).astype(dtype)


def out_shape(x, w, stride, padding, dilation, groups=1):
    sizes = [out_size(x[2 + a], w[2 + a], stride[a], padding[a], dilation[a]) for a in (0, 1)]
    return (x[0], w[0], *sizes)


def check_conv(run_kernel, x_shape, w_shape, dtype="float64", chunks=None, layout=None, **attrs):
    """The three kernels against the ops' NumPy bodies; returns the three results."""
    x, w = normal(x_shape, dtype), normal(w_shape, dtype)
    g = normal(out_shape(x_shape, w_shape, **attrs), dtype)
    if layout is not None:
        x, w, g = map(layout, (x, w, g))
    wide = [a.astype("float64") for a in (x, w, g)]
    cases = (
        ("conv", [x, w], convolution.conv.fn(wide[0], wide[1], **attrs)),
        ("conv_x_grad", [g, w], convolution.conv_x_grad.fn(wide[2], wide[1], size=x_shape[2:], **attrs)),
        ("conv_w_grad", [g, x], convolution.conv_w_grad.fn(wide[2], wide[0], window=w_shape[2:], **attrs)),
    )
    results = []
    for op, inputs, expected in cases:
        out = run_kernel(op, inputs, [(expected.shape, x.dtype)], chunks=chunks, **attrs)[0]
        # Sums of up to some thousands of products of standard normal numbers.
        products = g.size * w[:1].size
        bound = np.finfo(dtype).eps * 64 * max(1, products / max(1, expected.size)) ** 0.5
        np.testing.assert_allclose(out, expected, rtol=0, atol=bound, err_msg=op)
        results.append(out)
    return results


WINDOWS = [
    {"stride": st, "padding": pad, "dilation": dil}
    for st in ((1, 1), (2, 2), (1, 3))
    for pad in (NONE, ONE, ((0, 2), (1, 0)))
    for dil in ((1, 1), (2, 1))
]


@pytest.mark.parametrize("attrs", WINDOWS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conv2d_of_all_windows(run_kernel, dtype, attrs):
    for (n, c, h, w), (k, r, q) in (
        ((2, 3, 9, 17), (5, 3, 3)), ((1, 7, 6, 5), (9, 2, 1)),
        ((3, 2, 5, 33), (17, 3, 2)), ((2, 5, 4, 4), (3, 2, 2)),
    ):  # fmt: skip
        check_conv(run_kernel, (n, c, h, w), (k, c, r, q), dtype, groups=1, **attrs)


@pytest.mark.parametrize("groups", [1, 2])
def test_filter_gradients_of_many_small_images(run_kernel, groups):
    # Some images are one chain of the sum, the last of which are fewer.
    for n, size in ((21, (4, 4)), (7, (9, 5))):
        check_conv(
            run_kernel, (n, 10, *size), (14, 10 // groups, 3, 3), "float32", groups=groups, stride=(1, 1),
            padding=ONE, dilation=(1, 1),
        )  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 3, 6), (3, 1, 3), (4, 1, 8), (2, 4, 20), (5, 2, 5)])
def test_conv2d_in_groups(run_kernel, shape):
    groups, channels, filters = shape
    for attrs in WINDOWS[::4]:
        for dtype in ("float32", "float64"):
            shapes = (2, groups * channels, 7, 18), (filters // groups * groups, channels, 3, 3)
            check_conv(run_kernel, *shapes, dtype, groups=groups, **attrs)


@pytest.mark.parametrize(
    ("taps", "step", "size", "dtype"),
    [
        (3, 1, (9, 17), "float32"), (3, 1, (28, 14), "float64"), (3, 2, (14, 33), "float32"),
        (3, (2, 1), (7, 7), "float32"), (5, 1, (14, 29), "float32"), (5, 2, (15, 30), "float32"),
        (5, (1, 2), (8, 64), "float64"), (7, 1, (14, 29), "float32"), (7, 2, (15, 30), "float32"),
        (7, 1, (5, 17), "float64"), ((2, 2), 1, (9, 17), "float32"), ((2, 3), 1, (9, 33), "float64"),
        ((1, 2), 1, (9, 17), "float32"), ((3, 2), (1, 2), (8, 31), "float32"), ((2, 1), (2, 1), (7, 40), "float32"),
    ],
)  # fmt: skip
def test_depthwise_windows_of_the_image_equal_those_of_copied_lines(
    run_kernel, monkeypatch, taps, step, size, dtype
):
    steps = step if isinstance(step, tuple) else (step, step)
    taps = taps if isinstance(taps, tuple) else (taps, taps)
    attrs = {"stride": steps, "padding": ((2, 1), (0, taps[1])), "dilation": (1, 1), "groups": 3}
    results = []
    for _ in range(2):
        np.random.seed(0)
        layout = lambda a: a[::-1].copy()[::-1]
        results.append(
            check_conv(run_kernel, (2, 3, *size), (6, 1, *taps), dtype, chunks=3, layout=layout, **attrs)
        )
        monkeypatch.setattr(conv_lines, "applies", lambda product: False)
    for near, copied in zip(*results):
        np.testing.assert_array_equal(near, copied)


@pytest.mark.parametrize(
    ("taps", "step", "size"),
    [
        ((3, 3), 1, (9, 17)),
        ((3, 3), 2, (15, 70)),
        ((5, 5), 1, (8, 33)),
        ((7, 7), 1, (7, 7)),
        ((5, 3), 2, (30, 140)),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_filter_gradients_of_whole_windows_equal_those_tap_by_tap(
    run_kernel, monkeypatch, taps, step, size, channels
):
    attrs = {"stride": (step, step), "padding": ((2, 1), (0, 1)), "dilation": (1, 1), "groups": 3}
    shapes, gradients = ((2, 3 * channels, *size), (6, channels, *taps)), []
    for _ in range(2):
        np.random.seed(0)
        gradients.append(check_conv(run_kernel, *shapes, "float32", **attrs)[2])
        monkeypatch.setattr(conv_direct, "_dots", lambda window: conv_direct._DOT_TAPS)
        conv_direct._text.cache_clear()
    np.testing.assert_array_equal(*gradients)
    monkeypatch.undo()
    conv_direct._text.cache_clear()


@pytest.mark.parametrize("window", [((5, 3), 1), ((3, 5), 2), ((5, 5), 2), ((4, 3), 1), ((3, 3), 3)])
@pytest.mark.parametrize("channels", [1, 2])
def test_conv2d_of_few_channels_by_lines(run_kernel, window, channels):
    taps, step = window
    attrs = {"stride": (step, step), "padding": ((2, 1), (1, 2)), "dilation": (1, 1), "groups": 3}
    check_conv(run_kernel, (2, 3 * channels, 9, 41), (6, channels, *taps), "float32", **attrs)


def test_conv2d_of_narrow_registers(run_kernel, vector_bits):
    attrs = {"stride": (1, 1), "padding": ONE, "dilation": (1, 1)}
    for dtype in ("float32", "float64"):
        check_conv(run_kernel, (2, 9, 7, 21), (11, 9, 3, 3), dtype, groups=1, **attrs)
        check_conv(run_kernel, (2, 8, 9, 9), (8, 1, 3, 3), dtype, groups=8, **(attrs | {"stride": (2, 2)}))


@pytest.mark.parametrize(
    ("x", "w", "window"),
    [
        ((2, 3, 32, 32), (32, 3, 3, 3), (1, ONE)),
        ((3, 40, 16, 16), (24, 40, 3, 3), (1, ONE)),
        ((2, 70, 4, 4), (65, 70, 3, 3), (1, ONE)),
        ((2, 33, 14, 14), (17, 33, 1, 1), (1, NONE)),
        ((2, 33, 14, 14), (17, 33, 1, 1), (2, NONE)),
        ((9, 5, 1, 1), (7, 5, 1, 1), (1, NONE)),
        ((1, 3, 40, 40), (8, 3, 7, 7), (2, ((3, 3), (3, 3)))),
    ],
)
def test_conv2d_of_layers(run_kernel, x, w, window):
    attrs = {"stride": (window[0], window[0]), "padding": window[1], "dilation": (1, 1), "groups": 1}
    check_conv(run_kernel, x, w, "float32", **attrs)


@pytest.mark.parametrize("layout", [
    lambda a: np.asfortranarray(a),
    lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    lambda a: a[:, ::-1, ::-1, ::-1],
    lambda a: np.broadcast_to(a[:1], a.shape),
])  # fmt: skip
def test_conv2d_reads_any_strides(run_kernel, layout):
    for stride, padding, groups in (((1, 1), ONE, 1), ((2, 1), NONE, 1), ((1, 1), ONE, 2), ((1, 2), NONE, 6)):
        shapes = (2, 6, 8, 19), (6, 6 // groups, 3, 2)
        attrs = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": groups}
        check_conv(run_kernel, *shapes, "float32", layout=layout, **attrs)


def test_conv2d_of_an_empty_batch(run_kernel):
    attrs = {"stride": (1, 1), "padding": ONE, "dilation": (1, 1), "groups": 1}
    results = check_conv(run_kernel, (0, 3, 5, 5), (4, 3, 3, 3), "float32", **attrs)
    assert [r.shape for r in results] == [(0, 4, 5, 5), (0, 3, 5, 5), (4, 3, 3, 3)]
    np.testing.assert_array_equal(results[2], 0)


@pytest.mark.parametrize("shapes", [
    ((5, 3, 16, 16), (9, 3, 3, 3), (1, 1), 1), ((9, 20, 6, 6), (40, 20, 3, 3), (2, 1), 1),
    ((4, 6, 9, 9), (6, 1, 3, 3), (1, 2), 6), ((70, 2, 12, 12), (4, 2, 3, 3), (1, 1), 1),
])  # fmt: skip
def test_conv2d_does_not_depend_on_chunks(run_kernel, shapes):
    x, w, stride, groups = shapes
    results = []
    for chunks in (1, 2, 7, 100):
        np.random.seed(1)
        attrs = {"stride": stride, "padding": ONE, "dilation": (1, 1), "groups": groups}
        results.append(check_conv(run_kernel, x, w, "float32", chunks=chunks, **attrs))
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_array_equal(a, b)


def test_conv2d_images_do_not_depend_on_the_batch(run_kernel):
    x, w = normal((9, 12, 7, 7), "float32"), normal((10, 12, 3, 3), "float32")
    attrs = {"stride": (1, 1), "padding": ONE, "dilation": (1, 1), "groups": 1}
    whole = run_kernel("conv", [x, w], [((9, 10, 7, 7), x.dtype)], **attrs)[0]
    part = run_kernel("conv", [x[4:6], w], [((2, 10, 7, 7), x.dtype)], **attrs)[0]
    np.testing.assert_array_equal(part, whole[4:6])


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("op", ["conv", "conv_x_grad"])
def test_epilogue_equals_the_same_work_afterwards(run_kernel, op, groups, stride):
    attrs = {"stride": stride, "padding": ONE, "dilation": (1, 1), "groups": groups}
    for x_shape in ((3, 8, 6, 6), (2, 8, 16, 16)):
        x, w = normal(x_shape, "float32"), normal((16, 8 // groups, 3, 3), "float32")
        shape = out_shape(x.shape, w.shape, **attrs)
        inputs = [x, w]
        if op == "conv_x_grad":
            inputs, shape = [normal(shape, "float32"), w], x.shape
        v, bias, residual, gain = (Expr("arg", T.float32, (), k) for k in range(4))
        roots = [s.maximum(v * gain + bias, const(0, T.float32)) + residual, v + bias > 0]
        more = [normal((shape[1], 1, 1), "float32"), normal(shape, "float32"), (0.75, T.float32)]
        options = attrs | {"epilogue": (roots, more, x.dtype)}
        outputs = [(shape, x.dtype), (shape, np.dtype(bool))]
        afterwards = run_kernel(op, inputs, outputs, fused=False, **options)
        for chunks in (1, 5):
            for mine, expected in zip(run_kernel(op, inputs, outputs, chunks=chunks, **options), afterwards):
                np.testing.assert_array_equal(mine, expected)


# ---------------------------------------------------------------- pooling

STEPS = [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 2), (1, 1)), ((3, 3), (3, 3))]
STEPS += [((2, 2), (3, 4)), ((6, 5), (2, 1)), ((3, 3), (1, 1)), ((2, 2), (1, 1))]
POOLS = [
    {"window": window, "stride": stride, "padding": padding}
    for window, stride in STEPS
    for padding in (NONE, ONE, ((0, 1), (1, 0)))
]
IMAGES = [(2, 3, 6, 6), (1, 2, 7, 17), (1, 2, 9, 65), (2, 2, 32, 32)]


def check_pool(run_kernel, op, inputs, expected, exact=True, **options):
    for chunks in (1, 5):
        out = run_kernel(op, inputs, [(expected.shape, expected.dtype)], chunks=chunks, **options)[0]
        if exact:
            np.testing.assert_array_equal(out, expected)
        else:
            np.testing.assert_allclose(out, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("attrs", POOLS, ids=str)
def test_max_pool2d_and_its_gradient_with_ties_and_nan(run_kernel, attrs):
    for shape, dilation, broken in itertools.product(IMAGES, ((1, 1), (1, 2)), (False, True)):
        options = attrs | {"dilation": dilation}
        spans = [d * (n - 1) + 1 for d, n in zip(dilation, attrs["window"])]
        if any(n + sum(p) < span for n, p, span in zip(shape[2:], attrs["padding"], spans)):
            continue
        x = np.round(normal(shape)).astype("float32")
        if broken:
            x[np.random.random(shape) < 0.05] = np.nan
        out = pooling.max_pool.fn(x, **options)
        check_pool(run_kernel, "max_pool", [x], out, **options)
        # Whole numbers, so that the order of a sum does not matter to the reference.
        g = np.round(normal(out.shape) * 4).astype("float32")
        dx = pooling.max_pool_x_grad.fn(g, out, x, **options)
        check_pool(run_kernel, "max_pool_x_grad", [g, out, x], dx, **options)


#: window, stride
WALKS = [((k, k), (s, s)) for k in (2, 3) for s in (1, 2, 3)] + [
    ((5, 5), (1, 1)),
    ((2, 3), (1, 2)),
    ((3, 3), (2, 1)),
]
#: padding for windows of two at least, and whether a last window may end outside
BORDERS = [(NONE, False), (ONE, False), (((1, 0), (0, 1)), True), (NONE, True)]
WALKED = [(2, 1, 7, 17), (1, 2, 3, 35), (1, 1, 18, 3), (1, 2, 21, 64)]
FOUND = {
    "whole numbers": lambda x: np.round(x),
    "NaN": lambda x: np.where(np.random.random(x.shape) < 0.1, np.nan, np.round(x)),
    "minus infinity": lambda x: np.where(np.random.random(x.shape) < 0.7, -np.inf, x),
    "zeros of both signs": lambda x: np.where(np.random.random(x.shape) < 0.5, 0.0, -0.0),
}


def walked(x, g, window, stride, padding):
    """The gradient of maxima by a walk over the windows: added up in g's dtype, in row-major order of the windows."""
    dx = np.zeros_like(x)
    top, left = (before for before, _ in padding)
    for plane in np.ndindex(x.shape[:2]):
        for line, column in np.ndindex(g.shape[2:]):
            y, z = line * stride[0] - top, column * stride[1] - left
            inside = slice(max(y, 0), max(y + window[0], 0)), slice(max(z, 0), max(z + window[1], 0))
            part = x[plane][inside]
            first = np.flatnonzero(np.isnan(part) if np.isnan(part).any() else part == part.max())[0]
            at = first // part.shape[1] + inside[0].start, first % part.shape[1] + inside[1].start
            dx[plane][at] += g[plane][line, column]
    return dx


@pytest.mark.parametrize("found", FOUND)
@pytest.mark.parametrize("steps", WALKS, ids=str)
def test_gradients_of_maxima_have_the_bits_of_a_walk_over_the_windows(run_kernel, steps, found):
    for (padding, ceil), shape, dtype in itertools.product(BORDERS, WALKED, ("float32", "float64")):
        options = {"window": steps[0], "stride": steps[1], "padding": padding, "dilation": (1, 1)}
        if any(n + sum(pads) < k for n, pads, k in zip(shape[2:], padding, steps[0])):
            continue
        x = FOUND[found](normal(shape)).astype(dtype)
        out = pooling.max_pool.fn(x, **options, ceil_mode=ceil)
        g = normal(out.shape, dtype)
        g[np.random.random(out.shape) < 0.1] = -0.0
        dx = walked(x, g, *steps, padding)
        for chunks in (1, 2, 7):
            [mine] = run_kernel(
                "max_pool_x_grad", [g, out, x], [(shape, dtype)], chunks=chunks, **options, ceil_mode=ceil
            )
            np.testing.assert_array_equal(mine, dx)
            if steps[0] != steps[1]:  # windows that are tiles add nothing to their gradients' zeros
                np.testing.assert_array_equal(np.signbit(mine), np.signbit(dx))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("attrs", POOLS, ids=str)
def test_avg_pool2d_and_its_gradient(run_kernel, attrs, include):
    for shape in IMAGES:
        options = attrs | {"count_include_pad": include, "dilation": (1, 1)}
        if any(n + sum(p) < w for n, p, w in zip(shape[2:], attrs["padding"], attrs["window"])):
            continue
        x = normal(shape, "float32")
        out = pooling.avg_pool.fn(x, **options)
        check_pool(run_kernel, "avg_pool", [x], out, exact=False, **options)
        g = normal(out.shape, "float32")
        dx = pooling.avg_pool_x_grad.fn(g, size=shape[2:], **options)
        check_pool(run_kernel, "avg_pool_x_grad", [g], dx, exact=False, **options)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(("k", "step"), [(2, 1), (2, 2), (3, 1), (3, 2)])
def test_gradients_of_means_have_the_bits_of_a_walk_over_the_windows(run_kernel, k, step, include):
    for (padding, ceil), shape, dtype in itertools.product(BORDERS, WALKED, ("float32", "float64")):
        if any(n + sum(pads) < k for n, pads in zip(shape[2:], padding)) or (ceil and include):
            continue  # means of windows that end beyond counted padding are divided one by one
        options = {"window": (k, k), "stride": (step, step), "padding": padding, "dilation": (1, 1)}
        sizes = [out_size(*axis, ceil) for axis in zip(shape[2:], (k, k), (step, step), padding, (1, 1))]
        g, dx = normal((*shape[:2], *sizes), dtype), np.zeros(shape, dtype)
        for line, column in np.ndindex(*sizes):
            starts = line * step - padding[0][0], column * step - padding[1][0]
            part = dx[:, :, *(slice(max(at, 0), max(at + k, 0)) for at in starts)]
            one = g[:, :, line, column, None, None]
            part += one * g.dtype.type(1 / k**2) if include else one / g.dtype.type(part[0, 0].size)
        for chunks in (1, 2, 7):
            [mine] = run_kernel(
                "avg_pool_x_grad", [g], [(shape, dtype)], chunks=chunks, **options, ceil_mode=ceil,
                count_include_pad=include, size=shape[2:],
            )  # fmt: skip
            np.testing.assert_array_equal(mine, dx)


def test_max_pool2d_of_minus_infinity_and_strided_float64(run_kernel):
    options = {"window": (2, 2), "stride": (2, 2), "padding": ONE, "dilation": (1, 1)}
    x = np.full((1, 1, 4, 4), -np.inf)
    check_pool(run_kernel, "max_pool", [x], np.full((1, 1, 3, 3), -np.inf), **options)
    y = normal((2, 8, 9, 3)).transpose(0, 3, 1, 2)
    out = pooling.max_pool.fn(y, **options)
    check_pool(run_kernel, "max_pool", [y], out, **options)
    g = np.asfortranarray(np.round(normal(out.shape)))
    dx = pooling.max_pool_x_grad.fn(g, out, y, **options)
    check_pool(run_kernel, "max_pool_x_grad", [g, out, y], dx, **options)


def test_pooling_agrees_with_torch(run_kernel):
    torch = pytest.importorskip("torch", reason="the peer torch is not installed")
    x = normal((2, 3, 15, 18), "float32")
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    out = torch.nn.functional.max_pool2d(leaf, (3, 3), (2, 2), (1, 1))
    g = normal(tuple(out.shape), "float32")
    out.backward(torch.from_numpy(g))
    y, dx = out.detach().numpy(), leaf.grad.numpy()
    options = {"window": (3, 3), "stride": (2, 2), "padding": ONE, "dilation": (1, 1)}
    check_pool(run_kernel, "max_pool", [x], y, **options)
    check_pool(run_kernel, "max_pool_x_grad", [g, y, x], dx, exact=False, **options)
