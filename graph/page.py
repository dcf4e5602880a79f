"""Show as a page: one self-contained HTML file with the graph before and after, its kernels, memory and sources."""

from __future__ import annotations

import ast
import inspect
import json
import linecache
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..core.backend import Launch
from ..core.errors import ArgumentError, is_own_file
from ..core.files import write_atomic
from .explain import inside_title, notes
from .ir import Graph, Node, Value
from .report import borders, kernels, levels, lifetimes, stretches
from .show import name_values


def write_page(function: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of a function's variants, whole or not at all."""
    text = page(function)
    if not Path(path).absolute().parent.is_dir():
        raise ArgumentError(function.name, f"there is no folder for {os.fspath(path)}", "make it first")
    write_atomic(Path(path), lambda p: p.write_text(text, encoding="utf-8"))


def page(function: Any) -> str:
    """The page as text."""
    variants = [_variant(v) for v in function.variants]
    used = [op["line"] for v in variants for g in v["graphs"] for op in g["traced"]]
    facts = {
        "name": function.name,
        "mode": function.mode,
        "remarks": function.remarks(),
        "code": _code(function._fn, used),
        "variants": variants,
    }
    # "</" would end the element that holds the data; so would "<!--" in some places.
    data = json.dumps(facts, separators=(",", ":")).replace("<", "\\u003c")
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data)


def _code(fn: Any, used: list[str]) -> list[dict[str, Any]]:
    """The source of a function, and of the user's functions in which its ops stand, as far as it is at hand."""
    own = getattr(inspect.unwrap(fn), "__code__", None)
    places = used if own is None else [f"{own.co_filename}:{own.co_firstlineno}", *used]
    found: list[dict[str, Any]] = []
    for place in dict.fromkeys(places):
        path, _, number = place.rpartition(":")
        if not number.isdigit() or is_own_file(path) or any(place in block["places"] for block in found):
            continue
        lines = linecache.getlines(path)
        first, last = _around(path, "".join(lines), int(number))
        if lines[first - 1 : last]:
            rows = range(first, last + 1)
            found.append({
                "file": path, "first": first, "lines": [s.rstrip("\n") for s in lines[first - 1 : last]],
                "places": [f"{path}:{n}" for n in rows],
            })  # fmt: skip
    return found


def _around(path: str, text: str, number: int) -> tuple[int, int]:
    """First and last line of the function that a line of a file stands in; of its statement outside of functions."""
    try:
        tree = ast.parse(text, path)
    except SyntaxError:
        return number, number
    best, rank = (number, number), (2, 0)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            last = node.end_lineno or first
            new = not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)), last - first
            if first <= number <= last and new < rank:
                best, rank = (first, last), new
    return best


def _variant(variant: Any) -> dict[str, Any]:
    return {
        "reason": variant.reason,
        "line": variant.line,
        "seconds": variant.seconds,
        "graphs": [g for title, r in stretches(variant) for g in _graphs(title, r.compiled, r.times)],
        "guards": [
            {"text": g.text, "line": g.line, "own": bool(g.line) and not is_own_file(g.line)}
            for g in variant.guards.guards
        ],
    }


def _graphs(title: str, compiled: Any, times: Mapping[int, float]) -> Iterable[dict[str, Any]]:
    """A compiled graph, and those of the bodies of its loops and of its branches."""
    yield _graph(title, compiled, times)
    for k in kernels(compiled):
        for part in k.inside:
            yield from _graphs(inside_title(k, part), part.plan, {})


def _graph(title: str, compiled: Any, times: Mapping[int, float]) -> dict[str, Any]:
    rows = kernels(compiled)
    owner = {id(node): k.number for k in rows for node in k.group.nodes}
    ops = _ops(compiled.optimised, owner)
    numbers = {id(node): n for n, node in enumerate(compiled.optimised.nodes)}
    launches = compiled.program.launches
    made = [
        {
            "id": k.number, "title": k.title, "kind": k.group.kind, "over": k.over, "step": k.levels[0],
            "last": k.levels[1], "chunks": k.chunks, "flops": k.flops, "lines": k.lines,
            "reads": [[_word(v), n] for v, n in k.reads], "writes": [[_word(v), n] for v, n in k.writes],
            "seconds": times.get(k.number), "ops": [numbers[id(n)] for n in k.group.nodes if id(n) in numbers],
            "sources": list(dict.fromkeys(s for r in k.launches for s in _sources(launches[r]))),
        }
        for k in rows
    ]  # fmt: skip
    return {
        "name": title,
        "notes": notes(compiled),
        "traced": _ops(compiled.graph, {}),
        "ops": ops,
        "kernels": made,
        "edges": [
            [b.maker, b.reader, str(b.value.type), b.value.type.nbytes, b.reason] for b in borders(compiled)
        ],
        "memory": [[x.text, x.nbytes, x.offset, x.start, x.end] for x in lifetimes(compiled)],
        "steps": levels(compiled),
        "arena": compiled.arena_bytes,
        "unplanned": compiled.unplanned_bytes,
        "results": sum(t.nbytes for t in compiled.outputs),
        "launches": len(launches),
    }


def _sources(launch: Launch) -> list[str]:
    """The kernels of a launch: its own, or those of the programs that it runs."""
    inner = [row for n in launch.nested for row in n.program.launches]
    return [s for row in inner for s in _sources(row)] if launch.nested else [launch.source]


def _word(v: Value) -> str:
    return f"{v.producer.op.name if v.producer else 'input'} {v.type}"


def _ops(graph: Graph, owner: dict[int, int]) -> list[dict[str, Any]]:
    """The nodes of a graph with their edges, as `show` names them."""
    names = name_values(graph)
    number = {id(node): n for n, node in enumerate(graph.nodes)}
    results = {id(v) for v in graph.results()}

    def op(node: Node) -> dict[str, Any]:
        inputs = [f"{names.get(x, '%?')} {x.type}" if isinstance(x, Value) else repr(x) for x in node.inputs]
        return {
            "name": node.op.name,
            "attrs": {k: str(v) for k, v in node.named.items() if v is not None},
            "inputs": inputs,
            "from": sorted({number[id(v.producer)] for v in node.values() if id(v.producer) in number}),
            "outputs": [f"{names[v]} {v.type}" for v in node.outputs],
            "line": node.line,
            "text": _text(node.line),
            "kernel": owner.get(id(node)),
            "view": bool(node.op.is_view),
            "result": any(id(v) in results for v in node.outputs),
        }

    return [op(node) for node in graph.nodes]


def _text(line: str) -> str:
    """The user's line itself."""
    path, _, number = line.rpartition(":")
    return linecache.getline(path, int(number)).strip() if number.isdigit() else ""
