"""Convolution as implicit matrix products: panels of image windows are packed where they are multiplied.

Forward and image gradient are one kernel, out[k, pixel] = sum over (c, tap) of w[k, c, tap] * window[c, tap,
pixel]: the gradient convolves g with the filters turned round, once for every phase of the stride, so that no
product with an inserted zero is computed. A block's columns are consecutive pixels of the whole batch. As
for matrices, no value depends on blocks, chunks or the size of the batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Epilogue, Operand, Program
from ...core.types import DType
from . import conv_direct
from .epilogue import FusedEpilogue, apply_after, fuse, indent, result_buffer
from .panels import IMPORT, Block, block, fill_zero

Pair = tuple[int, int]
#: About how many (channel, tap) products make one chain of additions.
_DEPTH = 192
#: A strip of results, all rows of some consecutive panels, should stay in the second-level cache.
_STRIP_BYTES = 1 << 16


class Axis(NamedTuple):
    """A spatial axis of a windowed read: source index = out * step + tap * tap_step + origin, below `size`.

    out: how many results there are, written to out * out_step + out_origin; taps: filter index = tap *
    filter_step + filter_origin.
    """

    size: int
    out: int
    step: int
    taps: int
    tap_step: int
    origin: int
    out_step: int = 1
    out_origin: int = 0
    filter_step: int = 1
    filter_origin: int = 0


@functools.lru_cache(maxsize=512)
def _source(dtype: DType, tile: Block, head: str, finish: str, finishes: str) -> str:
    char, size = dtype.char, dtype.itemsize
    rows, width, lanes = tile.rows, tile.width, tile.lanes
    row = width * size
    shape = f"{tile.rows}, {tile.vectors}, {tile.lanes}"
    return f"""# conv2d {char} in blocks of {rows} x {width}
{IMPORT}
def kernel(args, chunk, nchunks):
    images, groups, channels, rows_all, row_block = args[0], args[1], args[2], args[3], args[4]
    h, p, step_y, taps_y, tap_y, origin_y = args[5], args[6], args[7], args[8], args[9], args[10]
    w, q, step_x, taps_x, tap_x, origin_x = args[11], args[12], args[13], args[14], args[15], args[16]
    out_y, out_x, out_line, out_plane, out_first = args[17], args[18], args[19], args[20], args[21]
    x, x_n, x_c, x_y, x_x = args[22], args[23], args[24], args[25], args[26]
    f, f_row, f_c, f_y, f_x, f_group = args[27], args[28], args[29], args[30], args[31], args[32]
    c, depth, strip = args[33], args[34], args[35]
    scratch = args[36] + chunk * args[37]
{head}    taps = taps_y * taps_x
    row_table = scratch
    k_table = row_table + 8 * (row_block + {rows})
    panel = k_table + (8 * depth * taps + 63) // 64 * 64
    sums = panel + depth * taps * {row}
    tap_table = sums + row_block * strip * {size}
    # Filter offsets by (channel, tap) of one block of channels.
    fill_offsets(k_table, 0, depth * taps, 0, taps_y, taps_x, f_c, f_y, f_x)
    dense = out_y * out_x == 1
    pixels = p * q
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
        fill_offsets(row_table, 0, rows, {rows - 1}, 1, 1, f_row, 0, 0)
        image0, pixel0 = div_i64(first, pixels), mod_i64(first, pixels)
        # A strip inside one image is summed up in its place, any other in a buffer.
        inside = pixel0 + strip_columns <= pixels and dense
        if inside:
            result, result_step = c, out_plane
            result0 = (image0 * groups * rows_all + group * rows_all + row0) * out_plane + pixel0
        else:
            result, result_step, result0 = sums, strip, 0
        panel_image, panel_line, panel_column = image0, div_i64(pixel0, q), mod_i64(pixel0, q)
        for at in range(0, strip_columns, {width}):
            columns = min_i64({width}, strip_columns - at)
            for part in range(parts):
                channel = part * depth
                count = min_i64(depth, channels - channel)
                # Pack the windows: for every run of pixels in one line, all channels, every tap.
                image, line, column = panel_image, panel_line, panel_column
                done = 0
                while done < columns:
                    length = min_i64(min_i64({lanes}, columns - done), q - column)
                    source = x + image * x_n + (group * channels + channel) * x_c
                    fill_windows(
                        tap_table, taps_y, taps_x, line * step_y + origin_y, column * step_x + origin_x,
                        tap_y, tap_x, h, w, step_x, x_y, x_x, length,
                    )
                    to = panel + done * {size}
                    if step_x * x_x == {size}:
                        copy_windows_{char}(to, {row}, source, x_c, count, length, tap_table, taps, {lanes})
                    else:
                        gather_windows_{char}(
                            to, {row}, source, x_c, step_x * x_x, count, length, tap_table, taps, {lanes}
                        )
                    done += length
                    column += length
                    if column == q:
                        column = 0
                        line += 1
                        if line == p:
                            line = 0
                            image += 1
                for i in range(0, rows, {rows}):
                    multiply_{char}(
                        count * taps, f + group * f_group + row0 * f_row + channel * f_c, row_table + 8 * i,
                        k_table, panel, {row}, result + (result0 + at + i * result_step) * {size},
                        result_step * {size}, min_i64({rows}, rows - i), columns, channel, {shape},
                    )
            panel_image, panel_line, panel_column = image, line, column
        if {finishes}:
            # Runs of pixels that are neighbours in the output: one image, or one line when lines have gaps.
            done = 0
            image, pixel = image0, pixel0
            while done < strip_columns:
                column = mod_i64(pixel, q)
                block_cols = min_i64(strip_columns - done, pixels - pixel if dense else q - column)
                block_rows = rows
                result_at = result0 + done
                out_at = (image * groups * rows_all + group * rows_all + row0) * out_plane
                out_at += out_first + div_i64(pixel, q) * out_y * out_line + column * out_x
                out_step = out_plane
                if dense:
{finish}                else:
                    for i in range(block_rows):
                        for j in range(block_cols):
                            value = load_{char}(result, result_at + i * result_step + j)
                            store_{char}(c, out_at + i * out_step + j * out_x, value)
                done += block_cols
                pixel += block_cols
                if pixel == pixels:
                    pixel = 0
                    image += 1
