"""Register blocks that stand apart: each is compiled once, as a function that all kernels which need it call.

A block is the dearest part of the kernels that multiply matrices (its loop alone takes several tenths of a second to
compile), and the same in all of them. In a kernel's source `apart("multiply_packed_f32", 4, 4, 64, ...)` is the name of
such a function: it takes the intrinsic's integers, its literals are in the name. So a source says by itself what
it needs, and its object code is linked to those functions when it is loaded (`native.py`). A call costs some 30
cycles, where a block takes hundreds.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

#: the intrinsics of microkernel that multiply, and how many integers each takes before its literals
ARGUMENTS = {
    "multiply": 11, "multiply_ahead": 11, "multiply_pixels": 12, "multiply_near": 9, "multiply_later": 13,
    "multiply_packed": 11, "multiply_rows": 13, "multiply_couple": 12,
}  # fmt: skip
_NAME = re.compile(r"\bapart_((multiply\w*?)_f\d+)((?:_\d+)+)\b")


class Part(NamedTuple):
    """A function that kernels call: its name in them, what it is compiled from."""

    name: str
    source: str
    entries: tuple[tuple[str, str, str], ...]


def apart(function: str, *literals: int | str) -> str:
    """The name in a kernel's source of the intrinsic `function` with these literals, as a function of its own."""
    return "_".join(["apart", function, *map(str, literals)])


def parts(source: str) -> list[Part]:
    """The functions that a kernel calls."""
    return [_part(*found) for found in dict.fromkeys(_NAME.findall(source))]


@functools.cache
def _part(function: str, kind: str, literals: str) -> Part:
    numbers = literals[1:].split("_")
    count = ARGUMENTS[kind]
    names = [f"a{k}" for k in range(count)]
    source = f"""# {function} in blocks of {" x ".join(numbers[-3:])}
from duograd.backends.cpu.microkernel import {function}
def block({", ".join(names)}):
    {function}({", ".join([*names, *numbers])})
"""
    entries = (("block", "i" * count, "v"),)
    return Part(apart(function, *numbers), source, entries)
