"""Explain: a function's variants for a person. Why each was traced, what fused, kernels, memory, guards."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..core.errors import is_own_file
from .report import Border, Kernel, borders, kernels, levels, lifetimes, live_bytes, stretches

_BARS = " ▁▂▃▄▅▆▇█"
#: how many kernels, borders and guards are listed before the rest is counted
_ROWS, _BORDERS, _GUARDS = 40, 8, 12


def size(value: float) -> str:
    """Bytes in the unit that reads best."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def count(value: float) -> str:
    """Operations in the unit that reads best."""
    for unit, scale in (("GFLOP", 1e9), ("MFLOP", 1e6), ("KFLOP", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} FLOP"


def seconds(value: float) -> str:
    """A time in the unit that reads best."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def show_compiled(compiled: Any, what: Sequence[str]) -> None:
    """Print what was asked for of a graph that has just been compiled, to standard error."""
    from .show import show

    texts = {
        "fusion": lambda: "\n".join(explain_graph(compiled)),
        "graph": lambda: show(compiled.graph) + "\n" + show(compiled.optimised, compiled.groups),
        "source": lambda: "\n\n".join(f"# {label}\n{text}" for label, text in compiled.sources()),
    }
    for x in what:
        if x in texts:
            print(texts[x](), file=sys.stderr)


def clip(text: str, width: int) -> str:
    """A text of at most that many characters."""
    return text if len(text) <= width else text[: width - 3] + "..."


def explain_variant(variant: Any, guards: bool = False) -> list[str]:
    """The lines of one variant, without its reason."""
    paths = f", {variant.paths} paths" if variant.paths > 1 else ""
    lines = [f"traced and compiled in {variant.seconds:.3f} s{paths}"]
    for title, runner in stretches(variant):
        lines += explain_graph(runner.compiled, runner.times, title)
    return lines + _guards(variant.guards.guards, guards)


def explain_graph(
    compiled: Any, times: Mapping[int, float] = MappingProxyType({}), title: str = ""
) -> list[str]:
    """One compiled graph: its kernels in the order they run, what kept kernels apart, memory over time.

    Then the same of the bodies of its loops and of its branches. title: for the graph's name.
    """
    rows = kernels(compiled)
    moved, work = sum(k.nbytes for k in rows), sum(k.flops for k in rows)
    lines = [
        f"{title or compiled.graph.name}: {len(compiled.graph.nodes)} ops -> {len(compiled.groups)} fused groups, "
        f"{len(compiled.program.launches)} kernel launches in {levels(compiled)} steps; "
        f"{size(moved)} of memory traffic, {count(work)}"
    ]
    lines += ["  " + text for text in (*_table(rows, times), *notes(compiled))]
    lines += ["  " + text for text in _borders(borders(compiled), rows)]
    lines += ["  " + text for text in _memory(compiled)]
    return lines + ["  " + text for k in rows for part in k.inside for text in _inside(k, part)]


def notes(compiled: Any) -> list[str]:
    """What the passes tell of a graph, and what is prepared for it."""
    return [*compiled.optimised.notes, *_prepared(compiled.prepared)]


def _inside(k: Kernel, part: Any) -> list[str]:
    """A region of a kernel's op: a loop's test or body, a branch."""
    return explain_graph(part.plan, title=inside_title(k, part))


def inside_title(k: Kernel, part: Any) -> str:
    """A region of a kernel's op in words."""
    turns = "" if part.turns is None else f", {part.turns} turns"
    return f"{part.name} of {k.title} in step {k.levels[0]}{turns}"


def _table(rows: Sequence[Kernel], times: Mapping[int, float]) -> Iterable[str]:
    if not rows:
        return
    clock = f" {'time':>9}" if times else ""
    yield f"{'step':>5} {'kernel':58} {'tasks':>9} {'reads':>8} {'writes':>8} {'work':>12}{clock}  lines"
    shown = rows if len(rows) <= _ROWS else sorted(rows, key=lambda k: -k.nbytes - k.flops)[:_ROWS]
    for k in rows:
        if k not in shown:
            continue
        clock = f" {seconds(times.get(k.number, 0.0)):>9}" if times else ""
        reads, writes = sum(n for _, n in k.reads), sum(n for _, n in k.writes)
        yield (
            f"{k.levels[0]:5} {clip(k.title, 58):58} {_tasks(k):>9} {size(reads):>8} {size(writes):>8} "
            f"{count(k.flops):>12}"
            f"{clock}  {user_lines(k.lines)}"
        )
    if len(shown) < len(rows):
        yield f"      and {len(rows) - len(shown)} smaller kernels"


def _tasks(k: Kernel) -> str:
    """How a kernel is divided among threads: its pieces, "of" those of all kernels that run at the same time."""
    return f"{k.chunks} of {k.chunks + k.beside}" if k.beside else str(k.chunks)


def _prepared(recipes: Sequence[Any]) -> Iterable[str]:
    """What depends on state alone."""
    if recipes:
        total = size(sum(r.nbytes for r in recipes))
        yield f"prepared once, and again when the state it is made of has changed ({total}):"
        counts: dict[str, list[int]] = {}
        for r in recipes:
            counts.setdefault(r.what, []).append(r.nbytes)
        rows = sorted(counts.items(), key=lambda item: -sum(item[1]))
        for what, sizes in rows[:_BORDERS]:
            yield (
                f"  {clip(what, 90)}"
                + (f" x{len(sizes)}" if len(sizes) > 1 else "")
                + f" ({size(sum(sizes))})"
            )
        if len(rows) > _BORDERS:
            yield f"  and {len(rows) - _BORDERS} others"


def user_lines(lines: Sequence[str]) -> str:
    """`train.py:12, 15`: lines of one file together, at most four."""
    files: dict[str, list[str]] = {}
    for line in lines[:4]:
        path, _, number = line.rpartition(":")
        files.setdefault(path, []).append(number)
    text = "; ".join(f"{path}:{', '.join(numbers)}" for path, numbers in files.items())
    return text + (f" and {len(lines) - 4} more" if len(lines) > 4 else "")


def _borders(found: Sequence[Border], rows: Sequence[Kernel]) -> Iterable[str]:
    """Values that pass between kernels through memory, by reason."""
    if not found:
        return
    titles = {k.number: k.title.split(", ") for k in rows}
    reasons: dict[str, list[Border]] = {}
    for b in found:
        reasons.setdefault(b.reason, []).append(b)
    ranked = sorted(reasons.items(), key=lambda item: -sum(b.value.type.nbytes for b in item[1]))
    yield "not fused, the largest values first:"
    for reason, group in ranked[:_BORDERS]:
        b = group[0]
        names = [titles[n][-1 if n == b.maker else 0] for n in (b.maker, b.reader) if n in titles]
        total = size(sum(x.value.type.nbytes for x in group))
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        yield f"  {' -> '.join(names)}{more} ({total}): {reason}"
    if len(ranked) > _BORDERS:
        yield f"  and {len(ranked) - _BORDERS} other reasons"


def _memory(compiled: Any) -> Iterable[str]:
    yield (
        f"memory: arena {compiled.arena_bytes:,} bytes ({compiled.unplanned_bytes:,} without reuse), "
        f"results {sum(t.nbytes for t in compiled.outputs):,} bytes"
    )
    use = live_bytes(compiled)
    top = max(use, default=0)
    if top:
        at = use.index(top)
        bars = "".join(_BARS[-(-8 * n // top)] for n in _narrow(use, 64))
        held = sorted((x for x in lifetimes(compiled) if x.start <= at <= x.end), key=lambda x: -x.nbytes)
        words = ", ".join(f"{x.text} ({size(x.nbytes)})" for x in held[:3])
        yield f"  in use over the steps |{bars}| most at step {at}, {size(top)}: {words}"


def _narrow(values: Sequence[int], width: int) -> list[int]:
    """At most `width` numbers, each the largest of its stretch."""
    if len(values) <= width:
        return list(values)
    edges = [k * len(values) // width for k in range(width + 1)]
    return [max(values[a:b]) for a, b in itertools.pairwise(edges)]


def _guards(guards: Sequence[Any], whole: bool) -> list[str]:
    """What the variant depends on, what the user's own lines read first; equal ones are counted."""
    guards = sorted(guards, key=lambda g: not g.line or is_own_file(g.line))
    texts: dict[str, int] = {}
    for g in guards:
        texts[str(g)] = texts.get(str(g), 0) + 1
    lines = [f"guard: {text}" + (f"  x{n}" if n > 1 else "") for text, n in texts.items()]
    if whole or len(lines) <= _GUARDS:
        return lines
    return [*lines[:_GUARDS], f"and {len(lines) - _GUARDS} more guards: explain(guards=True) lists them"]
