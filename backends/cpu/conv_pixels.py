"""Convolution with packed filters: pixels are the rows of a matrix product, filters the columns of its panels.

A pixel's window is read where it stands, element by element: of the images themselves when no window leaves
them, else of a copy of the lines that a task needs, with zeros around. So nothing is packed but the filters,
strides and dilation cost nothing, and images of any size fill the register blocks. Where blocks are small and filters
many, a task packs its pixels, too, as many to a block as fill all of them (six or five). The sums [pixel, filter] of a
task are turned round when it is done. Every result is the chain of additions that `conv.py` documents.
"""

from __future__ import annotations

import functools
import math

from ...core.backend import Operand, Program
from ...core.types import DType
from . import conv_pool, panels
from .blocks import apart
from .conv_axes import Axes, Product, Tasks, fewer_chunks, in_place, whole_units
from .conv_pack import NAMES, Walk, pack_text
from .conv_text import HEAD, first_slots, run_lines
from .epilogue import FusedEpilogue, indent
from .gemm_text import TURN
from .panels import IMPORT, Block, block
from .target import has_masked_memory

#: Bits of a vector register and how many there are -> pixels of a register block. Small images have multiples of 7.
_PIXELS = {(512, 32): 14, (256, 16): 6, (128, 32): 14, (128, 16): 4}
#: Bytes of a task's sums and lines, which should stay in the second-level cache.
_TASK_BYTES = 1 << 19
#: Cycles of a register block's step over those that its multiplications take, of a block's call, of turning an
#: element round, of packing one of neighbours, and any other.
_MULTIPLY, _CALL, _TURN_CYCLES, _PACK_CYCLES, _GATHER_CYCLES = 1.05, 80, 0.6, 1.0, 2.0
#: The first where windows are packed in whole vectors: they are then read faster than in place.
_MULTIPLY_BESIDE_LINES = 1.15
#: Bytes of filters that are packed into memory for one call.
_PACKED_BYTES = 2 << 20
#: The part of a task that the last thread is waited for, on average.
_HELD_UP = 0.5
#: The first with packed pixels, and the cycles of packing an element of a window, more where a block has two lines.
_MULTIPLY_PACKED, _PIXEL_CYCLES, _LINE_END = 0.95, 0.6, 0.9
#: So many filters are worth packing pixels for, in windows of one element and of more.
_SHARING, _SHARING_TAPS = 64, 256


def packs_pixels(product: Product) -> bool:
    """Whether pixels are packed, too: with short registers blocks are small, and read each channel's line often."""
    _, _, out, _, _, axes, groups = product
    taps = math.prod(a.taps for a in axes)
    least = _SHARING if taps == 1 else _SHARING_TAPS
    return panels.vectors() == (256, 16) and out.shape[1] // groups >= least


def pixel_block(dtype: DType) -> Block:
    """The register block: `rows` pixels by `vectors` of filters."""
    usual = block(dtype)
    return Block(_PIXELS[panels.vectors()], 2, usual.lanes, usual.depth)


#: the slots after the first, of packed filters and of filters that a task packs
_SHARED = 48
_PACKED = "f, f_panel, f_z, f_group"
_PACKS = f"{NAMES}, packed_at"

_TAKE = """
panel = f + group * f_group + tz * f_z + div_i64(row0 + j, WIDTH) * f_panel + channel * taps * ROW
# The filters of the next panel come while the first blocks use this one's.
ahead = panel + f_panel
if j + WIDTH >= rows:
    ahead += part_channels * taps * ROW - div_i64(rows + WIDTH - 1, WIDTH) * f_panel
"""
_PACK = """
panel = ahead = scratch + packed_at
to, at, left, panel_rows = panel, channel * taps, part_channels * taps, rows - j
f_at = f + group * f_group + tz * f_z + (row0 + j) * f_row
PACK
"""

