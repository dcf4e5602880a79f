"""Guards: what must still hold so that a traced variant fits a call, compiled into one function.

A guard is a line of Python with constants bound to it. `compile_guards` joins all lines of a variant into one
function without loops. Plain data is compared by identity first, then by type and value (`same`): 0, 0.0 and
False differ, NaN equals itself. Objects, modules, functions and tensors are compared by identity.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import keyword
import operator
from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any

from ..core.members import part_of
from ..core.value import Tensor
from .caches import used
from .identity import Identity
from .lookup import holder_of, in_class, setter_of, specials
from .plain import ABSENT, brief, count, elements, hooks_of, is_plain, same, sees
from .reads import Read, getattr_of, own_at
from .recorder import ReadRecorder

__all__ = ["Guard", "Guards", "ReadRecorder", "compile_guards"]

#: containers of at most this many elements are compared element by element in the generated source
_UNROLLED = 24


class Guard:
    """One condition.

    rank: order of checking, small first. test: source of the condition, its constants as `{0}`, `{1}`, ...
    constants: what these stand for. text: the condition in words; was: the value in words; now: gives the
    value of this moment (or raises); where: (code, line) of the read, or `file:line`;
    held: what a container held, where its words do not say all.
    """

    __slots__ = ("constants", "held", "now", "rank", "test", "text", "was", "where")

    def __init__(
        self,
        rank: int,
        test: str,
        constants: Sequence[Any],
        text: str,
        was: str = "",
        now: Callable[[], Any] | None = None,
        where: Any = "",
        held: Any = None,
    ):
        self.rank, self.test, self.constants, self.text = rank, test, tuple(constants), text
        self.was, self.now, self.where, self.held = was, now, where, held

    @property
    def line(self) -> str:
        """`file:line` of the read."""
        if isinstance(self.where, tuple):
            code, line = self.where
            return f"{code.co_filename}:{line}" if isinstance(code, CodeType) else f"{code}:{line}"
        return str(self.where)

    def holds(self, given: Sequence[int] = ()) -> bool:
        """Check this guard alone (slow). given: ids of the containers among the call's arguments."""
        return _compile([self])(given)

    def failure(self) -> str:
        """A sentence for a guard that does not hold."""
        at = f", read at {self.line}" if self.line else ""
        if self.now is None:
            return f"no longer: {self.text}{at}" if self.test != "False" else self.text + at
        try:
            value = self.now()
            now = brief(value)
        except Exception:
            value, now = None, "absent"
        else:
            if self.held is not None and (change := _change(self.text.split(" == ")[0], self.held, value)):
                return change + at
        name = self.text.split(" == ")[0].split(" is ")[0].split(" holds ")[0]
        if now == self.was:
            now = "another one"
            if isinstance(value, Tensor):
                now += "; passed as an argument, or copied into the first, it needs no trace"
        return f"{name} was {self.was}, now {now}{at}"

    def __str__(self) -> str:
        return self.text + (f"  ({self.line})" if self.line else "")


def _change(name: str, held: Any, now: Any) -> str:
    """The first element that a container does not hold any more, or holds too; "" where that says nothing."""
    if isinstance(held, dict) and isinstance(now, dict):
        lost, new = [k for k in held if k not in now], [k for k in now if k not in held]
        if lost or new:
            return f"{name} " + (f"has {brief(new[0])} now" if new else f"has no {brief(lost[0])} any more")
        changed = [k for k, v in held.items() if not same(v, now[k])]
    elif isinstance(held, list) and isinstance(now, list) and len(held) == len(now):
        changed = [k for k, v in enumerate(held) if not same(v, now[k])]
    else:
        return ""
    if not changed:
        return f"{name} has another order" if isinstance(held, dict) else ""
    k = changed[0]
    return f"{name}[{brief(k)}] was {brief(held[k])}, now {brief(now[k])}"


