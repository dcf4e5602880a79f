"""Matrix products on the CPU: layouts, sizes, batches, dtypes, epilogues, independence of chunks."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from duograd.backends.cpu import gemm, panels
from duograd.backends.cpu.epilogue import takes_epilogue
from duograd.core import types as T
from duograd.core.backend import Operand, Program, get_backend
from duograd.core.scalar import Expr, const, s
from duograd.core.types import contiguous_strides

SIZES = (1, 2, 7, 17, 63, 65)


def normal(shape, dtype="float32"):
    return np.random.standard_normal(shape).astype(dtype)


def check_product(run_kernel, a, b, **options):
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    a, b = (np.broadcast_to(x, (*shape[:-2], *x.shape[-2:])) for x in (a, b))
    out = run_kernel("matmul", [a, b], [(shape, a.dtype)], **options)[0]
    exact = np.matmul(a.astype("float64"), b.astype("float64")) if a.dtype.kind == "f" else np.matmul(a, b)
    if a.dtype.kind == "f":
        # Of standard normal numbers: roundings of partial sums, which are chains of 256 and a sum of those.
        k = max(1, a.shape[-1])
        bound = np.finfo(a.dtype).eps * (k * (min(k, 256) + k / 256)) ** 0.5
        np.testing.assert_allclose(out, exact, rtol=0, atol=8 * bound)
    else:
        np.testing.assert_array_equal(out, exact)
    return out


@pytest.mark.parametrize("transposed", list(itertools.product((False, True), repeat=2)))
def test_matmul_of_odd_sizes_and_transposed_operands(run_kernel, vector_bits, transposed):
    for m, n in itertools.product(SIZES, SIZES):
        for k in (1, 17, 65):
            a = normal((k, m)).T if transposed[0] else normal((m, k))
            b = normal((n, k)).T if transposed[1] else normal((k, n))
            check_product(run_kernel, a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(40, 700, 300), (300, 33, 520), (3, 9000, 5), (129, 257, 1)])
def test_matmul_of_blocks_deep_sums_and_pieces(run_kernel, monkeypatch, dtype, shape):
    m, k, n = shape
    places = "IN_PLACE_ROWS", "SPREAD_ROWS", "IN_PLACE_BYTES", "READ_COLUMNS", "READ_COLUMNS_OF_FEW"
    here = gemm.limits(), *(getattr(gemm, name) for name in places)
    packed, panels_too = panels.Limits(132, 0, 0), panels.Limits(132, 1 << 30, 0)
    far = 1 << 30
    for limits, *values in (
        here, (packed, 0, 0, -1, 0, 0), (panels_too, 0, 0, -1, 0, 0), (panels_too, 0, 0, -1, far, far)
    ):  # fmt: skip
        monkeypatch.setattr(gemm, "limits", lambda limits=limits: limits)
        for name, value in zip(places, values):
            monkeypatch.setattr(gemm, name, value)
        check_product(run_kernel, normal((m, k), dtype), normal((k, n), dtype))
        check_product(run_kernel, normal((k, m), dtype).T, normal((n, k), dtype).T)
        check_product(run_kernel, normal((m, k), dtype), normal((k, n + 32), dtype)[:, : n // 16 * 16 + 16])
    check_product(run_kernel, normal((2, k, m), dtype).transpose(0, 2, 1), normal((k, n), dtype))


@pytest.mark.parametrize(("threads", "tasks"), [(1, 1), (2, 4)])
def test_a_small_product_is_as_many_tasks_as_threads_need(threads, tasks):
    program = SimpleNamespace(backend=SimpleNamespace(num_threads=lambda: threads))
    rows, columns = gemm._task_shape(program, panels.product_block(T.float32), 96, 128, 1)
    assert -(-96 // rows) * -(-128 // columns) == tasks


def test_matmul_reads_any_strides(run_kernel):
    a, b = normal((2 * 20, 3 * 30))[::2, ::3], normal((30, 4 * 40))[:, ::-4]
    check_product(run_kernel, a, b)
    a, b = np.broadcast_to(normal((1, 30)), (20, 30)), np.broadcast_to(normal((30, 1)), (30, 40))
    check_product(run_kernel, a, b)


@pytest.mark.parametrize(
    "shapes",
    [((3, 5, 7), (3, 7, 9)), ((3, 5, 7), (7, 9)), ((5, 7), (3, 7, 9)), ((2, 1, 4, 6), (3, 6, 5)),
     ((2, 3, 1, 6), (2, 3, 6, 5)), ((2, 1, 3, 1, 2, 4, 6), (1, 2, 3, 2, 1, 6, 5)),
     ((2, 300, 40), (2, 40, 300)), ((2, 1, 3, 1, 2, 1, 6), (1, 2, 3, 2, 1, 6, 5))],
)  # fmt: skip
def test_matmul_broadcasts_batches(run_kernel, shapes):
    check_product(run_kernel, *map(normal, shapes))


def test_matmul_of_permuted_heads(run_kernel):
    """Attention's view: batch and heads are axes that do not merge."""
    q = normal((2, 9, 3, 16)).transpose(0, 2, 1, 3)
    k = normal((2, 9, 3, 16)).transpose(0, 2, 3, 1)
    check_product(run_kernel, q, k)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 4, 0), (3, 0, 4), (1, 0, 1), (0, 0, 0)])
