"""Looking over a function before it becomes a region: what it reads, draws and returns, on types alone.

Bodies of `cond`, `while_loop` and `scan` run once here, in both modes, so that both refuse the same things with
the same words: values that are read, tensors from outside that are changed, gradients that are left in `.grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import dispatch, vjp
from .abstract import Abstract, TypeExecutor
from .errors import TraceError
from .op import Attrs, Op
from .region import Branch, Repeat, Scan
from .types import TensorType
from .value import Tensor


class Found(NamedTuple):
    """closures: tensors from outside; generators: those that numbers were drawn from; draws, outs: per function."""

    closures: tuple[Any, ...]
    generators: tuple[Any, ...]
    draws: tuple[bool, ...]
    outs: tuple[tuple[Any, ...], ...]


class _Scouted(Abstract):
    """outside: shares memory with an argument, or with a tensor from outside."""

    __slots__ = ("_outside", "_scout")

    def __init__(self, scout: _Scout, kind: TensorType, place: str, outside: bool):
        super().__init__(kind, place)
        self._scout, self._outside = scout, outside

    def _get_version(self) -> int:
        return 0

    def _ask(self, value: bool) -> None:
        self._scout.refuse_asking(self, value)
        super()._ask(value)

    def _leaked(self, op: str) -> None:
        raise TraceError(
            op, f"a tensor {self.type} of a function of {self._scout.name} was used outside of it",
            "return it from the function instead of keeping it; call what keeps its results before the loop",
        )  # fmt: skip

    def _alias(self) -> _Scouted:
        return _Scouted(self._scout, self._kind, self._place, self._outside)


class _Scout(TypeExecutor):
    """outside: the executor that will run the functions."""

    def __init__(self, name: str, outside: Any):
        self.name, self.outside = name, outside
        self.closures: dict[int, tuple[Any, _Scouted]] = {}
        self.generators: dict[int, Any] = {}
        self.drew = False

    def make(self, kind: TensorType, place: str, outside: bool = False) -> _Scouted:
        return _Scouted(self, kind, place, outside)

    def face(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or (x.__class__ is _Scouted and x._scout is self):  # type: ignore[attr-defined]
            return x
        key = id(x._known())  # one tensor may have two names in a trace
        found = self.closures.get(key)
        if found is None:
            found = self.closures[key] = x, self.make(x.type, x.device, True)
        return found[1]

    def constant(self, array: Any, device: Any) -> Tensor:
        made = super().constant(array, device)
        return self.make(made.type, made.device)

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[Any, ...] | None = None
    ) -> tuple[Any, ...]:
        for target in into or ():
            self._refuse_change(target)
        if into is not None:
            return into
        outside = op.is_view and inputs[0]._outside
        return tuple(self.make(t.type, t.device, outside) for t in super().run(op, inputs, attrs))

    def write(self, target: Any, value: Any) -> Any:
        target = self.face(target)
        self._refuse_change(target)
        return target

    def _refuse_change(self, target: Any) -> None:
        if self.face(target)._outside:
            raise TraceError(
                self.name, f"a function of it changes {target.type} in place, which is its argument or from outside",
                "return the new value as part of the carry or of the result (y = x + 1, not x += 1)",
            )  # fmt: skip

    def refuse_asking(self, face: _Scouted, value: bool) -> None:
        """Refuse to change `requires_grad` of a tensor from outside."""
        for x, known in self.closures.values():
            if known is face and self.outside.face(x)._requires_grad is not value:
                raise TraceError(
                    self.name, f"a function of it changes requires_grad of {x.type}, which is from outside",
                    "do it before, or work on x.detach().requires_grad_()",
                )  # fmt: skip

    def set_grad(self, x: Any, value: Any) -> None:
        if self.face(x)._outside:
            raise TraceError(
                self.name, "a function of it leaves a gradient in .grad of a tensor from outside",
                "take the gradient with dg.grad or dg.vjp and return it",
            )  # fmt: skip
        x._grad = value

    def get_grad(self, x: Any) -> Any:
        return x._grad

    def read(self, x: Any) -> Any:
        raise TraceError(
            self.name, f"a function of it reads the value of {x.type}, which is another one at every turn or call",
            "use dg.where, or a dg.cond inside, in place of a Python branch",
        )  # fmt: skip

    def offset(self, generator: Any, count: int) -> tuple[int, int]:
        self.generators.setdefault(id(generator), generator)
        self.drew = True
        return 0, 0

    def seed(self, generator: Any, seed: int) -> None:
        raise TraceError(self.name, "a function of it sets a seed", "set it outside")

    def check(self, x: Any, refuse: Any) -> None:
        if getattr(refuse, "prints", False):
            raise TraceError(
                self.name, "a function of it prints, which a loop inside a graph cannot",
                "return the values as rows of a scan, or in the carry, and print them after it",
            )  # fmt: skip

    attach = staticmethod(vjp.attach)  # type: ignore[assignment]

    def branch(self, c: Branch) -> tuple[Any, ...]:
        return self._own(super().branch(c))

    def repeat(self, c: Repeat) -> tuple[Any, ...]:
        return self._own(super().repeat(c))

    def scan(self, c: Scan) -> tuple[Any, ...]:
        return self._own(super().scan(c))

    def _own(self, made: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self.make(t.type, t.device) for t in made)


def scout(
    name: str, functions: Sequence[Callable[..., Any]], arguments: Sequence[tuple[TensorType, str]]
) -> Found:
    """Run flat functions of tensors on types and devices. Raises TraceError for what a region cannot do."""
    executor = _Scout(name, dispatch.state.executor)
    looked = None if dispatch.state.watch is None else dispatch.state.watch(functions)
    outs, draws = [], []
    with dispatch.executing(executor), dispatch.set_grad(False):
        for fn in functions:
            executor.drew = False
            args = [executor.make(t, d, True) for t, d in arguments]
            outs.append(tuple(executor.face(y) for y in fn(*args)))
            draws.append(executor.drew)
    if looked is not None:
        looked(name)
    return Found(
        tuple(x for x, _ in executor.closures.values()), tuple(executor.generators.values()), tuple(draws),
        tuple(outs),
    )  # fmt: skip
