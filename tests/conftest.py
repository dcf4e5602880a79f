"""Fixtures of all tests: one seed, one tolerance table."""

import gc

import duograd as dg
import numpy as np
import pytest
from _pytest.runner import runtestprotocol

#: relative and absolute tolerance against another implementation, by dtype: a few roundings of sums
TOLERANCE = {
    "float16": (1e-3, 2e-5), "bfloat16": (8e-3, 1e-4), "float32": (2e-5, 2e-6), "float64": (1e-11, 1e-12),
    "complex64": (2e-5, 2e-6), "complex128": (1e-11, 1e-12),
}  # fmt: skip


def pytest_collection(session):
    """While tests are collected, half a million objects would be looked at time and again to find no garbage."""
    gc.disable()


def pytest_collection_finish(session):
    # Looking through all objects, more than a million, takes seconds and would be done every three hundred tests.
    gc.set_threshold(*gc.get_threshold()[:2], 1000)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """A process of pytest-xdist's reports a test's setup and teardown only where they do not pass.

    A report to the process that prints costs as much as a small test, and says nothing there but how long that took.
    """
    if not hasattr(item.config, "workerinput"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same seeds."""
    np.random.seed(0)
    dg.manual_seed(0)


@pytest.fixture
def own_garbage():
    """Collections look at what the test makes: the million objects of all tests would take them a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def close():
    """Assert that arrays agree: equal shape and dtype, values within the table (exact for integers)."""

    def check(actual, expected, scale=1.0):
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        if actual.dtype.name in TOLERANCE:
            rtol, atol = TOLERANCE[actual.dtype.name]
            if actual.dtype.itemsize == 2:
                actual, expected = actual.astype(np.float32), expected.astype(np.float32)
            np.testing.assert_allclose(actual, expected, rtol * scale, atol * scale)
        else:
            np.testing.assert_array_equal(actual, expected)

    return check


@pytest.fixture
def run_kernel():
    """Run a hand-written kernel of the CPU backend: `run_kernel(op, arrays, [(shape, dtype), ...], **attrs)`.

    chunks: how many chunks every launch is cut into (the backend's choice when None). epilogue: (roots,
    inputs, dtype of the plain result); inputs are arrays or (number, dtype); not `fused`: the same roots are
    computed by a launch of their own. Returns the outputs, which start as garbage; so does the scratch area.
    """
    import duograd.backends  # noqa: F401
    from duograd.core.backend import Epilogue, Operand, Program, Scalar, get_backend, scalar_bits
    from duograd.core.lower import lower_map
    from duograd.core.types import as_dtype, contiguous_strides

    backend = get_backend("cpu")

    def run(op, arrays, outputs, chunks=None, epilogue=None, fused=True, **attrs):
        program, values = Program(backend), {}
        if chunks is not None:
            program.chunks = lambda items, work: max(1, min(items, chunks))

        def operand(x):
            source = program.dynamic()
            if isinstance(x, tuple):
                values[source] = scalar_bits(*x)
                return Scalar(source, x[1])
            values[source] = x.ctypes.data
            return Operand(source, 0, as_dtype(x.dtype), x.shape, tuple(st // x.itemsize for st in x.strides))

        outs = [np.full(shape, 77, dtype) for shape, dtype in outputs]
        ins, targets = [operand(x) for x in arrays], [operand(x) for x in outs]
        if epilogue is not None:
            roots, more, dtype = epilogue
            work = Epilogue(tuple(roots), tuple(operand(x) for x in more), tuple(targets))
            dtype, shape = as_dtype(dtype), outputs[0][0]
            if fused:
                attrs["epilogue"] = work
                targets = [Operand(-1, 0, dtype, shape, contiguous_strides(shape))]
            else:
                targets = [program.scratch_operand(dtype, shape)]
        backend.primitive(op)(program, ins, targets, **attrs)
        if epilogue is not None and not fused:
            program.wave()
            lower_map(program, shape, [*targets, *work.inputs], work.roots, work.outputs)
        scratch = np.full(program.scratch_bytes + 64, 0xAB, np.uint8)
        if program.scratch_source >= 0:
            values[program.scratch_source] = -(-scratch.ctypes.data // 64) * 64
        if program.launches:
            backend.load(program).run([values[k] for k in range(program.n_dynamic)])
        return outs

    return run


#: bits of a vector register and how many there are
VECTORS = {"native": None, "avx2": (256, 16), "sse": (128, 16)}


@pytest.fixture(params=VECTORS.values(), ids=VECTORS)
def vector_bits(request, monkeypatch):
    """The register blocks of this CPU and of narrower ones (which this CPU runs too)."""
    from duograd.backends.cpu import panels

    if request.param:
        monkeypatch.setattr(panels, "vectors", lambda: request.param)
    return request.param[0] if request.param else 0


@pytest.fixture(scope="session")
def kernel_folder(tmp_path_factory):
    """A cache of kernels for tests of the cache itself and of fresh interpreters."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def cache_folder(kernel_folder):
    """That cache for all tests of a file, so that subprocesses find what the first test has compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOGRAD_CACHE_DIR", str(kernel_folder))
        yield kernel_folder
