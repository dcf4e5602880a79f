"""Control flow on the CPU: a launch whose kernel is the runner itself, on a table of its own.

The table of a loop's body is built when the program is loaded, once. At each turn the runner sets the body's dynamic
values (slices of what is walked, rows of results, the two buffers of each carry) and runs its rows; it allocates
nothing and calls no Python. `pool_source.py: run_loop, run_branch` read what is laid out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Nested, Program, Slot, Table

#: the `source` of such launches, and the runner's function
RUNNERS = {"# loop": "run_loop", "# branch": "run_branch"}


def loop(
    program: Program, body: Nested, test: Nested | None, pred: Slot | None, length: int, reverse: bool
) -> None:
    """Append a loop: `length` turns, or as long as `test` leaves True at `pred` (length -1)."""
    header: list[Any] = [length, int(reverse), 0, 0, 5]
    args = [*header, *_table(program, body, 0)]
    nested = [body]
    if test is not None:
        args[2], args[3] = len(args), pred
        args += _table(program, test, 1)
        nested.append(test)
    program.wave()
    program.launch("# loop", args, 1, tuple(nested))
    program.wave()


def branch(program: Program, pred: Slot, branches: Sequence[Nested]) -> None:
    """Append a choice: the first program when the bool at `pred` is True, else the second."""
    args: list[Any] = [pred, 0, 0]
    for k, nested in enumerate(branches):
        args[1 + k] = len(args)
        args += _table(program, nested, k)
    program.wave()
    program.launch("# branch", args, 1, tuple(branches))
    program.wave()


def _table(program: Program, nested: Nested, index: int) -> list[Any]:
    launches = nested.program.launches
    words = sum(len(launch.args) for launch in launches)
    patches = sum(isinstance(arg, Slot) for launch in launches for arg in launch.args)
    dynamic = nested.program.n_dynamic
    row: list[Any] = [
        Table(index, "rows"), len(launches), Table(index, "patches"), patches, Table(index, "changing"),
        Table(index, "args"), words, dynamic, program.scratch(8 * (words + dynamic)),
    ]  # fmt: skip
    for b in nested.bindings:
        row += [b.kind, b.value, b.second, b.third, b.nbytes]
    return row
