"""Generated kernels on the CPU that reduce: every kind and axis, order of summation, rows of several stages, fusion."""

from __future__ import annotations

import duograd.backends  # noqa: F401
import numpy as np
import pytest
from duograd.core import lower
from duograd.core import types as T
from duograd.core.scalar import call, cast, index, s
from loop_kernels import arg, reduce, run, run_map, run_reduce

SHAPES = [
    ((7, 50), (1,)), ((7, 50), (0,)), ((33, 3), (1,)), ((100, 17), (0,)), ((3, 4, 5), (0, 2)),
    ((3, 4, 5), (1,)), ((2, 3, 4, 5), (1, 3)), ((2, 3, 4, 5), (0, 2)), ((6, 700), (0,)), ((1, 9), (0,)),
    ((9, 1), (1,)), ((5000,), (0,)), ((4, 6), (0, 1)), ((), ()),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [T.float32, T.float64, T.int32, T.uint8, T.bool_], ids=str)
def test_reductions_equal_numpy(dtype):
    rng = np.random.default_rng(4)
    kinds = ["max", "min", "argmax", "argmin"] + (["any", "all"] if dtype is T.bool_ else ["sum", "prod"])
    roots = [reduce(k, arg(0, dtype), T.int64 if k.startswith("arg") else dtype) for k in kinds]
    for shape, axes in SHAPES:
        x = rng.integers(-3, 4, shape).astype(dtype.np)
        if dtype.is_float:
            x = (rng.standard_normal(shape) * 1.2).astype(dtype.np)
        for kind, got in zip(kinds, run_reduce(roots, [x], axes)):
            flat = np.moveaxis(x, axes, range(-len(axes), 0)).reshape(*got.shape, -1)
            if kind in ("sum", "prod") and dtype.is_float:
                want = getattr(np, kind)(flat.astype(np.float64), -1)
                scale = np.abs(flat).sum(-1) if kind == "sum" else np.abs(want) * flat.shape[-1]
                assert np.all(np.abs(got - want) <= 16 * np.finfo(dtype.np).eps * (scale + 1)), (
                    kind,
                    shape,
                    axes,
                )
            else:
                kw = {"dtype": dtype.np} if kind in ("sum", "prod") else {}
                np.testing.assert_array_equal(
                    got, getattr(np, kind)(flat, -1, **kw), err_msg=f"{kind} {shape} {axes}"
                )


@pytest.mark.parametrize("axis", [0, 1])
def test_nan_wins_and_ties_go_to_the_first(axis):
    x = np.zeros((40, 40), np.float32)
    x[3, 5] = x[9, 5] = x[5, 3] = x[5, 9] = 2
    x[20, 30] = x[35, 30] = x[30, 20] = x[30, 35] = np.nan
    x[:, 11] = x[11, :] = -np.inf
    kinds = ["max", "min", "argmax", "argmin"]
    roots = [reduce(k, arg(0), T.int64 if k.startswith("arg") else None) for k in kinds]
    for kind, got in zip(kinds, run_reduce(roots, [x], (axis,))):
        np.testing.assert_array_equal(got, getattr(np, kind)(x, axis, keepdims=True), err_msg=kind)


@pytest.mark.parametrize(
    ("shape", "axes"), [((4, 0), (1,)), ((0, 4), (0,)), ((3, 0, 4), (1,)), ((2, 0, 3, 0), (1, 3))]
)
def test_empty_reductions_give_the_identity(shape, axes):
    x = np.zeros(shape, np.float32)
    total, product, found = run_reduce(
        [reduce("sum", arg(0)), reduce("prod", arg(0)), reduce("any", call("gt", arg(0), 0.0))], [x], axes
    )
    assert np.all(total == 0)
    assert np.all(product == 1)
    assert not found.any()


@pytest.mark.parametrize(("shape", "axis"), [((1, 3_000_000), 1), ((100_000, 20), 0)])
def test_error_of_long_sums_does_not_grow_with_length(shape, axis):
    x = np.random.default_rng(5).random(shape).astype(np.float32)
    got = run_reduce([reduce("sum", arg(0))], [x], (axis,))[0]
    want = x.sum(axis, keepdims=True, dtype=np.float64)
    # One running float32 sum would be off by 1e-4 or more here.
    assert np.max(np.abs(got - want) / want) < 1e-6


def softmax(x):
    e = s.exp(x - reduce("max", x))
    return e / reduce("sum", e)


def layer_norm(x, w, b, n):
    centred = x - reduce("sum", x) * (1 / n)
    return centred * s.rsqrt(reduce("sum", centred * centred) * (1 / n) + 1e-5) * w + b


