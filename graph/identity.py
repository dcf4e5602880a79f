"""Which containers of a call are one object and which are apart: what a trace took for granted, at a later call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .arguments import is_record
from .plain import count, elements, same
from .reads import MUTABLE


class Identity:
    """What a variant needs to know of containers besides what they hold; collected over its paths.

    A list that is only looked at may be replaced by an equal one. Where it is changed, handed out or compared by
    `is`, it must be this very list (`fixed`); where it is an argument as well, the same argument again (`roles`).

    fixed: by id; roles: by id, the number of the container among the call's, and it; linked: by number, ids of
    containers of arguments that something immutable leads to; found: all others that the function found, by id.
    """

    __slots__ = ("fixed", "found", "linked", "roles")

    def __init__(self) -> None:
        self.fixed: dict[int, Any] = {}
        self.roles: dict[int, tuple[int, Any]] = {}
        self.linked: dict[int, int] = {}
        self.found: dict[int, Any] = {}

    def add(
        self, found: dict[int, Any], linked: Iterable[int], given: Sequence[int], fixed: dict[int, Any]
    ) -> None:
        """Take in a finished trace. found: by id, all that it found; given: ids of the call's containers."""
        self.fixed |= {k: x for k, x in fixed.items() if isinstance(x, MUTABLE)}
        if given:
            numbers = {k: n for n, k in enumerate(given)}
            self.roles |= {k: (n, found[k]) for k, n in numbers.items() if k in found}
            self.linked |= {numbers[k]: k for k in linked if k in numbers and k in found}
            self.found |= {
                k: x
                for k, x in found.items()
                if k not in numbers and (isinstance(x, MUTABLE) or is_record(x))
            }

    def fit(self, given: Sequence[int]) -> bool:
        """Whether a call's containers are apart from those that the function finds, where the traced ones were."""
        return self.found.keys().isdisjoint(given) and all(given[n] == k for n, k in self.linked.items())

    def has_role(self, x: Any) -> bool:
        """Whether a value is a container of the arguments, or a tuple with one."""
        return id(x) in self.roles or (isinstance(x, tuple) and any(map(self.has_role, x)))

    def placed(self, x: Any, parts: Sequence[Any], inside: bool = False) -> Any:
        """x, a value that the trace saw, with `parts` for the containers of arguments. inside: its elements, too."""
        if not self.roles:
            return x
        role = self.roles.get(id(x))
        if role is not None:
            return parts[role[0]]
        if isinstance(x, tuple) and (inside or self.has_role(x)):
            row = [self.placed(v, parts) for v in x]
            return tuple(row) if x.__class__ is tuple else x.__class__(*row)
        if inside and isinstance(x, dict):
            return {k: self.placed(v, parts) for k, v in x.items()}
        return [self.placed(v, parts) for v in x] if inside and isinstance(x, list) else x

    def alike(self, a: Any, b: Any, given: Sequence[int]) -> bool:
        """Whether a can stand for b, which the trace saw. given: ids of the containers of a's call."""
        role = self.roles.get(id(b))
        if role is not None:
            return id(a) == given[role[0]]
        if a is b and not isinstance(a, tuple):
            return True
        if a.__class__ is not b.__class__:
            return False
        if a is not b and (id(a) in self.fixed or id(b) in self.fixed or id(a) in given):
            return False
        if isinstance(a, (tuple, list)):
            return count(a) == count(b) and all(
                self.alike(x, y, given) for x, y in zip(elements(a), elements(b))
            )
        if isinstance(a, dict):
            if len(a) != len(b) or not all(map(same, a, b)):
                return False
            return all(self.alike(x, y, given) for x, y in zip(dict.values(a), dict.values(b)))
        return same(a, b)