# Copies the lines of every image that the strip reads, with zeros around, for the channels of this part.
_COPY = """
for segment in range(segments):
    image, front = load_i64(segment_table, segment * 5), load_i64(segment_table, segment * 5 + 1)
    low_y, lines = load_i64(segment_table, segment * 5 + 2), load_i64(segment_table, segment * 5 + 3)
    z = front * step_z + tz * tap_z + origin_z
    first_line = min_i64(lines, max_i64(0, -low_y)) if 0 <= z < d else lines
    last_line = max_i64(first_line, min_i64(lines, h - low_y))
    from_image = x + image * x_n + (group * channels + channel) * x_c + z * x_z + low_y * x_y
    to_image = lines_at + load_i64(segment_table, segment * 5 + 4) * pitch_line
    for e in range(part_channels):
        for column in range(0, width, LANES):
            low = -(column + low_x)
            here = from_image + e * x_c + (column + low_x) * x_x
            there, length = to_image + e * pitch_plane + column * SIZE, min_i64(LANES, width - column)
            copy_lanes_T(there, pitch_line, here, x_y, first_line, length, 0, 0, LANES)
            from_line, to_line = here + first_line * x_y, there + first_line * pitch_line
            if x_x == SIZE:
                copy_lanes_T(
                    to_line, pitch_line, from_line, x_y, last_line - first_line, length, low, w + low, LANES
                )
            else:
                gather_lanes_T(
                    to_line, pitch_line, from_line, x_y, x_x, last_line - first_line, length, low, w + low, LANES
                )
            copy_lanes_T(
                there + last_line * pitch_line, pitch_line, here, x_y, lines - last_line, length, 0, 0, LANES
            )
"""

# Blocks of pixels times a panel of filters: windows are read where they stand, or the pixels are packed, too.
_BLOCKS_IN_PLACE = """
for i in range(0, strip_columns, ROWS):
    to = sums + (i * pitch + j) * SIZE
    if strip_columns - i > HALF:
        WHOLE(
            part_channels * taps, source, row_table + 8 * i, k_table, panel, ROW, to,
            pitch * SIZE, min_i64(ROWS, strip_columns - i), WIDTH, tz + part, ahead,
        )
    else:
        LESS(
            part_channels * taps, source, row_table + 8 * i, k_table, panel, ROW, to,
            pitch * SIZE, strip_columns - i, WIDTH, tz + part, ahead,
        )
    ahead = ahead + part_channels * taps * 64 if i < ROWS * (ROW // 64 - 1) else panel
"""
_BLOCKS = """
i, near = 0, packed
for block in range(blocks):
    # The first blocks fetch the next panel, each a line of TURN.
    later, later_step = panel, 0
    if block < TURN * (ROW // 64):
        later, later_step = ahead + 64 * block, ROW
    to = sums + (i * pitch + j) * SIZE
    if block < wholes:
        WHOLE(
            part_channels * taps, near, panel, ROW, to, pitch * SIZE, min_i64(ROWS, strip_columns - i), WIDTH,
            tz + part, later, later_step,
        )
        i += ROWS
    else:
        LESS(
            part_channels * taps, near, panel, ROW, to, pitch * SIZE, min_i64(LESS_ROWS, strip_columns - i), WIDTH,
            tz + part, later, later_step,
        )
        i += LESS_ROWS
    near += depth * taps * PACKED_ROW
"""
_PACK_PIXELS = """
packed = div_i64(lines_at + depth * pitch_plane + 127, 64) * 64
# Blocks with a row less fill up what whole ones would leave over.
blocks = div_i64(strip_columns + LESS_ROWS, ROWS)
wholes = max_i64(0, strip_columns - blocks * LESS_ROWS)
i, near = 0, packed
for block in range(blocks):
    if block < wholes:
        pack_pixels_T(near, source, row_table + 8 * i, k_table, part_channels * taps, ROWS, ROWS, LANES)
        i += ROWS
    else:
        pack_pixels_T(near, source, row_table + 8 * i, k_table, part_channels * taps, LESS_ROWS, ROWS, LANES)
        i += LESS_ROWS
    near += depth * taps * PACKED_ROW
"""


