"""Random draws that no pointwise loop makes: permutations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Kernel, Operand, Program, Slot

_PERMUTATION = """# random_permutation
def kernel(args, chunk, nchunks):
    seed, offset, out, size = types.uint64(args[0]), types.uint64(args[1]), args[2], args[3]
    for i in range(size):
        store_i64(out, i, i)
    half = types.uint64(32)
    for i in range(size - 1, 0, -1):
        # 64 random bits times the number of places, the upper half of the product.
        places = types.uint64(i + 1)
        high = types.uint64(v_philox(seed, offset, i, 0)) * places
        low = (types.uint64(v_philox(seed, offset, i, 1)) * places) >> half
        j = types.int64((high + low) >> half)
        other = load_i64(out, j)
        store_i64(out, j, load_i64(out, i))
        store_i64(out, i, other)
"""


def random_permutation(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, device: Any = None
) -> None:
    """The integers below size in random order; one thread, for each exchange needs the ones before."""
    if size:
        program.launch(_PERMUTATION, [*(Slot(x.source) for x in inputs), outputs[0].slot, size])


KERNELS: dict[str, Kernel] = {"random_permutation": random_permutation}
