"""LLVM IR for the matrix kernels' intrinsics: vectors of any width, loops, and how an intrinsic is made.

Wide values (wide.py) are always sixteen elements; these are as wide as a register, so that a block of sums
fills the registers whatever the dtype.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .halves import HALVES, narrow, widen
from .target import has_masked_memory, target

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_PTR = ir.PointerType(ir.IntType(8))
FLOATS = {"f32": (ir.FloatType(), 4), "f64": (ir.DoubleType(), 8)}
#: what float32 vectors are read from: 16-bit floats, and float32 that is rounded to them: bytes of an element
READ_AS = dict.fromkeys(HALVES, 2) | {f"f32_{name}": 4 for name in HALVES}


class Vectors:
    """Emits the operations on vectors of `lanes` elements of one dtype."""

    def __init__(self, builder: ir.IRBuilder, char: str, lanes: int):
        self.builder, self.char, self.lanes = builder, char, lanes
        self.element, self.size = FLOATS[char]
        self.type = ir.VectorType(self.element, lanes)
        self.mask_type = ir.VectorType(I1, lanes)
        self.zero = self.type([self.element(0)] * lanes)
        self.suffix = f"v{lanes}{char}"
        #: bytes of an element that `load` and `masked_load` read
        self.read_size = self.size

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
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
        mask = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

    def load(self, address: Any) -> Any:
        return self.builder.load(self.pointer(address), align=self.size, typ=self.type)

    def load_element(self, address: Any) -> Any:
        return self.builder.load(self.pointer(address), align=self.size, typ=self.element)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=self.size)

    def masked_load(self, address: Any, mask: Any) -> Any:
        args = [self.place(address), I32(self.size), mask, self.zero]
        return self.call(f"llvm.masked.load.{self.suffix}.p0", self.type, args)

    def masked_store(self, value: Any, address: Any, mask: Any) -> None:
        args = [value, self.place(address), I32(self.size), mask]
        self.call(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), args)

    #: of what has the vectors' own dtype, also where `load` reads another
    load_sums, masked_load_sums = load, masked_load

    def store_first(self, value: Any, address: Any, count: Any) -> None:
        """Store the first `count` elements, 1 to all but one, in whole pieces."""
        b, lanes = self.builder, self.lanes // 2
        while lanes:
            order = (ir.Constant(ir.VectorType(I32, lanes), list(range(k, k + lanes))) for k in (0, lanes))
            low, high = (b.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), o) for o in order)
            here, wanted = b.block, b.icmp_unsigned("!=", b.and_(count, I64(lanes)), I64(0))
            with b.if_then(wanted):
                self.store(low, address)
                behind, stored = b.add(address, I64(lanes * self.size)), b.block
            joined = []
            for before, after in ((low, high), (address, behind)):
                joined.append(b.phi(before.type))
                joined[-1].add_incoming(before, here)
                joined[-1].add_incoming(after, stored)
            value, address = joined
            lanes //= 2

    def prefetch(self, address: Any, nearness: int = 3) -> None:
        """Ask for the cache line of an address, which need not be valid, for reading. nearness 2: second level."""
        self.call("llvm.prefetch.p0", ir.VoidType(), [self.pointer(address), I32(0), I32(nearness), I32(1)])

    def in_order(self, values: list[Any]) -> list[Any]:
        """The values, made before any load that comes later in the program: LLVM gathers loads, out of registers."""
        # An empty instruction that could change the values and any memory.
        b, register = self.builder, target().register_class
        result = ir.LiteralStructType([self.type] * len(values)) if len(values) > 1 else self.type
        constraints = [f"={register}"] * len(values) + [str(k) for k in range(len(values))] + ["~{memory}"]
        function = ir.FunctionType(result, [self.type] * len(values))
        made = b.call(ir.InlineAsm(function, "", ",".join(constraints), side_effect=True), values)
        return [b.extract_value(made, k) for k in range(len(values))] if len(values) > 1 else [made]

    def gather(self, address: Any, lane_step: Any, mask: Any) -> Any:
        b = self.builder
        lanes = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        addresses = b.add(self.splat(address), b.mul(lanes, self.splat(lane_step)))
        pointers = b.inttoptr(addresses, ir.VectorType(self.element.as_pointer(), self.lanes))
        args = [pointers, I32(self.size), mask, self.zero]
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
        b = self.builder
        if has_masked_memory():
            return b.bitcast(b.trunc(mask, ir.IntType(self.lanes)), self.mask_type)
        # Without registers for masks LLVM would move bit after bit.
        number = ir.IntType(8 * self.size)
        bits = ir.Constant(ir.VectorType(number, self.lanes), [1 << lane for lane in range(self.lanes)])
        return b.icmp_signed("==", b.and_(self.splat(b.trunc(mask, number)), bits), bits)

    def _numbers(self, first: int) -> Any:
        return ir.Constant(ir.VectorType(I32, self.lanes), list(range(first, first + self.lanes)))

    def _limit(self, limit: Any) -> Any:
        return self.splat(self.builder.trunc(limit, I32))


class ReadVectors(Vectors):
    """Vectors of float32 whose loads read one of `READ_AS`: they widen, what is float32 in memory is rounded first."""

    def __init__(self, builder: ir.IRBuilder, kind: str, lanes: int):
        super().__init__(builder, "f32", lanes)
        self.half, self.read_size = kind.removeprefix("f32_"), READ_AS[kind]
        self.bits_type = ir.VectorType(HALVES[self.half], lanes)

    def _rounded(self, value: Any) -> Any:
        return widen(self.builder, self.half, narrow(self.builder, self.half, value))

    def load(self, address: Any) -> Any:
        if self.read_size == self.size:
            return self._rounded(super().load(address))
        bits = self.builder.load(self.pointer(address), align=2, typ=self.bits_type)
        return widen(self.builder, self.half, bits)

    def masked_load(self, address: Any, mask: Any) -> Any:
        if self.read_size == self.size:
            return self._rounded(super().masked_load(address, mask))
        b = self.builder
        if has_masked_memory():
            return widen(b, self.half, self._bits_under(b, self.pointer(address), mask))
        # Others take lane by lane: in a function, for all of the few places where not all lanes are there.
        places = ir.IntType(self.lanes)
        number = b.bitcast(mask, places)
        every = b.icmp_unsigned("==", number, places(-1))
        loaded = []
        with b.if_else(every, likely=True) as branches:
            for branch, read in zip(branches, (self._all_bits, self._some_bits)):
                with branch:
                    loaded.append((read(address, number), b.block))
        bits = b.phi(self.bits_type)
        for value, block in loaded:
            bits.add_incoming(value, block)
        return widen(b, self.half, bits)

    def _all_bits(self, address: Any, number: Any) -> Any:
        return self.builder.load(self.pointer(address), align=2, typ=self.bits_type)

    def _some_bits(self, address: Any, number: Any) -> Any:
        module, name = self.builder.module, f"read_part_{self.lanes}"
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(self.bits_type, [_PTR, number.type]), name)
            function.linkage = "internal"
            for attribute in ("noinline", "nounwind"):
                function.attributes.add(attribute)
            b = ir.IRBuilder(function.append_basic_block("entry"))
            place, bits = function.args
            b.ret(self._bits_under(b, place, b.bitcast(bits, self.mask_type)))
        return self.builder.call(function, [self.pointer(address), number])

    def _bits_under(self, b: ir.IRBuilder, place: Any, mask: Any) -> Any:
        """The 16 bits of lanes; the declaration is that of wide.py, which may stand in the same kernel."""
        element = self.bits_type.element
        name = f"llvm.masked.load.v{self.lanes}i16.p0"
        args = [b.bitcast(place, element.as_pointer()), I32(2), mask, ir.Constant(self.bits_type, None)]
        function = b.module.globals.get(name)
        if function is None:
            function = ir.Function(b.module, ir.FunctionType(self.bits_type, [a.type for a in args]), name)
        return b.call(function, args)

    def gather(self, address: Any, lane_step: Any, mask: Any) -> Any:
        return self._rounded(super().gather(address, lane_step, mask))


def _as_it_stands(module: ir.Module) -> Any:
    """Loop metadata: no unrolling, no vectorising. A loop's node names itself first, so it is distinct."""
    hints = [
        module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")]),
        module.add_metadata([ir.MetaDataString(module, "llvm.loop.vectorize.enable"), I1(0)]),
    ]
    node = ir.MDValue(module, hints, name=str(len(module.metadata)))
    node.operands = (node, *hints)
    return node


