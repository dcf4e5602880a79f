"""Running the program of a hot body, and counting bodies that still run op by op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core import dispatch, hot
from ..core.backend import get_backend, scalar_bits
from ..core.hot import Fused
from ..core.types import check_scalar_range
from .tensor import EagerTensor, fresh


def launcher(fused: Fused, device: str) -> Callable[..., list[EagerTensor]]:
    """A function from a body's tensors (and numbers) to the outputs of its program."""
    execute, backend, name = fused.execute, get_backend(device), fused.name
    outputs = [(lay, backend.maker(nbytes, name)) for lay, nbytes in fused.outputs]
    numbers, drawn, arena = fused.numbers, fused.drawn, backend.maker(fused.arena_bytes, name)
    takes_arena = fused.arena_bytes > 0
    fixed = [x._storage.ptr + x._offset for x in fused.constants]
    tail = list(fused.tail)

    def launch(tensors: Sequence[Any], given: Sequence[Any] = ()) -> list[EagerTensor]:
        values = [x._storage.ptr + x._offset for x in tensors]
        values += fixed
        made = []
        for lay, make in outputs:
            storage = make()
            values.append(storage.ptr)
            made.append(fresh(lay, storage))
        for number, dtype in numbers:
            x = given[number.key] if number.owner is hot.GIVEN else number.read()
            if x.__class__ is int:
                check_scalar_range(name, x, dtype)
            values.append(scalar_bits(x, dtype))
        values += tail
        if takes_arena:
            scratch = arena()
            values.append(scratch.ptr)
        if execute is not None:
            execute(values)
        for generator, count in drawn:
            generator._advance(count)
        return made

    if fused.execute is not None and len(outputs) == 1 and not (numbers or drawn or takes_arena):
        lay, make = outputs[0]
        fixed_tail = tail

        def launch_one(tensors: Sequence[Any], given: Sequence[Any] = ()) -> list[EagerTensor]:
            values = [x._storage.ptr + x._offset for x in tensors]
            values += fixed
            storage = make()
            values.append(storage.ptr)
            values += fixed_tail
            execute(values)
            return [fresh(lay, storage)]

        return _keeping(fused, launch_one)
    return _keeping(fused, launch)


def _keeping(fused: Fused, launch: Any) -> Any:
    """The launcher with the tensors whose addresses it holds: it reads their memory as long as it lives."""
    if fused.seen is not None:
        launch = _handing(launch, fused.seen)
    launch.constants = fused.constants
    return launch


def _handing(launch: Any, seen: tuple[Any, ...]) -> Any:
    """The launcher of a program whose outputs are views of what it writes, or of its tensors."""

    def handing(tensors: Sequence[Any], given: Sequence[Any] = ()) -> list[EagerTensor]:
        made, found = launch(tensors, given), []
        for is_given, k, lay, offset in seen:
            x = tensors[k] if is_given else made[k]
            found.append(x if lay is None else fresh(lay, x._storage, x._offset + offset))
        return found

    return handing


class Body:
    """A body for given layouts that is counted while it runs op by op."""

    __slots__ = ("calls", "name")

    def __init__(self, name: str):
        self.name, self.calls = name, 0

    def due(self) -> bool:
        """Count a call; whether it is the one after which the body is compiled."""
        if dispatch.state.inside:
            return False
        self.calls += 1
        return self.calls == hot.CALLS


class Inside:
    """While a body runs op by op: bodies within it are not counted, for they become part of it."""

    __slots__ = ()

    def __enter__(self) -> None:
        dispatch.state.inside += 1

    def __exit__(self, *_: object) -> None:
        dispatch.state.inside -= 1


inside = Inside()
