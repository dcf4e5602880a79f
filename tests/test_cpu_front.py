"""The two ways from a kernel's source to LLVM IR, in one walk and by Numba's front end, give the same program."""

import ctypes
import gc
import re

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import compile as compiling
from duograd.backends.cpu import gemm_text, native, panels, pooling, recurrent, target
from duograd.backends.cpu.compile import KERNEL
from duograd.backends.cpu.target import has

#: bodies of `kernel`, whose out(k, v) stores int64 and outf(k, v) float64; x(k) and f(k) read the inputs
WALKED = {
    "loops": """
    total = 0
    for i in range(3, n, 2):
        if x(i) < 0:
            continue
        if i > 20:
            break
        for j in range(i, 0, -3):
            total += x(j) * j
    out(0, total)
    while total > 5:
        total = (total >> 1) - 1
    out(1, total)
    i = 7
    for i in range(0):
        total = 5
    out(2, i)
    out(3, total)
""",
    "choices": """
    for i in range(n):
        a = x(i)
        b = x(n - 1 - i)
        if 0 <= a < 5 and (b > 2 or not a == 3):
            v = a if a > b else b
        elif a == b or b < -2:
            v = -a
        else:
            v = 100
        flag = a < 3 and b < 3
        other = not (flag or a != b)
        out(i, v * 4 + (2 if flag else 0) + (1 if other else 0))
""",
    "types": """
    small = types.int32(x(1))
    wide = square = small * small
    byte = types.uint8(x(2) * 77)
    half = x(3) / 2
    out(0, wide + byte - square // 3)
    outf(1, half)
    outf(2, types.float32(f(0)) * types.float32(f(1)))
    outf(3, f(0) ** 2 + math.sqrt(abs(f(1))))
    out(4, x(4) // 3)
    out(5, x(4) % 3)
    out(6, ~x(5) & 255)
    out(7, min(x(6), x(7), 3))
    out(13, max(x(6), x(7), -3) + min(4, x(1)) * max(x(2), x(1)))
    out(14, 5 if x(3) else 7)
    if n & 1:
        out(15, 1)
    out(8, max(f(2), f(3)) > 0.5)
    k = types.uint32(x(8))
    k = types.int64(k ^ 5)
    out(9, k)
    out(10, (1 << 40) - -3)
    outf(11, 1e-3 + x(9))
    out(12, int(f(4) * 10))
""",
    "two types": """
    for i in range(n):
        v = x(i)
        for j in range(2):
            out(i, v + j)
        v = f(i)
        for k in range(2):
            w = v * k
            outf(i, w)
            w = i + k
            out(i + 20, w)
        if v > 0:
            w = f(0)
            outf(i + 20, w)
        else:
            w = v < -1
            if w:
                w = x(1)
                out(i, w)
    for i in range(3):
        v = types.int32(i)
        out(45 + i, v)
""",
    "values read elsewhere": """
    for i in range(n):
        found = x(i)
        twice = found * 2
        if twice > 6:
            break
    out(0, found)
    for k in (2, 5, 9):
        last = x(k) + twice
        if last > 4:
            break
    out(1, last)
    if found > x(7):
        chosen = 1
    else:
        chosen = x(1)
    out(2, chosen)
    for i in range(n):
        if i % 3 == 0:
            base = x(i)
        else:
            step = base + i
            base = step
        out(3 + i, base)
    for i in range(3):
        step = x(i)
        last = step
        step = step + last
        out(40 + i, step)
    out(50, last)
    out(51, halved(x(3) + 100))
""",
    "functions": """
    out(0, fold(x(0), x(1)))
    outf(1, fold(f(0), f(1)))
    low, high = order(x(2), x(3))
    out(2, low)
    out(3, high)
    pair = order(x(4), x(5))
    out(4, pair[1] - pair[0])
    out(5, first_negative(args, n))
    for shift in (1, 4, 9):
        if shift == 4:
            continue
        out(5 + shift, x(0) << shift)
    out(9, TABLE[2] + BIG)
    out(10, answer())
    out(11, args[4])
    args[4] = 9
    out(12, args[4])
""",
}
#: what needs Numba's analysis
OTHERS = {
    "two types from turn to turn": """
    v = x(0)
    for i in range(4):
        outf(i, v)
        v = f(i)
""",
    "two types after a branch": """
    for i in range(n):
        v = x(i)
        if v > 0:
            v = f(i)
        outf(i, v)
""",
    "two types after a loop": """
    for i in range(2):
        v = x(i)
        for j in range(i):
            v = f(j)
        outf(i, v)
""",
    "two types, one from the turn before": """
    v = x(0)
    for i in range(n):
        if x(i) > 0:
            v = x(i)
        out(i, v)
        for j in range(2):
            v = f(j)
            outf(i + j, v)
""",
    "an addition that changes the type": """
    total = 0
    for i in range(n):
        total += f(i)
    outf(0, total)
""",
}
TEXT = """
import math
BIG = 12345678901
TABLE = (3, 4, 7)

@inline
def fold(a, b):
    return a * 3 - b

@function
def order(a, b):
    if a < b:
        return a, b
    return b, a

@function
def first_negative(args, n):
    i = 0
    while True:
        if i == n:
            return -1
        if load_i64(args[0], i) < 0:
            return i
        i += 1

@function
def halved(a):
    while a > 3:
        a = a >> 1
    return a

@inline
def answer():
    return 42

def kernel(args, chunk, nchunks):
    n = args[3]
"""
#: what the short names of the bodies stand for
SHORT = {
    "outf": "store_f64(args[2], ",
    "out": "store_i64(args[2], ",
    "x": "load_i64(args[0], ",
    "f": "load_f64(args[1], ",
}


