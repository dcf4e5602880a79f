"""Fractional max pooling against PyTorch's, from the same random numbers."""

from __future__ import annotations

import duograd as dg
import duograd.nn.functional as F
import numpy as np
import pytest
import torch

RNG = np.random.default_rng(2)


@pytest.mark.parametrize(
    ("shape", "window", "size"), [((2, 3, 7, 9), (2, 3), (4, 5)), ((1, 2, 5, 6, 7), 2, (3, 1, 4))]
)
def test_pooling_equals_torch(shape, window, size):
    n = len(shape) - 2
    x, u = RNG.normal(size=shape).astype(np.float32), RNG.random((*shape[:2], n)).astype(np.float32)
    a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ours = getattr(F, f"fractional_max_pool{n}d")
    theirs = getattr(torch.nn.functional, f"fractional_max_pool{n}d")
    y, index = ours(a, window, size, return_indices=True, _random_samples=dg.tensor(u))
    z, places = theirs(b, window, size, return_indices=True, _random_samples=torch.tensor(u))
    np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
    np.testing.assert_array_equal(index.numpy(), places.numpy())
    (y * y).sum().backward()
    (z * z).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-6)


def test_modules_draw_and_refuse():
    pool = dg.nn.FractionalMaxPool2d(2, output_ratio=0.5)
    assert pool(dg.ones((3, 8, 6))).shape == (3, 4, 3)
    with pytest.raises(
        ValueError, match=r"\[fractional_max_pool2d\] takes one of output_size and output_ratio"
    ):
        F.fractional_max_pool2d(dg.ones((1, 4, 4)), 2)
