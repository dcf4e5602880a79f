"""From a node with regions to one launch: each region becomes a program, bound to the memory of the node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core import region as R
from ..core.backend import CARRY_IN, CARRY_OUT, FIXED, STEP, Binding, Nested, Operand, Program, Slot
from ..core.errors import KernelError
from ..core.lower import copy
from ..core.types import bool_
from .ir import Node


class Inside(NamedTuple):
    """A region's plan (`compile.Compiled`), for reports. name: of the region; turns: how many, where that is known."""

    name: str
    turns: int | None
    plan: Any


def lower_control(
    program: Program, node: Node, inputs: Sequence[Operand], outputs: Sequence[Operand], sources: Any
) -> tuple[Inside, ...]:
    """Append the launch of a `cond`, `while_loop` or `scan`; returns the plans of its regions."""
    if not hasattr(program.backend, "loop"):
        raise KernelError(
            node.op.name, f"has no kernel for {program.backend.name}", "run the function on CPU tensors"
        )
    made = _Lowering(program, list(inputs), list(outputs), sources)
    rules: dict[Any, Any] = {R.cond: made.cond, R.while_loop: made.while_loop, R.scan: made.scan}
    rules[node.op](**node.named)
    return tuple(made.inside)


class _Lowering:
    def __init__(self, program: Any, inputs: list[Operand], outputs: list[Operand], sources: Any):
        self.program, self.inputs, self.outputs, self.sources = program, inputs, outputs, sources
        self.backend = program.backend
        self.inside: list[Inside] = []

    def nested(
        self, name: str, region: R.Region, inputs: Sequence[tuple[Binding, Any]], outputs: Sequence[Binding],
        turns: int | None = None,
    ) -> Nested:  # fmt: skip
        """A region as a program. inputs: a binding and the strides of each input."""
        from .compile import plan_graph

        graph = region.graph.copy()
        for value, (_, strides) in zip(graph.inputs, inputs, strict=True):
            if strides is not None:
                graph.strides[value] = strides
        planned = plan_graph(graph, self.backend)
        self.inside.append(Inside(name, turns, planned))
        bindings = [*(b for b, _ in inputs), *outputs]
        for number, dtype in planned.numbers:
            before, step = number.outside(region.serial)
            step -= (1 << 64) if step >= 1 << 63 else 0
            scalar = self.sources.scalar(before, dtype)
            bindings.append(Binding(STEP if step else FIXED, Slot(scalar.source), step))
        bindings += [Binding(FIXED, bits) for bits in planned.constants]
        if planned.arena_bytes:
            bindings.append(Binding(FIXED, self.program.scratch(planned.arena_bytes)))
        assert len(bindings) == planned.program.n_dynamic, "every dynamic value of a region is bound"
        return Nested(planned.program, tuple(bindings))

    def fixed(self, operands: Sequence[Operand]) -> list[tuple[Binding, Any]]:
        return [(Binding(FIXED, x.slot), None if x.is_contiguous else x.strides) for x in operands]

    def carries(self, start: int, count: int) -> tuple[list[Binding], list[Binding]]:
        """Two buffers for each carry: the result's memory and one beside it."""
        ins, outs = [], []
        for x, out in zip(self.inputs[start : start + count], self.outputs):
            nbytes = x.size * x.dtype.itemsize
            if not x.is_contiguous:
                dense = self.program.scratch_operand(x.dtype, x.shape)
                copy(self.program, x, dense)
                x = dense
            spare = self.program.scratch(nbytes)
            ins.append(Binding(CARRY_IN, x.slot, out.slot, spare, nbytes))
            outs.append(Binding(CARRY_OUT, 0, out.slot, spare))
        return ins, outs

    def cond(self, on_true: R.Region, on_false: R.Region) -> None:
        results = [Binding(FIXED, o.slot) for o in self.outputs]
        regions = {"on_true": on_true, "on_false": on_false}
        branches = [self.nested(name, r, self.fixed(self.inputs[1:]), results) for name, r in regions.items()]
        self.backend.branch(self.program, self.inputs[0].slot, branches)

    def while_loop(self, test: R.Region, body: R.Region, n_consts: int) -> None:
        ins, outs = self.carries(n_consts, len(self.outputs))
        given = [*self.fixed(self.inputs[:n_consts]), *((b, None) for b in ins)]
        pred = self.program.scratch(bool_.itemsize)
        condition = self.nested("test", test, given, [Binding(FIXED, pred)])
        turn = self.nested("body", body, given, outs)
        self.backend.loop(self.program, turn, condition, pred, -1, False)

    def scan(self, body: R.Region, n_consts: int, n_carry: int, length: int, reverse: bool) -> None:
        ins, outs = self.carries(n_consts, n_carry)
        given: list[tuple[Binding, Any]] = [*self.fixed(self.inputs[:n_consts]), *((b, None) for b in ins)]
        for x in self.inputs[n_consts + n_carry :]:
            step = x.strides[0] * x.dtype.itemsize
            one = x._replace(shape=x.shape[1:], strides=x.strides[1:])
            given.append((Binding(STEP, x.slot, step), None if one.is_contiguous else one.strides))
        for out in self.outputs[n_carry:]:
            step = out.strides[0] * out.dtype.itemsize
            outs.append(Binding(STEP, out.slot, step))
        turn = self.nested("body", body, given, outs, length)
        self.backend.loop(self.program, turn, None, None, length, reverse)
