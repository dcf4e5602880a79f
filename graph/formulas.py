"""Programs of live numbers: what they are worked out by at each call, and what must hold of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .guards import Guard, Namespace, attribute
from .live import KINDS, RestartError
from .lookup import in_class, instance_dict
from .plain import ABSENT, brief, one_key, same
from .reads import Effect, Read, now_at
from .sizes import LateError

_CONTAINERS = (dict, list)


class Site:
    """A place of Python state that holds a number: what a read found there."""

    __slots__ = ("key", "kind", "name", "owner")

    def __init__(self, kind: str, owner: Any, key: Any, name: str):
        self.kind, self.owner, self.key, self.name = kind, owner, key, name

    @property
    def ident(self) -> Any:
        return self.kind, id(self.owner), self.key

    def now(self) -> Any:
        return now_at(self.kind, self.owner, self.key)

    def fetch(self, names: Namespace) -> str:
        """What the place holds, in source."""
        owner = names.bind(self.owner)
        if self.kind == "attr":
            return attribute(owner, self.key)
        if self.kind == "item" and in_class(type(self.owner), "__missing__") is not ABSENT:
            return (
                f"{names.bind(dict.get)}({owner}, {names.bind(self.key)})"  # none is made where there is none
            )
        return f"{owner}[{names.bind(self.key)}]" if self.kind == "item" else f"{owner}.cell_contents"

    def plant(self, value: Any, before: Any) -> Effect | None:
        """Put a value there; returns what takes it back, or None where that cannot be."""
        effect = Effect(self.kind, self.owner, self.key, before, value, self.name)
        effect.apply(value)
        if self.now() is value:
            return effect
        effect.undo()
        return None


class Part(Site):
    """A number in a structure that the function replaces as a whole, like `self.state = h, n + 1`: found by the
    structure's place and the steps from there, each ("item" or "attr", key)."""

    __slots__ = ("steps",)

    def __init__(self, kind: str, owner: Any, key: Any, name: str, steps: Sequence[tuple[str, Any]]):
        words = "".join(f".{k}" if sort == "attr" else f"[{brief(k)}]" for sort, k in steps)
        super().__init__(kind, owner, key, name + words)
        self.steps = tuple(steps)

    @property
    def ident(self) -> Any:
        return (*super().ident, self.steps)

    def is_at(self, kind: str, owner: Any, key: Any) -> bool:
        """Whether this is the structure's place."""
        return self.kind == kind and self.owner is owner and one_key(self.key, key)

    def _row(self) -> list[Any]:
        """What stands at the place, and at each step from there."""
        row = [self.owner if self.kind == "content" else super().now()]
        for sort, key in self.steps:
            row.append(ABSENT if row[-1] is ABSENT else now_at(sort, row[-1], key))
        return row

    def now(self) -> Any:
        return self._row()[-1]

    def fetch(self, names: Namespace) -> str:
        place = names.bind(self.owner) if self.kind == "content" else super().fetch(names)
        for sort, key in self.steps:
            place = attribute(place, key) if sort == "attr" else f"{place}[{names.bind(key)}]"
        return place

    def plant(self, value: Any, before: Any) -> Effect | None:
        """Tuples on the way are replaced, what can be changed is changed."""
        row = self._row()
        kind, owner, key = self.kind, self.owner, self.key
        for n in range(len(self.steps), 0, -1):
            if not isinstance(row[n - 1], tuple):
                kind, key = self.steps[n - 1]
                owner = row[n - 1]
                break
            place = self.steps[n - 1][1]
            elements = [value if k == place else x for k, x in enumerate(row[n - 1])]
            before, value = row[n - 1], _tuple(row[n - 1], elements)
        effect = Effect(kind, owner, key, before, value, self.name)
        effect.apply(value)
        return effect


def _tuple(like: Any, elements: list[Any]) -> Any:
    return tuple(elements) if type(like) is tuple else type(like)(*elements)


