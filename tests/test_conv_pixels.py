"""Convolution with packed filters or wide sums: the bits of packed windows, whatever way the cost model takes."""

import collections

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import conv, conv_pixels, conv_wide, panels
from duograd.core.ops import convolution

F = dg.nn.functional
ONE = ((1, 1), (1, 1))
#: images, filters, stride, padding, dilation, groups: odd sizes, uneven padding, several images in a block of pixels
CASES = [
    ((2, 3, 9, 17), (5, 3, 3, 3), 1, ONE, 1, 1),
    ((1, 7, 6, 5), (33, 7, 2, 1), 2, ((0, 2), (1, 0)), 1, 1),
    ((3, 2, 5, 33), (17, 2, 3, 2), 3, ((0, 0), (0, 0)), 2, 1),
    ((5, 45, 4, 4), (37, 45, 3, 3), 1, ONE, 1, 1),
    ((2, 40, 7, 7), (64, 40, 1, 1), 1, ((0, 0), (0, 0)), 1, 1),
    ((2, 12, 8, 7), (15, 4, 3, 3), 2, ((2, 1), (0, 3)), (1, 2), 3),
    ((1, 3, 30, 30), (8, 3, 7, 7), 2, ((3, 3), (3, 3)), 1, 1),
    ((9, 5, 1, 1), (7, 5, 1, 1), 1, ((0, 0), (0, 0)), 1, 1),
    ((3, 20, 9, 11), (24, 20, 1, 1), 1, ((0, 0), (0, 0)), 1, 1),
    ((2, 5, 7, 9), (261, 5, 3, 3), 1, ONE, 1, 1),
    ((2, 66, 9, 14), (70, 66, 1, 1), 2, ((0, 0), (0, 0)), 1, 1),
    ((2, 3, 11, 37), (9, 3, 3, 3), 2, ((1, 0), (0, 2)), 1, 1),
    ((2, 5, 9), (7, 5, 1), 1, ((1, 2),), 1, 1),
    ((2, 12, 70), (10, 6, 1), 1, ((0, 0),), 1, 2),
    ((2, 3, 4, 5, 6), (6, 3, 2, 3, 3), (2, 1, 2), ((1, 0), (1, 1), (0, 2)), 1, 1),
]


WINDOWS = ("windows", "windows of other CPUs")
SHORT = lambda: panels.vectors() == (256, 16)


@pytest.fixture
def way(monkeypatch):
    """Choose the way: packed windows, here or as other CPUs pack them, packed filters, or filters that tasks pack; or
    wide sums, where they are a way.

    Counts the launches by way.
    """
    count, masks = collections.Counter(), conv.has_masked_memory()
    kept, tasks = conv_pixels.windowed, conv_pixels.tasks
    wide, wide_tasks, applies = conv_wide.windowed, conv_wide.tasks, conv_wide.applies
    name = lambda packed: "tasks" if packed is None else "filters"
    monkeypatch.setattr(conv_pixels, "windowed", lambda *a: (count.update([name(a[3])]), kept(*a)))
    monkeypatch.setattr(conv_wide, "windowed", lambda *a: (count.update(["wide"]), wide(*a)))
    monkeypatch.setattr(conv_wide, "tasks", lambda *a: wide_tasks(*a)._replace(cycles=0.0))

    def choose(way):
        cycles = 1e30 if way in (*WINDOWS, "wide") else -1.0
        monkeypatch.setattr(conv_wide, "applies", lambda *a: way == "wide" and applies(*a))
        monkeypatch.setattr(conv, "has_masked_memory", lambda: masks != (way == "windows of other CPUs"))
        monkeypatch.setattr(conv_pixels, "tasks", lambda *a: tasks(*a)._replace(cycles=cycles))
        monkeypatch.setattr(conv_pixels, "pack_cycles", lambda *_: 1e30 if way == "tasks" else 0.0)
        return count

    return choose


def normal(*shape):
    return np.random.standard_normal(shape).astype("float32")


def settings(case):
    x, _, stride, padding, dilation, groups = case
    n = len(x) - 2
    rows = [v if isinstance(v, tuple) else (v,) * n for v in (stride, dilation)]
    return {"stride": rows[0], "padding": padding, "dilation": rows[1], "groups": groups}


def both_ways(run_kernel, way, case, dtype, chunks, layout):
    attrs = settings(case)
    x, w = (layout(normal(*shape).astype(dtype)) for shape in case[:2])
    y = convolution.conv.fn(x.astype("float64"), w.astype("float64"), **attrs)
    g = layout(normal(*y.shape).astype(dtype))
    gx = convolution.conv_x_grad.fn(g.astype("float64"), w.astype("float64"), size=x.shape[2:], **attrs)
    used = 0
    for op, inputs, want in (("conv", [x, w], y), ("conv_x_grad", [g, w], gx)):
        found = []
        for chosen in (*WINDOWS, "wide", "filters", "tasks"):
            count = way(chosen)
            count.clear()
            found.append(run_kernel(op, inputs, [(want.shape, dtype)], chunks=chunks, **attrs)[0])
            assert set(count) == {chosen} - set(WINDOWS) or (chosen == "wide" and not count)
            used += count["wide"]
        for other in found[1:]:
            np.testing.assert_array_equal(found[0], other, err_msg=op)
        np.testing.assert_allclose(found[1], want, rtol=0, atol=np.finfo(dtype).eps * 64 * 20, err_msg=op)
    return used


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_ways_give_the_bits_of_packed_windows(run_kernel, way, case):
    both_ways(run_kernel, way, case, "float32", 3, lambda a: a)


@pytest.mark.parametrize(
    ("case", "count"), [(CASES[0], 1), (CASES[4], 2), (CASES[8], 2), (CASES[11], 1)], ids=str
)
def test_wide_sums_are_a_way_with_short_registers(run_kernel, way, case, count):
    """Windows of 3 x 3 forward, of one element in both directions."""
    used = both_ways(run_kernel, way, case, "float32", None, lambda a: a)
    assert used == count * SHORT()


def test_packed_filters_in_float64_and_registers_of_all_widths(run_kernel, way, vector_bits):
    for dtype in ("float32", "float64"):
        both_ways(run_kernel, way, CASES[0], dtype, None, lambda a: a)
        both_ways(run_kernel, way, CASES[3], dtype, 2, lambda a: a)


@pytest.mark.parametrize("layout", [
    lambda a: np.asfortranarray(a),
    lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    lambda a: a[:, ::-1, ::-1, ::-1],
], ids=["fortran", "spread", "reversed"])  # fmt: skip
def test_packed_filters_read_any_strides(run_kernel, way, layout):
    for case in (CASES[1], CASES[4], CASES[5]):
        both_ways(run_kernel, way, case, "float32", None, layout)


def test_epilogues_give_the_same_bits_in_both_modes_and_ways(way):
    """Bias, residual and activation inside, for rows of filters that fill no block, over several images."""
    x, r = dg.tensor(normal(3, 20, 5, 6)), dg.tensor(normal(3, 37, 5, 6))
    conv = dg.nn.Conv2d(20, 37, 3, padding=1)

    def body(x, r):
        return F.relu(conv(x) * 0.5 + r)

    way("windows")
    with dg.no_grad():
        eager = body(x, r).numpy()
    for chosen in ("wide", "filters", "tasks"):
        with (
            dg.enable_grad() if chosen == "tasks" else dg.no_grad()
        ):  # weights that may change are not prepared
            count = way(chosen)
            graph = dg.function(body)(x, r).detach().numpy()
        assert count[chosen] or (chosen == "wide" and not SHORT())
        np.testing.assert_array_equal(eager, graph)
