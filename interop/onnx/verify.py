"""The export's own proof: checker, onnx.reference and onnxruntime against the function, at one size or two."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import onnx

from ...core.errors import OnnxError, warn
from ...core.types import bfloat16
from ...graph.ir import Value
from .agreement import coarsest, differs, differs_in_kind, is_odd, unlike
from .arguments import Arguments
from .assemble import Assembled
from .builder import Step
from .capture import Captured
from .control import Sub
from .dtypes import to_code
from .evaluator import evaluator
from .outputs import run_function
from .pairs import layout, packed
from .recorder import DRAWS
from .replay import Verdict, follows_rounding, grains, judged, values_of

#: ops that go out as Dropout: what they draw cannot be compared
DROPOUTS = ("dropout", "dropout_channels", "alpha_dropout")


def verify(assembled: Assembled, captured: Captured, fn: Callable[..., Any], arguments: Arguments) -> None:
    """Check a model's form and its numbers. Raises OnnxError that names the first node that differs."""
    model, weights = provable(assembled)
    check_form(model)
    drawn = draws(captured.records)
    if drawn:
        warn("the model draws random numbers, so its outputs were compared in dtype and shape alone")
    sizes = [0]
    if len(captured.arrays) > 1:
        sizes.append(
            min(range(1, len(captured.arrays)), key=lambda k: sum(a.size for a in captured.arrays[k]))
        )
    runtimes = _runtimes(model, weights)
    noisy: dict[str, str] = {}
    for k in sizes:
        arrays = captured.arrays[k]
        expected = run_function(fn, arguments, arrays, captured.changed)
        feeds = feeds_of(captured, arrays)
        for runtime, run in runtimes:
            proof = _Proof(assembled, captured, k, runtime)
            try:
                actual = _run(runtime, run, feeds, drawn=bool(captured.reads and k))
            except OnnxError:
                if len(runtimes) == 1 or runtime == "onnxruntime" or not proof.odd():
                    raise
                warn(
                    f"{runtime} does not take the NaN or infinity in this model; onnxruntime alone proved it"
                )
                continue
            if actual is None:
                continue
            for (name, value), want, got in zip(captured.outputs, expected, actual, strict=True):
                if drawn:
                    if why := differs_in_kind(want, got):
                        raise OnnxError("onnx.export", f"{runtime} gives another {name}: {why}", "report it")
                elif why := proof.doubt(name, value, want, got):
                    noisy.setdefault(name, why)
    if noisy:
        warn(
            "runtimes differ by what rounding does, or over NaN and infinities, so these could not be compared: "
            f"{', '.join(f'{n} ({why})' for n, why in noisy.items())}"
        )
    if captured.unseen is not None and not drawn:
        _check_unseen(captured, fn, arguments, runtimes)


