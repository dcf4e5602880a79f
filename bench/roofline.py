"""Matrix products and convolutions against the machine's own peak: `python -m duograd.bench.roofline`.

The peak is what the register block's kernel does on operands in the first-level cache, on all threads at once. It, our
kernels and the peers' are asked in turn for short blocks in one process, so that all see the same machine; figures are
medians of the blocks beside which the peak was near its best, in arithmetic of the direct sum (Winograd's transform
needs less, so it may pass 100 %).
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import duograd as dg
import numpy as np
from duograd.backends.cpu import panels, pool
from duograd.core.backend import Program, get_backend
from duograd.core.types import float32
from duograd.nn import functional as F

_DEPTH, _TURNS = 192, 64
#: blocks count when the peak beside them was this part of its best, where there are enough of them
_QUIET, _ENOUGH = 0.9, 3


class Work(NamedTuple):
    """Something to time: its name, the runner, operations of a call, and the call."""

    name: str
    runner: str
    flops: float
    call: Callable[[], Any]


def _peak() -> Work:
    """The register block's kernel on operands that stay in the first-level cache, on every thread."""
    tile, backend, threads = panels.block(float32), get_backend("cpu"), pool.get_num_threads()
    rows, width = tile.rows, tile.width
    shape = f"{4 * rows}, {rows}, {tile.vectors}, {tile.lanes}"
    share = 4 * (_DEPTH * (rows + width) + rows * width)
    share = -(-share // 64) * 64
    source = f"""# peak of blocks of {rows} x {width}
{panels.IMPORT}
def kernel(args, chunk, nchunks):
    a = args[0] + chunk * {share}
    b = a + {4 * _DEPTH * rows}
    c = b + {4 * _DEPTH * width}
    for turn in range(args[1]):
        multiply_near_f32({_DEPTH}, a, b, {4 * width}, c, {4 * width}, {rows}, {width}, 0, 4, {shape})
"""
    program = Program(backend)
    memory = program.dynamic()
    from duograd.core.backend import Slot

    program.launch(source, [Slot(memory), _TURNS], threads)
    run = backend.load(program).run
    storage = backend.empty(share * threads)
    storage.array(float32, (storage.nbytes // 4,), (1,), 0)[...] = 0.5
    return Work("peak", "block", 2.0 * threads * _TURNS * _DEPTH * rows * width, lambda: run([storage.ptr]))


#: name, channels, filters, size of the image, stride: the 3 x 3 convolutions of ResNet-18 for one image of 224 x 224
CONVOLUTIONS = (
    ("conv 64, 56 x 56", 64, 64, 56, 1),
    ("conv 64 -> 128, stride 2", 64, 128, 56, 2),
    ("conv 128, 28 x 28", 128, 128, 28, 1),
    ("conv 128 -> 256, stride 2", 128, 256, 28, 2),
    ("conv 256, 14 x 14", 256, 256, 14, 1),
    ("conv 256 -> 512, stride 2", 256, 512, 14, 2),
    ("conv 512, 7 x 7", 512, 512, 7, 1),
)


def _works(names: list[str], vs: list[str], n: int, batch: int) -> list[Work]:
    rng = np.random.default_rng(0)
    normal = lambda *shape: np.asarray(rng.standard_normal(shape), np.float32)
    works = [_peak()]
    torch: Any = None
    if "torch" in vs:
        torch = importlib.import_module("torch")
        torch.set_num_threads(pool.get_num_threads())
        torch.set_grad_enabled(False)

    def add(name: str, flops: float, ours: Callable[..., Any], arrays: Any, theirs: Any) -> None:
        if names and not any(x in name for x in names):
            return
        x, w = map(dg.tensor, arrays)
        kept = dg.function(lambda x: ours(x, w))
        works.append(Work(name, "eager", flops, lambda: ours(x, w)))
        works.append(Work(name, "graph", flops, lambda: kept(x)))
        if torch is not None:
            tx, tw = map(torch.from_numpy, arrays)
            works.append(Work(name, "torch", flops, lambda: theirs(tx, tw)))

    add(f"gemm {n}", 2.0 * n**3, dg.matmul, (normal(n, n), normal(n, n)), lambda x, w: torch.mm(x, w))
    for name, c, k, size, stride in CONVOLUTIONS:
        out = (size - 1) // stride + 1
        add(
            name, 18.0 * batch * c * k * out * out,
            lambda x, w, s=stride: F.conv2d(x, w, stride=s, padding=1),  # type: ignore[attr-defined]
            (normal(batch, c, size, size), normal(k, c, 3, 3)),
            lambda x, w, s=stride: torch.nn.functional.conv2d(x, w, stride=s, padding=1),
        )  # fmt: skip
    return works


class Rate(NamedTuple):
    """Operations per second, and their share of the peak beside them: medians."""

    flops: float
    share: float


def measure(works: list[Work], rounds: int, block: float, pause: float) -> dict[tuple[str, str], Rate]:
    """By name and runner. works: the peak first, which is asked before and after each block of another.

    The order of the others rotates. Load from outside comes and goes: figures are of blocks with a good peak beside.
    """
    counts = {}
    for w in works:
        for _ in range(4):
            start = time.perf_counter()
            w.call()
            once = time.perf_counter() - start
        counts[w.name, w.runner] = max(1, int(block / (4 if w is works[0] else 1) / once))

    def rate(w: Work) -> float:
        n = counts[w.name, w.runner]
        start = time.perf_counter()
        for _ in range(n):
            w.call()
        return n * w.flops / (time.perf_counter() - start)

    peak, *others = works
    samples: dict[tuple[str, str], list[tuple[float, float, float]]] = {
        (w.name, w.runner): [] for w in others
    }
    best = 0.0
    for r in range(rounds):
        before = rate(peak)
        for k in range(len(others)):
            w = others[(k + r) % len(others)]
            time.sleep(pause)
            w.call()
            now, after = rate(w), rate(peak)
            samples[w.name, w.runner].append((now, before, after))
            best, before = max(best, after), after
    found = {(peak.name, peak.runner): Rate(best, 1.0)}
    for key, rows in samples.items():
        quiet = [row for row in rows if min(row[1:]) > _QUIET * best]
        rows = quiet if len(quiet) >= _ENOUGH else rows
        share = statistics.median(2 * now / (before + after) for now, before, after in rows)
        found[key] = Rate(statistics.median(now for now, _, _ in rows), share)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads", default="1,2", help="numbers of threads, separated by commas (%(default)s)"
    )
    parser.add_argument("--cases", default="", help="parts of names, separated by commas (all)")
    parser.add_argument("--vs", default="", help="torch")
    parser.add_argument(
        "--size", type=int, default=1024, help="rows, columns and depth of the matrices (%(default)s)"
    )
    parser.add_argument("--batch", type=int, default=1, help="images (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block", type=float, default=0.02, help="seconds of a block (%(default)s)")
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between blocks (%(default)s)")
    options = parser.parse_args()
    split = lambda text: [t for t in text.split(",") if t]
    if "," in options.threads:  # kernels are cut up for a number of threads: a process each
        rest = [x for x in sys.argv[1:] if x != options.threads and not x.startswith("--threads")]
        for threads in split(options.threads):
            subprocess.run(
                [sys.executable, "-m", "duograd.bench.roofline", *rest, "--threads", threads], check=True
            )
        return
    for threads in map(int, split(options.threads)):
        pool.set_num_threads(threads)
        works = _works(split(options.cases), split(options.vs), options.size, options.batch)
        rates = measure(works, options.rounds, options.block, options.pause)
        print(f"{threads} threads: peak {rates['peak', 'block'].flops / 1e9:.0f} GFLOP/s")
        for name in dict.fromkeys(w.name for w in works[1:]):
            row = [f"{r} {x.flops / 1e9:6.1f} ({x.share:4.0%})" for (n, r), x in rates.items() if n == name]
            print(f"  {name:28}", "  ".join(row))


if __name__ == "__main__":
    main()
