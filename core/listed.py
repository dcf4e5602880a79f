"""Listed launches: one loop kernel over the operands of many, as one launch.

An optimiser updates many parameters by the same loop. As one launch it is divided among the threads by elements, not
by parameters: small ones cost neither a call nor a thread each. Order and bits are those of the single loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any

from .backend import Launch, Program
from .loops import LoopKernel
from .lower import operations

#: so many loops of a kind are worth a kernel that walks a list: it has to be compiled beside the plain one
FEW = 3


def list_key(launch: Launch, backend: Any) -> tuple[object, ...] | None:
    """What launches have in common that can be one; None for a launch that stays by itself."""
    kernel = launch.loop
    if kernel is None or kernel.form != "map" or kernel.listed or launch.nested or not backend.lists:
        return None
    return kernel.key


def listed(backend: Any, launches: Sequence[Launch]) -> Launch:
    """The launches, which have one `list_key` and do not depend on each other, as one."""
    plain = launches[0].loop
    assert plain is not None
    kernel = LoopKernel(
        plain.form, plain.kept, plain.reduced, plain.inputs, plain.roots, plain.outputs, plain.split, plain.notes, True
    )  # fmt: skip
    source, _ = backend.emit_loop(kernel)
    rows: list[Any] = []
    before = pieces = 0
    # The largest first: its first half is then walked by the thread that has just made what it reads of it.
    for launch in sorted(launches, key=lambda x: -_elements(x)):
        elements = _elements(launch)
        rows += [before, *launch.args]
        before += elements
        pieces += -(-elements // 64) if kernel.n_axes == 1 else elements // launch.args[kernel.n_axes - 1]  # type: ignore[operator]
    args = [len(launches), before, len(launches[0].args) + 1, *rows]
    chunks = Program(backend).chunks(pieces, before * _work(kernel))
    return Launch(source, tuple(args), chunks, launches[0].wave)


def _elements(launch: Launch) -> int:
    """Elements of a map's domain: the product of its first slots."""
    assert launch.loop is not None
    sizes: Sequence[Any] = launch.args[: launch.loop.n_axes]
    return math.prod(sizes)


def _work(kernel: LoopKernel) -> float:
    """Bytes and operations of an element, as `lower_map` counts them."""
    moved = sum(x.dtype.itemsize for x in kernel.inputs if x.kind == "buffer")
    moved += sum(x.dtype.itemsize for x in kernel.outputs)
    return moved + operations(kernel.roots)


def gather(
    backend: Any,
    launches: Sequence[Launch],
    may: Callable[[int], bool] = lambda k: True,
    always: Container[Any] = (),
) -> list[tuple[Launch, tuple[int, ...]]]:
    """Launches that do not depend on each other, with those of one kind as one where there are `FEW` of them.

    may: whether number k may become part of one; always: kinds that are a list however few they are, so that which
    kernels a program has does not depend on sizes. Returns: launches with the numbers of those that they stand for.
    """
    kinds: dict[Any, list[int]] = {}
    for k, launch in enumerate(launches):
        key = list_key(launch, backend) if may(k) else None
        kinds.setdefault(k if key is None else key, []).append(k)
    found: list[tuple[Launch, tuple[int, ...]]] = []
    for key, members in kinds.items():
        if len(members) < FEW and key not in always:
            found += [(launches[k], (k,)) for k in members]
        else:
            found.append((listed(backend, [launches[k] for k in members]), tuple(members)))
    return sorted(found, key=lambda row: row[1])


def in_turn(backend: Any, launches: Sequence[Launch]) -> list[Launch]:
    """Loops that do not depend on each other: side by side, or one after the other where that is too little work."""
    total = sum(_elements(x) * _work(x.loop) for x in launches if x.loop is not None and not x.loop.listed)
    shared = total >= backend.serial_work or any(x.chunks > 1 for x in launches)
    return [x._replace(wave=k == 0 or not shared) for k, x in enumerate(launches)]
