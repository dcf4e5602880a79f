"""Groups: the ops that become one kernel, and what may share one.

A loop group has a domain: axes without size 1, each kept or reduced. Its members compute a value for every
element of the domain ("elem") or for every index of the kept axes ("row"), in row-major order; what an op
reads of another member must be the same element, or the row value of the same row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..core.lower import needs_index, operations, reduction_form
from ..core.numbers import estimate
from ..core.types import Shape, contiguous_strides, normalize_axes
from .ir import Node, Value
from .layout import Layout, is_dense, refine, spread, through
from .live import as_now, is_size
from .placement import Places

MAP, REDUCE, OP = "map", "reduce", "op"
#: more memory streams than this make a kernel slower, not faster: of the domain's size, and in all
MAX_STREAMS = 14
MAX_BUFFERS = 28
MAX_NODES = 64
MAX_EPILOGUE = 12
#: values of one element, values made of nothing, and what `recompute` chooses are computed again up to this cost
INLINE_COST = 6
#: kind and domain of a group, or the reason that there is none
Joined = tuple[str, tuple[tuple[int, bool], ...]] | str
#: ops that can follow an op, and pointwise work on its result, in one kernel
_POOLINGS = frozenset(("max_pool", "avg_pool"))
_ARG = frozenset(("argmax", "argmin"))


class Item:
    """A node on its way into a group.

    reads: what it loads, with layouts; makers: the items that make some of it, with these; form: of a pointwise op;
    cost: operations per element; indexed: it asks for the index of its
    element; inline: computed again by the loops that use it, which load what it loads; plain: registers have all dtypes
    in it, what it computes again included; real: none of them is complex.
    """

    __slots__ = (
        "cost", "domain", "form", "group", "indexed", "inline", "kind", "makers", "node", "order", "plain", "reads",
        "real", "size",
    )  # fmt: skip

    def __init__(self, node: Node, order: int, kind: str, reads: list[tuple[Value, Layout]]):
        self.node, self.order, self.kind, self.reads = node, order, kind, reads
        self.makers: list[tuple[Item, Value, Layout]] = []
        self.form: Any = None
        self.domain: tuple[tuple[int, bool], ...] = ()
        self.size = node.outputs[0].size if node.outputs else 0
        self.cost = 0
        self.indexed = self.inline = False
        self.plain = self.real = True
        for row in (node.inputs, node.outputs):
            for v in row:
                if v.__class__ is Value and not v.type.dtype.is_plain:
                    self.plain = False
                    self.real &= not v.type.dtype.is_complex
        self.group: Any = None


def walked(
    item: Item, domain: Shape, access: Shape, offset: int,
    layouts: dict[Value, Layout], producer: dict[Value, Item],
) -> bool:  # fmt: skip
    """Whether a loop over `domain` can compute an inline item again, and what that is made of.

    Index i of the domain stands for its element `offset + sum(i * access)`.
    """
    shape = item.node.outputs[0].type.shape
    for x in item.node.values():
        layout = layouts[x]
        found = through(domain, access, offset, shape, spread(x.type.shape, layout.strides, shape))
        if found is None:
            return False
        maker = producer.get(layout.base)
        if maker is None or not maker.inline:
            continue
        if not walked(maker, domain, found[0], found[1] + layout.offset, layouts, producer):
            return False
    return True


class Group:
    """Ops of one kernel.

    own: a bit for every item; direct, before: bits of items that must run earlier (read or overwritten, and
    all that those wait for). sizes: of the domain.
    """

    __slots__ = ("before", "direct", "domain", "items", "kind", "own", "sizes", "total")

    def __init__(self, item: Item, bit: int):
        self.items = [item]
        self.own, self.direct, self.before = bit, 0, 0
        self.become(item.kind, item.domain)

    def become(self, kind: str, domain: tuple[tuple[int, bool], ...]) -> None:
        """Take a kind and a domain, of `total` elements."""
        self.kind, self.domain = kind, domain
        self.sizes: Shape = tuple([n for n, _ in domain])
        self.total = math.prod(self.sizes)

    @property
    def again(self) -> int:
        """The repetition that its ops belong to."""
        return self.items[0].node.again

    @property
    def head(self) -> Item:
        """The op of an op group; pointwise work that joins it may stand earlier in the program."""
        return next(i for i in self.items if i.kind == OP)

    @property
    def pooling(self) -> Item | None:
        """The pooling that an op group ends with."""
        return next((i for i in self.items if i.kind == OP and i is not self.head), None)

    @property
    def title(self) -> str:
        """The op of an op group, else the first one."""
        return next((i for i in self.items if i.kind == OP), self.items[0]).node.op.name

    @property
    def axes(self) -> tuple[int, ...]:
        """The reduced axes of the domain."""
        return tuple(a for a, (_, reduced) in enumerate(self.domain) if reduced)

    @property
    def kept(self) -> Shape:
        return tuple([n for n, reduced in self.domain if not reduced])

    @property
    def nodes(self) -> list[Node]:
        return [i.node for i in self.items]

    def elem_access(self) -> Shape:
        """Strides over the domain of an element-level value."""
        return contiguous_strides(self.sizes)

    def row_access(self) -> Shape:
        """Strides over the domain of a row-level value."""
        return row_strides(self.domain)

    def access(self, item: Item) -> Shape:
        """Strides over the domain of what a member computes."""
        if self.kind == REDUCE and (item.kind == REDUCE or item.size == math.prod(self.kept)):
            return self.row_access()
        return self.elem_access()

    def __repr__(self) -> str:
        return f"<group {' '.join(n.op.name for n in self.nodes)}>"


def row_strides(domain: Iterable[tuple[int, bool]]) -> Shape:
    """Row-major strides of the kept axes, 0 along the reduced ones and those of size 1."""
    out, step = [], 1
    for n, reduced in reversed(tuple(domain)):
        out.append(0 if reduced or n == 1 else step)
        step *= 1 if reduced else n
    return tuple(reversed(out))


def map_domain(shape: Shape) -> tuple[tuple[int, bool], ...]:
    """The domain of an op that computes each element of `shape` by itself."""
    return tuple([(n, False) for n in shape if n != 1])


def reduce_domain(node: Node) -> tuple[tuple[int, bool], ...]:
    """The domain of a reduction."""
    shape = node.inputs[0].type.shape
    axes = normalize_axes(node.op.name, node.named.get("axis"), len(shape))
    domain = tuple((n, a in axes) for a, n in enumerate(shape) if n != 1) or ((1, bool(axes)),)
    return one_row(domain) if len(axes) < len(shape) else domain


def one_row(domain: tuple[tuple[int, bool], ...]) -> tuple[tuple[int, bool], ...]:
    """The domain of a reduction that leaves rows, of which there may be one: that is not a sum over all."""
    return ((1, False), *domain) if all(reduced for _, reduced in domain) else domain


def form_of(domain: tuple[tuple[int, bool], ...]) -> tuple[str, bool]:
    """`core.lower.reduction_form` of a domain."""
    for n, _ in domain:
        if is_size(n):
            return _form(domain)
    return _known_form(domain)


@functools.lru_cache(maxsize=4096)
def _known_form(domain: tuple[tuple[int, bool], ...]) -> tuple[str, bool]:
    return _form(domain)


def _form(domain: tuple[tuple[int, bool], ...]) -> tuple[str, bool]:
    return reduction_form(tuple(n for n, _ in domain), tuple(a for a, (_, r) in enumerate(domain) if r))


_costs: dict[int, tuple[Any, int, bool]] = {}


def cost_of(form: Any) -> tuple[int, bool]:
    """Operations per element of a pointwise form, and whether it asks for the index of the element."""
    known = _costs.get(id(form.roots))
    if known is None:
        known = _costs[id(form.roots)] = form.roots, operations(form.roots), needs_index(form.roots)
    return known[1], known[2]


def _product(domain: Iterable[tuple[int, bool]]) -> int:
    return math.prod([n for n, _ in domain])


def join_domains(a: Group, b: Group) -> tuple[tuple[int, bool], ...] | None:
    """The axes that both groups can be computed over, or None."""
    if a.kind == MAP and b.kind == REDUCE:
        a, b = b, a
    if a.kind == MAP or b.kind == REDUCE:
        if a.domain == b.domain:
            return a.domain
        if a.total != b.total:
            return None
        return _split_axes(a.domain, b.domain, a.kind == REDUCE)
    # A map beside a reduction: over its elements, or over its rows.
    if math.prod(a.kept) == b.total:
        if a.kept == b.sizes:
            return a.domain
        parts = refine(a.kept, b.sizes)
        if parts is None:
            return None
        rest = iter(parts)
        return tuple(
            pair for n, reduced in a.domain
            for pair in ([(n, True)] if reduced else [(m, False) for m in next(rest)] or [(1, False)] * (n == 1))
        )  # fmt: skip
    if a.total == b.total:
        return a.domain if a.sizes == b.sizes else _split_axes(a.domain, b.domain, False)
    return None


def _split_axes(a: Any, b: Any, same_axes: bool) -> tuple[tuple[int, bool], ...] | None:
    parts = refine([n for n, _ in a], [n for n, _ in b])
    if parts is None:
        return None
    split = _refined(a, parts)
    if same_axes:
        others = refine([n for n, _ in b], [n for n, _ in a])
        if others is None or split != _refined(b, others):
            return None
    return split


def _refined(domain: Any, parts: list[list[int]]) -> tuple[tuple[int, bool], ...]:
    return tuple((m, reduced) for (n, reduced), sizes in zip(domain, parts) for m in sizes or [1] * (n == 1))


class Rules:
    """What may be merged: alignment of reads, stages of reductions, memory streams, in-place writes."""

    def __init__(
        self,
        layouts: dict[Value, Layout],
        places: Places,
        producer: dict[Value, Item],
        readers: dict[Value, list[Item]],
        takes: Callable[..., bool],
        halves: Callable[[str], bool],
        pools: Callable[[Node, Node], str],
        kept: Mapping[Node, str],
    ):
        self.layouts, self.places, self.producer, self.readers = layouts, places, producer, readers
        self.takes, self.halves, self.pools, self.kept = takes, halves, pools, kept
        self.written = places.written

    def stored(self, value: Value, inside: set[Item]) -> bool:
        """Whether a value computed by a group of these items must be in memory."""
        if value in self.places.of:
            return True
        if value in self.readers:
            for r in self.readers[value]:
                if r not in inside:
                    return True
        return False

    def _any_stored(self, item: Item, inside: set[Item]) -> bool:
        return any(self.stored(v, inside) for v in item.node.outputs)

    def joined(self, a: Group, b: Group) -> Joined:
        """Kind and domain of the two groups as one, or why they cannot be one. Order is not looked at."""
        if OP in (a.kind, b.kind):
            if a.kind == OP and b.kind == MAP:
                return self._epilogue(a, b)
            if a.kind == b.kind == OP and b.head.node.op.name in _POOLINGS:
                return self._pooling(a, b)
            if b.kind == OP:
                for item in a.items:
                    if item.node in self.kept and any(
                        maker is item for i in b.items for maker, *_ in i.makers
                    ):
                        return self.kept[item.node]
                return f"{b.head.node.op.name} reads whole values from memory"
            return f"the kernel of {a.head.node.op.name} takes no reduction of its result"
        if a.again != b.again:
            return "one is computed again later, to save memory"
        if len(a.items) + len(b.items) > MAX_NODES:
            return f"together they have more than {MAX_NODES} ops"
        kind = REDUCE if REDUCE in (a.kind, b.kind) else MAP
        domain = join_domains(a, b)
        if domain is None and kind == MAP:
            kind, domain = REDUCE, self._rows(a, b) if a.total > b.total else self._rows(b, a)
        if domain is None:
            return f"no one loop runs over both {_loops(a)} and {_loops(b)}"
        inside = {*a.items, *b.items}
        if not (self._in_step(a, b, kind, domain) and self._in_step(b, a, kind, domain)):
            return "one reads other elements of the other's result than the one it computes"
        if kind == REDUCE and not self._reducible(inside, domain):
            return "a reduction over these axes can not keep what each element computes with its result"
        if kind == REDUCE and not self._walks(inside, domain):
            return "an operand would have to be copied out over the reduced axes"
        if not self._few_buffers(inside):
            return (
                f"together they stream more than {MAX_STREAMS} arrays of full size, or {MAX_BUFFERS} in all"
            )
        if not self._writes_in_step(inside, domain):
            return "one overwrites memory of which the other reads more than the same element"
        return kind, domain

    def _rows(self, large: Group, small: Group) -> tuple[tuple[int, bool], ...] | None:
        """The domain of a map whose rows use one value each of a smaller one: the axes repeated are "reduced".

        Only where that value comes from a reduction over just these axes, which can then join too.
        """
        for item in large.items:
            for x, layout in item.reads:
                maker = self.producer.get(layout.base)
                if maker is not None and maker.group is small:
                    over = item.node.outputs[0].type.shape
                    strides = spread(x.type.shape, layout.strides, over)
                    found = through(large.sizes, large.elem_access(), 0, over, strides)
                    if found is None:
                        return None
                    domain = one_row(tuple((n, st == 0) for n, st in zip(large.sizes, found[0])))
                    fits = form_of(domain) == ("row", False) and self._from_reduction(maker, domain)
                    return domain if fits else None
        return None

    def _from_reduction(self, item: Item, domain: Any) -> bool:
        """Whether a row value depends, through maps of its own size, on a reduction with this domain."""
        seen = {item}
        stack = [item]
        while stack:
            for _, layout in stack.pop().reads:
                maker = self.producer.get(layout.base)
                if maker is None or maker in seen:
                    continue
                seen.add(maker)
                if maker.kind == REDUCE and maker.domain == domain:
                    return True
                if maker.kind == MAP and maker.size == item.size:
                    stack.append(maker)
        return False

    def _in_step(self, own: Group, other: Group, kind: str, domain: Any) -> bool:
        """Whether what members of `own` read of `other` is their own element or row."""
        for reader in own.items:
            for maker, x, layout in reader.makers:
                if maker.group is other and not self._aligned(reader, x, layout, kind, domain):
                    return False
        return True

    def _aligned(self, reader: Item, x: Value, layout: Layout, kind: str, domain: Any) -> bool:
        over = x.type.shape if reader.kind == REDUCE else reader.node.outputs[0].type.shape
        size = math.prod(over)
        strides = spread(x.type.shape, layout.strides, over)
        base_size = layout.base.size
        if base_size == size:
            return layout.offset == 0 and is_dense(over, strides)
        rows = math.prod(n for n, reduced in domain if not reduced)
        if kind != REDUCE or base_size != rows or layout.offset:
            return False
        if size != _product(domain):
            return False
        sizes = tuple(n for n, _ in domain)
        found = through(sizes, contiguous_strides(sizes), 0, over, strides)
        return found is not None and found[0] == row_strides(domain)

    def _reducible(self, inside: set[Item], domain: Any) -> bool:
        form, cut = form_of(domain)
        rows = math.prod(n for n, reduced in domain if not reduced)
        kinds = {i.node.op.name in _ARG for i in inside if i.kind == REDUCE}
        if cut and True in kinds:
            if False in kinds:
                return False
            cut = False
        plain = form == "col" or cut
        # A sum over all (a loss) stands alone, as it does where it is long: a batch does not decide what is compiled.
        over_all = all(reduced for _, reduced in domain)
        depth: dict[Item, int] = {}
        for item in sorted(inside, key=_order):
            below = 0
            for maker, _, _ in item.makers:
                if maker in depth and depth[maker] > below:
                    below = depth[maker]
            depth[item] = below + (item.kind == REDUCE)
            if plain and depth[item] > 1:
                return False
            if item.kind == MAP:
                if plain and item.size != rows and self._any_stored(item, inside):
                    return False
                if plain and below and item.size != rows:
                    return False
                if over_all and not below and item.size != rows and self._any_stored(item, inside):
                    return False
        return True

    def _walks(self, inside: set[Item], domain: Any) -> bool:
        """Whether reduced axes that stand side by side, which are walked as one, are so in all operands that repeat."""
        pairs = [k for k in range(len(domain) - 1) if domain[k][1] and domain[k + 1][1]]
        if not pairs:
            return True
        sizes = tuple(n for n, _ in domain)
        total, access = math.prod(sizes), contiguous_strides(sizes)
        for item in inside:
            if item.kind != MAP or item.size != total:
                continue
            for x, layout in item.reads:
                if layout.base.size in (1, total) or self.producer.get(layout.base) in inside:
                    continue
                over = item.node.outputs[0].type.shape
                found = through(sizes, access, 0, over, spread(x.type.shape, layout.strides, over))
                if found is None or any(found[0][k] != found[0][k + 1] * sizes[k + 1] for k in pairs):
                    return False
        return True

    def _few_buffers(self, inside: set[Item]) -> bool:
        count = 0
        for item in inside:
            count += len(item.reads) + len(item.node.outputs)
        if count <= MAX_STREAMS:
            return True
        made = {v for item in inside for v in item.node.outputs}
        outside = {
            layout.base
            for item in inside
            for _, layout in item.reads
            if layout.base not in made and layout.base.size > 1
        }
        sizes = [estimate(v.size) for v in outside]
        sizes += [estimate(v.size) for v in made if self.stored(v, inside)]
        return len(sizes) <= MAX_BUFFERS and sizes.count(max(sizes, default=0)) <= MAX_STREAMS

    def _writes_in_step(self, inside: set[Item], domain: Any) -> bool:
        """Whether members read of inputs that the group overwrites only the element or row that they replace."""
        if not self.written:
            return True
        targets = {}
        for item in inside:
            for v in item.node.outputs:
                if v in self.places.of and isinstance(target := self.places.of[v], Value):
                    targets[target] = v
        if not targets:
            return True
        for item in inside:
            for x, layout in item.reads:
                if layout.base not in targets:
                    continue
                new = targets[layout.base]
                there = self.layouts[layout.base]
                if there.offset or not is_dense(layout.base.type.shape, there.strides) or layout.offset:
                    return False
                over = x.type.shape if item.kind == REDUCE else item.node.outputs[0].type.shape
                strides = spread(x.type.shape, layout.strides, over)
                if new.size == math.prod(over):
                    if not is_dense(over, strides):
                        return False
                else:
                    sizes = tuple(n for n, _ in domain)
                    found = through(sizes, contiguous_strides(sizes), 0, over, strides)
                    if (
                        found is None
                        or found[0] != row_strides(domain)
                        or math.prod(over) != _product(domain)
                    ):
                        return False
        return True

    def _epilogue(self, a: Group, b: Group) -> Joined:
        """An op followed by pointwise work on its result, inside the op's kernel."""
        head = a.head.node
        name, out = head.op.name, head.outputs[0]
        if a.pooling is not None:
            return f"the kernel of {name} takes no work on what it has pooled"
        if len(head.outputs) != 1 or not self.takes(name, out.type.shape, None, None):
            return f"the kernel of {name} takes no work on its result"
        if b.total != out.size or out.size == 0:
            return f"no one loop runs over {[*map(estimate, out.type.shape)]} of {name} and {_loops(b)}"
        if len(a.items) + len(b.items) > MAX_EPILOGUE:
            return f"the kernel of {name} takes at most {MAX_EPILOGUE - 1} ops on its result"
        for item in (*a.items, *b.items):
            if not (item.plain or (item.real and self.halves(name))):
                return f"the kernel of {name} takes work on its result in plain dtypes only"
        inside = {*a.items, *b.items}
        for item in b.items:
            if item.node.outputs[0].type.shape != out.type.shape or item.indexed:
                return f"{item.node.op.name} has another shape or asks where its element stands"
            if any(isinstance(self.places.of.get(v), Value) for v in item.node.outputs):
                return f"{item.node.op.name} writes in place"
            for x, layout in item.reads:
                maker = self.producer.get(layout.base)
                if maker in inside:
                    if (
                        layout.offset
                        or not is_dense(x.type.shape, layout.strides)
                        or x.type.shape != out.type.shape
                    ):
                        return "one reads other elements of the other's result than the one it computes"
                elif not self.takes(name, out.type.shape, x, layout):
                    return f"the kernel of {name} cannot read {as_now(x.type)} beside its result"
        if not self._few_buffers(inside):
            return (
                f"together they stream more than {MAX_STREAMS} arrays of full size, or {MAX_BUFFERS} in all"
            )
        return OP, a.domain

    def _pooling(self, a: Group, b: Group) -> Joined:
        """An op, and pointwise work on its result, followed by a pooling of that, inside the op's kernel."""
        head, pool = a.head.node, b.head.node
        name, whole = head.op.name, head.outputs[0]
        if a.pooling is not None or len(a.items) + len(b.items) > MAX_EPILOGUE:
            return f"the kernel of {name} takes one pooling, with {MAX_EPILOGUE - 1} ops in all"
        if len(b.items) > 1:
            return f"{pool.op.name} has work on its result in its own kernel"
        x = pool.inputs[0]
        layout = self.layouts[x]
        maker = self.producer.get(layout.base)
        if maker not in a.items or x.type != whole.type or layout.offset:
            return f"{pool.op.name} reads the result of {name} in another shape or dtype"
        if layout.base.type != whole.type or not is_dense(x.type.shape, layout.strides):
            return f"{pool.op.name} reads the result of {name} in another shape or dtype"
        if not all(item.plain for item in a.items):
            return f"the kernel of {name} takes work on its result in plain dtypes only"
        inside = {*a.items, *b.items}
        for item in a.items:
            for v in item.node.outputs:
                others = [r.node.op.name for r in self.readers[v] if r not in inside]
                if others:
                    return f"the result of {item.node.op.name} is also read by {others[0]}"
                if v in self.places.of:
                    return f"the result of {item.node.op.name} is also a result of the function"
        (out,) = pool.outputs
        if isinstance(self.places.of.get(out), Value) or out in self.places.same or out in self.places.parts:
            return f"{pool.op.name} writes in place"
        return self.pools(head, pool) or (OP, a.domain)


def _loops(group: Group) -> str:
    axes = f" reduced over axes {list(group.axes)}" if group.axes else ""
    return f"{[*map(estimate, group.sizes)]}{axes}"


def _order(item: Item) -> int:
    return item.order