@functools.lru_cache(maxsize=512)
def _source(
    dtype: DType, tile: Block, head: str, finish: str, turned: bool, packs: bool, pixels: bool
) -> str:
    """The kernel. turned: sums are turned round first; packs: filters are packed by tasks; pixels: those, too."""
    char, size = dtype.char, dtype.itemsize
    rows, width, lanes = tile.rows, tile.width, tile.lanes
    row = width * size
    copied = indent(_COPY.strip().splitlines(), 20)
    copied = copied.replace("_T(", f"_{char}(").replace("LANES", str(lanes)).replace("SIZE", str(size))
    filters = _PACKS if packs else _PACKED
    filters = f"{filters} = {', '.join(f'args[{_SHARED + k}]' for k in range(filters.count(',') + 1))}"
    take = (_PACK if packs else _TAKE).replace("ROW", str(row)).replace("WIDTH", str(width))
    take = indent(take.strip().splitlines(), 20)
    take = take.replace("PACK\n", "\n" + pack_text(dtype, tile, 20)) if packs else take
    less = rows - 1 if pixels else rows // 2
    shape = tile.vectors, lanes
    if pixels:
        packing = indent(_PACK_PIXELS.strip().splitlines(), 16)
        whole, low = (
            apart(f"multiply_packed_{char}", TURN, size, rows * size, n, *shape) for n in (rows, less)
        )
    else:
        packing = ""
        whole, low = (apart(f"multiply_pixels_{char}", n, *shape) for n in (rows, less))
    blocks = indent((_BLOCKS if pixels else _BLOCKS_IN_PLACE).strip().splitlines(), 20)
    for word, value in (
        ("LESS_ROWS", less), ("PACKED_ROW", rows * size), ("WHOLE", whole), ("LESS", low), ("HALF", less),
        ("ROWS", rows), ("ROW", row), ("SIZE", size), ("WIDTH", width), ("TURN", TURN), ("LANES", lanes),
        ("_T(", f"_{char}("),
    ):  # fmt: skip
        blocks, packing = (text.replace(word, str(value)) for text in (blocks, packing))
    return f"""# conv {char} with packed filters in blocks of {rows} x {width}
{IMPORT}
def kernel(args, chunk, nchunks):
{HEAD}
    c, depth, strip, in_place = args[36], args[37], args[38], args[39]
    scratch = args[40] + chunk * args[41]
    pitch, pitch_turned, pitch_line, pitch_plane, width = args[42], args[43], args[44], args[45], args[46]
    most_segments = args[47]
    {filters}
{head}    taps, area = taps_y * taps_x, p * q
    row_table = scratch
    k_table = row_table + 8 * (strip + {2 * rows})
    segment_table = k_table + 8 * depth * taps
    sums = scratch + (8 * (strip + {2 * rows}) + 8 * depth * taps + 40 * most_segments + 63) // 64 * 64
    turned = sums + strip * pitch * {size}
    lines_at = turned + {lanes} * pitch_turned * {size}
    # The first source line and column that a tap reaches, from that of the first tap.
    back_y, back_x = min_i64(0, (taps_y - 1) * tap_y), min_i64(0, (taps_x - 1) * tap_x)
    more_y = (taps_y - 1) * abs(tap_y) + 1
    low_x = origin_x + back_x
    if in_place:
        fill_offsets(k_table, 0, depth * taps, 0, taps_y, taps_x, x_c, tap_y * x_y, tap_x * x_x)
    else:
        fill_offsets(
            k_table, 0, depth * taps, 0, taps_y, taps_x, pitch_plane, tap_y * pitch_line, tap_x * {size}
        )
    dense = out_z * out_y * out_x == 1
    pixels = o * area
    total = images * pixels
    parts = div_i64(channels + depth - 1, depth)
    strips = div_i64(total + strip - 1, strip)
    row_tasks = div_i64(rows_all + row_block - 1, row_block)
    tasks = groups * row_tasks * strips
    for task in range(div_i64(tasks * chunk, nchunks), div_i64(tasks * (chunk + 1), nchunks)):
        first = mod_i64(task, strips) * strip
        rest = div_i64(task, strips)
        row0 = mod_i64(rest, row_tasks) * row_block
        group = div_i64(rest, row_tasks)
        rows = min_i64(row_block, rows_all - row0)
        strip_columns = min_i64(strip, total - first)
        image0, pixel0 = div_i64(first, pixels), mod_i64(first, pixels)
        # Where each pixel's window begins, and the lines of each image that the windows need.
        image, front = image0, div_i64(pixel0, area)
        line, column = div_i64(mod_i64(pixel0, area), q), mod_i64(pixel0, q)
        segments, done, below, first_line = 0, 0, 0, line
        while done < strip_columns:
            length = min_i64(strip_columns - done, q - column)
            if in_place:
                begin = image * x_n + (front * step_z + origin_z) * x_z + (line * step_y + origin_y) * x_y
                begin += (column * step_x + origin_x) * x_x
                step = step_x * x_x
            else:
                begin = (below + (line - first_line) * step_y - back_y) * pitch_line
                begin += (column * step_x - back_x) * {size}
                step = step_x * {size}
            for e in range(length):
                store_i64(row_table, done + e, begin + e * step)
            done += length
            column = 0
            line += 1
            if line == p or done == strip_columns:
                lines = (line - 1 - first_line) * step_y + more_y
                store_i64(segment_table, segments * 5, image)
                store_i64(segment_table, segments * 5 + 1, front)
                store_i64(segment_table, segments * 5 + 2, first_line * step_y + origin_y + back_y)
                store_i64(segment_table, segments * 5 + 3, lines)
                store_i64(segment_table, segments * 5 + 4, below)
                segments += 1
                below += lines
                line, first_line = 0, 0
                front += 1
                if front == o:
                    front = 0
                    image += 1
        # Missing pixels of the last block repeat the last one.
        for e in range({2 * rows - 1}):
            store_i64(row_table, done + e, load_i64(row_table, done - 1))
        for tz in range(taps_z):
            for part in range(parts):
                channel = part * depth
                part_channels = min_i64(depth, channels - channel)
                if in_place:
                    source = x + (group * channels + channel) * x_c + tz * tap_z * x_z
                else:
                    source = lines_at
{copied}{packing}                for j in range(0, rows, {width}):
{take}{blocks}        for i in range(0, rows, {lanes}):
            block_rows = min_i64({lanes}, rows - i)
            if {turned} or not dense:
                for j in range(0, strip_columns, {lanes}):
                    length = min_i64({lanes}, strip_columns - j)
                    transpose_lanes_{char}(
                        turned + j * {size}, pitch_turned * {size}, sums + (j * pitch + i) * {size}, pitch * {size},
                        length, block_rows, length, {lanes},
                    )
{finish}"""


