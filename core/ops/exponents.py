"""Numbers as a mantissa times a power of two."""

from __future__ import annotations

from typing import NamedTuple

from .. import dispatch
from .. import types as T
from ..op import public
from ..value import Tensor
from . import elementwise as E
from .creation import full
from .search import as_tensor


class Frexp(NamedTuple):
    """`mantissa * 2**exponent`."""

    mantissa: Tensor
    exponent: Tensor


def _scaled(x, n):
    """`x * 2**n` by two factors, of which neither overflows where the result does not. n: whole, in x's dtype."""
    half = E.floor(n * 0.5)
    return x * E.exp2(half) * E.exp2(n - half)


@public
def ldexp(x, n):
    """`x * 2**n`.

    x: float[...], or integers as floats; n: int[...] (or whole floats) that broadcasts. Returns: a float.
    Numerics: exact unless the result is subnormal. Source: NumPy, PyTorch.
    Example: `dg.ldexp(dg.tensor([1.0, 3.0]), dg.tensor([2, -1]))` is `[4, 1.5]`.
    """
    x = _floats("ldexp", x)
    kind = x.dtype
    wide = kind.computed
    n = full((), n, wide, x.device) if isinstance(n, (int, float)) else as_tensor("ldexp", n).to(wide)
    return _scaled(x.to(wide), n).to(kind)


@public
def frexp(x):
    """Mantissa and exponent: `x = mantissa * 2**exponent`, with a mantissa from 0.5 below 1, or 0.

    x: float[...], or integers as floats. Returns: (mantissa: x's dtype, exponent: int32). Numerics: exact; infinities
    and NaN are their own mantissa, with exponent 0; the slope of the mantissa is `2**-exponent`. Source: NumPy.
    Example: `dg.frexp(dg.tensor([6.0])).exponent.item()` is `3`.
    """
    x = _floats("frexp", x)
    kind = x.dtype
    wide = x.to(kind.computed)
    with dispatch.set_grad(False):
        plain = wide.detach()
        usual = E.logical_and(E.isfinite(plain), E.not_equal(plain, 0.0))
        size = E.abs_(E.where(usual, plain, 1.0))
        # Subnormal numbers are made normal first: a logarithm may take them for 0.
        small = E.less(size, float(_SMALL[kind.computed.name]))
        size = E.where(small, _scaled(size, 64.0 + 0 * size), size)
        n = E.floor(E.log2(size)) + 1
        rest = _scaled(size, -n)
        # The logarithm may be off by a rounding beside a power of two.
        n = n + E.cast(E.greater_equal(rest, 1.0), dtype=n.dtype) - E.cast(E.less(rest, 0.5), dtype=n.dtype)
        n = E.where(usual, n - E.where(small, 64.0, 0.0), 0.0)
    return Frexp(_scaled(wide, -n).to(kind), E.cast(n, dtype=T.int32))


#: below these numbers some have fewer digits once they are divided
_SMALL = {"float32": 2.0**-64, "float64": 2.0**-512}


def _floats(op, x):
    x = as_tensor(op, x)
    return x if x.dtype.is_float else x.to(T.default_float)