def equals(expression: str, value: Any, n: int, identity: Identity) -> tuple[str, tuple[Any, ...]]:
    """The cheapest test that `expression` gives `value` again, and its constants, numbered from n."""
    if value is None or value is True or value is False:
        return f"{expression} is {value}", ()
    if id(value) in identity.roles:
        return f"id({expression}) == given[{identity.roles[id(value)][0]}]", ()
    if is_plain(value):
        return f"({expression} is {{{n}}} or same({expression}, {{{n}}}))", (value,)
    if id(value) in identity.fixed or not isinstance(value, (list, dict, set, tuple)):
        return f"{expression} is {{{n}}}", (value,)
    test = f"{{{n + 1}}}.alike({expression}, {{{n}}}, given)"
    if not identity.has_role(value):
        test = f"({expression} is {{{n}}} or {test})"
    return test, (value, identity)


def _literal(key: Any) -> str:
    return repr(key).replace("{", "{{").replace("}", "}}")


def attribute(owner: str, name: str) -> str:
    """Source that reads an attribute, whose name may be none of Python's language: `lambda`, `max-size`."""
    plain = name.isidentifier() and name.isascii() and not keyword.iskeyword(name)
    return f"{owner}.{name}" if plain else f"getattr({owner}, {name!r})"


def contents(constant: str, x: Any, first: int, exact: bool, identity: Identity) -> tuple[str, list[Any]]:
    """A test that a container still holds x, and its constants, numbered from `first`.

    exact: it is a list or a dict, not of a derived class, whose code would run.
    """
    values = list(dict.values(x) if isinstance(x, dict) else x)
    keys = list(x) if isinstance(x, dict) else None
    plain_keys = keys is None or all(type(k) in (str, int, bool) for k in keys)
    if exact and len(values) <= _UNROLLED and plain_keys:
        tests = [f"len({constant}) == {len(values)}"]
        bound: list[Any] = []
        for k, v in enumerate(values):
            place = f"{constant}[{k if keys is None else _literal(keys[k])}]"
            test, more = equals(place, v, first + len(bound), identity)
            tests.append(test)
            bound += more
        if keys is not None and len(keys) > 1:
            tests.append(f"[*{constant}] == {{{first + len(bound)}}}")
            bound.append(keys)
        return " and ".join(tests), bound
    first_of = "values({0})" if keys is not None else "elements({0})"
    tests, bound = [f"count({constant}) == {len(values)}"], []
    if keys is not None:
        tests.append(f"all(map(same, elements({constant}), {{{first}}}))")
        bound.append(tuple(keys))
    n = first + len(bound)
    if all(map(is_plain, values)):
        tests.append(f"all(map(same, {first_of.format(constant)}, {{{n}}}))")
        return " and ".join(tests), [*bound, tuple(values)]
    tests.append(f"all(map({{{n + 1}}}.alike, {first_of.format(constant)}, {{{n}}}, again(given)))")
    return " and ".join(tests), [*bound, tuple(values), identity]


class Namespace:
    """A function under construction: its constants as names of its globals, and lines of source.

    Globals are collected when they are part of a cycle, unlike constants put into a code object.
    """

    def __init__(self, **known: Any):
        self._names: dict[int, str] = {}
        self.space: dict[str, Any] = {**_SPACE, "__builtins__": builtins, **known}

    def bind(self, x: Any) -> str:
        """The name of a constant."""
        name = self._names.get(id(x))
        if name is None:
            name = self._names[id(x)] = f"c{len(self._names)}"
            self.space[name] = x
        return name

    def tests(self, guards: Sequence[Guard], otherwise: str, indent: int) -> list[str]:
        """Lines that go on when all guards hold, and else do `otherwise`."""
        lines: list[str] = []
        seen: set[tuple[str, ...]] = set()
        before = " " * indent
        for g in guards:
            if not g.test:
                continue
            bound = [self.bind(x) for x in g.constants]
            if (g.test, *bound) in seen:
                continue
            seen.add((g.test, *bound))
            if g.test.count("{0}") > 2:  # a local is cheaper than a global
                lines.append(f"{before}t = {bound[0]}")
                bound[0] = "t"
            lines.append(f"{before}if not ({g.test.format(*bound)}): {otherwise}")
        return lines

    def function(self, name: str, lines: Sequence[str]) -> Any:
        """The function `name` that the lines define."""
        exec(_code("\n".join(lines)), self.space)
        return self.space[name]


