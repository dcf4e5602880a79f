"""Vector intrinsics of the matrix kernels, written as LLVM IR: the register block product and panel packing.

`X` is `f32` or `f64`; `lanes` is the number of elements in a vector register and, like `block_rows` and
`block_vectors`, a literal in the kernel's source. Addresses and steps are in bytes.

`multiply_X(count, a, row_table, k_table, b, b_step, c, c_step, rows, cols, accumulate,
            block_rows, block_vectors, lanes)`
    c[i, j] (+)= sum over k < count of a[row_table[i] + k_table[k]] * b[k, j], for i < rows <= block_rows and
    j < cols <= block_vectors * lanes. The tables hold int64 byte offsets, so `a` may be any strided matrix or
    an image seen through a window. Row_table must have block_rows entries and b must hold whole vectors, but
    nothing outside rows x cols is stored. One chain of fused multiply-adds per element, k ascending from
    zero, then one addition of the old c when `accumulate` is not 0: an element's value does not depend on
    where in a block it stands.
    With block_rows = 1 b is read under a mask, so it may end anywhere.
`dot_rows_X(dst, a, a_step, rows, x, count, vectors, lanes)`
    dst[i] = sum over k < count of a[i, k] * x[k], in vectors * lanes partial sums, added pairwise at the end.
`copy_lanes_X(dst, dst_step, src, src_step, count, length, low, high, lanes)`
    count rows of `length` <= lanes elements; elements outside [low, high) become zero and are not read.
`copy_windows_X(dst, dst_step, src, src_step, count, length, table, taps, lanes)`
    For each of count channels, `src_step` apart, and each tap: the next `length` <= lanes elements of dst
    from src. The table holds a byte offset and a mask for every tap; elements whose bit is 0 become zero.
`gather_windows_X(dst, dst_step, src, src_step, lane_step, count, length, table, taps, lanes)`
    The same from elements `lane_step` bytes apart.
`gather_lanes_X(dst, dst_step, src, src_step, lane_step, count, length, low, high, lanes)`
    The same from elements `lane_step` bytes apart.
`transpose_lanes_X(dst, dst_step, src, src_step, rows, cols, length, lanes)`
    dst[j, i] = src[i, j] for a block of up to lanes x lanes; dst[j] gets `length` elements, zero from `rows`
    on.
`fill_offsets(table, first, count, repeats, n1, n2, s0, s1, s2)`
    Byte offsets of the indices first, first + 1, ... with the digits i = (i0 * n1 + i1) * n2 + i2:
    i0 * s0 + i1 * s1 + i2 * s2. After `count` of them the last one is repeated.
`fill_windows(table, taps_y, taps_x, y, x, tap_y, tap_x, h, w, step, y_step, x_step, length)`
    The table of copy_windows for `length` neighbouring results of an image of h x w: tap (i, j) of the first
    of them reads line y + i * tap_y, column x + j * tap_x, the next ones `step` columns on. y_step and
    x_step are bytes.
`div_i64(x, y)`, `mod_i64(x, y)`, `min_i64(x, y)`, `max_i64(x, y)`
    What //, %, min and max give for x >= 0 and y > 0, in a quarter of the compile time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_PTR = ir.PointerType(ir.IntType(8))
_FLOATS = {"f32": (ir.FloatType(), 4), "f64": (ir.DoubleType(), 8)}


class _Vectors:
    """Emits the operations on vectors of `lanes` elements of one dtype."""

    def __init__(self, builder: ir.IRBuilder, char: str, lanes: int):
        self.builder, self.char, self.lanes = builder, char, lanes
        self.element, self.size = _FLOATS[char]
        self.type = ir.VectorType(self.element, lanes)
        self.mask_type = ir.VectorType(_I1, lanes)
        self.zero = self.type([self.element(0)] * lanes)
        self.suffix = f"v{lanes}{char}"

    def call(self, name: str, result: ir.Type, args: list[Any]) -> Any:
        module = self.builder.module
        fn = module.globals.get(name)
        if fn is None:
            fn = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.builder.call(fn, args)

    def pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, _PTR)

    def place(self, address: Any) -> Any:
        # wide.py declares the masked operations with pointers to elements: one declaration must serve both.
        return self.builder.inttoptr(address, self.element.as_pointer())

    def splat(self, value: Any) -> Any:
        vector = ir.VectorType(value.type, self.lanes)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, _I32(0))
        mask = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

    def load(self, address: Any) -> Any:
        return self.builder.load(self.pointer(address), align=self.size, typ=self.type)

    def load_element(self, address: Any) -> Any:
        return self.builder.load(self.pointer(address), align=self.size, typ=self.element)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=self.size)

    def masked_load(self, address: Any, mask: Any) -> Any:
        args = [self.place(address), _I32(self.size), mask, self.zero]
        return self.call(f"llvm.masked.load.{self.suffix}.p0", self.type, args)

    def masked_store(self, value: Any, address: Any, mask: Any) -> None:
        args = [value, self.place(address), _I32(self.size), mask]
        self.call(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), args)

    def gather(self, address: Any, lane_step: Any, mask: Any) -> Any:
        b = self.builder
        lanes = ir.Constant(ir.VectorType(_I64, self.lanes), list(range(self.lanes)))
        addresses = b.add(self.splat(address), b.mul(lanes, self.splat(lane_step)))
        pointers = b.inttoptr(addresses, ir.VectorType(self.element.as_pointer(), self.lanes))
        args = [pointers, _I32(self.size), mask, self.zero]
        return self.call(f"llvm.masked.gather.{self.suffix}.v{self.lanes}p0", self.type, args)

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        # fmuladd, not fma: without hardware fma the latter would call the C library once an element.
        return self.call(f"llvm.fmuladd.{self.suffix}", self.type, [x, y, z])

    def below(self, limit: Any, first: int = 0) -> Any:
        """The mask of lanes l with first + l < limit."""
        return self.builder.icmp_signed("<", self._numbers(first), self._limit(limit))

    def between(self, low: Any, high: Any) -> Any:
        """The mask of lanes l with low <= l < high."""
        above = self.builder.icmp_signed(">=", self._numbers(0), self._limit(low))
        return self.builder.and_(above, self.below(high))

    def bits(self, mask: Any) -> Any:
        """The mask whose lane l is bit l of an int64."""
        return self.builder.bitcast(self.builder.trunc(mask, ir.IntType(self.lanes)), self.mask_type)

    def _numbers(self, first: int) -> Any:
        return ir.Constant(ir.VectorType(_I32, self.lanes), list(range(first, first + self.lanes)))

    def _limit(self, limit: Any) -> Any:
        return self.splat(self.builder.trunc(limit, _I32))


def _as_it_stands(module: ir.Module) -> Any:
    """Loop metadata: no unrolling, no vectorising. A loop's node names itself first, so it is distinct."""
    hints = [
        module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")]),
        module.add_metadata([ir.MetaDataString(module, "llvm.loop.vectorize.enable"), _I1(0)]),
    ]
    node = ir.MDValue(module, hints, name=str(len(module.metadata)))
    node.operands = (node, *hints)
    return node


