"""Generated loop kernels on the CPU: instructions, layouts, reductions, order of summation."""

from __future__ import annotations

import ctypes
import math

import duograd.backends  # noqa: F401
import numpy as np
import pytest
from duograd.backends.cpu import native
from duograd.backends.cpu.emit import expression_lines
from duograd.core import types as T
from duograd.core.backend import Operand, Program, Scalar, get_backend, scalar_bits
from duograd.core.legalize import is_plain
from duograd.core.lower import lower_map, lower_reduce
from duograd.core.scalar import FLOAT_ONLY, SCALAR_OPS, Expr, call, cast, const, evaluate, index, philox, s

FLOATS, ALL = (T.float32, T.float64), tuple(filter(is_plain, T.DTYPES.values()))
INTS = tuple(d for d in ALL if d.is_integer)


def arg(k, dtype=T.float32):
    return Expr("arg", dtype, (), k)


def reduce(kind, x, dtype=None):
    return Expr("reduce", dtype or x.dtype, (x,), kind)


def run(roots, arrays, outs, domain, axes=None, chunks=None):
    """Lower, compile and run; arrays: NumPy arrays or (number, dtype); outs: arrays to fill."""
    program, dynamic, operands = Program(get_backend("cpu")), [], []
    if chunks is not None:
        program.chunks = lambda items, work: chunks
    for a in (*arrays, *outs):
        source = program.dynamic()
        if isinstance(a, tuple):
            operands.append(Scalar(source, a[1]))
            dynamic.append(scalar_bits(*a))
        else:
            steps = tuple(st // a.itemsize for st in a.strides)
            operands.append(Operand(source, 0, T.as_dtype(a.dtype), a.shape, steps))
            dynamic.append(a.ctypes.data)
    ins, outputs = operands[: len(arrays)], operands[len(arrays) :]
    if axes is None:
        lower_map(program, domain, ins, roots, outputs)
    else:
        lower_reduce(program, domain, axes, ins, roots, outputs)
    if program.scratch_source >= 0:
        scratch = get_backend("cpu").empty(program.scratch_bytes)
        dynamic += [0] * (program.n_dynamic - len(dynamic))
        dynamic[program.scratch_source] = scratch.ptr
    program.backend.load(program).run(dynamic)
    return outs


def run_map(roots, arrays, domain=None, chunks=None):
    domain = domain or np.broadcast_shapes(*(a.shape for a in arrays if not isinstance(a, tuple)))
    return run(roots, arrays, [np.zeros(domain, r.dtype.np) for r in roots], domain, None, chunks)


def run_reduce(roots, arrays, axes, chunks=None, element=()):
    """Outputs numbered in `element` have the domain's shape, others the kept shape."""
    arrays = [np.asarray(a) for a in arrays]
    domain = np.broadcast_shapes(*(a.shape for a in arrays))
    kept = tuple(1 if a in axes else n for a, n in enumerate(domain))
    outs = [np.zeros(domain if k in element else kept, r.dtype.np) for k, r in enumerate(roots)]
    return run(roots, arrays, outs, domain, axes, chunks)


SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.0, 1e-40, -1e-30, 1e30, -1e30)
NOT_FINITE = (math.inf, -math.inf, math.nan)


