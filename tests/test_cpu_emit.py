"""Generated map kernels on the CPU: instructions, casts, constants, layouts."""

from __future__ import annotations

import ctypes
import math

import duograd.backends  # noqa: F401
import numpy as np
import pytest
from duograd.backends.cpu import native
from duograd.backends.cpu.emit import expression_lines
from duograd.core import types as T
from duograd.core.backend import Program
from duograd.core.scalar import FLOAT_ONLY, SCALAR_OPS, call, cast, const, evaluate, index, philox, s
from loop_kernels import ALL, INTS, arg, reduce, run, run_map, run_reduce, values

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
    yield "transposed, whole blocks", (full(70, 150).T, full(150, 70))
    yield "transposed, rows of a kilobyte", (full(256, 70).T, full(70, 256))
    yield "transposed, few columns", (full(3, 100).T, full(2, 100, 3)[:, :, ::-1])
    yield "row broadcast", (full(5, 37), full(37))
    yield "column broadcast", (full(5, 37), full(5, 1))
    yield "both", (full(9, 1, 3), full(1, 20, 1))
    yield "steps", (full(40, 33)[::2, ::-3], full(20, 11))
    yield "every other", (full(4, 74)[:, ::2], full(4, 74)[:, 1::2])
    yield "every other, one row", (full(73)[::2], full(37))
    yield "every other and transposed", (full(4, 74)[:, ::2], full(37, 4).T)
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


def test_map_walks_memory_in_order(monkeypatch):
    """Operands that are all transposed are walked like those that are not: one loop, where they are one piece."""
    kernels = []
    loop = Program.loop
    monkeypatch.setattr(
        Program, "loop", lambda self, kernel, *args: (kernels.append(kernel), loop(self, kernel, *args))
    )
    x, out = np.arange(105, dtype=np.float16).reshape(3, 5, 7), np.zeros((3, 5, 7), np.float32)
    run(
        [cast(arg(0, T.float16) * 2.0, T.float32)],
        [x.transpose(2, 0, 1)],
        [out.transpose(2, 0, 1)],
        (7, 3, 5),
    )
    np.testing.assert_array_equal(out, x * 2)
    assert [k.n_axes for k in kernels] == [1]
    index_ = np.zeros((7, 5), np.int64)
    run([index()], [], [index_.T], (5, 7))
    np.testing.assert_array_equal(index_.T, np.arange(35).reshape(5, 7))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_map_turns_what_is_transposed(dtype):
    for shape in ((2, 37, 50), (1, 16, 17), (3, 65, 2), (1, 128, 256)):
        x = np.arange(np.prod(shape)).reshape(shape).astype(dtype.np)
        out = run_map([arg(0, dtype)], [x.transpose(0, 2, 1)])[0]
        np.testing.assert_array_equal(out, x.transpose(0, 2, 1))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_map_walks_every_other_element(dtype):
    """Whole vectors and rests; between them nothing is written, and nothing is read behind the last one."""
    for n in (3, 16, 37):
        x = np.arange(4 * n).reshape(2, 2 * n).astype(dtype.np)
        out = np.full((2, 2 * n + 1), 77).astype(dtype.np)
        want = out.copy()
        want[:, 1::2] = x[:, ::2]
        run([arg(0, dtype)], [x[:, ::2]], [out[:, 1::2]], (2, n))
        np.testing.assert_array_equal(out, want)
        total = run_reduce(
            [call("eq", reduce("max", arg(0, dtype)), arg(1, dtype))],
            [x[:, ::2], x[:, ::2].max(1, keepdims=True)],
            (1,),
        )
        assert total[0].all()


def test_map_in_place_reads_before_it_writes():
    x, y = np.arange(100, dtype=np.float32), np.arange(100, dtype=np.float32) * 3
    a, b = x.copy(), y.copy()
    run([arg(0) + arg(1), arg(0) - arg(1)], [a, b], [a, b], a.shape)
    np.testing.assert_array_equal(a, x + y)
    np.testing.assert_array_equal(b, x - y)
    pairs = np.stack([x, y], 1)
    real, imaginary = pairs[:, 0], pairs[:, 1]
    run([arg(0) - arg(1), arg(0) + arg(1)], [real, imaginary], [real, imaginary], x.shape)
    np.testing.assert_array_equal(pairs, np.stack([x - y, x + y], 1))


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


def test_wide_stores_write_the_lanes_of_their_mask_alone():
    for dtype in (T.float32, T.float64, T.float16, T.int8):
        c = dtype.char
        source = f"""
def kernel(args, chunk, nchunks):
    first, end = w_mask(args[1], 0), w_mask(args[2], 0)
    w_store_{c}(args[0], 0, w_load_{c}(args[3], 0, w_all()), w_logical_and_b1(end, w_logical_not_b1(first)))
"""
        kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(native.kernel_address(source))
        values = np.arange(1, 17).astype(dtype.np)
        for first, end in [(0, n) for n in range(17)] + [(3, 11), (8, 16), (15, 16)]:
            out = np.zeros(18, dtype.np)
            args = np.array([out[1:].ctypes.data, first, end, values.ctypes.data], np.int64)
            kernel(args.ctypes.data, 0, 1)
            want = np.zeros(18, dtype.np)
            want[1 + first : 1 + end] = values[first:end]
            np.testing.assert_array_equal(out, want)
