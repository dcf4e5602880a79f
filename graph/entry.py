"""The quick way into a variant: one generated function that checks a call's arguments and guards, and runs it.

A call of a small function is all overhead: keys, lists, loops over what never changes. Where a variant is one graph
that reads no values, but to check them, all of that is known, and the function below is written out for it. It gives
`MISS` for a call that it does not fit, which then goes the general way (`Function.graph`).
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

from ..core import dispatch
from ..core.backend import scalar_bits
from ..core.storage import writes
from ..core.vjp import Node
from .arguments import Loose, Slot
from .checks import SizedCheck
from .given import Given
from .guards import Namespace
from .live import LIVE, Formula
from .live_uses import Worked
from .rebuild import Made

MISS: Any = type("Miss", (), {"__repr__": lambda self: "miss", "__slots__": ()})()
#: tensors, outputs and numbers of a call that is written out; longer ones pay little for the general way
_LIMIT = 400
#: for so many sizes an entry knows the layouts of its results
_KNOWN = 256
_LARGE = 1 << 63
#: the call of a variant after which it gets its entry, and how many entries are asked before the general way
CALLS, ASKED = 3, 4


def make_entry(variant: Any, tensors: list[Any], grad: bool) -> Callable[[tuple[Any, ...]], Any] | None:
    """The entry of a variant for calls with these tensors and with numbers, by position; None where the general way is
    needed."""
    segment = variant.root
    end = segment.ending
    if end is None or variant.kept.kwargs or _says(segment):
        return None
    if end.roots or end.between or end.leaves or end.hooked or end.grad_mode is not None:
        return None
    if end.written_grads or end.handed_grads or variant.aliases.arrays:
        return None
    if variant.aliases.asked and variant.aliases.read_grads:
        return None
    if any(leaf != (True, (), "") for leaf in variant.aliases.leaves.values()):
        return None
    slots = [x.index for x in variant.kept.args if isinstance(x, Slot)]
    if slots != list(range(len(tensors))) or not all(map(_is_plain, variant.kept.args)):
        return None
    runner = segment.runner
    if (
        variant.state
        or end.contents
        or end.seeded
        or any(n.more or n.key is None for n, _ in runner.compiled.numbers)
    ):
        return None
    size = len(runner.sources) + len(runner.compiled.outputs) + len(end.written) + len(tensors)
    if runner._others or size > _LIMIT:
        return None
    return _Writer(variant, tensors, grad).write()


def _says(segment: Any) -> bool:
    """Whether a stretch, or what checks before it, prints."""
    own = any(getattr(refuse, "prints", False) for _, refuse in segment.checks)
    return own or (segment.first is not None and _says(segment.first))


def _is_plain(x: Any) -> bool:
    """Whether an argument is a tensor, or a number or the like that is looked at by itself."""
    return x is None or x.__class__ in (Slot, Loose, int, float, bool, str)


def _fresh(numbers: list[Any], n: int, value: Any, kind: type, dtype: Any) -> Any:
    """A setting and its bits, kept when the setting cannot change inside."""
    entry = value, scalar_bits(kind(value), dtype)
    if value.__class__ in (float, int):
        numbers[n] = entry
    return entry


class _Probe:
    __slots__ = ("_grad", "_storage")
    _grad: Any
    _storage: Any


def _counts() -> tuple[int, int]:
    """What `getrefcount` says of a gradient that only its owner holds, and of its storage, in code as below."""
    owner = _Probe()
    owner._grad = _Probe()
    owner._grad._storage = object()
    g = owner._grad
    return sys.getrefcount(g), sys.getrefcount(g._storage)


_ALONE, _ALONE_IN_IT = _counts()


class _Writer:
    def __init__(self, variant: Any, tensors: list[Any], grad: bool):
        self.variant, self.tensors, self.grad = variant, tensors, grad
        self.runner, self.end = variant.root.runner, variant.root.ending
        self.names = Namespace(
            MISS=MISS, state=dispatch.state, Tensor=self.runner._tensor,
            numbers=[(MISS, 0)] * len(self.runner._numbers), refs=sys.getrefcount, weak=weakref.getweakrefcount,
            fresh=_fresh, writes=writes,
        )  # fmt: skip
        self.lines: list[str] = []
        #: the names of the call's numbers, in order
        self.given: list[str] = []
        #: the values of the steps of live numbers, in source
        self.live = "None"
        #: outputs whose sizes are live
        self.sized = [
            k for k, (_, row) in enumerate(self.runner._sized) if any(n.__class__ is not int for n in row)
        ]

    def write(self) -> Callable[[tuple[Any, ...]], Any]:
        self.lines = ["def enter(args):"]
        self._arguments()
        self._guards()
        self._check_first()
        reused = self._released()
        outputs = self._outputs(reused)
        self._run(outputs)
        for place, refuse in self.variant.root.checks:
            array = "None" if place is None else f"o{place}._array()"
            call = self.names.bind(refuse)
            if refuse.__class__ is SizedCheck:
                call = f"{call}.at({self.live})"
            self.lines.append(f"    {call}({array})")
        self._finish()
        entry: Callable[[tuple[Any, ...]], Any] = self.names.function("enter", self.lines)
        return entry

    def _arguments(self) -> None:
        bind, kept = self.names.bind, self.variant.kept.args
        names = [f"a{k}" for k in range(len(self.tensors))]
        row = [f"a{x.index}" if isinstance(x, Slot) else f"n{k}" for k, x in enumerate(kept)]
        tests = [f"state.grad is not {self.grad}"]
        for name, x in zip(row, kept):
            if isinstance(x, Loose):
                tests.append(f"{name}.__class__ is not {bind(x.cls)}")
            elif not isinstance(x, Slot):
                tests.append(f"{name} is not {bind(x)} and not same({name}, {bind(x)})")
        live = [] if self.variant.live is None else [k for k, _ in self.variant.live.shapes]
        for k, (name, t) in enumerate(zip(names, self.tensors)):
            tests.append(f"{name}.__class__ is not Tensor")
            if k not in live:
                tests.append(f"{name}._layout is not {bind(t._layout)}")
            tests.append(f"{name}._requires_grad is not {t._requires_grad}")
        leaves = self.variant.aliases.leaves
        tests += [f"{names[k]}._node is not None or {names[k]}._hooks" for k in leaves]
        for k, facts in self.variant.aliases.grads.items():
            tests.append(f"{names[k]}._grad is " + ("not None" if facts is None else "None"))
            if facts is not None:
                tests.append(f"{names[k]}._grad._layout is not {bind(facts[0])}")
                tests.append(f"{names[k]}._grad._requires_grad is not {facts[1]}")
        tests += [f"{a} is {b}" for k, a in enumerate(names) for b in names[:k]]
        self.given = [name for name, x in zip(row, kept) if x.__class__ in (Loose, int, float)]
        self.lines += [f"    if len(args) != {len(row)}: return MISS"]
        if row:
            self.lines += [f"    {', '.join(row)}, = args"]
        self.lines += [f"    if {' or '.join(tests)}: return MISS"]
        alike: dict[Any, str] = {}
        for k in live:  # what `Program.lines` does not look at
            lay = self.tensors[k]._layout
            first = alike.setdefault((lay.dtype, lay.device, len(lay.shape)), f"l{k}")
            other = "" if first == f"l{k}" else f"l{k} is not {first} and "
            facts = f"l{k}.dtype is not {bind(lay.dtype)} or l{k}.device != {lay.device!r}"
            self.lines += [
                f"    l{k} = a{k}._layout", f"    if {other}({facts}): return MISS",
            ]  # fmt: skip

    def _guards(self) -> None:
        aliases, bind = self.variant.aliases, self.names.bind
        tests = self.names.tests(self.variant.guards.guards, "return MISS", 8)
        args = [f"a{k}" for k in range(len(self.tensors))]
        storages = aliases.storages | aliases.written
        near = [f"id({a}._storage) in {bind(storages)}" for a in args] if storages else []
        if args and (near or aliases.written_args or aliases.met):
            when = "" if aliases.written_args or aliases.met else f"({' or '.join(near)}) and "
            tests.append(f"        if {when}not {bind(aliases.fit)}([{', '.join(args)}]): return MISS")
        if self.variant.live is not None:
            lines, self.live = self.variant.live.lines(
                self.names, self.given.__getitem__, "l{}".format, "return MISS"
            )
            tests += lines
        if tests:
            self.lines += ["    try:", *tests, "    except Exception: return MISS"]

    def _check_first(self) -> None:
        """Run what looks at values before anything is written."""
        first, bind = self.variant.root.first, self.names.bind
        if first is not None:
            args = "".join(f"a{k}, " for k in range(len(self.tensors)))
            carried = "{}" if self.variant.live is None else f"{{{bind(LIVE)}: {self.live}}}"
            self.lines.append(f"    {bind(first.run)}([{args}], {carried})")

    def _released(self) -> dict[int, str]:
        """Give up gradients that the call replaces; one that nobody else holds is used again. Names by output."""
        bind, reused = self.names.bind, {}
        released = self.variant.root.released
        spots = {id(owner): k for owner, k in self.end.grads}
        for n, owner in enumerate(released):
            name, k = bind(owner), spots.get(id(owner))
            if k is not None and k not in self.sized:
                lay, _ = self._output(k)
                g = reused[k] = f"g{n}"
                tests = [
                    f"{g} is None", f"{g}._layout is not {bind(lay)}", f"refs({g}) != {_ALONE}",
                    f"{g}.__class__ is not Tensor", f"refs({g}._storage) != {_ALONE_IN_IT}", f"{g}._storage.is_lent()",
                    f"{g}._requires_grad", f"{g}._offset", f"weak({g})",
                    *(f"{g}.{part} is not None" for part in ("_node", "_base", "_hooks", "_grad")),
                ]  # fmt: skip
                self.lines += [f"    {g} = {name}._grad", f"    if {' or '.join(tests)}: {g} = None"]
            self.lines.append(f"    {name}._grad = None")
        return reused

    def _outputs(self, reused: dict[int, str]) -> list[str]:
        """Lines that make the outputs' tensors `o0`, ...; the addresses of their memory."""
        bind, addresses = self.names.bind, []
        self._layouts()
        for k in range(len(self.runner._sized)):
            if k in self.sized:
                fresh = f"Tensor(k{k}, m{k}())"
            else:
                lay, nbytes = self._output(k)
                make = bind(self.runner._backend.maker(nbytes, self.runner.made_by(k)))
                fresh = f"Tensor({bind(lay)}, {make}())"
            if k in reused:
                self.lines.append(f"    o{k} = {fresh} if {reused[k]} is None else {reused[k]}")
            else:
                self.lines.append(f"    o{k} = {fresh}")
            addresses.append(f"o{k}._storage.ptr")
        return addresses

    def _output(self, k: int, live: Any = None) -> tuple[Any, int]:
        """The layout of an output and its bytes."""
        found: tuple[Any, int] = self.runner._output(*self.runner._sized[k], live)
        return found

    def _layouts(self) -> None:
        """Find the layouts of outputs whose sizes are live, `k0`, ..., and what makes their memory, `m0`, ..."""
        if not self.sized:
            return
        rows = [row for k, (_, row) in enumerate(self.runner._sized) if k in self.sized]
        steps = sorted({n.key for row in rows for n in row if n.__class__ is not int})
        known: dict[tuple[int, ...], tuple[Any, ...]] = {}
        output, maker, sized = self._output, self.runner._backend.maker, self.sized

        def fresh(key: tuple[int, ...]) -> tuple[Any, ...]:
            live, row = dict(zip(steps, key)), []
            for k in sized:
                lay, nbytes = output(k, live)
                row += [lay, maker(nbytes)]
            if len(known) >= _KNOWN:
                known.clear()
            found = known[key] = tuple(row)
            return found

        key, bind = "".join(f"v{n}, " for n in steps), self.names.bind
        self.lines += [
            f"    row = {bind(known)}.get(({key}))", f"    if row is None: row = {bind(fresh)}(({key}))",
            f"    {''.join(f'k{k}, m{k}, ' for k in sized)}= row",
        ]  # fmt: skip

    def _run(self, outputs: list[str]) -> None:
        runner, bind = self.runner, self.names.bind
        dynamic = [str(address) for address in runner._template]
        for k, position in runner._args:
            dynamic[k] = f"a{position}._storage.ptr + a{position}._offset"
        for k, owner in runner._grads:
            name = bind(owner)
            dynamic[k] = f"{name}._grad._storage.ptr + {name}._grad._offset"
        for k, position in runner._arg_grads:
            dynamic[k] = f"a{position}._grad._storage.ptr + a{position}._grad._offset"
        dynamic += outputs
        for n, (number, dtype) in enumerate(runner._numbers):
            dynamic.append(self._number(n, number, dtype))
        dynamic += map(str, runner._tail)
        if runner.prepared is not None:
            name = bind(runner.prepared)
            self.lines += [f"    now = {name}.now", f"    if now[0] is not writes.last: now = {name}.renew()"]
        if runner._arena is not None:
            self.lines.append(f"    arena = {bind(runner._arena.take)}()")
            dynamic.append("arena.ptr")
        if runner.prepared is not None:
            dynamic.append("*now[1]")
        if runner._moved:
            moved = [f"dynamic[{k}] + v{offset.key}, " for k, offset in runner._moved]
            self.lines += [f"    dynamic = [{', '.join(dynamic)}]", f"    dynamic += ({''.join(moved)})"]
            dynamic = ["*dynamic"]
        if runner.compiled.program.launches:
            self.lines.append(f"    {bind(runner._execute)}([{', '.join(dynamic)}])")
        if runner._arena is not None:
            self.lines.append(f"    {bind(runner._arena.give)}(arena)")

    def _number(self, n: int, number: Any, dtype: Any) -> str:
        """The bits of a setting. They are worked out anew when the object in its place is another one."""
        bind = self.names.bind
        if isinstance(number, Formula):
            low, high = self.variant.live.reach(number.key)
            if number.kind is int and dtype.kind == "int" and -_LARGE <= low <= high < _LARGE:
                return f"v{number.key}"
            return f"{bind(scalar_bits)}(v{number.key}, {bind(dtype)})"
        if number.terms:
            terms = ", ".join(f"v{x.key}" for x, _ in number.terms)
            return f"{bind(scalar_bits)}({bind(number.plus)}({terms}), {bind(dtype)})"
        if number.add or number.more:
            return f"{bind(scalar_bits)}({bind(number.read)}(), {bind(dtype)})"
        # A pair, so that another thread sees value and bits that belong together.
        self.lines += [
            f"    p{n} = {bind(number.owner)}[{number.key!r}]",
            f"    e{n} = numbers[{n}]",
            f"    if e{n}[0] is not p{n}: e{n} = fresh(numbers, {n}, p{n}, {bind(number.kind)}, {bind(dtype)})",
        ]
        return f"e{n}[1]"

    def _finish(self) -> None:
        bind, end = self.names.bind, self.end
        self.lines += [f"    {bind(cached)}(*{bind(args)})" for cached, args in end.looked_up]
        written = [(bind(t._storage), place) for t, place in end.written]
        written += [(f"a{position}._storage", place) for position, place in end.written_args]
        for storage, place in written:
            self.lines += [f"    {storage}.version += 1", f"    {storage}.changed = {bind(place)}"]
        if end.written or end.written_args:
            self.lines.append("    writes.last = object()")
        for owner, k in end.grads:
            self.lines.append(f"    {bind(owner)}._grad = {'None' if k is None else f'o{k}'}")
        for position, k in end.arg_grads:
            self.lines.append(f"    a{position}._grad = {'None' if k is None else f'o{k}'}")
        for generator, count in end.drawn:
            many = count if count.__class__ is int else f"v{count.key}"
            self.lines.append(f"    {bind(generator)}._advance({many})")
        for n, (kind, k, look) in enumerate(end.views):
            live = f", {self.live}" if look.sized else ""
            self.lines.append(f"    w{n} = {bind(look)}({self._place(kind, k)}{live})")
        for whose, spot in end.grad_views:
            owner = f"a{whose}" if whose.__class__ is int else bind(whose)
            self.lines.append(f"    {owner}._grad = {self._place(*spot)}")
        for n, (place, node, behind, others) in enumerate(end.spent):
            y, ends = self._place(*place), [self._place(*x) for x in behind]
            edges = [f"{x} if {x}._node is None else ({x}._node, {x}._index)" for x in ends]
            edges += [f"(s{k}, 0)" for k in others]
            # What `ending.spent_here` makes, without its calls.
            made = [bind(node.op), "()", f"({''.join(f'{e}, ' for e in edges)})", bind(node.rules)]
            made += ["{}", bind(node.out_types), bind(node.where)]
            self.lines += [
                f"    s{n} = {bind(Node)}({', '.join(made)})",
                f"    {y}._node, {y}._index, {y}._requires_grad = s{n}, 0, True",
            ]
        self.lines += [f"    {self._place(*place)}._requires_grad = {value}" for place, value in end.asked]
        plainly = None if end.changes else self._result(end.structure, set())
        if plainly is not None:
            self.lines.append(f"    return {plainly}")
            return
        results = ", ".join(self._place(*place) for place in end.returned)
        live = "" if self.variant.live is None else f", None, {self.live}"
        self.lines.append(f"    return {bind(end.result)}([{results}]{live})")

    def _result(self, x: Any, made: set[int]) -> str | None:
        """What `rebuild.build` makes of a description, in source; None for what has no such form. made: numbers of the
        containers so far."""
        if isinstance(x, Slot):
            return self._place(*self.end.returned[x.index])
        if isinstance(x, Worked):
            return f"v{x.step}"
        if isinstance(x, Given):
            return None
        if not isinstance(x, Made):
            return self.names.bind(x)
        if x.number in made or x.cls not in (tuple, list, dict):
            return None
        made.add(x.number)
        rows = x.content if x.cls is dict else [(v,) for v in x.content]
        parts = [[self._result(v, made) for v in row] for row in rows]
        if any(part is None for row in parts for part in row):
            return None
        text = "".join(f"{': '.join(map(str, row))}, " for row in parts)
        return f"({text})" if x.cls is tuple else f"[{text}]" if x.cls is list else f"{{{text}}}"

    def _place(self, kind: str, k: Any) -> str:
        letter = {"output": "o", "arg": "a", "view": "w"}.get(kind)
        return self.names.bind(k) if letter is None else f"{letter}{k}"