class _Proof:
    """The results of one runtime at one size against the function's."""

    def __init__(self, assembled: Assembled, captured: Captured, k: int, runtime: str):
        self.assembled, self.captured, self.k, self.runtime = assembled, captured, k, runtime

    @cached_property
    def watched(self) -> tuple[dict[Value, np.ndarray], dict[Value, Step]]:
        return _watch(self.assembled, self.captured, self.k, self.runtime)

    @cached_property
    def verdict(self) -> Verdict:
        return judged(self.captured, self.k, self.watched[0], self.runtime == "onnxruntime")

    @cached_property
    def grains(self) -> dict[Value, str]:
        return grains(self.captured)

    def doubt(self, name: str, value: Value, want: np.ndarray, got: Any) -> str:
        """How a result differs by nobody's fault; empty where it is within the tolerance. Raises OnnxError."""
        why = differs(want, got)
        if not why:
            return ""
        captured, k, grain = self.captured, self.k, self.grains.get(value, "")
        plain = coarsest(want.dtype.name, grain) == want.dtype.name
        if plain and follows_rounding(captured, k, value, want, got):
            return why
        if not differs(want, values_of(captured, k)[value]) and self.verdict.fault is None:
            if self.verdict.near and not differs(want, got, grain):
                return ""
            if self.verdict.near and self.verdict.turns:
                return why
            halves = any(g.endswith("float16") for g in self.grains.values())
            if (halves or not plain) and follows_rounding(captured, k, value, want, got, halves):
                return why
        first = self.first
        if first is not None:
            if self._overflows(first):
                return f"ONNX leaves numbers outside {first.type.dtype} open, {why}"
            if self._is_open(first):
                return f"NaN or infinity at {self.watched[1][first].op}, {why}"
        raise self._located(name, why)

    @cached_property
    def first(self) -> Value | None:
        """The first value that differs."""
        if self.verdict.fault is not None:
            return self.verdict.fault
        expected, found = values_of(self.captured, self.k), self.watched[0]
        return next((v for v, a in found.items() if differs(expected[v], a, self.grains.get(v, ""))), None)

    def odd(self) -> bool:
        """Whether NaN or an infinity is among the values."""
        return any(map(is_odd, values_of(self.captured, self.k).values()))

    def _overflows(self, value: Value) -> bool:
        """Whether a value differs only where floats become integers that do not hold them, which ONNX leaves open."""
        record = self._record(value)
        if (
            record.op.name != "cast"
            or not value.type.dtype.is_integer
            or not record.inputs[0].type.dtype.is_float
        ):
            return False
        expected = values_of(self.captured, self.k)
        x, limits = np.trunc(expected[record.inputs[0]].astype(np.float64)), np.iinfo(value.type.dtype.np)
        # The largest int64 is no float64, the next power of two is.
        held = (x >= float(limits.min)) & (x < float(limits.max) + 1)
        return not (unlike(expected[value], self.watched[0][value]) & held).any()

    def _record(self, value: Value) -> Any:
        return next(r for r in self.captured.records if value in r.outputs)

    def _is_open(self, value: Value) -> bool:
        """Whether a value that differs comes of NaN or infinities, from which runtimes themselves make other results.

        Where onnxruntime and onnx.reference agree on an element that differs, the model is what is wrong.
        """
        found, expected = self.watched[0], values_of(self.captured, self.k)
        record = self._record(value)
        reads = [x for x in record.inputs if isinstance(x, Value)]
        met = [found[value], expected[value], *(found.get(x, expected[x]) for x in reads)]
        if not any(map(is_odd, met)):
            return False
        other = "onnx.reference" if self.runtime == "onnxruntime" else "onnxruntime"
        if other not in dict(_runtimes(*provable(self.assembled))):
            return True
        try:
            again = _watch(self.assembled, self.captured, self.k, other)[0][value]
        except Exception:  # whatever the other one raises over such numbers
            return True
        want, got = expected[value], found[value]
        if differs_in_kind(want, got) or differs_in_kind(got, again):
            return False
        return not (unlike(want, got) & ~unlike(got, again)).any()

    def _located(self, output: str, why: str) -> OnnxError:
        """An error that names the first node whose result differs."""
        found, steps = self.watched
        first, expected = self.first, values_of(self.captured, self.k)
        if first is not None:
            step = steps[first]
            return OnnxError(
                "onnx.export",
                f"{self.runtime} differs first at node {step.name} ({step.op_type}), which stands for {step.op}: "
                f"{differs(expected[first], found[first]) or why}",
                "report it as a defect of duograd, or pass verify=False to write the model anyway", step.line,
            )  # fmt: skip
        return OnnxError(
            "onnx.export",
            f"{self.runtime} gives another {output} than the function ({why}), though every op agrees",
            "the function may depend on something beside its inputs (randomness, state); make it pure, or verify=False",
            "",
        )


#: what ops of onnxruntime that have no kernel for a dtype say only when they run
_LACKS = ("data type is not supported", "does not support double yet")


def _run(runtime: str, run: Callable[[Any], list[Any]], feeds: Any, drawn: bool) -> list[Any] | None:
    """What a runtime gives.

    None, and a warning, where onnxruntime has no kernel for a dtype, or does not take data that was drawn for the
    proof.
    """
    try:
        return run(feeds)
    except Exception as e:
        lacks = any(words in str(e) for words in _LACKS)
        if (drawn or lacks) and runtime == "onnxruntime":
            why = (str(e).splitlines() or [""])[0]
            what = (
                "does not run this model" if lacks else "does not take data that was drawn to prove the model"
            )
            warn(f"onnxruntime {what} ({why}); there it was compared with onnx.reference alone")
            return None
        raise OnnxError(
            "onnx.export", f"{runtime} fails on the model: {e}", "report it, or use verify=False"
        ) from e


def draws(records: Sequence[Any]) -> bool:
    """Whether calls, or the regions among their attributes, draw random numbers."""
    for r in records:
        if r.op.name in DRAWS or (r.op.name in DROPOUTS and r.attrs["training"] and r.attrs["p"]):
            return True
        if any(isinstance(v, Sub) and draws(v.records) for v in r.attrs.values()):
            return True
    return False


