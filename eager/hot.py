"""Composites and gradient steps in eager mode: op by op at first, as one program once they are hot (`core/hot.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..core import dispatch, hot, vjp
from ..core.declared import GradRule
from ..core.errors import AutogradError, line_of, user_place
from ..core.hot import Taped
from ..core.op import Attrs, Op
from ..core.ops.views import permute
from ..core.saved import Need, kept_by, needs_of, refuse_changed
from ..core.step import fitted
from ..core.types import contiguous_strides
from ..core.unfolding import asking, standing, unfold
from .launch import Body, inside, launcher
from .recipes import NUMBERS, Recipe, taped
from .taped_node import TapedNode, TapeName, behind
from .tensor import EagerTensor, fresh

Inputs = tuple[Any, ...]
_NONE: Mapping[int, Any] = MappingProxyType({})


def _fresh(results: Sequence[Any], tensors: Sequence[Any]) -> bool:
    """Whether results are contiguous tensors with memory of their own."""
    taken = {id(x._storage) for x in tensors}
    return all(
        isinstance(y, EagerTensor) and y._layout.contiguous and id(y._storage) not in taken for y in results
    )


def _turned(results: Sequence[Any], tensors: Sequence[Any]) -> list[tuple[int, ...] | None] | None:
    """For results with memory of their own, the axes that make each contiguous; None for one that is, or for all."""
    taken, found = {id(x._storage) for x in tensors}, list[tuple[int, ...] | None]()
    for y in results:
        if not isinstance(y, EagerTensor) or id(y._storage) in taken:
            return None
        if y._layout.contiguous:
            found.append(None)
            continue
        shape, strides = y.shape, y._layout.strides
        axes = tuple(sorted(range(len(shape)), key=lambda k: (-strides[k], k)))
        turned = tuple(shape[k] for k in axes)
        dense = zip(turned, (strides[k] for k in axes), contiguous_strides(turned))
        if y._offset or any(st != whole for n, st, whole in dense if n != 1):
            return None
        found.append(axes)
    return found


def _chain(y: Any, tensors: Sequence[Any]) -> tuple[int, list[Recipe]] | None:
    """Which of the tensors y is a view of, through which ops (none: it is that tensor); None for another."""
    executor: Any = dispatch._State.executor
    steps: list[Recipe] = []
    while isinstance(y, EagerTensor):
        for k, x in enumerate(tensors):
            if x is y:
                return k, steps[::-1]
        if y._base is None:
            return None
        op, attrs = y._view
        y = y._base
        steps.append(executor._recipe(op, (y,), attrs))
    return None


def _follow(chain: list[Recipe], x: Any) -> Any:
    for recipe in chain:
        x = recipe.run((x,))
    return x


def _follow_taped(chain: list[Recipe], x: Any) -> Any:
    for recipe in chain:
        x = recipe.taped((x,)) if x._requires_grad else recipe.run((x,))
    return x


def composite(op: Op, inputs: Inputs, attrs: Attrs) -> Recipe:
    """The recipe of a composite for the layouts of these inputs."""
    recipe = _Composite(op, inputs, attrs).recipe
    return recipe if op.look_rule is None else _looking(recipe, op.look_rule, op.attrs_dict(attrs))


def _looking(recipe: Recipe, look: Callable[..., None], named: dict[str, Any]) -> Recipe:
    """A recipe that first looks at values."""

    def run(inputs: Inputs) -> Any:
        look(*inputs, **named)
        return recipe.run(inputs)

    def recorded(inputs: Inputs) -> Any:
        look(*inputs, **named)
        return recipe.taped(inputs)

    return Recipe(run, recorded)


class _Composite:
    """A composite's call: its body op by op, then fused; with gradients fused by what wants one."""

    def __init__(self, op: Op, inputs: Inputs, attrs: Attrs):
        self.op, self.named, self.own = op, op.attrs_dict(attrs), op.differentiable
        self.attrs = attrs
        self.spots = [k for k, x in enumerate(inputs) if x is not None]
        self.fits = bool(self.spots) and all(isinstance(inputs[k], EagerTensor) for k in self.spots)
        self.plain, self.steps = Body(op.name), StepTable(op)
        self.bodies: dict[int, Body] = {}
        self.taped: dict[int, Callable[[Inputs], Any]] = {}
        self.recipe = Recipe(self.expand, self.record if self.own else self.record_inside)

    def expand(self, inputs: Inputs) -> Any:
        """Op by op; nothing is recorded when the op has a gradient of its own."""
        state = dispatch.state
        before = state.grad
        if self.own:
            state.grad = False
        try:
            with inside:
                result = self.op.fn(*inputs, **self.named)
        finally:
            state.grad = before
        if self.fits and not self.views(inputs, result) and self.plain.due():
            self.fuse(inputs, result)
        return result

    def views(self, inputs: Inputs, result: Any) -> bool:
        """Whether the results are inputs, or views of them: then the ops that made the views are the recipe."""
        chains = [_chain(y, inputs) for y in (result if isinstance(result, tuple) else (result,))]
        steps = [c for c in chains if c is not None and (c[1] or not self.own)]
        if len(steps) < len(chains) or not steps:
            return False
        several = isinstance(result, tuple)

        def run(inputs: Inputs) -> Any:
            made = [_follow(chain, inputs[k]) for k, chain in steps]
            return tuple(made) if several else made[0]

        def recorded(inputs: Inputs) -> Any:
            made = [_follow_taped(chain, inputs[k]) for k, chain in steps]
            return tuple(made) if several else made[0]

        self.recipe.run = run
        if not self.own:
            self.recipe.taped = recorded
        return True

    def body(self, tensors: list[Any], numbers: list[Any]) -> tuple[Any, ...]:
        """The composite on its tensors alone, as a tuple."""
        row: list[Any] = [None] * len(self.op.input_names if not self.op.variadic else tensors)
        for k, x in zip(self.spots, tensors):
            row[k] = x
        made = self.op.fn(*row, **self.named)
        return made if isinstance(made, tuple) else (made,)

    def fuse(self, inputs: Inputs, result: Any) -> None:
        """Compile the body; `result` is what this call gave op by op."""
        tensors = [inputs[k] for k in self.spots]
        results = result if isinstance(result, tuple) else (result,)
        turns = _turned(results, tensors)
        if turns is None:
            return
        body = self.body
        if any(turns):

            def body(tensors: list[Any], numbers: list[Any]) -> tuple[Any, ...]:
                made = self.body(tensors, numbers)
                return tuple([y if axes is None else permute(y, axes=axes) for y, axes in zip(made, turns)])

        fused = hot.attempt(lambda c: c.fuse(self.op.name, body, tensors), self.op.name)
        if fused is None or any(r is None or r[0] != "output" for r in fused.results):
            return
        order = [k for _, k in fused.results]
        if any(turns):
            # The program writes contiguous memory, which is seen as op by op.
            layouts = {k: y._layout for k, y in zip(order, results)}
            if len(layouts) < len(order):
                return
            fused = fused._replace(outputs=tuple((layouts[k], n) for k, (_, n) in enumerate(fused.outputs)))
        launch = launcher(fused, tensors[0].device)

        whole = len(self.spots) == len(inputs)

        def single(inputs: Inputs) -> Any:
            return launch(inputs if whole else [x for x in inputs if x is not None])[0]

        def several(inputs: Inputs) -> Any:
            made = launch([x for x in inputs if x is not None])
            return tuple([made[k] for k in order])

        self.recipe.run = several if isinstance(result, tuple) else single
        if self.own and (self.recipe.run is single or len(results) > 1):
            types = tuple([y.type for y in results])
            self.recipe.taped = taped(self.recipe.run, self.op, self.attrs, types, self.steps.step)

    # -- recorded -----------------------------------------------------------------------------

    def record(self, inputs: Inputs) -> Any:
        """The call and its record, for an op with its own gradient."""
        result = self.recipe.run(inputs)
        outs = result if isinstance(result, tuple) else (result,)
        node = vjp.record(self.op, inputs, self.attrs, outs)
        if node is not None:
            node.step = self.steps.step(sum(1 << k for k, e in enumerate(node.edges) if e is not None))
        return result

    def record_inside(self, inputs: Inputs) -> Any:
        """The call of a composite whose ops are recorded one by one, or once hot as one node."""
        needs, bit = 0, 1
        for x in inputs:
            if x is not None and x.__class__ not in NUMBERS and x._requires_grad:
                needs |= bit
            bit += bit
        once = not needs & (needs - 1) or _once(inputs)
        found = self.taped.get(needs) if once and not dispatch.state.inside else None  # one node unfolds once
        if found is not None:
            return found(inputs)
        with inside:
            result = self.op.fn(*inputs, **self.named)
        if once and self.fits and not self.views(inputs, result):
            body = self.bodies.setdefault(needs, Body(self.op.name))
            if body.due():
                self.fuse_taped(inputs, result, needs)
        return result

    def fuse_taped(self, inputs: Inputs, result: Any, needs: int) -> None:
        """Compile the body with its way back."""
        tensors = [inputs[k] for k in self.spots]
        results = result if isinstance(result, tuple) else (result,)
        if not _fresh(results, tensors):
            return
        wanted = [n for n, k in enumerate(self.spots) if needs >> k & 1]
        found = hot.attempt(
            lambda c: c.fuse_taped(self.op.name, self.body, tensors, wanted), f"{self.op.name} with gradient"
        )
        if found is not None:
            self.taped[needs] = _TapedComposite(self, found, inputs, wanted, results).call


