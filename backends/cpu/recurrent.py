"""Recurrent layers: one launch runs all steps of a layer; recurrent weights are packed once and stay in the cache.

Threads share out the batch: rows do not meet, so a thread runs all steps of its rows and waits for nobody. At
each step the rows whose sequence is that long are listed; the product with the weights runs over the listed
rows, then the gates are computed row by row. A row's numbers do not depend on who else is in the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Kernel, Operand, Program, leaves_out
from ...core.lower import copy, fill
from ...core.types import DType
from .blocks import apart
from .epilogue import indent
from .gemm_text import TURN, low_rows, reads_rows
from .panels import IMPORT, Block, block, pack, product_block
from .target import has_quarters

#: Gates of a cell (rows of its weights, in units of the hidden size).
GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}


#: Bytes of a line of the cache.
LINE = 64
#: Rows of a small block. A block takes as long for one row as for all of its own: half a block is done by small ones.
_SMALL = 2


def tile_of(dtype: DType) -> Block:
    """The register block: wider than that of convolutions where registers allow, for a thread has few rows."""
    tile = product_block(dtype)
    if reads_rows(tile):
        return tile
    tile = block(dtype)
    return tile._replace(vectors=3) if tile.lanes * dtype.itemsize == 64 else tile


def _load(c: str, name: str, plane: int | str = 0) -> str:
    at = f"{name}_at + lane" if plane == 0 else f"{name}_at + {plane} * hidden + lane"
    return f"w_load_{c}({name}, {at}, inside)"


def _store(c: str, name: str, value: str, plane: int = 0) -> str:
    at = f"{name}_at + lane" if plane == 0 else f"{name}_at + {plane} * hidden + lane"
    return f"w_store_{c}({name}, {at}, {value}, inside)"


def _kept(c: str, name: str, values: Sequence[str]) -> list[str]:
    """Lines that store what the way back reads, if somebody does."""
    return [f"if {name} != 0:", *("    " + _store(c, name, v, k) for k, v in enumerate(values))]


def _forward_cell(cell: str, c: str) -> list[str]:
    """Lines that compute a row's new state at 16 hidden units."""

    def pre(k: int) -> str:
        return f"w_add_{c}({_load(c, 'p', k)}, {_load(c, 'x', k)})"

    if cell in ("tanh", "relu"):
        value = f"w_tanh_{c}({pre(0)})" if cell == "tanh" else f"w_maximum_{c}({pre(0)}, zero)"
        return [f"new = {value}", _store(c, "h", "new"), _store(c, "y", "new")]
    if cell == "lstm":
        return [
            *(f"v{k} = {_load(c, 'v', k)}" for k in range(4)),
            f"cell = w_add_{c}(w_mul_{c}(v1, {_load(c, 'c')}), w_mul_{c}(v0, v2))",
            f"new = w_mul_{c}(v3, w_tanh_{c}(cell))",
            *(_store(c, name, value) for name, value in (("c", "cell"), ("h", "new"), ("y", "new"))),
            *_kept(c, "cells", ["cell"]),
        ]
    bias = [f"w_load_{c}(b, {k} * hidden + lane, inside)" for k in range(3)]
    return [
        f"v0 = w_sigmoid_{c}(w_add_{c}({pre(0)}, {bias[0]}))",
        f"v1 = w_sigmoid_{c}(w_add_{c}({pre(1)}, {bias[1]}))",
        f"v3 = w_add_{c}({_load(c, 'p', 2)}, {bias[2]})",
        f"v2 = w_tanh_{c}(w_add_{c}({_load(c, 'x', 2)}, w_mul_{c}(v0, v3)))",
        f"new = w_add_{c}(v2, w_mul_{c}(v1, w_sub_{c}({_load(c, 'h')}, v2)))",
        *(_store(c, "h", "new"), _store(c, "y", "new")),
        *_kept(c, "gates", ["v0", "v1", "v2", "v3"]),
    ]


