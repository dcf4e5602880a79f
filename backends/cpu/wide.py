"""Wide values: sixteen elements of one dtype as one value of the kernel language.

Generated loops are written with them, so that vector code does not depend on what LLVM's vectorisers make of
a loop, reductions have lanes in a fixed order, and each loop body is compiled once. All `w_` names:

`w_<op>_<kind>(...)`: the function `v_<op>_<kind>` of vecmath on wide values; scalars among the arguments are
    spread over all lanes; with scalars alone it is the scalar function.
`w_mask(end, v)`: lanes below end - v; `w_all()`: all lanes; `w_index(start, step)`: int64 start, start + step, ...
`w_load_<kind>(addr, i, mask)`, `w_gather_<kind>(addr, i, step, mask)`: elements i, i + 1, ... or
    i, i + step, ...; lanes outside the mask are not read and are 0.
    Where the step is 2, whole vectors are loaded and put in order instead.
`w_find_<kind>(addr, places, mask)`: the elements whose numbers are the lanes of places, wide int64; else the same.
`w_store_<kind>(addr, i, value, mask)`, `w_scatter_<kind>(addr, i, step, value, mask)`: the same for writing.
`w_pick_<kind>(addr, i, mask)`: `w_load` without a branch for the mask of all lanes.
`w_load_back_<kind>(addr, i, mask)`, `w_store_back_<kind>(addr, i, value, mask)`: elements i, i - 1, ...
`w_turn_<kind>(to, addr, step, rows)`: rows of sixteen elements, `step` bytes apart, stored as sixteen columns; of fewer
    than sixteen the last one stands for the others, too.
`w_read_<kind>(addr, i)`, `w_write_<kind>(addr, i, value)`: all lanes, in working memory.
`w_stream_<kind>(addr, i, value)`: all lanes, round the caches, to memory aligned to 64 bytes at most; a
    `store_fence()` has to follow before others read it.
`w_fill_<kind>(x)`: x in all lanes.

In memory there are two more kinds, `f16` and `bf16`, whose values are wide float32.

Under the mask `w_pair()`, loads give pairs: 32 elements, of which all the functions of vecmath, `w_store`, `w_stream`
and `w_turns` of wide_reduce take two registers in turn, so that one need not wait for the other; under `w_four()` 64.

Reductions over lanes are in wide_reduce.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic

from . import lanes
from .halves import HALVES, narrow, widen
from .lanes import declare
from .target import has_masked_memory
from .vecmath import VECMATH
from .vecmath_value import KINDS, Kind

LANES = 16

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_MASK = ir.VectorType(ir.IntType(1), LANES)


class Wide(types.Type):
    """Numba's type of a wide value, or of two or four of them side by side."""

    def __init__(self, kind: Kind, lanes: int = LANES):
        self.kind, self.lanes = kind, lanes
        super().__init__(f"wide_{kind.name}_{lanes}")


@register_default(Wide)
class _WideModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Wide):
        super().__init__(dmm, fe_type, ir.VectorType(fe_type.kind.llvm, fe_type.lanes))


WIDE = {name: Wide(kind) for name, kind in KINDS.items()}
#: how many stand side by side -> by kind
ABREAST = {n: {name: Wide(kind, n * LANES) for name, kind in KINDS.items()} for n in (2, 4)}
_SINGLE = {name: kind.numba for name, kind in KINDS.items()}
MASK = WIDE["b1"]


def beside(*values: Any) -> dict[str, Any]:
    """By kind, Numba's types of values with as many lanes as the widest of `values`; of single elements without one."""
    count = max((v.lanes for v in values if isinstance(v, Wide)), default=1)
    return {1: _SINGLE, LANES: WIDE, 2 * LANES: ABREAST[2], 4 * LANES: ABREAST[4]}[count]


__all__ = ["LANES"]


def export(name: str, typer: Any, names: dict[str, Any], public: list[str]) -> None:
    """Make the intrinsic `name` known to a module with these names."""
    typer.__name__ = typer.__qualname__ = name
    names[name] = intrinsic(typer)
    public.append(name)


def spread(builder: Any, value: Any) -> Any:
    """A wide value with the scalar `value` in all lanes."""
    return lanes.spread(builder, value, LANES)


def _make_function(name: str) -> Any:
    entry = VECMATH[name]

    def typed(*args: Any) -> Any:
        result = beside(*args)[entry.result]
        count = result.lanes if isinstance(result, Wide) else 1

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            if count > 1:
                values = [lanes.spread(builder, v, count) for v in values]
            return entry.emit(builder, values, count)

        return result(*(beside(a)[k] for a, k in zip(args, entry.args))), codegen

    return typed


