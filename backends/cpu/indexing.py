"""Reading and writing by integer tensors: slices and elements along an axis, picked, put or combined.

Two structures: slices (one index for all of `rest`) and elements (an index each). Moves know the size of an element
only, so dtypes of one size share a kernel; writes that combine know the dtype. Equal positions meet in the order
of the index, whatever the number of threads: chunks share out the leading axes and the columns, never the index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program, Scalar, takes_halves
from ...core.lower import copy, fill, lower_map
from ...core.scalar import Expr
from ...core.types import DType, Shape, int64

#: NaN by the size of an element; complex numbers are pairs
_NAN = {
    "float16": 0x7E00, "bfloat16": 0x7FC0, "float32": 0x7FC00000, "float64": 0x7FF8000000000000,
    "complex64": 0x7FC000007FC00000, "complex128": 0x7FF8000000000000,
}  # fmt: skip
#: columns that a chunk takes at least, so that two threads do not write one cache line
_COLUMNS = 16


def _dense(program: Program, x: Operand, dtype: DType | None = None) -> Operand:
    """x itself when it is contiguous (and of the dtype asked for), else a contiguous copy."""
    if x.is_contiguous and (dtype is None or x.dtype is dtype):
        return x
    full = program.scratch_operand(dtype or x.dtype, x.shape)
    copy(program, x, full)
    program.wave()
    return full


def _index(program: Program, index: Operand) -> Operand:
    """An index as the kernels read it: contiguous, of 32 or 64 bits."""
    return _dense(program, index, None if index.dtype.name in ("int32", "int64") else int64)


def _carrier(dtype: DType) -> tuple[str, int]:
    """The unsigned integer that moves an element, and how many of them one element is."""
    return f"u{8 * min(dtype.itemsize, 8)}", max(1, dtype.itemsize // 8)


def _chunks(program: Program, lead: int, rest: int, work: float) -> tuple[int, int]:
    """How many chunks along the leading axes and along the columns."""
    total = program.chunks(max(lead, 1) * max(rest // _COLUMNS, 1), work)
    along = min(lead, total)
    return along, min(max(rest // _COLUMNS, 1), max(1, total // along))


# ---------------------------------------------------------------- reading


def _lines(carrier: str, index: DType, spot: str) -> str:
    """Single elements of line after line, from `first` to `last`; without branches, so that it becomes vectors."""
    return f"""        row, bad = first, types.int64(0)
        while row < last:
            line = row // count
            base, end = line * n, min(last, (line + 1) * count)
            for row in range(row, end):
                i = types.int64(load_in_{index.char}(idx, {spot}))
                i = i + n if i < 0 else i
                inside = (i >= 0) & (i < n)
                bad |= types.int64(not inside)
                value = load_in_{carrier}(x, base + (i if inside else 0))
                store_out_{carrier}(out, row, value if inside else nothing, 0)
            row = end
        if bad != 0 and report != 0:
            store_i64(report, 0, 1)"""


def _take_source(carrier: str, index: DType) -> str:
    return f"""# take: {carrier} by {index}
def kernel(args, chunk, nchunks):
    x, idx, out = args[0], args[1], args[2]
    lead, n, count, rest, missing, report = args[3], args[4], args[5], args[6], types.uint64(args[7]), args[8]
    nothing = types.uint{carrier[1:]}(missing)
    first, last = share(lead * count, chunk, nchunks), share(lead * count, chunk + 1, nchunks)
    if rest == 1 and n > 0:
{_lines(carrier, index, "row - line * count")}
        return
    j, base, target = first % count, first // count * n, first * rest
    for row in range(first, last):
        i = types.int64(load_in_{index.char}(idx, j))
        if i < 0:
            i += n
        if 0 <= i < n:
            source = (base + i) * rest
            for k in range(rest):
                store_out_{carrier}(out, target + k, load_in_{carrier}(x, source + k), 0)
        else:
            if report != 0:
                store_i64(report, 0, 1)
            for k in range(rest):
                store_out_{carrier}(out, target + k, nothing, 0)
        target += rest
        j += 1
        if j == count:
            j = 0
            base += n
