"""The device families. Each is loaded when its first tensor is made."""

from __future__ import annotations

import importlib

from ..core.backend import Backend, Kernel, register_backend


def _cpu(index: int) -> Backend:
    return importlib.import_module(".cpu.device", __name__).CpuBackend()  # type: ignore[no-any-return]


def _cuda(index: int) -> Backend:
    return importlib.import_module(".cuda.device", __name__).open_device(index)  # type: ignore[no-any-return]


def _cuda_kernels() -> dict[str, Kernel]:
    return importlib.import_module(".cuda.device", __name__).kernels()  # type: ignore[no-any-return]


register_backend("cpu", _cpu)
register_backend("cuda", _cuda, _cuda_kernels)