def values(dtype, rng, count=301):
    """Random and special values; `count` is odd, so that the last vector is not full."""
    if dtype is T.bool_:
        return rng.random(count) < 0.5
    if dtype.is_float:
        x = rng.standard_normal(count) * np.exp(rng.uniform(-4, 4, count))
        return np.concatenate([np.array(SPECIAL + NOT_FINITE), x]).astype(dtype.np)[:count]
    info = np.iinfo(dtype.np)
    some = np.array([0, 1, 2, 3, 7, info.max, info.min, info.max - 1], dtype.np)
    small = rng.integers(max(-20, info.min), 20, count // 2).astype(dtype.np)
    return np.concatenate([some, small, rng.integers(info.min, info.max, count, dtype.np)])[:count]


# Ops whose result is one rounding of the exact value, or none: equal to the bit, the sign of zero included.
EXACT = {
    "add", "sub", "mul", "div", "neg", "abs", "floor", "ceil", "trunc", "rint", "where", "copysign", "sqrt",
    "floordiv", "mod", "fmod", "nextafter",
}  # fmt: skip
# maximum(-0, 0) is a zero of either sign in NumPy too, and fma rounds once where the reference rounds twice.
UNSIGNED_ZERO = {"maximum", "minimum", "fmax", "fmin", "sign", "fma"}


def cases(dtype):
    """name -> expression over arguments of `dtype`, for every instruction that the dtype has."""
    missing = {"and", "or", "xor", "invert", "shl", "shr", "gcd"} if dtype.is_float else set()
    if dtype is T.bool_:
        missing = {"sub", "neg", "sign", "floordiv", "mod", "fmod", "gcd", "pow", "fma", "shl", "shr"}
    out = {}
    for name, op in SCALAR_OPS.items():
        if name in ("real", "imag", "angle", "conj", "complex"):
            continue  # parts of complex numbers: tests/test_complex.py
        if name in missing or (
            not dtype.is_float
            and name
            in {*FLOAT_ONLY.split(), "atan2", "copysign", "nextafter", "div", "round_f16", "round_bf16"}
        ):
            continue
        args = [arg(k, dtype) for k in range(op.arity)]
        if name == "where":
            args = [call("lt", arg(0, dtype), arg(1, dtype)), arg(0, dtype), arg(1, dtype)]
        out[name] = call(name, *args)
    return out


def assert_matches(name, got, want, dtype, x):
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=f"{name} {dtype}")
        return
    if name in EXACT:
        where = np.signbit(got) != np.signbit(want)
        assert not np.any(where & ~np.isnan(want)), (name, dtype, [a[where][:4] for a in x])
        np.testing.assert_array_equal(got, want, err_msg=f"{name} {dtype}")
    else:
        info = np.finfo(want.dtype)
        # NumPy's own float32 functions are off by up to 4 units in the last place; gelu goes to 0 in absolute terms.
        near = 4 * info.tiny if name != "gelu" else 4 * info.eps if dtype is T.float64 else info.eps / 4
        np.testing.assert_allclose(got, want, rtol=8 * info.eps, atol=near, err_msg=f"{name} {dtype}")


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_instructions_equal_reference(dtype):
    rng = np.random.default_rng(1)
    x, y, z = (rng.permutation(values(dtype, rng)) for _ in range(3))
    table = cases(dtype)
    if dtype.is_integer:  # NumPy refuses negative powers of integers
        powers = np.abs(y.astype(np.int64) % 13).astype(dtype.np)
        got = run_map([table["pow"]], [x, powers])[0]
        np.testing.assert_array_equal(got, evaluate([table.pop("pow")], [x, powers], x.shape)[0])
    if dtype.is_float:  # the reference rounds the product
        got = run_map([table["fma"]], [x, y, z])[0]
        wide = x.astype(np.longdouble) * y.astype(np.longdouble) + z.astype(np.longdouble)
        if dtype is T.float32:
            np.testing.assert_array_equal(got, wide.astype(dtype.np))
        table.pop("fma")
    names = list(table)
    for start in range(0, len(names), 16):
        part = names[start : start + 16]
        roots = [table[n] for n in part]
        got = run_map(roots, [x, y, z])
        with np.errstate(all="ignore"):
            want = evaluate(roots, [x, y, z], x.shape)
        if dtype.is_integer and "rint" in part:  # NumPy's goes through float64
            want[part.index("rint")] = x
        for name, g, w in zip(part, got, want):
            keep = slice(None)
            if dtype.is_float and name in (
                "floordiv",
                "mod",
                "fmod",
            ):  # exact only while the quotient fits a float64
                with np.errstate(all="ignore"):
                    keep = ~(np.abs(x / y.astype(np.float64)) >= 2.0**52) | (y == 0)
            assert_matches(name, g[keep], w[keep], dtype, (x[keep], y[keep], z[keep]))


def test_integer_edges_do_not_trap():
    for dtype in INTS:
        info = np.iinfo(dtype.np)
        a = np.array([info.min, info.max, 5, -5 if info.min else 5, 0], dtype.np)
        for divisor in (0, -1 if info.min else 1):
            b = np.full_like(a, divisor)
            x, y = arg(0, dtype), arg(1, dtype)
            quotient, rest = run_map([call("floordiv", x, y), call("mod", x, y)], [a, b])
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(quotient, np.floor_divide(a, b))
                np.testing.assert_array_equal(rest, np.mod(a, b))


def test_casts_equal_numpy_where_it_is_defined():
    rng = np.random.default_rng(2)
    for source in ALL:
        x = values(source, rng)
        if source.is_float:
            x = np.where(np.abs(x) < 100, x, 3).astype(source.np)
        targets = [d for d in ALL if d is not source]
        signed = [d for d in targets if not (source.is_float and d.kind == "uint")]
        for chosen, data in ((signed, x), ([d for d in targets if d not in signed], np.abs(x))):
            if chosen:
                for got, d in zip(run_map([cast(arg(0, source), d) for d in chosen], [data]), chosen):
                    np.testing.assert_array_equal(got, data.astype(d.np), err_msg=f"{source} to {d}")


