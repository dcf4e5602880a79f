"""Which numbers of a function change from call to call, as far as its calls have shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from . import growing
from .arguments import Arguments, kind_of, loosened, number_names
from .formulas import Program, Site, largest, site_of
from .growing import changing_sizes
from .live import KINDS
from .plain import same

#: how many kinds of arguments and places of state are remembered
_KEPT = 1 << 12
#: so many traces with live sizes may come to nothing before no more are made
_VAIN = 2
#: so many traces in a row may read a number of state that was any in one before
_TIMES = 3


class _Alike:
    """What is known of calls that are of one kind but for their numbers.

    numbers: those of the latest that was traced; live, fixed: positions of numbers that may be any, and of those whose
    value Python reads; open: of those that were any in a variant, together, before; met: how many values fixed ones had
    since.
    """

    __slots__ = ("fixed", "live", "met", "numbers", "open")

    def __init__(self, numbers: Sequence[Any]):
        self.numbers = numbers
        self.live: set[int] = set()
        self.fixed: set[int] = set()
        self.open: set[frozenset[int]] = set()
        self.met: dict[int, int] = {}

    def meet(self, numbers: Sequence[Any]) -> None:
        """A call with these numbers is about to be traced."""
        others = [k for k, (a, b) in enumerate(zip(self.numbers, numbers)) if not same(a, b)]
        self.live.update(k for k in others if k not in self.fixed)
        self.met.update((k, self.met.get(k, 0) + 1) for k in others if k in self.fixed)
        self.numbers = numbers

    def counts(self) -> set[int]:
        """Positions of integers that are read, perhaps as places of elements: like a size they may be any yet."""
        return {
            k
            for k, n in self.met.items()
            if n >= growing.SEEN - 1 and type(self.numbers[k]) is int and self.numbers[k] > 0
        }

    def fix(self, positions: Iterable[int]) -> None:
        """The values of these are read."""
        self.fixed |= set(positions)
        self.live -= self.fixed


class Changing:
    """The numbers of one function's calls.

    A number that is another one at the second trace may be any from then on, unless Python reads it.
    """

    def __init__(self) -> None:
        #: by kinds of arguments
        self._alike: dict[Any, _Alike] = {}
        #: places of state whose numbers are read
        self._fixed: set[Any] = set()
        #: of places whose numbers were any in a variant: in so many more traces in a row they may be read
        self._open: dict[Any, int] = {}
        #: traces with live sizes that came to nothing; whether variants are known by keys without sizes
        self.vain, self._sized = 0, False
        #: why sizes have a variant each, in words
        self.why: dict[str, None] = {}
        #: by place, how many values an integer had that was read
        self._met: dict[Any, int] = {}
        #: traces in vain with live integers that were read
        self._vain_counts = 0

    def keys(self, key: Any, rest: Arguments | None) -> list[Any]:
        """Those that variants for a call may be known by."""
        found = [key]
        if rest is not None and rest.numbers and self._alike:
            alike = self._alike.get(_but_for_numbers(key, rest))
            sets = () if alike is None else dict.fromkeys((frozenset(alike.live), *alike.open))
            found += [loosened(key, rest, positions) for positions in sets if positions]
        return [*found, *map(kind_of, found)] if self._sized else found

    def program(
        self,
        function: Any,
        key: Any,
        rest: Arguments | None,
        variants: Collection[Any],
        tensors: Sequence[Any] | None = None,
    ) -> Program | None:
        """For a call that is to be traced: the numbers that were other ones before, and sizes. variants: made lately;
        tensors: those of the call; None where no sizes are to be live."""
        positions: list[int] = []
        names: list[str] = []
        if rest is not None and rest.numbers:
            alike = self._of(key, rest)
            alike.meet(rest.numbers)
            positions, names = sorted(alike.live), number_names(function, rest)
        sites = self._sites(variants)
        sizes = [] if tensors is None or self.vain >= _VAIN else changing_sizes(tensors, variants)
        ranges: dict[int, tuple[int, int]] = {}
        if tensors is not None and max(self.vain, self._vain_counts) < _VAIN:
            if rest is not None and rest.numbers:
                counts = alike.counts()
                positions = sorted({*positions, *counts})
                ranges = {n: (1, largest(rest.numbers[k])) for n, k in enumerate(positions) if k in counts}
            more = self._counting(variants)
            first = len(positions) + len(sites)
            ranges |= {n: (1, largest(s.now())) for n, s in enumerate(more, first)}
            sites += more
        if not variants or not (sites or positions or sizes):
            return None
        kinds = [type(rest.numbers[k]) for k in positions if rest is not None]
        return Program(
            positions,
            sites,
            [*kinds, *(type(s.now()) for s in sites)],
            [names[k] for k in positions],
            sizes,
            ranges,
        )

    def gave_up(self, program: Program, why: str) -> None:
        """A trace with live sizes came to nothing."""
        if why and program.sizes:
            self.why.setdefault(why)
        if program.ranges:
            self._vain_counts += 1
        else:
            self.vain += 1

    def fix(self, program: Program, key: Any, rest: Arguments | None) -> None:
        """A trace with these live numbers came to nothing: they are guarded by value from now on."""
        self._fix_sites(s for s in program.sites if s is not None)
        if rest is not None and rest.numbers:
            self._of(key, rest).fix(program.positions)

    def learn(self, program: Program | None, key: Any, rest: Arguments | None) -> Any:
        """A variant was traced: remember what of it is read. Returns the key that it is found by."""
        if program is None:
            return key
        self._open.update((s.ident, _TIMES) for s in program.live_sites())
        self._fix_sites(program.fixed_sites())
        if program.ranges:
            self._vain_counts += not program.fixed.isdisjoint(program.ranges)
            self._fixed -= {s.ident for s in program.live_sites()}
            if rest is not None:
                alike = self._of(key, rest)
                alike.fixed -= program.open_positions()
                alike.live |= program.open_positions()
        if program.sizes:
            if program.reads_sizes:
                self.vain += 1
                self.why |= program.told
            if program.loose_arguments:
                self._sized = True
                numbers = [] if rest is None else program.open_positions()
                return kind_of(key if rest is None else loosened(key, rest, numbers))
        if rest is None or not rest.numbers:
            return key
        positions = program.open_positions()
        self._of(key, rest).fix(program.fixed_positions())
        if positions:
            self._of(key, rest).open.add(frozenset(positions))
        return loosened(key, rest, positions)

    def forget(self, gone: Any) -> None:
        """Drop the kinds of arguments of which `gone` says so."""
        self._alike = {k: a for k, a in self._alike.items() if not gone(k)}

    def _of(self, key: Any, rest: Arguments) -> _Alike:
        kind = _but_for_numbers(key, rest)
        found = self._alike.get(kind)
        if found is None:
            if len(self._alike) >= _KEPT:
                self._alike.clear()
            found = self._alike[kind] = _Alike(rest.numbers)
        return found

    def _sites(self, variants: Iterable[Any]) -> list[Site]:
        """The places of state by whose numbers these variants do not fit, or that are live in them."""
        found: dict[Any, Site] = {}
        for v in variants:
            known = [] if v.live is None else v.live.live_sites()
            inner = [part for state in v.state for part in state.numbers()]
            for site in (*known, *map(site_of, v.reads), *inner):
                if site is not None and site.ident not in self._fixed and type(site.now()) in KINDS:
                    found.setdefault(site.ident, site)
        return list(found.values())

    def _counting(self, variants: Iterable[Any]) -> list[Site]:
        """The same of integers that are read, and have had some values since: they may be the places of elements."""
        found = {s.ident: s for v in variants for s in map(site_of, v.reads) if s is not None}
        found = {k: s for k, s in found.items() if k in self._fixed}
        for ident in found:
            self._met[ident] = self._met.get(ident, 0) + 1
        counted = [s for k, s in found.items() if self._met[k] >= growing.SEEN - 1]
        return [s for s in counted if type(s.now()) is int and s.now() > 0]

    def _fix_sites(self, sites: Iterable[Site]) -> None:
        """The values of these are read; where they were any in a variant before, perhaps on some paths alone."""
        if len(self._fixed) >= _KEPT:
            for known in (self._fixed, self._met, self._open):
                known.clear()  # type: ignore[attr-defined]
        for s in sites:
            left = self._open.get(s.ident, 0)
            if left:
                self._open[s.ident] = left - 1
            else:
                self._fixed.add(s.ident)


def _but_for_numbers(key: tuple[Any, ...], rest: Arguments) -> tuple[Any, ...]:
    """Equal for calls that differ in sizes and numbers alone."""
    return kind_of(loosened(key, rest, range(len(rest.numbers))))
