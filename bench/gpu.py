"""What works on a GPU and how fast, in one run: `python -m duograd.bench.gpu --vs torch --json gpu.json`.

Each step is by itself, so that one that fails hides no other; what fails is printed and is the exit status. Steps:

    machine   GPU, driver and versions
    kernel    the first kernel: compiled, started, exact
    memory    tensors of every dtype there and back, strided views, another GPU if there is one
    ops       every op's first samples with gradients: eager = graph bit for bit, both near the CPU's
    train     train steps of the demo's CNN and of a model of letters: eager = graph bit for bit, both near the CPU's
    speed     single ops (`op_cases.py`) and the fused expressions at 4M elements, both modes, PyTorch beside them

Ops without a kernel for the device are counted, not failed. `--device cpu` runs the same steps on the CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import duograd as dg
import numpy as np
from duograd.core.backend import available_devices, get_backend
from duograd.core.errors import DuogradError
from duograd.core.reference import has_floats, make_arguments, samples
from duograd.core.types import DTYPES
from duograd.interop.demo import build_model, training_step

from . import run_duograd
from .cases import CASES
from .op_cases import op_case

STEPS = ("machine", "kernel", "memory", "ops", "train", "speed")
#: relative and absolute distance from the CPU's numbers, by bytes of a float: sums have another order there
NEAR = {2: 2e-2, 4: 5e-5, 8: 1e-9}
#: cases beside the single ops: fused expressions of `cases.py`
FUSED = ("pointwise", "softmax", "layer_norm")
BLOCK, BLOCKS = 0.02, 5
#: train steps that are compared, and how near losses and parameters are after them: Adam's first steps have the size
#: of the learning rate however small a gradient is
TRAINED, TRAINED_NEAR = 3, 1e-3


class Run:
    """One run: where, for how long, and what was found."""

    def __init__(self, device: str, seconds: float, vs: str, names: list[str], batch: int):
        self.device, self.seconds, self.vs, self.names, self.batch = device, seconds, vs, names, batch
        self.records: list[dict[str, Any]] = []

    def note(self, step: str, ok: bool, text: str, **facts: Any) -> None:
        """Print and keep one finding."""
        print(f"{'ok  ' if ok else 'FAIL'} {step:8} {text}", flush=True)
        self.records.append({"step": step, "ok": ok, "text": text, **facts})

    def within(self, things: Any) -> Iterator[Any]:
        """The things, until the seconds of a step have passed; says so when some are left out."""
        things, start = list(things), time.monotonic()
        for k, thing in enumerate(things):
            if time.monotonic() - start > self.seconds:
                print(
                    f"     after {self.seconds:.0f} s: {len(things) - k} of {len(things)} are left out (--seconds)"
                )
                return
            yield thing

    def put(self, array: np.ndarray) -> Any:
        """The array as a tensor on the device."""
        return dg.tensor(array).to(self.device)


def machine(run: Run) -> None:
    """The GPU, the driver, versions."""
    facts = get_backend(dg.device(run.device)).describe()
    run.note("machine", True, ", ".join(f"{k} {v}" for k, v in facts.items()), **facts)


def kernel(run: Run) -> None:
    """The first kernel of this process."""
    start = time.perf_counter()
    x = np.arange(1000, dtype=np.float32)
    got = (run.put(x) * 2 + 1).to("cpu").numpy()
    took = time.perf_counter() - start
    same = bool((got == x * 2 + 1).all())
    run.note("kernel", same, f"x * 2 + 1 of 1000 elements after {took:.2f} s", seconds=took)


def memory(run: Run) -> None:
    """Tensors there and back."""
    homes = [run.device, *(d for d in available_devices() if d.split(":")[0] == run.device.split(":")[0])]
    for dtype in DTYPES.values():
        x = np.arange(60).reshape(5, 12).astype(dtype.np)
        for home in homes:
            there = run.put(x).to(home)
            for got, want in ((there, x), (there[1:, ::3].T, x[1:, ::3].T), (there.to(run.device)[2], x[2])):
                same = got.to("cpu").numpy().tobytes() == np.ascontiguousarray(want).tobytes()
                if not same:
                    run.note(
                        "memory", False, f"{dtype} of shape {want.shape} comes back from {home} as another"
                    )
    run.note("memory", True, f"{len(DTYPES)} dtypes on {', '.join(dict.fromkeys(homes))}")


def _outcome(op: Any, sample: Any, home: str, graph: bool) -> list[np.ndarray | None]:
    """Results and gradients of one sample on a device."""
    wanted = sample.grad and has_floats(sample) and (op.differentiable or op.kind == "composite")
    given = [dg.tensor(a).to(home) if isinstance(a, np.ndarray) else a for a in make_arguments(sample)]
    which = [k for k, a in enumerate(given) if isinstance(a, dg.Tensor) and a.dtype.is_float]
    for k in which if wanted else ():
        given[k].requires_grad_()

    def call(*floats: Any) -> list[Any]:
        row = list(given)
        for k, x in zip(which, floats):
            row[k] = x
        made = op(*row, **sample.attrs)
        outs = list(made) if isinstance(made, tuple) else [made]
        pulled = [y.sum() for y in outs if y.dtype.is_float and y.requires_grad]
        if not pulled:
            return outs
        sum(pulled[1:], pulled[0]).backward()
        return [y.detach() for y in outs] + [x.grad for x in floats]

    dg.manual_seed(7)
    found = (dg.function(call) if graph else call)(*(given[k] for k in which))
    return [None if y is None else np.asarray(y.detach().to("cpu").numpy()) for y in found]


def _differ(eager: Any, graph: Any, cpu: Any) -> str:
    """What is wrong with one result, in words."""
    if eager is None or graph is None or cpu is None:
        return "" if eager is graph is cpu else "a gradient is missing"
    if (eager.dtype, eager.shape) != (cpu.dtype, cpu.shape):
        return f"{eager.dtype} {eager.shape}, on the CPU {cpu.dtype} {cpu.shape}"
    if eager.tobytes() != graph.tobytes():
        return f"eager {eager.reshape(-1)[:3]}, graph {graph.reshape(-1)[:3]}"
    if eager.dtype.kind not in "fc":
        return "" if (eager == cpu).all() else f"{eager.reshape(-1)[:3]}, on the CPU {cpu.reshape(-1)[:3]}"
    bound = NEAR[eager.real.dtype.itemsize]
    near = np.allclose(eager, cpu, rtol=bound, atol=bound, equal_nan=True)
    return "" if near else f"{eager.reshape(-1)[:3]}, on the CPU {cpu.reshape(-1)[:3]}"


def ops(run: Run) -> None:
    """Every op's samples on the device."""
    counts: Counter[str] = Counter()
    for op, number, sample in run.within(c for c in samples() if c[1] < 2 and c[0].name != "to_device"):
        if run.names and op.name not in run.names:
            continue
        try:
            eager, graph = (_outcome(op, sample, run.device, graph) for graph in (False, True))
            wrong = [_differ(*each) for each in zip(eager, graph, _outcome(op, sample, "cpu", False))]
            if any(wrong):
                counts["differ"] += 1
                run.note("ops", False, f"{op.name}, sample {number}: {next(filter(None, wrong))}")
            else:
                counts["agree"] += 1
        except DuogradError as error:
            if "has no kernel for" in error.message:
                counts["have no kernel"] += 1
                continue
            counts["fail"] += 1
            run.note("ops", False, f"{op.name}, sample {number}: {error}")
        except Exception as error:
            counts["fail"] += 1
            run.note("ops", False, f"{op.name}, sample {number}: {type(error).__name__}: {error}")
    run.note("ops", True, ", ".join(f"{n} {what}" for what, n in counts.items()), **counts)


