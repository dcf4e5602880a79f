"""Windows that move over one, two or three spatial axes: their settings, sizes and NumPy views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import ArgumentError, DuogradError, ShapeError

Pair = tuple[int, int]
Row = tuple[int, ...]
Pads = tuple[Pair, ...]


def spatial(op: str, x: Any) -> int:
    """How many spatial axes x[N, C, ...] has. Raises ShapeError unless 1 to 3."""
    n = len(x.shape) - 2
    if not 1 <= n <= 3:
        raise ShapeError(
            op, f"takes x[N, C, ...] with 1 to 3 spatial axes, got shape {list(x.shape)}", "add or merge axes"
        )
    return n


def row(op: str, name: str, value: Any, n: int, low: int = 1) -> Row:
    """One int for each of n axes, from an int or n of them. Raises ArgumentError below `low`."""
    out = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    if len(out) == 1:
        out *= n
    if len(out) != n or not all(isinstance(v, (int, np.integer)) and v >= low for v in out):
        kind = "an int" if n == 1 else f"an int or {n} ints"
        raise ArgumentError(op, f"{name}={value} is not {kind} from {low}", f"pass {kind}")
    return tuple(int(v) for v in out)


def pads(op: str, padding: Any, n: int) -> Pads:
    """(before, after) for each of n axes, from an int, n ints or n pairs."""
    each = padding if isinstance(padding, (tuple, list)) else (padding,) * n
    each = list(each) * n if len(each) == 1 else each
    out = tuple(tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in each)
    if len(out) != n or any(
        len(p) != 2 or not all(isinstance(v, (int, np.integer)) and v >= 0 for v in p) for p in out
    ):
        raise ArgumentError(
            op,
            f"padding={padding} is not (before, after) from 0 for {n} spatial axes",
            "pass an int or pairs",
        )
    return tuple((int(a), int(b)) for a, b in out)


def conv_pads(op: str, padding: Any, window: Row, stride: Row, dilation: Row) -> Pads:
    """As `pads`; "valid" is 0, "same" (stride 1) keeps the size, the odd element after."""
    if not isinstance(padding, str):
        return pads(op, padding, len(window))
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding != "same":
        raise ArgumentError(op, f"padding={padding!r}", 'use an int, pairs, "valid" or "same"')
    if set(stride) != {1}:
        raise ArgumentError(op, f'padding="same" with stride={stride}', "give the padding in numbers")
    totals = [d * (n - 1) for d, n in zip(dilation, window)]
    return tuple((t // 2, t - t // 2) for t in totals)


def out_size(n: int, window: int, stride: int, pads: Pair, dilation: int, ceil: bool = False) -> int:
    """The number of window positions along one axis.

    ceil: a last window counts that ends outside but begins inside x or the padding before it.
    """
    room = n + pads[0] + pads[1] - dilation * (window - 1) - 1
    if not ceil:
        return room // stride + 1
    out = -(-room // stride) + 1
    return out - 1 if (out - 1) * stride >= n + pads[0] else out


def windows(
    x: np.ndarray, window: Row, stride: Row, padding: Pads, dilation: Row, fill: float, out: Row = ()
) -> np.ndarray:
    """NumPy view of all windows: [N, C, positions ..., taps ...]; `out`: how many positions, when not all."""
    n = len(window)
    span = [d * (k - 1) + 1 for k, d in zip(window, dilation)]
    room = [
        (a, max(b, (p - 1) * s + k - m - a)) if out else (a, b)
        for (a, b), p, s, k, m in zip(padding, out or window, stride, span, x.shape[2:])
    ]
    x = np.pad(x, ((0, 0), (0, 0), *room), constant_values=fill)
    v = np.lib.stride_tricks.sliding_window_view(x, span, axis=tuple(range(2, 2 + n)))
    v = v[(slice(None),) * 2 + tuple(slice(None, None, s) for s in stride)]
    v = v[(slice(None),) * (2 + n) + tuple(slice(None, None, d) for d in dilation)]
    return v[(slice(None),) * 2 + tuple(slice(p) for p in out)] if out else v


def onnx_pads(padding: Pads) -> list[int]:
    """Padding in ONNX's order: all befores, then all afters."""
    return [before for before, _ in padding] + [after for _, after in padding]


@contextmanager
def speaking_as(op: str) -> Iterator[None]:
    """Errors of the ops within name `op`, the function that the user called."""
    try:
        yield
    except DuogradError as e:
        raise type(e)(op, e.message, e.fix, e.line) from None