def _lstm_gates(c: str) -> str:
    """Lines that compute the gates of a row, to where they are kept or in place of the product.

    A loop each: short independent chains keep a CPU busier than all of the cell at once.
    """
    text = """            v, v_at = p, p_at
            if gates != 0:
                v, v_at = gates, gates_at
"""
    for function, first, last in (("sigmoid", 0, 2), ("tanh", 2, 3), ("sigmoid", 3, 4)):
        value = f"w_{function}_{c}(w_add_{c}({_load(c, 'p')}, {_load(c, 'x')}))"
        text += _over_units(c, [_store(c, "v", value)], f"{first} * hidden", f"{last} * hidden")
    return text


def _over_units(c: str, lines: Sequence[str], first: str, last: str) -> str:
    """A loop over the elements of a row from `first` to `last`; the lines see `lane` and the mask `inside`.

    Where exponentials are computed eight at a time, two wide values go side by side as far as they are whole.
    """
    parts = [(first, last, "16", f"w_mask({last}, lane)")]
    if c == "f32" and has_quarters():
        whole = f"{first} + ({last} - {first}) // 32 * 32"
        parts = [(first, whole, "32", "w_pair()"), (whole, *parts[0][1:])]
    text = ""
    for start, end, step, mask in parts:
        text += f"""            for lane in range({start}, {end}, {step}):
                inside = {mask}
{indent(lines, 16)}"""
    return text


def _backward_cell(cell: str, c: str) -> list[str]:
    """Lines that turn a row's gradient of the new state, gh, into those of the gates and of the old state."""

    def slope(gate: str, value: str) -> str:
        """value times the derivative of the sigmoid whose value is gate."""
        return f"w_mul_{c}(w_mul_{c}({value}, {gate}), w_sub_{c}(one, {gate}))"

    def tanh_slope(gate: str, value: str) -> str:
        return f"w_mul_{c}({value}, w_sub_{c}(one, w_mul_{c}({gate}, {gate})))"

    first = [f"gh = w_add_{c}({_load(c, 'dy')}, {_load(c, 'dh')})"]
    if cell == "tanh":
        return [*first, f"v0 = {_load(c, 'out')}", _store(c, "dx", tanh_slope("v0", "gh"))]
    if cell == "relu":
        positive = f"w_gt_{c}({_load(c, 'out')}, zero)"
        return [*first, _store(c, "dx", f"w_where_{c}({positive}, gh, zero)")]
    first += [f"v{k} = {_load(c, 'gates', k)}" for k in range(4)]
    if cell == "lstm":
        return [
            *first,
            f"bent = w_tanh_{c}({_load(c, 'cells')})",
            f"gc = w_add_{c}({_load(c, 'dc')}, {tanh_slope('bent', f'w_mul_{c}(gh, v3)')})",
            _store(c, "dx", slope("v0", f"w_mul_{c}(gc, v2)"), 0),
            _store(c, "dx", slope("v1", f"w_mul_{c}(gc, {_load(c, 'before')})"), 1),
            _store(c, "dx", tanh_slope("v2", f"w_mul_{c}(gc, v0)"), 2),
            _store(c, "dx", slope("v3", f"w_mul_{c}(gh, bent)"), 3),
            _store(c, "dc", f"w_mul_{c}(gc, v1)"),
        ]
    difference = f"w_sub_{c}({_load(c, 'before')}, v2)"
    return [
        *first,
        f"g2 = {tanh_slope('v2', f'w_mul_{c}(gh, w_sub_{c}(one, v1))')}",
        f"g0 = {slope('v0', f'w_mul_{c}(g2, v3)')}",
        f"g1 = {slope('v1', f'w_mul_{c}(gh, {difference})')}",
        *(_store(c, "dx", f"g{k}", k) for k in range(3)),
        *(_store(c, "du", name, k) for k, name in enumerate(("g0", "g1", f"w_mul_{c}(g2, v0)"))),
        _store(c, "p", f"w_mul_{c}(gh, v1)"),
    ]


