"""What a call costs besides its kernels, and what starting costs: cold, warm, and with a new batch size.

`python -m duograd.bench.startup` prints each figure with its target. Every start is a process of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

STEP = """
import time
began = time.perf_counter()
from duograd.bench.run_duograd import build, cnn_step
step, batch = cnn_step()
x, y = batch(64)
step(x, y).item()
print(time.perf_counter() - began)
"""


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
