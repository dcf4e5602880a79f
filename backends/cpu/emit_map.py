"""Map kernels: every output element on its own, sixteen at a time along the inner axis."""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from .emit_expression import Body
from .emit_frame import Frame


def emit_map(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a map kernel, and 0 scratch rows."""
    frame = Frame(kernel)
    frame.depth = 1
    size = frame.sizes[-1]
    streams = [*frame.inputs.values(), *frame.outputs]
    fixed, once = _scopes(kernel)
    top = Body(frame.scalar)
    for node in fixed:
        top.value(node)
    frame.extend(top)
    if kernel.kept == 0:
        frame.line(f"blocks = ({size} + 63) >> 6")
        frame.line("first = share(blocks, chunk, nchunks) << 6")
        frame.line(f"last = min(share(blocks, chunk + 1, nchunks) << 6, {size})")
        for s in streams:
            s.position = "0"
        with frame.block("if first < last:"):
            _inner_loop(frame, top, once, "first", "last")
    else:
        with frame.block(f"if {size} == 0:"):
            frame.line("return")
        with frame.kept_loop(streams):
            _inner_loop(frame, top, once, "0", size)
    return frame.source(), 0


def _scopes(kernel: LoopKernel) -> tuple[list[Expr], list[Expr]]:
    """Nodes that are the same for the whole kernel, and nodes that are the same along the inner axis."""
    order = walk(kernel.roots)
    level: dict[int, int] = {}
    for node in order:
        if node.op == "arg":
            spec = kernel.inputs[node.value]
            level[id(node)] = 0 if spec.kind == "scalar" else 1 if spec.inner == "b" else 2
        else:
            level[id(node)] = max((level[id(a)] for a in node.args), default=0)
    return tuple([n for n in order if level[id(n)] == k and n.op != "const"] for k in (0, 1))  # type: ignore[return-value]


def _inner_loop(frame: Frame, top: Body, once: list[Expr], first: str, last: str) -> None:
    outer = top.fork(lambda node: frame.load(node, "0"))
    for node in once:
        outer.value(node)
    frame.extend(outer)
    roots = frame.kernel.roots
    with frame.block(f"for v in range({first}, {last}, 16):"):
        frame.line(f"m = w_mask({last}, v)")
        body = outer.fork(lambda node: frame.load(node, "v", "m"), wide=True)
        # All loads stand before all stores: an output may be the same buffer as an input.
        for node in walk(roots):
            if node.op == "arg":
                body.value(node)
        values = [body.value(root) for root in roots]
        frame.extend(body)
        for k, value in enumerate(values):
            frame.store(k, "v", value, "m")
