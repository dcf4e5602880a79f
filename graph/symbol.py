"""The symbolic face of a tensor: a value of the graph under construction."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core import dispatch
from ..core.errors import TraceError, user_line, user_place
from ..core.types import DType, Shape, TensorType, contiguous_strides
from ..core.value import Tensor
from . import rest
from .ir import Value

if TYPE_CHECKING:
    from .trace import Trace


class SymbolStorage:
    """What views of one symbolic tensor share: the version counter, as eager storages have it.

    value: the whole memory's value since it was last written; None before.
    """

    __slots__ = ("changed", "tape_version", "value", "version")

    def __init__(self) -> None:
        self.version = self.tape_version = 0
        self.changed: Any = None
        self.value: Value | None = None


class Symbol(Tensor):
    """A tensor inside a trace. Its value in the graph changes when it is written in place.

    strides: those of the eager tensor that it stands for, on which it depends what is a view and what a copy.
    _detached: an alias without history, which changes of the memory do not give it either.
    """

    __slots__ = ("_detached", "_fresh", "_storage", "_trace", "_value", "strides")

    def __init__(
        self, value: Value, trace: Trace, storage: SymbolStorage | None = None, strides: Shape | None = None
    ):
        self._value = value
        self.strides: Shape = contiguous_strides(value.type.shape) if strides is None else strides
        self._detached = False
        self._trace = weakref.ref(trace)
        self._storage = storage or SymbolStorage()
        self._fresh = self._storage.version
        self._begin()
        trace.symbols.append(weakref.ref(self))

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        return self._value.type.shape

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self._value.type.dtype

    @property
    def type(self) -> TensorType:  # type: ignore[override]
        return self._value.type

    @property
    def device(self) -> str:  # type: ignore[override]
        return self._value.device

    def _get_version(self) -> int:
        return self._storage.version

    def _changed_place(self) -> Any:
        return self._storage.changed

    def _bump(self) -> None:
        self._storage.version += 1
        self._storage.changed = user_place(2)

    def _alias(self) -> Symbol:
        trace = self._trace()
        if trace is None:
            self._leaked("alias")
        assert trace is not None
        new = Symbol(self._value, trace, self._storage, self.strides)
        new._base, new._view, new._fresh, new._detached = self._base, self._view, self._fresh, True
        return new

    def detach(self) -> Symbol:
        """The same tensor without history."""
        return dispatch.state.executor.face(self)._alias()  # type: ignore[return-value]

    def _original(self) -> Any:
        """The eager tensor that it stands for, or None, and the trace."""
        trace = self._trace()
        return trace, None if trace is None else trace.original(self)

    def _is_leaf(self) -> bool:
        trace, tensor = self._original()
        if tensor is None or self._node is not None:
            return self._node is None
        trace.leaves[id(tensor)] = tensor
        return tensor._node is None

    def _retains(self) -> bool:
        trace, tensor = self._original()
        if tensor is not None and self._node is None and not self._is_leaf():
            position = trace.position(self)
            if position is not None:
                trace.only = lambda tensors, _: tensors[position]._node is not None
            trace.leave(
                f"asks for retains_grad of {self.type}, which was there before the call",
                "ask outside",
            )
        return super()._retains()

    def _whole(self) -> Any:
        """What it is a view of, outside of the trace too."""
        trace, tensor = self._original()
        if tensor is None or self._base is not None:
            return self._base
        trace.leaves[id(tensor)] = tensor
        found = trace.lifted.get(id(tensor._base))
        return tensor._base if found is None else found[1]

    def meet(self, other: Tensor) -> None:
        """The function asks whether this is `other`, a tensor from outside: a later call may have another answer."""
        trace, tensor = self._original()
        if tensor is None or not trace.is_argument(self):
            if tensor is other:
                trace.leave(
                    f"asks whether {self.type}, which it has changed, is a tensor from outside, which it is",
                    "ask before the change",
                )
            return
        if tensor is other:
            trace.only = lambda tensors, containers: any(t is other for t in tensors)
            trace.leave(
                f"asks whether an argument {self.type} is a tensor from outside, which it is",
                "pass it, or read it, but not both",
            )
        trace.apart.append(other)

    def _known(self) -> Tensor:
        _, tensor = self._original()
        return self if tensor is None else tensor  # type: ignore[no-any-return]

    def _ask(self, value: bool) -> None:
        trace, tensor = self._original()
        if tensor is not None:
            if trace.overrides is None:
                trace.leave(
                    f"changes requires_grad of {self.type}, which was there before the call",
                    "do it outside, or work on x.detach().requires_grad_()",
                )
            trace.asked[id(tensor)] = tensor
        super()._ask(value)

    def _own_hooks(self) -> list[Any]:
        trace, tensor = self._original()
        if tensor is not None:
            if trace.overrides is None:
                trace.leave(f"registers a hook on a leaf {self.type}", "register it outside, once")
            trace.leaves[id(tensor)] = tensor
            trace.hooks_on.setdefault(id(tensor), (tensor, self, f"{self.type}, at {user_line()}"))
        elif trace is not None:
            trace.hooked.append(self)
        return super()._own_hooks()

    def backward(
        self, gradient: Tensor | None = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """As in eager mode; the walk becomes part of the graph."""
        rest.backward(
            self._trace(), self, lambda: super(Symbol, self).backward(gradient, retain_graph, create_graph)
        )

    def numpy(self) -> Any:
        """The value: ends the segment of the trace here and runs it."""
        return dispatch.state.executor.read(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import_array = dispatch.state.executor.read(self)
        return import_array if dtype is None else import_array.astype(dtype)

    def __repr__(self) -> str:
        return self._shown(repr)

    def _text(self) -> str:
        return self._shown(lambda x: x._text())

    def _shown(self, show: Callable[[Any], str]) -> str:
        """What eager mode prints: ends the segment of the trace."""
        trace, tensor = self._original()
        traced: Any = dispatch.state.executor
        if trace is None or trace.done or trace.overrides is None or traced is not trace:
            return f"symbol({self.type})"
        shown = traced.host.constant(traced.read(self).copy(), self.device)
        with dispatch.executing(traced.host):
            if tensor is not None:
                shown = tensor._like(shown)
            shown._requires_grad, shown._node = self._requires_grad, self._node
            return show(shown)

    def __hash__(self) -> int:
        trace, tensor = self._original()
        if tensor is not None and not trace.done and trace.is_argument(self):
            trace.leave(
                f"has an argument {self.type} as the key of a dict or in a set",
                "use a name or a number as the key",
            )
        return id(self)

    __eq__ = Tensor.__eq__

    def _leaked(self, op: str) -> None:
        trace = self._trace()
        if trace is not None and trace.outermost.aside is not None:
            trace.leave(
                "finds a tensor of its call in a function whose results are cached", "pass it as an argument"
            )
        raise TraceError(
            op,
            f"a tensor {self.type} of a traced function was used after its trace ended",
            "return it from the function instead of keeping it in a list, a global or an attribute",
        )

    def __deepcopy__(self, memo: Any) -> Any:
        trace, tensor = self._original()
        plain = tensor is None or tensor.__class__ is trace.host.tensor_class
        if trace is not None and not trace.done and (self._requires_grad or not plain):
            trace.leave(
                f"copies a leaf or parameter {self.type}",
                "use x.detach().clone(), or copy it outside",
            )
        return self.clone()

    def __copy__(self) -> Any:
        return self.__deepcopy__({})

    def __reduce_ex__(self, protocol: Any) -> Any:
        trace = self._trace()
        if trace is None or trace.done:
            self._leaked("pickle")
        assert trace is not None
        trace.leave(f"pickles {self.type}", "do it outside")
