"""Calls that no guard can watch.

They give another value each time (clocks, random numbers, what is typed in), or look at state which only C code and the
system have (files, queues, locks, settings of a thread), or begin what other threads do.
"""

from __future__ import annotations

import _thread
import contextvars
import gc
import io
import logging
import os
import random
import sys
import types
from typing import Any

import numpy as np

from .draws import GENERATORS

_MODULES = frozenset(("time", "uuid", "secrets", "_random", "_datetime", "datetime"))
_CALLS = frozenset(map(id, (input, os.urandom)))
_OWNERS = (*GENERATORS, np.random.SeedSequence, contextvars.ContextVar)
#: what makes generators, which begin anywhere where they are given nothing or None
_BEGINNING = frozenset(
    map(id, (np.random.default_rng, np.random.RandomState, np.random.SeedSequence, random.Random))
)
_FUNCTIONS = (types.BuiltinFunctionType, types.FunctionType, types.MethodType)
#: modules of the standard library whose functions and objects have such state
_UNSEEN = frozenset((
    "_io", "io", "posix", "nt", "_decimal", "decimal", "_queue", "queue", "_socket", "socket", "_sqlite3", "sqlite3",
    "mmap", "pathlib", "glob", "shutil", "tempfile", "subprocess", "shelve", "pickle", "_pickle", "inspect", "pprint",
    "reprlib", "linecache", "locale", "_locale", "resource", "select", "zipfile", "gzip", "bz2", "_bz2",
    "lzma", "_lzma", "tarfile", "urllib", "ftplib", "smtplib", "dbm", "_dbm", "_gdbm", "fileinput", "wave", "sched",
    "ssl", "_ssl", "tracemalloc", "_tracemalloc", "atexit",
))  # fmt: skip
#: installed packages whose insides are not watched, and whose objects and functions say, draw or keep something
_KEEPING = frozenset((
    "matplotlib", "PIL", "tqdm", "rich", "tensorboard", "wandb", "IPython", "pandas", "sklearn", "onnxruntime",
    "safetensors", "safetensors_rust", "_safetensors_rust", "h5py",
))  # fmt: skip
#: functions and methods of NumPy's that read or write files
_FILES = frozenset((
    "load", "loadtxt", "genfromtxt", "fromfile", "fromregex", "memmap", "open_memmap", "save", "savez",
    "savez_compressed", "savetxt", "tofile", "dump",
))  # fmt: skip
_UNSEEN_CALLS = frozenset(map(id, (
    open, dir, contextvars.copy_context, sys.getrecursionlimit, sys.getswitchinterval, gc.isenabled, gc.get_count,
    gc.get_threshold, gc.enable, gc.disable, gc.freeze, gc.set_threshold,
    logging.Logger.getEffectiveLevel, np.get_printoptions, np.geterr, _thread.start_new_thread,
)))  # fmt: skip
#: modules whose objects keep what they hold where it cannot be watched, attributes too
_CLOSED = frozenset(("xml", "_elementtree", "email", "http"))
#: of these modules, what depends on the arguments alone, or looks at nothing
_SEEN = frozenset((
    "fspath", "fsencode", "fsdecode", "strerror", "cpu_count", "PurePath", "StringIO", "BytesIO", "Decimal",
))  # fmt: skip
#: packages of the standard library that run code in other threads and processes
_ELSEWHERE = frozenset(("threading", "concurrent", "multiprocessing"))


def is_generator(x: Any) -> bool:
    """Whether it draws random numbers, or is a context variable: what its methods give is another value each time."""
    return isinstance(x, _OWNERS)


def begins_anywhere(callee: Any, values: list[Any]) -> str | None:
    """The name of what makes a random generator of no known state; None for others. values: what it is given, None or
    something else where that is not known."""
    made = id(callee) in _BEGINNING or (
        isinstance(callee, type) and issubclass(callee, np.random.BitGenerator)
    )
    return str(callee.__name__) if made and all(x is None for x in values) else None


def impure(callee: Any) -> str | None:
    """The name of a function that gives another value each time; None for others."""
    if isinstance(callee, types.MethodWrapperType) and callee.__name__ == "__call__":
        callee = callee.__self__
    owner = getattr(callee, "__self__", None)
    owned = isinstance(owner, _OWNERS)
    if isinstance(callee, types.MethodDescriptorType) and issubclass(callee.__objclass__, _OWNERS):
        return f"{callee.__objclass__.__name__}.{callee.__name__}"
    if not owned and not isinstance(callee, _FUNCTIONS):
        return None
    name = callee.__name__
    module = getattr(callee, "__module__", None) or getattr(owner, "__module__", None)
    if owned or (module in _MODULES and name != "sleep") or id(callee) in _CALLS:
        return f"{type(owner).__name__ if owned else module}.{name}"
    return None


def unseen(callee: Any, outside: bool = True) -> str | None:
    """The name of what looks at state that cannot be watched; None for others. outside: whether the object whose method
    it is was there before."""
    name = getattr(callee, "__name__", None)
    if name is None or name in _SEEN:
        return None
    if id(getattr(callee, "__func__", callee)) in _UNSEEN_CALLS:
        return str(name)
    owner, module = getattr(callee, "__self__", None), getattr(callee, "__module__", None)
    top = (module or "").partition(".")[0]
    if top in _ELSEWHERE or top in _KEEPING:
        return f"{module}.{name}"
    if name in _FILES and (top == "numpy" or isinstance(owner, np.ndarray)):
        return f"{module or type(owner).__name__}.{name}"
    if name == "__subclasses__" and isinstance(owner, type):
        return name
    if owner is None or isinstance(owner, (types.ModuleType, type)):
        return f"{module}.{name}" if top in _UNSEEN else None
    return f"{type(owner).__name__}.{name}" if outside and has_hidden_state(owner) else None


def has_hidden_state(x: Any) -> bool:
    """Whether an object has state that cannot be watched: a file, a queue, a lock."""
    module = type(x).__module__.partition(".")[0]
    return module in _UNSEEN or module in _CLOSED or module == "_thread" or isinstance(x, io.IOBase)


def is_closed(x: Any, items: bool) -> bool:
    """Whether attributes (or items) of an object cannot be watched: of a document, of memory that processes share."""
    module = type(x).__module__.partition(".")[0]
    return module in _CLOSED or (items and module == "multiprocessing")