def test_results_do_not_depend_on_chunks():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((50, 6, 70)).astype(np.float32)
    jobs = [
        ([softmax(arg(0)), reduce("sum", arg(0))], (2,), (0,)),
        ([reduce("sum", arg(0)), reduce("max", arg(0))], (1,), ()),
        ([reduce("sum", arg(0))], (0, 1, 2), ()),
        ([reduce("sum", arg(0))], (0, 2), ()),
    ]
    for roots, axes, element in jobs:
        one, seven = (run_reduce(roots, [x], axes, chunks, element) for chunks in (1, 7))
        for a, b in zip(one, seven):
            assert a.tobytes() == b.tobytes(), axes


def test_split_reductions_in_both_forms():
    rng = np.random.default_rng(7)
    for shape, axes in (
        ((300_000,), (0,)),
        ((3, 100_000), (1,)),
        ((100_000, 5), (0,)),
        ((2, 50_000, 3), (1,)),
    ):
        x = rng.standard_normal(shape).astype(np.float32)
        roots = [
            reduce("sum", arg(0) * arg(0)) * 0.5,
            reduce("max", arg(0)),
            reduce("all", call("lt", arg(0), 9.0)),
        ]
        results = [run_reduce(roots, [x], axes, chunks) for chunks in (1, 7)]
        for a, b in zip(*results):
            assert a.tobytes() == b.tobytes()
        total, top, below = results[0]
        wide = x.astype(np.float64)
        np.testing.assert_allclose(total, (wide * wide).sum(axes, keepdims=True) / 2, rtol=1e-6)
        np.testing.assert_array_equal(top, x.max(axes, keepdims=True))
        assert below.all()


# ---------------------------------------------------------------- fusion


def test_fused_map_equals_op_by_op_to_the_bit():
    x, y = np.random.default_rng(8).standard_normal((2, 999)).astype(np.float32)
    a = run_map([arg(0) * arg(1)], [x, y])[0]
    b = run_map([arg(0) + arg(1)], [a, x])[0]
    c = run_map([s.sigmoid(arg(0))], [b])[0]
    d = run_map([arg(0) * arg(1)], [c, y])[0]
    fused = run_map([s.sigmoid(arg(0) * arg(1) + arg(0)) * arg(1)], [x, y])[0]
    assert fused.tobytes() == d.tobytes()


def test_fused_rows_equal_op_by_op_to_the_bit():
    x = np.random.default_rng(9).standard_normal((9, 1003)).astype(np.float32)
    peak = run_reduce([reduce("max", arg(0))], [x], (1,))[0]
    e = run_map([s.exp(arg(0) - arg(1))], [x, peak])[0]
    total = run_reduce([reduce("sum", arg(0))], [e], (1,))[0]
    want = run_map([arg(0) / arg(1)], [e, total])[0]
    got = run_reduce([softmax(arg(0))], [x], (1,), element=(0,))[0]
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(
    "n", [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 96, 4095, 4096, 4112, 4128, 8193, 8222]
)
def test_rows_that_overlap_equal_op_by_op_to_the_bit(n):
    """Two vectors at a time, the rest one by one; in place, with NaN and infinities in some rows."""
    x = np.random.default_rng(n).standard_normal((6, n)).astype(np.float32)
    x[1, n // 2], x[2, n - 1], x[3], x[4, n - 1] = np.nan, np.inf, -np.inf, np.nan
    peak, bottom = run_reduce([reduce("max", arg(0)), reduce("min", arg(0))], [x], (1,))
    np.testing.assert_array_equal(peak, x.max(1, keepdims=True))
    np.testing.assert_array_equal(bottom, x.min(1, keepdims=True))
    e = run_map([s.exp(arg(0) - arg(1))], [x, peak])[0]
    total = run_reduce([reduce("sum", arg(0))], [e], (1,))[0]
    want = run_map([arg(0) / arg(1)], [e, total])[0]
    got = run_reduce([softmax(arg(0))], [x], (1,), element=(0,))[0]
    np.testing.assert_array_equal(got, want)
    run([softmax(arg(0))], [x], [x], x.shape, (1,))
    np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "gelu", "log1p", "tanh", "sin"])
