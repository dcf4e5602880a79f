"""Maps of values with their inverse and the logarithm of their slope: what `TransformedDistribution` is made of.

A transform is called with values; `inv(y)` finds the values back; `log_abs_det_jacobian(x, y)` is the logarithm of the
absolute slope (of the determinant, where one event has several numbers) at x, with y = the image of x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.dtype_info import finfo
from ..core.errors import ArgumentError, ShapeError
from ..core.op import PUBLIC, REGISTRY
from ..core.ops import elementwise as E
from ..core.spoken import spell, spelled
from ..core.types import broadcast_shapes
from ..core.value import Tensor
from . import distribution as C

Shape = tuple[int, ...]

__all__ = [
    "AbsTransform", "AffineTransform", "ComposeTransform", "ExpTransform", "IndependentTransform", "PowerTransform",
    "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StickBreakingTransform",
    "TanhTransform", "Transform", "identity_transform",
]  # fmt: skip


def summed(x: Tensor, axes: int) -> Tensor:
    """The sum over that many last axes."""
    return x.sum(axis=tuple(range(-axes, 0))) if axes else x


class Rank(NamedTuple):
    """How many axes one event has before a transform, and after it."""

    domain: int = 0
    codomain: int = 0


class Transform:
    """Base. bijective: whether there is an inverse; sign: 1 where it rises, -1 where it falls (of scalars).

    codomain: what images are (None: anything). cache_size 1 keeps the last pair, so that the inverse of what was just
    drawn is what it was made of, bit for bit (of a `tanh` near 1 there is no other way).
    """

    bijective = True
    codomain: C.Constraint | None = C.real
    rank = Rank()
    sign: Any = 1

    def __init__(self, cache_size: int = 0):
        if cache_size not in (0, 1):
            raise ArgumentError(type(self).__name__, f"cache_size={cache_size}", "use 0 or 1")
        self._cache_size = cache_size
        self._pair: tuple[Any, Any] | None = None

    def _image(self, x: Tensor) -> Tensor:
        """The image of x."""
        if self._pair is not None and self._pair[0] is x:
            return self._pair[1]  # type: ignore[no-any-return]
        y = self._call(x)
        if self._cache_size:
            self._pair = x, y
        return y

    __call__ = spelled(_image, "transform")

    @spelled
    def inv(self, y: Tensor) -> Tensor:
        """What y is the image of. Raises: ArgumentError where there is no one answer."""
        if self._pair is not None and self._pair[1] is y:
            return self._pair[0]  # type: ignore[no-any-return]
        return self._inverse(y)

    def _call(self, x: Tensor) -> Tensor:
        raise ArgumentError(type(self).__name__, "cannot be called", "define _call(self, x)")

    def _inverse(self, y: Tensor) -> Tensor:
        raise ArgumentError(type(self).__name__, "has no inverse", "use a bijective transform")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of the absolute slope at x, whose image is y."""
        raise ArgumentError(
            type(self).__name__, "has no slope that volumes grow by", "use a bijective transform"
        )

    def forward_shape(self, shape: Shape) -> Shape:
        """The shape of the image of what has this shape."""
        return tuple(shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        """The shape of what has an image of this shape."""
        return tuple(shape)

    def _settings(self) -> str:
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings()})"

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and bool(self._equals(other)))

    def _equals(self, other: Any) -> bool:
        """Whether another one of the same class does the same."""
        return True

    __hash__ = object.__hash__


