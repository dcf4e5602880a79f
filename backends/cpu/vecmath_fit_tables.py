"""Tables of sixteen for the float32 vector math functions (offline; needs mpmath).

`python -m duograd.backends.cpu.vecmath_fit_tables` prints `vecmath_tables.py` anew. A piece's polynomial comes
from the Remez exchange of `vecmath_fit`; its centre is chosen so that the function's value there is a float32
but for a thousandth of a unit (Gal's accurate tables), and then costs no rounding.
"""

from __future__ import annotations

import struct
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
    g: Callable[[Any], Any], width: float, terms: int, first: Callable[[Any], Any]
) -> list[list[float]]:
    """Columns centre, value, c0, c1, ...: g(x) = value + t * sum c[k] t**k, t = x - centre, x >= 0.

    Piece n is centred near n * width. Piece 0 is odd: there `value` is x itself, and `first` is
    (g(x) - x) / x.
    """
    rows = []
    for n in range(PIECES):
        centre, value = _accurate(g, n * width) if n else (0.0, 0.0)
        c = mp.mpf(centre)
        low = (n - 0.5) * width - centre if n else 0.0
        high = (n + 0.5) * width - centre

        at_centre = g(c)

        def quotient(t: Any, c: Any = c, exact: Any = at_centre) -> Any:
            if c == 0:
                return first(t)
            return (g(c + t) - exact) / t if t else mp.diff(g, c)

        weight = lambda t, c=c: t / g(c + t) if c + t else mp.mpf(1)
        found, _ = fit(Fit(quotient, range(terms), low, high, weight, 24))
        rows.append([centre, value, *found])
    return [list(column) for column in zip(*rows)]


def _erf_ending(x: Any) -> Any:
    """erf, drawn to what rounds to 1 at the end of the last piece: by a third of a unit, and never up to 1."""
    return mp.erf(x + (0.08 * (4 * (x - 3.625)) ** 4 if x > 3.625 else 0))


def _erf_first(t: Any) -> Any:
    return (mp.erf(t) - t) / t if t else 2 / mp.sqrt(mp.pi) - 1


def exponential() -> tuple[list[int], list[float]]:
    """(bits of T, d): T is the float32 nearest to 2**(j/16), exp(d) times 2**(j/16) is T.

    From the bits j << 19 is taken off: k << 19 with k = 16 e + j puts it back together with the exponent e.
    """
    bits, rests = [], []
    for j in range(PIECES):
        exact = mp.mpf(2) ** (mp.mpf(j) / PIECES)
        rounded = np.float32(float(exact))
        bits.append(struct.unpack("<i", struct.pack("<f", rounded))[0] - (j << 19))
        rests.append(float(np.float32(float(mp.log(mp.mpf(float(rounded)) / exact)))))
    return bits, rests


def _show(numbers: Sequence[Any], indent: int) -> None:
    for k in range(0, len(numbers), 4):
        print(" " * indent + " ".join(f"{value!r}," for value in numbers[k : k + 4]))


_HEAD = '''"""Tables of sixteen for piecewise vector math in float32; printed by `vecmath_fit_tables.py`."""

# fmt: off'''


def main() -> None:
    """Print the text of `vecmath_tables.py`."""
    print(_HEAD)
    bits, rests = exponential()
    print("# float32 nearest to 2**(j/16): its bits less j << 19, and ln(T) - j ln(2)/16")
    for name, column in (("EXP_BITS", bits), ("EXP_REST", rests)):
        print(f"{name} = (")
        _show(column, 4)
        print(")")
    third = mp.log(2) / 32 * mp.mpf("1.02")
    c, _ = fit(Fit(lambda r: (mp.exp(r) - 1 - r) / r**2 if r else mp.mpf(1) / 2, range(2), -third, third,
                   lambda r: r**2, 24))  # fmt: skip
    print("\n# exp(r) = 1 + r + r**2 * sum c[k] r**k, |r| <= ln(2)/32")
    print("EXP_FINE = (")
    _show(c, 4)
    print(")")
    columns = piecewise(_erf_ending, 0.25, 5, _erf_first)
    print("\n# erf(x) = value + t * sum c[k] t**k, t = x - centre; piece n about n/4; piece 0: x + ...")
    print("# centre, value, c[0] ... c[4]")
    print("ERF = (")
    for column in columns:
        print("    (")
        _show(column, 8)
        print("    ),")
    print(")")


if __name__ == "__main__":
    main()
