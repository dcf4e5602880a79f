"""LAPACK and BLAS of the library that NumPy stands on: routines by address, their arguments, their calls.

NumPy links a LAPACK whose symbols the dynamic linker finds through its linear algebra module: OpenBLAS, MKL,
Accelerate and the reference alike. A routine's address is an argument of the launch, so kernel source knows
nothing of the library and stays cacheable. One kernel makes all calls: Fortran takes every argument by
address, and the C calling conventions let a caller pass more than a routine takes.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.backend import Arg, Operand, Program, Slot, float_bits
from ...core.errors import KernelError
from ...core.types import DType

#: spellings of a routine's symbol, most special first, and whether its integers have 64 bits (None: as NumPy says)
_SPELLINGS = (
    ("scipy_{}_64_", True), ("{}_64_", True), ("{}$NEWLAPACK$ILP64", True), ("scipy_{}_", False),
    ("{}$NEWLAPACK", False), ("{}_", None), ("{}", None),
)  # fmt: skip
#: arguments of a call, hidden lengths of Fortran's characters included
_ARITY = 20
#: slots before the arguments: routine, items, guard of the library's threads
_HEAD = 3
#: letter of a dtype in the names of routines
LETTERS = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}


class Routine(NamedTuple):
    """A Fortran routine: its name, its address, and whether its integers have 64 bits."""

    name: str
    address: int
    wide: bool


class Array(NamedTuple):
    """An array argument: the first item's address, bytes from item to item, bytes from chunk to chunk."""

    slot: Slot
    step: int = 0
    chunk_step: int = 0


#: a character, an integer, a real number of the routine's precision, or an array
Argument = str | int | float | Array


@functools.cache
def _library() -> tuple[Any, bool]:
    import numpy.linalg._umath_linalg as module

    if sys.byteorder != "little":  # a narrow integer is read from the first bytes of a wide one
        raise KernelError("linalg", "needs a little-endian machine", "use NumPy on this one")
    return ctypes.CDLL(module.__file__), bool(getattr(module, "_ilp64", False))


@functools.cache
def find(name: str) -> Routine:
    """The routine `name` ("dgetrf"). Raises KernelError when NumPy's library does not show it."""
    library, wide = _library()
    for spelling, bits in _SPELLINGS:
        try:
            symbol = getattr(library, spelling.format(name))
        except AttributeError:
            continue
        address = ctypes.cast(symbol, ctypes.c_void_p).value
        assert address is not None
        return Routine(name, address, wide if bits is None else bits)
    raise KernelError(
        "linalg", f"the library under NumPy {np.__version__} has no LAPACK routine {name}",
        "install NumPy from PyPI or conda: their builds bring a whole LAPACK",
    )  # fmt: skip


def routine(stem: str, dtype: DType) -> Routine:
    """The routine for a dtype: "getrf" becomes sgetrf, dgetrf, cgetrf or zgetrf."""
    return find(LETTERS[dtype.name] + stem)


def query(found: Routine, dtype: DType, arguments: Sequence[Any]) -> list[int]:
    """Sizes of work areas: calls the routine with the work length -1. arguments: str, int, None for an array
    that is not touched, "work"s at the places of areas; returns the first element of each, rounded up.
    """
    cells: list[Any] = []
    areas: list[tuple[Any, bool]] = []
    integer = np.int64 if found.wide else np.int32
    lengths = 0
    for a in arguments:
        if a in ("work", "iwork", "rwork"):
            kind = integer if a == "iwork" else np.dtype(dtype.np).char.lower() if a == "rwork" else dtype.np
            cells.append(np.zeros(2, kind))
            areas.append((cells[-1], a == "iwork"))
        elif isinstance(a, str):
            cells.append(np.array([ord(a), 0], np.int64))
            lengths += 1
        elif a is None:
            cells.append(np.zeros(4, np.complex128))
        else:
            cells.append(np.array([a], integer))
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(cells) + lengths))(found.address)
    call(*[c.ctypes.data for c in cells], *[1] * lengths)
    # Large float32 sizes are rounded, perhaps down.
    return [int(c[0]) if whole else int(float(c[0].real) * 1.0000002) + 1 for c, whole in areas]


