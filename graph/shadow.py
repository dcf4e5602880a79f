"""DUOGRAD_CHECK=1: every call of a graph beside the same call in eager mode; a difference is an error."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import CheckError, FlagError
from ..core.value import Tensor
from .arguments import is_record, record_names
from .bisect import first_difference, same
from .given import Watch
from .lookup import in_class
from .nursery import Nursery
from .recorder import ReadRecorder
from .spoken import Asked, Record, Text, listening
from .witness import Witness, copied

#: relative difference that precision="fast" may make, by bytes of the dtype
_FAST = {2: 2e-2, 4: 1e-4, 8: 1e-10}


def wanted() -> bool:
    """Whether DUOGRAD_CHECK asks for it. Raises FlagError for a word that is not 0 or 1."""
    value = os.environ.get("DUOGRAD_CHECK", "0")
    if value not in ("0", "1"):
        raise FlagError("DUOGRAD_CHECK", f"{value!r} is not a setting", "use 0 or 1")
    return value == "1"


def checked(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of a graph function in both modes. Eager mode goes first and is taken back; the graph's call stays.

    Raises: CheckError naming the first op that differs, with everything as it was before the call; the
    function's own error when both modes raise it.
    """
    if function.runs_python(args, kwargs):
        return function.plain_graph(args, kwargs)
    tensors, variant = function.find(args, kwargs)
    witness = Witness(dispatch._State.executor)
    witness.meet_all(tensors)
    given = Watch((args, kwargs))
    said: list[Any] = []  # once: by the graph's call
    result, error, recorder, made = _eagerly(function, witness, args, kwargs, said)
    if (
        recorder.odd is not None or witness.left
    ):  # its Python runs at every call, in graph mode too: this was the call
        for say in said:
            say()
        if error is not None:
            raise error
        return result
    want = _leaves(result)
    finals = witness.look()
    drawn = [(g, g.get_state()) for g, _ in witness.generators.values()]
    noted = [(e, _frozen(e.value)) for e in recorder.effects if not made(e.owner)]
    held = given.look(_frozen)
    recorder.undo()
    given.restore()
    witness.undo()
    got_error: Exception | None = None
    result, what = None, None
    try:
        result = function.plain_graph(args, kwargs)
    except Exception as e:
        got_error = e
    if error is not None or got_error is not None:
        if type(error) is type(got_error) and str(error).split("\n")[0] == str(got_error).split("\n")[0]:
            raise got_error from None  # type: ignore[misc]
        what = f"eager mode {_raised(error)}, the graph {_raised(got_error)}"
    else:
        what = _difference(function.precision, witness, want, _leaves(result), finals, drawn, noted)
        if what is None and not _equal(function.precision, held, given.look(_frozen)):
            what = "a container among the arguments differs after the call"
        if what is None:
            return result
    witness.restore()
    recorder.undo()
    given.restore()
    variant = variant or next(iter(function.variants[::-1]), None)
    where = None
    if variant is not None and variant.root is not None and variant.live is None:
        where = first_difference(variant, variant.with_state(tensors), witness.calls)
    raise CheckError(
        function.name, f"{what}; first op that differs: {where or 'none: the same ops give the same'}",
        "dg.compare(fn, ...) shows more; please report it, unless the function reads what no trace can see",
    ) from (got_error or error)  # fmt: skip


def _eagerly(
    function: Any, witness: Witness, args: Any, kwargs: Any, said: list[Any]
) -> tuple[Any, Any, ReadRecorder, Callable[[Any], bool]]:
    """The result, the error and what recorded the eager call, whose effects are still in place; a test of whether an
    object was made by it. said: gets what it says."""
    recorder = ReadRecorder(function._fn)
    result, error = None, None

    def take(what: Any) -> bool:
        if what.__class__ is Asked or recorder.is_watched_elsewhere():
            return False
        said.append(Record(*what) if isinstance(what, tuple) else Text([what]))
        return True

    try:
        with Nursery() as nursery:
            try:
                with (
                    dispatch.set_grad(dispatch.state.grad),
                    dispatch.executing(witness),
                    listening(take),
                    recorder,
                ):  # type: ignore[arg-type]
                    result = function._fn(*args, **kwargs)
            finally:
                made = nursery.made()
    except Exception as e:
        error = e

    def is_new(x: Any) -> bool:
        if gc.is_tracked(x):
            return made(x)
        # A dict of plain values, of which the collector knows nothing: of a new module, perhaps.
        modules = [m for m in gc.get_referrers(x) if isinstance(m, ModuleType) and m.__dict__ is x]
        return any(map(made, modules)) if modules else id(x) not in recorder.outside

    return result, error, recorder, is_new


def _raised(error: Exception | None) -> str:
    return (
        "gives a result" if error is None else f"raises {type(error).__name__}: {str(error).splitlines()[0]}"
    )


def _leaves(x: Any) -> list[Any]:
    """Tensors (as copies with type and requires_grad) and plain values of a result, in order."""
    if isinstance(x, Tensor):
        return [(copied(x), x.requires_grad)]
    if isinstance(x, (list, tuple)):
        return [leaf for v in x for leaf in _leaves(v)]
    if isinstance(x, dict):
        return [leaf for v in x.values() for leaf in _leaves(v)]
    if is_record(x):
        return [leaf for name in record_names(x) for leaf in _leaves(getattr(x, name))]
    return [x]


def _frozen(x: Any) -> Any:
    """A value that later changes do not reach."""
    if isinstance(x, Tensor):
        return copied(x)
    if isinstance(x, (list, tuple)):
        return type(x)(map(_frozen, x)) if type(x) in (list, tuple) else x
    return {k: _frozen(v) for k, v in x.items()} if type(x) is dict else x


def _difference(
    precision: str, witness: Witness, want: list[Any], got: list[Any], finals: Any, drawn: Any, noted: Any
) -> str | None:
    """The first thing that differs, in words."""
    if len(want) != len(got):
        return f"eager mode gives {len(want)} results, the graph {len(got)}"
    for k, (a, b) in enumerate(zip(want, got)):
        if not _equal(precision, a, b):
            return f"result {k} differs"
    for key, (t, *_) in witness.met.items():
        values, grad, asks = finals[key]
        if not _equal(precision, values, copied(t)):
            return f"{t.type} differs after the call"
        g = None if t._grad is None else copied(t._grad)
        if not _equal(precision, grad, g):
            return f"the gradient of {t.type} differs"
        if asks is not t._requires_grad:
            return f"requires_grad of {t.type} differs after the call"
    for e, value in noted:
        if not _equal(precision, value, _frozen(e.now())):
            return f"{e.name} differs after the call"
    if any(g.get_state() != state for g, state in drawn):
        return "random numbers drawn differ"
    return None


def _equal(precision: str, a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if precision == "fast" and a.dtype == b.dtype and a.shape == b.shape and a.dtype.kind not in "biu":
            wide = np.complex128 if a.dtype.kind == "c" else np.float64
            bound = _FAST[min(8, a.dtype.itemsize)]
            x, y = a.astype(wide), b.astype(wide)
            return bool(np.allclose(x, y, bound, bound * np.nanmax(np.abs(x), initial=0.0), equal_nan=True))
        return same(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_equal(precision, x, y) for x, y in zip(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(precision, a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return False
    if (
        type(a) is type(b) and in_class(type(a), "__eq__") is object.__eq__
    ):  # made by each: functions, objects
        return getattr(a, "__code__", None) is getattr(b, "__code__", None)
    return a is b or bool(a == b) or (a != a and b != b)
