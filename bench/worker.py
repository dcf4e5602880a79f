"""One runner in a process of its own: it prepares a case, then runs short blocks when it is asked to.

Processes keep thread pools apart; the parent asks them in turn, so that all see the same machine. Protocol:
one JSON object a line on standard input and output.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
from typing import Any

RUNNERS = {
    "duograd-graph": ("run_duograd", "graph"),
    "duograd-fast": ("run_duograd", "fast"),
    "duograd-eager": ("run_duograd", "eager"),
    "torch-eager": ("run_torch", "eager"),
    "torch-compile": ("run_torch", "compile"),
    "jax": ("run_jax", "jit"),
    "tensorflow": ("run_tensorflow", "function"),
    "tensorflow-xla": ("run_tensorflow", "xla"),
    "onnxruntime": ("run_onnxruntime", ""),
}


def environment(threads: int) -> dict[str, str]:
    """The environment that gives a runner its threads, for variables that are read at start."""
    n, eigen = str(threads), "true" if threads > 1 else "false"
    extra = {
        "OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n, "DUOGRAD_NUM_THREADS": n,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={eigen}",
        "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3",
    }  # fmt: skip
    return {**os.environ, **extra}


def _prepare(module: Any, mode: str, case: str, phase: str) -> dict[str, Any]:
    from .cases import find

    gc.collect()
    if hasattr(module, "reset_peak"):
        module.reset_peak()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run, value = module.build(find(case), phase, mode)
    start = time.perf_counter()
    out = run()
    first = time.perf_counter() - start
    values = [value(out)]
    for _ in range(4):
        values.append(value(run()))
    peak = module.peak_bytes() if hasattr(module, "peak_bytes") else 0
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {"run": run, "first_s": first, "values": values, "peak_bytes": int(peak or grown)}


def main() -> None:
    """Serve requests until standard input ends."""
    name, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a peer prints goes to standard error
    module_name, mode = RUNNERS[name]
    module = importlib.import_module(f".{module_name}", __package__)
    module.set_threads(threads)
    current: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                current.clear()  # the case before is none of this one's memory
                current = _prepare(module, mode, request["case"], request["phase"])
                answer = {k: v for k, v in current.items() if k != "run"}
            elif request["do"] == "bandwidth":
                answer = {"times": module.copy_times(request["size"]), "bytes": 2 * request["size"]}
            else:
                run, times = current["run"], []
                clock = time.perf_counter
                for _ in range(request["iterations"]):
                    start = clock()
                    run()
                    times.append(clock() - start)
                answer = {"times": times}
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
