"""Map kernels: every output element on its own, sixteen at a time along the inner axis."""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk
from .emit_expression import Body, abreast
from .emit_frame import Frame, Stream

#: rows that are walked side by side, and as many where their lines fall into few sets of the first-level cache.
#: Measured on transposed copies: 64 beats 16 and 32 for large ones; 1024 x 1024, rows of 4 KB, takes half with 16.
BAND, CROWDED = 64, 16


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
    last = frame.kernel.kept - 1
    apart = {k: s for k, s in frame.inputs.items() if s.inner == "s" and s.address}
    steps = [s.strides[-1] for s in (*apart.values(), *frame.outputs) if s.inner == "s"]
    pitches = [(s.strides[last], spec.dtype.itemsize) for s, spec in zip(frame.outputs, frame.kernel.outputs)]
    frame.line("spread = " + " + ".join(f"({step} != 2)" for step in steps))
    frame.line("crowded = " + " + ".join(f"({p} * {n} & 1023 == 0) * ({p} != 0)" for p, n in pitches))
    frame.line(f"band = 1 if spread == 0 else {CROWDED} if crowded > 0 else {BAND}")
    if apart:
        frame.line("transposed = " + " + ".join(f"({s.strides[last]} == 1)" for s in apart.values()))
    for k in apart:
        frame.line(f"tile{k} = stack({BAND * 16 * frame.kernel.inputs[k].dtype.itemsize})")

    def rows(low: str, high: str) -> None:
        with frame.band_loop(streams, low, high):
            _elements(frame, _once(frame, top, once))

    with frame.bands(streams, "band"):
        frame.line("turned = count * (transposed > 0) * (count >= 16)" if apart else "turned = 0")
        with frame.block(f"for v in range(0, {frame.sizes[-1]}, 16):"):
            frame.line(f"m = w_mask({frame.sizes[-1]}, v)")
            if apart:
                for k, s in apart.items():
                    _gather(frame, k, s, last, len(apart) == 1)
                rows("0", "turned")
                frame.gathered.clear()
            rows("turned", "count")


def _gather(frame: Frame, k: int, s: Stream, last: int, alone: bool) -> None:
    """Bring an input's elements of a band's turned rows together: blocks of sixteen, if it is transposed.

    alone: whether there is no other such input, which might be.
    """
    size, step = frame.kernel.inputs[k].dtype.itemsize, s.strides[-1]
    with frame.block(f"if {s.strides[last]} == 1:"), frame.block("for block in range(0, turned, 16):"):
        frame.line("g = min(block, turned - 16)")
        frame.line(
            f"w_turn_{s.char}(tile{k} + g * {16 * size}, {s.address} + ({s.position} + g + v * {step}) * {size}, "
            f"{step} * {size}, {frame.sizes[-1]} - v)"
        )
    if not alone:
        with frame.block("else:"), frame.block("for g in range(turned):"):
            place = f"{s.position} + g * {s.strides[last]} + v * {step}"
            frame.line(
                f"w_write_{s.char}(tile{k}, g * 16, w_gather_{s.char}({s.address}, {place}, {step}, m))"
            )
    frame.gathered[k] = f"w_read_{s.char}(tile{k}, g * 16)"


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
