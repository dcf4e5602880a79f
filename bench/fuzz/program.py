"""A random program as data: inputs, state, steps, calls; and as Python text."""

from __future__ import annotations

import contextlib
import functools
import itertools
import linecache
import math
import re
import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import duograd as dg
import numpy as np
from numpy import inf, nan

from ...core.types import DTYPES

#: the name of the module that a program is
MODULE = "fuzz_program"
#: special values of floats: zeros of both signs, infinities, NaN, a denormal, halves, neighbours of one
SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 0.5, -1.5, 1.0, -1.0, 3.0, 1e4)
LAYOUTS = ("dense", "strided", "transposed", "backwards", "expanded", "shifted")


#: how a tensor that shares another one's memory is made
SHARES = {
    "": "",
    "view ": ".detach()[...]",
    "part ": ".detach()[:2]",
    "tracked ": "[...]",
    "tracked part ": "[:1]",
}


class Given(NamedTuple):
    """A tensor that a program is given.

    dims: sizes, or names of sizes that differ from call to call; low, high: bounds of random values; layout: one
    of LAYOUTS, or "of <name>" for another input or state itself, "view of <name>" or another of SHARES for one that
    shares its memory, "tracked ..." with a history;
    grad: a leaf that asks for a gradient; special: special values among them. past: it is no leaf itself, but
    computed from one, `<name>_leaf`. seen: a view of a tensor `{b}` that the program is not given, `<name>_base` where
    that has a past, else `<name>_leaf`. then: lines that follow, which may keep other views of {b}, or change it.
    dtype "plain": no tensor, but the value of the call's number among `values`; "made": an object, by an expression;
    "dict": a dict of the inputs that `values` names, by letters; "list": one of the lists that `values` names or makes.
    """

    name: str
    dims: tuple[int | str, ...]
    dtype: str = "float32"
    low: float = -2.0
    high: float = 2.0
    layout: str = "dense"
    grad: bool = False
    special: bool = False
    values: tuple[Any, ...] | None = None
    past: bool = False
    seen: str = ""
    then: tuple[str, ...] = ()

    @property
    def is_tensor(self) -> bool:
        return self.dtype not in ("plain", "dict", "list", "made")

    @property
    def behind(self) -> tuple[str, ...]:
        """What it is computed from, or a view of."""
        return (f"{self.name}_leaf",) * (self.past or bool(self.seen)) + (f"{self.name}_base",) * (
            self.past and bool(self.seen)
        )

    def lines(self, sizes: dict[str, int], seed: int) -> list[str]:
        """The lines that make it, and what is behind it."""
        names = [*self.behind, self.name]
        ways = [self.text(sizes, seed)]
        if self.past:
            ways.append(names[0] + " * 1")
        if self.seen:
            ways.append(self.seen.format(b=names[-2]))
        made = [f"{n} = {way}" for n, way in zip(names, ways)]
        return made + [line.format(b=names[max(len(names) - 2, 0)], x=self.name) for line in self.then]

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(sizes[d] if isinstance(d, str) else d for d in self.dims)

    def text(self, sizes: dict[str, int], seed: int) -> str:
        """The expression that makes it."""
        if self.dtype == "plain":
            values = self.values or (None,)
            return repr(values[seed // 100 % len(values)])
        if self.dtype in ("list", "made"):
            values = self.values or ("[]",)
            return str(values[seed // 100 % len(values)])
        if self.dtype == "dict":
            return "{" + ", ".join(f"{k!r}: {n}" for k, n in zip("abc", self.values or ())) + "}"
        share, _, other = self.layout.partition("of ")
        if other:
            return other + SHARES[share]
        row = [repr(self.shape(sizes)), repr(self.dtype), f"seed={seed}"]
        fields = {
            "low": -2.0,
            "high": 2.0,
            "layout": "dense",
            "grad": False,
            "special": False,
            "values": None,
        }
        row += [f"{k}={getattr(self, k)!r}" for k, default in fields.items() if getattr(self, k) != default]
        return f"given({', '.join(row)})"


class Step(NamedTuple):
    """Lines of a program; makes: the names that they define."""

    text: str
    makes: tuple[str, ...] = ()

    def reads(self, names: Any) -> set[str]:
        """Which of these names the step mentions."""
        return set(re.findall(r"\b[a-z]\w*\b", self.text)) & set(names)


class Program(NamedTuple):
    """sizes: what the named dims are, for each of the calls; a call's number seeds its values.

    outside: whether gradients through the results are taken after a call. part: of each three results, those whose
    gradient is taken. quiet: calls that are made under `dg.no_grad()`. background: kernels are compiled beside calls.
    between: what happens between a call and the gradient through its results, `out`. walks: lines that take gradients
    through the results in other ways than `outside` does. same: calls whose tensors are those of the call before.
    judged: as what: "modes", "fast" (graph mode by precision="fast", see `near.py`), "onnx" (see `exported.py`) or
    "threads" (called by two threads at once, see `together.py`).
    early: graphs are for any size, and entered quickly, as soon as can be (see `early.py`).
    changes: what happens before the second call, the third and so on, by turns.
    definitions: what stands above the function in its module, and is made anew for each run (see `world.py`).
    """

    seed: int
    inputs: tuple[Given, ...]
    state: tuple[Given, ...]
    steps: tuple[Step, ...]
    returns: tuple[str, ...]
    sizes: tuple[dict[str, int], ...]
    outside: bool = False
    part: tuple[int, ...] = (0, 1, 2)
    quiet: tuple[int, ...] = ()
    background: bool = False
    between: str = ""
    walks: tuple[str, ...] = ()
    same: tuple[int, ...] = ()
    judged: str = "modes"
    early: bool = False
    changes: tuple[str, ...] = ()
    definitions: str = ""

    def change(self, call: int) -> str:
        """What happens before a call."""
        return self.changes[(call - 1) % len(self.changes)] if self.changes and call else ""

    def function(self) -> str:
        """The program's function as text."""
        body = [line for s in self.steps for line in s.text.split("\n")]
        lines = [f"def program({', '.join(x.name for x in self.inputs)}):", *("    " + s for s in body)]
        lines.append(f"    return {', '.join(self.returns)}{',' if len(self.returns) == 1 else ''}")
        return "\n".join(lines)

    def arguments(self, call: int) -> list[str]:
        """Lines that make the inputs of a call."""
        return [
            line
            for k, x in enumerate(self.inputs)
            if call not in self.same or not x.is_tensor
            for line in x.lines(self.sizes[call], 100 * call + k)
        ]

    def setting(self) -> list[str]:
        """Lines that make the state."""
        lines = ["m = State()"]
        return lines + [f"m.{x.name} = {x.text({}, 7000 + k)}" for k, x in enumerate(self.state)]

    def __str__(self) -> str:
        """A Python file that runs it in both modes."""
        kept = ", compile='background'" * self.background + ", precision='fast'" * (self.judged == "fast")
        lines = ["import duograd as dg", "import numpy as np",
                 f"from duograd.bench.fuzz.program import outside, {', '.join(sorted(NAMES))}",
                 *(["from duograd.bench.fuzz.walks import *"] if self.walks else []),
                 *(["from duograd.bench.fuzz.early import set_thresholds", "", "set_thresholds()"] * self.early), "",
                 *([] if self.definitions else [self.function(), ""]), "for mode in ('eager', 'graph'):",
                 *["    " + s for s in (self.definitions + "\n\n" + self.function()).split("\n") if self.definitions],
                 f"    dg.manual_seed({self.seed % 1000})", *("    " + s for s in self.setting()),
                 f"    f = dg.function(program, mode=mode{kept})"]  # fmt: skip
        if self.judged == "threads":
            lines.append("    # differs where two threads call it at once: bench/fuzz/together.py")
        names = ", ".join(x.name for x in self.inputs)
        leaves = ", ".join(n for x in self.inputs if x.is_tensor for n in (*x.behind, x.name))
        for call in range(len(self.sizes)):
            lines += ["    " + s for s in self.change(call).split("\n") if s]
            lines += ["    " + s for s in self.arguments(call)]
            if call in self.quiet:
                lines += ["    with dg.no_grad():", f"        out = f({names})"]
            else:
                lines.append(f"    out = f({names})")
            lines += ["    f.wait()"] * self.background
            lines.append(f"    print(mode, {call}, out)")
            lines += ["    " + s for s in self.between.split("\n") if s]
            if self.walks:
                lines += [
                    "    taken = None",
                    *("    " + s for w in self.walks for s in w.split("\n")),
                    "    print(taken)",
                ]
            elif self.outside:
                lines.append(f"    outside(out, {self.part})")
            lines.append(f"    print([x.grad for x in ({leaves},)])" if leaves else "    print()")
        return "\n".join(lines)


class Box:
    """An object with attributes."""

    def __init__(self, n: int = 0) -> None:
        self.n = n
        self.items: list[Any] = []
        self.last: Any = None


@dataclass
class Record:
    """A dataclass of a tensor and a number."""

    a: Any = None
    n: int = 0


class Two(NamedTuple):
    """A named tuple of a tensor and a number."""

    a: Any
    b: Any


def layer() -> Any:
    """A layer whose weights nobody draws."""
    made = dg.nn.Linear(2, 2)
    with dg.no_grad():
        for p in made.parameters():
            p.copy_(dg.linspace(-0.5, 1, p.size).reshape(p.shape))
    return made


class State:
    """What a program keeps from call to call: tensors, plain values, containers, objects, functions, a layer."""

    def __init__(self) -> None:
        self.count = 0
        self.scale = 1.5
        self.log: list[Any] = []
        self.table: dict[str, Any] = {"b": 1}
        self.seen = {2}
        self.queue: deque[Any] = deque(maxlen=3)
        self.rows: list[list[Any]] = [[1], [2, 3]]
        self.box = Box()
        self.pair, self.two = Record(), ()
        self.net = dg.nn.Dropout(0.5)
        self.layer, self.random = layer(), dg.Generator(3)
        self.opt: Any = None
        self.plan: Any = None
        self.saved: Any = None
        self.kept: Any = None
        self.norm: Any = None
        self.last: Any = None
        self.grid = dg.tensor(np.arange(6, dtype=np.float32).reshape(3, 2) / 4)
        self.row = self.grid[0]
        #: lines that `dg.print` writes
        self.printed: list[str] = []
        self.inner = dg.function(lambda t: t * self.scale - self.count)
        self.host = dg.function(self._seen, mode="eager")

    def _seen(self, t: Any) -> Any:
        self.table["host"] = self.table.get("host", 0) + 1
        return t * 2


def given(
    shape: tuple[int, ...],
    dtype: str,
    seed: int,
    low: float = -2.0,
    high: float = 2.0,
    layout: str = "dense",
    grad: bool = False,
    special: bool = False,
    values: tuple[Any, ...] | None = None,
) -> Any:
    """A tensor of random values; see `Given`. values: the values themselves, flat."""
    rng = np.random.default_rng(seed)
    if values is not None:
        array = np.array(values).reshape(shape).astype(DTYPES[dtype].np)
    else:
        array = _values(rng, shape, dtype, low, high, special)
    x = _laid_out(array, layout)
    if grad:
        x.requires_grad_()
    return x


def _values(rng: Any, shape: tuple[int, ...], dtype: str, low: float, high: float, special: bool) -> Any:
    kind = DTYPES[dtype].np
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(kind)
    if not DTYPES[dtype].has_gradient:
        floor = max(int(low), 0 if dtype.startswith("u") else -128)
        return rng.integers(floor, max(floor + 1, int(high)), shape).astype(kind)
    array = rng.uniform(low, high, shape)
    if special:
        flat = array.reshape(-1)
        where = rng.random(flat.size) < 0.2
        flat[where] = rng.choice(np.array(SPECIAL), int(where.sum()))
    if DTYPES[dtype].is_complex:
        array = array + 1j * rng.uniform(low, high, shape)
    with np.errstate(all="ignore"):
        return array.astype(kind)


def _laid_out(array: Any, layout: str) -> Any:
    n = array.ndim
    if layout == "strided" and n:
        return dg.tensor(np.repeat(array, 2, axis=-1))[..., ::2]
    if layout == "transposed" and n > 1:
        return dg.tensor(np.ascontiguousarray(array.T)).permute(*range(n)[::-1])
    if layout == "backwards" and n:
        return dg.tensor(np.ascontiguousarray(array[::-1]))[::-1]
    if layout == "expanded" and n and array.shape[0]:
        return dg.broadcast_to(dg.tensor(array[:1]), array.shape)
    if layout == "shifted" and n:
        wide = np.concatenate([array[:1], array], 0) if array.shape[0] else array
        return dg.tensor(wide)[1:] if array.shape[0] else dg.tensor(wide)
    return dg.tensor(array)


def noted(m: Any, factor: float = 1.0) -> Any:
    """A hook or gradient rule with an effect."""

    def rule(g: Any) -> Any:
        m.count += 1
        return g * factor

    return rule


def outside(results: Any, part: tuple[int, ...] = (0, 1, 2)) -> None:
    """A gradient through a program's results, taken after the call."""
    total = None
    for k, y in enumerate(results if isinstance(results, (tuple, list)) else (results,)):
        if k % 3 in part and isinstance(y, dg.Tensor) and y.requires_grad and y.dtype.has_gradient:
            y = dg.view_as_real(y) if y.dtype.is_complex else y
            add = (y.to(dg.float64) * 0.5).sum()
            total = add if total is None else total + add
    if total is not None:
        total.backward()


#: what a program may name besides its arguments, `dg` and `np`
NAMES: dict[str, Any] = {
    "Box": Box, "Record": Record, "State": State, "Two": Two, "contextlib": contextlib, "deque": deque,
    "functools": functools, "given": given, "inf": inf, "itertools": itertools, "math": math, "nan": nan,
    "noted": noted, "replace": replace,
}  # fmt: skip


def load(program: Program) -> dict[str, Any]:
    """The namespace in which the program's function has been defined, as a file of its own."""
    text = "import duograd as dg\nimport numpy as np\n\n" + program.definitions + program.function() + "\n"
    file = f"/fuzz/program_{program.seed}_{zlib.crc32(text.encode()):08x}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    space: dict[str, Any] = {"__name__": MODULE, **NAMES}
    exec(compile(text, file, "exec", dont_inherit=True), space)
    return space


def unload(space: dict[str, Any]) -> None:
    """Drop a loaded program's text."""
    linecache.cache.pop(space["program"].__code__.co_filename, None)
