"""Which poolings are part of a convolution's kernel (`conv_pool.py`), by the way that it is done. No batch matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Operand, Pooling
from ...core.numbers import is_live
from ...core.types import Shape, float32, float64
from . import conv_direct, conv_wide, conv_winograd
from .conv_axes import Product, chain, product_of
from .conv_pool import TAPS, Pool, make

#: Bytes of a line of windows that a task pools, at most: it then has few panels.
_UNIT_BYTES = 2048


def takes_pooling(
    op: str, inputs: Sequence[Operand], out: Operand, named: dict[str, Any], pooling: Pooling, pooled: Shape
) -> str:
    """Why no kernel of `op` pools its result, which is `out`, into that shape; empty where one does."""
    if op != "conv":
        return f"the kernel of {op} takes no pooling of its result"
    return refusal(inputs, out, named, pooling, pooled)


def refusal(
    inputs: Sequence[Operand], out: Operand, named: dict[str, Any], pooling: Pooling, pooled: Shape
) -> str:
    """The same of a convolution. named: its settings."""
    if inputs[0].size == 0 or out.size == 0:
        return "there is nothing to pool"
    return _of_windows(out, pooling, pooled) or _of_kernel(
        product_of(inputs[0], inputs[1], out, **named), make(out.shape, pooling, out)
    )


def _of_windows(out: Operand, pooling: Pooling, pooled: Shape) -> str:
    """Why windows are none that a task has whole lines of."""
    op, named = pooling
    sizes, window = out.shape[2:], named["window"]
    if out.dtype not in (float32, float64):
        return f"the kernel of conv pools no {out.dtype}"
    if any(map(is_live, (*out.shape[1:], *pooled[1:]))):
        return "the images' sizes change from call to call"
    if len(sizes) > 2:
        return "the kernel of conv pools images of one or two axes"
    if named["stride"] != window or any(map(any, named["padding"])) or set(named["dilation"]) != {1}:
        return "its windows overlap, meet padding or leave elements out"
    if math.prod(window) == 1 or math.prod(window) > TAPS:
        return f"its windows have one element or more than {TAPS}"
    if any(p != n // k for n, p, k in zip(sizes, pooled[2:], window)):
        return "its last windows leave the image"
    if op == "avg_pool" and (named["divisor_override"] is not None or window == sizes):
        return "a mean of the whole image, or with a divisor of its own, is not taken in blocks"
    return ""


def _of_kernel(product: Product, pool: Pool) -> str:
    """Why the kernel that a product is done by does not pool."""
    out, groups = product.out, product.groups
    if conv_direct.applies(groups, out.shape[1] // groups):
        return "the kernel of conv for few channels in a group takes no pooling of its result"
    if conv_winograd.applies(product):
        fits = conv_winograd.LINES % pool.window[0] == 0
        return "" if fits else f"Winograd's tiles of four lines hold no windows of {pool.window[0]}"
    if pool.unit * out.dtype.itemsize > _UNIT_BYTES:
        return "a line of windows is too long for the kernel of conv"
    if product.axes[1].taps > 1 and not pool.pairs and conv_wide.applies(product, chain(product)):
        return "the kernel of conv that keeps sums in registers pools in windows of 2 x 2 alone"
    return ""
