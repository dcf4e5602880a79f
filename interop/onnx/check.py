"""`dg.onnx.check`: everything that keeps a file from being imported, or a function from being exported."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import onnx

from ...core.errors import DuogradError
from .read import read


class Problem(NamedTuple):
    """One obstacle. where: node name, or the user's file and line; op: ONNX op type or duograd op; reason: why.

    opset: the lowest at which it is none; None when there is no such opset.
    """

    where: str
    op: str
    reason: str
    opset: int | None = None

    def __str__(self) -> str:
        works = "" if self.opset is None else f"; opset {self.opset} is the lowest that has it"
        return f"{self.where or '(no line)'}: {self.op}: {self.reason}{works}"


class Report:
    """What `check` found. ok: nothing blocks; problems: list of `Problem`; nodes: how many were looked at."""

    def __init__(self, what: str, problems: list[Problem], nodes: int):
        self.what, self.problems, self.nodes = what, problems, nodes

    @property
    def ok(self) -> bool:
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return f"{self.what}: ok, {self.nodes} nodes"
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        among = f" in {self.nodes} nodes" if self.nodes else ""
        return f"{self.what}: {count}{among}\n" + "\n".join(f"  {p}" for p in self.problems)

    __repr__ = __str__


def check(
    model_or_fn: Any, args: Any = None, dynamic: dict[str, Any] | None = None, opset: int | None = None,
    training: bool | None = None,
) -> Report:  # fmt: skip
    """Say whether a model can be imported, or a function exported, and list every obstacle.

    model_or_fn: a path, bytes or ModelProto (import side); a module or function with `args` and the rest as for
    `export` (export side). Returns: a Report with `ok`, `problems` and a readable str; errors become problems.
    Example: `print(dg.onnx.check("m.onnx"))`, `dg.onnx.check(model, x).ok`.
    """
    if isinstance(model_or_fn, (str, bytes, bytearray, os.PathLike, onnx.ModelProto)):
        return _check_model(model_or_fn)
    return _check_function(model_or_fn, args, dynamic, opset, training)


def _failure(what: str, e: Exception, nodes: int = 0) -> Report:
    if isinstance(e, DuogradError):
        return Report(what, [Problem(e.line, e.op, f"{e.message}; {e.fix}" if e.fix else e.message)], nodes)
    return Report(what, [Problem("", type(e).__name__, str(e))], nodes)


def _check_model(source: Any) -> Report:
    what = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the model"
    try:
        found = read(source)
    except DuogradError as e:
        return Report(str(what), [Problem("the file", e.op, e.message)], 0)
    problems = [Problem(f"node {b.node}", b.op, b.reason, b.opset) for b in found.program.problems]
    return Report(found.where, problems, len(found.model.graph.node))


def _check_function(fn: Any, args: Any, dynamic: Any, opset: int | None, training: bool | None) -> Report:
    from .arguments import Arguments, check_dynamic
    from .capture import capture, wanted_sizes
    from .dimension import ENOUGH, Undecided
    from .export import chosen_opset, in_mode, title
    from .names import weight_names

    what = title(fn)
    refused: set[str] = set()
    more = 0
    wanted: list[dict[str, int]] = []
    try:
        arguments = Arguments(fn, () if args is None else args, None, training)
        target, axes = chosen_opset(opset), check_dynamic(arguments, dynamic)
        names = weight_names(fn) if training else None
        with in_mode(fn, training):
            while True:
                captured = capture(fn, arguments, axes, None, refused, names, more, wanted)
                try:
                    problems, again = _dry_run(captured, target)
                except Undecided as e:
                    more += ENOUGH
                    wanted += wanted_sizes(captured, e)
                    continue
                if not again:
                    return Report(what, problems, len(captured.records))
                refused |= again
    except Exception as e:  # whatever the user's function raises
        return _failure(what, e)


def _dry_run(captured: Any, opset: int) -> tuple[list[Problem], set[str]]:
    """Write every record; those that fail become problems, composites to take apart are returned."""
    from ...graph.ir import Value
    from .assemble import Refused, write_record
    from .builder import Handle
    from .pairs import layout
    from .words import RuleBuilder

    o = RuleBuilder(opset)
    handles: dict[Value, Handle] = {}
    for value in [v for _, v in captured.inputs] + list(captured.weights):
        handles[value] = o.know(Handle(o.unique("x"), *layout(value, captured.shapes)))
    problems: list[Problem] = []
    again: set[str] = set()
    for record in captured.records:
        try:
            write_record(o, record, handles, captured)
        except Refused as e:
            again.add(str(e))
        except DuogradError as e:
            problems.append(Problem(e.line, record.op.name, e.message, getattr(e, "lowest", 0) or None))
        for value in record.outputs:
            if value not in handles:
                handles[value] = o.know(Handle(o.unique("x"), *layout(value, captured.shapes)))
    return problems, again


__all__ = ["Problem", "Report", "check"]
