"""Gradients of tensors that were computed already, and ops with a gradient of one's own: PyTorch's words."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import dispatch, tree, vjp
from .custom import with_gradient
from .errors import ArgumentError, ArgumentTypeError, AutogradError, Place, ShapeError, user_line, user_place
from .functional import _ones_like
from .ops.creation import zeros
from .saved import Need
from .showing import watching
from .spoken import spell as _spell
from .value import Tensor

__all__ = ["Function", "backward", "detect_anomaly", "grad", "once_differentiable"]


class detect_anomaly:
    """`with dg.autograd.detect_anomaly(): ...`: an op that makes a NaN of numbers is an error, forward and back.

    check_nan: False looks at nothing. Ops run one by one inside, functions in graph mode too, and each result is read:
    for looking for a fault, not for training. The error names the op, its operands' ranges, the line, and of a gradient
    the op and the line whose it is. `with dg.show("nan")` prints the same and goes on.
    Raises, inside: NanError.
    Example: `with dg.autograd.detect_anomaly(): loss_fn(model(x), y).backward()`.
    """

    def __init__(self, check_nan: bool = True):
        self.check_nan = check_nan
        self._inside: list[Any] = []

    def __enter__(self) -> detect_anomaly:
        context = watching(True) if self.check_nan else contextlib.nullcontext()
        context.__enter__()
        self._inside.append(context)
        return self

    def __exit__(self, *error: Any) -> None:
        self._inside.pop().__exit__(*error)


def _listed(op: str, what: str, given: Any) -> tuple[Any, ...]:
    row = (given,) if isinstance(given, Tensor) else tuple(given)
    for x in row:
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(op, f"{what} holds a {type(x).__name__}", "pass tensors")
    return row


def _starts(op: str, outputs: Sequence[Tensor], grad_outputs: Any) -> list[Tensor]:
    """The gradients to start from: given, or one for single numbers."""
    if grad_outputs is None:
        given: tuple[Any, ...] = (None,) * len(outputs)
    else:
        given = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
    if len(given) != len(outputs):
        raise ArgumentError(op, f"{len(given)} gradients for {len(outputs)} outputs", "pass one for each")
    found: list[Tensor] = []
    for y, g in zip(outputs, given):
        if g is None and y.size != 1:
            raise AutogradError(
                op, f"a gradient can start from one number only, this is {y.type}",
                "reduce it (y.sum()), or pass grad_outputs=",
            )  # fmt: skip
        if g is not None and g.shape != y.shape:
            raise ShapeError(op, f"the gradient {g.type} stands beside {y.type}", "pass equal shapes")
        found.append(_ones_like(y) if g is None else g)
    return found


def grad(
    outputs: Tensor | Iterable[Tensor], inputs: Tensor | Iterable[Tensor],
    grad_outputs: Tensor | Iterable[Tensor | None] | None = None, retain_graph: bool | None = None,
    create_graph: bool = False, allow_unused: bool = False, only_inputs: bool = True,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of outputs with respect to inputs, which any tensors of the tape may be; `.grad` stays as it is.

    outputs, inputs: a tensor or several; grad_outputs: what to start from, ones for single numbers when None.
    retain_graph: keep the tape for another call (create_graph's value when None); create_graph: record this pass, for
    gradients of gradients. Only what lies between outputs and inputs takes part: the rest of the tape is neither freed
    nor checked, and its hooks do not run. Returns: a tuple, one for each input; None for one that outputs do not depend
    on if allow_unused, else AutogradError. `dg.grad` differentiates functions.
    Example: `dg.autograd.grad((x * x).sum(), x)[0]` for a leaf x that requires a gradient.
    """
    if not only_inputs:
        raise ArgumentError("grad", "only_inputs=False is not offered", "use backward() to fill in .grad")
    face = dispatch.state.executor.face
    outs, targets = _listed("grad", "outputs", outputs), _listed("grad", "inputs", inputs)
    gs = _starts("grad", outs, grad_outputs)
    faces = [face(x) for x in targets]
    for x in faces:
        if not x._requires_grad:
            raise AutogradError(
                "grad", f"the input {x.type} does not require a gradient", "call x.requires_grad_() before"
            )
    pairs = [(face(y), g) for y, g in zip(outs, gs) if face(y)._requires_grad]
    if not pairs:
        raise AutogradError(
            "grad", "no output depends on a tensor that requires a gradient", "see no_grad, detach"
        )
    keep = create_graph if retain_graph is None else retain_graph
    unique = list({vjp._key(x): x for x in faces}.values())
    aim = getattr(dispatch.state.executor, "aim", None)
    if aim is not None:  # a trace, whose tape may go on outside of it
        aim([y for y, _ in pairs], unique)
    found = vjp.walk([y for y, _ in pairs], [g for _, g in pairs], unique, create_graph, keep)
    by_key = {vjp._key(x): g for x, g in zip(unique, found)}
    result = tuple([by_key[vjp._key(x)] for x in faces])
    for k, g in enumerate(result):
        if g is None and not allow_unused:
            raise AutogradError(
                "grad",
                f"the outputs do not depend on input {k}: {faces[k].type}",
                "or pass allow_unused=True",
            )
    return result