class _Loop:
    """`for _ in range(count)` with values carried from turn to turn; `close` gives what is left of them."""

    def __init__(self, builder: ir.IRBuilder, count: Any, initial: list[Any]):
        self.builder = b = builder
        before = b.block
        self.body, self.after = b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed(">", count, _I64(0)), self.body, self.after)
        b.position_at_end(self.body)
        values = [_I64(0), *initial]
        phis = [b.phi(v.type) for v in values]
        for phi, value in zip(phis, values):
            phi.add_incoming(value, before)
        self.count, self.before, self.values = count, before, values
        self.phis, self.index, self.carried = phis, phis[0], phis[1:]

    def close(self, updated: list[Any]) -> list[Any]:
        b = self.builder
        following = b.add(self.index, _I64(1))
        end = b.block
        for phi, value in zip(self.phis, [following, *updated]):
            phi.add_incoming(value, end)
        branch = b.cbranch(b.icmp_signed("<", following, self.count), self.body, self.after)
        branch.set_metadata("llvm.loop", _as_it_stands(b.module))
        b.position_at_end(self.after)
        results = []
        for first, last in zip(self.values[1:], updated):
            phi = b.phi(first.type)
            phi.add_incoming(first, self.before)
            phi.add_incoming(last, end)
            results.append(phi)
        return results


