"""LLVM code for many lanes from code written for one, and functions of it whose text is written once."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from .target import Target, target

_I32 = ir.IntType(32)

#: bodies of fewer instructions stand where they are used: a call would take as long to write
_WORTH_A_CALL = 12


class _Repeated(ir.Constant):
    """A vector constant written in one word: llvmlite would write its elements, each time."""

    def __init__(self, type_: ir.Type, text: str, lanes: int):
        super().__init__(ir.VectorType(type_, lanes), ir.Undefined)
        self._text = f"splat ({type_} {text})"

    def _get_reference(self) -> str:
        return self._text


_repeated = functools.cache(_Repeated)


def splat(value: Any, lanes: int) -> Any:
    """A vector with the constant `value` in all lanes."""
    return _repeated(value.type, value.get_reference(), lanes)


_TYPE_SUFFIX = re.compile(r"\.([if]\d+)(?=\.|$)")


class LaneBuilder:
    """An LLVM builder for straight-line scalar code that emits the same code on vectors.

    Constants and types become vectors, LLVM intrinsics take their vector names, and a loop goes on while
    any lane asks for it.
    """

    def __init__(self, builder: Any, lanes: int):
        self._builder, self._lanes = builder, lanes
        # Scalar code declares the intrinsics that it calls; those declarations are thrown away.
        self.module = ir.Module()

    def _widen(self, x: Any) -> Any:
        if isinstance(x, ir.Type):
            return x if isinstance(x, ir.VectorType) else ir.VectorType(x, self._lanes)
        if isinstance(x, ir.Constant) and not isinstance(x.type, ir.VectorType):
            return splat(x, self._lanes)
        return x

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._builder, name)
        if not callable(found):
            return found
        if name in ("append_basic_block", "branch", "position_at_end"):
            return found
        return lambda *args: found(*map(self._widen, args))

    def call(self, function: Any, args: Any) -> Any:
        name = _TYPE_SUFFIX.sub(rf".v{self._lanes}\1", function.name)
        args = [self._widen(a) for a in args]
        wide = ir.FunctionType(self._widen(function.function_type.return_type), [a.type for a in args])
        return self._builder.call(declare(self._builder.module, name, wide), args)

    def phi(self, type_: Any) -> Any:
        node = self._builder.phi(self._widen(type_))
        plain = node.add_incoming
        node.add_incoming = lambda value, block: plain(self._widen(value), block)
        return node

    def cbranch(self, condition: Any, yes: Any, no: Any) -> Any:
        if isinstance(condition.type, ir.VectorType):
            bits = self._builder.bitcast(condition, ir.IntType(self._lanes))
            condition = self._builder.icmp_unsigned("!=", bits, bits.type(0))
        return self._builder.cbranch(condition, yes, no)


def declare(module: Any, name: str, function_type: Any) -> Any:
    """The function `name` of a module."""
    found = module.globals.get(name)
    return ir.Function(module, function_type, name) if found is None else found


def spread(builder: Any, value: Any, lanes: int) -> Any:
    """A vector with the scalar `value` in all lanes."""
    if isinstance(value.type, ir.VectorType):
        return value
    if isinstance(value, ir.Constant):
        return splat(value, lanes)
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, value, _I32(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


#: what writes a scalar function: (builder, values) -> value
Code = Callable[[Any, Sequence[Any]], Any]


def on_lanes(code: Code, builder: Any, values: Sequence[Any], lanes: int) -> Any:
    """The result of scalar code on vectors of `lanes` (1: scalars)."""
    if lanes == 1:
        return code(builder, values)
    result = code(LaneBuilder(builder, lanes), values)
    return splat(result, lanes) if not isinstance(result.type, ir.VectorType) else result


def in_function(
    name: str, code: Code, result: ir.Type, builder: Any, values: Sequence[Any], lanes: int
) -> Any:
    """The same by a call of the function `name`, where that is long: LLVM puts it back into its caller.

    name: says what the code is, in all of the process; result: the type of one lane.
    """
    written = _written(name, code, result, tuple(v.type for v in values), lanes, target())
    if written.size < _WORTH_A_CALL:
        return on_lanes(code, builder, values, lanes)
    written.enter(builder.module)
    return builder.call(written.function, values)


class _Text:
    """A global of a module that is a text alone."""

    def __init__(self, name: str, text: str):
        self.name, self._text = name, text

    def __str__(self) -> str:
        return self._text


_METADATA = re.compile(r"(?<= )!(\d+)\b")


class _Written:
    """A function, its text, and what it needs in its module: kernels hold the same few of them."""

    def __init__(self, name: str, code: Code, result: ir.Type, arguments: Sequence[ir.Type], lanes: int):
        module = ir.Module()
        made = result if lanes == 1 else ir.VectorType(result, lanes)
        self.function = ir.Function(module, ir.FunctionType(made, arguments), f"{name}.{lanes}")
        self.function.linkage = "internal"
        self.function.attributes.add("alwaysinline")
        builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        builder.ret(on_lanes(code, builder, self.function.args, lanes))
        self.size = sum(len(block.instructions) for block in self.function.blocks)
        self._needs = [v for v in module.globals.values() if v is not self.function]
        self._metadata = module.metadata
        self._text = str(self.function)

    def enter(self, module: Any) -> None:
        """Stand in a module that is being written, once."""
        if self.function.name in module.globals:
            return
        for needed in self._needs:
            if needed.name not in module.globals:
                module.add_global(needed)
        numbers = [module.add_metadata(node.operands).name for node in self._metadata]
        text = (
            _METADATA.sub(lambda found: f"!{numbers[int(found[1])]}", self._text) if numbers else self._text
        )
        module.add_global(_Text(self.function.name, text))


@functools.cache
def _written(
    name: str, code: Code, result: ir.Type, arguments: tuple[ir.Type, ...], lanes: int, cpu: Target
) -> _Written:
    return _Written(name, code, result, arguments, lanes)