def _compile(guards: Sequence[Guard]) -> Callable[..., bool]:
    names = Namespace()
    tests = names.tests(guards, "return False", 8)
    lines = [
        "def check(given=()):",
        "    try:",
        *tests,
        "        return True",
        "    except Exception:",
        "        return False",
    ]
    check: Callable[..., bool] = names.function("check", lines)
    return check


@functools.lru_cache(maxsize=512)
def _code(source: str) -> CodeType:
    """Variants of a function mostly read the same, so their guards differ in the constants only."""
    return compile(source, "<duograd guards>", "exec")


class Guards:
    """All guards of a variant. check(given): whether it fits now, as one compiled function that never raises.

    given: ids of the containers among the call's arguments.
    """

    def __init__(self, guards: Iterable[Guard]):
        self.guards = sorted(guards, key=lambda g: g.rank)
        self.check = _compile(self.guards)

    def __len__(self) -> int:
        return len(self.guards)

    def explain(self) -> list[str]:
        """Every guard in words, with the line that read the value."""
        return [str(g) for g in self.guards]

    def first_failure(self, given: Sequence[int] = ()) -> str | None:
        """What does not hold any more, as a sentence; None when all holds."""
        for g in self.guards:
            if g.test and not g.holds(given):
                return g.failure()
        return None


def compile_guards(
    reads: Iterable[Read], extra: Sequence[Guard] = (), identity: Identity | None = None
) -> Guards:
    """Guards over what a trace read (`ReadRecorder.reads`) and the guards in `extra`."""
    identity = Identity() if identity is None else identity
    together: dict[tuple[str, int], list[Read]] = {}
    single = []
    for r in reads:
        if r.kind in _TOGETHER:
            together.setdefault((r.kind, 0 if r.kind == "class" else id(r.owner)), []).append(r)
        else:
            single.append(read_guard(r, identity))
    return Guards([*single, *(_TOGETHER[kind](row) for (kind, _), row in together.items()), *extra])


def read_guard(read: Read, identity: Identity) -> Guard:
    """The guard that the value read is still there."""
    if read.kind in _TOGETHER:
        return _TOGETHER[read.kind]([read])
    return _MAKERS[read.kind](read, identity)


def _template(key: str) -> str:
    """An attribute of the first constant."""
    return attribute("{0}", key) if "{" not in key and "}" not in key else f"getattr({{0}}, {_literal(key)})"


def _attr(r: Read, identity: Identity) -> Guard:
    owner, key, look = r.owner, r.key, getattr_of(r.owner)
    if r.value is ABSENT:
        test = (
            "is_absent({0}, {1})"
            if look is object.__getattribute__
            else "getattr({0}, {1}, ABSENT) is ABSENT"
        )
        return Guard(
            8, test, (owner, key), f"{r.name} is absent", "absent", lambda: look(owner, key), r.where
        )
    place = f"plainly({{0}}, {_literal(key)})" if look is object.__getattribute__ else _template(key)
    test, more = equals(place, r.value, 1, identity)
    return _value_guard(r, 0 if is_plain(r.value) else 20, test, (owner, *more), lambda: look(owner, key))