def _once(inputs: Inputs) -> bool:
    """Whether no tensor that wants a gradient is given twice: its gradient's parts would come in another order."""
    keys = [vjp._key(x) for x in inputs if x is not None and x.__class__ not in NUMBERS and x._requires_grad]
    return len(set(keys)) == len(keys)


def _needs_inside(results: Sequence[Any], tensors: Sequence[Any]) -> list[tuple[Need, str, int, bool]]:
    """What a body that was recorded op by op needs of its results and tensors, in the order of a walk; whether the
    walk does so at its first op."""
    places = {id(y._storage): ("output", k) for k, y in enumerate(results)}
    places |= {id(x._storage): ("tensor", k) for k, x in enumerate(tensors)}
    nodes = _recorded_since(
        results, max((x._node.number for x in tensors if x._node is not None), default=-1)
    )
    return [
        (need, *places[id(x._storage)], node is nodes[0]) for node in nodes
        for need, x, _ in needs_of(node) if id(x._storage) in places
    ]  # fmt: skip


def _recorded_since(results: Sequence[Any], before: float) -> list[vjp.Node]:
    """The tape behind results down to a number, in the order of a walk."""
    found: dict[float, vjp.Node] = {}
    todo = [y._node for y in results]
    while todo:
        node = todo.pop()
        if node is not None and node.number > before and node.number not in found:
            found[node.number] = node
            todo += [edge[0] for edge in node.edges if isinstance(edge, tuple)]
    return [found[number] for number in sorted(found, reverse=True)]


