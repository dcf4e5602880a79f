"""Python constructs that graph compilers get wrong: one function a row, written once for every framework.

A row gets a namespace m (array, sin, where, stack, rand, grad, jit, host, ...) and returns what an onlooker sees:
results and effects of several calls, with state that changes in between. A row is right when it returns the same with
a `jit` that compiles as with one that does nothing. Its docstring is the text of the table in docs/graph.md.
"""

from . import arguments, branches, effects, memory, numbers, reads
from .row import MADE

#: the rows by name, in the order of the table
ROWS = {
    fn.__name__: fn
    for module in (reads, effects, branches, memory, arguments, numbers)
    for fn in MADE[module.__name__]
}

#: rows that graph mode refuses, and what its error says
REFUSED: dict[str, str] = {}
