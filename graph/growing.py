"""Which sizes of tensors are others from call to call: they become live numbers of a variant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..core.region import Region
from .formulas import Size
from .live import as_now, is_live

#: so many sizes of an axis have a variant each before one is for any
SEEN = 3


def changing_sizes(tensors: Sequence[Any], variants: Iterable[Any]) -> list[Size]:
    """The sizes by which a call with these tensors, and the state of now, differs from what these variants are for."""
    found: dict[tuple[int, int], tuple[Any, str, list[int]]] = {}
    for v in variants:
        for tensor, layout, name in _pairs(tensors, v):
            now = tensor._layout
            if now.dtype is layout.dtype and len(now.shape) == len(layout.shape) and now.contiguous:
                for axis, n in enumerate(layout.shape):
                    place = id(tensor), axis
                    found.setdefault(place, (tensor, f"size {axis} of {name}", []))[2].append(n)
    made: dict[Any, Size] = {}
    for (_, axis), (tensor, name, before) in found.items():
        n = tensor._layout.shape[axis]
        if n > 1 and len({*before, n}) > SEEN:
            size = made.setdefault((n, *before), Size([], n, name))
            size.places.append((tensor, axis))
    return list(made.values())


def _pairs(tensors: Sequence[Any], variant: Any) -> Iterator[tuple[Any, Any, str]]:
    """Tensors with the layouts that a variant had in their places."""
    if len(tensors) == len(variant.layouts):
        for k, (t, layout) in enumerate(zip(tensors, variant.layouts)):
            yield t, layout, f"tensor {k}"
    for state in variant.state:
        for k, (t, layout) in enumerate(state.layouts_now()):
            yield t, layout, state.name if state.size == 1 else f"tensor {k} of {state.name}"


def has_sizes(nodes: Iterable[Any]) -> bool:
    """Whether sizes, or other attributes, of nodes or of regions in them are live numbers."""
    return any(
        is_live((tuple([v.type for v in n.outputs]), n.attrs))
        or any(has_sizes(x.graph.nodes) for x in n.attrs if isinstance(x, Region))
        for n in nodes
    )


def forget_sizes(graph: Any) -> None:
    """Let a graph that has been compiled tell the sizes of the call that was traced: it must not keep the trace."""
    for v in graph.inputs:
        v.type = as_now(v.type)
    graph.strides = {v: as_now(s) for v, s in graph.strides.items()}
    for node in graph.nodes:
        node.attrs = as_now(node.attrs)
        for x in node.attrs:
            if isinstance(x, Region):
                forget_sizes(x.graph)
        node.inputs = [as_now(x) for x in node.inputs]
        for v in node.outputs:
            v.type = as_now(v.type)


def forget_compiled(compiled: Any) -> Any:
    """The same of what was made of it, and of the regions in it."""
    for graph in (compiled.graph, compiled.optimised):
        forget_sizes(graph)
    plan = _forget_plan(compiled.plan, compiled.groups)
    return compiled._replace(outputs=as_now(compiled.outputs), plan=plan)


def _forget_plan(plan: Any, groups: Iterable[Any]) -> Any:
    rules, places = plan.fusion.rules, plan.places
    for table in (rules.layouts, places.parts):
        table.update({v: as_now(x) for v, x in table.items()})
    for item in rules.producer.values():
        item.reads, item.makers = [as_now(r) for r in item.reads], [as_now(r) for r in item.makers]
        item.domain, item.size = as_now(item.domain), as_now(item.size)
    for group in groups:
        group.become(group.kind, as_now(group.domain))
    lowered = [
        g._replace(
            phases=[[] for _ in g.phases], reads={v: [as_now(a) for a in row] for v, row in g.reads.items()},
            stores={v: as_now(s) for v, s in g.stores.items()},
            inside=[x._replace(turns=as_now(x.turns), plan=forget_compiled(x.plan)) for x in g.inside],
        )
        for g in plan.lowered
    ]  # fmt: skip
    spots = {v: as_now(spot) for v, spot in plan.memory.spots.items()}
    return plan._replace(lowered=lowered, memory=plan.memory._replace(spots=spots))
