"""`dg.onnx.export`: a module or function as an ONNX model that has proved itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx

from ...core.errors import OnnxError
from ...core.value import Tensor
from .arguments import Arguments, check_dynamic
from .assemble import Assembled, NeedsOpset, Refused, assemble
from .capture import Captured, capture
from .files import check_folder, write_model
from .verify import verify as prove

#: what current runtimes and tools read; Gelu is in it
DEFAULT_OPSET = 20
MIN_OPSET = 13


def export(
    model_or_fn: Any,
    args: Any,
    path: Any = None,
    dynamic: dict[str, Any] | None = None,
    opset: int | None = None,
    verify: bool = True,
    input_names: list[str] | None = None,
    output_names: list[str] | None = None,
    external_data: bool | None = None,
    training: bool | None = None,
) -> onnx.ModelProto:
    """Write a module or function as an ONNX model.

    model_or_fn: exported as it stands (call `model.eval()` before). args: example arguments: a tensor, a tuple of
    positional arguments or a dict of keyword arguments; Python values among them become part of the model.
    path: the file (written whole or not at all); None writes none. dynamic: input name -> {axis: symbol} (or the
    symbols of all axes, None for a fixed one); sizes of those axes are free in the model, and outputs follow.
    opset: 13 to the newest of the installed onnx; when None 20, or the lowest newer one that has all ops. verify:
    check the model and compare its numbers with the function's, at two sizes where axes are dynamic.
    input_names, output_names: instead of the parameters' names and "output" (a loaded model keeps its own).
    external_data: whether weights go to a file beside the model; None: from 1.5 GiB on (they are streamed, not copied).
    training: the mode that a module is exported in (and put back from); None: the mode it is in. With True the new
    values of buffers (BatchNorm's statistics) are further outputs, named `<buffer>.new`.
    Returns: the ModelProto. Parameters and buffers are initializers named by their module paths.
    Raises: OnnxError for what ONNX cannot express (with the line that asks for it), and for a result that differs.
    Numerics: composites become one node each (Softmax, LayerNormalization, Gemm) where the opset has it.
    Source: ONNX operator schemas. Example: `dg.onnx.export(model, x, "m.onnx", dynamic={"x": {0: "batch"}})`.
    """
    chosen = chosen_opset(opset)
    if path is not None:
        check_folder(os.fspath(path))
    if training is None:
        _warn_training(model_or_fn)
    with _in_mode(model_or_fn, training):
        arguments = Arguments(model_or_fn, args, input_names)
        axes = check_dynamic(arguments, dynamic)
        output_names = output_names or getattr(model_or_fn, "output_names", None)
        while True:
            try:
                captured, assembled = build(
                    model_or_fn, arguments, axes, chosen, output_names, (external_data, path), bool(training)
                )
                break
            except NeedsOpset as e:
                if opset is not None:
                    raise
                chosen = e.lowest
        if verify:
            prove(assembled, captured, model_or_fn, arguments)
    if path is not None:
        write_model(os.fspath(path), assembled.model, assembled.external)
    return assembled.model


@contextmanager
def _in_mode(fn: Any, training: bool | None) -> Iterator[None]:
    """Put a module into a mode, and every part back into its own."""
    if training is None or not hasattr(fn, "modules"):
        yield
        return
    before = [(m, m.training) for m in fn.modules()]
    fn.train(training)
    try:
        yield
    finally:
        for m, value in before:
            m.training = value


def build(
    fn: Any,
    arguments: Arguments,
    dynamic: dict[str, dict[int, str]],
    opset: int,
    output_names: list[str] | None,
    external: tuple[bool | None, Any] = (None, None),
    training: bool = False,
) -> tuple[Captured, Assembled]:
    """Trace and assemble; composites that the opset has not are taken apart."""
    from ... import __version__

    refused: set[str] = set()
    names = weight_names(fn)
    while True:
        captured = capture(fn, arguments, dynamic, output_names, refused, names if training else None)
        try:
            return captured, assemble(captured, names, opset, title(fn), __version__, external)
        except Refused as e:
            refused.add(str(e))


def chosen_opset(opset: int | None) -> int:
    """The opset to write: the default, or one that can be written. Raises OnnxError."""
    newest = onnx.defs.onnx_opset_version()
    chosen = min(DEFAULT_OPSET, newest) if opset is None else opset
    if not isinstance(chosen, int) or not MIN_OPSET <= chosen <= newest:
        raise OnnxError(
            "onnx.export",
            f"opset={opset} is not one that can be written",
            f"use {MIN_OPSET} to {newest} (onnx {onnx.__version__})",
        )
    return chosen


def title(fn: Any) -> str:
    """The name of a function, or the class of a module."""
    return getattr(fn, "__name__", None) or type(fn).__name__


def _warn_training(fn: Any) -> None:
    if getattr(fn, "training", False):
        warnings.warn(
            f"{type(fn).__name__} is in training mode and is exported so; call .eval() for inference",
            UserWarning, stacklevel=3,
        )  # fmt: skip


def weight_names(fn: Any) -> dict[int, str]:
    """id -> name of the tensors that a module or a function's closure and globals hold."""
    found: dict[int, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Tensor):
            found.setdefault(id(value), prefix)
        elif hasattr(value, "named_parameters") and not isinstance(value, type):
            for pairs in (value.named_parameters(), value.named_buffers()):
                for name, tensor in pairs:
                    found.setdefault(id(tensor), f"{prefix}.{name}" if prefix else name)

    add("", fn)
    target: Callable[..., Any] = getattr(fn, "_fn", fn)
    owner = getattr(target, "__self__", None)
    if owner is not None:
        add("", owner)
    if hasattr(target, "named_parameters"):
        add("", target)
    _search(getattr(target, "__func__", target), add, set())
    return found


def _search(function: Any, add: Callable[[str, Any], None], seen: set[int]) -> None:
    """Give what a function's closure and globals hold to `add`; functions among it are searched too."""
    code = getattr(function, "__code__", None)
    if code is None or id(code) in seen:
        return
    seen.add(id(code))
    held = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or ()):
        try:
            held[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    held.update((n, function.__globals__[n]) for n in _names_read(code) if n in function.__globals__)
    for name, value in held.items():
        add(name, value)
        inner = getattr(value, "_fn", value)
        if not getattr(inner, "__module__", "duograd").startswith("duograd."):
            _search(inner, add, seen)


def _names_read(code: Any) -> list[str]:
    """The names that a function and the functions inside it look up."""
    inner = [n for c in code.co_consts if hasattr(c, "co_names") for n in _names_read(c)]
    return list(dict.fromkeys([*code.co_names, *inner]))
