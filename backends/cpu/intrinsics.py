"""Numba intrinsics of the kernel language: typed memory access by address, scalar bits, atomics, calls.

A kernel sees memory as int64 addresses (its slots). One table gives every dtype these functions
(`X` is a dtype's name such as `f32`):

`load_X(addr, i)`, `store_X(addr, i, v)`
    Element `i` of the buffer at `addr`. Plain accesses: always right, but a loop over many buffers may
    not vectorise, because LLVM gives up proving that they are apart.
`load_in_X(addr, i)`, `store_out_X(addr, i, v, k)`
    The same for pointwise loops, with a promise to LLVM: an element that a `store_out` has written is
    not loaded through `load_in` afterwards by the same kernel, and stored buffers with different
    literal `k` (0 <= k < MAX_SCOPES) do not overlap. Reading and writing one buffer in place at the same
    index is inside the promise as long as each element is loaded before it is stored.

Addresses must be aligned to the element's size. Booleans are stored as one byte, 0 or 1; 16-bit floats
(`f16`, `bf16`) are float32 as values, rounded to the nearest when stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .halves import HALVES, narrow, widen
from .target import target

MAX_SCOPES = 32

_I64 = ir.IntType(64)
_PTR = ir.PointerType(ir.IntType(8))


class StoredType(NamedTuple):
    """A dtype as kernels see it: its short name, Numba's type of a value, LLVM's type in memory."""

    name: str
    value: Any
    memory: ir.Type


STORED_TYPES = (
    StoredType("b1", types.boolean, ir.IntType(8)),
    StoredType("i8", types.int8, ir.IntType(8)),
    StoredType("i16", types.int16, ir.IntType(16)),
    StoredType("i32", types.int32, ir.IntType(32)),
    StoredType("i64", types.int64, ir.IntType(64)),
    StoredType("u8", types.uint8, ir.IntType(8)),
    StoredType("u16", types.uint16, ir.IntType(16)),
    StoredType("u32", types.uint32, ir.IntType(32)),
    StoredType("u64", types.uint64, ir.IntType(64)),
    StoredType("f32", types.float32, ir.FloatType()),
    StoredType("f64", types.float64, ir.DoubleType()),
    *(StoredType(name, types.float32, memory) for name, memory in HALVES.items()),
)


def _element(builder, addr, index, memory):
    base = builder.inttoptr(addr, memory.as_pointer())
    return builder.gep(base, [index], inbounds=True, source_etype=memory)


class _Scopes:
    """The alias scopes of the stored buffers in a module: one metadata node each, made once."""

    def __init__(self, module):
        domain = module.add_metadata([ir.MetaDataString(module, "duograd.kernel")])
        self.each = [
            module.add_metadata([ir.MetaDataString(module, f"stored{k}"), domain]) for k in range(MAX_SCOPES)
        ]
        #: by scope the list of it alone and that of all others; by None that of all
        self.lists = {None: (None, module.add_metadata(self.each))}

    @classmethod
    def of(cls, module, scope=None):
        """The lists of the scopes that an access of the buffer `scope` is in and is not in; None: of a load."""
        found = getattr(module, "duograd_scopes", None)
        if found is None:
            found = module.duograd_scopes = cls(module)
        if scope not in found.lists:
            others = found.each[:scope] + found.each[scope + 1 :]
            found.lists[scope] = module.add_metadata([found.each[scope]]), module.add_metadata(others)
        return found.lists[scope]


def _emit_load(builder, stored, addr, index, scoped):
    loaded = builder.load(_element(builder, addr, index, stored.memory), typ=stored.memory)
    if scoped:
        loaded.set_metadata("noalias", _Scopes.of(builder.module)[1])
    if stored.value is types.boolean:
        return builder.icmp_unsigned("!=", loaded, stored.memory(0))
    return widen(builder, stored.name, loaded) if stored.name in HALVES else loaded


def _emit_store(builder, stored, addr, index, value, scope):
    if stored.value is types.boolean:
        value = builder.zext(value, stored.memory)
    elif stored.name in HALVES:
        value = narrow(builder, stored.name, value)
    instr = builder.store(value, _element(builder, addr, index, stored.memory))
    if scope is not None:
        inside, outside = _Scopes.of(builder.module, scope)
        instr.set_metadata("alias.scope", inside)
        instr.set_metadata("noalias", outside)


def _make_load(stored: StoredType, scoped: bool):
    def load(typingctx, addr, index):
        def codegen(context, builder, signature, args):
            return _emit_load(builder, stored, args[0], args[1], scoped)

        return stored.value(types.int64, types.int64), codegen

    load.__name__ = f"load_in_{stored.name}" if scoped else f"load_{stored.name}"
    return intrinsic(load)


def _make_store(stored: StoredType):
    def store(typingctx, addr, index, value):
        def codegen(context, builder, signature, args):
            _emit_store(builder, stored, *args, scope=None)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, stored.value), codegen

    store.__name__ = f"store_{stored.name}"
    return intrinsic(store)


def _make_scoped_store(stored: StoredType):
    def store(typingctx, addr, index, value, scope):
        if not isinstance(scope, types.IntegerLiteral) or not 0 <= scope.literal_value < MAX_SCOPES:
            return None
        number = scope.literal_value

        def codegen(context, builder, signature, args):
            _emit_store(builder, stored, *args[:3], scope=number)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, stored.value, scope), codegen

    store.__name__ = f"store_out_{stored.name}"
    return intrinsic(prefer_literal=True)(store)


__all__ = ["MAX_SCOPES"]
for _stored in STORED_TYPES:
    for _function in (
        _make_load(_stored, False),
        _make_load(_stored, True),
        _make_store(_stored),
        _make_scoped_store(_stored),
    ):
        globals()[_function.__name__] = _function
        __all__.append(_function.__name__)


def _exported(function):
    """Make `function(typingctx, ...)` an intrinsic that kernels can call."""
    made = intrinsic(function)
    __all__.append(function.__name__)
    return made


@_exported
def bits_f64(typingctx, bits):
    """The float64 whose bits are the int64 `bits` (a scalar slot)."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@_exported
