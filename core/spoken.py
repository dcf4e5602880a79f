"""Other libraries' names for arguments, how it is said here, and functions that tell who calls them by a wrong one."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType
from typing import Any

from . import kinds
from .blame import blame, blamed
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    CopyError,
    DuogradError,
    IndexingError,
    OutOfMemoryError,
    is_internal,
    is_library_file,
    is_own_file,
    spelled_names,
    user_line,
)
from .parameters import Parameters, parameters
from .strangers import STUMBLES, outside, unfit

#: names for an argument of the same meaning (or the remark says what differs): what is nearest comes first
_WORDS = [
    row.split()
    for row in (
        "axis axes dim dims", "keepdims keepdim", "x xs input inputs tensor tensors array arrays a self", "y other b",
        "k diagonal offset", "correction unbiased ddof", "value fill_value val", "min low a_min", "max high a_max",
        "shape size", "count num_samples n", "reps repeats", "source src", "num steps", "index indices indexes",
        "n k", "condition mask cond", "lr learning_rate", "p prob probability", "ord p", "num_classes depth",
        "weights weight", "target labels", "eps epsilon", "generator key rng", "offset diagonal", "sections chunks n",
    )
]  # fmt: skip
#: arguments of other libraries that have no place here, and why
_NEEDLESS = {
    **dict.fromkeys(("fused", "foreach"), "a step is one kernel for all parameters"),
    **dict.fromkeys(("capturable", "differentiable"), "a step inside a graph is part of it"),
    "non_blocking": "copies are in the order of the calls",
    "memory_format": "kernels choose layouts",
    "pin_memory": "memory is not pinned",
}
_ABSENT = object()


def translated(key: str, names: Iterable[str], listed: Iterable[str] = ()) -> str:
    """`write axis= for dim=; ` where a function with these names calls `key` so, or nearly so; else nothing.

    listed: those of the names that are given by position alone.
    """
    names = list(names)
    if key in _NEEDLESS:
        return f"leave {key}= out: {_NEEDLESS[key]}; "
    word = next((w for row in _WORDS if key in row for w in row if w != key and w in names), None)
    if word is None:
        import difflib

        word = next(iter(difflib.get_close_matches(key, names, 1)), None)
    if word is None:
        return ""
    return f"give {word} by position; " if word in listed else f"write {word}= for {key}=; "


def spelled(fn: Callable[..., Any], name: str = "", strict: bool = False) -> Callable[..., Any]:
    """`fn` as users call it: a keyword that it has not, or a missing argument, is an error that says the right one.

    Python refuses such a call before any code of ours runs, so a function with the same parameters stands before fn,
    and one for all other keywords. name: what users call it; strict: the kinds of arguments are looked at, too, before
    fn runs. A function that takes any keyword is given back as it is unless strict. Of a class, its constructor.
    """
    if isinstance(fn, type):
        constructed(fn)
        return fn
    if type(fn) is not FunctionType or hasattr(fn, "spelled"):
        return fn
    p, said = parameters(fn), name or fn.__name__.rstrip("_")
    if strict:
        made: Any = _strict(fn, said)
    elif fn.__code__.co_flags & inspect.CO_VARKEYWORDS:
        return fn
    else:
        made = _listing(fn, p, said) if p.rest else _plain(fn, p, said)
    functools.update_wrapper(made, fn)
    made.__name__ = said
    made.__code__ = made.__code__.replace(co_name=said)  # what a traceback says
    spelled_names.add(said)
    if "." not in fn.__qualname__ or "<" in fn.__qualname__:
        made.__qualname__ = said  # what Python says of too many arguments
    made.spelled = True
    return made  # type: ignore[no-any-return]


def _listing(fn: Any, p: Parameters, said: str) -> Any:
    """For a function with `*rest`: where it refuses a call itself, before its first line, that is said in our words."""
    names = (*p.positional[fn.__code__.co_posonlyargcount :], *p.keyword)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs) if kwargs else fn(*args)
        except STUMBLES as e:
            wrong = [n for n in kwargs if n not in names]
            rest = (*p.positional[len(args) :], *p.keyword)
            missing = [n for n in rest if n not in p.defaults and n not in kwargs]
            for n in p.positional[: len(args)]:
                if n in kwargs:
                    raise ArgumentTypeError(said, f"got {n}= twice", _usage(fn, said)) from None
            if e.__traceback__.tb_next or not (wrong or missing):  # type: ignore[union-attr]
                explain(fn, said, e, {**{f"argument {k}": x for k, x in enumerate(args)}, **kwargs})
                raise
        refuse(fn, said, wrong, missing)

    return call


def _plain(fn: Any, p: Parameters, said: str) -> Any:
    """For a function without `*rest`: one with its parameters, which hands them on by position.

    How many there are, and which must be given, makes a template: instructions count variables and do not know their
    names, nor which of them take keywords alone, so nothing is compiled for each function.
    """
    names, posonly = (*p.positional, *p.keyword), fn.__code__.co_posonlyargcount
    required = frozenset(k for k, n in enumerate(names) if n not in p.defaults)
    flags = frozenset(k for k, n in enumerate(names) if isinstance(p.defaults.get(n), bool))
    code = _template(len(names), required, flags).replace(
        co_varnames=(*names, "_more", "_other", "_error"), co_name=said, co_qualname=said,
        co_argcount=len(p.positional), co_posonlyargcount=posonly, co_kwonlyargcount=len(p.keyword),
    )  # fmt: skip
    all_listed = fn.__code__.replace(co_argcount=len(names), co_kwonlyargcount=0)
    listed = FunctionType(all_listed, fn.__globals__, fn.__name__, None, fn.__closure__)
    listed.__wrapped__ = fn  # type: ignore[attr-defined]
    made = FunctionType(code, globals(), said, None, (_cell(listed),))
    functools.update_wrapper(made, fn)
    made.__defaults__ = tuple(p.defaults.get(n, _ABSENT) for n in p.positional)
    made.__kwdefaults__ = {n: p.defaults.get(n, _ABSENT) for n in p.keyword}
    return made


def _cell(x: Any) -> Any:
    return (lambda: x).__closure__[0]  # type: ignore[index]


@functools.cache
def _template(count: int, required: frozenset[int], flags: frozenset[int]) -> CodeType:
    """The code of a function that hands `count` arguments on to `fn`; flags: those that are True or False."""
    names = [f"a{k}" for k in range(count)]
    missing = "".join(f" or a{k} is _ABSENT" for k in sorted(required))
    other = " or ".join(f"a{k}.__class__ is not bool" for k in sorted(flags)) or "False"
    row = "".join(f"{n}, " for n in names)
    text = (
        f"def make(fn):\n def call({row}*more, **wrong):\n  if wrong or more{missing}:\n"
        f"   _refuse_call(fn.__wrapped__, wrong, more, ({row}))\n"
        f"  if {other}:\n   _refuse_flags(fn.__wrapped__, ({row}))\n  try:\n   return fn({row})\n"
        f"  except STUMBLES as e:\n   _explain(fn.__wrapped__, e, ({row}))\n   raise\n return call"
    )
    scope: dict[str, Any] = {}
    exec(compile(text, __file__, "exec"), scope)
    return scope["make"](None).__code__  # type: ignore[no-any-return]


def _refuse_call(fn: Any, wrong: dict[str, Any], more: tuple[Any, ...], given: tuple[Any, ...]) -> None:
    p = parameters(fn)
    missing = [n for n, x in zip((*p.positional, *p.keyword), given) if x is _ABSENT]
    refuse(fn, sys._getframe(1).f_code.co_name, wrong, missing, len(p.positional) + len(more) if more else 0)


def _refuse_flags(fn: Any, given: tuple[Any, ...]) -> None:
    p = parameters(fn)
    for name, x in zip((*p.positional, *p.keyword), given):
        if isinstance(p.defaults.get(name), bool) and not kinds.truth(x):
            op = sys._getframe(1).f_code.co_name
            raise ArgumentTypeError(op, *unfit(name, x, kinds.FLAG.words))


def _usage(fn: Any, op: str) -> str:
    p = parameters(fn)
    of_self = p.positional[:1] == ("self",)
    usage = [n if n not in p.defaults else f"{n}=" for n in p.positional[of_self:]]
    usage += [f"*{p.rest}"] * bool(p.rest) + [f"{n}=" for n in p.keyword]
    method = of_self and fn.__name__ != "__init__"
    return f"it takes {'x.' if method else ''}{op}({', '.join(usage)})"


def refuse(fn: Any, op: str, wrong: Iterable[str], missing: list[str], count: int = 0) -> None:
    """Raise for a call with these keywords that fn has not, for too many (`count`) or for missing arguments."""
    p = parameters(fn)
    names, rest = (*p.positional, *p.keyword), (p.rest,) if p.rest else ()
    of_self = names[:1] == ("self",)
    takes = _usage(fn, op)
    listed = (*names[: fn.__code__.co_posonlyargcount], *rest)
    for key in wrong:
        if key in listed:
            raise ArgumentTypeError(op, f"got {key}= which is given by position", takes)
        hint = translated(key, (*names[of_self:], *rest), listed)
        raise ArgumentTypeError(op, f"got {key}= but takes no such argument", hint + takes)
    if count:
        most = len(p.positional) - of_self
        raise ArgumentTypeError(op, f"takes {most or 'none'} by position, got {count - of_self}", takes)
    raise ArgumentTypeError(op, f"misses {', '.join(missing)}", takes)


def _explain(fn: Any, error: Exception, given: tuple[Any, ...]) -> None:
    """Raise what an error that Python raised in code of ours is to a caller who gave these arguments."""
    p = parameters(fn)
    explain(fn, sys._getframe(1).f_code.co_name, error, dict(zip((*p.positional, *p.keyword), given)))


def explain(fn: Any, op: str, error: Exception, given: dict[str, Any]) -> None:
    """Raise for the first argument of another kind than asked, else in the words of an error that Python raised.

    Nothing is raised where the error is one of ours already, or comes from code of the user that was called.
    """
    defaults = parameters(fn).defaults
    shown = {n: x for n, x in given.items() if x is not defaults.get(n, _ABSENT)}
    if not may_say_more(op, error, shown) or not is_own_error(error):
        return
    refuse_kinds(fn, op, given)
    raise in_words(op, error, shown, defaults, _usage(fn, op)) from error


def may_say_more(op: str, error: Exception, given: dict[str, Any]) -> bool:
    """Whether an error is not in our words, or of what no tensor can be made of, which is among the arguments."""
    if not isinstance(error, DuogradError):
        return True
    return error.op == "tensor" != op and blamed(error, given) is not None


def in_words(
    op: str, error: Exception, given: dict[str, Any], defaults: dict[str, Any], usage: str
) -> DuogradError:
    """An error that Python or a library raised in code of ours, for a caller who gave these arguments."""
    kind = next((k for c, k in _ERRORS if isinstance(error, c)), ArgumentError)
    return kind(op, *blame(error, given, defaults, usage), user_line(2))  # type: ignore[no-any-return]


def refuse_kinds(fn: Any, op: str, given: dict[str, Any]) -> bool:
    """Raise for the first argument of another kind than its annotation names. Returns: whether classes decided it."""
    by_class = True
    for name, x in given.items():
        kind = kinds.of(fn, name)
        if kind is not None:
            if not kind.fits(x):
                if kind.near is not None and kind.near(x):
                    raise ArgumentError(op, *outside(name, x, kind.words))
                raise ArgumentTypeError(op, *unfit(name, x, kind.words))
            by_class = by_class and (kind.by_class or x.__class__ in kinds.PLAIN)
    return by_class


_ERRORS: tuple[tuple[Any, Any], ...] = (
    ((TypeError, AttributeError), ArgumentTypeError), (IndexError, IndexingError), (MemoryError, OutOfMemoryError),
    (BufferError, CopyError),
)  # fmt: skip


def is_own_error(error: BaseException) -> bool:
    """Whether no code of the user stands between the frame that asks and where an error was raised."""
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        file = code.co_filename
        if not (is_internal(code) or is_library_file(file)):
            return False
        at = at.tb_next
    return True


def constructed(cls: Any) -> None:
    """Make the `__init__` that a class of ours has or inherits one that says what is wrong with its arguments.

    What a subclass of a user defines is left alone, and so are bases that are not public: one look is enough. What
    arguments' classes were found good is not looked at again.
    """
    fn = cls.__init__
    if (
        type(fn) is not FunctionType
        or hasattr(fn, "spelled")
        or not is_own_file(fn.__code__.co_filename)
        or parameters(fn).names in (("self",), ("self", "args"))
    ):
        return
    seen: set[tuple[Any, ...]] = set()

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        key = args and tuple(map(type, args))
        if kwargs:
            key = (*key, *kwargs, *map(type, kwargs.values()))
        if key not in seen and _admit(fn, _called(self, __init__), args, kwargs):
            seen.add(key)
        try:
            if key:
                fn(self, *args, **kwargs)
            else:
                fn(self)
        except STUMBLES as e:
            explain(fn, _called(self, __init__), e, _bound(fn, args, kwargs))
            raise

    made: Any = functools.update_wrapper(__init__, fn)
    made.spelled = True
    cls.__init__ = made


def _called(x: Any, made: Any) -> str:
    """What users call the class with this constructor."""
    return next((c.__name__ for c in type(x).__mro__ if c.__init__ is made), type(x).__name__)  # type: ignore[misc]


def _strict(fn: Any, said: str) -> Any:
    """For a function that does much: looks at its arguments as `constructed` does."""
    seen: set[tuple[Any, ...]] = set()
    first = parameters(fn).positional[:1] == ("self",)

    def call(*args: Any, **kwargs: Any) -> Any:
        given = args[first:]
        key = (*map(type, given), *kwargs, *map(type, kwargs.values()))
        if key not in seen and _admit(fn, said, given, kwargs):
            seen.add(key)
        try:
            return fn(*args, **kwargs)
        except STUMBLES as e:
            explain(fn, said, e, _bound(fn, given, kwargs))
            raise

    return call


def explain_call(
    method: Any, op: str, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """`explain` for a method of ours, with the arguments of a call that may not fit it. Nothing for the user's own."""
    fn = getattr(method, "__func__", None)
    if type(fn) is not FunctionType or not is_own_file(fn.__code__.co_filename):
        return
    if not isinstance(error, DuogradError) and is_own_error(error):
        _admit(fn, op, args, kwargs)
        explain(fn, op, error, _bound(fn, args, kwargs))


