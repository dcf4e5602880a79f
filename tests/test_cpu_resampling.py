"""Weighted picks along the last axis: on wide values and one by one, each sum in the order of its taps."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("taps", [1, 2, 4, 16, 17])
@pytest.mark.parametrize(("lines", "size", "results"), [(1, 5, 3), (70, 20, 16), (33, 9, 50), (2, 300, 17)])
def test_picks_along_the_last_axis_add_up_in_order(run_kernel, dtype, taps, lines, size, results):
    rng = np.random.default_rng(4)
    x, weight = (rng.standard_normal(s).astype(dtype) for s in ((lines, size), (results, taps)))
    x[0, 0], weight[0, 0] = -0.0, np.inf
    index = rng.integers(-2, size + 2, (results, taps))  # a place outside counts as the nearest
    want = np.zeros((lines, results), dtype)
    with np.errstate(invalid="ignore"):
        for t in range(taps):
            want += weight[:, t] * x[:, index[:, t].clip(0, size - 1)]
    for chunks in (1, 3):
        out = run_kernel("resample", [x, index, weight], [(want.shape, x.dtype)], chunks=chunks, axis=1)[0]
        np.testing.assert_array_equal(out, want)
