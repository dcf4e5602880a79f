"""Reading and writing by integer tensors: slices and elements along an axis, picked, put or combined.

Two structures: slices (one index for all of `rest`) and elements (an index each). Moves know the size of an element
only, so dtypes of one size share a kernel; writes that combine know the dtype. Equal positions meet in the order
of the index, whatever the number of threads: chunks share out the leading axes and the columns, never the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program, Scalar
from ...core.lower import copy, fill, lower_map
from ...core.picked import NAN, Picks, carrier, kernels
from ...core.scalar import Expr
from ...core.types import DType, int64

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


def _pick(program: Program, x: Operand, index: Operand, out: Operand, p: Picks) -> None:
    """x[lead, n, rest] at the index to out[lead, count, rest]; what is outside is NaN (integers: 0)."""
    if not out.size:
        return
    x, index = _dense(program, x), _index(program, index)
    unit, parts = carrier(x.dtype)
    missing = NAN.get(x.dtype.name, 0)
    args: list[Arg] = [x.slot, index.slot, out.slot, p.lead, p.n, p.picks]
    if p.each:
        args += [p.rest, parts, missing, program.report()]
        chunks = program.chunks(p.lead * p.picks, index.size * (index.dtype.itemsize + 2 * x.dtype.itemsize))
        program.launch(_take_elements_source(unit, index.dtype), args, chunks)
    else:
        args += [p.rest * parts, missing, program.report()]
        rows = p.lead * p.picks
        chunks = program.chunks(rows, rows * p.rest * parts * int(unit[1:]) // 4)
        program.launch(_take_source(unit, index.dtype), args, chunks)


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


def _put(
    program: Program, how: str, out: Operand, start: Operand | None, index: Operand, v: Any, p: Picks
) -> None:
    """Launch a write of values [lead, count, rest] at the index into out [lead, n, rest].

    start: what is in it before, None for zeros. Where chunks share out whole lines they begin with that themselves.
    """
    lead, n, count, rest = p.lead, p.n, p.picks, p.rest
    full = out if out.is_contiguous else program.scratch_operand(out.dtype, out.shape)
    size = out.dtype.itemsize
    work = lead * count * rest * size * 3 + index.size * index.dtype.itemsize
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
        values, vl, vj = _values(program, v, out.dtype, count, rest, p.tail)
        dtype: DType | str = out.dtype
        if how == "set" and size <= 8:
            dtype = carrier(out.dtype)[0]
        args: list[Arg] = [values.slot, index.slot, full.slot, lead, n, count, rest, vl, vj, along, across]
        args += [0 if start is None else start.slot, program.report()]
        source = _put_elements_source if p.each else _put_source
        program.launch(source(how, dtype, index.dtype), args, along * across)
    if full is not out:
        program.wave()
        copy(program, full, out)


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


KERNELS: dict[str, Kernel] = {**kernels(_pick, _put), "repeat_places": repeat_places}
