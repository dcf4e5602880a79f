"""`x[index]` and `x[index] = value` as NumPy has them: basic, integer tensors, masks, and any mixture.

A basic index (integers, slices, None, ...) is a view. Otherwise the basic part is taken as a view first, the axes
under integer tensors are brought together, and their indices become flat positions: one gather or one scatter.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentTypeError, IndexingError, ShapeError
from ..kinds import is_real
from ..op import public
from ..strangers import brief, unfit
from ..types import Shape
from ..value import Tensor
from .comparison import where
from .creation import full_
from .picking import place, take, take_placed
from .scatter import put_slices
from .slices import basic_index, slice_
from .views import broadcast_to, permute, reshape


class _Plan(NamedTuple):
    """How an index of some form (`_form`) is carried out on some shape.

    index: canonical basic part; None when it shows all of x. pickers: entry, the axis of x that a message names, how
    many axes it stands for, whether it is a mask. order: the axes of the view after it, those of pickers together
    from `axis` on; None when they lie so. depth: how many axes of the view the pickers take.
    """

    index: Any
    pickers: tuple[tuple[int, int, int, bool], ...]
    order: tuple[int, ...] | None
    axis: int
    depth: int


def _as_tensor(op: str, e: Any, x: Tensor) -> Any:
    """An entry that picks, as a tensor; None for a basic one."""
    if isinstance(e, (bool, np.bool_)):
        e = np.asarray(e)
    elif isinstance(e, (list, range, np.ndarray)):
        e = np.asarray(e)
        if e.size == 0 and e.dtype == np.float64:
            e = e.astype(np.int64)
    if isinstance(e, np.ndarray):
        if e.dtype.kind not in "biu":
            raise IndexingError(
                op, f"an index of dtype {e.dtype} is not integer or bool", "convert it to int64"
            )
        if e.ndim == 0 and e.dtype.kind != "b":
            return None
        e = dispatch.state.executor.constant(e, x.device)
    if isinstance(e, Tensor):
        if not (e.dtype.is_integer or e.dtype is T.bool_):
            raise IndexingError(
                op,
                f"an index of type {e.type} is not integer or bool",
                "convert it, or compare it for a mask",
            )
        return e
    return None


def _mask_places(mask: Tensor) -> Tensor:
    from .search import flatnonzero

    return flatnonzero(mask)  # type: ignore[no-any-return]


def _width(e: Any) -> int:
    """How many axes of x an entry takes."""
    if e is None or e is Ellipsis:
        return 0
    return e.ndim if isinstance(e, Tensor) and e.dtype is T.bool_ else 1


#: entries that pick
_PICKS = (Tensor, list, range, np.ndarray, bool, np.bool_)


def _is_basic(index: Any) -> bool:
    if isinstance(index, tuple):
        return not any(isinstance(e, _PICKS) for e in index)
    return not isinstance(index, _PICKS)


def _form(entries: list[Any]) -> Any:
    """A key for what a plan depends on beside the shape of x; None when an entry cannot be part of one."""
    form: list[Any] = []
    for e in entries:
        if isinstance(e, Tensor):
            form.append((bool, e.shape) if e.dtype is T.bool_ else Tensor)
        elif e is None:
            form.append(e)
        else:
            key = _plain(e)
            if key is None:
                return None
            form.append(key)
    return tuple(form)


#: plans by shape and form of the index
_plans: dict[Any, _Plan] = {}


def _plan(op: str, x: Tensor, index: Any) -> tuple[_Plan, list[Any]]:
    """The plan of an index and its entries, those that pick made tensors."""
    entries: list[Any] = list(index) if isinstance(index, tuple) else [index]
    for k, e in enumerate(entries):
        if e.__class__ is not slice:
            picked = _as_tensor(op, e, x)
            entries[k] = e if picked is None else picked
    form = _form(entries)
    found = None if form is None else _plans.get((x.shape, form))
    if found is None:
        found = _new_plan(op, x, entries)
        if form is not None:
            if len(_plans) > 10_000:
                _plans.clear()
            _plans[x.shape, form] = found
    return found, entries


def _new_plan(op: str, x: Tensor, given: list[Any]) -> _Plan:
    used = sum(map(_width, given))
    if used > x.ndim:
        raise IndexingError(op, f"{used} indices for x: {x.type}", "use one index an axis")
    dots = [k for k, e in enumerate(given) if e is Ellipsis]
    if len(dots) > 1:
        raise IndexingError(op, "more than one ... in the index", "use one")
    spot = dots[0] if dots else len(given)
    # NumPy: picks that stand apart, also by a `...` of no axis, put their axes first.
    marks = [
        isinstance(e, Tensor) or (e is not Ellipsis and e is not None and not isinstance(e, slice))
        for e in given
    ]
    spots = [k for k, m in enumerate(marks) if m]
    together = spots[-1] - spots[0] + 1 == len(spots)
    entries = list(enumerate(given))
    entries[spot : spot + len(dots)] = [(-1, slice(None))] * (x.ndim - used)
    basic: list[Any] = []
    pickers: list[tuple[int, int, int, bool]] = []
    picked: list[int] = []
    axis = place_ = 0  # of x, of the view that the basic part makes
    front = None
    for k, e in entries:
        if isinstance(e, Tensor):
            front = place_ if front is None else front
            parts = _parts(op, x, e, axis)
            basic += parts
            pickers.append((k, axis, len(parts), e.dtype is T.bool_))
            picked += range(place_, place_ + len(parts))
            place_ += len(parts)
        elif e is None or isinstance(e, slice):
            basic.append(e)
            place_ += 1
        else:
            front = place_ if front is None else front
            basic.append(e)
        axis += _width(e)
    target = front if together and front is not None else 0
    rest = [a for a in range(place_) if a not in picked]
    order = (*rest[:target], *picked, *rest[target:])
    canonical = basic_index(op, x.shape, tuple(basic))
    whole = len(canonical) == x.ndim and all(e == ("s", 0, n, 1) for e, n in zip(canonical, x.shape))
    return _Plan(
        None if whole else canonical,
        tuple(pickers),
        None if order == tuple(range(place_)) else order,
        target,
        len(picked),
    )


def _parts(op: str, x: Tensor, e: Tensor, axis: int) -> list[Any]:
    """The basic entries that keep the axes under an integer tensor or a mask at an axis of x."""
    if e.dtype is not T.bool_:
        return [slice(None)]
    sizes = x.shape[axis : axis + e.ndim]
    # A mask without elements picks nothing: as in NumPy its sizes 0 fit every axis.
    if len(sizes) != e.ndim or any(m not in (n, 0) for m, n in zip(e.shape, sizes)):
        raise IndexingError(
            op, f"the mask {e.type} does not fit axes {axis} to {axis + e.ndim - 1} of x: {x.type}",
            "make their sizes equal",
        )  # fmt: skip
    # A mask of no axes is a new axis of size 1, taken once or not at all.
    return [slice(None)] * e.ndim if e.ndim else [None]


def _view(x: Tensor, plan: _Plan) -> Tensor:
    """The basic part of an index: a view whose axes under pickers stand together."""
    if plan.index is not None:
        x = dispatch.apply(slice_, (x,), (plan.index,))
    return x if plan.order is None else permute(x, axes=plan.order)


def _positions(op: str, view: Tensor, plan: _Plan, entries: list[Any]) -> tuple[Tensor, Shape]:
    """Flat positions over the axes under pickers, and the shape that replaces these axes."""
    rows = [_mask_places(entries[k]) if masked else entries[k] for k, _, _, masked in plan.pickers]
    if len(rows) == 1:
        return rows[0], rows[0].shape
    shapes = [r.shape for r in rows]
    try:
        count = shapes[0] if shapes.count(shapes[0]) == len(shapes) else T.broadcast_shapes(op, *shapes)
    except ShapeError:
        listed = " and ".join(str(list(s)) for s in shapes)
        raise IndexingError(
            op, f"index tensors of shapes {listed} do not broadcast", "make the sizes equal"
        ) from None
    flat: Any = 0
    a = plan.axis
    for row, (_, axis, depth, _) in zip(rows, plan.pickers):
        n = view.shape[a] if depth == 1 else math.prod(view.shape[a : a + depth])
        flat = dispatch.apply(place, (flat, row if row.dtype is T.int64 else row.to(T.int64), n), (axis,))
        a += depth
    return flat, count


#: canonical basic indices by shape and index as written
_canonical: dict[Any, Any] = {}
_SLICE_PARTS = {int, type(None)}


def _plain(index: Any) -> Any:
    """A key for an index of plain integers, slices of them and `...`; None for any other."""
    cls = index.__class__
    if cls is tuple:
        keys = [_plain(e) for e in index]
        return None if None in keys else tuple(keys)
    if cls is slice:
        start, stop, step = index.start, index.stop, index.step
        if {start.__class__, stop.__class__, step.__class__} <= _SLICE_PARTS:
            return slice, start, stop, step
        return None
    return index if cls is int or index is Ellipsis else None


def _basic(op: str, shape: Shape, index: Any, key: Any) -> Any:
    """The canonical form of a basic index whose key (or None) is known."""
    if key is None or dispatch.state.executor is not dispatch._State.executor:  # in a trace sizes may be live
        return basic_index(op, shape, index)
    found = _canonical.get((shape, key))
    if found is None:
        if len(_canonical) > 10_000:
            _canonical.clear()
        found = _canonical[shape, key] = basic_index(op, shape, index)
    return found


def getitem(x: Tensor, index: Any) -> Tensor:
    """`x[index]`: a view for integers, slices, None and `...`; a copy once a tensor, list or mask is in it."""
    if isinstance(index, Tensor):
        if index.dtype.is_integer and x.shape:
            return dispatch.apply(take, (x, index), (0,))  # type: ignore[no-any-return]
    else:
        key = _plain(index)
        if key is not None or _is_basic(index):
            return dispatch.apply(slice_, (x,), (_basic("getitem", x.shape, index, key),))  # type: ignore[no-any-return]
    plan, entries = _plan("getitem", x, index)
    view = _view(x, plan)
    places, _ = _positions("getitem", view, plan, entries)
    if plan.depth > 1 or plan.pickers[0][3]:
        return dispatch.apply(take_placed, (view, places), (plan.axis, plan.depth))  # type: ignore[no-any-return]
    return dispatch.apply(take, (view, places), (plan.axis,))  # type: ignore[no-any-return]


# ---------------------------------------------------------------- assignment


def _number_for(x: Tensor, value: Any) -> Any:
    """A Python number as x's dtype takes it in an assignment: floats lose their fraction in integers."""
    if x.dtype is T.bool_:
        return bool(value)
    if x.dtype.is_integer and isinstance(value, (bool, float)):
        if value != value or value in (math.inf, -math.inf):
            raise ArgumentTypeError("setitem", f"{value} does not fit {x.dtype}", "assign an integer")
        return int(value)
    return value


