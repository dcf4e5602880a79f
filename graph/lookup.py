"""How Python finds a name, without running user code; and whose code a trace follows."""

from __future__ import annotations

import collections
import functools
import os
import re
import sys
import sysconfig
import threading
import types
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from ..core.value import Tensor
from .plain import ABSENT
from .symbol import Symbol

UNKNOWN = type("Unknown", (), {"__repr__": lambda self: "unknown", "__slots__": ()})()

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
#: The framework itself: its reads are not the user's. Layers, optimisers, loaded models and bench cases are
# followed.
_CORE = ("core", "eager", "graph", "backends")
_CORE_FILES = tuple(_PACKAGE + d + os.sep for d in _CORE) + tuple(
    _PACKAGE + f for f in ("__init__.py", "__main__.py")
)
_CORE_MODULES = tuple("duograd." + d for d in _CORE)
# Files of functions alone: they keep nothing that could change, so their steps need no watching.
_STATELESS = re.compile(re.escape(_PACKAGE + "nn" + os.sep) + r"(functional\w*|spatial|arguments)\.py")
_FOLDERS = tuple(_PACKAGE + d + os.sep for d in (*_CORE, "nn", "interop", "bench")) + _CORE_FILES[-2:]
_STDLIB = tuple({os.path.realpath(sysconfig.get_path(k)) + os.sep for k in ("stdlib", "platstdlib")})
_SITE = tuple(f"{os.sep}{d}{os.sep}" for d in ("site-packages", "dist-packages"))
# Parts of the standard library that only pass user data on, so that reads inside them are the user's.
_STDLIB_FOLLOWED = frozenset((
    "dataclasses.py", "functools.py", "enum.py", "contextlib.py", "types.py", "copy.py", "abc.py", "os.py",
    "_collections_abc.py", "collections", "argparse.py", "operator.py", "weakref.py", "string.py", "_weakrefset.py",
    "posixpath.py", "ntpath.py", "genericpath.py", "configparser.py",
))  # fmt: skip
# Methods of what keeps data of its users: their reads are the users', whoever calls them.
_KEEPING = frozenset(
    id(f.__code__)
    for cls in (collections.UserDict, collections.UserList, collections.UserString, collections.ChainMap)
    for f in vars(cls).values()
    if isinstance(f, types.FunctionType)
)
# Installed packages whose inside is opaque: big, stateful, and no keepers of a model's settings.
_OPAQUE = frozenset((
    "numpy", "torch", "jax", "jaxlib", "scipy", "pandas", "numba", "llvmlite", "cupy", "onnx",
    "onnxruntime", "sklearn",
    "matplotlib", "PIL", "tqdm", "rich", "pytest", "_pytest", "pluggy", "coverage", "hypothesis", "IPython",
    "debugpy",
    "pydevd", "_pydevd_bundle", "tensorboard", "wandb",
))  # fmt: skip

_files: dict[str, str] = {}
_own: dict[str, bool] = {}
_leads: dict[str, bool] = {}


def follows(code: CodeType, space: dict[str, Any]) -> str:
    """Whether reads made by this code count as the function's.

    "always": user code, typed in too, duograd.nn, and containers written in Python. "called": when such code calls it:
    a few modules of the standard library. "led": generated code of others, installed packages: also where the
    framework or those modules call it for such code, or as what is traced. "never": the framework's core, large
    numerical packages, the rest of the standard library.
    """
    file = code.co_filename
    if file.startswith("<") and not file.startswith("<ipython"):
        name = space.get("__name__") or ""
        if name.startswith("namedtuple_") or file == "<duograd guards>":
            return "never"
        if name == "duograd" or name.startswith(_CORE_MODULES):
            return "never"
        if file.startswith("<frozen"):
            return "called" if file[8:-1] + ".py" in _STDLIB_FOLLOWED else "never"
        return "always" if name == "__main__" or is_own(name) else "led"  # typed in, or made by `exec`
    known = _follows_file(file)
    return "always" if known == "called" and id(code) in _KEEPING else known


def _follows_file(file: str) -> str:
    known = _files.get(file)
    if known is None:
        known = _files[file] = _sort_of_file(file)
    return known


def _sort_of_file(file: str) -> str:
    if file.startswith(_CORE_FILES) or _STATELESS.fullmatch(file):
        return "never"
    for part in _SITE:
        if part in file:
            top = file.split(part)[-1].split(os.sep)[0].removesuffix(".py")
            return "never" if top in _OPAQUE else "led"
    if os.path.realpath(file).startswith(_STDLIB):
        name = os.path.basename(file)
        name = os.path.basename(os.path.dirname(file)) if name == "__init__.py" else name
        return "called" if name in _STDLIB_FOLLOWED else "never"
    return "always"


