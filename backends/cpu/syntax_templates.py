"""The LLVM text of operations, written once in a process for each kind of operands.

llvmlite makes an object of each instruction and then its text, some 20 µs, and kernels hold the same few operations
time and again. So from its second use on an operation is a text with gaps for the names of operands and results: what
its code leaves in a module of its own for operands of these types. Code that makes more than one block, or metadata, is
run each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import callconv

from .target import target

_POINTER = ir.IntType(8).as_pointer()
_NAME = re.compile(r'%"([^"]*)"')

Emit = Callable[[Any, list[Any]], Any]


class _Result(ir.values.Value):  # type: ignore[misc]
    """A value by its type and name."""

    def __init__(self, type_: ir.Type, reference: str):
        self.type, self._reference = type_, reference

    def get_reference(self) -> str:
        return self._reference


class _Lines:
    """Some instructions in a block, as their text."""

    def __init__(self, parent: Any, text: str):
        self.parent, self._text = parent, text

    def __str__(self) -> str:
        return self._text


class _Template:
    """The text of an operation's instructions, what it needs in its module, and its result."""

    def __init__(self, text: str, needs: Sequence[Any], result: Any, operand: int):
        self._text, self._needs, self._result, self._operand = text, needs, result, operand

    def write(self, builder: Any, values: Sequence[Any]) -> Any:
        module = builder.module
        for needed in self._needs:
            if needed.name not in module.globals:
                module.add_global(needed)
        number = module.duograd_operations = getattr(module, "duograd_operations", 0) + 1
        if self._text:
            text = self._text.format(number, *[v.get_reference() for v in values])
            builder._insert(_Lines(builder.block, text))
        if self._operand >= 0:
            return values[self._operand]
        if isinstance(self._result, ir.Constant):
            return self._result
        return _Result(self._result.type, f'%"o{number}.{self._result.name}"')


class Templates:
    """The operations of a process, by function, types of operands, constants among them, and the CPU."""

    def __init__(self) -> None:
        self._known: dict[Any, _Template | None] = {}
        self._once: set[Any] = set()

    def write(
        self, function: Any, kinds: tuple[Any, ...], emit: Emit, builder: Any, values: list[Any]
    ) -> Any:
        """What `emit` writes for these values; the result."""
        constants = tuple([v.get_reference() if isinstance(v, ir.Constant) else None for v in values])
        key = function, kinds, constants, target()
        if key not in self._once:
            self._once.add(key)
            return emit(builder, values)
        if key not in self._known:
            self._known[key] = _template(emit, values)
        found = self._known[key]
        return emit(builder, values) if found is None else found.write(builder, values)


def _template(emit: Emit, values: Sequence[Any]) -> _Template | None:
    """The template of what `emit` writes for such operands, of which constants are themselves."""
    module = ir.Module()
    free = [v.type for v in values if not isinstance(v, ir.Constant)]
    # Numba's functions have two arguments of their own in front, which code that calls another one passes on.
    shape = ir.FunctionType(ir.VoidType(), [_POINTER, callconv.excinfo_ptr_t.as_pointer(), *free])
    function = ir.Function(module, shape, "operation")
    block = function.append_basic_block("entry")
    own, arguments = function.args[:2], iter(function.args[2:])
    operands = [v if isinstance(v, ir.Constant) else next(arguments) for v in values]
    result = emit(ir.IRBuilder(block), operands)
    if len(function.blocks) > 1 or module.metadata or any(i.opname == "alloca" for i in block.instructions):
        return None
    text = "\n  ".join(map(str, block.instructions)).replace("{", "{{").replace("}", "}}")
    if any(a.get_reference() in text for a in own):
        return None
    gaps = {o.name: f"{{{k}}}" for k, o in enumerate(operands, 1) if not isinstance(o, ir.Constant)}
    text = _NAME.sub(lambda found: gaps.get(found[1]) or f'%"o{{0}}.{found[1]}"', text)
    needs = [v for v in module.globals.values() if v is not function]
    operand = next((k for k, o in enumerate(operands) if o is result), -1)
    return _Template(text, needs, result, operand)
