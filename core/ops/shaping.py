"""Methods of tensors for shapes, parts, picking and scattering: PyTorch's names over the ops."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentTypeError
from ..op import Op
from ..spoken import refuse
from ..value import Tensor
from . import indexing, joining, picking, scatter, shape, triangles, views


def _listed(args: tuple[Any, ...]) -> Any:
    """`f(2, 3)` or `f((2, 3))`: the tuple."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


# The most frequent ones look for wrong keywords themselves; see `spelled`.
def _reshape(self: Tensor, *sizes: Any, shape: Any = None, copy: bool | None = None, **wrong: Any) -> Tensor:
    """x with another shape: `x.reshape(2, 3)` or `x.reshape((2, 3))`; see `dg.reshape`."""
    if wrong:
        refuse(_reshape, "reshape", wrong, [])
    target = _listed(sizes) if shape is None else shape
    return views.reshape(self, shape=target) if copy is None else _copying(self, target, copy)


_copying = shape.reshape_


def _permute(self: Tensor, *axes: Any, **wrong: Any) -> Tensor:
    """x with its axes in another order: `x.permute(2, 0, 1)`; see `dg.permute`."""
    if wrong:
        refuse(_permute, "permute", wrong, [])
    return views.permute(self, axes=_listed(axes))


def _expand(self: Tensor, *sizes: Any, **wrong: Any) -> Tensor:
    """x repeated along axes of size 1, without memory; -1 keeps a size."""
    if wrong:
        refuse(_expand, "expand", wrong, [])
    return views.broadcast_to(self, shape=_listed(sizes))


def _expand_as(self: Tensor, other: Tensor) -> Tensor:
    """x broadcast to another tensor's shape."""
    return views.broadcast_to(self, shape=other.shape)


def _repeat(self: Tensor, *reps: Any) -> Tensor:
    """x repeated as a whole along each axis, as PyTorch's `repeat`; NumPy's is `dg.repeat`."""
    return joining.tile(self, reps=_listed(reps))


def _tile(self: Tensor, *reps: Any) -> Tensor:
    """x repeated as a whole along each axis; see `dg.tile`."""
    return joining.tile(self, reps=_listed(reps))


def _squeeze(self: Tensor, axis: Any = None) -> Tensor:
    """x without axes of size 1; see `dg.squeeze`."""
    return shape.squeeze(self, axis=axis)


def _flip(self: Tensor, *axes: Any, axis: Any = None) -> Tensor:
    """x backwards along axes: `x.flip(0, 1)`; see `dg.flip`."""
    return shape.flip(self, axis=_listed(axes) if axes else axis)


def _unflatten(self: Tensor, axis: int, sizes: Any) -> Tensor:
    """x with one axis as several; see `dg.unflatten`."""
    return shape.unflatten(self, axis=axis, sizes=sizes)


def _unfold(self: Tensor, axis: int, size: int, step: int) -> Tensor:
    """Sliding windows along an axis; see `dg.sliding_window`."""
    return views.sliding_window(self, axis=axis, size=size, step=step)


def _dim(self: Tensor) -> int:
    """The number of axes."""
    return self.ndim


def _numel(self: Tensor) -> int:
    """The number of elements."""
    return self.size


def _contiguous(self: Tensor) -> Tensor:
    """x itself when its elements lie in order, else a copy in which they do."""
    return self if self.is_contiguous else self.clone()  # type: ignore[attr-defined]


def _in_place(op: Op, self: Tensor, inputs: tuple[Any, ...], attrs: tuple[Any, ...]) -> Tensor:
    from ..dispatch import apply_in_place

    apply_in_place(op, self, inputs, attrs)
    return self


