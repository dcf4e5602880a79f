"""The eager executor: each op runs at once, through a program kept by the signature of its call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core import dispatch, vjp
from ..core.backend import Operand, Program, Scalar, get_backend, normalize_device, scalar_bits
from ..core.errors import ArgumentTypeError, AutogradError, DeviceError, ShapeError, user_frame
from ..core.lower import copy
from ..core.op import REGISTRY, Attrs, Op
from ..core.op_lower import lower_op
from ..core.types import TensorType, check_scalar_range
from ..core.value import Tensor
from .tensor import EagerTensor, Layout, from_numpy, layout, share_numpy

_NUMBERS = frozenset((int, float, bool))


class Recipe(NamedTuple):
    """How to run one signature: output layouts and the loaded program."""

    outputs: tuple[tuple[Layout, int], ...]
    executable: Any
    backend: Any
    scalars: tuple[tuple[int, Any], ...]
    scratch_bytes: int
    check: Any


class ViewRecipe(NamedTuple):
    """A view: layout and byte offset from the input's start."""

    layout: Layout
    offset: int


class TransferRecipe(NamedTuple):
    """Inputs go to another device: they are the result, or the op runs on them there."""

    device: str


class EagerExecutor:
    """Runs ops at once. Recipes are bounded: the table is emptied when it has grown past 20,000 signatures."""

    #: what graph mode needs to make and share eager tensors
    tensor_class = EagerTensor
    layout = staticmethod(layout)
    share = staticmethod(share_numpy)

    def __init__(self) -> None:
        self._recipes: dict[Any, Any] = {}

    # -- the door's side --------------------------------------------------------------------

    def prepare(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tensor = False
        for x in inputs:
            cls = x.__class__
            if cls is EagerTensor:
                tensor = True
                if x._base is not None and x._seen != x._storage.tape_version:
                    self._refresh(x)
            elif cls not in _NUMBERS and x is not None:
                if isinstance(x, EagerTensor):
                    tensor = True
                else:
                    return self._convert(op, inputs)
        return inputs if tensor or op.creates or not inputs else self._convert(op, inputs)

    def _convert(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        out: list[Any] = []
        for x in inputs:
            if isinstance(x, Tensor) and not isinstance(x, EagerTensor):
                x._leaked(op.name)  # type: ignore[attr-defined]
            if isinstance(x, (np.ndarray, np.generic)):
                x = x.item() if isinstance(x, np.generic) else from_numpy(x)
            elif isinstance(x, (list, tuple)):
                raise ArgumentTypeError(
                    op.name, f"takes tensors, got a {type(x).__name__}", "make it one: dg.tensor(...)"
                )
            elif x is not None and not isinstance(x, (Tensor, int, float, bool)):
                raise ArgumentTypeError(
                    op.name, f"takes tensors and numbers, got {type(x).__name__}", "pass a tensor"
                )
            out.append(x)
        if not any(isinstance(x, Tensor) for x in out) and op.input_names and not op.creates:
            if op.variadic and not out:
                raise ArgumentTypeError(op.name, "needs at least one tensor", "pass a non-empty list")
            from .create import number_array

            out = [None if x is None else from_numpy(number_array(x)) for x in out]
        return self.prepare(op, tuple(out)) if out else tuple(out)

    def _refresh(self, x: EagerTensor) -> None:
        """A view whose base was changed in place on the tape: take its history from the base's new one."""
        x._seen = x._storage.tape_version
        base = x._base
        if base._base is not None and base._seen != x._seen:
            self._refresh(base)
        op, attrs = x._view
        if base._requires_grad:
            with dispatch.set_grad(True):
                again = dispatch.apply(op, (base,), attrs)
            x._node, x._index, x._requires_grad = again._node, again._index, again._requires_grad

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[EagerTensor, ...] | None = None
    ) -> tuple[Any, ...]:
        parts: list[Any] = [op, attrs]
        device = None
        for x in inputs:
            if x is None:
                parts.append(None)
            elif x.__class__ in _NUMBERS:
                parts.append(x.__class__)
            else:
                parts.append(x._layout)
                if x._storage.device != device:  # every tensor's device counts, not only the first one's
                    device = x._storage.device
                    parts.append(device)
        if into is not None:
            for t in into:
                parts += (t._layout, t._storage.device)
            parts.append(_safe_in_place(op, inputs, into))
        key = tuple(parts)
        recipe = self._recipes.get(key)
        if recipe is None:
            recipe = self._make(op, inputs, attrs, into, key)
        if recipe.__class__ is ViewRecipe:
            x = inputs[0]
            out = EagerTensor(recipe.layout, x._storage, x._offset + recipe.offset)
            out._base, out._view, out._seen = x, (op, attrs), x._storage.tape_version
            return (out,)
        if recipe.__class__ is TransferRecipe:
            return self._transfer(op, inputs, attrs, into, recipe.device)
        if recipe.check is not None:
            recipe.check(self.read, *inputs, **op.attrs_dict(attrs))
        dynamic = []
        scalars = iter(recipe.scalars)
        for x in inputs:
            if x is None:
                continue
            if x.__class__ in _NUMBERS:
                _, dtype = next(scalars)
                if dtype is not None:
                    if x.__class__ is int:
                        check_scalar_range(op.name, x, dtype)
                    dynamic.append(scalar_bits(x, dtype))
            else:
                dynamic.append(x._storage.ptr + x._offset)
        if into is not None:
            outputs: tuple[Any, ...] = into
            frame = user_frame(2)
            line = None if frame is None else (frame.f_code, frame.f_lineno)
            for t in into:
                storage = t._storage
                dynamic.append(storage.ptr + t._offset)
                storage.version += 1
                storage.changed = line
        else:
            empty = recipe.backend.empty
            made = []
            for lay, nbytes in recipe.outputs:
                storage = empty(nbytes)
                made.append(EagerTensor(lay, storage))
                dynamic.append(storage.ptr)
            outputs = tuple(made)
        if recipe.executable is not None:
            if recipe.scratch_bytes:
                scratch = recipe.backend.empty(recipe.scratch_bytes)
                dynamic.append(scratch.ptr)
            recipe.executable.run(dynamic)
        return outputs

    # -- making recipes -----------------------------------------------------------------------

    def _make(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: Any, key: Any) -> Any:
        types = [x if x is None or x.__class__ in _NUMBERS else x._layout.type for x in inputs]
        devices = {x._storage.device for x in inputs if isinstance(x, EagerTensor)}
        device = self._device(op, devices, attrs)
        if op.is_transfer or (devices and device not in devices):
            return self._keep(key, TransferRecipe(device))
        if op.is_view and into is None:
            x = inputs[0]
            op.infer(types, attrs)
            made = op.view_rule(x.shape, x.strides, **op.attrs_dict(attrs)) if op.view_rule else None
            if made is not None:
                shape, strides, offset = made
                return self._keep(key, ViewRecipe(layout(x.dtype, shape, strides), offset * x.dtype.itemsize))
        out_types = op.infer(types, attrs)
        backend = get_backend(device)
        program = Program(backend)
        operands: list[Any] = []
        scalars: list[tuple[int, Any]] = []
        dtypes = op.form(_kinds(types), attrs).arg_dtypes if op.kind == "pointwise" else None
        for k, x in enumerate(inputs):
            if x is None:
                operands.append(None)
            elif x.__class__ in _NUMBERS:
                dtype = dtypes[k] if dtypes is not None else out_types[0].dtype
                operands.append(Scalar(program.dynamic(), dtype))
                scalars.append((k, dtype))
            else:
                lay = x._layout
                operands.append(Operand(program.dynamic(), 0, lay.dtype, lay.shape, lay.strides))
        layouts: list[tuple[Layout, int]] = []
        if into is not None:
            for target, t in zip(into, out_types, strict=True):
                self._check_into(op, target, t)
            outs = [Operand(program.dynamic(), 0, t.dtype, t.shape, t.strides) for t in into]
            if not _safe_in_place(op, inputs, into):
                temporaries = [program.scratch_operand(t.dtype, t.shape) for t in into]
                lower_op(program, op, operands, temporaries, attrs)
                program.wave()
                for temporary, out in zip(temporaries, outs):
                    copy(program, temporary, out)
                outs = []
        else:
            layouts = [(layout(t.dtype, t.shape), max(1, t.nbytes)) for t in out_types]
            outs = [Operand(program.dynamic(), 0, t.dtype, t.shape, lay.strides)
                    for t, (lay, _) in zip(out_types, layouts)]  # fmt: skip
        if outs:
            lower_op(program, op, operands, outs, attrs)
        executable = backend.load(program) if program.launches else None
        return self._keep(
            key,
            Recipe(
                tuple(layouts), executable, backend, tuple(scalars), program.scratch_bytes, op.values_rule
            ),
        )

    def _keep(self, key: Any, recipe: Any) -> Any:
        if len(self._recipes) > 20_000:
            self._recipes.clear()
        self._recipes[key] = recipe
        return recipe

    def _device(self, op: Op, devices: set[str], attrs: Attrs) -> str:
        """Where an op runs: on the device it is told (ops that make tensors), else where its inputs are."""
        if len(devices) > 1:
            raise DeviceError(
                op.name, f"tensors on {' and '.join(sorted(devices))}", "move them with x.to(device)"
            )
        named = op.attrs_dict(attrs).get("device")
        if named is None:
            return devices.copy().pop() if devices else "cpu"
        return normalize_device(named)

    def _transfer(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: Any, device: str
    ) -> tuple[Any, ...]:
        """Copy the inputs to a device; then they are the result of `to_device`, the numbers of other ops."""
        moved = []
        for x in inputs:
            if isinstance(x, EagerTensor):
                if not x.is_contiguous:
                    (x,) = self.run(REGISTRY["assign"], (x,), ())
                storage = get_backend(device).empty(max(1, x.nbytes))
                storage.copy_from(x._storage, x._offset, x.nbytes)
                x = EagerTensor(layout(x.dtype, x.shape), storage)
            moved.append(x)
        return (moved[0],) if op.is_transfer else self.run(op, tuple(moved), attrs, into)

    def _check_into(self, op: Op, into: EagerTensor, t: TensorType) -> None:
        if t.shape != into.shape or t.dtype is not into.dtype:
            raise ShapeError(
                op.name,
                f"the result {t} does not fit in place into {into.type}",
                "use the out-of-place form (x = x + y), or convert the other operand",
            )

    # -- in-place, values, state ----------------------------------------------------------------

    def face(self, x: Tensor) -> Tensor:
        if not isinstance(x, EagerTensor):
            x._leaked("tensor")  # type: ignore[attr-defined]
        if x._base is not None and x._seen != x._storage.tape_version:  # type: ignore[attr-defined]
            self._refresh(x)  # type: ignore[arg-type]
        return x

    def write(self, target: Any, value: Any) -> Any:
        """Replace the target's values (and history) by the value's."""
        track = dispatch.state.grad and (target._requires_grad or value._requires_grad)
        if track and target._requires_grad and target._node is None and target._base is None:
            raise AutogradError(
                "in-place", f"a leaf that requires a gradient ({target.type}) cannot be changed in place",
                "do it under dg.no_grad(), or work on x.clone()",
            )  # fmt: skip
        if value.type != target.type:
            raise ShapeError(
                "in-place",
                f"{value.type} does not fit in place into {target.type}",
                "convert or reshape the value",
            )
        self._copy(value, target)
        target._bump()
        if track:
            self._rebase(target, value)
        return target

    def _copy(self, source: EagerTensor, target: EagerTensor) -> None:
        from ..core.ops.elementwise import assign

        with dispatch.set_grad(False):
            before = target._storage.version
            self.run(assign, (source,), (), into=(target,))
            target._storage.version = before

    def _rebase(self, target: Any, value: Any) -> None:
        target._node, target._index, target._requires_grad = value._node, value._index, value._requires_grad
        target._storage.tape_version += 1
        target._seen = target._storage.tape_version
        base = target._base
        if base is not None:
            op, attrs = target._view
            if op.view_update_rule is None:
                raise AutogradError(
                    op.name, "the result cannot be changed in place while gradients are recorded"
                )
            old = base._alias()
            old._node, old._index, old._requires_grad = base._node, base._index, base._requires_grad
            new = op.view_update_rule(old, value, **op.attrs_dict(attrs))
            version = target._storage.tape_version
            self._rebase(base, new)
            target._seen = base._seen = target._storage.tape_version = version + 1

    def get_grad(self, x: Any) -> Any:
        return x._grad

    def set_grad(self, x: Any, value: Any) -> None:
        x._grad = value

    def constant(self, array: np.ndarray, device: str) -> EagerTensor:
        return from_numpy(array, device)

    def read(self, x: Any) -> np.ndarray:
        if not isinstance(x, EagerTensor):
            x._leaked("read")
        lay = x._layout
        return x._storage.to_host(lay.dtype, lay.shape, lay.strides, x._offset)  # type: ignore[no-any-return]

    def number(self, owner: Any, key: str) -> Any:
        return owner[key]

    def offset(self, generator: Any, count: int) -> tuple[int, int]:
        start = generator._offset
        generator._offset = (start + count) & (2**64 - 1)
        return generator._seed, start

    attach = staticmethod(vjp.attach)

    def random_state(self, generator: Any) -> Any:
        return generator.get_state()

    def set_random_state(self, generator: Any, state: Any) -> None:
        generator.set_state(state)


def _kinds(types: list[Any]) -> list[Any]:
    return [t.dtype if isinstance(t, TensorType) else t.__class__ for t in types]


def _safe_in_place(op: Op, inputs: tuple[Any, ...], into: tuple[EagerTensor, ...]) -> bool:
    """Whether an op may write its results over inputs: element by element, in the same place."""
    for x in inputs:
        if isinstance(x, EagerTensor):
            for t in into:
                if x._storage is t._storage and (
                    op.kind != "pointwise" or x._offset != t._offset or x._layout is not t._layout
                ):
                    return False
    return True