def leads(code: CodeType) -> bool:
    """Whether code that is not watched calls functions for others: the framework, `contextlib` and the like."""
    file = code.co_filename
    known = _leads.get(file)
    if known is None:
        known = _leads[file] = file.startswith(_CORE_FILES) or _follows_file(file) == "called"
    return known


def is_own(module: str | None) -> bool:
    """Whether a module is the user's own: its functions and classes may be replaced between calls."""
    known = _own.get(module or "")
    if known is None:
        file = getattr(sys.modules.get(module or ""), "__file__", None)
        if module is None or module == "builtins" or module.partition(".")[0] in sys.builtin_module_names:
            known = False
        elif file is None:
            made, top = sys.modules.get(module), module.partition(".")[0]  # typed in, made by `exec`, by hand
            origin = getattr(getattr(made, "__spec__", None), "origin", None)
            known = made is None or (origin != "frozen" and (top == module or is_own(top)))
        else:
            installed = any(p in file for p in _SITE) or os.path.realpath(file).startswith(_STDLIB)
            known = not installed and not file.startswith(_FOLDERS)
        _own[module or ""] = known
    return known


def is_changing(module: str | None) -> bool:
    """Whether what a module's names stand for may change between calls: the user's own, installed packages but large
    numerical ones (settings of theirs)."""
    if is_own(module):
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return file is not None and _follows_file(file) == "led"


def in_class(cls: type, name: str) -> Any:
    """What a class and its bases hold under a name, unbound; ABSENT when nothing."""
    for base in cls.__mro__:
        found = base.__dict__.get(name, ABSENT)
        if found is not ABSENT:
            return found
    return ABSENT


def specials(space: Any) -> set[str]:
    """The names that a class holds and Python looks up by itself, and those that stand before an object's."""
    return {name for name, x in space.items() if name.startswith("__") or hasattr(type(x), "__set__")}


def setter_of(static: Any) -> Any:
    """What a class holds, where it sets the attribute of that name itself; else None."""
    return static if hasattr(type(static), "__set__") or hasattr(type(static), "__delete__") else None


def holder_of(cls: type, name: str) -> type | None:
    """The class, of a class and its bases, that holds a name."""
    return next((base for base in cls.__mro__ if name in base.__dict__), None)


def held(owner: Any, name: str) -> tuple[type, Any]:
    """The class that a name of an object (a class, a `super()`) is looked up in, and what it holds there, unbound."""
    above: Any = owner
    if type(owner) is super:
        mro = above.__self_class__.__mro__
        for base in mro[mro.index(above.__thisclass__) + 1 :]:
            if name in base.__dict__:
                return base, base.__dict__[name]
        return type(owner), ABSENT
    if isinstance(owner, type):
        static, meta = in_class(owner, name), in_class(type(owner), name)
        above = static is ABSENT or hasattr(type(meta), "__set__")
        return (type(owner), meta) if above else (owner, static)
    return type(owner), in_class(type(owner), name)


def instance_dict(x: Any) -> Any:
    """The `__dict__` of an object, or None."""
    if type(x) is functools.partial:  # to ask for it is to make it, and one without goes into another whole
        return functools.partial.__reduce__(x)[2][3]
    try:
        return object.__getattribute__(x, "__dict__")
    except AttributeError:
        return None


def names_of(x: Any) -> list[str]:
    """The attributes that an object has itself, in its `__dict__` and in slots."""
    slots = [
        k for c in type(x).__mro__ for k, v in vars(c).items() if isinstance(v, types.MemberDescriptorType)
    ]
    return [*(instance_dict(x) or ()), *slots]


