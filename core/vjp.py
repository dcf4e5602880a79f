"""The tape's nodes and the reverse walk over them, used by both modes.

Gradient rules are written in ops, so the walk runs eagerly, traces into a graph, and differentiates again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import dispatch
from .errors import ArgumentTypeError, AutogradError, Place, line_of, user_place
from .reach import THROUGH, edge_key, leads, look, opened, past
from .saved import freed
from .step import fitted
from .strangers import kind_of
from .types import TensorType

if TYPE_CHECKING:
    from .op import Attrs, Op
    from .value import Tensor

_sequence = itertools.count()
_NUMBERS = (int, float, bool, complex)
_NUMBER_SET = frozenset(_NUMBERS)


class Node:
    """One recorded op call.

    edges: per input, None (no gradient), a leaf tensor, or (node, output index). saved: what the rules asked
    for, by name, with the version each tensor had. where: the place of the user's call. step: what does the
    whole step back in eager mode once it is hot, or None. said: see `renew`.
    """

    __slots__ = (
        "attrs", "edges", "hooks", "number", "op", "out_types", "outs", "rules", "said", "saved", "step", "where",
    )  # fmt: skip

    #: whether it stands for several ops (`core/unfolding.py`); whether these are on the tape behind it by now
    is_folded = unfolded = False
    #: whether it stands for a call of a graph: see `graph/walks.py`
    is_call = False
    #: the inputs whose gradients, where they have one already, are given to `onto`, which adds to them: one that stands
    #: for several ops adds parts one by one, as these ops would
    sums: Sequence[int] = ()

    def __init__(
        self, op: Any, attrs: Any, edges: Sequence[Any], rules: Any, saved: Any, out_types: Any, where: Any
    ):
        self.op, self.attrs, self.edges, self.rules = op, attrs, edges, rules
        self.saved, self.out_types, self.where = saved, out_types, where
        self.number: float = next(_sequence)
        self.outs: Any = ()
        self.step: Any = None
        self.hooks: Any = None  # output index -> list of hooks

    def __lt__(self, other: Node) -> bool:
        return self.number > other.number

    def __repr__(self) -> str:
        return f"<{self.op.name} gradient>"

    def forget(self) -> None:
        """Let go of what one step back needed: tensors, and rules made for this call, which hold some."""
        self.saved, self.outs, self.rules = None, (), ()
        used = getattr(self.op, "used", None)
        if used is not None:
            self.op = used()

    def onto(self, grads: list[Any], held: dict[int, Any]) -> list[Any]:
        """The step back where inputs have gradients already, which come back with the parts of this step."""
        found: list[Any] = self.step.onto(self, grads, held)
        return found

    def give_up(self) -> None:
        """A step back ended in an error, and the tape was not to be kept."""

    @property
    def line(self) -> str:
        return line_of(self.where)

    @property
    def name(self) -> str:
        """Which op of the user's it is."""
        return getattr(self, "said", self.op.name)

    def told(self, index: int) -> tuple[str, Place | None]:
        """The op that made an output, and where it was called."""
        return self.name, self.where

    def in_order(self) -> list[tuple[int, Any]]:
        """The hooks by output, in the order in which they run: of outputs of one op, as these got their first ones."""
        return list(self.hooks.items())

    def spent(self, grads: Sequence[Any]) -> AutogradError:
        """The error for a second step back, with gradients of these outputs."""
        return freed(self.name, self.where)


def _edge(x: Any) -> Any:
    if x is None or isinstance(x, _NUMBERS) or not x._requires_grad:
        return None
    node = x._node
    return x if node is None else (node, x._index)


def end_of(x: Any) -> Any:
    """The edge to a tensor that is on the tape, though it may have stopped asking for a gradient since."""
    return x if x._node is None else (x._node, x._index)


class TapePlan(NamedTuple):
    """What recording an op call keeps, for one choice of inputs that want a gradient.

    rules: as in Node; tensors, types: (name, position) of the inputs kept whole, or as dtype and shape; listed:
    a variadic op's inputs are kept (1), their types (2), or both (3); outs: outputs are kept, from `first_out` on.
    """

    rules: Any
    tensors: tuple[tuple[str, int], ...]
    types: tuple[tuple[str, int], ...]
    listed: int
    outs: bool


