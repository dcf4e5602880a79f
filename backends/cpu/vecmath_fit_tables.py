"""Tables of sixteen for the float32 vector math functions (offline; needs mpmath).

`python -m duograd.backends.cpu.vecmath_fit_tables` prints `vecmath_tables.py` anew. A piece's polynomial comes
from the Remez exchange of `vecmath_fit`; its centre is chosen so that the function's value there is a float32
but for a thousandth of a unit (Gal's accurate tables), and then costs no rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath as mp
import numpy as np

from .vecmath_fit import Fit, fit

PIECES = 16


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


def piecewise(
    g: Callable[[Any], Any], width: float, terms: int, first: Callable[[Any], Any] | None = None
) -> list[list[float]]:
    """Columns centre, value, c0, c1, ...: g(x) = value + t * sum c[k] t**k, t = x - centre, x >= 0.

    Piece n is centred near n * width. With `first` piece 0 is odd: there `value` is x itself, and `first` is
    (g(x) - x) / x. Without it the last piece is 0.
    """
    rows = []
    for n in range(PIECES):
        if first is None and n == PIECES - 1:
            rows.append([n * width] + [0.0] * (terms + 1))
            break
        centre, value = _accurate(g, n * width) if n else (0.0, 0.0 if first else float(g(0)))
        c = mp.mpf(centre)
        low = (n - 0.5) * width - centre if n else 0.0
        high = (n + 0.5) * width - centre

        at_centre = g(c)

        def quotient(t: Any, c: Any = c, exact: Any = at_centre) -> Any:
            if c == 0 and first:
                return first(t)
            return (g(c + t) - exact) / t if t else mp.diff(g, c)

        weight = lambda t, c=c: t / g(c + t) if c + t or not first else mp.mpf(1)
        found, _ = fit(Fit(quotient, range(terms), low, high, weight, 24))
        rows.append([centre, value, *found])
    return [list(column) for column in zip(*rows)]


def _erf_ending(x: Any) -> Any:
    """erf, drawn to what rounds to 1 at the end of the last piece: by a third of a unit, and never up to 1."""
    return mp.erf(x + (0.08 * (4 * (x - 3.625)) ** 4 if x > 3.625 else 0))


def _erf_first(t: Any) -> Any:
    return (mp.erf(t) - t) / t if t else 2 / mp.sqrt(mp.pi) - 1


def _tail(x: Any) -> Any:
    """How much of the normal distribution lies beyond x."""
    return mp.erfc(x / mp.sqrt(2)) / 2


#: name -> what makes its columns
TABLES: dict[str, Callable[[], list[list[float]]]] = {
    "ERF": lambda: piecewise(_erf_ending, 0.25, 5, _erf_first),
    "TAIL": lambda: piecewise(_tail, 0.4, 5),
}


def _show(numbers: Sequence[Any], indent: int) -> None:
    for k in range(0, len(numbers), 4):
        print(" " * indent + " ".join(f"{value!r}," for value in numbers[k : k + 4]))


def _show_columns(name: str, columns: Sequence[Sequence[float]]) -> None:
    print(f"{name} = (")
    for column in columns:
        print("    (")
        _show(column, 8)
        print("    ),")
    print(")")


_HEAD = '''"""Tables of sixteen for piecewise vector math in float32; printed by `vecmath_fit_tables.py`."""

# fmt: off'''


def main() -> None:
    """Print the text of `vecmath_tables.py`."""
    print(_HEAD)
    print("# erf(x) = value + t * sum c[k] t**k, t = x - centre; piece n about n/4; piece 0: x + ...")
    print("# centre, value, c[0] ... c[4]")
    _show_columns("ERF", TABLES["ERF"]())
    print("\n# the normal distribution beyond x, x >= 0, alike; piece n about n * 0.4, the last one 0")
    _show_columns("TAIL", TABLES["TAIL"]())


if __name__ == "__main__":
    main()
