"""Modules that hold modules or parameters: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ..core.errors import ArgumentError, ArgumentTypeError, IndexingError
from ..core.spoken import spell_methods
from ..core.strangers import brief
from ..core.value import Tensor
from .module import Module, Parameter

L = TypeVar("L", bound="_List")


class _Holder(Module):
    """Members of one kind, kept as attributes."""

    _kind: Any = Module

    def _checked(self, value: Any) -> Any:
        if not isinstance(value, self._kind):
            raise ArgumentTypeError(
                type(self).__name__, f"holds {self._kind.__name__}s, got a {type(value).__name__}",
                "wrap functions in a Module" if self._kind is Module else "pass a Parameter or a tensor",
            )  # fmt: skip
        return value


class _List(_Holder):
    """Numbered members, kept as attributes "0", "1", ..."""

    def _pairs(self) -> list[tuple[str, Any]]:
        return [(n, v) for n, v in self.__dict__.items() if isinstance(v, self._kind)]

    def _values(self) -> list[Any]:
        return [v for v in self.__dict__.values() if isinstance(v, self._kind)]

    def _renew(self, pairs: list[tuple[str, Any]]) -> None:
        """Replace all members. Numbers become positions, other names stay."""
        for name, _ in self._pairs():
            del self.__dict__[name]
        for k, (name, value) in enumerate(pairs):
            self.__dict__[str(k) if name.isdigit() else name] = value

    def _position(self, index: int) -> int:
        n = len(self)
        if not isinstance(index, int):
            raise ArgumentTypeError(
                type(self).__name__, f"the index {index!r} is not an int", "use an int or a slice"
            )
        if not -n <= index < n:
            raise IndexingError(
                type(self).__name__, f"index {index} is outside {n} members", f"use {-n} to {n - 1}"
            )
        return index % n

    def __len__(self) -> int:
        return len(self._values())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def __contains__(self, value: Any) -> bool:
        return any(v is value for v in self._values())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)._of(self._values()[index])
        return self._values()[self._position(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self.__dict__[self._pairs()[self._position(index)][0]] = self._checked(value)

    def __delitem__(self, index: Any) -> None:
        pairs = self._pairs()
        del pairs[index if isinstance(index, slice) else self._position(index)]
        self._renew(pairs)

    @classmethod
    def _of(cls: type[L], values: Iterable[Any]) -> L:
        return cls(values)

    def append(self: L, value: Any) -> L:
        """Add one member at the end. Returns self."""
        return self.extend((value,))

    def extend(self: L, values: Iterable[Any]) -> L:
        """Add members at the end. Returns self."""
        self._renew(self._pairs() + [("0", self._checked(v)) for v in values])
        return self

    def insert(self, index: int, value: Any) -> None:
        """Add one member before position `index`."""
        pairs = self._pairs()
        pairs.insert(index, ("0", self._checked(value)))
        self._renew(pairs)


spell_methods(_List, "append extend insert")


class Sequential(_List):
    """Modules called one after the other, each on the result of the one before.

    modules: in order, or one dict of names and modules. Members are found by position (`model[0]`), by
    slice, or by name as attributes. Raises: ArgumentTypeError for something that is no Module.
    Example: `dg.nn.Sequential(dg.nn.Linear(4, 3), dg.nn.ReLU())(dg.ones((2, 4))).shape` is `(2, 3)`.
    """

    def __init__(self, *modules: Any):
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, self._checked(module))
        else:
            self.extend(modules)

    @classmethod
    def _of(cls, values: Iterable[Any]) -> Any:
        return cls(*values)

    def forward(self, x: Any) -> Any:
        for module in self._values():
            x = module(x)
        return x


class ModuleList(_List):
    """A list of modules whose parameters belong to the module that holds it. It has no forward of its own.

    modules: any iterable of modules. Example: `dg.nn.ModuleList(dg.nn.Linear(4, 4) for _ in range(3))`.
    """

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)


class _Dict(_Holder):
    """Named members, kept as attributes of these names."""

    def __init__(self, members: Any = ()):
        self.update(members)

    def __len__(self) -> int:
        return len(list(self.keys()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return isinstance(self.__dict__.get(name), self._kind)  # type: ignore[call-overload]

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise IndexingError(
                type(self).__name__, f"has no member {name!r}", f"it has {', '.join(self.keys()) or 'none'}"
            )
        return self.__dict__[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self:
            self._check_name(type(self).__name__, name)
        self.__dict__[name] = self._checked(value)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def keys(self) -> list[str]:
        """The names, in the order of their definition."""
        return [n for n, v in self.__dict__.items() if isinstance(v, self._kind)]

    def values(self) -> list[Any]:
        """The members."""
        return [v for v in self.__dict__.values() if isinstance(v, self._kind)]

    def items(self) -> list[tuple[str, Any]]:
        """Names and members."""
        return [(n, v) for n, v in self.__dict__.items() if isinstance(v, self._kind)]

    def update(self, members: Any) -> None:
        """Add or replace members: a mapping, or pairs of name and member."""
        if not isinstance(members, Iterable):
            raise ArgumentError(
                type(self).__name__, f"cannot be made of a {type(members).__name__}", "pass a dict"
            )
        pairs = list(members.items() if hasattr(members, "items") else members)
        for pair in pairs:  # all of them before the first is taken
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ArgumentTypeError(
                    type(self).__name__, f"{brief(pair)} is no pair of name and member", "pass a dict"
                )
            if pair[0] not in self:
                self._check_name(type(self).__name__, pair[0])
        checked = [(name, self._checked(value)) for name, value in pairs]
        self.__dict__.update(checked)

    def pop(self, name: str) -> Any:
        """Take a member out. Returns: the member."""
        value = self[name]
        del self.__dict__[name]
        return value

    def clear(self) -> None:
        """Take all members out."""
        for name in self.keys():
            del self.__dict__[name]


class ModuleDict(_Dict):
    """Named modules whose parameters belong to the module that holds it. It has no forward of its own.

    members: a dict, or pairs. Names are attribute names without dots, and none that a Module has (`"train"`).
    Example: `dg.nn.ModuleDict({"a": dg.nn.Linear(4, 4)})["a"]`.
    """


class ParameterDict(_Dict):
    """Named parameters that belong to the module that holds it.

    members: a dict, or pairs, of Parameters or tensors (which become Parameters).
    """

    _kind = Parameter

    def _checked(self, value: Any) -> Any:
        if isinstance(value, Tensor) and not isinstance(value, Parameter):
            value = Parameter(value)
        return super()._checked(value)

    def extra_repr(self) -> str:
        return "\n".join(f"({n}): Parameter containing: {p.type}" for n, p in self.items())


class ParameterList(_List):
    """A list of parameters that belong to the module that holds it.

    parameters: any iterable of Parameters or tensors (which become Parameters).
    """

    _kind = Parameter

    def __init__(self, parameters: Iterable[Any] = ()):
        self.extend(parameters)

    def _checked(self, value: Any) -> Any:
        if isinstance(value, Tensor) and not isinstance(value, Parameter):
            value = Parameter(value)
        return super()._checked(value)

    def extra_repr(self) -> str:
        return "\n".join(f"({k}): Parameter containing: {p.type}" for k, p in enumerate(self))
