"""Where code reads Python values: a pass over its bytecode.

`analyse(code)` runs the instructions of a code object on a stack of expressions instead of values. An
expression is a tuple: ("local", name), ("free", name), ("global", name), ("const", value), ("attr", base,
name, offset), ("item", base, index, offset), ("result", offset, callee, arguments), ("matched", subject,
class, name or number in a class pattern), ("made", parts of a container), ("any", those of several ways to a place),
("iter", container), ("each", container), ("function",) that the code makes, ("worked", how, parts): a text or number
that is worked out from parts; ("mixed", parts): what an operator makes of containers; None is unknown. A site is an
instruction at which something outside may be read or written; `Sites.at[offset]` lists what to do
just before it runs. Opcodes are recognised by name and family, so that one pass serves Python 3.11 to 3.14;
what it does not know it forgets, with the depth that `dis.stack_effect` gives.
"""

from __future__ import annotations

import dis
from types import CodeType
from typing import Any, NamedTuple

from .opcodes import (
    ADD_IN_PLACE,
    ADDING,
    ALWAYS_KWARGS,
    ATTR_FLAG,
    BUILDING,
    CONSUMERS,
    DEEP,
    DROPPING,
    IDLE,
    JUMPS,
    LIST_TO_TUPLE,
    MIXING,
    NET_POPS,
    NO_FALLTHROUGH,
    NULL_LAST,
    OPERATORS,
    SUBSCRIPT,
    WORKED,
    Instruction,
    instructions,
)

Expr = tuple[Any, ...] | None

NULL: Expr = ("null",)
FUNCTION: Expr = ("function",)  # one that is made there: of a comprehension, a lambda
SELF: Expr = ("self",)  # the second of the two entries that loading a method pushes

#: ways to a place of the code whose values there are told apart
_WAYS = 8


def _somewhere(x: Expr) -> Expr:
    """An argument without a position."""
    return "each", ("made", (x,))


def _either(a: Expr, b: Expr) -> Expr:
    """One of two expressions, or of more; None where nothing is known of one, or they are too many."""
    row: list[Expr] = [*(a[1] if a is not None and a[0] == "any" else (a,))]
    row += [x for x in (b[1] if b is not None and b[0] == "any" else (b,)) if x not in row]
    return None if None in row or len(row) > _WAYS or NULL in row or SELF in row else ("any", tuple(row))


class Sites(NamedTuple):
    """What `analyse` finds.

    at: offset -> actions, each a tuple that starts with its kind: ("global", name), ("free", name), ("attr", base,
    name), ("item", base, index), ("elements", expression), ("content", expression: nested too), ("truth",
    expression), ("enter", expression: `with`), ("grow", expression: `+=`), ("call", callee, arguments, how many are
    named), ("starred", callee, what all arguments by place are taken from, the others), ("given", callee, a row of
    arguments), ("in", key, container), ("is", a, b), ("match", subject, class, names and numbers), ("set_attr",
    base, name), ("set_item", base, index), ("del_item", base, index), ("set_global", name), ("set_free", name,
    whether it is deleted), ("import", expression). wanted: offset of a running instruction (as `f_lasti` gives it
    inside a call) -> offset of the expression whose result a later site starts from. managers: offset of the body
    of a `with` -> its context manager. callees: offsets of loads of globals and attributes that are only called.
    """

    at: dict[int, tuple[tuple[Any, ...], ...]]
    wanted: dict[int, int]
    managers: dict[int, Expr]
    callees: frozenset[int]