def _same(a: Any, b: Any) -> bool:
    """Whether two settings are one tensor or equal numbers: values of tensors are not looked at."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


class ExpTransform(Transform):
    """`y = exp(x)`."""

    codomain = C.positive

    def _call(self, x: Tensor) -> Tensor:
        return E.exp(x)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return E.log(y)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class PowerTransform(Transform):
    """`y = x^exponent` of x above 0."""

    codomain = C.positive

    def __init__(self, exponent: Any, cache_size: int = 0):
        super().__init__(cache_size)
        self.exponent = exponent

    @property
    def sign(self) -> Any:  # type: ignore[override]
        return _sign(self.exponent)

    def _call(self, x: Tensor) -> Tensor:
        return E.power(x, self.exponent)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return E.power(y, 1 / self.exponent)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return E.log(E.abs_(self.exponent * y / x))  # type: ignore[no-any-return]

    def forward_shape(self, shape: Shape) -> Shape:
        return broadcast_shapes("PowerTransform", shape, getattr(self.exponent, "shape", ()))

    inverse_shape = forward_shape

    def _settings(self) -> str:
        return f"exponent={self.exponent}"

    def _equals(self, other: PowerTransform) -> bool:
        return _same(self.exponent, other.exponent)


def _sign(x: Any) -> Any:
    return E.sign(x) if isinstance(x, Tensor) else (x > 0) - (x < 0)


class AffineTransform(Transform):
    """`y = loc + scale * x`; event_dim: how many last axes are one event."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size)
        self.loc, self.scale, self.event_dim = loc, scale, event_dim
        self.rank = Rank(event_dim, event_dim)

    @property
    def sign(self) -> Any:  # type: ignore[override]
        return _sign(self.scale)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.scale, Tensor):
            slope = E.log(E.abs_(self.scale)).expand(
                broadcast_shapes("AffineTransform", x.shape, self.scale.shape)
            )
        else:
            slope = PUBLIC["full_like"](x, math.log(abs(self.scale)) if self.scale else -math.inf)
        return summed(slope, self.event_dim)

    def forward_shape(self, shape: Shape) -> Shape:
        rows = [getattr(v, "shape", ()) for v in (self.loc, self.scale)]
        return broadcast_shapes("AffineTransform", shape, *rows)

    inverse_shape = forward_shape

    def _settings(self) -> str:
        rest = f", event_dim={self.event_dim}" if self.event_dim else ""
        return f"loc={self.loc}, scale={self.scale}{rest}"

    def _equals(self, other: AffineTransform) -> bool:
        same = self.event_dim == other.event_dim
        return same and _same(self.loc, other.loc) and _same(self.scale, other.scale)


class SigmoidTransform(Transform):
    """`y = 1 / (1 + exp(-x))`, kept within the open interval from 0 to 1."""

    codomain = C.unit_interval

    def _call(self, x: Tensor) -> Tensor:
        info = finfo(x.dtype)
        return E.clip_(E.sigmoid(x), info.smallest_normal, 1 - info.eps)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        info = finfo(y.dtype)
        y = E.clip_(y, info.smallest_normal, 1 - info.eps)
        return E.log(y) - E.log1p(-y)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -REGISTRY["softplus"](-x) - REGISTRY["softplus"](x)  # type: ignore[no-any-return]


class TanhTransform(Transform):
    """`y = tanh(x)`. Near -1 and 1 the inverse is coarse: use cache_size=1 for what was drawn."""

    codomain = C.symmetric_interval

    def _call(self, x: Tensor) -> Tensor:
        return E.tanh(x)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return E.atanh(y)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # log(1 - tanh^2), exact where tanh is 1
        return 2.0 * (math.log(2.0) - x - REGISTRY["softplus"](-2.0 * x))  # type: ignore[no-any-return]


class SoftplusTransform(Transform):
    """`y = log(1 + exp(x))`."""

    codomain = C.positive

    def _call(self, x: Tensor) -> Tensor:
        return REGISTRY["softplus"](x)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return E.log(-E.expm1(-y)) + y  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -REGISTRY["softplus"](-x)  # type: ignore[no-any-return]


class AbsTransform(Transform):
    """`y = |x|`; the inverse is the one of the two that is not negative."""

    bijective = False
    codomain = C.nonnegative

    def _call(self, x: Tensor) -> Tensor:
        return E.abs_(x)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class SoftmaxTransform(Transform):
    """`y = softmax(x)` over the last axis; the inverse is one of many."""

    bijective = False
    codomain = C.simplex
    rank = Rank(1, 1)

    def _call(self, x: Tensor) -> Tensor:
        return REGISTRY["softmax"](x, axis=-1)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return E.log(y)  # type: ignore[no-any-return]


class StickBreakingTransform(Transform):
    """K numbers as K + 1 shares: each takes its part of what those before have left of a stick."""

    codomain = C.simplex
    rank = Rank(1, 1)

    def _offset(self, n: int, x: Tensor) -> Tensor:
        """Logarithms of n, n - 1, ..., 1: equal shares for zeros."""
        return E.log(n - PUBLIC["arange"](n, dtype=x.dtype, device=x.device))  # type: ignore[no-any-return]

    def _call(self, x: Tensor) -> Tensor:
        z = E.sigmoid(x - self._offset(x.shape[-1], x))
        left = REGISTRY["cumprod"](1 - z, axis=-1)
        one = PUBLIC["ones"]((*x.shape[:-1], 1), dtype=x.dtype, device=x.device)
        join = REGISTRY["concat"]
        return join([z, one], axis=-1) * join([one, left], axis=-1)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        most = y[..., :-1]
        left = E.maximum(1 - REGISTRY["cumsum"](most, axis=-1), finfo(y.dtype).smallest_normal)
        return E.log(most) - E.log(left) + self._offset(most.shape[-1], y)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        x = x - self._offset(x.shape[-1], x)
        return (-x - REGISTRY["softplus"](-x) + E.log(y[..., :-1])).sum(axis=-1)  # type: ignore[no-any-return]

    def forward_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], shape[-1] - 1)


