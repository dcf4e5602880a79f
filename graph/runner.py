"""A compiled graph with its calls: which addresses go where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..core import dispatch
from ..core.backend import get_backend, scalar_bits
from ..core.errors import OutOfMemoryError, said_at
from ..core.storage import writes
from .arena import Need
from .compile import Compiled
from .growing import forget_compiled, forget_sizes
from .ir import Graph
from .layout import Seen
from .live import LIVE, is_size
from .prepared import Now, Prepared
from .sources import Source


class Runner:
    """A compiled graph with its call: which addresses go where, and an arena for each call at a time."""

    def __init__(self, compiled: Compiled, device: str, sources: list[Source], traced: Graph | None = None):
        self.compiled, self.device = compiled, device
        self.sources, self.traced = sources, traced
        self.times: dict[int, float] = {}  # seconds by group, once they were measured
        # A function that only hands its arguments on has nothing to run.
        self._execute = compiled.executable.run if compiled.program.launches else lambda dynamic: None
        self._backend = get_backend(device)
        self._empty = self._backend.empty
        host = dispatch._State.executor
        self._tensor = host.tensor_class  # type: ignore[attr-defined]
        layout = host.layout  # type: ignore[attr-defined]
        self._sized = [_sizes_of(t) for t in compiled.outputs]
        if any(is_size(n) for t in compiled.outputs for n in t.shape):
            self._outputs: list[Any] = []
        else:
            self._outputs = [
                (layout(t.dtype, t.shape, None, device), max(1, t.nbytes)) for t in compiled.outputs
            ]
        self._layout = layout
        seen = compiled.graph.seen
        self._seen = None if seen is None else as_views(seen, layout, device)
        self._numbers = compiled.numbers
        self._moved = compiled.moved
        self._tail = list(compiled.constants)
        self._arena = Need(device, compiled.arena_bytes) if compiled.arena_bytes else None
        self.prepared = (
            Prepared(compiled.prepared, [s.tensor for s in sources], device) if compiled.prepared else None
        )
        n = len(sources)
        self._template: list[int] = [0] * n
        self._varying: list[tuple[int, Source]] = []
        self.lifted: list[Any] = []
        for k, source in enumerate(sources):
            if source.kind == "tensor":
                t = source.tensor
                self._template[k] = t._storage.ptr + t._offset
                self.lifted.append(t)
            else:
                self._varying.append((k, source))
        self._args = [(k, s.key) for k, s in self._varying if s.kind == "arg"]
        grads = [(k, s) for k, s in self._varying if s.kind == "grad"]
        self._grads = [(k, s.tensor) for k, s in grads if s.key is None]
        self._arg_grads = [(k, s.key) for k, s in grads if s.key is not None]
        layouts = [compiled.graph.strides.get(v) for v in compiled.graph.inputs]  # None: dense
        self._others = [(k, s, layouts[k]) for k, s in self._varying if s.kind in ("carry", "cotangent")]

    def forget_sizes(self) -> None:
        """Once compiled for any: see `growing.forget_sizes`."""
        if self.traced is not None:
            forget_sizes(self.traced)
        self.compiled = forget_compiled(self.compiled)

    def inputs(self, tensors: list[Any], carried: dict[Any, Any]) -> list[Any]:
        """The tensors that the graph's inputs stand for in a call."""
        pick = {
            "arg": lambda s: tensors[s.key],
            "tensor": lambda s: s.tensor,
            "grad": lambda s: (s.tensor if s.key is None else tensors[s.key])._grad,
        }
        return [pick[s.kind](s) if s.kind in pick else carried[s.key] for s in self.sources]

    def read_numbers(self, carried: dict[Any, Any] | None = None) -> list[int]:
        """The bits of learning rates, random offsets and the like as they are now, and of the call's live numbers."""
        live = carried.get(LIVE) if carried else None
        return [scalar_bits(number.at(live), dtype) for number, dtype in self._numbers]

    def __call__(
        self, tensors: list[Any], carried: dict[Any, Any] | None = None, numbers: list[int] | None = None
    ) -> list[Any]:
        """Run on the call's tensors (and values carried from earlier graphs); returns the output tensors.

        numbers: what `read_numbers` gave at an earlier time, instead of what it gives now.
        """
        dynamic = self._template[:]
        for k, position in self._args:
            x = tensors[position]
            dynamic[k] = x._storage.ptr + x._offset
        for k, owner in self._grads:
            x = owner._grad
            dynamic[k] = x._storage.ptr + x._offset
        for k, position in self._arg_grads:
            x = tensors[position]._grad
            dynamic[k] = x._storage.ptr + x._offset
        held = []
        for k, source, strides in self._others:
            x = carried[source.key]  # type: ignore[index]
            if not x._layout.contiguous and x.strides != strides:
                x = x.clone()
                held.append(x)
            dynamic[k] = x._storage.ptr + x._offset
        if numbers is None and self._numbers:
            numbers = self.read_numbers(carried)
        made = self._go(dynamic, numbers, live=carried.get(LIVE) if carried else None)
        return made if self._seen is None else self._handed(made, carried)

    def _handed(self, made: list[Any], carried: Any) -> list[Any]:
        """The results, where these are not the outputs."""
        results = []
        for given, k, lay, offset in self._seen or ():
            x = carried[self.sources[k].key] if given else made[k]
            results.append(x if lay is None else self._tensor(lay, x._storage, x._offset + offset))
        return results

    def on(self, inputs: Sequence[Any]) -> list[Any]:
        """Run on these tensors, one for each input of the graph."""
        graph = self.compiled.graph
        held = []
        for value, x in zip(graph.inputs, inputs):
            fits = x._layout.contiguous if value not in graph.strides else x.strides == graph.strides[value]
            held.append(x if fits else x.clone())
        addresses = [x._storage.ptr + x._offset for x in held]
        return self._go(addresses, None, None if self.prepared is None else self.prepared.of(addresses))

    def _go(
        self, dynamic: list[int], numbers: list[int] | None = None, now: Now | None = None, live: Any = None
    ) -> list[Any]:
        """Run on the addresses of the inputs; numbers as in a call; now: what is prepared for other inputs; live: the
        values of the call's live numbers."""
        outputs = []
        empty, make = self._empty, self._tensor
        try:
            for lay, nbytes in self._outputs or [self._output(d, row, live) for d, row in self._sized]:
                storage = empty(nbytes)
                dynamic.append(storage.ptr)
                outputs.append(make(lay, storage))
        except OutOfMemoryError as error:
            node = self.compiled.graph.outputs[len(outputs)].producer
            line = None if node is None else node.line or None
            raise OutOfMemoryError(self.made_by(len(outputs)), error.message, error.fix, line) from None
        if self._numbers:
            dynamic += self.read_numbers() if numbers is None else numbers
        dynamic += self._tail
        prepared = self.prepared
        if prepared is not None and now is None:
            now = prepared.now
            if now[0] is not writes.last:
                now = prepared.renew()
        if self._arena is not None:
            arena = self._arena.take()
            dynamic.append(arena.ptr)
        if now is not None:
            dynamic += now[1]
        if self._moved:
            dynamic += [dynamic[k] + offset.at(live) for k, offset in self._moved]
        self._execute(dynamic)
        if self._arena is not None:
            self._arena.give(arena)
        return outputs

    def made_by(self, k: int) -> str:
        """The op that makes an output, by the name that the user called."""
        node = self.compiled.graph.outputs[k].producer
        if node is None:
            return "memory"
        return node.op.name if isinstance(node.where, str) else said_at(node.where, node.op.name)

    def _output(self, dtype: Any, row: Any, live: Any) -> tuple[Any, int]:
        """The layout of an output and its bytes, in a call with these live numbers."""
        shape = tuple([n if n.__class__ is int else n.at(live) for n in row])
        lay = self._layout(dtype, shape, None, self.device)
        return lay, max(1, math.prod(shape) * dtype.itemsize)


def as_views(seen: Sequence[Seen], layout: Any, device: str) -> tuple[Any, ...]:
    """For each result whether it is an input, its number or an output's, the layout of a view, and the view's first
    byte."""
    return tuple(
        (
            s.given,
            s.number,
            None if s.strides is None else layout(s.type.dtype, s.type.shape, s.strides, device),
            s.offset * s.type.dtype.itemsize,
        )
        for s in seen
    )


def _sizes_of(t: Any) -> tuple[Any, list[Any]]:
    """Dtype and sizes of an output."""
    return t.dtype, [n._formula() if is_size(n) else n for n in t.shape]