def _head(c: str) -> str:
    name = "float32" if c == "f32" else "float64"
    return f"""{IMPORT}
def kernel(args, chunk, nchunks):
    steps, batch, hidden, reverse, lengths = args[0], args[1], args[2], args[3], args[4]
    first, last = div_i64(batch * chunk, nchunks), div_i64(batch * (chunk + 1), nchunks)
    zero, one = types.{name}(0), types.{name}(1)
    weights, depth, width, share = args[5], args[6], args[7], args[8]
    own = args[9] + chunk * args[10]
    listed, p = own, own + args[11]
    packed, some = own + args[12], own + args[13]
"""


class _Area(NamedTuple):
    """Rows of an array [steps, batch, planes * hidden] that the gates read or write at step `step`, if it is there."""

    name: str
    planes: int
    step: str


def _fetching(areas: Sequence[_Area], size: int, step: str) -> tuple[str, list[str]]:
    """Lines before a product, and lines in it that choose what blocks fetch, `fetched` bytes on; step: for each k."""
    before, inside = "        fetched = end = 0\n", ["later, later_step = weights, 0"]
    for k, (name, planes, at) in enumerate(areas):
        before += f"""        start{k} = {name} + (({at}) * batch + first) * {planes} * hidden * {size} - end
        end += 0 if {name} == 0 else (last - first) * {planes} * hidden * {size}
        end{k} = end
"""
        inside += [
            f"{'elif' if k else 'if'} fetched < end{k}:",
            f"    later, later_step = start{k} + fetched, {step}",
        ]
    return before, inside


def _product(
    c: str, size: int, tile: Block, source: str, row: str, accumulate: int, areas: Sequence[_Area]
) -> str:
    """The product of the listed rows of `source`, where row n begins at element `row`, with the weights, to p.

    p: [listed, width]. Meanwhile lines of `areas` come into the second-level cache.
    """
    text = f"""        n = first
        here = {source} + ({row}) * {size}
        n = first + 1
        row_step = {source} + ({row}) * {size} - here
        if active < last - first:
            here, row_step = some, depth * {size}
            for a in range(active):
                n = load_i64(listed, a)
                at = {row}
                for lane in range(0, depth, 16):
                    inside = w_mask(depth, lane)
                    w_store_{c}(some, a * depth + lane, w_load_{c}({source}, at + lane, inside), inside)
"""
    make = _product_in_place if reads_rows(tile) else _product_packed
    return text + make(c, size, tile, accumulate, areas)


def _product_in_place(c: str, size: int, tile: Block, accumulate: int, areas: Sequence[_Area]) -> str:
    """Rows are read where they stand, panel by panel, each of which fetches as many lines."""
    before, inside = _fetching(areas, size, "quota_step")
    multiply = apart(f"multiply_rows_{c}", TURN, size, low_rows(tile), tile.rows, tile.vectors, tile.lanes)
    couple = apart(f"multiply_couple_{c}", TURN, size, _SMALL, 2 * tile.vectors, tile.lanes)
    operands = f"depth, here, row_step, panel, {tile.width * size}, p + j * {size}, width * {size}, active, columns, "
    operands += str(accumulate)
    return f"""{before}        blocks = div_i64(active + {tile.rows - 1}, {tile.rows})
        quota = div_i64(end, div_i64(width + {tile.width - 1}, {tile.width})) // {LINE} * {LINE} + {LINE}
        quota_step = div_i64(quota, blocks * depth) + 1
        panels = {2 * tile.width} if active <= {_SMALL} else {tile.width}
        j = 0
        while j < width:
{indent(inside, 12)}            panel, columns = weights + j * depth * {size}, min_i64(panels, width - j)
            fetched += quota
            if active <= {_SMALL}:
                fetched += quota
                {couple}({operands}, later, later_step)
            else:
                {multiply}({operands}, later, later_step, -1)
            j += panels
"""


