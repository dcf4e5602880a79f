"""`dg.explain(op)`: the whole story of an op in one text."""

from __future__ import annotations

import difflib
import inspect
from collections import Counter
from typing import Any

from .backend import backend_kinds, get_backend, written_kernel
from .errors import ArgumentError, DuogradError
from .op import REGISTRY, Op
from .reference import make_arguments, type_of
from .scalar import Expr


def kernels(op: Op) -> dict[str, str]:
    """Per device kind: where the op's kernel comes from, or why there is none."""
    found = {}
    for kind in backend_kinds():
        if op.kind == "pointwise":
            found[kind] = "generated from the body, alone and in any fusion"
        elif op.kind == "composite":
            found[kind] = "the kernels of the ops it calls"
        elif op.reduction is not None:
            found[kind] = f"generated reduction ({op.reduction})"
        elif op.is_transfer:
            found[kind] = "none needed: the memory is copied"
        elif op.is_view:
            found[kind] = "none needed: a view (a generated copy where the layout forbids it)"
        elif op.lower_rule is not None:
            found[kind] = "generated copies"
        else:
            kernel = written_kernel(kind, op.name)
            if kernel is None:
                try:
                    kernel = get_backend(kind).primitive(op.name)
                except DuogradError:
                    kernel = None
            found[kind] = f"hand-written, {kernel.__module__}" if kernel is not None else "none"
    return found


def gradient(op: Op) -> str:
    """How the op differentiates, in words."""
    if op.joint is not None:
        return "one rule for all inputs, saves " + (", ".join(op.joint.wants) or "nothing")
    if op.grads:
        return "; ".join(f"{name} from ({', '.join(rule.wants)})" for name, rule in op.grads.items())
    if op.kind == "composite":
        return "through the ops it calls"
    return f"none: {op.no_gradient}" if op.no_gradient else "missing"


def example(op: Op, number: int) -> str:
    """A sample as a call with types, run at this moment: `softmax(float32[3, 4], axis=1) -> float32[3, 4]`."""
    from . import dispatch
    from .random import default_generator

    sample = op.samples[number]
    arrays = make_arguments(sample)
    shown = [str(type_of(a)) for a in arrays]
    shown += [f"{k}={v.name if hasattr(v, 'itemsize') else v}" for k, v in sample.attrs.items()]
    state = default_generator.get_state()
    try:
        made = op(
            *[dispatch.state.executor.constant(a, "cpu") if hasattr(a, "shape") else a for a in arrays],
            **sample.attrs,
        )
    finally:
        default_generator.set_state(state)
    outs = made if isinstance(made, tuple) else (made,)
    return f"example: {op.name}({', '.join(shown)}) -> {', '.join(str(y.type) for y in outs)}"


def formula(roots: tuple[Expr, ...]) -> str:
    """Expressions as text; what is used several times has a name: `t0 = exp(x0); div(t0, add(t0, 1.0))`."""
    uses: Counter[int] = Counter()
    inner: list[Expr] = []
    names: dict[int, str] = {}

    def visit(e: Expr) -> None:
        uses[id(e)] += 1
        if uses[id(e)] == 1:
            for a in e.args:
                visit(a)
            inner.append(e)

    def text(e: Expr) -> str:
        if not e.args:
            return repr(e)
        return names.get(id(e)) or f"{e.op}({', '.join(map(text, e.args))})"

    for root in roots:
        visit(root)
    parts: list[str] = []
    for e in inner:
        if e.args and uses[id(e)] > 1:
            said = text(e)
            names[id(e)] = f"t{len(parts)}"
            parts.append(f"{names[id(e)]} = {said}")
    return "; ".join([*parts, ", ".join(map(text, roots))])


def explain(op: Any) -> str:
    """The story of an op: kind, signature, documentation, gradient, kernels, ONNX, samples.

    op: a name or a registered op. Returns: the text. Raises: ArgumentError for an unknown name.
    Example: `print(dg.explain("softmax"))`.
    """
    name = op if isinstance(op, str) else getattr(op, "name", str(op))
    found = REGISTRY.get(name)
    if found is None:
        near = difflib.get_close_matches(name.lower(), [n for n, x in REGISTRY.items() if not x.internal], 4)
        raise ArgumentError(
            "explain", f"{name!r} is not an op",
            (f"did you mean {' or '.join(near)}; " if near else "") + "`duograd ops` prints the table of all",
        )  # fmt: skip
    onnx = found.onnx
    derived = "written from its body" if found.kind == "pointwise" else "through its ops"
    if found.parts:
        derived = f"as loops of other ops (column_steps.{found.parts})"
    mapping = f"none: {found.no_onnx}" if found.no_onnx else derived
    if onnx:
        mapping = onnx if isinstance(onnx, str) else "a rule"
    lines = [
        f"{found.name}{inspect.signature(found.fn)}   [{found.kind}, {found.module.rpartition('.')[2]}]",
        "",
        found.doc,
        "",
        f"gradient: {gradient(found)}",
        *(f"kernel on {kind}: {text}" for kind, text in kernels(found).items()),
        f"ONNX: {mapping}",
        f"samples: {len(found.samples)}, error samples: {len(found.error_samples)}",
    ]
    lines += [example(found, k) for k in range(min(3, len(found.samples)))]
    if found.kind == "pointwise" and found.samples:
        args = [type_of(a) for a in make_arguments(found.samples[0])]
        kinds = [getattr(a, "dtype", type(a)) for a in args]
        _, attrs = found.bind(tuple(args), dict(found.samples[0].attrs))
        lines.append("body: " + formula(found.form(kinds, attrs).roots))
    return "\n".join(lines)
