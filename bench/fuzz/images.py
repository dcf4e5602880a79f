"""What a random program may do with images: convolutions, work on their results, and pooling of those."""

from __future__ import annotations

from .layers import given_tensor, kept_layer
from .program import Step
from .steps import Hand

#: the temper's name
IMAGES = "images"
#: channels and filters, sizes of images, padding, for each kind of kernel
SHAPES = (
    (((1, 2), (3, 5), (2, 17)), (4, 5, 6, 7, 8, 12), (0, 1, 1, 2)), (((16, 64), (32, 33)), (12, 13, 14, 16), (1,)),
)  # fmt: skip
#: what becomes of {v}; {k}: filters, {one}: an axis of size 1 for each of the image's
BETWEEN = (
    "{v}", "{v}", "{v}.relu()", "{v}.relu()", "{v}.relu()", "dg.nn.functional.gelu({v})", "({v} * 0.5 - 0.25).tanh()",
    "({v} * dg.linspace(-1, 1, {k}).reshape(-1, {one}) + 0.5).relu()", "-{v}", "({v} * 9).to(dg.int64).to({v}.dtype)",
    "({v} + {v}.mean()).relu()", "{v}.clip(-0.5, 0.5)", "{v} / {v}.relu()", "{v}.to(dg.float64)", "{v}.mT",
    "dg.where({v} > 0, {v}, dg.linspace(0, 1, {k}).reshape(-1, {one}) * {v})", "{v}[:, ::2]", "{v}.flip(0)",
)  # fmt: skip
#: windows that touch, and others
TOUCHING = ("2", "2", "2", "2", "3", "2, ceil_mode=True", "4")
OTHERS = ("2, 1", "3, 2", "2, padding=1", "3, 2, 1, ceil_mode=True", "1")
ACROSS = ("(2, 1)", "(1, 2)", "(3, 2)", "(2, 3), stride=(2, 3)", "(1, 4)")
OF_MAX, OF_MEAN = (", dilation=2",), (", count_include_pad=False", ", divisor_override=3")
#: {z}: what is pooled, {p}: what that gives
AFTER = (
    "{y} = {p}", "{y} = {p}", "{y} = {p}", "{y} = {p}", "{y} = {p}.relu()", "{y} = {p} + {z}.sum()",
    "{y} = {p}\n{z} += 1", "{y} = dg.concat([{p}, {p} * 2])", "m.last = {p}\n{y} = m.last * 2", "{y} = {p}.sum(axis=1)",
    "{y} = {p}.flatten(1)", "{y} = dg.concat([{p}.flatten(), {z}.flatten()])",
)  # fmt: skip


def images(h: Hand) -> Step | None:
    """A convolution, pooled."""
    r = h.rng
    rank = 1 if r.random() < 0.2 else 2
    pairs, sizes, pads = SHAPES[r.random() < 0.15]
    (channels, filters), pad = r.choice(pairs), r.choice(pads)
    size = 3 if len(pads) == 1 else r.choice((1, 2, 3, 3, 4))
    settings = f"padding={pad}" + r.choice(("", "", "", "", ", stride=2", ", bias=False"))
    settings += ", groups=2" * (channels % 2 == 0 and filters % 2 == 0 and r.random() < 0.2)
    n = kept_layer(h, f"Conv{rank}d({channels}, {filters}, {size}, {settings})")
    x = given_tensor(h, (r.choice(("A", "A", 1, 3)), channels, *(r.choice(sizes) for _ in range(rank))))
    v, z, p, y = h.fresh(), h.fresh(), h.fresh(), h.fresh()
    kind, more = r.choice((("max", OF_MAX), ("avg", OF_MEAN)))
    row = TOUCHING + ACROSS if rank == 2 else TOUCHING
    window = r.choice(row if r.random() < 0.8 else OTHERS) + r.choice(("", "", "", "", *more))
    work = r.choice(BETWEEN).format(v=v, k=filters, one=", ".join("1" * rank))
    text = f"{v} = {n}({x}.to(dg.float32))\n{z} = {work}\n{p} = dg.nn.functional.{kind}_pool{rank}d({z}, {window})\n"
    text += r.choice(AFTER).format(y=y, z=z, p=p)
    if r.random() < 0.8:  # else what is pooled is kept for the way back
        text = "with dg.no_grad():\n    " + text.replace("\n", "\n    ")
    return Step(text, (y,))
