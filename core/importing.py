"""`import duograd.optim`, `from duograd.optim.lr_scheduler import StepLR`: what stands elsewhere is found
by Python's import under the names that users know it by, as the module that it is."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _There(Loader):
    """Gives a module that has another name, as it is."""

    def __init__(self, real: str):
        self._real = real
        self._spec: Any = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """What is imported under its own name."""
        found = importlib.import_module(self._real)
        self._spec = found.__spec__
        return found

    def exec_module(self, module: ModuleType) -> None:
        """It has run; it keeps its own name."""
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """names: what users write, and where it is, the longest first."""

    def __init__(self, names: Mapping[str, str]):
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is, for Python's import."""
        for name, real in self._names.items():
            if fullname == name or fullname.startswith(name + "."):
                there = real + fullname[len(name) :]
                found = importlib.util.find_spec(there)
                if found is None:
                    return None
                inside = found.submodule_search_locations is not None
                inside |= any(other.startswith(fullname + ".") for other in self._names)
                return ModuleSpec(fullname, _There(there), is_package=inside)
        return None


def also_importable(names: Mapping[str, str]) -> None:
    """Let modules be imported under other names, too, and what they contain under names below these."""
    sys.meta_path.insert(0, _Finder(names))
