"""Finding values the way Python does, without running user code; and deciding whose code is followed in a trace."""

from __future__ import annotations

import os
import sys
import sysconfig
import types
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from ..core.errors import is_internal
from ..core.value import Tensor
from .plain import ABSENT
from .symbol import Symbol

UNKNOWN = type("Unknown", (), {"__repr__": lambda self: "unknown", "__slots__": ()})()

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_NN = _PACKAGE + "nn" + os.sep
_STDLIB = tuple({os.path.realpath(sysconfig.get_path(k)) + os.sep for k in ("stdlib", "platstdlib")})
_SITE = tuple(f"{os.sep}{d}{os.sep}" for d in ("site-packages", "dist-packages"))
# Parts of the standard library that only pass user data on, so that reads inside them are the user's.
_STDLIB_FOLLOWED = frozenset((
    "dataclasses.py", "functools.py", "enum.py", "contextlib.py", "types.py", "copy.py", "abc.py", "os.py",
    "_collections_abc.py", "argparse.py", "operator.py",
))  # fmt: skip
# Installed packages whose inside is opaque: big, stateful, and no keepers of a model's settings.
_OPAQUE = frozenset((
    "numpy", "torch", "jax", "jaxlib", "scipy", "pandas", "numba", "llvmlite", "cupy", "onnx", "onnxruntime", "sklearn",
    "matplotlib", "PIL", "tqdm", "rich", "pytest", "_pytest", "pluggy", "coverage", "hypothesis", "IPython", "debugpy",
    "pydevd", "_pydevd_bundle", "tensorboard", "wandb",
))  # fmt: skip

_files: dict[str, str] = {}
_own: dict[str, bool] = {}


def follows(code: CodeType, space: dict[str, Any]) -> str:
    """Whether reads made by this code count as the function's.

    "always": user code and duograd.nn. "called": when such code calls it: generated code (dataclasses), a few
    modules of the standard library, installed packages. "never": the framework's core, large numerical packages,
    the rest of the standard library.
    """
    file = code.co_filename
    if file.startswith("<") and not file.startswith("<ipython"):
        name = space.get("__name__") or ""
        if name.startswith("namedtuple_") or file == "<duograd guards>":
            return "never"
        if name == "duograd" or name.startswith("duograd."):
            return "called" if name.startswith(("duograd.nn", "duograd.tests", "duograd.examples")) else "never"
        if file.startswith("<frozen"):
            return "called" if file[8:-1] + ".py" in _STDLIB_FOLLOWED else "never"
        return "called"
    known = _files.get(file)
    if known is None:
        known = _files[file] = _follows_file(code, file)
    return known


def _follows_file(code: CodeType, file: str) -> str:
    if file.startswith(_NN):
        return "always"
    if is_internal(code):
        return "never"
    for part in _SITE:
        if part in file:
            top = file.split(part)[-1].split(os.sep)[0].removesuffix(".py")
            return "never" if top in _OPAQUE else "called"
    if os.path.realpath(file).startswith(_STDLIB):
        return "called" if os.path.basename(file) in _STDLIB_FOLLOWED else "never"
    return "always"


def is_own(module: str | None) -> bool:
    """Whether a module is the user's own: its functions and classes may be replaced between calls."""
    known = _own.get(module or "")
    if known is None:
        file = getattr(sys.modules.get(module or ""), "__file__", None)
        if module in ("builtins", None) or module.partition(".")[0] in sys.builtin_module_names:  # type: ignore[union-attr]
            known = False
        elif file is None:
            known = module == "__main__" or module not in sys.modules
        else:
            outside = not file.startswith(_PACKAGE) or file.startswith((_PACKAGE + "tests", _PACKAGE + "examples"))
            known = outside and not any(p in file for p in _SITE) and not os.path.realpath(file).startswith(_STDLIB)
        _own[module or ""] = known
    return known


