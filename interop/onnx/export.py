"""`dg.onnx.export`: a module or function as an ONNX model that has proved itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx

from ...core.errors import OnnxError, warn
from .arguments import Arguments, check_dynamic
from .assemble import Assembled, NeedsOpset, Refused, assemble
from .capture import Captured, capture, wanted_sizes
from .dimension import ENOUGH, Undecided
from .files import check_folder, write_model
from .names import weight_names
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
    training: the mode that a module is exported in (and put back from); None: the mode it is in. With True what the
    function changes is further outputs: new values of buffers (BatchNorm's statistics), parameters and an optimiser's
    state, named `<tensor>.new`, and gradients that it leaves, `<tensor>.grad`. So a whole step (forward, backward,
    `opt.step()`) is a model; settings such as the learning rate are constants in it.
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
    with in_mode(model_or_fn, training):
        arguments = Arguments(model_or_fn, args, input_names, training)
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
def in_mode(fn: Any, training: bool | None) -> Iterator[None]:
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
    more = 0
    wanted: list[dict[str, int]] = []
    while True:
        captured = capture(
            fn, arguments, dynamic, output_names, refused, names if training else None, more, wanted
        )
        try:
            return captured, assemble(captured, names, opset, title(fn), __version__, external)
        except Refused as e:
            refused.add(str(e))
        except Undecided as e:
            more += ENOUGH
            wanted += wanted_sizes(captured, e)


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
        warn(f"{type(fn).__name__} is in training mode and is exported so; call .eval() for inference")
