"""What this installation has: for bug reports and for users who wonder."""

from __future__ import annotations

import difflib
import importlib.util
import os
import platform
import re
from importlib import metadata
from pathlib import Path

from .terminal import console, size, table

_OPTIONAL = {
    "cupy": "cuda", "torch": "peers", "jax": "peers", "onnxruntime": "peers", "tensorflow": "tensorflow",
    "sklearn": "demo", "matplotlib": "demo",
}  # fmt: skip
_BASE = ("numpy", "numba", "llvmlite", "onnx", "safetensors", "rich")


def _version(package: str) -> str:
    names = {"sklearn": "scikit-learn", "cupy": "cupy-cuda13x"}
    try:
        return metadata.version(names.get(package, package))
    except metadata.PackageNotFoundError:
        return "found"


def gpu_facts(device: str = "cuda") -> str:
    """A line about the GPU, after it has run a kernel; or why there is none."""
    from .. import tensor
    from ..core.backend import get_backend, normalize_device
    from ..core.errors import DuogradError

    try:
        facts = get_backend(normalize_device(device)).describe()
    except DuogradError as e:
        return f"none ({e.message})"
    told = ", ".join(
        size(v) + f" {k.removesuffix('_bytes')}" if k.endswith("_bytes") else f"{k} {v}"
        for k, v in facts.items() if k != "name"
    )  # fmt: skip
    try:
        right = (tensor([1.0, 2.0]).to(device) * 2 + 1).tolist() == [3, 5]
    except DuogradError as e:
        return f"{told}; its first kernel fails: {e.message}"
    return f"{told}; " + ("a kernel has run" if right else "ITS FIRST KERNEL GIVES WRONG NUMBERS")


def settings() -> list[str]:
    """The variables of ours that are set; of one that nothing reads, what may be meant."""
    given = sorted(name for name in os.environ if name.startswith("DUOGRAD_"))
    if not given:
        return []
    known: set[str] = set()
    # An environment may stand beside the packages.
    packages = [x.parent for x in Path(__file__).parents[1].glob("*/__init__.py")]
    for file in (file for folder in packages for file in folder.rglob("*.py")):
        if "tests" not in file.parts:
            known.update(re.findall(r"\"(DUOGRAD_[A-Z_]+)\"", file.read_text(encoding="utf-8")))

    def told(name: str) -> str:
        if name in known:
            return f"{name}={os.environ[name]}"
        near = difflib.get_close_matches(name, known, 1)
        return f"{name}: nothing reads it" + (f"; did you mean {near[0]}" if near else "")

    return [told(name) for name in given]


def doctor() -> None:
    """Print versions, CPU, threads, kernel cache, GPU and optional packages."""
    from ..core.backend import get_backend

    facts = get_backend("cpu").describe()
    flags = ""
    try:
        with open("/proc/cpuinfo") as f:
            text = f.read()
        flags = ", ".join(n for n in ("avx2", "fma", "avx512f", "avx512_bf16") if f" {n} " in text)
        name = next(
            line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    rows = [
        ["duograd", metadata.version("duograd")],
        ["python", f"{platform.python_version()} on {platform.platform(terse=True)}"],
        ["cpu", f"{name} ({flags})" if flags else name],
        ["threads", f"{facts['threads']} of {os.cpu_count()} (own pool; DUOGRAD_NUM_THREADS changes it)"],
        ["kernel cache", facts["cache"]],
        [
            "",
            f"{facts['cache_files']} kernels, {size(facts['cache_bytes'])} of {size(facts['cache_limit'])} "
            "(DUOGRAD_CACHE_SIZE changes it, doctor --clear-cache empties it)",
        ],
        ["cuda", gpu_facts()],
        *(["environment", text] for text in settings()),
        *([p, _version(p)] for p in _BASE),
    ]
    for package, extra in _OPTIONAL.items():
        present = importlib.util.find_spec(package) is not None
        rows.append(
            [package, _version(package) if present else f"not installed: pip install duograd\\[{extra}]"]
        )
    made = table("duograd doctor", ["what", "found"], rows)
    made.columns[1].justify, made.columns[1].no_wrap = "left", False
    console().print(made)


def clear_cache() -> str:
    """Delete all compiled kernels from the disk. Returns a sentence with the count."""
    from ..core.backend import get_backend

    backend = get_backend("cpu")
    where = backend.describe()["cache"]
    return f"{backend.clear_cache()} kernels deleted from {where}"  # type: ignore[attr-defined]
