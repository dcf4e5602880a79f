"""What a function returns, by name, and what it gives in eager mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core import dispatch
from ...core.errors import OnnxError
from ...core.value import Tensor
from ...graph.arguments import fill
from ...graph.overrides import mode
from .arguments import Arguments, named_leaves
from .pairs import packed


def named_outputs(result: Any, names: list[str] | None) -> list[tuple[str, Any]]:
    """The tensors of a result, by `names`, or by their keys and places: `output_0`; a dict's keys alone."""
    found: list[tuple[str, Any]] = []
    tops = [(str(key), y) for key, y in result.items()] if isinstance(result, dict) else [("output", result)]
    for name, x in (pair for top in tops for pair in named_leaves(*top)):
        if isinstance(x, Tensor):
            found.append((name, x))
        elif x is not None:
            raise OnnxError(
                "onnx.export",
                f"the function returns a {type(x).__name__}, which ONNX cannot hold",
                "return tensors",
            )
    if not found:
        raise OnnxError(
            "onnx.export", "the function returns no tensor", "return the tensors that the model computes"
        )
    if names is not None:
        if len(names) != len(found):
            raise OnnxError(
                "onnx.export",
                f"output_names has {len(names)} names for {len(found)} outputs",
                "give one for each",
            )
        found = [(n, y) for n, (_, y) in zip(names, found)]
    return found


def run_function(
    fn: Callable[..., Any], arguments: Arguments, arrays: list[np.ndarray], changed: Sequence[Any] = ()
) -> list[np.ndarray]:
    """The function's outputs in eager mode; then what it made of `changed` (`capture.Effect`s), which is put back."""
    host = dispatch._State.executor
    tensors = [host.constant(a, arguments.device) for a in arrays]
    values = [(e.tensor, e.tensor.detach().clone()) for e in changed if not e.gradient]
    gradients = [(e.tensor, e.tensor.grad) for e in changed]
    with mode("eager"):
        try:
            with dispatch.set_grad(arguments.taped):
                result = fn(*fill(arguments.args, tensors), **fill(arguments.kwargs, tensors))
            outputs = [y for _, y in named_outputs(result, None)]
            made = [e.tensor.grad if e.gradient else e.tensor for e in changed]
            return [packed(np.array(host.read(y))) for y in (*outputs, *made)]
        finally:
            with dispatch.set_grad(False):
                for t, old in values:
                    t.copy_(old)
            for t, old in gradients:
                t.grad = old
