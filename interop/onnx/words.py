"""Words of ONNX rules that stand for several nodes: reshape, reductions, constants, slices, one-hot, dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

from ...core import types as T
from ...core.types import DType
from .builder import Builder, Handle, Inexpressible, Unavailable
from .dimension import Dim, Factor, is_dynamic, values
from .dtypes import to_code
from .subgraph import formal, subgraph

_INT_MAX, _INT_MIN = 2**63 - 1, -(2**63)
#: ways to combine old and new values: ONNX's word, the opset from which ScatterElements knows it, the ops
_REDUCTIONS = {
    "add": ("add", 16, "Add", "ReduceSum"), "multiply": ("mul", 16, "Mul", "ReduceProd"),
    "maximum": ("max", 18, "Max", "ReduceMax"), "minimum": ("min", 18, "Min", "ReduceMin"),
}  # fmt: skip


def _neutral(word: str, dtype: DType) -> Any:
    """What changes nothing when it is combined."""
    if word in ("add", "mul"):
        return int(word == "mul")
    if dtype.is_float:
        return -np.inf if word == "max" else np.inf
    if dtype is T.bool_:
        return word == "min"
    limits = np.iinfo(dtype.np)
    return limits.min if word == "max" else limits.max


class RuleBuilder(Builder):
    """The whole of what a rule may call."""

    def since(self, opset: int) -> None:
        """Refuse the rule before an opset; the op is written in another way then."""
        if self.opset < opset:
            raise Unavailable(f"the op is used from opset {opset} on")

    def loop(
        self, goes: Handle, state: Sequence[Handle], turn: Callable[..., Sequence[Handle]]
    ) -> list[Handle]:
        """The state after a Loop. turn: from a state, whose shapes stay, to whether it goes on, and the next state."""
        count, again = formal(self, "turn", T.int64, ()), formal(self, "goes", T.bool_, ())
        carry = [formal(self, f"state_{k}", h.dtype, h.shape) for k, h in enumerate(state)]
        graph = subgraph(self, "body", [count, again, *carry], lambda: list(turn(*carry)))
        return self.add("Loop", [None, goes, *state], {"body": graph}, [h.dtype for h in state])

    def not_float64(self, x: Handle) -> None:
        """Refuse a rule whose op a runtime works out in float32 at most; the op is written in parts then."""
        if x.dtype is T.float64:
            raise Unavailable("runtimes work this op out in float32")

    def reshape(self, x: Handle, shape: Sequence[Any]) -> Handle:
        """Reshape; a dynamic size becomes 0 (as in x), -1 (what is left) or a computation."""
        shape = list(shape)
        moving = [k for k, n in enumerate(shape) if isinstance(n, Dim)]
        old = x.shape or ()
        zero = any(n == 0 for n in shape)
        if moving and not zero:
            same = [
                k
                for k in moving
                if k < len(old) and isinstance(old[k], Dim) and old[k].vector == shape[k].vector
            ]
            rest = [k for k in moving if k not in same]
            if not rest:
                rest = [same.pop(0)]
            if len(rest) == 1:
                shape[rest[0]] = -1
                for k in same:
                    shape[k] = 0
        # allowzero came with opset 14; before, a 0 means "as in x", which for a size 0 at its place is the same.
        if zero and self.opset < 14 and x.dtype is not None and any(
            n == 0 and (k >= len(old) or old[k] != 0) for k, n in enumerate(shape)
        ):  # fmt: skip
            return self.full(shape, 0, x.dtype)  # nothing is in it
        target = self.ints(shape)
        return self.Reshape(x, target, **({"allowzero": 1} if zero and self.opset >= 14 else {}))

    def reduce(self, name: str, x: Handle, axis: Any, keepdims: bool) -> Handle:
        """A reduction; axes are an input from opset 13 (ReduceSum) or 18 (the others) on."""
        if (
            name in ("ReduceSum", "ReduceProd", "ReduceMean", "ReduceLogSumExp")
            and self.out_dtype is not None
        ):
            x = self.cast(x, self.out_dtype)
        if axis == ():
            return x
        axes = None if axis is None else [axis] if isinstance(axis, int) else list(axis)
        attrs: dict[str, Any] = {"keepdims": int(keepdims)}
        if axes is None:
            return self.node(name, (x,), attrs)  # type: ignore[no-any-return]
        if "axes" in self.schema(name).attributes:
            return self.node(name, (x,), {**attrs, "axes": axes})  # type: ignore[no-any-return]
        return self.node(name, (x, self.ints(axes)), attrs)  # type: ignore[no-any-return]

    def arg(self, name: str, x: Handle, axis: int | None, keepdims: bool) -> Handle:
        """ArgMax or ArgMin; axis None means the flat index."""
        if axis is not None:
            return self.node(name, (x,), {"axis": axis, "keepdims": int(keepdims)})  # type: ignore[no-any-return]
        flat = self.Reshape(x, self.literal(np.array([-1], np.int64)))
        out = self.node(name, (flat,), {"axis": 0, "keepdims": 0})
        return self.Reshape(out, self.literal(np.ones(x.ndim, np.int64))) if keepdims else out

    def full(self, shape: Sequence[Any], value: Any, dtype: DType) -> Handle:
        """A tensor filled with one number (or with a 0-d tensor)."""
        if isinstance(value, (Handle, Factor, Dim)):
            return self.Expand(
                self.cast(value, dtype) if isinstance(value, Handle) else self.const(value, dtype),
                self.ints(shape),
            )
        cell = dtype.array(value)
        size = 1
        for n in shape:
            size *= int(n)
        if not is_dynamic(tuple(shape)) and size <= 16:
            return self.literal(np.full(tuple(shape), cell))
        out = self.node(
            "ConstantOfShape", (self.ints(shape),), {"value": numpy_helper.from_array(cell.reshape(1))}
        )
        out.dtype = dtype
        return out  # type: ignore[no-any-return]

    def counted(self, start: Any, step: Any, size: Any, dtype: DType) -> Handle:
        """`start + step * i` for i below size."""
        known = [not isinstance(v, (Handle, Dim, Factor)) for v in (start, step, size)]
        work = T.float64 if dtype.is_float else T.int64
        if all(known) and size <= 16:
            positions = np.arange(size, dtype=work.np)
            return self.literal(dtype.array(work.np.type(start) + work.np.type(step) * positions))
        i = self.cast(self.Range(*(self.const(v, T.int64) for v in (0, size, 1))), work)
        if not (known[1] and step == 1):
            i = self.Mul(i, self._number(step, work))
        if not (known[0] and start == 0):
            i = self.Add(i, self._number(start, work))
        return self.cast(i, dtype)

    def _number(self, value: Any, dtype: DType) -> Handle:
        return self.cast(value, dtype) if isinstance(value, Handle) else self.const(value, dtype)

    def fixed(self, row: Sequence[Any]) -> list[int] | None:
        """Numbers as an attribute, or None where one follows a dynamic axis."""
        return None if is_dynamic(tuple(row)) else [int(n) for n in row]

    def least(self, a: int, b: int) -> Any:
        """The smaller of two sizes, which may follow dynamic axes."""
        return a.least(b) if isinstance(a, Dim) else b.least(a) if isinstance(b, Dim) else min(a, b)

    def random(self, name: str, shape: Sequence[Any], dtype: DType) -> Handle:
        """A tensor of RandomUniform or RandomNormal."""
        drawn = dtype if dtype in (T.float16, T.float32, T.float64) else T.float32
        code = to_code(drawn)
        if is_dynamic(tuple(shape)):
            out = self.node(f"{name}Like", (self.full(shape, 0, drawn),), {"dtype": code})
        else:
            out = self.node(name, (), {"dtype": code, "shape": [int(n) for n in shape] or [1]})
            if not shape:  # helper.make_node cannot write an empty list
                out = self.Reshape(out, self.literal(np.zeros(0, np.int64)))
        out.dtype, out.shape = drawn, tuple(shape)
        return self.cast(out, dtype)

    def product(self, a: Any, b: Any) -> Any:
        """The product of two numbers, either of which may follow a dynamic size."""
        return self._each(lambda x, y: x * y, a, b)

    def quotient(self, a: Any, b: Any) -> Any:
        """a / b of numbers, either of which may follow a dynamic size."""
        return self._each(lambda x, y: x / y, a, b)

    def _each(self, fn: Any, a: Any, b: Any) -> Any:
        rows = max((len(v.vector) for v in (a, b) if is_dynamic(v)), default=0)
        if not rows:
            return fn(a, b)
        row = [fn(x, y) for x, y in zip(values(a, rows), values(b, rows))]
        same = all(abs(v - row[0]) <= 1e-12 * abs(row[0]) for v in row)
        return row[0] if same else Factor(row)

    def eye(self, rows: Any, columns: Any, offset: int, dtype: DType) -> Handle:
        """Ones on a diagonal."""
        if not is_dynamic((rows, columns, offset)) and rows * columns <= 64:
            return self.literal(np.eye(rows, columns, offset, dtype.np))
        base = self.full((rows, columns), 0, dtype)
        return self.EyeLike(base, k=offset, dtype=to_code(dtype))

    def one_hot(self, x: Handle, num_classes: int, dtype: DType) -> Handle:
        """Ones where the class is x. (OneHot itself would take -1 for the last class.)"""
        wide = self.Unsqueeze(self.cast(x, T.int64), self.ints((-1,)))
        return self.cast(self.Equal(wide, self.counted(0, 1, num_classes, T.int64)), dtype)

    def scatter_add(self, dy: Handle, index: Handle, size: Any, axis: int) -> Handle:
        """dy added up into zeros at the slices that index names (along axis)."""
        assert dy.shape is not None
        zeros = self.full((*dy.shape[:axis], size, *dy.shape[axis + index.ndim :]), 0, dy.dtype)  # type: ignore[arg-type]
        zeros.shape = (*dy.shape[:axis], size, *dy.shape[axis + index.ndim :])
        return self.scatter_slices(zeros, index, dy, axis, 1, "add")

    def scatter(self, x: Handle, index: Handle, v: Handle, axis: int, reduction: str | None) -> Handle:
        """Elements of v written over (or combined with) those of x at positions along an axis.

        Where the opset combines nothing, a mask says which element meets which, and a reduction over it combines
        them: memory is that of index times the axis.
        """
        if reduction is None:
            return self.ScatterElements(x, index, v, axis=axis)  # type: ignore[no-any-return]
        word, since, join, reduce = _REDUCTIONS[reduction]
        if self.opset >= since:
            return self.ScatterElements(x, index, v, axis=axis, reduction=word)  # type: ignore[no-any-return]
        assert x.shape is not None
        assert x.dtype is not None
        n, last = x.shape[axis], self.ints((-1,))
        index = self.Where(
            self.Less(index, self.const(0, T.int64)), self.Add(index, self.const(n, T.int64)), index
        )
        hit = self.Equal(self.Unsqueeze(index, last), self.counted(0, 1, n, T.int64))
        met = self.Where(hit, self.Unsqueeze(v, last), self.const(_neutral(word, x.dtype), x.dtype))
        found = self.reduce(reduce, met, axis, False)
        order = list(range(x.ndim - 1))
        order.insert(axis, x.ndim - 1)
        return self.node(join, (x, self.Transpose(found, perm=order)), {})  # type: ignore[no-any-return]

    def reduction(self, name: str | None) -> str | None:
        """ONNX's word for a way to combine. Raises Unavailable where the opset has it not."""
        if name is None:
            return None
        word, since, *_ = _REDUCTIONS[name]
        self.needs(since)
        return word

    def scatter_slices(
        self, x: Handle, index: Handle, v: Any, axis: int, depth: int, reduction: str | None
    ) -> Handle:
        """v written over (or combined with) slices of x at flat positions of `depth` axes from `axis` on."""
        assert x.shape is not None
        lead, rest = x.shape[:axis], x.shape[axis + depth :]
        size: Any = 1
        for n in x.shape[axis : axis + depth]:
            size = n * size
        count: Any = 1
        for n in index.shape or ():
            count = n * count
        rows = (*lead, count, *rest)
        flat = x if depth == 1 else self.reshape(x, (*lead, size, *rest))
        flat.shape = (*lead, size, *rest)
        places = self.reshape(
            self.cast(index, T.int64), [count if a == axis else 1 for a in range(len(rows))]
        )
        if isinstance(v, Handle):
            v = self.reshape(v, rows)
        else:
            v = self.Expand(self._number(v, x.dtype), self.ints(rows))  # type: ignore[arg-type]
        out = self.scatter(flat, self.Expand(places, self.ints(rows)), v, axis, reduction)
        return out if depth == 1 else self.reshape(out, x.shape)  # type: ignore[no-any-return]

    def dropout(self, x: Handle, p: float, training: bool) -> Handle:
        """Dropout; identity at inference unless `training`."""
        mode = (self.literal(np.asarray(True)),) if training else ()
        return self.Dropout(x, self.literal(np.asarray(p, np.float32)), *mode)

    # -- slices ---------------------------------------------------------------------------------

    def slice(self, x: Handle, index: Sequence[Any]) -> Handle:
        """Slices, integers and new axes: Slice or Gather, Squeeze, Unsqueeze."""
        assert x.shape is not None
        cuts: list[tuple[int, Any, Any, int]] = []
        gone: list[int] = []
        new: list[int] = []
        axis = place = 0
        for e in index:
            if e[0] == "n":
                new.append(place)
                place += 1
                continue
            n = x.shape[axis]
            if e[0] == "i":
                cuts.append((axis, *_one(e[1], n), 1))
                gone.append(axis)
            else:
                place += 1
                if (cut := _cut(e[1], e[2], e[3], n)) is not None:
                    cuts.append((axis, *cut, e[3]))
            axis += 1
        if len(cuts) == 1 and len(gone) == 1:
            x = self.Gather(x, self._number(cuts[0][1], T.int64), axis=gone[0])
        else:
            if cuts:
                axes, starts, ends, steps = zip(*cuts)
                x = self.Slice(x, self.ints(starts), self.ints(ends), self.ints(axes), self.ints(steps))
            if gone:
                x = self.Squeeze(x, self.ints(gone))
        return self.Unsqueeze(x, self.ints(new)) if new else x

    def slice_update(self, x: Handle, y: Any, index: Sequence[Any]) -> Handle:
        """x with a slice replaced: y is spread to its places and chosen there by a constant mask."""
        assert x.shape is not None
        y = self._number(y, x.dtype)  # type: ignore[arg-type]
        part = [1 if e[0] == "n" else e[2] for e in index if e[0] != "i"]
        kept = [e[2] for e in index if e[0] == "s"]
        gone, spread = [], []
        mask = np.ones((1,) * x.ndim, bool)
        entries = [e for e in index if e[0] != "n"]
        for axis, (e, n) in enumerate(zip(entries, x.shape)):
            if e[0] == "s" and _cut(e[1], e[2], e[3], n) is None:
                continue
            if is_dynamic((n, *e)):
                raise Inexpressible("assigning to a part of a dynamic axis")
            spot = np.zeros(n, bool)
            if e[0] == "i":
                spot[e[1]] = True
                gone.append(axis)
            else:
                places = e[1] + e[3] * np.arange(e[2])
                spot[places] = True
                source = np.zeros(n, np.int64)
                source[places] = np.arange(e[2])
                spread.append((axis - len(gone), source))
            mask = mask & spot.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        if not mask.any():
            return x
        if y.shape:
            y = self._expand(y, part)
            if len(kept) != len(part):
                y = self.reshape(y, kept)
            for axis, source in spread:
                y = self.Gather(y, self.literal(source), axis=axis)
            if gone:
                y = self.Unsqueeze(y, self.ints(gone))
        return self.Where(self.literal(mask), y, x)  # type: ignore[no-any-return]

    def _expand(self, y: Handle, shape: Sequence[Any]) -> Handle:
        out: Handle = self.Expand(y, self.ints(shape))
        out.shape = tuple(shape)
        return out