"""


_FIRST_SLOT = 38

# What becomes of a run of results: it is copied from the buffer, or an epilogue finishes it.
_COPY = """for j in range(0, block_cols, {lanes}):
    copy_lanes_{char}(
        c + (out_at + j) * {size}, out_step * {size}, result + (result_at + j) * {size}, result_step * {size},
        block_rows, min_i64({lanes}, block_cols - j), 0, {lanes}, {lanes},
    )
"""
_PLACE = """batch0, batch1, batch2 = 0, 0, image
first_row, first_column = group * rows_all + row0, pixel
"""


def _windowed(
    program: Program,
    x: Operand,
    w: Operand,
    out: Operand,
    channels: int,
    filters: tuple[int, int, int],
    axes: tuple[Axis, Axis],
    groups: int,
    fused: FusedEpilogue | None,
) -> None:
    """Append one launch of the windowed product.

    x: [N, groups * channels, H, W]; out: [N, groups * rows, ...]; filters: strides of w (elements) by row of
    the product, by summed channel and by group.
    """
    dtype, size = out.dtype, out.dtype.itemsize
    tile = block(dtype)
    images, rows = x.shape[0], out.shape[1] // groups
    y, z = axes
    taps = y.taps * z.taps
    depth = -(-channels // max(1, -(-channels * taps // max(_DEPTH, taps))))
    if fused is None:
        text = _COPY.format(char=dtype.char, size=size, lanes=tile.lanes)
        source = _source(dtype, tile, "", indent(text.splitlines(), 20), "not inside")
    else:
        block_lines = [*_PLACE.splitlines(), *fused.block()]
        source = _source(dtype, tile, indent(fused.head(_FIRST_SLOT), 4), indent(block_lines, 20), "True")
    columns = images * y.out * z.out
    row_block = -(-rows // tile.rows) * tile.rows
    strip = min(_STRIP_BYTES // (row_block * tile.width * size), -(-columns // tile.width))
    strip = max(1, strip) * tile.width
    wanted = 4 * program.backend.num_threads()
    while groups * -(-columns // strip) * -(-rows // row_block) < wanted:
        if strip > 2 * tile.width:
            strip = -(-strip // (2 * tile.width)) * tile.width
        elif row_block > 4 * tile.rows:
            row_block = -(-row_block // (2 * tile.rows)) * tile.rows
        elif strip > tile.width:
            strip = tile.width
        else:
            break
    tasks = groups * -(-columns // strip) * -(-rows // row_block)
    chunks = program.chunks(tasks, groups * tile.work(rows, columns, channels * taps))
    pitch = 8 * (row_block + tile.rows) + 8 * depth * taps + 64
    pitch += depth * taps * tile.width * size + row_block * strip * size
    pitch = -(-(pitch + 16 * taps) // 64) * 64
    line = out.shape[3] if y.out_step * z.out_step != 1 else z.out
    plane = math.prod(out.shape[2:])
    first = y.out_origin * line + z.out_origin
    f_row, f_channel, f_group = filters
    f_y, f_x = w.strides[2] * size, w.strides[3] * size
    shifted = w.offset + y.filter_origin * f_y + z.filter_origin * f_x
    args: list[Arg] = [images, groups, channels, rows, row_block]
    args += [y.size, y.out, y.step, y.taps, y.tap_step, y.origin]
    args += [z.size, z.out, z.step, z.taps, z.tap_step, z.origin]
    args += [y.out_step, z.out_step, line, plane, first]
    args += [x.slot, *(s * size for s in x.strides)]
    args += [w._replace(offset=shifted).slot, f_row * size, f_channel * size]
    args += [y.filter_step * f_y, z.filter_step * f_x, f_group * size]
    args += [out.slot, depth, strip, program.scratch(chunks * pitch), pitch]
    program.launch(source, args + (fused.slots() if fused else []), chunks)


def _fused(epilogue: Epilogue | None, out: Operand) -> FusedEpilogue | None:
    if epilogue is None:
        return None
    n, k, p, q = out.shape
    # The plain result may stand in a strip buffer: it is stored like any other output.
    return fuse(epilogue, (1, 1, n), k, p * q, out.dtype, -1)


def conv2d(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    stride: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair,
    groups: int,
    epilogue: Epilogue | None = None,
) -> None:
    """Append conv2d. x: [N, C, H, W], w: [K, C / groups, R, S], of any strides; out: [N, K, P, Q]."""
    x, w = inputs
    out = outputs[0]
    if epilogue is not None:
        out, _ = result_buffer(program, epilogue, out)
    if out.size == 0:
        return
    fused = None
    channels, rows = w.shape[1], w.shape[0] // groups
    if channels == 0:
        fill_zero(program, out)
    elif conv_direct.applies(groups, rows):
        conv_direct.forward(program, x, w, out, (stride, padding, dilation, groups))
    else:
        fused = _fused(epilogue, out)
        axes = tuple(
            Axis(x.shape[a], out.shape[a], stride[a - 2], w.shape[a], dilation[a - 2], -padding[a - 2][0])
            for a in (2, 3)
        )
        filters = w.strides[0], w.strides[1], rows * w.strides[0]
        _windowed(program, x, w, out, channels, filters, (axes[0], axes[1]), groups, fused)
    if epilogue is not None and fused is None:
        apply_after(program, epilogue, out)


def _phases(size: int, taps: int, out: int, stride: int, pad: int, dilation: int) -> list[Axis]:
    """The axis of the image gradient by image index modulo stride, without phases that no tap reaches."""
    phases = []
    period = stride // math.gcd(stride, dilation)
    for phase in range(min(stride, size)):
        reached = [r for r in range(min(period, taps)) if (phase + pad - r * dilation) % stride == 0]
        if not reached:
            continue
        first = reached[0]
        phases.append(
            Axis(
                out, len(range(phase, size, stride)), 1,
                len(range(first, taps, period)), -(period * dilation // stride),
                (phase + pad - first * dilation) // stride,
                stride, phase, period, first,
            )
        )  # fmt: skip
    return phases


def conv2d_x_grad(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    stride: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair,
    groups: int,
    size: Pair | None = None,
    epilogue: Epilogue | None = None,
) -> None:
    """Append the image gradient. g: [N, K, P, Q], w: [K, C / groups, R, S], out: [N, C, H, W]."""
    g, w = inputs
    out = outputs[0]
    if epilogue is not None:
        out, _ = result_buffer(program, epilogue, out)
    if out.size == 0:
        return
    fused = None
    if g.size == 0:
        fill_zero(program, out)
    elif conv_direct.applies(groups, w.shape[1]):
        conv_direct.image_gradient(program, g, w, out, (stride, padding, dilation, groups))
    else:
        ys, zs = (
            _phases(out.shape[a], w.shape[a], g.shape[a], stride[a - 2], padding[a - 2][0], dilation[a - 2])
            for a in (2, 3)
        )
        if stride == (1, 1):
            fused = _fused(epilogue, out)
        if sum(y.out for y in ys) * sum(z.out for z in zs) < out.shape[2] * out.shape[3]:
            fill_zero(program, out)
            program.wave()
        rows = w.shape[0] // groups
        filters = w.strides[1], w.strides[0], rows * w.strides[0]
        for y in ys:
            for z in zs:
                _windowed(program, g, w, out, rows, filters, (y, z), groups, fused)
    if epilogue is not None and fused is None:
        apply_after(program, epilogue, out)


KERNELS = {"conv2d": conv2d, "conv2d_x_grad": conv2d_x_grad}