class _TapedComposite:
    """A composite without a gradient of its own as two programs: there and back."""

    def __init__(
        self, owner: _Composite, taped: Taped, inputs: Inputs, wanted: list[int], results: Sequence[Any]
    ):  # fmt: skip
        """results: those of a call that was recorded op by op."""
        device = inputs[owner.spots[0]].device
        self.owner, self.taped, self.wanted, self.device = owner, taped, wanted, device
        self.launch = launcher(taped.forward, device)
        self.types = tuple(taped.forward.outputs[k][0].type for k in taped.roots)
        self.order = [k for _, k in taped.forward.results]
        names = owner.op.input_names
        self.names = [
            names[owner.spots[k]] if kind == "tensor" and not owner.op.variadic else f"value {n} inside"
            for n, (kind, k) in enumerate(taped.saved)
        ]
        #: how many inputs there are, and which of them want a gradient
        self.count, self.places = len(inputs), [owner.spots[n] for n in wanted]
        self.sums = tuple([self.places[n] for n in taped.sums])
        self.tape_op = TapeName(owner.op.name)
        self.tape_op.unfold, self.tape_op.needs = self.unfold, self.needs
        self.rule = GradRule(self.back, ("gs", "inputs_type", *self.names))
        self.backs: dict[Any, Any] = {}
        made = dict(zip(self.order, results))
        self.makers = [(made[k]._node.number, made[k]._node.op.name) for k in taped.roots]
        #: by result with a gradient, bits of the others that are computed from it; nothing where there are none
        self.behind = behind([made[k] for k in taped.roots], [inputs[k] for k in owner.spots])
        #: what the ops of the body need, and the tensors and outputs among that which the way back does not read
        self.inside = [
            (need, (kind, self.order[k] if kind == "output" else k), first)
            for need, kind, k, first in _needs_inside(results, [inputs[k] for k in owner.spots])
        ]
        needed = dict.fromkeys(place for _, place, _ in self.inside)
        #: what the way back reads and no op of the body needs: each has made a copy for itself
        self.copied = frozenset(
            (kind, k) for kind, k in taped.saved
            if (kind, k) not in needed and (kind == "tensor" or k in self.order)
        )  # fmt: skip
        unread = [place for place in needed if place not in taped.saved]
        self.unread_tensors = [k for kind, k in unread if kind == "tensor"]
        self.unread_outputs = [k for kind, k in unread if kind == "output"]

    def call(self, inputs: Inputs) -> Any:
        tensors = [x for x in inputs if x is not None]
        drawn = [(g, g.get_state()) for g, _ in self.taped.forward.drawn]
        made = self.launch(tensors)
        roots = self.taped.roots
        unread = [(s, s.version) for s in [made[k]._storage for k in self.unread_outputs]]
        versions = [x._storage.version for x in tensors]
        saved: dict[str, Any] = {"inputs_type": (inputs, versions, drawn, unread)}
        for name, (kind, k) in zip(self.names, self.taped.saved):
            # An alias of an output: the tensor itself would close a reference cycle with its node.
            x = tensors[k] if kind == "tensor" else made[k]._alias() if k in roots else made[k]
            if self.copied and (kind, k) in self.copied:
                with dispatch.set_grad(False):
                    x = x.clone()
            saved[name] = x, x._storage.version
        edges = [vjp._edge(x) for x in inputs]
        node = TapedNode(self.tape_op, (), edges, self.rule, saved, self.types, user_place(4))
        for n, k in enumerate(roots):
            y = made[k]
            y._node, y._index, y._requires_grad = node, n, True
        node.step, node.unfolded = self, False
        return made[self.order[0]] if len(self.order) == 1 else tuple([made[k] for k in self.order])

    def onto(self, node: vjp.Node, grads: list[Any], held: dict[int, Any]) -> list[Any]:
        """The step back where inputs have gradients already, which come back with the parts of this step."""
        found = self(node, grads, held) if dispatch.state.executor is dispatch._State.executor else None
        if found is not None:
            return found
        refuse_changed(node)
        kept, saved = node.saved["inputs_type"], [node.saved[name][0] for name in self.names]
        return list(self.back(tuple(grads), kept, *saved, held=held))

    def __call__(self, node: vjp.Node, grads: list[Any], held: Mapping[int, Any] = _NONE) -> list[Any] | None:
        """The step back of a walk that records nothing, as `Step`; None until `back` has compiled it."""
        tensors = kept_by(node)[0] + grads
        for k in self.sums:
            tensors.append(held.get(k))
        if self.unread_tensors or self.unread_outputs:
            inputs, versions, _, unread = node.saved["inputs_type"]
            if self.unread_tensors:
                given = [x for x in inputs if x is not None]
                unread = unread + [(given[k]._storage, versions[k]) for k in self.unread_tensors]
            for storage, version in unread:
                if storage.version != version:
                    refuse_changed(node)
        way = self.backs.get(_layouts(tensors))
        return None if way is None else self.placed(way[0](_present(tensors)), way[1])

    def done(self, node: vjp.Node, grads: list[Any], results: list[Any]) -> None:
        """Nothing to learn: the step went by `back`."""

    def needs(self, node: vjp.Node) -> Iterator[tuple[Need, Any, int]]:
        """What the ops of the body need of tensors from outside it and of its results, and what the way back reads."""
        inputs, versions, _, unread = node.saved["inputs_type"]
        tensors = [x for x in inputs if x is not None]
        found = {place: node.saved[name] for place, name in zip(self.taped.saved, self.names)}
        found |= {("tensor", k): (tensors[k], versions[k]) for k in self.unread_tensors}
        layouts = [self.taped.forward.outputs[k][0] for k in self.unread_outputs]
        made = [(fresh(lay, storage), version) for lay, (storage, version) in zip(layouts, unread)]
        found |= {("output", k): entry for k, entry in zip(self.unread_outputs, made)}
        for need, place, _ in self.inside:
            yield need._replace(where=node.where), *found[place]
        for name in self.names:
            x, version = node.saved[name]
            yield Need(self.owner.op.name, name, x.type, node.where), x, version

    def placed(self, made: list[Any], results: Sequence[Any]) -> list[Any]:
        """The gradients at the places of the inputs that want one."""
        found: list[Any] = [None] * self.count
        for k, r in zip(self.places, results):
            if r is not None:
                found[k] = made[r[1]]
        return found

    def back(
        self, gs: tuple[Any, ...], kept: Any, *saved: Any, held: Mapping[int, Any] = _NONE
    ) -> tuple[Any, ...]:
        """The gradient rule of the call. held: gradients that inputs have already."""
        if not dispatch.state.grad and dispatch.state.executor is dispatch._State.executor:
            tensors = [*saved, *gs, *(held.get(k) for k in self.sums)]
            way = self.way(_layouts(tensors))
            if way is not None:
                return tuple(self.placed(way[0](_present(tensors)), way[1]))
        found: list[Any] = [None] * self.count
        for k, g in zip(self.places, self.again(kept, gs, held)):
            found[k] = g
        return tuple(found)

    def way(self, layouts: tuple[Any, ...]) -> Any:
        """The way back for these layouts, compiled when it is first asked for; None where there is none."""
        way = self.backs.get(layouts)
        if way is None:
            fused = hot.attempt(lambda _: self.taped.backward(layouts), f"{self.owner.op.name} gradient")
            if fused is not None:
                way = self.backs[layouts] = launcher(fused, self.device), fused.results
        return way

    def unfold(self, node: TapedNode) -> None:
        """Record the body op by op, behind its node: gradients of gradients then meet those of this walk, and of later
        ones, at the same ops and in the same order as if the body had never been hot."""
        refuse_changed(node)
        first = vjp.mark()
        inputs, versions, *_ = kept = node.saved["inputs_type"]
        ends = [(x, edge) for x, edge in zip(inputs, node.edges) if x is not None]
        changed = [end for end, version in zip(ends, versions) if end[0]._storage.version != version]
        with standing(changed):
            roots, _ = self.recorded(*kept)
        unfold(node, roots, first)

    def again(self, kept: Any, gs: tuple[Any, ...], held: Mapping[int, Any]) -> list[Any]:
        """Gradients that are recorded themselves where ops do not run at once: the body once more, op by op."""
        create = dispatch.state.grad
        roots, targets = self.recorded(*kept)
        begin = [held.get(k) for k in self.places]
        ends = [(y, g) for y, g in zip(roots, gs) if g is not None]
        return vjp.walk(
            [y for y, _ in ends], [g for _, g in ends], targets, create_graph=create, cut=True, inner=True,
            begin=begin,
        )  # fmt: skip

    def recorded(
        self, inputs: Inputs, versions: list[int], drawn: list[Any], _: Any
    ) -> tuple[list[Any], list[Any]]:
        """The body once more, op by op, with the random numbers of the call: its outputs that have a gradient, and the
        inputs that want one."""
        tensors = [x for x in inputs if x is not None]
        changed = [x for x, version in zip(tensors, versions) if x._storage.version != version]
        first = vjp.mark()
        executor = dispatch.state.executor
        face, after = executor.face, [(g, executor.random_state(g)) for g, _ in drawn]
        for g, state in drawn:
            executor.set_random_state(g, state)
        flags = [(face(x), n in self.wanted) for n, x in enumerate(tensors)]
        try:
            with dispatch.set_grad(True), inside, asking(flags):
                made = self.owner.op.fn(*inputs, **self.owner.named)
        finally:
            for g, state in after:
                executor.set_random_state(g, state)
        outs = [face(y) for y in (made if isinstance(made, tuple) else (made,))]
        if changed:  # op by op, nothing needs it; but here it has a say in what is computed
            there = {id(x._storage) for x in tensors} - {id(x._storage) for x in changed}
            for node in _recorded_since(outs, first):
                if any(id(x._storage) not in there for _, x, _ in needs_of(node)):
                    raise self.refuse(changed[0])
        roots = [outs[self.order.index(k)] for k in self.taped.roots]
        return roots, [face(tensors[n]) for n in self.wanted]

    def refuse(self, x: Any) -> AutogradError:
        """The error for an input that was changed in place."""
        return AutogradError(
            self.owner.op.name,
            f"needs its input {x.type} for a gradient of a gradient, but it was changed in place at "
            f"{line_of(x._changed_place())}",
            "use an out-of-place op (x = x + 1), or clone() the tensor before changing it",
        )


