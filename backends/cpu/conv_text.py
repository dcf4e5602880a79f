"""What the kernels of `conv.py` and `conv_pixels.py` share: their first slots, and where results go."""

from __future__ import annotations

from ...core.backend import Arg
from .conv_axes import Product, output_steps
from .epilogue import indent

#: reads the slots that `first_slots` gives
HEAD = """
    images, groups, channels, rows_all, row_block = args[0], args[1], args[2], args[3], args[4]
    d, o, step_z, taps_z, tap_z, origin_z = args[5], args[6], args[7], args[8], args[9], args[10]
    h, p, step_y, taps_y, tap_y, origin_y = args[11], args[12], args[13], args[14], args[15], args[16]
    w, q, step_x, taps_x, tap_x, origin_x = args[17], args[18], args[19], args[20], args[21], args[22]
    out_z, out_y, out_x = args[23], args[24], args[25]
    out_area, out_line, out_plane, out_first = args[26], args[27], args[28], args[29]
    x, x_n, x_c, x_z, x_y, x_x = args[30], args[31], args[32], args[33], args[34], args[35]""".lstrip("\n")


def first_slots(product: Product, rows: int, row_block: int) -> list[Arg]:
    """Slots 0 to 35. rows: filters of a group; row_block: of a task."""
    x, out = product.x, product.out
    args: list[Arg] = [x.shape[0], product.groups, product.channels, rows, row_block]
    for a in product.axes:
        args += [a.size, a.out, a.step, a.taps, a.tap_step, a.origin]
    args += [*(a.out_step for a in product.axes), *output_steps(out, product.axes)]
    return [*args, x.slot, *(s * out.dtype.itemsize for s in x.strides)]


# Runs of pixels that are neighbours in the output: one image, or one line when lines have gaps.
_RUNS = """
done = 0
image, pixel = image0, pixel0
while done < strip_columns:
    column = mod_i64(pixel, q)
    block_cols = min_i64(strip_columns - done, pixels - pixel if dense else q - column)
    out_at = (image * groups * rows_all + group * rows_all + ROW) * out_plane
    out_at += out_first + div_i64(pixel, area) * out_z * out_area + column * out_x
    out_at += div_i64(mod_i64(pixel, area), q) * out_y * out_line
    out_step = out_plane
BEGIN
    if dense:
FINISH
    else:
        for k in range(block_rows):
            for j in range(block_cols):
                value = load_T(result, result_at + k * result_step + j)
                store_T(c, out_at + k * out_step + j * out_x, value)
    done += block_cols
    pixel += block_cols
    if pixel == pixels:
        pixel = 0
        image += 1
"""


def run_lines(char: str, row: str, begin: str, finish: list[str]) -> str:
    """Text, twelve spaces in, that hands the results of a task on in runs of pixels.

    row: the first filter of block_rows; begin: a line that says where a run's results are; finish: lines for a
    run without gaps.
    """
    text = _RUNS.strip().replace("_T(", f"_{char}(").replace("ROW", row).replace("BEGIN", "    " + begin)
    return indent(text.replace("FINISH", indent(finish, 8).rstrip("\n")).splitlines(), 12)