def find(owner: Any, name: str, plainly: bool = False) -> tuple[str, Any, Any]:
    """Where reading `owner.name` ends: (kind, holder, value).

    plainly: look as `object.__getattribute__` does, past a `__getattribute__` of the class.

    kind: "attr" (state of the owner or a class attribute), "item" (a module's name), "entry" (an item of a dict whose
    class shows items as attributes), "method" (a function that the class holds; holder is the class), "quiet" (a value
    that is not the user's to change), "part" (what the owner always leads to: a field of a named tuple, a function's
    cells), "cell" (contents of a closure cell), "default" (default arguments of a function), "" with UNKNOWN (a
    property or `__getattr__`, whose own code is followed, or a C attribute).
    """
    cls = type(owner)
    sort = _sorts.get(cls)
    if sort is None:
        sort = _sorts[cls] = _sort(cls)
    if sort == "plain" or (sort == "hooked" and plainly):
        return _find_plain(owner, cls, name)
    if sort == "module":
        value, may = owner.__dict__.get(name, ABSENT), is_changing(owner.__name__)
        if value is ABSENT and (not may or name in _OF_MODULES or "__getattr__" in owner.__dict__):
            return "", None, UNKNOWN
        return ("item" if may else "quiet"), owner.__dict__, value
    if sort == "class":
        return _find_in_class(owner, cls, name)
    if sort == "super":
        return _find_above(owner, name)
    if sort == "tensor":
        own_dict = instance_dict(owner)
        if own_dict and name in own_dict:
            return "attr", owner, own_dict[name]
        if own_dict is not None and not hasattr(Tensor if isinstance(owner, Tensor) else np.ndarray, name):
            return _find_plain(owner, cls, name)
    elif sort == "internal":
        return _find_in_ours(owner, cls, name)
    elif sort == "local":
        return "attr", owner, getattr(owner, name, ABSENT)
    return "", None, UNKNOWN


_sorts: dict[type, str] = {}
#: attributes that modules have beside their names
_OF_MODULES = frozenset((*dir(ModuleType), "__dict__"))
#: what gives a field of a named tuple
_FIELD: Any = collections.namedtuple("_Row", "x").__dict__["x"].__class__
#: attributes of functions and methods that are kept in C
_LINKS: dict[type, dict[str, str]] = {
    types.FunctionType: {
        "__closure__": "part", "__globals__": "part", "__defaults__": "default", "__kwdefaults__": "default",
    },
    types.MethodType: {"__self__": "part", "__func__": "part"},
    types.BuiltinFunctionType: {"__self__": "part"},
    functools.partial: {"func": "part", "args": "part", "keywords": "part"},
}  # fmt: skip
#: what makes the items of a dict its attributes, as `__getattr__` of a class
_ITEM_HOOKS: tuple[Any, ...] = (dict.__getitem__, dict.get)


def forget_classes() -> None:
    """Drop what is known of classes, so that none is kept alive; they may change, too."""
    _sorts.clear()


def _sort(cls: type) -> str:
    """Which rule `find` uses for objects of a class."""
    if cls is Symbol:
        return "opaque"
    if issubclass(cls, ModuleType):
        return "module"
    if issubclass(cls, type):
        return "class"
    if cls is super:
        return "super"
    if issubclass(cls, BaseException):
        return "opaque"  # made on the way, and keeps whole frames alive
    if issubclass(cls, (Tensor, np.ndarray, np.generic)):
        return "tensor"
    if cls.__module__.startswith(_CORE_MODULES):
        return "internal"
    if issubclass(cls, threading.local):
        return "local"
    hooked = isinstance(in_class(cls, "__getattribute__"), types.FunctionType)
    return "hooked" if hooked else "plain"  # the hook's own code is followed


def _find_in_class(owner: type, cls: type, name: str) -> tuple[str, Any, Any]:
    """`find` for a class."""
    if name == "__dict__":
        return "quiet", owner, owner.__dict__
    if name == "__annotations__" and name in owner.__dict__:
        return "attr", owner, owner.__dict__[name]
    meta = in_class(cls, name)
    value = in_class(owner, name)
    if value is ABSENT and meta is ABSENT and in_class(cls, "__getattr__") is ABSENT:
        return "attr", owner, ABSENT
    if meta is not ABSENT and hasattr(type(meta), "__set__"):
        return "", None, UNKNOWN
    if value is ABSENT:
        if is_function(meta):
            return "method", cls, types.MethodType(meta, owner)
        if isinstance(meta, types.MethodDescriptorType):
            return "quiet", owner, getattr(owner, name)
        given = meta is ABSENT or hasattr(type(meta), "__get__")
        return ("", None, UNKNOWN) if given else ("attr", owner, meta)
    if isinstance(value, staticmethod):
        return "method", owner, value.__func__
    if isinstance(value, classmethod):
        return "quiet", owner, types.MethodType(value.__func__, owner)
    if is_function(value):
        return "method", owner, value
    if isinstance(value, types.ClassMethodDescriptorType):
        return "quiet", owner, value.__get__(None, owner)
    return ("quiet" if hasattr(type(value), "__get__") else "attr"), owner, value


