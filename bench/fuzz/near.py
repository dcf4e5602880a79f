"""Graph mode with precision="fast" beside eager mode: what may round otherwise, and by how much.

The bounds are those of docs/design.md, a few units in the last place for each op. What they come to after other ops
is found by rounding the inputs in another way: a result may be as far from eager mode's as these runs are, a few
times over, and a few units of the largest value on the way.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import duograd as dg
import numpy as np

from ...core.types import DTYPES
from .judge import Difference, run
from .program import Program, Step, given
from .sight import Facts
from .steps import FLOATS, Hand

#: runs with inputs rounded in another way; how often their distance, and a unit in the last place, is allowed
ROUNDED, TIMES, UNITS = 3, 16.0, 32.0
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
#: beyond this a product of two values may be infinite one way and finite the other
LARGE = {"float16": 100.0, "bfloat16": 1e15, "float32": 1e15, "float64": 1e100}

#: what precision="fast" changes; {x}: a float tensor, {y}: the name to make
CHANGED = (
    "{y} = {x} ** 2", "{y} = {x} ** 3 + {x} / 7", "{y} = {x} ** 4", "{y} = {x}.abs() ** 0.5",
    "{y} = 1 / ({x}.abs() + 0.5)", "{y} = ({x}.abs() + 0.5) ** -1", "{y} = {x} * 2.5 * 3.1",
    "{y} = {x} + 1.5 + 2.25 + 3.1", "{y} = {x} / 4.5 / 5.1", "{y} = {x} * 1.1 - 0.3 + {x}", "{y} = {x} * {x} + {x}",
    "{y} = {x} / 3 + {x} * 0.7 - 1", "{y} = (({x} * 0.125 + 0.25) * {x} + 0.375) * {x}",
    "{y} = {x} / {x}.abs().sum(axis=-1, keepdims=True).clip(0.5)", "{y} = dg.softmax({x} * 2 + 1, axis=-1)",
    "{y} = dg.tanh({x} * 0.3 + 0.1) / 7", "{y} = dg.gelu({x} * 1.5 + 0.5) * dg.sigmoid({x})",
    "{y} = ({x} - {x}.mean()) * 0.5 / 3", "{y} = dg.nn.functional.layer_norm({x}, ({x}.shape[-1],)) / 1.7",
    "{y} = dg.grad(lambda t: (t ** 3 / 7).sum())({x})", "{y} = {x}.exp() / ({x}.exp() + 1)",
    "{y} = {x} * m.scale / 3.3 + m.count\nm.count += 1", "{y} = ({x} * {x} / 5).mean(axis=-1) * 3 * 2",
    "{y} = {x} * m.w.to({x}.dtype)[0] + m.b.to({x}.dtype)[1] / 3",
    "{y} = {x}.square().sum(axis=-1, keepdims=True) / 9 + {x}",
    "with dg.no_grad():\n    m.w -= 0.1 * m.w / 3\n{y} = m.w ** 2", "{y} = dg.checkpoint(lambda t: t ** 3 / 3, {x})",
    "{y} = {x} / (2 * {x}.abs() + 1) + 0.5 + 0.25", "{y} = -{x} / 6 + 1 + 1",
    "{y} = {x} * 0.1 + {x} * 0.2 + {x} * 0.3",
)  # fmt: skip


def changed(h: Hand) -> Step | None:
    """Ops that round otherwise."""
    x = h.tensor(lambda t: t.dtype.name in FLOATS and t.ndim)
    if x is None:
        return None
    y = h.fresh()
    return Step(h.rng.choice(CHANGED).format(x=x, y=y), (y,))


def judge_fast(program: Program, tally: Counter[str] | None = None) -> Difference | None:
    """The first difference that is larger than what may round otherwise."""
    eager, fast = list(run(program, "eager")), list(run(program, "graph"))
    names = [n for s in program.steps for n in s.makes]
    wide = list(run(program._replace(returns=tuple(dict.fromkeys((*names, *program.returns)))), "eager"))
    others = [list(run(program, "eager", {"given": Rounded(k)})) for k in range(ROUNDED)]
    if any(len(rows) != len(eager) for rows in (fast, wide, *others)) or any(
        "error" in f for f in (*eager, *wide)
    ):
        words = [[f.get("error") or f.get("error outside") for f in rows] for rows in (eager, fast)]
        return (
            None if words[0] == words[1] else Difference("error", "the calls", repr(words[0]), repr(words[1]))
        )
    for call, a in enumerate(eager):
        found = _beyond(a, fast[call], [rows[call] for rows in others], wide[: call + 1])
        if found is not None:
            return found._replace(where=f"{found.where} in walk or call {call}")
        if tally is not None:
            tally["compared nearly"] += 1
    return None


class Rounded:
    """`given`, with the last bit of floats drawn anew."""

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, shape: tuple[int, ...], dtype: str, seed: int, **options: Any) -> Any:
        x = given(shape, dtype, seed, **options)
        if dtype in EPS:
            rng = np.random.default_rng(1000 * seed + self.seed)
            step = 1 + EPS[dtype] * rng.choice(np.array([-1.0, 0.0, 1.0]), shape)
            with dg.no_grad():
                x.detach().copy_((x.detach().to(dg.float64) * dg.tensor(step)).to(x.dtype))
        return x


def _beyond(a: Facts, b: Facts, others: list[Facts], wide: list[Facts]) -> Difference | None:
    """What of a and b differs by more than a and its others. wide: all values so far; a walk goes through them, too."""
    if a.get("error outside") != b.get("error outside"):
        return Difference("error", "the walk", repr(a.get("error outside")), repr(b.get("error outside")))
    floats = [
        x for row in wide for x in row.values() if isinstance(x, np.ndarray) and _name(x) in EPS and x.size
    ]
    tops = {_name(x): 0.0 for x in floats}
    for x in floats:
        tops[_name(x)] = float(np.maximum(tops[_name(x)], np.abs(x.astype(np.float64)).max()))  # NaN stays
    coarse = max((EPS[n] * t for n, t in tops.items()), default=0.0)
    if any(not t < LARGE[n] for n, t in tops.items()):
        return None
    for key, x in a.items():
        y = b.get(key)
        if not isinstance(x, np.ndarray) or _name(x) not in EPS:
            if isinstance(x, np.ndarray) and (y is None or not np.array_equal(x, y)):
                return Difference("value", key, repr(x), repr(y))
            continue
        if not isinstance(y, np.ndarray) or x.dtype != y.dtype or x.shape != y.shape:
            return Difference("value", key, repr(x), repr(y))
        rows = [f[key].astype(np.float64) for f in others if isinstance(f.get(key), np.ndarray)]
        if any(r.shape != x.shape for r in rows) or not x.size:
            continue
        p, q = x.astype(np.float64), y.astype(np.float64)
        moved = max((float(np.abs(r - p).max()) for r in rows), default=0.0)
        room = TIMES * moved + UNITS * max(coarse, EPS[_name(x)] * float(np.abs(p).max()))
        if not np.allclose(p, q, rtol=0.0, atol=room, equal_nan=True):
            worst = np.unravel_index(int(np.nanargmax(np.abs(p - q))), p.shape)
            words = f"{p[worst]!r} at {list(map(int, worst))}, may be off by {room:.3g}"
            return Difference("value", key, words, repr(q[worst]))
    return None


def _name(x: np.ndarray) -> str:
    return next((n for n in EPS if DTYPES[n].np == x.dtype), "")
