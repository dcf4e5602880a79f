"""Map kernels: every output element on its own, one flat vector loop along the inner axis."""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from .emit_expression import Body
from .emit_frame import Frame


def emit_map(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a map kernel, and 0 scratch rows."""
    frame = Frame(kernel)
    inner = kernel.n_axes - 1
    frame.depth = 1
    varies = _varying(kernel)
    top = Body(lambda node: frame.scalar(node.value))
    fixed = [n for n in walk(kernel.roots) if n.op == "arg" and n.value in frame.scalars]
    for node in fixed:
        top.value(node)
    frame.extend(top)
    streams = [*frame.inputs.values(), *frame.outputs]
    if kernel.kept == 0:
        frame.line(f"blocks = (n{inner} + 63) // 64")
        frame.line("first = blocks * chunk // nchunks * 64")
        frame.line(f"last = min(blocks * (chunk + 1) // nchunks * 64, n{inner})")
        for s in streams:
            s.position = "0"
        with frame.block("if first < last:"):
            _inner_loop(frame, top, varies, "range(first, last)")
    else:
        with frame.block(f"if n{inner} == 0:"):
            frame.line("return")
        with frame.kept_loop(streams):
            _inner_loop(frame, top, varies, f"range(n{inner})")
    return frame.source(), 0


def _varying(kernel: LoopKernel) -> set[int]:
    """Nodes whose value changes along the inner axis."""
    out: set[int] = set()
    for node in walk(kernel.roots):
        if node.op == "arg":
            spec = kernel.inputs[node.value]
            if spec.kind != "scalar" and spec.inner != "b":
                out.add(id(node))
        elif any(id(a) in out for a in node.args):
            out.add(id(node))
    return out


def _inner_loop(frame: Frame, top: Body, varies: set[int], over: str) -> None:
    kernel = frame.kernel
    body = top.fork(lambda node: frame.load(node, "i"))
    order = walk(kernel.roots)
    for node in order:
        if id(node) not in varies and _used_by_varying(node, order, varies, kernel.roots):
            body.value(node)
    frame.extend(body)
    with frame.block(f"for i in {over}:"):
        # All loads stand before all stores: an output may be the same buffer as an input.
        for node in order:
            if node.op == "arg":
                body.value(node)
        values = [body.value(root) for root in kernel.roots]
        frame.extend(body)
        for k, value in enumerate(values):
            frame.store(k, "i", value)


def _used_by_varying(node: Expr, order: list[Expr], varies: set[int], roots: tuple[Expr, ...]) -> bool:
    if node.op == "const":
        return False
    return any(r is node for r in roots) or any(
        id(n) in varies and any(a is node for a in n.args) for n in order
    )
