"""Reading and writing by integer tensors on a GPU: `pick.cuh` says how.

Writes that meet do so in the order of the index, as on the CPU, with no atomics. Where there are many lines or few
values, a thread takes a line (of one column) and goes along the index. Else the positions are sorted, which keeps
their order, and each element of the result takes what is its own. Both give the same bits.

Whether an index is outside is looked up before (`Op.values_rule`): a kernel cannot tell the host without a wait.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Kernel, Operand, Program, Scalar
from ...core.lower import copy, fill, lower_map
from ...core.picked import NAN, Picks, carrier, kernels
from ...core.scalar import Expr
from ...core.types import DTYPES, DType, int64
from .sort import sorted_rows
from .written import dense, memory, per_block, per_item, start

#: a thread takes a line from so many lines on, and up to so many values of each
_LINES, _FEW = 1 << 14, 64
_INDEX, _VALUES = "index: Index 7", "values: Values 3"
_HOW = {
    "set": "PutSet",
    "add": "PutAdd",
    "multiply": "PutMultiply",
    "maximum": "PutMaximum",
    "minimum": "PutMinimum",
}


class _Index(NamedTuple):
    """`Index` of pick.cuh: `picks` elements of an index among n."""

    n: int
    picks: int
    rest: int
    share: int
    lines: int
    step: int
    columns: int

    @classmethod
    def of(cls, p: Picks) -> _Index:
        """One index for all lines and columns, or for each of them."""
        if p.each:
            return cls(p.n, p.picks, p.rest, 1, p.picks * p.rest, p.rest, 1)
        return cls(p.n, p.picks, p.rest, 1, 0, 1, 0)


def _index(program: Program, index: Operand) -> Operand:
    """An index as the kernels read it: contiguous, of 32 or 64 bits."""
    return dense(program, index, None if index.dtype.name in ("int32", "int64") else int64)


# ---------------------------------------------------------------- reading


@functools.cache
def _pick_source(unit: str, index: str) -> str:
    slots = [_INDEX, "parts", "missing", f"x: const {unit}*", f"from: const {index}*", f"out: {unit}*"]
    return per_item(
        f"pick: {unit} by {index}",
        "pick",
        slots,
        "pick(index, number, parts, (u64)missing, x, from, out);",
    )


def _pick(program: Program, x: Operand, index: Operand, out: Operand, sizes: _Index) -> None:
    if not out.size:
        return
    x, index = dense(program, x), _index(program, index)
    program.wave()
    unit, parts = carrier(x.dtype)
    missing = NAN.get(x.dtype.name, 0)
    args: list[Arg] = [*sizes, parts, missing, x.slot, index.slot, out.slot]
    start(program, _pick_source(unit, index.dtype.char), out.size * parts, args)


# ---------------------------------------------------------------- writing


@functools.cache
def _line_source(how: str, word: str, index: str) -> str:
    slots = [_INDEX, _VALUES, f"v: const {word}*", f"from: const {index}*", f"out: {word}*"]
    body = f"put_line<{_HOW[how]}>(index, number, values, v, from, out);"
    return per_item(f"put lines, {how}: {word} by {index}", "pick", slots, body)


@functools.cache
def _key_source(index: str, key: str) -> str:
    slots = [_INDEX, "columns", f"from: const {index}*", f"keys: {key}*"]
    return per_item(f"put keys: {index}", "pick", slots, "put_key(index, number, columns, from, keys);")


@functools.cache
def _start_source(key: str) -> str:
    slots = ["n", "count", f"keys: const {key}*", "starts: i64*"]
    return per_item(f"put starts: {key}", "pick", slots, "put_start(number, n, count, keys, starts);")


@functools.cache
def _sorted_source(how: str, word: str, place: str) -> str:
    slots = [_INDEX, _VALUES, "columns", f"v: const {word}*", f"places: const {place}*", "starts: const i64*"]
    slots += [f"out: {word}*"]
    body = f"put_sorted<{_HOW[how]}>(index, number, values, columns, v, places, starts, out);"
    return per_item(f"put sorted, {how}: {word}", "pick", slots, body)


def _values(
    program: Program, v: Any, dtype: DType, count: int, rest: int, n_rest: int
) -> tuple[Operand, int, int]:
    """Values and their steps along the lines and the index, in elements; a number is one row of them."""
    if isinstance(v, Scalar):
        row = program.scratch_operand(dtype, (rest,))
        lower_map(program, (rest,), [v], [Expr("arg", dtype, (), 0)], [row], ("values",))
        return row, 0, 0
    inner = len(v.shape) - n_rest
    repeated = all(st == 0 or m == 1 for m, st in zip(v.shape[:inner], v.strides[:inner]))
    part = v._replace(shape=v.shape[inner:], strides=v.strides[inner:])
    if repeated and part.is_contiguous:
        return part, 0, 0
    return dense(program, v), count * rest, rest


def _write(
    program: Program, how: str, out: Operand, before: Operand | None, index: Operand, v: Any, sizes: _Index, n_rest: int
) -> None:  # fmt: skip
    """Append a write of values [lead, count, rest] into out [lead, n, rest]; before: what is in it, None for zeros."""
    if not out.size:
        return
    full = out if out.is_contiguous else program.scratch_operand(out.dtype, out.shape)
    if before is None:
        fill(program, 0, full)
    else:
        copy(program, before, full)
    n, count, rest = sizes.n, sizes.picks, sizes.rest
    if count and index.size:
        lead = out.size // (n * rest)
        index = _index(program, index)
        values, lines, step = _values(program, v, out.dtype, count, rest, n_rest)
        program.wave()
        word, parts = memory(out.dtype), 1
        if how == "set":
            word, parts = carrier(out.dtype)
        elif out.dtype.kind == "bool":
            word = "truth"
        steps = [lines * parts, step * parts, parts]
        items = lead * rest * parts
        if count <= _FEW or items >= _LINES:
            args: list[Arg] = [*sizes, *steps, values.slot, index.slot, full.slot]
            start(program, _line_source(how, word, index.dtype.char), items, args)
        else:
            _write_sorted(program, how, word, full, index, values, sizes, steps)
    program.wave()
    copy(program, full, out)


def _write_sorted(
    program: Program, how: str, word: str, out: Operand, index: Operand, values: Operand, sizes: _Index,
    steps: list[int],
) -> None:  # fmt: skip
    n, count = sizes.n, sizes.picks
    rows = index.size // count
    columns = sizes.rest if sizes.columns else 1
    # Those outside have the key n.
    keys = program.scratch_operand(DTYPES["uint32" if n < (1 << 32) - 1 else "uint64"], (rows, count))
    key = keys.dtype.char
    start(program, _key_source(index.dtype.char, key), keys.size, [*sizes, columns, index.slot, keys.slot])
    program.wave()
    order = sorted_rows(program, keys, count)
    starts = program.scratch_operand(int64, (rows, n + 1))
    program.wave()
    start(program, _start_source(key), starts.size, [n, count, order.keys.slot, starts.slot])
    program.wave()
    args: list[Arg] = [*sizes, *steps, columns, values.slot, order.places.slot, starts.slot, out.slot]
    start(program, _sorted_source(how, word, order.places.dtype.char), out.size * steps[2], args)


def _put(
    program: Program, how: str, out: Operand, before: Operand | None, index: Operand, v: Any, p: Picks
) -> None:
    _write(program, how, out, before, index, v, _Index.of(p), p.tail)


# ---------------------------------------------------------------- places in flattened images


def _of_pixels(x: Operand, index: Operand, n: int) -> _Index:
    """Lines are channels; an index for one channel is for all."""
    share = x.shape[1] if index.shape[1] == 1 else 1
    count = math.prod(index.shape[2:])
    return _Index(n, count, 1, share, count, 1, 0)


def pick_pixels(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Append the elements of each channel at places in its flattened spatial axes."""
    x, index = inputs
    _pick(program, x, index, outputs[0], _of_pixels(x, index, math.prod(x.shape[2:])))


