"""CUDA kernels on 16-bit floats and complex numbers: compiled by NVRTC; equal to the CPU's in the emulation, and
on a GPU that is there.

Emulated kernels are checked for their logic; nothing here is proven before it ran on a GPU.
"""

import duograd.backends  # noqa: F401
import ml_dtypes
import numpy as np
import pytest
from duograd.backends.cuda import emulate, nvrtc
from duograd.backends.cuda.device import CudaBackend
from duograd.core import types as T
from duograd.core.backend import Program, Scalar, get_backend, scalar_words
from duograd.core.errors import MissingExtraError
from duograd.core.op import REGISTRY
from duograd.core.op_lower import lower_op
from duograd.core.types import DTYPES, TensorType
from duograd.tests.device_programs import MACHINES, Place, execute, machines, operand

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def every(dtype):
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def normal(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def wide_values(dtype=np.float64):
    """Numbers near the halfway points of 16-bit floats, and random bits."""
    with np.errstate(all="ignore"):
        x = every(np.float16).astype(np.float64)
        middle = (x[:-1] + x[1:]) / 2
        bits = np.random.default_rng(1).integers(0, 2**63, 20000).view(np.float64)
        numbers = np.concatenate([middle, np.nextafter(middle, np.inf), bits, bits.astype(np.float32)])
        return numbers.astype(dtype)


def cases():
    """Name, op, arguments (arrays and numbers), attributes."""
    for name, half in HALVES.items():
        a, b = normal((5, 70), half), normal((70,), half, 1)
        yield f"add-{name}", "add", (a, b), {}
        yield f"number-{name}", "multiply", (a, 0.1), {}
        yield f"gelu-{name}", "gelu", (a,), {}
        yield f"sum-{name}", "sum", (a,), {"axis": 1}
        yield f"columns-{name}", "sum", (a,), {"axis": 0}
        yield f"max-{name}", "max", (a,), {"axis": 1}
        yield f"widen-{name}", "cast", (every(half),), {"dtype": "float32"}
        yield f"narrow-{name}", "cast", (wide_values(),), {"dtype": name}
        yield f"narrow32-{name}", "cast", (wide_values(np.float32),), {"dtype": name}
    for dtype in ("complex64", "complex128"):
        z, w = normal((5, 40), dtype), normal((40,), dtype, 1)
        yield f"multiply-{dtype}", "multiply", (z, w), {}
        yield f"divide-{dtype}", "divide", (z, w), {}
        yield f"number-{dtype}", "add", (z, 1 - 2j), {}
        yield f"abs-{dtype}", "abs", (z,), {}
        yield f"sum-{dtype}", "sum", (z,), {"axis": 1}
        yield f"exp-{dtype}", "exp", (z,), {}
        yield f"copy-{dtype}", "assign", (z,), {}
        yield f"prod-{dtype}", "prod", (z[:, :5],), {"axis": 1}


CASES = list(cases())


def build(backend, op, arguments, attrs):
    """The program, its results as empty arrays, and its inputs: arrays, and the words of numbers."""
    op = REGISTRY[op]
    types = [TensorType(DTYPES[a.dtype.name], a.shape) if isinstance(a, np.ndarray) else a for a in arguments]
    _, bound = op.bind(tuple(_Typed(t) if isinstance(t, TensorType) else t for t in types), dict(attrs))
    outs = [np.zeros(t.shape, t.dtype.np) for t in op.infer(types, bound)]
    program, given, operands = Program(backend), [], []
    numbers = [t.dtype if isinstance(t, TensorType) else type(t) for t in types]
    dtypes = op.form(numbers, bound).arg_dtypes if op.kind == "pointwise" else [None] * len(types)
    for a, dtype in zip(arguments, dtypes):
        if isinstance(a, np.ndarray):
            given.append(np.ascontiguousarray(a))
            operands.append(operand(program, given[-1]))
        else:
            given.append(scalar_words(a, dtype))
            first, *_ = [program.dynamic() for _ in given[-1]]
            operands.append(Scalar(first, dtype))
    lower_op(program, op, operands, [operand(program, out) for out in outs], bound)
    return program, outs, given


class _Typed:
    """Stands for a tensor where attributes are bound."""

    def __init__(self, type):
        self.type, self.shape, self.dtype = type, type.shape, type.dtype


def run(backend, op, arguments, attrs):
    program, outs, given = build(backend, op, arguments, attrs)
    places = [Place(backend, a) if isinstance(a, np.ndarray) else a for a in given]
    results = [Place(backend, out, filled=False) for out in outs]
    values = []
    for place in (*places, *results):
        values += [place.address] if isinstance(place, Place) else place
    execute(backend, program, values)
    return [place.fetch() for place in results]


@pytest.fixture(scope="module", params=MACHINES)
def device(request):
    return machines(request.param)[-1]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_kernels_equal_the_cpus(case, device, close):
    name, op, arguments, attrs = case
    for got, want in zip(run(device, op, arguments, attrs), run(get_backend("cpu"), op, arguments, attrs)):
        if op in ("cast", "assign", "add", "max", "multiply"):
            wide = np.complex128 if want.dtype.kind == "c" else np.float32
            numbers = ~np.isnan(want.astype(wide))
            assert got[numbers].tobytes() == want[numbers].tobytes(), name
            assert np.isnan(got[~numbers].astype(wide)).all()
        else:
            close(got, want, scale=4)


def test_sources_compile():
    try:
        nvrtc.library()
    except MissingExtraError as error:
        pytest.skip(f"NVRTC is not installed: {error.message}")
    backend = CudaBackend(emulate.EmulatedDriver(), "emulated")
    sources = [x.source for c in CASES for x in build(backend, *c[1:])[0].launches]
    assert "s_widen" in "".join(sources)
    assert all(
        len(cubin.code) if hasattr(cubin, "code") else cubin for cubin in nvrtc.compile_kernels(sources)
    )


def test_no_half_or_complex_reaches_an_expression():
    backend = CudaBackend(emulate.EmulatedDriver(), "emulated")
    for _, op, arguments, attrs in CASES:
        for launch in build(backend, op, arguments, attrs)[0].launches:
            assert "c64" not in launch.source
    assert T.float16.computed is T.float32
