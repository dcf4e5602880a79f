"""The CUDA emitter's instruction table against core/scalar.py, over all dtypes and their awkward values.

Run in the emulation, and on a GPU that is there; and what NVRTC makes of it: no contraction, no flushing, no
approximate division.
"""

import re

import numpy as np
import pytest
from duograd.backends.cuda import emulate, kernel_text, nvrtc
from duograd.backends.cuda.device import CudaBackend
from duograd.backends.cuda.emit_expression import constant, has_instruction
from duograd.core import types as T
from duograd.core.backend import Operand, Program
from duograd.core.errors import DuogradError, KernelError, MissingExtraError
from duograd.core.legalize import is_plain
from duograd.core.lower import lower_map
from duograd.core.scalar import SCALAR_OPS, Expr, call, cast, const, evaluate, philox
from duograd.core.types import DTYPES
from duograd.tests.device_programs import MACHINES, machines
from duograd.tests.device_programs import run as run_program

#: dtypes that kernels compute in; the others are brought down to them before (tests/test_halves.py, test_complex.py)
PLAIN = tuple(filter(is_plain, DTYPES.values()))
needs_emulation = pytest.mark.skipif(not emulate.is_available(), reason="no g++: kernels are not emulated")

#: correctly rounded or integer; the others come from a C library, within four units of NumPy's. CUDA documents up to
#: five for its own (erfc in float64), NumPy's are within one.
_EXACT = """add sub mul div floordiv mod fmod gcd maximum minimum fmax fmin nextafter neg abs sign
eq ne lt le gt ge logical_and logical_or
logical_xor logical_not isnan isinf isfinite and or xor invert shl shr where floor ceil trunc rint sqrt rsqrt
copysign"""
EXACT = set(_EXACT.split())
#: of floats, on numbers where NumPy's own vector code is right to four units
BOUNDED = {"sin": 1e4, "cos": 1e4, "tan": 1e4}


def _values(dtype):
    """Pairs of awkward numbers: every special value meets every other."""
    if dtype is T.bool_:
        special = [False, True]
    elif dtype.is_float:
        tiny, huge = np.finfo(dtype.np).tiny, np.finfo(dtype.np).max
        special = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25, 1e-3, -30.0, 100.0]
        special += [tiny, tiny / 8, huge, -huge, np.inf, -np.inf, np.nan]
    else:
        low, high = np.iinfo(dtype.np).min, np.iinfo(dtype.np).max
        special = [low, low + 1, 0, 1, 2, 3, 5, 7, 31, 40, 63, high // 2, high - 1, high]
        special += [-1, -2, -7] if low < 0 else []
    column = np.array(special, dtype.np)
    return np.repeat(column, column.size), np.tile(column, column.size)


def _run(backend, inputs, roots):
    """The roots over arrays of one length, by a map kernel."""
    shape = inputs[0].shape

    def build(program, ins, outs):
        lower_map(program, shape, ins, roots, outs)

    return run_program(backend, build, inputs, [np.zeros(shape, root.dtype.np) for root in roots])


@pytest.fixture(scope="module", params=MACHINES)
def backend(request):
    return machines(request.param)[0]


def _expressions(dtype):
    x, y, z = (Expr("arg", dtype, (), k) for k in range(3))
    for name, op in SCALAR_OPS.items():
        if name == "fma" or not has_instruction(name, dtype):
            continue
        if name == "rint" and not dtype.is_float:
            continue  # NumPy goes through float64, which 64-bit integers do not survive
        if name == "pow" and dtype.kind == "int":
            yield name, call(name, x, cast(call("and", y, 15), dtype))  # NumPy refuses negative exponents
        elif name == "where":
            yield name, call(name, call("lt", x, y), x, y)
        else:
            yield name, call(name, *(x, y, z)[: op.arity])


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
def test_instructions_mean_what_the_reference_says(dtype, backend):
    x, y = _values(dtype)
    named = dict(_expressions(dtype))
    units = 4 if backend.device == "emulated" else 6
    results = _run(backend, [x, y], list(named.values()))
    for (name, root), got in zip(named.items(), results):
        (want,) = evaluate([root], [x, y], x.shape)
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got, want, name)
            continue
        counted = np.abs(x) <= BOUNDED.get(name, np.inf)
        same = (got == want) | (np.isnan(got) & np.isnan(want)) | ~counted
        if name not in EXACT:
            with np.errstate(all="ignore"):
                same |= np.abs(got - want) <= units * np.spacing(np.abs(want))
        assert same.all(), f"{name}: {x[~same][:4]}, {y[~same][:4]}: {got[~same][:4]}, not {want[~same][:4]}"
        if name in ("neg", "abs", "floor", "copysign", "floordiv", "mod", "mul", "div"):
            kept = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(got)[kept], np.signbit(want)[kept], name)


