"""Sorting along the last axis: stable sorts of order-preserving integer keys, one source for all dtypes.

The bits of an element become an unsigned key whose order is the order of the values: NaN last (first when
descending), -0.0 equal to 0.0 where positions are asked for. A record holds the key and, when positions are asked for,
the position: in one word where both fit. Rows are shared out among chunks; few long rows are sorted one after
the other by all chunks together: each counts its digits, then moves its records to where those of the chunks
before it end. Short rows go through a network of exchanges (`sort_network`) where that is sooner than moving their
digits. A stable order is unique, so no result depends on chunks or on the way. `topk` keeps the best so far in a buffer
that is sorted whenever it is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import copy
from ...core.numbers import most
from ...core.types import DType
from .sort_network import MOST, NETWORK
from .target import has

#: digits of a short row, and from LONG elements on
SHORT_BITS, LONG_BITS, LONG = 8, 11, 1 << 14
#: rows up to this are sorted by insertion where most of them is in order
FEW = 40
#: rows from which on chunks together sort one row, when there are fewer rows than threads
TOGETHER = 1 << 15


class _Form(NamedTuple):
    """How records look. kind: "keys", "packed" (key and position in a word) or "pairs" (in two arrays)."""

    dtype: DType
    kind: str
    bits: int

    @property
    def width(self) -> int:
        return self.dtype.itemsize * 8

    @property
    def ones(self) -> int:
        return -1 if self.width == 64 else (1 << self.width) - 1

    @property
    def base(self) -> int:
        """The place of the key's lowest bit in a record."""
        return 32 if self.kind == "packed" else 0

    @property
    def digits(self) -> int:
        return -(-self.width // self.bits)

    @property
    def record(self) -> int:
        """Bytes of a record's word."""
        return 4 if self.kind == "keys" and self.width <= 32 else 8

    @property
    def marks(self) -> set[str]:
        """What stands behind § in its lines: the kind, "word" for records of one word, "placed" with positions."""
        shared = {"keys": {"word"}, "packed": {"word", "placed"}, "pairs": {"placed"}}
        return {self.kind} | shared[self.kind]

    @property
    def unsigned(self) -> str:
        """The kind of a record's word in wide values."""
        return f"u{8 * self.record}"

    @property
    def worth(self) -> int:
        """Halves of exchanges that a network does for a record while one of its digits is counted and moved."""
        # Vectors of 64-bit integers have minima and maxima in AVX-512 alone.
        return 40 if self.record == 4 or has("avx512f") else 15

    @property
    def name(self) -> str:
        return f"{self.dtype}, {self.kind}, {self.bits} bits"

    def text(self, source: str) -> str:
        """The source with the words of this form put in."""
        word = "u32" if self.record == 4 else "i64"
        raw = f"u{self.width}" if self.width < 64 else "i64"
        stored = f"types.uint{self.width}" if self.width < 64 else "types.int64"
        lines = []
        for line in source.splitlines():
            mark, _, rest = line.partition("§")
            if not rest:
                lines.append(line)
            elif rest.partition(" ")[0] in self.marks:
                lines.append(mark + rest.partition(" ")[2])
        return (
            "\n".join(lines)
            .replace("$BITS", str(self.bits))
            .replace("$BUCKETS", str(1 << self.bits))
            .replace("$FEW", str(FEW))
            .replace("$MOST", str(MOST))
            .replace("$WORTH", str(self.worth))
            .replace("$UNSIGNED", self.unsigned)
            .replace("$DIGITS", str(self.digits))
            .replace("$BASE", str(self.base))
            .replace("load_word", f"load_{word}")
            .replace("store_word", f"store_{word}")
            .replace("as_word", "types.uint32" if self.record == 4 else "types.int64")
            .replace("load_raw", f"load_{raw}")
            .replace("store_raw", f"store_{raw}")
            .replace("as_raw", stored)
        )

    def keys(self) -> str:
        """The functions `encode` and `decode` between bits and keys."""
        w, ones = self.width, self.ones
        sign = -(1 << 63) if w == 64 else 1 << (w - 1)
        encode, decode = [], []
        if self.dtype.is_float:
            infinity = _infinity(self.dtype)
            encode = [f"m = u & {(1 << (w - 1)) - 1}"]
            if self.kind != "keys":
                encode += ["if m == 0:", "    u = types.int64(0)"]
            # All bits of a negative number turn, the sign of others: no branch, for signs are often random.
            low = (1 << (w - 1)) - 1
            encode += [
                f"u = u ^ ({'(u >> 63)' if w == 64 else f'-(u >> {w - 1})'} & {low}) ^ {sign}",
                f"if m > {infinity}:",
                f"    u = types.int64({ones})",
            ]
            decode = [f"u = u ^ ({'(~u >> 63)' if w == 64 else f'((u >> {w - 1}) - 1)'} & {low}) ^ {sign}"]
        elif self.dtype.kind == "int":
            encode = decode = [f"u = u ^ {sign}"]
        out = ""
        for name, lines in (("encode", encode), ("decode", decode)):
            # flip: 0, or all ones for the descending order.
            start, end = ("u", "u ^ flip") if name == "encode" else ("u ^ flip", "u")
            body = "\n".join(f"    {line}" for line in [f"u = types.int64({start})", *lines, f"return {end}"])
            out += f"@inline\ndef {name}(u, flip):\n{body}\n\n"
        return out


def _infinity(dtype: DType) -> int:
    """The bits of infinity, the largest that are no NaN."""
    mantissa = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[dtype.name]
    return ((1 << (dtype.itemsize * 8 - 1 - mantissa)) - 1) << mantissa


# A line with § is for the kinds of records that it names (`_Form.marks`).
_SORT = """@function
def sort_records(a, b, ia, ib, count, n, start):
    # Returns whether the records end up in b. The first `start` are in order (which long rows do not use).
    # count: room for $BUCKETS counters of 8 bytes.
    §pairs if n <= $FEW:
    §word if n <= $FEW and (start > 1 or n <= 4):
        for i in range(start, n):
            r = types.int64(load_word(a, i))
            §pairs p = load_i64(ia, i)
            j = i
            while j > 0 and before(r, types.int64(load_word(a, j - 1))):
                store_word(a, j, load_word(a, j - 1))
                §pairs store_i64(ia, j, load_i64(ia, j - 1))
                j -= 1
            store_word(a, j, as_word(r))
            §pairs store_i64(ia, j, p)
        return False
    # Digits in which all records are the same need no move.
    first, varied = types.int64(load_word(a, 0)), types.int64(0)
    for i in range(n):
        varied |= types.int64(load_word(a, i)) ^ first
    digits = types.int64(0)
    for d in range($DIGITS):
        digits += ((varied >> ($BASE + d * $BITS)) & ($BUCKETS - 1)) != 0
    §word log = types.int64(4)
    §word while types.int64(1) << log < n:
    §word     log += 1
    §word size = types.int64(1) << log
    §word # A digit's counters cost as much as some 80 records.
    §word if n <= $MOST and size * log * (log + 1) <= $WORTH * digits * (n + 80):
    §word     sort_network(a, n, size)
    §word     return False
    moved = False
    for d in range($DIGITS):
        shift = $BASE + d * $BITS
        if (varied >> shift) & ($BUCKETS - 1) == 0:
            continue
        for k in range($BUCKETS):
            store_i64(count, k, 0)
        for i in range(n):
            k = (types.int64(load_word(a, i)) >> shift) & ($BUCKETS - 1)
            store_i64(count, k, load_i64(count, k) + 1)
        total = types.int64(0)
        for k in range($BUCKETS):
            c = load_i64(count, k)
            store_i64(count, k, total)
            total += c
        for i in range(n):
            r = types.int64(load_word(a, i))
            k = (r >> shift) & ($BUCKETS - 1)
            at = load_i64(count, k)
            store_i64(count, k, at + 1)
            store_word(b, at, as_word(r))
            §pairs store_i64(ib, at, load_i64(ia, i))
        a, b, ia, ib = b, a, ib, ia
        moved = not moved
    return moved

"""

_BEFORE = """@inline
def before(r, q):
    # Records as unsigned numbers.
    return (r ^ -9223372036854775808) < (q ^ -9223372036854775808)

"""

_PUT = """@inline
def put(x, values, indices, row, i, r, p, flip):
    # Result i of a row that starts at element `row` of x; p: the position, for records of two words.
    §keys store_raw(values, i, as_raw(decode(r, flip)))
    §packed u, p = (r >> 32) & 4294967295, r & 4294967295
    §pairs u = r
    §placed if values:
    §placed     bits = decode(u, flip)
    §placed     if u == encode(0, flip):
    §placed         bits = types.int64(load_raw(x, row + p))
    §placed     store_raw(values, i, as_raw(bits))
    §placed if indices:
    §placed     store_i64(indices, i, p)

"""

_MAKE = """@inline
def make(a, ia, k, u, i, flip):
    # Record k from the bits u of element i.
    §keys store_word(a, k, as_word(encode(u, flip)))
    §packed store_word(a, k, (encode(u, flip) << 32) | i)
    §pairs store_word(a, k, encode(u, flip))
    §pairs store_i64(ia, k, i)

"""

_ROWS = """# sort, rows: {name}
def kernel(args, chunk, nchunks):
    x, values, indices, rows, n, k = args[0], args[1], args[2], args[3], args[4], args[5]
    room, pitch, cells, flip = args[6] + chunk * args[7], args[8], args[9], args[10]
    a, b, ia, ib, count = room, room + pitch, room + 2 * pitch, room + 3 * pitch, room + cells
    for row in range(share(rows, chunk, nchunks), share(rows, chunk + 1, nchunks)):
        for i in range(n):
            make(a, ia, i, load_raw(x, row * n + i), i, flip)
        moved = sort_records(a, b, ia, ib, count, n, 1)
        r, p = (b, ib) if moved else (a, ia)
        for i in range(k):
            §keys put(x, values, indices, row * n, row * k + i, types.int64(load_word(r, i)), 0, flip)
            §packed put(x, values, indices, row * n, row * k + i, load_word(r, i), 0, flip)
            §pairs put(x, values, indices, row * n, row * k + i, load_word(r, i), load_i64(p, i), flip)
"""

# The best so far stand in a buffer of `size` records, cut down to the first k in order whenever it is full. A small
# one is in order all the time.
_SELECT = """# topk: {name}
def kernel(args, chunk, nchunks):
    x, values, indices, rows, n, k = args[0], args[1], args[2], args[3], args[4], args[5]
    room, pitch, cells, flip = args[6] + chunk * args[7], args[8], args[9], args[10]
    size, pieces, best, places, found = args[11], args[12], args[13], args[14], args[15]
    for piece in range(share(rows * pieces, chunk, nchunks), share(rows * pieces, chunk + 1, nchunks)):
        a, b, ia, ib, count = room, room + pitch, room + 2 * pitch, room + 3 * pitch, room + cells
        row, part = quotient(piece, pieces), remainder(piece, pieces)
        filled, limit, full = types.int64(0), types.int64(0), False
        i, last = share(n, part, pieces), share(n, part + 1, pieces)
        while True:
            grown = False
            while i < last and not grown:
                if full:
                    while i + 16 <= last and not any_better(x, row * n + i, limit, flip):
                        i += 16
                stop = min(i + 16, last)
                while i < stop and not grown:
                    u = load_raw(x, row * n + i)
                    if not full or before(encode(u, flip), limit):
                        make(a, ia, filled, u, i, flip)
                        filled += 1
                        grown = filled == size or size <= $FEW
                    i += 1
            if sort_records(a, b, ia, ib, count, filled, filled - 1 if grown and size <= $FEW else 1):
                a, b, ia, ib = b, a, ib, ia
            if filled >= k:
                filled, full = k, True
                §packed limit = (load_word(a, k - 1) >> 32) & 4294967295
                §pairs limit = load_word(a, k - 1)
            if i >= last:
                break
        if pieces == 1:
            for i in range(k):
                §packed put(x, values, indices, row * n, row * k + i, load_word(a, i), 0, flip)
                §pairs put(x, values, indices, row * n, row * k + i, load_word(a, i), load_i64(ia, i), flip)
        else:
            store_i64(found, piece, filled)
            for i in range(filled):
                store_word(best, piece * k + i, load_word(a, i))
                §pairs store_i64(places, piece * k + i, load_i64(ia, i))
"""

_JOIN = """# topk, pieces of a row joined: {name}
def kernel(args, chunk, nchunks):
    x, values, indices, rows, n, k = args[0], args[1], args[2], args[3], args[4], args[5]
    room, pitch, cells, flip = args[6] + chunk * args[7], args[8], args[9], args[10]
    pieces, best, places, found = args[12], args[13], args[14], args[15]
    for row in range(share(rows, chunk, nchunks), share(rows, chunk + 1, nchunks)):
        a, b, ia, ib, count = room, room + pitch, room + 2 * pitch, room + 3 * pitch, room + cells
        filled = types.int64(0)
        for piece in range(row * pieces, (row + 1) * pieces):
            for i in range(piece * k, piece * k + load_i64(found, piece)):
                store_word(a, filled, load_word(best, i))
                §pairs store_i64(ia, filled, load_i64(places, i))
                filled += 1
        if sort_records(a, b, ia, ib, count, filled, 1):
            a, ia = b, ib
        for i in range(k):
            §packed put(x, values, indices, row * n, row * k + i, load_word(a, i), 0, flip)
            §pairs put(x, values, indices, row * n, row * k + i, load_word(a, i), load_i64(ia, i), flip)
"""

# Whether any of sixteen elements may come before the key `limit`.
_BETTER = """@inline
def any_better(x, at, limit, flip):
    cell = stack(8)
    store_raw(cell, 0, as_raw(decode(limit, flip)))
    w, worst = w_load_{c}(x, at, w_all()), load_{c}(cell, 0)
    if flip != 0:
        return {largest}
    return {smallest}

"""

# One row by all chunks: records are made, then per digit counted and moved, then written out.
_LONG = """# sort, one row, {step}: {name}
@inline
def swapped(moved, digit):
    out = types.int64(0)
    for d in range(digit):
        out += load_i64(moved, d)
    return out & 1 != 0

def kernel(args, chunk, nchunks):
    x, values, indices, row, n, digit = args[0], args[1], args[2], args[3], args[4], args[5]
    a, b, ia, ib, counts, moved = args[6], args[7], args[8], args[9], args[10], args[11]
    flip = args[12]
    first, last = share(n, chunk, nchunks), share(n, chunk + 1, nchunks)
    table, shift = counts + chunk * $BUCKETS * 8, $BASE + digit * $BITS
"""

_LONG_MAKE = """    for i in range(first, last):
        make(a, ia, i, load_raw(x, row + i), i, flip)
"""

_LONG_COUNT = """    if swapped(moved, digit):
        a = b
    for k in range($BUCKETS):
        store_i64(table, k, 0)
    for i in range(first, last):
        k = (types.int64(load_word(a, i)) >> shift) & ($BUCKETS - 1)
        store_i64(table, k, load_i64(table, k) + 1)
"""

_LONG_MOVE = """    if swapped(moved, digit):
        a, b, ia, ib = b, a, ib, ia
    here = stack($BYTES)
    total = types.int64(0)
    for k in range($BUCKETS):
        found = types.int64(0)
        for c in range(nchunks):
            if c == chunk:
                store_i64(here, k, total + found)
            found += load_i64(counts, c * $BUCKETS + k)
        if found == n:
            if chunk == 0:
                store_i64(moved, digit, 0)
            return
        total += found
    for i in range(first, last):
        r = types.int64(load_word(a, i))
        k = (r >> shift) & ($BUCKETS - 1)
        at = load_i64(here, k)
        store_i64(here, k, at + 1)
        store_word(b, at, as_word(r))
        §pairs store_i64(ib, at, load_i64(ia, i))
    if chunk == 0:
        store_i64(moved, digit, 1)
"""

_LONG_WRITE = """    if swapped(moved, digit):
        a, ia = b, ib
    for i in range(first, last):
        §keys put(x, values, indices, row, row + i, types.int64(load_word(a, i)), 0, flip)
        §packed put(x, values, indices, row, row + i, load_word(a, i), 0, flip)
        §pairs put(x, values, indices, row, row + i, load_word(a, i), load_i64(ia, i), flip)
"""


def _source(form: _Form, *parts: str, step: str = "") -> str:
    """A kernel's source with the functions that it calls."""
    text = "".join(parts).replace("{name}", form.name).replace("{step}", step)
    return form.text(form.keys() + text).replace("$BYTES", str(8 << form.bits))


def _sort(form: _Form) -> tuple[str, ...]:
    """What `sort_records` is made of."""
    return (_SORT,) if form.kind == "pairs" else (NETWORK, _SORT)


def _better(form: _Form) -> str:
    c = form.dtype.char
    largest, smallest = f"w_any(w_gt_{c}(w, worst))", f"w_any(w_lt_{c}(w, worst))"
    if form.dtype.is_float:
        largest, smallest = f"{largest} or w_any(w_isnan_{c}(w))", f"{smallest} or v_isnan_{c}(worst)"
    return _BETTER.replace("{largest}", largest).replace("{smallest}", smallest).replace("{c}", c)


def _lined_up(program: Program, x: Operand, axis: int) -> Operand:
    """x with the axis last, in one piece of memory."""
    moved = _moved(x, axis)
    if moved.is_contiguous:
        return moved
    full = program.scratch_operand(x.dtype, moved.shape)
    copy(program, moved, full)
    program.wave()
    return full


def _moved(x: Operand, axis: int) -> Operand:
    if not x.shape:
        return x._replace(shape=(1,), strides=(1,))
    order = [*(a for a in range(len(x.shape)) if a != axis), axis]
    return x._replace(shape=tuple(x.shape[a] for a in order), strides=tuple(x.strides[a] for a in order))


def _run(program: Program, x: Any, values: Operand | None, indices: Operand | None, axis: int, k: int | None,
         descending: bool) -> None:  # fmt: skip
    """The first k of the sorted elements along an axis (all when None), to values, to indices, or to both."""
    if not x.size:
        return
    x = _lined_up(program, x, axis)
    n = x.shape[-1]
    rows, k = x.size // n, n if k is None else k
    if not k:
        return
    targets = [(o, _moved(o, axis)) for o in (values, indices) if o is not None]
    lined = {o: m if m.is_contiguous else program.scratch_operand(o.dtype, m.shape) for o, m in targets}
    ends: list[Arg] = [0 if o is None else lined[o].slot for o in (values, indices)]
    kind = "keys" if indices is None else "packed" if x.dtype.itemsize <= 4 and n < 1 << 32 else "pairs"
    form = _Form(x.dtype, kind, SHORT_BITS if n < LONG else LONG_BITS)
    flip = form.ones if descending else 0
    if k < n and 4 * k <= n:
        _select(program, form, x, ends, flip, rows, n, k)
    elif rows < program.backend.num_threads() and n >= TOGETHER and k == n:
        for row in range(rows):
            _together(program, form, x, ends, flip, row * n, n)
    else:
        room, pitch, cells = _room(form, most(n))
        chunks = program.chunks(rows, rows * n * 50.0)
        area = program.scratch(room * chunks)
        args: list[Arg] = [x.slot, *ends, rows, n, k, area, room, pitch, cells, flip]
        program.launch(_source(form, _BEFORE, *_sort(form), _MAKE, _PUT, _ROWS), args, chunks)
    program.wave()
    for o, m in targets:
        if lined[o] is not m:
            copy(program, lined[o], m)


def _room(form: _Form, n: int) -> tuple[int, int, int]:
    """Bytes of a chunk's working memory, of each of its arrays, and where its counters begin."""
    if form.kind != "pairs" and n <= MOST:
        n = max(16, 1 << (n - 1).bit_length())
    pitch = -(-n * form.record // 64) * 64
    cells = pitch * (4 if form.kind == "pairs" else 2)
    return cells + (8 << form.bits), pitch, cells


def _together(
    program: Program, form: _Form, x: Operand, ends: list[Arg], flip: int, row: int, n: int
) -> None:
    chunks = program.chunks(n // 1024, n * 50.0)
    words = [program.scratch(n * form.record) for _ in "ab"]
    words += [program.scratch(n * 8 if form.kind == "pairs" else 8) for _ in "ab"]
    counts, moved = program.scratch(chunks * (8 << form.bits)), program.scratch(8 * form.digits)
    helpers = (_BEFORE, _MAKE, _PUT)

    def launch(step: str, body: str, digit: int) -> None:
        args: list[Arg] = [x.slot, *ends, row, n, digit, *words, counts, moved, flip]
        program.wave()
        program.launch(_source(form, *helpers, _LONG, body, step=step), args, chunks)

    launch("records", _LONG_MAKE, 0)
    for digit in range(form.digits):
        launch("counts", _LONG_COUNT, digit)
        launch("moves", _LONG_MOVE, digit)
    launch("results", _LONG_WRITE, form.digits)


def _select(
    program: Program, form: _Form, x: Operand, ends: list[Arg], flip: int, rows: int, n: int, k: int
) -> None:
    size = k + 1 if k < FEW else 2 * k
    threads = program.backend.num_threads()
    pieces = 1 if rows >= threads else max(1, min(threads, n // max(1 << 14, 4 * k)))
    form = form._replace(bits=SHORT_BITS if size < LONG else LONG_BITS)
    room, pitch, cells = _room(form, most(max(size, pieces * k)))
    chunks = program.chunks(rows * pieces, rows * n * 10.0)
    area = program.scratch(room * chunks)
    best, found = program.scratch(8 * rows * pieces * k), program.scratch(8 * rows * pieces)
    places = program.scratch(8 * rows * pieces * k if form.kind == "pairs" else 8)
    args: list[Arg] = [x.slot, *ends, rows, n, k, area, room, pitch, cells, flip]
    args += [size, pieces, best, places, found]
    helpers = (_BEFORE, *_sort(form), _MAKE, _PUT)
    program.launch(_source(form, *helpers, _better(form), _SELECT), args, chunks)
    if pieces > 1:
        program.wave()
        program.launch(_source(form, *helpers, _JOIN), args, min(chunks, rows))


def sort(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, descending: bool,
         **_: Any) -> None:  # fmt: skip
    """Values alone."""
    _run(program, inputs[0], outputs[0], None, axis, None, descending)


def argsort(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, descending: bool,
            **_: Any) -> None:  # fmt: skip
    """Positions alone."""
    _run(program, inputs[0], None, outputs[0], axis, None, descending)


def sort_both(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, descending: bool
              ) -> None:  # fmt: skip
    """Values and positions."""
    _run(program, inputs[0], outputs[0], outputs[1], axis, None, descending)


def topk(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, k: int, axis: int, largest: bool,
         **_: Any) -> None:  # fmt: skip
    """The first k values and positions of a sorted row."""
    _run(program, inputs[0], outputs[0], outputs[1], axis, k, largest)


for _kernel in (sort, argsort, sort_both):  # keys are integers: 16-bit floats need no conversion
    _kernel.takes_halves = True  # type: ignore[attr-defined]

KERNELS: dict[str, Kernel] = {"sort": sort, "argsort": argsort, "sort_both": sort_both, "topk": topk}
