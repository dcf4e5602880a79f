"""The door: every op call in either mode passes `apply`. Behind it stands the executor of the moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from . import forks
from .errors import user_line
from .storage import refuse_other_type

if TYPE_CHECKING:
    from .op import Attrs, Op
    from .region import Branch, Repeat, Scan
    from .value import Tensor


class Executor(Protocol):
    """What stands behind the door: eager kernels, or a recorder.

    call: a whole op call, from raw arguments to the result; `call` below does it with the others.
    prepare: raw arguments -> tensors of this executor, numbers and None.
    run: compute (or record) an op that is not expanded; returns a tuple of tensors. `into`: written in place instead.
    write: a tensor takes another's values and history. face: the tensor as this executor sees it.
    number: a setting that may change between calls (a learning rate), read from `owner[key]`.
    offset: seed and first counter of the next `count` random elements; random_state, set_random_state: to go
    back to where they were. attach: put an op with its own gradient, already computed, on the tape.
    check: `refuse(array)` gets the tensor's values and raises an error unless it likes them: at once, or after
    a graph has run and before its effects. branch, repeat, scan: control flow, see core/region.py.
    """

    def call(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any: ...

    def prepare(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]: ...

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, ...]: ...

    def write(self, target: Tensor, value: Any) -> Tensor: ...

    def face(self, x: Tensor) -> Tensor: ...

    def constant(self, array: Any, device: Any) -> Tensor: ...

    def read(self, x: Tensor) -> Any: ...

    def check(self, x: Tensor, refuse: Callable[[Any], None]) -> None: ...

    def get_grad(self, x: Tensor) -> Tensor | None: ...

    def set_grad(self, x: Tensor, value: Tensor | None) -> None: ...

    def number(self, owner: Any, key: str) -> Any: ...

    def offset(self, generator: Any, count: int) -> tuple[Any, Any]: ...

    def attach(
        self, op: Any, inputs: tuple[Any, ...], attrs: Attrs, outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]: ...

    def random_state(self, generator: Any) -> Any: ...

    def set_random_state(self, generator: Any, state: Any) -> None: ...

    def seed(self, generator: Any, seed: int) -> None: ...

    def branch(self, c: Branch) -> tuple[Tensor, ...]: ...

    def repeat(self, c: Repeat) -> tuple[Tensor, ...]: ...

    def scan(self, c: Scan) -> tuple[Tensor, ...]: ...


class _State(threading.local):
    """grad: ops are put on the tape. keeps: which composites reach the executor whole (None: all are expanded).

    inside: how many bodies of composites are running op by op, one in the other. again: the number of the
    repetition that is running, of those that `checkpoint` makes; 0 outside: its ops are not merged with the first ones.
    elsewhere: how often this thread has put another executor behind the door. looked_over: what runs is the function
    of a control op, which was looked over before it and draws no random numbers. watch: in a trace, begins to look
    whether functions change Python state; what it gives is told the op's name when they have run.
    """

    executor: Executor
    grad = True
    keeps: Callable[[Op], bool] | None = None
    inside = 0
    again = 0
    elsewhere = 0
    looked_over = False
    watch: Callable[[Any], Callable[[str], None]] | None = None


state = _State()
#: how often threads have put another executor behind the door; while it is 0 nobody has to ask
_elsewhere = 0
_elsewhere_lock = forks.lock()


def install(executor: Any) -> None:
    """Make `executor` the one that every thread starts with."""
    _State.executor = executor


@contextmanager
def executing(executor: Executor, keeps: Callable[[Op], bool] | None = None) -> Iterator[None]:
    """Put another executor behind the door of this thread. keeps: composites that it wants whole."""
    global _elsewhere
    before = state.executor, state.keeps
    with _elsewhere_lock:
        _elsewhere += 1
        state.elsewhere += 1
    state.executor, state.keeps = executor, keeps
    try:
        yield
    finally:
        state.executor, state.keeps = before
        with _elsewhere_lock:
            _elsewhere -= 1
            state.elsewhere -= 1


def _after_fork() -> None:
    """A child has only this thread."""
    global _elsewhere
    _elsewhere = state.elsewhere


forks.after(_after_fork)


def outside(what: str, fix: str, once: bool = False) -> None:
    """No graph holds what happens here: a function that is being traced is left to Python. what: as a verb; once: later
    calls of the function will perhaps not do it."""
    trace = tracing()
    if trace is not None:
        if once:
            trace.chances = 2
        trace.leave(f"{what}, at {user_line(2)}", fix)


def tracing() -> Any:
    """What can leave a function to Python: the trace that is under way, perhaps behind a `vmap` or behind the look at a
    loop's body; None outside of one."""
    executor: Any = state.executor
    while executor is not None and getattr(executor, "leave", None) is None:
        executor = getattr(executor, "outer", None) or getattr(executor, "outside", None)
    return executor