class StepTable:
    """The gradient steps of an op's calls, by the bits of the inputs that want a gradient."""

    __slots__ = ("found", "name")

    def __init__(self, op: Op):
        self.name = op.name
        self.found: dict[int, Step] = {}

    def step(self, needs: int) -> Step:
        """The step of calls in which these inputs want a gradient."""
        step = self.found.get(needs)
        if step is None:
            step = self.found[needs] = Step(self.name)
        return step


class Step:
    """From the gradients of a node's outputs to those of its inputs, fitted to their types.

    Called by the reverse walk; returns None while the walk should do it op by op.
    """

    __slots__ = ("bodies", "name", "ready")

    def __init__(self, name: str):
        self.name = name
        self.bodies: dict[Any, Body] = {}
        self.ready: dict[Any, Any] = {}

    def __call__(self, node: vjp.Node, grads: list[Any]) -> list[Any] | None:
        if len(grads) == 1:
            way = self.ready.get(grads[0]._layout)
        else:
            way = self.ready.get(_layouts(grads))
        if way is None:
            return None
        tensors, numbers = kept_by(node)
        return way(tensors + _present(grads), numbers)

    def done(self, node: vjp.Node, grads: list[Any], results: list[Any]) -> None:
        """Tell of a step that went op by op; the one that makes it hot compiles it."""
        key = grads[0]._layout if len(grads) == 1 else _layouts(grads)
        if key in self.ready:
            return
        body = self.bodies.get(key)
        if body is None:
            body = self.bodies[key] = Body(self.name)
        if body.due():
            way = _way(self.name, node, grads, results)
            if way is not None:
                self.ready[key] = way


