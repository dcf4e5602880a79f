"""Gradients of convolutions, pooling, attention and recurrent layers in other ops, for exporters to formats that
have no such op.

Every function takes what the op of its name takes and gives what it gives. Kernels never run these.
"""

from __future__ import annotations

from typing import Any

from .. import types as T
from . import elementwise as E
from .attention import _by_heads, _gather, _probabilities, _spread
from .convolution import conv, conv_x_grad
from .creation import arange, full
from .linalg import matmul
from .pooling import max_pool_index, put_pixels
from .recurrent import GATES, _before, _step
from .shape import concat, expand_dims, permute, reshape, slice_, split, stack, transpose


def _start(x: Any, sizes: Any) -> Any:
    """The first elements of each spatial axis."""
    return slice_(x, index=(slice(None), slice(None), *(slice(n) for n in sizes)))


# ---------------------------------------------------------------- convolution and pooling


def conv_w_grad(
    dy: Any, x: Any, *, window: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """A convolution of x with dy as its filters: examples are its channels; stride and dilation change places."""
    (n, k), channels, out, size = dy.shape[:2], x.shape[1], dy.shape[2:], x.shape[2:]
    each = channels // groups
    if not dy.size:
        return full((k, each, *window), 0, dtype=dy.dtype, device=dy.device)
    axes = tuple(range(2, x.ndim))
    images = reshape(x, shape=(n, groups, each, *size))
    images = reshape(permute(images, axes=(2, 1, 0, *(a + 1 for a in axes))), shape=(each, groups * n, *size))
    filters = reshape(permute(dy, axes=(1, 0, *axes)), shape=(k, n, *out))
    made = conv(images, filters, stride=dilation, padding=padding, dilation=stride, groups=groups)
    return permute(_start(made, window), axes=(1, 0, *axes))


def max_pool_x_grad(dy: Any, out_: Any, x: Any, **settings: Any) -> Any:
    """Each dy at the place of its maximum."""
    return put_pixels(dy, max_pool_index(x, **settings), size=x.shape[2:], add=True)


def avg_pool_x_grad(
    dy: Any, *, size: Any, window: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Any:  # fmt: skip
    """A transposed convolution of each channel's shares with a window of ones."""
    if not dy.size:
        return full((*dy.shape[:2], *size), 0, dtype=dy.dtype, device=dy.device)
    positions = dy.shape[2:]
    if divisor_override is not None:
        share = dy / divisor_override
    else:
        rows = [
            _taps(*axis, count_include_pad)
            for axis in zip(size, positions, window, stride, padding, dilation)
        ]
        count = rows[0]
        for row in rows[1:]:
            count = expand_dims(count, axis=-1) * row
        share = dy / E.cast(count, dtype=dy.dtype)
    # As far as windows reach, and as a step more may: the image is a part of it.
    room = [p * s + d * (k - 1) for p, s, d, k in zip(positions, stride, dilation, window)]
    filters = full((dy.shape[1], 1, *window), 1, dtype=dy.dtype, device=dy.device)
    wide = conv_x_grad(
        share, filters, size=tuple(room), stride=stride, padding=0, dilation=dilation, groups=dy.shape[1]
    )
    places = (slice(before, before + n) for (before, _), n in zip(padding, size))
    return slice_(wide, index=(slice(None), slice(None), *places))


def _taps(size: Any, positions: Any, window: int, stride: int, pads: Any, dilation: int, padded: bool) -> Any:
    """How many elements each window along an axis holds, int64[positions]. padded: those of the padding, too."""
    first = arange(positions, dtype=T.int64) * stride - pads[0]
    low, high = (-pads[0], size + pads[1]) if padded else (0, size)
    below = lambda end: E.clip(E.negative(E.floor_divide(first - end, dilation)), min=0, max=window)
    return below(high) - below(low)


# ---------------------------------------------------------------- attention


def attention_grad(
    q: Any, k: Any, v: Any, mask: Any = None, dy: Any = None, lse: Any = None, delta: Any = None, *,
    is_causal: bool, scale: float, offset: int,
) -> Any:  # fmt: skip
    """With all scores held."""
    heads, groups = q.shape[1], k.shape[1]
    dy, delta = _by_heads(dy), permute(delta, axes=(0, 2, 1))
    p = _probabilities(q, k, mask, lse, is_causal, scale, offset)
    slopes = p * (matmul(dy, transpose(_spread(v, heads))) - expand_dims(delta, axis=-1)) * scale
    dk, dv = matmul(transpose(slopes), q), matmul(transpose(p), dy)
    row = (matmul(slopes, _spread(k, heads)), _gather(dk, groups), _gather(dv, groups))
    return tuple(map(_by_heads, row))


def attention_grad_joined(*inputs: Any, **settings: Any) -> Any:
    """The three side by side."""
    return stack(attention_grad(*inputs, **settings), axis=2)


# ---------------------------------------------------------------- recurrent layers


def _along(turn: Any, start: Any, xs: Any, steps: int, reverse: bool) -> Any:
    """`turn(carry, (t, x))` for every step."""
    from ..control import scan

    times = arange(steps, dtype=T.int64)
    return scan(turn, start, (times, *xs), reverse=reverse)


def recurrent(
    x: Any, w: Any, h0: Any, c0: Any = None, b: Any = None, lengths: Any = None, *, cell: str, reverse: bool
) -> Any:
    """A loop over the steps."""
    steps, rows, hidden = x.shape[0], x.shape[1], w.shape[1]
    w_t = permute(w, axes=(1, 0))
    if not steps:
        empty = lambda n: full((0, rows, n), 0, dtype=x.dtype, device=x.device)
        y, gates = empty(hidden), empty(4 * hidden)
        return {"lstm": (y, h0, c0, gates, y), "gru": (y, h0, gates)}.get(cell, (y, h0))

    def turn(carry: Any, row: Any) -> Any:
        (h, c), (t, x_t) = carry, row
        new, state, gates = _step(cell, x_t, w_t, h, c, b)
        made = [v for v in (new, gates, state) if v is not None]
        if lengths is not None:
            live = expand_dims(E.greater(lengths, t), axis=-1)
            new = E.where(live, new, h)
            state = state if state is None else E.where(live, state, c)
            made = [E.where(live, v, 0.0) for v in made]
        return (new, state), tuple(made)

    (h, c), (y, *rest) = _along(turn, (h0, c0), (x,), steps, reverse)
    return (y, h, c, *rest) if cell == "lstm" else (y, h, *rest)


def recurrent_grad(
    dy: Any, dh: Any, w: Any, y: Any, h0: Any, dc: Any = None, c0: Any = None, gates: Any = None,
    cells: Any = None, lengths: Any = None, *, cell: str, reverse: bool,
) -> Any:  # fmt: skip
    """The loop the other way round."""
    steps, hidden = y.shape[0], h0.shape[1]
    if not steps:
        dx = full((0, h0.shape[0], GATES[cell] * hidden), 0, dtype=y.dtype, device=y.device)
        return {"lstm": (dx, dh, dc), "gru": (dx, dh, dx)}.get(cell, (dx, dh))

    held: tuple[Any, ...] = ()
    if cell == "lstm":
        held = gates, cells, _before(cells, c0, lengths, reverse)
    elif cell == "gru":
        held = gates, _before(y, h0, lengths, reverse)

    def turn(carry: Any, row: Any) -> Any:
        (dh, dc), (t, dy_t, y_t, *kept) = carry, row
        g = dy_t + dh
        new_c, state = dc, None
        if cell in ("tanh", "relu"):
            slope = 1 - y_t * y_t if cell == "tanh" else E.cast(E.greater(y_t, 0), dtype=y_t.dtype)
            made = through = g * slope
        elif cell == "lstm":
            i, f, c, o = split(kept[0], sizes=(hidden,) * 4, axis=-1)
            bent = E.tanh(kept[1])
            gc = dc + g * o * (1 - bent * bent)
            parts = [gc * c * i * (1 - i), gc * kept[2] * f * (1 - f), gc * i * (1 - c * c)]
            made = through = concat([*parts, g * bent * o * (1 - o)], axis=-1)
            new_c = gc * f
        else:
            r, z, n, u = split(kept[0], sizes=(hidden,) * 4, axis=-1)
            gn = g * (1 - z) * (1 - n * n)
            gr, gz = gn * u * r * (1 - r), g * (kept[1] - n) * z * (1 - z)
            made, through = concat([gr, gz, gn], axis=-1), concat([gr, gz, gn * r], axis=-1)
            state = g * z
        new_h = matmul(through, w)
        new_h = new_h if state is None else new_h + state
        if lengths is not None:
            live = expand_dims(E.greater(lengths, t), axis=-1)
            new_h, made, through = (
                E.where(live, new_h, dh),
                E.where(live, made, 0.0),
                E.where(live, through, 0.0),
            )
            new_c = new_c if new_c is None else E.where(live, new_c, dc)
        return (new_h, new_c), (made, through) if cell == "gru" else (made,)

    (dh, dc), (dx, *du) = _along(turn, (dh, dc), (dy, y, *held), steps, not reverse)
    return (dx, dh, dc) if cell == "lstm" else (dx, dh, *du)
