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
from duograd.core.backend import get_backend
from duograd.core.errors import MissingExtraError
from duograd.tests.device_programs import MACHINES, OpProgram, machines

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


@pytest.fixture(scope="module", params=MACHINES)
def device(request):
    return machines(request.param)[-1]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_kernels_equal_the_cpus(case, device, close):
    name, op, arguments, attrs = case
    for got, want in zip(*(OpProgram(b, op, arguments, attrs).run(b) for b in (device, get_backend("cpu")))):
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
    sources = [x for c in CASES for x in OpProgram(backend, *c[1:]).sources]
    assert "s_widen" in "".join(sources)
    assert all(
        len(cubin.code) if hasattr(cubin, "code") else cubin for cubin in nvrtc.compile_kernels(sources)
    )


def test_no_half_or_complex_reaches_an_expression():
    backend = CudaBackend(emulate.EmulatedDriver(), "emulated")
    for _, op, arguments, attrs in CASES:
        for source in OpProgram(backend, op, arguments, attrs).sources:
            assert "c64" not in source
    assert T.float16.computed is T.float32