def _layouts(grads: list[Any]) -> Any:
    return tuple([None if g is None else g._layout for g in grads])


def _present(grads: list[Any]) -> list[Any]:
    return [g for g in grads if g is not None]


def _way(name: str, node: vjp.Node, grads: list[Any], results: list[Any]) -> Any:
    """The step as a function of what the node kept and the gradients; None when it stays op by op."""
    tensors, numbers = kept_by(node)
    tensors += _present(grads)
    used = [g is not None for g in grads]
    if not all(isinstance(x, EagerTensor) for x in tensors) or any(
        x.__class__ not in (int, float) for x in numbers
    ):
        return None
    places: list[Any] = []
    for y in results:
        chain = None if y is None else _chain(y, tensors)
        if y is None or chain is not None:
            places.append(chain)
        elif _fresh([y], tensors):
            places.append("output")
        else:
            return None
    if "output" not in places:
        return lambda tensors, numbers: [_place(p, tensors) for p in places]

    def body(symbols: list[Any], given: list[Any]) -> tuple[Any, ...]:
        twin, present = vjp.refill(node, symbols, given)
        rest = iter(present)
        made = fitted(twin, [next(rest) if there else None for there in used])
        return tuple(y for p, y in zip(places, made) if p == "output")

    fused = hot.attempt(lambda c: c.fuse(f"{name} gradient", body, tensors, numbers), f"{name} gradient")
    if fused is None or any(r is None or r[0] != "output" for r in fused.results):
        return None
    launch = launcher(fused, tensors[0].device)
    if places == ["output"]:
        return launch
    numbered = iter(fused.results)
    places = [next(numbered) if p == "output" else p for p in places]

    def way(tensors: list[Any], numbers: list[Any]) -> list[Any]:
        made = launch(tensors, numbers)
        return [None if p is None else made[p[1]] if p[0] == "output" else _place(p, tensors) for p in places]

    return way


def _place(place: Any, tensors: list[Any]) -> Any:
    return None if place is None else _follow(place[1], tensors[place[0]])


__all__ = ["Step", "StepTable", "composite"]