class set_grad:
    """Context manager and decorator core: record gradients or not in this thread."""

    __slots__ = ("before", "value")

    def __init__(self, value: bool):
        self.value = value

    def __enter__(self) -> None:
        self.before = state.grad
        state.grad = self.value

    def __exit__(self, *_: object) -> None:
        state.grad = self.before


def apply(op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
    """Run an op on tensors and numbers. Returns a tensor, or a tuple when the op has several outputs."""
    return (state.executor if _elsewhere else _State.executor).call(op, inputs, attrs)


def apply_raw(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`apply` on the arguments as the caller wrote them."""
    if _elsewhere:
        executor = state.executor
        whole = getattr(executor, "call_raw", None)  # an executor that wants the binding, too
        if whole is not None:
            return whole(op, args, kwargs)
        inputs, attrs = op.bind(args, kwargs)
        return executor.call(op, inputs, attrs)
    return _State.executor.call_raw(op, args, kwargs)  # type: ignore[attr-defined]


def sized(op: Op, inputs: tuple[Any, ...]) -> Tensor | None:
    """The first result of an op, cut to the number of elements that its last one, int64[1], tells.

    None where values are not read at once (traces, batches) or the backend has no such kernel.
    """
    executor = state.executor if _elsewhere else _State.executor
    whole = getattr(executor, "sized", None)
    return None if whole is None else whole(op, inputs)


def call(executor: Executor, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> Any:
    """An op call step by step: prepare, run or expand, record."""
    st = state
    inputs = executor.prepare(op, inputs)
    if op.kind != "composite" or (st.keeps is not None and st.keeps(op)):
        outputs = executor.run(op, inputs, attrs)
        result = outputs[0] if len(outputs) == 1 else outputs
    elif not op.differentiable:
        if op.look_rule is not None:
            op.look_rule(*inputs, **dict(zip(op.attr_names, attrs)))
        return op.fn(*inputs, **dict(zip(op.attr_names, attrs)))
    else:
        before, st.grad = st.grad, False
        try:
            result = op.fn(*inputs, **dict(zip(op.attr_names, attrs)))
        finally:
            st.grad = before
        outputs = result if isinstance(result, tuple) else (result,)
    if st.grad:
        for x in inputs:
            if x is not None and x.__class__ not in NUMBERS and x._requires_grad:
                record(op, inputs, attrs, outputs)
                break
    return result  # of a composite as its body gave it: a tuple of one part stays a tuple


def apply_in_place(op: Op, target: Tensor, inputs: tuple[Any, ...], attrs: Attrs) -> Tensor:
    """`target` becomes the op's result: `x += y` is add into x. The result must have target's type."""
    executor = state.executor if _elsewhere else _State.executor
    plain = getattr(executor, "plain", None) if _elsewhere else None
    if plain is not None:  # an executor that converts, and the result has to fit
        with executing(plain, state.keeps):
            return apply_in_place(op, target, inputs, attrs)
    inputs = executor.prepare(op, inputs)
    target = executor.face(target)
    recorded = target._requires_grad
    for x in inputs:
        if x is not None and x.__class__ not in NUMBERS and x._requires_grad:
            recorded = True
    recorded = recorded and state.grad
    if recorded or op.kind == "composite" or target._base is not None:
        result = apply(op, before_change(op, inputs, target) if recorded else inputs, attrs)
        refuse_other_type(op.name, result.type, target.type)  # in the words of the other way
        executor.write(target, result)
    else:
        executor.run(op, inputs, attrs, into=(target,))
    return target


def update(op: Op, targets: tuple[Tensor, ...], inputs: tuple[Any, ...], attrs: Attrs) -> None:
    """Write the op's results over `targets` (tensors without history): what optimisers do.

    A target may be an input too. Nothing is recorded on the tape.
    """
    if _elsewhere:
        executor = state.executor
        whole = getattr(executor, "update", None)
        if whole is not None:
            whole(op, targets, inputs, attrs)
            return
    else:
        executor = _State.executor
    executor.run(op, executor.prepare(op, inputs), attrs, into=tuple([executor.face(t) for t in targets]))


def update_rows(owner: Any, op: Op, found: Any, shared: tuple[Any, ...], attrs: Attrs) -> None:
    """`update` of each row of tensors by `op(row[0], gradient, *row[1:], *shared)`, in one native call if possible.

    found: (row, gradient) pairs; owner: the program of such a call is kept as long as this object.
    """
    executor = state.executor if _elsewhere else _State.executor
    if executor is _State.executor:
        executor.update_rows(owner, op, found, shared, attrs)  # type: ignore[attr-defined]
        return
    for row, grad in found:
        update(op, row, (row[0], grad, *row[1:], *shared), attrs)


NUMBERS = frozenset((int, float, bool, complex))


def plain_number(x: int | float) -> int | float:
    """A number of a class of its own (an IntEnum and the like) as a plain one."""
    return int(x) if isinstance(x, int) else float(x)


# The tape needs the door and the door the tape.
from .old_values import before_change  # noqa: E402
from .vjp import record  # noqa: E402