def _product_packed(c: str, size: int, tile: Block, accumulate: int, areas: Sequence[_Area]) -> str:
    """The rows are packed first: the product needs fewer instructions then."""
    side = tile.rows
    strip = min(side, tile.lanes)
    before, inside = _fetching(areas, size, f"{LINE // TURN}")
    small, large = (
        apart(f"multiply_packed_{c}", TURN, size, side * size, rows, tile.vectors, tile.lanes)
        for rows in (_SMALL, side)
    )
    return f"""        for i in range(0, active, {strip}):
            there = packed + (div_i64(i, {side}) * {side} * depth + mod_i64(i, {side})) * {size}
            from_row = here + i * row_step
            for k in range(0, depth, {tile.lanes}):
                transpose_lanes_{c}(
                    there + k * {side * size}, {side * size}, from_row + k * {size}, row_step,
                    min_i64({strip}, active - i), min_i64({tile.lanes}, depth - k), {strip}, {tile.lanes},
                )
{before}        for j in range(0, width, {tile.width}):
            i = 0
            while i < active:
{indent(inside, 16)}                near = packed + (div_i64(i, {side}) * {side} * depth + mod_i64(i, {side})) * {size}
                to, columns = p + (i * width + j) * {size}, min_i64({tile.width}, width - j)
                if active - i <= {side // 2}:
                    {small}(
                        depth, near, weights + j * depth * {size}, {tile.width * size}, to, width * {size},
                        min_i64({_SMALL}, active - i), columns, {accumulate}, later, later_step,
                    )
                    i += {_SMALL}
                else:
                    {large}(
                        depth, near, weights + j * depth * {size}, {tile.width * size}, to, width * {size},
                        min_i64({side}, active - i), columns, {accumulate}, later, later_step,
                    )
                    i += {side}
                fetched += depth * {LINE // TURN}
"""


def _zero_rows(c: str, planes: Sequence[tuple[str, int]]) -> str:
    """Zeros at step t of row n in arrays [steps, batch, planes * hidden]; none where the address is 0."""
    text = ""
    for name, count in planes:
        text += f"""                for lane in range(0, {count} * hidden if {name} != 0 else 0, 16):
                    here = (t * batch + n) * {count} * hidden + lane
                    w_store_{c}({name}, here, zero, w_mask({count} * hidden, lane))
"""
    return text


def _copy_rows(c: str, source: str, target: str) -> str:
    return f"""        for lane in range(0, hidden, 16):
            inside = w_mask(hidden, lane)
            w_store_{c}({target}, n * hidden + lane, w_load_{c}({source}, n * hidden + lane, inside), inside)
"""


@functools.cache
def _forward_source(dtype: DType, tile: Block, cell: str) -> str:
    c, size, rows, gates = dtype.char, dtype.itemsize, tile.rows, GATES[cell]
    kept = {"lstm": [("gates", 4), ("cells", 1)], "gru": [("gates", 4)]}.get(cell, [])
    names = {"lstm": ["c0", "c", "gates", "cells"], "gru": ["b", "gates"]}.get(cell, [])
    slots = "".join(f"    {name} = args[{18 + k}]\n" for k, name in enumerate(names))
    areas = [_Area(name, planes, "t") for name, planes in (("x", gates), *reversed(kept), ("y", 1))]
    places = {"lstm": "            c_at, gates_at, cells_at = n * hidden, row * 4 * hidden, row * hidden\n"}
    places["gru"] = "            gates_at = row * 4 * hidden\n"
    loops = (_lstm_gates(c) if cell == "lstm" else "") + _over_units(c, _forward_cell(cell, c), "0", "hidden")
    return f"""# recurrent {cell} {c} in blocks of {rows} x {tile.width}
{_head(c)}    x, h0, h, y = args[14], args[15], args[16], args[17]
{slots}    for n in range(first, last):
{_copy_rows(c, "h0", "h")}{_copy_rows(c, "c0", "c") if cell == "lstm" else ""}    for step in range(steps):
        t = steps - 1 - step if reverse else step
        active = 0
        for n in range(first, last):
            if lengths == 0 or t < load_i64(lengths, n):
                store_i64(listed, active, n)
                active += 1
            else:
{_zero_rows(c, [("y", 1), *kept])}        if active == 0:
            continue
{_product(c, size, tile, "h", "n * hidden", 0, areas)}        for a in range(active):
            n = load_i64(listed, a)
            row = t * batch + n
            p_at, x_at, h_at, y_at = a * {gates} * hidden, row * {gates} * hidden, n * hidden, row * hidden
{places.get(cell, "")}{loops}"""


