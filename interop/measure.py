"""`dg.compare` and `dg.bench`: one function in both modes, side by side."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.backend import get_backend
from ..core.errors import ArgumentError, AutogradError
from ..core.kinds import is_real
from ..core.value import Tensor
from ..graph import arena
from ..graph.arguments import empty_slots
from ..graph.arrays import Sharing
from ..graph.bisect import bisect, first_difference, op_by_op, same
from ..graph.function import Function
from ..graph.runner import Runner
from ..graph.snapshot import Snapshot
from ..graph.variant import traced_path
from ..graph.witness import Witness


def _plain(fn: Any) -> Function:
    """A fresh graph function over what `fn` does, so that its own variants are left alone."""
    if isinstance(fn, Function):
        return Function(fn._fn, "graph", fn.precision, fn.name, 64)
    return Function(fn, "graph", "match", None, 64)


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
            lines.append(f"  first op that differs: {self.first_op or 'none: the same ops give the same'}")
        return "\n".join(lines)


def compare(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Comparison:
    """Run a function in eager and in graph mode on the same inputs and state, and compare.

    fn: any function, decorated or not. Its results, what it changes (in place, gradients, state) and, where
    results have a history, the gradients through them are compared; all effects (parameters, gradients, optimiser
    state, random generators) are undone afterwards. Returns: a Comparison; print it. Where the modes part, the
    traced graphs are run op by op, pass by pass and in halves, until one op, pass or fusion is left.
    Raises: TraceError where no graph holds the function: its Python runs in both modes.
    Example: `dg.compare(lambda x: dg.softmax(x), dg.randn(3, 4)).equal` is `True`.
    """
    with Sharing(args, kwargs) as (args, kwargs):
        return _compare(_plain(fn), args, kwargs)


def _compare(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Comparison:
    path = traced_path(function, "compare", args, kwargs)
    snapshot = Snapshot(path)
    witness = Witness(dispatch._State.executor)
    spy = _Spy()
    results = []
    for mode in ("eager", "graph"):
        try:
            if mode == "eager":
                with dispatch.executing(witness):  # type: ignore[arg-type]
                    out = function._fn(*args, **kwargs)
            else:
                with spy.on(path.variant):
                    out = path.variant.run(path.tensors)
            found = {f"result {k}": leaf for k, leaf in enumerate(_leaves(out))}
            found |= snapshot.state()
            with spy.on(path.variant):
                _pull(out)
            pulled = {k + " through the results": v for k, v in snapshot.state().items() if "gradient" in k}
            results.append({**found, **pulled})
        finally:
            snapshot.restore()
    eager, graph = results
    gaps = {name: _gap(eager[name], graph[name]) if name in graph else float("inf") for name in eager}
    equal = eager.keys() == graph.keys() and all(same(eager[k], graph[k]) for k in eager)
    first = None
    if not equal:
        first = first_difference(path.variant, path.tensors, witness.calls) or spy.first_difference()
        snapshot.restore()
    return Comparison(function.name, max(gaps.values(), default=0.0), equal, gaps, first)


def _pull(results: Any) -> None:
    """Gradients of all that a function gave."""
    leaves: list[Any] = []
    empty_slots(results, lambda x: isinstance(x, Tensor), leaves)
    pulled = [y for y in leaves if y.requires_grad and y.dtype.has_gradient and y._node is not None]
    for y in pulled:
        with contextlib.suppress(AutogradError):  # its tape is used up
            y.backward(y.detach() * 0 + 1, retain_graph=True)


class _Listening:
    """A compiled graph that notes what it is given."""

    def __init__(self, runner: Runner, heard: list[tuple[Runner, dict[Any, Any]]]):
        self.runner, self.heard, self.read_numbers = runner, heard, runner.read_numbers

    def __call__(self, tensors: list[Any], given: dict[Any, Any], numbers: Any = None) -> list[Any]:
        self.heard.append((self.runner, given))
        return self.runner(tensors, given, numbers)


class _Spy:
    """Listens to what the graphs on the way back of a variant are given."""

    def __init__(self) -> None:
        self.heard: list[tuple[Runner, dict[Any, Any]]] = []

    @contextlib.contextmanager
    def on(self, variant: Any) -> Iterator[None]:
        endings = [
            s.ending for s in variant.segments() if s.ending is not None and s.ending.backward is not None
        ]
        before = [e.backward for e in endings]

        for e, runner in zip(endings, before):
            e.backward = _Listening(runner, self.heard)  # type: ignore[assignment]
        try:
            yield
        finally:
            for e, runner in zip(endings, before):
                e.backward = runner

    def first_difference(self) -> str | None:
        """The first op on the way back whose result differs between an eager kernel and the compiled graph."""
        for runner, given in self.heard:
            assert runner.traced is not None
            inputs = runner.inputs([], given)
            told = bisect(runner, inputs, op_by_op(runner.traced, inputs))
            if told:
                return told
        return None


@dataclass
class Timing:
    """One mode of `dg.bench`: seconds of the first call and of the median call, spread, peak bytes beyond those that
    were in use before, a graph's arena included."""

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
    if not (is_real(seconds) and 0 < seconds < math.inf):
        raise ArgumentError("bench", f"seconds={seconds} is no length of time", "use a positive number")
    with Sharing(args, kwargs) as (args, kwargs):
        return _bench(fn, args, kwargs, seconds)


def _bench(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], seconds: float
) -> BenchResult:
    error = compare(fn, *args, **kwargs).difference
    function = _plain(fn)
    path = traced_path(function, "bench", args, kwargs)
    snapshot = Snapshot(path)
    calls = {"eager": function._fn, "graph": function.graph}
    allocator: Any = get_backend("cpu").allocator  # type: ignore[attr-defined]
    first: dict[str, float] = {}
    peak: dict[str, int] = {}
    try:
        for mode, call in calls.items():
            snapshot.restore()  # what the other mode has left, gradients for example, is in use
            arena.free()
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
