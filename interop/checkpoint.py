"""Checkpoints: tensors by name in a safetensors file, written whole or not at all."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.backend import normalize_device
from ..core.errors import ArgumentTypeError, CheckpointError
from ..core.ops.complex import view_as_complex
from ..core.types import DTYPES
from ..core.value import Tensor

__all__ = ["load", "save"]

_host: Any = dispatch._State.executor
#: the header entry that holds what a flat dict of tensors cannot say
_KEY = "duograd"
_VERSION = 1
_serial = itertools.count()


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write a module, an optimiser or a state to a safetensors file.

    obj: something with a `state_dict()`, or a dict of tensors, arrays, plain values (numbers, texts, None)
    and dicts, lists and tuples of such; modules and optimisers inside are replaced by their state. A
    tensor's name in the file is its path, joined by dots: for a module, the names of its parameters. complex128,
    which the format lacks, stands there as float64[..., 2] (real, imaginary) and comes back as it was.
    The file is replaced in one step after everything is on disk: a save that fails or is killed leaves the
    old file as it was (and, if killed, a `.part` file beside it that may be removed).
    Raises: CheckpointError when the folder is missing or the file cannot be written; ArgumentTypeError for a
    value that cannot be saved, with its path.
    Example: `dg.save({"model": model, "optimizer": opt, "epoch": 3}, "run.safetensors")`.
    """
    dispatch.outside("writes a file", "do it outside")
    tensors: dict[str, np.ndarray] = {}
    structure = _take_apart(obj, "", tensors)
    if not isinstance(structure, dict) or "dict" not in structure:
        raise ArgumentTypeError(
            "save",
            f"takes a module, an optimizer or a dict, got a {type(obj).__name__}",
            'use {"name": tensor}',
        )
    header = {"format": "np"}
    if any(value != {"tensor": name} for name, value in structure["dict"]):
        header[_KEY] = json.dumps({"version": _VERSION, "structure": structure})
    _write(os.path.realpath(os.fspath(path)), tensors, header)


def load(path: str | os.PathLike[str], device: Any = None) -> dict[str, Any]:
    """Read a safetensors file, whoever wrote it.

    device: where the tensors go, the CPU when None. Returns: what was saved: a module's state is a dict from
    parameter path to tensor, ready for `load_state_dict`; a nested dict comes back nested.
    Raises: CheckpointError that names the file when it is missing, cut short, damaged, in another format, or
    holds a dtype that duograd does not have.
    Example: `model.load_state_dict(dg.load("model.safetensors"))`.
    """
    dispatch.outside("reads a file", "do it outside")
    name = os.fspath(path)
    device = normalize_device(device or "cpu")
    arrays, structure = _read(name)
    tensors = {key: _tensor(array, device) for key, array in arrays.items()}
    if structure is None:
        return tensors
    try:
        result: dict[str, Any] = _put_together(structure, tensors)
    except (KeyError, TypeError, ValueError) as e:
        raise _unreadable(name, f"its structure does not fit its tensors ({e!r})") from None
    return result


# ---------------------------------------------------------------- values


def _take_apart(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    """A value as JSON; tensors go to `tensors` under their path."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    name = path.rstrip(".") or "the value"
    if isinstance(value, (Tensor, np.ndarray)):
        if name in tensors:
            raise ArgumentTypeError(
                "save", f"two tensors would have the name {name!r}", "rename a key with a dot"
            )
        array = _array(name, value)
        if array.dtype == np.complex128:  # the format ends at complex64
            tensors[name] = array.reshape((*array.shape, 1)).view(np.float64)
            return {"complex128": name}
        tensors[name] = array
        return {"tensor": name}
    if hasattr(value, "state_dict"):
        value = value.state_dict()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise ArgumentTypeError("save", f"{name} has the key {key!r}", "use texts or ints as keys")
        return {"dict": [[k, _take_apart(v, f"{path}{k}.", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_take_apart(v, f"{path}{k}.", tensors) for k, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    raise ArgumentTypeError(
        "save", f"{name} is a {type(value).__name__}, which cannot be saved", "save plain values"
    )


def _put_together(value: Any, tensors: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "complex128":
        return view_as_complex(tensors[content])
    if kind == "dict":
        return {k: _put_together(v, tensors) for k, v in content}
    if kind not in ("list", "tuple"):
        raise ValueError(kind)
    return (tuple if kind == "tuple" else list)(_put_together(v, tensors) for v in content)


def _array(name: str, value: Any) -> np.ndarray:
    array = _host.read(value.detach()) if isinstance(value, Tensor) else value
    if array.dtype.name not in DTYPES:
        raise ArgumentTypeError(
            "save", f"{name} is an array of {array.dtype}", f"convert it to one of {', '.join(DTYPES)}"
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def _tensor(array: np.ndarray, device: str) -> Tensor:
    tensor: Tensor = _host.share(array) if array.flags.writeable else _host.constant(array, "cpu")
    return tensor if device == "cpu" else tensor.to(device)


# ---------------------------------------------------------------- files


def _write(path: str, tensors: dict[str, np.ndarray], header: dict[str, str]) -> None:
    """Write beside the file, bring it to disk, put it in the file's place, bring that to disk."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder, base = os.path.split(path)
    if not os.path.isdir(folder):
        raise CheckpointError(
            "save", f"the folder {folder} of {base} does not exist", "make it first: os.makedirs"
        )
    temporary = os.path.join(folder, f".{base}.{os.getpid()}-{next(_serial)}.part")
    try:
        save_file(tensors, temporary, header)
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(folder)
    except (OSError, SafetensorError) as e:
        raise CheckpointError("save", f"{path} cannot be written: {e}", "check rights and space") from e
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _to_disk(path: str) -> None:
    if os.name == "nt" and os.path.isdir(path):
        return  # Windows has no handle of a folder to flush.
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unreadable(path: str, what: str) -> CheckpointError:
    return CheckpointError("load", f"{path}: {what}", "save it again, or check that it is a safetensors file")


def _opened(path: str) -> Any:
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise CheckpointError("load", f"{path} {what}", "check the path")
    if os.path.getsize(path) == 0:
        raise _unreadable(path, "is empty")
    try:
        return safe_open(path, framework="np")
    except SafetensorError as e:
        raise _unreadable(path, f"is cut short, damaged or no safetensors file ({e})") from None
    except OSError as e:
        raise _unreadable(path, f"cannot be read: {e}") from None


def _structure(path: str, header: Mapping[str, str] | None) -> Any:
    """What `save` wrote into the header; None for a flat dict or a file of another program."""
    text = (header or {}).get(_KEY)
    if text is None:
        return None
    try:
        note = json.loads(text)
        version, structure = note["version"], note["structure"]
    except (ValueError, KeyError, TypeError):
        raise _unreadable(path, f"the header's {_KEY!r} entry is damaged") from None
    if version != _VERSION:
        raise _unreadable(path, f"has version {version!r}, this duograd reads {_VERSION}")
    return structure


def _read(path: str) -> tuple[dict[str, np.ndarray], Any]:
    arrays: dict[str, np.ndarray] = {}
    with _opened(path) as file:
        structure = _structure(path, file.metadata())
        for name in file.keys():  # noqa: SIM118  (a safetensors file is no dict)
            dtype = file.get_slice(name).get_dtype()
            try:
                array = file.get_tensor(name)
            except Exception as e:
                raise _unreadable(path, f"{name} ({dtype}) cannot be read: {e}") from None
            if array.dtype.name not in DTYPES:
                raise _unreadable(path, f"{name} is {dtype}, which duograd does not have")
            arrays[name] = array
    return arrays, structure
