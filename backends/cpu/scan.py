"""Running sums, products, extremes and recurrences along an axis: one kernel from a table of combinations.

Along a row, sixteen elements are combined among themselves (spans of 1, 2, 4, 8) and then with what came before; a
few long rows are cut into blocks, by shape alone, whose totals are combined first. Along another axis, the
columns are lanes. Floats accumulate in float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.types import DTYPES, DType, int64
from .emit_expression import constant
from .indexing import _dense

#: fewer rows than FEW, from LONG elements on, are cut into blocks
FEW, LONG, BLOCKS = 8, 1 << 16, 64


class Combination(NamedTuple):
    """A scan. In texts, `{w}` is v or w (one chain or sixteen lanes), `{a}` the accumulation dtype's char.

    parts: what is carried, "a" in the accumulation dtype and "i" a position. start: values that change nothing.
    element: the parts of one element, from x0, x1 (converted inputs) and i (its position along the axis).
    merge: lines that make r, the state l followed by e. results: the outputs, from r.
    cost: of a merge, about, in instructions.
    """

    parts: dict[str, str]
    start: Callable[[DType], tuple[Any, ...]]
    element: tuple[str, ...]
    merge: tuple[str, ...]
    results: tuple[str, ...]
    cost: float = 1.0


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
        40.0,
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

    def element(self, letter: str, load: Callable[[int, DType], str], position: str, name: str) -> list[str]:
        """Read an element: the state `name` of it alone."""
        lines = [
            f"x{k} = {_cast(load(k, d), d, self.accumulation, letter)}" for k, d in enumerate(self.inputs)
        ]
        for part, text in zip(self.combination.parts, self.combination.element):
            lines.append(f"{name}_{part} = {position if text == 'i' else text}")
        return lines

    def merge(self, letter: str, left: str, right: str) -> list[str]:
        """Make r: the state `left` followed by the state `right`."""
        lines = [text.format(w=letter, a=self.accumulation.char) for text in self.combination.merge]
        for part in self.parts:
            for old, new in (("l", left), ("e", right)):
                lines = [re.sub(rf"\b{old}_{part}\b", f"{new}_{part}", line) for line in lines]
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


def _rows_source(scan: _Scan, reverse: bool, totals: bool) -> str:
    """Rows, or blocks of them. totals: only the state after each block is kept; else it goes on from those before."""
    lines = _head(scan, f"{'totals of ' if totals else ''}rows{', backwards' if reverse else ''}")
    lines += [f"    {line}" for line in scan.start("z")]
    lines += [
        "    length = quotient(n, blocks)",
        "    for chain in range(share(lead * blocks, chunk, nchunks), share(lead * blocks, chunk + 1, nchunks)):",
        "        row, block = quotient(chain, blocks), remainder(chain, blocks)",
        "        first, end = block * length, n if block == blocks - 1 else (block + 1) * length",
        *(f"        c_{part} = z_{part}" for part in scan.parts),
    ]
    words = list(enumerate(scan.parts.items()))
    if not totals:
        lines.append("        for before in range(row * blocks, chain):")
        loads = [f"e_{part} = load_{d.char}({_total(scan, 'before', p)}, 0)" for p, (part, d) in words]
        lines += [f"            {line}" for line in loads + scan.merge("v", "c", "e") + scan.keep("c")]
    lines.append("        for v in range(first, end, 16):")
    if reverse:
        body = ["m = w_mask(end, v)", "at, back = row * n + n - 16 - v, w_flip_b1(m)"]
        load = lambda k, d: f"w_flip_{d.char}(w_load_{d.char}(in{k}, at, back))"
        position = "w_index(n - 1 - v, -1)"
    else:
        body = ["m = w_mask(end, v)", "at = row * n + v"]
        load = lambda k, d: f"w_load_{d.char}(in{k}, at, m)"
        position = "w_index(v, 1)"
    body += scan.element("w", load, position, "a")
    body += [f"s0_{part} = w_where_{d.char}(m, a_{part}, z_{part})" for part, d in scan.parts.items()]
    for span, by in enumerate((1, 2, 4, 8)):
        now = f"s{span}"
        body += [
            f"b{by}_{part} = w_shift_{d.char}({now}_{part}, {by}, z_{part})" for part, d in scan.parts.items()
        ]
        body += scan.merge("w", f"b{by}", now) + scan.keep(f"s{span + 1}")
    body += scan.merge("w", "c", "s4")
    body += [f"c_{part} = w_last_{d.char}(r_{part})" for part, d in scan.parts.items()]
    for k, (value, dtype) in enumerate(zip(scan.results("w"), scan.outputs) if not totals else ()):
        stored = f"w_flip_{dtype.char}({value}), back" if reverse else f"{value}, m"
        body.append(f"w_store_{dtype.char}(out{k}, at, {stored})")
    lines += [f"            {line}" for line in body]
    if totals:
        lines += [
            f"        store_{d.char}({_total(scan, 'chain', p)}, 0, c_{part})" for p, (part, d) in words
        ]
    return "\n".join(lines) + "\n"


def _total(scan: _Scan, chain: str, part: int) -> str:
    return f"totals + ({chain} * {len(scan.parts)} + {part}) * 8"


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
    body += scan.element("w", lambda k, d: f"w_load_{d.char}(in{k}, at + v, m)", "here", "e")
    body += scan.merge("w", "l", "e")
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
        few = rest == 1 and lead < FEW and n >= LONG
        blocks = BLOCKS if few else 1
        tile = 256 if lead * -(-rest // 256) >= 16 else 64
        totals: Arg = program.scratch(lead * blocks * 8 * len(scan.parts)) if few else 0
        args: list[Arg] = [*(x.slot for x in xs), *(o.slot for o in outputs), totals]
        args += [lead, n, rest, blocks, int(reverse), tile]
        bytes_ = sum(v.dtype.itemsize for v in (*xs, *outputs))
        work = lead * n * rest * (bytes_ + 8.0 * scan.combination.cost)
        if rest > 1:
            program.launch(_lanes_source(scan), args, program.chunks(lead * -(-rest // tile), work))
            return
        for only in (True, False) if few else (False,):
            program.launch(_rows_source(scan, bool(reverse), only), args, program.chunks(lead * blocks, work))
            program.wave()

    return run


KERNELS: dict[str, Kernel] = {name: _scan(name) for name in COMBINATIONS}
