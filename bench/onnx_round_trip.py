"""Round trips through ONNX: out, in another runtime, back, out again, and on with training.

`python -m duograd.bench.onnx_round_trip [--opsets 13,17,20,23] [--only a,b] [--ops] [--json FILE]` runs every model of
`onnx_models.py` (with `--ops` every sample of every op too) and prints what does not hold.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterable
from typing import Any

import duograd as dg
import numpy as np

from ..core.errors import DuogradError, OnnxError
from ..interop.onnx.arguments import Arguments, resized
from ..interop.onnx.pairs import packed
from ..interop.onnx.recorder import DRAWS
from ..interop.onnx.verify import DROPOUTS
from .onnx_models import Case, cases

OPSETS = (13, 17, 20, 23)
#: relative tolerance and tolerance beside the largest number, for float32 computed in another order
CLOSE = (2e-4, 2e-5)


#: what draws, and what comes in no order: models of it give other numbers
_NO_ONE_RESULT = ("log_gamma_draw", "poisson_draw", "eig_unordered", "eigvals_unordered")


class Mismatch(AssertionError):
    """A step of a round trip that does not hold."""


def _flat(result: Any) -> list[np.ndarray]:
    if isinstance(result, (tuple, list)):
        return [a for x in result for a in _flat(x)]
    return [] if result is None else [packed(result.detach().numpy())]


def require(step: str, got: Iterable[np.ndarray], want: Iterable[np.ndarray], scale: float = 1.0) -> None:
    """Raise Mismatch unless two lists of arrays agree."""
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise Mismatch(f"{step}: output {k} is {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}")
        if b.dtype.kind != "f":
            if not np.array_equal(a, b):
                raise Mismatch(f"{step}: output {k} has {int((a != b).sum())} other elements")
            continue
        largest = float(np.abs(b[np.isfinite(b)]).max(initial=1.0))
        if not np.allclose(a, b, CLOSE[0] * scale, CLOSE[1] * scale * largest, equal_nan=True):
            raise Mismatch(
                f"{step}: output {k} differs by {np.nanmax(np.abs(a - b)):.3g} (largest {largest:.3g})"
            )


def _tensors(arrays: Iterable[np.ndarray]) -> list[Any]:
    return [dg.tensor(a) for a in arrays]


def _pairs(arrays: Iterable[np.ndarray]) -> list[Any]:
    """Arrays as a model takes them."""
    return [dg.tensor(packed(a)) for a in arrays]


def _gradients(model: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients of a weighted sum of the float outputs, by parameter."""
    for _, p in model.named_parameters():
        p.grad = None
    outputs = model(*_tensors(arrays))
    total: Any = 0.0
    stack = [outputs]
    while stack:
        x = stack.pop()
        if isinstance(x, (tuple, list)):
            stack.extend(x)
        elif x is not None and x.dtype.is_float and x.requires_grad:
            weight = np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)
            total = total + (x * dg.tensor(weight)).sum()
    total.backward()
    return {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}


def axes_by_name(model: Any, case: Case) -> tuple[Arguments, dict[str, dict[int, str]]]:
    """The case's arguments with their names, and its dynamic axes as `export` takes them."""
    arguments = Arguments(model, tuple(_tensors(case.inputs)), None)
    return arguments, {n: dict(a) for n, a in zip(arguments.names, case.axes) if a}


def round_trip(case: Case, opset: int, graph: bool = False) -> None:
    """Send a model out and back at an opset. Raises Mismatch or OnnxError. graph: run it in graph mode too."""
    dg.manual_seed(0)
    model = case.make()
    if hasattr(model, "eval"):
        model.eval()
    arguments, dynamic = axes_by_name(model, case)
    sizes = {s: 2 * n + 1 for s, n in _sizes(case).items()}
    everywhere = [list(case.inputs), *([resized(arguments, dynamic, sizes)] if sizes else [])]
    proto = dg.onnx.export(model, tuple(_tensors(case.inputs)), dynamic=dynamic, opset=opset)
    loaded = dg.onnx.load(proto)
    for arrays in everywhere:
        want = _flat(model(*_tensors(arrays)))
        require("loaded", _flat(loaded(*_pairs(arrays))), want, case.scale)
        if graph:
            require("loaded, graph mode", _flat(dg.function(loaded)(*_pairs(arrays))), want, case.scale)
    if hasattr(model, "named_parameters"):
        _same_parameters(case, model, loaded)
    again = dg.onnx.export(loaded, tuple(_pairs(case.inputs)), dynamic=dynamic, opset=opset)
    before, after = ({t.name for t in m.graph.initializer} for m in (proto, again))
    if before != after:
        raise Mismatch(f"again: initializers {sorted(before ^ after)} are in one model only")
    for part in ("input", "output"):
        if [v.name for v in getattr(again.graph, part)] != [v.name for v in getattr(proto.graph, part)]:
            raise Mismatch(f"again: the {part}s have other names")


