"""The frame of hand-written kernels: their slots by name, and a loop over items for threads or for blocks.

The work itself is in headers (`*.cuh`), as functions of the dtype; a source names the function and its operands. The
first slot is the number of items, `number` the one at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.backend import Arg, Operand, Program
from ...core.lower import copy
from ...core.types import DType
from . import launch

_THREADS = 256


def memory(dtype: DType) -> str:
    """The type of an element in memory: a byte that is neither 0 nor 1 is no bool in C++."""
    return "u8" if dtype.kind == "bool" else dtype.char


def per_item(title: str, headers: str, slots: Sequence[str], body: str) -> str:
    """A source whose threads take items in turns.

    headers: names without their ending, divided by spaces; slots: "name" of an integer, "name: type" of a pointer
    or a float64, "name: Type 7" of a structure of so many slots.
    """
    first, step = "(i64)blockIdx.x * blockDim.x + threadIdx.x", "(i64)gridDim.x * blockDim.x"
    return _source("map axes=1 items=1", title, headers, slots, first, step, body)


def per_block(title: str, headers: str, slots: Sequence[str], body: str, shared: Sequence[str] = ()) -> str:
    """A source whose blocks take items in turns.

    shared: declarations of shared memory. They stand in the kernel and not in templates, where g++ leaves out the
    attribute by which the emulation looks after it.
    """
    form = f"block threads={_THREADS}"
    return _source(form, title, headers, slots, "blockIdx.x", "gridDim.x", body, shared)


def _source(
    form: str,
    title: str,
    headers: str,
    slots: Sequence[str],
    first: str,
    step: str,
    body: str,
    shared: Sequence[str] = (),
) -> str:
    lines, at = ["const i64 total = args.at[0];"], 1
    for slot in slots:
        name, _, kind = slot.partition(": ")
        text = f"args.at[{at}]"
        structure, _, count = kind.rpartition(" ")
        count = count if count.isdigit() else ""
        at += int(count or 1)
        if count:
            lines.append(f"const {structure}& {name} = *(const {structure}*)&{text};")
        elif kind == "f64":
            lines.append(f"const f64 {name} = as_float({text});")
        elif kind:
            lines.append(f"{kind} const {name} = ({kind}){text};")
        else:
            lines.append(f"const i64 {name} = {text};")
    return "\n".join(
        [
            f"{launch.PREFIX}{form}",
            f"// {title}",
            *(f'#include "{name}.cuh"' for name in headers.split()),
            "",
            f'extern "C" __global__ void __launch_bounds__({_THREADS})',
            f"KERNEL(const __grid_constant__ Slots<{at}> args) {{",
            *(f"    __shared__ {line};" for line in shared),
            *(f"    {line}" for line in lines),
            f"    for (i64 number = {first}; number < total; number += {step}) {{",
            *(f"        {line}" for line in body.strip().split("\n")),
            "    }",
            "}",
            "",
        ]
    )


def start(program: Program, source: str, total: int, args: Sequence[Arg]) -> None:
    """Append the launch of such a source for `total` items."""
    program.launch(source, [total, *args])


def dense(program: Program, x: Operand, dtype: DType | None = None) -> Operand:
    """x itself when it is contiguous (and of the dtype asked for), else a contiguous copy. Call `wave()` after it."""
    if x.is_contiguous and (dtype is None or x.dtype is dtype):
        return x
    full = program.scratch_operand(dtype or x.dtype, x.shape)
    copy(program, x, full)
    return full
