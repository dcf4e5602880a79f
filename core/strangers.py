"""The error for an attribute of a kind that an op does not know, where a rule or body of the op stumbled over it.

What kinds an attribute may have is read from its default and from the op's samples.
"""

from __future__ import annotations

import functools
import inspect
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ArgumentError, ArgumentTypeError
from .kinds import is_index, is_real
from .types import DType, TensorType

if TYPE_CHECKING:
    from .op import Op

#: what rules and bodies written in Python raise for values that they were not written for
STUMBLES = (
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    struct.error,
    MemoryError,
    BufferError,
)


def is_vast(x: Any) -> bool:
    """Whether x is, or a tuple holds, an integer of more than 64 bits."""
    if x.__class__ is tuple:
        return any(map(is_vast, x))
    return isinstance(x, int) and not -(2**63) <= x < 2**64


def kind_of(x: Any) -> str:
    """What sort of value x is, in words."""
    if x is None:
        return "None"
    if isinstance(x, int) and is_vast(x):
        return "an integer of more than 64 bits"
    for cls, words in _KINDS:
        if isinstance(x, cls):
            return words
    if isinstance(x, (list, tuple)):
        inner = sorted({kind_of(v) for v in x})
        if not inner:
            return "an empty tuple"
        plain = [_many(words) for words in inner]
        return f"a tuple of {' and '.join(plain)}"
    if inspect.isroutine(x) or isinstance(x, (type, functools.partial)):
        return "a function"
    words = type(x).__name__
    return f"{'an' if words[0] in 'aeiouAEIOU' else 'a'} {words}"


_KINDS: tuple[tuple[Any, str], ...] = (
    ((bool, np.bool_), "a bool"), ((int, np.integer), "an integer"), ((float, np.floating), "a float"),
    ((complex, np.complexfloating), "a complex number"), (str, "a text"), (DType, "a dtype"),
)  # fmt: skip


def _many(words: str) -> str:
    if words == "None":
        return words
    head, of, tail = words.partition(" ")[2].partition(" of ")
    return f"{head}s{of}{tail}"


def _fits(kind: str, known: set[str]) -> bool:
    """Whether a value of this kind is one of the known ones; integers are floats, too."""
    if kind in known or (kind == "a tuple of floats and integers" and "a tuple of floats" in known):
        return True
    plain = kind.replace(" of more than 64 bits", "")
    return plain.replace("an integer", "a float").replace("integers", "floats") in known


def known_kinds(op: Op, name: str) -> set[str]:
    """The kinds of value that an attribute has by default and in samples."""
    found = {kind_of(s.attrs[name]) for s in op.samples if name in s.attrs}
    if name not in op.required_attrs:
        found.add(kind_of(op.defaults[op.attr_names.index(name)]))
    return found


def stranger(
    op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], line: str | None = None
) -> ArgumentTypeError | None:
    """The error for the first attribute of an unknown kind in a call; None where all are known. line: the user's."""
    listed = op.variadic and bool(args) and isinstance(args[0], (list, tuple))
    inputs = args[0] if listed else args if op.variadic else args[: op.n_inputs]
    rest = args[1:] if listed else () if op.variadic else args[op.n_inputs :]
    for name, value in (*zip(op.attr_names, rest), *kwargs.items()):
        if name not in op.attr_names:
            continue
        kind, known = kind_of(value), known_kinds(op, name)
        if known and not _fits(kind, known):
            wanted = _either(sorted(known, key=lambda k: (k == "None", k)))
            return ArgumentTypeError(
                op.name,
                f"{name}={brief(value)} is {kind}{_got(op, inputs)}",
                f"give {name} as {wanted}",
                line,
            )
    return None


def told(name: str, x: Any) -> str:
    """An argument and what sort of value it is."""
    return f"{name} is None" if x is None else f"{name}={brief(x)} is {kind_of(x)}"


def unfit(name: str, value: Any, wanted: str) -> tuple[str, str]:
    """What is wrong with a value of another kind, and the fix."""
    return told(name, value), f"give {name} as {wanted}"


