"""Kernel sources as translation units: their headers, a name for each kernel, a hash of all that counts."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from . import launch

_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "([\w.]+)"', re.MULTILINE)


@functools.cache
def headers() -> dict[str, str]:
    """Name and text of the headers that a kernel may include."""
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(_FOLDER.glob("*.cuh"))}


@functools.cache
def _with_includes(text: str) -> str:
    """The text and those of its headers, as one string."""
    seen: dict[str, str] = {}
    waiting = _INCLUDE.findall(text)
    while waiting:
        name = waiting.pop()
        if name in headers() and name not in seen:
            seen[name] = headers()[name]
            waiting += _INCLUDE.findall(seen[name])
    return "\0".join([text, *(seen[name] for name in sorted(seen))])


def meaning(source: str) -> str:
    """The source without its notes: user lines in comments are no reason to compile again."""
    lines = source.split("\n")
    return "\n".join(line for line in lines if not line.startswith("//") or line.startswith(launch.PREFIX))


def title(source: str) -> str:
    """How the kernel is launched, and its notes."""
    return "\n".join(line for line in source.split("\n") if line.startswith("//"))


def digest(source: str, *settings: str) -> str:
    """Hash of a source, its headers and the settings it is compiled with."""
    return hashlib.sha256("\0".join((*settings, _with_includes(meaning(source)))).encode()).hexdigest()


def function_name(source: str) -> str:
    """What the kernel of this source is called in a translation unit of several."""
    return f"duograd_{digest(source)[:20]}"


def unit(sources: Sequence[str]) -> str:
    """One translation unit: in each source `KERNEL` becomes its function name."""
    parts = []
    for source in sources:
        parts += [f"#define KERNEL {function_name(source)}", source, "#undef KERNEL", ""]
    return "\n".join(parts)
