"""The CPU backend: emits, compiles and runs programs, owns the memory. One object per process."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ...core.backend import Arg, Kernel, Nested, Operand, Pooling, Program, Scalar, Slot, Table
from ...core.loops import LoopKernel
from ...core.types import Shape, TensorType
from . import compile_workers, control, emit, native, object_cache, pool, streaming
from .epilogue import takes_epilogue
from .gemm import columns_alone
from .memory import Allocator, CpuStorage


class CpuBackend:
    """The CPU as a device (`core.backend.Backend`). Numba is imported when a kernel has to be compiled."""

    name = "cpu"
    # Measured: two awake threads win from about 1 us of work on, 100 KB; a sleeping one takes longer to call.
    serial_work = 150_000.0
    lists = True
    prepares = True

    def __init__(self) -> None:
        self._emitted: dict[tuple[object, ...], tuple[str, int]] = {}
        self._primitives: dict[str, Kernel] | None = None
        self.allocator = Allocator()
        self.empty: Callable[[int], CpuStorage] = self.allocator.empty
        self.maker: Callable[..., Callable[[], CpuStorage]] = self.allocator.maker
        self.exact: Callable[[int], CpuStorage] = self.allocator.exact
        if object_cache.is_empty():  # the first graph will bring many kernels
            compile_workers.expect()

    def num_threads(self) -> int:
        """How many threads a program may use."""
        return pool.get_num_threads()

    def set_num_threads(self, n: int) -> None:
        """Let programs use so many from now on."""
        pool.set_num_threads(n)

    def emit_loop(self, kernel: LoopKernel) -> tuple[str, int]:
        """Source text of a loop kernel and its scratch rows per chunk; equal structures share it."""
        found = self._emitted.get(kernel.key)
        if found is None:
            found = self._emitted[kernel.key] = emit.emit_loop(kernel)
        return found

    def loop_slots(self, kernel: LoopKernel, args: Sequence[Arg]) -> Sequence[int]:
        """Whether the launch's outputs are written round the caches (see `streaming`)."""
        return (int(streaming.wanted(kernel, args)),)

    def primitive(self, op: str) -> Kernel | None:
        """The hand-written kernel of a primitive, if there is one."""
        if self._primitives is None:
            self._primitives = _discover()
        return self._primitives.get(op)

    def columns_alone(self, x: TensorType, y: TensorType) -> bool:
        """Whether a column of x @ y has the same bits whatever columns stand beside it."""
        return columns_alone(x, y)

    def takes_epilogue(self, op: str, out_shape: Shape, operand: Operand | Scalar) -> bool:
        """Whether a pointwise expression that reads `operand` fuses into the kernel of `op`."""
        return takes_epilogue(op, out_shape, operand)

    def takes_pooling(
        self, op: str, inputs: Sequence[Operand], out: Operand, named: dict[str, Any], pooling: Pooling, pooled: Shape
    ) -> str:  # fmt: skip
        """Why a pooling of the result of `op` does not fuse into its kernel; empty where it does."""
        from .conv_pool_rules import takes_pooling

        return takes_pooling(op, inputs, out, named, pooling, pooled)

    def loop(
        self,
        program: Program,
        body: Nested,
        test: Nested | None,
        pred: Slot | None,
        length: int,
        reverse: bool,
    ) -> None:
        """Append a loop (see `control.loop`)."""
        control.loop(program, body, test, pred, length, reverse)

    def branch(self, program: Program, pred: Slot, branches: Sequence[Nested]) -> None:
        """Append a choice between two programs (see `control.branch`)."""
        control.branch(program, pred, branches)

    def load(self, program: Program) -> CpuExecutable:
        """Compile the kernels that are missing and make the program runnable."""
        return CpuExecutable(program)

    def compile(self, programs: Sequence[Program]) -> None:
        """Compile the kernels of these programs that are missing, side by side."""
        native.kernel_addresses(list(_sources(programs)))

    def background(self) -> AbstractContextManager[None]:
        """Inside, this thread compiles in worker processes."""
        return compile_workers.in_background()

    def describe(self) -> dict[str, Any]:
        """Facts for `duograd doctor`: threads, and the kernel cache's folder, number of files and bytes."""
        count, nbytes = object_cache.usage()
        facts = {
            "cache": str(native.cache_directory()), "cache_files": count, "cache_bytes": nbytes,
            "cache_limit": object_cache.limit(),
        }  # fmt: skip
        return {"threads": self.num_threads()} | facts

    def clear_cache(self) -> int:
        """Delete all object code from the disk; returns how many kernels that were."""
        return native.clear_cache()

    def kernel_stats(self) -> dict[str, float]:
        """Kernels compiled, loaded from the cache and found in memory by this process; seconds of compiling."""
        return native.stats()

    def memory_stats(self) -> dict[str, int]:
        """`current_bytes` in use, `peak_bytes` so far and `cached_bytes` in the free lists."""
        return self.allocator.stats()