@functools.cache
def _backward_source(dtype: DType, tile: Block, cell: str) -> str:
    c, size, rows, gates = dtype.char, dtype.itemsize, tile.rows, GATES[cell]
    names = ["dy", "dh_last", "dh", "out", "dx"]
    names += {"lstm": ["gates", "cells", "c0", "dc_last", "dc"], "gru": ["gates", "h0", "du"]}.get(cell, [])
    slots = "".join(f"    {name} = args[{14 + k}]\n" for k, name in enumerate(names))
    source = "du" if cell == "gru" else "dx"
    sign = "(1 if reverse else -1)"
    planes = {"dx": gates, "dy": 1, **{"lstm": {"gates": 4}, "gru": {"gates": 4, "du": 3}}.get(cell, {})}
    areas = [_Area(name, count, f"t + {sign}") for name, count in planes.items()]
    areas.append(_Area("cells" if cell == "lstm" else "out", 1, f"t + 2 * {sign}"))
    product = _product(
        c, size, tile, source, f"(t * batch + n) * {gates} * hidden", int(cell == "gru"), areas
    )
    zeroed = [("dx", gates), *([("du", gates)] if cell == "gru" else [])]
    places = ""
    if cell in ("lstm", "gru"):
        kept, start = ("cells", "c0") if cell == "lstm" else ("out", "h0")
        extra = "cells_at, dc_at = row * hidden, n * hidden" if cell == "lstm" else "du_at = row * 3 * hidden"
        places = f"""            gates_at = row * 4 * hidden
            {extra}
            end = steps
            if lengths != 0:
                end = min_i64(steps, load_i64(lengths, n))
            # The state before this step.
            earlier = t + 1 if reverse else t - 1
            before, before_at = {kept}, (earlier * batch + n) * hidden
            if earlier < 0 or earlier >= end:
                before, before_at = {start}, n * hidden
"""
    return f"""# recurrent_grad {cell} {c} in blocks of {rows} x {tile.width}
{_head(c)}{slots}    for n in range(first, last):
{_copy_rows(c, "dh_last", "dh")}{_copy_rows(c, "dc_last", "dc") if cell == "lstm" else ""}    for step in range(steps):
        t = step if reverse else steps - 1 - step
        active = 0
        for n in range(first, last):
            if lengths == 0 or t < load_i64(lengths, n):
                store_i64(listed, active, n)
                active += 1
            else:
{_zero_rows(c, zeroed)}        if active == 0:
            continue
        for a in range(active):
            n = load_i64(listed, a)
            row = t * batch + n
            p_at, dy_at, dh_at, out_at = a * hidden, row * hidden, n * hidden, row * hidden
            dx_at = row * {gates} * hidden
{places}{_over_units(c, _backward_cell(cell, c), "0", "hidden")}{product}        for a in range(active):
            n = load_i64(listed, a)
            for lane in range(0, hidden, 16):
                inside = w_mask(hidden, lane)
                w_store_{c}(dh, n * hidden + lane, w_load_{c}(p, a * hidden + lane, inside), inside)
"""


def _dense(program: Program, x: Operand) -> Operand:
    if x.is_contiguous:
        return x
    with program.prepared(x):
        full = program.scratch_operand(x.dtype, x.shape)
        copy(program, x, full)
    return full


