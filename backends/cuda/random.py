"""Random draws that no pointwise loop makes: permutations, the CPU's by the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Kernel, Operand, Program, Slot
from .written import per_item, start

_PERMUTATION = per_item(
    "random_permutation", "loop philox", ["seed", "offset", "out: i64*", "size"],
    """
for (i64 i = 0; i < size; i++) out[i] = i;
for (i64 i = size - 1; i > 0; i--) {
    // 64 random bits times the number of places, the upper half of the product.
    const u64 places = (u64)(i + 1);
    const u64 high = dg_philox((u64)seed, (u64)offset, i, 0) * places;
    const u64 low = dg_philox((u64)seed, (u64)offset, i, 1) * places >> 32;
    const i64 j = (i64)(high + low >> 32), other = out[j];
    out[j] = out[i];
    out[i] = other;
}""",
)  # fmt: skip


def random_permutation(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, device: Any = None
) -> None:
    """The integers below size in random order; one thread, for each exchange needs the ones before."""
    if size:
        start(program, _PERMUTATION, 1, [*(Slot(x.source) for x in inputs), outputs[0].slot, size])


KERNELS: dict[str, Kernel] = {"random_permutation": random_permutation}
