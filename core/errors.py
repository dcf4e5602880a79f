"""The errors users see: one form, `[op] what is wrong`, then the user's line, then the fix."""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from types import CodeType, FrameType, TracebackType
from typing import Any

import numpy as np

_PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.__file__) + os.sep
_SITE = os.path.dirname(os.path.dirname(np.__file__)) + os.sep
_LIBRARIES = tuple(_SITE + name + os.sep for name in ("numpy", "onnx", "safetensors"))
_OUTSIDE = tuple(_PACKAGE_DIR + d + os.sep for d in ("tests", "examples"))
#: files of code that was met: those of the framework, and others
_ours: set[str] = set()
_others: set[str] = set()

_PACKAGE = __name__.partition(".")[0] + "."
#: functions and methods that users call by name: those of ours that are `spoken.spelled`
spelled_names: set[str] = set()

#: a place in a program: a code object, the offset of an instruction in it, perhaps what is called there; see `line_of`
Place = tuple[CodeType, int] | tuple[CodeType, int, str]


def is_internal(code: CodeType) -> bool:
    """Whether `code` belongs to the framework, so that errors should point above it."""
    file = code.co_filename
    if file in _ours:
        return True
    if file in _others:
        return False
    own = is_own_file(file)
    if len(_others) > 50_000:
        _others.clear()
    (_ours if own else _others).add(file)
    return own


def is_own_file(path: str) -> bool:
    """Whether a file, or a line of it, belongs to the framework."""
    if os.pardir in path:  # of a script that was started as `../train.py` from here
        path = os.path.normpath(path)
    return path.startswith(_PACKAGE_DIR) and not path.startswith(_OUTSIDE)


def is_standard_file(path: str) -> bool:
    """Whether a file belongs to Python's own library."""
    return (path.startswith(_STDLIB) and "site-packages" not in path) or path.startswith("<frozen")


def is_library_file(path: str) -> bool:
    """Whether a file belongs to Python's own library, or to one that we call and that calls us."""
    return path.startswith(_LIBRARIES) or is_standard_file(path)


def user_place(depth: int = 1) -> Place | None:
    """Where the innermost frame that is not the framework's own is now: cheap to take, turned to text later."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in _ours and not is_internal(code):
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def user_call(depth: int = 1) -> Place | None:
    """`user_place` with the name of what is called there: of an op, or of a function or method of ours."""
    inner: FrameType | None = None
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in _ours and not is_internal(code):
            return code, frame.f_lasti, "" if inner is None else _called(inner)
        inner, frame = frame, frame.f_back
    return None


def _called(frame: FrameType) -> str:
    name = frame.f_code.co_name
    owner: Any = frame.f_locals.get("self") if name in ("__call__", "__init__") else None
    if name == "__init__":
        return type(owner).__name__ if type(owner).__module__.startswith(_PACKAGE) else ""
    if name == "__call__":
        return str(owner.name) if hasattr(owner, "attr_names") else ""  # of an op
    return name if name in spelled_names else ""


def said_at(place: Place | None, inner: str) -> str:
    """What users call at a place by name, else `inner`."""
    return (place[2] if place is not None and len(place) == 3 else "") or inner


def line_of(place: Place | None) -> str:
    """`file:line` of a place, or an empty string."""
    if place is None:
        return ""
    code, offset = place[:2]
    line = next((n for start, end, n in code.co_lines() if start <= offset < end and n), code.co_firstlineno)
    return f"{code.co_filename}:{line}"


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame that is not the framework's own."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in _ours and not is_internal(code):
            break
        frame = frame.f_back
    return frame


def user_line(depth: int = 1) -> str:
    """`file:line` of the innermost frame that is not the framework's own, or an empty string."""
    frame = innermost = user_frame(depth + 1)
    while frame is not None and (is_internal(frame.f_code) or is_library_file(frame.f_code.co_filename)):
        frame = frame.f_back
    frame = frame or innermost
    if frame is None or frame.f_code.co_filename.startswith("<frozen"):  # started as `python -m duograd`
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """A warning at the user's line, however many of the framework's calls lie between."""
    frame = user_frame(2)
    if frame is None:
        warnings.warn(message, kind, stacklevel=2)
        return
    names = frame.f_globals
    warnings.warn_explicit(
        message, kind, frame.f_code.co_filename, frame.f_lineno, names.get("__name__"),
        names.setdefault("__warningregistry__", {}),
    )  # fmt: skip