def _over(name: str, fn: Any) -> Any:
    """The in-place form of a function that returns a tensor like its first argument."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        from ..old_values import write_over

        return write_over(fn, self, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`dg.{name[:-1]}` written over x. Returns: x."
    return method


def _masked_fill_(self: Tensor, mask: Any, value: Any) -> Tensor:
    """A number where the mask holds, in place. Returns: x."""
    from .elementwise import where

    if mask.ndim > self.ndim:
        raise ArgumentTypeError(
            "masked_fill_", f"mask: {mask.type} is larger than x: {self.type}", "reshape it"
        )
    if isinstance(value, Tensor):
        value = value.to(self.dtype)
    elif self.dtype.is_integer and isinstance(value, float):
        value = int(value)
    return _in_place(where, self, (mask, value, self), ())


def _scatter_add_(self: Tensor, axis: int, index: Tensor, src: Any) -> Tensor:
    """`x[..., index, ...] += src` along an axis, in place. Returns: x."""
    whole = isinstance(src, Tensor) and src.shape == index.shape and src.dtype is self.dtype
    a = axis % self.ndim if self.ndim else 0
    fits = index.ndim == self.ndim and all(
        k == a or n == m for k, (n, m) in enumerate(zip(self.shape, index.shape))
    )
    if whole and fits:
        return _in_place(scatter.put_elements, self, (self, index, src), (a, True))
    return _over("scatter_add_", scatter.scatter_add)(self, axis, index, src)


def _index_add_(self: Tensor, axis: int, index: Tensor, source: Any, alpha: Any = 1) -> Tensor:
    """`x[..., index[j], ...] += alpha * source[..., j, ...]` in place. Returns: x."""
    source = source if alpha == 1 else source * alpha
    at = (slice(None),) * (axis % self.ndim) + (index,)
    return indexing.index_put_(self, at, source, accumulate=True)


METHODS: dict[str, Any] = {
    "reshape": _reshape, "view": _reshape, "permute": _permute, "expand": _expand, "expand_as": _expand_as,
    "broadcast_to": views.broadcast_to, "transpose": shape.transpose, "squeeze": _squeeze,
    "unsqueeze": shape.expand_dims, "expand_dims": shape.expand_dims, "flatten": shape.flatten,
    "unflatten": _unflatten, "ravel": shape.ravel, "view_as": shape.view_as, "reshape_as": shape.view_as,
    "swapaxes": shape.swapaxes, "swapdims": shape.swapaxes, "moveaxis": shape.movedim, "movedim": shape.movedim,
    "flip": _flip, "rot90": shape.rot90, "roll": joining.roll, "narrow": shape.narrow, "select": shape.select,
    "unfold": _unfold, "repeat": _repeat, "tile": _tile, "repeat_interleave": joining.repeat_interleave,
    "split": joining.split, "tensor_split": joining.tensor_split, "chunk": joining.chunk,
    "unbind": joining.unstack, "unstack": joining.unstack,
    "tril": triangles.tril, "triu": triangles.triu, "diag": triangles.diag, "diagonal": views.diagonal,
    "diag_embed": triangles.diag_embed, "dim": _dim, "numel": _numel, "contiguous": _contiguous,
    "take": picking.take_, "take_along_axis": picking.take_along_axis, "take_along_dim": picking.take_along_axis,
    "gather": picking.gather, "index_select": picking.index_select,
    "scatter": scatter.scatter, "scatter_add": scatter.scatter_add, "scatter_reduce": scatter.scatter_reduce,
    "index_add": scatter.index_add, "index_copy": scatter.index_copy, "index_fill": scatter.index_fill,
    "index_put": indexing.index_put, "masked_fill": scatter.masked_fill, "masked_scatter": scatter.masked_scatter,
    "scatter_": _over("scatter_", scatter.scatter), "scatter_add_": _scatter_add_,
    "scatter_reduce_": _over("scatter_reduce_", scatter.scatter_reduce), "index_add_": _index_add_,
    "index_copy_": _over("index_copy_", scatter.index_copy),
    "index_fill_": _over("index_fill_", scatter.index_fill), "index_put_": indexing.index_put_,
    "masked_fill_": _masked_fill_, "masked_scatter_": _over("masked_scatter_", scatter.masked_scatter),
}  # fmt: skip