"""


@takes_halves
def take(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, depth: int = 1
) -> None:
    """x[lead, n, rest] by index[count] to out[lead, count, rest]; a slice outside is NaN (integers: 0)."""
    if not outputs[0].size:
        return
    x, index = _dense(program, inputs[0]), _index(program, inputs[1])
    carrier, parts = _carrier(x.dtype)
    lead, rest = math.prod(x.shape[:axis]), math.prod(x.shape[axis + depth :]) * parts
    rows, n = lead * index.size, math.prod(x.shape[axis : axis + depth])
    missing = _NAN.get(x.dtype.name, 0)
    args: list[Arg] = [
        x.slot,
        index.slot,
        outputs[0].slot,
        lead,
        n,
        index.size,
        rest,
        missing,
        program.report(),
    ]
    work = rows * rest * int(carrier[1:]) // 4
    program.launch(_take_source(carrier, index.dtype), args, program.chunks(rows, work))


def _take_elements_source(carrier: str, index: DType) -> str:
    return f"""# take_elements: {carrier} by {index}
def kernel(args, chunk, nchunks):
    x, idx, out = args[0], args[1], args[2]
    lead, n, count, rest, parts, missing = args[3], args[4], args[5], args[6], args[7], types.uint64(args[8])
    nothing, report = types.uint{carrier[1:]}(missing), args[9]
    if rest == 1 and parts == 1 and n > 0:
        first, last = share(lead * count, chunk, nchunks), share(lead * count, chunk + 1, nchunks)
{_lines(carrier, index, "row")}
        return
    rows, bad = lead * count, types.int64(0)
    for row in range(share(rows, chunk, nchunks), share(rows, chunk + 1, nchunks)):
        base = row // count * n
        if parts == 1 and n > 0:  # without branches
            for k in range(rest):
                i = types.int64(load_in_{index.char}(idx, row * rest + k))
                i = i + n if i < 0 else i
                inside = (i >= 0) & (i < n)
                bad |= types.int64(not inside)
                value = load_in_{carrier}(x, (base + (i if inside else 0)) * rest + k)
                store_out_{carrier}(out, row * rest + k, value if inside else nothing, 0)
            continue
        for k in range(rest):
            i = types.int64(load_in_{index.char}(idx, row * rest + k))
            if i < 0:
                i += n
            if not 0 <= i < n:
                bad = 1
            for p in range(parts):
                target = (row * rest + k) * parts + p
                if 0 <= i < n:
                    value = load_in_{carrier}(x, ((base + i) * rest + k) * parts + p)
                    store_out_{carrier}(out, target, value, 0)
                else:
                    store_out_{carrier}(out, target, nothing, 0)
    if bad != 0 and report != 0:
        store_i64(report, 0, 1)
"""


@takes_halves
def take_elements(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int) -> None:
    """x[lead, n, rest] by index[lead, count, rest] to out[lead, count, rest]."""
    if not outputs[0].size:
        return
    x, index = _dense(program, inputs[0]), _index(program, inputs[1])
    carrier, parts = _carrier(x.dtype)
    lead, count, rest = _split(index.shape, axis)
    missing = _NAN.get(x.dtype.name, 0)
    args: list[Arg] = [x.slot, index.slot, outputs[0].slot, lead, x.shape[axis], count, rest, parts, missing]
    args.append(program.report())
    chunks = program.chunks(lead * count, index.size * (index.dtype.itemsize + 2 * x.dtype.itemsize))
    program.launch(_take_elements_source(carrier, index.dtype), args, chunks)


def _split(shape: Shape, axis: int) -> tuple[int, int, int]:
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


# ---------------------------------------------------------------- writing


def _combined(how: str, dtype: DType) -> str:
    """The expression of `old` and `v` that is stored."""
    if dtype.kind == "bool":
        return {"add": "old | v", "multiply": "old & v", "maximum": "old | v", "minimum": "old & v"}[how]
    text = {
        "add": "old + v", "multiply": "old * v", "maximum": "v if v > old or v != v else old",
        "minimum": "v if v < old or v != v else old",
    }[how]  # fmt: skip
    return f"types.{dtype.name}({text})" if dtype.is_integer else text


def _statement(how: str, dtype: DType | str) -> str:
    """What happens at element `t` of out with element `s` of v."""
    if isinstance(dtype, str):
        return f"store_{dtype}(out, t, load_{dtype}(v_, s))"
    c = dtype.char
    return f"""old, v = load_{c}(out, t), load_{c}(v_, s)
                    store_{c}(out, t, {_combined(how, dtype)})"""


def _line(how: str, dtype: DType | str, index: DType, spot: str) -> str:
    """Single elements of one line."""
    return f"""            values, line = l * vl, l * n
            for j in range(count):
                i = types.int64(load_{index.char}(idx, {spot}))
                if i < 0:
                    i += n
                if 0 <= i < n:
                    s, t = values + j * vj, line + i
                    {_statement(how, dtype)}
                elif report != 0:
                    store_i64(report, 0, 1)"""


_HEAD = """    along, across, start, report = args[9], args[10], args[11], args[12]
    a, c = chunk // across, chunk % across
    first, last = share(rest, c, across), share(rest, c + 1, across)
    for l in range(share(lead, a, along), share(lead, a + 1, along)):