class CpuExecutable:
    """A loaded program. `run(dynamic)` takes its dynamic values in order, from any thread."""

    __slots__ = ("run",)

    def __init__(self, program: Program):
        addresses = _addresses(program)
        t = _Table(program, addresses)
        self.run: Callable[[Sequence[int]], None] = pool.bind(
            t.rows.ctypes.data, len(t.rows), t.patches.ctypes.data, len(t.patches), t.args.ctypes.data,
            len(t.args) - 1, program.n_dynamic, t,
        )  # fmt: skip


def _addresses(program: Program) -> dict[str, int]:
    """The address of every kernel of a program and of those nested in it; what is missing is compiled at once."""
    sources = _sources([program])
    found = dict(zip(sources, native.kernel_addresses(list(sources))))
    return found | {name: pool.address(entry) for name, entry in control.RUNNERS.items()}


def _sources(programs: Sequence[Program]) -> dict[str, None]:
    """The kernels of programs and of those nested in them, each once."""
    sources: dict[str, None] = {}
    stack = list(programs)
    while stack:
        program = stack.pop()
        sources.update(dict.fromkeys(program.spare))
        for launch in program.launches:
            if launch.source not in control.RUNNERS:
                sources[launch.source] = None
            stack += [n.program for n in launch.nested]
    return sources


class _Table:
    """Rows, patches and argument blocks of a program, and of the programs nested in it, which it keeps alive.

    varying: dynamic values that change from turn to turn; their patches come first.
    """

    def __init__(self, program: Program, addresses: dict[str, int], varying: frozenset[int] = frozenset()):
        launches = program.launches
        self.nested: list[_Table] = []
        patches: list[tuple[int, int, int]] = []
        args: list[int] = []
        rows: list[tuple[int, int, int, int]] = []
        for launch in launches:
            inside = [_Table(n.program, addresses, n.varying) for n in launch.nested]
            self.nested += inside
            rows.append(
                (
                    addresses[launch.source],
                    8 * len(args),
                    launch.chunks,
                    launch.wave + 2 * bool(launch.nested),
                )
            )
            row: list[Any] = list(launch.args)
            for k, arg in enumerate(row):
                kind = type(arg)
                if kind is Slot:
                    patches.append((len(args) + k, *arg))
                    row[k] = 0
                elif kind is Table:
                    row[k] = inside[arg.number].part(arg.part)
            args += row
        args.append(0)
        self.args = np.array(args, np.int64)
        self.rows = np.array(rows, np.int64).reshape(-1, 4)
        self.rows[:, 1] += self.args.ctypes.data
        if varying:
            patches.sort(key=lambda p: p[1] not in varying)
        self.changing = sum(p[1] in varying for p in patches) if varying else 0
        self.patches = np.array(patches, np.int64).reshape(-1, 3)

    def part(self, name: str) -> int:
        if name == "changing":
            return self.changing
        address: int = getattr(self, name).ctypes.data
        return address


def _discover() -> dict[str, Kernel]:
    """The KERNELS tables of this folder's modules; the others are not imported, for they may need Numba."""
    package = __package__ or ""
    folder = importlib.import_module(package).__path__
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(folder):
        name = f"{package}.{module.name}"
        spec = importlib.util.find_spec(name)
        text = spec.loader.get_source(name) if spec and spec.loader else ""  # type: ignore[attr-defined]
        if re.search(r"^KERNELS\b", text or "", re.MULTILINE):
            found |= importlib.import_module(name).KERNELS
    return found