@pytest.mark.parametrize("n", [1, 16, 31, 33, 63, 65, 96, 1000, 4112, 8223])
def test_sums_of_functions_equal_op_by_op_to_the_bit(n, name):
    """Where registers are few, rows of functions take two vectors at a time, and the rest one by one."""
    x = np.abs(np.random.default_rng(n).standard_normal((5, n))).astype(np.float32)
    y = run_map([call(name, arg(0))], [x])[0]
    want = run_reduce([reduce("sum", arg(0)), reduce("max", arg(0))], [y], (1,))
    got = run_reduce(
        [reduce("sum", call(name, arg(0))), reduce("max", call(name, arg(0))), call(name, arg(0))],
        [x], (1,), element=(2,),
    )  # fmt: skip
    assert [a.tobytes() for a in got] == [a.tobytes() for a in (*want, y)]
    x[2, n // 2] = np.nan
    total, peak = run_reduce(
        [reduce("sum", call(name, arg(0))), reduce("max", call(name, arg(0)))], [x], (1,)
    )
    for result in (total, peak):
        np.testing.assert_array_equal(np.isnan(result[:, 0]), [False, False, True, False, False])


@pytest.mark.parametrize("shape", [(5, 10), (3, 1000), (2, 5000), (4, 1)])
def test_rows_of_several_stages(shape):
    x = np.random.default_rng(10).standard_normal(shape).astype(np.float32)
    n = shape[1]
    w, b = np.random.default_rng(11).standard_normal((2, n)).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    want_norm = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * w + b
    e = np.exp(wide - wide.max(1, keepdims=True))
    want_soft = e / e.sum(1, keepdims=True)
    label = np.arange(shape[0], dtype=np.int64)[:, None] % n
    shifted = arg(0) - reduce("max", arg(0))
    losses = s.log(reduce("sum", s.exp(shifted))) - reduce(
        "sum", s.where(call("eq", index() % n, arg(3, T.int64)), shifted, 0.0)
    )
    norm, soft, loss, best = run_reduce(
        [layer_norm(arg(0), arg(1), arg(2), n), softmax(arg(0)), losses, reduce("argmax", arg(0), T.int64)],
        [x, w, b, label], (1,), element=(0, 1),
    )  # fmt: skip
    np.testing.assert_allclose(norm, want_norm, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(soft, want_soft, rtol=2e-6)
    want_loss = -np.log(np.take_along_axis(want_soft, label, 1))
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(best, x.argmax(1, keepdims=True))


def passes(count, heavy):
    """Roots of a kernel of `count` passes, of row level and one of element level, whose last pass reduces too.

    heavy: what the first pass computes is kept for all others.
    """
    x, by_row, by_element = arg(0), arg(1), arg(2)
    first = value = s.exp(x * by_element) if heavy else x * by_element - by_row
    roots = []
    for k in range(count - 1):
        roots.append(reduce(("max", "sum", "argmax")[k % 3], value, T.int64 if k % 3 == 2 else None))
        share = value / (call("abs", cast(roots[-1], T.float32)) + 7.0)
        value = first * 0.25 + share if k % 2 else s.exp(share * by_row)
    return [*roots, reduce("sum", value * value), value]


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("size", [1, 37, 1000, 4100, 9001])
def test_rows_side_by_side_equal_single_ones_to_the_bit(count, heavy, size):
    """Passes of different rows run together; a row by itself takes one pass after the other."""
    rng = np.random.default_rng(15)
    x, w = rng.uniform(0.1, 1.0, (7, size)).astype(np.float32), rng.random(size).astype(np.float32)
    by_row = rng.random((7, 1)).astype(np.float32)
    roots = passes(count, heavy)
    element = (len(roots) - 1,)
    single = [run_reduce(roots, [x[k], by_row[k], w], (0,), element=element) for k in range(7)]
    want = [np.stack([row[k] for row in single]) for k in range(len(roots))]
    assert all(np.isfinite(a).all() for a in want)
    for chunks in (1, 2, 7):
        got = run_reduce(roots, [x, by_row, w], (1,), chunks, element=element)
        assert [a.tobytes() for a in got] == [a.tobytes() for a in want]
    y = x.copy()
    run(roots[-1:], [y, by_row, w], [y], y.shape, (1,), chunks=1)
    assert y.tobytes() == want[-1].tobytes()
    # operands that move along other axes in other steps
    cube = np.ascontiguousarray(np.broadcast_to(x, (3, 7, size)).transpose(1, 0, 2))
    got = run_reduce(roots, [cube, by_row[:, None], w], (2,), 1, element=element)
    assert [a[:, 1].tobytes() for a in got] == [a.tobytes() for a in want]


@pytest.mark.parametrize(("shape", "axis"), [((9, 70), 0), ((600, 33), 0), ((3, 5, 700), 1)])
def test_columns_of_several_stages(shape, axis):
    x = np.random.default_rng(14).standard_normal(shape).astype(np.float32)
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(axis, keepdims=True))
    want = e / e.sum(axis, keepdims=True)
    soft, peak = run_reduce([softmax(arg(0)), reduce("max", arg(0))], [x], (axis,), element=(0,))
    np.testing.assert_allclose(soft, want, rtol=2e-6)
    np.testing.assert_array_equal(peak, x.max(axis, keepdims=True))
    y = x.copy()
    run([softmax(arg(0))], [y], [y], shape, (axis,))
    assert y.tobytes() == soft.tobytes()


def test_rows_in_place():
    x = np.random.default_rng(12).standard_normal((6, 100)).astype(np.float32)
    w = np.ones(100, np.float32)
    for root, arrays in ((softmax(arg(0)), []), (layer_norm(arg(0), arg(1), arg(2), 100), [w, w])):
        want = run_reduce([root], [x, *arrays], (1,), element=(0,))[0]
        y = x.copy()
        run([root], [y, *arrays], [y], y.shape, (1,))
        assert y.tobytes() == want.tobytes()


def test_columns_with_prologue_and_epilogue():
    rng = np.random.default_rng(13)
    x, mean, var = rng.random((64, 30)), rng.random((1, 30)), rng.random((1, 30))
    x, mean, var = (a.astype(np.float32) for a in (x, mean, var))
    scaled = (arg(0) - arg(1)) * s.rsqrt(arg(2) + 1e-5)
    got = run_reduce(
        [reduce("sum", scaled * scaled) * 2.0 + arg(1), reduce("max", scaled)], [x, mean, var], (0,)
    )
    ref = (x.astype(np.float64) - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(got[0], (ref * ref).sum(0, keepdims=True) * 2 + mean, rtol=1e-5)
    np.testing.assert_allclose(got[1], ref.max(0, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "n", "width"), [(9, 70, 33), (600, 5, 64), (70_000, 2, 40), (50, 7, 3), (40, 1, 1100)]
)
def test_columns_of_broadcast_operands_equal_whole_ones_to_the_bit(monkeypatch, rows, n, width):
    """Kept axes that an operand does not walk as one are loops of their own, without copies unless narrow."""
    rng = np.random.default_rng(11)
    x, y, c = (
        rng.standard_normal(s).astype(np.float32) for s in ((rows, 1, width), (n, width), (rows, n, 1))
    )
    roots = [reduce("sum", (arg(0) - arg(1)) * arg(2)), reduce("max", arg(0) * arg(2))]
    whole = [np.ascontiguousarray(np.broadcast_to(a, (rows, n, width))) for a in (x, y, c)]
    want = run_reduce(roots, whole, (0,))
    copied = []
    monkeypatch.setattr(lower, "copy", lambda *args, copy=lower.copy: (copied.append(args), copy(*args)))
    for got, expected in zip(run_reduce(roots, [x, y, c], (0,)), want):
        assert got.tobytes() == expected.tobytes()
    assert bool(copied) == (width < lower.NARROW)


@pytest.mark.parametrize("dtype", [T.float32, T.float64, T.int32, T.bool_], ids=str)
@pytest.mark.parametrize(
    ("rows", "columns"), [(0, 5), (1, 1), (257, 15), (255, 16), (256, 17), (265, 64), (6000, 15)]
)
def test_few_columns_equal_those_of_many_to_the_bit(dtype, rows, columns):
    """Accumulators in registers, for up to 16 and 64 columns, and in memory take the same order.

    Of the largest both are cut into the same blocks, of the others neither is.
    """
    rng = np.random.default_rng(13)
    many = (rng.standard_normal((3, rows, 80)) * 2).astype(dtype.np)
    if dtype.is_float and rows:
        many[0, 0, 0], many[1, rows // 2, 0] = np.nan, -0.0
    few, scale = many[:, :, :columns], rng.standard_normal(80).astype(np.float32)
    kinds = ["any", "all"] if dtype is T.bool_ else ["sum", "max"]
    for roots in (
        [reduce(k, arg(0, dtype)) for k in kinds],
        [reduce("sum", cast(arg(0, dtype), T.float32) * arg(1)) + arg(1)],
    ):
        for axes in ((1,), (0, 1)):
            inputs = [few, scale[:columns]], [many, scale]
            small, large = (run_reduce(roots, x, axes, chunks) for x, chunks in zip(inputs, (3, 1)))
            for got, want in zip(small, large):
                assert got.tobytes() == np.ascontiguousarray(want[..., :columns]).tobytes()
