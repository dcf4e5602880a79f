"""CUDA loop kernels over awkward operands, in the emulation and on a GPU that is there; their text as snapshots.

Strides, broadcasts, offsets, outputs over inputs, numbers and indices, more elements than a grid has threads.
A changed snapshot is written by `UPDATE_SNAPSHOTS=1 pytest tests/test_cuda_loops.py`; review it like code.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from duograd.backends.cuda import emulate
from duograd.backends.cuda.device import CudaBackend
from duograd.core import types as T
from duograd.core.errors import KernelError
from duograd.core.loops import Input, LoopKernel, Output
from duograd.core.lower import lower_map, lower_reduce
from duograd.core.scalar import Expr, cast, index, s
from duograd.tests.device_programs import MACHINES, machines
from duograd.tests.device_programs import run as run_program

SNAPSHOTS = Path(__file__).parent / "snapshots"
X, Y, Z = (Expr("arg", T.float32, (), k) for k in range(3))


@pytest.fixture(scope="module", params=MACHINES)
def run(request):
    """Run a program on every machine of a kind; orders of threads and sizes of grid must not change a bit."""
    backends = machines(request.param)

    def everywhere(*args, **options):
        results = [run_program(backend, *args, **options) for backend in backends]
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert a.tobytes() == b.tobytes()
        return results[0]

    return everywhere


def _normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


VIEWS = {
    "transposed": _normal(6, 8).T, "backwards": _normal(40)[::-3], "offset": _normal(5, 6)[::-1, 1:],
    "permuted": _normal(2, 3, 4).transpose(2, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_a_map_reads_and_writes_any_strides(view, run):
    x = VIEWS[view]
    out = np.zeros((*x.shape, 2), np.float32)[..., 1]
    bias = _normal(x.shape[-1])

    def build(program, inputs, outputs):
        lower_map(program, x.shape, inputs, [X * Y + 2.0], outputs)

    (got,) = run(build, [x, bias], [out])
    np.testing.assert_array_equal(got, x * bias + np.float32(2))


def test_a_map_larger_than_its_grid_strides_over_it(run):
    """One block of 256 threads, four elements each, does 5,000 elements in turns."""
    x, y = _normal(5000), _normal(1)

    def build(program, inputs, outputs):
        lower_map(program, (5000,), inputs, [X + Y], outputs)

    (got,) = run(build, [x, np.broadcast_to(y, 5000)], [np.zeros(5000, np.float32)])
    np.testing.assert_array_equal(got, x + y)


def test_a_map_may_write_over_its_input(run):
    x, y = _normal(3, 700), _normal(700)

    def build(program, inputs, outputs):
        lower_map(program, x.shape, inputs, [X - Y, X * Y], outputs)

    first, second = run(build, [x, y], [x, np.zeros_like(x)], alias={0: 0})
    np.testing.assert_array_equal(first, x - y)
    np.testing.assert_array_equal(second, x * y)


def test_numbers_and_the_index_are_inputs(run):
    count, scale, big = (7, T.int32), (0.1, T.float32), (2**63 + 5, T.uint64)
    i = index()
    roots = [
        cast(i, T.int32) * Expr("arg", T.int32, (), 0), cast(i, T.float32) * Expr("arg", T.float32, (), 1),
        Expr("arg", T.uint64, (), 2) + cast(i, T.uint64),
    ]  # fmt: skip

    def build(program, inputs, outputs):
        lower_map(program, (4, 5), inputs, roots, outputs)

    outputs = [np.zeros((4, 5), root.dtype.np) for root in roots]
    outputs[0] = np.zeros((5, 4), np.int32).T
    n = np.arange(20).reshape(4, 5)
    a, b, c = run(build, [count, scale, big], outputs)
    np.testing.assert_array_equal(a, n * 7)
    np.testing.assert_array_equal(b, n.astype(np.float32) * np.float32(0.1))
    np.testing.assert_array_equal(c, n.astype(np.uint64) + np.uint64(2**63 + 5))


def _softmax():
    e = s.exp(X - Expr("reduce", T.float32, (X,), "max"))
    return [e / Expr("reduce", T.float32, (e,), "sum")]


@pytest.mark.parametrize(("shape", "axes"), [((9, 30), (1,)), ((3, 1500), (1,)), ((4, 30, 5), (1,))])
def test_a_row_may_be_written_over_its_input(shape, axes, run):
    x = _normal(*shape)

    def build(program, inputs, outputs):
        lower_reduce(program, shape, axes, inputs, _softmax(), outputs)

    (got,) = run(build, [x], [x], alias={0: 0})
    wide = np.exp(x.astype(np.float64) - x.max(axes, keepdims=True))
    np.testing.assert_allclose(got, wide / wide.sum(axes, keepdims=True), rtol=2e-6)


@pytest.mark.parametrize("shape", [(5, 2000), (5, 40)])
def test_a_row_result_may_be_written_over_a_row_input(shape, run):
    """All threads of a row have read its input before the first one stores."""
    x, y = _normal(*shape), _normal(5, 1)

    def build(program, inputs, outputs):
        root = Expr("reduce", T.float32, (X * Y,), "max") + Y
        lower_reduce(program, x.shape, (1,), inputs, [root], outputs)

    (got,) = run(build, [x, y], [y], alias={0: 1})
    np.testing.assert_array_equal(got, (x * y).max(1, keepdims=True) + y)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_reductions_of_strided_operands(axes, run):
    x = _normal(7, 6, 5, 2)[::-1, :, ::2, 1].transpose(2, 0, 1)
    w = _normal(x.shape[-1])
    keep = tuple(1 if a in axes else n for a, n in enumerate(x.shape))

    def build(program, inputs, outputs):
        lower_reduce(program, x.shape, axes, inputs, [Expr("reduce", T.float32, (X * Y,), "min")], outputs)

    (got,) = run(build, [x, w], [np.zeros((*keep, 3), np.float32)[..., 2]])
    np.testing.assert_array_equal(got, (x * w).min(axes, keepdims=True))


def test_the_index_inside_a_reduction_counts_the_whole_domain(run):
    """Also where the reduced axis is cut into blocks."""
    for shape, axes in (((3, 50), (1,)), ((50, 3), (0,)), ((70_000,), (0,))):
        keep = tuple(1 if a in axes else n for a, n in enumerate(shape))

        def build(program, inputs, outputs, shape=shape, axes=axes):
            root = Expr("reduce", T.int64, (index() * Expr("arg", T.int64, (), 0),), "sum")
            lower_reduce(program, shape, axes, inputs, [root], outputs)

        x = np.random.default_rng(0).integers(-5, 5, shape)
        (got,) = run(build, [x], [np.zeros(keep, np.int64)])
        want = (np.arange(x.size).reshape(shape) * x).sum(axes, keepdims=True)
        np.testing.assert_array_equal(got, want)


def test_two_nodes_of_one_argument_are_loaded_once(run):
    x = _normal(40)
    again = Expr("arg", T.float32, (), 0)

    def build(program, inputs, outputs):
        lower_map(program, (40,), inputs, [X * again], outputs)
        assert program.launches[0].source.count("const f32 x0 = ") == 1

    (got,) = run(build, [x], [np.zeros_like(x)])
    np.testing.assert_array_equal(got, x * x)


def test_what_cannot_stand_in_a_loop_is_an_error():
    x = Expr("arg", T.bool_, (), 0)
    kernel = LoopKernel("map", 0, 0, (Input(T.bool_),), (s.floordiv(x, x),), (Output(T.bool_),))
    with pytest.raises(KernelError, match="floordiv of bool cannot stand in a CUDA loop"):
        CudaBackend(emulate.EmulatedDriver(), "emulated").emit_loop(kernel)


# ---------------------------------------------------------------- snapshots


def _gelu_chain():
    x = X * Y + Z
    body = x * 0.5 * (1 + s.erf(x * 0.7071067811865476))
    inputs = (Input(T.float32), Input(T.float32), Input(T.float32, "scalar", "b", True))
    return LoopKernel("map", 0, 0, inputs, (body,), (Output(T.float32),), notes=("gelu at train.py:12",))


def _bias():
    inputs = (Input(T.float32), Input(T.float32, "buffer", "b"), Input(T.bool_, "buffer", "s"))
    mask = Expr("arg", T.bool_, (), 2)
    return LoopKernel("map", 2, 0, inputs, (s.where(mask, X + Y, 0.0),), (Output(T.float32),))


def _layer_norm():
    centred = X - Expr("reduce", T.float32, (X,), "sum") * Y
    scale = 1 / s.sqrt(Expr("reduce", T.float32, (centred * centred,), "sum") * Y + 1e-5)
    inputs = (Input(T.float32), Input(T.float32, "scalar", "b", True), Input(T.float32))
    outputs = (Output(T.float32), Output(T.float32, "b", True))
    roots, notes = (centred * scale * Z, scale), ("layer_norm at train.py:14",)
    return LoopKernel("row", 1, 1, inputs, roots, outputs, notes=notes)


def _argmax_columns():
    root = Expr("reduce", T.int64, (X,), "argmax")
    return LoopKernel("col", 1, 2, (Input(T.float32),), (root,), (Output(T.int64, "c", True),))


def _sum_in_blocks():
    root = Expr("reduce", T.float32, (X * X,), "sum")
    return LoopKernel("row", 1, 1, (Input(T.float32),), (root,), (Output(T.float32, "b", True),), split=True)


@pytest.mark.parametrize("make", [_gelu_chain, _bias, _layer_norm, _argmax_columns, _sum_in_blocks])
def test_generated_source_is_the_reviewed_one(make):
    source, scratch = CudaBackend(emulate.EmulatedDriver(), "emulated").emit_loop(make())
    assert scratch == 0
    file = SNAPSHOTS / f"cuda{make.__name__}.cu"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    assert source == file.read_text()
