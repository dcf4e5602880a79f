"""Sorting and selection along an axis on a GPU: `sort.cuh` says how.

A stable order is unique, so no result depends on blocks. The first k alone are merged where k are asked for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.backend import Arg, Kernel, Operand, Program, takes_halves
from ...core.lower import copy
from ...core.types import DTYPES, DType, int64
from .written import dense, per_block, per_item, start

#: elements that a block sorts (RUN in sort.cuh)
RUN = 512
#: bits of infinity
_INFINITY = {
    "float16": "0x7c00",
    "bfloat16": "0x7f80",
    "float32": "0x7f800000u",
    "float64": "0x7ff0000000000000ull",
}


class Order(NamedTuple):
    """Sorted rows: keys and the positions they had, of a dtype that holds these."""

    keys: Operand
    places: Operand


def _unsigned(dtype: DType) -> DType:
    return DTYPES[f"uint{8 * dtype.itemsize}"]


def _encoding(dtype: DType, equal_zeros: bool) -> str:
    """The structure of sort.cuh that makes keys of a dtype's bits."""
    word = _unsigned(dtype).char
    if dtype.is_float:
        return f"FloatKey<{word}, {_INFINITY[dtype.name]}, {'true' if equal_zeros else 'false'}>"
    return f"{'SignedKey' if dtype.kind == 'int' else 'UnsignedKey'}<{word}>"


@functools.cache
def _run_source(encoding: str, key: str, place: str) -> str:
    slots = ["rows", "n", "flip", f"x: const {key}*", f"keys: {key}*", f"places: {place}*"]
    body = f"sort_run<{encoding}>(number, rows, n, (u64)flip, x, keys, places, key, place);"
    shared = [f"{key} key[2][RUN]", "u16 place[2][RUN]"]
    return per_block(f"sort in blocks: {encoding}", "sort", slots, body, shared)


@functools.cache
def _merge_source(key: str, place: str) -> str:
    slots = ["n", "width", "most", f"keys: const {key}*", f"places: const {place}*", f"keys_to: {key}*"]
    slots += [f"places_to: {place}*"]
    body = "merge_runs(number, n, width, most, keys, places, keys_to, places_to);"
    return per_item(f"merge runs: {key} and {place}", "sort", slots, body)


@functools.cache
def _result_source(word: str, place: str) -> str:
    slots = ["n", "k", f"x: const {word}*", f"places: const {place}*", f"values: {word}*", "indices: i64*"]
    return per_item(
        f"sorted: {word}", "sort", slots, "sorted_result(number, n, k, x, places, values, indices);"
    )


def sorted_rows(
    program: Program, x: Operand, k: int, descending: bool = False, equal_zeros: bool = True
) -> Order:
    """Append a stable sort of the rows of a contiguous x along its last axis; the first k of a row will be right.

    Call `wave()` after it.
    """
    n = x.shape[-1]
    rows = x.size // n
    # Positions are below n.
    place = DTYPES["uint32"] if n < 1 << 32 else int64
    word = _unsigned(x.dtype)
    flip = ((1 << 8 * x.dtype.itemsize) - 1 if x.dtype.itemsize < 8 else -1) if descending else 0
    order, other = (
        Order(program.scratch_operand(word, x.shape), program.scratch_operand(place, x.shape))
        if wanted
        else None
        for wanted in (True, n > RUN)
    )
    assert order is not None
    blocks = rows * -(-n // RUN) if n >= RUN else -(-rows // (RUN // n))
    args: list[Arg] = [rows, n, flip, x.slot, order.keys.slot, order.places.slot]
    start(program, _run_source(_encoding(x.dtype, equal_zeros), word.char, place.char), blocks, args)
    width = RUN
    while width < n:
        assert other is not None
        program.wave()
        args = [n, width, k, *(o.slot for o in (*order, *other))]
        start(program, _merge_source(word.char, place.char), x.size, args)
        order, other, width = other, order, 2 * width
    return order


def _lined_up(program: Program, x: Operand, axis: int) -> Operand:
    """x with the axis last."""
    if not x.shape:
        return x._replace(shape=(1,), strides=(1,))
    order = [*(a for a in range(len(x.shape)) if a != axis), axis]
    return x._replace(shape=tuple(x.shape[a] for a in order), strides=tuple(x.strides[a] for a in order))


def _run(
    program: Program, x: Operand, values: Operand | None, indices: Operand | None, axis: int, k: int | None,
    descending: bool,
) -> None:  # fmt: skip
    """The first k of the sorted elements along an axis (all when None), to values, to indices, or to both."""
    if not x.size:
        return
    targets = [o and _lined_up(program, o, axis) for o in (values, indices)]
    x = dense(program, _lined_up(program, x, axis))
    n = x.shape[-1]
    k = n if k is None else k
    if not k:
        return
    program.wave()
    # Of zeros the values alone have -0.0 first; with positions they keep their order.
    order = sorted_rows(program, x, k, descending, indices is not None)
    program.wave()
    made = [o and (o if o.is_contiguous else program.scratch_operand(o.dtype, o.shape)) for o in targets]
    ends: list[Arg] = [0 if o is None else o.slot for o in made]
    source = _result_source(_unsigned(x.dtype).char, order.places.dtype.char)
    start(program, source, math.prod(x.shape[:-1]) * k, [n, k, x.slot, order.places.slot, *ends])
    program.wave()
    for o, target in zip(made, targets):
        if o is not None and target is not None:
            copy(program, o, target)


@takes_halves
def sort(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, descending: bool,
         **_: Any) -> None:  # fmt: skip
    """Values alone."""
    _run(program, inputs[0], outputs[0], None, axis, None, descending)


@takes_halves
def argsort(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, descending: bool,
            **_: Any) -> None:  # fmt: skip
    """Positions alone."""
    _run(program, inputs[0], None, outputs[0], axis, None, descending)


@takes_halves
def sort_both(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int, descending: bool
              ) -> None:  # fmt: skip
    """Values and positions."""
    _run(program, inputs[0], outputs[0], outputs[1], axis, None, descending)


@takes_halves
def topk(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, k: int, axis: int, largest: bool,
         **_: Any) -> None:  # fmt: skip
    """The first k values and positions of a sorted row."""
    _run(program, inputs[0], outputs[0], outputs[1], axis, k, largest)


KERNELS: dict[str, Kernel] = {"sort": sort, "argsort": argsort, "sort_both": sort_both, "topk": topk}
