"""The table of importers: ONNX op and opset -> a function over duograd's ops.

    @adapter("Softmax", since=13)
    def softmax(x, *, axis=-1): ...

Parameters before `*` are the node's inputs in order (`*xs` takes any number), keyword-only ones its attributes
by their ONNX names; `node`, as the first parameter, receives the call's `Node`. Inputs named in `host` arrive as
NumPy arrays (shapes, axes, bounds); all others as tensors. With `numbers`, a constant 0-d input beside tensors
of its dtype arrives as a Python number. A function returns a tensor, a NumPy array or a tuple of them.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import onnx

from ...core.errors import OnnxError


class Node(NamedTuple):
    """What a call may ask about its node.

    training: of the loaded module; needed: its results are wanted on the host; run: runs a subgraph.
    """

    op_type: str
    name: str
    opset: int
    n_outputs: int
    training: bool = False
    needed: bool = False
    run: Any = None


class Adapter(NamedTuple):
    """One importer. inputs: names of the function's inputs; attrs: of the attributes it understands.

    A tuple, as nothing of it changes: a traced model then needs no guards for it.
    """

    fn: Callable[..., Any]
    since: int
    inputs: tuple[str, ...]
    required: int
    variadic: bool
    attrs: frozenset[str]
    host: tuple[bool, ...]
    wants_node: bool
    numbers: bool
    fold: bool
    grows: bool
    codes: Any = None
    library: str = ""
    declines: Any = None
    lazy: bool = False

    def is_host(self, k: int) -> bool:
        """Whether input k is wanted as an array."""
        return self.host[min(k, len(self.host) - 1)] if self.host else False


def _adapter(fn: Callable[..., Any], since: int, host: tuple[str, ...], **options: Any) -> Adapter:
    params = list(inspect.signature(fn).parameters.values())
    wants_node = bool(params) and params[0].name == "node"
    params = params[1:] if wants_node else params
    positional = [p for p in params if p.kind is not p.KEYWORD_ONLY]
    return Adapter(
        fn,
        since,
        tuple(p.name for p in positional),
        sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in positional),
        any(p.kind is p.VAR_POSITIONAL for p in positional),
        frozenset(p.name for p in params if p.kind is p.KEYWORD_ONLY),
        tuple(p.name in host for p in positional),
        wants_node,
        **options,
    )


TABLE: dict[tuple[str, str], list[Adapter]] = {}


def adapter(
    *names: str, since: int = 1, host: tuple[str, ...] = (), numbers: bool = False, fold: bool = True,
    grows: bool = False, domain: str = "", codes: Any = None, library: str = "",
    declines: Any = None, lazy: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Enter a function for ONNX ops, from opset `since` on.

    fold=False: never run on the host for constant inputs. grows: makes a tensor of a size that its inputs give.
    codes: what it does with texts and narrow numbers (see coded.py): "moved" (its outputs are elements of its inputs),
    a tuple (the outputs for which that holds), "own" (it takes Coded and arrays as they come), None (nothing).
    library: what it runs through on the host ("Python", "Pillow"), where tensors have no part in it.
    declines: of a NodeProto, whether it is left to the op's definition by other ops. lazy: inputs in host arrive as
    arrays where they are known there, and else as the tensors that they are.
    """

    def enter(fn: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            row = TABLE.setdefault((domain, name), [])
            options = {"numbers": numbers, "fold": fold, "grows": grows, "codes": codes, "library": library}
            options["declines"], options["lazy"] = declines, lazy
            row.append(_adapter(fn, since, host, **options))
            row.sort(key=lambda a: a.since)
        return fn

    return enter


def register(domain: str, op_type: str, since: int = 1, host: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Say how an op of a domain is imported: `dg.onnx.register("my.domain", "Scale")(fn)`.

    domain: "" is ONNX's own, whose importers are replaced; since: the domain's opset from which fn holds;
    host: names of inputs that fn wants as NumPy arrays (sizes, bounds). fn's parameters before `*` are the node's
    inputs in order (tensors; None where one is absent), its keyword-only ones the node's attributes by name.
    Returns: a decorator that gives fn back. Raises: OnnxError for names that are no texts, what is no function, and
    names in host that fn has not.
    Example: `@dg.onnx.register("my.domain", "Scale")` above `def scale(x, *, factor=1.0): return x * factor`.
    """
    for value in (domain, op_type):
        if not isinstance(value, str):
            raise OnnxError(
                "onnx.register", f"{value!r} is no name", 'write @dg.onnx.register("my.domain", "Scale")'
            )
    _load()

    def enter(fn: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(fn):
            raise OnnxError("onnx.register", f"a {type(fn).__name__} is no function", "put it above a def")
        missing = set(host) - set(inspect.signature(fn).parameters)
        if missing:
            raise OnnxError(
                "onnx.register", f"the function has no inputs {', '.join(missing)}", "name its inputs"
            )
        key = "" if domain == "ai.onnx" else domain
        TABLE[key, op_type] = [a for a in TABLE.get((key, op_type), []) if a.since != since]
        return adapter(op_type, since=since, host=host, domain=key)(fn)

    return enter


class Registered(NamedTuple):
    """What `find` says of an op: its adapter for the opset, or why there is none and from which opset there is one."""

    adapter: Adapter | None
    reason: str
    since: int | None = None


def _unknown(domain: str, op_type: str) -> str:
    """Why there is no importer for an op, and what to do."""
    if domain and not domain.startswith("ai.onnx"):
        return f'{domain}.{op_type} is not known: say what it does under @dg.onnx.register("{domain}", "{op_type}")'
    known = {s.name for s in onnx.defs.get_all_schemas() if s.domain == domain}
    if op_type in known:
        return f"{domain + '.' if domain else ''}{op_type} is not supported"
    near = difflib.get_close_matches(op_type, known, 3)
    hint = f"; near it: {', '.join(near)}" if near else ""
    return f"{domain or 'ONNX'} has no op {op_type} (onnx {onnx.__version__}){hint}"


def find(domain: str, op_type: str, opset: int) -> Registered:
    """The importer for an op at an opset version."""
    _load()
    row = TABLE.get(("" if domain == "ai.onnx" else domain, op_type))
    if not row:
        return Registered(None, _unknown(domain, op_type))
    fitting = [a for a in row if a.since <= opset]
    if not fitting:
        why = f"{op_type} of opset {opset} is not supported (from {row[0].since} on)"
        return Registered(None, why, row[0].since)
    return Registered(fitting[-1], "")


def _load() -> None:
    if TABLE:
        return
    package = __name__.rpartition(".")[0]
    path = importlib.import_module(package).__path__
    for found in pkgutil.iter_modules(path):
        if found.name.startswith("adapt_"):
            importlib.import_module(f"{package}.{found.name}")
