"""Reference results in NumPy, and the arguments of samples: what tests and `explain` run an op with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import dispatch
from .abstract import types_of
from .declared import Ints, Sample
from .errors import DuogradError, TraceError
from .op import REGISTRY, Op
from .scalar import evaluate
from .types import DTYPES, DType, TensorType, float32


def make_arguments(sample: Sample, dtype: DType = float32) -> list[Any]:
    """The sample's arguments: NumPy arrays for shapes, arrays of floats in the dtype, everything else as it is."""
    rng = np.random.default_rng(0)
    out: list[Any] = []
    for a in sample.args:
        if isinstance(a, Ints):
            out.append(rng.integers(a.low, a.high, a.shape).astype(DTYPES[a.dtype].np))
        elif isinstance(a, tuple):
            out.append(dtype.array(rng.uniform(sample.low, sample.high, a)))
        elif isinstance(a, np.ndarray) and a.dtype.kind == "f":
            out.append(dtype.array(a))
        else:
            out.append(a)
    return out


def has_floats(sample: Sample) -> bool:
    """Whether some argument is a tensor of floats."""
    return any(
        a.dtype.kind == "f" if isinstance(a, np.ndarray) else isinstance(a, tuple) and not isinstance(a, Ints)
        for a in sample.args
    )


def samples(kind: str | None = None) -> Iterator[tuple[Op, int, Sample]]:
    """Every sample of every op (of one kind): op, number, sample."""
    for name in sorted(REGISTRY):
        op = REGISTRY[name]
        if kind is None or op.kind == kind:
            for k, sample in enumerate(op.samples):
                yield op, k, sample


def type_of(x: Any) -> Any:
    """The TensorType of an array; numbers and None as they are."""
    if isinstance(x, np.ndarray):
        return TensorType(DTYPES[x.dtype.name], x.shape)
    return x


def reference(op: Op, arrays: list[Any], attrs: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """The result of a pointwise or primitive op by its own body, in NumPy."""
    types = [type_of(x) for x in arrays]
    outs = op.infer(types, attrs)
    if op.kind == "pointwise":
        kinds = [t.dtype if isinstance(t, TensorType) else type(t) for t in types]
        form = op.form(kinds, attrs)
        return tuple(evaluate(form.roots, arrays, outs[0].shape))
    named: dict[str, Any] = op.attrs_dict(attrs)
    # 16-bit floats are computed in float32 and rounded once.
    half = [isinstance(t, TensorType) and t.dtype.is_half for t in types]
    arrays = [x.astype(np.float32) if h else x for x, h in zip(arrays, half)]
    with np.errstate(all="ignore"):
        made = op.fn(*arrays, **{k: v.np if isinstance(v, DType) else v for k, v in named.items()})
    results = made if isinstance(made, tuple) else (made,)
    return tuple(t.dtype.array(r).reshape(t.shape) for r, t in zip(results, outs, strict=True))


#: families whose bodies in NumPy are no measure for 16-bit floats: they have tests of their own
_WIDE_FAMILIES = ("solve", "decomposition", "norms", "attention")


def has_halves(op: Op) -> bool:
    """Whether tests over all ops compare float16 and bfloat16 with the op's body."""
    return op.name != "nextafter" and op.module.rpartition(".")[2] not in _WIDE_FAMILIES


def supported_dtypes(op: Op) -> tuple[DType, ...]:
    """The dtypes that the op takes in place of its first sample's floats (or integers, where it has no floats).

    Type rules are asked, those of its ops for a composite; one that reads a value runs on that sample.
    """
    return tuple(d for d in DTYPES.values() if _takes(op, d)) if op.samples else ()


def _takes(op: Op, dtype: DType) -> bool:
    sample = op.samples[0]
    arrays = make_arguments(sample, dtype=dtype)
    if not has_floats(sample):
        arrays = [dtype.array(a) if isinstance(a, np.ndarray) else a for a in arrays]
    try:
        try:
            types_of(op, arrays, sample.attrs)
        except TraceError:
            constant = dispatch.state.executor.constant
            op(*[constant(a, "cpu") if isinstance(a, np.ndarray) else a for a in arrays], **sample.attrs)
    except DuogradError:
        return False
    return True
