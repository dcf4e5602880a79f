"""CUDA kernels on a CPU, for tests: g++ compiles their sources with emulation.h, blocks run one by one.

`EmulatedDriver` stands in for a GPU under `device.CudaBackend`, so that whole programs run. It runs every
launch in ascending or in descending order of warps: results that differ mean a missing barrier. What it runs
is checked for its logic only; no CUDA kernel is proven before it ran on a GPU.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import KernelError, MissingExtraError
from ...core.types import DType, Shape
from . import kernel_text
from .driver import Launch

COMPILER = "g++"
# No contraction and no value-changing optimisation, as NVRTC is told; none at all, for compiling takes longer than
# running what tests run.
FLAGS = ("-std=c++17", "-O0", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-strict-aliasing",
         "-fno-gnu-unique", "-Wl,-Bsymbolic")  # fmt: skip


def is_available() -> bool:
    """Whether there is a compiler for the emulation."""
    return shutil.which(COMPILER) is not None


class EmulatedDriver:
    """A machine (`driver.Driver`) that runs CUDA kernels in this process.

    order: "ascending" or "descending"; max_blocks: how many blocks a grid has at most; headers: texts that
    replace headers, to see that a fault in them is found; flags: more compiler flags.
    """

    def __init__(
        self, order: str = "ascending", max_blocks: int = 64, headers: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ):  # fmt: skip
        self.order, self.max_blocks = order, max_blocks
        self._headers = {**kernel_text.headers(), **(headers or {})}
        self._flags = flags
        self._functions: dict[str, Any] = {}

    def functions(self, sources: Sequence[str]) -> list[Any]:
        """Entry points by source; those that are missing are compiled in one go."""
        missing = [s for s in dict.fromkeys(sources) if s not in self._functions]
        if missing:
            self._compile(missing)
        return [self._functions[s] for s in sources]

    def launch(self, launches: Sequence[Launch]) -> None:
        for function, (blocks, x, y), parameters in launches:
            slots = ctypes.c_void_p.from_address(parameters).value
            if function.run(slots, blocks, x, y, self.order == "descending") != 0:
                reason = function.message().decode()
                raise KernelError("emulation", reason, "every thread must reach each barrier")

    def allocate(self, nbytes: int) -> tuple[np.ndarray, int]:
        memory = np.full(nbytes, 0xA5, np.uint8)
        return memory, memory.ctypes.data

    def array(self, memory: np.ndarray, dtype: DType, shape: Shape, strides: Shape, offset: int) -> Any:
        return np.ndarray(shape, dtype.np, memory, offset, tuple(st * dtype.itemsize for st in strides))

    def read(self, memory: np.ndarray, offset: int, target: np.ndarray) -> None:
        target.reshape(-1).view(np.uint8)[...] = memory[offset : offset + target.nbytes]

    def write(self, memory: np.ndarray, offset: int, source: np.ndarray) -> None:
        memory[offset : offset + source.nbytes] = source.reshape(-1).view(np.uint8)

    def copy(self, target: np.ndarray, source: np.ndarray, offset: int, nbytes: int) -> None:
        target[:nbytes] = source[offset : offset + nbytes]

    def memory_stats(self) -> dict[str, int]:
        return {"current_bytes": 0, "cached_bytes": 0}

    def _compile(self, sources: list[str]) -> None:
        if not is_available():
            raise MissingExtraError("emulation", f"{COMPILER} is not installed", "install a C++ compiler")
        names = {kernel_text.function_name(s): s for s in sources}
        entries = "\n".join(f"EMULATED({name})" for name in names)
        text = f'#include "emulation.h"\n{kernel_text.unit(list(names.values()))}\n{entries}\n'
        with tempfile.TemporaryDirectory(prefix="duograd-emulation-") as name:
            folder = Path(name)
            shutil.copy(Path(__file__).parent / "emulation.h", folder)
            for header, content in self._headers.items():
                (folder / header).write_text(content, encoding="utf-8")
            (folder / "kernels.cpp").write_text(text, encoding="utf-8")
            command = [COMPILER, *FLAGS, *self._flags, "-o", "kernels.so", "kernels.cpp"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise KernelError("emulation", f"g++ refuses:\n{done.stderr[:4000]}", "correct the source")
            library = ctypes.CDLL(str(folder / "kernels.so"))
        for source in sources:
            self._functions[source] = _Function(library, kernel_text.function_name(source))


class _Function:
    """A kernel's entry point in an emulation library."""

    def __init__(self, library: ctypes.CDLL, name: str):
        self.run = library[f"run_{name}"]
        self.run.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 3, ctypes.c_int]
        self.message = library.emulation_message
        self.message.restype = ctypes.c_char_p
