"""From a pointwise or reducing expression over strided operands to loop kernels and their slots.

Used for one op (eager) and for a fused group (graph): both run the same loops in the same order. Loop axes of
reductions depend on logical shape and axes only, never on strides, so that the order of a sum is the same
whatever the memory layout; operands that do not fit are copied first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .backend import Arg, Operand, Program, Scalar
from .legalize import legalize
from .loops import Input, LoopKernel, Output
from .numbers import estimate
from .scalar import Expr, walk
from .types import Shape, contiguous_strides, int64

#: longer reductions than this are cut into blocks when there is too little other parallelism
SPLIT_ELEMENTS = 1 << 16
SPLIT_BLOCKS = 64
SPLIT_KEPT = 16
#: columns of a "col" kernel that are one piece of work; a block is at least so many rows of them
COLUMNS = 1024
SPLIT_ROWS = 16
#: the inner axis of a "col" kernel is split where so many elements are left: a row of them outweighs copies of operands
NARROW = 32


class Index(NamedTuple):
    """An input that is computed, not read: the sum of index times stride over the axes of the domain."""

    strides: tuple[int, ...]


class View(NamedTuple):
    """An operand (or the index) seen from the loop domain: one stride per axis, 0 where it is broadcast."""

    operand: Operand | None
    strides: tuple[int, ...]


def broadcast_strides(op: Operand, domain: Shape) -> tuple[int, ...]:
    """Strides of an operand over a domain that its shape broadcasts to."""
    shape, inner = op.shape, op.strides
    if 1 in shape:
        inner = tuple([0 if n == 1 else st for n, st in zip(shape, inner)])
    lead = len(domain) - len(shape)
    return (0,) * lead + inner if lead else inner


def _inner_class(stride: int) -> str:
    return {1: "c", 0: "b", -1: "r"}.get(stride, "s")


def _slots(view: View, order: Sequence[int]) -> list[Arg]:
    head: list[Arg] = [] if view.operand is None else [view.operand.slot]
    return head + [view.strides[a] for a in order]


def needs_index(roots: Sequence[Expr]) -> bool:
    """Whether an expression asks for the index of its element."""
    return _facts(roots)[2]


#: of expressions, by the id of what `walk` gives: that, `operations`, `needs_index`, and how deep reductions nest
_known: dict[int, tuple[tuple[Expr, ...], int, bool, int]] = {}
_KNOWN = 4096


def _facts(roots: Sequence[Expr]) -> tuple[tuple[Expr, ...], int, bool, int]:
    order = walk(roots)
    known = _known.get(id(order))
    if known is None:
        if len(_known) >= _KNOWN:
            _known.clear()
        cost, indexed, depth = 0, False, dict[int, int]()
        for node in order:
            below = 0
            for a in node.args:
                below = max(below, depth[id(a)])
            depth[id(node)] = below + (node.op == "reduce")
            if node.args:
                cost += 20 if node.op in _DEAR else 1
            indexed |= node.op == "index"
        stages = max([depth[id(r)] for r in roots], default=0)
        known = _known[id(order)] = order, cost, indexed, stages
    return known


def with_index_input(roots: Sequence[Expr], n_inputs: int) -> list[Expr]:
    """The expressions with the index node replaced by one more input, number `n_inputs`."""
    done: dict[int, Expr] = {}
    for node in walk(roots):
        if node.op == "index":
            done[id(node)] = Expr("arg", node.dtype, (), n_inputs)
        elif node.args:
            new = tuple(done[id(a)] for a in node.args)
            same = all(a is b for a, b in zip(new, node.args))
            done[id(node)] = node if same else Expr(node.op, node.dtype, new, node.value)
        else:
            done[id(node)] = node
    return [done[id(r)] for r in roots]


def lower_map(
    program: Program,
    domain: Shape,
    inputs: Sequence[Operand | Scalar | Index],
    roots: Sequence[Expr],
    outputs: Sequence[Operand],
    notes: tuple[str, ...] = (),
) -> None:
    """Append `outputs[k] = roots[k](inputs)` over the domain; inputs broadcast, outputs have the domain's shape."""
    if math.prod(domain) == 0:
        return
    inputs, roots, outputs = legalize(inputs, roots, outputs)
    views: list[View | Scalar] = [_over(x, domain) for x in inputs]
    if needs_index(roots):
        roots = with_index_input(roots, len(views))
        views.append(View(None, contiguous_strides(domain)))
    outs = [View(o, broadcast_strides(o, domain)) for o in outputs]
    every = [v for v in (*views, *outs) if isinstance(v, View)]
    axes = _memory_order(domain, outs[0].strides)
    sizes, strides = _collapse(
        tuple(domain[a] for a in axes), [tuple(v.strides[a] for a in axes) for v in every]
    )
    it = iter(strides)
    views = [v if isinstance(v, Scalar) else View(v.operand, next(it)) for v in views]
    outs = [View(v.operand, next(it)) for v in outs]
    n = len(sizes)
    order = range(n)
    kernel = LoopKernel(
        "map", n - 1, 0,
        tuple(_input(v, n - 1) for v in views),
        tuple(roots),
        tuple(Output(v.operand.dtype, _inner_class(v.strides[-1])) for v in outs if v.operand),
        notes=notes,
    )  # fmt: skip
    args: list[Arg] = list(sizes)
    for v in views:
        args += [_scalar_slot(v)] if isinstance(v, Scalar) else _slots(v, order)
    for v in outs:
        args += _slots(v, order)
    rows = estimate(math.prod(sizes[:-1]))
    total = rows * estimate(sizes[-1])
    work = total * sum(v.operand.dtype.itemsize for v in every if v.operand) + total * operations(roots)
    items = max(1, total // 64) if n == 1 else rows
    program.loop(kernel, args, program.chunks(items, work), sizes[-1])


def _memory_order(domain: Shape, strides: tuple[int, ...]) -> Sequence[int]:
    """The axes of a map from the one with the widest steps to the one with the narrowest: elements need no order."""
    steps = [abs(estimate(st)) if n != 1 else 0 for n, st in zip(domain, strides)]
    inner = [step for step in steps if step]
    if inner == sorted(inner, reverse=True):
        return range(len(domain))
    return sorted(range(len(domain)), key=lambda a: (-steps[a], a))


def operations(roots: Sequence[Expr]) -> int:
    """What an element costs: about the instructions of a simple op each."""
    return _facts(roots)[1]


_DEAR = frozenset(
    [
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "tanh",
        "asin",
        "acos",
        "atan",
        "asinh",
        "acosh",
        "atanh",
        "sigmoid",
        "erf",
        "erfc",
        "gelu",
        "softplus",
        "cbrt",
        "atan2",
        "pow",
        "philox",
        "mod",
        "fmod",
        "gcd",
        "floordiv",
    ]
)


def _over(x: Operand | Scalar | Index, domain: Shape) -> View | Scalar:
    if isinstance(x, Scalar):
        return x
    if isinstance(x, Index):
        return View(None, tuple(0 if n == 1 else st for n, st in zip(domain, x.strides)))
    return View(x, broadcast_strides(x, domain))


def _scalar_slot(x: Scalar) -> Arg:
    from .backend import Slot

    return Slot(x.source)


def _input(v: View | Scalar, inner: int, row_axes: Sequence[int] | None = None) -> Input:
    if isinstance(v, Scalar):
        return Input(v.dtype, "scalar", "b", True)

    dtype = int64 if v.operand is None else v.operand.dtype
    kind = "index" if v.operand is None else "buffer"
    # What has no elements has none for a row either: kernels load those before the reduction.
    row = row_axes is not None and all(v.strides[a] == 0 for a in row_axes)
    row = row and (v.operand is None or v.operand.size > 0)
    return Input(dtype, kind, _inner_class(v.strides[inner]), row)


def _collapse(sizes: Shape, strides: Sequence[tuple[int, ...]]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Merge neighbouring axes that all operands walk as one; drop axes of size 1. At least one axis stays."""
    keep = [a for a, n in enumerate(sizes) if n != 1]
    if not keep:
        return [1], [(1,) for _ in strides]  # one element is contiguous: no kernel of its own
    out_sizes = [sizes[keep[0]]]
    out = [[s[keep[0]]] for s in strides]
    for a in keep[1:]:
        if all(o[-1] == s[a] * sizes[a] for o, s in zip(out, strides)):
            out_sizes[-1] *= sizes[a]
            for o, s in zip(out, strides):
                o[-1] = s[a]
        else:
            out_sizes.append(sizes[a])
            for o, s in zip(out, strides):
                o.append(s[a])
    return out_sizes, [tuple(o) for o in out]


def copy(program: Program, source: Operand, target: Operand) -> None:
    """Append a copy (with conversion) of a broadcastable operand into a strided one; nothing for itself."""
    from .scalar import cast

    if source == target:
        return

    root = cast(Expr("arg", source.dtype, (), 0), target.dtype)
    lower_map(program, target.shape, [source], [root], [target], ("copy",))


def fill(program: Program, value: float, target: Operand) -> None:
    """Append a fill with a constant that is part of the source (0, 1, infinities)."""
    from .scalar import const

    lower_map(program, target.shape, [], [const(value, target.dtype)], [target], ("fill",))


# ---------------------------------------------------------------- reductions


def lower_reduce(
    program: Program,
    domain: Shape,
    axes: tuple[int, ...],
    inputs: Sequence[Operand | Scalar | Index],
    roots: Sequence[Expr],
    outputs: Sequence[Operand],
    notes: tuple[str, ...] = (),
) -> None:
    """Append a reduction over `axes` of the domain, with its pointwise surroundings.

    inputs broadcast to the domain. In roots, `reduce` nodes go from the domain to the kept shape. An output
    whose shape is the domain is stored per element, one with size 1 on every reduced axis once per kept index.
    """
    kept_shape = tuple(1 if a in axes else n for a, n in enumerate(domain))
    if math.prod(kept_shape) == 0:
        return
    inputs, roots, outputs = legalize(inputs, roots, outputs)
    form, cut, outer = _shape_of(domain, axes)
    groups = _groups(domain, axes)
    groups = _walkable(domain, groups, [x for x in (*inputs, *outputs) if not isinstance(x, Scalar)], form)
    views: list[Any] = [_grouped(program, x, domain, groups) for x in inputs]
    if needs_index(roots):
        roots = with_index_input(roots, len(views))
        views.append(_grouped_strides(None, contiguous_strides(domain), domain, groups))
    outs = []
    for o in outputs:
        strides = broadcast_strides(o, domain)
        outs.append(_grouped_strides(o, strides, domain, groups))
    sizes = [math.prod(domain[a] for a in g.axes) for g in groups]
    kept = [k for k, g in enumerate(groups) if not g.reduced]
    reduced = [k for k, g in enumerate(groups) if g.reduced]
    if not reduced:  # every reduced axis has size 1: one more axis that is
        sizes.append(1)
        views = [v if isinstance(v, Scalar) else View(v.operand, (*v.strides, 0)) for v in views]
        outs = [View(v.operand, (*v.strides, 0)) for v in outs]
        reduced = [len(sizes) - 1]
    order = [*kept[:-1], *reduced, kept[-1]] if form == "col" else [*kept, *reduced]
    n_kept = len(kept) - (form == "col")
    elem_out = any(any(v.strides[a] != 0 for a in reduced) for v in outs)
    plan = _Reduce(form, n_kept, order, sizes, reduced, views, roots, outs, notes)
    kinds = {n.value for n in walk(roots) if n.op == "reduce"}
    stages = _facts(roots)[3]
    first = sizes[reduced[0]]
    alone = stages == 1 and not elem_out and not kinds & {"argmax", "argmin"}
    over_batch = len(set(axes)) == len(domain) or (form == "col" and outer < SPLIT_KEPT)
    if alone and ((over_batch and program.for_all_sizes) or cut):
        _split(program, plan, first, cut)
    else:
        plan.emit(program)


def reduction_form(domain: Shape, axes: tuple[int, ...]) -> tuple[str, bool]:
    """The form of a reduction, "row" or "col", and whether one by itself is cut into blocks (argmax never is).

    A reduction that is cut has another order of its sum: it must be cut in a fused kernel too, which then has
    one stage of reductions and no outputs of the domain's shape.
    """
    return _shape_of(domain, axes)[:2]


def _shape_of(domain: Shape, axes: tuple[int, ...]) -> tuple[str, bool, int]:
    """What `reduction_form` says, and how many pieces of work the kept axes are: of logical sizes alone."""
    groups = _groups(domain, axes)
    sizes = [math.prod(domain[a] for a in g.axes) for g in groups]
    form = _form(groups)
    outer = math.prod(n for n, g in zip(sizes, groups) if not g.reduced)
    if form == "col":
        outer = outer // max(1, sizes[-1]) * _tiles(sizes[-1])
    first = next((n for n, g in zip(sizes, groups) if g.reduced), 1)
    return form, _cut(outer, math.prod(sizes), first), outer


def _form(groups: Sequence[_Group]) -> str:
    return "row" if groups[-1].reduced else "col"


def _tiles(columns: int) -> int:
    return -(-columns // COLUMNS)


def _cut(outer: int, total: int, first: int) -> bool:
    return total >= SPLIT_ELEMENTS and outer < SPLIT_KEPT and first > 1


class _Group(NamedTuple):
    axes: tuple[int, ...]
    reduced: bool


def _groups(domain: Shape, axes: tuple[int, ...]) -> list[_Group]:
    groups: list[_Group] = []
    for a, n in enumerate(domain):
        if n == 1:
            continue
        reduced = a in axes
        if groups and groups[-1].reduced == reduced:
            groups[-1] = _Group((*groups[-1].axes, a), reduced)
        else:
            groups.append(_Group((a,), reduced))
    if not groups:
        groups.append(_Group((len(domain) - 1,) if domain else (), bool(axes)))
    return groups


def _walkable(
    domain: Shape, groups: list[_Group], operands: Sequence[Operand | Index], form: str
) -> list[_Group]:
    """The groups, kept ones split where an operand cannot walk their axes as one: no order of a sum depends on them.

    The last kept group of a "col" kernel is its inner axis, whose last part stays whole where it would be narrow.
    """
    strides = [x.strides if isinstance(x, Index) else broadcast_strides(x, domain) for x in operands]
    found: list[_Group] = []
    for k, g in enumerate(groups):
        start, inner = 0, form == "col" and k == len(groups) - 1
        if not g.reduced:
            for at, (a, b) in enumerate(zip(g.axes, g.axes[1:]), 1):
                if inner and estimate(math.prod(domain[c] for c in g.axes[at:])) < NARROW:
                    break
                if any(st[a] != st[b] * domain[b] for st in strides):
                    found.append(_Group(g.axes[start:at], False))
                    start = at
        found.append(_Group(g.axes[start:], g.reduced))
    return found


def _grouped_strides(
    op: Operand | None, strides: Sequence[int], domain: Shape, groups: list[_Group]
) -> View | Any:
    """One stride per group when the group's axes are walked as one, else None."""
    out = []
    for g in groups:
        for a, b in zip(g.axes, g.axes[1:]):
            if strides[a] != strides[b] * domain[b]:
                return None
        out.append(strides[g.axes[-1]] if g.axes else 0)
    return View(op, tuple(out))


def _grouped(program: Program, op: Operand | Scalar | Index, domain: Shape, groups: list[_Group]) -> Any:
    if isinstance(op, Scalar):
        return op
    if isinstance(op, Index):
        index = _grouped_strides(None, op.strides, domain, groups)
        if index is not None:
            return index
        full = program.scratch_operand(int64, domain)
        lower_map(program, domain, [op], [Expr("arg", int64, (), 0)], [full], ("index",))
        program.wave()
        return _grouped_strides(full, full.strides, domain, groups)
    view = _grouped_strides(op, broadcast_strides(op, domain), domain, groups)
    if view is not None:
        return view  # type: ignore[no-any-return]
    full = program.scratch_operand(op.dtype, domain)
    copy(program, op, full)
    program.wave()
    found = _grouped_strides(full, full.strides, domain, groups)
    assert found is not None
    return found  # type: ignore[no-any-return]


class _Reduce(NamedTuple):
    form: str
    n_kept: int
    order: list[int]
    sizes: list[int]
    reduced: list[int]
    views: list[Any]
    roots: list[Expr]
    outs: list[View]
    notes: tuple[str, ...]

    def emit(self, program: Program) -> None:
        inner = self.order[-1]
        kernel = LoopKernel(
            self.form, self.n_kept, len(self.reduced),
            tuple(_input(v, inner, self.reduced) for v in self.views),
            tuple(self.roots),
            tuple(
                Output(v.operand.dtype, _inner_class(v.strides[inner]), all(v.strides[a] == 0 for a in self.reduced))
                for v in self.outs if v.operand is not None
            ),
            notes=self.notes,
        )  # fmt: skip
        args: list[Arg] = [self.sizes[a] for a in self.order]
        for v in self.views:
            args += [_scalar_slot(v)] if isinstance(v, Scalar) else _slots(v, self.order)
        for v in self.outs:
            args += _slots(v, self.order)
        items = estimate(math.prod(self.sizes[a] for a in self.order[: self.n_kept]))
        if self.form == "col":
            items *= _tiles(estimate(self.sizes[inner]))
        work = estimate(math.prod(self.sizes)) * (4.0 + operations(self.roots))
        program.loop(kernel, args, program.chunks(items, work), self.sizes[inner])


def _split(program: Program, plan: _Reduce, first: int, cut: bool) -> None:
    """Two launches: partial results of fixed blocks of the first reduced axis, then their combination.

    Sums over all, and of few columns, are such as go over a batch. In a graph they are two launches whatever its size,
    so that another batch compiles nothing; what is not to be cut is one block, which has the bits of one launch.
    """
    length = max(1, first)
    if cut:
        rest = math.prod(plan.sizes) // first
        length = max(-(-first // SPLIT_BLOCKS), -(-4096 // rest), SPLIT_ROWS if plan.form == "col" else 1)
    blocks = max(1, -(-first // length))
    reduces = list({id(n): n for n in walk(plan.roots) if n.op == "reduce"}.values())
    kept_axes = [a for a in plan.order if a not in plan.reduced]
    kept_sizes = [plan.sizes[a] for a in kept_axes]
    partials = [program.scratch_operand(r.dtype, (blocks, *kept_sizes)) for r in reduces]
    # Phase 1. The block axis stands after the other kept axes that are looped over.
    outer, inner = plan.order[: plan.n_kept], plan.order[plan.n_kept :]
    kernel_inputs = tuple(_input(v, plan.order[-1], plan.reduced) for v in plan.views)
    kernel = LoopKernel(
        plan.form, plan.n_kept + 1, len(plan.reduced), kernel_inputs, tuple(reduces),
        tuple(Output(r.dtype, "c" if plan.form == "col" else "b", True) for r in reduces),
        split=True, notes=plan.notes,
    )  # fmt: skip
    args: list[Arg] = [*(plan.sizes[a] for a in outer), blocks, *(plan.sizes[a] for a in inner), length]
    for v in plan.views:
        if isinstance(v, Scalar):
            args.append(_scalar_slot(v))
        else:
            head: list[Arg] = [] if v.operand is None else [v.operand.slot]
            args += head + [v.strides[a] for a in outer] + [0] + [v.strides[a] for a in inner]
    for p in partials:
        by_axis = dict(zip(kept_axes, p.strides[1:]))
        args += [p.slot, *(by_axis[a] for a in outer), p.strides[0], *(by_axis.get(a, 0) for a in inner)]
    items = blocks * math.prod(plan.sizes[a] for a in outer)
    work = estimate(math.prod(plan.sizes)) * 4.0
    program.loop(kernel, args, program.chunks(items, work), plan.sizes[plan.order[-1]])
    program.wave()
    # Phase 2: reduce the block axis; row-level inputs and the epilogue come in here.
    swap = {id(r): Expr("reduce", r.dtype, (Expr("arg", r.dtype, (), len(plan.views) + k),), r.value)
            for k, r in enumerate(reduces)}  # fmt: skip
    done: dict[int, Expr] = {}
    for node in walk(plan.roots):
        if id(node) in swap:
            done[id(node)] = swap[id(node)]
        elif node.args:
            done[id(node)] = Expr(node.op, node.dtype, tuple(done[id(a)] for a in node.args), node.value)
        else:
            done[id(node)] = node
    roots = [done[id(r)] for r in plan.roots]
    n = len(kept_axes)

    def on_kept(v: Any) -> Any:
        if isinstance(v, Scalar):
            return v
        return View(v.operand, (0, *(v.strides[a] for a in kept_axes)))

    views: list[Any] = [on_kept(v) for v in plan.views]
    views += [View(p, tuple(p.strides)) for p in partials]
    outs = [on_kept(v) for v in plan.outs]
    used = sorted({node.value for node in walk(roots) if node.op == "arg"})
    renumber = {old: new for new, old in enumerate(used)}
    final: dict[int, Expr] = {}
    for node in walk(roots):
        if node.op == "arg":
            final[id(node)] = Expr("arg", node.dtype, (), renumber[node.value])
        elif node.args:
            final[id(node)] = Expr(node.op, node.dtype, tuple(final[id(a)] for a in node.args), node.value)
        else:
            final[id(node)] = node
    sizes = [blocks, *kept_sizes]
    if n == 0:
        form, order, n_kept = "row", [0], 0
    else:
        form, order, n_kept = "col", [*range(1, n), 0, n], n - 1
    _Reduce(
        form,
        n_kept,
        order,
        sizes,
        [0],
        [views[k] for k in used],
        [final[id(r)] for r in roots],
        outs,
        plan.notes,
    ).emit(program)