class Loop:
    """`for _ in range(count)` with values carried from turn to turn; `close` gives what is left of them."""

    def __init__(self, builder: ir.IRBuilder, count: Any, initial: list[Any]):
        self.builder = b = builder
        before = b.block
        self.body, self.after = b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed(">", count, I64(0)), self.body, self.after)
        b.position_at_end(self.body)
        values = [I64(0), *initial]
        phis = [b.phi(v.type) for v in values]
        for phi, value in zip(phis, values):
            phi.add_incoming(value, before)
        self.count, self.before, self.values = count, before, values
        self.phis, self.index, self.carried = phis, phis[0], phis[1:]

    def close(self, updated: list[Any]) -> list[Any]:
        b = self.builder
        following = b.add(self.index, I64(1))
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


def store_i64(builder: ir.IRBuilder, value: Any, address: Any) -> None:
    """Store an int64."""
    builder.store(value, builder.inttoptr(address, I64.as_pointer()), align=8)


def integers(name: str, n_args: int, emit: Any, result: Any = types.void) -> Any:
    """The intrinsic `name` of n_args int64, written by `emit(builder, args)`."""

    def typed(literals: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            made = emit(builder, args)
            return context.get_dummy_value() if made is None else made

        return result(*[types.int64] * n_args), codegen

    return _intrinsic(name, [f"a{k}" for k in range(n_args)], [], typed, False)


@functools.cache
def calling(symbol: str, n_args: int) -> Any:
    """An intrinsic that calls the function `symbol` of n_args int64, which is linked later."""

    def emit(b: Any, args: Any) -> None:
        function = b.module.globals.get(symbol)
        if function is None:
            function = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [I64] * n_args), symbol)
            function.attributes.add("nounwind")
        b.call(function, args)

    return integers("calling", n_args, emit)