def _head_args(
    program: Program, weights: Operand, lengths: Operand | None, sizes: tuple[int, int, int], reverse: bool,
    depth: int, width: int, tile: Block,
) -> tuple[list[Arg], int]:  # fmt: skip
    """Slots of `_head`, and the number of chunks."""
    steps, batch, hidden = sizes
    size = weights.dtype.itemsize
    work = steps * tile.work(batch, width, depth)
    chunks = min(program.chunks(-(-2 * batch // tile.rows), work), program.backend.num_threads())
    share = -(-batch // chunks)
    side = tile.rows
    areas = [8 * share, share * width * size]
    areas.append(0 if reads_rows(tile) else -(-share // side) * side * depth * size)
    areas.append(share * depth * size if lengths is not None else 0)
    starts = [0]
    for area in areas:
        starts.append(starts[-1] + -(-area // 64) * 64)
    args: list[Arg] = [steps, batch, hidden, int(reverse), 0 if lengths is None else lengths.slot]
    args += [
        weights.slot,
        depth,
        width,
        share,
        program.scratch(chunks * starts[-1]),
        starts[-1],
        *starts[1:4],
    ]
    return args, chunks


@leaves_out
def recurrent(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, cell: str, reverse: bool
) -> None:
    """Append a layer's steps from projected inputs x [T, N, gates * H] and weights w [gates * H, H].

    What only the way back reads is not written where it is None; the other outputs are always there.
    """
    x, w, h0, c0, b, lengths = inputs
    y, h, *kept = outputs
    steps, batch, hidden = y.shape
    if cell == "lstm" and kept[0] is None:  # it holds the state between steps
        kept[0] = program.scratch_operand(h.dtype, h.shape)
    if y.size == 0:
        copy(program, h0, h)
        if cell == "lstm":
            copy(program, c0, kept[0])
        return
    tile = tile_of(x.dtype)
    x, h0, lengths = _dense(program, x), _dense(program, h0), lengths and _dense(program, lengths)
    rest: list[Operand] = []
    if cell == "lstm":
        rest = [_dense(program, c0), *kept]
    elif cell == "gru":
        rest = [_dense(program, b), *kept]
    width = w.shape[0]
    strides = (1, 1, 1), (0, 0, 0)
    with program.prepared(w):
        weights = pack(
            program, w, width, w.strides[0], hidden, w.strides[1], *strides, tile.width, tile.lanes
        )
    args, chunks = _head_args(program, weights, lengths, (steps, batch, hidden), reverse, hidden, width, tile)
    program.wave()
    args += [0 if o is None else o.slot for o in (x, h0, h, y, *rest)]
    program.launch(_forward_source(x.dtype, tile, cell), args, chunks)


def recurrent_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, cell: str, reverse: bool
) -> None:
    """Append the walk back through time: gradients of the projected inputs and of the first state."""
    dy, dh_last, w, y, h0, dc_last, c0, gates, cells, lengths = inputs
    dx, dh, *others = outputs
    steps, batch, hidden = y.shape
    if y.size == 0:
        fill(program, 0, dx)
        copy(program, dh_last, dh)
        for out in others:
            if cell == "lstm":
                copy(program, dc_last, out)
            else:
                fill(program, 0, out)
        return
    tile = tile_of(y.dtype)
    dense = [_dense(program, o) for o in (dy, dh_last)]
    lengths = lengths and _dense(program, lengths)
    rest: list[Operand] = [dh, _dense(program, y), dx]
    if cell == "lstm":
        rest += [*(_dense(program, o) for o in (gates, cells, c0, dc_last)), others[0]]
    elif cell == "gru":
        rest += [_dense(program, gates), _dense(program, h0), others[0]]
    depth = w.shape[0]
    strides = (1, 1, 1), (0, 0, 0)
    with program.prepared(w):
        weights = pack(
            program, w, hidden, w.strides[1], depth, w.strides[0], *strides, tile.width, tile.lanes
        )
    args, chunks = _head_args(program, weights, lengths, (steps, batch, hidden), reverse, depth, hidden, tile)
    program.wave()
    args += [o.slot for o in (*dense, *rest)]
    program.launch(_backward_source(y.dtype, tile, cell), args, chunks)


KERNELS: dict[str, Kernel] = {"recurrent": recurrent, "recurrent_grad": recurrent_grad}
