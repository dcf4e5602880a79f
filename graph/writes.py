"""What is done at each site of the bytecode that writes: attributes, items, globals and cells are marked."""

from __future__ import annotations

import types
from types import FrameType, FunctionType
from typing import Any

import numpy as np

from ..core.members import Members, part_of
from ..core.value import Tensor
from .bytecode import Expr
from .evaluate import Results, evaluate, variable
from .ledger import Ledger
from .lookup import UNKNOWN, find, in_class, instance_dict, is_settable
from .plain import ABSENT, is_plain
from .reads import MUTABLE, behind
from .sites import SiteReader


class SiteWriter(SiteReader):
    """Handles sites that write, too."""

    def __init__(self, ledger: Ledger, results: Results, tracers: dict[int, Any], live: bool = False):
        super().__init__(ledger, results, tracers, live)
        self.actions |= {
            "set_attr": self._on_set_attr, "del_attr": self._on_del_attr, "set_item": self._on_set_item,
            "del_item": self._on_del_item, "set_global": self._on_set_global, "del_global": self._on_del_global,
            "set_free": self._on_set_free,
        }  # fmt: skip

    def _on_set_attr(self, frame: FrameType, action: Any) -> None:
        base = evaluate(action[1], frame, self._results)
        if base is not UNKNOWN:
            self._write_attr(base, action[2], action[1], frame)
        else:
            self._perhaps_writes(action[1], action[2], frame, False)

    def _on_del_attr(self, frame: FrameType, action: Any) -> None:
        base = evaluate(action[1], frame, self._results)
        if base is not UNKNOWN:
            self._write_attr(base, action[2], action[1], frame, True)
        else:
            self._perhaps_writes(action[1], action[2], frame, True)

    def _perhaps_writes(self, expr: Expr, key: str, frame: FrameType, deletes: bool) -> None:
        """An attribute of one of several objects is about to be written; of the others it has to stay what it is."""
        for x in self._possible(expr, frame):
            if id(x) in self._ledger.outside:
                if not isinstance(x, Tensor):
                    self._attribute(x, key, expr, frame)
                    if find(x, key)[2] is ABSENT:
                        self._not_in(x, key, self._ledger.name(x, expr), frame)
                self._write_attr(x, key, expr, frame, deletes)

    def _perhaps_sets(self, expr: Expr, key: Any, frame: FrameType, deletes: bool) -> None:
        """An item of one of several dicts is about to be written. Other containers are compared at the end."""
        for x in self._possible(expr, frame):
            if isinstance(x, dict) and id(x) in self._ledger.outside and id(x) not in self._ledger.states:
                self._item_read(x, key, expr, frame)
                self._write_item(x, key, expr, frame, deletes)

    def _write_attr(self, base: Any, key: str, expr: Expr, frame: FrameType, deletes: bool = False) -> None:
        base = behind(base)
        if isinstance(base, dict):
            hook = in_class(type(base), "__delattr__" if deletes else "__setattr__")
            if hook is (dict.__delitem__ if deletes else dict.__setitem__) or instance_dict(base) is base:
                self._write_item(base, key, None, frame, deletes)
                return
        if isinstance(base, np.ndarray):
            self._ledger.form(base, key)
        name = f"{self._ledger.name(base, expr)}.{key}"
        if isinstance(base, Tensor) and not (instance_dict(base) or hasattr(base, "__dict__")):
            return
        if isinstance(base, types.ModuleType):
            self._ledger.outside.add(id(base.__dict__))
            self._ledger.write("item", base.__dict__, key, name, deletes)
            return
        static = in_class(type(base), key)
        if isinstance(base, types.CellType):
            self._ledger.write("cell", base, None, name, deletes)
        elif type(static) is types.GetSetDescriptorType and id(base) in self._ledger.outside:
            self._ledger.leave(f"sets {name}, by which Python changes what it keeps apart", "set it outside")
        elif (
            static is ABSENT
            or type(static) is types.MemberDescriptorType
            or not hasattr(type(static), "__set__")
            or is_settable(base, key)
        ):
            if isinstance(base, Members):
                self._member(base, key, name, frame)
            self.running.stands_before(base, key, static, frame)
            if deletes and ("attr", id(base), key) not in self._ledger.written:
                self.running.deletes(base, key, name, frame)
            self._ledger.write("attr", base, key, name, deletes)

    def _member(self, base: Members, key: str, name: str, frame: FrameType) -> None:
        """What an attribute is to a module decides what may be assigned; a member that gives way is noted there."""
        if ("attr", id(base), key) in self._ledger.written:
            return
        part = part_of(base, key)
        self._ledger.note("part", base, key, part, f"what {name} is to its module", frame)
        if part:
            for table in ("_buffers", "_absent"):
                self._attribute(base, table, None, frame)
                self._ledger.write("attr", base, table, f"{self._ledger.name(base, None)}.{table}")

    def _on_set_item(self, frame: FrameType, action: Any) -> None:
        self._indexes(action[2], frame)
        base = evaluate(action[1], frame, self._results)
        if isinstance(base, (dict, list)):
            self._write_item(base, evaluate(action[2], frame, self._results), action[1], frame, False)
        elif base is UNKNOWN:
            self._perhaps_sets(action[1], evaluate(action[2], frame, self._results), frame, False)
        elif isinstance(behind(base), (*MUTABLE, np.ndarray)):  # what is written may be what was there
            self._ledger.read_content(base, self._ledger.name(base, action[1]), frame, False)

    def _on_del_item(self, frame: FrameType, action: Any) -> None:
        base = evaluate(action[1], frame, self._results)
        if isinstance(base, (dict, list)):
            self._write_item(base, evaluate(action[2], frame, self._results), action[1], frame, True)
        elif base is UNKNOWN:
            self._perhaps_sets(action[1], evaluate(action[2], frame, self._results), frame, True)

    def _write_item(self, base: Any, key: Any, expr: Expr, frame: FrameType, deletes: bool) -> None:
        if id(base) not in self._ledger.outside:
            return
        name = self._ledger.name(base, expr)
        method = "__delitem__" if deletes else "__setitem__"
        self._ledger.touched.add(id(base))
        if key is UNKNOWN or isinstance(key, slice):
            self._ledger.read_content(base, name, frame, False)
        elif expr is None or not isinstance(in_class(type(base), method), FunctionType):
            if deletes and isinstance(base, dict) and is_plain(key):
                self.running.there(base, key, f"{key!r} in {name}", frame)
            self._ledger.write_item(base, key, name, frame, deletes)  # the code of others is followed

    def _on_set_global(self, frame: FrameType, action: Any, deletes: bool = False) -> None:
        self._ledger.outside.add(id(frame.f_globals))
        self._ledger.write("item", frame.f_globals, action[1], action[1], deletes)

    def _on_del_global(self, frame: FrameType, action: Any) -> None:
        if ("item", id(frame.f_globals), action[1]) not in self._ledger.written:
            self._ledger.outside.add(id(frame.f_globals))
            self.running.there(frame.f_globals, action[1], action[1], frame)
        self._on_set_global(frame, action, True)

    def _on_set_free(self, frame: FrameType, action: Any) -> None:
        value = variable(frame, action[1])
        for cell in self._cells(frame, action[1], value):
            self._ledger.outside.add(id(cell))
            if action[2] and ("cell", id(cell), None) not in self._ledger.written:
                self._ledger.note("filled", cell, None, value is not UNKNOWN, action[1], frame)
            self._ledger.write("cell", cell, None, action[1])
