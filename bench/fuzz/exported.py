"""A program as an ONNX model: exported with its proof, loaded, run in both modes beside the function itself."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import duograd as dg
import numpy as np

from .judge import Difference, unlike
from .program import Program, State, load, unload

#: what an export says of a fault that is duograd's
FAULT = "report it"
#: what ONNX leaves open, and onnxruntime refuses
UNDEFINED = "modulo by zero"


def judge_onnx(program: Program, tally: Counter[str] | None = None) -> Difference | None:
    """The first difference between the function, its proof and what is loaded."""
    from ...interop.onnx.agreement import differs
    from ...interop.onnx.pairs import packed

    tally = Counter() if tally is None else tally
    space = load(program)
    try:
        space["dg"] = dg
        _set(program, space)
        names = [x.name for x in program.inputs]
        calls = []
        for call in range(len(program.sizes)):
            for line in program.arguments(call):
                exec(line, space)
            calls.append([space[n].detach() if isinstance(space[n], dg.Tensor) else space[n] for n in names])
        fn = space["program"]
        wanted = []
        for row in calls:
            wanted.append(_results(fn, row))
            _set(program, space)
        if isinstance(wanted[0], str):
            tally["equal errors"] += 1
            return None
        axes = {x.name: dict(_free(program, k)) for k, x in enumerate(program.inputs) if _free(program, k)}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                model = dg.onnx.export(fn, tuple(calls[0]), dynamic=axes or None)
            except dg.errors.OnnxError as e:
                if FAULT in str(e) and UNDEFINED not in str(e):
                    return Difference("onnx", "the export", "a model", str(e))
                tally["not in ONNX"] += 1
                return None
            except dg.errors.DuogradError:
                tally["not traced"] += 1
                return None
        loose = any(
            "could not be compared" in str(w.message) or "draws random" in str(w.message) for w in said
        )
        loaded, grain = dg.onnx.load(model), _grain(model)
        tally["exported"] += 1
        for call, (row, want) in enumerate(zip(calls, wanted)):
            if isinstance(want, str) or (call and not axes):
                continue
            rows = []
            for mode in ("eager", "graph"):
                dg.manual_seed(1)
                given = [dg.tensor(packed(x.numpy())) for x in row if isinstance(x, dg.Tensor)]
                rows.append(_results(dg.function(loaded, mode=mode), given))
            eager, graph = rows
            if isinstance(eager, str) or isinstance(graph, str):
                if eager != graph or not call:
                    return Difference("onnx", f"the loaded model in call {call}", str(eager), str(graph))
                continue
            for k, (a, b) in enumerate(zip(eager, graph)):
                if wrong := unlike(a, b):
                    return Difference("onnx", f"result {k} of the loaded model in call {call}", *wrong)
                if want[k].ndim != wanted[0][k].ndim:
                    continue  # a model's results have one rank: `squeeze()` takes axes of another size away
                if not loose and (why := differs(packed(want[k]), a, grain)):
                    return Difference(
                        "onnx", f"result {k} of call {call}, loaded", str(want[k].reshape(-1)[:8]), why
                    )
        return None
    finally:
        unload(space)


def _grain(model: Any) -> str:
    """The least precise float dtype of a model's tensors."""
    import onnx

    from ...interop.onnx.agreement import coarsest

    def types(graph: Any) -> Iterator[int]:
        for x in (*graph.input, *graph.output, *graph.value_info):
            yield x.type.tensor_type.elem_type
        for a in (a for n in graph.node for a in n.attribute):
            if a.type == onnx.AttributeProto.GRAPH:
                yield from types(a.g)

    kinds = set(types(onnx.shape_inference.infer_shapes(model).graph)) - {onnx.TensorProto.UNDEFINED}
    return coarsest(*(onnx.helper.tensor_dtype_to_np_dtype(k).name for k in kinds))


def _set(program: Program, space: dict[str, Any]) -> None:
    """The program's state anew, for inference."""
    space["m"] = State()
    dg.manual_seed(program.seed % 1000)
    for line in program.setting()[1:]:
        exec(line, space)
    for part in vars(space["m"]).values():
        if isinstance(part, dg.nn.Module):
            part.eval()


def _free(program: Program, k: int) -> list[tuple[int, str]]:
    """The axes of an input whose size differs from call to call."""
    x = program.inputs[k]
    if not x.is_tensor or x.layout.partition("of ")[2]:
        return []
    return [
        (a, d) for a, d in enumerate(x.dims) if isinstance(d, str) and len({s[d] for s in program.sizes}) > 1
    ]


def _results(fn: Any, row: list[Any]) -> list[np.ndarray] | str:
    """A call's tensors as arrays, or its error."""
    try:
        with dg.no_grad():
            made = fn(*row)
    except Exception as e:
        return type(e).__name__
    made = made if isinstance(made, (tuple, list)) else (made,)
    return [np.asarray(y.numpy()) for y in made if isinstance(y, dg.Tensor)]