# What becomes of a run of results: it is turned round into its place, or an epilogue finishes it.
_TURN = """for j in range(0, block_cols, {lanes}):
    length = min_i64({lanes}, block_cols - j)
    transpose_lanes_{char}(
        c + (out_at + j) * {size}, out_step * {size}, sums + ((done + j) * pitch + i) * {size}, pitch * {size},
        length, block_rows, length, {lanes},
    )
"""
_PLACE = """batch0, batch1, batch2 = 0, 0, image
first_row, first_column = group * rows_all + row0 + i, pixel
"""


def _lines(axes: Axes, strip: int) -> tuple[int, int]:
    """How many source lines a strip of pixels reads at most, and of how many planes."""
    _, y, z = axes
    lines = -(-(strip - 1) // z.out) + 1
    planes = min(lines, -(-(strip - 1) // (y.out * z.out)) + 1)
    return lines * y.step + planes * ((y.taps - 1) * abs(y.tap_step) + 1), planes


def _width(axes: Axes) -> int:
    """The columns of the source that windows read."""
    a = axes[2]
    return (a.out - 1) * a.step + (a.taps - 1) * abs(a.tap_step) + 1


def tasks(program: Program, product: Product, depth: int, packs: bool = False, unit: int = 1) -> Tasks:
    """The split (rows: filters, columns: pixels) that should take the least time, in cycles of a thread.

    A task copies its lines, reads its filters once (packs: and packs them), multiplies, and turns its sums round; it
    has whole units of pixels.
    """
    _, _, out, channels, _, axes, groups = product
    threads, size, tile = program.backend.num_threads(), out.dtype.itemsize, pixel_block(out.dtype)
    rows, columns = out.shape[1] // groups, out.shape[0] * math.prod(a.out for a in axes)
    k = channels * math.prod(a.taps for a in axes)
    multiply = _MULTIPLY if has_masked_memory() else _MULTIPLY_BESIDE_LINES
    packed = packs_pixels(product)
    if packed:
        multiply = _MULTIPLY_PACKED
    panels, blocks, parts = (
        -(-rows // tile.width),
        -(-columns // tile.rows),
        -(-channels // depth) * axes[0].taps,
    )
    copies = not in_place(axes)
    pixel_cycles = _PIXEL_CYCLES + _LINE_END * min(1, (tile.rows - 1) / axes[2].out)
    pack = _pack_step(product) if packs else size / 16
    # Bytes of a block of pixels besides its sums: its places, and lines of images.
    beside = 16 * tile.rows
    if packed:
        beside += depth * axes[1].taps * axes[2].taps * tile.rows * size
    if copies:
        beside += depth * _width(axes) * size * axes[1].step * tile.rows // axes[2].out
    least = 1 if program.chunks(threads, groups * tile.work(columns, rows, k)) == 1 else threads
    best = Tasks(1, 1, 1, math.inf)
    for splits in (1, 2, 4, 8):
        high = -(-panels // splits)
        if splits > 1 and high == -(-panels // (splits // 2)):
            continue
        if packed and out.shape[0] == 1 and groups * splits < least <= panels:
            continue  # threads share out filters: each then has the channels that it reads next
        most = max(1, _TASK_BYTES // (tile.rows * high * tile.width * size + beside))
        for pieces in (1, 2, 4, 8, 16):
            wide = -(-blocks // max(-(-blocks // most), -(-(pieces * least) // (splits * groups))))
            strip = whole_units(wide * tile.rows, unit)
            wide = -(-strip // tile.rows)
            count = groups * -(-columns // strip) * -(-panels // high)
            # Packed pixels fill all blocks.
            pixels = min(columns, strip) if packed else wide * tile.rows
            cycles = high * (pixels * k * tile.vectors * multiply / 2 + wide * parts * _CALL)
            cycles += pixels * k * pixel_cycles * packed
            # Enough blocks fetch the next panel of filters while they multiply.
            hidden = 4 if packed and not packs and wide >= TURN else 1
            cycles += high * tile.width * k * pack / hidden + wide * tile.rows * k / 16 + 2000
            cycles += wide * high * tile.width * tile.rows * _TURN_CYCLES
            if copies:
                lines, _ = _lines(axes, min(wide * tile.rows, columns))
                cycles += 2 * channels * axes[0].taps * lines * -(-_width(axes) // tile.lanes)
            total = (-(-count // least) + _HELD_UP * (least > 1)) * cycles
            if total < best.cycles:
                chunks = min(count, 4 * least) if least > 1 else 1
                best = Tasks(high * tile.width, strip, chunks, total)
    return best


def _pack_step(product: Product) -> float:
    """Cycles of packing an element."""
    return _PACK_CYCLES if abs(Walk(product).steps[2]) == product.out.dtype.itemsize else _GATHER_CYCLES


def pack_cycles(program: Program, product: Product) -> float:
    """About how many cycles a thread packs filters into memory: none where they stay, no end of them for large ones."""
    _, w, out, channels, _, axes, _ = product
    count = out.shape[1] * channels * math.prod(a.taps for a in axes)
    if program.steady(w):
        return 0.0
    if count * out.dtype.itemsize > _PACKED_BYTES:
        return math.inf
    return 2000 + _pack_step(product) * count / program.backend.num_threads()


def windowed(
    program: Program, product: Product, fused: FusedEpilogue | None, packed: Operand | None, depth: int,
    split: Tasks,
) -> None:  # fmt: skip
    """Append one launch of the windowed product.

    packed: its filters by `pack_filters`, or None: tasks pack them; depth: channels of a chain; split: by `tasks`.
    """
    x, _, out, _, _, axes, groups = product
    dtype, size = out.dtype, out.dtype.itemsize
    tile = pixel_block(dtype)
    rows, columns = out.shape[1] // groups, x.shape[0] * math.prod(a.out for a in axes)
    if packed is None:
        filters = Walk(product).slots
    else:
        panel = math.prod(packed.shape[3:]) * size
        front = packed.shape[2] * panel
        filters = [packed.slot, panel, front, axes[0].taps * front]
    if fused is None:
        finish = _TURN.format(char=dtype.char, size=size, lanes=tile.lanes).splitlines()
        head = ""
    else:
        finish = [*_PLACE.splitlines(), *fused.block()]
        head = indent(fused.head(_SHARED + len(filters) + (packed is None)), 4)
    text = run_lines(
        dtype.char, "row0 + i", "result, result_at, result_step = turned, done, pitch_turned", finish
    )
    pixels = packs_pixels(product)
    source = _source(dtype, tile, head, text, fused is not None, packed is None, pixels)
    pool = fused.pool if fused else None
    source = conv_pool.source(source, pool)
    row_block, strip, chunks, _ = split
    strip = min(strip, columns if pool else -(-columns // tile.rows) * tile.rows)
    taps = axes[1].taps * axes[2].taps
    direct = in_place(axes)
    lines, planes = _lines(axes, strip)
    width = 0 if direct else _width(axes)
    # Lines of sums are not a power of two apart.
    pitch, turned = min(row_block, -(-rows // tile.width) * tile.width) + tile.lanes, strip + tile.lanes
    line = -(-width * size // 64) * 64
    plane = 0 if direct else lines * line + 64
    nbytes = -(-(8 * (strip + 2 * tile.rows) + 8 * depth * taps + 40 * planes) // 64) * 64
    nbytes += (strip * pitch + tile.lanes * turned) * size + depth * plane + 64
    nbytes = -(-nbytes // 64) * 64
    if pixels:
        nbytes += 64 + -(-depth * taps * -(-strip // tile.rows) * tile.rows * size // 64) * 64
    if packed is None:
        filters.append(nbytes)
        nbytes += depth * taps * tile.width * size
    chunks = fewer_chunks(program, chunks, nbytes)
    args = first_slots(product, rows, row_block)
    args += [out.slot, depth, strip, int(direct), program.scratch(chunks * nbytes), nbytes]
    args += [pitch, turned, line, plane, width, planes, *filters]
    program.launch(source, args + (fused.slots() if fused else []), chunks)