def _emit_multiply(v: _Vectors, args: Any, block_rows: int, block_vectors: int) -> None:
    b = v.builder
    count, a, row_table, k_table, right, right_step, c, c_step, rows, cols, accumulate = args
    width = v.lanes * v.size

    def offset(table: Any, i: Any) -> Any:
        address = b.add(table, b.mul(i, _I64(8)))
        return b.load(v.pointer(address), align=8, typ=_I64)

    a_rows = [b.add(a, offset(row_table, _I64(i))) for i in range(block_rows)]
    zeros = [v.zero] * (block_rows * block_vectors)
    masks = [v.below(cols, j * v.lanes) for j in range(block_vectors)]
    loop = _Loop(b, count, [right, *zeros])
    at, sums = loop.carried[0], loop.carried[1:]
    k = offset(k_table, loop.index)
    places = [b.add(at, _I64(j * width)) for j in range(block_vectors)]
    if block_rows == 1:
        vectors = [v.masked_load(place, mask) for place, mask in zip(places, masks)]
    else:
        vectors = [v.load(place) for place in places]
    updated = []
    for i in range(block_rows):
        x = v.splat(v.load_element(b.add(a_rows[i], k)))
        for j in range(block_vectors):
            updated.append(v.multiply_add(x, vectors[j], sums[i * block_vectors + j]))
    sums = loop.close([b.add(at, right_step), *updated])[1:]

    adds = b.icmp_signed("!=", accumulate, _I64(0))
    nothing = v.mask_type([_I1(0)] * v.lanes)
    old_masks = [b.select(adds, m, nothing) for m in masks]
    done = b.append_basic_block("stored")
    for i in range(block_rows):
        row = b.append_basic_block("row")
        b.cbranch(b.icmp_signed(">", rows, _I64(i)), row, done)
        b.position_at_end(row)
        address = b.add(c, b.mul(c_step, _I64(i)))
        for j in range(block_vectors):
            place = b.add(address, _I64(j * width))
            old = v.masked_load(place, old_masks[j])
            v.masked_store(b.fadd(sums[i * block_vectors + j], old), place, masks[j])
    b.branch(done)
    b.position_at_end(done)


def _emit_dot(v: _Vectors, args: Any, vectors: int) -> None:
    b = v.builder
    dst, a, a_step, rows, x, count = args
    step = vectors * v.lanes
    whole = b.sdiv(count, _I64(step))
    outer = _Loop(b, rows, [dst, a])
    to, row = outer.carried
    loop = _Loop(b, whole, [row, x, *[v.zero] * vectors])
    left, right = loop.carried[:2]
    updated = []
    for j, total in enumerate(loop.carried[2:]):
        offset = _I64(j * v.lanes * v.size)
        updated.append(v.multiply_add(v.load(b.add(left, offset)), v.load(b.add(right, offset)), total))
    bytes_ = _I64(step * v.size)
    left, right, *sums = loop.close([b.add(left, bytes_), b.add(right, bytes_), *updated])
    rest = b.sub(count, b.mul(whole, _I64(step)))
    for j, total in enumerate(sums):
        offset, mask = _I64(j * v.lanes * v.size), v.below(rest, j * v.lanes)
        sums[j] = v.multiply_add(
            v.masked_load(b.add(left, offset), mask), v.masked_load(b.add(right, offset), mask), total
        )
    while len(sums) > 1:
        sums = [b.fadd(p, q) for p, q in zip(sums[::2], sums[1::2])]
    lanes, total = v.lanes, sums[0]
    while lanes > 1:
        lanes //= 2
        index = ir.Constant(ir.VectorType(_I32, v.lanes), [(j + lanes) % v.lanes for j in range(v.lanes)])
        total = b.fadd(total, b.shuffle_vector(total, ir.Constant(v.type, ir.Undefined), index))
    v.store(b.extract_element(total, _I32(0)), to)
    outer.close([b.add(to, _I64(v.size)), b.add(row, a_step)])