def put_pixels(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: tuple[int, ...] = (), add: bool = True
) -> None:  # fmt: skip
    """Append zeros with values at places in each channel's flattened spatial axes."""
    v, index = inputs
    sizes = _of_pixels(v, index, math.prod(size))
    _write(program, "add" if add else "set", outputs[0], None, index, v, sizes, 0)


# ---------------------------------------------------------------- places of what is not 0, repetition, search

#: elements of a part whose places are counted together: threads times FOUND_ITEMS in pick.cuh
_PART = 256 * 8


@functools.cache
def _found_source(name: str, word: str) -> str:
    slots = ["n", f"x: const {word}*", "counts: i64*"]
    text = "count_found(number, n, x, counts, shared);"
    if name == "write":
        slots = ["n", "size", "parts", f"x: const {word}*", "sums: const i64*", "out: i64*"]
        text = "write_found(number, n, size, parts, x, sums, out, shared);"
    return per_block(f"flat_places, {name}: {word}", "pick", slots, text, ["i64 shared[256]"])


@functools.cache
def _sums_source(word: str) -> str:
    slots = ["n", f"counts: const {word}*", "sums: i64*"]
    body = "sums_before(n, counts, sums, shared);"
    return per_block(f"sums before: {word}", "pick", slots, body, ["i64 shared[256]"])