def _item(r: Read, identity: Identity) -> Guard:
    owner, key = r.owner, r.key
    exact = type(owner) in (dict, list)

    def now() -> Any:
        return dict.get(owner, key, ABSENT) if isinstance(owner, dict) else list.__getitem__(owner, key)

    if r.value is ABSENT:
        return Guard(
            8,
            "contains({0}, {1}) is False",
            (owner, key),
            f"{r.name} is absent",
            "absent",
            now,
            r.where,
        )
    if not exact:
        fetch = "get({0}, {1}, ABSENT)" if isinstance(owner, dict) else "at({0}, {1})"  # never its own code
        constants: tuple[Any, ...] = (owner, key)
        test, more = equals(fetch, r.value, 2, identity)
    elif type(key) in (str, int, bool) and len(repr(key)) < 60:
        constants = (owner,)
        test, more = equals(f"{{0}}[{_literal(key)}]", r.value, 1, identity)
    else:
        constants = (owner, key)
        test, more = equals("{0}[{1}]", r.value, 2, identity)
    return _value_guard(r, 5 if is_plain(r.value) else 21, test, (*constants, *more), now)


def _cell(r: Read, identity: Identity) -> Guard:
    cell = r.owner
    if r.value is ABSENT:
        return Guard(
            8,
            "is_empty({0})",
            (cell,),
            f"{r.name} is not assigned",
            "absent",
            lambda: cell.cell_contents,
            r.where,
        )
    test, more = equals("{0}.cell_contents", r.value, 1, identity)
    return _value_guard(r, 6 if is_plain(r.value) else 22, test, (cell, *more), lambda: cell.cell_contents)


def _value_guard(r: Read, rank: int, test: str, constants: Sequence[Any], now: Callable[[], Any]) -> Guard:
    words = brief(r.value)
    return Guard(
        rank, test, constants, f"{r.name} {'==' if is_plain(r.value) else 'is'} {words}", words, now, r.where
    )


def _content(r: Read, identity: Identity) -> Guard:
    test, constants = contents("{0}", r.value, 1, type(r.owner) in (list, dict), identity)
    owner, words = r.owner, brief(r.value)
    held = r.value if words.startswith("a ") else None  # else the words say all
    return Guard(10, test, (owner, *constants), f"{r.name} == {words}", words, lambda: owner, r.where, held)


def _names(r: Read, identity: Identity) -> Guard:
    owner, names = r.owner, [*r.value]
    words = ", ".join(names)
    return Guard(
        9, "[*{0}] == {1}", (owner, names), f"{r.name} == {words}", words, lambda: dict.fromkeys(owner), r.where,
        dict.fromkeys(names),
    )  # fmt: skip


def _length(r: Read, identity: Identity) -> Guard:
    owner = r.owner
    return Guard(
        8,
        f"len({{0}}) == {r.value}",
        (owner,),
        f"{r.name} == {r.value}",
        str(r.value),
        lambda: len(owner),
        r.where,
    )


def _truth(r: Read, identity: Identity) -> Guard:
    words = "has elements" if r.value else "is empty"
    return Guard(8, f"(len({{0}}) > 0) is {r.value}", (r.owner,), f"{r.name} {words}", words, where=r.where)


def _has(r: Read, identity: Identity) -> Guard:
    owner, key = r.owner, r.key
    test = f"contains({{0}}, {{1}}) is {r.value}"
    return Guard(
        8,
        test,
        (owner, key),
        f"{r.name} == {r.value}",
        str(r.value),
        lambda: dict.__contains__(owner, key),
        r.where,
    )


def _array(r: Read, identity: Identity) -> Guard:
    a = r.owner
    test = "{0}.tobytes() == {1} and {0}.shape == {2} and {0}.dtype is {3} and {0}.flags.writeable is {4}"
    return Guard(
        12,
        test,
        (a, r.value, a.shape, a.dtype, a.flags.writeable),
        f"the elements of {r.name} are the same",
        where=r.where,
    )


def _method(r: Read, identity: Identity) -> Guard:
    owner, key, value = r.owner, r.key, r.value
    return Guard(
        35, f"{_template(key)} is {{1}}", (owner, value), f"{r.name} is {brief(value)}", brief(value),
        lambda: getattr(owner, key), r.where,
    )  # fmt: skip