def _as_value(x: Tensor, value: Any) -> Any:
    """What is assigned: a number, or a tensor of x's dtype."""
    if isinstance(value, Tensor):
        return value if value.dtype is x.dtype else value.to(x.dtype)
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, (list, tuple, np.ndarray)):
        try:
            array = x.dtype.array(np.asarray(value, x.dtype.way))
        except (TypeError, ValueError, OverflowError):
            what = f"value={brief(value)} does not fit into {x.type}"
            raise ArgumentTypeError("setitem", what, "assign numbers, or a tensor") from None
        value = dispatch.state.executor.constant(array, x.device)
    if not isinstance(value, Tensor):
        if not is_real(value) and not isinstance(value, complex) and not hasattr(value, "__array__"):
            raise ArgumentTypeError("setitem", *unfit("value", value, "a number or a tensor"))
        return _constant(value, x) if x.dtype.is_complex else _number_for(x, value)
    return value if value.dtype is x.dtype else value.to(x.dtype)


def _broadcast(op: str, value: Tensor, shape: Shape) -> Tensor:
    """A value in the shape of what it replaces. Leading axes of size 1 too many are dropped, as NumPy does."""
    if value.shape == shape:
        return value
    extra = value.ndim - len(shape)
    if extra > 0 and all(n == 1 for n in value.shape[:extra]):
        value = reshape(value, shape=value.shape[extra:])
    if value.shape == shape:
        return value
    if value.ndim > len(shape) or T.broadcast_shapes(op, value.shape, shape) != shape:
        raise ShapeError(op, f"{value.type} does not fit into {list(shape)}", "make the sizes equal, or 1")
    return broadcast_to(value, shape=shape)  # type: ignore[no-any-return]


