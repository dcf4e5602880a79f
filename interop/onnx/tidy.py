"""Small rewrites of the finished steps, so that models look as their readers expect."""

from __future__ import annotations

from .builder import Handle, Step


def fuse_bias(steps: list[Step], outputs: set[Handle]) -> list[Step]:
    """`Conv(x, w) + Reshape(b, [-1, 1, 1])` becomes `Conv(x, w, b)`, when nothing else reads the parts."""
    made = {h: s for s in steps for h in s.outputs}
    uses: dict[Handle, int] = {}
    for s in steps:
        for h in (*s.inputs, *(s.reads() - set(s.inputs))):
            if h is not None:
                uses[h] = uses.get(h, 0) + 1
    gone: set[int] = set()
    moved: dict[int, Step] = {}
    for add in steps:
        if add.op_type != "Add":
            continue
        for conv_out, bias_out in (tuple(add.inputs), tuple(reversed(add.inputs))):
            conv, bias = made.get(conv_out), made.get(bias_out)  # type: ignore[arg-type]
            if conv is None or bias is None or not _fits(conv, bias, conv_out, bias_out, uses, outputs):
                continue
            conv.inputs = [*conv.inputs, bias.inputs[0]]
            conv.outputs, conv.op, conv.line = add.outputs, add.op, add.line
            # The bias may be made after the Conv: the node stands where the Add stood.
            moved[id(add)] = conv
            gone.add(id(conv))
            if uses[bias_out] == 1:  # type: ignore[index]
                gone.add(id(bias))
            break
    return [moved.get(id(s), s) for s in steps if id(s) not in gone]


def drop_dead(steps: list[Step], outputs: list[Handle]) -> list[Step]:
    """The steps whose results somebody reads."""
    read = set(outputs)
    kept = []
    for s in reversed(steps):
        if not read.isdisjoint(s.outputs):
            read |= s.reads()
            kept.append(s)
    return kept[::-1]


def drop_unused(constants: list[Step], steps: list[Step], outputs: list[Handle]) -> list[Step]:
    """The constants that are still read."""
    read = {h for s in steps for h in s.reads()} | set(outputs)
    return [c for c in constants if c.outputs[0] in read]


def _fits(
    conv: Step,
    bias: Step,
    conv_out: Handle | None,
    bias_out: Handle | None,
    uses: dict[Handle, int],
    outputs: set[Handle],
) -> bool:
    if conv.op_type not in ("Conv", "ConvTranspose") or len(conv.inputs) != 2 or bias.op_type != "Reshape":
        return False
    source = bias.inputs[0]
    if conv_out is None or bias_out is None or source is None:
        return False
    channels = conv_out.shape[1] if conv_out.shape else None
    shape = bias_out.shape or ()
    ready = source.shape is not None and tuple(source.shape) == (channels,)
    at_channels = (
        len(shape) >= 3
        and shape[-3] == channels
        and all(n == 1 for k, n in enumerate(shape) if k != len(shape) - 3)
    )
    return (
        ready and at_channels and uses[conv_out] == 1 and conv_out not in outputs and bias_out not in outputs
    )
