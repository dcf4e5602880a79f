"""How many variants a function may have before calls have paid for them.

A trace costs as much as many calls. A size or a number that is another one at every call (a cache that grows, the
number of a token) would be traced each time and not be met again; so past a few variants each further one must have
been earned by calls that found theirs. What fits none runs as Python meanwhile, at the price of eager mode.
"""

from __future__ import annotations

#: variants that a function gets in any case, and how many calls that found theirs earn one more
FREE, PRICE = 16, 16


class Budget:
    """The variants of a function for the same modules.

    made, apart: how many there were, and how many of them for other reasons than shapes; found: calls that found one;
    python: calls that ran as Python; why: what kept the first of them from a variant, in words.
    """

    __slots__ = ("apart", "found", "made", "python", "why")

    def __init__(self) -> None:
        self.made = self.apart = self.found = self.python = 0
        self.why = ""

    def add(self, apart: bool) -> None:
        """A variant was made. apart: for another reason than shapes."""
        self.made += 1
        self.apart += apart

    @property
    def allows(self) -> bool:
        """Whether one more variant may be made."""
        return self.made < FREE + self.found // PRICE

    def earn(self) -> None:
        """A variant is called often, through a way of its own that does not count."""
        self.found += PRICE

    def words(self) -> str:
        return (
            f"{self.python} calls ran its Python, op by op, for {self.made} variants were made and few of them called "
            f"again: {self.why}"
        )