def _one(k: Any, n: Any) -> tuple[Any, Any]:
    """Start and end of a single position; counted from the end when it moves with the size."""
    if isinstance(n, Dim) and isinstance(k, Dim) and not isinstance(k - n, Dim):
        back = int(k - n)
        return back, back + 1 if back != -1 else _INT_MAX
    return k, k + 1


def _cut(start: Any, count: Any, step: int, n: Any) -> tuple[Any, Any] | None:
    """Start and end of a Slice, or None when it takes the whole axis as it is."""
    rows = len(n.vector) if isinstance(n, Dim) else len(count.vector) if isinstance(count, Dim) else 1
    starts, counts, sizes = values(start, rows), values(count, rows), values(n, rows)
    if step == 1 and all(a == 0 and c == m for a, c, m in zip(starts, counts, sizes)):
        return None
    if step > 0:
        reaches = all(a + c * step >= m for a, c, m in zip(starts, counts, sizes))
        if isinstance(start, Dim) and not isinstance(start - n, Dim) and int(start - n) < 0:
            start = int(start - n)
        if reaches:
            return start, _INT_MAX
        end = start + count * step
        if isinstance(end, Dim) and isinstance(n, Dim) and not isinstance(end - n, Dim) and int(end - n) < 0:
            return start, int(end - n)
        return start, end
    reaches = all(a + c * step < 0 for a, c in zip(starts, counts))
    if isinstance(start, Dim) and not isinstance(start - n, Dim) and int(start - n) < 0:
        start = int(start - n)
    if reaches:
        return start, _INT_MIN
    return start, start + count * step
