"""State that a function replaces: `self.h = f(self.h)`, `self.cache = [(k, v), ...]`. Its tensors are found at each
call, like arguments, by their places."""

from __future__ import annotations

import collections
import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from .arguments import Slot
from .formulas import Part
from .guards import Guard, Namespace, attribute
from .live import KINDS, Live
from .live_uses import Worked
from .lookup import instance_dict
from .nursery import Nursery
from .plain import ABSENT, Words, brief, count, elements, is_plain, one_key, same
from .reads import Effect, Read, contents_of, getattr_of, now_at
from .rebuild import Descriptions, Made, build

#: containers whose own contents may be state
_WALKED = (list, dict, collections.deque, collections.OrderedDict, collections.defaultdict)
#: containers and tensors of the largest structure that is state
_LIMIT = 1000


class _Every(Nursery):
    """Takes the place of a nursery: all small objects but modules are parts of a structure."""

    def made(self) -> Callable[[Any], bool]:
        return lambda x: not hasattr(type(x), "parameters")


class State:
    """A place outside that holds tensors when the call begins, alone or in containers, and others when it ends.

    tensors: those that a call finds there, in their order; `find` gives them for a later call. parts: ids of the
    containers around them, which only their elements matter of: others of the same structure may stand for them.
    """

    def __init__(
        self, effect: Effect, is_free: Callable[[Any], bool], tensor_class: type,
        parts: Collection[tuple[Part, Live]] = (), sized: Collection[int] = (),
    ):  # fmt: skip
        self.kind, self.owner, self.key, self.name = effect.kind, effect.owner, effect.key, effect.name
        value = effect.before
        seen = Descriptions(lambda x: isinstance(x, tensor_class), {}, {}, _Every(), True)
        self.shape = seen.describe(value) if value.__class__ is not tensor_class or is_free(value) else None
        for part, live in parts:
            if part.is_at(self.kind, self.owner, self.key):
                _loosen(self.shape, part.steps, Worked(live))
        self.tensors = [t for t in seen.leaves if is_free(t)]
        self.size = len(self.tensors)
        #: of all that stand there; ids of those whose sizes are live
        self.layouts = [t._layout if isinstance(t, tensor_class) else None for t in seen.leaves]  # type: ignore[attr-defined]
        self.sized = sized
        self.parts = set(seen._made)
        self.words = _words(value)
        if effect.kind == "content":
            self.parts.add(id(effect.owner))
        self.find: Callable[[], Any] = lambda: None
        if (
            (self.size or self.parts)
            and max(self.size, len(self.parts)) <= _LIMIT
            and all(map(_has_places, seen._made.values()))
        ):
            self.find = _Finder(self, seen.leaves).write()
        #: what stands where no tensor of the call does
        self._fixed = [None if is_free(t) else t for t in seen.leaves]

    def value(self, tensors: Iterable[Any], live: Any = None) -> Any:
        """What the place holds in a call that found these tensors there. live: the values of its live numbers."""
        own = iter(tensors)
        return build(self.shape, [next(own) if t is None else t for t in self._fixed], None, {}, live)

    def numbers(self) -> Iterator[Part]:
        """The numbers in it that are other ones now."""
        stack: list[tuple[Any, tuple[Any, ...]]] = [(self.shape, ())]
        seen: set[int] = set()
        while stack:
            x, steps = stack.pop()
            if isinstance(x, Made):
                if id(x) not in seen:
                    seen.add(id(x))
                    stack += [(y, (*steps, step)) for step, y in _places(x)]
            elif steps and type(x) in KINDS:
                part = Part(self.kind, self.owner, self.key, self.name, steps)
                now = part.now()
                if type(now) is type(x) and not same(now, x):
                    yield part

    def covers(self, read: Read) -> bool:
        """Whether a recorded read is of this place, or of a container of its structure."""
        if id(read.owner) in self.parts:
            return read.owner is not self.owner or read.kind != "attr"
        return read.kind == self.kind and read.owner is self.owner and one_key(read.key, self.key)

    def without(self, reads: Iterable[Read]) -> list[Read]:
        """Reads, less those that it covers; what an object of the structure has from its class is one of the class."""
        kept = []
        for r in reads:
            if not self.covers(r):
                kept.append(r)
            elif (
                r.kind == "attr"
                and r.owner is not self.owner
                and r.key not in (instance_dict(r.owner) or (r.key,))
            ):
                kept.append(Read("attr", type(r.owner), r.key, r.value, r.name, r.where))
        return kept

    def is_alone(self, reads: Iterable[Read], apart: Collection[int]) -> bool:
        """Whether its tensors and containers were read nowhere else, where they would stay what they are.

        apart: ids of what is changed, handed out or compared as itself.
        """
        if not (self.parts - {id(self.owner)}).isdisjoint(apart):
            return False
        inside = {*map(id, self.tensors), *self.parts} - {id(self.owner)}
        return not any(id(x) in inside for r in reads if not self.covers(r) for x in _mentioned(r))

    def again(
        self, is_free: Callable[[Any], bool], tensor_class: type, parts: Collection[tuple[Part, Live]] = ()
    ) -> State:
        """What the place holds now, as state."""
        effect = Effect(self.kind, self.owner, self.key, self._now(), None, self.name)
        return State(effect, is_free, tensor_class, parts)

    def has_grown(self) -> bool:
        """Whether it is a container without tensors that holds more or fewer elements now, or a deque with others: a
        log."""
        made = self.shape
        if self.kind != "content" or self.size or not isinstance(made, Made):
            return False
        if isinstance(self.owner, collections.deque):  # whose numbers are never live
            return self.find() is None
        return count(self.owner) != len(made.content)

    def layouts_now(self) -> list[tuple[Any, Any]]:
        """The tensors that stand there now, with the layouts of those before; none where there are others."""
        seen = Descriptions(lambda x: hasattr(type(x), "_storage"), {}, {}, _Every(), True)
        seen.describe(self._now())
        if len(seen.leaves) != len(self.layouts):
            return []
        return [(t, x) for t, x in zip(seen.leaves, self.layouts) if x is not None]

    def _now(self) -> Any:
        return contents_of(self.owner) if self.kind == "content" else now_at(self.kind, self.owner, self.key)

    def shares(self, given: Collection[int]) -> bool:
        """Whether a container that is there now is one of these, given by their ids."""
        if not self.parts:
            return False
        stack = [self.owner if self.kind == "content" else now_at(self.kind, self.owner, self.key)]
        seen: set[int] = set()
        while stack:
            x = stack.pop()
            if id(x) in given:
                return True
            if id(x) not in seen:
                seen.add(id(x))
                stack += _inside(x)
        return False

    def forget(self) -> None:
        """Let the tensors of the trace go."""
        self.tensors = []

    def guard(self) -> Guard:
        """That the structure is there again, of tensors of the same layouts that need gradients where those did."""
        find = self.find

        def fits() -> bool:
            try:
                return find() is not None
            except (AttributeError, LookupError, TypeError, ValueError):
                return False

        def now() -> Any:
            value = (
                contents_of(self.owner) if self.kind == "content" else now_at(self.kind, self.owner, self.key)
            )
            return Words(_words(value))

        return Guard(35, "{0}()", (fits,), f"{self.name} holds {self.words}, any", self.words, now)


