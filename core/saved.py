"""What a tape keeps of tensors, in the order in which a walk looks at it, and the error for one that was changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import AutogradError, Place, line_of
from .types import TensorType

if TYPE_CHECKING:
    from .value import Tensor
    from .vjp import Node

_NUMBERS = (int, float, bool, complex)
_NUMBER_SET = frozenset(_NUMBERS)
_FIX = "use an out-of-place op (x = x + 1), or clone() the tensor before changing it"


class Need(NamedTuple):
    """Why a walk looks at a tensor: the op whose gradient wants it, as what, its type, where the op was called.

    line: the user's line at which it looks, where that is not the one that starts the walk.
    """

    op: str
    what: str
    type: TensorType
    where: Place | None
    fix: str = _FIX
    line: str | None = None

    def refuse(self, changed: Place | None) -> AutogradError:
        """The error for a tensor that is not as it was. changed: where it was changed."""
        line = line_of(changed)
        return AutogradError(
            self.op,
            f"needs {self.what}: {self.type} as it was at {line_of(self.where)} for its gradient, but it was changed "
            "in place" + (f" at {line}" if line else ""),
            self.fix,
            self.line,
        )


def is_number(x: Any) -> bool:
    """Whether what was kept is no tensor: a number, one of a program too, or nothing."""
    return x is None or isinstance(x, _NUMBERS) or not hasattr(x, "_node")


def needs_of(node: Node) -> Iterator[tuple[Need, Any, int]]:
    """What the rules of a node want of tensors, in their order: why, the tensor, its version then."""
    op = node.op
    if node.saved is None:  # it has been freed
        return
    inside = getattr(op, "needs", None)  # of one that stands for several
    if inside is not None:
        yield from inside(node)
        return
    for rule in node.rules if isinstance(node.rules, list) else (node.rules,):
        for name in () if rule is None else rule.wants:
            rows: Any = ()
            if name in ("out", "outs"):
                name, rows = "its output", node.outs
            elif name in node.saved and not (name.endswith("_type") or name == "types"):
                rows = node.saved[name] if op.variadic else (node.saved[name],)
            for x, version in rows:
                if not is_number(x):
                    yield Need(op.name, name, x.type, node.where), x, version


def refuse_changed(node: Node) -> None:
    """Raise AutogradError for the first of these that was changed in place."""
    for need, x, version in needs_of(node):
        if x._get_version() != version:
            raise need.refuse(x._changed_place())


def nodes_behind(roots: Sequence[Any], leaves: Sequence[Any]) -> list[tuple[Node, int, int]]:
    """The tape behind some roots in the order of a walk; by bits, from which of them a walk comes to a node, and to
    which of the leaves, then roots, and last any other leaves it goes on from there."""
    reached: dict[float, int] = {}
    nodes: dict[float, Node] = {}
    for bit, root in enumerate(roots):
        if root._node is not None:
            nodes[root._node.number] = root._node
            reached[root._node.number] = reached.get(root._node.number, 0) | 1 << bit
    todo = list(nodes)
    while todo:
        for edge in nodes[todo.pop()].edges:
            if isinstance(edge, tuple) and edge[0].number not in nodes:
                nodes[edge[0].number] = edge[0]
                todo.append(edge[0].number)
    order = sorted(nodes, reverse=True)  # an op is younger than what it reads
    for number in order:
        for edge in nodes[number].edges:
            if isinstance(edge, tuple):
                reached[edge[0].number] = reached.get(edge[0].number, 0) | reached[number]
    ends = {id(x): 1 << k for k, x in enumerate(leaves)}
    others = 1 << len(leaves) + len(roots)
    taps: dict[Any, int] = {}
    for k, root in enumerate(roots, len(leaves)):
        if root._node is not None:
            key = _tap(root._node, root._index)
            taps[key] = taps.get(key, 0) | 1 << k
    leads: dict[float, int] = {}
    for number in reversed(order):
        bits = 0
        for edge in nodes[number].edges:
            if isinstance(edge, tuple):
                bits |= leads[edge[0].number] | taps.get(_tap(*edge), 0)
            elif edge is not None:
                bits |= ends.get(id(edge), others)
        leads[number] = bits
    return [(nodes[number], reached[number], leads[number]) for number in order]


def _tap(node: Node, index: int) -> Any:
    """What a walk to a result comes to: its node, whichever of the outputs it comes from (`reach.leads`)."""
    return (node.number, index) if node.is_call else node.number


def freed(name: str, where: Place | None) -> AutogradError:
    """The error for a step back that was made already. name, where: of the op."""
    return AutogradError(
        "backward",
        f"the tape of {name} (recorded at {line_of(where)}) was already used and freed",
        "call backward(retain_graph=True) the first time, or run the forward pass again",
    )


def has_tape(root: Tensor) -> bool:
    """Whether a walk from here can run: nothing on the way was freed or changed in place."""
    stack, seen = [root._node], set()
    while stack:
        node = stack.pop()
        if node is None or node.number in seen:
            continue
        seen.add(node.number)
        if node.saved is None:
            return False
        kept = [e for name, e in node.saved.items() if not name.endswith("_type") and name != "types"]
        for x, version in [
            *node.outs,
            *(e for entry in kept for e in (entry if node.op.variadic else (entry,))),
        ]:
            if x is not None and not isinstance(x, _NUMBERS) and x._get_version() != version:
                return False
        stack += [edge[0] for edge in node.edges if isinstance(edge, tuple)]
    return True


def kept_by(node: Node) -> tuple[list[Any], list[Any]]:
    """The tensors that a node kept, inputs and then outputs, and the numbers.

    Raises AutogradError for a tensor that was changed in place.
    """
    found: list[Any] = []
    numbers: list[Any] = []
    saved, variadic = node.saved, node.op.variadic
    for name in saved:
        if name.endswith("_type") or name == "types":
            continue
        entry = saved[name]
        for x, version in entry if variadic else (entry,):
            if x.__class__ in _NUMBER_SET:
                if not variadic:
                    numbers.append(x)
            elif x is not None:
                if x._get_version() != version:
                    refuse_changed(node)
                found.append(x)
    for y, version in node.outs:
        if y._get_version() != version:
            refuse_changed(node)
        found.append(y)
    return found, numbers
