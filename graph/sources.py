"""What the graphs of a trace read: its arguments, tensors that the function found, values of earlier segments."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from ..core import vjp
from ..core.types import TensorType, contiguous_strides
from .ir import Graph, Node, Value
from .symbol import Symbol

if TYPE_CHECKING:
    from .trace import Trace


class Source:
    """Where an input of a traced graph comes from at each call.

    kind: "arg" (position in the flattened arguments), "tensor" (this very tensor, lifted by reference), "grad"
    (the `.grad` of this tensor; of an argument where the key is its position), "carry" (a value of an earlier segment).
    """

    __slots__ = ("key", "kind", "symbol", "tensor")

    def __init__(self, kind: str, key: Any, tensor: Any, symbol: Symbol | None):
        self.kind, self.key, self.tensor, self.symbol = kind, key, tensor, symbol


class Sources:
    """The half of a `Trace` that knows the values of its graphs, and where each one comes from.

    graph: the current one. A value of an earlier one becomes an input where it is used.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.symbols: list[weakref.ref[Symbol]] = []
        self.sources: list[Source] = []
        self.lifted: dict[int, tuple[Any, Symbol]] = {}  # id of an eager tensor -> it and its symbol
        self.given = sys.maxsize  # how many of the arguments are the call's; others are state
        self.met: dict[int, Any] = {}  # arguments that the function also found by itself, by position
        self.roots: dict[int, Any] = {}  # id of a symbol's storage -> the eager tensor it stands for
        #: id of an eager tensor's storage -> the tensors and gradients from outside that have it, and their symbols
        self.sharing: dict[int, list[tuple[Any, Symbol]]] = {}
        self.founds: dict[int, Any] = {}  # as `roots`, with gradients
        self.asked: dict[int, Any] = {}  # tensors from outside whose `requires_grad` the function changes
        self.meet: Callable[[Any], None] | None = None  # told of tensors from outside that have hooks
        self.sizes: dict[int, dict[int, Any]] = {}  # by ids of tensors: axes whose sizes are live
        self.depth = 0
        self.layouts: dict[Value, Any] = {}
        self.inputs: dict[int, Value] = {}  # id of a lifted symbol -> its value when the call began
        self._origin: dict[Value, Source] = {}  # inputs that every graph of the trace can read
        self._serial: dict[Value, int] = {}  # computed values, in the order of the program
        self._local: dict[Value, Value] = {}
        self._real: dict[Value, Value] = {}  # what values of later graphs stand for in these
        self._known: set[Value] = set()
        #: results of view ops that are copies, as in eager mode: strides cannot say what they hold
        self.copied: set[Value] = set()
        #: arrays of which the function made tensors that share their memory, and what they held then
        self.memories: list[tuple[Any, Any, bytes]] = []
        #: how many values ended segments made, and which of them were carried on
        self._ended, self._carried = 0, frozenset[int]()

    def find_sizes(self, now: Any, tensors: Any) -> list[tuple[Any, Any]]:
        """Note which sizes of tensors are live. tensors: the arguments, by which places are known once traced. Returns:
        each of those with live sizes, and its layout with these, as the function is to see it."""
        program = now.program
        found: dict[int, Any] = {}
        for n, size in enumerate(program.sizes, program.leaves - len(program.sizes)):
            for place, axis in size.places:
                tensor = tensors[place] if place.__class__ is int else place
                self.sizes.setdefault(id(tensor), {})[axis] = now.leaf(n)
                found[id(tensor)] = tensor
        return [(t, self._layout(t)) for t in found.values()]

    def _layout(self, tensor: Any) -> Any:
        before, sizes = tensor._layout, self.sizes[id(tensor)]
        shape = tuple([sizes.get(a, n) for a, n in enumerate(before.shape)])
        return type(before)(before.dtype, shape, contiguous_strides(shape), before.device)

    def argument(self, position: int, tensor: Any) -> Symbol:
        """An argument of the call as a symbol."""
        found = self.lifted.get(id(tensor))
        return found[1] if found is not None else self._input(Source("arg", position, None, None), tensor)

    def _input(self, source: Source, tensor: Any) -> Symbol:
        kind, strides = tensor.type, tensor.strides
        sizes = self.sizes.get(id(tensor))
        if sizes is not None:
            kind = TensorType(kind.dtype, tuple([sizes.get(a, n) for a, n in enumerate(kind.shape)]))
            strides = contiguous_strides(kind.shape)
        value = self.graph.add_input(kind, tensor.device, strides)
        self.layouts[value] = strides
        self._known.add(value)
        symbol = Symbol(value, cast("Trace", self), None, strides)
        symbol._requires_grad = tensor._requires_grad
        hooks = tensor._hooks
        # A copy: later ones are of the tensor alone.
        symbol._hooks = vjp.Hooks(hooks, hooks.number) if hooks else None
        if hooks and self.meet is not None:
            self.meet(tensor)
        source.symbol = symbol
        self.sources.append(source)
        self._origin[value] = source
        self.inputs[id(symbol)] = value
        if source.kind != "grad":
            self.lifted[id(tensor)] = tensor, symbol
            self.roots[id(symbol._storage)] = tensor
        self._share(tensor, symbol)
        return symbol

    def _share(self, tensor: Any, symbol: Symbol) -> None:
        """A tensor from outside is known from here on, and which others have its memory."""
        self.founds[id(symbol._storage)] = tensor
        self.sharing.setdefault(id(tensor._storage), []).append((tensor, symbol))

    def note_memory(self, array: Any, tensor: Any) -> None:
        """The function makes a tensor that shares the memory of an array."""
        self.memories.append((array, tensor, array.tobytes()))

    def lift(self, tensor: Any) -> Symbol:
        """A tensor that the function found by itself (closure, global, module), as an input by reference."""
        found = self.lifted.get(id(tensor))
        if found is None:
            return self._input(Source("tensor", None, tensor, None), tensor)
        source = self._origin[self.inputs[id(found[1])]]
        if source.kind == "arg" and source.key < self.given:
            self.met[source.key] = tensor
        return found[1]

    def _use(self, value: Value) -> Value:
        """A value as the current graph knows it: values of earlier segments become inputs."""
        if value in self._known:
            return value
        local = self._local.get(value)
        if local is None:
            base = self._base_of(value)
            if base is None:
                source = self._origin.get(value) or Source("carry", self._serial[value], None, None)
                local = self.graph.add_input(value.type, value.device, self.layouts.get(value))
                self.sources.append(source)
            else:
                made: Any = value.producer
                node = Node(made.op, [self._use(base)], made.attrs, (value.type,), value.device, made.where)
                node.again = made.again
                self.graph.nodes.append(node)
                local = node.outputs[0]
            self._local[value], self._real[local] = local, value
            self._known.add(local)
        return local

    def _base_of(self, value: Value) -> Value | None:
        """What a value is a view of, where it does not lie in memory as a result of its own would; a later graph has to
        see it as it lies, since the sums of products with a vector go by that."""
        node = value.producer
        if node is None or not node.op.is_view or value in self.copied:
            return None
        lies = self._strides(value)
        return (
            None
            if lies == contiguous_strides(value.type.shape)
            else self._real.get(node.inputs[0], node.inputs[0])
        )

    def _strides(self, value: Value) -> Any:
        node: Any = value.producer
        if node is None or not node.op.is_view or value in self.copied:
            return self.layouts.get(value) or contiguous_strides(value.type.shape)
        base = self._real.get(node.inputs[0], node.inputs[0])
        return node.op.view_rule(base.type.shape, self._strides(base), **node.named)[1]

    def _whole(self, value: Value) -> Value:
        base = self._base_of(value)
        return value if base is None else self._whole(base)

    def is_in_reach(self, value: Value) -> bool:
        """Whether a graph can still read a value: what a segment made and nothing held at its end is gone."""
        value = self._whole(value)
        serial = self._serial.get(value)
        if serial is None:
            return value in self._origin
        return serial >= self._ended or serial in self._carried

    def is_argument(self, face: Symbol) -> bool:
        """Whether a symbol stands for an argument of the call."""
        value = self.inputs.get(id(face))
        return value is not None and self._origin[value].kind == "arg"

    def position(self, face: Symbol) -> int | None:
        """Which argument of the call a symbol stands for; None for anything else."""
        value = self.inputs.get(id(face))
        source = None if value is None else self._origin[value]
        return source.key if source is not None and source.kind == "arg" and source.key < self.given else None

    def leaves_of_tape(self) -> list[tuple[Any, Symbol]]:
        """The tensors from outside that may stand at the end of the tape: those that ask for a gradient when the call
        begins, or for a while."""
        return [(t, s) for t, s in self.lifted.values() if t._requires_grad or id(t) in self.asked]

    def original(self, face: Symbol) -> Any:
        """The eager tensor that a symbol stands for; None for a view or alias of one and for what is computed."""
        tensor = self.roots.get(id(face._storage))
        return tensor if tensor is not None and self.lifted[id(tensor)][1] is face else None

    def live(self) -> list[Value]:
        """Values computed in the current graph that Python or the tape can still reach, in program order."""
        symbols = [x for r in self.symbols if (x := r()) is not None]
        reachable = {x._value for x in symbols}
        reachable |= {x._storage.value for x in symbols if x._storage.value is not None}
        here = {v for node in self.graph.nodes for v in node.outputs}
        return sorted({*map(self._whole, reachable)} & here, key=self._serial.__getitem__)

    def next_segment(self, carried: Iterable[int]) -> None:
        """Go on in a new graph after a read. carried: what segments have kept so far for later ones, by number."""
        self.next_graph(self.graph.name)
        self._ended, self._carried = len(self._serial), frozenset(carried)

    def next_graph(self, name: str) -> None:
        """Close the current graph and go on in a new one; what it needs of the old becomes carried."""
        self.graph = Graph(name, self.graph.fast)
        self.sources = []
        self._local, self._known = {}, set()
        self.depth += 1
