"""A model of several GB: memory of its export and time of its import, each in a process of its own.

`python -m duograd.bench.onnx_large [--gb 3] [--folder DIR]` needs the model's size, and half as much again, in memory,
and its size on disk; the files are removed. Targets: peak memory of the export under 1.3 times the weights, import
under 5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

#: one layer's weight has WIDTH rows and columns
WIDTH = 8192


def model(gb: float) -> Any:
    """Layers of WIDTH x WIDTH weights, `gb` thousand million bytes in all, filled with a cheap pattern."""
    import duograd as dg
    import numpy as np

    class Layer(dg.nn.Module):  # type: ignore[misc]
        def __init__(self, k: int):
            self.weight = dg.nn.Parameter(dg.empty((WIDTH, WIDTH)))
            rows = np.asarray(self.weight.detach())
            rows[:] = np.linspace(-1, 1, WIDTH, dtype=np.float32) / WIDTH
            rows[:, 0] = np.arange(WIDTH, dtype=np.float32) * (k + 1) / WIDTH**2

        def forward(self, x: Any) -> Any:
            return dg.tanh(x @ self.weight)

    layers = round(gb * 1e9 / (4 * WIDTH * WIDTH))
    return dg.nn.Sequential(*[Layer(k) for k in range(layers)]).eval()


def peak() -> int:
    """The most memory this process has held, in bytes."""
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def export(path: str, gb: float) -> dict[str, Any]:
    """Make the model, export it with verification, and tell the peak."""
    import duograd as dg

    made = model(gb)
    size = sum(4 * p.size for p in made.parameters())
    x = dg.rand(1, WIDTH)
    before, began = peak(), time.time()
    dg.onnx.export(made, x, path, dynamic={"x": {0: "batch"}})
    return {"bytes": size, "built_peak": before, "peak": peak(), "seconds": time.time() - began,
            "first": float(made(x)[0, 0].item())}  # fmt: skip


def load(path: str) -> dict[str, Any]:
    """Load the model and tell the time and what memory that took."""
    import duograd as dg

    dg.ones((2,)).numpy()
    before, began = peak(), time.time()
    loaded = dg.onnx.load(path)
    took = time.time() - began
    after = peak()
    y = loaded(dg.ones((1, WIDTH)))
    return {"seconds": took, "grown": after - before, "parameters": sum(1 for _ in loaded.parameters()),
            "runs": bool(abs(y.detach().numpy()).sum() > 0), "peak": peak()}  # fmt: skip


def measure(gb: float, folder: str | None = None) -> dict[str, Any]:
    """Both, in child processes, in a folder that is removed."""
    with tempfile.TemporaryDirectory(dir=folder) as where:
        path = os.path.join(where, "large.onnx")
        found = {}
        for step in ("export", "load"):
            command = [
                sys.executable,
                "-m",
                "duograd.bench.onnx_large",
                "--step",
                step,
                "--path",
                path,
                "--gb",
                str(gb),
            ]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[step] = json.loads(out.stdout.splitlines()[-1])
        found["file_bytes"] = sum(os.path.getsize(os.path.join(where, n)) for n in os.listdir(where))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=3.0)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(
            json.dumps(export(options.path, options.gb) if options.step == "export" else load(options.path))
        )
        return
    found = measure(options.gb, options.folder)
    out, back = found["export"], found["load"]
    ratio = out["peak"] / out["bytes"]
    print(
        f"export of {out['bytes'] / 1e9:.2f} GB: peak {out['peak'] / 1e9:.2f} GB, {ratio:.3f} times its size, "
        f"{out['seconds']:.1f} s with verification; import: {back['seconds']:.2f} s, {back['grown'] / 1e6:.0f} MB more"
    )
    print(json.dumps(found))
    sys.exit(0 if ratio < 1.3 and back["seconds"] < 5 and back["runs"] else 1)


if __name__ == "__main__":
    main()
