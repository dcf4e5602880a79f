"""Fixtures of all tests: one seed, one tolerance table."""

import numpy as np
import pytest

import duograd as dg

#: relative and absolute tolerance against another implementation, by dtype: a few roundings of sums
TOLERANCE = {"float32": (2e-5, 2e-6), "float64": (1e-11, 1e-12)}


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same seeds."""
    np.random.seed(0)
    dg.manual_seed(0)


@pytest.fixture
def close():
    """Assert that arrays agree: equal shape and dtype, values within the table (exact for integers)."""

    def check(actual, expected, scale=1.0):
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        if actual.dtype.name in TOLERANCE:
            rtol, atol = TOLERANCE[actual.dtype.name]
            np.testing.assert_allclose(actual, expected, rtol * scale, atol * scale)
        else:
            np.testing.assert_array_equal(actual, expected)

    return check
