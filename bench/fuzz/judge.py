"""Running a program in both modes: results, effects and errors must be the same."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import duograd as dg
import ml_dtypes
import numpy as np

from .early import thresholds
from .program import Program, State, load, outside, unload
from .sight import STANDS, Facts, containers, held, memory, see, see_all
from .walks import WALKING, gradients

#: what graph mode may refuse that eager mode does, by design (docs/design.md)
REFUSALS = (
    "branched on tensor values in more than 64 ways",
    "by code that no graph holds, needs values that were changed in place",
    "its gradient's gradient needs values that were changed in place",
    "an iterator from outside that stands elsewhere at every call",
    "needs what the function reads to be what it was at the call",
)


class Difference(NamedTuple):
    """What differs: kind ("value", "effect", "error", "alias", ...), where, and both sides in words."""

    kind: str
    where: str
    eager: str
    graph: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.where}: eager {self.eager}, graph {self.graph}"


def judge(program: Program, tally: Counter[str] | None = None) -> Difference | None:
    """The first difference between the modes, or None. tally: counts errors and documented refusals."""
    if program.judged == "fast":
        from .near import judge_fast

        return judge_fast(program, tally)
    if program.judged == "onnx":
        from .exported import judge_onnx

        return judge_onnx(program, tally)
    with thresholds(program.early):
        if program.judged == "threads":
            from .together import judge_threads

            return judge_threads(program, tally)
        return _judge_modes(program, tally)


def _judge_modes(program: Program, tally: Counter[str] | None) -> Difference | None:
    eager = list(run(program, "eager"))
    for call, (a, b) in enumerate(zip(eager, run(program, "graph"))):
        if a.get("error", ("",))[0] == "OutOfMemoryError" and "error" not in b:
            return None  # a graph makes no room for what nobody reads
        found = first_difference(a, b)
        if found is not None:
            return found._replace(where=f"{found.where} in call {call}")
        if "refused" in b or "error" in b:
            if tally is not None:
                tally["refused" if "refused" in b else "equal errors"] += 1
            if "refused" in b or first_difference(a["after"], b["after"]) is not None:
                return None  # eager mode has done half of it, graph mode nothing
        if (program.walks or "f(*" in program.between) and "error outside" in b:
            return None  # eager mode has run the hooks that come before it, or half of another call
    return None


def run(program: Program, mode: str, names_too: dict[str, Any] | None = None) -> Iterator[Facts]:
    """What can be seen after each call of a program in one mode, and after the gradient taken outside.

    names_too: what some names mean in it.
    """
    space = load(program)
    space |= names_too or {}
    m = space["m"] = State()
    space["dg"] = dg
    names = [x.name for x in program.inputs]
    try:
        dg.manual_seed(program.seed % 1000)
        for line in program.setting()[1:]:
            exec(line, space)
        f = dg.function(
            space["program"], mode=mode, compile="background" if program.background else "call",
            precision="fast" if program.judged == "fast" else "match",
        )  # fmt: skip
        behind = [n for x in program.inputs for n in x.behind]
        for call in range(len(program.sizes)):
            for line in program.arguments(call):
                exec(line, space)
            arguments = [space[n] for n in names]
            watched = [*names, *behind]
            tensors = {n: space[n] for n in watched if isinstance(space[n], dg.Tensor)}
            versions = {n: t._storage.version for n, t in tensors.items()}
            facts: Facts = {}
            try:
                exec(program.change(call), space)
            except Exception as e:
                facts["change"] = words(e)
            before: Facts = {}
            seen = [space[n] for n in watched]
            see_all(before, watched, seen, held(program, m, space))
            before["containers"] = containers(watched, seen, held(program, m, space))
            results: Any = ()
            quietly = dg.no_grad if call in program.quiet else contextlib.nullcontext
            with quietly():  # whether it does may depend on state that it changes
                may_run_python = program.background or f.runs_python(tuple(arguments), {})
                left_to_it = dict(f._python)
            try:
                with quietly():
                    results = f(*arguments)
                f.wait()
            except Exception as e:
                facts["error"] = words(e)
                if isinstance(e, dg.errors.TraceError) and any(r in str(e) for r in REFUSALS):
                    facts["refused"] = True
                after: Facts = {}
                see_all(after, watched, seen, held(program, m, space))
                after["containers"] = containers(watched, seen, held(program, m, space))
                if "refused" in facts and re.search(r"\b(try|with)\b", program.function()):
                    before, after = (
                        {k: v for k, v in row.items() if not k.endswith(STANDS)} for row in (before, after)
                    )
                facts |= {"before": before, "after": after, "printed": [*m.printed]}
                # While kernels are being compiled, or where no graph holds the call, as may have been found out by it.
                facts["may run Python"] = may_run_python or f._python != left_to_it
                yield facts
                if "refused" in facts:
                    return
                continue
            see(facts, "result", results)
            see_all(facts, watched, seen, held(program, m, space))
            for n, t in tensors.items():
                facts[f"{n} was changed"] = t._storage.version != versions[n]
            kept = held(program, m, space)
            facts |= {"memory": memory(results, tensors, m, kept), "printed": [*m.printed]}
            facts["containers"] = containers(watched, seen, kept)
            yield facts
            if program.outside or program.walks or program.between:
                # A result that is an argument: its gradient's parts from inside and outside the call are added in
                # another order than without the call.
                row = results if isinstance(results, tuple) else ()
                facts = {"loose": any(y is t for y in row for t in tensors.values())}
                space |= {"f": f, "out": results, "taken": None, **WALKING}
                try:
                    exec(program.between, space)
                    for line in program.walks:
                        exec(line, space)
                    if program.outside and not program.walks:
                        outside(results, program.part)
                    facts |= gradients(space["taken"])
                except Exception as e:
                    facts["error outside"] = words(e)
                    if program.walks and "was already used and freed" in str(e):
                        # By which op it is found depends on how far views of what was changed had been renewed.
                        facts["error outside"] = "used and freed"
                    if any(r in str(e) for r in REFUSALS):
                        facts["refused"] = True
                see_all(facts, watched, seen, held(program, m, space))
                yield facts
    finally:
        unload(space)


def _changed(words: Any) -> Any:
    """An error without the place of a change: of several, graph mode names that in the call (docs/design.md)."""
    if not isinstance(words, tuple):
        return words
    return tuple([re.sub(r"(was changed in place at) \S+", r"\1", w) for w in words])


def words(e: BaseException) -> tuple[str, str, str]:
    """An error's type, first line, and the user's line that it names."""
    words = re.sub(r"(tensor|symbol)\(.*", "a tensor", str(e).split("\n")[0])
    words = re.sub(r" at 0x\w+", "", words)
    if isinstance(e, dg.errors.OutOfMemoryError):
        words = "no room"  # a fusion names its last op, and how much there is changes
    place = getattr(e, "line", "") or ""
    return type(e).__name__, words, place.rpartition(":")[2]


def first_difference(a: Facts, b: Facts) -> Difference | None:
    """The first difference of two sides."""
    if "refused" in b:  # before an error that eager mode comes to later
        left = first_difference(b["before"], b["after"]) if "before" in b else None
        return left and left._replace(where=f"{left.where} after a refused call")
    for key in ("error", "error outside"):
        if a.get(key) != b.get(key) and not (
            key == "error outside" and _changed(a.get(key)) == _changed(b.get(key))
        ):
            return Difference("error", key, repr(a.get(key)), repr(b.get(key)))
    if "error" in b:  # a call that fails changes nothing, or where its Python may run what eager mode changes
        left = first_difference(b["before"], b["after"])
        if left is not None and not (
            b["may run Python"] and first_difference(a["after"], b["after"]) is None
        ):
            return left._replace(where=f"{left.where} after a failed call")
        if a["printed"] != b["printed"]:
            return Difference("effect", "lines before an error", repr(a["printed"]), repr(b["printed"]))
        return None
    if "error outside" in b:
        return None
    for key in [*a, *(k for k in b if k not in a)]:
        if key not in a or key not in b:
            return Difference(
                "effect", key, "absent" if key not in a else "there", "absent" if key not in b else "there"
            )
        x, y = a[key], b[key]
        if isinstance(x, np.ndarray) is not isinstance(y, np.ndarray):
            return Difference("effect", key, repr(x), repr(y))
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            wrong = unlike(x, y)
            if wrong and a.get("loose") and key.endswith((".grad", " taken")) and _near(x, y):
                continue
            if wrong:
                return Difference("value", key, *wrong)
        elif x != y and not (x != x and y != y):
            kind = "alias" if key == "memory" else "effect"
            return Difference(kind, key, repr(x), repr(y))
    return None


def _near(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two sums of the same few terms may be these."""
    if x.dtype != y.dtype or x.shape != y.shape or not x.size:
        return False
    eps = float(ml_dtypes.finfo(x.dtype).eps)
    a, b = x.astype(np.float64), y.astype(np.float64)
    scale = 8 * eps * (1 + np.nanmax(np.abs(a), initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=scale, equal_nan=True))


