"""PyTorch's names: casts, arithmetic said in words, results written over a tensor, new tensors like one.

`x.exp_()` writes `x.exp()` over x: same shape and dtype. Methods with `size` or `dim` in another sense than NumPy's are
left out; see docs/porting.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import dispatch
from . import types as T
from .dispatch import apply_in_place
from .errors import ArgumentTypeError, ShapeError
from .old_values import write_over
from .op import PUBLIC, REGISTRY, Op, public
from .ops import random
from .ops.joining import tensor_split
from .spoken import spelled
from .strangers import STUMBLES
from .value import Tensor

#: methods that are the function of the same name
_FUNCTIONS = (
    "absolute acosh addbmm addcdiv addcmul addr allclose asinh atan2 atanh bitwise_and bitwise_left_shift "
    "bitwise_not bitwise_or bitwise_right_shift bitwise_xor copysign cross deg2rad det div divide eq erfc "
    "fill_diagonal fliplr flipud float_power floor_divide fmax fmin fmod gcd ge greater greater_equal gt "
    "heaviside hypot inv isclose isin isneginf isposinf isreal kron lcm le less less_equal logaddexp "
    "logaddexp2 logdet logical_and logical_not logical_or logical_xor logit lt matrix_power mul multinomial "
    "multiply nan_to_num ne neg negative nextafter not_equal pinv positive pow rad2deg remainder signbit sinc "
    "slogdet true_divide vdot dist hsplit vsplit dsplit xlogy cholesky qr svd matrix_exp bernoulli diagflat "
    "inverse pinverse sgn ldexp frexp slice_scatter select_scatter diagonal_scatter"
).split()
#: functions of which `x.name_()` writes the result over x
_OVER = (
    "abs acos acosh addbmm addcdiv addcmul addmm addmv addr asin asinh atan atan2 atanh baddbmm bitwise_and "
    "bitwise_not bitwise_or bitwise_xor ceil clamp clip copysign cos cosh cumprod cumsum deg2rad digamma erf "
    "erfc erfinv exp exp2 expm1 fill_diagonal floor floor_divide fmod frac heaviside hypot lerp lgamma log "
    "log10 log1p log2 logical_and logical_not logical_or logical_xor logit nan_to_num neg negative pow rad2deg "
    "ldexp reciprocal relu remainder round rsqrt sgn sigmoid sign sin sinc sinh sqrt square tan tanh tril triu trunc "
    "xlogy"
).split()
_CASTS = {
    "bfloat16": T.bfloat16, "bool": T.bool_, "byte": T.uint8, "cdouble": T.complex128, "cfloat": T.complex64,
    "char": T.int8, "double": T.float64, "float": T.float32, "half": T.float16, "int": T.int32, "long": T.int64,
    "short": T.int16,
}  # fmt: skip


#: other name -> name, of functions that are not element by element
ALIASES = {
    "cat": "concat", "concatenate": "concat", "unsqueeze": "expand_dims", "swapdims": "swapaxes",
    "take_along_dim": "take_along_axis", "unbind": "unstack", "row_stack": "vstack", "inverse": "inv",
    "pinverse": "pinv", "trapz": "trapezoid",
}  # fmt: skip


@public
def clone(x: Tensor) -> Any:
    """A copy of x through which gradients flow."""
    return x.clone()


@public
def detach(x: Tensor) -> Any:
    """x's memory without history."""
    return x.detach()


@public
def numel(x: Tensor) -> Any:
    """The number of elements."""
    return x.size


@public
def t(x: Tensor) -> Any:
    """A matrix with its axes exchanged; fewer axes stay. Raises: ArgumentTypeError above two axes."""
    return x if x.ndim < 2 else x.T


@public
def is_floating_point(x: Tensor) -> Any:
    """Whether the dtype is a real float."""
    return x.dtype.is_float


@public
def vdot(x: Tensor, y: Tensor) -> Any:
    """`sum(conj(x) * y)` of two vectors."""
    return REGISTRY["vecdot"](x, y)


@public
def dist(x: Tensor, y: Tensor, p: float = 2.0) -> Any:
    """The p-norm of all elements of `x - y`."""
    return REGISTRY["vector_norm"]((x - y).reshape(-1), ord=p)


