"""CPUs other than this one: register blocks, code without AVX-512, code for ARM."""

import functools
import itertools
import os
import re
import subprocess
import sys

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import compile as compiling
from duograd.backends.cpu import conv_pixels, panels, target
from duograd.backends.cpu.attention import tile_of
from duograd.backends.cpu.blocks import ARGUMENTS
from duograd.backends.cpu.target import LEVELS, Target
from duograd.core import types as T
from duograd.core.backend import Operand, Program, get_backend
from duograd.core.lower import lower_map, lower_reduce
from duograd.core.scalar import Expr, call
from duograd.core.types import contiguous_strides
from duograd.nn.functional import scaled_dot_product_attention as attend

NEON = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", frozenset(("neon", "fp-armv8")))


def levels():
    """The levels of x86 that this CPU runs, but for its own."""
    own = target.target()
    return [
        n
        for n, needs in LEVELS.items()
        if own.triple.startswith("x86") and needs < own.has and n != "x86-64-v4"
    ]


def work():
    """Products, convolutions and their gradients, attention, a loop with a reduction; how many lack exponentials."""
    rng = np.random.default_rng(0)
    a, b, x, w, g, q = (
        dg.tensor(rng.standard_normal(s).astype(np.float32))
        for s in ((37, 70), (70, 53), (2, 5, 13, 11), (7, 5, 3, 3), (2, 7, 13, 11), (1, 2, 21, 20))
    )
    many, c = (dg.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((70, 200), (37, 200)))

    @dg.function
    def step(a, b, x, w, g, q):
        y, back = dg.vjp(lambda x, w: dg.conv(x, w, padding=((1, 1), (1, 1))), x, w)
        seen, attended = dg.vjp(lambda q: attend(q, q, q, is_causal=True), q)
        # Many columns: tasks pack the left operand, rows that lie one after the other and rows that do not.
        packed = [p @ q for t in (dg.float32, dg.float64)
                  for p, q in ((a.to(t), many.to(t)), (a.to(t).T, c.to(t)))]  # fmt: skip
        seen = (seen, *attended(seen))
        # Depthwise, one column apart and two: last vectors are parts.
        lines = [
            dg.relu(dg.conv(x, w[:5, :1], stride=(s, s), padding=((1, 1), (1, 1)), groups=5)) for s in (1, 2)
        ]
        powers = *seen, dg.softmax(dg.gelu(a) * dg.exp(-a) + dg.erf(a))
        return (a @ b, *packed, *lines, y, *back(g), dg.erf(a)), powers

    exact, powers = ([y.numpy() for y in group] for group in step(a, b, x, w, g, q))
    return exact + powers, len(exact)


