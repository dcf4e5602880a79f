"""A stretch of a trace between two reads of a value, compiled."""

from __future__ import annotations

from typing import Any

from ..core.errors import DuogradError, TraceError
from ..core.showing import shown
from .checks import SizedCheck
from .compile import compile_graph
from .ending import Ending
from .formulas import Program
from .live import LIVE
from .runner import Runner
from .sources import Source


class Segment:
    """A stretch of the function between two reads of a value.

    released: tensors whose `.grad` is given up before it runs; carries: (output, key) kept for later
    segments; checks: (output, who may refuse it; None: who says something); first: what checks before
    the run, where the graph writes; read: the output whose value decides (None: the last segment); line: the user's,
    where it is read; refuse: what may refuse that value, where nothing else of it matters; children: the next segment
    by `key` of the value; asked: the value is asked for as a Python number; lively: it is a live one; counts: it is how
    many elements something has, and with it sizes are live; ways: what is worked out by it, with the next segment for
    values that the program takes.
    """

    __slots__ = (
        "asked", "carries", "checks", "children", "counts", "ending", "first", "line", "lively", "read", "refuse",
        "released", "runner", "ways",
    )  # fmt: skip

    def __init__(self, runner: Runner):
        self.runner = runner
        self.released: list[Any] = []
        self.carries: list[tuple[int, Any]] = []
        self.checks: list[tuple[int | None, Any]] = []
        self.first: Segment | None = None
        self.read: int | None = None
        self.line = ""
        self.refuse: Any = None
        self.children: dict[bytes, Segment] = {}
        self.asked = False
        self.lively: bool | None = None
        self.counts: bool | None = None
        self.ways: list[tuple[Program, Segment]] = []
        self.ending: Ending | None = None

    def run(self, tensors: list[Any], carried: dict[Any, Any], late: Any = None) -> list[Any]:
        """The outputs of a call. Raises what a check raises, before any effect.

        late: a list that takes (function, array) of what is to be printed, instead of printing now.
        """
        if self.first is not None:
            self.first.run(tensors, carried, late)
        for owner in self.released:  # replaced by this call and not read: their memory serves it
            owner._grad = None
        outputs = self.runner(tensors, carried)
        for place, refuse in self.checks:
            array = None if place is None else outputs[place]._array()
            if refuse.__class__ is SizedCheck:
                refuse = refuse.at(carried.get(LIVE))
            if late is not None and getattr(refuse, "prints", False):
                late.append((refuse, None if array is None else array.copy()))
            else:
                refuse(array)
        return outputs

    def next(self, value: Any, carried: dict[Any, Any]) -> Segment | None:
        """What runs after it where its value is this one; live numbers of it are carried on."""
        for program, segment in self.ways:
            live = program.read((*carried.get(LIVE, ()), value.item()))
            if live is not None:
                carried[LIVE] = live
                return segment
        return self.children.get(self.key(value))

    def key(self, value: Any) -> bytes:
        """What of the value decides: its bytes, or with what words it is refused."""
        if self.refuse is None:
            return value.tobytes()  # type: ignore[no-any-return]
        try:
            self.refuse(value)
        except DuogradError as e:
            return f"{type(e).__name__}: {e}".encode()
        return b""


def placed(checks: list[tuple[Any, Any]], first: int = 0) -> tuple[list[Any], list[tuple[int | None, Any]]]:
    """The values that checks look at, and the checks with the places of these, from `first` on, among outputs."""
    values = [v for v, _ in checks if v is not None]
    places = iter(range(first, first + len(values)))
    return values, [(None if v is None else next(places), refuse) for v, refuse in checks]


def checking(runner: Any, places: list[tuple[int | None, Any]]) -> Segment:
    """A segment that only computes and checks the outputs of a graph."""
    segment = Segment(runner)
    segment.checks = places
    return segment


def make_runner(graph: Any, sources: list[Source]) -> Runner:
    devices = {v.device for v in graph.inputs} | {v.device for n in graph.nodes for v in n.outputs} or {"cpu"}
    if len(devices) > 1:
        raise TraceError(
            "function", f"uses tensors on {' and '.join(sorted(devices))}", "one function runs on one device"
        )
    device = devices.pop()
    compiled = compile_graph(graph, device)
    if topics := shown():
        from .explain import show_compiled

        show_compiled(compiled, topics)
    return Runner(compiled, device, sources, graph)
