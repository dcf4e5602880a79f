"""The builder `o` that ONNX rules of ops call: it names, types and collects the nodes of the model.

`o.<OpType>(*inputs, **attributes)` adds a node and returns its output; the rest (`o.const`, `o.ints`,
`o.reduce`, ...) are the few words that rules share. Attribute values may hold `Dim`s: sizes that change with
a dynamic axis; `o.ints` turns them into computations on shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...core import types as T
from ...core.types import DTYPES, DType
from .dimension import Dim, Factor, Rest, is_dynamic, solve, solve_float
from .dtypes import from_code, from_schema, to_code, to_schema

#: where an op does not take a dtype: what to compute in instead, narrowest first
_WIDER = ("int32", "int64", "float32", "float64")


class Unavailable(Exception):
    """The opset has no such op, or not with these attributes: the caller writes it in another way."""


class Inexpressible(Exception):
    """Something ONNX cannot say; the message names it."""


class Handle:
    """A tensor of the model under construction. dtype and shape are None where nobody needs them."""

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, name: str, dtype: DType | None, shape: tuple[Any, ...] | None = None):
        self.name, self.dtype, self.shape = name, dtype, shape

    @property
    def ndim(self) -> int:
        assert self.shape is not None
        return len(self.shape)

    @property
    def size(self) -> Any:
        out: Any = 1
        for n in self.shape or ():
            out = n * out
        return out


class Step:
    """One node to be. `op` and `line` say which call of the user it comes from."""

    __slots__ = ("attrs", "inputs", "line", "name", "op", "op_type", "outputs")

    def __init__(
        self,
        op_type: str,
        inputs: list[Handle | None],
        outputs: list[Handle],
        attrs: dict[str, Any],
        name: str,
    ):
        self.op_type, self.inputs, self.outputs, self.attrs, self.name = op_type, inputs, outputs, attrs, name
        self.op = self.line = ""

    def reads(self) -> set[Handle]:
        """What it reads: its inputs, and what its subgraphs read from outside."""
        found = {h for h in self.inputs if h is not None}
        for v in self.attrs.values():
            if hasattr(v, "reads"):
                found |= v.reads()
        return found

    def proto(self) -> onnx.NodeProto:
        inputs = ["" if h is None else h.name for h in self.inputs]
        attrs = {k: self.attrs[k] for k in sorted(self.attrs)}
        attrs = {k: v.proto() if hasattr(v, "reads") else v for k, v in attrs.items()}
        node = helper.make_node(self.op_type, inputs, [h.name for h in self.outputs], self.name, **attrs)
        if self.line:
            node.metadata_props.add(key="duograd.line", value=self.line)
        return node


class Builder:
    # What rules may raise without importing this module.
    Unavailable, Inexpressible = Unavailable, Inexpressible

    """Collects steps. `begin` starts the rule of one op call; its first inputs' sizes are preferred in formulas."""

    def __init__(self, opset: int):
        self.opset = opset
        self.constants: list[Step] = []
        self.steps: list[Step] = []
        self.out_dtype: DType | None = None
        self.op = self.line = ""
        self.prefix = ""
        self._count: dict[str, int] = {}
        self._known: dict[tuple[int, ...], tuple[Handle, int | None]] = {}
        self._near: dict[tuple[int, ...], tuple[Handle, int | None]] = {}
        self._literals: dict[Any, Handle] = {}
        self._numbers: dict[Handle, np.ndarray] = {}
        self.computed: dict[Any, Any] = {}
        self._taken: set[str] = set()

    # -- names and steps --------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """`name`, with a number when it is taken."""
        found, k = name, 1
        while found in self._taken:
            found, k = f"{name}_{k}", k + 1
        self._taken.add(found)
        return found

    def begin(
        self, op: str, line: str, inputs: Sequence[Any], out_dtype: DType | None, scope: str = ""
    ) -> None:
        """Start the rule of an op call. scope: the path of the module that made it, which begins its names."""
        number = self._count.get(op, 0)
        self._count[op] = number + 1
        self.op, self.line, self.prefix = op, line, f"{scope}/{op}_{number}" if scope else f"{op}_{number}"
        self.out_dtype = out_dtype
        self._near = {}
        for x in inputs:
            if isinstance(x, Handle):
                self._note(x, self._near)

    def mark(self) -> Any:
        """The state to go back to when a rule turns out not to fit."""
        return len(self.steps), dict(self.computed)

    def rollback(self, mark: Any) -> None:
        """Forget what was added since `mark`; constants may stay."""
        del self.steps[mark[0] :]
        self.computed = mark[1]

    def enter(self) -> Any:
        """Begin a subgraph: what is written from now on belongs to it. Returns what `leave` takes."""
        kept = self.steps, dict(self.computed), dict(self._known)
        self.steps = []
        return kept

    def leave(self, kept: Any) -> None:
        """End a subgraph: nothing computed in it can be read outside. Constants stand outside and stay."""
        self.steps, self.computed, self._known = kept

    def add(
        self, op_type: str, inputs: list[Handle | None], attrs: dict[str, Any], dtypes: list[DType | None]
    ) -> list[Handle]:
        """A node with subgraphs among its attributes."""
        self.schema(op_type)
        return self._append(op_type, inputs, attrs, dtypes)

    def know(self, handle: Handle) -> Handle:
        """Make the sizes of a tensor available to formulas."""
        self._note(handle, self._known)
        return handle

    def read(self, handle: Handle, vector: tuple[int, ...]) -> None:
        """Make the number in a one-element tensor available to formulas."""
        self._known.setdefault(vector, (handle, None))

    def _note(self, handle: Handle, table: dict[tuple[int, ...], tuple[Handle, int | None]]) -> None:
        for axis, n in enumerate(handle.shape or ()):
            if isinstance(n, Dim):
                table.setdefault(n.vector, (handle, axis))

    def _append(
        self, op_type: str, inputs: list[Handle | None], attrs: dict[str, Any], dtypes: list[DType | None]
    ) -> list[Handle]:
        name = self.unique(f"{self.prefix}/{op_type}")
        outputs = [
            Handle(self.unique(f"{name}:{k}" if k else f"{name}:out"), d) for k, d in enumerate(dtypes)
        ]
        step = Step(op_type, inputs, outputs, attrs, name)
        step.op, step.line = self.op, self.line
        self.steps.append(step)
        return outputs

    def __getattr__(self, name: str) -> Any:
        if name in onnx.TensorProto.DataType.keys():  # noqa: SIM118 (a wrapper, not a dict)
            return onnx.TensorProto.DataType.Value(name)
        if not name[:1].isupper():
            raise AttributeError(f"the builder of ONNX rules has no {name!r}")
        return lambda *inputs, **attrs: self.node(name, inputs, attrs)

    def needs(self, opset: int) -> None:
        """Raise Unavailable below an opset: what follows means something else there."""
        if self.opset < opset:
            raise Unavailable(f"this form is not in opset {self.opset}")

    def schema(self, op_type: str) -> Any:
        """The op's schema in this opset. Raises Unavailable."""
        if not onnx.defs.has(op_type, max_inclusive_version=self.opset) or (
            (found := onnx.defs.get_schema(op_type, self.opset)).deprecated
        ):
            raise Unavailable(f"{op_type} is not in opset {self.opset}")
        return found

    def node(self, op_type: str, inputs: Sequence[Any], attrs: dict[str, Any], n_outputs: int = 1) -> Any:
        """Add a node; inputs of dtypes that the op does not take, or of several, are converted, and outputs back."""
        schema = self.schema(op_type)
        attrs = {k: v for k, v in attrs.items() if v is not None}
        for key, value in attrs.items():
            if key not in schema.attributes:
                raise Unavailable(f"{op_type} has no attribute {key} in opset {self.opset}")
            if is_dynamic(value):
                raise Inexpressible(f"{op_type}'s attribute {key} would have to change with a dynamic size")
        row: list[Any] = list(inputs)
        while row and row[-1] is None:
            row.pop()
        allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
        formal = schema.inputs
        back: dict[str, DType] = {}
        types: dict[str, DType] = {}
        for k, x in enumerate(row):
            if x is None or x.dtype is None:
                continue
            kind = formal[min(k, len(formal) - 1)].type_str
            if kind in allowed and to_schema(x.dtype) not in allowed[kind]:
                wide = self._wide(op_type, x.dtype, allowed[kind])
                if not (wide.is_float and self.out_dtype is not None and self.out_dtype.is_float):
                    back.setdefault(kind, x.dtype)
                row[k] = self.cast(x, wide)
            if formal[min(k, len(formal) - 1)].is_homogeneous:
                types[kind] = T.promote(types.get(kind, row[k].dtype), row[k].dtype)
        for k, x in enumerate(row):  # ONNX promotes nothing: what shares a type is one
            kind = formal[min(k, len(formal) - 1)].type_str
            if x is not None and kind in types and x.dtype not in (None, types[kind]):
                row[k] = self.cast(x, types[kind])
        if T.float64 in types.values():
            for key, value in attrs.items():
                if isinstance(value, float) and float(np.float32(value)) != value:
                    raise Unavailable(f"{op_type}'s {key}={value} is a float32 in ONNX")
        dtypes = []
        for k in range(n_outputs):
            kind = schema.outputs[min(k, len(schema.outputs) - 1)].type_str
            dtypes.append(
                from_code(attrs["to"])
                if op_type in ("Cast", "BitCast")
                else types.get(kind)
                or from_schema(next(iter(allowed[kind])) if len(allowed.get(kind, ())) == 1 else kind)
            )
        outputs = list(self._append(op_type, row, attrs, dtypes))
        for k, h in enumerate(outputs):
            kind = schema.outputs[min(k, len(schema.outputs) - 1)].type_str
            if kind in back:
                outputs[k] = self.cast(h, back[kind])
        return outputs[0] if n_outputs == 1 else outputs

    def _wide(self, op_type: str, dtype: DType, allowed: set[str]) -> DType:
        for name in _WIDER:
            wide = DTYPES[name]
            holds = wide.itemsize > dtype.itemsize or dtype.is_float == wide.is_float or dtype is T.bool_
            if to_schema(wide) in allowed and holds and wide.rank >= dtype.rank:
                return wide
        raise Inexpressible(f"{op_type} of opset {self.opset} does not take {dtype}")

    # -- words of the rules -----------------------------------------------------------------

    def dtype(self, dtype: DType) -> int:
        """The number ONNX gives a dtype."""
        return to_code(dtype)

    def cast(self, x: Handle, dtype: DType) -> Handle:
        """x as dtype; x itself when it is that."""
        if x.dtype is dtype:
            return x
        out = self._append("Cast", [x], {"to": to_code(dtype)}, [dtype])[0]
        out.shape = x.shape
        return out

    def literal(self, array: np.ndarray) -> Handle:
        """A constant tensor; equal ones are one."""
        array = np.asarray(array, order="C")
        key = (array.dtype.name, array.shape, array.tobytes())
        found = self._literals.get(key)
        if found is None:
            name = self.unique(f"constant_{len(self._literals)}")
            found = self._literals[key] = Handle(name, DTYPES[array.dtype.name], array.shape)
            value = numpy_helper.from_array(array)
            self.constants.append(Step("Constant", [], [found], {"value": value}, name))
            self._numbers[found] = array
        return found

    def number(self, x: Handle) -> Any:
        """The number in a 0-d constant of the rules; None for other tensors."""
        array = self._numbers.get(x)
        return None if array is None or array.ndim else array.item()

    def const(self, value: Any, like: Handle | DType) -> Handle:
        """A number as a 0-d tensor of another's dtype; one that follows a dynamic size is computed."""
        dtype = like.dtype if isinstance(like, Handle) else like
        assert dtype is not None
        if isinstance(value, Dim):
            return self.cast(self.Reshape(self.ints((value,)), self.literal(np.zeros(0, np.int64))), dtype)
        if isinstance(value, Factor):
            return self._factor(value, dtype)
        return self.literal(dtype.array(value))

    def ints(self, row: Sequence[Any]) -> Handle:
        """A 1-D int64 tensor of sizes, some of which may follow dynamic axes."""
        row = tuple(row)
        if not is_dynamic(row):
            return self.literal(np.array(row, np.int64))
        parts: list[Handle] = []
        run: list[int] = []
        for n in row:
            if isinstance(n, Dim):
                if run:
                    parts.append(self.literal(np.array(run, np.int64)))
                    run = []
                parts.append(self._size(n))
            else:
                run.append(int(n))
        if run:
            parts.append(self.literal(np.array(run, np.int64)))
        out = parts[0] if len(parts) == 1 else self.Concat(*parts, axis=0)
        out.shape = (len(row),)
        return out

    def _sources(self) -> dict[tuple[int, ...], tuple[Handle, int | None]]:
        return {**self._near, **{k: v for k, v in self._known.items() if k not in self._near}}

    def _read_size(self, handle: Handle, axis: int | None) -> Handle:
        key = ("size", handle.name, axis)
        if key not in self.computed and axis is None:
            number = self.cast(handle, T.int64)
            self.computed[key] = self.Reshape(number, self.literal(np.array([1], np.int64)))
        if key not in self.computed:
            shape_key = ("shape", handle.name)
            if shape_key not in self.computed:
                self.computed[shape_key] = self.Shape(handle)
            self.computed[key] = self.Gather(
                self.computed[shape_key], self.literal(np.array([axis], np.int64)), axis=0
            )
        return self.computed[key]

    def _product(self, factors: Sequence[tuple[int, ...]]) -> Handle:
        sources = self._sources()
        out = self._read_size(*sources[factors[0]])
        for f in factors[1:]:
            out = self.Mul(out, self._read_size(*sources[f]))
        return out

    def _size(self, n: Dim) -> Handle:
        """A [1] tensor that holds a dynamic size."""
        key = ("formula", n.vector)
        if key in self.computed:
            return self.computed[key]
        form = solve(n.vector, list(self._sources()))
        if form is None:
            raise Inexpressible(
                f"a size is {list(n.vector)} in traces of different sizes; no formula in input sizes fits"
            )
        whole = lambda v: self.literal(np.array([v], np.int64))
        if isinstance(form, Rest):
            out = self.computed[key] = self._rest(form, whole)
            return out
        out = self._product(form.factors)
        if form.p != 1:
            out = self.Mul(out, whole(form.p))
        if form.r:
            out = self.Add(out, whole(form.r))
        if form.q != 1:
            out = self.Div(out, whole(form.q))
        self.computed[key] = out
        return out

    def _rest(self, form: Rest, whole: Callable[[int], Handle]) -> Handle:
        u = self._read_size(*self._sources()[form.u])
        w = u if form.sign == 1 else self.Neg(u)
        if form.r:
            w = self.Add(w, whole(form.r))
        w = self.Mod(w, whole(form.m))
        return w if form.side == 0 else self.Add(u, w) if form.side == 1 else self.Sub(u, w)

    def _factor(self, value: Factor, dtype: DType) -> Handle:
        form = solve_float(value.vector, list(self._sources()))
        if form is None:
            raise Inexpressible(
                f"a number is {[round(v, 6) for v in value.vector]} in traces of different sizes; no formula fits"
            )
        # In float64, as Python computed it, and rounded once at the end.
        scalar = lambda v: self.literal(np.asarray(v, np.float64))
        out = self.cast(
            self.Reshape(self._product(form.factors), self.literal(np.zeros(0, np.int64))), T.float64
        )
        if form.over:
            out = self.Div(scalar(1.0), out)
        if form.slope != 1:
            out = self.Mul(out, scalar(form.slope))
        if form.offset:
            out = self.Add(out, scalar(form.offset))
        if form.transform in ("sqrt", "rsqrt"):
            out = self.Sqrt(out)
        if form.transform in ("reciprocal", "rsqrt"):
            out = self.Div(scalar(1.0), out)
        return self.cast(out, dtype)
