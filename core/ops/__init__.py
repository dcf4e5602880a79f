"""All ops, one file per family; and the methods and operators of tensors, from one table."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from ..dispatch import apply, apply_in_place, state
from ..errors import ArgumentTypeError
from ..foreign import point_elsewhere
from ..op import PUBLIC, REGISTRY, Op
from ..spoken import spelled
from ..value import Tensor

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

from .. import naming  # noqa: E402  (after every family)
from . import activation, creation, elementwise, indexing, linalg, reduction, shape, shaping  # noqa: E402

_NUMBERS = (int, float, bool, complex)


def _forward(op: Op) -> Any:
    """An op of one or two inputs as an operator: what Op.__call__ does, two Python calls shorter."""
    if not op._simple or op.normalize_rule is not None or op.n_inputs > 2:
        raise TypeError(f"{op.name} needs more than its inputs")
    defaults = op.defaults

    def of_one(self: Tensor) -> Any:
        return apply(op, (self,), defaults)

    def of_two(self: Tensor, other: Any) -> Any:
        return apply(op, (self, other), defaults)

    return of_one if op.n_inputs == 1 else of_two


def _binary(name: str, op: Op) -> None:
    defaults = op.defaults

    def backward(self: Tensor, other: Any) -> Any:
        return apply(op, (other, self), defaults)

    def in_place(self: Tensor, other: Any) -> Any:
        return apply_in_place(op, self, (self, other), defaults)

    for prefix, fn in (("", _forward(op)), ("r", backward), ("i", in_place)):
        fn.__name__ = f"__{prefix}{name}__"
        setattr(Tensor, fn.__name__, fn)


for _name, _op in {
    "add": elementwise.add, "sub": elementwise.subtract, "mul": elementwise.multiply,
    "truediv": elementwise.divide, "floordiv": elementwise.floor_divide, "mod": elementwise.remainder,
    "matmul": linalg.matmul, "and": elementwise.bitwise_and, "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor, "lshift": elementwise.bitwise_left_shift,
    "rshift": elementwise.bitwise_right_shift,
}.items():  # fmt: skip
    _binary(_name, _op)


def _power(self: Tensor, other: Any) -> Any:
    # A square is by far the most common power, and exact.
    return (
        elementwise.square(self)
        if isinstance(other, (int, float)) and other == 2
        else elementwise.power(self, other)
    )


def _power_in_place(self: Tensor, other: Any) -> Any:
    return apply_in_place(elementwise.power, self, (self, other), elementwise.power.defaults)


def _get(self: Tensor, index: Any) -> Any:
    return indexing.getitem(self, index)


def _set(self: Tensor, index: Any, value: Any) -> None:
    indexing.setitem(self, index, value)


def _matrix_t(self: Tensor) -> Any:
    if self.ndim < 2:
        raise ArgumentTypeError("mT", f"needs two axes or more, this is {self.type}", "use reshape")
    return shape.transpose(self)


def _t(self: Tensor) -> Any:
    if self.ndim != 2:
        raise ArgumentTypeError("T", f"is for matrices, this is {self.type}", "use mT or permute")
    return shape.transpose(self)


def _in_place(op: Op) -> Any:
    def method(self: Tensor, *args: Any) -> Any:
        inputs, attrs = op.bind((self, *args), {})
        return apply_in_place(op, self, inputs, attrs)

    return method


def _copy_(self: Tensor, source: Any) -> Any:
    """Copy another tensor's values (broadcast, converted) into this one. What it was has a gradient of 0 after that."""
    if not isinstance(source, Tensor):
        source = creation.full(self.shape, source, self.dtype, self.device)
    if source.shape != self.shape:
        source = shape.broadcast_to(source, shape=self.shape)
    source = source.to(self.dtype)
    whole = self._base is None or self.size == self._base.size
    if whole and self.requires_grad and not self.is_leaf and state.grad:
        return apply_in_place(elementwise.overwrite, self, (self, source), ())
    return apply_in_place(elementwise.assign, self, (source,), ())


