"""Rows of tests/test_families_random.py: normalisation, losses, convolution, pooling, interpolation, attention."""

from __future__ import annotations

from typing import Any

import duograd as dg
import numpy as np
import torch
from drawing import FLOATS, Row, of_torch

F = torch.nn.functional


def row(name: str, peer: Any, draw: Any, call: Any = None, **kwargs: Any) -> Row:
    return Row(name, of_torch(peer), draw, call, **{"dtypes": FLOATS, "scale": 20.0, **kwargs})


def one(least: int = 1, most: int = 3, side: int = 1, **settings: Any) -> Any:
    def draw(d: Any) -> Any:
        shape = d.shape(least, most, side)
        return [d.array(shape)], {k: d.pick(v(len(shape)) if callable(v) else v) for k, v in settings.items()}

    return draw


def anywhere(rank: int) -> Any:
    return range(-rank, rank)


# ---------------------------------------------------------------- normalisation


def with_weights(leading: Any, last: bool, **settings: Any) -> Any:
    """x[N, C, ...] and weights of its channels, or of its last axis."""

    def draw(d: Any) -> Any:
        shape = d.pick(leading)
        n = shape[-1] if last else shape[1]
        return [d.array(shape), d.array((n,), 0.5, 2), d.array((n,))], {
            k: d.pick(v) for k, v in settings.items()
        }

    return draw


IMAGES = [(2, 4, 5), (3, 4, 2, 3), (1, 4, 18), (2, 4)]
NORMS = [
    row("softmax", lambda x, axis: F.softmax(x, axis), one(axis=anywhere)),
    row("log_softmax", lambda x, axis: F.log_softmax(x, axis), one(axis=anywhere)),
    row("softmin", lambda x, axis: F.softmin(x, axis), one(axis=anywhere)),
    row("glu", lambda x, axis: F.glu(x, axis), lambda d: ([d.array((d.pick([2, 4]), d.pick([2, 36])))], {"axis": d.pick([0, -1])})),
    row("normalize", lambda x, p, axis: F.normalize(x, p, axis), one(2, p=[2.0, 1.0, 3.0], axis=[0, 1, -1]), corners="nan"),
    row("layer_norm", lambda x, w, b: F.layer_norm(x, w.shape, w, b), with_weights([(3, 5), (2, 3, 18), (0, 4)], True),
        lambda x, w, b: dg.layer_norm(x, w, b), corners="nan", scale=50),
    row("rms_norm", lambda x, w, b: F.rms_norm(x, w.shape, w, 1e-5), with_weights([(3, 5), (2, 3, 18)], True),
        lambda x, w, b: dg.rms_norm(x, w, eps=1e-5), corners="nan", scale=50),
    row("group_norm", lambda x, w, b, groups: F.group_norm(x, groups, w, b), with_weights(IMAGES[:3], False, groups=[1, 2]),
        lambda x, w, b, groups: dg.group_norm(x, w, b, num_groups=groups), corners="nan", scale=50),
    row("instance_norm", lambda x, w, b: F.instance_norm(x, None, None, w, b), with_weights(IMAGES[:3], False),
        lambda x, w, b: dg.instance_norm(x, w, b), corners="nan", scale=50),
    row("batch_norm", lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b), lambda d: (
        lambda s: ([d.array(s), d.array((4,)), d.array((4,), 0.5, 2, corners=False), d.array((4,)), d.array((4,))], {}))(
            d.pick(IMAGES)), lambda *a: dg.batch_norm(*a), corners="nan", scale=50),
    row("batch_norm_training", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), with_weights(IMAGES, False),
        lambda x, w, b: dg.batch_norm_training(x, w, b)[0], corners="nan", scale=50),
    row("local_response_norm", lambda x, size: F.local_response_norm(x, size), lambda d: (
        [d.array(d.pick(IMAGES[:3]))], {"size": d.pick([1, 3])}), corners=False),
    row("cosine_similarity", lambda x, y, axis: F.cosine_similarity(x, y, axis), lambda d: (lambda s: (
        [d.array(s), d.array(s)], {"axis": d.pick([0, -1])}))(d.shape(2, 3, 1)), corners=False, scale=50),
    row("pairwise_distance", lambda x, y, p: F.pairwise_distance(x, y, p), lambda d: (lambda s: (
        [d.array(s), d.array(s)], {"p": d.pick([2.0, 1.0])}))(d.shape(2, 2, 1)), corners=False, scale=50),
    row("rotary_embedding", lambda x, cos, sin: _rotary(x, cos, sin), lambda d: (
        [d.array((2, 3, 4, 6)), d.array((4, 3), -1, 1, False), d.array((4, 3), -1, 1, False)], {}), corners="nan"),
]  # fmt: skip