def _source(body):
    return TEXT + re.sub(r"\b(outf|out|x|f)\(", lambda found: SHORT[found[1]], body)


_loaded = []


def _result(source):
    prefix = f"front{len(_loaded)}_"
    code = compiling.compile_object(source, KERNEL, prefix)
    _loaded.append(native._load({"it": native.Loadable(code, (prefix + "kernel",), {})})["it"][0])
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(_loaded[-1])
    rng = np.random.default_rng(3)
    x, f, out = rng.integers(-9, 10, 40), rng.normal(size=40), np.zeros(60, np.int64)
    args = np.array([x.ctypes.data, f.ctypes.data, out.ctypes.data, 30, 6], np.int64)
    call(args.ctypes.data, 0, 1)
    return out


@pytest.mark.parametrize("name", [*WALKED, *OTHERS])
def test_both_ways_give_the_same_program(name, monkeypatch):
    source = _source({**WALKED, **OTHERS}[name])
    assert (compiling._in_one_walk(source, KERNEL, ("kernel_0",)) is not None) == (name in WALKED)
    first = _result(source)
    monkeypatch.setattr(compiling, "_in_one_walk", lambda *_: None)
    assert first.any()
    np.testing.assert_array_equal(first, _result(source))


@pytest.mark.parametrize(
    "window", [((2, 2), (2, 2), (1, 1)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 1), (1, 1))]
)
def test_pooling_is_compiled_in_one_walk(window):
    """A variable of two types would send a kernel through Numba's analysis, which takes five times as long."""
    for make in (pooling._max_source, pooling._max_gradient_source):
        source = make(dg.float32, pooling.Window(*window))
        assert compiling._in_one_walk(source, KERNEL, ("kernel_0",)) is not None


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_products_and_recurrent_layers_are_compiled_in_one_walk(level):
    """A step of a loop that is a variable would send a kernel the long way."""
    with target.compiling_for(target.level(level)):
        tile = recurrent.tile_of(dg.float32)
        sources = [gemm_text.source(dg.float32, panels.product_block(dg.float32))]
        for make in (recurrent._forward_source, recurrent._backward_source):
            sources += [make.__wrapped__(dg.float32, tile, cell) for cell in recurrent.GATES]
        for source in sources:
            assert compiling._in_one_walk(source, KERNEL, ("kernel_0",)) is not None


def test_long_functions_stand_in_a_kernel_once():
    """However often it calls them; their branch weights are those of the kernel's module."""
    body = """
    for v in range(0, n, 16):
        a = w_sigmoid_f32(w_read_f32(args[0], v))
        b = w_softplus_f32(w_sigmoid_f32(a))
        w_write_f32(args[2], v, w_add_f32(a, w_softplus_f32(b)))
"""
    module = str(compiling._in_one_walk(TEXT + body, KERNEL, ("kernel_0",)))
    for op, times in (("sigmoid", 2), ("softplus", 2), ("add", 0)):
        assert len(re.findall(rf"\bdefine .+ @v_{op}_f32\.16\(", module)) == (times > 0)
        assert len(re.findall(rf"\bcall .+ @v_{op}_f32\.16\(", module)) == times
    rare = len(re.findall(r"^rare\S*:", module, re.MULTILINE))  # by CPU: how each function is computed
    weights = re.findall(r'^(!\d+) = !{!"branch_weights", i32 1, i32 2000}$', module, re.MULTILINE)
    assert len(weights) == (rare > 0) >= has("avx512f")
    assert all(len(re.findall(rf"!prof {w}\b", module)) == rare <= 2 for w in weights)


def test_the_collector_is_as_it_was_before_a_translation():
    source = _source(WALKED["types"])
    before = gc.isenabled()
    try:
        for on in (True, False):
            (gc.enable if on else gc.disable)()
            with compiling.collector_rests():
                assert not gc.isenabled()
            assert gc.isenabled() == on
            assert compiling._in_one_walk(source, KERNEL, ("kernel_0",)) is not None
            assert gc.isenabled() == on
        gc.enable()
        with compiling.collector_rests():
            compiling._after_fork()  # a child that was made meanwhile
            assert gc.isenabled()
    finally:
        (gc.enable if before else gc.disable)()


def test_operations_from_templates_are_the_same_code(monkeypatch):
    source = """
def kernel(args, chunk, nchunks):
    n, a, o = args[0], args[1], args[2]
    m = w_mask(min(n, 16), 0)
    x = w_load_f32(a, 0, m)
    for _ in range(n):
        x = w_exp_f32(w_maximum_f32(x, 0.5))
        x = w_add_f32(w_mul_f32(x, x), 2.0)
        x = w_where_f32(w_lt_f32(x, 3.0), x, w_fill_f32(1.0))
    w_store_f32(o, 0, x, m)
    if n > 3:
        w_stream_f32(o, 0, x)
        store_fence()
"""
    from duograd.backends.cpu.numba_front import operations
    from duograd.backends.cpu.syntax_templates import Templates

    with operations() as (known, _, _):
        monkeypatch.setattr(known, "templates", Templates())
    first, *others = (compiling.compile_object(source) for _ in range(3))
    assert all(other == first for other in others)
    assert any(found is not None for found in known.templates._known.values())