def _splitting(name: str, axis: int) -> Any:
    def split(x: Tensor, indices_or_sections: Any) -> Any:
        if x.ndim <= (0 if name == "hsplit" else axis):
            raise ShapeError(name, f"{x.type} has no axis {axis}", "use dg.tensor_split")
        return tensor_split(x, indices_or_sections, 0 if name == "hsplit" and x.ndim == 1 else axis)

    split.__name__, split.__doc__ = (
        name,
        f"`dg.tensor_split` along axis {axis}. Raises: ShapeError without one.",
    )
    return public(split)


hsplit, vsplit, dsplit = (
    _splitting(name, axis) for name, axis in (("hsplit", 1), ("vsplit", 0), ("dsplit", 2))
)


def _cast(name: str, dtype: T.DType) -> Any:
    def method(self: Tensor) -> Tensor:
        return self.to(dtype)

    method.__name__, method.__doc__ = name, f"x as {dtype}; x itself when it is."
    return method


def _written(name: str) -> Any:
    """`x.name_(...)`: what `x.name(...)` gives, written over x."""
    found: Any = PUBLIC.get(name) or REGISTRY[name]

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(found, Op):
            try:
                inputs, attrs = found.bind((self, *args), kwargs)
                apply_in_place(found, self, inputs, attrs)
            except STUMBLES as e:
                found.explain(e, (self, *args), kwargs)
                raise
        else:
            write_over(found, self, *args, **kwargs)
        return self

    method.__name__, method.__doc__ = f"{name}_", f"`x.{name}(...)` written over x. Returns: x."
    return method


def _scaled(name: str) -> tuple[Any, Any]:
    op = REGISTRY[name]

    def method(self: Tensor, other: Any, alpha: Any = 1) -> Any:
        return op(self, other if alpha == 1 else other * alpha)

    def over(self: Tensor, other: Any, alpha: Any = 1) -> Tensor:
        apply_in_place(op, self, (self, other if alpha == 1 else other * alpha), op.defaults)
        return self

    method.__doc__ = f"`dg.{name}(x, alpha * other)`."
    over.__doc__ = f"`dg.{name}(x, alpha * other)` written over x. Returns: x."
    return method, over


def _where(self: Tensor, condition: Tensor, other: Any) -> Any:
    """x where the condition holds, other elsewhere."""
    return REGISTRY["where"](condition, self, other)


def _type_as(self: Tensor, other: Tensor) -> Tensor:
    """x with another tensor's dtype."""
    return self.to(other.dtype)


def _stride(self: Tensor, axis: int | None = None) -> Any:
    """Strides in elements, as `x.strides`; that of one axis."""
    return (
        self.strides if axis is None else self.strides[T.normalize_axis("stride", axis, self.ndim, self.type)]
    )


def _element_size(self: Tensor) -> int:
    """The bytes of an element, as `x.itemsize`."""
    return self.dtype.itemsize


def _adjoint(self: Tensor) -> Any:
    """The conjugate of `x.mT`."""
    return REGISTRY["conj"](self.mT)


def _hermitian(self: Tensor) -> Any:
    """The conjugate of `x.T`."""
    return REGISTRY["conj"](self.T)


def _cpu(self: Tensor) -> Tensor:
    """x on the CPU; x itself when it is there."""
    return self.to("cpu")


def _cuda(self: Tensor, device: int | None = None) -> Tensor:
    """x on a CUDA device; x itself when it is there."""
    return self.to("cuda" if device is None else f"cuda:{device}")


def _new(name: str) -> Any:
    make = PUBLIC[name]

    def method(self: Tensor, shape: Any, *rest: Any, dtype: Any = None, device: Any = None) -> Any:
        return make(shape, *rest, dtype=dtype or self.dtype, device=device or self.device)

    method.__name__ = f"new_{name}"
    method.__doc__ = f"`dg.{name}` with x's dtype and device unless given."
    return method


def _new_tensor(self: Tensor, data: Any, dtype: Any = None, device: Any = None) -> Any:
    """A tensor of `data` with x's dtype and device unless given."""
    made = dispatch.state.executor.constant(np.asarray(data), device or self.device)
    return made.to(dtype or self.dtype)


