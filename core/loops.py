"""Loop kernels: the backend-neutral form of every generated kernel, single op or fusion.

A loop kernel is structure only: no size, no stride and no address is part of it, so one compiled kernel
serves every batch size. Backends emit source text from it; `core/lower.py` makes it and its argument slots.

Loop axes, outermost first, by form:

    map   [kept ...] inner                     every output element on its own
    row   [kept ...] [reduced ...] inner       inner is reduced; vector lanes run along it
    col   [kept ...] [reduced ...] inner       inner is kept; vector lanes run across outputs

Argument slots (8 bytes each), in this order:

    size of every loop axis                                     n_axes slots
    if split: block length along the first reduced axis         1 slot
    every input:  buffer -> address, then a stride per axis     1 + n_axes slots   (strides in elements)
                  index  -> a stride per axis                   n_axes slots       (value = sum of i * stride)
                  scalar -> the bits of a float64 or an int64   1 slot
    every output: address, then a stride per axis               1 + n_axes slots   (0 along reduced axes)
    if the emitter asked for scratch rows: address, row pitch in elements of 8 bytes   2 slots

Chunks divide the flattened kept axes; for a map with no kept axes they divide the inner axis (in multiples of
64 elements), for col kernels the kept axes times the pieces of 1024 elements of the inner axis. When `split`,
the kept axes end with one more axis, the block number: its size slot counts blocks, block b covers indices
[b * length, min(size, (b + 1) * length)) of the first reduced axis (inputs address it from the start, their
stride along the block axis is 0), and outputs (always row level) have a stride along it.

A map kernel may be `listed`: it runs over several lists of operands, one after the other, as one. Its slots: how many
there are, elements in all, words of each; then for each how many elements stand before it, and its slots as above.
Chunks divide the elements of all, in whole pieces (64 elements, or an inner axis), not the lists.

Reductions have a fixed order, a function of the loop sizes alone: results do not depend on chunks or threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .scalar import Expr, walk
from .types import DType

REDUCTIONS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")


class Input(NamedTuple):
    """An input of a loop kernel.

    kind: "buffer", "scalar" or "index"; inner: along the innermost axis "c" (stride 1), "b" (stride 0),
    "r" (stride -1) or "s" (any); row: it does not change along the reduced axes.
    """

    dtype: DType
    kind: str = "buffer"
    inner: str = "c"
    row: bool = False


class Output(NamedTuple):
    """An output: `inner` as for inputs; row: stored once per kept index (after the reduction)."""

    dtype: DType
    inner: str = "c"
    row: bool = False


class _Structure:
    """What expressions are, apart from the identity of their nodes: equal structures are one object."""

    __slots__ = ()


_structures: dict[Any, _Structure] = {}
_of: dict[Any, tuple[Any, _Structure]] = {}
_KEPT = 4096


def _structure(order: tuple[Expr, ...], roots: tuple[Expr, ...]) -> _Structure:
    near = id(order), *map(id, roots)
    known = _of.get(near)
    if known is None:
        number = {id(node): k for k, node in enumerate(order)}
        body = tuple((n.op, n.dtype.char, repr(n.value), tuple(number[id(a)] for a in n.args)) for n in order)
        far = body, tuple(number[id(r)] for r in roots)
        found = _structures.get(far)
        if found is None:
            found = _structures[far] = _Structure()
        if len(_of) >= _KEPT:
            _of.clear()
        known = _of[near] = (order, roots), found
    return known[1]


class LoopKernel:
    """A fused loop: inputs, expressions, outputs.

    roots[k] is stored to outputs[k]. In the expressions, `arg` k reads inputs[k]; `reduce` (value: one of
    REDUCTIONS, one operand) turns an element-level value into a row-level one. Map kernels have no `reduce`.
    A row kernel may have several, one depending on another (softmax: max, then sum), and outputs of both
    levels; a col kernel has reductions of one stage and row-level outputs only.
    notes: comment lines for the generated source (op names and user lines); no part of the identity.
    """

    __slots__ = ("_key", "form", "inputs", "kept", "listed", "notes", "outputs", "reduced", "roots", "split")

    def __init__(
        self,
        form: str,
        kept: int,
        reduced: int,
        inputs: tuple[Input, ...],
        roots: tuple[Expr, ...],
        outputs: tuple[Output, ...],
        split: bool = False,
        notes: tuple[str, ...] = (),
        listed: bool = False,
    ):
        self.form, self.kept, self.reduced, self.split, self.listed = form, kept, reduced, split, listed
        self.inputs, self.roots, self.outputs, self.notes = inputs, roots, outputs, notes
        self._key: tuple[object, ...] | None = None

    @property
    def n_axes(self) -> int:
        """map: kept + inner; row: kept + reduced (the last of them inner); col: kept + reduced + inner.

        `kept` counts the block axis of a split kernel.
        """
        return self.kept + self.reduced + (0 if self.form == "row" else 1)

    @property
    def key(self) -> tuple[object, ...]:
        """Identity of the structure: kernels with equal keys have equal source."""
        if self._key is None:
            ins = tuple([(i.dtype.char, i.kind, i.inner, i.row) for i in self.inputs])
            outs = tuple([(o.dtype.char, o.inner, o.row) for o in self.outputs])
            body = _structure(walk(self.roots), self.roots)
            self._key = (self.form, self.kept, self.reduced, self.split, self.listed, ins, outs, body)
        return self._key

    def levels(self) -> dict[int, str]:
        """id(expr) -> "elem" or "row" for every node; constants and scalars are "row"."""
        out: dict[int, str] = {}
        for node in walk(self.roots):
            if node.op == "arg":
                spec = self.inputs[node.value]
                out[id(node)] = "row" if spec.kind == "scalar" or spec.row else "elem"
            elif node.op == "reduce":
                out[id(node)] = "row"
            else:
                out[id(node)] = "elem" if any(out[id(a)] == "elem" for a in node.args) else "row"
        if self.form == "map":
            return dict.fromkeys(out, "elem")
        return out