def setitem(x: Tensor, index: Any, value: Any) -> None:
    """`x[index] = value`: in place, recorded on the tape. value broadcasts and takes x's dtype.

    Of equal positions the last one stays. An index outside raises IndexingError in eager mode and is left out in a
    graph.
    """
    _store(x, index, value, False)


def _store(x: Tensor, index: Any, value: Any, add: bool) -> None:
    op = "index_put" if add else "setitem"
    key = None if isinstance(index, Tensor) else _plain(index)
    if key is not None or _is_basic(index):
        view = dispatch.apply(slice_, (x,), (_basic(op, x.shape, index, key),))
        if not add and _is_same_view(value, view):
            return  # `x[index] += v`: the view was changed in place already
        value = _as_value(x, value)
        if not isinstance(value, Tensor):
            if not add and not (view.requires_grad and dispatch.state.grad):
                dispatch.update(full_, (view,), (value,), (view.shape, view.dtype, view.device))
                return
            value = _constant(value, x)
        if value.shape != view.shape:
            value = _broadcast(op, value, view.shape)
        executor = dispatch.state.executor
        executor.write(executor.face(view), executor.face(view + value if add else value))
        return
    value = _as_value(x, value)
    if not add and _fills(x, index, value):
        return
    plan, entries = _plan(op, x, index)
    view = _view(x, plan)
    places, count = _positions(op, view, plan, entries)
    if isinstance(value, Tensor):
        shape = view.shape
        value = _broadcast(op, value, (*shape[: plan.axis], *count, *shape[plan.axis + plan.depth :]))
    dispatch.apply_in_place(put_slices, view, (view, places, value), (plan.axis, plan.depth, add))