def _static(r: Read, identity: Identity) -> Guard:
    owner, key, value = r.owner, r.key, r.value
    plain = type(value) is property and type(owner) is type
    test = f"{_template(key)} is {{1}}" if plain else f"in_class({{0}}, {_literal(key)}) is {{1}}"
    return Guard(
        35,
        test,
        (owner, value),
        f"{r.name} is {brief(value)}",
        brief(value),
        lambda: in_class(owner, key),
        r.where,
    )


def _code_of(r: Read, identity: Identity) -> Guard:
    f, code = r.owner, r.value
    return Guard(33, "{0}.__code__ is {1}", (f, code), f"{r.name} is the same", where=r.where)


def _bases(r: Read, identity: Identity) -> Guard:
    cls, row = r.owner, r.value
    test = "({0}.__mro__ is {1} or {0}.__mro__ == {1})"
    return Guard(33, test, (cls, row), f"{r.name} are the same", where=r.where)


def _holder(r: Read, identity: Identity) -> Guard:
    cls, key = r.owner, r.key
    return Guard(
        33, f"holder_of({{0}}, {key!r}) is {{1}}", (cls, r.value), f"{r.name} is {brief(r.value)}", brief(r.value),
        lambda: holder_of(cls, key), r.where,
    )  # fmt: skip


def _kind(r: Read, identity: Identity) -> Guard:
    cls, key = r.owner, r.key
    return Guard(
        36, f"issubclass({{0}}, {{1}}) is {r.value}", (key, cls), f"{r.name} == {r.value}", str(r.value),
        lambda: issubclass(key, cls), r.where,
    )  # fmt: skip


def _widths(r: Read, identity: Identity) -> Guard:
    spaces = [cls.__dict__ for cls in r.owner]
    test = "[*map(len, {0})] == {1} or [*map(specials, {0})] == {2}"  # other names have guards of their own
    return Guard(37, test, (spaces, *r.value), f"no special names came or went in {r.name}")


def _classes(row: list[Read]) -> Guard:
    """Objects have the classes that they had: one guard for all."""
    owners, classes = [r.owner for r in row], [r.value for r in row]
    held = {r.name: r.value for r in row}
    return Guard(
        34, "[*map(type, {0})] == {1}", (owners, classes), f"classes == those of {len(row)} objects", "others",
        lambda: {r.name: type(r.owner) for r in row}, row[0].where, held,
    )  # fmt: skip


def _setters(row: list[Read]) -> Guard:
    """What a class holds under the names of attributes that are set is what it was, or of a kind, or sets none."""
    get, names = row[0].owner.__dict__.get, [r.key for r in row]
    tests, bound = [], [get, names, [r.value[1] for r in row]]
    for r in row:
        kind, _, held = r.value
        place = f"{{0}}({_literal(r.key)})"
        tests.append(
            f"{place} is {{{len(bound)}}}" if is_plain(held) else f"type({place}) is {{{len(bound)}}}"
        )
        bound.append(held if is_plain(held) else kind)
    test = f"{' and '.join(tests)} or [*map(setter_of, map({{0}}, {{1}}))] == {{2}}"
    words = f"no property of {row[0].owner.__name__} sets {', '.join(names)}"
    return Guard(37, test, bound, words, where=row[0].where)


def _unset(row: list[Read]) -> Guard:
    """Names that a module does not have, so that they are what is built in."""
    names = tuple(r.key for r in row)
    words = f"{', '.join(names)} not in the globals of {row[0].owner.get('__name__')}"
    return Guard(32, "{0}.isdisjoint({1})", (row[0].owner.keys(), names), words, where=row[0].where)


def _named(row: list[Read]) -> Guard:
    """What a module has under some names, or what is built in."""
    space, held = row[0].owner, {r.key: r.value for r in row}
    words = f"names of {space.get('__name__')} == {', '.join(held)}"
    fetch, values = operator.itemgetter(*held), tuple(held.values())
    return Guard(
        32, "{1}({0}) == {2}" if len(held) > 1 else "{1}({0}) is {2}",
        (space, fetch, values if len(held) > 1 else values[0]), words, "others",
        lambda: {k: space.get(k, ABSENT) for k in held}, row[0].where, held,
    )  # fmt: skip