def test_matmul_of_nothing_is_zero(run_kernel, shape):
    m, k, n = shape
    check_product(run_kernel, normal((m, k)), normal((k, n)))
    check_product(run_kernel, normal((2, m, k)), normal((2, k, n)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
def test_gemv_in_both_directions(run_kernel, dtype, transposed):
    for k, n in itertools.product((1, 2, 63, 300, 40_000), (1, 17, 130)):
        if k * n > 1_000_000 and n > 17:
            continue
        matrix = normal((n, k), dtype).T if transposed else normal((k, n), dtype)
        check_product(run_kernel, normal((1, k), dtype), matrix)
        check_product(run_kernel, matrix.T, normal((k, 1), dtype))
        check_product(run_kernel, matrix.T, normal((k, 3), dtype)[:, 1:2])
    check_product(run_kernel, normal((4, 3, 1, 20), dtype), normal((3, 20, 11), dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_one_row_and_one_column_are_rounded_once(run_kernel, dtype):
    """K of 1: rows that lie side by side are scaled many at once, rows apart one by one; -0.0 is added to 0.0."""
    for shape in ((1,), (7, 1)):
        x, y = normal((*shape, 1), dtype), normal((*shape, 333), dtype)
        y[..., 3] = -0.0
        apart = np.empty((*shape, 666), dtype)[..., ::2]
        apart[...] = y
        for right in (y, apart):
            np.testing.assert_array_equal(check_product(run_kernel, x, right), x * y + 0.0, strict=True)
            turned = np.swapaxes(right, -1, -2)
            out = check_product(run_kernel, turned, np.swapaxes(x, -1, -2))
            np.testing.assert_array_equal(np.signbit(out), np.signbit(np.swapaxes(x * y + 0.0, -1, -2)))


@pytest.mark.parametrize("name", [d.name for d in T.DTYPES.values() if d.is_integer])
def test_integer_matmul_wraps_as_numpy(run_kernel, name):
    info = np.iinfo(name)
    for shape in ((7, 17, 5), (1, 3, 1), (2, 0, 3)):
        a = np.random.randint(info.min, info.max, shape[:2], dtype=name)
        b = np.random.randint(info.min, info.max, shape[1:], dtype=name)
        check_product(run_kernel, a, b)
        check_product(run_kernel, np.ascontiguousarray(a.T).T, np.stack([b, b]))


@pytest.mark.parametrize(
    "shape", [(65, 300, 130), (300, 64, 300), (17, 5000, 9), (1, 40_000, 1), (1, 500, 700)]
)
def test_matmul_does_not_depend_on_chunks(run_kernel, shape):
    m, k, n = shape
    a, b = normal((m, k)), normal((k, n))
    first = check_product(run_kernel, a, b, chunks=1)
    for chunks in (2, 7, 100):
        np.testing.assert_array_equal(check_product(run_kernel, a, b, chunks=chunks), first)


def test_matmul_rows_do_not_depend_on_the_batch(run_kernel):
    a, b = normal((100, 700)), normal((700, 60))
    whole = check_product(run_kernel, a, b)
    np.testing.assert_array_equal(check_product(run_kernel, a[3:20], b), whole[3:20])
    # Remainders are done by whole and by low blocks.
    for rows in range(2, 24):
        np.testing.assert_array_equal(check_product(run_kernel, a[:rows], b), whole[:rows])
    wide = normal((700, 300))
    whole = check_product(run_kernel, a, wide)
    for rows in (2, 7, 9):
        np.testing.assert_array_equal(check_product(run_kernel, a[:rows], wide), whole[:rows])


def test_matmul_propagates_nan_and_infinity(run_kernel):
    a, b = normal((9, 20)), normal((20, 40))
    a[3, 5], a[6, 2] = np.nan, np.inf
    out = run_kernel("matmul", [a, b], [((9, 40), np.dtype("float32"))])[0]
    assert np.isnan(out[3]).all()
    assert np.isinf(out[6]).all()
    assert np.isfinite(np.delete(out, (3, 6), 0)).all()


ZERO = const(0, T.float32)
EPILOGUES = {
    "bias and relu": (lambda x, b, r, c, n: [s.maximum(x + b, ZERO)], ["float32"]),
    "residual": (lambda x, b, r, c, n: [s.tanh(x + b) * c + r], ["float32"]),
    "masks": (lambda x, b, r, c, n: [s.where(r > 0, x, ZERO), x, x * n > b], ["float32", "float32", "bool"]),
    "only a mask": (lambda x, b, r, c, n: [x + r > n], ["bool"]),
    "float64": (lambda x, b, r, c, n: [s.cast(x, T.float64) * 2, s.exp(x * n)], ["float64", "float32"]),
}
PRODUCTS = {
    "blocks": ((65, 300), (300, 70)), "merged batch": ((2, 3, 20), (20, 130)),
    "batch": ((3, 9, 17), (3, 17, 33)), "gemv": ((1, 40), (40, 9)), "pieces": ((5, 5000), (5000, 6)),
    "wide": ((40, 30), (30, 300)),
}  # fmt: skip


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("product", PRODUCTS)
def test_epilogue_equals_the_same_work_afterwards(run_kernel, name, product):
    a, b = map(normal, PRODUCTS[product])
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    a, b = (np.broadcast_to(x, (*shape[:-2], *x.shape[-2:])) for x in (a, b))
    make, dtypes = EPILOGUES[name]
    roots = make(*(Expr("arg", T.float32, (), k) for k in range(5)))
    inputs = [normal(shape[-1:]), normal(shape), normal((shape[-2], 1)), (1.5, T.float32)]
    outputs = [(shape, np.dtype(d)) for d in dtypes]
    options = {"epilogue": (roots, inputs, a.dtype)}
    afterwards = run_kernel("matmul", [a, b], outputs, fused=False, **options)
    for chunks in (1, 7):
        fused = run_kernel("matmul", [a, b], outputs, chunks=chunks, **options)
        for mine, expected in zip(fused, afterwards):
            np.testing.assert_array_equal(mine, expected)


def test_takes_epilogue_knows_what_fuses():
    def operand(shape, strides):
        return Operand(0, 0, T.float32, shape, strides)

    out = (4, 6, 5, 7)
    for fits, x in (
        (True, operand(out, (210, 35, 7, 1))), (True, operand((6, 1, 1), (1, 1, 1))), (True, operand((), ())),
        (False, operand((7,), (1,))), (False, operand(out, (1, 4, 24, 120))),
    ):  # fmt: skip
        assert takes_epilogue("conv", out, x) is fits
    assert takes_epilogue("matmul", out, operand((7,), (1,)))
    assert not takes_epilogue("max_pool", out, operand((), ()))


HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
#: what rounds, overflows, is a denormal of either or has a payload
SPECIAL = np.array(
    [np.inf, -np.inf, np.nan, -0.0, 6e-8, -5e-8, 1e-40, 1e-39, 65504, 65520, 7e4, 3e38, -1e-7], np.float32
)


def with_special(x):
    """x with every ninth element special."""
    with np.errstate(over="ignore"):
        x = x.copy()
        x.reshape(-1)[4::9] = np.resize(SPECIAL, x.size)[4::9].astype(x.dtype)
    return x


def same_numbers(got, want):
    """Equal bits; one NaN is as good as another."""
    assert got.dtype == want.dtype
    bits, numbers = f"u{want.itemsize}", ~np.isnan(want.astype("float32"))
    np.testing.assert_array_equal(got.view(bits)[numbers], want.view(bits)[numbers])
    assert np.isnan(got[~numbers].astype("float32")).all()


def rounded_once(run_kernel, a, b, dtype, shape):
    """The float32 product of the widened operands, rounded."""
    wide = run_kernel("matmul", [x.astype("float32") for x in (a, b)], [(shape, np.dtype("float32"))])[0]
    with np.errstate(over="ignore"):
        return wide.astype(dtype)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("transposed", list(itertools.product((False, True), repeat=2)))
def test_products_of_16_bits_are_those_of_widened_operands_rounded_once(
    run_kernel, vector_bits, half, transposed
):
    dtype = HALVES[half]
    sizes = [(m, k, n) for m, n in itertools.product((1, 2, 7, 17, 65), (1, 3, 17, 65)) for k in (1, 17, 300)]
    for m, k, n in (*sizes, (3, 9000, 5), (130, 300, 200)):
        a = with_special(normal((k, m) if transposed[0] else (m, k)).astype(dtype))
        b = with_special(normal((n, k) if transposed[1] else (k, n)).astype(dtype))
        a, b = (x.T if turn else x for x, turn in zip((a, b), transposed))
        for chunks in (None, 3):
            out = run_kernel("matmul", [a, b], [((m, n), dtype)], chunks=chunks)[0]
            same_numbers(out, rounded_once(run_kernel, a, b, dtype, (m, n)))
        for pair in ((a, b.astype("float32")), (a.astype("float32"), b)):
            out = run_kernel("matmul", pair, [((m, n), np.dtype("float32"))])[0]
            same_numbers(out, rounded_once(run_kernel, a, b, np.dtype("float32"), (m, n)))


@pytest.mark.parametrize("half", HALVES)
def test_products_of_16_bits_read_any_strides_and_batches(run_kernel, half):
    dtype = HALVES[half]
    flat, other = (normal(s).astype(dtype) for s in ((40, 90), (30, 160)))
    cases = [
        (flat[::2, ::3], other[:, ::-4]), (flat[:, 5:35], other[:, 7:]), (flat.T[5:35], flat), (flat[::-1, :30], other)
    ]  # fmt: skip
    shapes = [
        ((3, 5, 7), (3, 7, 9)), ((3, 5, 7), (7, 9)), ((5, 7), (3, 7, 9)),
        ((2, 1, 3, 1, 2, 4, 6), (1, 2, 3, 2, 1, 6, 5)), ((2, 300, 40), (2, 40, 300)), ((4, 8, 1), (4, 1, 8)),
        ((2, 3, 0), (2, 0, 4)), ((0, 3, 4), (0, 4, 2)),
    ]  # fmt: skip
    cases += [tuple(normal(s).astype(dtype) for s in pair) for pair in shapes]
    heads = normal((2, 9, 3, 16)).astype(dtype)
    cases.append((heads.transpose(0, 2, 1, 3), heads.transpose(0, 2, 3, 1)))
    rows = normal((4, 10, 700)).astype(dtype)
    cases += [(rows[:, :5], other.reshape(-1)[:2800].reshape(700, 4)), (rows[:, :, :30], other)]
    for a, b in cases:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        a, b = (np.broadcast_to(x, (*shape[:-2], *x.shape[-2:])) for x in (a, b))
        exact = np.matmul(a.astype("float64"), b.astype("float64"))
        out = run_kernel("matmul", [a, b], [(shape, dtype)])[0]
        one = 2.0 ** (-10 if half == "float16" else -7)
        np.testing.assert_allclose(out.astype("float64"), exact, rtol=one, atol=1e-4)


@pytest.mark.parametrize("half", HALVES)
def test_a_product_of_16_bits_is_packing_and_one_launch(half):
    program = Program(get_backend("cpu"))
    dtype = T.DTYPES[half]
    operands = [
        Operand(program.dynamic(), 0, dtype, s, contiguous_strides(s))
        for s in ((300, 400), (400, 200), (300, 200))
    ]
    gemm.matmul(program, operands[:2], operands[2:])
    assert [launch.source.split()[1] for launch in program.launches] == ["pack", "gemm"]


HALF_EPILOGUES = {
    "bias and relu": lambda x, b, r, c, n, half: [s.maximum(x + b, const(0, half))],
    "sums too": lambda x, b, r, c, n, half: [x, s.tanh(x + b) * c + r],
    "widened": lambda x, b, r, c, n, half: [s.cast(x * n, T.float32), x, s.cast(x, T.float64)],
    "a mask": lambda x, b, r, c, n, half: [x + r > n],
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", HALF_EPILOGUES)
@pytest.mark.parametrize("product", PRODUCTS)
def test_an_epilogue_in_16_bits_rounds_as_the_same_work_afterwards(run_kernel, name, product, half):
    dtype, kind = HALVES[half], T.DTYPES[half]
    a, b = (normal(s).astype(dtype) for s in PRODUCTS[product])
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    a, b = (np.broadcast_to(x, (*shape[:-2], *x.shape[-2:])) for x in (a, b))
    roots = HALF_EPILOGUES[name](*(Expr("arg", kind, (), k) for k in range(5)), kind)
    inputs = [normal(s).astype(dtype) for s in (shape[-1:], shape, (shape[-2], 1))] + [(1.57, kind)]
    outputs = [(shape, r.dtype.np) for r in roots]
    options = {"epilogue": (roots, inputs, dtype)}
    afterwards = run_kernel("matmul", [a, b], outputs, fused=False, **options)
    for chunks in (1, 7):
        for mine, expected in zip(
            run_kernel("matmul", [a, b], outputs, chunks=chunks, **options), afterwards
        ):
            np.testing.assert_array_equal(mine, expected)


def test_a_product_in_float32_that_is_rounded_by_its_epilogue(run_kernel):
    a, b = normal((65, 300)), normal((300, 70))
    outputs = [((65, 70), dtype) for dtype in HALVES.values()]
    roots = [s.cast(Expr("arg", T.float32, (), 0), T.DTYPES[half]) for half in HALVES]
    plain = run_kernel("matmul", [a, b], [((65, 70), np.dtype("float32"))])[0]
    for out in run_kernel("matmul", [a, b], outputs, epilogue=(roots, [], "float32")):
        same_numbers(out, plain.astype(out.dtype))
