"""The eager executor: each op runs at once, through a program kept by the signature of its call."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

import numpy as np

from ..core import dispatch, vjp
from ..core.backend import Operand, Program, Scalar, get_backend, normalize_device
from ..core.errors import DeviceError, ShapeError, user_place
from ..core.exact import exact
from ..core.lower import copy
from ..core.op import REGISTRY, Attrs, Op
from ..core.op_lower import lower_op
from ..core.opened import twin_of
from ..core.storage import refuse_fixed, refuse_other_type, refuse_overlap
from ..core.strangers import no_tensor, numpy_number, refuse_nothing
from ..core.types import TensorType
from ..core.value import Tensor
from ..core.vjp import record
from . import control
from .hot import StepTable, composite
from .lists import update_list
from .recipes import NUMBERS, Call, Recipe, read, taped, view
from .shared import can_share, share_together
from .tensor import EagerTensor, Layout, fresh, from_numpy, layout, share_numpy

#: how a number of elements is read
_COUNT = Struct("q")
#: the last key of a path of shortcuts
END = "end"
#: recipes kept before all are forgotten
LIMIT = 20_000
#: values of an op's attributes that have kernels of their own: those of further ones take the numbers as arguments
OFTEN = 4
#: how an op writes that replaces elements of its first input in place
FIRST = "first"


class EagerExecutor:
    """Runs ops at once. What a call's signature needs is found once and kept in the op (`Op.recipes`).

    The tables are nested by attributes, then by what each input is: the layout of a tensor, the class of a
    number. All are emptied when they have grown past `LIMIT` signatures.
    """

    #: what graph mode needs to make and share eager tensors
    tensor_class = EagerTensor
    layout_class = Layout
    layout = staticmethod(layout)
    share = staticmethod(share_numpy)
    can_share, share_together = staticmethod(can_share), staticmethod(share_together)
    read = staticmethod(read)

    def __init__(self) -> None:
        self._kept: list[Op] = []
        self._classes = {EagerTensor}
        #: a layout of one axis and a number of elements -> the layout of so many
        self._cuts: dict[Any, Layout] = {}

    # -- the door's side --------------------------------------------------------------------

    def call(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
        """The whole call of an op; the first one of a signature takes the long way."""
        try:
            found = op.recipes[attrs]
            if op.variadic:
                found = found[len(inputs)]
            classes, needs = self._classes, False
            for x in inputs:
                cls = x.__class__
                if cls in classes:
                    if x._base is not None and x._seen != x._storage.tape_version:
                        self._refresh(x)
                    if x._requires_grad:
                        needs = True
                    found = found[x._layout]
                else:
                    found = found[cls]
        except KeyError:
            pass  # what goes wrong in the first call has no KeyError as its context
        else:
            return found.taped(inputs) if needs and dispatch.state.grad else found.run(inputs)
        return self._first_call(op, inputs, attrs)

    def call_raw(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call by the arguments as they were written: what they mean is found once for a signature.

        Shortcuts are nested by the attributes as given, then by what each input is; they lead to recipes.
        """
        n, inputs = op.n_inputs, args
        found: Any
        try:
            if op.variadic:
                if args and args[0].__class__ in (list, tuple):
                    inputs, rest = tuple(args[0]), args[1:]
                else:
                    rest = ()
                found = op.shortcuts[len(inputs), rest, *kwargs.items()]
            elif len(args) > n:
                inputs = args[:n]
                found = op.shortcuts[args[n:], *kwargs.items()]
            else:
                found = op.shortcuts[tuple(kwargs.items())]
            classes, needs = self._classes, False
            for x in inputs:
                cls = x.__class__
                if cls in classes:
                    if x._base is not None and x._seen != x._storage.tape_version:
                        self._refresh(x)
                    if x._requires_grad:
                        needs = True
                    found = found[x._layout]
                else:
                    found = found[cls]
            recipe, absent = found[END]
            if absent:
                inputs += absent
        except (KeyError, TypeError):
            pass
        else:
            return recipe.taped(inputs) if needs and dispatch.state.grad else recipe.run(inputs)
        return self._first_raw_call(op, args, kwargs)

    def _first_raw_call(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = dict(kwargs)
        inputs, attrs = op.bind(args, kwargs)
        result = self.call(op, inputs, attrs)
        named = list(before.items())
        if op.variadic:
            listed = bool(args) and isinstance(args[0], (list, tuple))
            path: list[Any] = [(len(inputs), args[1:] if listed else (), *named)]
            written = len(inputs)
        elif len(args) > op.n_inputs:
            path, written = [(args[op.n_inputs :], *named)], op.n_inputs
        else:
            path, written = [tuple(named)], len(args)
        absent = inputs[written:]
        plain = all(x.__class__ in self._classes or x.__class__ in NUMBERS or x is None for x in inputs)
        if plain and all(x is None for x in absent) and not any(isinstance(v, Tensor) for _, v in named):
            kinds = [x._layout if x.__class__ in self._classes else x.__class__ for x in inputs[:written]]
            try:
                recipe = self._recipe(op, self.prepare(op, inputs), attrs)
                if any(x.__class__ in self._classes for x in inputs) or op.creates:
                    self._keep(op, op.shortcuts, [*path, *kinds, END], (recipe, absent))
            except TypeError:  # attributes that are no keys
                pass
        return result

    def _first_call(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
        inputs = self.prepare(op, inputs)
        recipe = self._recipe(op, inputs, attrs)
        needs = any(isinstance(x, EagerTensor) and x._requires_grad for x in inputs)
        # One frame more, as in a call: recording counts them.
        go = (lambda f: f(inputs)) if needs and dispatch.state.grad else None
        return recipe.run(inputs) if go is None else go(recipe.taped)

    def sized(self, op: Op, inputs: tuple[Any, ...]) -> EagerTensor | None:
        """The first result of an op, of one axis, cut to as many elements as its last one tells: see `dispatch`."""
        device = inputs[0].device
        if get_backend(device).primitive(op.name) is None:
            return None
        row, count = self.call(op, inputs, ())
        whole = row._layout
        shape = count._storage.unpack(_COUNT, count._offset)
        found = self._cuts.get((whole, shape))
        if found is None:
            found = layout(whole.dtype, shape, None, device)
            if len(self._cuts) < LIMIT:
                self._cuts[whole, shape] = found
        return fresh(found, row._storage)

    def prepare(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tensor = False
        for x in inputs:
            cls = x.__class__
            if cls in self._classes:
                tensor = True
                if x._base is not None and x._seen != x._storage.tape_version:
                    self._refresh(x)
            elif cls not in NUMBERS and x is not None:
                if isinstance(x, EagerTensor):
                    self._classes.add(cls)
                    return self.prepare(op, inputs)
                return self._convert(op, inputs)
        return inputs if tensor or op.creates or not inputs else self._convert(op, inputs)

    def _convert(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        out: list[Any] = []
        for x in inputs:
            if isinstance(x, Tensor) and not isinstance(x, EagerTensor):
                x._leaked(op.name)  # type: ignore[attr-defined]
            if isinstance(x, (np.ndarray, np.generic)):
                x = numpy_number(op, x) if isinstance(x, np.generic) else from_numpy(x)
            elif isinstance(x, (int, float)) and x.__class__ not in NUMBERS:
                x = dispatch.plain_number(x)
            elif x is not None and not isinstance(x, (Tensor, int, float, complex)):
                raise no_tensor(op, x)
            out.append(x)
        if not any(isinstance(x, Tensor) for x in out) and op.input_names and not op.creates:
            refuse_nothing(op, out)
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
        with dispatch.set_grad(True):
            vjp.renew(x, dispatch.apply(op, (base,), attrs))

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[EagerTensor, ...] | None = None
    ) -> tuple[Any, ...]:
        if into is None:
            result = self._recipe(op, inputs, attrs).run(inputs)
            return result if isinstance(result, tuple) else (result,)
        self._into(op, inputs, attrs, into)(inputs, into, user_place(3))
        return into

    def _into(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[EagerTensor, ...]
    ) -> Callable[..., None]:
        """The function that writes an op's results over given tensors."""
        try:
            found = op.in_place_recipes[attrs]
            for x in inputs:
                found = found[x._layout if x.__class__ in self._classes else x.__class__]
            for t in into:
                found = found[t._layout]
            go = found[_safe_in_place(op, inputs, into)]
        except KeyError:
            go = None
        return go or self._make_into(op, inputs, attrs, into)

    def update_rows(self, owner: Any, op: Op, found: Any, shared: tuple[Any, ...], attrs: Attrs) -> None:
        """The updates of an optimiser's step (see `dispatch.update_rows`)."""
        made = update_list(owner, op, found, shared, attrs)
        if made is not None:
            updates, grads = made
            updates.run(grads, shared, user_place(3))
            return
        for row, grad in found:
            inputs = self.prepare(op, (row[0], grad, *row[1:], *shared))
            self.run(op, inputs, attrs, into=row)

    # -- making recipes -----------------------------------------------------------------------

    def _keep(self, op: Op, table: dict[Any, Any], path: list[Any], recipe: Any) -> Any:
        """Put a recipe into a table, under attributes, then by what each input is."""
        if len(self._kept) > LIMIT:
            for other in self._kept:
                other.recipes.clear()
                other.shortcuts.clear()
                other.in_place_recipes.clear()
            self._kept.clear()
        self._kept.append(op)
        path[0] = exact(path[0])
        for key in path[:-1]:
            table = table.setdefault(key, {})
        table[path[-1]] = recipe
        return recipe

    def _path(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> list[Any]:
        kinds = [x._layout if isinstance(x, EagerTensor) else x.__class__ for x in inputs]
        return [attrs, len(inputs), *kinds] if op.variadic else [attrs, *kinds]

    def _recipe(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Recipe:
        """The recipe for prepared inputs, made when there is none."""
        path = self._path(op, inputs, attrs)
        found: Any = op.recipes
        try:
            for key in path:
                found = found[key]
        except KeyError:
            found = None
        return found or self._keep(op, op.recipes, path, self._make(op, inputs, attrs))

    def _make(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Recipe:
        if op.kind == "composite":
            return composite(op, inputs, attrs)
        types = [x._layout.type if isinstance(x, EagerTensor) else x for x in inputs]
        devices = {x._layout.device for x in inputs if isinstance(x, EagerTensor)}
        device = self._device(op, devices, attrs)
        if op.is_transfer or (devices and device not in devices):
            return self._transfer(op, attrs, device)
        if op.is_view:
            x = inputs[0]
            out_types = op.infer(types, attrs)
            made = op.view_rule(x.shape, x.strides, **op.attrs_dict(attrs)) if op.view_rule else None
            if made is not None:
                shape, strides, offset = made
                go = view(op, attrs, layout(x.dtype, shape, strides, device), offset * x.dtype.itemsize)
                return Recipe(go, taped(go, op, attrs, out_types, StepTable(op).step))
        out_types = op.infer(types, attrs)
        varying = self._varying(op, op.recipes, types, attrs)
        if varying is not None:
            twin, more, rest = varying
            go = self._recipe(twin, (*inputs, *more), rest).run
            run = lambda inputs: go((*inputs, *more))
            return Recipe(run, taped(run, op, attrs, out_types, StepTable(op).step))
        program, operands, numbers = self._operands(op, inputs, attrs, types, out_types, device)
        layouts = [(layout(t.dtype, t.shape, None, device), max(1, t.nbytes)) for t in out_types]
        outs = [
            Operand(program.dynamic(), 0, t.dtype, t.shape, lay.strides)
            for t, (lay, _) in zip(out_types, layouts)
        ]
        program.reporting = op.values_rule is not None
        lower_op(program, op, operands, outs, attrs)
        run = self._call(op, inputs, attrs, program, numbers, layouts).run()
        return Recipe(run, taped(run, op, attrs, out_types, StepTable(op).step))

    def _make_into(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[EagerTensor, ...]
    ) -> Callable[..., None]:
        types = [x._layout.type if isinstance(x, EagerTensor) else x for x in inputs]
        devices = {x._layout.device for x in (*inputs, *into) if isinstance(x, EagerTensor)}
        out_types = op.infer(types, attrs)
        for target, t in zip(into, out_types, strict=True):
            self._check_into(op, target, t)
        kinds = [x._layout if isinstance(x, EagerTensor) else x.__class__ for x in inputs]
        path = [attrs, *kinds, *(t._layout for t in into), _safe_in_place(op, inputs, into)]
        varying = self._varying(op, op.in_place_recipes, types, attrs)
        if varying is not None:
            twin, more, rest = varying
            inner = self._into(twin, (*inputs, *more), rest, into)
            return self._keep(  # type: ignore[no-any-return]
                op, op.in_place_recipes, path, lambda inputs, *where: inner((*inputs, *more), *where)
            )
        device = self._device(op, devices, attrs)
        program, operands, numbers = self._operands(op, inputs, attrs, types, out_types, device)
        outs = [Operand(program.dynamic(), 0, t.dtype, t.shape, t.strides) for t in into]
        safe = path[-1]
        if safe:
            if safe == FIRST:
                operands[0] = outs[0]
            lower_op(program, op, operands, outs, attrs)
        else:
            temporaries = [program.scratch_operand(t.dtype, t.shape) for t in into]
            lower_op(program, op, operands, temporaries, attrs)
            program.wave()
            for temporary, out in zip(temporaries, outs):
                copy(program, temporary, out)
        go = self._call(op, inputs, attrs, program, numbers, []).run_into()
        return self._keep(op, op.in_place_recipes, path, go)  # type: ignore[no-any-return]

    def _varying(
        self, op: Op, recipes: dict[Any, Any], types: list[Any], attrs: Attrs
    ) -> tuple[Op, list[float], Attrs] | None:
        """The op with its numbers as inputs, these, and the other attributes: for one whose numbers vary."""
        if len(recipes) < OFTEN:
            return None
        names = tuple(n for n, a in zip(op.attr_names, attrs) if a.__class__ is float)
        rest = tuple(a for a in attrs if a.__class__ is not float)
        twin = twin_of(op, types, names, rest) if names else None
        return None if twin is None else (twin, [a for a in attrs if a.__class__ is float], rest)

    def _operands(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, types: list[Any], out_types: tuple[TensorType, ...],
        device: str,
    ) -> tuple[Program, list[Any], list[Any]]:  # fmt: skip
        """A new program, its operands, and by input the dtype that a number is passed in."""
        program = Program(get_backend(device))
        operands: list[Any] = []
        numbers: list[Any] = []
        dtypes = op.form(_kinds(types), attrs).arg_dtypes if op.kind == "pointwise" else None
        for k, x in enumerate(inputs):
            dtype = None
            if x is None:
                operands.append(None)
            elif x.__class__ in NUMBERS:
                dtype = dtypes[k] if dtypes is not None else out_types[0].dtype
                operands.append(Scalar(program.dynamic(), dtype))
                if dtype.is_complex:
                    program.dynamic()  # its imaginary part
            else:
                lay = x._layout
                operands.append(Operand(program.dynamic(), 0, lay.dtype, lay.shape, lay.strides))
            numbers.append(dtype)
        return program, operands, numbers

    def _call(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, program: Program, numbers: list[Any],
        layouts: list[tuple[Layout, int]],
    ) -> Call:  # fmt: skip
        backend = program.backend
        execute = backend.load(program).run if program.launches else None
        kinds = [x._layout if isinstance(x, EagerTensor) else x.__class__ for x in inputs]
        tail = sorted(
            (source, kind)
            for source, kind in ((program.scratch_source, "scratch"), (program.report_source, "report"))
            if source >= 0
        )
        extra = tuple(kind for _, kind in tail)
        return Call(op, attrs, kinds, numbers, layouts, execute, backend.maker, program.scratch_bytes, extra)

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

    def _transfer(self, op: Op, attrs: Attrs, device: str) -> Recipe:
        """Copy the inputs to a device; then they are the result of `to_device`, the numbers of other ops."""

        def run(inputs: tuple[Any, ...]) -> Any:
            moved = []
            for x in inputs:
                if isinstance(x, EagerTensor):
                    if not x.is_contiguous:
                        (x,) = self.run(REGISTRY["assign"], (x,), ())
                    storage = get_backend(device).empty(max(1, x.nbytes))
                    storage.copy_from(x._storage, x._offset, x.nbytes)
                    x = EagerTensor(layout(x.dtype, x.shape, None, device), storage)
                moved.append(x)
            if op.is_transfer:
                return moved[0]
            outs = self.run(op, tuple(moved), attrs)
            return outs[0] if len(outs) == 1 else outs

        def recorded(inputs: tuple[Any, ...]) -> Any:
            result = run(inputs)
            record(op, inputs, attrs, result if isinstance(result, tuple) else (result,))
            return result

        return Recipe(run, recorded)

    def _check_into(self, op: Op, into: EagerTensor, t: TensorType) -> None:
        if t.shape != into.shape or t.dtype is not into.dtype:
            refuse_other_type(op.name, t, into.type)
        refuse_overlap(into)

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
        if track:
            vjp.refuse_leaf(target)
        if value._layout.type != target._layout.type:
            raise ShapeError(
                "in-place",
                f"{value.type} does not fit in place into {target.type}",
                "convert or reshape the value",
            )
        if target._base is not None or not target._layout.contiguous:
            refuse_overlap(target)
        if target._storage.fixed:
            refuse_fixed(target, target._storage)
        if track:
            vjp.refuse_view(target)
        self._copy(value, target)
        target._bump()
        if track:
            self._rebase(target, value)
        return target

    def _copy(self, source: EagerTensor, target: EagerTensor) -> None:
        before = target._storage.version
        self.run(REGISTRY["assign"], (source,), (), into=(target,))
        target._storage.version = before

    def _rebase(self, target: Any, value: Any) -> None:
        """Give a changed tensor the value's history; of a view, to what it is a view of as well: all views of that,
        this one too, take theirs from it when they are met again. Where the value has none, what was there has a
        gradient of 0."""
        base = target._base
        if base is None and target._requires_grad and not value._requires_grad:
            value = REGISTRY["overwrite"](target, value)
        target._node, target._index, target._requires_grad = value._node, value._index, value._requires_grad
        if base is None:
            target._storage.tape_version += 1
            return
        op, attrs = target._view
        old = base._alias()
        old._node, old._index, old._requires_grad = base._node, base._index, base._requires_grad
        self._rebase(base, op.view_update_rule(old, value, **op.attrs_dict(attrs)))

    def get_grad(self, x: Any) -> Any:
        return x._grad

    def set_grad(self, x: Any, value: Any) -> None:
        x._grad = value

    def constant(self, array: np.ndarray, device: str) -> EagerTensor:
        return from_numpy(array, device)

    def check(self, x: Any, refuse: Any) -> None:
        refuse(self.read(x))

    def number(self, owner: Any, key: str) -> Any:
        return owner[key]

    def offset(self, generator: Any, count: int) -> tuple[int, int]:
        return generator._seed, generator._advance(count)

    attach = staticmethod(vjp.attach)

    def seed(self, generator: Any, seed: int) -> None:
        generator.set_state((seed, 0))

    def random_state(self, generator: Any) -> Any:
        return generator.get_state()

    def set_random_state(self, generator: Any, state: Any) -> None:
        generator.set_state(state)

    branch = staticmethod(control.branch)
    repeat = staticmethod(control.repeat)
    scan = staticmethod(control.scan)


def _kinds(types: list[Any]) -> list[Any]:
    return [t.dtype if isinstance(t, TensorType) else t.__class__ for t in types]


def _safe_in_place(op: Op, inputs: tuple[Any, ...], into: tuple[EagerTensor, ...]) -> bool | str:
    """Whether an op may write its results over inputs: element by element, in the same place.

    FIRST for an op that replaces elements of its first input in that input's own memory.
    """
    if op.updates and inputs[0] is into[0] and into[0].is_contiguous:
        storage = into[0]._storage
        return not any(isinstance(x, EagerTensor) and x._storage is storage for x in inputs[1:]) and FIRST
    for t in into:
        storage = t._storage
        for x in inputs:
            if x is t:
                if op.kind != "pointwise":
                    return False
            elif (
                isinstance(x, EagerTensor)
                and x._storage is storage
                and (op.kind != "pointwise" or x._offset != t._offset or x._layout is not t._layout)
            ):
                return False
    return True
