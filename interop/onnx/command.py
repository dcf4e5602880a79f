"""What `duograd onnx info` and `duograd onnx run` print."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np

from .dtypes import of_array
from .load import load
from .read import read


def info(path: str) -> str:
    """Inputs, outputs, opsets, weights and ops of a file. Raises: OnnxError for a file that cannot be read."""
    source = read(path)
    model = source.model
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    weights = [(i.name, list(i.dims)) for i in model.graph.initializer]
    count = sum(int(np.prod(dims)) for _, dims in weights)
    counted = Counter(n.op_type for n in model.graph.node).most_common()
    ops = ", ".join(f"{name} x{n}" if n > 1 else name for name, n in counted)
    lines = [
        f"{path}: IR {model.ir_version}, opset {opsets}, made by {model.producer_name or 'unknown'}",
        *(f"  input   {_signature(i)}" for i in model.graph.input if i.name not in {w for w, _ in weights}),
        *(f"  output  {_signature(o)}" for o in model.graph.output),
        f"  {len(model.graph.node)} nodes: {ops}",
        f"  {len(weights)} initializers, {count:,} numbers",
    ]
    return "\n".join(lines)


def _signature(value: Any) -> str:
    tensor = value.type.tensor_type
    dims = [str(d.dim_param or d.dim_value or "?") for d in tensor.shape.dim]
    return f"{value.name}: {tensor.elem_type and _dtype(tensor.elem_type)}[{', '.join(dims)}]"


def _dtype(code: int) -> str:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(code))


def run(path: str, batch: int = 1) -> str:
    """Run a file on random inputs in graph mode; open axes get size `batch`. Returns shapes, ranges and the time."""
    from ... import no_grad, tensor
    from ...graph import function

    source = read(path)
    model = load(path)
    known = {i.name for i in source.model.graph.initializer}
    rng = np.random.default_rng(0)
    feeds = []
    for i in source.model.graph.input:
        if i.name in known:
            continue
        shape = [d.dim_value or batch for d in i.type.tensor_type.shape.dim]
        dtype = np.dtype(_dtype(i.type.tensor_type.elem_type))
        values = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds.append(tensor(values.astype(dtype)))
    fn = function(model)
    with no_grad():
        start = time.perf_counter()
        out = fn(*feeds)
        first = time.perf_counter() - start
        start = time.perf_counter()
        out = fn(*feeds)
        again = time.perf_counter() - start
    outputs = out if isinstance(out, (tuple, list)) else [out]
    lines = [f"{path} on random inputs: first call {first:.3f} s, then {1e3 * again:.3f} ms"]
    for name, y in zip(model.output_names, outputs):
        a = np.asarray(y)
        span = f", from {a.min():.6g} to {a.max():.6g}" if a.size else ""
        lines.append(f"  {name}: {of_array(a)}[{', '.join(map(str, a.shape))}]{span}")
    return "\n".join(lines)
