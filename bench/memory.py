"""Peak memory of train steps, by the allocators: each case and runner in a process of its own, five steps.

`python -m duograd.bench.memory` prints MiB of both modes; `--vs torch` adds torch eager, `--cases mlp,lstm` chooses.
PyTorch's allocator has no counter on a CPU: its profiler's events are added up, which work memory of its libraries is
not among, and the batch, which it shares with NumPy, is added.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from . import worker
from .cases import CASES, find

STEPS = 5


def peak(runner: str, case: str) -> int:
    """Bytes of a case at its peak, in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "duograd.bench.memory", "--worker", runner, case],
        env=worker.environment(2), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1])


def _ours(mode: str, case: str) -> int:
    from . import run_duograd

    run_duograd.reset_peak()
    run, value = run_duograd.build(find(case), "train", mode)
    for _ in range(STEPS):
        value(run())
    return run_duograd.peak_bytes()


def _torch(case: str) -> int:
    from torch.profiler import ProfilerActivity, profile

    from . import run_torch

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run, value = run_torch.build(find(case), "train", "eager")
        for _ in range(STEPS):
            value(run())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        profiled.export_chrome_trace(path)
        with open(path) as file:
            events = json.load(file)["traceEvents"]
    return highest(events) + sum(v.nbytes for v in find(case).data().values())


def highest(events: list[dict[str, Any]]) -> int:
    """The most bytes in use at once by a trace's memory events."""
    use = most = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        use += event["args"]["Bytes"]
        most = max(most, use)
    return most


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m duograd.bench.memory", description=__doc__)
    parser.add_argument("--cases", default=",".join(k for k, c in CASES.items() if "train" in c.phases))
    parser.add_argument("--vs", choices=["torch"], help="a peer beside ours")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        runner, case = options.worker
        print(_torch(case) if runner == "torch-eager" else _ours(runner.removeprefix("duograd-"), case))
        return
    runners = ["duograd-graph", "duograd-eager", *["torch-eager"] * bool(options.vs)]
    print(f"{'MiB':<16}" + "".join(f"{r:>16}" for r in runners))
    for case in options.cases.split(","):
        print(f"{case:<16}" + "".join(f"{peak(r, case) / 2**20:16.4f}" for r in runners), flush=True)


if __name__ == "__main__":
    main()
