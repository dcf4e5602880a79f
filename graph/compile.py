"""From a graph to something that runs: passes, schedule, memory plan, program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.backend import Operand, Program, Scalar, get_backend, scalar_bits
from ..core.lower import copy
from ..core.op_lower import lower_op, operand_kind
from ..core.types import TensorType, contiguous_strides
from .ir import Graph, Node, Number, Value


class Compiled(NamedTuple):
    """A graph made runnable.

    Dynamic values of `executable.run`, in this order: addresses of the graph's inputs, addresses of fresh
    contiguous memory for its outputs, the bits of `numbers` (kind float: float64 bits), the bits of
    `constants`, and, when arena_bytes > 0, the address of an arena of that size.
    """

    executable: Any
    outputs: tuple[TensorType, ...]
    numbers: tuple[tuple[Number, Any], ...]
    constants: tuple[int, ...]
    arena_bytes: int
    graph: Graph
    program: Program


def compile_graph(graph: Graph, device: str) -> Compiled:
    """Compile for a device."""
    backend = get_backend(device)
    program = Program(backend)
    where: dict[Value, Operand] = {}
    for value in graph.inputs:
        strides = graph.strides.get(value, contiguous_strides(value.type.shape))
        where[value] = Operand(program.dynamic(), 0, value.type.dtype, value.type.shape, strides)
    outs = [
        Operand(program.dynamic(), 0, v.type.dtype, v.type.shape, contiguous_strides(v.type.shape)) for v in graph.outputs
    ]
    numbers: dict[tuple[Number, Any], int] = {}
    constants: list[tuple[int, int]] = []
    scalars: list[tuple[Any, Any]] = []
    arena = 0
    pending: list[tuple[Node, list[Any]]] = []
    for node in graph.nodes:
        dtypes = None
        if node.op.kind == "pointwise":
            kinds = [x.type.dtype if isinstance(x, Value) else x.kind if isinstance(x, Number) else type(x)
                     for x in node.inputs]  # fmt: skip
            dtypes = node.op.form(kinds, node.attrs).arg_dtypes
        ops: list[Any] = []
        for k, x in enumerate(node.inputs):
            if isinstance(x, Value) or x is None:
                ops.append(x)
            else:
                dtype = dtypes[k] if dtypes else node.outputs[0].type.dtype
                if isinstance(x, Number) and (x, dtype) in numbers:
                    ops.append(Scalar(numbers[x, dtype], dtype))
                    continue
                scalars.append((x, dtype))
                ops.append((len(scalars) - 1, dtype))
        pending.append((node, ops))
    number_list: list[tuple[Number, Any]] = []
    source_of: dict[int, int] = {}
    for k, (x, dtype) in enumerate(scalars):
        if isinstance(x, Number):
            source_of[k] = program.dynamic()
            number_list.append((x, dtype))
    for k, (x, dtype) in enumerate(scalars):
        if not isinstance(x, Number):
            source_of[k] = program.dynamic()
            constants.append((source_of[k], scalar_bits(x, dtype)))
    arena_source = program.dynamic()
    program.scratch_source = arena_source
    for node, ops in pending:
        inputs = [where[x] if isinstance(x, Value) else x if x is None else Scalar(source_of[x[0]], x[1]) for x in ops]
        if node.op.is_view and node.op.view_rule is not None:
            x = inputs[0]
            made = node.op.view_rule(x.shape, x.strides, **node.named)
            if made is not None:
                shape, strides, offset = made
                where[node.outputs[0]] = Operand(x.source, x.offset + offset * x.dtype.itemsize, x.dtype, shape, strides)
                continue
        results = []
        for v in node.outputs:
            where[v] = program.scratch_operand(v.type.dtype, v.type.shape)
            results.append(where[v])
        program.wave()
        lower_op(program, node.op, inputs, results, node.attrs, (f"{node.op.name}  {node.line}",))
    program.wave()
    for value, out in zip(graph.outputs, outs):
        copy(program, where[value], out)
    for target, value in graph.writes:
        copy(program, where[value], where[target])
    arena = program.scratch_bytes
    executable = backend.load(program)
    return Compiled(
        executable, tuple(v.type for v in graph.outputs), tuple(number_list), tuple(b for _, b in constants), arena, graph,
        program,
    )  # fmt: skip


def operand_kinds(inputs: Sequence[Any]) -> list[Any]:
    """The dtype kinds of operands."""
    return [operand_kind(x) for x in inputs]
