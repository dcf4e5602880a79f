"""Damaged model files: each runs or is refused with a DuogradError, in bounded time and memory, and touches nothing.

`python -m duograd.bench.onnx_fuzz --mutants 50000 --seed 0 [--workers 2] [--first 0] [--json FILE]`. Mutants are made
from onnx's own node tests: bytes flipped, cut, moved, and fields of the message changed to other and extreme values.
A mutant depends on the seed and its number alone: `--first N --mutants 1 --keep FILE` writes mutant N to a file.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import onnx

#: seconds one mutant may take, and bytes of address space beyond what the worker has when it starts
SECONDS, BYTES = 60.0, 4 << 30
_EXTREMES = (0, 1, -1, 2, 7, 127, 255, 1 << 15, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63))
_TEXTS = ("", "x", "../../../../etc/hostname", "/etc/hostname", "Relu", "Loop", "ai.onnx.ml", "\0", "a" * 300)


# ---------------------------------------------------------------- mutants


def originals() -> list[Any]:
    """onnx's node tests whose inputs are arrays: (name, model, inputs)."""
    from onnx.backend.test.loader import load_model_tests

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in sorted(load_model_tests(kind="node"), key=lambda c: c.name):
            if case.data_sets and case.model.ByteSize() < 50_000:
                inputs = case.data_sets[0][0]
                found.append((case.name, case.model, [_array(x) for x in inputs]))
    return found


def _array(x: Any) -> Any:
    """Inputs of narrow types come as tensors of a file."""
    from ..interop.onnx.tensors import array_of

    return array_of(x) if isinstance(x, onnx.TensorProto) else x


def mutant(cases: list[Any], seed: int, number: int) -> tuple[str, bytes, list[Any]]:
    """The name of the original, the damaged bytes and the inputs of one mutant."""
    rng = random.Random(seed * 1_000_003 + number)
    name, model, inputs = cases[rng.randrange(len(cases))]
    if rng.random() < 0.3:
        return name, _damaged(model.SerializeToString(), rng), inputs
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        try:
            _change(changed, rng)
        except (TypeError, ValueError):  # a value that the field does not take: another one next time
            continue
    return name, changed.SerializeToString(), inputs


def _damaged(data: bytes, rng: random.Random) -> bytes:
    row = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(row) or 1)
        kind = rng.randrange(6)
        if not row:
            break
        if kind == 0:
            row[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            row[at] = rng.randrange(256)
        elif kind == 2:
            del row[at : at + rng.choice((1, 2, 8, 64))]
        elif kind == 3:
            row[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 16))))
        elif kind == 4:
            row[at:at] = row[at : at + rng.choice((8, 64, 256))]
        else:
            del row[at:]
    return bytes(row)


def _places(message: Any, found: list[Any]) -> None:
    """Every (message, field) that is set, in this message and those in it."""
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type is not None:
            for child in value if isinstance(value, collections.abc.Sequence) else [value]:
                _places(child, found)


def _is_repeated(value: Any) -> bool:
    return isinstance(value, collections.abc.Sequence) and not isinstance(value, (str, bytes))


def _change(model: Any, rng: random.Random) -> None:
    found: list[Any] = []
    _places(model, found)
    if not found:
        return
    message, field = rng.choice(found)
    value: Any = getattr(message, field.name)
    if _is_repeated(value):
        kind, k = rng.randrange(4), rng.randrange(len(value))
        if kind == 0:
            del value[k]
        elif kind == 1:
            value.append(value[k]) if field.message_type is None else value.add().CopyFrom(value[k])
        elif field.message_type is None:
            value[k] = _other(value[k], rng, value)
        else:
            message.ClearField(field.name)
    elif field.message_type is not None or rng.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _other(value, rng, ()))
    if rng.random() < 0.03 and model.graph.initializer:
        _point_outside(rng.choice(model.graph.initializer), rng)


