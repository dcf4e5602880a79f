"""What may be assigned to an attribute of a module: no value drops a parameter, a buffer or a submodule unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ArgumentTypeError
from .strangers import kind_of
from .value import Tensor

#: classes of values that are no members
_FREE = frozenset((bool, int, float, str, tuple, list, dict))


class Members:
    """Base of modules: an object some of whose attributes are parameters, buffers and modules.

    They are plain attributes. The first and the last are known by what they hold, or held before they became None
    (`_absent`: name -> kind), buffers by their names (`_buffers`: name -> whether they are saved). Both tables are
    replaced and never changed, so that a graph watches them as it does other attributes.
    """

    _buffers: Mapping[str, bool] = {}
    _absent: Mapping[str, str] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        part = part_of(self, name)
        if part:
            _give_way(self, name, part, value)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        _forget(self, "_buffers", name)
        _forget(self, "_absent", name)


#: what sets and deletes attributes of modules
SETTERS = (Members.__setattr__, Members.__delattr__)


def part_of(module: Members, name: str) -> str:
    """What an attribute is to a module: "parameter", "buffer", "module", or "" for any other."""
    if name in module._buffers:
        return "buffer"
    held = module.__dict__.get(name)
    if held is None:
        part = module._absent.get(name, "")
        computed = part and name not in module.__dict__ and hasattr(type(module), name)  # a property takes it
        return "" if computed else part
    return "" if held.__class__ in _FREE else _kind(held)


def _kind(x: Any) -> str:
    """What a value makes of the attribute that holds it: "parameter", "module", or "" where it is the name's to say."""
    if isinstance(x, Members):
        return "module"
    return "parameter" if isinstance(x, Tensor) and x._known()._is_parameter else ""


def _forget(module: Members, table: str, name: str) -> None:
    rows = getattr(module, table)
    if name in rows:
        object.__setattr__(module, table, {n: kind for n, kind in rows.items() if n != name})


def _give_way(module: Members, name: str, part: str, value: Any) -> None:
    """A member is about to be replaced: refuse what would drop it, note what takes its place."""
    kind = "" if value is None else _kind(value)
    if part == "buffer":
        if kind:
            _forget(module, "_buffers", name)
        elif value is not None and not isinstance(value, Tensor):
            raise _refusal(module, name, part, value, "a tensor or None")
    elif value is None:
        if module._absent.get(name) != part:
            object.__setattr__(module, "_absent", {**module._absent, name: part})
    elif part == "parameter" and kind != "parameter":
        raise _refusal(module, name, part, value, "a dg.nn.Parameter or None")
    elif part == "module" and not kind:
        raise _refusal(module, name, part, value, "a dg.nn.Module or None")


def _refusal(module: Members, name: str, part: str, value: Any, wanted: str) -> ArgumentTypeError:
    held, tensor = module.__dict__.get(name), isinstance(value, Tensor)
    now = f" {held.type}" if isinstance(held, Tensor) else "" if held is None else f" {type(held).__name__}"
    given = f"the tensor {value.type}" if tensor else kind_of(value)
    fix = f"del module.{name} first makes it a plain attribute"
    if part == "parameter" and tensor:
        values = f"with dg.no_grad(): module.{name}.copy_(x) gives it other values"
        fix = f"{values}, dg.nn.Parameter(x) is another parameter; {fix}"
    return ArgumentTypeError(
        type(module).__name__, f"{name} is a {part}{now}: it takes {wanted}, got {given}", fix
    )
