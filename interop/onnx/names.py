"""What a function holds, by name: tensors, modules and optimisers of its closure, its globals and its owner."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ...core.value import Tensor
from ...nn.optim import Optimizer


def weight_names(fn: Any) -> dict[int, str]:
    """id -> name of the tensors that a module or a function's closure and globals hold."""
    found: dict[int, str] = {}
    held = _held(fn)
    for prefix, value in held:
        if isinstance(value, Tensor):
            found.setdefault(id(value), prefix)
        elif _is_module(value):
            for pairs in (value.named_parameters(), value.named_buffers()):
                for name, tensor in pairs:
                    found.setdefault(id(tensor), _joined(prefix, name))
    for prefix, value in held:
        if isinstance(value, Optimizer):
            _name_state(prefix, value, found)
    return found


def modules_of(fn: Any) -> list[tuple[str, Any]]:
    """Path and module of all modules that a function holds, or that it is."""
    found: dict[int, tuple[str, Any]] = {}
    for prefix, value in _held(fn):
        if _is_module(value):
            for path, module in value.named_modules():
                found.setdefault(id(module), (_joined(prefix, path), module))
    return list(found.values())


def _is_module(x: Any) -> bool:
    # Namespaces such as `dg` look for the nearest names before they say that they have none: milliseconds.
    return not isinstance(x, (type, ModuleType)) and hasattr(x, "named_modules")


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _name_state(prefix: str, optimizer: Optimizer, found: dict[int, str]) -> None:
    """Add the names of an optimiser's tensors: `opt.<parameter>.exp_avg`, with the first of those that share one."""
    state = optimizer.state
    for k, group in enumerate(optimizer.param_groups):
        for j, p in enumerate(group["params"]):
            for key, value in state[p].items():
                found.setdefault(id(value), _joined(prefix, f"{found.get(id(p), f'{k}.{j}')}.{key}"))


def _held(fn: Any) -> list[tuple[str, Any]]:
    """Name and value of what a function is, belongs to, and finds in its closure and globals."""
    found = [("", fn)]
    target: Callable[..., Any] = getattr(fn, "_fn", fn)
    owner = getattr(target, "__self__", None)
    if owner is not None:
        found.append(("", owner))
    found.append(("", target))
    _search(getattr(target, "__func__", target), lambda name, value: found.append((name, value)), set())
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
