"""What is called around a module: before and after its forward, and where its gradients pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ..core import dispatch
from ..core.custom import with_gradient
from ..core.errors import ArgumentTypeError, AutogradError
from ..core.handles import Handle
from ..core.ops.creation import zeros
from ..core.strangers import kind_of
from ..core.value import Tensor

_NONE: tuple[int, ...] = ()


class Hook:
    """One of them. named: it gets the keyword arguments too; always: it is called after an error, too."""

    __slots__ = ("always", "call", "named")

    def __init__(self, call: Callable[..., Any], named: bool = False, always: bool = False):
        self.call, self.named, self.always = call, named, always


class Hooks:
    """The hooks of one module, by kind in the order in which they are called."""

    def __init__(self) -> None:
        self.before: dict[int, Hook] = {}
        self.after: dict[int, Hook] = {}
        self.back_before: dict[int, Hook] = {}
        self.back: dict[int, Hook] = {}

    def add(self, kind: dict[int, Hook], hook: Hook, first: bool) -> HookHandle:
        key = max(kind, default=0) + 1  # no counter: a graph that registers hooks would hold what it was
        rest = dict(kind) if first else {}
        if first:
            kind.clear()
        kind[key] = hook
        kind.update(rest)
        return HookHandle(kind, key, hook)

    def run(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of the module with its hooks."""
        left = {key: hook for key, hook in self.after.items() if hook.always}
        out = None
        try:
            for hook in list(self.before.values()):
                args, kwargs = _before(module, hook, args, kwargs)
            passage = None
            if (self.back or self.back_before) and dispatch.state.grad:
                passage = Passage(module, list(self.back_before.values()), list(self.back.values()))
                args = passage.enter(args)
            out = module.forward(*args, **kwargs)
            for key, hook in list(self.after.items()):
                left.pop(key, None)
                changed = hook.call(module, args, kwargs, out) if hook.named else hook.call(module, args, out)
                out = out if changed is None else changed
            return out if passage is None else passage.leave(out)
        except Exception:
            for hook in left.values():
                with contextlib.suppress(Exception):  # the first error is the one to see
                    hook.call(module, args, kwargs, out) if hook.named else hook.call(module, args, out)
            raise


def _before(module: Any, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments after a hook before forward."""
    if not hook.named:
        changed = hook.call(module, args)
        if changed is None:
            return args, kwargs
        return changed if isinstance(changed, tuple) else (changed,), kwargs
    changed = hook.call(module, args, kwargs)
    if changed is None:
        return args, kwargs
    if not isinstance(changed, tuple) or len(changed) != 2:
        raise ArgumentTypeError(
            "register_forward_pre_hook",
            f"a hook with keyword arguments returned {kind_of(changed)}",
            "return None, or (args, kwargs)",
        )
    return changed


class HookHandle(Handle):
    """A registered hook: `remove()`, calling the handle, or leaving `with handle:` takes it out again."""

    def __init__(self, hooks: dict[int, Hook], key: int, hook: Hook):
        self._hooks, self._key, self._hook = hooks, key, hook

    def remove(self) -> None:
        if self._hooks.get(self._key) is self._hook:  # another one may have its key by now
            del self._hooks[self._key]


class Passage:
    """A call of a module whose gradients pass its hooks: those of its results first, then those of its arguments."""

    def __init__(self, module: Any, before: list[Hook], after: list[Hook]):
        self.module, self.before, self.after = module, before, after
        #: how many arguments there are, and which of them are tensors that want a gradient; the same of results
        self.count, self.spots = 0, _NONE
        self.out_count, self.out_spots = 0, _NONE
        #: tensors among the arguments that want no gradient beside some that do: hooks see zeros
        self.others: list[tuple[int, Any, Any, str]] = []
        #: the gradients of the results in the walk that is under way
        self.grads: tuple[Any, ...] | None = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, for forward."""
        self.count, self.spots = len(args), _wanting(args)
        if self.spots:
            self.others = [
                (k, x.shape, x.dtype, x.device) for k, x in enumerate(args)
                if isinstance(x, Tensor) and k not in self.spots and x.dtype.is_float
            ]  # fmt: skip
        return _through(self.module, args, self.spots, self._arguments, False)

    def leave(self, out: Any) -> Any:
        """What forward gave, for the caller."""
        row = out if isinstance(out, tuple) else (out,)
        self.out_count, self.out_spots = len(row), _wanting(row)
        made = _through(self.module, row, self.out_spots, self._results, True)
        if not isinstance(out, tuple):
            return made[0]
        return made if type(out) is tuple else type(out)(*made)

    def _results(self, *gs: Any) -> tuple[Any, ...]:
        grads = _spread(gs, self.out_spots, self.out_count)
        for hook in self.before:
            grads = _changed(hook.call(self.module, grads), grads, "pre_hook", "grad_output")
        self.grads = grads
        if not self.spots:
            self._arguments()
        return tuple([grads[k] for k in self.out_spots])

    def _arguments(self, *gs: Any) -> tuple[Any, ...]:
        given = self.grads
        if given is None:  # these came another way than through the results
            return gs
        grads = _spread(gs, self.spots, self.count)
        if self.others:
            none = {k: zeros(shape, dtype=dtype, device=device) for k, shape, dtype, device in self.others}
            grads = tuple([none.get(k, g) for k, g in enumerate(grads)])
        for hook in self.after:
            grads = _changed(hook.call(self.module, grads, given), grads, "hook", "grad_input")
        self.grads = None
        if not self.spots and any(g is not None for g in grads):
            raise AutogradError(
                "register_full_backward_hook",
                f"no argument of {type(self.module).__name__} requires a gradient, and a hook returned one",
                "return None",
            )
        return tuple([grads[k] for k in self.spots])


def _wanting(row: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple([k for k, x in enumerate(row) if isinstance(x, Tensor) and x.requires_grad])


def _spread(gs: tuple[Any, ...], spots: tuple[int, ...], count: int) -> tuple[Any, ...]:
    """One for each of `count`, None where there is none."""
    found = dict(zip(spots, gs))
    return tuple([found.get(k) for k in range(count)])


def _changed(returned: Any, before: tuple[Any, ...], kind: str, what: str) -> tuple[Any, ...]:
    """Gradients after a hook."""
    if returned is None:
        return before
    row = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
    if len(row) != len(before):
        raise AutogradError(
            f"register_full_backward_{kind}",
            f"the hook returned {len(row)} gradients for the {len(before)} of {what}",
            "return None, or a tuple with one for each, None where there is none",
        )
    return row


def _through(
    module: Any, row: tuple[Any, ...], spots: tuple[int, ...], pull: Any, partial: bool
) -> tuple[Any, ...]:
    """The row with copies of its tensors at these spots, whose gradients pass `pull`."""
    if not spots:
        return row
    face = dispatch.state.executor.face
    inputs = [face(row[k]) for k in spots]
    with dispatch.set_grad(False):
        copies = [x.clone() for x in inputs]
    made = dict(zip(spots, with_gradient(type(module).__name__, inputs, copies, pull, partial)))
    return tuple([made.get(k, x) for k, x in enumerate(row)])
