"""`duograd warmup`: compile before the first request comes, in an image's build or at a server's start."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..core.backend import get_backend
from ..core.dispatch import set_grad
from ..core.errors import ArgumentError, DuogradError
from ..graph.function import Function, function
from ..graph.spec import parse_call
from .terminal import console, seconds, table


def warmup(calls: Sequence[str], file: str = "", no_grad: bool = False) -> int:
    """Compile what the calls need, and print what it took. Returns how many of them failed.

    calls: as "package.module:function(float32[8, 10])" or "model.onnx(float32[8, 10])"; file: one such call a line,
    `no_grad` before those made under `dg.no_grad()`, `#` before remarks. Without any, the standard cases.
    """
    listed = [(text, no_grad) for text in calls] + (list(_lines(file)) if file else [])
    if not listed and not file:
        console().print(_standard_cases())
        return 0
    sys.path.insert(0, os.getcwd())
    rows, failed = [], 0
    try:
        for text, quiet in listed:
            try:
                rows.append(_warm(text, quiet))
            except Exception as e:  # the others are warmed up all the same
                failed += 1
                rows.append([text, "failed", "", ""])
                what = f"[{e.op}] {e.message}" if isinstance(e, DuogradError) else f"{type(e).__name__}: {e}"
                fix = f"\n  fix: {e.fix}" if isinstance(e, DuogradError) and e.fix else ""
                print(f"{text}\n  {what}{fix}", file=sys.stderr)
    finally:
        sys.path.remove(os.getcwd())
    console().print(table("duograd warmup", ["call", "time", "compiled", "in the cache"], rows))
    return failed


def _lines(file: str) -> Iterable[tuple[str, bool]]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise ArgumentError(
            "warmup", f"cannot read {file}: {e.strerror}", "name a file with one call a line"
        ) from None
    for line in lines:
        line = line.strip()
        if line and not line.startswith("#"):
            yield line.removeprefix("no_grad ").strip(), line.startswith("no_grad ")


def _warm(text: str, no_grad: bool) -> list[str]:
    target, args, kwargs = parse_call(text)
    fn = _find(target)
    before, start = get_backend("cpu").kernel_stats(), time.perf_counter()
    with set_grad(not no_grad):
        fn.warmup(*args, **kwargs)
    took, after = time.perf_counter() - start, get_backend("cpu").kernel_stats()
    return [text, seconds(took), *(f"{after[k] - before[k]:.0f}" for k in ("compiled", "loaded"))]


def _find(target: str) -> Function:
    """The function that a target names: an attribute of a module, or a model file."""
    if target.endswith(".onnx"):
        from .onnx.load import load

        found: Any = load(target)
    else:
        module, colon, path = target.partition(":")
        if not colon or not path:
            raise ArgumentError("warmup", f"{target!r} names no function", 'write "package.module:function"')
        try:
            found = importlib.import_module(module)
        except ImportError as e:
            raise ArgumentError(
                "warmup", f"cannot import {module!r}: {e}", "run it where that import works"
            ) from None
        for name in path.split("."):
            if not hasattr(found, name):
                raise ArgumentError(
                    "warmup", f"{module} has no {path}", "name a function, a module or a method"
                )
            found = getattr(found, name)
    owner = getattr(found, "__self__", None)
    if isinstance(getattr(found, "__func__", None), Function):  # a method of an object
        inner = found.__func__
        return _Bound(inner, owner)  # type: ignore[return-value]
    if not callable(found):
        raise ArgumentError(
            "warmup", f"{target} is a {type(found).__name__}", "name something that can be called"
        )
    return found if isinstance(found, Function) else function(found)  # type: ignore[no-any-return]


class _Bound:
    """A function of a class, with its object."""

    def __init__(self, fn: Function, owner: Any):
        self.fn, self.owner = fn, owner

    def warmup(self, *args: Any, **kwargs: Any) -> bool:
        return self.fn.warmup(self.owner, *args, **kwargs)


def _standard_cases() -> str:
    """Compile the kernels of the standard cases into the cache. Returns a sentence with the count."""
    from ..bench.cases import CASES
    from ..bench.run_duograd import build
    from .terminal import progress

    work = [
        (case, phase, mode) for case in CASES.values() for phase in case.phases for mode in ("graph", "eager")
    ]
    with progress("warming up", len(work)) as tell:
        for case, phase, mode in work:
            run, _ = build(case, phase, mode)
            run()
            tell(f"{case.name} {phase} {mode}")
    stats = get_backend("cpu").kernel_stats()
    return f"{stats['compiled']:.0f} kernels compiled, {stats['loaded']:.0f} found in the cache"