"""


def _start(dtype: DType | str) -> str:
    """What is in a line before the values come: `start` is where it is read, 0 for zeros, or the result itself."""
    c = dtype if isinstance(dtype, str) else dtype.char
    return f"""        if start == 0:
            for k in range(l * n * rest, (l + 1) * n * rest):
                store_{c}(out, k, 0)
        elif start != out:
            for k in range(l * n * rest, (l + 1) * n * rest):
                store_out_{c}(out, k, load_in_{c}(start, k), 0)
"""


def _put_source(how: str, dtype: DType | str, index: DType) -> str:
    return f"""# put_slices, {how}: {dtype} by {index}
def kernel(args, chunk, nchunks):
    v_, idx, out = args[0], args[1], args[2]
    lead, n, count, rest, vl, vj = args[3], args[4], args[5], args[6], args[7], args[8]
{_HEAD}{_start(dtype)}        if rest == 1:
{_line(how, dtype, index, "j")}
            continue
        for j in range(count):
            i = types.int64(load_{index.char}(idx, j))
            if i < 0:
                i += n
            if 0 <= i < n:
                source, target = l * vl + j * vj, (l * n + i) * rest
                for k in range(first, last):
                    s, t = source + k, target + k
                    {_statement(how, dtype)}
            elif report != 0:
                store_i64(report, 0, 1)
"""


def _put_elements_source(how: str, dtype: DType | str, index: DType) -> str:
    return f"""# put_elements, {how}: {dtype} by {index}
def kernel(args, chunk, nchunks):
    v_, idx, out = args[0], args[1], args[2]
    lead, n, count, rest, vl, vj = args[3], args[4], args[5], args[6], args[7], args[8]
{_HEAD}{_start(dtype)}        if rest == 1:
{_line(how, dtype, index, "l * count + j")}
            continue
        for j in range(count):
            for k in range(first, last):
                i = types.int64(load_{index.char}(idx, (l * count + j) * rest + k))
                if i < 0:
                    i += n
                if 0 <= i < n:
                    s, t = l * vl + j * vj + k, (l * n + i) * rest + k
                    {_statement(how, dtype)}
                elif report != 0:
                    store_i64(report, 0, 1)