class _Pass:
    """The state of one pass: the stack, the stacks saved for jump targets, the sites found."""

    def __init__(self, code: CodeType):
        self.code = code
        self.at: dict[int, list[tuple[Any, ...]]] = {}
        self.bases: set[int] = set()
        self.managers: dict[int, Expr] = {}
        #: offsets of loads of globals, by id of what they push (which is kept, so that no id is taken twice)
        self.globals: dict[int, tuple[Expr, int]] = {}
        self.callees: set[int] = set()
        self.stack: list[Expr] = []
        self.keywords = 0  # how many arguments of the coming call are named
        self.saved: dict[int, list[Expr]] = {}
        self.free = frozenset(code.co_freevars)
        #: offsets at which a comprehension begins that runs in this frame
        self.comprehensions: set[int] = set()
        self.name = code._varname_from_oparg  # type: ignore[attr-defined]

    def pop(self) -> Expr:
        return self.stack.pop() if self.stack else None

    def pops(self, n: int) -> list[Expr]:
        return [self.pop() for _ in range(n)][::-1]

    def peek(self, depth: int) -> Expr:
        return self.stack[-depth] if 0 < depth <= len(self.stack) else None

    def site(self, offset: int, *action: Any) -> None:
        for part in action[1:]:
            parts = part if isinstance(part, list) else (part,)
            for x in parts:
                self._wants(x)
        self.at.setdefault(offset, []).append(action)

    def _wants(self, x: Any) -> None:
        while x.__class__ is tuple and x:
            if x[0] in ("each", "iter"):
                x = x[1]
            elif x[0] in ("made", "any", "worked", "mixed"):
                for a in x[-1]:
                    self._wants(a)
                return
            elif x[0] == "matched":
                self._wants(x[2])
                x = x[1]
            elif x[0] in ("attr", "item"):
                self.bases.add(x[3])
                if x[0] == "item":
                    self._wants(x[2])
                x = x[1]
            elif x[0] == "result":
                self.bases.add(x[1])
                for a in x[3]:
                    self._wants(a)
                x = x[2]
            else:
                return

    def content(self, offset: int, x: Expr, kind: str = "content") -> None:
        if x is not None and x[0] not in ("const", "null", "self", "function", "worked"):
            self.site(offset, kind, x)

    def join(self, target: int, stack: list[Expr]) -> None:
        """Remember the stack with which a jump arrives; where two arrivals differ, forget."""
        before = self.saved.get(target)
        if before is None:
            self.saved[target] = stack
        else:
            n = min(len(before), len(stack))
            pairs = zip(before[len(before) - n :], stack[len(stack) - n :])
            self.saved[target] = [a if a == b else _either(a, b) for a, b in pairs]

    # -- loads and stores -----------------------------------------------------------------------

    def local(self, arg: int) -> Expr:
        return "local", self.name(arg)

    def load(self, i: Instruction) -> bool:
        """Handle an instruction that loads or stores; False when it does neither."""
        n, arg, push = i.name, i.arg, self.stack.append
        if n in ("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"):
            push(self.local(arg >> 4))
            push(self.local(arg & 15))
        elif n == "STORE_FAST_LOAD_FAST":
            self.pop()
            push(self.local(arg & 15))
        elif n == "STORE_FAST_STORE_FAST":
            self.pops(2)
        elif n.startswith("LOAD_FAST"):
            push(self.local(arg))
        elif n == "STORE_FAST" or n == "STORE_NAME":
            self.pop()
        elif n in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
            if n == "LOAD_FROM_DICT_OR_DEREF":
                self.pop()
            self.cell(i, push)
        elif n in ("STORE_DEREF", "DELETE_DEREF"):
            if n == "STORE_DEREF":
                self.pop()
            if self.name(arg) in self.free:
                self.site(i.offset, "set_free", self.name(arg), n == "DELETE_DEREF")
        elif n == "LOAD_GLOBAL":
            names = self.code.co_names
            self.site(i.offset, "global", names[arg >> 1])
            value: Expr = ("global", names[arg >> 1])
            self.globals[id(value)] = value, i.offset
            if arg & 1 and NULL_LAST:
                push(value)
                push(NULL)
            elif arg & 1:
                push(NULL)
                push(value)
            else:
                push(value)
        elif n == "LOAD_NAME":
            self.site(i.offset, "global", self.code.co_names[arg])
            push(("global", self.code.co_names[arg]))
        elif n in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            if n == "STORE_GLOBAL":
                self.pop()
            self.site(
                i.offset, "set_global" if n == "STORE_GLOBAL" else "del_global", self.code.co_names[arg]
            )
        elif n == "LOAD_CONST":
            push(("const", self.code.co_consts[arg]))
        elif n == "LOAD_SMALL_INT":
            push(("const", arg))
        elif n == "PUSH_NULL":
            push(NULL)
        elif n == "LOAD_METHOD" or n == "LOAD_ATTR":
            method = n == "LOAD_METHOD" or (ATTR_FLAG and arg & 1)
            base = self.pop()
            name = self.code.co_names[arg >> 1 if ATTR_FLAG and n == "LOAD_ATTR" else arg]
            if base is not None:
                self.site(i.offset, "attr", base, name)
            push(None if base is None else ("attr", base, name, i.offset))
            if method:
                push(SELF)
        elif n == "LOAD_SUPER_ATTR":
            name = self.code.co_names[arg >> 2]
            function, *both = self.pops(3)
            base = "result", i.offset, function, tuple(both)
            self.site(i.offset, "attr", base, name)
            push(("attr", base, name, i.offset))
            if arg & 1:
                push(SELF)
        elif n in ("STORE_ATTR", "DELETE_ATTR"):
            base = self.pop()
            if n == "STORE_ATTR":
                self.pop()
            if base is not None:
                self.site(
                    i.offset, "set_attr" if n == "STORE_ATTR" else "del_attr", base, self.code.co_names[arg]
                )
        elif n in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            base, index = self.pops(2)
            if n == "STORE_SUBSCR":
                self.pop()
            if base is not None:
                self.site(i.offset, "set_item" if n == "STORE_SUBSCR" else "del_item", base, index)
        else:
            return False
        return True

    def calls(self, callee: Expr) -> None:
        """A callee is taken from the stack; nothing else has it, unless it has been copied there."""
        if (
            callee is not None
            and callee[0] in ("global", "attr")
            and not any(x is callee for x in self.stack)
        ):
            place = callee[3] if callee[0] == "attr" else self.globals.get(id(callee), (None, None))[1]
            if place is not None:
                self.callees.add(place)

    def cell(self, i: Instruction, push: Any) -> None:
        name = self.name(i.arg)
        if name in self.free:
            self.site(i.offset, "free", name)
            push(("free", name))
        else:
            push(("local", name))

    # -- everything else ------------------------------------------------------------------------

    def step(self, i: Instruction) -> None:
        n, arg, push = i.name, i.arg, self.stack.append
        if self.load(i):
            return
        if n == "BINARY_SUBSCR" or (n == "BINARY_OP" and arg == SUBSCRIPT):
            base, index = self.pops(2)
            if base is not None:
                self.site(i.offset, "item", base, index)
            push(None if base is None else ("item", base, index, i.offset))
        elif n == "TO_BOOL" or n == "UNARY_NOT":
            self.content(i.offset, self.peek(1), "truth")
            self._generic(i)
        elif n == "BINARY_OP" and arg == ADD_IN_PLACE:
            self.content(i.offset, self.peek(2), "grow")
            self.content(i.offset, self.peek(1))
            self._generic(i)
        elif n == "KW_NAMES":
            self.keywords = len(self.code.co_consts[arg])
        elif n in IDLE:
            pass
        elif n == "COPY":
            push(self.peek(arg))
        elif n == "SWAP":
            while len(self.stack) < arg:
                self.stack.insert(0, None)
            self.stack[-1], self.stack[-arg] = self.stack[-arg], self.stack[-1]
        elif n in ("CALL", "CALL_KW"):
            if n == "CALL_KW":
                named = self.pop()
                self.keywords = len(named[1]) if named is not None and named[0] == "const" else arg
            args = self.pops(arg)
            first, second = self.pops(2)
            if first == NULL:
                callee = second
            elif second == NULL:
                callee = first
            else:
                callee, args = first, ([] if second == SELF else [second]) + args
            self.site(i.offset, "call", callee, args, self.keywords)
            self.calls(callee)
            # What is passed by keyword has no position in an expression: it is among what was given.
            count = len(args) - self.keywords
            known = [x if k < count or x is None else _somewhere(x) for k, x in enumerate(args)]
            self.keywords = 0
            push(("result", i.offset, callee, tuple(known)))
        elif n == "CALL_FUNCTION_EX":
            before = len(self.stack)
            taken, *keywords = self.pops(1 + (arg & 1) if not ALWAYS_KWARGS else 2)
            callee = self.pop()
            if callee == NULL:
                callee = self.pop()
            written = [x for x in (taken, *keywords) if x is not None and x[0] == "made"]
            row = list(taken[1]) if taken is not None and taken[0] == "made" else [("each", taken)]
            row += [("each", x) for x in keywords if x is not None and x != NULL]
            if written:
                self.site(i.offset, "call", callee, row, len(keywords))
            else:
                self.site(i.offset, "starred", callee, taken, row[1:])
            for x in (taken, *keywords):
                if x not in written and x is not None and x != NULL:
                    self.site(i.offset, "given", callee, x)
            self._resize(
                before + dis.stack_effect(i.op, arg, jump=False), ("result", i.offset, callee, tuple(row))
            )
        elif n == "IS_OP":
            self.site(i.offset, "is", *self.pops(2))
            push(None)
        elif n in ("CONTAINS_OP",):
            key, container = self.pops(2)
            if container is not None:
                self.site(i.offset, "in", key, container)
            push(None)
        elif n in ("BINARY_SLICE", "STORE_SLICE"):  # as BUILD_SLICE and what follows it up to 3.11
            base, *ends = self.pops(3)
            index = None if None in ends else ("worked", "BUILD_SLICE", tuple(ends))
            if n == "STORE_SLICE":
                self.pop()
            if base is not None:
                self.site(i.offset, "item" if n == "BINARY_SLICE" else "set_item", base, index)
            if n == "BINARY_SLICE":
                push(None if base is None else ("item", base, index, i.offset))
        elif n == "IMPORT_NAME":
            level, names = self.pops(2)
            if level is not None and names is not None and level[0] == names[0] == "const":
                module = ("module", self.code.co_names[arg], level[1], bool(names[1]))
                self.site(i.offset, "import", module)
                push(module)
            else:
                push(None)
        elif n == "IMPORT_FROM":
            base = self.peek(1)
            if base is not None:
                self.site(i.offset, "attr", base, self.code.co_names[arg])
            push(None if base is None else ("attr", base, self.code.co_names[arg], i.offset))
        elif n == "POP_TOP":
            self.pop()
        elif i.offset in self.comprehensions:  # as the call of its function up to 3.11
            push(("result", i.offset, FUNCTION, (self.peek(1),)))
        elif n in BUILDING:
            keys = self.pops(1) if n == "BUILD_CONST_KEY_MAP" else []
            push(("made", tuple(self.pops(arg * 2 if n == "BUILD_MAP" else arg) + keys)))
        elif n == "LIST_TO_TUPLE" or (n == "CALL_INTRINSIC_1" and arg == LIST_TO_TUPLE):
            pass
        elif n == "MATCH_CLASS":
            subject, cls, names = self.pops(3)
            keys = [*range(arg), *(names[1] if names is not None and names[0] == "const" else ())]
            self.site(i.offset, "match", subject, cls, keys)
            push(("made", tuple([("matched", subject, cls, key) for key in keys])))
        else:
            taken = self.peek(1)
            if n == "BEFORE_WITH":
                self.managers[i.next] = self.peek(1)
                self.content(i.offset, self.peek(1), "enter")
            if n.startswith("POP_JUMP") or "_OR_POP" in n:
                self.content(i.offset, self.peek(1), "truth")
            for depth in range(1, CONSUMERS.get(n, 0) + 1):
                self.content(i.offset, self.peek(depth), "content" if n in DEEP else "elements")
            if n == "COMPARE_OP" and all(x is None or x[0] != "const" for x in self.stack[-2:]):
                self.site(i.offset, "same", self.peek(1), self.peek(2))
            whole = self.peek(arg + 1) if n in ADDING else None
            worked = self._worked(n, arg) or self._mixed(n, arg)
            self._generic(i)
            if worked is not None and self.stack:
                self.stack[-1] = worked
            if n in ("MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE") and self.stack:
                self.stack[-1] = FUNCTION
            if whole is not None and whole[0] == "made" and 0 < arg <= len(self.stack):
                parts = () if taken is None or taken[0] == "const" else (("each", taken),)
                self.stack[-arg] = "made", (*whole[1], *parts)
            if n == "MATCH_KEYS" and self.peek(3) is not None:
                self.stack[-1] = "made", (("each", self.peek(3)),)
            if taken is not None and n in ("GET_ITER", "FOR_ITER"):
                self.stack[-1] = "iter" if n == "GET_ITER" else "each", taken
            elif taken is not None and n in ("UNPACK_SEQUENCE", "UNPACK_EX"):
                count = arg if n == "UNPACK_SEQUENCE" else (arg & 255) + 1 + (arg >> 8)
                first = (
                    taken[1][0] if taken[0] == "made" and taken[1] else None
                )  # None: nothing is known of it
                parts = taken[1][::-1] if first is not None and first[0] == "matched" else ()
                self.stack[len(self.stack) - count :] = parts or [("each", taken)] * count

    def _worked(self, n: str, arg: int) -> Expr:
        """What an instruction makes of texts and numbers, where they are known: a name that is put together."""
        how, count = (
            n,
            {"BINARY_OP": 2, "FORMAT_WITH_SPEC": 2, "BUILD_STRING": arg, "BUILD_SLICE": arg}.get(n, 1),
        )
        if n == "BINARY_OP":
            how = OPERATORS[arg] if arg < len(OPERATORS) else ""
        elif n == "FORMAT_VALUE":
            how, count = f"FORMAT_VALUE {arg & 3}", 1 + (arg & 4 > 0)
        elif n == "CONVERT_VALUE":
            how = f"CONVERT_VALUE {arg}"
        if how not in WORKED:
            return None
        parts = tuple([self.peek(k) for k in range(count, 0, -1)])
        return None if None in parts or NULL in parts else ("worked", how, parts)

    def _mixed(self, n: str, arg: int) -> Expr:
        """What an operator makes of containers: another one, of their elements."""
        if n != "BINARY_OP" or arg >= len(OPERATORS) or OPERATORS[arg] not in MIXING:
            return None
        parts = tuple(x for x in self.stack[-2:] if x is not None and x[0] != "const")
        return ("mixed", parts) if parts else None

    def _generic(self, i: Instruction) -> None:
        has_arg = i.op >= dis.HAVE_ARGUMENT
        effect = dis.stack_effect(i.op, i.arg if has_arg else None, jump=False)
        jump = i.op in JUMPS and i.name != "FOR_ITER"
        pops = -effect if jump else NET_POPS.get(i.name, 1 - effect if effect <= 0 else 0)
        depth = len(self.stack) + effect
        self.pops(pops)
        self._resize(depth, None)

    def _resize(self, depth: int, top: Expr) -> None:
        while len(self.stack) > max(depth, 0):
            self.stack.pop()
        while len(self.stack) < depth:
            self.stack.append(None)
        if top is not None and self.stack:
            self.stack[-1] = top


