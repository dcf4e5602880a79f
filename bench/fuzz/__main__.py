"""`python -m duograd.bench.fuzz`: draw programs by seed, run both modes, report and shrink what differs."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from typing import Any

from .early import EARLY
from .tempers import LATER, TEMPERS

#: programs that one process works on: it keeps every kernel it has loaded
SLICE = 200


def main() -> int:
    """Run the command line; 1 when a difference was found."""
    parser = argparse.ArgumentParser(prog="python -m duograd.bench.fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, help="how many programs")
    parser.add_argument("--seed", type=int, default=0, help="the first program's seed; the others follow")
    tempers = [*TEMPERS, *LATER, EARLY]
    parser.add_argument(
        "--temper", choices=tempers, help="programs of this kind alone, see tempers.py, early.py"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--time", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--shrink", action="store_true", help="make failing programs small")
    parser.add_argument("--show", action="store_true", help="print programs as they are drawn")
    parser.add_argument("--json", help="append a line for each difference to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    return _work(options) if options.worker else _lead(options)


def _lead(options: Any) -> int:
    """Share the seeds out among processes, collect what they say."""
    start, first, end = time.perf_counter(), options.seed, options.seed + options.programs
    running: dict[Any, tuple[int, int]] = {}
    done, failures = 0, 0
    tally: Counter[str] = Counter()
    while first < end or running:
        late = time.perf_counter() - start > options.time
        while not late and first < end and len(running) < options.jobs:
            n = min(SLICE, end - first)
            running[_start(options, first, n, options.time - (time.perf_counter() - start))] = first, n
            first += n
        if late and not running:
            break
        for process in list(running):
            if process.poll() is None:
                continue
            seeds = running.pop(process)
            assert process.stdout is not None
            process.stdout.seek(0)
            out = process.stdout.read()
            for line in out.splitlines():
                if line.startswith("{"):
                    told = json.loads(line)
                    done += told["done"]
                    failures += told["failures"]
                    tally.update(told["tally"])
                else:
                    print(line)
            if process.returncode not in (0, 1):
                failures += 1
                print(f"a process for seeds {seeds[0]} to {sum(seeds) - 1} ended with {process.returncode}")
            rate = done / (time.perf_counter() - start)
            print(f"-- {done} programs, {failures} differ, {rate:.1f} a second", flush=True)
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    print(
        f"{done} programs from seed {options.seed} in {seconds:.0f} s: {failures} differ; "
        f"{tally['refused']} refused by graph mode as documented, {tally['equal errors']} with equal errors"
    )
    print("  " + ", ".join(f"{k}: {n}" for k, n in tally.most_common()))
    return 1 if failures else 0


def _start(options: Any, first: int, n: int, left: float) -> subprocess.Popen[str]:
    row = [sys.executable, "-m", "duograd.bench.fuzz", "--worker", "--seed", str(first), "--programs", str(n)]
    row += ["--time", str(left)] + ["--shrink"] * options.shrink + ["--show"] * options.show
    row += ["--json", options.json] if options.json else []
    row += ["--temper", options.temper] if options.temper else []
    environment = {**os.environ, "DUOGRAD_NUM_THREADS": os.environ.get("DUOGRAD_NUM_THREADS", "2")}
    # A pipe holds little, and it is read when the process has ended.
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(row, stdout=said, text=True, env=environment)
    process.stdout = said
    return process


def _work(options: Any) -> int:
    """Run a slice of programs in this process."""
    from ...core.op import REGISTRY  # noqa: F401
    from .build import draw
    from .judge import judge
    from .shrink import shrink

    faulthandler.enable()
    warnings.simplefilter("ignore")
    failures = done = 0
    tally: Counter[str] = Counter()
    start = time.perf_counter()
    for seed in range(options.seed, options.seed + options.programs):
        if time.perf_counter() - start > options.time:
            break
        program = None
        try:
            program = draw(seed, options.temper)
            if options.show:
                print(f"# seed {seed}\n{program.function()}\n", flush=True)
            found = judge(program, tally)
        except Exception:
            failures += 1
            print(
                f"seed {seed}: the fuzzer itself failed\n{program or ''}\n{traceback.format_exc()}",
                flush=True,
            )
            continue
        done += 1
        tally["steps"] += len(program.steps)
        tally["calls"] += len(program.sizes)
        if found is None:
            continue
        failures += 1
        tally[found.kind] += 1
        if options.shrink:
            program = shrink(program, judge)
            found = judge(program) or found
        print(f"seed {seed}: {found}\n{program}\n", flush=True)
        if options.json:
            with open(options.json, "a") as file:
                file.write(json.dumps({"seed": seed, "what": str(found), "program": str(program)}) + "\n")
    print(json.dumps({"done": done, "failures": failures, "tally": tally}), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