def _has_places(made: Made) -> bool:
    """Whether what a container holds is found again by keys or positions."""
    return made.kind != "copy" and not issubclass(made.cls, set) and all(is_plain(k) for k, _ in _items(made))


def _loosen(x: Any, steps: Sequence[tuple[str, Any]], live: Worked) -> None:
    """Let a number of a description, that so many steps lead to, be any."""
    *way, last = steps
    for step in way:
        x = next((y for place, y in _places(x) if place == step), None) if isinstance(x, Made) else None
    if isinstance(x, Made) and x.cls is not collections.deque:
        found = [live if place == last else y for place, y in _places(x)]
        named = x.kind in ("dict", "object")
        x.content = [(k, y) for (k, _), y in zip(x.content, found)] if named else found


def _places(made: Made) -> list[tuple[tuple[str, Any], Any]]:
    """What a container or object holds, by the steps that lead there."""
    if made.kind == "copy" or issubclass(made.cls, set):
        return []
    if made.kind in ("dict", "object"):
        sort = "item" if made.kind == "dict" else "attr"
        return [((sort, k), y) for k, y in made.content]
    return [] if made.cls is collections.deque else [(("item", k), y) for k, y in enumerate(made.content)]


def _items(made: Made) -> list[tuple[Any, Any]]:
    return made.content if made.kind == "dict" else []