@functools.cache
def _thread_guard() -> int:
    """The address of the cells by which calls ask OpenBLAS for one thread; 0 where the library is another one.

    Cells: a lock, how many calls run now, the library's number of threads before the first of them, and the
    functions that give and set that number.
    """
    library, _ = _library()
    for spelling in (
        "scipy_openblas_{}_num_threads64_",
        "openblas_{}_num_threads64_",
        "openblas_{}_num_threads",
    ):
        try:
            found = [getattr(library, spelling.format(verb)) for verb in ("get", "set")]
        except AttributeError:
            continue
        cells = np.array([0, 0, 0, *(ctypes.cast(f, ctypes.c_void_p).value for f in found)], np.int64)
        _kept.append(cells)
        return int(cells.ctypes.data)
    return 0


#: memory that kernels refer to for as long as the process lives
_kept: list[np.ndarray] = []


def _kernel_source() -> str:
    at = [_HEAD + 4 * k for k in range(_ARITY)]
    arguments = ",\n            ".join(
        f"args[{k}] + item * args[{k + 1}] + chunk * args[{k + 2}] + here * args[{k + 3}]" for k in at
    )
    return f"""# calls of a Fortran routine
from duograd.backends.cpu.foreign import address_of, call_routine, hold_threads, release_threads
def kernel(args, chunk, nchunks):
    here = address_of(args)
    items, guard = args[1], args[2]
    hold_threads(guard)
    for item in range(share(items, chunk, nchunks), share(items, chunk + 1, nchunks)):
        call_routine(args[0], (
            {arguments},
        ))
    release_threads(guard)
"""


_SOURCE = _kernel_source()


def call(
    program: Program,
    found: Routine,
    dtype: DType,
    items: int,
    arguments: Sequence[Argument],
    chunks: int = 1,
    threaded: bool = False,
) -> None:
    """Append one call of a routine for each of `items`. Reals among the arguments have the precision of dtype.

    threaded: the library may use its own threads; else it is told to use one while the calls run, where it is
    OpenBLAS: its threads spin against ours, and 64 inverses of 64 x 64 take seven times as long.
    """
    table: list[Arg] = [found.address, items, 0 if threaded else _thread_guard()]
    values: list[int] = []
    # Characters, integers and reals stand behind the table, in the block of arguments itself.
    first = _HEAD + 4 * _ARITY
    lengths = 0
    for a in arguments:
        if isinstance(a, Array):
            table += [a.slot, a.step, a.chunk_step, 0]
            continue
        table += [8 * (first + len(values)), 0, 0, 1]
        if isinstance(a, str):
            values.append(ord(a))
            lengths += 1
        elif isinstance(a, float):
            narrow = dtype.name in ("float32", "complex64")
            values.append(int(np.float32(a).view(np.uint32)) if narrow else float_bits(a))
            values.append(0)  # the imaginary part of a complex one
        else:
            values.append(a)
    table += [1, 0, 0, 0] * lengths
    assert len(table) <= first, "the routine has more arguments than a call passes"
    table += [0] * (first - len(table))
    program.launch(_SOURCE, [*table, *values], chunks)


def matrices(x: Operand, axes: int = 2) -> Array:
    """A contiguous operand as an array argument with its last `axes` as one item."""
    size = x.dtype.itemsize
    for n in x.shape[len(x.shape) - axes :]:
        size *= n
    return Array(x.slot, size)


def area(program: Program, nbytes: int, chunks: int) -> Array:
    """A work area of `nbytes` for every chunk."""
    nbytes = -(-max(nbytes, 8) // 64) * 64
    return Array(program.scratch(nbytes * chunks), 0, nbytes)
