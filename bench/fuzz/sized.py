"""What a random program may do with the sizes of its tensors: positions, masks, rows of state and parts by them."""

from __future__ import annotations

from .program import Given, Step
from .steps import Hand, is_float

#: {x}: a float tensor with a first axis, {n}: that axis's size, {y}, {p}: the name to make, {t}: state of 40 rows of 3,
#: {q}: of 40 rows of 40
ROWS = (
    "{y} = {x} + {t}[: {n}].sum()", "{y} = {t}[dg.arange({n})] * 2", "{y} = {t}[{n}] * {x}.mean()",
    "{y} = {t}[{n} :].tanh().sum(axis=0)", "{y} = {t}[-{n} - 1 :].exp().mean(axis=0)",
    "{y} = {q}[: {n}, : {n}] @ {t}[: {n}]", "{y} = {t}[{n} // 2 : {n} + 1] * {n}",
    "{y} = {q}[{n}, : {n} + 1].softmax(0)", "{y} = {t}.narrow(0, {n}, 2) + {n}",
    "{y} = {t}[dg.arange({n} - 1, -1, -1)].cumsum(0)", "{y} = dg.take({t}, dg.arange({n}) * 2 % 40, axis=0)",
    "{y} = {t}[: {n}].mT @ {x}.reshape({n}, -1).to(dg.float32) if {n} else {t}",
    "{y} = dg.nn.functional.embedding(dg.arange({n}), {t}) / 3", "{y} = {t}[:: {n} + 1].sum(axis=0)",
    "{y} = ({t} * 2).split([{n}, 40 - {n}])[1].sum(axis=0)", "{y} = {t}.roll({n}, 0)[: {n} + 1]",
    "{y} = dg.nn.functional.layer_norm({t}[: {n} + 1], (3,)) * {n}",
    "{y} = {t}[m.count % 40 : m.count % 40 + {n}]\nm.count += 1",
    "with dg.no_grad():\n    {t}[: {n}] += 1\n{y} = {t} * 1",
    "with dg.no_grad():\n    {t}[{n}] = 0.5\n{y} = {t}.sum(axis=0)",
    "with dg.no_grad():\n    {q}[: {n}, {n}] *= 2\n{y} = {q}.sum(axis=1)", "m.last = {t}[: {n}]\n{y} = m.last * {n}",
)  # fmt: skip
POSITIONS = (
    "{y} = dg.cos(dg.arange({n}, dtype='float32').reshape(-1, 1) * dg.exp(dg.arange(3) * -0.5))",
    "{y} = dg.linspace(0, 1, {n} + 1) * {x}.sum().to(dg.float32)", "{y} = dg.one_hot(dg.arange({n}) % 3, 3) * 0.5",
    "{y} = dg.tril(dg.ones({n}, {n})) / dg.arange(1, {n} + 1).reshape(-1, 1)", "{y} = dg.eye({n}) * {n}",
    "{y} = dg.where(dg.tril(dg.ones({n}, {n})) > 0, {q}[: {n}, : {n}], -1e9).softmax(-1)",
    "{y} = dg.arange({n})[None] <= dg.arange({n})[:, None]", "{y} = dg.full(({n}, 2), 1 / ({n} + 1))",
    "{y} = dg.triu({q}[: {n}, : {n}], 1).masked_fill(dg.arange({n}) > 1, 0.5)", "{y} = dg.rand({n}, 2) * {n}",
    "{y} = dg.arange({n}) * 2 + dg.arange({n}).flip(0)", "{y} = dg.zeros({n} + 2).index_fill(0, dg.tensor([1]), 2.0)",
    "{y} = dg.randperm({n})", "{y} = dg.arange(0, {n} * 2, 2) // 3", "{y} = dg.arange({n} % 4 + 1) + {n}",
)  # fmt: skip
PARTS = (
    "{y} = {x}[: {n} // 2] if {n} > 1 else {x}", "{y} = {x}[{n} % 3 :]",
    "{y} = {x}.sum() / {n} if {n} else {x}.sum()", "{y} = dg.concat([{x}, {x}.new_zeros(({n} % 4, *{x}.shape[1:]))])",
    "{y} = {x} * {n} ** -0.5 if {n} else {x}",
    "{y} = dg.concat([{x}, {x}.new_zeros((40 - {n}, *{x}.shape[1:]))]).sum(axis=0)", "{y} = {x}.flip(0)[: {n} - 1]",
    "{y} = {x}.reshape({n}, 1, -1).expand({n}, 2, -1) if {x}.size else {x}",
    "{y} = {x}.repeat_interleave(2, 0)[{n} :]", "{y} = {x}.unsqueeze(0).expand({n}, *{x}.shape).sum(axis=0)",
    "{y} = {x}[1:] - {x}[:-1]", "{y} = {x}.reshape(-1, {n})", "{y} = {x}[:, None] - {x}[None]",
    "{y} = {x}[{n} - 1] + {x}[0]", "{y} = {x}.topk(min({n}, 2), 0)[0]", "{y} = {x}.reshape(-1)[: {n} * 2 : 2]",
    "{y} = dg.stack([{x}, {x} * {n}], -1).reshape({n}, -1) if {x}.size else {x}",
    "{y} = dg.nn.functional.pad({x}, (1, {n} % 3))", "{y} = dg.cumsum({x}, 0)[-1:] / {n}",
    "{y} = {x}.chunk(2)[-1] * 2", "{y} = {x}.unfold(0, 2, 1).mean(axis=-1) if {n} > 1 else {x}",
    "{y} = {x}.argmax(0) + {n}", "{y} = dg.tile({x}, ({n} % 3 + 1,))",
    "{y} = {x}\nif {n} % 2:\n    {y} = dg.concat([{y}, {y}[-1:]])\n{y} = {y}.reshape({n} // 2 + {n} % 2, 2, -1).sum(1)",
    "{y} = {x} if {n} < 6 else {x}[:6]", "{y} = {x} * (2 if {n} > 4 else 3)", "{p} = {x}.shape, {n} * 2, len({x})",
    "m.log.append({n})\n{y} = {x} * m.log[-1]", "m.count = max(m.count, {n})\n{y} = {x} * m.count",
    "m.box.last = {n}\n{y} = {x} + m.box.last", "{y} = {x}.std(axis=0) * math.sqrt(max({n}, 1))",
)  # fmt: skip
LAYERS = (
    "{y} = dg.nn.functional.interpolate({x}.to(dg.float32).reshape(1, 1, -1), size={n} + 1)",
    "{y} = dg.nn.functional.interpolate({x}.to(dg.float32).reshape(1, 1, -1), scale_factor=2)[..., : {n}]",
    "{y} = dg.nn.functional.conv1d({x}.to(dg.float32).reshape(1, 1, -1), {t}[:2].reshape(2, 1, 3), padding=1)",
    "{y} = dg.nn.functional.conv1d({t}[: {n} + 3].mT[None], {t}[:6].reshape(2, 3, 3), stride=2)",
    "{y} = dg.nn.functional.max_pool1d({x}.to(dg.float32).reshape(1, 1, -1), 2)",
    "{y} = dg.nn.functional.avg_pool1d({t}[: {n} + 2].mT[None], 2, 1)",
    "{y} = dg.nn.functional.adaptive_avg_pool1d({t}[: {n} + 1].mT[None], 2)",
    "{y} = dg.nn.functional.conv2d({q}[: {n} + 2, : {n} + 3][None, None], {t}[:3].reshape(1, 1, 3, 3), padding=1)",
    "{y} = dg.scaled_dot_product_attention({t}[None, : {n}], {t}[None, : {n} + 1], {t}[None, 1 : {n} + 2])",
    "{y} = dg.scaled_dot_product_attention(*({t}[None, k : {n} + k] for k in range(3)), is_causal=True)",
    "{y} = dg.scan(lambda c, t: (c * 0.5 + t, c.tanh()), dg.zeros(3), {t}[: {n}])[1]",
    "{y} = dg.scan(lambda c, _: (c * 0.5 + {n}, c), {x}.sum(), length={n})[1]",
    "{y} = dg.vmap(lambda t: t * t.sum() + {n})({t}[: {n}])", "{y} = dg.vmap(lambda k: {t}[k] * 2)(dg.arange({n}))",
    "{y} = dg.while_loop(lambda c: c[0] < {n}, lambda c: (c[0] + 1, c[1] * 0.5 + 1), (0, {x}))[1]",
    "{y} = dg.grad(lambda w: (w[: {n}] ** 2).mean() if {n} else w.sum())({t})",
    "{y} = dg.grad(lambda w: (w @ w.mT)[: {n}].sum())({t})",
    "{y} = dg.cond({x}.sum() > 0, lambda t: t * {n}, lambda t: t - {n}, {x})",
    "{y} = dg.jacobian(lambda t: t[:2] ** 2)({t}[: {n} + 2, 0])",
    "{y} = dg.checkpoint(lambda t: (t[: {n}] * {n}).tanh(), {t})",
    "{y} = dg.einsum('ij,kj->ik', {t}[: {n}], {t}[{n} :])",
    "m.w.grad = None\n({t}[: {n} + 1] * m.w).mean().backward()\n{y} = m.w.grad * {n}",
    "{y} = dg.nn.functional.cross_entropy({q}[: {n} + 1, : {n} + 2], dg.arange({n} + 1))",
    "{y} = dg.nn.functional.dropout({t}[: {n}], 0.5) * {n}", "{y} = m.layer({t}[: {n}, :2]).softmax(0)",
    "{y} = dg.linalg.norm({t}[: {n} + 1]) / {n} if {n} else {x}", "{y} = dg.argsort({q}[: {n}, 0], descending=True)",
    "{y} = {q}[: {n}, : {n}].diagonal().sum() / 3",
    "{y} = dg.zeros({n} + 1, 3).scatter_add(0, dg.arange({n}).reshape(-1, 1).expand({n}, 3), {t}[: {n}])",
    "{y} = {t}.gather(0, dg.arange({n} * 3).reshape({n}, 3) % 40)",
)  # fmt: skip


def sized(h: Hand) -> Step | None:
    """What hangs on how long an axis is."""
    x = h.tensor(lambda t: is_float(t) and t.ndim and t.shape[0] < 40)
    if x is None:
        return None
    y, table = h.fresh(), h.rng.choice((ROWS, POSITIONS, PARTS, PARTS, LAYERS, LAYERS))
    form, axis = h.rng.choice(table), h.rng.choice((0, 0, 0, -1))
    names = {}
    for letter, dims in (("t", (40, 3)), ("q", (40, 40))):
        if f"{{{letter}}}" in form:
            made = next((s.name for s in h.state if s.dims == dims), None)
            grad = "no_grad" not in form and h.rng.random() < 0.15
            names[letter] = f"m.{made}" if made else h.keep(Given(f"t{len(h.state)}", dims, grad=grad))
    p = "p" + y[1:]
    text = form.format(x=x, y=y, p=p, n=f"{x}.shape[{axis}]", **names)
    return Step(text, (p if "{p}" in form else y,))
