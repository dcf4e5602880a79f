"""Arguments without data: what `fn.warmup` takes in the place of tensors, and how calls are written as text."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import dispatch, forks, tree
from ..core.backend import normalize_device
from ..core.errors import ArgumentError
from ..core.types import DTYPES, DType, as_dtype
from ..core.value import Tensor


class TensorSpec:
    """A tensor argument of `fn.warmup`, without data: shape, dtype, device and whether it requires a gradient.

    shape: a tuple of sizes; dtype: a dtype or its name. Raises: ArgumentError for a negative size, DtypeError for an
    unknown dtype, DeviceError for an unknown device. Example: `step.warmup(dg.TensorSpec((64, 3, 32, 32)))`.
    """

    __slots__ = ("device", "dtype", "requires_grad", "shape")

    def __init__(
        self,
        shape: int | Sequence[int],
        dtype: Any = "float32",
        device: str = "cpu",
        requires_grad: bool = False,
    ):
        self.shape: tuple[int, ...] = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        if any(n < 0 for n in self.shape):
            raise ArgumentError("TensorSpec", f"shape {self.shape} has a negative size", "use sizes from 0")
        self.dtype: DType = as_dtype(dtype)
        self.device, self.requires_grad = normalize_device(device), requires_grad

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]" + (
            ".grad" if self.requires_grad else ""
        )

    def make(self) -> Any:
        """A tensor of zeros; on the CPU it takes no memory before it is read."""
        host: Any = dispatch._State.executor
        made = host.constant(np.zeros(self.shape, self.dtype.np), self.device)
        return made.requires_grad_() if self.requires_grad else made


def fill(structure: Any) -> Any:
    """Arguments with tensors of zeros in the place of specs."""
    return tree.map_leaves(lambda x: x.make() if isinstance(x, TensorSpec) else x, structure)


# ---- calls as text: `package.module:function(float32[64, 3, 32, 32], int64[64], train=True)`


def parse_call(text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Target, arguments and keyword arguments of a call. Raises ArgumentError for what is not one."""
    found = re.fullmatch(r"\s*([^\s()]+?)\s*(\(.*\))?\s*", text, re.DOTALL)
    if found is None:
        raise _not_a_call(text)
    # `float32[]` is how a tensor without axes is written, and no expression of Python.
    arguments = re.sub(r"(?<=\w)\[\s*\]", "[()]", found[2] or "()")
    try:
        call = ast.parse("f" + arguments, mode="eval").body
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)  # noqa: PT018
        args = tuple(_value(a) for a in call.args)
        kwargs = {k.arg: _value(k.value) for k in call.keywords if k.arg is not None}
    except (SyntaxError, ValueError, AssertionError):
        raise _not_a_call(text) from None
    return found[1], args, kwargs


def _not_a_call(text: str) -> ArgumentError:
    return ArgumentError(
        "warmup",
        f"{text!r} is not a call",
        'write it as "app.model:predict(float32[8, 3, 224, 224], train=False)"',
    )


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Attribute) and node.attr == "grad":
        spec = _value(node.value)
        if isinstance(spec, TensorSpec):
            return TensorSpec(spec.shape, spec.dtype, spec.device, True)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in DTYPES:
        return TensorSpec(ast.literal_eval(node.slice), node.value.id)
    if isinstance(node, ast.List):
        return [_value(x) for x in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(x) for x in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {ast.literal_eval(k): _value(v) for k, v in zip(node.keys, node.values)}  # type: ignore[arg-type]
    return ast.literal_eval(node)


def write_call(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The text of a call. Raises ArgumentError for an argument that cannot be written."""
    parts = [_text(a) for a in args] + [f"{k}={_text(v)}" for k, v in kwargs.items()]
    return f"{target}({', '.join(parts)})"


def _text(x: Any) -> str:
    if isinstance(x, Tensor):
        return repr(TensorSpec(x.shape, x.dtype, x.device, x._requires_grad))
    if isinstance(x, np.ndarray):
        return repr(TensorSpec(x.shape, x.dtype))
    if x is None or x.__class__ in (bool, int, float, str, complex, bytes):
        return repr(x)
    if x.__class__ is list:
        return f"[{', '.join(map(_text, x))}]"
    if x.__class__ is tuple:
        return f"({', '.join(map(_text, x))}{',' if len(x) == 1 else ''})"
    if x.__class__ is dict:
        return "{" + ", ".join(f"{k!r}: {_text(v)}" for k, v in x.items()) + "}"
    raise ArgumentError(
        "warmup", f"an argument is a {type(x).__name__}", "warm this call up in Python: fn.warmup(...)"
    )


# ---- recording: DUOGRAD_RECORD_CALLS names a file that gets a line for each new variant

_record_file = os.environ.get("DUOGRAD_RECORD_CALLS")
_recorded: set[str] = set()
_lock = forks.lock()


def _target(fn: Any) -> tuple[str, bool]:
    """The name of a function, and whether it is found by that. A script has the name that it is imported by."""
    module, path = getattr(fn, "__module__", "?"), getattr(fn, "__qualname__", type(fn).__name__)
    found: Any = sys.modules.get(module)
    if module == "__main__" and found is not None:
        spec, file = getattr(found, "__spec__", None), getattr(found, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    names = getattr(found, "__dict__", {})
    for part in path.split("."):
        found = getattr(found, part, None)
    known = found is not None and (found is fn or getattr(found, "_fn", None) is fn)
    # `predict = dg.function(lambda x: ...)`
    other = None if known else next((n for n, x in [*names.items()] if getattr(x, "_fn", None) is fn), None)
    return f"{module}:{other or path}", known or other is not None


def record(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Write a traced call to the file of `DUOGRAD_RECORD_CALLS`, once; as a remark when it cannot be made again."""
    if _record_file is None:
        return
    target, known = _target(fn)
    try:
        line = write_call(target, args, kwargs)
        if not dispatch.state.grad:
            line = f"no_grad {line}"
        if not known:
            line = f"# not to be found by name: {line}"
    except ArgumentError as e:
        line = f"# {target}: {e.message}"
    with _lock:
        if line not in _recorded:
            _recorded.add(line)
            with open(
                _record_file, "a", encoding="utf-8"
            ) as file:  # one short write: lines of processes do not mix
                file.write(line + "\n")
