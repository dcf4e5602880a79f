"""Sequences of different lengths: padded to one tensor, or packed step by step, by PyTorch's names.

Layers take `lengths=` beside a padded tensor, which packs nothing; packed sequences are for code written with them.
Lengths are Python data: a tensor of them is read, which in graph mode ends a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core import dispatch
from ...core.errors import ArgumentError, ShapeError
from ...core.kinds import NumberOrNan
from ...core.op import REGISTRY
from ...core.spoken import spell as _spell
from ...core.value import Tensor

__all__ = [
    "PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence",
    "unpack_sequence", "unpad_sequence",
]  # fmt: skip

_PAD, _TAKE, _WHERE = REGISTRY["pad"], REGISTRY["take"], REGISTRY["where"]


class PackedSequence(NamedTuple):
    """Steps of sequences without padding: the first steps of all, then the second ones of those that have them.

    data: any[steps in all, ...]; batch_sizes: int64[T], how many sequences have each step; sorted_indices,
    unsorted_indices: int64[N] where sequences were brought to descending order, else None.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


def _constant(values: Any, like: Tensor) -> Tensor:
    made: Tensor = dispatch.state.executor.constant(np.asarray(values, np.int64), like.device)
    return made


def _numbers(op: str, lengths: Any) -> np.ndarray:
    found = np.asarray(lengths.tolist() if isinstance(lengths, Tensor) else lengths, np.int64)
    if found.ndim != 1 or not found.size or found.min() < 1:
        raise ArgumentError(
            op, f"lengths={found.tolist()} are not numbers of steps", "give each sequence one from 1 on"
        )
    return found


def _swapped(x: Tensor) -> Tensor:
    return REGISTRY["permute"](x, axes=(1, 0, *range(2, x.ndim)))  # type: ignore[no-any-return]


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """The steps of padded sequences without their padding.

    input: any[T, N, ...] ([N, T, ...] when batch_first); lengths: N numbers from 1 to T; enforce_sorted: they descend
    (else sequences are put in that order). Raises: ArgumentError, ShapeError. Gradients flow to the steps that count.
    """
    op = "pack_padded_sequence"
    x, count = _swapped(input) if batch_first else input, _numbers(op, lengths)
    steps, rows = x.shape[:2]
    if len(count) != rows or count.max() > steps:
        raise ShapeError(
            op, f"lengths={count.tolist()} do not fit input: {input.type}", "one for each row, up to T"
        )
    order = np.argsort(-count, kind="stable")
    if enforce_sorted and not (order == np.arange(rows)).all():
        raise ArgumentError(
            op, f"lengths={count.tolist()} do not descend", "sort them, or use enforce_sorted=False"
        )
    sizes = (count[None] > np.arange(count.max())[:, None]).sum(axis=1)
    places = np.concatenate([t * rows + order[:n] for t, n in enumerate(sizes)])
    data = _TAKE(x.reshape(steps * rows, *x.shape[2:]), _constant(places, x), axis=0)
    indices = (None, None) if enforce_sorted else (_constant(order, x), _constant(np.argsort(order), x))
    return PackedSequence(data, _constant(sizes, x), *indices)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: NumberOrNan = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Packed sequences as one tensor any[T, N, ...] ([N, T, ...] when batch_first), and their lengths: int64[N].

    padding_value: what stands beyond a sequence's end; total_length: T, the longest sequence's when None.
    Raises: ArgumentError for a total_length below that.
    """
    data, sizes = sequence.data, np.asarray(sequence.batch_sizes.tolist(), np.int64)
    longest, rows = len(sizes), int(sizes[0])
    total = longest if total_length is None else total_length
    if total < longest:
        raise ArgumentError("pad_packed_sequence", f"total_length={total} is below {longest}", "leave it out")
    order = (
        np.arange(rows) if sequence.sorted_indices is None else np.asarray(sequence.sorted_indices.tolist())
    )
    places = np.full((total, rows), -1, np.int64)
    for t, (start, n) in enumerate(zip(np.cumsum(sizes) - sizes, sizes)):
        places[t, order[:n]] = start + np.arange(n)
    counts = (places >= 0).sum(axis=0)
    padded = _TAKE(data, _constant(np.maximum(places, 0), data), axis=0)
    if counts.min() < total:
        live = _constant(places >= 0, data) != 0
        padded = _WHERE(live.reshape(total, rows, *(1,) * (data.ndim - 1)), padded, padding_value).to(
            data.dtype
        )
    return _swapped(padded) if batch_first else padded, _constant(counts, data)


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: NumberOrNan = 0.0
) -> Tensor:
    """Sequences any[T_i, ...] as one tensor any[T, N, ...] ([N, T, ...] when batch_first), padded at their ends.

    Raises: ArgumentError for none, ShapeError where their other axes differ.
    """
    op = "pad_sequence"
    sequences = list(sequences)
    if not sequences:
        raise ArgumentError(op, "got no sequences", "pass at least one")
    for s in sequences:
        if s.ndim < 1 or s.shape[1:] != sequences[0].shape[1:]:
            raise ShapeError(op, f"{s.type} beside {sequences[0].type}", "only the first axis may differ")
    longest = max(s.shape[0] for s in sequences)
    rest = ((0, 0),) * (sequences[0].ndim - 1)
    rows = [_PAD(s, padding=((0, longest - s.shape[0]), *rest), value=padding_value) for s in sequences]
    return REGISTRY["stack"](rows, axis=0 if batch_first else 1)  # type: ignore[no-any-return]


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """The sequences that `pad_sequence` put together: views, one for each length."""
    x = padded_sequences if batch_first else _swapped(padded_sequences)
    return [x[k, :n] for k, n in enumerate(_numbers("unpad_sequence", lengths).tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences any[T_i, ...] as a PackedSequence; enforce_sorted: the longest comes first."""
    return pack_padded_sequence(
        pad_sequence(sequences), [s.shape[0] for s in sequences], False, enforce_sorted
    )


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a PackedSequence, one by one."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences))


_spell(globals(), __all__, strict=True)
