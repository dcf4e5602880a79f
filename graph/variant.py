"""One traced variant of a function: guards, compiled graphs, and the work of a call around them.

Reading a value while tracing (a Python branch on a tensor) ends a segment: it runs, the value is read, the
trace goes on under that outcome. A variant is therefore a tree of segments; nearly always it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import TraceError
from .aliases import Aliases
from .arguments import Arguments, Slot, fill_call, loosen
from .budget import Budget
from .formulas import Program
from .given import flatten
from .identity import Identity
from .live import LIVE
from .path import PATHS, CalledOutError, Path
from .runner import Runner
from .segment import Segment
from .state import State

#: after so many calls in a row that each met a value not seen before, a function runs its Python
_ROW = 24
#: and so many where the value is one of countless ones: several floats, or more bytes than these
_WIDE_ROW, _WIDE = 1, 16


class Variant:
    """A trace made runnable. `check` and `aliases.fit` say whether it fits this call; `run` does the call."""

    def __init__(self, name: str, kept: Arguments, call: Any, precision: str):
        self.name, self.kept, self.call, self.precision = name, kept, call, precision
        self.guards: Any = None
        self.check: Any = None
        self.root: Any = None
        self.aliases = Aliases()
        self.identity = Identity()
        #: traces have the call's own containers as arguments, because the function finds them by itself as well
        self.lends = False
        self.reads: list[Any] = []
        #: how many of the reads have guards for when the function runs again (`repeat.py`), and those
        self.found: tuple[int, Any] | None = None
        self.extra: list[Any] = []
        self.reason = self.line = ""
        self.seconds = 0.0
        self.paths = 0
        self.calls = self.used = 0
        #: how many calls its live numbers did not do for
        self.failed = 0
        #: of the tensors of the call that was traced
        self.layouts: list[Any] = []
        self.budget = Budget()
        #: calls in a row that met a value not seen before, and `calls` at the last of them
        self.row = self.met = 0
        #: it was traced for another reason than shapes
        self.apart = True
        #: tensors that the function finds, and replaces by new ones: further arguments, found at each call
        self.state: list[State] = []
        #: what its live numbers are worked out by (`formulas.Program`)
        self.live: Any = None
        #: state that was found when segments had been made without it: the next variant begins with it
        self.later: list[State] = []
        #: what traces a path whose outcome was not seen before, and gives the call's result
        self.unseen: Callable[[Variant, Path], Any] = lambda variant, path: path.run(path.ready())

    def fits(self, tensors: list[Any], containers: tuple[int, ...] = ()) -> bool:
        """Whether the guards hold for a call with these tensors and containers (by their ids)."""
        if containers and not self.identity.fit(containers):
            return False
        holds = self.check(containers) if containers else self.check()
        if containers and holds and any(s.shares(containers) for s in self.state):
            return False
        if not holds:
            return False
        tensors = self.with_state(tensors)
        if self.state and len({*map(id, tensors)}) < len(tensors):  # they were several when it was traced
            return False
        return self.aliases.fit(tensors)

    def count(self) -> None:
        """A call found it."""
        self.calls += 1
        self.budget.found += 1

    def meets_another(self, segment: Segment, value: Any) -> bool:
        """Count a call that met a value not seen before where this segment ends. Returns: whether no more of them are
        to be traced."""
        self.row = self.row + 1 if self.calls <= self.met + 1 else 1
        self.met = self.calls
        wide = segment.refuse is None and (
            value.nbytes > _WIDE or (value.size > 1 and value.dtype.kind not in "biu")
        )
        row = _WIDE_ROW if wide and len(segment.children) > _WIDE_ROW else _ROW
        return self.row > row or self.paths >= PATHS

    def with_state(self, tensors: list[Any]) -> list[Any]:
        """The tensors of a call, and those that state holds now."""
        return [*tensors, *(t for s in self.state for t in s.find())] if self.state else tensors

    def numbers_of(self, numbers: list[Any], tensors: list[Any]) -> Any:
        """The values of the live numbers of a call that it fits, or None where they do not fit."""
        return self.live.read(numbers, self.with_state(tensors) if self.live.sizes else ())

    def run(self, tensors: list[Any], given: Any = None, live: Any = None) -> Any:
        """Run on the call's tensors. An outcome not seen before is traced. given: the call's args and kwargs; live:
        what `self.live.read` gave for it."""
        called, tensors = tensors, self.with_state(tensors)
        segment, outcomes, passed = self.root, [], []
        carried: dict[Any, Any] = {} if live is None else {LIVE: live}
        late: list[tuple[Any, Any]] = []  # what is printed: it waits until it is known who goes on
        try:
            while True:
                outputs = segment.run(tensors, carried, late)
                if segment.read is None:
                    break
                for k, key in segment.carries:
                    carried[key] = outputs[k]
                value = outputs[segment.read]._array()
                outcomes.append(value)
                child = segment.next(value, carried)
                passed.append((segment, child))
                if child is None:
                    path = Path(self, tensors, segment, outcomes, carried)
                    path.given, path.called, path.late, late = given, called, late, []
                    path.passed, path.live = passed, live
                    return self.unseen(self, path)
                segment = child
        finally:
            for show, array in late:
                show(array)
        return segment.ending.finish(self, tensors, outputs, carried, given)

    def eager(self, tensors: list[Any], live: Any = None) -> Any:
        """The call in eager mode."""
        return self.python(fill_call(self.kept, tensors, numbers=self.numbers(live)))

    def numbers(self, live: Any) -> dict[int, Any]:
        """The call's own live numbers, by their positions. live: the values of all steps."""
        return {} if self.live is None or live is None else dict(zip(self.live.positions, live))

    def python(self, given: tuple[Any, Any]) -> Any:
        """The function's Python with these args and kwargs."""
        args, kwargs = given
        return self.call(*args, **kwargs)

    # -- looking inside ------------------------------------------------------------------------

    def segments(self) -> list[Segment]:
        """All stretches, in order of the paths."""
        found, stack = [], [self.root]
        while stack:
            found.append(stack.pop())
            stack.extend(found[-1].children.values())
            stack.extend(segment for _, segment in found[-1].ways)
        return found

    def runners(self) -> list[Runner]:
        """All compiled graphs, in order of the paths."""
        found: list[Runner] = []
        for segment in self.segments():
            found.append(segment.runner)
            if segment.ending is not None and segment.ending.backward is not None:
                found.append(segment.ending.backward)
        return found

    def show(self) -> list[str]:
        from .show import show

        texts = []
        for r in self.runners():
            c = r.compiled
            texts += [f"# traced\n{show(c.graph)}", f"# after the passes\n{show(c.optimised, c.groups)}"]
        return texts

    def sources(self) -> list[str]:
        """Each kernel with the ops and lines it comes from."""
        return [f"# {label}\n{text}" for r in self.runners() for label, text in r.compiled.sources()]


def traced_path(function: Any, asker: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
    """The first path of a new variant of a function for this call, traced, for one who looks at it.

    Raises: TraceError where no graph holds the function, so that its Python runs in both modes.
    """
    path = start_path(function, args, kwargs)
    try:
        path.prepare()
    except CalledOutError as e:
        raise TraceError(
            asker,
            f"{function.name} has no graph, its Python runs at every call: it {e.message}",
            e.fix,
            e.line,
        ) from None
    return path


def start_path(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], live: Program | None = None
) -> Path:
    """The first path of a new variant of a function for this call, not yet traced. live: for its live numbers."""
    _, tensors, kept = flatten(args, kwargs)
    if kept is None:
        kept = Arguments(tuple(Slot(k) for k in range(len(tensors))), {}, [])
    if live is not None:
        kept = loosen(kept, live.positions)
    variant = Variant(function.name, kept, function._fn, function.precision)
    variant.live, variant.layouts = live, [t._layout for t in tensors]
    path = Path(variant, tensors, None, [], {})
    path.given = args, kwargs
    return path