def _sizes(case: Case) -> dict[str, int]:
    return {s: a.shape[axis] for a, axes in zip(case.inputs, case.axes) for axis, s in axes.items()}


def _same_parameters(case: Case, model: Any, loaded: Any) -> None:
    """The same names, the same gradients, and the same first training step."""
    ours, theirs = dict(model.named_parameters()), dict(loaded.named_parameters())
    used = _gradients(model, list(case.inputs)) if ours else {}
    if missing := sorted((set(used) | set(theirs)) - (set(ours) & set(theirs))):
        raise Mismatch(f"names: {missing} differ")
    if not used or not case.smooth:
        return
    found = _gradients(loaded, list(case.inputs))
    for name, want in used.items():
        if name not in found:
            raise Mismatch(f"gradient of {name}: there is none")
        require(f"gradient of {name}", [found[name]], [want], 5 * case.scale)
    for m in (model, loaded):
        dg.optim.SGD([p for p in m.parameters() if p.grad is not None], lr=1e-3).step()
    wants, gots = (_flat(m(*_tensors(case.inputs))) for m in (model, loaded))
    require("after a training step", gots, wants, 5 * case.scale)


def op_cases() -> list[Case]:
    """Every sample of every op that ONNX can say, as models."""
    from ..core.op import REGISTRY
    from ..core.reference import make_arguments, samples

    found = []
    for op, k, sample in samples():
        if REGISTRY[op.name].no_onnx or op.name in ("to_device", *DROPOUTS, *DRAWS, *_NO_ONE_RESULT):
            continue
        row = make_arguments(sample)
        arrays = tuple(a for a in row if isinstance(a, np.ndarray))

        def make(op: Any = op, row: Any = row, attrs: Any = sample.attrs) -> Any:
            def function(*tensors: Any) -> Any:
                rest = iter(tensors)
                return op(*[next(rest) if isinstance(a, np.ndarray) else a for a in row], **attrs)

            return function

        found.append(Case(f"{op.name}-{k}", make, arrays, tuple({} for _ in arrays)))
    return found


def attempt(case: Case, opset: int, graph: bool) -> tuple[str, str]:
    """(outcome, why): "ok", "alone" (onnxruntime does not run it), "no" (not legal, or no one result), "fails"."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            round_trip(case, opset, graph)
        except OnnxError as e:
            if ("opset" in str(e) and opset < case.since) or "lowest opset" in str(e):
                return "no", str(e).splitlines()[0]
            return "fails", " | ".join(str(e).splitlines()[:3])
        except (Mismatch, DuogradError) as e:
            return "fails", " | ".join(str(e).splitlines()[:3])
        except Exception as e:
            return "fails", f"{type(e).__name__}: {e}"
    alone = [str(w.message) for w in seen if "onnxruntime" in str(w.message)]
    return ("alone", alone[0]) if alone else ("ok", "")


def main() -> None:
    """Run the grid and print a line for whatever is not ok."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opsets", default=",".join(map(str, OPSETS)))
    parser.add_argument("--only", default="", help="names, or parts of them")
    parser.add_argument("--ops", action="store_true", help="every op's samples instead of the models")
    parser.add_argument("--graph", action="store_true", help="run what comes back in graph mode too")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    wanted = [w for w in options.only.split(",") if w]
    table = op_cases() if options.ops else list(cases().values())
    chosen = [c for c in table if not wanted or any(w in c.name for w in wanted)]
    counts: dict[int, dict[str, int]] = {}
    records: list[dict[str, Any]] = []
    began = time.time()
    for case in chosen:
        for opset in map(int, options.opsets.split(",")):
            outcome, why = attempt(case, opset, options.graph)
            row = counts.setdefault(opset, {})
            row[outcome] = row.get(outcome, 0) + 1
            records.append({"model": case.name, "opset": opset, "outcome": outcome, "why": why})
            if outcome != "ok":
                print(f"{case.name} at {opset}: {outcome}: {why[:400]}", flush=True)
    for opset, row in counts.items():
        print(f"opset {opset}: " + ", ".join(f"{n} {k}" for k, n in sorted(row.items())))
    print(f"{len(chosen)} models, {time.time() - began:.0f} s")
    if options.json:
        with open(options.json, "w") as f:
            json.dump(records, f, indent=1)


if __name__ == "__main__":
    main()