"""


def _values(
    program: Program, v: Any, dtype: DType, count: int, rest: int, n_rest: int
) -> tuple[Operand, int, int]:
    """Values and their steps along the leading axes and the index; a number is one row of them."""
    if isinstance(v, Scalar):
        row = program.scratch_operand(dtype, (rest,))
        lower_map(program, (rest,), [v], [Expr("arg", dtype, (), 0)], [row], ("values",))
        program.wave()
        return row, 0, 0
    inner = len(v.shape) - n_rest
    repeated = all(st == 0 or m == 1 for m, st in zip(v.shape[:inner], v.strides[:inner]))
    part = v._replace(shape=v.shape[inner:], strides=v.strides[inner:])
    if repeated and part.is_contiguous:
        return part, 0, 0
    return _dense(program, v), count * rest, rest


def _write(
    program: Program, source: Any, how: str, out: Operand, start: Operand | None, index: Operand, v: Any,
    sizes: tuple[int, int, int, int], n_rest: int, indices: int,
) -> None:  # fmt: skip
    """Launch a write of v at the index into out[lead, n, rest], values [lead, count, rest].

    start: what is in it before, None for zeros. Where chunks share out whole lines they begin with that themselves.
    """
    lead, n, count, rest = sizes
    full = out if out.is_contiguous else program.scratch_operand(out.dtype, out.shape)
    size = out.dtype.itemsize
    work = lead * count * rest * size * 3 + indices * index.dtype.itemsize
    writes = lead * n * count * rest
    along, across = _chunks(program, lead, rest, work) if writes else (1, 1)
    apart = across > 1 or along < program.chunks(lead * n * rest, lead * n * rest * size * 2)
    if apart or not writes or (start is not None and not start.is_contiguous):
        if start is None:
            fill(program, 0, full)
        else:
            copy(program, start, full)
        program.wave()
        start = full
    if writes:
        index = _index(program, index)
        values, vl, vj = _values(program, v, out.dtype, count, rest, n_rest)
        dtype: DType | str = out.dtype
        if how == "set" and size <= 8:
            dtype = _carrier(out.dtype)[0]
        args: list[Arg] = [values.slot, index.slot, full.slot, lead, n, count, rest, vl, vj, along, across]
        args += [0 if start is None else start.slot, program.report()]
        program.launch(source(how, dtype, index.dtype), args, along * across)
    if full is not out:
        program.wave()
        copy(program, full, out)


def _put(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], how: str, axis: int, depth: int
) -> None:
    x, index, v = inputs
    out = outputs[0]
    lead, n = math.prod(out.shape[:axis]), math.prod(out.shape[axis : axis + depth])
    tail = out.shape[axis + depth :]
    sizes = lead, n, index.size, math.prod(tail)
    _write(program, _put_source, how, out, x, index, v, sizes, len(tail), index.size)


def put_slices(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, depth: int, add: bool
) -> None:
    """x with v[lead, count, rest] put (or added) at index[count] of [lead, n, rest]."""
    _put(program, inputs, outputs, "add" if add else "set", axis, depth)


def combine_slices(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, depth: int, reduce: str
) -> None:
    """The same, old and new values multiplied, or the larger or smaller kept."""
    _put(program, inputs, outputs, reduce, axis, depth)


def _put_each(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], how: str, axis: int
) -> None:
    x, index, v = inputs
    out = outputs[0]
    lead, count, rest = _split(index.shape, axis)
    sizes = lead, out.shape[axis], count, rest
    _write(
        program, _put_elements_source, how, out, x, index, v, sizes, len(index.shape) - axis - 1, index.size
    )


def put_elements(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, add: bool
) -> None:
    """x with v put (or added) at index[lead, count, rest] of [lead, n, rest]."""
    _put_each(program, inputs, outputs, "add" if add else "set", axis)


def combine_elements(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, reduce: str
) -> None:
    """The same, old and new values multiplied, or the larger or smaller kept."""
    _put_each(program, inputs, outputs, reduce, axis)


def take_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, axis: int
) -> None:
    """dy[lead, count, rest] added up into zeros [lead, size, rest] at the index."""
    dy, index = inputs
    out = outputs[0]
    lead, rest = math.prod(out.shape[:axis]), math.prod(out.shape[axis + 1 :])
    sizes = lead, size, index.size, rest
    _write(program, _put_source, "add", out, None, index, dy, sizes, len(out.shape) - axis - 1, index.size)


def take_elements_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, axis: int
) -> None:
    """dy[lead, count, rest] added up into zeros [lead, size, rest] at the index, of the same shape."""
    dy, index = inputs
    out = outputs[0]
    lead, count, rest = _split(index.shape, axis)
    sizes = lead, size, count, rest
    _write(
        program,
        _put_elements_source,
        "add",
        out,
        None,
        index,
        dy,
        sizes,
        len(out.shape) - axis - 1,
        index.size,
    )


# ---------------------------------------------------------------- repetition


def _repeat_source(counts: DType) -> str:
    return f"""# repeat_places: {counts}
def kernel(args, chunk, nchunks):
    counts, out, n, total = args[0], args[1], args[2], args[3]
    t = 0
    for k in range(n):
        for _ in range(types.int64(load_{counts.char}(counts, k))):
            if t < total:
                store_i64(out, t, k)
                t += 1
    while t < total:
        store_i64(out, t, n)
        t += 1
"""


def repeat_places(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, total: int) -> None:
    """Position k, counts[k] times; n where the counts add up to less."""
    if total:
        counts = _index(program, inputs[0])
        args: list[Arg] = [counts.slot, outputs[0].slot, counts.size, total]
        program.launch(_repeat_source(counts.dtype), args)


KERNELS: dict[str, Kernel] = {
    "take": take, "take_placed": take, "take_elements": take_elements, "take_x_grad": take_x_grad,
    "take_elements_placed": take_elements, "take_elements_x_grad": take_elements_x_grad,
    "put_slices": put_slices,
    "combine_slices": combine_slices, "put_elements": put_elements, "combine_elements": combine_elements,
    "repeat_places": repeat_places,
}  # fmt: skip
