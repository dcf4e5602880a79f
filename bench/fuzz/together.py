"""Programs without shared state, called by two threads at once: each call must be what it is in eager mode alone."""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import Any

import duograd as dg

from .judge import REFUSALS, Difference, first_difference, words
from .program import Given, Program, load, outside, unload
from .sight import Facts, see

#: what is kept from call to call, or what other threads draw from
_SHARED = re.compile(
    r"\bm\.|\brand|randn|randint|bernoulli|dropout|normal\(|noted\(|randperm|manual_seed|print"
)
#: seconds after which threads hang
_PATIENCE = 120


def is_apart(text: str) -> bool:
    """Whether a step shares nothing with other calls."""
    return not _SHARED.search(text)


def apart(x: Given) -> Given:
    """An argument that shares nothing with what is kept."""
    seen, layout = x.seen if is_apart(x.seen) else "", x.layout if is_apart(x.layout) else "dense"
    return x._replace(seen=seen, layout=layout, then=tuple(filter(is_apart, x.then)))


def judge_threads(program: Program, tally: Counter[str] | None = None) -> Difference | None:
    """The first difference of a call in one of two threads from the same call in eager mode, or None."""
    space = load(program)
    try:
        calls = range(len(program.sizes))
        alone = [
            _call(program, dg.function(space["program"], mode="eager"), *_given(program, space, k))
            for k in calls
        ]
        for n, rows in enumerate(_at_once(program, space)):
            for k, facts in rows.items():
                found = _compare(alone[k], facts, tally)
                if found is not None:
                    return found._replace(where=f"{found.where} in call {k} of thread {n}")
    finally:
        unload(space)
    return None


def _at_once(program: Program, space: dict[str, Any]) -> list[dict[int, Facts]]:
    """The facts of each call, for two threads: one makes the calls from the first on, the other from the last."""
    f = dg.function(space["program"], compile="background" if program.background else "call")
    calls = range(len(program.sizes))
    given = [{k: _given(program, space, k) for k in calls} for _ in range(2)]
    found: list[dict[int, Facts]] = [{}, {}]
    start = threading.Barrier(2)

    def work(n: int, order: Any) -> None:
        for k in order:
            start.wait(_PATIENCE)
            found[n][k] = _call(program, f, *given[n][k])

    threads = [threading.Thread(target=work, args=(n, calls[:: 1 - 2 * n]), daemon=True) for n in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(_PATIENCE)
    f.wait()
    for rows in found:
        for k in calls:
            rows.setdefault(k, {"error": "did not end"})
    return found


def _given(program: Program, space: dict[str, Any], call: int) -> tuple[dict[str, Any], list[Any]]:
    """What can be seen of a call's arguments, by name, and the arguments."""
    own = {**space, "dg": dg}
    for k, x in enumerate(program.inputs):
        for line in x.lines(program.sizes[call], 100 * call + k):
            exec(line, own)
    watched = [n for x in program.inputs for n in (*x.behind, x.name)]
    return {n: own[n] for n in watched}, [own[x.name] for x in program.inputs]


def _call(program: Program, f: Any, watched: dict[str, Any], arguments: list[Any]) -> Facts:
    facts: Facts = {}
    try:
        results = f(*arguments)
        see(facts, "result", results)
        try:
            outside(results, program.part)
        except Exception as e:
            facts["error outside"] = words(e)[:2]  # no line of the user's begins it
    except Exception as e:
        facts["error"] = words(e)
        if isinstance(e, dg.errors.TraceError) and any(r in str(e) for r in REFUSALS):
            facts["refused"] = True
        return facts
    for name, x in watched.items():
        see(facts, name, x)
    return facts


def _compare(a: Facts, b: Facts, tally: Counter[str] | None) -> Difference | None:
    if "refused" in b:
        return None
    if "error" in a or "error" in b:
        if a.get("error") == b.get("error"):
            if tally is not None:
                tally["equal errors"] += 1
            return None
        return Difference("error", "error", repr(a.get("error")), repr(b.get("error")))
    return first_difference(a, b)
