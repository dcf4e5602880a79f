"""What tests/test_families_random.py draws: rows, and the shapes, values and layouts of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import duograd as dg
import numpy as np
import torch
from hypothesis import strategies as st

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -2.5]
SIDES = [0, 1, 2, 3, 5, 18]
LAYOUTS = ["dense", "dense", "transposed", "sliced", "reversed", "spread"]
REAL = ("float32", "float64", "int32")
FLOATS = ("float32", "float64")


class Row(NamedTuple):
    """An op beside somebody else's function.

    draw: from a `Draw`, the arrays and the attributes of a call. call: `dg.<name>` when None. corners: NaN and
    infinities among the values ("nan": no infinities). scale: of the tolerance. slope: whether gradients are
    compared with differences, up to `order` (beyond it differentiating is an error). repeated: whether all rows may be equal.
    """

    name: str
    peer: Callable[..., Any]
    draw: Callable[[Draw], tuple[list[np.ndarray], dict[str, Any]]]
    call: Callable[..., Any] | None = None
    dtypes: tuple[str, ...] = REAL
    corners: bool | str = True
    scale: float = 4.0
    slope: bool = True
    order: int = 2
    repeated: bool = True

    @property
    def op(self) -> Callable[..., Any]:
        return self.call or getattr(dg, self.name)


class Draw:
    """Arguments for one example; `dtype` is what `array` makes."""

    def __init__(self, data: Any, dtype: str, corners: bool | str):
        self.data, self.dtype, self.corners = data, np.dtype(dtype), corners
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**31), "seed"))

    def pick(self, choices: Any) -> Any:
        return self.data.draw(st.sampled_from(list(choices)))

    def shape(self, least: int = 0, most: int = 3, side: int = 0) -> tuple[int, ...]:
        """Of `least` to `most` axes, each of `side` elements or more."""
        rank = self.pick(range(least, most + 1))
        return tuple(self.pick([s for s in SIDES if s >= side]) for _ in range(rank))

    def array(self, shape: Any, low: float = -3.0, high: float = 3.0, corners: bool = True) -> np.ndarray:
        dtype = self.dtype
        if dtype.kind == "b":
            return np.asarray(self.rng.integers(0, 2, shape), dtype)
        if dtype.kind in "iu":
            return np.asarray(self.rng.integers(0 if dtype.kind == "u" else -9, 10, shape), dtype)
        x = self.rng.uniform(low, high, shape)
        if corners and self.corners:
            x = np.where(
                self.rng.random(shape) < 0.15,
                self.rng.choice(SPECIAL if self.corners is True else [np.nan, 0.0, -0.0], shape),
                x,
            )
        return np.asarray(x, dtype)

    def index(self, shape: Any, size: int, negative: bool = False) -> np.ndarray:
        return np.asarray(self.rng.integers(-size if negative else 0, size, shape), np.int64)

    def mask(self, shape: Any) -> np.ndarray:
        return np.asarray(self.rng.random(shape) < 0.5)

    def axis(self, rank: int) -> int:
        return self.pick(range(-rank, rank))

    def axes(self, rank: int) -> int | tuple[int, ...] | None:
        """None, one axis or several."""
        choices: list[Any] = [None]
        if rank:
            choices += [self.axis(rank), tuple(range(rank)), (0, rank - 1) if rank > 1 else (0,)]
        return self.pick(choices)

    def layout(self, x: np.ndarray, repeated: bool = True) -> tuple[Any, np.ndarray]:
        """A tensor in a drawn layout, and the array with its values."""
        how = self.pick(LAYOUTS)
        if how == "transposed" and x.ndim > 1:
            return dg.tensor(np.ascontiguousarray(x.T)).permute(*range(x.ndim)[::-1]), x
        if how == "sliced" and x.ndim:
            return dg.tensor(np.repeat(x, 2, axis=-1))[..., ::2], x
        if how == "reversed" and x.ndim:
            return dg.tensor(np.ascontiguousarray(x[::-1]))[::-1], x
        if how == "spread" and repeated and x.ndim and x.dtype.kind == "f" and x.shape[0]:
            x = np.broadcast_to(x[:1], x.shape)
            return dg.tensor(np.ascontiguousarray(x[:1])).broadcast_to(x.shape), np.ascontiguousarray(x)
        return dg.tensor(x), x


# ---------------------------------------------------------------- peers


def wide(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy evaluated in float64, so that its own rounding is not in the way."""

    def run(*arrays: Any, **settings: Any) -> Any:
        return fn(
            *[a.astype(np.float64) if getattr(a, "dtype", None) == np.float32 else a for a in arrays],
            **settings,
        )

    return run


def _back(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_back(v) for v in value)
    return value.numpy() if isinstance(value, torch.Tensor) else value


def of_torch(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch as one of NumPy arrays, evaluated in float64."""

    def run(*arrays: Any, **settings: Any) -> Any:
        row = [
            torch.tensor(
                np.ascontiguousarray(a), dtype=torch.float64 if a.dtype.kind == "f" else None
            ).reshape(a.shape)
            if isinstance(a, np.ndarray)
            else a
            for a in arrays
        ]
        return _back(fn(*row, **settings))

    return run


def table(names: str, peer: Callable[[str], Callable[..., Any]], draw: Any, **kwargs: Any) -> list[Row]:
    """A row for each name; peer: from the name to its function."""
    return [Row(name, peer(name), draw, **kwargs) for name in names.split()]


def numpy_of(name: str) -> Callable[..., Any]:
    return wide(getattr(np, name))
