"""Running sums, products, extremes and recurrences along an axis: one kernel from a table of combinations.

A chain is a line of elements that are combined one after the other. Rows and columns are chains; a few long
rows are cut into blocks, by shape alone, whose totals are combined first. Eight chains take turns, so that
none waits for its own last result; where many lie side by side, they are lanes of wide values. Floats
accumulate in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.types import DTYPES, DType, int64
from .emit_expression import constant
from .indexing import _dense

#: chains that take turns in one loop
WAYS = 8
#: fewer rows than FEW, from BLOCK_FROM elements on, are cut into 8 blocks, from MANY_FROM on into 64
FEW, BLOCK_FROM, MANY_FROM = 16, 1024, 16384
#: chains side by side from which on they are lanes, and how many tiles of columns that must give
SIDE, TILES = 16, 4


class Combination(NamedTuple):
    """A scan. In texts, `{w}` is v or w (one chain or sixteen lanes), `{a}` the accumulation dtype's char.

    parts: what is carried, "a" in the accumulation dtype and "i" a position. start: values that change nothing.
    element: the parts of one element, from x0, x1 (converted inputs) and i (its position along the axis).
    merge: lines that make r, the state l followed by e. results: the outputs, from r. ways: chains in turns.
    """

    parts: dict[str, str]
    start: Callable[[DType], tuple[Any, ...]]
    element: tuple[str, ...]
    merge: tuple[str, ...]
    results: tuple[str, ...]
    ways: int = WAYS


def _extreme(compare: str) -> Combination:
    """The first NaN stays; of equal extremes the last one counts."""
    wins = (
        f"{{w}}_logical_and_b1({{w}}_logical_not_b1({{w}}_isnan_{{a}}(l_m)), {{w}}_{compare}_{{a}}(e_m, l_m))"
    )
    return Combination(
        {"m": "a", "i": "i"},
        lambda dtype: (_bound(dtype, compare == "ge"), 0),
        ("x0", "i"),
        (
            f"take = {{w}}_logical_or_b1({{w}}_isnan_{{a}}(e_m), {wins})",
            "r_m = {w}_where_{a}(take, e_m, l_m)",
            "r_i = {w}_where_i64(take, e_i, l_i)",
        ),
        ("r_m", "r_i"),
    )


def _bound(dtype: DType, lowest: bool) -> Any:
    if dtype.kind == "bool":
        return not lowest
    if dtype.is_float:
        return -math.inf if lowest else math.inf
    info = np.iinfo(dtype.np)
    return int(info.min if lowest else info.max)


COMBINATIONS = {
    "cumsum": Combination({"s": "a"}, lambda _: (0,), ("x0",), ("r_s = {w}_add_{a}(l_s, e_s)",), ("r_s",)),
    "cumprod": Combination({"s": "a"}, lambda _: (1,), ("x0",), ("r_s = {w}_mul_{a}(l_s, e_s)",), ("r_s",)),
    "linear_scan": Combination(
        {"p": "a", "s": "a"},
        lambda _: (1, 0),
        ("x0", "x1"),
        ("r_s = {w}_add_{a}({w}_mul_{a}(e_p, l_s), e_s)", "r_p = {w}_mul_{a}(l_p, e_p)"),
        ("r_s",),
    ),
    # The state is exp(m) * s with the largest m so far, so that nothing overflows.
    "logcumsumexp": Combination(
        {"m": "a", "s": "a"},
        lambda _: (-math.inf, 0),
        ("x0", "one"),
        (
            "gap = {w}_neg_{a}({w}_abs_{a}({w}_sub_{a}(l_m, e_m)))",
            "t = {w}_where_{a}({w}_eq_{a}(l_m, e_m), one, {w}_exp_{a}(gap))",
            "left = {w}_ge_{a}(l_m, e_m)",
            "old = {w}_where_{a}(left, l_s, {w}_mul_{a}(l_s, t))",
            "new = {w}_where_{a}(left, {w}_mul_{a}(e_s, t), e_s)",
            "r_s = {w}_add_{a}(old, new)",
            "r_m = {w}_maximum_{a}(l_m, e_m)",
        ),
        ("{w}_add_{a}({w}_log_{a}(r_s), r_m)",),
        2,
    ),
    "cummax": _extreme("ge"),
    "cummin": _extreme("le"),
}


class _Scan(NamedTuple):
    """A scan over given dtypes: writes the lines of its kernels."""

    name: str
    inputs: tuple[DType, ...]
    outputs: tuple[DType, ...]

    @property
    def combination(self) -> Combination:
        return COMBINATIONS[self.name]

    @property
    def accumulation(self) -> DType:
        dtype = self.outputs[0]
        wide = dtype.is_float and not self.name.startswith(("cummax", "cummin"))
        return DTYPES["float64"] if wide else dtype

    @property
    def parts(self) -> dict[str, DType]:
        return {n: int64 if k == "i" else self.accumulation for n, k in self.combination.parts.items()}

    def start(self, name: str) -> list[str]:
        """The state `name` of a chain without elements."""
        values = self.combination.start(self.accumulation)
        return [f"{name}_{n} = {_number(v, d)}" for (n, d), v in zip(self.parts.items(), values)]

    def step(self, letter: str, left: str, load: Callable[[int, DType], str], position: str) -> list[str]:
        """Read an element and make r: the state `left` followed by it."""
        a = self.accumulation
        lines = [f"x{k} = {_cast(load(k, d), d, a, letter)}" for k, d in enumerate(self.inputs)]
        for part, text in zip(self.combination.parts, self.combination.element):
            lines.append(f"e_{part} = {position if text == 'i' else text}")
        return lines + self.merge(letter, left)

    def merge(self, letter: str, left: str) -> list[str]:
        lines = [text.format(w=letter, a=self.accumulation.char) for text in self.combination.merge]
        for part in self.parts:
            lines = [line.replace(f"l_{part}", f"{left}_{part}") for line in lines]
        return lines

    def results(self, letter: str) -> list[str]:
        """The values of the outputs, from r."""
        out = []
        for text, dtype in zip(self.combination.results, self.outputs):
            part = self.parts.get(text.removeprefix("r_"), self.accumulation)
            out.append(_cast(text.format(w=letter, a=self.accumulation.char), part, dtype, letter))
        return out

    def keep(self, name: str) -> list[str]:
        return [f"{name}_{part} = r_{part}" for part in self.parts]


def _number(value: Any, dtype: DType) -> str:
    text = constant(value, dtype)
    return text if dtype.kind == "bool" else f"types.{dtype.name}({text})"


def _cast(text: str, source: DType, target: DType, letter: str) -> str:
    return text if source is target else f"{letter}_cast_{source.char}_{target.char}({text})"


def _head(scan: _Scan, kind: str) -> list[str]:
    names = [f"in{k}" for k in range(len(scan.inputs))] + [f"out{k}" for k in range(len(scan.outputs))]
    names += ["totals", "lead", "n", "rest", "blocks", "reverse", "tile"]
    lines = [
        f"# {scan.name}, {kind}: {', '.join(map(str, scan.inputs))} to {', '.join(map(str, scan.outputs))}",
        "def kernel(args, chunk, nchunks):",
        f"    {', '.join(names)} = {', '.join(f'args[{k}]' for k in range(len(names)))}",
        "    step = -rest if reverse else rest",
    ]
    if "one" in scan.combination.element:
        lines.append(f"    one = {_number(1, scan.accumulation)}")
    return lines


def _chains_source(scan: _Scan, totals: bool) -> str:
    """Chains in turns. totals: only the state after each chain is kept; else chains go on from those before."""
    ways = scan.combination.ways
    lines = _head(scan, "totals of chains" if totals else "chains")
    lines += [
        "    length, chains = quotient(n, blocks), lead * rest * blocks",
        f"    groups = quotient(chains + {ways - 1}, {ways})",
        f"    first, last = share(groups, chunk, nchunks) * {ways}, share(groups, chunk + 1, nchunks) * {ways}",
        "    last = min(last, chains)",
        "    chain = first",
        "    while chain < last:",
    ]
    # The last block of a row takes what is left over, and is the last of its group.
    body = [f"if chain + {ways} <= last:"]
    for k in range(ways):
        body += [f"    {line}" for line in _begin(scan, f"s{k}", f"chain + {k}", f"_{k}", totals)]
    body.append("    for i in range(length):")
    for k in range(ways):
        body += [f"        {line}" for line in _advance(scan, f"s{k}", f"_{k}", totals)]
    k = ways - 1
    body.append(f"    for i in range(length, count_{k}):")
    body += [f"        {line}" for line in _advance(scan, f"s{k}", f"_{k}", totals)]
    if totals:
        for k in range(ways):
            body += [f"    {line}" for line in _put_total(scan, f"s{k}", f"chain + {k}")]
    body += [f"    chain += {ways}", "else:"]
    body += [f"    {line}" for line in _begin(scan, "s", "chain", "_", totals)]
    body.append("    for i in range(count_):")
    body += [f"        {line}" for line in _advance(scan, "s", "_", totals)]
    if totals:
        body += [f"    {line}" for line in _put_total(scan, "s", "chain")]
    body.append("    chain += 1")
    return "\n".join([*lines, *(f"        {line}" for line in body)]) + "\n"


def _begin(scan: _Scan, state: str, chain: str, tail: str, totals: bool) -> list[str]:
    lines = [
        f"line, block = quotient({chain}, blocks), remainder({chain}, blocks)",
        f"from{tail} = block * length",
        f"count{tail} = n - from{tail} if block == blocks - 1 else length",
        f"start{tail} = n - 1 - from{tail} if reverse else from{tail}",
        f"at{tail} = (quotient(line, rest) * n + start{tail}) * rest + remainder(line, rest)",
        *scan.start(state),
    ]
    if not totals:
        lines.append("for before in range(block):")
        for p, (part, dtype) in enumerate(scan.parts.items()):
            place = f"totals + ((line * blocks + before) * {len(scan.parts)} + {p}) * 8"
            lines.append(f"    e_{part} = load_{dtype.char}({place}, 0)")
        lines += [f"    {line}" for line in scan.merge("v", state) + scan.keep(state)]
    return lines


def _advance(scan: _Scan, state: str, tail: str, totals: bool) -> list[str]:
    position = f"(start{tail} - i if reverse else start{tail} + i)"
    lines = [f"at = at{tail} + i * step"]
    lines += scan.step("v", state, lambda k, d: f"load_{d.char}(in{k}, at)", position)
    if not totals:
        for k, (value, dtype) in enumerate(zip(scan.results("v"), scan.outputs)):
            lines.append(f"store_{dtype.char}(out{k}, at, {value})")
    return lines + scan.keep(state)


def _put_total(scan: _Scan, state: str, chain: str) -> list[str]:
    return [
        f"store_{dtype.char}(totals + (({chain}) * {len(scan.parts)} + {p}) * 8, 0, {state}_{part})"
        for p, (part, dtype) in enumerate(scan.parts.items())
    ]


def _lanes_source(scan: _Scan) -> str:
    """Chains side by side: tiles of up to 256 columns, whose states lie in the first-level cache."""
    lines = _head(scan, "lanes")
    lines += [f"    s_{part} = stack({256 * dtype.itemsize})" for part, dtype in scan.parts.items()]
    lines += [
        "    tiles = quotient(rest + tile - 1, tile)",
        "    for item in range(share(lead * tiles, chunk, nchunks), share(lead * tiles, chunk + 1, nchunks)):",
        "        left = remainder(item, tiles) * tile",
        "        width = min(rest - left, tile)",
        "        base = (quotient(item, tiles) * n + (n - 1 if reverse else 0)) * rest + left",
        "        for v in range(0, width, 16):",
    ]
    values = scan.combination.start(scan.accumulation)
    for (part, dtype), value in zip(scan.parts.items(), values):
        lines.append(f"            w_write_{dtype.char}(s_{part}, v, {_number(value, dtype)})")
    lines += [
        "        for i in range(n):",
        "            at = base + i * step",
        "            here = n - 1 - i if reverse else i",
        "            for v in range(0, width, 16):",
        "                m = w_mask(width, v)",
    ]
    body = [f"l_{part} = w_read_{dtype.char}(s_{part}, v)" for part, dtype in scan.parts.items()]
    body += scan.step("w", "l", lambda k, d: f"w_load_{d.char}(in{k}, at + v, m)", "here")
    body += [f"w_write_{dtype.char}(s_{part}, v, r_{part})" for part, dtype in scan.parts.items()]
    for k, (value, dtype) in enumerate(zip(scan.results("w"), scan.outputs)):
        body.append(f"w_store_{dtype.char}(out{k}, at + v, {value}, m)")
    return "\n".join([*lines, *(f"                {line}" for line in body)]) + "\n"


def _scan(name: str) -> Kernel:
    def run(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: Any, reverse: bool = False,
            **_: Any) -> None:  # fmt: skip
        xs = [_dense(program, x) for x in inputs]
        shape = xs[0].shape if axis is not None else (xs[0].size,)
        axis = 0 if axis is None else axis
        lead, n, rest = math.prod(shape[:axis]), shape[axis] if shape else 1, math.prod(shape[axis + 1 :])
        if lead * n * rest == 0:
            return
        scan = _Scan(name, tuple(x.dtype for x in xs), tuple(o.dtype for o in outputs))
        few = lead * rest < FEW and n >= BLOCK_FROM
        blocks = 1 if not few else 8 if n < MANY_FROM else 64
        side = rest >= SIDE and lead * -(-rest // 64) >= TILES
        tile = 256 if lead * -(-rest // 256) >= 16 else 64
        totals: Arg = program.scratch(lead * rest * blocks * 8 * len(scan.parts)) if few else 0
        args: list[Arg] = [*(x.slot for x in xs), *(o.slot for o in outputs), totals]
        args += [lead, n, rest, blocks, int(reverse), tile]
        work = lead * n * rest * (8.0 + sum(v.dtype.itemsize for v in (*xs, *outputs)))
        if scan.combination.ways < WAYS:
            work *= 8
        if side:
            program.launch(_lanes_source(scan), args, program.chunks(lead * -(-rest // tile), work))
            return
        groups = -(-lead * rest * blocks // scan.combination.ways)
        if few:
            program.launch(_chains_source(scan, True), args, program.chunks(groups, work))
            program.wave()
        program.launch(_chains_source(scan, False), args, program.chunks(groups, work))

    return run


KERNELS: dict[str, Kernel] = {name: _scan(name) for name in COMBINATIONS}