def outside(name: str, value: Any, wanted: str) -> tuple[str, str]:
    """What is wrong with a value of the right kind, and the fix."""
    what = f"is not {wanted}"
    if isinstance(value, int) and kind_of(value) == "an integer of more than 64 bits":
        what = f"is too {'large' if value > 0 else 'small'}"
    return f"{name}={brief(value)} {what}", f"give {name} as {wanted}"


def no_tensor_among(op: Op, args: tuple[Any, ...]) -> ArgumentTypeError | None:
    """The error for the first input that is no tensor, where a rule or body of the op stumbled over one."""
    for name, x in zip(op.input_names, args if not op.variadic else ()):
        if (not hasattr(x, "dtype") or isinstance(x, np.generic)) and not (x is None and name in op.optional):
            what = f"{told(name, x)}{_got(op, args[: op.n_inputs])}"
            return ArgumentTypeError(op.name, what, f"give {name} as a tensor")
    return None


def check_numbers(op: str, **values: Any) -> None:
    """Refuse arguments that are no real numbers, by their names."""
    for name, x in values.items():
        if not is_real(x):
            raise ArgumentTypeError(op, told(name, x), f"give {name} as a number")


def whole_numbers(op: str, name: str, given: Any) -> np.ndarray:
    """A row of integers as int64[n]; a fraction is not cut off. Raises: ArgumentTypeError."""
    try:
        found = np.asarray(given)
    except ValueError:  # rows of unequal lengths
        found = np.empty((0, 0))
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ArgumentTypeError(
            op, f"{name}={brief(given)} is no row of integers", f"give {name} as integers"
        )
    return found.astype(np.int64)


def size(op: str, name: str, value: Any, low: int = 1, high: int = 2**63 - 1) -> int:
    """`value` as an int from `low` to `high`. Raises: ArgumentTypeError, ArgumentError."""
    if not is_index(value):
        raise ArgumentTypeError(op, f"{name}={brief(value)} is not an int", f"pass an int from {low}")
    value = value.__index__()
    if value < low:
        raise ArgumentError(op, f"{name}={value} is too small", f"pass an int from {low}")
    if value > high:
        raise ArgumentError(op, f"{name}={value} is too large", f"pass an int from {low} to {high}")
    return int(value)


def _either(row: list[str]) -> str:
    return row[0] if len(row) == 1 else f"{', '.join(row[:-1])} or {row[-1]}"


def brief(value: Any) -> str:
    """A value in few words; the type and shape of a tensor."""
    of = getattr(value, "type", None)
    words = " ".join((str(of) if isinstance(of, TensorType) else repr(value)).split())
    return words if len(words) <= 60 else words[:57] + "..."


def _got(op: Op, inputs: Any) -> str:
    """The tensors of a call, in words."""
    names = op.input_names[: op.n_inputs] or ("x",)
    row = [
        f"{names[min(k, len(names) - 1)]}: {TensorType(x.dtype, x.shape)}"
        for k, x in enumerate(inputs)
        if isinstance(getattr(x, "dtype", None), DType)
    ]
    return f"; got {', '.join(row[:4])}" if row else ""


def no_tensor(op: Any, x: Any) -> ArgumentTypeError:
    """The error for an input that is neither tensor nor number."""
    if isinstance(x, (list, tuple)):
        return ArgumentTypeError(
            op.name, f"takes tensors, got a {type(x).__name__}", "make it one: dg.tensor(...)"
        )
    return ArgumentTypeError(
        op.name, f"takes tensors and numbers, got {type(x).__name__}", "make it a tensor: dg.tensor(...)"
    )


def numpy_number(op: Any, x: Any) -> Any:
    """Python's number for one of NumPy's. Raises: ArgumentTypeError for texts and the like."""
    if x.dtype.kind not in "biufcV":  # V: bfloat16
        raise no_tensor(op, x)
    return x.item()


def refuse_nothing(op: Any, inputs: Sequence[Any]) -> None:
    """Raise where there is no tensor and no number among an op's inputs."""
    if op.variadic and not inputs:
        raise ArgumentTypeError(op.name, "needs at least one tensor", "pass a non-empty list")
    if all(x is None for x in inputs):
        raise ArgumentTypeError(op.name, f"{op.input_names[0]} is None", "pass a tensor or a number")
