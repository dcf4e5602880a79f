"""Filters of a convolution in panels: [k][width], k = (channel, line, column of the window), zero beyond the filters.

Panels of all filters stand in memory, for weights that stay or that fit the cache, or a task packs each one
where it multiplies with it (`PACK` is the text of both).
"""

from __future__ import annotations

import functools

from ...core.backend import Arg, Operand, Program
from ...core.types import DType
from .conv_axes import Product
from .epilogue import indent
from .panels import IMPORT, Block

#: slots of `Walk.slots`
NAMES = "f, f_group, f_z, f_row, f_0, f_1, f_x, n1, run"

# Packs `left` of k from number `at` on to `to`: of `panel_rows` filters, the first of which begins at `f_at`.
_PACK = """
while left > 0:
    outer, k = div_i64(at, run), mod_i64(at, run)
    here = f_at + div_i64(outer, n1) * f_0 + mod_i64(outer, n1) * f_1 + k * f_x
    count = min_i64(left, run - k)
    for vector in range(0, WIDTH, LANES):
        columns = max_i64(0, min_i64(LANES, panel_rows - vector))
        start, there = here + vector * f_row, to + vector * SIZE
        if abs(f_x) == SIZE:
            for kk in range(0, count, LANES):
                length = min_i64(LANES, count - kk)
                # Backwards: the block's lowest address is its last k.
                low = kk if f_x > 0 else kk + length - 1
                transpose_lanes_T(
                    there + low * ROW, ROW if f_x > 0 else -ROW, start + low * f_x, f_row,
                    columns, length, LANES, LANES,
                )
        else:
            gather_lanes_T(there, ROW, start, f_x, f_row, count, LANES, 0, columns, LANES)
    at += count
    to += count * ROW
    left -= count
"""


@functools.cache
def pack_text(dtype: DType, tile: Block, depth: int) -> str:
    """The text of the packing, `depth` spaces in."""
    text = _PACK.replace("_T(", f"_{dtype.char}(").replace("LANES", str(tile.lanes))
    text = text.replace("ROW", str(tile.width * dtype.itemsize)).replace("WIDTH", str(tile.width))
    return indent(text.replace("SIZE", str(dtype.itemsize)).strip().splitlines(), depth)


class Walk:
    """How a product's filters are walked in the order of k: n0 x n1 runs of neighbours (bytes, may be negative)."""

    def __init__(self, product: Product) -> None:
        _, w, out, channels, filters, axes, _ = product
        size = out.dtype.itemsize
        self.row, f_channel, self.group = (s * size for s in filters)
        steps = [s * size for s in w.strides[2:]]
        self.first = w._replace(offset=w.offset + sum(a.filter_origin * s for a, s in zip(axes, steps)))
        self.front, f_y, f_x = (a.filter_step * s for a, s in zip(axes, steps))
        _, taps_y, taps_x = (a.taps for a in axes)
        n0, n1, run = channels, taps_y, taps_x
        # Axes that are walked with one step are one.
        if run == 1:
            n1, run, f_y, f_x = 1, n1, 0, f_y
        elif f_y == f_x * run or n1 == 1:
            n1, run, f_y = 1, n1 * run, 0
        if n1 == 1 and run == 1:
            n0, run, f_channel, f_x = 1, n0, 0, f_channel
        elif n1 == 1 and (f_channel == f_x * run or n0 == 1):
            n0, run = 1, n0 * run
        self.steps, self.n0, self.n1, self.run = (f_channel, f_y, f_x), n0, n1, run

    @property
    def slots(self) -> list[Arg]:
        """What `NAMES` names."""
        return [self.first.slot, self.group, self.front, self.row, *self.steps, self.n1, self.run]


@functools.cache
def _source(dtype: DType, tile: Block) -> str:
    """Kernel: filters into panels [group, front tap, panel, k, width]."""
    row, width = tile.width * dtype.itemsize, tile.width
    return f"""# pack filters {dtype.char} in panels of {width}
{IMPORT}
def kernel(args, chunk, nchunks):
    {NAMES} = {", ".join(f"args[{k}]" for k in range(9))}
    out, groups, fronts, rows, depth, piece = args[9], args[10], args[11], args[12], args[13], args[14]
    panels, pieces = div_i64(rows + {width - 1}, {width}), div_i64(depth + piece - 1, piece)
    items = groups * fronts * panels * pieces
    for item in range(div_i64(items * chunk, nchunks), div_i64(items * (chunk + 1), nchunks)):
        at, panel = mod_i64(item, pieces) * piece, mod_i64(div_i64(item, pieces), panels)
        front = mod_i64(div_i64(item, pieces * panels), fronts)
        group = div_i64(item, pieces * panels * fronts)
        left, panel_rows = min_i64(piece, depth - at), rows - panel * {width}
        f_at = f + group * f_group + front * f_z + panel * {width} * f_row
        to = out + (((group * fronts + front) * panels + panel) * depth + at) * {row}
{pack_text(dtype, tile, 8)}"""


def pack_filters(program: Program, product: Product, tile: Block) -> Operand:
    """Append the packing of a product's filters. Returns the panels, [groups, front taps, panels, k, width]."""
    out, axes, groups = product.out, product.axes, product.groups
    rows, fronts, walk = out.shape[1] // groups, axes[0].taps, Walk(product)
    panels, runs, run = -(-rows // tile.width), walk.n0 * walk.n1, walk.run
    depth = runs * run
    packed = program.scratch_operand(out.dtype, (groups, fronts, panels, depth, tile.width))
    piece = max(run, 512) // run * run if runs > 1 else min(run, 512)
    args: list[Arg] = [*walk.slots, packed.slot, groups, fronts, rows, depth, piece]
    items = groups * fronts * panels * -(-depth // piece)
    chunks = program.chunks(items, 2.0 * packed.size * out.dtype.itemsize)
    program.launch(_source(out.dtype, tile), args, chunks)
    return packed