def test_casts_of_huge_floats_and_nan_to_integers_are_defined():
    x = np.array([1e30, -1e30, math.inf, -math.inf, math.nan, -1.0, 300.0], np.float64)
    by_name = dict(zip(INTS, run_map([cast(arg(0, T.float64), d) for d in INTS], [x])))
    for dtype in (T.int32, T.int64):
        info = np.iinfo(dtype.np)
        assert by_name[dtype].tolist() == [info.max, info.min, info.max, info.min, 0, -1, 300]
    for narrow, wide in (
        ("int8", "int32"),
        ("int16", "int32"),
        ("uint8", "int32"),
        ("uint16", "int32"),
        ("uint32", "int64"),
    ):
        want = by_name[T.DTYPES[wide]].astype(narrow)
        np.testing.assert_array_equal(by_name[T.DTYPES[narrow]], want, err_msg=narrow)


@pytest.mark.parametrize("source", [T.float32, T.float64], ids=str)
def test_casts_to_integers_at_the_ends_of_their_range(source):
    powers = [sign * 2.0**k for k in (0, 31, 32, 53, 62, 63, 64, 100) for sign in (1, -1)]
    near = [
        np.nextafter(source.np.type(p), source.np.type(to)) for p in powers for to in (-math.inf, math.inf)
    ]
    x = np.array([*powers, *near], source.np)
    for dtype in (T.int32, T.int64, T.uint64):
        info = np.iinfo(dtype.np)
        low = -(2**63) if dtype is T.uint64 else info.min
        want = [max(low, min(int(v), info.max)) % 2**64 for v in x.tolist()]
        assert [v % 2**64 for v in run_map([cast(arg(0, source), dtype)], [x])[0].tolist()] == want, dtype


def test_constants_keep_their_dtype():
    x = np.array([1.0, 3.0], np.float32)
    third, nan, low = run_map([arg(0) * (1 / 3), arg(0) * math.nan, arg(0) - math.inf], [x])
    assert third.tobytes() == (x * np.float32(1 / 3)).tobytes()
    assert np.isnan(nan).all()
    assert np.isneginf(low).all()
    big = run_map([arg(0, T.uint64) + const(2**63, T.uint64)], [np.array([5], np.uint64)])[0]
    assert big.tolist() == [2**63 + 5]


# ---------------------------------------------------------------- map layouts