def bits_f32(typingctx, bits):
    """The float32 whose bits are the int32 `bits`."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@_exported
def prefetch(typingctx, addr):
    """Ask for the cache line at `addr` to be read soon, into all cache levels."""

    def codegen(context, builder, signature, args):
        i32 = ir.IntType(32)
        fn = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [_PTR, i32, i32, i32]), "llvm.prefetch.p0"
        )
        builder.call(fn, [builder.inttoptr(args[0], _PTR), i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@_exported
def store_fence(typingctx):
    """All stores before, those round the caches too, are seen before any after."""

    def codegen(context, builder, signature, args):
        if target().triple.startswith("x86"):
            name = "llvm.x86.sse.sfence"
            builder.call(
                cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), name), []
            )
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def _word(builder, addr):
    return builder.inttoptr(addr, _I64.as_pointer())


@_exported
def atomic_load_i64(typingctx, addr):
    """Sequentially consistent load of the int64 at `addr`."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_word(builder, args[0]), "seq_cst", 8, typ=_I64)

    return types.int64(types.int64), codegen


@_exported
def atomic_store_i64(typingctx, addr, value):
    """Sequentially consistent store of the int64 `value` at `addr`."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], _word(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@_exported
def atomic_add_i64(typingctx, addr, value):
    """Add `value` to the int64 at `addr`; returns what stood there before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _word(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@_exported
def atomic_replace_i64(typingctx, addr, expected, value):
    """Put `value` at `addr` if `expected` stands there; returns whether it did."""

    def codegen(context, builder, signature, args):
        pair = builder.cmpxchg(_word(builder, args[0]), args[1], args[2], "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


_PAUSE: dict[str, tuple[str, tuple[int, ...]]] = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "arm64": ("llvm.aarch64.hint", (1,)),
    "aarch64": ("llvm.aarch64.hint", (1,)),
}


@_exported
def cpu_pause(typingctx):
    """Tell the core that this is a spin loop."""

    def codegen(context, builder, signature, args):
        name, numbers = _PAUSE.get(target().triple.split("-")[0], ("llvm.donothing", ()))
        i32 = ir.IntType(32)
        fnty = ir.FunctionType(ir.VoidType(), [i32] * len(numbers))
        builder.call(cgutils.get_or_insert_function(builder.module, fnty, name), [i32(n) for n in numbers])
        return context.get_dummy_value()

    return types.void(), codegen


@_exported
def call_kernel(typingctx, function, args, chunk, nchunks):
    """Call the kernel at address `function` with its argument block's address, chunk and chunk count."""

    def codegen(context, builder, signature, values):
        fnty = ir.FunctionType(ir.VoidType(), [_I64.as_pointer(), _I64, _I64])
        fn = builder.inttoptr(values[0], fnty.as_pointer())
        builder.call(fn, [_word(builder, values[1]), values[2], values[3]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen
