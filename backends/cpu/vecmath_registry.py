"""The table of vector math functions, and how an entry becomes a Numba intrinsic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numba.extending import intrinsic

from .lanes import Code, in_function
from .vecmath_value import KINDS, Value


class VectorFunction(NamedTuple):
    """One function at one dtype: `name` as kernels call it, kinds of arguments and result, the intrinsic."""

    name: str
    op: str
    args: tuple[str, ...]
    result: str
    function: Any
    #: writes it for one element
    code: Code

    def emit(self, builder: Any, values: Sequence[Any], lanes: int = 1) -> Any:
        """The result for LLVM values, vectors of `lanes` where that is not 1."""
        return in_function(self.name, self.code, KINDS[self.result].llvm, builder, values, lanes)


VECMATH: dict[str, VectorFunction] = {}


# Numba reads the number of parameters from the function itself.
_TYPERS: dict[int, Callable[[Any], Callable[..., Any]]] = {
    1: lambda typed: lambda typingctx, a: typed,
    2: lambda typed: lambda typingctx, a, b: typed,
    3: lambda typed: lambda typingctx, a, b, c: typed,
    4: lambda typed: lambda typingctx, a, b, c, d: typed,
}


def register(name: str, op: str, args: tuple[str, ...], result: str, body: Callable[..., Value]) -> None:
    """Make the intrinsic `name` out of a body over Values."""

    def code(builder: Any, values: Sequence[Any]) -> Any:
        return body(*(Value(builder, v, KINDS[a]) for v, a in zip(values, args))).v

    def codegen(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        return VECMATH[name].emit(builder, values)

    typer = _TYPERS[len(args)]((KINDS[result].numba(*(KINDS[a].numba for a in args)), codegen))
    typer.__name__ = typer.__qualname__ = name
    typer.__doc__ = body.__doc__
    VECMATH[name] = VectorFunction(name, op, args, result, intrinsic(typer), code)


def vector(
    op: str, kinds: Sequence[str], args: Sequence[str] = ("T",), result: str = "T"
) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Register a body as `v_<op>_<kind>` for every kind; "T" in `args` and `result` stands for the kind.

    No kinds: the function has one form and is called `v_<op>`.
    """

    def decorate(body: Callable[..., Value]) -> Callable[..., Value]:
        for kind in kinds or ("",):
            register(
                f"v_{op}_{kind}".rstrip("_"),
                op,
                tuple(kind if a == "T" else a for a in args),
                kind if result == "T" else result,
                body,
            )
        return body

    return decorate