class ReshapeTransform(Transform):
    """One event of shape in_shape as one of out_shape."""

    codomain = None

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0):
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ShapeError(
                "ReshapeTransform", f"{list(in_shape)} and {list(out_shape)} have not as many elements",
                "use shapes with equal products",
            )  # fmt: skip
        self.rank = Rank(len(self.in_shape), len(self.out_shape))

    def _swapped(self, shape: Shape, old: Shape, new: Shape) -> Shape:
        cut = len(shape) - len(old)
        if cut < 0 or shape[cut:] != old:
            raise ShapeError(
                "ReshapeTransform", f"{list(shape)} does not end in {list(old)}", "pass such events"
            )
        return (*shape[:cut], *new)

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(self.forward_shape(x.shape))  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(self.inverse_shape(y.shape))  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        shape = x.shape[: x.ndim - len(self.in_shape)]
        return PUBLIC["zeros"](shape, dtype=x.dtype, device=x.device)  # type: ignore[no-any-return]

    def forward_shape(self, shape: Shape) -> Shape:
        return self._swapped(tuple(shape), self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        return self._swapped(tuple(shape), self.out_shape, self.in_shape)

    def _settings(self) -> str:
        return f"{self.in_shape}, {self.out_shape}"

    def _equals(self, other: ReshapeTransform) -> bool:
        return (self.in_shape, self.out_shape) == (other.in_shape, other.out_shape)


class IndependentTransform(Transform):
    """A transform whose slopes are added up over as many more last axes, which become one event."""

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0):
        super().__init__(cache_size)
        self.base_transform, self.count = base_transform, reinterpreted_batch_ndims
        self.rank = Rank(*(n + self.count for n in base_transform.rank))
        self.bijective, self.codomain = base_transform.bijective, base_transform.codomain

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return summed(self.base_transform.log_abs_det_jacobian(x, y), self.count)

    def forward_shape(self, shape: Shape) -> Shape:
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        return self.base_transform.inverse_shape(shape)

    def _settings(self) -> str:
        return f"{self.base_transform!r}, {self.count}"

    def _equals(self, other: IndependentTransform) -> bool:
        return self.count == other.count and self.base_transform == other.base_transform


class ComposeTransform(Transform):
    """Transforms one after the other, the first first."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0):
        super().__init__(cache_size)
        self.parts = list(parts)
        for part in self.parts:
            if not isinstance(part, Transform):
                raise ArgumentError(
                    "ComposeTransform", f"{part!r} is no transform", "pass a list of transforms"
                )
        # Axes of one event: as many as a part asks for, counted before all of them.
        before = after = 0
        for part in self.parts:
            before += max(0, part.rank.domain - after)
            after = max(after, part.rank.domain) + part.rank.codomain - part.rank.domain
        self.rank = Rank(before, after)
        self.bijective = all(part.bijective for part in self.parts)
        self.codomain = self.parts[-1].codomain if self.parts else C.real

    @property
    def sign(self) -> Any:  # type: ignore[override]
        return math.prod(part.sign for part in self.parts)

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inv(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        total: Any = None
        event = self.rank.domain
        for k, part in enumerate(self.parts):
            image = y if k == len(self.parts) - 1 else part(x)
            term = summed(part.log_abs_det_jacobian(x, image), event - part.rank.domain)
            total = term if total is None else total + term
            event += part.rank.codomain - part.rank.domain
            x = image
        return PUBLIC["zeros_like"](x) if total is None else total  # type: ignore[no-any-return]

    def forward_shape(self, shape: Shape) -> Shape:
        for part in self.parts:
            shape = part.forward_shape(shape)
        return tuple(shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return tuple(shape)

    def _settings(self) -> str:
        return ", ".join(map(repr, self.parts))

    def _equals(self, other: ComposeTransform) -> bool:
        return self.parts == other.parts


spell(globals(), [n for n in __all__ if n != "identity_transform"], strict=True)
identity_transform = ComposeTransform([])
