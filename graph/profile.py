"""Profile: the time of every kernel of a function's plan, beside the least it could take on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..core.backend import Program
from ..core.errors import ArgumentError, DeviceError
from ..core.kinds import is_real
from . import rates
from .explain import clip, count, size, user_lines
from .explain import seconds as time_text
from .report import Kernel, kernels

_clock = time.perf_counter


class Row(NamedTuple):
    """One kernel. seconds: median of its calls; floor: the least it could take; bound: what sets the floor."""

    graph: str
    kernel: Kernel
    seconds: float
    floor: float
    bound: str

    @property
    def share(self) -> float:
        """Floor over time: 1 is as fast as the machine goes."""
        return self.floor / self.seconds if self.seconds else 1.0


class Profile(NamedTuple):
    """What `fn.profile` measured; print it. call: the median of whole calls; rows: kernels, slowest first."""

    name: str
    call: float
    calls: int
    rows: tuple[Row, ...]

    @property
    def kernels(self) -> float:
        """Seconds in kernels, one after the other."""
        return sum(r.seconds for r in self.rows)

    @property
    def floor(self) -> float:
        """The least that all kernels could take."""
        return sum(r.floor for r in self.rows)

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {time_text(self.call)} a call, {time_text(self.kernels)} in {len(self.rows)} kernels "
            f"one by one (floor {time_text(self.floor)}, {self._percent(self.floor, self.kernels)}); "
            f"medians of {self.calls} calls",
            f"  {'time':>9} {'share':>6} {'floor':>9} {'of floor':>8}  {'bound':14} {'kernel':56} lines",
        ]
        for r in self.rows[:40]:
            lines.append(
                f"  {time_text(r.seconds):>9} {self._percent(r.seconds, self.kernels):>6} {time_text(r.floor):>9} "
                f"{r.share:8.0%}  {r.bound:14} {clip(r.kernel.title, 56):56} {user_lines(r.kernel.lines)}"
            )
        if len(self.rows) > 40:
            rest = sum(r.seconds for r in self.rows[40:])
            lines.append(f"  {time_text(rest):>9} in {len(self.rows) - 40} more kernels")
        lines.append(
            "  floor: bytes over the speed of a copy of that size (of a change in place, for a kernel that makes one), "
            "or operations over the speed of a large matrix product, whichever is longer"
        )
        return "\n".join(lines)

    @staticmethod
    def _percent(part: float, whole: float) -> str:
        return f"{part / whole:.0%}" if whole else "-"


def profile_variant(
    variant: Any, tensors: list[Any], given: Any, seconds: float, again: Callable[[], None]
) -> Profile:
    """Time the kernels of a variant in calls on these tensors.

    given: (args, kwargs). again: called before each further call. The caller restores the state.
    """
    if not (is_real(seconds) and seconds > 0):
        raise ArgumentError("profile", f"seconds={seconds} is not positive", "use a positive number")
    variant.run(tensors, given)
    runners = list(dict.fromkeys(variant.runners()))
    if any(r.device != "cpu" for r in runners):
        raise DeviceError("profile", "times kernels of the CPU", "profile the function on CPU tensors")
    timers = [_Timer(r) for r in runners]
    whole: list[float] = []
    until = _clock() + seconds
    while _clock() < until or len(whole) < 3:
        again()
        start = _clock()
        variant.run(tensors, given)
        whole.append(_clock() - start)
        again()
        for t in timers:
            t.attach()
        try:
            variant.run(tensors, given)
        finally:
            for t in timers:
                t.detach()
    rows = [row for t in timers for row in t.rows()]
    for t in timers:
        t.runner.times = {r.kernel.number: r.seconds for r in rows if r.graph == t.runner.compiled.graph.name}
    rows.sort(key=lambda r: -r.seconds)
    return Profile(variant.name, statistics.median(whole), len(whole), tuple(rows))


class _Timer:
    """Runs a plan piece by piece, in its order, with a clock around each kernel's part of each step."""

    def __init__(self, runner: Any):
        self.runner = runner
        compiled = runner.compiled
        self.kernels = kernels(compiled)
        program, backend = compiled.program, compiled.program.backend
        pieces: dict[tuple[int, int], list[int]] = {}
        for row, owners in enumerate(program.owners):
            pieces.setdefault((program.steps[row], owners[0]), []).append(row)
        self.pieces: list[tuple[int, Callable[[Sequence[int]], None]]] = []
        for (_, owner), rows in sorted(pieces.items(), key=lambda item: item[1][0]):
            part = Program(backend, program.n_dynamic)
            for k, row in enumerate(rows):
                launch = program.launches[row]
                part.launches.append(launch._replace(wave=k == 0 or launch.wave))
            self.pieces.append((owner, backend.load(part).run))
        self.empty = backend.load(Program(backend, program.n_dynamic)).run
        self.times: dict[int, list[float]] = {k.number: [] for k in self.kernels}
        self.usual = runner._execute

    def _overhead(self, dynamic: Sequence[int]) -> float:
        """Seconds of a piece that does nothing, with the addresses of this call."""
        times = []
        for _ in range(5):
            start = _clock()
            self.empty(dynamic)
            times.append(_clock() - start)
        return statistics.median(times)

    def attach(self) -> None:
        self.runner._execute = self._timed

    def detach(self) -> None:
        self.runner._execute = self.usual

    def _timed(self, dynamic: Sequence[int]) -> None:
        spent = dict.fromkeys(self.times, 0.0)
        cost = self._overhead(dynamic)
        for owner, run in self.pieces:
            start = _clock()
            run(dynamic)
            spent[owner] += max(0.0, _clock() - start - cost)
        for owner, value in spent.items():
            self.times[owner].append(value)

    def rows(self) -> list[Row]:
        """The kernels with their median times and floors; none when the graph did not run."""
        found = []
        for k in self.kernels:
            times = self.times[k.number]
            if not times:
                continue
            written = sum(n for _, n in k.writes)
            rate = rates.traffic_rate(k.nbytes, 2 * k.renewed > written) if k.nbytes else 1.0
            memory = k.nbytes / rate
            dtype = k.group.nodes[-1].outputs[0].type.dtype
            arithmetic = k.flops / rates.product_rate(dtype) if k.flops else 0.0
            bound = f"{size(k.nbytes)} moved" if memory >= arithmetic else count(k.flops)
            name = self.runner.compiled.graph.name
            found.append(Row(name, k, statistics.median(times), max(memory, arithmetic), bound))
        return found
