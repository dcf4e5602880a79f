"""Tables for the piecewise float32 vector math functions (offline; needs mpmath).

`python -m duograd.backends.cpu.vecmath_fit_tables` prints `vecmath_tables.py` anew. A piece's polynomial comes from
the Remez exchange of `vecmath_fit`. Its centre is a multiple of the pieces' width, or chosen near one so that the
function's value there is a float32 but for a thousandth of a unit (Gal's accurate tables), and then costs no rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

from .vecmath_exp import EXP_SHIFT
from .vecmath_fit import TABLES as COEFFICIENTS
from .vecmath_fit import Fit, fit


def _accurate(g: Callable[[Any], Any], near: float) -> tuple[float, float]:
    """A float32 c near `near` and the float32 that g(c) all but is."""
    best = (1.0, 0.0, 0.0)
    for step in range(4000):
        c = np.float32(near + (-1) ** step * step * 2.0**-17)
        exact = g(mp.mpf(float(c)))
        rounded = float(np.float32(float(exact)))
        error = float(abs(exact - mp.mpf(rounded))) / float(np.spacing(np.float32(rounded)))
        best = min(best, (error, float(c), rounded))
        if error < 1e-3:
            break
    return best[1], best[2]


def about(
    g: Callable[[Any], Any], centre: float, half: float, terms: int, low: float | None = None
) -> list[float]:
    """c0, c1, ...: g(x) = sum c[k] t**k for t = x - centre from `low` (-half) to half, in relative terms."""
    g_at = lambda t: g(centre + mp.mpf(t))
    return fit(Fit(g_at, range(terms), -half if low is None else low, half, lambda t: 1 / g_at(t), 24))[0]


def about_accurate(g: Callable[[Any], Any], near: float, half: float, terms: int) -> list[float]:
    """centre, value, c0, c1, ...: g(x) = value + t * sum c[k] t**k, t = x - centre, x up to `half` from `near`."""
    centre, value = _accurate(g, near)
    c = mp.mpf(centre)
    exact = g(c)

    def quotient(t: Any) -> Any:
        return (g(c + t) - exact) / t if t else mp.diff(g, c)

    low, high = near - half - centre, near + half - centre
    return [centre, value, *fit(Fit(quotient, range(terms), low, high, lambda t: t / g(c + t), 24))[0]]


def _erf_ending(x: Any) -> Any:
    """erf, drawn to what rounds to 1 at the end of the last piece: by a third of a unit, and never up to 1."""
    return mp.erf(x + (0.08 * (4 * (x - 3.625)) ** 4 if x > 3.625 else 0))


def _erf(n: int) -> list[float]:
    if n:
        return about_accurate(_erf_ending, n / 4, 0.125, 5)
    minus_x = lambda t: (mp.erf(t) - t) / t if t else 2 / mp.sqrt(mp.pi) - 1
    return [0.0, 0.0, *fit(Fit(minus_x, range(5), 0.0, 0.125, lambda t: t / mp.erf(t) if t else 1, 24))[0]]


def _tail(n: int) -> list[float]:
    if n == 31:
        return [0.0] * 5
    beyond = lambda x: mp.erfc(x / mp.sqrt(2)) / 2
    return about(beyond, n / 4, 0.125, 5, None if n else 0.0)


def _short_tail(n: int) -> list[float]:
    """x Q(x), negative but for its value at the centre; of the first piece the value is 0."""
    if n == 15:
        return [0.0, *[-0.0] * 5]  # gelu of minus infinity is -0.0
    beyond = lambda x: x * mp.erfc(x / mp.sqrt(2)) / 2
    if n == 0:
        c = about(lambda x: mp.erfc(x / mp.sqrt(2)) / 2, 0.0, 0.25, 5, 0.0)
        return [0.0, *(-v for v in c)]
    value, *c = about(beyond, n / 2, 0.25, 6)
    return [value, *(-v for v in c)]


def _halves(g: Callable[[Any], Any]) -> Callable[[int], list[float]]:
    return lambda n: about(g, (n if n < 16 else n - 32) / 2, 0.25, 6)


def _tanh(n: int) -> list[float]:
    if n == 31:
        return [9.3, 1.0, *[0.0] * 6]
    if n:
        return about_accurate(mp.tanh, 0.3 * n, 0.15, 6)
    odd = COEFFICIENTS["TANH"][1]["f32"]._replace(powers=range(2), hi=0.15**2)
    c3, c5 = fit(odd)[0]
    return [0.0, 0.0, 1.0, 0.0, c3, 0.0, c5, 0.0]


class Table(NamedTuple):
    """What a table holds, how many pieces there are, and the numbers of piece n: one for each column."""

    what: str
    pieces: int
    row: Callable[[int], list[float]]


TABLES: dict[str, Table] = {
    "POWERS": Table(
        f"2**(n/16) times 1 - {-EXP_SHIFT}, which exp's polynomial takes back: off by 0.38 units at most, not 0.45",
        16,
        lambda n: [float(np.float32(float(2 ** (mp.mpf(n) / 16) * (1 + mp.mpf(EXP_SHIFT)))))],
    ),
    "ERF": Table(
        "erf(x) = value + t * sum c[k] t**k, t = x - centre; piece n about n/4; piece 0: x + ...\n"
        "# centre, value, c[0] ... c[4]",
        16,
        _erf,
    ),
    "TAIL": Table(
        "the normal distribution beyond x = n/4 + t: sum c[k] t**k; from 7.625 on 0",
        32,
        _tail,
    ),
    "SHORT_TAIL": Table(
        "x times that, x = n/2 + t: c[0] - sum of -c[k] t**k, from k = 1 on; from 7.25 on 0",
        16,
        _short_tail,
    ),
    "SIGMOID": Table(
        "1 / (1 + exp(-x)), x = n/2 + t, alike; n from -16 to 15 stands at n mod 32",
        32,
        _halves(lambda x: 1 / (1 + mp.exp(-x))),
    ),
    "SOFTPLUS": Table("log(1 + exp(x)), in the same way", 32, _halves(lambda x: mp.log1p(mp.exp(x)))),
    "TANH": Table("tanh(x), as ERF; piece n about 0.3 n, the last one 1", 32, _tanh),
}


def columns(name: str) -> list[list[float]]:
    """The columns of a table."""
    table = TABLES[name]
    return [list(column) for column in zip(*map(table.row, range(table.pieces)))]


def _show(numbers: Sequence[Any], indent: int) -> None:
    for k in range(0, len(numbers), 4):
        print(" " * indent + " ".join(f"{value!r}," for value in numbers[k : k + 4]))


_HEAD = '''"""Tables for piecewise vector math in float32; printed by `vecmath_fit_tables.py`."""

# fmt: off'''


def main() -> None:
    """Print the text of `vecmath_tables.py`."""
    print(_HEAD)
    for position, (name, table) in enumerate(TABLES.items()):
        print(("\n" if position else "") + f"# {table.what}\n{name} = (")
        for column in columns(name):
            print("    (")
            _show(column, 8)
            print("    ),")
        print(")", flush=True)


if __name__ == "__main__":
    main()
