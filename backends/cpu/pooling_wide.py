"""Maxima of small windows whose columns are one or two apart: sixteen windows at a time, at the border too.

Elements outside the image are not read, and what stands in their place does not count: so lines and columns at a border
take the same few instructions as those inside. Window and stride are part of the source, sizes are not.
"""

from __future__ import annotations

import functools

from ...core.types import DType
from .conv_axes import Pair
from .epilogue import indent

_HEAD = """from duograd.backends.cpu.wide_pairs import *
def kernel(args, chunk, nchunks):
    planes, h, w, p, q, top, left = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    x, out = args[7], args[8]
    item, end = planes * p * chunk // nchunks, planes * p * (chunk + 1) // nchunks
    while item < end:
        plane, first = item // p, item % p
        count = min(p - first, end - item)
        item += count
        for column in range(0, q, 16):
"""


@functools.cache
def maximum_source(dtype: DType, size: Pair, stride: Pair) -> str:
    """Kernel: the maximum of each window, or NaN. Slots: see `_HEAD`.

    Lines first, element by element, then the columns of sixteen windows.
    """
    t, (lines, columns), (step_y, step) = dtype.char, size, stride
    lowest = f"types.{dtype.name}(-1e999)"
    vectors = range(-(-(15 * step + columns) // 16))
    body = [f"z = column * {step} - left", "mask = w_mask(q, column)"]
    for k in vectors:
        low, high = f"w_mask(max(0, -z), {16 * k})", f"w_mask(max(0, w - z), {16 * k})"
        body += [f"inside{k} = w_logical_and_b1({high}, w_logical_not_b1({low}))"]
    body += ["for line in range(first, first + count):", f"    y = line * {step_y} - top"]
    loop = [f"m{k} = w_fill_{t}({lowest})" for k in vectors]
    for r in range(lines):
        loop += [f"if 0 <= y + {r} < h:", f"    at = (plane * h + y + {r}) * w + z"]
        for k in vectors:
            loop += [f"    v = w_load_{t}(x, at + {16 * k}, inside{k})", f"    {_larger(t, f'm{k}', 'v')}"]
    loop += [f"m{k} = w_where_{t}(inside{k}, m{k}, {lowest})" for k in vectors]
    if step == 2:
        loop += [f"v1 = w_odd_{t}(m0, m1)", f"m0 = w_even_{t}(m0, m1)"]
        loop += [f"v2 = w_from1_{t}(m0, m2)"] if columns > 2 else []
    else:
        loop += [f"v{s} = w_from{s}_{t}(m0, m1)" for s in range(1, columns)]
    loop += [_larger(t, "m0", f"v{s}") for s in range(1, columns)]
    loop.append(f"w_store_{t}(out, (plane * p + line) * q + column, m0, mask)")
    title = f"# max_pool {t} window {lines}x{columns} stride {step_y}x{step}\n"
    return title + _HEAD + indent(body, 12) + indent(loop, 16)


def _larger(t: str, m: str, v: str) -> str:
    """A line that puts v into m where v is larger or NaN."""
    return f"{m} = w_where_{t}(w_logical_or_b1(w_gt_{t}({v}, {m}), w_isnan_{t}({v})), {v}, {m})"