def unlike(x: np.ndarray, y: np.ndarray) -> tuple[str, str] | None:
    """Both sides in words unless they are the same bit for bit (any NaN is like any other)."""
    if x.dtype != y.dtype or x.shape != y.shape:
        return f"{x.dtype}{list(x.shape)}", f"{y.dtype}{list(y.shape)}"
    if x.tobytes() == y.tobytes():
        return None
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    if x.dtype.kind in "biu":
        same = x == y
    else:
        whole = {2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.uint64}[x.dtype.itemsize]
        if x.dtype.kind == "c":
            xs, ys = (
                np.ascontiguousarray(t)
                .reshape(-1)
                .view(np.float32 if x.dtype == np.complex64 else np.float64)
                for t in (x, y)
            )
            whole = np.uint32 if x.dtype == np.complex64 else np.uint64
            bits = (xs.view(whole) == ys.view(whole)) | (np.isnan(xs) & np.isnan(ys))
            same = bits.reshape(-1, 2).all(axis=1).reshape(x.shape)
        else:
            xs, ys = np.ascontiguousarray(x), np.ascontiguousarray(y)
            bits = xs.reshape(-1).view(whole) == ys.reshape(-1).view(whole)
            nan = np.isnan(xs.astype(wide)) & np.isnan(ys.astype(wide))
            same = bits.reshape(x.shape) | nan
    if same.all():
        return None
    k = np.unravel_index(int(np.argmin(same)), x.shape)
    where = f"at {list(map(int, k))} of {list(x.shape)}, {int((~same).sum())} in all"
    return f"{x[k]!r} {where}", f"{y[k]!r}"
