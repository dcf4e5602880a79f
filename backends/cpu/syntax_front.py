"""Kernels from their syntax tree to LLVM IR in one walk, with Numba's types and Numba's code of each operation.

Numba's own way (`numba_front`) reads bytecode back into a control-flow graph, brings it into SSA form, infers
types to a fixed point and lowers what it found: two thirds of a kernel's compile time. Kernels need none of
that: an assignment says a variable's type (`syntax_names`), and LLVM makes SSA values of stack slots. What an
operation means is asked of Numba (signature by argument types, cast, code), so both ways give the same
program; what a kernel cannot be without analysis (a value whose type depends on the way to it, an exception) raises
`Unsupported`, and goes Numba's way.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba.core import callconv, errors, types

from .operations import Operations, Unsupported
from .syntax_names import Value, Variables, disjoint
from .syntax_values import BINARY, I8, I32, I64, POINTER, Expressions, Kept

#: loops over written tuples of up to this many elements are unrolled
UNROLLED = 16


class _Called:
    """In the place of Numba's library for the code that is written now: the libraries of what that calls."""

    def __init__(self) -> None:
        self.libraries: dict[Any, None] = {}

    def add_linking_library(self, library: Any) -> None:
        library._ensure_finalized()
        self.libraries[library] = None


class Unit:
    """The functions of one source text, as one LLVM module."""

    def __init__(self, tree: ast.Module, namespace: dict[str, Any], operations: Operations, abreast: bool):
        self.operations, self.abreast = operations, abreast
        self.namespace = namespace
        self.module = ir.Module("kernel")
        self.library = _Called()
        self._definitions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        self._made: dict[Any, tuple[Any, Any] | None] = {}

    def defines(self, name: str) -> bool:
        return name in self._definitions

    def function(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        """The LLVM function for `name` on arguments of these types, and the type of its result."""
        key = name, arguments
        if key not in self._made:
            self._made[key] = None
            self._made[key] = _Function(self, self._definitions[name], arguments, len(self._made)).made()
        made = self._made[key]
        if made is None:
            raise Unsupported("recursion")
        return made

    def export(self, symbol: str, name: str, arguments: tuple[Any, ...], result: Any, raises: str) -> None:
        """A C function `symbol` that calls `name`; it calls `raises` where the function reports an error."""
        inner, returned = self.function(name, arguments)
        if (returned == types.none) != (result == types.none):
            raise Unsupported("another result than the entry's")
        context = self.operations.context
        values = [context.get_value_type(t) for t in arguments]
        out = ir.VoidType() if result == types.none else context.get_value_type(result)
        outer = ir.Function(self.module, ir.FunctionType(out, values), symbol)
        outer.attributes.add("nounwind")
        if self.abreast:
            outer.attributes.alignstack = (
                64  # what leaves its register for a while lies in one line of the cache
            )
        builder = ir.IRBuilder(outer.append_basic_block("entry"))
        slot = builder.alloca(I8 if result == types.none else context.get_value_type(returned))
        error = builder.alloca(callconv.excinfo_ptr_t)
        status = builder.call(
            inner,
            [builder.bitcast(slot, POINTER), error, *outer.args],
        )
        with builder.if_then(builder.icmp_signed(">", status, I32(0)), likely=False):
            report = self.module.globals.get(raises)
            if report is None:
                report = ir.Function(self.module, ir.FunctionType(ir.VoidType(), []), raises)
            builder.call(report, [])
        if result == types.none:
            builder.ret_void()
        else:
            builder.ret(context.cast(builder, builder.load(slot), returned, result))


class _Loop:
    def __init__(self, again: Any, after: Any):
        self.again, self.after = again, after


class _Function(Expressions):
    """One function on given argument types; `made()` has the LLVM function and the result's type."""

    def __init__(self, unit: Unit, node: ast.FunctionDef, arguments: tuple[Any, ...], number: int):
        self.unit, self.context = unit, unit.operations.context
        self.result: Any = None
        parameters = [a.arg for a in node.args.args]
        spec = node.args
        if spec.vararg or spec.kwarg or spec.kwonlyargs or spec.posonlyargs or spec.defaults:
            raise Unsupported("parameters")
        if len(parameters) != len(arguments):
            raise Unsupported("number of arguments")
        stores = [*((name, ()) for name in parameters), *_stores(node.body, (), itertools.count())]
        self.local = {name for name, _ in stores}
        #: names that need a slot only where they are read outside the region of their assignment
        self.disjoint = disjoint(stores)
        #: the values so far of those of them that have none
        self.kept = {}
        values = [self.context.get_value_type(t) for t in arguments]
        # Numba's convention, which the code of its operations relies on: status(result*, exception**, ...).
        shape = ir.FunctionType(I32, [POINTER, callconv.excinfo_ptr_t.as_pointer(), *values])
        self.function = ir.Function(unit.module, shape, f"{node.name}.{number}")
        self.function.linkage = "internal"
        for decorator in node.decorator_list:
            if not isinstance(decorator, ast.Name) or decorator.id not in ("inline", "function"):
                raise Unsupported("decorator")
            if decorator.id == "inline":
                self.function.attributes.add("alwaysinline")
        # Slots of variables come into a block of their own, in front of all.
        self.entry = self.function.append_basic_block("entry")
        self.builder = ir.IRBuilder(self.entry)
        self.variables = Variables()
        self.loops: list[_Loop] = []
        for name, kind, value in zip(parameters, arguments, self.function.args[2:]):
            self.assign(name, (kind, value))
        self.statements(node.body)
        if not self.builder.block.is_terminated:
            if self.result in (None, types.none):
                self.leave((types.none, None))
            elif isinstance(node.body[-1], ast.While) and _is_true(node.body[-1].test):
                self.builder.unreachable()  # behind an endless loop
            else:
                raise Unsupported("an end without a result")

    def made(self) -> tuple[Any, Any]:
        return self.function, types.none if self.result is None else self.result

    # ---- statements

    def statements(self, body: list[ast.stmt]) -> None:
        for node in body:
            if self.builder.block.is_terminated:
                return
            method = getattr(self, "do_" + type(node).__name__, None)
            if method is None:
                raise Unsupported(type(node).__name__)
            method(node)

    def assign(self, name: str, value: Value) -> None:
        kind = types.unliteral(value[0])
        if kind == types.none:
            raise Unsupported("a variable that is None")
        made = self.cast(value, kind)
        place = self.variables.place(name)
        if name in self.disjoint and (place is None or isinstance(place, Kept)):
            block = self.builder.block
            kept = Kept(made, block, block.instructions[-1] if block.instructions else None)
            if self.variables.slot(name, kind, lambda: kept) is kept:
                self.kept[name] = [kept]
            else:
                self.kept[name].append(kept)
                self.variables.move(name, kept)
            return
        self.builder.store(made, self.variables.slot(name, kind, lambda: self.new_slot(name, kind)))

    def do_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.put(target, value)

    def put(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.assign(target.id, value)
        elif isinstance(target, ast.Tuple) and isinstance(value[0], types.BaseTuple):
            if len(target.elts) != len(value[0]):
                raise Unsupported("unpacking")
            for k, (one, kind) in enumerate(zip(target.elts, value[0])):
                self.put(one, (kind, self.builder.extract_value(value[1], k)))
        elif isinstance(target, ast.Subscript):
            base = self.value(target.value)
            if not isinstance(base[0], types.CPointer):
                raise Unsupported("assignment to an element")
            place = self.builder.gep(base[1], [self.integer(self.value(target.slice))])
            self.builder.store(self.cast(value, base[0].dtype), place)
        else:
            raise Unsupported("target")

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise Unsupported("target")
        read = ast.Name(node.target.id, ast.Load())
        value = self.operation(BINARY[type(node.op)], [self.value(read), self.value(node.value)])
        self.assign(read.id, value)

    def do_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.value(node.value)

    def do_Pass(self, node: ast.Pass) -> None:
        pass

    def do_If(self, node: ast.If) -> None:
        yes, no, after = (self.function.append_basic_block(n) for n in ("yes", "no", "after"))
        self.branch(node.test, yes, no if node.orelse else after)
        reached = not node.orelse
        for block, body in ((yes, node.body), (no, node.orelse)):
            if block is no and not node.orelse:
                break
            self.builder.position_at_end(block)
            with self.variables.region(loop=False):
                self.statements(body)
            if not self.builder.block.is_terminated:
                self.builder.branch(after)
                reached = True
        if not node.orelse:
            self.function.blocks.remove(no)
        if reached:
            self.builder.position_at_end(after)
        else:
            self.function.blocks.remove(after)

    def do_While(self, node: ast.While) -> None:
        if node.orelse:
            raise Unsupported("while ... else")
        head, body, after = (self.function.append_basic_block(n) for n in ("while", "do", "done"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        with self.variables.region(loop=True):
            self.branch(node.test, body, after)
            self.builder.position_at_end(body)
            self.turn(node.body, head, after)
        self.builder.position_at_end(after)

    def do_For(self, node: ast.For) -> None:
        call = node.iter
        if isinstance(call, ast.Tuple) and len(call.elts) <= UNROLLED and not node.orelse:
            self.for_each(node, call)
            return
        if node.orelse or not isinstance(node.target, ast.Name) or not isinstance(call, ast.Call):
            raise Unsupported("for")
        if self.static(call.func) is not range or call.keywords:
            raise Unsupported("for over something else than range")
        bounds = [self.value(a) for a in call.args]
        start, stop = (
            self.integer(v) for v in (bounds[:2] if len(bounds) > 1 else [self.literal(0), bounds[0]])
        )
        step = 1
        if len(bounds) == 3:
            if not isinstance(bounds[2][0], types.IntegerLiteral) or not bounds[2][0].literal_value:
                raise Unsupported("a variable step")
            step = bounds[2][0].literal_value
        head, body, again, after = (
            self.function.append_basic_block(n) for n in ("for", "do", "again", "done")
        )
        before = self.builder.block
        self.builder.branch(head)
        self.builder.position_at_end(head)
        counter = self.builder.phi(I64)
        counter.add_incoming(start, before)
        inside = self.builder.icmp_signed("<" if step > 0 else ">", counter, stop)
        self.builder.cbranch(inside, body, after)
        self.builder.position_at_end(body)
        with self.variables.region(loop=True):
            self.assign(node.target.id, (types.int64, counter))
            self.turn(node.body, again, after)
        self.builder.position_at_end(again)
        counter.add_incoming(self.builder.add(counter, I64(step), flags=("nsw",)), again)
        self.builder.branch(head)
        self.builder.position_at_end(after)

    def for_each(self, node: ast.For, elements: ast.Tuple) -> None:
        """A loop over a written tuple: its body once for each element."""
        after = self.function.append_basic_block("done")
        for element in elements.elts:
            again = self.function.append_basic_block("again")
            with self.variables.region(loop=False):
                self.put(node.target, self.value(element))
                self.turn(node.body, again, after)
            self.builder.position_at_end(again)
        self.builder.branch(after)
        self.builder.position_at_end(after)

    def turn(self, body: list[ast.stmt], again: Any, after: Any) -> None:
        """The body of a loop; `continue` and its end lead to `again`, `break` to `after`."""
        self.loops.append(_Loop(again, after))
        self.statements(body)
        self.loops.pop()
        if not self.builder.block.is_terminated:
            self.builder.branch(again)

    def do_Break(self, node: ast.Break) -> None:
        self.builder.branch(self.loops[-1].after)

    def do_Continue(self, node: ast.Continue) -> None:
        self.builder.branch(self.loops[-1].again)

    def do_Return(self, node: ast.Return) -> None:
        self.leave((types.none, None) if node.value is None else self.value(node.value))

    def leave(self, value: Value) -> None:
        kind = types.unliteral(value[0])
        if self.result is None:
            self.result = kind
        elif self.result != kind:
            raise Unsupported("results of two types")
        if kind != types.none:
            place = self.builder.bitcast(
                self.function.args[0], self.context.get_value_type(kind).as_pointer()
            )
            self.builder.store(self.cast(value, kind), place)
        self.builder.ret(I32(0))


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value)


def _stores(
    body: list[ast.stmt], path: tuple[int, ...], numbers: Iterator[int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names that statements assign, with the region (a loop's body, a branch) of each assignment."""
    for node in body:
        inside = {part: (*path, next(numbers)) for part in ("body", "orelse") if getattr(node, part, None)}
        around = inside["body"] if isinstance(node, ast.For) else path
        for target in getattr(node, "targets", None) or [getattr(node, "target", None)]:
            if isinstance(target, ast.Name):
                yield target.id, around
            elif target is not None:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        yield part.id, around
        for name, region in inside.items():
            yield from _stores(getattr(node, name), region, numbers)


def translate(
    source: str,
    entries: tuple[tuple[str, tuple[Any, ...], Any], ...],
    symbols: tuple[str, ...],
    namespace: dict[str, Any],
    operations: Operations,
    raises: str,
) -> tuple[str, list[Any]]:
    """LLVM IR of a source that exports `symbols`, one per entry (name, argument types, result type).

    namespace: the names of the kernel language; it is filled with those of the source.
    Returns: the text, and the libraries of functions that Numba compiled for it.
    Raises: Unsupported.
    """
    same = lambda function: function
    namespace["inline"] = namespace["function"] = same
    try:
        tree = ast.parse(source)
        others = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
        exec(compile(ast.Module(others, []), "<kernel>", "exec"), namespace)
    except Exception as error:  # whatever a source does when it is read; Numba's way reports it
        raise Unsupported(str(error)) from error
    try:
        unit = Unit(tree, namespace, operations, "w_four()" in source)
        with operations.context.push_code_library(unit.library):
            for symbol, (name, arguments, result) in zip(symbols, entries):
                unit.export(symbol, name, arguments, result, raises)
        return str(unit.module), list(unit.library.libraries)
    except (errors.NumbaError, NotImplementedError) as error:
        raise Unsupported(str(error)) from error