def flat_places(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int) -> None:
    """The first `size` positions in x, read as one row, of what is not 0."""
    if not size:
        return
    x = dense(program, inputs[0])
    parts = -(-x.size // _PART)
    counts, sums = (program.scratch_operand(int64, (parts + 1,)) for _ in "ab")
    program.wave()
    if not parts:
        return fill(program, 0, outputs[0])
    word = memory(x.dtype)
    start(program, _found_source("count", word), parts, [x.size, x.slot, counts.slot])
    program.wave()
    start(program, _sums_source("i64"), 1, [parts, counts.slot, sums.slot])
    program.wave()
    args: list[Arg] = [x.size, size, parts, x.slot, sums.slot, outputs[0].slot]
    start(program, _found_source("write", word), parts, args)


def repeat_places(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, total: int) -> None:
    """Position k, counts[k] times; n where the counts add up to less."""
    if not total:
        return
    counts = _index(program, inputs[0])
    sums = program.scratch_operand(int64, (counts.size + 1,))
    program.wave()
    start(program, _sums_source(counts.dtype.char), 1, [counts.size, counts.slot, sums.slot])
    program.wave()
    slots = ["n", "sums: const i64*", "out: i64*"]
    source = per_item("repeat_places", "pick", slots, "repeat_place(number, n, sums, out);")
    start(program, source, total, [counts.size, sums.slot, outputs[0].slot])


@functools.cache
def _search_source(word: str) -> str:
    slots = ["rows", "n", "m", "right", f"x: const {word}*", f"values: const {word}*", "out: i64*"]
    body = "search_sorted(number, rows, n, m, right, x, values, out);"
    return per_item(f"searchsorted: {word}", "pick", slots, body)


def searchsorted(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, right: bool) -> None:
    """x[rows, n] or x[n], values[rows, m] to out[rows, m]."""
    x, values = (dense(program, v) for v in inputs)
    if not values.size:
        return
    program.wave()
    rows = 1 if len(x.shape) == 1 else values.size // values.shape[-1]
    args: list[Arg] = [
        rows,
        x.shape[-1],
        values.size // rows,
        int(right),
        x.slot,
        values.slot,
        outputs[0].slot,
    ]
    start(program, _search_source(memory(x.dtype)), values.size, args)


KERNELS: dict[str, Kernel] = {
    **kernels(lambda program, x, index, out, p: _pick(program, x, index, out, _Index.of(p)), _put),
    "pick_pixels": pick_pixels, "put_pixels": put_pixels, "flat_places": flat_places, "repeat_places": repeat_places,
    "searchsorted": searchsorted,
}  # fmt: skip
