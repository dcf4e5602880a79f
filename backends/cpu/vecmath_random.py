"""Random bits: Philox4x32-10, and floats in [0, 1) from them. `backends/cuda/philox.cuh` gives the same bits.

Source: Salmon, Moraes, Dror, Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

from .vecmath_registry import vector
from .vecmath_value import Value, select

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


_LOW = 0xFFFFFFFF


@vector("philox4x32", (), args=("u64", "u64", "u64", "i64"), result="u32")
def philox4x32(counter: Value, counter_high: Value, key: Value, word: Value) -> Value:
    """Word 0 to 3 of the block that Philox4x32-10 makes of a 128-bit counter and a 64-bit key.

    The four words stay in 64-bit lanes whose upper halves are anything: the multiplication reads lower halves
    alone, and moving between 32 and 64 bits would take most of the time.
    """
    c0, c1, c2, c3 = counter, counter >> 32, counter_high, counter_high >> 32
    k0, k1 = key, key >> 32
    for _ in range(10):
        p0 = (c0 & _LOW) * _MULTIPLIERS[0]
        p1 = (c2 & _LOW) * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1, (p0 >> 32) ^ c3 ^ k1, p0
        k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    odd = (word & 1).ne(0)
    return select((word & 2).ne(0), select(odd, c3, c2), select(odd, c1, c0)).to("u32")


@vector("philox", (), args=("u64", "u64", "i64", "i64"), result="u32")
def philox(seed: Value, offset: Value, index: Value, word: Value) -> Value:
    """The 32 random bits of element `index`: word `word` of counter offset + index, key = seed."""
    return philox4x32(offset + index.viewed("u64"), offset.const(0), seed, word)


@vector("uniform", ("f32",), args=("u32",))
def uniform_f32(bits: Value) -> Value:
    """The top 24 bits as a number in [0, 1)."""
    return (bits >> 8).to("f32") * 2.0**-24


@vector("uniform", ("f64",), args=("u32", "u32"))
def uniform_f64(high: Value, low: Value) -> Value:
    """The top 32 and 21 bits of two words as a number in [0, 1)."""
    word = (high.to("u64") << 21) | (low >> 11).to("u64")
    return word.to("f64") * 2.0**-53