# Numba reads the number of parameters from the function itself.
_ARITY = {
    1: lambda typed: lambda typingctx, a: typed(a),
    2: lambda typed: lambda typingctx, a, b: typed(a, b),
    3: lambda typed: lambda typingctx, a, b, c: typed(a, b, c),
    4: lambda typed: lambda typingctx, a, b, c, d: typed(a, b, c, d),
}

for _name, _entry in VECMATH.items():
    export(f"w{_name[1:]}", _ARITY[len(_entry.args)](_make_function(_name)), globals(), __all__)


# ---- lanes


def _iota(element: Any) -> Any:
    return ir.Constant(ir.VectorType(element, LANES), list(range(LANES)))


def _w_mask(typingctx: Any, end: Any, v: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, most = builder.sub(*args), _I64(LANES)
        few = builder.select(builder.icmp_signed("<", left, most), left, most)
        count = spread(builder, builder.trunc(few, _I32))
        return builder.icmp_signed("<", _iota(_I32), count)

    return MASK(types.int64, types.int64), codegen


def _w_all(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return lanes.splat(ir.Constant(ir.IntType(1), 1), LANES)

    return MASK(), codegen


def _all_of(several: int) -> Any:
    def typer(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return lanes.splat(ir.Constant(ir.IntType(1), 1), several * LANES)

        return ABREAST[several]["b1"](), codegen

    return typer


def _steps(builder: Any, start: Any, step: Any) -> Any:
    """start, start + step, ... as int64 lanes."""
    moved = builder.mul(_iota(_I64), spread(builder, step))
    return builder.add(spread(builder, start), moved)


def _w_index(typingctx: Any, start: Any, step: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _steps(builder, *args)

    return WIDE["i64"](types.int64, types.int64), codegen


export("w_mask", _w_mask, globals(), __all__)
export("w_all", _w_all, globals(), __all__)
export("w_pair", _all_of(2), globals(), __all__)
export("w_four", _all_of(4), globals(), __all__)
export("w_index", _w_index, globals(), __all__)


# ---- memory


#: kinds of memory -> kind of the value
MEMORY = KINDS | dict.fromkeys(HALVES, KINDS["f32"])


def _memory(name: str) -> Any:
    return _I8 if name == "b1" else HALVES.get(name, MEMORY[name].llvm)


def _suffix(name: str) -> str:
    element = _memory(name)
    return f"v{LANES}{f'i{element.width}' if isinstance(element, ir.IntType) else name}"


def _from_memory(builder: Any, name: str, loaded: Any) -> Any:
    if name == "b1":
        return builder.icmp_unsigned("!=", loaded, lanes.splat(_I8(0), loaded.type.count))
    return widen(builder, name, loaded) if name in HALVES else loaded


def _to_memory(builder: Any, name: str, value: Any, count: int = LANES) -> Any:
    value = lanes.spread(builder, value, count)
    if name == "b1":
        return builder.zext(value, ir.VectorType(_I8, count))
    return narrow(builder, name, value) if name in HALVES else value


def _pointer(builder: Any, name: str, addr: Any, i: Any) -> Any:
    element = _memory(name)
    return builder.gep(builder.inttoptr(addr, element.as_pointer()), [i], source_etype=element)


def _pointers(builder: Any, name: str, addr: Any, i: Any, step: Any) -> Any:
    element = _memory(name)
    base = builder.ptrtoint(_pointer(builder, name, addr, i), _I64)
    offsets = _steps(builder, base, builder.mul(step, _I64(_bytes(name))))
    return builder.inttoptr(offsets, ir.VectorType(element.as_pointer(), LANES))


def _turned(builder: Any, vector: Any) -> Any:
    """The lanes in reverse order."""
    order = ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES))[::-1])
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of as many rows: halves of pairs of rows change places, then quarters, and so on."""
    rows, count = list(rows), len(rows)
    distance = count // 2
    while distance:
        own = [k if k & distance == 0 else count + k - distance for k in range(count)]
        other = [k + distance if k & distance == 0 else count + k for k in range(count)]
        orders = [ir.Constant(ir.VectorType(_I32, count), order) for order in (own, other)]
        for k in range(count):
            if k & distance == 0:
                pair = rows[k], rows[k + distance]
                rows[k], rows[k + distance] = (builder.shuffle_vector(*pair, order) for order in orders)
        distance //= 2
    return rows


def read_from(builder: Any, name: str, address: Any) -> Any:
    """The wide value that `w_write_<kind>` has left at an address."""
    vector = ir.VectorType(_memory(name), LANES)
    p = builder.inttoptr(address, vector.as_pointer())
    return _from_memory(builder, name, builder.load(p, align=_bytes(name), typ=vector))


def _pointer_back(builder: Any, name: str, addr: Any, i: Any) -> Any:
    """The address of the last lane of elements i, i - 1, ..."""
    return _pointer(builder, name, addr, builder.sub(i, _I64(LANES - 1)))


def _bytes(name: str) -> int:
    return 1 if name == "b1" else 2 if name in HALVES else KINDS[name].bits // 8


def _masked(builder: Any, mask: Any, access: Any) -> Any:
    """`access(mask)`, with a branch for the full mask on CPUs where that is worth it."""
    if has_masked_memory():
        return access(mask)
    every = lanes.splat(ir.Constant(ir.IntType(1), 1), LANES)
    return _choose(builder, _is_full(builder, mask), lambda: access(every), lambda: access(mask))


def _choose(builder: Any, condition: Any, one: Any, other: Any) -> Any:
    """What `one()` gives where the condition holds, else what `other()` gives; None for what gives nothing."""
    results = []
    with builder.if_else(condition, likely=True) as branches:
        for branch, access in zip(branches, (one, other)):
            with branch:
                results.append((access(), builder.block))
    if results[0][0] is None or isinstance(results[0][0].type, ir.VoidType):
        return None
    joined = builder.phi(results[0][0].type)
    for value, block in results:
        joined.add_incoming(value, block)
    return joined


def _is_full(builder: Any, mask: Any) -> Any:
    return builder.icmp_unsigned("==", builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(LANES)(-1))


def _half_apart(builder: Any, mask: Any, start: int) -> Any:
    """The mask of sixteen places of which every other one is a lane, from lane `start` on."""
    order = _lanes_of(LANES if k % 2 else start + k // 2 for k in range(LANES))
    return builder.shuffle_vector(mask, ir.Constant(_MASK, None), order)


def _lanes_of(numbers: Any) -> Any:
    return ir.Constant(ir.VectorType(_I32, LANES), list(numbers))


def _store_part(builder: Any, kind: str, value: Any, p: Any, mask: Any, masked: Any) -> None:
    """Store under a mask that is not all lanes, where CPUs take long for that: the first lanes go in whole pieces.

    One function in each kernel. masked: emits it under a mask, for a builder, a value and a pointer.
    """
    vector, bits, name = value.type, ir.IntType(LANES), f"w_store_part_{kind}"
    function = builder.module.globals.get(name)
    if function is None:
        signature = ir.FunctionType(ir.VoidType(), [vector, p.type, bits])
        function = ir.Function(builder.module, signature, name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        b = ir.IRBuilder(function.append_basic_block("entry"))
        part, at, left = function.args
        first = b.icmp_unsigned("==", b.and_(left, b.add(left, bits(1))), bits(0))
        with b.if_then(b.not_(first), likely=False):
            masked(part, at, b)(b.bitcast(left, _MASK))
            b.ret_void()
        count = LANES // 2
        while count:
            order = [ir.Constant(ir.VectorType(_I32, count), list(range(k, k + count))) for k in (0, count)]
            low, high = (b.shuffle_vector(part, ir.Constant(part.type, ir.Undefined), o) for o in order)
            here, wanted = b.block, b.trunc(b.lshr(left, bits(count - 1)), ir.IntType(1))
            with b.if_then(wanted):
                b.store(low, b.bitcast(at, low.type.as_pointer()), align=_bytes(kind))
                behind = b.gep(at, [_I64(count)], source_etype=vector.element)
                rest, stored = b.lshr(left, bits(count)), b.block
            joined = []
            for before, after in ((low, high), (at, behind), (left, rest)):
                phi = b.phi(before.type)
                phi.add_incoming(before, here)
                phi.add_incoming(after, stored)
                joined.append(phi)
            part, at, left = joined
            count //= 2
        b.ret_void()
    builder.call(function, [value, p, builder.bitcast(mask, bits)])


def _make_memory(name: str) -> None:
    kind = MEMORY[name]
    vector = ir.VectorType(_memory(name), LANES)
    scalar, wide, suffix, align = kind.numba, WIDE[kind.name], _suffix(name), _I32(_bytes(name))
    i64 = types.int64

    def read_call(function: str, p: Any, builder: Any) -> Any:
        """Emits the masked read `function` of the pointer or pointers p, for a given mask."""
        function_type = ir.FunctionType(vector, [p.type, _I32, _MASK, vector])
        declared = declare(builder.module, function, function_type)
        return lambda mask: builder.call(declared, [p, align, mask, ir.Constant(vector, None)])

    def write_call(function: str, value: Any, p: Any, builder: Any) -> Any:
        function_type = ir.FunctionType(ir.VoidType(), [vector, p.type, _I32, _MASK])
        declared = declare(builder.module, function, function_type)
        return lambda mask: builder.call(declared, [value, p, align, mask])

    def write_under(value: Any, p: Any, builder: Any) -> Any:
        return write_call(f"llvm.masked.store.{suffix}.p0", value, p, builder)

    def read_lanes(builder: Any, args: Any, count: int) -> Any:
        several = ir.VectorType(_memory(name), count)
        p = builder.bitcast(_pointer(builder, name, *args[:2]), several.as_pointer())
        return _from_memory(builder, name, builder.load(p, align=_bytes(name), typ=several))

    def write_lanes(builder: Any, args: Any, count: int, align: int) -> Any:
        stored = _to_memory(builder, name, args[2], count)
        p = builder.bitcast(_pointer(builder, name, *args[:2]), stored.type.as_pointer())
        return builder.store(stored, p, align=align)

    def load(typingctx: Any, addr: Any, i: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if mask is not MASK:
                return read_lanes(builder, args, mask.lanes)
            p = _pointer(builder, name, *args[:2])
            loaded = _masked(builder, args[2], read_call(f"llvm.masked.load.{suffix}.p0", p, builder))
            return _from_memory(builder, name, loaded)

        return beside(mask)[kind.name](i64, i64, mask), codegen

    def pick(typingctx: Any, addr: Any, i: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            call = read_call(f"llvm.masked.load.{suffix}.p0", _pointer(builder, name, *args[:2]), builder)
            return _from_memory(builder, name, call(args[2]))

        return wide(i64, i64, MASK), codegen

    def gather(typingctx: Any, addr: Any, i: Any, step: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            step, mask = args[2:]
            place = lambda k: _pointer(builder, name, args[0], builder.add(args[1], _I64(k)))

            def whole() -> Any:
                # Two loads that overlap in one element: nothing behind the last one is read.
                parts = [
                    builder.load(builder.bitcast(p, vector.as_pointer()), align=_bytes(name), typ=vector)
                    for p in (place(0), place(LANES - 1))
                ]
                order = [*range(0, LANES, 2), *range(LANES + 1, 2 * LANES, 2)]
                return builder.shuffle_vector(*parts, _lanes_of(order))

            def part() -> Any:
                parts = [
                    read_call(f"llvm.masked.load.{suffix}.p0", place(2 * k), builder)(
                        _half_apart(builder, mask, k)
                    )
                    for k in (0, LANES // 2)
                ]
                return builder.shuffle_vector(*parts, _lanes_of(range(0, 2 * LANES, 2)))

            def apart() -> Any:
                p = _pointers(builder, name, *args[:3])
                call = read_call(f"llvm.masked.gather.{suffix}.v{LANES}p0", p, builder)
                return _masked(builder, mask, call)

            two, full = builder.icmp_signed("==", step, _I64(2)), _is_full(builder, mask)
            if has_masked_memory():
                loaded = _choose(builder, two, lambda: _choose(builder, full, whole, part), apart)
            else:
                loaded = _choose(builder, builder.and_(two, full), whole, apart)
            return _from_memory(builder, name, loaded)

        return wide(i64, i64, i64, MASK), codegen

    def find(typingctx: Any, addr: Any, places: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            addr, places, mask = args
            offsets = builder.mul(places, spread(builder, _I64(_bytes(name))))
            at = builder.add(spread(builder, addr), offsets)
            p = builder.inttoptr(at, ir.VectorType(_memory(name).as_pointer(), LANES))
            call = read_call(f"llvm.masked.gather.{suffix}.v{LANES}p0", p, builder)
            return _from_memory(builder, name, _masked(builder, mask, call))

        return wide(i64, WIDE["i64"], MASK), codegen

    def load_back(typingctx: Any, addr: Any, i: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            p = _pointer_back(builder, name, *args[:2])
            read = read_call(f"llvm.masked.load.{suffix}.p0", p, builder)
            loaded = _masked(builder, args[2], lambda mask: _turned(builder, read(_turned(builder, mask))))
            return _from_memory(builder, name, loaded)

        return wide(i64, i64, MASK), codegen

    def store_back(typingctx: Any, addr: Any, i: Any, value: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            p, stored = _pointer_back(builder, name, *args[:2]), _to_memory(builder, name, args[2])
            write = write_call(f"llvm.masked.store.{suffix}.p0", _turned(builder, stored), p, builder)
            _masked(builder, args[3], lambda mask: write(_turned(builder, mask)))
            return context.get_dummy_value()

        return types.void(i64, i64, wide if isinstance(value, Wide) else scalar, MASK), codegen

    def store(typingctx: Any, addr: Any, i: Any, value: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if mask is not MASK:
                write_lanes(builder, args, mask.lanes, _bytes(name))
                return context.get_dummy_value()
            p, stored = _pointer(builder, name, *args[:2]), _to_memory(builder, name, args[2])
            if has_masked_memory() and _bytes(name) > 2:
                write_under(stored, p, builder)(args[3])
                return context.get_dummy_value()
            with builder.if_else(_is_full(builder, args[3]), likely=True) as (whole, part):
                with whole:
                    builder.store(stored, builder.bitcast(p, vector.as_pointer()), align=_bytes(name))
                with part:
                    if has_masked_memory():  # Zen 5 takes long for 8 and 16 bits
                        write_under(stored, p, builder)(args[3])
                    else:
                        _store_part(builder, name, stored, p, args[3], write_under)
            return context.get_dummy_value()

        return types.void(i64, i64, beside(value)[kind.name], mask), codegen

    def scatter(typingctx: Any, addr: Any, i: Any, step: Any, value: Any, mask: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            stored = _to_memory(builder, name, args[3])

            def every_other() -> None:
                for start in (0, LANES // 2):
                    part = builder.shuffle_vector(
                        stored, stored, _lanes_of(start + k // 2 for k in range(LANES))
                    )
                    p = _pointer(builder, name, args[0], builder.add(args[1], _I64(2 * start)))
                    write_under(part, p, builder)(_half_apart(builder, args[4], start))

            def apart() -> None:
                p = _pointers(builder, name, *args[:3])
                call = write_call(f"llvm.masked.scatter.{suffix}.v{LANES}p0", stored, p, builder)
                _masked(builder, args[4], call)

            if has_masked_memory():
                _choose(builder, builder.icmp_signed("==", args[2], _I64(2)), every_other, apart)
            else:
                apart()
            return context.get_dummy_value()

        return types.void(i64, i64, i64, wide if isinstance(value, Wide) else scalar, MASK), codegen

    def fill(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return spread(builder, args[0])

        return wide(scalar), codegen

    def read(typingctx: Any, addr: Any, i: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return read_lanes(builder, args, LANES)

        return wide(i64, i64), codegen

    def write(typingctx: Any, addr: Any, i: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            write_lanes(builder, args, LANES, _bytes(name))
            return context.get_dummy_value()

        return types.void(i64, i64, wide if isinstance(value, Wide) else scalar), codegen

    def stream(typingctx: Any, addr: Any, i: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            count = value.lanes if isinstance(value, Wide) else LANES
            done = write_lanes(builder, args, count, min(64, LANES * _bytes(name)))
            done.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))
            return context.get_dummy_value()

        return types.void(i64, i64, beside(value)[kind.name]), codegen

    def turn(typingctx: Any, to: Any, addr: Any, step: Any, rows: Any) -> Any:
        # Of elements so large that sixteen rows fill all registers, blocks of eight.
        count = min(LANES, 64 // _bytes(name))
        line = ir.VectorType(_memory(name), count)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            to, addr, step, there = args
            place = lambda at: builder.inttoptr(at, line.as_pointer())
            ends = [builder.mul(step, _I64(k)) for k in range(LANES)]
            last = builder.mul(step, builder.sub(there, _I64(1)))
            starts = [
                builder.add(addr, builder.select(builder.icmp_signed(">", there, _I64(k)), end, last))
                for k, end in enumerate(ends)
            ]
            for low in range(0, LANES, count):
                for left in range(0, LANES, count):
                    rows = []
                    for k in range(low, low + count):
                        at = builder.add(starts[k], _I64(left * _bytes(name)))
                        rows.append(builder.load(place(at), align=_bytes(name), typ=line))
                    for k, column in enumerate(_transposed(builder, rows), left):
                        at = builder.add(to, _I64((k * LANES + low) * _bytes(name)))
                        builder.store(column, place(at), align=_bytes(name))
            return context.get_dummy_value()

        return types.void(i64, i64, i64, i64), codegen

    reads, writes = (load, pick, gather, find, load_back, read), (store, scatter, store_back, write, stream)
    for function in (*reads, *writes, turn, fill):
        if name in KINDS or function is not fill:
            export(f"w_{function.__name__}_{name}", function, globals(), __all__)


for _name in MEMORY:
    _make_memory(_name)