def found_by(cpu, name, path):
    """What a function of this file gives, first of all results, in a process whose kernels are of a lesser CPU."""
    if cpu not in levels():
        pytest.skip(f"this CPU is none that could be switched down to {cpu}")
    text = f"import sys; sys.path[:] = {sys.path!r}; import numpy as np; "
    text += f"import runpy; work = runpy.run_path({__file__!r})[{name!r}]; "
    text += f"np.savez({str(path)!r}, *work()[0])"
    done = subprocess.run(
        [sys.executable, "-c", text], env=os.environ | {"DUOGRAD_CPU": cpu}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.load(path)


def in_16_bits():
    """Products of 16-bit floats, with work on their results; rows and columns that are neighbours, and that are not."""
    rng = np.random.default_rng(0)
    a, b, many = (rng.standard_normal(s).astype(np.float32) for s in ((37, 70), (70, 53), (70, 200)))
    a[3, 4:7], b[5, 6] = (np.inf, 1e-40, 6e-8), np.nan

    @dg.function
    def step(t, a, b, many):
        a, b, many = a.to(t), b.to(t), many.to(t)
        made = [
            dg.relu(p @ q + 1)
            for p, q in ((a, b), (a, many), (many.T, a.T), (b.T, many[:, 3:]), (b[::2].T, b[1::2]))
        ]
        return tuple(y.to(dg.float32) for y in made)

    arrays = [dg.tensor(x) for x in (a, b, many)]
    return [y.numpy() for t in (dg.float16, dg.bfloat16) for y in step(t, *arrays)], 0


def test_products_of_16_bits_have_the_same_bits_without_masked_memory(tmp_path):
    with found_by("x86-64-v3", "in_16_bits", tmp_path / "found.npz") as found:
        for theirs, ours in zip(found.values(), in_16_bits()[0], strict=True):
            np.testing.assert_array_equal(theirs, ours)


def in_windows():
    """Gradients of maxima of windows that overlap and that do not, in lines of one vector and of more."""
    rng, found = np.random.default_rng(0), []
    for shape, window, stride, padding in itertools.product(
        ((2, 3, 9, 11), (1, 5, 20, 67)), (2, 3), (1, 2, 3), (0, 1)
    ):
        x = np.round(rng.standard_normal(shape).astype(np.float32) * 2)
        x[rng.random(shape) < 0.05] = np.nan
        x[rng.random(shape) < 0.2] = -np.inf
        options = {"window": window, "stride": stride, "padding": padding}
        for dtype in (dg.float32, dg.float64):
            y, back = dg.vjp(functools.partial(dg.max_pool, **options), dg.tensor(x).to(dtype))
            found.append(back(dg.tensor(rng.standard_normal(y.shape)).to(dtype))[0].numpy())
    return found, 0


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v2"])
def test_gradients_of_maxima_have_the_same_bits_on_lesser_cpus(cpu, tmp_path):
    with found_by(cpu, "in_windows", tmp_path / "found.npz") as found:
        for theirs, ours in zip(found.values(), in_windows()[0], strict=True):
            np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v2"])
def test_kernels_for_lesser_cpus_give_the_same(cpu, tmp_path):
    with found_by(cpu, "work", tmp_path / "found.npz") as found:
        results, exact = work()
        for k, (theirs, ours) in enumerate(zip(found.values(), results, strict=True)):
            if cpu != "x86-64-v3":  # without fma, products are rounded before they are added
                np.testing.assert_allclose(theirs, ours, 2e-5, 2e-5)
            elif k < exact:
                np.testing.assert_array_equal(theirs, ours)
            else:  # each way has its own exponentials, of one unit in the last place
                np.testing.assert_allclose(theirs, ours, 3e-6, 3e-6)


SIDE_BY_SIDE = """
import duograd as dg, numpy as np
chain = lambda x: dg.gelu(1.5 * x + 0.5) * dg.sigmoid(x)
graph, short = dg.function(chain), dg.function(lambda x: dg.exp(x) + 1)
mixed = lambda x: dg.tanh(x) * dg.gelu(x) + dg.erf(x) - dg.log1p(dg.abs(x))
both = dg.function(mixed)
for n in (1, 8, 16, 63, 64, 65, 130, 200, 1000, 5003):
    x = dg.tensor(np.random.default_rng(n).standard_normal((3, n)).astype(np.float32) * 4)
    for t in (x, x[1], x[:, 1:], x.T, x[:, ::-1]):
        assert np.array_equal(graph(t).numpy(), chain(t).numpy()), n
        assert np.array_equal(both(t).numpy(), mixed(t).numpy()), n
        assert np.array_equal(short(t).numpy(), (dg.exp(t) + 1).numpy()), n
    row = dg.function(lambda t, u: (chain(t) * u, dg.exp(u) + t * 0, chain(t).broadcast_to(u.shape)))
    many = row(x[:, :1], x)
    t = x[:, :1]
    for found, want in zip(many, (chain(t) * x, dg.exp(x) + t * 0, chain(t).broadcast_to(x.shape))):
        assert np.array_equal(found.numpy(), want.numpy()), n
    single = [chain(x[0, k : k + 1]).item() for k in range(min(n, 70))]
    assert single == graph(x).numpy()[0, :70].tolist(), n
assert "w_four()" in graph.source() and "w_pair()" in short.source() and "w_pair()" in both.source()
"""


def test_chains_side_by_side_give_the_bits_of_single_ops_with_avx2():
    if "x86-64-v3" not in levels() and not target.LEVELS["x86-64-v3"] <= target.target().has:
        pytest.skip("this CPU has no AVX2: its code cannot run here")
    env = os.environ | {"DUOGRAD_CPU": "x86-64-v3"}
    text = f"import sys; sys.path[:] = {sys.path!r}\n{SIDE_BY_SIDE}"
    done = subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_cpu_that_is_unknown_is_an_error_that_lists_the_known():
    env = os.environ | {"DUOGRAD_CPU": "z80"}
    text = "import duograd as dg; dg.ones(3) + 1"
    done = subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, text=True)
    assert "[DUOGRAD_CPU] 'z80' is no CPU that runs here" in done.stderr
    assert "use native" in done.stderr