def last_user_line(error: BaseException) -> str:
    """`file:line` of the innermost frame of an error's traceback that is not the framework's own."""
    found, at = "", error.__traceback__
    while at is not None:
        file = at.tb_frame.f_code.co_filename
        # What namedtuples and dataclasses write for a class; `python -c` has the same file.
        written = file == "<string>" and at.tb_frame.f_globals.get("__name__") != "__main__"
        if not written and not is_internal(at.tb_frame.f_code) and not is_standard_file(file):
            found = f"{file}:{at.tb_lineno}"
        at = at.tb_next
    return found


def shortened(error: BaseException) -> TracebackType | None:
    """The traceback of an error without the framework's frames that lead to the user's last one; whole where
    DUOGRAD_DEBUG is set, or where nothing of it is the user's."""
    rows, at = [], error.__traceback__
    while at is not None:
        rows.append(at)
        at = at.tb_next
    last = max((k for k, x in enumerate(rows) if not is_internal(x.tb_frame.f_code)), default=-1)
    if last < 0 or os.environ.get("DUOGRAD_DEBUG"):
        return error.__traceback__
    kept = [x for k, x in enumerate(rows) if k >= last or not is_internal(x.tb_frame.f_code)]
    for x, inner in itertools.pairwise(kept):
        x.tb_next = inner
    return kept[0]


class DuogradError(Exception):
    """Base of every error that duograd raises on purpose.

    op: the op or public name that refuses; message: what is wrong, with shapes; fix: what to do;
    line: `file:line` of the user's code, found from the call stack when not given.
    """

    def __init__(self, op: str, message: str, fix: str = "", line: str | None = None):
        self.op, self.message, self.fix = op, message, fix
        self.line = user_line(2) if line is None else line
        super().__init__(op, message, fix, self.line)

    def __str__(self) -> str:
        text = f"[{self.op}] {self.message}"
        if self.line:
            text += f"\n  at {self.line}"
        if self.fix:
            text += f"\n  fix: {self.fix}"
        return text


class ShapeError(DuogradError, ValueError):
    """Shapes that do not fit each other or the op."""


class DtypeError(DuogradError, TypeError):
    """A dtype that the op does not take."""


class ArgumentError(DuogradError, ValueError):
    """An attribute outside its range."""


class AxisError(ArgumentError, IndexError):
    """An axis that the tensor does not have; also an IndexError, as in NumPy, PyTorch and the array API."""


class CopyError(ArgumentError, BufferError):
    """copy=False where memory cannot be shared; also a BufferError, as the array API asks of DLPack."""


class ArgumentTypeError(DuogradError, TypeError):
    """An argument of the wrong kind."""


class UnknownNameError(DuogradError, AttributeError):
    """A name that a namespace of duograd has not."""


class LinAlgError(DuogradError, np.linalg.LinAlgError):
    """A matrix that an op of linear algebra cannot take: singular, not positive definite, without convergence."""


class IndexingError(DuogradError, IndexError):
    """An index outside the tensor."""


class DeviceError(DuogradError, RuntimeError):
    """An unknown or absent device, or tensors on different devices."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device has no room for a tensor. Named after what the user called, of the ops that this is made of none."""

    def __init__(self, op: str, message: str, fix: str = "", line: str | None = None):
        super().__init__(said_at(user_call(2), op), message, fix, user_line(2) if line is None else line)


class AutogradError(DuogradError, RuntimeError):
    """A gradient that cannot be taken: non-scalar root, changed saved tensor, freed tape."""


class TraceError(DuogradError, RuntimeError):
    """Something a traced function may not do, such as keeping a symbolic tensor."""


class VmapError(DuogradError, RuntimeError):
    """Something a function mapped by `dg.vmap` may not do, such as branching on a mapped value."""


class EndlessRecursionError(TraceError, RecursionError):
    """A traced function that calls itself deeper than Python goes."""


class RetraceError(TraceError):
    """A function was traced more often than its limit allows."""


class CheckError(DuogradError, RuntimeError):
    """The two modes differ (DUOGRAD_CHECK=1): a defect of duograd, or a read that no trace can see."""


class KernelError(DuogradError, RuntimeError):
    """A kernel that could not be compiled or run: a defect of duograd, with its source."""


class WorkerError(DuogradError, RuntimeError):
    """A data worker failed at a sample, died, could not start, or took too long."""


class MissingExtraError(DuogradError, ImportError):
    """An optional dependency is not installed; the fix names the extra."""


class CheckpointError(DuogradError, ValueError):
    """A checkpoint that is unreadable or does not fit the module."""


class DataFileError(DuogradError, ValueError):
    """A file of data that is missing, cut, or of another format."""


class OnnxError(DuogradError, ValueError):
    """A model that cannot be read, written or verified."""


class NanError(DuogradError, ArithmeticError):
    """An op made a NaN of numbers, where that was asked to be an error."""


class FlagError(DuogradError, ValueError):
    """An environment variable or setting with an illegal value."""