METHODS: dict[str, Any] = {
    **{
        name: REGISTRY[name]
        for name in (
            "sum prod max min any all argmax argmin mean var std logsumexp abs sign square sqrt rsqrt exp expm1 log "
            "log1p sin cos tanh sigmoid erf floor ceil round trunc softmax log_softmax relu matmul "
            "mm bmm mv dot inner outer addmm addmv baddbmm trace"
        ).split()
    },
    **{
        name: REGISTRY[name]
        for name in (
            "log2 log10 exp2 tan asin acos atan sinh cosh frac reciprocal isnan isinf isfinite maximum minimum lerp "
            "lgamma digamma erfinv"
        ).split()
    },
    **{
        name: PUBLIC.get(name) or REGISTRY[name]
        for name in (
            "count_nonzero nonzero argwhere masked_select cumsum cumprod logcumsumexp cummax cummin sort argsort topk "
            "kthvalue msort unique unique_consecutive median nanmedian quantile nanquantile nansum nanmean amax "
            "amin aminmax ptp diff histc bincount cov corrcoef norm"
        ).split()
    },
    "mode": PUBLIC["most_frequent"], "conj": REGISTRY["conj"], "angle": REGISTRY["angle"],
    "__pow__": _power, "__ipow__": _power_in_place, "__rpow__": lambda self, other: elementwise.power(other, self),
    "__neg__": elementwise.negative, "__abs__": elementwise.abs_, "__pos__": lambda self: self,
    "__invert__": elementwise.bitwise_invert, "clip": elementwise.clip_, "clamp": elementwise.clip_,
    "__eq__": elementwise.equal, "__ne__": elementwise.not_equal, "__lt__": elementwise.less,
    "__le__": elementwise.less_equal, "__gt__": elementwise.greater, "__ge__": elementwise.greater_equal,
    "__getitem__": _get, "__setitem__": _set,
    "astype": Tensor.to, **shaping.METHODS,
    "clone": elementwise.assign, "mul_": _in_place(elementwise.multiply), "div_": _in_place(elementwise.divide),
    "copy_": _copy_, "zero_": lambda self: _copy_(self, 0), "fill_": _copy_,
}  # fmt: skip


def _method(name: str, fn: Any) -> Any:
    if not isinstance(fn, Op):
        return fn

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return fn(self, *args, **kwargs)

    if name.startswith("__"):
        method = _forward(fn)
    method.__name__, method.__doc__ = fn.name, fn.__doc__
    method.__wrapped__ = fn  # type: ignore[attr-defined]  # its signature is the op's
    return method


METHODS |= naming.METHODS
for _name, _fn in METHODS.items():
    setattr(Tensor, _name, _method(_name, _fn))
for _name, _fn in list(vars(Tensor).items()):
    if not _name.startswith("_"):
        setattr(Tensor, _name, spelled(_fn, _name))
Tensor.real = property(lambda self: REGISTRY["real"](self))  # type: ignore[attr-defined]
Tensor.imag = property(lambda self: REGISTRY["imag"](self))  # type: ignore[attr-defined]
for _name, (_read, _write) in naming.FACTS.items():
    setattr(Tensor, _name, property(_read, _write, doc=_read.__doc__))
Tensor.T = property(_t)  # type: ignore[attr-defined]
Tensor.mT = property(_matrix_t)  # type: ignore[attr-defined]
_of_tensors = {**PUBLIC, **{name: op for name, op in REGISTRY.items() if not op.internal}}
_makers = {creation.__name__, f"{__name__}.random", naming.__name__}
point_elsewhere(
    Tensor, [name for name, fn in _of_tensors.items() if getattr(fn, "module", fn.__module__) not in _makers]
)

__all__ = ["METHODS", "REGISTRY", "activation", "creation", "elementwise", "linalg", "reduction", "shape"]