def plan_of(op: Op, count: int, needs: int) -> TapePlan:
    """The plan of an op with `count` inputs of which those in the bits of `needs` want a gradient."""
    rules: Any = op.joint
    if rules is not None:
        wanted = set(rules.wants)
    else:
        names = op.input_names * count if op.variadic else op.input_names
        rules = [op.grads.get(n) if needs >> k & 1 else None for k, n in zip(range(count), names)]
        wanted = {w for r in rules if r is not None for w in r.wants}
    outs = "out" in wanted or "outs" in wanted
    if op.variadic:
        return TapePlan(rules, (), (), (op.input_names[0] in wanted) + 2 * ("types" in wanted), outs)
    spots = list(zip(op.input_names, range(count)))
    return TapePlan(
        rules, tuple((n, k) for n, k in spots if n in wanted),
        tuple((n + "_type", k) for n, k in spots if n + "_type" in wanted), 0, outs,
    )  # fmt: skip


def record(
    op: Op,
    inputs: tuple[Any, ...],
    attrs: Attrs,
    outputs: tuple[Tensor, ...],
    out_types: tuple[TensorType, ...] | None = None,
) -> Node | None:
    """Put an op call on the tape: outputs get a node that knows how to go back. None when there is no gradient."""
    if out_types is None:
        out_types = tuple([y.type for y in outputs])
    if not op.differentiable or not any(has_gradient(t.dtype) for t in out_types):
        return None
    return record_planned(op, inputs, attrs, outputs, out_types, user_place(2))


def record_planned(
    op: Op,
    inputs: tuple[Any, ...],
    attrs: Attrs,
    outputs: tuple[Tensor, ...],
    out_types: tuple[TensorType, ...],
    where: Place | None,
) -> Node:
    """`record` for a call that is known to have a gradient."""
    edges: list[Any] = []
    needs, bit = 0, 1
    for x in inputs:
        if x is None or x.__class__ in _NUMBER_SET or not x._requires_grad:
            edges.append(None)
        else:
            before = x._node
            edges.append(x if before is None else (before, x._index))
            needs |= bit
        bit += bit
    plan: TapePlan | None = op.tape_plans.get((len(inputs), needs) if op.variadic else needs)
    if plan is None:
        plan = plan_of(op, len(inputs), needs)
        op.tape_plans[(len(inputs), needs) if op.variadic else needs] = plan
    saved: dict[str, Any] = {}
    node = Node(op, attrs, edges, plan.rules, saved, out_types, where)
    for name, k in plan.tensors:
        x = inputs[k]
        saved[name] = (x, 0) if x is None or x.__class__ in _NUMBER_SET else (x, x._get_version())
    keep_rest(node, plan, inputs, outputs)
    for k, y in enumerate(outputs):
        if has_gradient(out_types[k].dtype):
            y._node, y._index, y._requires_grad = node, k, True
    return node


