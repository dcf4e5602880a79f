"""`dg.compare` and `dg.bench`: one function in both modes, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.backend import get_backend
from ..core.errors import ArgumentError
from ..core.value import Tensor
from ..graph.compile import compile_graph
from ..graph.function import Function
from ..graph.ir import Number, Value
from ..graph.snapshot import Snapshot
from ..graph.variant import Runner, start_path


def _plain(fn: Any) -> Function:
    """A fresh graph function over what `fn` does, so that its own variants are left alone."""
    inner = fn._fn if isinstance(fn, Function) else fn
    return Function(inner, "graph", "match", getattr(fn, "__name__", type(fn).__name__), 64)


def _leaves(x: Any) -> list[np.ndarray]:
    if isinstance(x, Tensor):
        return [np.array(x.detach())]  # type: ignore[attr-defined]
    if isinstance(x, (list, tuple)):
        return [leaf for v in x for leaf in _leaves(v)]
    if isinstance(x, dict):
        return [leaf for v in x.values() for leaf in _leaves(v)]
    return [np.asarray(x)] if isinstance(x, (int, float)) else []


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference; NaN on both sides is equal, other mismatches of NaN are infinite."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    with np.errstate(invalid="ignore"):
        d = np.abs(a.astype(np.float64) - b.astype(np.float64))
    d = np.where((a == b) | (np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64))), 0.0, d)
    return float(np.nan_to_num(d, nan=np.inf).max()) if d.size else 0.0


@dataclass
class Comparison:
    """What `dg.compare` found. difference: the largest one of results and of changed state; equal: bit for bit."""

    name: str
    difference: float
    equal: bool
    differences: dict[str, float] = field(repr=False)
    first_op: str | None

    def __str__(self) -> str:
        lines = [f"{self.name}: eager and graph {'agree bit for bit' if self.equal else 'differ'}"]
        lines.append(
            f"  largest difference {self.difference:g} over {len(self.differences)} results and states"
        )
        lines += [f"  {name}: {gap:g}" for name, gap in self.differences.items() if gap]
        if not self.equal:
            lines.append(
                f"  first op that differs: {self.first_op or 'none alone; the fused kernels differ'}"
            )
        return "\n".join(lines)


def compare(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Comparison:
    """Run a function in eager and in graph mode on the same inputs and state, and compare.

    fn: any function, decorated or not. Its effects (parameters, gradients, optimiser state, random generators)
    are undone afterwards. Returns: a Comparison; print it. The first op that differs is looked for by running
    the traced graph op by op.
    Example: `dg.compare(lambda x: dg.softmax(x), dg.randn(3, 4)).equal` is `True`.
    """
    function = _plain(fn)
    path = start_path(function, args, kwargs)
    segment = path.prepare()
    snapshot = Snapshot(path)
    results = []
    for mode in ("eager", "graph"):
        try:
            if mode == "eager":
                out = function._fn(*args, **kwargs)
            else:
                outputs = segment.run(path.tensors, path.carried)
                out = segment.ending.finish(path.variant, path.tensors, outputs, path.carried)
            found = {f"result {k}": leaf for k, leaf in enumerate(_leaves(out))}
            results.append({**found, **snapshot.state()})
        finally:
            snapshot.restore()
    eager, graph = results
    gaps = {name: _gap(eager[name], graph[name]) if name in graph else float("inf") for name in eager}
    equal = eager.keys() == graph.keys() and all(eager[k].tobytes() == graph[k].tobytes() for k in eager)
    first = None if equal else _first_difference(path, segment)
    return Comparison(function.name, max(gaps.values(), default=0.0), equal, gaps, first)


def _first_difference(path: Any, segment: Any) -> str | None:
    """The first op of the last segment whose result differs between one eager kernel and the compiled graph."""
    runner = segment.runner
    graph = runner.traced.copy()
    graph.writes = []
    graph.outputs = [v for node in graph.nodes for v in node.outputs]
    # Another copy: compiling may change the graph that is walked below.
    compiled = Runner(compile_graph(graph.copy(), "cpu"), "cpu", runner.sources)
    values = dict(zip(graph.outputs, compiled(path.tensors, path.carried)))
    host: Any = dispatch._State.executor
    env: dict[Value, Any] = dict(zip(graph.inputs, runner.inputs(path.tensors, path.carried)))
    with dispatch.set_grad(False):
        for node in graph.nodes:
            row = [
                env[x] if isinstance(x, Value) else x.read() if isinstance(x, Number) else x
                for x in node.inputs
            ]
            made = host.run(node.op, tuple(row), node.attrs)
            for value, tensor in zip(node.outputs, made):
                env[value] = tensor
                if np.array(tensor._array()).tobytes() != np.array(values[value]._array()).tobytes():
                    return f"{node.op.name} at {node.line}"
    return None


@dataclass
class Timing:
    """One mode of `dg.bench`: seconds of the first call and of the median call, spread, peak bytes."""

    mode: str
    first_s: float
    median_s: float
    p10_s: float
    p90_s: float
    peak_bytes: int


@dataclass
class BenchResult:
    """What `dg.bench` measured. speedup: eager time over graph time."""

    name: str
    eager: Timing
    graph: Timing
    compile_s: float
    kernels: int
    difference: float

    @property
    def speedup(self) -> float:
        return self.eager.median_s / self.graph.median_s

    def __str__(self) -> str:
        from .terminal import seconds, size

        rows = [
            ("first call", "first_s", seconds),
            ("median call", "median_s", seconds),
            ("peak memory", "peak_bytes", size),
        ]
        lines = [
            f"{self.name}: graph {self.speedup:.2f} times as fast as eager, largest difference {self.difference:g}"
        ]
        lines.append(f"  {'':14}{'eager':>12}{'graph':>12}")
        for text, key, show in rows:
            lines.append(
                f"  {text:14}{show(getattr(self.eager, key)):>12}{show(getattr(self.graph, key)):>12}"
            )
        lines.append(f"  trace and compile {seconds(self.compile_s)}, {self.kernels} kernel launches")
        return "\n".join(lines)


def bench(fn: Callable[..., Any], *args: Any, seconds: float = 1.0, **kwargs: Any) -> BenchResult:
    """Time a function in both modes: first call, compilation, median call, memory, error.

    seconds: how long each mode is measured, in blocks that take turns. The function's effects are undone
    afterwards. Returns: a BenchResult; print it.
    """
    if seconds <= 0:
        raise ArgumentError("bench", f"seconds={seconds} is not positive", "use a positive number")
    error = compare(fn, *args, **kwargs).difference
    function = _plain(fn)
    path = start_path(function, args, kwargs)
    path.prepare()
    snapshot = Snapshot(path)
    calls = {"eager": function._fn, "graph": function.graph}
    allocator: Any = get_backend("cpu").allocator  # type: ignore[attr-defined]
    first: dict[str, float] = {}
    peak: dict[str, int] = {}
    try:
        for mode, call in calls.items():
            allocator.reset_peak()
            before = allocator.current
            start = time.perf_counter()
            call(*args, **kwargs)
            first[mode] = time.perf_counter() - start
            call(*args, **kwargs)
            peak[mode] = max(0, allocator.peak - before)
        times = _take_turns(calls, args, kwargs, seconds)
    finally:
        snapshot.restore()
    made = {m: _timing(m, first[m], times[m], peak[m]) for m in calls}
    variant = function.variants[0]
    kernels = sum(len(r.compiled.program.launches) for r in variant.runners())
    return BenchResult(function.name, made["eager"], made["graph"], variant.seconds, kernels, error)


def _timing(mode: str, first: float, times: list[float], peak: int) -> Timing:
    times = sorted(times)
    n = len(times)
    return Timing(mode, first, statistics.median(times), times[n // 10], times[n * 9 // 10], peak)


def _take_turns(calls: dict[str, Any], args: Any, kwargs: Any, budget: float) -> dict[str, list[float]]:
    """Times of both modes in blocks that alternate, so that both see the same machine."""
    times: dict[str, list[float]] = {m: [] for m in calls}
    clock = time.perf_counter
    for _ in range(8):
        for mode, call in calls.items():
            until = clock() + budget / 8
            while True:
                start = clock()
                call(*args, **kwargs)
                end = clock()
                times[mode].append(end - start)
                if end > until:
                    break
    return times