def test_every_instruction_has_a_cuda_text_for_the_dtypes_numpy_takes():
    """But for division, powers and shifts of bools, which NumPy answers with int8 and no backend has."""
    for name, op in SCALAR_OPS.items():
        if name in ("real", "imag", "angle", "conj", "complex"):
            continue  # never in a kernel
        for dtype in PLAIN:
            if dtype is T.bool_ and name in ("floordiv", "mod", "fmod", "pow", "fma", "shl", "shr"):
                continue
            try:
                expr = call(name, *[Expr("arg", dtype, (), 0)] * op.arity)
                evaluate([expr], [np.ones(2, dtype.np)], (2,))
            except (DuogradError, TypeError):
                continue
            assert has_instruction(name, expr.args[-1].dtype), f"{name} of {dtype}"


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
def test_casts_are_numpys_in_range_and_saturate_beyond(dtype, backend):
    x, _ = _values(dtype)
    x = np.unique(x)
    roots = [cast(Expr("arg", dtype, (), 0), target) for target in PLAIN if target is not dtype]
    for root, got in zip(roots, _run(backend, [x], roots)):
        if dtype.is_float and root.dtype.is_integer:
            np.testing.assert_array_equal(got, [_to_integer(v, root.dtype) for v in x], str(root.dtype))
        else:
            np.testing.assert_array_equal(got, evaluate([root], [x], x.shape)[0], str(root.dtype))