def _letters() -> Any:
    """An embedding, a layer norm and two linear layers: the next of 50 letters from eight."""
    nn = dg.nn
    layers = (
        nn.Embedding(50, 24),
        nn.LayerNorm(24),
        nn.Flatten(),
        nn.Linear(8 * 24, 64),
        nn.GELU(),
        nn.Linear(64, 50),
    )
    return nn.Sequential(*layers)


def _digits_data(rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.random((batch, 1, 8, 8), np.float32), rng.integers(0, 10, batch)


def _letters_data(rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 50, (batch, 8)), rng.integers(0, 50, batch)


#: name -> model, and a batch of it
TRAININGS: dict[str, tuple[Callable[[], Any], Callable[..., tuple[np.ndarray, np.ndarray]]]] = {
    "digits": (build_model, _digits_data), "letters": (_letters, _letters_data),
}  # fmt: skip


def _trained(name: str, home: str, mode: str, batch: int) -> tuple[list[np.ndarray], list[float]]:
    """Losses and parameters after some steps, and the seconds of the first step and of later ones."""
    build, data = TRAININGS[name]
    dg.manual_seed(11)
    model = build().to(home)
    step = dg.function(training_step(model, dg.optim.Adam(model.parameters(), lr=3e-3)), mode=mode)
    rng = np.random.default_rng(0)
    batches = [tuple(dg.tensor(a).to(home) for a in data(rng, batch)) for _ in range(TRAINED)]
    losses, times = [], []
    for x, y in batches:
        start = time.perf_counter()
        losses.append(step(x, y).item())
        times.append(time.perf_counter() - start)
    found = [np.array(losses), *(np.array(p.detach().to("cpu").numpy()) for p in model.parameters())]
    first, later = times[0], times[1:]
    while sum(later) < 25 * BLOCK and len(later) < 200:
        start = time.perf_counter()
        step(x, y).item()
        later.append(time.perf_counter() - start)
    return found, [first, statistics.median(later)]


def train(run: Run) -> None:
    """Train steps with Adam, dropout by the same random bits everywhere."""
    for name in TRAININGS:
        if run.names and name not in run.names:
            continue
        try:
            (eager, eager_times), (graph, graph_times), (cpu, _) = (
                _trained(name, home, mode, run.batch)
                for home, mode in ((run.device, "eager"), (run.device, "graph"), ("cpu", "eager"))
            )
            same = all(a.tobytes() == b.tobytes() for a, b in zip(eager, graph, strict=True))
            far = max(float(abs(a - b).max()) for a, b in zip(eager, cpu, strict=True))
            text = f"{name}: modes {'equal' if same else 'DIFFER'}, {far:.1e} from the CPU after {TRAINED} steps; "
            text += ", ".join(
                f"{mode} {1e3 * later:.2f} ms (first {first:.1f} s)"
                for mode, (first, later) in (("eager", eager_times), ("graph", graph_times))
            )
            times = {"eager": eager_times, "graph": graph_times}
            run.note("train", same and far < TRAINED_NEAR, text, name=name, far=far, times=times)
        except Exception as error:
            run.note("train", False, f"{name}: {type(error).__name__}: {error}")


def _seconds(call: Callable[[], Any], finish: Callable[[Any], None]) -> float:
    """The median time of a call, in blocks that end when the device is done."""
    for _ in range(3):
        finish(call())
    count, took = 1, 0.0
    while took < BLOCK and count < 1 << 14:
        count = count * 2 if took else 1
        start = time.perf_counter()
        for _ in range(count):
            out = call()
        finish(out)
        took = time.perf_counter() - start
    times = []
    for _ in range(BLOCKS):
        start = time.perf_counter()
        for _ in range(count):
            out = call()
        finish(out)
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times)


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, (tuple, list)) else out


