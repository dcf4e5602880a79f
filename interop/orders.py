"""Random orders that are the same in every version of NumPy, on every machine."""

from __future__ import annotations

import numpy as np


def permutation(n: int, seed: int, stream: int) -> np.ndarray:
    """The numbers from 0 to n - 1 in an order given by two integers.

    Sorted by the raw words of Philox4x64-10: unlike NumPy's own shuffling, these never change between
    versions.
    """
    key = np.array([seed & (2**64 - 1), stream & (2**64 - 1)], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
