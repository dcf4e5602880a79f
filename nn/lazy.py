"""Layers that learn the size of their input at the first call: LazyLinear, LazyConv2d, LazyBatchNorm1d, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from ..core import dispatch
from ..core.attended import is_eager
from ..core.errors import ArgumentError, ArgumentTypeError, ShapeError
from ..core.random import default_generator
from ..core.storage import writes
from ..core.strangers import kind_of
from ..core.value import Tensor
from . import convolution, normalization
from .layers import Linear
from .module import Module, Parameter

_host: Any = dispatch._State.executor


def _last(ndim: int) -> int:
    return -1


def _second(ndim: int) -> int:
    return 1


def _channels(rank: int) -> Callable[[int], int]:
    return lambda ndim: -1 - rank


def _refuse(*_: Any) -> NoReturn:
    raise ArgumentError(
        "lazy",
        "a tensor of a lazy layer has no shape before the layer's first call",
        "call the model once on a batch, then make the optimizer, load or save its state",
    )


class _Unknown(_host.layout_class):  # type: ignore[misc]
    """The layout of a tensor whose shape is not known yet: who asks for it gets an error."""

    __slots__ = ()

    shape = type = property(_refuse)  # type: ignore[assignment]

    def __init__(self, dtype: Any, device: str):
        for name, value in (("dtype", dtype), ("device", device), ("strides", ()), ("contiguous", True)):
            setattr(self, name, value)


class _Sizeless:
    """What stands for a tensor whose shape is not known yet."""

    __slots__ = ()

    detach = _refuse

    def _convert(self: Any, *targets: Any) -> None:
        """Have another dtype, or be on another device."""
        made: Any = _host.constant(np.zeros(0, np.float32), "cpu")
        for target in targets:
            made = made.to(target)
        self._layout, self._storage = _Unknown(made.dtype, made.device), made._storage

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        memo[id(self)] = made = type(self)(self)
        made.requires_grad_(bool(self.requires_grad))
        return made


class UninitializedParameter(_Sizeless, Parameter):
    """A parameter of a lazy layer before the layer's first call, which makes it a Parameter: the same object.

    like: its dtype and device.
    """

    __slots__ = ()

    def __init__(self, like: Any):
        super().__init__(_host.constant(np.zeros(0, np.float32), "cpu"))
        self._convert(like.dtype, like.device)


class UninitializedBuffer(_Sizeless, _host.tensor_class):  # type: ignore[misc]
    """A buffer of a lazy layer before the layer's first call. like: its dtype and device."""

    __slots__ = ()

    def __init__(self, like: Any):
        empty = _host.constant(np.zeros(0, np.float32), "cpu")
        super().__init__(empty._layout, empty._storage, 0)
        self._convert(like.dtype, like.device)


class Lazy(Module):
    """Base of lazy layers. kind: the layer that it becomes; size: of which argument; axis: where the input has it."""

    kind: type[Module]
    size: str
    axis: Callable[[int], int]
    #: settings that its lazy form has from the start, by position
    switched: Mapping[str, int] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs = {**{name: True for name, k in self.switched.items() if k >= len(args)}, **kwargs}
        seed = default_generator.get_state()
        model = self.kind(kwargs.get("groups", 1), *args, **kwargs)
        default_generator.set_state(seed)  # numbers are drawn at the first call
        for name, x in model.__dict__.items():
            if isinstance(x, Parameter):
                x = UninitializedParameter(x)
            elif isinstance(x, Tensor) and x.ndim:
                x = UninitializedBuffer(x)
            self.__dict__[name] = x
        self.__dict__[self.size] = 0
        self.__dict__["_given"] = args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()), None)
        name = type(self).__name__
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(name, f"takes a tensor, got {kind_of(x)}", "pass a tensor")
        at = type(self).axis(x.ndim)
        if not -x.ndim <= at < x.ndim:
            raise ShapeError(
                name, f"{x.type} has no axis {at}, whose size it learns", "pass a batch of inputs"
            )
        if not is_eager():
            dispatch.outside(f"gives a {name} its sizes", "call it once outside before", once=True)
        with dispatch.executing(_host):
            self._become(x.shape[at])
        return self(*args, **kwargs)

    def _become(self, size: int) -> None:
        """Be the layer for inputs of this size."""
        args, kwargs = self.__dict__.pop("_given")
        model = self.kind(size, *args, **kwargs)
        for name, made in model.__dict__.items():
            own = self.__dict__.get(name)
            if isinstance(own, _Sizeless):
                _fill(own, made)
            elif not isinstance(made, Tensor) and name not in ("training", "_hooks"):
                self.__dict__[name] = made
        self.__class__ = self.kind  # type: ignore[assignment]


def _fill(x: Any, made: Any) -> None:
    """Give a tensor without a shape the memory of another one, in its dtype and on its device."""
    with dispatch.set_grad(False):
        made = made.detach().to(x._layout.dtype).to(x._layout.device)
    x._layout, x._storage, x._offset = made._layout, made._storage, made._offset
    x.__class__ = Parameter if isinstance(x, UninitializedParameter) else _host.tensor_class
    writes.moved = object()


_TEXT = """{kind} whose {size} is learnt from the first input.

Takes the arguments of {kind} but for the first. Its parameters have no shape before the first call, which makes it a
{kind}, under the same names and with the same objects: call it once before the optimizer is made or a state is loaded.
In graph mode the first call of a function that holds it runs as in eager mode.
Example: {example}.
"""


def _lazy(kind: type[Module], size: str, axis: Callable[[int], int], given: str, rank: int) -> type[Lazy]:
    """The lazy form of a layer. given: arguments of an example; rank: axes of its input after the channels."""
    name, axes = kind.__name__, (4,) * rank
    before, after = ((2, 3, *axes), (2, 2 if given else 3, *axes))
    example = f"`dg.nn.Lazy{name}({given})(dg.ones({before})).shape` is `{after}`"
    text = _TEXT.format(kind=name, size=size, example=example)
    body = {"__doc__": text, "__module__": __name__, "kind": kind, "size": size, "axis": staticmethod(axis)}
    if name.startswith("Instance"):  # as PyTorch's
        body["switched"] = {"affine": 2, "track_running_stats": 3}
    return type(f"Lazy{name}", (Lazy,), body)


_made = [_lazy(Linear, "in_features", _last, "2", 0)]
for _n in (1, 2, 3):
    for _stem, _size, _axis, _given, _home in (
        ("Conv", "in_channels", _channels(_n), "2, 1", convolution),
        ("ConvTranspose", "in_channels", _channels(_n), "2, 1", convolution),
        ("BatchNorm", "num_features", _second, "", normalization),
        ("InstanceNorm", "num_features", _channels(_n), "", normalization),
    ):
        _made.append(_lazy(getattr(_home, f"{_stem}{_n}d"), _size, _axis, _given, _n))
globals().update({cls.__name__: cls for cls in _made})

__all__ = [cls.__name__ for cls in _made]
