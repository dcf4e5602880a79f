"""Short rows of records put in order by a network of exchanges: text for the kernels of `sort`."""

from __future__ import annotations

#: the most records that a network puts in order
MOST = 4096


def _in_lanes(*steps: int) -> str:
    """The sixteen elements of w after each step's exchange of lanes."""
    text = "w"
    for k in steps:
        text = f"w_order_$UNSIGNED({text}, {k})"
    return text


# Batcher's bitonic network: blocks in order, each turned against the one before it, become blocks of twice the size.
# Records that are equal are the same number, so any order of them is the stable one.
NETWORK = f"""from duograd.backends.cpu.wide_order import w_order_$UNSIGNED

@function
def sort_network(a, n, size):
    # size: a power of two from 16 on, at least n; there is room for that many records.
    for i in range(n, size):
        store_word(a, i, as_word(-1))
    for i in range(0, size, 16):
        w = w_read_$UNSIGNED(a, i)
        w_write_$UNSIGNED(a, i, {_in_lanes(1, 3, 1, 7, 2, 1, 15, 4, 2, 1)})
    block = 32
    while block <= size:
        half = block >> 1
        for k in range(size >> 5):
            i = (k << 4) & (half - 1)
            first = ((k << 4) - i) << 1
            p, q = first + i, first + block - 16 - i
            low, high = w_read_$UNSIGNED(a, p), w_flip_$UNSIGNED(w_read_$UNSIGNED(a, q))
            w_write_$UNSIGNED(a, p, w_minimum_$UNSIGNED(low, high))
            w_write_$UNSIGNED(a, q, w_flip_$UNSIGNED(w_maximum_$UNSIGNED(low, high)))
        span = half >> 1
        while span >= 16:
            for k in range(size >> 5):
                i = (k << 4) & (span - 1)
                p = (((k << 4) - i) << 1) + i
                low, high = w_read_$UNSIGNED(a, p), w_read_$UNSIGNED(a, p + span)
                w_write_$UNSIGNED(a, p, w_minimum_$UNSIGNED(low, high))
                w_write_$UNSIGNED(a, p + span, w_maximum_$UNSIGNED(low, high))
            span >>= 1
        for i in range(0, size, 16):
            w = w_read_$UNSIGNED(a, i)
            w_write_$UNSIGNED(a, i, {_in_lanes(8, 4, 2, 1)})
        block <<= 1

"""
