"""What `duograd onnx info` and `duograd onnx run` print."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx

from .coded import NARROW
from .dtypes import code_name, of_array
from .load import load
from .program import as_array
from .read import Given, describe, read
from .table import find


def _size(count: int) -> str:
    value, unit = float(count), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines with even columns, indented."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    return ["  " + "  ".join(cell.ljust(n) for cell, n in zip(row, widths)).rstrip() for row in rows]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def info(path: str) -> str:
    """Inputs, outputs, opsets, weights and ops of a file. Raises: OnnxError for a file that cannot be read."""
    source = read(path)
    model = source.model
    opsets = {o.domain: o.version for o in model.opset_import}
    shown = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in opsets.items())
    lines = [f"{path}: IR {model.ir_version}, opset {shown}, made by {model.producer_name or 'unknown'}"]
    rows = [("input", i.name, describe(i)) for i in source.inputs if not i.has_default]
    rows += [("output", o.name, _signature(o)) for o in model.graph.output]
    lines += _table(rows)
    arrays = list(source.initializers.values())
    where = f", {len(source.mapped)} of them in files beside it" if source.mapped else ""
    lines.append(
        f"  {len(arrays)} weights, {sum(a.size for a in arrays):,} numbers, "
        f"{_size(sum(a.nbytes for a in arrays))}{where}"
    )
    counted = Counter((n.domain, n.op_type) for n in _nodes(model.graph))
    lines.append(f"  {sum(counted.values())} nodes:")
    own = {(f.domain, f.name) for f in model.functions}
    refused = {p.op for p in source.program.problems}
    table = []
    for (domain, op), count in counted.most_common():
        found = find(domain, op, opsets.get(domain, 1)).adapter
        how = (
            "a function of the model"
            if (domain, op) in own
            else ""
            if found is not None
            else "NOT SUPPORTED"
            if op in refused
            else "by its definition"
        )
        if found is not None and found.library:
            how = f"on the host: {found.library}"
        table.append((f"  {count}", f"{domain}.{op}" if domain else op, how))
    lines += _table(table)
    problems = source.program.problems
    if problems:
        nodes = "1 node" if len(problems) == 1 else f"{len(problems)} nodes"
        lines.append(f"  {nodes} cannot be imported; duograd onnx check says why")
    return "\n".join(lines)


def _signature(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return str(kind or "unknown").removesuffix("_type")
    tensor = value.type.tensor_type
    dims = ", ".join(
        str(d.dim_param or (d.dim_value if d.HasField("dim_value") else "?")) for d in tensor.shape.dim
    )
    return f"{code_name(tensor.elem_type).lower()}[{dims if tensor.HasField('shape') else '...'}]"


def _feed(given: Given, batch: int, rng: Any) -> Any:
    """Random numbers (or a text) for an input; open axes get size `batch`."""
    shape = [n if isinstance(n, int) and n > 0 else batch for n in given.shape or ()]
    if given.code == onnx.TensorProto.STRING:
        return np.full(shape, "a text", object)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(given.code or onnx.TensorProto.FLOAT))
    if dtype.name in NARROW or dtype.kind in "fcV":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def run(path: str, batch: int = 1) -> str:
    """Run a file on random inputs in both modes; open axes get size `batch`. Returns times, shapes and ranges."""
    from ... import no_grad
    from ...graph import function

    model = load(path)
    rng = np.random.default_rng(0)
    feeds = [model.ready(name, _feed(model.inputs[name], batch, rng)) for name in model.input_names]
    lines = [f"{path} on random inputs"]
    rows, results = [], []
    with no_grad():
        for mode in ("eager", "graph"):
            fn = function(model, mode=mode)
            times = []
            for _ in range(4):
                start = time.perf_counter()
                out = fn(*feeds)
                times.append(time.perf_counter() - start)
            again = float(np.median(times[1:]))
            rows.append((mode, f"first call {times[0]:.3f} s", f"then {1e3 * again:.3f} ms"))
            results.append([as_array(y) for y in (out if isinstance(out, (tuple, list)) else [out])])
    lines += _table(rows)
    for name, y, other in zip(model.output_names, *results):
        lines.append(f"  {name}: {_shown(y)}{'' if _same(y, other) else '; the modes differ'}")
    return "\n".join(lines)


def _same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal bit for bit; lists and dicts are not looked into."""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return type(a) is type(b)
    if a.dtype.kind == "O":
        return a.tolist() == b.tolist()
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _shown(y: Any) -> str:
    if not isinstance(y, np.ndarray):
        return f"{type(y).__name__} of {len(y)}" if isinstance(y, (list, dict)) else str(y)
    text = f"{of_array(y) or y.dtype}[{', '.join(map(str, y.shape))}]"
    if not y.size or y.dtype.kind not in "fiub":
        return text
    return f"{text}, from {y.min():.6g} to {y.max():.6g}"
