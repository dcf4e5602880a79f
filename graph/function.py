"""`@dg.function`: the mode switch, and the variants a traced function has."""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from ..core import dispatch
from ..core.backend import get_backend
from ..core.errors import ArgumentError, ArgumentTypeError, RetraceError, shortened, user_line
from ..core.showing import shown, tell
from . import arrays, entry, spec
from .arguments import (
    Arguments,
    kind_of,
    loosened,
    names_of,
    owners_of,
)
from .background import Background
from .budget import Budget
from .changing import Changing
from .entry import MISS
from .formulas import Program
from .given import containers_of, flatten
from .looking import Looking
from .overrides import MODES, environment, modes
from .overrides import active as _anywhere
from .path import AgainError, CalledOutError, Path
from .segment import Segment
from .store import store, touch
from .trace import Trace
from .turn import Turn
from .variant import Variant, start_path

#: when a variant is compiled: at the call that needs it, or beside eager calls
COMPILE = ("call", "background")
#: how many variants are asked what changes
#: a variant stays that has served so many calls for each that its live numbers did not do for
_SERVES = 4
_RECENT = 8
#: how many modules that it is called with a function keeps alive
MODULES = 64


def _checks() -> bool:
    from .shadow import wanted

    return wanted()


def _containers(rest: Arguments | None) -> tuple[int, ...]:
    return () if rest is None else rest.containers


def _numbers(rest: Arguments | None) -> list[Any]:
    return [] if rest is None else rest.numbers


_LEAVES = arrays.LEAVES