def layouts(rng):
    def full(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    yield "contiguous", (full(5, 7), full(5, 7))
    yield "transposed", (full(7, 5).T, full(5, 7))
    yield "row broadcast", (full(5, 37), full(37))
    yield "column broadcast", (full(5, 37), full(5, 1))
    yield "both", (full(9, 1, 3), full(1, 20, 1))
    yield "steps", (full(40, 33)[::2, ::-3], full(20, 11))
    yield "backwards", (full(4, 37)[:, ::-1], full(4, 37))
    yield "backwards, one row", (full(21)[::-1], full(21)[::-1])
    yield "four axes", (full(2, 3, 1, 5), full(2, 1, 4, 5))
    yield "five axes, permuted", (full(2, 3, 2, 5, 3).transpose(4, 2, 0, 3, 1), full(3, 2, 2, 5, 3))
    yield "one element", (full(1, 1), full(1))
    yield "empty", (full(0, 4), full(4))
    yield "empty inner", (full(4, 0), full(4, 1))
    yield "scalar", (full(), full())
    yield "three wide", (full(1000, 3), full(1000, 1))
    yield "long", (full(1003), full(1003))


@pytest.mark.parametrize(
    ("name", "arrays"), list(layouts(np.random.default_rng(3))), ids=lambda v: v if isinstance(v, str) else ""
)
def test_map_over_layout(name, arrays):
    a, b = arrays
    x, y = arg(0), arg(1)
    roots = [x * 2.0 + y, call("lt", x, y), cast(x * 10.0, T.int32)]
    want = evaluate(roots, arrays, np.broadcast_shapes(a.shape, b.shape))
    for chunks in (1, 7):
        for got, expected in zip(run_map(roots, [a, b], chunks=chunks), want):
            np.testing.assert_array_equal(got, expected)


def test_map_writes_strided_outputs():
    x = np.arange(60, dtype=np.float32).reshape(6, 10)
    out = np.zeros((10, 12), np.float32)
    run([arg(0) + 1.0], [x], [out[:, ::2].T], x.shape)
    np.testing.assert_array_equal(out[:, ::2].T, x + 1)
    assert not out[:, 1::2].any()


@pytest.mark.parametrize("dtype", [T.float32, T.bool_, T.float16, T.int64], ids=str)
def test_map_walks_backwards(dtype):
    """Rows read and written from their ends, whole vectors and rests."""
    for n in (3, 16, 37):
        x = np.arange(1, 2 * n + 1).reshape(2, n).astype(dtype.np)
        out = np.zeros((2, n + 2), dtype.np)
        run([arg(0, dtype)], [x[:, ::-1]], [out[:, 1:-1]], x.shape)
        np.testing.assert_array_equal(out[:, 1:-1], x[:, ::-1])
        run([arg(0, dtype)], [x], [out[:, -2:0:-1]], x.shape)
        np.testing.assert_array_equal(out[:, -2:0:-1], x)
        assert not out[:, [0, -1]].any()


def test_map_in_place_reads_before_it_writes():
    x, y = np.arange(100, dtype=np.float32), np.arange(100, dtype=np.float32) * 3
    a, b = x.copy(), y.copy()
    run([arg(0) + arg(1), arg(0) - arg(1)], [a, b], [a, b], a.shape)
    np.testing.assert_array_equal(a, x + y)
    np.testing.assert_array_equal(b, x - y)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_scalar_inputs_of_every_dtype(dtype):
    number = {"bool": True, "float": 1.1}.get(dtype.kind, 7)
    x = np.array([1, 0, 3], dtype.np)
    a, b = arg(0, dtype), arg(1, dtype)
    got = run_map([call("eq", a, b), call("where", call("ne", a, 0), b, a)], [x, (number, dtype)])
    value = dtype.np.type(number)
    np.testing.assert_array_equal(got[0], x == value)
    np.testing.assert_array_equal(got[1], np.where(x != 0, value, x))


def test_index_counts_in_row_major_order():
    x = np.zeros((4, 6, 5), np.float32)
    for view in (x, x[:, ::2], x.transpose(2, 0, 1)):
        got = run_map([cast(index(), T.int64), index() * 2 + cast(arg(0), T.int64)], [view])
        want = np.arange(view.size).reshape(view.shape)
        np.testing.assert_array_equal(got[0], want)
        np.testing.assert_array_equal(got[1], want * 2)


def test_philox_equals_reference():
    x = np.zeros((3, 50), np.float32)
    seed, offset = (123456789012345, T.uint64), (2**40 + 17, T.uint64)
    roots = [philox(arg(1, T.uint64), arg(2, T.uint64), w) for w in range(4)]
    got = run_map(roots, [x, seed, offset])
    want = evaluate(roots, [x, np.uint64(seed[0]), np.uint64(offset[0])], x.shape)
    np.testing.assert_array_equal(got, want)


# ---------------------------------------------------------------- reductions

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


def test_expression_lines_are_the_same_scalar_and_wide():
    roots = [s.exp(arg(0) * 2.0 + arg(1)), call("lt", arg(0), arg(1)), cast(arg(1), T.int32) // 3]
    x, y = np.random.default_rng(15).standard_normal((2, 40)).astype(np.float32) * 5
    results = []
    for wide in (False, True):
        lines, names = expression_lines(roots, ["x", "y"], 8, wide=wide)
        load = "w_load_f32({}, i, w_mask(n, i))" if wide else "load_f32({}, i)"
        chars = [r.dtype.char for r in roots]
        store = "w_store_{}(args[{}], i, {}, w_mask(n, i))" if wide else "store_{}(args[{}], i, {})"
        source = "\n".join(
            [
                "def kernel(args, chunk, nchunks):",
                "    n = args[0]",
                f"    for i in range(0, n, {16 if wide else 1}):",
                f"        x = {load.format('args[1]')}",
                f"        y = {load.format('args[2]')}",
                *lines,
                *(f"        {store.format(c, 3 + k, name)}" for k, (c, name) in enumerate(zip(chars, names))),
                "",
            ]
        )
        outs = [np.zeros(40, r.dtype.np) for r in roots]
        args = np.array([40, *(a.ctypes.data for a in (x, y, *outs))], np.int64)
        kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(native.kernel_address(source))
        kernel(args.ctypes.data, 0, 1)
        results.append(outs)
    for a, b, want in zip(*results, evaluate(roots, [x, y], (40,))):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, want, rtol=1e-6)