def _point_outside(tensor: Any, rng: random.Random) -> None:
    """Data in a file that is not beside the model."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, text in (
        ("location", rng.choice(_TEXTS)),
        ("offset", str(rng.choice(_EXTREMES))),
        ("length", "8"),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text


def _other(value: Any, rng: random.Random, beside: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((*_EXTREMES, value + 1, value - 1, -value, value * 2, *list(beside)[:3]))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), -value))
    if isinstance(value, bytes):
        return _damaged(value, rng) if value else b"x"
    return rng.choice((*_TEXTS, value + "_", value[:-1], *list(beside)[:3]))


# ---------------------------------------------------------------- one mutant


class _Watch:
    """Files that are opened while a mutant is tried, but for those of the installation, the cache and its folder."""

    def __init__(self, allowed: list[str]):
        self.allowed, self.on, self.seen = [os.path.realpath(p) + os.sep for p in allowed], False, []  # type: ignore[var-annotated]
        sys.addaudithook(self.note)

    def note(self, event: str, args: Any) -> None:
        if self.on and event == "open" and isinstance(args[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(args[0]))
            if not any(path.startswith(p) for p in self.allowed) and not path.startswith(
                ("/proc/", "/sys/", "/dev/")
            ):
                self.seen.append(path)


def outcome(data: bytes, inputs: list[Any], folder: str, as_file: bool) -> str:
    """What becomes of a model: "runs", "refused", or "fault: ..." for what must not happen."""
    import duograd as dg

    from ..core import dispatch

    before = dispatch.state.executor, dispatch.state.grad
    path = os.path.join(folder, "mutant.onnx")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if as_file:
                with open(path, "wb") as f:
                    f.write(data)
            loaded = dg.onnx.load(path if as_file else data)
            loaded.run([x if not isinstance(x, np.ndarray) else x.copy() for x in inputs])
        found = "runs"
    except dg.errors.DuogradError:
        found = "refused"
    except BaseException as e:  # whatever else comes out is a fault
        found = f"fault: {type(e).__name__}: {str(e)[:300]}"
    if (dispatch.state.executor, dispatch.state.grad) != before:
        return "fault: the executor or the gradient mode was left changed"
    return found


def work(seed: int) -> None:
    """A worker: numbers of mutants come in, outcomes go out, a line each."""
    import duograd as dg

    from ..core.backend import get_backend

    cases = originals()
    dg.relu(dg.ones((3,))).numpy()
    get_backend("cpu")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    with open("/proc/self/statm") as f:
        pages = int(f.read().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        cache = os.environ.get("DUOGRAD_CACHE_DIR") or os.path.expanduser("~/.cache")
        installed = [
            os.path.dirname(os.path.dirname(os.path.abspath(p)))
            for p in (np.__file__, os.__file__, dg.__file__)
        ]
        watch = _Watch([folder, tempfile.gettempdir(), cache, sys.prefix, sys.base_prefix, *installed])
        out.write("ready\n")
        for line in sys.stdin:
            number = int(line)
            name, data, inputs = mutant(cases, seed, number)
            began = time.time()
            watch.seen, watch.on = [], True
            found = outcome(data, inputs, folder, number % 8 == 0)
            watch.on = False
            if watch.seen:
                found = f"fault: opened {watch.seen[0]}"
            out.write(json.dumps([number, name, found, round(time.time() - began, 3)]) + "\n")


# ---------------------------------------------------------------- the run


class _Worker:
    """A process that tries mutants; it is started anew when it dies or hangs."""

    def __init__(self, seed: int):
        command = [sys.executable, "-m", "duograd.bench.onnx_fuzz", "--worker", "--seed", str(seed)]
        env = {**os.environ, "DUOGRAD_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self.number, self.since, self.buffer = -1, time.time(), b""

    def send(self, number: int) -> None:
        assert self.process.stdin is not None
        self.number, self.since = number, time.time()
        self.process.stdin.write(b"%d\n" % number)
        self.process.stdin.flush()

    def lines(self) -> list[str] | None:
        """The lines that have come; None when the process has ended."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            return None
        *whole, self.buffer = (self.buffer + data).split(b"\n")
        return [v.decode() for v in whole]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def fuzz(
    mutants: int, seed: int, workers: int = 1, first: int = 0, budget: float = float("inf")
) -> dict[str, Any]:
    """Try mutants `first`, `first` + 1, ...; returns counts, faults, the slowest ones. budget: seconds in all."""
    counts: collections.Counter[str] = collections.Counter()
    faults: list[list[Any]] = []
    slow: list[list[Any]] = []
    todo = iter(range(first, first + mutants))
    began, row = time.time(), [_Worker(seed) for _ in range(workers)]

    def note(record: list[Any]) -> None:
        counts[record[2].split(":")[0]] += 1
        if record[2].startswith("fault"):
            faults.append(record)
            print(*record, sep="  ", flush=True)
        slow.append(record)
        slow.sort(key=lambda r: -r[3])
        del slow[10:]

    def next_of(worker: _Worker) -> bool:
        number = next(todo, None) if time.time() - began < budget else None
        if number is None:
            row.remove(worker)
            worker.stop()
            return False
        worker.send(number)
        return True

    while row:
        pipes: list[Any] = [w.process.stdout for w in row]
        ready, _, _ = select.select(pipes, [], [], 1.0)
        for worker in list(row):
            dead = False
            if worker.process.stdout in ready:
                lines = worker.lines()
                dead = lines is None
                for line in lines or ():
                    if line != "ready":
                        note(json.loads(line))
                    next_of(worker)
            limit = SECONDS if worker.number >= 0 else 300
            late = not dead and worker in row and time.time() - worker.since > limit
            if dead or late:
                worker.stop()
                what = "fault: hangs" if late else f"fault: the process died with {worker.process.returncode}"
                if worker.number >= 0:
                    note([worker.number, "", what, round(time.time() - worker.since, 1)])
                row[row.index(worker)] = _Worker(seed)
    return {"tried": sum(counts.values()), "counts": dict(counts), "faults": faults, "slowest": slow,
            "seconds": round(time.time() - began)}  # fmt: skip


def main() -> None:
    """Run, print what is wrong, and exit with 1 when something is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--keep", default="", help="write the first mutant to a file and try it here")
    parser.add_argument("--json", default="")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.seed)
        return
    if options.keep:
        name, data, inputs = mutant(originals(), options.seed, options.first)
        with open(options.keep, "wb") as f:
            f.write(data)
        print(name, outcome(data, inputs, os.path.dirname(os.path.abspath(options.keep)), False))
        return
    found = fuzz(options.mutants, options.seed, options.workers, options.first, options.seconds)
    print(
        found["counts"],
        f"{found['seconds']} s; the slowest took {found['slowest'][0][3] if found['slowest'] else 0} s",
    )
    if options.json:
        with open(options.json, "w") as f:
            json.dump(found, f, indent=1)
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
