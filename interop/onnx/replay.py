"""A captured function by duograd's own ops, one at a time: what its values are, and what rounding makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ...core import dispatch
from ...core.scalar import walk
from ...core.value import Tensor
from ...graph.ir import Value
from .agreement import TOLERANCE, apart, differs, differs_in_kind, unlike
from .capture import Captured
from .control import Sub, run_control
from .dimension import Dim, Factor
from .pairs import packed
from .recorder import CONTROL


def _at(x: Any, k: int) -> Any:
    """A number, or nested numbers, as trace k saw it."""
    if isinstance(x, (Dim, Factor)):
        return x.vector[k]
    if isinstance(x, (tuple, list)):
        return type(x)(_at(v, k) for v in x)
    return x


def _rounded(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Floats with their last bit drawn anew."""
    kind = array.real.dtype
    if kind.name not in TOLERANCE:
        return array
    step = float(ml_dtypes.finfo(kind).eps) * rng.choice(np.array([-1, 0, 1]), array.shape)
    wide = array.astype(np.float64) if kind.itemsize == 2 else array
    return (wide * (1 + step)).astype(array.dtype)


def values_of(captured: Captured, k: int, seed: int = 0) -> dict[Value, np.ndarray]:
    """Every value of the captured function at the sizes of trace k, by duograd's own ops, one at a time.

    seed: other than 0, inputs and weights are rounded in another way for each.
    """
    tensors = _given(captured, k, seed)
    with dispatch.set_grad(False):
        _run_records(captured.records, tensors, k)
    return {v: _read(t) for v, t in tensors.items()}


def _read(t: Tensor) -> np.ndarray:
    return packed(np.asarray(dispatch._State.executor.read(t)))


def _given(captured: Captured, k: int, seed: int = 0) -> dict[Value, Tensor]:
    """Inputs and weights by value."""
    host = dispatch._State.executor
    rng = np.random.default_rng(seed)
    tensors: dict[Value, Tensor] = {}
    for (_, value), array in zip(captured.inputs, captured.arrays[k]):
        tensors[value] = host.constant(_rounded(array, rng) if seed else array, value.device)
    for value, (data, literal) in captured.weights.items():
        if isinstance(data, Tensor):
            again = seed and not literal
            tensors[value] = host.constant(_rounded(host.read(data), rng), value.device) if again else data
        else:
            shape = _at(captured.shapes[value], k)
            tensors[value] = host.constant(np.full(shape, data, value.type.dtype.np), value.device)
    return tensors


#: roundings of inputs and weights that are tried: each element that differs has to move in one of them
ROUNDINGS = 16


def follows_rounding(captured: Captured, k: int, value: Value, want: np.ndarray, got: Any) -> bool:
    """Whether elements that differ also move when inputs and weights are rounded in another way, and no farther.

    So it is with what is computed from noise: an optimiser's step along a gradient that is 0 but for rounding.
    """
    if differs_in_kind(want, got) or want.dtype.kind != "f" or not want.size:
        return False
    far = np.asarray(apart(want, got))
    if np.isinf(far).any():
        return False
    still, spread = far > 0, 0.0
    for seed in range(1, ROUNDINGS + 1):
        again = values_of(captured, k, seed)[value]
        moved = np.asarray(apart(want, again))
        finite = np.isfinite(moved)
        spread = max(spread, float(moved[finite].max(initial=0)))
        still &= ~(moved > 0)
        if not still.any() and far.max() <= 4 * spread:
            return True
    return False


def turns_on_rounding(
    captured: Captured, k: int, given: dict[Value, np.ndarray], keeps_more: bool = False
) -> bool:
    """Whether a runtime's results differ by what ops decide on numbers that agree within the tolerance.

    So it is where a function asks whether a number is 0, which one is the largest, what integer it is cut to. given:
    what the runtime has for values. Every op must give on the runtime's own numbers what the runtime gives, and the op
    whose result differs first from duograd's must be one that jumps. keeps_more: between ops of 16 bits the runtime
    does not round, so that its own numbers are known to the last bit but one.
    """
    ours, tensors = values_of(captured, k), _given(captured, k)
    parted: set[Value] = set()
    with dispatch.set_grad(False):
        for record in captured.records:
            reads = {x for x in record.inputs if isinstance(x, Value)}
            after = bool(parted & reads) or (record.op in CONTROL and bool(parted))
            _run_records([record], tensors, k)
            for value in record.outputs:
                if value in given:
                    if differs(_read(tensors[value]), given[value]) and not (
                        keeps_more and _may_give(record, value, k, tensors, given[value])
                    ):
                        return False
                    if not value.type.dtype.is_complex:
                        tensors[value] = dispatch._State.executor.constant(given[value], value.device)
                if differs(ours[value], _read(tensors[value])):
                    if not after and not _jumps(record, value, k):
                        return False
                    parted.add(value)
    return bool(parted)


def _may_give(record: Any, value: Value, k: int, tensors: dict[Value, Tensor], want: np.ndarray) -> bool:
    """Whether an op that jumps gives each element of a result for operands of 16 bits that are rounded otherwise."""
    halves = [x for x in record.inputs if isinstance(x, Value) and _is_half(x)]
    if not halves or not _jumps(record, value, k) or differs_in_kind(_read(tensors[value]), want):
        return False
    off = np.ones(want.shape, bool)
    for seed in range(1, ROUNDINGS + 1):
        rng = np.random.default_rng(seed)
        near = {
            x: dispatch._State.executor.constant(_rounded(_read(tensors[x]), rng), x.device) for x in halves
        }
        moved = {**tensors, **near}
        _run_records([record], moved, k)
        off &= unlike(want, _read(moved[value]))
        if not off.any():
            return True
    return False


def _is_half(x: Value) -> bool:
    return x.type.dtype.is_float and x.type.dtype.itemsize == 2


#: scalar instructions that jump
_JUMPS = {"floor", "ceil", "trunc", "rint", "sign", "floordiv", "mod", "fmod", "copysign"}


def _jumps(record: Any, value: Value, k: int) -> bool:
    """Whether a result of a call is no float, or of an op whose body has jumps."""
    if not (value.type.dtype.is_float or value.type.dtype.is_complex):
        return True
    if record.op.kind != "pointwise":
        return False
    kinds = [x.type.dtype if isinstance(x, Value) else type(_at(x, k)) for x in record.inputs]
    form = record.op.form(kinds, tuple(_at(v, k) for v in record.attrs.values()))
    return any(e.op in _JUMPS for e in walk(form.roots))


def _run_records(records: Sequence[Any], tensors: dict[Value, Tensor], k: int) -> None:
    """Run calls one at a time on tensors by value; their results are added."""

    def region(sub: Sub, given: Sequence[Any]) -> list[Any]:
        inner = {**tensors, **dict(zip(sub.inputs, given, strict=True))}
        _run_records(sub.records, inner, k)
        return [inner[v] for v in sub.outputs]

    for record in records:
        inputs = tuple(tensors[x] if isinstance(x, Value) else _at(x, k) for x in record.inputs)
        if record.op in CONTROL:
            made: Any = run_control(record, inputs, region)
        else:
            attrs = tuple(_at(v, k) for v in record.attrs.values())
            made = dispatch.apply(record.op, inputs, attrs)
        tensors.update(zip(record.outputs, made if isinstance(made, (tuple, list)) else (made,)))