def _default(r: Read, identity: Identity) -> Guard:
    f, (defaults, named) = r.owner, r.value
    test = "{3}.alike({0}.__defaults__, {1}, given) and {3}.alike({0}.__kwdefaults__, {2}, given)"
    named = None if named is None else dict(named)
    words = brief(defaults if named is None else named)
    return Guard(
        36,
        test,
        (f, defaults, named, identity),
        f"{r.name} == {words}",
        words,
        lambda: f.__defaults__,
        r.where,
    )


def _filled(r: Read, identity: Identity) -> Guard:
    words = f"{r.name} is {'' if r.value else 'not '}assigned"
    return Guard(8, f"is_empty({{0}}) is {not r.value}", (r.owner,), words, where=r.where)


def _owns(r: Read, identity: Identity) -> Guard:
    test = f"(own_at('attr', {{0}}, {r.key!r}) is not ABSENT) is {r.value}"
    return Guard(8, test, (r.owner,), f"{r.name} is {'' if r.value else 'not '}there", where=r.where)


def _part(r: Read, identity: Identity) -> Guard:
    owner, key, words = r.owner, r.key, r.value or "a plain attribute"
    return Guard(
        7, f"part_of({{0}}, {_literal(key)}) == {r.value!r}", (owner,), f"{r.name}: {words}", words,
        lambda: part_of(owner, key) or "a plain attribute", r.where,
    )  # fmt: skip


def _cached(r: Read, identity: Identity) -> Guard:
    entries = [*used(r.owner, r.key)]
    test = " and ".join(f"{{{k}}}()" for k in range(len(entries)))
    return Guard(
        33, test, [e.holds for e in entries], f"the cache of {r.name} keeps its result", where=r.where
    )


def _level(r: Read, identity: Identity) -> Guard:
    logger, level = r.owner, r.key
    return Guard(
        32, f"{{0}}.isEnabledFor({level}) is {r.value}", (logger,), f"{r.name} == {r.value}", str(r.value),
        lambda: logger.isEnabledFor(level),
    )  # fmt: skip


def _never(r: Read, identity: Identity) -> Guard:
    return Guard(99, "False", (), r.value, where=r.where or "")


def _is_absent(owner: Any, key: str) -> bool:
    try:
        object.__getattribute__(owner, key)
    except AttributeError:
        return True
    return False


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


_MAKERS: dict[str, Callable[[Read, Identity], Guard]] = {
    "attr": _attr, "item": _item, "cell": _cell, "content": _content, "names": _names, "length": _length,
    "truth": _truth, "has": _has, "array": _array,
    "method": _method, "static": _static, "part": _part, "default": _default, "cached": _cached, "level": _level,
    "never": _never, "code": _code_of, "bases": _bases, "holder": _holder, "filled": _filled, "owns": _owns,
    "kind": _kind, "widths": _widths,
}  # fmt: skip
#: kinds of reads for which one guard stands: for all, or for all of one owner
_TOGETHER: dict[str, Callable[[list[Read]], Guard]] = {
    "class": _classes, "unset": _unset, "named": _named, "setter": _setters,
}  # fmt: skip
#: what generated sources may name besides their constants
_SPACE = {
    "same": same, "ABSENT": ABSENT, "values": dict.values, "elements": elements, "count": count,
    "contains": dict.__contains__,
    "get": dict.get, "at": list.__getitem__, "is_empty": _is_empty,
    "plainly": object.__getattribute__, "is_absent": _is_absent, "hooks_of": hooks_of, "sees": sees,
    "again": itertools.repeat, "given": (), "part_of": part_of, "in_class": in_class, "own_at": own_at,
    "holder_of": holder_of, "specials": specials, "setter_of": setter_of,
}  # fmt: skip
