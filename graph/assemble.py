"""From a group to launches: the bodies of its ops become one expression over strided operands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..core.backend import Epilogue, Launch, Nested, Operand, Pooling, Program, Scalar, Slot
from ..core.errors import DuogradError
from ..core.loops import LoopKernel
from ..core.lower import Index, lower_map, lower_reduce, needs_index, with_index_input
from ..core.numbers import estimate, most
from ..core.op_lower import lower_op, reduction_root
from ..core.region import CONTROL
from ..core.relax import relax
from ..core.scalar import Expr, const, substitute
from ..core.strangers import STUMBLES, stranger
from ..core.types import DTYPES, DType, Shape, contiguous_strides, int64
from .group import MAP, OP, REDUCE, Group, Item, walked
from .ir import Node, Number, Value
from .layout import spread, through
from .live import Live, is_size
from .passes.fuse import Fusion, number_kinds


class Lowered(NamedTuple):
    """A group's launches in phases (each waits for the one before), and what they touch.

    phases: launches with their work in bytes and operations; their slots refer to `Sources`. reads, stores:
    strides (and offsets) over the domain. scratch: by source, size in bytes, first and last phase. touched: of what is
    read or stored, the first and the last phase that does so, where that is known. inside: the plans of an op's regions
    (`nested.Inside`).
    """

    group: Group
    phases: list[list[tuple[Launch, float]]]
    reads: dict[Value, list[tuple[Shape, int]]]
    stores: dict[Value, Shape]
    scratch: dict[int, tuple[int, int, int]]
    touched: dict[Value, tuple[int, int]]
    inside: tuple[Any, ...] = ()

    def span(self, v: Value) -> tuple[int, int]:
        """The first and the last phase in which a value that the group reads or stores has to be in memory."""
        return self.touched.get(v) or (0, max(1, len(self.phases)) - 1)

    @property
    def scratch_bytes(self) -> int:
        return sum(nbytes for nbytes, _, _ in self.scratch.values())


class Unit:
    """Launches that read state alone: a program of its own, whose areas the graph's launches read.

    launches: their slots refer to `Sources`; areas: bytes by source; what: what is made, in words.
    """

    __slots__ = ("areas", "launches", "what")

    def __init__(self, what: str) -> None:
        self.launches: list[Launch] = []
        self.areas: dict[int, int] = {}
        self.what = what

    def add(self, launches: Sequence[Launch], areas: dict[int, int]) -> None:
        """Append launches that run after those before, and their areas."""
        self.launches += launches
        self.areas |= areas

    @property
    def nbytes(self) -> int:
        return sum(self.areas.values())


class Sources:
    """Numbers of the buffers and scalars that launches refer to before memory is planned.

    state: inputs that stay the same from call to call; budget: bytes that may be kept of what is made of them; steady:
    what of the buffers and areas stays the same, with the unit that makes it (None: state itself).
    """

    def __init__(self, state: frozenset[Value] = frozenset(), budget: int = 0) -> None:
        #: expressions may be relaxed (precision="fast")
        self.fast = False
        #: short sums over a batch are the kernels of long ones (`Program.for_all_sizes`)
        self.for_all_sizes = True
        #: `Program.spare` of all groups
        self.spare: list[str] = []
        self.state, self.budget = state, budget
        self.steady: dict[int, Unit | None] = {}
        self.units: list[Unit] = []
        self.buffers: dict[Value, int] = {}
        self.numbers: dict[Any, tuple[int, Any, DType]] = {}
        self.count = 0

    def new(self) -> int:
        self.count += 1
        return self.count - 1

    def buffer(self, value: Value) -> int:
        found = self.buffers.get(value)
        if found is None:
            found = self.buffers[value] = self.new()
            if value in self.state:
                self.steady[found] = None
        return found

    def unit(self, of: Sequence[int], what: str) -> Unit:
        """The unit that goes on from these steady sources: a new one, or those that made them as one."""
        makers = list(dict.fromkeys(u for s in of if (u := self.steady[s]) is not None))
        if not makers:
            self.units.append(Unit(what))
            return self.units[-1]
        first, *others = makers
        for unit in others:
            first.add(unit.launches, unit.areas)
            first.what += f", {unit.what}"
            self.units.remove(unit)
            self.steady |= dict.fromkeys(unit.areas, first)
        return first

    def keep(self, unit: Unit, launches: Sequence[Launch], areas: dict[int, int]) -> None:
        """Put launches into a unit; what they make is steady too."""
        unit.add(launches, areas)
        self.budget -= sum(areas.values())
        self.steady |= dict.fromkeys(areas, unit)

    def scalar(self, x: Any, dtype: DType) -> Scalar:
        """The source of a number; equal numbers share one."""
        if is_size(x):
            x = x._formula()
        if isinstance(x, Number):
            key: Any = (x.ident, dtype)
        else:
            key = (type(x), repr(x), dtype)
        found = self.numbers.get(key)
        if found is None and dtype.is_complex:  # two sources in a row; a setting is a real number
            setting = isinstance(x, Number)
            found = self.numbers[key] = (self.new(), x if setting else complex(x).real, dtype.real)
            self.numbers[key, "imag"] = self.new(), 0.0 if setting else complex(x).imag, dtype.real
        elif found is None:
            found = self.numbers[key] = (self.new(), x, dtype)
        return Scalar(found[0], dtype)


class _Recorder(Program):
    """A program that notes the work of each launch, and keeps scratch areas apart."""

    def __init__(self, backend: Any, sources: Sources, what: str = ""):
        super().__init__(backend)
        self.sources, self.what, self.for_all_sizes = sources, what, sources.for_all_sizes
        self.spare = sources.spare
        self.work: list[float] = []
        self.areas: dict[int, int] = {}
        self._next = 0.0

    def dynamic(self) -> int:
        return self.sources.new()

    def scratch(self, nbytes: int, align: int = 64) -> Slot:
        source = self.sources.new()
        self.areas[source] = most(nbytes)
        return Slot(source)

    def steady(self, *operands: Operand) -> bool:
        return all(x.source in self.sources.steady for x in operands)

    @contextmanager
    def prepared(self, *operands: Operand) -> Iterator[None]:
        if not self.steady(*operands):
            yield
            return
        before = self.launches, self.work, self.areas, self._wave
        self.launches, self.work, self.areas, self._wave = [], [], {}, True
        try:
            yield
        finally:
            launches, work, areas, _ = self.launches, self.work, self.areas, self._wave
            self.launches, self.work, self.areas, self._wave = before
        if sum(areas.values()) <= self.sources.budget and not any(map(is_told_sizes, launches)):
            unit = self.sources.unit([x.source for x in operands], self.what)
            self.sources.keep(unit, launches, areas)
        elif launches:
            launches[0] = launches[0]._replace(wave=self._wave)
            self.launches += launches
            self.work += work
            self.areas |= areas
            self._wave = False

    def chunks(self, items: int, work: float) -> int:
        self._next = estimate(work)
        return super().chunks(items, work)

    def launch(
        self,
        source: str,
        args: Sequence[Any],
        chunks: int = 1,
        nested: tuple[Nested, ...] = (),
        loop: LoopKernel | None = None,
    ) -> None:
        super().launch(source, args, chunks, nested, loop)
        self.work.append(self._next)
        self._next = 0.0


def is_told_sizes(launch: Any) -> bool:
    """Whether a launch is told sizes that a call knows."""
    kinds: list[Any] = [type(x.offset) if type(x) is Slot else type(x) for x in launch.args]
    return Live in kinds


def assemble(group: Group, fusion: Fusion, sources: Sources, backend: Any) -> Lowered:
    """The launches of a group."""
    try:
        return _Assembly(group, fusion, sources, backend).run()
    except STUMBLES as e:
        error = None if isinstance(e, DuogradError) else _stranger(group)
        if error is None:
            raise
        raise error from None


def _stranger(group: Group) -> DuogradError | None:
    """The error for an attribute in a group of a kind that its op does not know."""
    for item in group.items:
        node = item.node
        types = tuple([getattr(x, "type", x) for x in node.inputs])
        error = stranger(node.op, (types,) if node.op.variadic else types, node.named, node.line)
        if error is not None:
            return error
    return None


#: a result of a term: its number and the number of the output
Ref = tuple[int, int]
#: how many different expressions are kept
_BUILT = 4096
_built: dict[Any, tuple[Expr, ...]] = {}


def _build(terms: tuple[Any, ...], roots: tuple[Ref, ...]) -> tuple[Expr, ...]:
    """The expressions that terms stand for; equal terms give the same ones, so that all known of them is found again.

    A term is ("arg", number, dtype), ("const", value), ("index", index, offset), ("reduce", op, dtype, operand), of
    dtypes the names, or (roots of a body, operands); operands are `Ref`s of earlier terms.
    """
    found = _built.get((terms, roots))
    if found is not None:
        return found
    made: list[Sequence[Expr]] = []
    for term in terms:
        kind = term[0]
        if kind == "arg":
            made.append([Expr("arg", DTYPES[term[2]], (), term[1])])
        elif kind == "const":
            made.append([const(term[1], int64)])
        elif kind == "index":
            made.append([Expr("add", int64, tuple(made[t][k] for t, k in term[1:]))])
        elif kind == "reduce":
            (t, k) = term[3]
            made.append([reduction_root(term[1], made[t][k].dtype, DTYPES[term[2]], made[t][k])])
        else:
            made.append(substitute(kind, [made[t][k] for t, k in term[1]]))
    if len(_built) >= _BUILT:
        _built.clear()
    found = _built[terms, roots] = tuple(made[t][k] for t, k in roots)
    return found


_forms: dict[Any, tuple[Any, tuple[Expr, ...], bool]] = {}


def _body(form: Any, n: int) -> tuple[tuple[Expr, ...], bool]:
    """The expressions of a form with the index as argument n, and whether they use it."""
    known = _forms.get(id(form.roots))
    if known is None:
        indexed = needs_index(form.roots)
        roots = tuple(with_index_input(form.roots, n)) if indexed else form.roots
        known = _forms[id(form.roots)] = form.roots, roots, indexed
    return known[1], known[2]


class _Assembly:
    def __init__(self, group: Group, fusion: Fusion, sources: Sources, backend: Any):
        rules = fusion.rules
        self.group, self.layouts, self.places = group, rules.layouts, rules.places
        self.producer, self.stored = rules.producer, rules.stored
        self.sources, self.backend = sources, backend
        self.inside = set(group.items)
        self.domain: Shape = group.sizes
        self.dense = contiguous_strides(self.domain)
        self.inputs: list[Any] = []
        self.terms: list[Any] = []
        self.argument: dict[Any, Ref] = {}
        self.done: dict[Any, int] = {}
        self.reads: dict[Value, list[tuple[Shape, int]]] = {}
        self.stores: dict[Value, Shape] = {}
        self.head: Value | None = None
        self.regions: tuple[Any, ...] = ()

    def run(self) -> Lowered:
        program = _Recorder(self.backend, self.sources, f"an operand of {self.group.title}")
        if self.group.kind == OP:
            self._op(program)
        else:
            self._loop(program)
        phases: list[list[tuple[Launch, float]]] = []
        scratch: dict[int, tuple[int, int, int]] = {}
        for launch, work in zip(program.launches, program.work):
            if launch.wave or not phases:
                phases.append([])
            phases[-1].append((launch, work))
            for arg in launch.args if program.areas else ():
                if type(arg) is Slot and arg[0] in program.areas:
                    _, first, _ = scratch.get(arg[0], (0, len(phases) - 1, 0))
                    scratch[arg[0]] = program.areas[arg[0]], first, len(phases) - 1
        return Lowered(
            self.group, phases, self.reads, self.stores, scratch, self._touched(phases), self.regions
        )

    def _touched(self, phases: list[list[tuple[Launch, float]]]) -> dict[Value, tuple[int, int]]:
        """In which phases launches are told where a value lies. Not asked of regions, and of values in others."""
        if len(phases) < 2 or self.regions:
            return {}
        found: dict[int, tuple[int, int]] = {}
        for k, phase in enumerate(phases):
            for launch, _ in phase:
                for arg in launch.args:
                    if type(arg) is Slot:
                        found[arg[0]] = (found[arg[0]][0] if arg[0] in found else k), k
        buffers, places = self.sources.buffers, self.places
        return {
            v: found[buffers[v]] for v in (*self.reads, *self.stores)
            if buffers.get(v) in found and v not in places.same and v not in places.parts
        }  # fmt: skip

    # -- terms ---------------------------------------------------------------------------------

    def _term(self, *term: Any) -> int:
        self.terms.append(term)
        return len(self.terms) - 1

    def _built(self, refs: Sequence[Ref]) -> tuple[Expr, ...]:
        return _build(tuple(self.terms), tuple(refs))

    def _value(self, v: Value, access: Shape, offset: int) -> Ref:
        """A base value as a term; its element for domain index i is `offset + sum(i * access)`."""
        if v is self.head:
            return self._argument("head", None, v.type.dtype)
        item = self.producer.get(v)
        inside = item in self.inside
        if item is not None and (inside or item.inline):
            key = (item, access, offset)
            if key in self.done:
                return self.done[key], v.index
            if inside or walked(item, self.domain, access, offset, self.layouts, self.producer):
                self.done[key] = term = self._expand(item, access, offset)
                return term, v.index
        found = self.argument.get((v, access, offset))
        if found is None:
            layout = self.layouts[v]
            self.reads.setdefault(v, []).append((access, offset))
            itemsize = v.type.dtype.itemsize
            operand = Operand(self.sources.buffer(v), offset * itemsize, v.type.dtype, self.domain, access)
            assert layout.base is v
            found = self._argument((v, access, offset), operand, v.type.dtype)
        return found

    def _argument(self, key: Any, x: Any, dtype: DType) -> Ref:
        found = self.argument.get(key)
        if found is None:
            found = self.argument[key] = self._term("arg", len(self.inputs), dtype.name), 0
            self.inputs.append(x)
        return found

    def _expand(self, item: Item, access: Shape, offset: int) -> int:
        node = item.node
        if item.kind == REDUCE:
            x = node.inputs[0]
            inner = self._operand(x, x.type.shape, self.dense, 0)
            return self._term("reduce", node.op, node.outputs[0].type.dtype.name, inner)
        form = item.form
        shape = node.outputs[0].type.shape
        args: list[Ref] = []
        for x, dtype in zip(node.inputs, form.arg_dtypes):
            if isinstance(x, Value):
                args.append(self._operand(x, shape, access, offset))
            else:
                number = self.sources.scalar(x, dtype)
                args.append(self._argument((number, node.where), number, dtype))
        roots, indexed = _body(form, len(args))
        if indexed:
            args.append(self._index(access, offset))
        return self._term(roots, tuple(args))

    def _index(self, access: Shape, offset: int) -> Ref:
        if not any(access) and not is_size(offset):
            return self._term("const", offset), 0
        if not any(access):
            number = self.sources.scalar(offset, int64)
            return self._argument(number, number, int64)
        index = self._argument(("index", access), Index(access), int64)
        if offset:
            number = self.sources.scalar(offset, int64)
            return self._term("index", index, self._argument(number, number, int64)), 0
        return index

    def _operand(self, x: Value, shape: Shape, access: Shape, offset: int) -> Ref:
        """What an op of this shape reads of x, over the domain."""
        layout = self.layouts[x]
        strides = spread(x.type.shape, layout.strides, shape)
        if shape == self.domain and access == self.dense and not offset:
            over, at = strides, 0
        else:
            found = through(self.domain, access, offset, shape, strides)
            assert found is not None, "members of a group are walked over its domain"
            over, at = found
        return self._value(layout.base, over, at + layout.offset)

    # -- launches ------------------------------------------------------------------------------

    def _outputs(self) -> tuple[tuple[Expr, ...], list[Operand]]:
        """Roots and operands of the values that must be in memory."""
        roots: list[Ref] = []
        outs: list[Operand] = []
        for item in self.group.items:
            access = self.group.access(item)
            # In order, so that the expressions of a long group do not nest in calls.
            self._value(item.node.outputs[0], access, 0)
            for v in item.node.outputs:
                if not self.stored(v, self.inside):
                    continue
                roots.append(self._value(v, access, 0))
                outs.append(self._target(v, access))
        return self._built(roots), outs

    def _target(self, v: Value, access: Shape) -> Operand:
        target = self.places.of.get(v)
        strides, offset = access, 0
        if isinstance(target, Value):
            layout = self.layouts[target]
            found = through(self.domain, access, 0, target.type.shape, layout.strides)
            assert found is not None, "results are walked over the domain of their group"
            strides, offset = found
        self.stores[v] = strides
        shape = self.domain
        if self.group.kind == REDUCE and access == self.group.row_access():
            shape = tuple(1 if reduced else n for n, reduced in self.group.domain)
        itemsize = v.type.dtype.itemsize
        return Operand(self.sources.buffer(v), offset * itemsize, v.type.dtype, shape, strides)

    def _loop(self, program: Program) -> None:
        roots, outs = self._outputs()
        if not outs:
            return
        if self.sources.fast:
            roots = relax(roots, self._steady())
        notes = (" ".join(n.op.name for n in self.group.nodes),)
        rows = any(o.shape != self.domain for o in outs) or any(i.kind == REDUCE for i in self.group.items)
        if self.group.kind == MAP or not rows:
            lower_map(program, self.domain, self.inputs, roots, outs, notes)
        else:
            lower_reduce(program, self.domain, self.group.axes, self.inputs, roots, outs, notes)

    def _steady(self) -> set[int]:
        """The arguments that do not change along the innermost axis."""
        rows = self.group.kind == REDUCE
        return {
            k for k, x in enumerate(self.inputs)
            if isinstance(x, Scalar) or (isinstance(x, Operand) and rows and x.strides and not x.strides[-1])
        }  # fmt: skip

    def _op(self, program: Program) -> None:
        node = self.group.head.node
        named = node.named
        inputs: list[Any] = []
        for k, x in enumerate(node.inputs):
            if isinstance(x, Value):
                inputs.append(self._in_place(node, x, self._whole(x)))
            else:
                inputs.append(None if x is None else self._number(node, k))
        outputs: list[Any] = []
        leaves_out = getattr(self.backend.primitive(node.op.name), "leaves_out", False)
        for v in node.outputs:
            if leaves_out and v.index > 1 and not self.stored(v, self.inside):
                outputs.append(None)
                continue
            strides = contiguous_strides(v.type.shape)
            self.stores[v] = strides
            if v in self.places.same:
                self.sources.buffers[v] = self.sources.buffer(self.places.same[v])
            outputs.append(Operand(self.sources.buffer(v), 0, v.type.dtype, v.type.shape, strides))
        if node.op in CONTROL:
            from .nested import lower_control

            self.regions = lower_control(program, node, inputs, outputs, self.sources)
            return
        if len(self.group.items) == 1:
            lower_op(program, node.op, inputs, outputs, node.attrs)
            return
        v = self.head = node.outputs[0]
        self.domain, self.dense = v.type.shape, contiguous_strides(v.type.shape)
        self._value(v, self.dense, 0)
        roots, outs = [], []
        del self.stores[v]
        pool, pooling = self.group.pooling, None
        if pool is not None:
            (x,), (w,) = pool.node.values(), pool.node.outputs
            roots.append(self._value(self.layouts[x].base, self.dense, 0))
            self.stores[w] = contiguous_strides(w.type.shape)
            outs.append(Operand(self.sources.buffer(w), 0, w.type.dtype, w.type.shape, self.stores[w]))
            pooling = Pooling(pool.node.op.name, pool.node.named)
        for item in self.group.items if pool is None else ():
            for w in item.node.outputs:
                if self.stored(w, self.inside):
                    roots.append(self._value(w, self.dense, 0))
                    outs.append(Operand(self.sources.buffer(w), 0, w.type.dtype, self.domain, self.dense))
                    self.stores[w] = self.dense
        if not outs:
            return
        built = self._built(roots)
        if self.sources.fast:
            built = relax(built, ())
        epilogue = Epilogue(built, tuple(self.inputs[1:]), tuple(outs), pooling)
        if node.op.operands_rule is not None:
            inputs, outputs = node.op.operands_rule(inputs, outputs)
        kernel = self.backend.primitive(node.op.name)
        kernel(program, inputs, outputs, epilogue=epilogue, **named)

    def _number(self, node: Node, k: int) -> Scalar:
        dtype = node.outputs[0].type.dtype
        if node.op.kind == "pointwise":
            dtype = node.op.form(number_kinds(node), node.attrs).arg_dtypes[k]
        return self.sources.scalar(node.inputs[k], dtype)

    def _in_place(self, node: Node, x: Value, operand: Operand) -> Operand:
        """The operand, or the place in the node's result where it has been computed: all of it, not a part."""
        layout = self.layouts[x]
        whole, at = self.places.parts.get(layout.base, (None, 0))
        if whole is not node.outputs[0] or not layout.covers_base(x.type.shape):
            return operand
        return operand._replace(source=self.sources.buffer(node.outputs[0]), offset=at)

    def _whole(self, x: Value) -> Operand:
        layout = self.layouts[x]
        dtype = x.type.dtype if layout.rounded is None else layout.base.type.dtype
        self.reads.setdefault(layout.base, []).append((layout.strides, layout.offset))
        source, at = self.sources.buffer(layout.base), layout.offset * dtype.itemsize
        return Operand(source, at, dtype, x.type.shape, layout.strides, layout.rounded)