def _to_integer(value, dtype):
    """Truncated; NaN 0; saturated in 32 or 64 bits, of which narrower integers keep the low part."""
    if np.isnan(value):
        return dtype.np.type(0)
    if dtype is T.uint64 and value >= 2.0**63:
        return np.uint64(min(int(min(value, 1e30)), 2**64 - 1))
    bits = 64 if dtype in (T.int64, T.uint32, T.uint64) else 32
    whole = int(np.clip(float(value), -(2.0**70), 2.0**70))
    whole = min(max(whole, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)
    return np.array(whole % 2 ** (8 * dtype.itemsize), f"u{dtype.itemsize}").view(dtype.np)[()]


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
def test_constants_arrive_exactly(dtype, backend):
    values = [v for v in np.unique(_values(dtype)[0]) if v == v]
    values += [dtype.np.type(0.1), dtype.np.type(np.pi)] if dtype.is_float else []
    zero = np.zeros(1, dtype.np)
    roots = [const(v, dtype) for v in values]
    for value, got in zip(values, _run(backend, [zero], roots)):
        assert got[0] == value
    if dtype.is_float:
        assert np.isnan(_run(backend, [zero], [const(np.nan, dtype)])[0][0])


def test_integer_powers_with_negative_exponents(backend):
    x = np.array([1, -1, -1, 2, -3, 0], np.int32)
    y = np.array([-5, -3, -4, -1, -2, -1], np.int32)
    root = call("pow", Expr("arg", T.int32, (), 0), Expr("arg", T.int32, (), 1))
    np.testing.assert_array_equal(_run(backend, [x, y], [root])[0], [1, -1, 1, 0, 0, 0])


def test_fused_multiply_add_rounds_once(backend):
    x = np.array([1 + 2.0**-12], np.float32)
    fma = call("fma", *[Expr("arg", T.float32, (), k) for k in (0, 0, 1)])
    chain = Expr("arg", T.float32, (), 0) * Expr("arg", T.float32, (), 0) + Expr("arg", T.float32, (), 1)
    once, twice = _run(backend, [x, np.array([-1.0], np.float32)], [fma, chain])
    assert once[0] == 2.0**-11 + 2.0**-24
    assert twice[0] == np.float32(2.0**-11)


def test_philox_bits_are_the_reference_ones(backend):
    seed, offset = const(0x1234_5678_9ABC_DEF0, T.uint64), const(2**64 - 50, T.uint64)
    roots = [philox(seed, offset, word) for word in range(4)]
    x = np.zeros(100, np.int32)
    for got, want in zip(_run(backend, [x], roots), evaluate(roots, [x], (100,))):
        np.testing.assert_array_equal(got, want)


def _sanitized(headers, dtypes, capfd):
    """What the undefined-behaviour sanitizer says of all instructions and casts of the dtypes."""
    flags = ("-fsanitize=undefined", "-lubsan")
    machine = CudaBackend(emulate.EmulatedDriver(headers=headers, flags=flags), "emulated")
    for dtype in dtypes:
        roots = [root for _, root in _expressions(dtype)]
        x = Expr("arg", dtype, (), 0)
        roots += [cast(x, target) for target in PLAIN if target is not dtype]
        try:
            _run(machine, _values(dtype), roots)
        except KernelError as error:
            if "ubsan" in str(error):
                pytest.skip("g++ has no undefined-behaviour sanitizer")
            raise
    return capfd.readouterr().err


@needs_emulation
def test_no_instruction_has_undefined_behaviour(capfd):
    """Signed overflow, shifts, conversions out of range: NVRTC may make of them what it likes."""
    dtypes = [T.int8, T.int32, T.int64, T.uint64, T.float32, T.float64]
    assert "runtime error" not in _sanitized(None, dtypes, capfd)
    text = kernel_text.headers()["scalar.cuh"]
    broken = text.replace("return (T)((u64)a + (u64)b);", "return (T)(a + b);")
    assert "signed integer overflow" in _sanitized({"scalar.cuh": broken}, [T.int64], capfd)


# ---------------------------------------------------------------- what NVRTC makes of it


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    try:
        nvrtc.library()
    except MissingExtraError as error:
        pytest.skip(f"kernels are not compiled: {error.message}")
    monkeypatch.setenv("DUOGRAD_CACHE_DIR", str(tmp_path))
    return nvrtc


def _source(*roots):
    backend = CudaBackend(emulate.EmulatedDriver(), "emulated")
    program = Program(backend)
    used = [Operand(program.dynamic(), 0, T.float32, (8,), (1,)) for _ in range(3 + len(roots))]
    lower_map(program, (8,), used[:3], list(roots), used[3:])
    return program.launches[0].source


X, Y, Z = (Expr("arg", T.float32, (), k) for k in range(3))


def test_compiled_arithmetic_is_neither_contracted_nor_approximate(compiler):
    source = _source(X * Y + Z, X / Y, call("sqrt", X), call("rsqrt", X))
    ptx = compiler.compile_text(kernel_text.unit([source]), "compute_90", "ptx").decode()
    instructions = set(re.findall(r"^\s+([a-z]+\.[\w.]*f32)", ptx, re.MULTILINE))
    assert {"mul.rn.f32", "add.rn.f32", "div.rn.f32", "sqrt.rn.f32"} <= instructions
    assert not [i for i in instructions if "fma" in i or "ftz" in i or "approx" in i]


def test_literals_keep_their_bits(compiler):
    """Denormal ones and the largest too: NVRTC's front end reads the shortest text of a number."""
    rng = np.random.default_rng(0)
    lines, bits = [], {}
    for dtype, array in ((T.float32, "a"), (T.float64, "b")):
        word = f"u{dtype.itemsize}"
        info = np.finfo(dtype.np)
        some = rng.integers(0, 2 ** (8 * dtype.itemsize - 1), 200, np.uint64).astype(word).view(dtype.np)
        special = [
            info.smallest_subnormal,
            info.tiny,
            np.nextafter(info.tiny, dtype.np.type(0)),
            info.max,
            -0.0,
            0.1,
        ]
        values = np.concatenate([np.array(special, dtype.np), some[np.isfinite(some)]])
        lines += [f"{array}[{k}] = {constant(v, dtype)};" for k, v in enumerate(values)]
        bits[dtype] = {int(b) for b in values.view(word)}
    text = f'#include "loop.cuh"\nextern "C" __global__ void k(f32* a, f64* b) {{ {" ".join(lines)} }}'
    ptx = compiler.compile_text(text, "compute_90", "ptx").decode()
    # Stores of constants are stores of integers.
    found = {int(n) for n in re.findall(r"(?<![\w.])-?\d+", ptx)}
    found |= {int(n, 16) for n in re.findall(r"0[fd]([0-9A-Fa-f]{8,16})", ptx)}
    for dtype, wanted in bits.items():
        assert wanted <= found | {n & (2 ** (8 * dtype.itemsize) - 1) for n in found}, dtype


def test_all_instructions_compile(compiler):
    """One kernel for each dtype, with every instruction and every cast."""
    sources = []
    for dtype in PLAIN:
        backend = CudaBackend(emulate.EmulatedDriver(), "emulated")
        x = Expr("arg", dtype, (), 0)
        roots = [root for _, root in _expressions(dtype)]
        roots += [cast(x, target) for target in PLAIN if target is not dtype]
        program = Program(backend)
        ins = [Operand(program.dynamic(), 0, dtype, (8,), (1,)) for _ in range(2)]
        outs = [Operand(program.dynamic(), 0, root.dtype, (8,), (1,)) for root in roots]
        lower_map(program, (8,), ins, roots, outs)
        sources.append(program.launches[0].source)
    cubins = compiler.compile_kernels(sources)
    assert all(cubin.code.startswith(b"\x7fELF") for cubin in cubins)
    assert len({cubin.name for cubin in cubins}) == 1, "one call compiled them all"


def test_compiled_kernels_are_kept_on_the_disk(compiler):
    source = _source(X + Y)
    (first,) = compiler.compile_kernels([source])
    before = compiler.stats()
    (again,) = compiler.compile_kernels([source.replace("#include", "// another note\n#include", 1)])
    assert again == first, "a note is no reason to compile again"
    after = compiler.stats()
    assert (after["compiled"] - before["compiled"], after["loaded"] - before["loaded"]) == (0, 1)
    compiler.compile_kernels([source], "sm_80")
    assert compiler.stats()["compiled"] == after["compiled"] + 1, "another GPU is one"


def test_a_header_is_part_of_a_kernels_identity(monkeypatch):
    source = _source(X + Y)
    name = kernel_text.function_name(source)
    changed = kernel_text.headers() | {"scalar.cuh": kernel_text.headers()["scalar.cuh"] + "\n// changed"}
    monkeypatch.setattr(kernel_text, "headers", lambda: changed)
    kernel_text._with_includes.cache_clear()
    assert kernel_text.function_name(source) != name
    monkeypatch.undo()
    kernel_text._with_includes.cache_clear()
    assert kernel_text.function_name(source) == name


def test_a_damaged_cache_file_is_compiled_again(compiler, tmp_path):
    source = _source(X - Y)
    (first,) = compiler.compile_kernels([source])
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    (again,) = compiler.compile_kernels([source])
    assert again == first


def test_an_error_shows_the_source_line(compiler):
    source = _source(X + Y).replace("x0 + x1", "x0 + nothing")
    with pytest.raises(KernelError, match=r"identifier \"nothing\" is undefined") as error:
        compiler.compile_kernels([source])
    assert re.search(r">\s+\d+ .*x0 \+ nothing", str(error.value))
    assert "scalar.cuh" not in str(error.value)


def test_without_nvrtc_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(nvrtc, "_library", None)
    monkeypatch.setattr(nvrtc, "_candidates", list)
    with pytest.raises(MissingExtraError, match=r"duograd\[cuda\]"):
        nvrtc.compile_text("", "sm_90")