def _is_plain(kind: type) -> bool:
    """Whether items that such a container has are found by C code alone."""
    return kind in _CONTAINERS or in_class(kind, "__getitem__") in (dict.__getitem__, list.__getitem__)


def site_of(read: Read) -> Site | None:
    """The place of a read, when it holds a number of the same type as then, but another one."""
    if read.kind not in ("attr", "item", "cell") or type(read.value) not in KINDS:
        return None
    owner, key = read.owner, read.key
    if read.kind == "attr":
        own = vars(owner) if isinstance(owner, type) else instance_dict(owner)
        if own is None or key not in own:
            return None
    elif read.kind == "item" and not _is_plain(type(owner)):
        return None
    site = Site(read.kind, owner, key, read.name)
    now = site.now()
    return site if type(now) is type(read.value) and not same(now, read.value) else None


class Size:
    """The size of an axis of tensors of a call, the same in all of them.

    places: (tensor, axis) while it is traced, then (its position, axis).
    """

    __slots__ = ("high", "low", "name", "places", "value")

    def __init__(self, places: list[tuple[Any, int]], value: int, name: str):
        self.places, self.value, self.name = places, value, name
        #: what it is at least and at most: memory is planned for the most
        self.low, self.high = 2, largest(value)


def largest(value: int) -> int:
    """What a size, or an integer that counts, may be where it is `value` now."""
    return max(64, 4 << (value - 1).bit_length())


class _Item:
    """One line of a program. kind: "step" (a number of a type) or "guard" (its result is as it was).

    operands: numbers of steps, or tuples of one constant; call: works it out; want: the type or the result.
    """

    __slots__ = ("call", "kind", "operands", "planned", "step", "text", "want")

    def __init__(
        self, kind: str, step: int, text: str, call: Callable[..., Any], operands: Sequence[Any], want: Any
    ):
        self.kind, self.step, self.text, self.call = kind, step, text, call
        self.operands, self.want, self.planned = tuple(operands), want, False


def _key(operand: Any) -> Any:
    """Equal for operands that are always equal."""
    if operand.__class__ is not tuple:
        return operand
    (x,) = operand
    return type(x), x.hex() if type(x) is float else repr(x) if type(x) in KINDS else x


