"""Run cases against peers, interleaved, and report medians with the physical limit beside them."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..core.errors import ArgumentError, KernelError, MissingExtraError
from . import onnx_zoo
from .cases import CASES, find, names
from .op_cases import split_name
from .worker import environment

PEERS = {
    "torch": ["torch-eager"],
    "torch-compile": ["torch-compile"],
    "jax": ["jax"],
    "tensorflow": ["tensorflow"],
    "tensorflow-xla": ["tensorflow-xla"],
    "onnxruntime": ["onnxruntime"],
}
_MODULE = {peer: peer.partition("-")[0] for peer in PEERS}
MODES = ("graph", "eager")
#: bytes of the copy that memory-bound cases are compared with, beside one of as many bytes as they move
COPIED = 64 << 20
#: seconds between two runners' turns, for models and for single ops: threads may spin for a while after their work
SETTLE, SETTLE_OP = 0.1, 0.01
#: seconds of measuring for each runner and case, in blocks that take turns
BUDGET, BLOCKS = 2.0, 12


class Worker:
    """A runner in its own process."""

    def __init__(self, name: str, threads: int):
        self.name = name
        command = [sys.executable, "-m", "duograd.bench.worker", name, str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment(threads),
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, wait for the answer. Raises KernelError when the worker died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise KernelError(
                "bench", f"the runner {self.name} died at {request}", f"run {self.process.args!r} by hand"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, which ends by itself when its input does; one that hangs is killed."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def choose(vs: Sequence[str], phase: str, modes: Sequence[str] = MODES, single: bool = False) -> list[str]:
    """Runner names: duograd's modes and the peers. Raises for an unknown or absent peer.

    single: for a single op, which only PyTorch knows too.
    """
    chosen = [f"duograd-{mode}" for mode in modes]
    for peer in vs:
        if peer not in PEERS:
            raise ArgumentError("bench", f"{peer!r} is not a peer", f"use {', '.join(PEERS)}")
        if importlib.util.find_spec(_MODULE[peer]) is None:
            extra = "tensorflow" if _MODULE[peer] == "tensorflow" else "peers"
            raise MissingExtraError("bench", f"{peer} is not installed", f"pip install duograd[{extra}]")
        if (peer != "onnxruntime" or phase == "infer") and (not single or _MODULE[peer] == "torch"):
            chosen += PEERS[peer]
    return chosen


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {}
    for package in ("duograd", "numpy", "numba", "torch", "jax", "tensorflow-cpu", "onnxruntime"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "threads": threads, "system": platform.platform(),
        "python": platform.python_version(), "versions": versions, "commit": _commit(),
    }  # fmt: skip


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = next(
            line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")
        )
        wide = "AVX-512" if "avx512f" in text else "AVX2" if "avx2" in text else "SSE"
        return f"{name} ({wide})"
    except (OSError, StopIteration):
        return platform.processor()


def _commit() -> str:
    here = Path(__file__).resolve().parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        return out.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run(
    cases: Sequence[str] | None = None,
    phases: Sequence[str] = ("train", "op"),
    vs: Sequence[str] = (),
    threads: int = 2,
    budget: float = BUDGET,
    progress: Callable[[str], None] = lambda text: None,
    ops: bool = False,
    modes: Sequence[str] = MODES,
) -> dict[str, Any]:
    """Measure cases in both modes and against peers.

    cases: names, or patterns such as `*_4096` (all when None); phases: "train", "infer", "op"; vs: peers; budget:
    seconds for each runner and case; ops: single ops too; modes: of duograd.
    Returns: {"machine": ..., "records": [...]}, as `--json` writes it.
    Raises: ArgumentError for an unknown case, MissingExtraError for an absent peer, KernelError when a runner
    fails or computes something else than the others.
    """
    wanted = _wanted(cases, ops)
    chosen = {
        (name, phase): choose(
            [v for v in vs if v == "onnxruntime" or name not in onnx_zoo.FILES],
            phase,
            modes,
            name not in CASES,
        )
        for name in wanted
        for phase in find(name).phases
        if phase in phases
    }
    runners = list(dict.fromkeys(r for group in chosen.values() for r in group))
    workers = {name: Worker(name, threads) for name in runners or [f"duograd-{modes[0]}"]}
    ours = workers[f"duograd-{modes[0]}"]
    records: list[dict[str, Any]] = []
    try:
        about = machine(threads)
        speeds = [_copy_speed(ours.ask(do="bandwidth", size=COPIED))]
        for (name, phase), group in chosen.items():
            progress(f"{name} {phase}")
            copier = ours if find(name).bytes.get(phase) else None
            records += _measure(name, phase, [workers[r] for r in group], threads, budget, copier)
        speeds.append(_copy_speed(ours.ask(do="bandwidth", size=COPIED)))
        about["copy_bytes_per_s"] = max(speeds)
    finally:
        for worker in workers.values():
            worker.close()
    return {"machine": about, "records": records}


def _wanted(cases: Sequence[str] | None, ops: bool) -> list[str]:
    """The names of the cases asked for. Raises ArgumentError for one that is none."""
    if not cases:
        return names(ops)
    wanted: list[str] = []
    for name in cases:
        found = fnmatch.filter(names(True), name)
        if not found:
            raise ArgumentError("bench", f"{name!r} is not a case", f"use one of {', '.join(names())}")
        wanted += [n for n in found if n not in wanted]
    return wanted


def _copy_speed(*answers: dict[str, Any]) -> float:
    """Bytes a second, read and written, of the median copy, by those stores that are faster."""
    kinds = zip(*(a["times"] for a in answers))
    return float(answers[0]["bytes"]) / min(
        statistics.median(t for times in kind for t in times) for kind in kinds
    )


def _measure(
    name: str, phase: str, workers: list[Worker], threads: int, budget: float, copier: Worker | None = None
) -> list[dict[str, Any]]:
    """Records of one case; copier: a worker that copies memory in its turn, for cases bound by memory."""
    case = find(name)
    prepared, plan = {}, {}
    for worker in workers:
        answer = worker.ask(do="prepare", case=name, phase=phase)
        if "error" in answer:
            raise KernelError(
                "bench", f"{worker.name} failed on {name}: {answer['error']}", "run the case by itself"
            )
        prepared[worker.name] = answer
    if name in CASES or not split_name(name)[0].random:
        _check_same_work(name, prepared)
    for worker in workers:  # warm up, and find out how many iterations make a block
        times = worker.ask(do="run", iterations=3)["times"]
        plan[worker.name] = max(2, int(budget / BLOCKS / max(min(times), 1e-7)))
    samples: dict[str, list[float]] = {w.name: [] for w in workers}
    copies: list[dict[str, Any]] = []
    own_copies: list[dict[str, Any]] = []
    for block in range(BLOCKS + 1):
        first = block % len(workers)
        for worker in workers[first:] + workers[:first]:
            time.sleep(SETTLE if name in CASES else SETTLE_OP)
            times = worker.ask(do="run", iterations=min(plan[worker.name], 20_000))["times"]
            if block:  # the first block is warm-up too
                samples[worker.name] += times
        if copier and block:
            time.sleep(SETTLE if name in CASES else SETTLE_OP)
            copies.append(copier.ask(do="bandwidth", size=COPIED))
            own_copies.append(copier.ask(do="bandwidth", size=int(case.bytes[phase]) // 2))
    out = []
    for worker in workers:
        times = sorted(samples[worker.name])
        out.append({
            "case": name, "phase": phase, "runner": worker.name, "median_s": statistics.median(times),
            "p10_s": times[len(times) // 10], "p90_s": times[len(times) * 9 // 10], "iterations": len(times),
            "first_s": prepared[worker.name]["first_s"], "peak_bytes": prepared[worker.name]["peak_bytes"],
            "threads": threads, "flops": case.flops.get(phase, 0.0), "bytes": case.bytes.get(phase, 0.0),
            "copy_bytes_per_s": _copy_speed(*copies) if copies else 0.0,
            "own_copy_bytes_per_s": _copy_speed(*own_copies) if own_copies else 0.0,
        })  # fmt: skip
    return out


def _check_same_work(name: str, prepared: dict[str, dict[str, Any]]) -> None:
    """Losses (or results) of the first steps must agree between runners: otherwise the work differs."""
    (first, reference), *rest = ((k, v["values"]) for k, v in prepared.items())
    for other, values in rest:
        for a, b in zip(reference, values):
            if not abs(a - b) <= 1e-3 * max(1.0, abs(a)):
                raise KernelError(
                    "bench",
                    f"{first} and {other} differ on {name}: {reference} against {values}",
                    "the cases must agree",
                )
