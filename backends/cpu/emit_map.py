"""Map kernels: every output element on its own, sixteen at a time along the inner axis."""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from .emit_expression import Body, abreast
from .emit_frame import Frame, Stream

#: rows that are walked side by side. Measured on transposed copies: 64 beats 16 and 32 for large ones.
BAND = 64


def emit_map(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a map kernel, and 0 scratch rows."""
    frame = Frame(kernel)
    frame.depth = 2 if kernel.listed else 1
    size = frame.sizes[-1]
    streams = [*frame.inputs.values(), *frame.outputs]
    fixed, once = _scopes(kernel)
    if _moves(frame):
        frame.abreast = abreast(walk(kernel.roots))
    top = Body(frame.scalar)
    for node in fixed:
        top.value(node)
    frame.extend(top)
    banded = kernel.kept > 0 and any(s.inner == "s" and s.address for s in streams)
    if not banded:
        frame.begin_around()
    if kernel.kept == 0:
        if kernel.listed:
            frame.line("first = (max(start - before, 0) + 63) & -64")
            frame.line(f"last = min((stop - before + 63) & -64, {size})")
        else:
            frame.line(f"blocks = ({size} + 63) >> 6")
            frame.line("first = share(blocks, chunk, nchunks) << 6")
            frame.line(f"last = min(share(blocks, chunk + 1, nchunks) << 6, {size})")
        for s in streams:
            s.position = "0"
        with frame.block("if first < last:"):
            outer = _once(frame, top, once)
            frame.vectors("first", "last", lambda: _elements(frame, outer))
        frame.end_around()
        return frame.source(), 0
    if not kernel.listed:  # what is listed has elements
        with frame.block(f"if {size} == 0:"):
            frame.line("return")
    if banded:
        _emit_bands(frame, streams, top, once)
    else:
        with frame.kept_loop(streams):
            outer = _once(frame, top, once)
            frame.vectors("0", size, lambda: _elements(frame, outer))
        frame.end_around()
    return frame.source(), 0


def _emit_bands(frame: Frame, streams: list[Stream], top: Body, once: list[Expr]) -> None:
    """Rows in bands, walked column by column, for buffers with a step along the inner axis.

    Such a buffer is often a transposed one, and then the rows of a band share its cache lines. Steps of 2 (parts of
    complex numbers) leave a row together: a band is one row then.
    """
    kept = frame.kernel.kept
    last_kept = kept - 1
    steps = [s.strides[-1] for s in streams if s.inner == "s" and s.address]
    frame.line("apart = " + " + ".join(f"({step} != 2)" for step in steps))
    frame.line(f"band = {BAND} if apart > 0 else 1")
    frame.line("rows = " + " * ".join(frame.sizes[:kept]))
    frame.chunk_range()
    with frame.block("while first < last:"):
        frame.line("rest = first")
        for a in range(last_kept, 0, -1):
            frame.line(f"j{a} = remainder(rest, n{a})")
            frame.line(f"rest = quotient(rest, n{a})")
        frame.line("j0 = rest")
        frame.line(f"count = min(min(band, n{last_kept} - j{last_kept}), last - first)")
        for s in streams:
            frame.line(f"{s.position} = " + " + ".join(f"j{a} * {s.strides[a]}" for a in range(kept)))
        with frame.block(f"for v in range(0, {frame.sizes[-1]}, 16):"):
            frame.line(f"m = w_mask({frame.sizes[-1]}, v)")
            with frame.block("for g in range(count):"):
                before = [s.position for s in streams]
                for s in streams:
                    frame.line(f"{s.position}_g = {s.position} + g * {s.strides[last_kept]}")
                    s.position += "_g"
                _elements(frame, _once(frame, top, once))
                for s, position in zip(streams, before):
                    s.position = position
        frame.line("first += count")


def _moves(frame: Frame) -> bool:
    """Whether elements lie side by side in memory, and no result is the same for all of them."""
    moving = {k for k, s in frame.inputs.items() if s.inner == "c"}
    roots = [{n.value for n in walk([root]) if n.op == "arg"} for root in frame.kernel.roots]
    return frame.is_plain() and all(s.inner == "c" for s in frame.outputs) and all(moving & r for r in roots)


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


def _once(frame: Frame, top: Body, once: list[Expr]) -> Body:
    """Compute what is the same along the inner axis."""
    outer = top.fork(lambda node: frame.load(node, "0"))
    for node in once:
        outer.value(node)
    frame.extend(outer)
    return outer


def _elements(frame: Frame, outer: Body) -> None:
    """Sixteen elements at v, under the mask m."""
    roots = frame.kernel.roots
    body = outer.fork(lambda node: frame.load(node, "v", "m"), wide=True)
    # All loads stand before all stores: an output may be the same buffer as an input.
    for node in walk(roots):
        if node.op == "arg":
            body.value(node)
    values = [body.value(root) for root in roots]
    frame.extend(body)
    for k, value in enumerate(values):
        frame.store(k, "v", value, "m")