def _rotary(x: Any, cos: Any, sin: Any) -> Any:
    a, b = x[..., :3], x[..., 3:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


# ---------------------------------------------------------------- losses

REDUCTION = ["mean", "sum", "none"]


def loss(*kinds: str, **settings: Any) -> Any:
    """Arrays of one shape: a "p"robability, "s"ign, positive "v"ariance, "y" in 0 to 1, anything."""

    def draw(d: Any) -> Any:
        shape = d.shape(1, 2, 1)
        return [_kind(d, k, shape) for k in kinds], {
            "reduction": d.pick(REDUCTION), **{k: d.pick(v) for k, v in settings.items()}}  # fmt: skip

    return draw


def _kind(d: Any, kind: str, shape: Any) -> np.ndarray:
    if kind == "s":
        return np.where(d.mask(shape), 1, -1).astype(d.dtype)
    low, high = {"p": (0.05, 0.95), "y": (0.0, 1.0), "v": (0.5, 2.0)}.get(kind, (-3.0, 3.0))
    return d.array(shape, low, high, corners=kind == "x")


def classes(**settings: Any) -> Any:
    def draw(d: Any) -> Any:
        n, c, rest = d.pick([1, 4]), d.pick([2, 5, 18]), d.pick([(), (3,)])
        out = [d.array((n, c, *rest)), d.index((n, *rest), c)]
        return out, {"reduction": d.pick(REDUCTION), **{k: d.pick(v) for k, v in settings.items()}}

    return draw


def vectors(count: int, **settings: Any) -> Any:
    def draw(d: Any) -> Any:
        shape = (d.pick([1, 4]), d.pick([3, 18]))
        return [d.array(shape) for _ in range(count)], {
            "reduction": d.pick(REDUCTION), **{k: d.pick(v) for k, v in settings.items()}}  # fmt: skip

    return draw


def pairs(d: Any) -> Any:
    arrays, settings = vectors(2, margin=[0.0, 0.5])(d)
    return [*arrays, np.where(d.mask(arrays[0].shape[:1]), 1, -1).astype(d.dtype)], settings


LOSSES = [
    row("mse_loss", F.mse_loss, loss("x", "x")), row("l1_loss", F.l1_loss, loss("x", "x")),
    row("smooth_l1_loss", F.smooth_l1_loss, loss("x", "x", beta=[1.0, 0.3])),
    row("huber_loss", lambda x, y, delta, reduction: F.huber_loss(x, y, reduction, delta), loss("x", "x", delta=[1.0, 0.3])),
    row("binary_cross_entropy", F.binary_cross_entropy, loss("p", "y"), corners=False),
    row("binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, loss("x", "y"), corners="nan"),
    row("kl_div", lambda x, y, log_target, reduction: F.kl_div(x, y, reduction=reduction, log_target=log_target),
        loss("x", "p", log_target=[True, False]), corners="nan"),
    row("poisson_nll_loss", F.poisson_nll_loss, loss("z", "v", log_input=[True], full=[False, True]), corners=False),
    row("gaussian_nll_loss", F.gaussian_nll_loss, loss("x", "z", "v", full=[False, True]), corners="nan"),
    row("hinge_embedding_loss", F.hinge_embedding_loss, loss("x", "s", margin=[1.0, 0.5])),
    row("soft_margin_loss", F.soft_margin_loss, loss("x", "s"), corners="nan"),
    row("margin_ranking_loss", F.margin_ranking_loss, loss("x", "z", "s", margin=[0.0, 0.5]), corners="nan"),
    row("multilabel_soft_margin_loss", F.multilabel_soft_margin_loss, lambda d: (lambda s: (
        [d.array(s), _kind(d, "y", s)], {"reduction": d.pick(REDUCTION)}))((d.pick([1, 4]), d.pick([3, 18]))), corners="nan"),
    row("cross_entropy", F.cross_entropy, classes(label_smoothing=[0.0, 0.1]), corners="nan"),
    row("nll_loss", F.nll_loss, classes(), corners="nan"),
    row("multi_margin_loss", F.multi_margin_loss, lambda d: (lambda a, s: ([a[0][:, :, 0] if a[0].ndim > 2 else a[0],
        a[1][:, 0] if a[1].ndim > 1 else a[1]], s))(*classes(margin=[1.0, 0.5])(d)), corners=False),
    row("multilabel_margin_loss", F.multilabel_margin_loss, lambda d: (
        [d.array((3, 4)), np.array([[1, 3, -1, 0], [-1, 0, 0, 0], [2, 0, 1, 3]])], {"reduction": d.pick(REDUCTION)}), corners=False),
    row("cosine_embedding_loss", F.cosine_embedding_loss, pairs, corners=False, scale=50),
    row("triplet_margin_loss", F.triplet_margin_loss, vectors(3, swap=[False, True]), corners=False, scale=50),
]  # fmt: skip

# ---------------------------------------------------------------- windows


def images(spatial: int) -> Any:
    def draw(d: Any) -> Any:
        return d.array((d.pick([1, 2]), d.pick([1, 4]), *(d.pick([5, 7]) for _ in range(spatial))))

    return draw


def pooled(**settings: Any) -> Any:
    def draw(d: Any) -> Any:
        n = d.pick([1, 2])
        out = {"window": d.pick([2, 3]), "stride": d.pick([1, 2]), "ceil_mode": d.pick([False, True])}
        return [images(n)(d)], {**out, **{k: d.pick(v) for k, v in settings.items()}}

    return draw


def _pool(name: str) -> Any:
    def run(x: Any, window: Any, **kw: Any) -> Any:
        return getattr(F, f"{name}_pool{x.ndim - 2}d")(x, window, **kw)

    return run


def convolved(d: Any) -> Any:
    n, groups = d.pick([1, 2]), d.pick([1, 2])
    x = d.array((d.pick([1, 2]), 4, *(d.pick([5, 7]) for _ in range(n))))
    w = d.array((d.pick([2, 6]), 4 // groups, *[d.pick([1, 3])] * n))
    return [x, w], {
        "stride": d.pick([1, 2]),
        "padding": d.pick([0, 1]),
        "dilation": d.pick([1, 2]),
        "groups": groups,
    }


def deconvolved(d: Any) -> Any:
    (x, w), settings = convolved(d)
    groups = settings["groups"]
    w = d.array((4, d.pick([1, 3]), *w.shape[2:]))
    extra = d.pick([0, settings["stride"] - 1])
    return [x, w], {**settings, "output_padding": extra, "groups": groups}


def _conv(x: Any, w: Any, **kw: Any) -> Any:
    return getattr(F, f"conv{x.ndim - 2}d")(x, w, **kw)


def _deconv(x: Any, w: Any, **kw: Any) -> Any:
    return getattr(F, f"conv_transpose{x.ndim - 2}d")(x, w, **kw)


def resized(d: Any) -> Any:
    n = d.pick([1, 2])
    mode = d.pick(["nearest", "linear", *(["cubic"] if n == 2 else [])])
    return [images(n)(d)], {"size": tuple(d.pick([3, 5, 8]) for _ in range(n)), "mode": mode}


def _resize(x: Any, size: Any, mode: str) -> Any:
    names = {"linear": ["linear", "bilinear"][x.ndim - 3], "cubic": "bicubic", "nearest": "nearest-exact"}
    return F.interpolate(x, size, mode=names[mode], **({} if mode == "nearest" else {"align_corners": False}))


def unfolded(d: Any) -> Any:
    return [d.array((2, 3, d.pick([4, 5]), 5))], {
        "window": d.pick([2, 3]), "stride": d.pick([1, 2]), "padding": d.pick([0, 1]), "dilation": 1}  # fmt: skip


def folded(d: Any) -> Any:
    return [d.array((2, 8, 12))], {"size": (4, 5), "window": 2, "stride": 1, "padding": 0}


def gridded(d: Any) -> Any:
    x = d.array((2, d.pick([1, 3]), 4, 5))
    grid = d.array((2, 3, d.pick([1, 18]), 2), -1.2, 1.2, corners=False)
    return [x, grid], {"mode": d.pick(["linear", "nearest"]), "padding_mode": d.pick(["zeros", "border", "reflection"]),
                       "align_corners": d.pick([False, True])}  # fmt: skip


def _grid_sample(x: Any, grid: Any, mode: str, **kw: Any) -> Any:
    return F.grid_sample(x, grid, {"linear": "bilinear"}.get(mode, mode), **kw)


def attended(d: Any) -> Any:
    h, n, m, e = d.pick([1, 2]), d.pick([1, 5]), d.pick([3, 18]), d.pick([4, 8])
    arrays = [d.array((2, h, k, e)) for k in (n, m, m)]
    masked = d.pick([False, True])
    return arrays + ([d.array((n, m), corners=False)] if masked else []), {"is_causal": not masked and n == m}


WINDOWS = [
    row("conv", _conv, convolved, corners=False), row("conv_transpose", _deconv, deconvolved, corners=False),
    row("max_pool", _pool("max"), pooled(padding=[0, 1], dilation=[1])),
    row("max_pool_index", lambda x, **kw: _pool("max")(x, return_indices=True, **kw)[1], pooled(padding=[0, 1]), slope=False,
        corners=False),
    row("avg_pool", _pool("avg"), pooled(padding=[0, 1], count_include_pad=[False, True]), corners="nan"),
    row("lp_pool", lambda x, window, stride, ceil_mode, p: getattr(F, f"lp_pool{x.ndim - 2}d")(x.abs(), p, window, stride, ceil_mode),
        pooled(p=[1.0, 2.0], ceil_mode=[False]), corners=False, scale=40),
    row("adaptive_avg_pool", lambda x, size: getattr(F, f"adaptive_avg_pool{x.ndim - 2}d")(x, size), lambda d: (
        [images(2)(d)], {"size": d.pick([(1, 1), (2, 3), (5, 5)])}), corners="nan"),
    row("adaptive_max_pool", lambda x, size: getattr(F, f"adaptive_max_pool{x.ndim - 2}d")(x, size), lambda d: (
        [images(2)(d)], {"size": d.pick([(1, 1), (2, 3), (5, 5)])})),
    row("max_unpool", lambda x, index, size: F.max_unpool2d(x, index, 2, output_size=size), lambda d: (
        [d.array((2, 3, 2, 2)), np.stack([np.stack([np.array([[0, 3], [8, 10]])] * 3)] * 2)], {"size": (4, 4)})),
    row("resize", _resize, resized, corners=False, scale=40),
    row("grid_sample", _grid_sample, gridded, corners=False, scale=60),
    row("affine_grid", lambda theta, size, align_corners: F.affine_grid(theta, size, align_corners), lambda d: (
        [d.array((2, 2, 3))], {"size": (2, 3, d.pick([1, 4]), 5), "align_corners": d.pick([False, True])}),
        corners=False),
    row("unfold", lambda x, window, **kw: F.unfold(x, window, **kw), unfolded),
    row("fold", lambda x, size, window, **kw: F.fold(x, size, window, **kw), folded),
    row("scaled_dot_product_attention", lambda q, k, v, mask=None, is_causal=False: F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=is_causal), attended, corners=False, scale=50),
]  # fmt: skip


def deformed(d: Any) -> Any:
    masked = d.pick([False, True])
    p, q = 5 - 2, d.pick([4, 18]) - 1
    arrays = [d.array((2, 3, 5, q + 1)), d.array((4, 3, 3, 2)), d.array((2, 12, p, q), -1.5, 1.5)]
    return arrays + ([d.array((2, 6, p, q))] if masked else []), {}


def _deform_conv(x: Any, w: Any, offset: Any, mask: Any = None) -> Any:
    """Every window element read by torch's bilinear grid sampling at its moved place."""
    height, width = x.shape[2:]
    p, q = offset.shape[2:]
    out = 0
    for tap, (r, s) in enumerate(np.ndindex(3, 2)):
        y = torch.arange(p).reshape(1, p, 1) + r + offset[:, 2 * tap]
        z = torch.arange(q).reshape(1, 1, q) + s + offset[:, 2 * tap + 1]
        grid = torch.stack([(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        read = F.grid_sample(x, grid, align_corners=False)
        if mask is not None:
            read = read * mask[:, tap : tap + 1]
        out = out + torch.einsum("ncpq,kc->nkpq", read, w[:, :, r, s])
    return out


WINDOWS.append(row("deform_conv", _deform_conv, deformed, corners=False, scale=60))

# ---------------------------------------------------------------- whole sequences


def sequences(gates: int, cell: bool = False) -> Any:
    def draw(d: Any) -> Any:
        t, n, c, h = d.pick([1, 4]), d.pick([1, 2]), d.pick([1, 3]), d.pick([2, 5])
        sizes = [(t, n, c), (gates * h, c), (gates * h, h), (gates * h,), (gates * h,), (n, h)] + [
            (n, h)
        ] * cell
        return [d.array(s, -1, 1) for s in sizes], {}

    return draw


def _layer(name: str) -> Any:
    def run(x: Any, *weights: Any) -> Any:
        w_ih, w_hh, b_ih, b_hh, *states = weights
        layer = getattr(torch.nn, name)(x.shape[2], w_hh.shape[1], dtype=torch.float64)
        with torch.no_grad():
            for have, new in zip((layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0),
                                 (w_ih, w_hh, b_ih, b_hh)):  # fmt: skip
                have.copy_(new)
            states = [s[None] for s in states]
            return layer(x, states[0] if len(states) == 1 else tuple(states))[0]

    return run


SEQUENCES = [
    row("rnn_layer", _layer("RNN"), sequences(1), lambda *a: dg.rnn_layer(*a)[0], corners=False),
    row("gru_layer", _layer("GRU"), sequences(3), lambda *a: dg.gru_layer(*a)[0], corners=False),
    row("lstm_layer", _layer("LSTM"), sequences(4, True), lambda *a: dg.lstm_layer(*a)[0], corners=False),
    row("ctc_loss", lambda x, target, reduction: F.ctc_loss(F.log_softmax(x, 2), target, torch.tensor([5, 4]), torch.tensor([2, 1]),
        reduction=reduction), lambda d: ([d.array((5, 2, 4)), 1 + d.index((2, 2), 3)], {"reduction": d.pick(REDUCTION)}),
        lambda x, target, reduction: dg.ctc_loss(dg.log_softmax(x, axis=2), target, dg.tensor([5, 4]), dg.tensor([2, 1]),
        reduction=reduction), corners=False, order=1),
]  # fmt: skip
ROWS = NORMS + LOSSES + WINDOWS + SEQUENCES
