"""A captured function by duograd's own ops, one at a time: what its values are, and what rounding makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ...core import dispatch
from ...core.scalar import walk
from ...core.types import bfloat16, float16, float32
from ...core.value import Tensor
from ...graph.ir import Value
from .agreement import TOLERANCE, apart, coarsest, differs, differs_in_kind, unlike
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


def grains(captured: Captured) -> dict[Value, str]:
    """The least precise float dtype that each value was rounded to on its way; inputs and weights are what they are."""
    found: dict[Value, str] = {}
    _follow(captured.records, found)
    return found


def _follow(records: Sequence[Any], found: dict[Value, str]) -> str:
    """Add what calls give; returns the least precise of all. What regions give has that of all that is in them."""
    least = ""
    for record in records:
        met = coarsest(*(found.get(x, "") for x in record.inputs if isinstance(x, Value)))
        met = coarsest(met, _inside(record))
        for value in record.outputs:
            kind = value.type.dtype.real.name if value.type.dtype.is_complex else value.type.dtype.name
            if kind in TOLERANCE:  # an integer is that integer: what asks for it decides
                found[value] = met if record.op.is_view else coarsest(met, kind)
                least = coarsest(least, found[value])
    return least


def _inside(record: Any) -> str:
    """The least precise float dtype of what the regions of a call compute."""
    return coarsest(*(_follow(v.records, {}) for v in record.attrs.values() if isinstance(v, Sub)))


def values_of(captured: Captured, k: int, seed: int = 0, halves: bool = False) -> dict[Value, np.ndarray]:
    """Every value of the captured function at the sizes of trace k, by duograd's own ops, one at a time.

    seed: other than 0, inputs and weights are rounded in another way for each; halves: and results of 16 bits.
    """
    tensors = _given(captured, k, seed)
    rng = np.random.default_rng(seed)
    with dispatch.set_grad(False):
        for record in captured.records:
            _run_records([record], tensors, k)
            if seed and halves and not record.op.is_view:
                tensors.update(_moved([v for v in record.outputs if _is_half(v)], tensors, rng))
    return {v: _read(t) for v, t in tensors.items()}


def _moved(
    values: Sequence[Value], tensors: dict[Value, Tensor], rng: np.random.Generator
) -> dict[Value, Tensor]:
    """Tensors by value, their last bit drawn anew."""
    host = dispatch._State.executor
    return {v: host.constant(_rounded(_read(tensors[v]), rng), v.device) for v in values}


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
            tensors[value] = host.constant(value.type.dtype.array(np.full(shape, data)), value.device)
    return tensors


#: roundings of inputs and weights that are tried: each element that differs has to move in one of them; four times as
#: many where it has to move both up and down
ROUNDINGS = 16


def follows_rounding(
    captured: Captured, k: int, value: Value, want: np.ndarray, got: Any, halves: bool = False
) -> bool:
    """Whether elements that differ also move when inputs and weights are rounded in another way, and no farther.

    So it is with what is computed from noise: an optimiser's step along a gradient that is 0 but for rounding. halves:
    results of 16 bits are rounded in another way, too; what is no float then lies between them.
    """
    if differs_in_kind(want, got) or not want.size:
        return False
    if want.dtype.name not in TOLERANCE:
        return halves and _is_met(captured, k, value, want, got)
    far = np.asarray(apart(want, got))
    if np.isinf(far).any():
        return False
    still, spread = far > 0, 0.0
    for seed in range(1, ROUNDINGS + 1):
        again = values_of(captured, k, seed, halves)[value]
        moved = np.asarray(apart(want, again))
        finite = np.isfinite(moved)
        spread = max(spread, float(moved[finite].max(initial=0)))
        still &= ~(moved > 0)
        if not still.any() and far.max() <= 4 * spread:
            return True
    return False


def _is_met(captured: Captured, k: int, value: Value, want: np.ndarray, got: Any) -> bool:
    """Whether each element lies between what the function gives for some roundings and for others."""
    low = high = want
    for seed in range(1, 4 * ROUNDINGS + 1):
        again = values_of(captured, k, seed, halves=True)[value]
        low, high = np.minimum(low, again), np.maximum(high, again)
        if ((low <= got) & (got <= high)).all():
            return True
    return False


class Verdict(NamedTuple):
    """What a runtime's numbers for the results of all ops say.

    fault: the first value that its op does not give on the runtime's own numbers. near: results differ from duograd's
    within the tolerance of the least precise dtype on their way, until an op jumps. turns: one has jumped.
    """

    fault: Value | None
    near: bool = False
    turns: bool = False


def judged(captured: Captured, k: int, given: dict[Value, np.ndarray], keeps_more: bool = False) -> Verdict:
    """Where a runtime's numbers leave duograd's, op by op.

    They may do so by no fault where values come through 16 bits, whose rounding is far beyond float32's, and by what
    ops decide on numbers that agree within the tolerance: where a function asks whether a number is 0, which one is
    the largest, what integer it is cut to. given: what the runtime has for values. keeps_more: between ops of 16 bits
    the runtime does not round, so that its own numbers are known to the last bit but one, and what overflows inside of
    a region of 16 bits need not do so there: that is a jump, too.
    """
    ours, tensors, grain = values_of(captured, k), _given(captured, k), grains(captured)
    parted: set[Value] = set()
    near = True
    with dispatch.set_grad(False):
        for record in captured.records:
            reads = {x for x in record.inputs if isinstance(x, Value)}
            after = bool(parted & reads) or (record.op in CONTROL and bool(parted))
            _run_records([record], tensors, k)
            for value in record.outputs:
                spilt = False
                if value in given:
                    # A size that was read from numbers which have jumped:
                    if after and captured.reads and differs_in_kind(_read(tensors[value]), given[value]):
                        return Verdict(None, near, True)
                    if differs(_read(tensors[value]), given[value], _inside(record)):
                        spilt = _may_spill(record, value, k, tensors, given[value])
                        if not (spilt or _may_give(record, value, k, tensors, given[value], keeps_more)):
                            return Verdict(value)
                    if not value.type.dtype.is_complex:
                        tensors[value] = dispatch._State.executor.constant(given[value], value.device)
                if differs(ours[value], _read(tensors[value]), grain.get(value, "")):
                    over = (
                        keeps_more and record.op in CONTROL and _overflows(ours[value], _read(tensors[value]))
                    )
                    near &= after or over or spilt or _jumps(record, value, k)
                    parted.add(value)
    return Verdict(None, near, bool(parted))


#: ops that add up or multiply many elements, in any order
_GATHERING = {"sum", "prod", "mean", "cumsum", "cumprod", "matmul", "linear", "einsum", "conv"}


def _may_spill(record: Any, value: Value, k: int, tensors: dict[Value, Tensor], want: np.ndarray) -> bool:
    """Whether all elements that differ overflow for some order of an op's additions or products: one may be NaN, or an
    infinity, and the other not."""
    first = _read(tensors[value])
    if record.op.name not in _GATHERING or differs_in_kind(first, want) or want.dtype.name not in TOLERANCE:
        return False
    host, large = dispatch._State.executor, dict(tensors)
    for x in record.inputs:
        if isinstance(x, Value) and x.type.dtype.is_float:
            array = _read(tensors[x])
            large[x] = host.constant(np.fmax(np.abs(array), 1).astype(array.dtype), x.device)
    _run_records([record], large, k)
    with np.errstate(all="ignore"):
        return not (unlike(want, first) & np.isfinite(_read(large[value]))).any()


def _may_give(
    record: Any, value: Value, k: int, tensors: dict[Value, Tensor], want: np.ndarray, keeps_more: bool
) -> bool:
    """Whether an op gives each element of a result for operands that are rounded otherwise.

    A float lies between what it gives for some and for others; anything else is what it gives for some. Operands of 16
    bits are rounded where the runtime `keeps_more`; regions are then run without rounding to 16 bits inside, too, since
    what overflows there may not in the runtime. An op that jumps is asked with operands of 16 bits alone: others would
    hide a wrong comparison.
    """
    floats = [x for x in record.inputs if isinstance(x, Value) and x.type.dtype.is_float]
    rounded = [x for x in floats if keeps_more or not _is_half(x)]
    first = _read(tensors[value])
    if (
        not rounded
        or differs_in_kind(first, want)
        or (_jumps(record, value, k) and not any(map(_is_half, rounded)))
    ):
        return False
    off, low, high = unlike(want, first), first, first
    if keeps_more and record.op in CONTROL:
        wide = dict(tensors)
        _run_records([record], wide, k, wide=True)
        made = _read(wide[value])
        off &= unlike(want, made)
        low, high = np.fmin(low, made), np.fmax(high, made)
    for seed in range(1, 4 * ROUNDINGS + 1):
        moved = {**tensors, **_moved(rounded, tensors, np.random.default_rng(seed))}
        _run_records([record], moved, k)
        made = _read(moved[value])
        off &= unlike(want, made)
        low, high = np.fmin(low, made), np.fmax(high, made)
        if not off.any() or (first.dtype.name in TOLERANCE and not differs(want.clip(low, high), want)):
            return True
    return False


def _overflows(want: np.ndarray, got: np.ndarray) -> bool:
    """Whether elements are finite in one of two results alone."""
    return want.dtype.name in TOLERANCE and bool(np.isinf(apart(want, got)).any())


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


def _run_records(
    records: Sequence[Any], tensors: dict[Value, Tensor], k: int, wide: bool = False, inside: bool = False
) -> None:
    """Run calls one at a time on tensors by value; their results are added. wide: those `inside` of regions take floats
    of 16 bits as float32, and what a region gives is rounded."""

    def region(sub: Sub, given: Sequence[Any]) -> list[Any]:
        inner = {**tensors, **dict(zip(sub.inputs, given, strict=True))}
        _run_records(sub.records, inner, k, wide, True)
        return [inner[v].to(v.type.dtype) for v in sub.outputs]

    for record in records:
        inputs = tuple(tensors[x] if isinstance(x, Value) else _at(x, k) for x in record.inputs)
        if wide and inside:
            inputs = tuple(
                x.to(float32) if isinstance(x, Tensor) and x.dtype in (float16, bfloat16) else x
                for x in inputs
            )
        attrs = {name: v if isinstance(v, Sub) else _at(v, k) for name, v in record.attrs.items()}
        if record.op in CONTROL:
            made: Any = run_control(record._replace(attrs=attrs), inputs, region)
        else:
            made = dispatch.apply(record.op, inputs, tuple(attrs.values()))
        tensors.update(zip(record.outputs, made if isinstance(made, (tuple, list)) else (made,)))
