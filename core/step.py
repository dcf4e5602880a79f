"""One step back on the tape: from gradients of a node's outputs to those of its inputs, by its op's rules."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .saved import Need, is_number, refuse_changed
from .types import TensorType

if TYPE_CHECKING:
    from .declared import GradRule
    from .value import Tensor
    from .vjp import Node

_NUMBER_SET = frozenset((int, float, bool, complex))


def _checked(node: Node, name: str, entry: Any) -> Any:
    x, version = entry
    if not is_number(x) and x._get_version() != version:
        raise Need(node.op.name, name, x.type, node.where).refuse(x._changed_place())
    return x


def _arguments(node: Node, rule: GradRule, grads: list[Any], create_graph: bool) -> list[Any]:
    op = node.op
    args: list[Any] = []
    for name in rule.wants:
        if name == "g":
            args.append(grads[0])
        elif name == "gs":
            args.append(tuple(grads))
        elif name in ("out", "outs"):
            outs = []
            for k, entry in enumerate(node.outs, op.first_out):
                y = _checked(node, "its output", entry)
                outs.append(
                    y._alias_of(node, k) if create_graph and node.out_types[k].dtype.has_gradient else y
                )
            args.append(outs[0] if name == "out" else tuple(outs))
        elif name == "needs":
            args.append(tuple(e is not None for e in node.edges))
        elif name in node.saved:
            entry = node.saved[name]
            if name.endswith("_type") or name == "types":
                args.append(entry)
            elif op.variadic:
                args.append(tuple(_checked(node, name, e) for e in entry))
            else:
                args.append(_checked(node, name, entry))
        else:
            args.append(node.attrs[op.attr_names.index(name)])
    return args


def _fit(g: Tensor, t: TensorType) -> Tensor:
    """Sum a gradient down to the shape its input had before broadcasting; give it the input's dtype."""
    if g.shape != t.shape:
        from .ops.shape import sum_to

        g = sum_to(g, shape=t.shape)
    return g if g.dtype is t.dtype else g.to(t.dtype)


def _zeros_beside(grads: list[Any], t: TensorType) -> Tensor:
    device = next(g.device for g in grads if g is not None)
    return _creation().zeros(t.shape, dtype=t.dtype, device=device)  # type: ignore[no-any-return]


def _node_grads(node: Node, grads: list[Any], create_graph: bool) -> list[Any]:
    if getattr(node.op, "needs", None) is not None:
        refuse_changed(node)
    if getattr(node.op, "partial", False):
        return _rule_grads(node, grads, create_graph)
    # Other rules want a gradient for every output; an output nobody used has a zero one.
    full = [
        g if g is not None or not t.dtype.has_gradient else _zeros_beside(grads, t)
        for g, t in zip(grads, node.out_types)
    ]
    if getattr(node.op, "conjugate", False) and any(t.dtype.is_complex for t in node.out_types):
        # g * conj(f'(x)) is the conjugate of conj(g) * f'(x).
        return _conjugated(_rule_grads(node, _conjugated(full), create_graph))
    return _rule_grads(node, full, create_graph)


def _conjugated(row: list[Any]) -> list[Any]:
    from .ops.complex import conj

    return [conj(g) if g is not None and g.dtype.is_complex else g for g in row]


def _rule_grads(node: Node, full: list[Any], create_graph: bool) -> list[Any]:
    rules = node.rules
    if isinstance(rules, list):
        if node.op.variadic:
            rule = next((r for r in rules if r is not None), None)
            return list(rule.fn(*_arguments(node, rule, full, create_graph))) if rule else [None] * len(rules)
        return [r.fn(*_arguments(node, r, full, create_graph)) if r is not None else None for r in rules]
    result = rules.fn(*_arguments(node, rules, full, create_graph))
    return list(result) if isinstance(result, tuple) else [result]


def fitted(node: Node, grads: list[Any], create_graph: bool = False) -> list[Any]:
    """The gradients of a node's inputs, in the types of these inputs."""
    return [
        None if edge is None or g is None else _fit(g, _input_type(edge))
        for edge, g in zip(node.edges, _node_grads(node, grads, create_graph))
    ]


def _input_type(edge: Any) -> TensorType:
    if isinstance(edge, tuple):
        t: TensorType = edge[0].out_types[edge[1]]
        return t
    leaf: TensorType = edge.type
    return leaf


@functools.cache
def _creation() -> Any:
    from .ops import creation

    return creation