def on_vectors(name: str, char: str, n_args: int, emit: Any, n_literals: int = 1) -> Any:
    """The intrinsic `name`_`char` of n_args int64 and then literals, the last of which is the vector's width.

    char: of FLOATS, or of READ_AS. `emit(vectors, args, *literals but the last)` writes it.
    """

    def typed(literals: Any) -> Any:
        if not all(isinstance(t, types.IntegerLiteral) for t in literals):
            return None
        *shape, lanes = [t.literal_value for t in literals]

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = Vectors if char in FLOATS else ReadVectors
            emit(kind(builder, char, lanes), args[:n_args], *shape)
            return context.get_dummy_value()

        return types.void(*[types.int64] * n_args, *literals), codegen

    literals = [f"literal{k}" for k in range(n_literals)]
    return _intrinsic(f"{name}_{char}", [f"a{k}" for k in range(n_args)], literals, typed, True)


def _intrinsic(name: str, args: list[str], literals: list[str], typed: Any, prefer_literal: bool) -> Any:
    # Numba takes an intrinsic's parameters from its signature, so each count needs a function of its own.
    space: dict[str, Any] = {"typed": typed}
    tuple_text = "".join(f"{n}, " for n in literals)
    text = f"def {name}(typingctx, {', '.join([*args, *literals])}):\n    return typed(({tuple_text}))"
    exec(text, space)
    return intrinsic(prefer_literal=prefer_literal)(space[name])