def _emit_copy(v: _Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, count, length, low, high = args
    read, written = v.between(low, high), v.below(length)
    loop = _Loop(b, count, [dst, src])
    to, at = loop.carried
    v.masked_store(v.masked_load(at, read), to, written)
    loop.close([b.add(to, dst_step), b.add(at, src_step)])


def _emit_windows(v: _Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, *lane_step, count, length, table, taps = args
    written = v.below(length)
    channels = _Loop(b, count, [dst, src])
    to, at = channels.carried
    loop = _Loop(b, taps, [to, table])
    to, entry = loop.carried
    offset, mask = (b.load(v.pointer(b.add(entry, _I64(8 * k))), align=8, typ=_I64) for k in range(2))
    place = b.add(at, offset)
    if lane_step:
        value = v.gather(place, lane_step[0], v.bits(mask))
    else:
        value = v.masked_load(place, v.bits(mask))
    v.masked_store(value, to, written)
    to, _ = loop.close([b.add(to, dst_step), b.add(entry, _I64(16))])
    channels.close([to, b.add(at, src_step)])


def _emit_gather(v: _Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, lane_step, count, length, low, high = args
    read, written = v.between(low, high), v.below(length)
    loop = _Loop(b, count, [dst, src])
    to, at = loop.carried
    v.masked_store(v.gather(at, lane_step, read), to, written)
    loop.close([b.add(to, dst_step), b.add(at, src_step)])


def _emit_transpose(v: _Vectors, args: Any) -> None:
    b = v.builder
    dst, dst_step, src, src_step, rows, cols, length = args
    written = v.below(length)
    inside = v.below(cols)
    nothing = v.mask_type([_I1(0)] * v.lanes)
    x = []
    for i in range(v.lanes):
        mask = b.select(b.icmp_signed(">", rows, _I64(i)), inside, nothing)
        x.append(v.masked_load(b.add(src, b.mul(src_step, _I64(i))), mask))
    # Swap off-diagonal blocks of growing size: after step d, blocks of 2d x 2d are transposed.
    distance = 1
    while distance < v.lanes:
        swapped = list(x)
        low = [j if j & distance == 0 else v.lanes + j - distance for j in range(v.lanes)]
        high = [j + distance if j & distance == 0 else v.lanes + j for j in range(v.lanes)]
        index = ir.VectorType(_I32, v.lanes)
        for i in range(v.lanes):
            if i & distance == 0:
                upper, lower = x[i], x[i + distance]
                swapped[i] = b.shuffle_vector(upper, lower, ir.Constant(index, low))
                swapped[i + distance] = b.shuffle_vector(upper, lower, ir.Constant(index, high))
        x = swapped
        distance *= 2
    done = b.append_basic_block("stored")
    for j in range(v.lanes):
        column = b.append_basic_block("column")
        b.cbranch(b.icmp_signed(">", cols, _I64(j)), column, done)
        b.position_at_end(column)
        v.masked_store(x[j], b.add(dst, b.mul(dst_step, _I64(j))), written)
    b.branch(done)
    b.position_at_end(done)


def _emit_offsets(b: ir.IRBuilder, args: Any) -> None:
    table, first, count, repeats, n1, n2, s0, s1, s2 = args
    i1 = b.sdiv(first, n2)
    i2 = b.srem(first, n2)
    start = b.add(b.mul(b.sdiv(i1, n1), s0), b.mul(b.srem(i1, n1), s1))
    start = b.add(start, b.mul(i2, s2))
    back2, back1 = b.sub(s1, b.mul(n2, s2)), b.sub(s0, b.mul(n1, s1))
    zero, one = _I64(0), _I64(1)
    loop = _Loop(b, b.add(count, repeats), [start, b.srem(i1, n1), i2])
    at, i1, i2 = loop.carried
    place = b.add(table, b.mul(loop.index, _I64(8)))
    b.store(at, b.inttoptr(place, _I64.as_pointer()), align=8)
    next2 = b.add(i2, one)
    carry2 = b.icmp_signed("==", next2, n2)
    next1 = b.add(i1, b.zext(carry2, _I64))
    carry1 = b.icmp_signed("==", next1, n1)
    step = b.add(s2, b.add(b.select(carry2, back2, zero), b.select(carry1, back1, zero)))
    moved = [b.add(at, step), b.select(carry1, zero, next1), b.select(carry2, zero, next2)]
    stays = b.icmp_signed(">=", b.add(loop.index, one), count)
    loop.close([b.select(stays, old, new) for old, new in zip((at, i1, i2), moved)])


@intrinsic
def fill_offsets(typingctx, table, first, count, repeats, n1, n2, s0, s1, s2):
    def codegen(context, builder, signature, args):
        _emit_offsets(builder, args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), codegen


def _emit_fill_windows(b: ir.IRBuilder, args: Any) -> None:
    table, taps_y, taps_x, y, x, tap_y, tap_x, h, w, step, y_step, x_step, length = args
    zero, one = _I64(0), _I64(1)

    def between(value: Any, low: Any, high: Any) -> Any:
        value = b.select(b.icmp_signed("<", value, high), value, high)
        return b.select(b.icmp_signed(">", value, low), value, low)

    def results(distance: Any) -> Any:
        """How many results lie before a column `distance` ahead, at most `length`."""
        before = b.block
        ahead = between(distance, zero, b.mul(length, step))
        divides, joined = b.append_basic_block("strided"), b.append_basic_block("counted")
        b.cbranch(b.icmp_signed("==", step, one), joined, divides)
        b.position_at_end(divides)
        quotient = b.sdiv(b.add(ahead, b.sub(step, one)), step)
        b.branch(joined)
        b.position_at_end(joined)
        count = b.phi(_I64)
        count.add_incoming(ahead, before)
        count.add_incoming(quotient, divides)
        return count

    def store(value: Any, address: Any) -> None:
        b.store(value, b.inttoptr(address, _I64.as_pointer()), align=8)

    lines = _Loop(b, taps_y, [table, y])
    entry, line = lines.carried
    inside = b.icmp_unsigned("<", line, h)
    columns = _Loop(b, taps_x, [entry, x])
    entry, column = columns.carried
    first = results(b.neg(column))
    last = b.select(inside, results(b.sub(w, column)), zero)
    last = b.select(b.icmp_signed(">", last, first), last, first)
    mask = b.xor(b.sub(b.shl(one, last), one), b.sub(b.shl(one, first), one))
    store(b.add(b.mul(line, y_step), b.mul(column, x_step)), entry)
    store(mask, b.add(entry, _I64(8)))
    entry, _ = columns.close([b.add(entry, _I64(16)), b.add(column, tap_x)])
    lines.close([entry, b.add(line, tap_y)])


@intrinsic
def fill_windows(typingctx, table, taps_y, taps_x, y, x, tap_y, tap_x, h, w, step, y_step, x_step, length):
    def codegen(context, builder, signature, args):
        _emit_fill_windows(builder, args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 13), codegen


def _make_binary(name: str, emit: Any) -> Any:
    def binary(typingctx, x, y):
        def codegen(context, builder, signature, args):
            return emit(builder, *args)

        return types.int64(types.int64, types.int64), codegen

    binary.__name__ = name
    return intrinsic(binary)


div_i64 = _make_binary("div_i64", lambda b, x, y: b.sdiv(x, y))
mod_i64 = _make_binary("mod_i64", lambda b, x, y: b.srem(x, y))
min_i64 = _make_binary("min_i64", lambda b, x, y: b.select(b.icmp_signed("<", x, y), x, y))
max_i64 = _make_binary("max_i64", lambda b, x, y: b.select(b.icmp_signed(">", x, y), x, y))


def _make(name: str, char: str, emit: Any, n_args: int, n_literals: int = 1) -> Any:
    names = [f"a{k}" for k in range(n_args)] + [f"literal{k}" for k in range(n_literals)]

    def typed(literals: Any) -> Any:
        if not all(isinstance(t, types.IntegerLiteral) for t in literals):
            return None
        *shape, lanes = [t.literal_value for t in literals]

        def codegen(context, builder, signature, args):
            emit(_Vectors(builder, char, lanes), args[:n_args], *shape)
            return context.get_dummy_value()

        return types.void(*[types.int64] * n_args, *literals), codegen

    # Numba takes an intrinsic's parameters from its signature, so each count needs a function of its own.
    listed = ", ".join(names)
    literals = "".join(f"{n}, " for n in names[n_args:])
    space: dict[str, Any] = {"typed": typed}
    exec(f"def {name}_{char}(typingctx, {listed}):\n    return typed(({literals}))", space)
    return intrinsic(prefer_literal=True)(space[f"{name}_{char}"])


__all__ = ["div_i64", "fill_offsets", "fill_windows", "max_i64", "min_i64", "mod_i64"]
for _char in _FLOATS:
    for _name, _emit, _n, _literals in (
        ("multiply", _emit_multiply, 11, 3),
        ("dot_rows", _emit_dot, 6, 2),
        ("copy_lanes", _emit_copy, 8, 1),
        ("copy_windows", _emit_windows, 8, 1),
        ("gather_windows", _emit_windows, 9, 1),
        ("gather_lanes", _emit_gather, 9, 1),
        ("transpose_lanes", _emit_transpose, 7, 1),
    ):
        globals()[f"{_name}_{_char}"] = _make(_name, _char, _emit, _n, _literals)
        __all__.append(f"{_name}_{_char}")