def _words(x: Any) -> str:
    """A structure in words."""
    return f"a {brief(x)}" if hasattr(type(x), "_storage") else _shown(x, 160)


def _shown(x: Any, room: int) -> str:
    if hasattr(type(x), "_storage"):
        return str(x.type)
    if type(x) is Live:
        return f"any {x.__class__.__name__}"
    if not isinstance(x, (list, tuple, dict)):
        return brief(x)
    if isinstance(x, dict):
        named = contents_of(x).items()
    else:
        named = zip(getattr(x, "_fields", [None] * count(x)), elements(x))
    parts: list[str] = []
    for key, y in named:
        shown = _shown(y, room // 2)
        parts.append(
            shown if key is None else f"{key}={shown}" if isinstance(x, tuple) else f"{brief(key)}: {shown}"
        )
        room -= len(parts[-1])
        if room < 0:
            parts[-1:] = ["..."]
            break
    first, last = "[]" if isinstance(x, list) else "{}" if isinstance(x, dict) else "()"
    text = first + ", ".join(parts) + last
    return text if type(x) in (list, tuple, dict) else f"{type(x).__name__}{text}"


def _mentioned(read: Read) -> Iterator[Any]:
    """The objects that a read found, also in tuples."""
    stack: list[Any] = []
    if read.kind in ("attr", "item", "cell", "default"):
        stack = [read.value]
    elif read.kind == "cached":
        stack = gc.get_referents(read.owner)
        stack += [y for x in stack if x.__class__ is dict for y in x.values()]
    elif read.kind == "content":
        stack = [*(read.value.values() if isinstance(read.value, dict) else read.value)]
    while stack:
        x = stack.pop()
        yield x
        if isinstance(x, tuple):
            stack += x
        elif read.kind == "default" and isinstance(x, dict):
            stack += x.values()


class _Finder:
    """Writes the function that takes a structure apart."""

    def __init__(self, state: State, leaves: list[Any]):
        self.state, self.leaves = state, leaves
        self.free = {id(t): n for n, t in enumerate(state.tensors)}
        self.names = Namespace()
        self.lines: list[str] = []
        self.count = 0
        self.met: dict[Any, str] = {}

    def write(self) -> Any:
        state = self.state
        owner = self.names.bind(state.owner)
        if state.kind == "content":
            self._walk(state.shape, owner, True)
        else:
            self._walk(state.shape, self._place(owner))
        found = ", ".join(self.met[n] for n in range(state.size))
        return self.names.function("find", ["def find():", *self.lines, f"    return [{found}]"])

    def _place(self, owner: str) -> str:
        state, key = self.state, self.names.bind(self.state.key)
        if state.kind == "cell":
            return f"{owner}.cell_contents"
        if state.kind == "attr":
            plain = getattr_of(state.owner) is getattr
            return attribute(owner, state.key) if plain else f"plainly({owner}, {key})"
        if isinstance(state.owner, dict):
            return f"{owner}[{key}]" if type(state.owner) is dict else f"get({owner}, {key})"
        return f"at({owner}, {key})"

    def _unless(self, test: str) -> None:
        self.lines.append(f"    if not ({test}): return None")

    def _local(self, x: str) -> str:
        self.count += 1
        self.lines.append(f"    v{self.count} = {x}")
        return f"v{self.count}"

    def _walk(self, x: Any, place: str, owner: bool = False) -> None:
        """Tests of what stands at a place. owner: it is the object that holds the state, known by itself."""
        bind = self.names.bind
        if isinstance(x, Slot):
            self._tensor(self.leaves[x.index], place)
        elif isinstance(x, Worked):
            self._unless(f"{place}.__class__ is {bind(x.kind)}")
        elif not isinstance(x, Made):
            constant = bind(x)
            self._unless(f"same({place}, {constant})" if is_plain(x) else f"{place} is {constant}")
        elif x in self.met:
            self._unless(f"{place} is {self.met[x]}")
        else:
            v = self.met[x] = self._local(place)
            if not owner:
                self._unless(f"{v}.__class__ is {bind(x.cls)}")
            self._inside(x, v)

    def _inside(self, x: Made, v: str) -> None:
        if x.kind == "dict":
            keys = [k for k, _ in x.content]
            self._unless(f"[*{v}] == {self.names.bind(keys)}")
            for k, y in x.content:
                self._walk(y, f"{v}[{self.names.bind(k)}]")
        elif x.kind == "object":
            for name, y in x.content:
                self._walk(y, attribute(v, name))
            if "__dict__" in dir(x.cls):
                names = [name for name, _ in x.content]
                self._unless(f"[*{v}.__dict__] == {self.names.bind(names)}")
        else:
            row, most = x.content if x.cls is collections.deque else (x.content, None)
            self._unless(f"len({v}) == {len(row)}")
            if most is not None:
                self._unless(f"{v}.maxlen == {most}")
            for k, y in enumerate(row):
                self._walk(y, f"{v}[{k}]")

    def _tensor(self, t: Any, place: str) -> None:
        number = self.free.get(id(t))
        if number is None:
            self._unless(f"{place} is {self.names.bind(t)}")
        elif number in self.met:
            self._unless(f"{place} is {self.met[number]}")
        else:
            v = self.met[number] = self._local(place)
            bind = self.names.bind
            layout = f"{v}._layout is {bind(t._layout)}"
            if id(t) in self.state.sized:  # `Program.read` looks at the sizes
                layout = f"{v}._layout.dtype is {bind(t.dtype)} and len({v}._layout.shape) == {t.ndim}"
            self._unless(
                f"{v}.__class__ is {bind(t.__class__)} and {layout} and {v}._base is None "
                f"and {v}._requires_grad is {t._requires_grad} and {v}.device == {bind(t.device)}"
            )


def find_states(
    effects: Iterable[Effect], reads: Collection[Read], apart: Collection[int], is_free: Callable[[Any], bool],
    tensor_class: type, parts: Collection[tuple[Part, Live]] = (), sized: Collection[int] = (),
) -> Iterator[State]:  # fmt: skip
    """What a trace found to be state. is_free: says of a tensor that another one may stand for it; parts: live numbers
    in what is replaced."""
    for e in effects:
        if e.kind not in ("attr", "item", "cell", "content") or not _replaced(e, tensor_class):
            continue
        if not _is_small(e.before):
            continue
        state = State(e, is_free, tensor_class, parts, sized)
        wanted = state.size or any(r.is_at(e.kind, e.owner, e.key) for r in reads)
        if wanted and state.find() is not None and state.is_alone(reads, apart):
            yield state


def _inside(x: Any) -> Collection[Any]:
    """What a container or a small object holds."""
    if isinstance(x, (list, tuple, dict, collections.deque)):
        return dict.values(x) if isinstance(x, dict) else [*elements(x)]
    if hasattr(type(x), "_storage") or isinstance(x, type) or hasattr(type(x), "parameters"):
        return ()
    return (instance_dict(x) or {}).values()


def _is_small(x: Any) -> bool:
    """Whether a structure has no more containers and elements than one that may be state."""
    stack, found = [x], 0
    while stack:
        inside = _inside(stack.pop())
        found += len(inside)
        if found > 2 * _LIMIT:
            return False
        stack += inside
    return True


def _replaced(e: Effect, tensor_class: type) -> bool:
    """Whether a change puts a tensor, or a structure that may hold some, in the place of another one."""
    if e.kind == "content":
        return e.owner.__class__ in _WALKED and e.value.__class__ is e.before.__class__
    if e.before.__class__ is tensor_class:
        return hasattr(e.value, "_storage")
    if e.before is ABSENT:
        return False
    return e.value.__class__ is e.before.__class__ and (isinstance(e.before, tuple) or not is_plain(e.before))