def _ours(case: Any, run: Run) -> dict[str, float]:
    """Seconds of a case in both modes; nothing when its work is not on the device."""
    inputs = [x.detach().to(run.device).requires_grad_(x.requires_grad) for x in run_duograd.op_inputs(case)]
    call = run_duograd.op_function(case)
    out = _first(call(*inputs))
    if not isinstance(out, dg.Tensor) or out.device != inputs[0].device:
        return {}
    graph = dg.function(call)

    def wait(out: Any) -> None:
        _first(out)._storage.wait()

    return {"eager": _seconds(lambda: call(*inputs), wait), "graph": _seconds(lambda: graph(*inputs), wait)}


def _theirs(case: Any, run: Run) -> dict[str, float]:
    """PyTorch's seconds of a case."""
    import torch

    from . import run_torch

    inputs = [x.detach().to(run.device).requires_grad_(x.requires_grad) for x in run_torch.op_inputs(case)]
    call = run_torch.op_function(case)

    def wait(out: Any) -> None:
        if run.device.startswith("cuda"):
            torch.cuda.synchronize()

    return {"torch": _seconds(lambda: call(*inputs), wait)}


def _case(name: str) -> Any:
    return CASES[name] if name in FUSED else op_case(name)


def speed(run: Run) -> None:
    """Single ops and fused expressions at 4M elements."""
    from .op_cases import ROWS

    names = [*FUSED, *(f"{op}_4M" for op, row in ROWS.items() if row.traffic or row.flops)]
    for name in run.within(
        n for n in names if not run.names or n.rpartition("_")[0] in run.names or n in run.names
    ):
        case = _case(name)
        try:
            times = _ours(case, run)
            if not times:
                continue
            if run.vs:
                times |= _theirs(case, run)
        except DuogradError as error:
            if "has no kernel for" not in error.message:
                run.note("speed", False, f"{name}: {error}")
            continue
        except Exception as error:
            run.note("speed", False, f"{name}: {type(error).__name__}: {error}")
            continue
        moved = case.bytes["op"] / 1e9
        rates = ", ".join(
            f"{who} {1e6 * t:,.1f} µs" + (f" ({moved / t:,.0f} GB/s)" if moved else "")
            for who, t in times.items()
        )
        run.note("speed", True, f"{name}: {rates}", name=name, times=times, gigabytes=moved)


def main(arguments: list[str] | None = None) -> int:
    """Run the steps; 0 when nothing failed."""
    parser = argparse.ArgumentParser("duograd.bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", help="where (%(default)s)")
    parser.add_argument("--steps", default=",".join(STEPS), help="some of %(default)s")
    parser.add_argument("--names", default="", help="of the steps ops, train and speed (all)")
    parser.add_argument("--batch", type=int, default=64, help="of train steps (%(default)s)")
    parser.add_argument("--vs", choices=("torch",), help="time PyTorch on the same device")
    parser.add_argument("--seconds", type=float, default=200, help="for each of ops and speed (%(default)s)")
    parser.add_argument("--json", help="write what was found to this file")
    given = parser.parse_args(arguments)
    steps = given.steps.split(",")
    if unknown := set(steps) - set(STEPS):
        parser.error(f"no step {', '.join(sorted(unknown))}: there are {', '.join(STEPS)}")
    run = Run(
        given.device, given.seconds, given.vs or "", [n for n in given.names.split(",") if n], given.batch
    )
    for step in steps:
        try:
            globals()[step](run)
        except Exception as error:
            run.note(step, False, f"{type(error).__name__}: {error}")
            if step == "machine":
                break
    if given.json:
        with open(given.json, "w") as file:
            json.dump(run.records, file, indent=1, default=str)
    return int(not all(record["ok"] for record in run.records))


if __name__ == "__main__":
    sys.exit(main())