def spell_methods(cls: Any, names: str) -> None:
    """Make methods of a class, which do much, strict functions."""
    for name in names.split():
        setattr(cls, name, spelled(cls.__dict__[name], name, strict=True))


def _names(fn: Any) -> tuple[str, ...]:
    """The parameters of a function that may be given by position, without self."""
    names = parameters(fn).positional
    return names[1:] if names[:1] == ("self",) else names


def _bound(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = _names(fn)
    more = {f"argument {k}": x for k, x in enumerate(args[len(names) :], len(names))}
    return {**dict(zip(names, args)), **more, **kwargs}


def _admit(fn: Any, op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Raise for arguments that do not fit. Returns: whether others of the same classes fit, too."""
    p, names = parameters(fn), _names(fn)
    missing = [n for n in (*names[len(args) :], *p.keyword) if n not in p.defaults and n not in kwargs]
    wrong = [n for n in kwargs if n not in names and n not in p.keyword]
    if fn.__code__.co_flags & inspect.CO_VARKEYWORDS:
        wrong = []
    if len(args) > len(names) and not p.rest:
        refuse(fn, op, wrong, missing, len(args) + len(p.positional) - len(names))
    if wrong or missing:
        refuse(fn, op, wrong, missing)
    for name in names[: len(args)]:
        if name in kwargs:
            raise ArgumentTypeError(op, f"got {name}= twice", _usage(fn, op))
    by_class = refuse_kinds(fn, op, _bound(fn, args, kwargs))
    return by_class and all(_is_lasting(type(v)) for v in (*args, *kwargs.values()))


def _is_lasting(cls: type) -> bool:
    """Whether a class lives as long as the framework."""
    return cls.__module__ == "builtins" or cls.__module__.startswith(__name__.partition(".")[0] + ".")


def spell(scope: dict[str, Any], names: Iterable[str], strict: bool = False) -> None:
    """Put `spelled` functions in the place of a public module's functions, and where these come from (for pickle)."""
    for name in names:
        plain = scope[name]
        scope[name] = made = spelled(plain, name, strict)
        if made is not plain:
            home, word = sys.modules[plain.__module__], plain.__name__
            if getattr(home, word, None) is plain:
                setattr(home, word, made)
