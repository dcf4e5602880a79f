"""Making a failing program small: fewer steps, calls and inputs, plainer values, as long as it fails alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from .judge import Difference
from .program import Given, Program
from .world import needed


def shrink(program: Program, judge: Callable[[Program], Difference | None], tries: int = 150) -> Program:
    """A smaller program with a difference of the same kind."""
    found = judge(program)
    if found is None:
        return program
    kind, left = found.kind, tries
    changed = True
    while changed and left > 0:
        changed = False
        for smaller in _smaller(program):
            left -= 1
            if left <= 0:
                break
            try:
                again = judge(smaller)
            except Exception:
                continue
            if again is not None and again.kind == kind:
                program, changed = smaller, True
                break
    return program


def _smaller(p: Program) -> Iterator[Program]:
    """Programs a step smaller than p, the largest cuts first."""
    if p.outside:
        yield p._replace(outside=False)
    if p.background:
        yield p._replace(background=False)
    if p.between:
        yield p._replace(between="")
    for k in range(len(p.walks)):
        yield p._replace(walks=p.walks[:k] + p.walks[k + 1 :])
    for k, text in enumerate(p.changes):
        for less in _lines_less(text):
            yield _clean(p._replace(changes=(*p.changes[:k], less, *p.changes[k + 1 :])))
    if p.quiet:
        yield p._replace(quiet=())
    for k in p.same:
        yield p._replace(same=tuple(n for n in p.same if n != k))
    if p.part != (0, 1, 2):
        yield p._replace(part=(0, 1, 2))
    for n in range(1, len(p.sizes)):
        yield _calls(p, range(n))
    for k in range(len(p.sizes) - 1):
        yield _calls(p, [n for n in range(len(p.sizes)) if n != k])
    for k in reversed(range(len(p.steps))):
        without = _without(p, k)
        if without is not None:
            yield without
    if len(p.returns) > 1:
        for k in range(len(p.returns)):
            yield _clean(p._replace(returns=p.returns[:k] + p.returns[k + 1 :]))
    for k, s in enumerate(p.steps):
        for name in s.makes:
            if (name,) != p.returns:
                later = _clean(p._replace(returns=(name,), steps=p.steps[: k + 1]))
                if len(later.steps) < len(p.steps):
                    yield later
    for k, s in enumerate(p.steps if p.definitions else ()):
        for less in _lines_less(s.text):
            if all(re.search(rf"\b{n}\b", less) for n in s.makes):
                yield _clean(p._replace(steps=(*p.steps[:k], s._replace(text=less), *p.steps[k + 1 :])))
    for k, x in enumerate(p.inputs):
        for plainer in _plainer(x):
            yield p._replace(inputs=(*p.inputs[:k], plainer, *p.inputs[k + 1 :]))
    for name in p.sizes[0]:
        for n in (1, 2):
            if any(s[name] > n for s in p.sizes):
                yield p._replace(sizes=tuple({**s, name: min(n, s[name])} for s in p.sizes))


def _plainer(x: Given) -> Iterator[Given]:
    if not x.is_tensor:
        return
    if x.past:
        yield x._replace(past=False)
    if x.seen:
        yield x._replace(seen="")
    for k in range(len(x.then)):
        yield x._replace(then=x.then[:k] + x.then[k + 1 :])
    if x.special:
        yield x._replace(special=False)
    if x.layout != "dense":
        yield x._replace(layout="dense")
    if x.grad:
        yield x._replace(grad=False)
    if x.dtype not in ("float32", "int64") and x.values is None:
        yield x._replace(dtype="float32")


def _lines_less(text: str) -> Iterator[str]:
    """A text without one of its lines, and what is indented below that."""
    lines = text.split("\n") if text else []
    starts = [k for k, line in enumerate(lines) if not line.startswith(" ")] + [len(lines)]
    for a, b in pairwise(starts):
        yield "\n".join(lines[:a] + lines[b:])


def _calls(p: Program, kept: Sequence[int]) -> Program:
    """p with these of its calls."""
    same = tuple(new for new, k in enumerate(kept) if k in p.same and new)
    return p._replace(sizes=tuple(p.sizes[k] for k in kept), same=same)


def _without(p: Program, k: int) -> Program | None:
    """p without step k and what hangs on it."""
    gone = set(p.steps[k].makes)
    steps = list(p.steps[:k])
    for s in p.steps[k + 1 :]:
        if s.reads(gone):
            gone |= set(s.makes)
        else:
            steps.append(s)
    returns = tuple(r for r in p.returns if r not in gone)
    if not returns:
        made = [n for s in steps for n in s.makes]
        returns = (made[-1],) if made else (p.inputs[0].name,) if p.inputs else ("None",)
    return _clean(p._replace(steps=tuple(steps), returns=returns))


def _clean(p: Program) -> Program:
    """p without inputs and state that nothing reads."""
    text = "\n".join((p.function(), *p.changes, p.between, *p.walks))
    kept = tuple(x for x in p.state if x.dtype != "made" or re.search(rf"\bm\.{x.name}\b", text))
    p = p._replace(state=kept)
    if p.definitions:
        p = p._replace(definitions=needed(text, *(str(x.values) for x in kept)))
    read = set(p.returns)
    for s in p.steps:
        read |= s.reads([x.name for x in p.inputs])
    read |= {x.layout.split()[-1] for x in p.inputs if x.name in read and "of " in x.layout}
    read |= {n for x in p.inputs if x.name in read and x.dtype in ("dict", "list") for n in x.values or ()}
    return p._replace(inputs=tuple(x for x in p.inputs if x.name in read) or p.inputs[:1])