def in_class(cls: type, name: str) -> Any:
    """What a class and its bases hold under a name, unbound; ABSENT when nothing."""
    for base in cls.__mro__:
        found = base.__dict__.get(name, ABSENT)
        if found is not ABSENT:
            return found
    return ABSENT


def _is_internal_class(cls: type) -> bool:
    """Whether a class is of the framework's core, whose objects users do not configure."""
    name = cls.__module__
    return name.startswith("duograd.") and not name.startswith(("duograd.nn", "duograd.tests", "duograd.examples"))


def instance_dict(x: Any) -> Any:
    """The `__dict__` of an object, or None."""
    try:
        return object.__getattribute__(x, "__dict__")
    except AttributeError:
        return None


def find(owner: Any, name: str) -> tuple[str, Any, Any]:
    """Where reading `owner.name` ends: (kind, holder, value).

    kind: "attr" (state of the owner or a class attribute), "item" (a module's name), "method" (a function that the
    class holds; holder is the class), "quiet" (a value that is not the user's to change), "" with UNKNOWN (a
    property or `__getattr__`, whose own code is followed, or a C attribute).
    """
    cls = type(owner)
    if cls is Symbol:
        return "", None, UNKNOWN
    if issubclass(cls, ModuleType):
        value = owner.__dict__.get(name, ABSENT)
        if value is ABSENT:
            return "", None, UNKNOWN
        return ("item" if is_own(owner.__name__) else "quiet"), owner.__dict__, value
    if issubclass(cls, type):
        meta = in_class(cls, name)
        value = in_class(owner, name)
        if value is ABSENT or (meta is not ABSENT and hasattr(type(meta), "__set__")):
            return "", None, UNKNOWN
        if isinstance(value, staticmethod):
            return "method", owner, value.__func__
        if isinstance(value, classmethod):
            return "quiet", owner, types.MethodType(value.__func__, owner)
        if isinstance(value, types.FunctionType):
            return "method", owner, value
        if hasattr(type(value), "__get__"):
            return "quiet", owner, value
        return "attr", owner, value
    if issubclass(cls, (Tensor, np.ndarray, np.generic)):
        own_dict = instance_dict(owner)
        if own_dict and name in own_dict:
            return "attr", owner, own_dict[name]
        return "", None, UNKNOWN
    if name == "__dict__":
        own_dict = instance_dict(owner)
        return ("", None, UNKNOWN) if own_dict is None else ("quiet", owner, own_dict)
    if name == "__class__":
        return "quiet", owner, cls
    if _is_internal_class(cls):
        own_dict = instance_dict(owner) or {}
        static = own_dict.get(name, in_class(cls, name))
        return ("", None, UNKNOWN) if hasattr(type(static), "__get__") else ("quiet", owner, static)
    static = in_class(cls, name)
    if static is not ABSENT:
        kind = type(static)
        if kind is types.MemberDescriptorType:
            try:
                return "attr", owner, static.__get__(owner, cls)
            except AttributeError:
                return "attr", owner, ABSENT
        if hasattr(kind, "__set__") or hasattr(kind, "__delete__"):
            return "", None, UNKNOWN
    own_dict = instance_dict(owner)
    if own_dict is not None and name in own_dict:
        return "attr", owner, dict.__getitem__(own_dict, name)
    if static is ABSENT:
        hooked = in_class(cls, "__getattr__") is not ABSENT
        return ("", None, UNKNOWN) if hooked else ("attr", owner, ABSENT)
    if isinstance(static, types.FunctionType):
        return "method", cls, types.MethodType(static, owner)
    if isinstance(static, staticmethod):
        return "method", cls, static.__func__
    if isinstance(static, classmethod):
        return "quiet", cls, types.MethodType(static.__func__, cls)
    if hasattr(type(static), "__get__"):
        if type(static) in (types.MethodDescriptorType, types.WrapperDescriptorType, types.BuiltinFunctionType):
            return "quiet", owner, getattr(owner, name)
        return "", None, UNKNOWN
    return "attr", owner, static
