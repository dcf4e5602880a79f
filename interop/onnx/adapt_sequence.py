"""Importers of sequences and optionals: Python lists of tensors, and None."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.op import REGISTRY as ops
from ...core.value import Tensor
from .program import host_tensor
from .table import adapter


def _tensor(x: Any) -> Any:
    return x if isinstance(x, Tensor) else host_tensor(x)


@adapter("SequenceConstruct", fold=False, codes="own")
def sequence_construct(*xs):
    """A list of tensors."""
    return list(xs)


@adapter("SequenceEmpty", fold=False)
def sequence_empty(*, dtype=1):
    """An empty list."""
    return []


@adapter("SequenceAt", host=("position",), fold=False, codes="own")
def sequence_at(sequence, position):
    """One element."""
    return sequence[int(np.asarray(position).ravel()[0])]


@adapter("SequenceInsert", host=("position",), fold=False, codes="own")
def sequence_insert(sequence, x, position=None):
    """A list with one element more; at the end when no position is given."""
    out = list(sequence)
    out.insert(len(out) if position is None else int(np.asarray(position).ravel()[0]), x)
    return out


@adapter("SequenceErase", host=("position",), fold=False, codes="own")
def sequence_erase(sequence, position=None):
    """A list with one element less."""
    out = list(sequence)
    del out[-1 if position is None else int(position)]
    return out


@adapter("SequenceLength", fold=False, codes="own")
def sequence_length(sequence):
    """How many elements."""
    return np.array(len(sequence), np.int64)


@adapter("SplitToSequence", host=("split",), fold=False, codes="moved")
def split_to_sequence(x, split=None, *, axis=0, keepdims=1):
    """Parts along an axis as a list."""
    n = x.shape[axis]
    if split is None:
        parts = ops["split"](x, sizes=(1,) * n, axis=axis)
        return list(parts) if keepdims else [ops["squeeze"](p, axis=axis) for p in parts]
    if np.ndim(split) == 0:
        each = int(split)
        split = [min(each, n - k) for k in range(0, n, each)]
    return list(ops["split"](x, sizes=tuple(int(v) for v in split), axis=axis))


@adapter("ConcatFromSequence", fold=False, codes="moved")
def concat_from_sequence(sequence, *, axis, new_axis=0):
    """A list joined along an old or a new axis."""
    row = [_tensor(x) for x in sequence]
    return ops["stack"](row, axis=axis) if new_axis else ops["concat"](row, axis=axis)


@adapter("SequenceMap", fold=False, codes="own")
def sequence_map(node, sequence, *others, body):
    """A subgraph for each element; lists among the others are walked along."""
    rows = []
    for k, x in enumerate(sequence):
        rows.append(node.run(body, [x, *(o[k] if isinstance(o, list) else o for o in others)]))
    return tuple([row[j] for row in rows] for j in range(len(body.outputs)))


@adapter("Optional", fold=False, codes="own")
def optional(x=None, *, type=None):
    """A value that may be absent."""
    return x


@adapter("OptionalHasElement", fold=False, codes="own")
def optional_has_element(x=None):
    """Whether it is there."""
    return np.array(x is not None)


@adapter("OptionalGetElement", fold=False, codes="own")
def optional_get_element(x):
    """The value."""
    return x