class Function(Looking):
    """A function with a mode. See `dg.function`."""

    #: names in its `__dict__` that are not for users to set, and properties that are; see `lookup.find`
    _kept: frozenset[str] = frozenset()
    _settable = ("mode",)

    def __init__(
        self, fn: Callable[..., Any], mode: str, precision: str, name: str | None, limit: int | None,
        compile: str = "call",
    ):  # fmt: skip
        # First: what wraps a graph function (`dg.grad(f)`) has its attributes, which are not this one's.
        functools.update_wrapper(self, fn if hasattr(fn, "__name__") else type(fn))
        for name in [n for n in self.__dict__ if not n.startswith("__") and hasattr(type(self), n)]:
            del self.__dict__[name]  # its own `explain` is no method of ours: f.__wrapped__ has it
        self._fn = fn
        self._variants: dict[Any, list[Variant]] = {}
        self._count = 0
        self._limit = limit
        self._dropped = 0
        #: by the modules that it was called with: which variants there were, and may be
        self._budgets: dict[Any, Budget] = {}
        self._kinds: set[Any] = set()
        #: what messages call the objects among arguments, by their ids
        self._names: dict[int, str] = {}
        self._changing = Changing()
        #: kinds of arguments for which its Python runs at every call, and why
        self._python: dict[Any, CalledOutError] = {}
        self._turn = Turn()
        self._background = Background() if compile == "background" else None
        self._checks = _checks()
        self.precision = precision
        self.name: str = name or str(getattr(fn, "__name__", type(fn).__name__))
        self.mode = mode

    @property
    def mode(self) -> str:
        """ "graph" or "eager": how calls run from now on."""
        return self._mode

    @mode.setter
    def mode(self, value: str) -> None:
        if value not in MODES:
            raise ArgumentError(self.name, f"{value!r} is not a mode", f"use one of {', '.join(MODES)}")
        self._mode = value
        self._entries: tuple[Any, ...] = ()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __deepcopy__(self, memo: dict[int, Any]) -> Function:
        """Itself, as any function is; one of a method or a module is a new one, of the copy and without variants."""
        fn = copy.deepcopy(self._fn, memo)
        return self if fn is self._fn else Function(fn, *self._settings())

    def __reduce__(self) -> Any:
        """By name where it stands in its module under its own, as functions are pickled; else as its parts."""
        found: Any = sys.modules.get(getattr(self, "__module__", None) or "")
        path: str = getattr(self, "__qualname__", "")
        for part in path.split("."):
            found = getattr(found, part, None)
        return path if found is self else (Function, (self._fn, *self._settings()))

    def _settings(self) -> tuple[Any, ...]:
        compile = "call" if self._background is None else "background"
        return self._mode, self.precision, self.name, self._limit, compile

    def __repr__(self) -> str:
        return f"<function {self.name}, mode {self._mode}, {self._count} variants>"

    # -- calling ------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._entries and not kwargs and not dispatch._elsewhere and not _anywhere:
            for enter, _ in self._entries:
                result = enter(args)
                if result is not MISS:
                    return result
        sharing = None
        for x in (*args, *kwargs.values()) if kwargs else args:
            if x.__class__ not in _LEAVES:
                if arrays.have_arrays(args, kwargs):
                    sharing = arrays.Sharing(args, kwargs)
                    args, kwargs = sharing.args, sharing.kwargs
                break
        try:
            executor = dispatch.state.executor
            if isinstance(executor, Trace):
                if executor.overrides is not None:
                    inside = modes.set[executor.overrides :]
                    if not inside:
                        executor.modes[id(self)] = self, self._mode
                    if (inside[-1] if inside else self._mode) == "eager":
                        executor.call_out(self.name, None if inside else self)
                return self._fn(*args, **kwargs)  # inside a graph already: part of it
            if modes.set:
                chosen = modes.set[-1]
            else:
                chosen = environment or self._mode
            if chosen == "eager":
                return self._fn(*args, **kwargs)
            return self._graph(args, kwargs)
        finally:
            if sharing is not None:
                sharing.end()

    def eager(self, *args: Any, **kwargs: Any) -> Any:
        """This one call in eager mode."""
        executor = dispatch.state.executor
        if isinstance(executor, Trace) and executor.overrides is not None:
            executor.call_out(f"{self.name}.eager")
        if arrays.have_arrays(args, kwargs):
            with arrays.Sharing(args, kwargs) as (args, kwargs):
                return self._fn(*args, **kwargs)
        return self._fn(*args, **kwargs)

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """This one call in graph mode."""
        if arrays.have_arrays(args, kwargs):
            with arrays.Sharing(args, kwargs) as given:
                return self._graph(*given)
        return self._graph(args, kwargs)

    def _graph(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if dispatch.state.executor is not dispatch._State.executor:  # inside a trace, a vmap, an export
            return self._fn(*args, **kwargs)
        if self._checks:
            from .shadow import checked

            return checked(self, args, kwargs)
        return self.plain_graph(args, kwargs)

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Variant | None]:
        """The tensors of a call, and the variant that fits it."""
        key, tensors, rest = flatten(args, kwargs)
        return tensors, self._fitting(key, tensors, rest)[0]

    def runs_python(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call like this runs its Python each time, because it calls a function in eager mode."""
        return bool(self._python) and self._calls_out(*flatten(args, kwargs))

    def plain_graph(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call in graph mode, not checked."""
        key, tensors, rest = flatten(args, kwargs)
        if self._python and self._calls_out(key, tensors, rest) and self._python[kind_of(key)].chances <= 0:
            return self._fn(*args, **kwargs)
        try:
            return self._in_graph(key, tensors, rest, args, kwargs)
        except CalledOutError as e:
            self._left(key, e)
        except Exception as e:
            e.with_traceback(shortened(e))
            raise
        return self._fn(*args, **kwargs)

    def _left(self, key: Any, error: CalledOutError) -> None:
        """A call with this key did what no graph holds."""
        before = self._python.get(kind_of(key))
        if before is not None:
            error.chances = before.chances - 1
        self._python[kind_of(key)] = error.with_traceback(None)
        tell("retrace", f"{self.name} is left to Python: it {error.told}")

    def _calls_out(self, key: Any, tensors: list[Any], rest: Arguments | None) -> bool:
        """Whether a call like this runs its Python each time: it does what no graph holds."""
        error = self._python.get(kind_of(key))
        if error is not None and error.only is not None and not error.only(tensors, _containers(rest)):
            return False
        if error is not None and error.cause is not None and error.cause.mode != "eager":
            self._python.pop(kind_of(key), None)
            return False
        return error is not None

    def _in_graph(self, key: Any, tensors: list[Any], rest: Any, args: Any, kwargs: Any) -> Any:
        bucket = self._variants.get(key)
        if bucket is not None:
            containers = _containers(rest)
            for variant in bucket:
                if variant.fits(tensors, containers):
                    live = None
                    if variant.live is not None:
                        live = variant.numbers_of(_numbers(rest), tensors)
                        if live is None:
                            continue
                    variant.count()
                    touch(variant)
                    if variant.calls == entry.CALLS and not containers and not kwargs:
                        self._enter_quickly(variant, tensors)
                    return variant.run(tensors, (args, kwargs), live)
        found, live = self._fitting(key, tensors, rest)
        if found is not None:
            found.count()
            touch(found)
            if found.calls == entry.CALLS and not _containers(rest) and not kwargs:
                self._enter_quickly(found, tensors)
            return found.run(tensors, (args, kwargs), live)
        return self._new(key, tensors, rest, args, kwargs)

    def _enter_quickly(self, variant: Variant, tensors: list[Any]) -> None:
        """Give a variant that is called often a way of its own."""
        made = entry.make_entry(variant, tensors, dispatch.state.grad)
        if made is not None and not self._checks and self._mode == "graph" and environment != "eager":
            self._entries = ((made, variant), *self._entries[: entry.ASKED - 1])
            variant.budget.earn()

    def _fitting(
        self, key: Any, tensors: list[Any], rest: Arguments | None
    ) -> tuple[Variant | None, tuple[Any, ...] | None]:
        """The variant for a call, and the values of its live numbers; None where none fits."""
        containers, numbers = _containers(rest), _numbers(rest)
        for k in self._changing.keys(key, rest):
            for variant in self._variants.get(k, ()):
                if variant.fits(tensors, containers):
                    live = None if variant.live is None else variant.numbers_of(numbers, tensors)
                    if variant.live is None or live is not None:
                        return variant, live
        return None, None

    def _new(self, key: Any, tensors: list[Any], rest: Arguments | None, args: Any, kwargs: Any) -> Any:
        self._names.update(names_of(rest))
        if self._background is not None:
            with self._turn:
                if not self._spends_too_much(key, args, kwargs):
                    self._background.first(
                        key,
                        tensors,
                        _containers(rest),
                        lambda: self._start(key, args, kwargs),
                        lambda path: self._publish(key, path),
                    )
            return self._fn(*args, **kwargs)
        with self._turn:
            # Another thread may have traced while this one waited.
            variant, live = self._fitting(key, tensors, rest)
            plainly = variant is None and self._spends_too_much(key, args, kwargs)
            if variant is None and not plainly:
                path, segment = self._trace(key, tensors, rest, args, kwargs)
        if plainly:
            return self._fn(*args, **kwargs)
        return path.run(segment) if variant is None else variant.run(tensors, (args, kwargs), live)

    def _budget(self, key: Any) -> Budget:
        owners = owners_of(key)
        found = self._budgets.get(owners)
        if found is None:
            found = self._budgets[owners] = Budget()
        return found

    def _is_at_limit(self, budget: Budget) -> bool:
        return self._limit is not None and budget.apart >= self._limit

    def _spends_too_much(self, key: Any, args: Any, kwargs: Any) -> bool:
        """Whether a call that no variant fits is left to Python: those made lately were not called again."""
        budget = self._budget(key)
        if budget.allows or self._is_at_limit(budget):  # there it is an error
            return False
        budget.python += 1
        if not budget.why:
            budget.why = self._why(key, args, kwargs)
            tell("retrace", f"{self.name}: {budget.words()}")
        return True

    def _trace(
        self, key: Any, tensors: list[Any], rest: Arguments | None, args: Any, kwargs: Any
    ) -> tuple[Path, Segment]:
        """A new variant for a call, and the segment to run next."""
        # Not those for other objects: what these hold may be at work in another thread, and is not touched.
        own = set() if rest is None else {*map(id, rest.kept)}
        known = [b for b in list(self._variants.values()) if b and own.issuperset(map(id, b[-1].kept.kept))]
        recent = [v for bucket in known[-_RECENT:] for v in bucket[-_RECENT:]]
        program = self._changing.program(self._fn, key, rest, recent, tensors)
        if program is not None and program.sized:
            try:
                loose = key if rest is None else loosened(key, rest, program.positions)
                return self._traced(key, rest, self._start(loose, args, kwargs, program, key))
            except AgainError as e:
                self._changing.gave_up(program, str(e))
            program = self._changing.program(self._fn, key, rest, recent)
        if program is None:
            return self._traced(key, rest, self._start(key, args, kwargs))
        loose = key if rest is None else loosened(key, rest, program.positions)
        path = self._start(loose, args, kwargs, program, key)
        try:
            return self._traced(key, rest, path)
        except AgainError as e:
            why = e.__cause__
        try:
            found = self._traced(key, rest, self._start(key, args, kwargs))
        except Exception as e:
            if type(e) is not type(why):  # else it is the function's own, for these numbers
                self._changing.fix(program, key, rest)
            raise
        self._changing.fix(program, key, rest)
        return found

    def _traced(self, key: Any, rest: Arguments | None, path: Path) -> tuple[Path, Segment]:
        before = get_backend("cpu").kernel_stats() if "timing" in shown() else {}
        segment = path.ready()
        variant = path.variant
        variant.unseen = self._unseen
        kernels = ""
        if before:
            took = {k: n - before[k] for k, n in get_backend("cpu").kernel_stats().items()}
            kernels = f"; kernels: {took['compiled']} compiled, {took['loaded']} from the disk, {took['hits']} known"
        self._publish(self._changing.learn(variant.live, key, rest), path, kernels)
        return path, segment

    def _unseen(self, variant: Variant, path: Path) -> Any:
        """An outcome not seen before: one thread traces it."""
        with self._turn:
            known = path.after.next(path.outcomes[-1], path.carried)
            if known is None and variant.meets_another(path.after, path.outcomes[-1]):
                raise self._others_each_time(variant, path)
            again = False
            try:
                segment = path.ready() if known is None else None
            except AgainError:
                again = True
            if again:
                path, segment = self._plainly(variant, path)
            elif segment is not None:
                store.grow(variant)
        if segment is not None:
            return path.run(segment)
        return variant.run(path.called, path.given, path.live)

    def _others_each_time(self, variant: Variant, path: Path) -> CalledOutError:
        """Why a function with other values at every call, which decide, is left to Python. Its graphs are dropped."""
        kind = kind_of(flatten(*path.given)[0])
        for key in [k for k in self._variants if kind_of(k) == kind]:
            for v in tuple(self._variants[key]):
                self._drop(key, v)
        return CalledOutError(
            self.name, f"reads a value of a tensor that is another one at each call ({variant.paths} were traced)",
            "return the tensor and read it outside, or use dg.where",
        )  # fmt: skip

    def _plainly(self, variant: Variant, path: Path) -> tuple[Path, Segment]:
        """A new variant for a call that had live numbers, with plain ones, traced from its start; the other one stays
        where it has served enough calls."""
        key, _, rest = flatten(*path.given)
        variant.failed += 1
        if variant.calls < _SERVES * variant.failed:
            if variant.live is not None:
                self._changing.fix(variant.live, key, rest)
            for k, bucket in list(self._variants.items()):
                if variant in bucket:
                    self._drop(k, variant)
        return self._traced(key, rest, self._start(key, *path.given))

    def _publish(self, key: Any, path: Path, kernels: str = " in the background") -> None:
        """A variant is there. kernels: more of how it was compiled, in words."""
        variant = path.variant
        self._variants.setdefault(key, []).append(variant)
        self._count += 1
        tell("retrace", f"{self.name}, variant {self._count}, at {variant.line}: {variant.reason}")
        tell("timing", f"{self.name}, variant {self._count}: {variant.seconds:.3f} s{kernels}")
        variant.budget = self._budget(key)
        variant.budget.add(variant.apart)
        if len(self._budgets) > (self._limit or MODULES):
            self._leave_oldest(owners_of(key))
        self._kinds.add(kind_of(key))
        # Calls through an entry are not counted: they are the frequent ones.
        for _, frequent in self._entries:
            touch(frequent)
        store.add(self, key, variant)

    def _drop(self, key: Any, variant: Variant) -> None:
        """Give a variant up for its memory; a call that needs it traces it again."""
        bucket = self._variants.get(key, [])
        if variant in bucket:
            bucket.remove(variant)
            self._dropped += 1
        self._entries = tuple(row for row in self._entries if row[1] is not variant)
        if not bucket:
            self._variants.pop(key, None)
            owners = owners_of(key)
            if owners and not any(owners_of(k) == owners for k in self._variants):
                self._budgets.pop(owners, None)  # they may die now, and others take their ids

    def _leave_oldest(self, owners: Any) -> None:
        """Give up the modules that were used last longest ago, which variants keep alive, other than `owners`."""
        used = dict.fromkeys(self._budgets, 0)
        for key, bucket in self._variants.items():
            of = owners_of(key)
            used[of] = max(used.get(of, 0), *(v.used for v in bucket))
        del used[owners]
        oldest = min(used, key=used.__getitem__)
        for key in [k for k in self._variants if owners_of(k) == oldest]:
            for variant in tuple(self._variants[key]):
                self._drop(key, variant)
        self._budgets.pop(oldest, None)
        self._kinds = {k for k in self._kinds if owners_of(k) != oldest}
        self._python = {k: e for k, e in self._python.items() if owners_of(k) != oldest}
        self._changing.forget(lambda k: owners_of(k) == oldest)

    def _start(
        self, key: Any, args: Any, kwargs: Any, live: Program | None = None, given: Any = None
    ) -> Path:
        """The first path of a new variant. given: the call's own key, where the numbers in `key` may be any.

        Raises: RetraceError past the limit."""
        why = self._why(key if given is None or key in self._variants else given, args, kwargs)
        # Shapes alone are no reason to stop: their variants are bounded by memory.
        apart = bool(self._variants.get(key)) or kind_of(key) not in self._kinds
        if apart and self._is_at_limit(self._budget(key)):
            raise RetraceError(
                self.name,
                f"was traced {self._count} times, {self._limit} of them, its limit, for other reasons than shapes; "
                f"the last: {why}",
                "pass what changes as a tensor, or raise limit= in @dg.function; fn.explain() lists all variants",
            )
        spec.record(self._fn, args, kwargs)
        path = start_path(self, args, kwargs, live)
        path.begin_with(next((v.later for v in reversed(self._variants.get(key, ())) if v.later), ()))
        path.variant.apart = apart
        path.variant.reason, path.variant.line = why, user_line(2)
        return path

    def warmup(self, *args: Any, **kwargs: Any) -> bool:
        """Trace and compile for arguments like these, without running the function or taking its effects.

        args, kwargs: as in a call; `dg.TensorSpec(shape, dtype)` may stand for a tensor. Kernels know no sizes, so one
        batch size warms the kernels of all. Values that the function reads on its way are those of zeros where
        specs are given. Returns: whether something was traced (False: a variant was there).
        Raises: what the call would raise while tracing. Example: `step.warmup(dg.TensorSpec((64, 10)), y)`.
        """
        with arrays.Sharing(spec.fill(args), spec.fill(kwargs)) as given:
            return self._warm(*given)

    def _warm(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        key, tensors, rest = flatten(args, kwargs)
        with self._turn:
            if self._fitting(key, tensors, rest)[0] is not None or self._calls_out(key, tensors, rest):
                return False
            try:
                self._trace(key, tensors, rest, args, kwargs)
            except CalledOutError as e:
                self._left(key, e)
                return False
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for what `compile="background"` compiles, at most `timeout` seconds. Returns whether all is ready."""
        return self._background is None or self._background.wait(timeout)

    def _why(self, key: Any, args: Any, kwargs: Any) -> str:
        """Why no variant fitted, in words."""
        if not self._count:
            return "first call"
        bucket = self._variants.get(key)
        if bucket:
            live = bucket[-1].live
            return (
                bucket[-1].guards.first_failure(containers_of((args, kwargs)))
                or (None if live is None else live.failure(_numbers(flatten(args, kwargs)[2])))
                or "an argument is a tensor that it reads or writes besides, or has another gradient or other hooks"
            )
        from .arguments import difference

        recent = list(self._variants)[-32:]
        return min(
            (difference(old, key, self._names) for old in reversed(recent)), key=len,
            default="what fitted was dropped for its memory",
        )  # fmt: skip


Function._kept = frozenset(n for n in vars(Function(len, "graph", "match", None, None)) if n.startswith("_"))


def function(
    fn: Callable[..., Any] | None = None,
    *,
    mode: str = "graph",
    precision: str = "match",
    name: str | None = None,
    limit: int | None = None,
    compile: str = "call",
) -> Any:
    """Run a function as a graph: traced at its first call, optimised as a whole, replayed as native kernels.

    fn: any function of tensors, nested lists, tuples and dicts of them, and plain Python values; a Module
    works too. NumPy arrays among its arguments are tensors inside, with their memory, in either mode.
    It may read and change what it likes (modules, optimisers, `.grad`), as in eager mode.
    mode: "graph" or "eager", switched later by `fn.mode = ...`, `fn.eager(...)`, `fn.graph(...)`,
    `with dg.mode(...)` or DUOGRAD_MODE. precision: "match" gives the bits of eager mode, "fast"
    may round otherwise (docs/design.md has the bounds). name: for messages.
    limit: how many variants may be traced for other reasons than shapes before it is an error; None: it never is.
    Each module that the function is a method of, or is called with, has its own variants; it keeps the last 64 (or
    `limit`) of them alive. In any case the memory of all variants is bounded (DUOGRAD_VARIANT_MEMORY), those used least
    recently go first, and calls whose sizes or values never come again run as Python (docs/graph.md).
    compile: "call" compiles at the call that needs it; "background" runs eager mode until the plan is ready
    (`fn.wait()` waits for it), and raises errors of the compiler at a later call.
    Returns: a callable with the same signature. Raises: TraceError for what a graph cannot hold, RetraceError
    past the limit.
    Example: `@dg.function` above `def step(x, y): ...`.
    """
    if precision not in ("match", "fast"):
        raise ArgumentError("function", f"precision={precision!r}", 'use "match" or "fast"')
    if fn is None:
        return lambda f: function(f, mode=mode, precision=precision, name=name, limit=limit, compile=compile)
    if compile not in COMPILE:
        raise ArgumentError("function", f"compile={compile!r}", f"use one of {', '.join(COMPILE)}")
    if limit is not None and limit < 1:
        raise ArgumentError("function", f"limit={limit} allows no variant", "use 1 or more, or None")
    if not callable(fn):
        raise ArgumentTypeError("function", f"takes a function, got {type(fn).__name__}", "decorate a def")
    return Function(fn, mode, precision, name, limit, compile)