def _is_same_view(value: Any, view: Tensor) -> bool:
    return (
        isinstance(value, Tensor) and value._base is not None
        and value._base is view._base and value._view == view._view
    )  # fmt: skip


def _constant(value: Any, x: Tensor) -> Tensor:
    from .creation import full

    if x.dtype.is_complex:
        return dispatch.state.executor.constant(np.asarray(value, x.dtype.np), x.device)
    return full((), value, x.dtype, x.device)  # type: ignore[no-any-return]


def _fills(x: Tensor, index: Any, value: Any) -> bool:
    """Assign one number under a mask: no positions are looked for. False when it is something else."""
    if isinstance(index, np.ndarray) and index.dtype == bool and index.ndim:
        index = dispatch.state.executor.constant(index, x.device)
    if not (isinstance(index, Tensor) and index.dtype is T.bool_ and index.ndim):
        return False
    if index.shape != x.shape[: index.ndim] or (isinstance(value, Tensor) and value.size != 1):
        return False
    if isinstance(value, Tensor) and value.ndim:
        if value.ndim > x.ndim - index.ndim + 1:
            return False
        value = reshape(value, shape=())
    mask = reshape(index, shape=(*index.shape, *(1,) * (x.ndim - index.ndim)))
    if x.dtype is not T.bool_ and isinstance(value, bool):
        value = int(value)
    dispatch.apply_in_place(where, x, (mask, value, x), ())
    return True


@public
def where_(condition: Any, x: Any = None, y: Any = None) -> Any:
    """x where the condition is true, else y; with the condition alone, the index of each true element per axis.

    condition: bool (numbers count as true when not 0); all three broadcast. Returns: the promoted dtype of x and y; of
    one argument a tuple, as `dg.nonzero`. Raises: ArgumentTypeError when only one of x and y is given.
    """
    if x is not None and y is not None:
        return where(condition, x, y)
    if x is not None or y is not None:
        raise ArgumentTypeError("where", "got only one of x and y", "pass both, or the condition alone")
    from .search import nonzero

    return nonzero(condition)


@public
def index_put(x: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """A copy of x with `x[indices]` replaced by values (broadcast), or with values added to it.

    indices: as in `x[...]`, a tuple for several axes. accumulate: equal positions add up, in the order of the index.
    """
    return index_put_(x.clone(), indices, values, accumulate)


def index_put_(x: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """`x[indices] = values` in place, or `+=` with equal positions adding up. Returns: x."""
    _store(x, tuple(indices) if isinstance(indices, list) else indices, values, accumulate)
    return x