def _check_unseen(captured: Captured, fn: Callable[..., Any], arguments: Arguments, runtimes: Any) -> None:
    """Compare on data that no trace has seen: numbers that were read are then right for any data."""
    arrays = captured.unseen or []
    expected = run_function(fn, arguments, arrays, captured.changed)
    feeds, grain = feeds_of(captured, arrays), grains(captured)
    for runtime, run in runtimes:
        actual = _run(runtime, run, feeds, drawn=True)
        for (name, value), want, got in zip(
            captured.outputs, expected, expected if actual is None else actual, strict=True
        ):
            if why := differs(want, got, grain.get(value, "")):
                raise OnnxError(
                    "onnx.export",
                    f"{runtime} gives another {name} for other data ({why}): numbers that the function reads from "
                    "its inputs decide more than sizes",
                    "use dg.where instead of a Python branch on such a number", "",
                )  # fmt: skip


def feeds_of(captured: Captured, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by the names of the model's inputs."""
    return {name: packed(array) for (name, _), array in zip(captured.inputs, arrays)}


def check_form(model: onnx.ModelProto) -> None:
    """onnx.checker with full type inference."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:
        raise OnnxError(
            "onnx.export", f"the checker refuses the model: {e}", "report it as a defect of duograd"
        ) from e


def provable(assembled: Assembled) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model with weights that lie outside it as inputs, and those weights: runtimes read them where they are."""
    if not assembled.external:
        return assembled.model, {}
    model = onnx.ModelProto()
    model.CopyFrom(assembled.model)
    weights = {t.name: a for t, a in assembled.external}
    kept = [t for t in model.graph.initializer if t.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t, _ in assembled.external
    )
    return model, weights


def _runtimes(
    model: onnx.ModelProto, weights: dict[str, np.ndarray]
) -> list[tuple[str, Callable[[Any], list[Any]]]]:
    reference = evaluator(model)

    def refer(feeds: Any) -> Any:
        with np.errstate(all="ignore"), catch_warnings():
            # 0 / 0 and the mean of nothing are results, as they are in kernels.
            simplefilter("ignore", RuntimeWarning)
            return reference.run(None, {**feeds, **weights})

    found: list[Any] = [("onnx.reference", refer)]
    if importlib.util.find_spec("onnxruntime") is not None:
        session = _session(model)
        if session is not None:
            found.append(("onnxruntime", lambda feeds: _run_session(session, {**feeds, **weights})))
    return found


def _run_session(session: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A session's results; bfloat16 goes in and out as its bits, since onnxruntime takes no array of it."""
    if not any("bfloat16" in v.type for v in (*session.get_inputs(), *session.get_outputs())):
        return list(session.run(None, feeds))
    from onnxruntime import OrtValue

    code = to_code(bfloat16)
    values = {
        name: OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(a, order="C").view(np.uint16), code)
        if a.dtype == bfloat16.np
        else OrtValue.ortvalue_from_numpy(a)
        for name, a in feeds.items()
    }
    return [_array_of(v) for v in session.run_with_ort_values(None, values)]


def _array_of(value: Any) -> Any:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    size = value.tensor_size_in_bytes()
    bits = (ctypes.c_char * size).from_address(value.data_ptr()) if size else b""
    return np.frombuffer(bits, bfloat16.np).reshape(value.shape()).copy()


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if any(n.op_type == "QuantizeLinear" for n in model.graph.node):
        # Quantised ops that it puts in the place of their parts round in another way.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as e:
        warn(
            f"onnxruntime {onnxruntime.__version__} does not run this model ({str(e).splitlines()[0]}); "
            "it was compared with onnx.reference alone"
        )
        return None


def _watch(
    assembled: Assembled, captured: Captured, k: int, runtime: str
) -> tuple[dict[Value, np.ndarray], dict[Value, Step]]:
    """What a runtime has for the results of ops, and the nodes that make these."""
    source, weights = provable(assembled)
    model = onnx.ModelProto()
    model.CopyFrom(source)
    produced = {h.name: s for s in assembled.steps for h in s.outputs}
    watched = {
        v: assembled.names[v] for r in captured.records for v in r.outputs if assembled.names[v] in produced
    }
    have = {o.name for o in model.graph.output}
    for value, name in watched.items():
        if name not in have:
            have.add(name)
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(name, to_code(layout(value, captured.shapes)[0]), None)
            )
    runtimes = _runtimes(model, weights)
    run = dict(runtimes).get(runtime) or runtimes[0][1]
    feeds = feeds_of(captured, captured.arrays[k])
    found = dict(zip([o.name for o in model.graph.output], run(feeds)))
    return (
        {v: np.asarray(found[name]) for v, name in watched.items()},
        {v: produced[name] for v, name in watched.items()},
    )
