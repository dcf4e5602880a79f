"""Updates of many tensors in one native call: what an optimiser does at each step.

A step's tensors are always the same but for the gradients, so their addresses are part of the program; a call passes
the gradients' and the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

from ..core.backend import Operand, Program, Scalar, Slot, float_bits, get_backend
from ..core.listed import gather, in_turn
from ..core.op import Attrs, Op
from ..core.op_lower import lower_op
from ..core.storage import writes
from .tensor import EagerTensor, Layout

#: lists kept for one owner: gradients come in few layouts, and for few choices of parameters
KEPT = 4
Row = tuple[EagerTensor, ...]


class UpdateList:
    """`row = op(row[0], gradient, *row[1:], *shared)` for rows of tensors, as one program.

    kinds: layouts of the gradients; shared_kinds: a layout or `float` of each shared input; execute: runs on the shared
    inputs and the addresses of the gradients, None where the rows cannot be one program.
    """

    __slots__ = (
        "attrs",
        "execute",
        "kinds",
        "last",
        "moved",
        "op",
        "owned",
        "rows",
        "shared_kinds",
        "stores",
    )

    def __init__(
        self, op: Op, rows: list[Row], grads: list[EagerTensor], shared: tuple[Any, ...], attrs: Attrs
    ):
        self.op, self.attrs, self.rows = op, attrs, rows
        self.moved = writes.moved
        self.kinds = [g._layout for g in grads]
        self.shared_kinds = [_kind(x) for x in shared]
        self.stores = [t._storage for row in rows for t in row]
        self.owned = frozenset(self.stores)
        #: of each number the one passed last and its bits: settings are mostly the same objects
        self.last: list[tuple[Any, int]] = [(None, 0)] * len(shared)
        self.execute = self._program(grads, shared) if _fit(op, rows, grads, shared, attrs) else None

    def _program(
        self, grads: list[EagerTensor], shared: tuple[Any, ...]
    ) -> Callable[[Sequence[int]], None] | None:
        """Runs on the shared inputs and the addresses of the gradients; None where launches depend on each other."""
        backend = get_backend(self.rows[0][0]._layout.device)
        program = Program(backend)
        sources = [program.dynamic() for _ in shared]
        slopes = [_operand(program.dynamic(), g._layout) for g in grads]
        passed = program.n_dynamic
        fixed: dict[int, int] = {}
        for row, slope, g in zip(self.rows, slopes, grads):
            own = [_operand(program.dynamic(), t._layout) for t in row]
            fixed |= {x.source: t._storage.ptr + t._offset for x, t in zip(own, row)}
            dtypes = self.op.form([_dtype(x) for x in (row[0], g, *row[1:], *shared)], self.attrs).arg_dtypes
            given = [
                _operand(source, x._layout) if isinstance(x, EagerTensor) else Scalar(source, dtype)
                for source, x, dtype in zip(sources, shared, dtypes[len(row) + 1 :])
            ]
            lower_op(program, self.op, [own[0], slope, *own[1:], *given], own, self.attrs)
        if program.scratch_bytes or any(launch.wave for launch in program.launches[1:]):
            return None
        launches = in_turn(backend, [launch for launch, _ in gather(backend, program.launches)])
        program.launches = [
            launch._replace(
                args=tuple(
                    fixed[a.source] + a.offset if isinstance(a, Slot) and a.source in fixed else a for a in launch.args
                )
            )
            for launch in launches
        ]  # fmt: skip
        program.n_dynamic = passed
        return backend.load(program).run

    def fits(
        self, op: Op, rows: list[Row], kinds: list[Layout], shared_kinds: list[Any], attrs: Attrs
    ) -> bool:
        return (
            self.op is op and self.moved is writes.moved and self.kinds == kinds
            and all(map(is_, self.rows, rows))  # `==` compares elements
            and self.shared_kinds == shared_kinds and self.attrs == attrs
        )  # fmt: skip

    def run(self, grads: list[EagerTensor], shared: tuple[Any, ...], place: Any) -> None:
        values = []
        last = self.last
        for k, x in enumerate(shared):
            if x.__class__ is float:
                known, bits = last[k]
                if known is not x:
                    bits = float_bits(x)
                    last[k] = x, bits
                values.append(bits)
            else:
                values.append(x._storage.ptr + x._offset)
        values += [g._storage.ptr + g._offset for g in grads]
        self.execute(values)  # type: ignore[misc]
        for storage in self.stores:
            storage.version += 1
            storage.changed = place
        writes.last = object()


#: by what the updates are for, the lists made last
_lists: WeakKeyDictionary[Any, tuple[UpdateList, ...]] = WeakKeyDictionary()


def update_list(
    owner: Any, op: Op, found: Sequence[tuple[Row, EagerTensor]], shared: tuple[Any, ...], attrs: Attrs
) -> tuple[UpdateList, list[EagerTensor]] | None:
    """The list for these rows and gradients, made when there is none, and the gradients; None for what needs care."""
    rows = [row for row, _ in found]
    grads = [g for _, g in found]
    try:
        kinds = [g._layout for g in grads]
        shared_kinds = [_kind(x) for x in shared]
        read = [*grads, *(x for x in shared if x.__class__ is not float)]
        storages = [x._storage for x in read]
    except AttributeError:  # a tensor of a trace, or a number that is no float
        return None
    lists = _lists.get(owner, ())
    for kept in lists:
        if kept.fits(op, rows, kinds, shared_kinds, attrs):
            break
    else:
        kept = UpdateList(op, rows, grads, shared, attrs)
        others = [x for x in lists if x.moved is writes.moved]
        _lists[owner] = (kept, *others[: KEPT - 1])
    if kept.execute is None or not kept.owned.isdisjoint(storages):
        return None
    return kept, grads


def _fit(op: Op, rows: list[Row], grads: list[EagerTensor], shared: tuple[Any, ...], attrs: Attrs) -> bool:
    """Whether these are tensors with memory of their own, all on one device; errors are found the long way."""
    tensors = [t for row in rows for t in row]
    if op.kind != "pointwise" or len(rows) < 2 or any(t._base is not None for t in tensors):
        return False
    if len({t._storage for t in tensors}) < len(tensors):
        return False
    every = [*tensors, *grads, *(x for x in shared if isinstance(x, EagerTensor))]
    if len({x._layout.device for x in every}) > 1 or any(x._layout.dtype.is_complex for x in every):
        return False
    for row, g in zip(rows, grads):
        types = [x._layout.type if isinstance(x, EagerTensor) else x for x in (row[0], g, *row[1:], *shared)]
        if tuple(op.infer(types, attrs)) != tuple(t._layout.type for t in row):
            return False
    return True


def _kind(x: Any) -> Any:
    return float if x.__class__ is float else x._layout


def _dtype(x: Any) -> Any:
    """What `Op.form` wants to know of an operand."""
    return x._layout.dtype if isinstance(x, EagerTensor) else x.__class__


def _operand(source: int, lay: Layout) -> Operand:
    return Operand(source, 0, lay.dtype, lay.shape, lay.strides)
