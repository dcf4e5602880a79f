"""What lies behind some roots on a tape: the nodes that lead to the targets of a walk, where a part of it ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

#: what `look` finds of a node: no target behind it, itself that of a target, a target behind it, or that it has been
#: unfolded, so that its edges are to be asked
DEAD, END, THROUGH, PAST = 0, 1, 2, 3

_number = attrgetter("number")


def opened(edge: Any) -> Any:
    """An edge where the walk goes on: past nodes that have been unfolded (`core/unfolding.py`)."""
    while edge.__class__ is tuple and edge[0].unfolded:
        edge = edge[0].edges[edge[1]]
    return edge


def leads(edge: Any, wanted: Any, found: dict[Any, int]) -> int:
    """What `look` has found of an edge. One that goes to a result of a call is looked at by itself: others of the
    call's results may lead to a target where it does not."""
    if edge.__class__ is not tuple:
        return id(edge) in wanted
    node, k = edge
    known = found.get(node.number, DEAD)
    if known == PAST:
        return leads(opened(edge), wanted, found)
    if not known or not node.is_call:
        return known
    key = (node.number,)
    if key not in found:
        targets = [n for n in range(len(node.out_types)) if (node.number, n) in wanted]
        found[key] = node.leading(targets, [leads(e, wanted, found) for e in node.edges])
    return found[key] >> k & 1


def of_several_parts(roots: Iterable[Any], leaves: Sequence[Any]) -> list[int]:
    """The places of the leaves whose gradient from these roots is a sum: more than one step of a walk leads there."""
    counts = {id(x): 0 for x in leaves}
    todo, seen = [y._node for y in roots], set()
    while todo:
        node = todo.pop()
        if node.number not in seen:
            seen.add(node.number)
            for edge in node.edges:
                if edge.__class__ is tuple:
                    todo.append(edge[0])
                elif id(edge) in counts:
                    counts[id(edge)] += 1
    return [k for k, x in enumerate(leaves) if counts[id(x)] > 1]


def look(edges: Iterable[Any], wanted: Any, cut: bool, found: dict[Any, int]) -> dict[Any, int]:
    """Find out about the nodes behind `edges`, by their numbers, besides what was `found` before.

    wanted: the keys of the targets, (number, output index) or the id of a leaf; cut: what lies behind the node of a
    target does not count.
    """
    inside = [key[0] for key in wanted if key.__class__ is tuple]
    ends = set(inside)
    # What was recorded before all targets leads to none; a leaf may be older than all nodes.
    floor = min(inside) if inside and len(inside) == len(wanted) else float("-inf")
    ahead = []
    todo = [edge[0] for edge in edges if edge.__class__ is tuple]
    while todo:
        node = todo.pop()
        number = node.number
        if node.unfolded:
            if found.get(number) != PAST:
                found[number] = PAST
                todo += [edge[0] for edge in node.edges]
        elif number not in found:
            found[number] = DEAD
            if number > floor and not (cut and number in ends):
                ahead.append(node)
                for edge in node.edges:
                    if edge.__class__ is tuple:
                        todo.append(edge[0])
    for number in ends:
        if number in found:
            found[number] = max(found[number], END)
    if len(ahead) > 1:
        ahead.sort(key=_number)  # nodes go to earlier ones
    for node in ahead:
        for edge in node.edges:
            if edge.__class__ is tuple:
                if found[edge[0].number] and leads(edge, wanted, found):
                    found[node.number] = THROUGH
                    break
            elif id(edge) in wanted:
                found[node.number] = THROUGH
                break
    return found


def past(edge: Any, wanted: dict[Any, int], cut: bool, found: dict[Any, int]) -> Any:
    """An edge to a node that has been unfolded, maybe during the walk, as one to the op behind it.

    Targets of the walk go there, too. found: as of `look`, or nothing where all nodes take part.
    """
    while edge[0].unfolded:
        node, index = edge
        for k, inner in enumerate(node.edges):
            if (node.number, k) in wanted:
                wanted[edge_key(inner)] = wanted.pop((node.number, k))
        if found:
            look([edge], wanted, cut, found)
        edge = node.edges[index]
    return edge


def edge_key(edge: Any) -> Any:
    edge = opened(edge)
    return (edge[0].number, edge[1]) if isinstance(edge, tuple) else id(edge)


def frontier(roots: Sequence[Any], start: int) -> list[Any]:
    """The edges at which the tape of the roots leaves what was recorded after `start`: leaves and older nodes."""
    stack: list[Any] = [r._node for r in reversed(roots)]
    seen: set[int] = set()
    found: dict[Any, Any] = {}
    while stack:
        node = stack.pop()
        if node.number in seen:
            continue
        seen.add(node.number)
        for edge in node.edges:
            if isinstance(edge, tuple) and edge[0].number > start:
                stack.append(edge[0])
            elif edge is not None:
                found.setdefault(edge_key(edge), opened(edge))
    return list(found.values())


def renumber(roots: Iterable[Any], first: int, below: float) -> None:
    """Move the nodes behind `roots` that were recorded since number `first` to just below another node's number."""
    found: dict[float, Any] = {}
    todo = list(roots)
    while todo:
        node = todo.pop()
        if node.number > first and node.number not in found:
            found[node.number] = node
            todo += [edge[0] for edge in node.edges if isinstance(edge, tuple)]
    for k, number in enumerate(sorted(found), 1):
        found[number].number = below - 1 + k / (len(found) + 1)
