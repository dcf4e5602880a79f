"""Instructions of Python's bytecode: how they are read, what kinds there are, what they do to the stack.

Opcodes are recognised by name and family, so that one list serves Python 3.11 to 3.14.
"""

from __future__ import annotations

import dis
import itertools
import operator
import sys
from types import CodeType
from typing import Any, NamedTuple

# Instructions that leave the stack as it is (or whose entries on it are never looked at).
IDLE = frozenset((
    "NOP", "RESUME", "PRECALL", "CACHE", "EXTENDED_ARG", "MAKE_CELL", "COPY_FREE_VARS",
    "DELETE_FAST",
    "SETUP_ANNOTATIONS", "GEN_START", "NOT_TAKEN", "TO_BOOL",
))  # fmt: skip
#: after which what a variable held may be gone, of which up to Python 3.12 `frame.f_locals` keeps a copy
DROPPING = frozenset(
    ("STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST", "DELETE_FAST", "STORE_DEREF", "DELETE_DEREF")
    if sys.version_info < (3, 13) else ()
)  # fmt: skip
# Instructions that take so many values and look inside them.
CONSUMERS = {
    "COMPARE_OP": 2, "BINARY_OP": 2, "UNPACK_SEQUENCE": 1, "UNPACK_EX": 1, "FORMAT_SIMPLE": 1,
    "CONVERT_VALUE": 1,
    "FORMAT_WITH_SPEC": 1, "GET_ITER": 1, "GET_YIELD_FROM_ITER": 1, "LIST_EXTEND": 1, "SET_UPDATE": 1,
    "DICT_UPDATE": 1, "DICT_MERGE": 1, "FORMAT_VALUE": 1, "LIST_TO_TUPLE": 1,
    "GET_LEN": 1, "MATCH_SEQUENCE": 1, "MATCH_MAPPING": 1, "UNARY_NEGATIVE": 1, "UNARY_POSITIVE": 1,
    "UNARY_INVERT": 1, "CALL_INTRINSIC_1": 1,
}  # fmt: skip
# Consumers that look into nested containers too.
DEEP = frozenset(
    ("COMPARE_OP", "BINARY_OP", "FORMAT_SIMPLE", "CONVERT_VALUE", "FORMAT_WITH_SPEC", "FORMAT_VALUE")
)
NO_FALLTHROUGH = frozenset((
    "RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD",
    "JUMP_BACKWARD_NO_INTERRUPT", "INTERPRETER_EXIT",
))  # fmt: skip


# Instructions that make a container of what is on the stack, and those that add to it all that another one holds.
BUILDING = frozenset(("BUILD_LIST", "BUILD_TUPLE", "BUILD_SET", "BUILD_MAP", "BUILD_CONST_KEY_MAP"))
ADDING = frozenset(("LIST_EXTEND", "SET_UPDATE", "DICT_UPDATE", "DICT_MERGE"))
# How many entries an instruction takes, where `1 - effect` (several in, one out) is wrong.
NET_POPS = {
    "FOR_ITER": 0, "LIST_APPEND": 1, "SET_ADD": 1, "MAP_ADD": 2, "LIST_EXTEND": 1, "SET_UPDATE": 1,
    "DICT_UPDATE": 1,
    "DICT_MERGE": 1, "UNPACK_SEQUENCE": 1, "UNPACK_EX": 1, "PUSH_EXC_INFO": 0,
    "POP_EXCEPT": 1,
    "END_FOR": 1, "POP_ITER": 1, "END_SEND": 2, "BEFORE_WITH": 1,
}  # fmt: skip
ATTR_FLAG = sys.version_info >= (3, 12)  # the low bit of LOAD_ATTR says "method"
NULL_LAST = "CALL_KW" in dis.opmap  # 3.13: callables come before the NULL
ALWAYS_KWARGS = "LOAD_SMALL_INT" in dis.opmap  # 3.14: CALL_FUNCTION_EX always has a place for keywords
LIST_TO_TUPLE = next(
    (k for k, x in enumerate(getattr(dis, "_intrinsic_1_descs", ())) if "LIST_TO_TUPLE" in x), -1
)
SUBSCRIPT = next((k for k, op in enumerate(getattr(dis, "_nb_ops", ())) if op[0] == "NB_SUBSCR"), -1)
ADD_IN_PLACE = next((k for k, op in enumerate(getattr(dis, "_nb_ops", ())) if op[0] == "NB_INPLACE_ADD"), -1)
#: operators that containers have
MIXING = frozenset("+ * | & ^ -".split())
OPERATORS = [op[1].rstrip("=") for op in getattr(dis, "_nb_ops", ())]
_CONVERSIONS: tuple[Any, ...] = (lambda x: x, str, repr, ascii)
#: how texts and numbers are worked out
WORKED: dict[str, Any] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "%": operator.mod, "//": operator.floordiv,
    "BUILD_STRING": lambda *parts: "".join(parts), "BUILD_SLICE": slice, "FORMAT_SIMPLE": format,
    "FORMAT_WITH_SPEC": format,
    **{f"FORMAT_VALUE {k}": lambda x, spec="", to=to: format(to(x), spec) for k, to in enumerate(_CONVERSIONS)},
    **{f"CONVERT_VALUE {k}": to for k, to in enumerate(_CONVERSIONS)},
}  # fmt: skip
JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


class Instruction(NamedTuple):
    offset: int
    name: str
    op: int
    arg: int
    next: int


def instructions(code: CodeType) -> list[Instruction]:
    """The instructions of a code object, wide arguments folded in, inline caches left out."""
    raw, names = code.co_code, dis.opname
    found: list[Instruction] = []
    wide, start, k, n = 0, 0, 0, len(raw)
    while k < n:
        op = raw[k]
        arg = raw[k + 1] | wide
        if not wide:
            start = k  # a wide instruction starts, for jumps and tracing, at its EXTENDED_ARG
        k += 2
        while k < n and raw[k] == 0:  # CACHE
            k += 2
        name = names[op]
        if name == "EXTENDED_ARG":
            wide = arg << 8
            continue
        wide = 0
        found.append(Instruction(start, name, op, arg, k))
    return found


def instruction_at(code: CodeType, offset: int) -> int:
    """Where the instruction begins that has an inline cache at this offset, or begins there itself."""
    raw = code.co_code
    while offset > 0 and raw[offset] == 0:  # CACHE
        offset -= 2
    return offset


def mixes_up(code: CodeType) -> bool:
    """Whether the variable of a comprehension has the name of one that functions share, which Python takes for each
    other in `frame.f_locals`: 3.12 writes the value of the one to the other, 3.13 may end the process."""
    version = sys.version_info[:2]
    if version not in ((3, 12), (3, 13)):
        return False
    free = code.co_freevars if version == (3, 12) else ()
    if not (free or code.co_cellvars):
        return False
    name = code._varname_from_oparg  # type: ignore[attr-defined]
    for i, then in itertools.pairwise(instructions(code)):
        if i.name == "LOAD_FAST_AND_CLEAR":  # a comprehension begins
            shares = (then.name, then.arg) == ("MAKE_CELL", i.arg)  # its own variable is one
            if name(i.arg) in free or (name(i.arg) in code.co_cellvars and not shares):
                return True
    return False
