"""Which nodes of a tape lead to the targets of a walk: the others take no part in it."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

#: what `look` finds of a node: no target behind it, itself that of a target, a target behind it
DEAD, END, THROUGH = 0, 1, 2

_number = attrgetter("number")


def look(edges: Iterable[Any], wanted: Any, cut: bool, found: dict[float, int]) -> dict[float, int]:
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
        if number not in found:
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
                if found[edge[0].number]:
                    found[node.number] = THROUGH
                    break
            elif id(edge) in wanted:
                found[node.number] = THROUGH
                break
    return found