def backward(
    tensors: Tensor | Iterable[Tensor],
    grad_tensors: Tensor | Iterable[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """`y.backward()` of several tensors in one walk: gradients are added to `.grad` of the leaves."""
    face = dispatch.state.executor.face
    roots = _listed("backward", "tensors", tensors)
    for y in roots:
        if not face(y)._requires_grad:
            raise AutogradError(
                "backward", f"{y.type} depends on no tensor that requires a gradient", "see no_grad, detach"
            )
    gs = _starts("backward", roots, grad_tensors)
    keep = create_graph if retain_graph is None else retain_graph
    vjp.walk([face(y) for y in roots], gs, None, create_graph, keep)


class Context:
    """What `forward` of a `Function` keeps for `backward`: tensors by `save_for_backward`, the rest as attributes."""

    def __init__(self, name: str, needs: tuple[bool, ...]):
        #: for each argument of forward, whether somebody wants its gradient
        self.needs_input_grad = needs
        self._name = name
        self._saved: tuple[tuple[Any, int], ...] = ()
        self._where: Place | None = None
        #: the tensors of `mark_non_differentiable`, and of `mark_dirty`
        self.constant: tuple[Any, ...] = ()
        self.dirty: tuple[Any, ...] = ()
        #: backward gets zeros, not None, for a result that nothing used
        self.materialize_grads = True

    def _tensors(self, method: str, given: tuple[Any, ...], none: bool = False) -> tuple[Any, ...]:
        for k, x in enumerate(given):
            if not (isinstance(x, Tensor) or (none and x is None)):
                raise ArgumentTypeError(
                    self._name,
                    f"ctx.{method} got a {type(x).__name__} as argument {k}",
                    "pass tensors; keep other values as attributes: ctx.n = n",
                )
        face = dispatch.state.executor.face
        return tuple([None if x is None else face(x) for x in given])

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Results of forward that need no gradient; backward gets zeros for them."""
        self.constant = self._tensors("mark_non_differentiable", tensors)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Arguments that forward changes in place and returns: the results are these tensors, with this gradient."""
        self.dirty = self._tensors("mark_dirty", tensors)

    def set_materialize_grads(self, value: bool) -> None:
        """False: backward gets None for results that nothing used, and for those without a gradient."""
        self.materialize_grads = bool(value)

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors; changing one in place before `backward` is an error then."""
        kept = self._tensors("save_for_backward", tensors, none=True)
        self._where = user_place(2)
        self._saved = tuple([(x, 0 if x is None else x._get_version()) for x in kept])

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Nothing: derivatives along tangents (`dg.jvp`) are made of backward, PyTorch's `jvp` is not asked."""

    def _seal(self) -> None:
        """What is kept of tensors that forward changed is what it left."""
        dirty = set(map(id, self.dirty))
        self._saved = tuple([(x, x._get_version() if id(x) in dirty else v) for x, v in self._saved])

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was given to `save_for_backward`. Raises: AutogradError for a tensor that was changed since."""
        note = getattr(dispatch.state.executor, "needs", None)
        for k, (x, version) in enumerate(self._saved):
            if x is None:
                continue
            need = Need(self._name, f"saved tensor {k}", x.type, self._where, "save a clone")
            if x._get_version() != version:
                raise need.refuse(x._changed_place())
            if note is not None:
                note(need._replace(line=user_line(2)), x)
        return tuple([x for x, _ in self._saved])


class Function:
    """Base of ops with a gradient of the user's own: define `forward` and `backward`, call `apply`.

    forward(ctx, *args): computes without recording; returns a tensor or a tuple of them, in which other values may
    stand. backward(ctx, *gradients): one for each output (None for another value); returns one for each argument of
    forward (None for none). Tensors within lists get no gradient. Or forward(*args) and
    setup_context(ctx, inputs, output), which keeps what backward needs; arguments may have names and defaults then.
    Written in ops, both run under `dg.vmap` and `dg.jvp` and can be differentiated again; `once_differentiable` is
    for a backward that is not. `dg.custom_gradient` is the same in one function.
    Raises: AutogradError for another number of gradients, for a tensor marked dirty that is not an argument and a
    result; ArgumentTypeError for what is no tensor.
    Example:
        class Double(dg.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return 2 * x

            @staticmethod
            def backward(ctx, g):
                return 2 * g
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The computation."""
        raise ArgumentTypeError("Function", "has no forward", "define forward(ctx, ...) as a staticmethod")

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """What is kept for backward, where forward takes no ctx."""

    @staticmethod
    def backward(ctx: Context, *gradients: Any) -> Any:
        """Its gradient."""
        raise ArgumentTypeError("Function", "has no backward", "define backward(ctx, ...) as a staticmethod")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Call the op."""
        name = cls.__name__
        apart = cls.setup_context is not Function.setup_context
        if apart:
            bound = inspect.signature(cls.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
        if kwargs:
            raise ArgumentTypeError(
                name,
                f"apply takes arguments by position, got {', '.join(kwargs)}=",
                "pass them by position; with setup_context, names work",
            )
        ctx = Context(name, tuple([isinstance(x, Tensor) and bool(x.requires_grad) for x in args]))
        face = dispatch.state.executor.face
        inputs = [face(x) for x in args if isinstance(x, Tensor)]
        with dispatch.set_grad(False):
            if apart:
                out = cls.forward(*args)
                cls.setup_context(ctx, args, out)
            else:
                out = cls.forward(ctx, *args)
        row = list(tree.leaves(out))
        dirty = _changed(name, ctx, inputs, row) if ctx.dirty else [False] * len(row)
        if not dispatch.state.grad:
            return out
        constant = set(map(id, ctx.constant))
        differs = [
            isinstance(y, Tensor)
            and (y.dtype.is_float or y.dtype.is_complex)
            and not (constant and id(face(y)) in constant)
            for y in row
        ]
        whole = ctx.materialize_grads
        types = [(y.shape, y.dtype, y.device) if whole and isinstance(y, Tensor) else None for y in row]

        def pull(*gradients: Any) -> Any:
            given = iter(gradients)
            all_of = [
                next(given) if d else None if t is None else zeros(t[0], dtype=t[1], device=t[2])
                for d, t in zip(differs, types)
            ]
            found = cls.backward(ctx, *all_of)
            grads = list(found) if isinstance(found, (tuple, list)) else [found]
            while len(grads) > len(args) and grads[-1] is None:  # of arguments that were left out
                grads.pop()
            if len(grads) != len(args):
                raise AutogradError(
                    name, f"backward returned {len(grads)} gradients for {len(args)} arguments",
                    "return one for each, None where there is none",
                )  # fmt: skip
            return tuple([g for g, x in zip(grads, args) if isinstance(x, Tensor)])

        fresh = [y for y, d in zip(row, differs) if d]
        made = iter(with_gradient(name, inputs, fresh, pull, partial=not whole))
        ends = [next(made) if d else y for y, d in zip(row, differs)]
        for k, y in enumerate(row):
            if dirty[k] and differs[k] and ends[k].requires_grad:
                # The argument itself, and what it is a view of, get the history of the result.
                dispatch.state.executor.write(face(y), ends[k])
            if dirty[k]:
                ends[k] = y
        ctx._seal()
        return tree.refill(out, iter(ends))


def _changed(name: str, ctx: Context, inputs: list[Any], row: list[Any]) -> list[bool]:
    """For each result of forward, whether it is an argument that was marked as changed."""
    face = dispatch.state.executor.face
    marked, faces = set(map(id, ctx.dirty)), [face(y) if isinstance(y, Tensor) else None for y in row]
    for x in ctx.dirty:
        if not any(x is i for i in inputs):
            raise AutogradError(
                name, f"ctx.mark_dirty got {x.type}, no argument of forward", "mark arguments alone"
            )
        if not any(x is y for y in faces):
            raise AutogradError(
                name, f"ctx.mark_dirty got {x.type}, which forward did not return", "return it"
            )
    return [y is not None and id(y) in marked for y in faces]


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator for the `backward` of a `Function` that is not itself differentiable (it leaves for NumPy, say).

    It runs without recording; a gradient of its gradient is an AutogradError, where it would be wrong without this.
    """

    @functools.wraps(fn)
    def run(ctx: Context, *gradients: Any) -> Any:
        with dispatch.set_grad(False):
            found = fn(ctx, *gradients)
        if not dispatch.state.grad:
            return found

        def refuse(*_: Any) -> Any:
            raise AutogradError(
                ctx._name, "has a backward that is once_differentiable: there is no gradient of its gradient",
                "write it in ops and leave the decorator out, or call without create_graph",
            )  # fmt: skip

        inputs = [x for x in (*gradients, *(x for x, _ in ctx._saved)) if x is not None]
        return with_gradient(ctx._name, inputs, found, refuse)

    return run


_spell(globals(), __all__, strict=True)
