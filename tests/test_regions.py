"""`roi_align`: means of a linear image are its values at the middles of cells; the forms of boxes; misuse."""

from __future__ import annotations

import duograd as dg
import numpy as np
import pytest

BOXES = np.array([[0, 1.0, 1.5, 5.0, 4.5], [1, 2.0, 1.0, 4.0, 5.0]], np.float32)


def _ramp():
    y, x = np.meshgrid(np.arange(8.0), np.arange(9.0), indexing="ij")
    plane = (2 * y + 3 * x).astype(np.float32)
    return dg.tensor(np.stack([plane, plane + 1])[:, None], requires_grad=True)


@pytest.mark.parametrize("ratio", [2, -1])
@pytest.mark.parametrize("aligned", [False, True])
def test_cells_of_a_ramp_are_their_middles(ratio, aligned):
    y = dg.roi_align(_ramp(), dg.tensor(BOXES), (2, 3), 1.0, ratio, aligned)
    shift = 0.5 if aligned else 0.0
    for k, (image, x0, y0, x1, y1) in enumerate(BOXES):
        down = y0 + (np.arange(2) + 0.5) * (y1 - y0) / 2 - shift
        across = x0 + (np.arange(3) + 0.5) * (x1 - x0) / 3 - shift
        np.testing.assert_allclose(
            y[k, 0].detach().numpy(), 2 * down[:, None] + 3 * across + image, rtol=1e-5
        )


def test_boxes_by_image_are_the_same():
    x = _ramp()
    by_image = [dg.tensor(BOXES[k : k + 1, 1:]) for k in (0, 1)]
    y, z = dg.roi_align(x, dg.tensor(BOXES), 2, 0.5, 2), dg.roi_align(x, by_image, 2, 0.5, 2)
    np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
    z.sum().backward()  # the weights of a cell add up to 1
    np.testing.assert_allclose(x.grad.numpy().sum(axis=(1, 2, 3)), 4, rtol=1e-5)


def test_a_region_of_no_size_has_no_samples_and_is_zero():
    x = dg.tensor(np.random.default_rng(0).uniform(1, 2, (1, 2, 5, 4)).astype("float32"))
    rois = dg.tensor(np.array([[2, 2, 2, 2], [3, 3, 1, 1], [0, 0, 3, 3]], np.float32))
    found = dg.roi_align(x, [rois], (2, 2), aligned=True).numpy()
    assert (found[:2] == 0).all()
    assert (found[2] >= 1).all()
    assert (dg.roi_align(x, [rois], (2, 2)).numpy() > 0).all()  # one pixel where corners have no shift


def test_misuse():
    x = _ramp()
    with pytest.raises(ValueError, match=r"\[roi_align\] boxes: float32\[2, 4\] is not float\[R, 5\]"):
        dg.roi_align(x, dg.tensor(BOXES[:, 1:]), 2)
    for boxes, kinds in (([], "no boxes"), ([dg.tensor(BOXES)] * 9, "float32"), ([BOXES[:, 1:]], "ndarray")):
        with pytest.raises(ValueError, match=rf"\[roi_align\] boxes: {kinds}"):
            dg.roi_align(x, boxes, 2)
    with pytest.raises(ValueError, match=r"\[roi_align\] mode='mean'"):
        dg.roi_align(x, dg.tensor(BOXES), 2, mode="mean")