def _find_in_ours(owner: Any, cls: type, name: str) -> tuple[str, Any, Any]:
    """`find` for an object of the framework's core: what users set there, like `fn.calls = 0`, is theirs."""
    own_dict = instance_dict(owner)
    static = in_class(cls, name)
    if is_settable(owner, name):
        return "attr", owner, getattr(owner, name)
    if own_dict is not None and (name in own_dict or static is ABSENT):
        if not (name in cls._kept if hasattr(cls, "_kept") else name.startswith("_")):
            return "attr", owner, own_dict.get(name, ABSENT)
        static = own_dict.get(name, ABSENT)
    if isinstance(static, types.FunctionType) and hasattr(cls, "_settable"):
        return "quiet", owner, types.MethodType(static, owner)  # `fn.graph`
    return ("", None, UNKNOWN) if hasattr(type(static), "__get__") else ("quiet", owner, static)


def is_function(x: Any) -> bool:
    """Whether it is a function written in Python, or one of ours with a mode: a method of what holds its class."""
    return isinstance(x, types.FunctionType) or hasattr(type(x), "_settable")


def calls_on(x: Any) -> list[Any]:
    """What a function of ours was made of and may call: the one with a mode, the transformed one."""
    if hasattr(type(x), "_settable"):
        return [vars(x)["_fn"]] if "_fn" in vars(x) else []  # it is being made
    if not isinstance(x, types.FunctionType) or not x.__globals__.get("__name__", "").startswith(
        _CORE_MODULES
    ):
        return []
    cells = [
        cell for cell in x.__closure__ or () if cell != types.CellType()
    ]  # an empty one is equal to that
    held = [cell.cell_contents for cell in cells]
    return [y for y in held if callable(y) and not isinstance(y, type)]


def is_settable(owner: Any, name: str) -> bool:
    """Whether an attribute of an object of the framework's is a property that users may set."""
    return name in getattr(type(owner), "_settable", ())


def _find_plain(owner: Any, cls: type, name: str) -> tuple[str, Any, Any]:
    """`find` for an object of most classes."""
    own_dict = instance_dict(owner)
    if name == "__dict__":
        return ("", None, UNKNOWN) if own_dict is None else ("quiet", owner, own_dict)
    if name == "__class__":
        return "quiet", owner, cls
    if cls in _LINKS and name in _LINKS[cls]:
        return _LINKS[cls][name], owner, getattr(owner, name)
    if cls is types.MethodType and not hasattr(cls, name):  # it has those of its function
        return find(owner.__func__, name)
    if cls is types.CellType and name == "cell_contents":
        try:
            return "cell", owner, owner.cell_contents
        except ValueError:
            return "cell", owner, ABSENT
    static = in_class(cls, name)
    if static is not ABSENT:
        kind = type(static)
        if kind is _FIELD:
            return "part", owner, static.__get__(owner, cls)
        if kind is types.MemberDescriptorType:
            try:
                return "attr", owner, static.__get__(owner, cls)
            except AttributeError:
                return "attr", owner, ABSENT
        if hasattr(kind, "__set__") or hasattr(kind, "__delete__"):
            return "", None, UNKNOWN
    if own_dict is not None and name in own_dict:
        return "attr", owner, dict.__getitem__(own_dict, name)
    if static is ABSENT:
        hook = in_class(cls, "__getattr__")
        if hook in _ITEM_HOOKS and isinstance(owner, dict):
            return "entry", owner, dict.get(owner, name, ABSENT if hook is dict.__getitem__ else None)
        return ("attr", owner, ABSENT) if hook is ABSENT else ("", None, UNKNOWN)
    if is_function(static):
        return "method", cls, types.MethodType(static, owner)
    if isinstance(static, staticmethod):
        return "method", cls, static.__func__
    if isinstance(static, classmethod):
        return "quiet", cls, types.MethodType(static.__func__, cls)
    if hasattr(type(static), "__get__"):
        if (
            type(static)
            in (
                types.MethodDescriptorType,
                types.WrapperDescriptorType,
                types.BuiltinFunctionType,
                functools._lru_cache_wrapper,
            )
            or type(static).__name__ == "cython_function_or_method"
        ):
            return "quiet", owner, getattr(owner, name)
        return "", None, UNKNOWN
    return "attr", owner, static


def _find_above(owner: Any, name: str) -> tuple[str, Any, Any]:
    """`find` for a super object."""
    start, self, cls = owner.__thisclass__, owner.__self__, owner.__self_class__
    mro = cls.__mro__
    for base in mro[mro.index(start) + 1 :]:
        if name in base.__dict__:
            value = base.__dict__[name]
            if is_function(value):
                return "method", base, types.MethodType(value, self)
            if isinstance(
                value, (staticmethod, classmethod, types.WrapperDescriptorType, types.MethodDescriptorType)
            ):
                return "quiet", base, value.__get__(self, cls)
            return ("", None, UNKNOWN) if hasattr(type(value), "__get__") else ("attr", base, value)
    return "", None, UNKNOWN
