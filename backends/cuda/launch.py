"""How a kernel is launched: its source's first line says it, the argument slots give the sizes.

    // launch: map axes=3                    every output element on its own
    // launch: row kept=1 reduced=2          a block, or some warps of it, for each kept index
    // launch: row kept=2 reduced=1 split    the last kept axis counts blocks of the first reduced axis
    // launch: col kept=1 reduced=1          threads along x for kept indices, along y for reduced ones
    // launch: block threads=256             a block for each of as many items as the first slot says
    // launch: grid threads=256              `chunks` blocks

Hand-written kernels are maps over items, or blocks (`written.py`).

The block's shape depends on the loop's sizes alone, because it decides the order of reductions. The number of
blocks depends on the device too, and no result depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ...core.errors import KernelError
from ...core.loops import LoopKernel

PREFIX = "// launch: "
#: threads of a block of map and col kernels
THREADS = 256
#: the most threads that share a row, and the most elements each of them should have
ROW_LANES = 512
ROW_ELEMENTS = 8
#: the most threads that share a column
COLUMN_LANES = 8


class Geometry(NamedTuple):
    """Blocks, and threads of a block along x and y."""

    blocks: int
    x: int
    y: int = 1


def head(kernel: LoopKernel, items: int) -> str:
    """The first line of a loop kernel's source; items: elements of a thread in one step of a map."""
    if kernel.form == "map":
        return f"{PREFIX}map axes={kernel.n_axes} items={items}"
    return f"{PREFIX}{kernel.form} kept={kernel.kept} reduced={kernel.reduced}{' split' * kernel.split}"


def geometry(source: str, args: Sequence[object], chunks: int, max_blocks: int) -> Geometry | None:
    """The launch of a kernel with these argument slots; None when there is nothing to do.

    max_blocks: about how many blocks the device has room for at once; loop kernels stride over the rest.
    """
    line = source.split("\n", 1)[0]
    if not line.startswith(PREFIX):
        raise KernelError("launch", f"a CUDA source begins with {line!r}", f'begin it with "{PREFIX}..."')
    form, *words = line[len(PREFIX) :].split()
    setting = {k: int(v) for k, _, v in (w.partition("=") for w in words if "=" in w)}
    if form == "block":
        (items,) = _sizes(args, 1)
        return Geometry(min(items, max_blocks), setting["threads"]) if items else None
    if form == "grid":
        return Geometry(chunks, setting["threads"])
    if form == "map":
        total = math.prod(_sizes(args, setting["axes"]))
        blocks = -(-total // (THREADS * setting["items"]))
        return Geometry(min(blocks, max_blocks), THREADS) if blocks else None
    kept, reduced = setting["kept"], setting["reduced"]
    sizes = _sizes(args, kept + reduced + (form == "col"))
    rest = sizes[kept : kept + reduced]
    if "split" in words:
        rest[0] = min(rest[0], _sizes(args[len(sizes) :], 1)[0])
    items = math.prod(sizes[:kept])
    if form == "row":
        x = _power_of_two(math.prod(rest) / ROW_ELEMENTS, 32, ROW_LANES)
        y = max(1, 128 // x)
        blocks = -(-items // y)
    else:
        y = _power_of_two(math.prod(rest) / ROW_ELEMENTS, 1, COLUMN_LANES)
        x = THREADS // y
        items *= sizes[-1]
        blocks = -(-items // x)
    return Geometry(min(blocks, max_blocks), x, y) if blocks else None


def _sizes(args: Sequence[object], count: int) -> list[int]:
    sizes = list(args[:count])
    if not all(isinstance(n, int) for n in sizes):
        raise KernelError("launch", f"the sizes {sizes} are not known when a program is loaded", "report it")
    return sizes  # type: ignore[return-value]


def _power_of_two(wanted: float, low: int, high: int) -> int:
    n = low
    while n < wanted and n < high:
        n *= 2
    return n
