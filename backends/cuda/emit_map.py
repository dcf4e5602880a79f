"""Map kernels: every output element on its own, threads striding over them."""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr
from .emit_expression import Body
from .emit_frame import Frame


def emit_map(kernel: LoopKernel) -> str:
    """Source text of a map kernel."""
    frame = Frame(kernel)
    top = Body(lambda node: frame.load(node, (), False))
    for node in _once(frame):
        top.value(node)
    frame.extend(top)
    if kernel.kept == 0:
        _flat(frame, top)
    else:
        _strided(frame, top)
    return frame.source()


def _once(frame: Frame) -> list[Expr]:
    """Nodes that are the same for the whole kernel."""
    found: dict[int, bool] = {}
    for node in frame.order:
        if node.op == "arg":
            same = frame.kernel.kept == 0 and frame.kernel.inputs[node.value].inner == "b"
            found[id(node)] = same or node.value in frame.scalars
        else:
            found[id(node)] = all(found[id(a)] for a in node.args)
    return [node for node in frame.order if found[id(node)] and node.op != "const"]


def _flat(frame: Frame, top: Body) -> None:
    """One axis: a thread loads several elements before it computes, to have more requests under way."""
    kernel = frame.kernel
    moving = [n for n in frame.order if n.op == "arg" and id(n) not in top.names]
    moving = list({n.value: n for n in moving}.values())
    frame.items = 4 if len(moving) <= 4 else 2 if len(moving) <= 8 else 1
    step = f"blockDim.x * {frame.items}"
    first, stride = f"(i64)blockIdx.x * ({step}) + threadIdx.x", f"(i64)gridDim.x * ({step})"
    with frame.block(f"for (i64 first = {first}; first < n0; first += {stride})"):
        loaded = [n for n in moving if frame.inputs[n.value].address]
        for node in loaded:
            frame.line(f"{node.dtype.char} v{node.value}[{frame.items}];")
        if loaded:
            with _items(frame):
                for node in loaded:
                    frame.line(f"v{node.value}[u] = {frame.load(node, [0], False)};")
        with _items(frame):
            indexed = {n.value for n in loaded}
            body = top.fork(lambda n: f"v{n.value}[u]" if n.value in indexed else frame.load(n, [0], False))
            values = [body.value(root) for root in kernel.roots]
            frame.extend(body)
            for k, value in enumerate(values):
                frame.store(k, value, [0], False)


class _items:
    """The loop over a thread's elements of one step."""

    def __init__(self, frame: Frame):
        self.frame = frame

    def __enter__(self) -> None:
        frame = self.frame
        frame.line("#pragma unroll")
        self.outer = frame.block(f"for (int u = 0; u < {frame.items}; ++u)")
        self.outer.__enter__()
        frame.line("const i64 j0 = first + u * blockDim.x;")
        self.inner = frame.block("if (j0 < n0)")
        self.inner.__enter__()

    def __exit__(self, *_: object) -> None:
        self.inner.__exit__(None, None, None)
        self.outer.__exit__(None, None, None)


def _strided(frame: Frame, top: Body) -> None:
    """Several axes: the number of an element is taken apart into its indices."""
    kernel = frame.kernel
    axes = list(range(kernel.n_axes))
    frame.line(f"const i64 total = {' * '.join(f'n{a}' for a in axes)};")
    first, stride = "(i64)blockIdx.x * blockDim.x + threadIdx.x", "(i64)gridDim.x * blockDim.x"
    with frame.block(f"for (i64 number = {first}; number < total; number += {stride})"):
        frame.take_apart("number", axes)
        body = top.fork(lambda node: frame.load(node, axes, False))
        # All loads stand before all stores: an output may be the same buffer as an input.
        for node in frame.order:
            if node.op == "arg":
                body.value(node)
        values = [body.value(root) for root in kernel.roots]
        frame.extend(body)
        for k, value in enumerate(values):
            frame.store(k, value, axes, False)
