"""Gradients of tensors that were computed already, and ops with a gradient of one's own: PyTorch's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import dispatch, tree, vjp
from .custom import with_gradient
from .errors import ArgumentError, ArgumentTypeError, AutogradError, ShapeError
from .functional import _ones_like
from .ops.creation import zeros
from .value import Tensor

__all__ = ["Function", "backward", "grad"]


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
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
    create_graph: bool = False, allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of outputs with respect to inputs, which any tensors of the tape may be; `.grad` stays as it is.

    outputs, inputs: a tensor or several; grad_outputs: what to start from, ones for single numbers when None.
    retain_graph: keep the tape for another call (create_graph's value when None); create_graph: record this pass, for
    gradients of gradients. Only what lies between outputs and inputs takes part: the rest of the tape is neither freed
    nor checked, and its hooks do not run. Returns: a tuple, one for each input; None for one that outputs do not depend
    on if allow_unused, else AutogradError. `dg.grad` differentiates functions.
    Example: `dg.autograd.grad((x * x).sum(), x)[0]` for a leaf x that requires a gradient.
    """
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
    tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False
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

    def __init__(self, needs: tuple[bool, ...]):
        #: for each argument of forward, whether somebody wants its gradient
        self.needs_input_grad = needs
        self._saved: tuple[tuple[Any, int], ...] = ()
        #: the tensors of `mark_non_differentiable`
        self.constant: tuple[Any, ...] = ()

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Results of forward that need no gradient; backward gets zeros for them."""
        self.constant = tensors

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors; changing one in place before `backward` is an error then."""
        face = dispatch.state.executor.face
        kept = [None if x is None else face(x) for x in tensors]
        self._saved = tuple([(x, 0 if x is None else x._get_version()) for x in kept])

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was given to `save_for_backward`. Raises: AutogradError for a tensor that was changed since."""
        for x, version in self._saved:
            if x is not None and x._get_version() != version:
                raise AutogradError(
                    "saved_tensors", f"{x.type} was changed in place after it was saved", "save a clone"
                )
        return tuple([x for x, _ in self._saved])


class Function:
    """Base of ops with a gradient of the user's own: define `forward` and `backward`, call `apply`.

    forward(ctx, *args): computes without recording; returns a tensor or a tuple of them, in which other values may
    stand. backward(ctx, *gradients): one for each output (None for another value); returns one for each argument of
    forward (None for none). Tensors within lists get no gradient. Written in ops, backward can be
    differentiated again. `dg.custom_gradient` is the same in one function.
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
    def forward(ctx: Context, *args: Any) -> Any:
        """The computation."""
        raise ArgumentTypeError("Function", "has no forward", "define forward(ctx, ...) as a staticmethod")

    @staticmethod
    def backward(ctx: Context, *gradients: Any) -> Any:
        """Its gradient."""
        raise ArgumentTypeError("Function", "has no backward", "define backward(ctx, ...) as a staticmethod")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call the op."""
        ctx = Context(tuple([isinstance(x, Tensor) and bool(x.requires_grad) for x in args]))
        face = dispatch.state.executor.face
        inputs = [face(x) for x in args if isinstance(x, Tensor)]
        with dispatch.set_grad(False):
            out = cls.forward(ctx, *args)
        if not dispatch.state.grad:
            return out
        row = list(tree.leaves(out))
        differs = [
            isinstance(y, Tensor)
            and (y.dtype.is_float or y.dtype.is_complex)
            and not any(y is c for c in ctx.constant)
            for y in row
        ]
        types = [(y.shape, y.dtype, y.device) if isinstance(y, Tensor) else None for y in row]

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
                    cls.__name__, f"backward returned {len(grads)} gradients for {len(args)} arguments",
                    "return one for each, None where there is none",
                )  # fmt: skip
            return tuple([g for g, x in zip(grads, args) if isinstance(x, Tensor)])

        made = iter(with_gradient(cls.__name__, inputs, [y for y, d in zip(row, differs) if d], pull))
        return tree.refill(out, iter([next(made) if d else y for y, d in zip(row, differs)]))
