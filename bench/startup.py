"""What a call costs besides its kernels, and what starting costs: cold, warm, and with a new batch size.

`python -m duograd.bench.startup` prints each figure with its target. Every start is a process of its own.
`--cases mlp,lstm --vs torch-compile` prints the first train step of cases instead, from empty kernel caches; the case
`lstm_cells` is the LSTM as cells in a Python loop over its steps, which torch.compile takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from . import worker

STEP = """
import time
began = time.perf_counter()
from duograd.bench.run_duograd import build, cnn_step
step, batch = cnn_step()
x, y = batch(64)
step(x, y).item()
print(time.perf_counter() - began)
"""

FIRST = """
import sys, time
began = time.perf_counter()
import importlib
from duograd.bench import cases, worker
name, case = sys.argv[1:]
module_name, mode = worker.RUNNERS[name]
module = importlib.import_module(f"duograd.bench.{module_name}")
module.set_threads(2)
run, value = module.build(cases.find(case), "train", mode)
start = time.perf_counter()
loss = value(run())
print(start - began, time.perf_counter() - start, loss)
if name.startswith("duograd"):
    from duograd.core.backend import get_backend
    before = get_backend("cpu").kernel_stats()["compiled"]
    data = cases.find(case).data()
    fewer = {k: v[: 3 * len(v) // 4] for k, v in data.items()}
    run, value = module.build(cases.find(case)._replace(data=lambda: fewer), "train", mode)
    value(run())
    print(get_backend("cpu").kernel_stats()["compiled"] - before)
"""


def first_step(runner: str, case: str) -> list[float]:
    """Seconds of the first train step of a case in a new process with empty caches: import and set-up, then the
    step, and its loss; for duograd also the number of kernels that three quarters of the batch compile after it."""
    with tempfile.TemporaryDirectory() as cache:
        env = {
            **worker.environment(2), "DUOGRAD_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache,
            "TRITON_CACHE_DIR": cache,
        }  # fmt: skip
        code = [sys.executable, "-c", FIRST, runner, case]
        out = subprocess.run(code, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return [float(x) for x in out.stdout.split()]


def first_steps(cases: list[str], peers: list[str]) -> None:
    """Print the first train step of cases, ours beside the peers'."""
    print("seconds of the first train step, empty caches (in brackets: import and set-up before it)")
    for case in cases:
        rows = {runner: first_step(runner, case) for runner in ("duograd-graph", *peers)}
        ours = rows["duograd-graph"]
        found = ", ".join(f"{k} {v[1]:.2f} ({v[0]:.2f}; loss {v[2]:.6f})" for k, v in rows.items())
        share = ", ".join(f"{ours[1] / rows[k][1]:.0%} of {k}" for k in peers)
        print(f"{case}: {found}; {share}; compiled for a new batch size: {ours[3]:.0f}", flush=True)


def first_call(cache: str) -> float:
    """Seconds of import and first call of the CNN train step in a new process with this kernel cache."""
    env = {**os.environ, "DUOGRAD_CACHE_DIR": cache}
    out = subprocess.run([sys.executable, "-c", STEP], env=env, capture_output=True, text=True, check=True)
    return float(out.stdout)


def second_batch_size() -> tuple[float, int]:
    """Seconds of the first call with a second batch size, and how many kernels it compiled."""
    from ..core.backend import get_backend
    from .run_duograd import cnn_step

    step, batch = cnn_step()
    step(*batch(64))
    before = get_backend("cpu").kernel_stats()["compiled"]
    x, y = batch(48)
    start = time.perf_counter()
    step(x, y).item()
    return time.perf_counter() - start, int(get_backend("cpu").kernel_stats()["compiled"] - before)


def call_overhead() -> float:
    """Seconds that a graph call of a small function takes beyond its kernels."""
    import duograd as dg

    fn = dg.function(lambda x, y: dg.tanh(x * y + 1.0))
    x, y = dg.ones((16,)), dg.ones((16,))
    fn(x, y)
    runner: Any = fn.variants[0].root.runner
    dynamic: list[int] = []
    execute = runner._execute
    runner._execute = lambda d: dynamic.extend(d)
    kept = fn(x, y)
    runner._execute = execute
    whole = _median(lambda: fn(x, y))
    kernels = _median(lambda: execute(dynamic))
    del kept
    return whole - kernels


def _median(call: Any, blocks: int = 15, calls: int = 2000) -> float:
    times = []
    for _ in range(blocks):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(prog="python -m duograd.bench.startup", description=__doc__)
    parser.add_argument("--cases", help="train cases, with commas between them: their first steps")
    parser.add_argument("--vs", default="", help="peers for these, such as torch-compile,jax")
    options = parser.parse_args()
    if options.cases:
        first_steps(options.cases.split(","), [x for x in options.vs.split(",") if x])
        return
    with tempfile.TemporaryDirectory() as cache:
        cold = first_call(cache)
        warm = statistics.median(first_call(cache) for _ in range(5))
    second, compiled = second_batch_size()
    print(
        f"CNN train step, first call, empty kernel cache, new process, import included: {cold:.2f} s (target 8 s)"
    )
    print(f"the same with a warm cache: {warm:.2f} s (target 1 s)")
    print(
        f"second batch size, first call: {1e3 * second:.1f} ms (target 50 ms), kernels compiled: {compiled}"
    )
    print(f"graph call of a small function beyond its kernels: {1e6 * call_overhead():.1f} us (target 10 us)")


if __name__ == "__main__":
    main()
