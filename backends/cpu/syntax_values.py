"""Expressions of kernels: from a node of the syntax tree to Numba's type and LLVM's value."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types

from .operations import Unsupported
from .syntax_names import Value, Variables

I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))
POINTER = I8.as_pointer()

BINARY: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.BitAnd: operator.and_,
}  # fmt: skip
_COMPARE: dict[type, Callable[..., Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_UNARY: dict[type, Callable[..., Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert, ast.Not: operator.not_,
}  # fmt: skip


class Kept(NamedTuple):
    """In a slot's place: the value of a name, and where that was assigned: behind which instruction."""

    value: Any
    block: Any
    last: Any


class Expressions:
    """What `syntax_front` needs of a function to make values: its builder, its variables, its unit."""

    unit: Any
    context: Any
    builder: Any
    function: Any
    local: set[str]
    variables: Variables
    kept: dict[str, list[Kept]]

    def value(self, node: ast.expr) -> Value:
        method = getattr(self, "of_" + type(node).__name__, None)
        if method is None:
            raise Unsupported(type(node).__name__)
        return method(node)

    def literal(self, value: Any) -> Value:
        """A constant of Python: its type is the value itself where Numba has such a type."""
        if isinstance(value, (bool, int)):
            return _literal(type(value), value), None
        if isinstance(value, float):
            return types.float64, ir.Constant(ir.DoubleType(), value)
        if isinstance(value, tuple) and value:
            kind = self.unit.operations.typing.resolve_value_type(value)
            return kind, self.context.get_constant_generic(self.builder, kind, value)
        raise Unsupported(repr(value))

    def cast(self, value: Value, kind: Any) -> Any:
        have, it = value
        if have == kind and it is not None:
            return it
        if isinstance(have, types.Literal):
            if isinstance(kind, types.Literal):
                return self.context.get_dummy_value()
            it = self.context.get_constant_generic(self.builder, have.literal_type, have.literal_value)
            have = have.literal_type
        return it if have == kind else self.context.cast(self.builder, it, have, kind)

    def integer(self, value: Value) -> Any:
        if types.unliteral(value[0]) != types.int64:
            raise Unsupported("an index that is not int64")
        return self.cast(value, types.int64)

    def operation(self, function: Any, arguments: list[Value]) -> Value:
        kinds = tuple(kind for kind, _ in arguments)
        found, emit = self.unit.operations.find(function, kinds)
        wanted = found.args
        packed = len(wanted) == 1 and isinstance(wanted[0], (types.StarArgTuple, types.StarArgUniTuple))
        if packed:
            wanted = tuple(wanted[0])
        if len(wanted) != len(arguments) or found.recvr is not None:
            raise Unsupported(f"{function!r} has the signature {found}")
        values = [self.cast(v, kind) for v, kind in zip(arguments, wanted)]
        if packed:
            values = [self.context.make_tuple(self.builder, found.args[0], values)]
        return found.return_type, self.unit.operations.templates.write(
            function, kinds, emit, self.builder, values
        )

    def static(self, node: ast.expr) -> Any:
        """The Python value of a name or attribute that is no variable; Unsupported for anything else."""
        if isinstance(node, ast.Name) and node.id not in self.local:
            if node.id in self.unit.namespace:
                return self.unit.namespace[node.id]
            builtins = self.unit.namespace["__builtins__"]
            builtins = builtins if isinstance(builtins, dict) else vars(builtins)
            if node.id in builtins:
                return builtins[node.id]
        elif isinstance(node, ast.Attribute):
            return getattr(self.static(node.value), node.attr)
        raise Unsupported("not known while compiling")

    def of_Constant(self, node: ast.Constant) -> Value:
        return self.literal(node.value)

    def of_Name(self, node: ast.Name) -> Value:
        if node.id not in self.local:
            return self.literal(self.static(node))
        kind, slot, certain = self.variables.read(node.id)
        if isinstance(slot, Kept):
            if certain:
                return kind, slot.value
            slot = self.spill(node.id, kind)
        return kind, self.builder.load(slot)

    def spill(self, name: str, kind: Any) -> Any:
        """Give a name whose values were kept a slot after all; returns that."""
        slot = self.new_slot(name, kind)
        for kept in self.kept.pop(name):
            builder = ir.IRBuilder(kept.block)
            if kept.last is None:
                builder.position_at_start(kept.block)
            else:
                builder.position_after(kept.last)
            builder.store(kept.value, slot)
            if kept.block is self.builder.block:
                self.builder.position_at_end(kept.block)
        self.variables.move(name, slot)
        return slot

    def new_slot(self, name: str, kind: Any) -> Any:
        with self.builder.goto_entry_block():
            return self.builder.alloca(self.context.get_value_type(kind), name=name)

    def of_Attribute(self, node: ast.Attribute) -> Value:
        return self.literal(self.static(node))

    def of_BinOp(self, node: ast.BinOp) -> Value:
        known = _constant(node)
        if known is not None:
            return self.literal(known)
        return self.operation(BINARY[type(node.op)], [self.value(node.left), self.value(node.right)])

    def of_UnaryOp(self, node: ast.UnaryOp) -> Value:
        known = _constant(node)
        if known is not None:
            return self.literal(known)
        if isinstance(node.op, ast.Not):
            return types.boolean, self.builder.not_(self.truth(self.value(node.operand)))
        return self.operation(_UNARY[type(node.op)], [self.value(node.operand)])

    def of_Compare(self, node: ast.Compare) -> Value:
        if len(node.ops) > 1:
            return self.decided(node)
        return self.operation(
            self.comparison(node.ops[0]), [self.value(node.left), self.value(node.comparators[0])]
        )

    def comparison(self, op: ast.cmpop) -> Any:
        if type(op) not in _COMPARE:
            raise Unsupported(type(op).__name__)
        return _COMPARE[type(op)]

    def of_BoolOp(self, node: ast.BoolOp) -> Value:
        return self.decided(node)

    def decided(self, node: ast.expr) -> Value:
        """A bool out of jumps."""
        yes, no, after = (self.function.append_basic_block(n) for n in ("true", "false", "decided"))
        self.branch(node, yes, no, of_bools=True)
        for block in (yes, no):
            self.builder.position_at_end(block)
            self.builder.branch(after)
        self.builder.position_at_end(after)
        out = self.builder.phi(I1)
        out.add_incoming(I1(1), yes)
        out.add_incoming(I1(0), no)
        return types.boolean, out

    def branch(self, node: ast.expr, yes: Any, no: Any, of_bools: bool = False) -> None:
        """Jump to `yes` or `no`. of_bools: the operands of and, or must be bools, for their value is used."""
        if isinstance(node, ast.BoolOp):
            for part in node.values[:-1]:
                more = self.function.append_basic_block("more")
                if isinstance(node.op, ast.And):
                    self.branch(part, more, no, of_bools)
                else:
                    self.branch(part, yes, more, of_bools)
                self.builder.position_at_end(more)
            self.branch(node.values[-1], yes, no, of_bools)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.branch(node.operand, no, yes)
        elif isinstance(node, ast.Compare) and len(node.ops) > 1:
            left = self.value(node.left)
            for k, (op, other) in enumerate(zip(node.ops, node.comparators)):
                right = self.value(other)
                holds = self.truth(self.operation(self.comparison(op), [left, right]))
                last = k == len(node.ops) - 1
                more = yes if last else self.function.append_basic_block("more")
                self.builder.cbranch(holds, more, no)
                if not last:
                    self.builder.position_at_end(more)
                left = right
        else:
            value = self.value(node)
            if of_bools and types.unliteral(value[0]) != types.boolean:
                raise Unsupported("and, or of something else than bools")
            self.builder.cbranch(self.truth(value), yes, no)

    def truth(self, value: Value) -> Any:
        kind = types.unliteral(value[0])
        if kind == types.boolean:
            return self.cast(value, kind)
        made = self.cast(value, kind)
        if _is_integer(kind):  # Numba looks its code up each time
            return self.builder.icmp_unsigned("!=", made, I64(0))
        return self.context.is_true(self.builder, kind, made)

    def of_IfExp(self, node: ast.IfExp) -> Value:
        yes, no, after = (self.function.append_basic_block(n) for n in ("yes", "no", "either"))
        self.branch(node.test, yes, no)
        made = []
        for block, part in ((yes, node.body), (no, node.orelse)):
            self.builder.position_at_end(block)
            made.append((self.value(part), self.builder.block))
        kinds = [types.unliteral(v[0]) for v, _ in made]
        kind = kinds[0] if kinds[0] == kinds[1] else self.unit.operations.typing.unify_types(*kinds)
        if kind is None:
            raise Unsupported("a choice of two types")
        incoming = []
        for value, block in made:
            self.builder.position_at_end(block)
            incoming.append((self.cast(value, kind), self.builder.block))
            self.builder.branch(after)
        self.builder.position_at_end(after)
        out = self.builder.phi(self.context.get_value_type(kind))
        for value, block in incoming:
            out.add_incoming(value, block)
        return kind, out

    def of_Tuple(self, node: ast.Tuple) -> Value:
        values = [self.value(e) for e in node.elts]
        kinds = [types.unliteral(kind) for kind, _ in values]
        kind = types.BaseTuple.from_types(kinds)
        return kind, self.context.make_tuple(
            self.builder, kind, [self.cast(v, k) for v, k in zip(values, kinds)]
        )

    def of_Subscript(self, node: ast.Subscript) -> Value:
        kind, base = self.value(node.value)
        index = self.value(node.slice)
        if isinstance(kind, types.CPointer):
            return kind.dtype, self.builder.load(self.builder.gep(base, [self.integer(index)]))
        if isinstance(kind, types.BaseTuple) and isinstance(index[0], types.IntegerLiteral):
            k = index[0].literal_value
            return kind[k], self.builder.extract_value(base, k % len(kind))
        return self.operation(operator.getitem, [(kind, base), index])

    def of_Call(self, node: ast.Call) -> Value:
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise Unsupported("arguments by name")
        if isinstance(node.func, ast.Name) and self.unit.defines(node.func.id):
            return self.call(node.func.id, [self.value(a) for a in node.args])
        function = self.static(node.func)
        arguments = [self.value(a) for a in node.args]
        if isinstance(function, types.Number) and len(arguments) == 1:
            return function, self.cast(arguments[0], function)
        choice = function is min or function is max
        if choice and len(arguments) > 1 and all(_is_integer(kind) for kind, _ in arguments):
            return types.int64, self.extreme(
                "<" if function is min else ">", [self.integer(a) for a in arguments]
            )
        return self.operation(function, arguments)

    def extreme(self, sign: str, values: list[Any]) -> Any:
        """min or max of integers, for which Numba would call a function that it compiles."""
        found = values[0]
        for other in values[1:]:
            found = self.builder.select(self.builder.icmp_signed(sign, other, found), other, found)
        return found

    def call(self, name: str, arguments: list[Value]) -> Value:
        kinds = tuple(types.unliteral(kind) for kind, _ in arguments)
        inner, result = self.unit.function(name, kinds)
        builder = self.builder
        slot = POINTER(None)
        if result != types.none:
            with builder.goto_entry_block():
                slot = builder.alloca(self.context.get_value_type(result))
        values = [self.cast(v, kind) for v, kind in zip(arguments, kinds)]
        status = builder.call(inner, [builder.bitcast(slot, POINTER), self.function.args[1], *values])
        with builder.if_then(builder.icmp_signed("!=", status, I32(0)), likely=False):
            builder.ret(status)
        return result, None if result == types.none else builder.load(slot)


def _is_integer(kind: Any) -> bool:
    return types.unliteral(kind) == types.int64


@functools.cache
def _literal(of: type, value: Any) -> Any:
    """Numba's type of a Python constant, which Numba would make anew each time."""
    return types.literal(value)


def _constant(node: ast.expr) -> int | float | None:
    """The value of arithmetic on constants alone, as Python's compiler folds it."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) in (int, float) else None
    if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
        inner = _constant(node.operand)
        return None if inner is None else _UNARY[type(node.op)](inner)
    if isinstance(node, ast.BinOp):
        left, right = _constant(node.left), _constant(node.right)
        if left is not None and right is not None:
            return BINARY[type(node.op)](left, right)
    return None