def _drawn(name: str, draw: Any, text: str) -> Any:
    draw = spelled(draw, name)

    def method(self: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        with _no_grad():
            drawn = draw(self, *args, generator=generator, **kwargs)
            if self.is_leaf:  # a parameter gets its first values
                return self.copy_(drawn)
        return self.copy_(drawn)

    method.__name__, method.__doc__ = name, f"Fill x with {text}. Returns: x."
    return method


def _no_grad() -> Any:
    return dispatch.set_grad(False)


def _kind(x: Tensor) -> dict[str, Any]:
    return {"shape": x.shape, "dtype": x.dtype, "device": x.device}


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0, generator: Any = None) -> Any:
    return random.uniform(low, high, generator=generator, **_kind(x))


def _normal(x: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Any:
    return random.normal(mean, std, generator=generator, **_kind(x))


def _exponential(x: Tensor, rate: float = 1.0, generator: Any = None) -> Any:
    return random.exponential(rate, generator=generator, **_kind(x))


def _bernoulli(x: Tensor, p: Any = 0.5, generator: Any = None) -> Any:
    return random.rand(x.shape, device=x.device, generator=generator) < p


def _integers(x: Tensor, low: int, high: int | None = None, generator: Any = None) -> Any:
    return random.randint(low, high, x.shape, device=x.device, generator=generator)


def _clamp_min(self: Tensor, min: Any) -> Any:
    """`x.clamp(min=min)`."""
    return PUBLIC["clip"](self, min=min)


def _clamp_max(self: Tensor, max: Any) -> Any:
    """`x.clamp(max=max)`."""
    return PUBLIC["clip"](self, max=max)


def _clamp_min_(self: Any, min: Any) -> Any:
    """`x.clamp_(min=min)`."""
    return self.clamp_(min=min)


def _clamp_max_(self: Any, max: Any) -> Any:
    """`x.clamp_(max=max)`."""
    return self.clamp_(max=max)


def _get_data(self: Tensor) -> Any:
    """The same memory without history."""
    return self.detach()


def _set_data(self: Tensor, value: Any) -> None:
    """Copy values in, unseen by gradients. The memory stays, so optimisers and graphs see the new values."""
    if not isinstance(value, Tensor):
        raise ArgumentTypeError("data", f"takes a tensor, got a {type(value).__name__}", "use dg.tensor(...)")
    if value.shape != self.shape or value.dtype is not self.dtype:
        raise ShapeError(
            "data", f"{value.type} cannot replace {self.type}", "make a new tensor, or module.to(dtype)"
        )
    with _no_grad():
        self.copy_(value.detach())


_add, _add_over = _scaled("add")
_sub, _sub_over = _scaled("subtract")

PUBLIC.update({other: PUBLIC.get(name) or REGISTRY[name] for other, name in ALIASES.items()})
METHODS: dict[str, Any] = {
    **{name: PUBLIC.get(name) or REGISTRY[name] for name in _FUNCTIONS},
    **{f"{name}_": _written(name) for name in _OVER},
    **{name: _cast(name, dtype) for name, dtype in _CASTS.items()},
    **{f"new_{name}": _new(name) for name in ("zeros", "ones", "empty", "full")},
    "add": _add, "add_": _add_over, "sub": _sub, "sub_": _sub_over, "subtract": _sub, "t": t, "where": _where,
    "type_as": _type_as, "is_floating_point": is_floating_point, "is_complex": PUBLIC["is_complex"],
    "clamp_min": _clamp_min, "clamp_max": _clamp_max, "clamp_min_": _clamp_min_, "clamp_max_": _clamp_max_,
    "cpu": _cpu, "cuda": _cuda, "new_tensor": _new_tensor, "stride": _stride, "element_size": _element_size,
    "nelement": numel, "adjoint": _adjoint,
    "uniform_": _drawn("uniform_", _uniform, "uniform numbers from [low, high)"),
    "normal_": _drawn("normal_", _normal, "normal numbers"),
    "exponential_": _drawn("exponential_", _exponential, "exponential numbers"),
    "bernoulli_": _drawn("bernoulli_", _bernoulli, "ones (with probability p) and zeros"),
    "random_": _drawn("random_", _integers, "integers from low (0 for a single bound) to high - 1"),
}  # fmt: skip

#: attributes: (getter, setter)
FACTS: dict[str, tuple[Any, Any]] = {
    "data": (_get_data, _set_data),
    "is_cuda": (lambda x: x.device.startswith("cuda"), None),
    "itemsize": (lambda x: x.dtype.itemsize, None),
    "mH": (_adjoint, None),
    "H": (_hermitian, None),
}
