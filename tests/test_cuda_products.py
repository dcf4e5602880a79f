"""Matrix products of the CUDA backend, in the emulation and on a GPU that is there."""

import numpy as np
import pytest
from duograd.backends.cuda.products import matmul
from duograd.tests.device_programs import MACHINES, machines
from duograd.tests.device_programs import run as run_program


@pytest.fixture(scope="module", params=MACHINES)
def run(request):
    """The product on every machine of a kind; orders of threads and sizes of grid must not change a bit."""
    backends = machines(request.param)

    def everywhere(a, b, dtype=None):
        shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        ins = [np.broadcast_to(x, (*shape, *x.shape[-2:])) for x in (a, b)]
        out = np.zeros((*shape, a.shape[-2], b.shape[-1]), dtype or a.dtype)
        results = [run_program(backend, matmul, ins, [out])[0] for backend in backends]
        for other in results[1:]:
            assert other.tobytes() == results[0].tobytes()
        return results[0]

    return everywhere


def _normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


CASES = {
    "one_tile": (_normal(64, 16), _normal(16, 64)),
    "edges": (_normal(67, 19), _normal(19, 5)),
    "row": (_normal(1, 33), _normal(33, 70)),
    "transposed": (_normal(20, 66).T, _normal(9, 20).T),
    "batch": (_normal(2, 3, 5, 7), _normal(3, 7, 4)),
    "backwards": (_normal(6, 8)[::-1, ::2], _normal(8, 3)[::-2]),
    "pieces": (_normal(3, 1500), _normal(1500, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_numpy(case, run):
    a, b = CASES[case]
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(run(a, b), exact, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(run(a.astype(np.float64), b.astype(np.float64)), exact, rtol=1e-12, atol=1e-12)


def test_integers_wrap_and_small_ones_are_converted(run):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-100, 100, (5, 40), np.int8), rng.integers(-100, 100, (40, 6), np.int8)
    np.testing.assert_array_equal(run(a, b), a @ b)
    np.testing.assert_array_equal(
        run(a, b.astype(np.int32), np.int32), a.astype(np.int32) @ b.astype(np.int32)
    )


def test_sums_of_nothing_are_zero_and_nan_stays_where_it_is(run):
    np.testing.assert_array_equal(
        run(np.zeros((3, 0), np.float32), np.zeros((0, 2), np.float32)), np.zeros((3, 2))
    )
    a = np.ones((3, 17), np.float32)
    a[1, 16] = np.nan
    assert np.isnan(run(a, np.ones((17, 2), np.float32))).tolist() == [[False] * 2, [True] * 2, [False] * 2]
