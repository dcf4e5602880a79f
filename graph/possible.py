"""What an expression of the bytecode may be where its value was not seen."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Sequence
from types import FrameType, FunctionType
from typing import Any

from ..core.autocast import autocast
from ..core.modes import no_grad, set_grad_enabled
from .bytecode import Expr
from .evaluate import Results, evaluate, variable
from .ledger import Ledger
from .lookup import UNKNOWN, find, follows, in_class, instance_dict
from .plain import ABSENT, elements, is_plain
from .reads import CONTAINERS, behind, is_iterator, walked

#: what goes along containers and makes tuples of their elements
_ROWS = frozenset(map(id, (zip, enumerate)))
#: code of functions that decorators of the framework make: they give the user's all that they are given
_DECORATED = frozenset(
    code
    for decorates in (no_grad.__call__, set_grad_enabled.__call__, autocast.__call__)
    for code in decorates.__code__.co_consts
    if isinstance(code, types.CodeType)
)
#: what walks along the items of a dict
_PAIRS: Any = type(iter({}.items()))
#: what gives the elements of what it is given
_COPYING = frozenset(map(id, (list, tuple, sorted, reversed, iter)))
#: what an operator makes of others
_OPERATORS = ("mixed", "worked")
#: how far down in what a call was given its result is looked for
_DEPTH = 3


def _is_turn(expr: Expr) -> bool:
    """Whether it is what a loop takes at a turn."""
    return expr is not None and expr[0] == "each" and expr[1] is not None and expr[1][0] == "iter"


def is_followed(callee: Any) -> bool:
    """Whether what a call is given comes to Python code that is followed, and to nothing else."""
    if isinstance(callee, type):
        plain = in_class(type(callee), "__call__") is type.__dict__["__call__"]
        if not plain or in_class(callee, "__new__") is not object.__dict__["__new__"]:
            return False
        callee = in_class(callee, "__init__")
    f = callee.__func__ if isinstance(callee, types.MethodType) else callee
    if isinstance(f, FunctionType) and f.__code__ in _DECORATED:
        return is_followed(f.__wrapped__)  # type: ignore[attr-defined]
    return isinstance(f, FunctionType) and follows(f.__code__, f.__globals__) != "never"


def is_walk(args: Sequence[Expr]) -> bool:
    """Whether these are the arguments of a generator that is written in the middle of an expression."""
    return len(args) == 1 and args[0] is not None and args[0][0] == "iter"


class ValueReader:
    """Finds the values of expressions, and all that they can be."""

    def __init__(self, ledger: Ledger, results: Results):
        self._ledger, self._results = ledger, results

    def _possible(self, expr: Expr, frame: FrameType) -> list[Any]:
        """The value of an expression; where C code made it, all that it can be: what the code was given, and its
        elements."""
        value = evaluate(expr, frame, self._results)
        if value is not UNKNOWN:
            return [value]
        if expr is None or expr[0] not in ("result", "attr", "item", "each", "any"):
            return []  # or an operator has made it
        if expr[0] == "attr" and self._is_made(expr[1], frame):  # it may hold anything that it was given
            return self._possible(expr[1], frame)
        if expr[0] == "attr":
            row = [find(x, expr[2])[2] for x in self._possible(expr[1], frame) if x is not ABSENT]
            return [x for x in row if x is not UNKNOWN and x is not ABSENT]
        if expr[0] == "any":
            return [v for x in expr[1] for v in self._possible(x, frame)]
        if expr[0] == "each":
            turn = expr[1]
            among = self._in_rows(turn[1][1], frame) if _is_turn(turn) else None
            if among:  # what stands in the tuple are elements of what is walked along
                return [v for x in among for v in self._elements(x, frame)]
            return self._elements(turn, frame)
        if expr[0] == "item":
            key = evaluate(expr[2], frame, self._results)
            whole = self._whole(expr[1], frame) if key is UNKNOWN or isinstance(key, slice) else []
            return self._elements(expr[1], frame) + whole  # it may be a part
        return self._given_by(expr, frame)

    def _is_made(self, expr: Expr, frame: FrameType) -> bool:
        """Whether it is a call of a class that makes a new object, whose `__init__` gets what the call is given."""
        if expr is None or expr[0] != "result":
            return False
        callee = evaluate(expr[2], frame, self._results)
        return isinstance(callee, type) and is_followed(callee)

    def _given_by(self, expr: tuple[Any, ...], frame: FrameType) -> list[Any]:
        """What a call may give whose result was not seen: what it was given, what that holds, what code that it called
        gave back."""
        called = expr[2]
        callee = evaluate(called, frame, self._results)
        if callee is UNKNOWN:
            found = self._whole(called[1] if called is not None and called[0] == "attr" else called, frame)
        elif (getattr(callee, "__module__", None) or "").startswith("duograd."):
            return []
        else:
            owner = behind(getattr(callee, "__self__", None))
            found = [owner] if isinstance(owner, CONTAINERS) else []
            if isinstance(callee, functools.partial):
                found += [*callee.args, *callee.keywords.values()]
        if callee in (iter, next) if isinstance(callee, types.BuiltinFunctionType) else False:
            walk = self._walk_of(expr if callee is iter else expr[3][0] if len(expr[3]) == 1 else None, frame)
            if walk is not None:
                return [walk] if callee is iter else self._within([walk])
        if callee is type and len(expr[3]) == 1:
            return [type(x) for x in self._possible(expr[3][0], frame)]
        if callee is locals or (callee is vars and not expr[3]):
            return self._down([*frame.f_locals.values()])
        if callee is vars and expr[3]:
            spaces = [instance_dict(x) for x in self._possible(expr[3][0], frame)]
            return [x for x in spaces if x is not None]
        for x in expr[3]:
            found += [v for v in self._whole(x, frame) if not is_plain(v)]
        bound = [x for x in found if isinstance(x, (types.BuiltinFunctionType, types.MethodWrapperType))]
        found += [x.__self__ for x in bound if not isinstance(x.__self__, types.ModuleType)]
        if any(self._is_getter(x, frame) for x in (called, *expr[3])):
            found += [v for x in self._down(found) for v in (instance_dict(x) or {}).values()]
        found += self._ledger.handed.get(id(frame), {}).values()
        return self._down(found)

    def _walk_of(self, expr: Expr, frame: FrameType) -> Any:
        """The container that `iter` was given, where expr is such a call and the container is known."""
        if expr is None or expr[0] != "result" or len(expr[3]) != 1:
            return None
        walk = evaluate(expr[3][0], frame, self._results)
        known = evaluate(expr[2], frame, self._results) is iter and isinstance(walk, CONTAINERS)
        return walk if known else None

    def _is_getter(self, expr: Expr, frame: FrameType) -> bool:
        """Whether it gives attributes of what C code calls it with."""
        x = evaluate(expr, frame, self._results)
        if x is UNKNOWN and expr is not None and expr[0] == "result":
            return evaluate(expr[2], frame, self._results) is operator.attrgetter
        return x is getattr or x.__class__ is operator.attrgetter

    def _down(self, found: list[Any]) -> list[Any]:
        """Values, and what they hold."""
        row, rest = list(found), found
        for _ in range(_DEPTH):
            rest = self._within(rest)
            row += rest
        return list({id(x): x for x in row}.values())

    def _whole(self, expr: Expr, frame: FrameType) -> list[Any]:
        """What an expression's value may be; of a container that is written there, what it is made of."""
        while expr is not None and expr[0] == "iter":
            expr = expr[1]
        if expr is not None and expr[0] == "made":
            return [v for x in expr[1] for v in self._whole(x, frame)]
        if expr is not None and expr[0] in _OPERATORS:
            return self._elements(expr, frame)
        return self._possible(expr, frame)

    def _elements(self, expr: Expr, frame: FrameType) -> list[Any]:
        """What may be an element of an expression's value; of a container that is written there, what it is made of."""
        if expr is None:
            return []
        if expr[0] == "iter":
            return self._elements(expr[1], frame)
        if expr[0] == "made":
            return [v for x in expr[1] for v in self._whole(x, frame)]
        if expr[0] == "any" or expr[0] in _OPERATORS:
            return [v for x in expr[-1] for v in self._elements(x, frame)]
        found = self._possible(expr, frame)
        row = self._within(found)
        if expr[0] == "result":
            row += [x for x in found if not isinstance(x, CONTAINERS)]  # it may hold what the call was given
        made = expr[0] == "result" and evaluate(expr, frame, self._results) is UNKNOWN  # by C code
        if made or any(isinstance(x, types.GeneratorType) or is_iterator(x) for x in found):
            row += self._down(list(self._ledger.handed.get(id(frame), {}).values()))
        return row

    def _within(self, found: list[Any]) -> list[Any]:
        """The elements of containers, those that were there before and further containers; also of those that iterators
        walk along."""
        row: list[Any] = []
        for x in map(behind, found):
            if is_iterator(x) and len(row) < 1000:
                inner = self._within(walked(x))
                of_its_own = id(type(x)) in _ROWS or type(x) is _PAIRS  # a tuple at each turn
                row += [tuple(inner)] if of_its_own else inner
                if type(x) is map or type(x).__module__ == "itertools":  # they may give what elements hold
                    row += self._within(inner)
            if isinstance(x, CONTAINERS) and len(row) < 1000:
                outside = self._ledger.outside
                row += [
                    e
                    for e in (dict.values(x) if isinstance(x, dict) else elements(x))
                    if id(e) in outside or isinstance(e, (list, tuple, dict))
                ]
        return row

    def _in_rows(self, expr: Expr, frame: FrameType) -> Sequence[Expr] | None:
        """What `zip` or `enumerate` goes along, where expr is what they give; nothing for a tuple that they make at a
        turn of a loop, in which elements stand that are not looked into; None for anything else."""
        turn = _is_turn(expr)
        walk = expr[1][1] if expr is not None and turn else expr
        if turn and walk is not None and walk[0] == "local" and type(variable(frame, walk[1])) is _PAIRS:
            return ()
        if walk is None or walk[0] != "result":
            return None
        if id(evaluate(walk[2], frame, self._results)) in _ROWS:
            return () if turn else walk[3]
        pairs = self._in_pairs(walk, frame)
        return () if turn and pairs is not None else pairs

    def _in_pairs(self, expr: Expr, frame: FrameType) -> Sequence[Expr] | None:
        """The dict whose items it is, or a copy of them: tuples that C code makes, in which its values stand."""
        while expr is not None and expr[0] == "result":
            callee, called = evaluate(expr[2], frame, self._results), expr[2]
            if getattr(callee, "__name__", None) == "items" and isinstance(callee, types.BuiltinFunctionType):
                known = isinstance(callee.__self__, dict) and called is not None and called[0] == "attr"
                return (called[1],) if known else None
            if id(callee) not in _COPYING or len(expr[3]) != 1:
                break
            expr = expr[3][0]
        return None