def keep_rest(node: Node, plan: TapePlan, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    """Keep of a call what a plan asks for besides single inputs: types, lists of inputs, outputs."""
    saved = node.saved
    for name, k in plan.types:
        x = inputs[k]
        saved[name] = x if x is None or x.__class__ in _NUMBER_SET else x.type
    if plan.listed & 1:
        saved[node.op.input_names[0]] = tuple([(x, x._get_version()) for x in inputs])
    if plan.listed & 2:
        saved["types"] = tuple([x.type for x in inputs])
    if plan.outs:
        # A detached alias: the tensor itself would close a reference cycle with its node.
        node.outs = tuple([(y._alias(), y._get_version()) for y in outputs[node.op.first_out :]])


def has_gradient(dtype: Any) -> bool:
    """Whether tensors of a dtype can have gradients."""
    return dtype.has_gradient  # type: ignore[no-any-return]


def reaches_other_leaves(roots: Sequence[Tensor], targets: Sequence[Tensor]) -> bool:
    """Whether the roots depend on a leaf that is not a target, and not only through targets."""
    stop = {_key(t) for t in targets}
    stack: list[Any] = [_edge(r) for r in roots]
    seen: set[int] = set()
    while stack:
        edge = opened(stack.pop())
        if edge is None:
            continue
        if not isinstance(edge, tuple):
            if id(edge) not in stop:
                return True
        elif (edge[0].number, edge[1]) not in stop and edge[0].number not in seen:
            seen.add(edge[0].number)
            stack += edge[0].edges
    return False


def attach(op: Any, inputs: tuple[Any, ...], attrs: Attrs, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Record an op that has been computed by other means. Returns the outputs."""
    if dispatch.state.grad and any(_edge(x) is not None for x in inputs):
        record(op, inputs, attrs, outputs)
    return outputs


def refuse_leaf(target: Tensor) -> None:
    """Raise AutogradError when a change on the tape would be one of a leaf that requires a gradient, or of its view."""
    leaf: Any = target
    while leaf is not None and not (leaf._requires_grad and leaf._is_leaf()):
        leaf = leaf._whole()
    if target._requires_grad and leaf is not None:
        what = "a leaf" if leaf is target else f"a view of a leaf {leaf.type}"
        raise AutogradError(
            "in-place", f"{what} that requires a gradient ({target.type}) cannot be changed in place",
            "do it under dg.no_grad(), or work on x.clone()",
        )  # fmt: skip


def renew(view: Tensor, again: Tensor) -> None:
    """Give a view of changed memory the history of the same view made again; errors name the call that it had last."""
    before, node = view._node, again._node
    if before is None and node is None:
        return  # a leaf of its own, perhaps
    if before is not None and node is not None:
        node.said, node.where = before.told(view._index)
    view._node, view._index, view._requires_grad = node, again._index, again._requires_grad


def ruleless(x: Any) -> Any:
    """The first of a tensor and the views that it is made of whose changes the tape has no rule for, or None."""
    while x._base is not None:
        if x._view[0].view_update_rule is None:
            return x
        x = x._base
    return None


def refuse_view(target: Tensor) -> None:
    """Raise AutogradError when a change on the tape would go through a view that has no rule for it."""
    x = ruleless(target)
    if x is not None:
        raise AutogradError(
            x._view[0].name, f"the result {x.type} cannot be changed in place while gradients are recorded",
            "clone() it first, or work under dg.no_grad()",
        )  # fmt: skip


class Hooks(list[Any]):
    """The hooks of a leaf. number: the leaf that had its first one before another has the lower one."""

    __slots__ = ("number",)

    def __init__(self, hooks: Sequence[Any] = (), number: int | None = None):
        super().__init__(hooks)
        self.number = next(_sequence) if number is None else number


def mark() -> int:
    """A number between those of the nodes recorded before and after this call."""
    return next(_sequence)


def refill(node: Node, tensors: list[Any], numbers: list[Any]) -> tuple[Node, list[Any]]:
    """A node like this one that kept the first of `tensors`, and `numbers`; and the other tensors, gradients."""
    rest, rest_numbers = iter(tensors), iter(numbers)

    def swap(x: Any, version: int) -> tuple[Any, int]:
        if x is None or x.__class__ in _NUMBER_SET:
            return x if x is None else next(rest_numbers), version
        y = next(rest)
        return y, y._get_version()

    saved: dict[str, Any] = {}
    for name, entry in node.saved.items():
        if name.endswith("_type") or name == "types":
            saved[name] = entry
        elif node.op.variadic:
            saved[name] = tuple([swap(x, version) for x, version in entry])
        else:
            saved[name] = swap(*entry)
    twin = Node(node.op, node.attrs, node.edges, node.rules, saved, node.out_types, node.where)
    twin.outs = tuple([swap(y, version) for y, version in node.outs])
    return twin, list(rest)


def walk(
    roots: Sequence[Tensor],
    root_grads: Sequence[Tensor],
    targets: Sequence[Any] | None = None,
    create_graph: bool = False,
    retain_graph: bool = False,
    cut: bool | int = False,
    inner: bool = False,
    begin: Sequence[Any] = (),
    aimed: bool = False,
) -> list[Any]:
    """The reverse walk: from roots back to `targets`, or to every leaf (whose `.grad` it adds to).

    targets: tensors, edges of the tape, or `Leaf`s. Only nodes from which one is reached take part: others may be used
    up or changed, are not freed, and their hooks do not run. cut: the tape ends at the targets (a number: at so many of
    the first); what made them is neither walked nor freed. inner: the walk is a step of another one, which runs the
    hooks of the targets and may be on the way to every leaf, so all nodes take part; aimed: though inner, it is
    made to these targets alone. begin: the gradients that the targets have before it, or None.

    Nodes run latest first, so sums of gradients have the same order in both modes. Returns the targets'
    gradients (None for a target that the roots do not depend on).
    """
    pending: dict[float, list[Any]] = {}
    heap: list[Node] = []
    leaf_grads: dict[int, tuple[Any, Any]] = {}
    wanted = {(_key(t)): k for k, t in enumerate(targets)} if targets is not None else {}
    found: list[Any] = [None] * len(wanted)

    def send(edge: Any, g: Any) -> None:
        if edge.__class__ is tuple:
            node, index = edge
            slots = pending.get(node.number)
            if slots is None:
                if node.unfolded:
                    node, index = past(edge, wanted, bool(cut), reach)
                    if not reach.get(node.number, THROUGH):
                        return
                    slots = pending.get(node.number)
                if slots is None:
                    slots = pending[node.number] = [None] * len(node.out_types)
                    heapq.heappush(heap, node)
            before = slots[index]
            slots[index] = g if before is None else before + g
        else:
            known = leaf_grads.get(id(edge))
            leaf_grads[id(edge)] = (edge, g if known is None else known[1] + g)

    def so_far(edge: Any) -> Any:
        edge = opened(edge)
        if edge.__class__ is tuple:
            slots = pending.get(edge[0].number)
            return None if slots is None else slots[edge[1]]
        return leaf_grads.get(id(edge), (edge, None))[1]

    def put(edge: Any, g: Any) -> None:
        edge = opened(edge)
        if edge.__class__ is tuple:
            pending[edge[0].number][edge[1]] = g
        else:
            leaf_grads[id(edge)] = edge, g

    executor = dispatch.state.executor
    own = getattr(executor, "plain", None)
    if own is not None:  # an executor whose work is for the way forward
        with dispatch.executing(own, dispatch.state.keeps):
            return walk(roots, root_grads, targets, create_graph, retain_graph, cut, inner, begin, aimed)
    # Hot steps are programs: they run where ops run at once, and record nothing.
    at_once = executor is dispatch._State.executor
    plain, unfolds, keeps = (
        not create_graph and at_once,
        create_graph and at_once,
        create_graph or retain_graph,
    )
    rule = fitted if at_once else getattr(executor, "rule", fitted)  # one that looks at what rules do
    last = len(wanted) if cut.__class__ is bool else cut  # none of them where it is 0, which is no False
    with dispatch.set_grad(create_graph):
        starts = [(_edge(root), g) for root, g in zip(roots, root_grads)]
        prune = targets is not None and (aimed or not inner)
        reach = look([edge for edge, _ in starts], wanted, bool(cut), {}) if prune else {}
        for target, g in zip(targets or (), begin):
            if g is not None:
                edge = target.tensor if target.__class__ is Leaf else target
                send(edge if edge.__class__ is tuple else end_of(edge), g)
        for edge, g in starts:
            if not prune or (reach[edge[0].number] if edge.__class__ is tuple else id(edge) in wanted):
                send(edge, g)
        while heap:
            node: Any = heapq.heappop(heap)
            grads = pending.pop(node.number)
            call, goes_on = False, not prune or reach[node.number] == THROUGH
            if node.is_folded:
                if (
                    (unfolds or wanted or node.hooks)
                    and at_once
                    and node.saved is not None
                    and not node.unfolded
                ):
                    here = [k for k, g in enumerate(grads) if g is not None]
                    ends = [k for k in range(len(grads)) if wanted.get((node.number, k), last) < last]
                    within = node.leads_within(here, ends)
                    if unfolds:
                        apart = (goes_on or within) and not (cut and set(here) <= set(ends))
                    else:  # a call knows by itself what its results send to each other
                        apart = not node.is_call and (
                            within or node.leads_within(here, list(node.hooks or ()))
                        )
                    if apart:
                        node.op.unfold(node)
                if node.unfolded:
                    for k, g in enumerate(grads):
                        if g is not None:
                            send((node, k), g)
                    continue
                call = node.is_call
            held = {}
            for k in node.sums:
                if (before := so_far(node.edges[k])) is not None:
                    held[k] = before
            if call:
                flags = None
                if prune:
                    flags = [leads(edge, wanted, reach) for edge in node.edges]
                here = [k for k in range(len(grads)) if (node.number, k) in wanted]
                goes_on &= node.enter(grads, here, flags, bool(cut), held, targets is None)
                if all(g is None for g in grads):
                    continue
            elif len(grads) > 1 and not goes_on:  # others lead to no target
                grads = [g if (node.number, k) in wanted else None for k, g in enumerate(grads)]
            if node.hooks:
                for k, hooks in node.in_order():
                    if (inner and wanted.get((node.number, k), last) < last) or (
                        call and k in node.walks.hooks
                    ):
                        continue
                    for hook in hooks if grads[k] is not None else ():
                        grads[k] = _hooked(hook, grads[k])
            if wanted:
                spots = [wanted.get((node.number, k)) for k in range(len(grads))]
                for spot, g in zip(spots, grads):
                    if spot is not None:
                        found[spot] = g
                if call:
                    for k, g in _tapped(node, grads, keeps).items():
                        found[wanted[node.number, k]] = g
                if cut and any(spot is not None and spot < last for spot in spots):
                    continue
            if not goes_on:
                if call and node.walks.taps and not keeps:
                    node.forget()
                continue
            if node.saved is None:
                error = node.spent(grads)
                if not keeps:
                    node.give_up()
                raise error
            step = node.step if plain else None
            try:
                if held:
                    results = node.onto(grads, held)
                    for k in held:
                        if results[k] is not None:
                            put(node.edges[k], results[k])
                            results[k] = None
                else:
                    results = None if step is None else step(node, grads)
                if results is None:
                    results = rule(node, grads, create_graph)
                    if step is not None:
                        step.done(node, grads, results)
            except AutogradError:
                if not keeps:
                    node.give_up()
                raise
            for edge, g in zip(node.edges, results):
                if g is not None and (
                    not prune or (reach[edge[0].number] if edge.__class__ is tuple else id(edge) in wanted)
                ):
                    send(edge, g)
            if not keeps:
                node.forget()
        given = {id(g) for g in root_grads}
        if targets is None or not inner:
            _run_hooks(leaf_grads, wanted if targets is not None else None)
        for leaf, g in leaf_grads.values():
            if targets is None:
                # Every leaf gets memory of its own: rules may hand out one tensor twice, or a broadcast view, which
                # the program of a hot body makes without a base.
                if id(g) in given or g._base is not None or not g.is_contiguous:
                    g = g.clone()
                given.add(id(g))
                before = executor.get_grad(leaf)
                executor.set_grad(leaf, g if before is None else before + g)
            elif (spot := wanted.get(id(leaf))) is not None:
                found[spot] = g
    return found


def _tapped(node: Any, grads: list[Any], keeps: bool) -> dict[int, Any]:
    """The gradients of a call's results that are targets, where others of its results lead to them."""
    try:
        found: dict[int, Any] = node.tapped(grads)
    except AutogradError:
        if not keeps:
            node.give_up()
        raise
    return found


def _run_hooks(leaf_grads: dict[int, Any], wanted: Container[Any] | None) -> None:
    """Run the hooks of leaves: in the order in which they were registered, which no way of computing changes."""
    leaves = [leaf for k, (leaf, _) in leaf_grads.items() if leaf._hooks and (wanted is None or k in wanted)]
    for leaf in sorted(leaves, key=lambda x: x._hooks.number):
        g = leaf_grads[id(leaf)][1]
        for hook in leaf._hooks:
            g = _hooked(hook, g)
        leaf_grads[id(leaf)] = leaf, g


def _hooked(hook: Any, g: Any) -> Any:
    result = hook(g)
    return g if result is None else result


class Leaf:
    """A target: a tensor that was a leaf when the tape began, though it may have been changed in place since."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any):
        self.tensor = tensor


def _key(t: Any) -> Any:
    if t.__class__ is Leaf:
        return id(t.tensor)
    return edge_key(t if isinstance(t, tuple) or t._node is None else (t._node, t._index))


def backward(
    root: Tensor, gradient: Any = None, create_graph: bool = False, retain_graph: bool = False
) -> None:
    """`root.backward()`: add the gradient of a scalar root to `.grad` of every leaf it depends on."""
    root = dispatch.state.executor.face(root)
    if not root._requires_grad:
        raise AutogradError(
            "backward",
            f"the tensor {root.type} does not depend on any tensor that requires a gradient",
            "set requires_grad=True on an input, and do not run under dg.no_grad() or through detach()",
        )
    if gradient is None:
        if root.dtype.is_complex:
            raise AutogradError(
                "backward", f"a gradient starts from a real number, this is {root.type}",
                "take abs(x) or x.real first, or pass gradient=",
            )  # fmt: skip
        if root.size != 1:
            raise AutogradError(
                "backward",
                f"a gradient can start from one number only, this is {root.type}",
                "reduce it first (x.sum().backward()), or pass gradient= of the same shape",
            )
        from .ops.creation import ones

        gradient = ones(root.shape, dtype=root.dtype, device=root.device)
    elif not hasattr(gradient, "shape"):
        raise ArgumentTypeError(
            "backward",
            f"gradient={gradient!r:.60} is {kind_of(gradient)}, the tensor is {root.type}",
            "give a tensor of the same shape: dg.tensor(...)",
        )
    elif tuple(gradient.shape) != root.shape:
        raise AutogradError(
            "backward",
            f"gradient has shape {list(gradient.shape)}, the tensor is {root.type}",
            "pass one of equal shape",
        )
    walk([root], [gradient], None, create_graph, retain_graph)
