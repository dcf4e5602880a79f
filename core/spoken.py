"""Other libraries' names for arguments, how it is said here, and functions that tell who calls them by a wrong one."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType
from typing import Any

from .errors import ArgumentTypeError
from .parameters import Parameters, parameters

#: names for an argument of the same meaning (or the remark says what differs): what is nearest comes first
_WORDS = [
    row.split()
    for row in (
        "axis axes dim dims", "keepdims keepdim", "x xs input inputs tensor tensors array arrays a self", "y other b",
        "k diagonal offset", "correction unbiased ddof", "value fill_value", "min low a_min", "max high a_max",
        "shape size", "count num_samples n", "reps repeats", "source src", "num steps", "index indices indexes",
        "n k", "condition mask cond", "lr learning_rate", "p prob probability", "ord p", "num_classes depth",
        "weights weight", "target labels", "eps epsilon", "generator key rng", "offset diagonal", "sections chunks n",
    )
]  # fmt: skip
_ABSENT = object()


def translated(key: str, names: Iterable[str], listed: Iterable[str] = ()) -> str:
    """`write axis= for dim=; ` where a function with these names calls `key` so, or nearly so; else nothing.

    listed: those of the names that are given by position alone.
    """
    names = list(names)
    word = next((w for row in _WORDS if key in row for w in row if w != key and w in names), None)
    if word is None:
        import difflib

        word = next(iter(difflib.get_close_matches(key, names, 1)), None)
    if word is None:
        return ""
    return f"give {word} by position; " if word in listed else f"write {word}= for {key}=; "


def spelled(fn: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """`fn` as users call it: a keyword that it has not, or a missing argument, is an error that says the right one.

    Python refuses such a call before any code of ours runs, so a function with the same parameters stands before fn,
    and one for all other keywords. name: what users call it. A function that takes any keyword is
    given back as it is.
    """
    if (
        type(fn) is not FunctionType
        or fn.__code__.co_flags & inspect.CO_VARKEYWORDS
        or hasattr(fn, "spelled")
    ):
        return fn
    p, said = parameters(fn), name or fn.__name__.rstrip("_")
    made: Any = _listing(fn, p, said) if p.rest else _plain(fn, p, said)
    functools.update_wrapper(made, fn)
    made.__name__ = said
    if "." not in fn.__qualname__ or "<" in fn.__qualname__:
        made.__qualname__ = said  # what Python says of too many arguments
    made.spelled = True
    return made  # type: ignore[no-any-return]


def _listing(fn: Any, p: Parameters, said: str) -> Any:
    """For a function with `*rest`, which is slow to hand on with keywords: these are looked at where there are any."""
    names = frozenset((*p.positional[fn.__code__.co_posonlyargcount :], *p.keyword))
    required = [(k, n) for k, n in enumerate(p.positional) if n not in p.defaults]
    required += [(10**9, n) for n in p.keyword if n not in p.defaults]
    need = 10**9 if required and required[-1][0] == 10**9 else len(required)

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) < need:
            wrong = [n for n in kwargs if n not in names]
            missing = [n for k, n in required if k >= len(args) and n not in kwargs]
            if wrong or missing:
                refuse(fn, said, wrong, missing)
            return fn(*args, **kwargs)
        return fn(*args)

    return call


def _plain(fn: Any, p: Parameters, said: str) -> Any:
    """For a function without `*rest`: one that hands its parameters on, by names that are put in a template's place.

    The instructions count variables and do not know their names, so nothing is compiled for each function.
    """
    names = (*p.positional, *p.keyword)
    absent = frozenset(k for k, n in enumerate(names) if n not in p.defaults)
    marks = {f"k{k}": n for k, n in enumerate(p.keyword)}
    code = _template(len(p.positional), len(p.keyword), absent)
    code = code.replace(
        co_varnames=(*names, "_other"),
        co_consts=tuple(p.keyword if c == (*marks,) != () else c for c in code.co_consts),
        co_posonlyargcount=fn.__code__.co_posonlyargcount,
        co_name=said,
        co_qualname=said,
    )
    made = FunctionType(code, globals(), said, None, (_cell(fn),))
    functools.update_wrapper(made, fn)
    made.__defaults__ = tuple(p.defaults.get(n, _ABSENT) for n in p.positional)
    made.__kwdefaults__ = {n: p.defaults.get(n, _ABSENT) for n in p.keyword}
    return made


def _cell(x: Any) -> Any:
    return (lambda: x).__closure__[0]  # type: ignore[index]


@functools.cache
def _template(positional: int, keyword: int, absent: frozenset[int]) -> CodeType:
    """The code of a function that hands its arguments on to `fn` and has a default for each."""
    names = [f"a{k}" for k in range(positional)]
    marks = [f"k{k}" for k in range(keyword)]
    takes = [f"{n}=0" for n in names] + ["*"] * bool(marks) + [f"{n}=0" for n in marks] + ["**wrong"]
    gives = names + [f"{n}={n}" for n in marks]
    missing = "".join(f" or {n} is _ABSENT" for k, n in enumerate(names + marks) if k in absent)
    text = (
        f"def make(fn):\n def call({', '.join(takes)}):\n  if wrong{missing}:\n   _refuse_call(fn, wrong, "
        f"({''.join(n + ', ' for n in names + marks)}))\n  return fn({', '.join(gives)})\n return call"
    )
    scope: dict[str, Any] = {}
    exec(compile(text, __file__, "exec"), scope)
    return scope["make"](None).__code__  # type: ignore[no-any-return]


def _refuse_call(fn: Any, wrong: dict[str, Any], given: tuple[Any, ...]) -> None:
    p = parameters(fn)
    missing = [n for n, x in zip((*p.positional, *p.keyword), given) if x is _ABSENT]
    refuse(fn, sys._getframe(1).f_code.co_name, wrong, missing)


def refuse(fn: Any, op: str, wrong: Iterable[str], missing: list[str]) -> None:
    """Raise for a call with these keywords that fn has not, else for missing arguments."""
    p = parameters(fn)
    names, rest = (*p.positional, *p.keyword), (p.rest,) if p.rest else ()
    of_self = names[:1] == ("self",)
    usage = [n if n not in p.defaults else f"{n}=" for n in p.positional[of_self:]]
    usage += [f"*{n}" for n in rest] + [f"{n}=" for n in p.keyword]
    takes = f"it takes {'x.' if of_self else ''}{op}({', '.join(usage)})"
    listed = (*names[: fn.__code__.co_posonlyargcount], *rest)
    for key in wrong:
        if key in listed:
            raise ArgumentTypeError(op, f"got {key}= which is given by position", takes)
        hint = translated(key, (*names[of_self:], *rest), listed)
        raise ArgumentTypeError(op, f"got {key}= but takes no such argument", hint + takes)
    raise ArgumentTypeError(op, f"misses {', '.join(missing)}", takes)


def spell(scope: dict[str, Any], names: Iterable[str]) -> None:
    """Put `spelled` functions in the place of a public module's functions, and where these come from (for pickle)."""
    for name in names:
        plain = scope[name]
        scope[name] = made = spelled(plain, name)
        if made is not plain:
            home, word = sys.modules[plain.__module__], plain.__name__
            if getattr(home, word, None) is plain:
                setattr(home, word, made)
