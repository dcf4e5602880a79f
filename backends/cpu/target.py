"""The CPU that kernels are compiled for: this one, or one that `DUOGRAD_CPU` names.

What depends on a CPU's features asks here: vectors of the matrix kernels, masked memory, look-up in registers. With
`DUOGRAD_CPU=x86-64-v3` kernels are those of a CPU with AVX2, `x86-64-v2` of one with SSE: to test them on a larger CPU,
or to fill a kernel cache for several machines. Results that are promised to be equal do not depend on it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ...core.errors import FlagError

_AVX2 = frozenset(("sse4.2", "avx", "avx2", "fma", "f16c", "bmi", "bmi2"))
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
#: what LLVM's names for levels of x86 stand for, of the features that somebody asks about
LEVELS = {"x86-64-v2": frozenset(("sse4.2",)), "x86-64-v3": _AVX2, "x86-64-v4": _AVX512}


class Target(NamedTuple):
    """triple, cpu, features: as LLVM wants them; has: names of features that are there."""

    triple: str
    cpu: str
    features: str
    has: frozenset[str]

    @property
    def arm(self) -> bool:
        return self.triple.startswith(("aarch64", "arm64"))

    @property
    def vector_bits(self) -> int:
        """Bits of a vector register."""
        return 512 if "avx512f" in self.has else 256 if "avx2" in self.has else 128

    @property
    def register_class(self) -> str:
        """What inline assembly calls a vector register."""
        return "w" if self.arm else "v" if "avx512vl" in self.has else "x"

    @property
    def halves(self) -> bool:
        """Whether AVX-512 instructions are two halves: a look-up in two registers then costs two multiply-adds.

        No feature says so; a measurement would, and let results' last bits depend on a busy moment.
        """
        return self.cpu == "znver4" and "avx512f" in self.has

    @property
    def short_forms(self) -> bool:
        """Whether shorter formulas of gelu and sigmoid, for `precision="fast"`, save time: measured on Zen 4 and 5."""
        return self.cpu in ("znver4", "znver5") and "avx512f" in self.has

    @property
    def registers(self) -> int:
        """How many vector registers there are."""
        return 32 if self.arm or "avx512f" in self.has else 16


_forced: list[Target] = []


def target() -> Target:
    """The CPU that kernels are compiled for."""
    return _forced[-1] if _forced else _chosen()


def has(feature: str) -> bool:
    """Whether the CPU that kernels are compiled for has a feature, by LLVM's name."""
    return feature in target().has


def has_quarters() -> bool:
    """Whether exponentials in float32 are those of `vecmath_quarters`."""
    return has("avx2") and not has("avx512f")


def has_masked_memory() -> bool:
    """Whether the CPU reads and writes under a mask as fast as without one."""
    return all(map(has, ("avx512f", "avx512bw", "avx512vl")))


def has_masked_loads() -> bool:
    """Whether the CPU reads under a mask as fast as without one; AVX2 does, but writes ten times as slowly."""
    return has_masked_memory() or has("avx2")


@contextmanager
def compiling_for(other: Target) -> Iterator[None]:
    """Inside, kernels are compiled for another CPU, which need not be one that runs here."""
    _forced.append(other)
    try:
        yield
    finally:
        _forced.pop()


@functools.cache
def _chosen() -> Target:
    """This CPU, or the one of `DUOGRAD_CPU`. Raises: FlagError for one that is not known or does not run here."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    here = frozenset(name for name, there in features.items() if there)
    name = os.environ.get("DUOGRAD_CPU", "").strip() or "native"
    if name == "native":
        return Target(triple, llvm.get_host_cpu_name(), _whole_registers(features.flatten(), here), here)
    legal = [n for n, needs in LEVELS.items() if triple.startswith("x86") and needs <= here]
    if name not in legal:
        raise FlagError(
            "DUOGRAD_CPU", f"{name!r} is no CPU that runs here", f"use {' or '.join(['native', *legal])}"
        )
    return level(name)


def level(name: str) -> Target:
    """A level of x86 as a target."""
    import llvmlite.binding as llvm

    return Target(llvm.get_process_triple(), name, _whole_registers("", LEVELS[name]), LEVELS[name])


def _whole_registers(features: str, here: frozenset[str]) -> str:
    """`-prefer-256-bit` lets AVX-512 use whole registers."""
    return ",".join(filter(None, (features, "-prefer-256-bit" * ("avx512f" in here))))