@pytest.mark.parametrize("cpu", [*map(target.level, LEVELS), NEON], ids=[*LEVELS, "neon"])
def test_register_blocks_fit_the_registers(cpu):
    with target.compiling_for(cpu):
        tiles = [make(t) for t in (T.float32, T.float64)
                 for make in (panels.block, panels.product_block, conv_pixels.pixel_block, tile_of)]  # fmt: skip
    for tile in tiles:
        assert tile.rows * tile.vectors + tile.vectors < cpu.registers
        assert tile.lanes in (cpu.vector_bits // 32, cpu.vector_bits // 64)
    assert tiles[0].rows * tile.vectors >= 8


@pytest.mark.parametrize(
    "cpu", [target.level("x86-64-v3"), target.level("x86-64-v4")], ids=["avx2", "avx512"]
)
def test_blocks_of_products_and_attention_divide_common_widths(cpu):
    with target.compiling_for(cpu):
        assert 128 % panels.product_block(T.float32).width == 0
        assert 32 % tile_of(T.float32).width == 0  # columns of a head


@pytest.mark.parametrize(
    "cpu", [target.level("x86-64-v3"), target.level("x86-64-v4")], ids=["avx2", "avx512"]
)
def test_sums_of_register_blocks_stay_in_registers(cpu):
    """No turn of an inner loop stores a vector: LLVM may move all loads of a block to its beginning."""
    if not target.has("sse4.2"):
        pytest.skip("assembly of x86, compiled on x86")
    with target.compiling_for(cpu):
        usual, pixels = panels.block(T.float32), conv_pixels.pixel_block(T.float32)
        for name, tile in (("multiply", usual), ("multiply_later", usual), ("multiply_pixels", pixels)):
            numbers = ", ".join(f"args[{k}]" for k in range(ARGUMENTS[name]))
            source = f"{panels.IMPORT}def kernel(args, chunk, nchunks):\n    {name}_f32({numbers}, "
            source += f"{tile.rows}, {tile.vectors}, {tile.lanes})\n"
            text = compiling.compile_assembly(source)
            loops = re.findall(r"^(\.LBB\d+_\d+):\n((?:[^.].*\n)*?)\tj\w+\t\1\n", text, re.MULTILINE)
            inner = [body for _, body in loops if body.count("vfmadd") == tile.rows * tile.vectors]
            assert inner
            for body in inner:
                assert not re.search(r"vmov[au]ps\t%[yz]mm\d+, ", body), body


def kernels():
    """Sources of a product, two convolutions, a loop and a reduction."""
    backend = get_backend("cpu")
    program = Program(backend)

    def operand(*shape):
        return Operand(program.dynamic(), 0, T.float32, shape, contiguous_strides(shape))

    backend.primitive("matmul")(program, [operand(40, 50), operand(50, 60)], [operand(40, 60)])
    for half in (T.float16, T.bfloat16):
        row = [x._replace(dtype=half) for x in (operand(40, 50), operand(50, 60), operand(40, 60))]
        backend.primitive("matmul")(program, row[:2], row[2:])
    settings = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    for filters in (24, 256):  # of few filters the panels are packed, of more the windows
        backend.primitive("conv")(
            program,
            [operand(1, 16, 9, 9), operand(filters, 16, 3, 3)],
            [operand(1, filters, 9, 9)],
            **settings,
        )
    x = Expr("arg", T.float32, (), 0)
    lower_map(program, (99,), [operand(99)], [call("erf", call("exp", x))], [operand(99)])
    top = Expr("reduce", T.float32, (x,), "max")
    total = Expr("reduce", T.float32, (call("exp", call("sub", x, top)),), "sum")
    lower_reduce(program, (9, 99), (1,), [operand(9, 99)], [total], [operand(9, 1)])
    return [*dict.fromkeys(launch.source for launch in program.launches)]


def test_kernels_are_emitted_for_arm():
    with target.compiling_for(NEON):
        assert (panels.block(T.float32).rows, panels.block(T.float32).width) == (8, 12)
        texts = kernels()
        assert len(texts) == 10
        assembly = "\n".join(map(compiling.compile_assembly, texts))
        code = compiling.compile_object(texts[0])
    assert code[:4] == b"\x7fELF"
    assert code[18] == 183  # e_machine: AArch64
    assert assembly.count("fmla") > 24
    assert not any(register in assembly for register in ("%xmm", "%ymm", "%zmm"))


def test_the_products_of_arms_blocks_are_those_of_this_cpus(monkeypatch):
    rng = np.random.default_rng(0)
    x, w = (dg.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((2, 6, 15, 15), (13, 6, 3, 3)))
    # As deep as the shallowest block: deeper sums are cut where a block's depth ends.
    a, b = (dg.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((29, 128), (128, 31)))

    def results():
        products = dg.function(lambda a, b, x, w: (a @ b, dg.conv(x, w, stride=(2, 2))))
        return products(a, b, x, w)

    own = results()
    monkeypatch.setattr(panels, "vectors", lambda: (128, 32))
    for theirs, ours in zip(results(), own):
        np.testing.assert_array_equal(theirs.numpy(), ours.numpy())