_known: dict[int, tuple[CodeType, Sites]] = {}


def analyse(code: CodeType) -> Sites:
    """The sites of a code object (cached)."""
    found = _known.get(id(code))
    if found is None:
        if len(_known) > 20_000:
            _known.clear()
        found = _known[id(code)] = code, _analyse(code)
    return found[1]


def _analyse(code: CodeType) -> Sites:
    state = _Pass(code)
    listed = instructions(code)
    state.comprehensions = {
        a.offset
        for a, b, c in zip(listed, listed[1:], listed[2:])
        if a.name in BUILDING and not a.arg and b.name == "SWAP" and c.name == "FOR_ITER"
    }
    alive = True
    for i in listed:
        arrived = state.saved.get(i.offset)
        if arrived is not None:
            if alive:
                state.join(i.offset, state.stack)
            state.stack, alive = list(state.saved[i.offset]), True
        elif not alive:
            state.stack, alive = [], True  # an exception handler
        if i.op in JUMPS and "BACKWARD" not in i.name:
            stack = list(state.stack)
            state.step(i)
            extra = dis.stack_effect(i.op, i.arg, jump=True)
            while extra < 0 and stack:
                stack.pop()
                extra += 1
            state.join(i.next + 2 * i.arg, stack + [None] * extra)
        else:
            state.step(i)
        if i.name in DROPPING:
            state.site(i.next, "drop")
        alive = i.name not in NO_FALLTHROUGH
    wanted = {}
    for i in listed:
        if i.offset in state.bases:
            wanted.update(dict.fromkeys(range(i.offset, i.next, 2), i.offset))
    return Sites({k: tuple(v) for k, v in state.at.items()}, wanted, state.managers, frozenset(state.callees))