class Program:
    """What the live numbers of a variant are worked out by, from the call's numbers and from state.

    positions, names: of the call's numbers that are live; sites: places of state. They are the first steps. kinds: the
    type of each step.
    `read(numbers)` gives the values of all steps, or None where a guard does not hold.
    """

    def __init__(
        self, positions: Sequence[int], sites: Sequence[Site], kinds: Sequence[type], names: Sequence[str],
        sizes: Sequence[Size] = (), ranges: Mapping[int, tuple[int, int]] = MappingProxyType({}),
    ):  # fmt: skip
        self.positions, self.kinds = tuple(positions), list(kinds)
        self.sizes = list(sizes)
        #: of numbers of the call that are like sizes: what they are at least and at most
        self.ranges = dict(ranges)
        self.sized = bool(sizes or ranges)
        #: of steps: what they may be, and what else is known that they are
        self.bounds: dict[int, tuple[float, float]] = {}
        self.known_reach: dict[int, tuple[float, float]] = {}
        #: sizes that are the same at every call, by the positions of tensors: (position, shape with None for others)
        self.shapes: list[tuple[int, tuple[int | None, ...]]] = []
        self.layouts: list[tuple[int, Any]] = []
        self.loose_arguments = False
        #: None for one that is not read
        self.sites: list[Site | None] = list(sites)
        first = len(self.kinds)
        self.kinds += [int] * len(sizes)
        self.names = [*names, *(s.name for s in sites), *(s.name for s in sizes)]
        self.first_bounds = {n: (size.low, size.high) for n, size in enumerate(sizes, first)} | self.ranges
        self.bounds.update(self.first_bounds)
        self.items: list[_Item] = []
        self.known: dict[Any, int] = {}
        self.used: set[int] = set()
        #: steps that may be one value only, and those of them that the function itself reads
        self.pinned: set[int] = set()
        self.fixed: set[int] = set()
        #: which steps these are and why, in words
        self.told: dict[str, None] = {}
        self.lock = threading.Lock()
        #: what comes before it in a path: its steps are this one's first numbers, and nothing is added to it
        self.parent: Program | None = None
        self.closed = False
        #: other paths go by it
        self.linked = False
        self.read: Callable[..., Any] = lambda numbers, tensors=(): None

    def stage(self, kind: type, name: str, ends: tuple[int, int] | None = None) -> Program:
        """What goes on when a value has been read: a program of all numbers so far and of that one. ends: what it is at
        least and at most, where it is like a size."""
        count = len(self.kinds)
        ranges = self.first_bounds if ends is None else {**self.first_bounds, count: ends}
        made = Program(range(count + 1), (), [*self.kinds, kind], [*self.names, name], ranges=ranges)
        made.bounds.update(self.bounds)
        made.known_reach.update(self.known_reach)
        made.parent, self.closed = self, True
        return made

    def reach(self, n: int) -> tuple[float, float]:
        """What a step is at least and at most."""
        low, high = self.known_reach.get(n, (-math.inf, math.inf))
        least, most = self.bounds.get(n, (-math.inf, math.inf))
        return max(low, least), min(high, most)

    def narrow(self, n: int, low: float, high: float) -> None:
        """A step may only be from `low` to `high`."""
        with self.lock:
            least, most = self.bounds.get(n, (-math.inf, math.inf))
            self.bounds[n] = max(low, least), min(high, most)
        self.use(n)

    def place_sizes(self, positions: Mapping[int, int], layouts: Sequence[Any], given: int) -> None:
        """Sizes are found in tensors by their positions from now on; the others are as they are. given: how many of
        the tensors are arguments. Raises: RestartError where a tensor is none of them."""
        live: dict[int, set[int]] = {}
        for size in self.sizes:
            if any(id(t) not in positions for t, _ in size.places):
                raise RestartError
            size.places = [(positions[id(t)], axis) for t, axis in size.places]
            for k, axis in size.places:
                live.setdefault(k, set()).add(axis)
        for k, layout in enumerate(layouts):
            if k in live:
                self.shapes.append(
                    (k, tuple(None if a in live[k] else n for a, n in enumerate(layout.shape)))
                )
            elif k < given and self.sizes:
                self.layouts.append((k, layout))
        self.loose_arguments = any(k < given for k in live)

    @property
    def reads_sizes(self) -> bool:
        """Whether a size may be one only after all."""
        first = self.leaves - len(self.sizes)
        return any(
            self.reach(n)[0] == self.reach(n)[1] or n in self.pinned for n in range(first, self.leaves)
        )

    def use(self, n: int) -> None:
        """A step is needed."""
        self.used.add(n)
        if self.parent is not None and n < len(self.parent.kinds):
            self.parent.use(n)

    @property
    def leaves(self) -> int:
        return len(self.positions) + len(self.sites) + len(self.sizes)

    def add(
        self, kind: str, text: str, call: Callable[..., Any], operands: Sequence[Any], want: Any, late: bool,
        planned: bool = False,
    ) -> int:  # fmt: skip
        """The number of a step, or -1 for a guard. late: only what is there already; planned: nobody asks for the step
        but a kernel, or nobody at all."""
        key = kind, text, *map(_key, operands)
        with self.lock:
            found = self.known.get(key)
            if found is not None:
                return found
            if late:
                raise LateError
            if self.closed and kind == "step":
                raise RestartError
            planned = planned and kind == "step"
            for x in operands if not planned else ():
                if x.__class__ is int:
                    self.use(x)
            step = -1
            if kind == "step":
                step = len(self.kinds)
                self.kinds.append(want)
                self.names.append("(" + text.format(*map(self.word, operands)) + ")")
            self.known[key] = step
            self.items.append(_Item(kind, step, text, call, operands, want))
            self.items[-1].planned = planned
            return step

    def word(self, operand: Any) -> str:
        return self.names[operand] if operand.__class__ is int else brief(operand[0])

    def open_positions(self) -> set[int]:
        """The live arguments that may have any value."""
        return {k for n, k in enumerate(self.positions) if n not in self.pinned}

    def live_sites(self) -> list[Site]:
        """The places of state whose numbers are used and may be any."""
        first = len(self.positions)
        found = enumerate(self.sites, first)
        return [s for n, s in found if s is not None and n in self.used and n not in self.pinned]

    def fixed_sites(self) -> list[Site]:
        """The places of state whose numbers the function reads."""
        return [s for n, s in enumerate(self.sites, len(self.positions)) if s is not None and n in self.fixed]

    def fixed_positions(self) -> set[int]:
        """The arguments whose numbers the function reads."""
        return {k for n, k in enumerate(self.positions) if n in self.fixed}

    @property
    def is_idle(self) -> bool:
        """Whether no number is live after all."""
        return not (self.positions or self.used or self.sizes)

    def forget_unused(self) -> None:
        """Let go of places that the trace did not come to."""
        for n, _ in enumerate(self.sites, len(self.positions)):
            if n not in self.used:
                self.sites[n - len(self.positions)] = None

    def renew(self) -> None:
        """Compile what has been added."""
        with self.lock:
            self.read = self._compile()

    def _asked(self) -> list[_Item]:
        """The lines that matter."""
        found = []
        for item in reversed(self.items):
            if not item.planned or item.step in self.used:
                found.append(item)
                for x in item.operands:
                    if x.__class__ is int:
                        self.use(x)
        return found[::-1]

    def _compile(self) -> Any:
        names = Namespace()
        lines = ["def read(numbers, tensors=()):", "    try:"]
        lines += [
            f"        if tensors[{k}]._layout is not {names.bind(x)}: return None" for k, x in self.layouts
        ]
        steps, values = self.lines(names, "numbers[{}]".format, "tensors[{}]._layout".format, "return None")
        lines += [*steps, f"        return {values}", "    except Exception:", "        return None"]
        return names.function("read", lines)

    def lines(
        self, names: Namespace, number: Callable[[int], str], layout: Callable[[int], str], otherwise: str
    ) -> tuple[list[str], str]:
        """Source, 8 columns in, that works out v0, v1, ... of the steps, and a tuple of all, with None for what nobody
        needs. number, layout: source of the call's numbers and of its tensors' layouts, by position; otherwise: what is
        done where something does not hold."""
        items = self._asked()
        lines = [f"        v{n} = {number(position)}" for n, position in enumerate(self.positions)]
        for n, site in enumerate(self.sites, len(self.positions)):
            if site is not None and n in self.used:
                lines.append(f"        v{n} = {site.fetch(names)}")
                lines.append(f"        if v{n}.__class__ is not {names.bind(self.kinds[n])}: {otherwise}")
        lines += self._size_lines(layout, otherwise)
        for n in range(self.leaves):
            lines += self._bound_lines(n, otherwise)
        for item in items:
            operands = [f"v{x}" if x.__class__ is int else names.bind(x[0]) for x in item.operands]
            text, called = item.text.format(*operands), f"{item.call.__name__}("
            if text.startswith(called):  # `math.pow` is not the built-in one
                text = f"{names.bind(item.call)}({text.removeprefix(called)}"
            if item.kind == "step":
                lines.append(f"        v{item.step} = {text}")
                lines.append(f"        if v{item.step}.__class__ is not {names.bind(item.want)}: {otherwise}")
                lines += self._bound_lines(item.step, otherwise)
            elif item.kind == "pin":
                lines.append(f"        if not same({text}, {names.bind(item.want)}): {otherwise}")
            else:
                lines.append(f"        if ({text}) is not {names.bind(item.want)}: {otherwise}")
        made = {n for n in range(self.leaves) if not self._is_absent(n)} | {item.step for item in items}
        return lines, "(" + "".join(
            f"v{n}, " if n in made else "None, " for n in range(len(self.kinds))
        ) + ")"

    def _is_absent(self, n: int) -> bool:
        """Whether a leaf is a place of state that nobody reads."""
        at = n - len(self.positions)
        return 0 <= at < len(self.sites) and (self.sites[at] is None or n not in self.used)

    def _size_lines(self, layout: Callable[[int], str], otherwise: str) -> list[str]:
        """Where sizes are found, and that the others are as they were. What was looked at as another tensor's layout is
        not looked at again."""
        first = len(self.positions) + len(self.sites)
        step = {place: n for n, size in enumerate(self.sizes, first) for place in size.places}
        lines: list[str] = []
        found: set[int] = set()
        alike: dict[Any, str] = {}
        for position, shape in self.shapes:
            place = layout(position)
            pattern = tuple([(n, step.get((position, a))) for a, n in enumerate(shape)])
            before = "        "
            if pattern in alike:
                lines.append(f"{before}if {place} is not {alike[pattern]}:")
                before += "    "
            alike.setdefault(pattern, place)
            names, tests = [], [f"not {place}.contiguous"]
            for a, (n, k) in enumerate(pattern):
                new = k is not None and k not in found
                names.append(f"v{k}" if new else f"y{a}")
                if new:
                    found.add(k)  # type: ignore[arg-type]
                else:
                    tests.append(f"y{a} != {n if k is None else f'v{k}'}")
            lines.append(f"{before}{', '.join(names)}, = {place}.shape")
            lines.append(f"{before}if {' or '.join(tests)}: {otherwise}")
        return lines

    def _bound_lines(self, n: int, otherwise: str) -> list[str]:
        if n not in self.bounds or self._is_absent(n):
            return []
        low, high = self.bounds[n]
        test = (
            f"{low} <= v{n} <= {high}"
            if low > -math.inf and high < math.inf
            else (f"v{n} >= {low}" if low > -math.inf else f"v{n} <= {high}")
        )
        return [f"        if not {test}: {otherwise}"]

    def words(self) -> list[str]:
        """The numbers that may change, and what must hold, in words."""
        found = []
        for n in range(self.leaves):
            if (n in self.used or n < len(self.positions)) and n not in self.pinned:
                low, high = self.bounds.get(n, (-math.inf, math.inf))
                bounds = [f"from {low}"] * (low > -math.inf) + [f"up to {high}"] * (high < math.inf)
                found.append(" ".join([f"{self.names[n]} is any {self.kinds[n].__name__}", *bounds]))
        for item in self.items:
            if item.kind == "pin":
                found.append(f"{self.word(item.operands[0])} == {brief(item.want)}")
            elif item.kind == "guard":
                text = item.text.format(*map(self.word, item.operands))
                found.append(text if item.want else f"not {text}")
        return found

    def guards(self) -> list[Guard]:
        """For reports; `read` checks them."""
        return [Guard(7, "", (), text) for text in self.words()]

    def failure(self, numbers: Sequence[Any]) -> str | None:
        """What does not hold for these arguments and the state of now, as a sentence; None when all holds."""
        values: dict[int, Any] = {n: numbers[k] for n, k in enumerate(self.positions)}
        for n, site in enumerate(self.sites, len(self.positions)):
            if site is None or n not in self.used:
                continue
            values[n] = site.now()
            if type(values[n]) is not self.kinds[n]:
                return f"{site.name} was a {self.kinds[n].__name__}, now {brief(values[n])}"
        for item in self.items:
            words = item.text.format(*map(self.word, item.operands))
            try:
                got = item.call(*[values[x] if x.__class__ is int else x[0] for x in item.operands])
            except Exception as e:
                return f"{words} raises {type(e).__name__}"
            if item.kind == "step":
                values[item.step] = got
            if item.kind == "step" and type(got) is not item.want:
                return f"{words} was a {item.want.__name__}, now {brief(got)}"
            if item.kind == "pin" and not same(got, item.want):
                return f"{words} was {brief(item.want)}, now {brief(got)}"
            if item.kind == "guard" and got is not item.want:
                return f"{words} was {item.want}, now {got}"
        return None
