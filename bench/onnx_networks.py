"""Small networks of other kinds for ONNX round trips: perceptrons, graphs, flows, quantised and scientific ones."""

from __future__ import annotations

from typing import Any

import duograd as dg

from .. import nn
from ..nn import functional as F

Sequential = nn.Sequential


class Ignoring(nn.Module):
    """A module over the first of two inputs, added to the mean of the second."""

    def __init__(self, inner: Any):
        self.inner = inner

    def forward(self, x: Any, other: Any) -> Any:
        return self.inner(x) + other.mean()


class Headed(nn.Module):
    """A linear layer (and a sigmoid) before a loss of two inputs."""

    def __init__(self, loss: Any, sigmoid: bool):
        self.fc, self.loss, self.sigmoid = nn.Linear(5, 5), loss, sigmoid

    def forward(self, x: Any, target: Any) -> Any:
        y = self.fc(x)
        return self.loss(dg.sigmoid(y) if self.sigmoid else y, target)


class _Unpool(nn.Module):
    def __init__(self) -> None:
        axes = type(self).__name__[-2]
        self.pool = getattr(nn, f"MaxPool{axes}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{axes}d")(2)

    def forward(self, x: Any) -> Any:
        return self.unpool(*self.pool(x))


class Unpool1d(_Unpool):
    pass


class Unpool2d(_Unpool):
    pass


class Unpool3d(_Unpool):
    pass


class _Fractional(nn.Module):
    """Fractional max pooling at given places, so that one result is right; then its places."""

    def __init__(self) -> None:
        self.pool = getattr(nn.functional, f"fractional_max_pool{type(self).__name__[-2]}d")

    def forward(self, x: Any, samples: Any) -> Any:
        return self.pool(x, 2, output_ratio=0.7, return_indices=True, _random_samples=samples)


class Fractional2d(_Fractional):
    pass


class Fractional3d(_Fractional):
    pass


class Regions(nn.Module):
    """A head over regions: corners shifted or not; four samples of a cell, or as many as it has pixels; maxima."""

    def __init__(self) -> None:
        self.features, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6, 2)

    def forward(self, x: Any, boxes: Any) -> Any:
        y = self.features(x)
        mean = dg.roi_align(y, boxes, (2, 3), 0.5, 2, aligned=True)
        return (
            self.head(mean.flatten(1)),
            dg.roi_align(y, boxes, 2, 0.5),
            dg.roi_align(y, boxes, 2, 0.5, 2, mode="max"),
        )


class Listed(nn.Module):
    def __init__(self) -> None:
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = dg.tanh(layer(x))
        return x


class Weighted(nn.Module):
    def __init__(self) -> None:
        self.weights = nn.ParameterList([nn.Parameter(dg.randn(4, 4)) for _ in range(2)])

    def forward(self, x: Any) -> Any:
        for w in self.weights:
            x = x @ w
        return x


# ---------------------------------------------------------------- perceptrons


def mlp() -> Any:
    return Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 5), nn.Softmax(-1))


def autoencoder() -> Any:
    return Sequential(
        nn.Linear(6, 4), nn.ELU(), nn.Linear(4, 2), nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 6), nn.Sigmoid()
    )


class ResidualMlp(nn.Module):
    def __init__(self) -> None:
        self.norm, self.up, self.down = nn.BatchNorm1d(6), nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: Any) -> Any:
        return x + self.down(dg.silu(self.up(self.norm(x))))


class VariationalMean(nn.Module):
    """A variational autoencoder at its mean, with the divergence beside."""

    def __init__(self) -> None:
        self.encode, self.decode = nn.Linear(6, 6), nn.Linear(3, 6)

    def forward(self, x: Any) -> Any:
        mean, log_var = self.encode(x).split(3, axis=-1)
        divergence = -0.5 * (1 + log_var - mean**2 - dg.exp(log_var)).sum(axis=-1)
        return dg.sigmoid(self.decode(mean)), divergence


class Experts(nn.Module):
    """Four experts, mixed by the two best of a router."""

    def __init__(self) -> None:
        self.router, self.weights = nn.Linear(6, 4), nn.Parameter(dg.randn(4, 6, 5) * 0.3)

    def forward(self, x: Any) -> Any:
        best, place = dg.topk(self.router(x), 2)
        gates = dg.one_hot(place, 4).astype(x.dtype)
        mix = (dg.softmax(best, axis=-1)[..., None] * gates).sum(axis=1)
        return dg.einsum("be,bi,eio->bo", mix, x, self.weights)


class HyperNetwork(nn.Module):
    """Weights of a layer made from a second input."""

    def __init__(self) -> None:
        self.make = nn.Linear(4, 6 * 3)

    def forward(self, x: Any, code: Any) -> Any:
        return dg.tanh(x[:, None] @ self.make(code).reshape(-1, 6, 3))[:, 0]


class DeepAndWide(nn.Module):
    def __init__(self) -> None:
        self.embed, self.deep, self.wide = nn.Embedding(16, 3), nn.Linear(18, 4), nn.Linear(6, 4)

    def forward(self, x: Any, ids: Any) -> Any:
        deep = dg.relu(self.deep(dg.concat([x, self.embed(ids).flatten(1)], axis=1)))
        return dg.sigmoid((deep + self.wide(x)).sum(axis=-1))


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        self.left, self.right = nn.EmbeddingBag(16, 4), nn.EmbeddingBag(16, 4, mode="sum")

    def forward(self, a: Any, b: Any) -> Any:
        return F.normalize(self.left(a), dim=-1) @ F.normalize(self.right(b), dim=-1).T


class KernelRegression(nn.Module):
    def __init__(self) -> None:
        self.keys, self.values = nn.Parameter(dg.randn(7, 6)), nn.Parameter(dg.randn(7, 2))

    def forward(self, x: Any) -> Any:
        return dg.softmax(-dg.cdist(x, self.keys), axis=-1) @ self.values


# ---------------------------------------------------------------- graphs and sets


class GraphConvolution(nn.Module):
    def __init__(self) -> None:
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Any, weights: Any) -> Any:
        near = weights + weights.mT + dg.eye(weights.shape[-1])
        scale = dg.rsqrt(near.sum(axis=-1, keepdims=True))
        near = near * scale * scale.mT
        return near @ self.second(dg.relu(near @ self.first(x)))


class GraphAttention(nn.Module):
    def __init__(self) -> None:
        self.map, self.to, self.source = nn.Linear(4, 6), nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, x: Any, weights: Any) -> Any:
        h = self.map(x)
        scores = F.leaky_relu(self.to(h) + self.source(h).mT, 0.2)
        return dg.softmax(dg.where(weights > 0.3, scores, -1e9), axis=-1) @ h


class MessagePassing(nn.Module):
    """Messages along a list of edges, added up where they arrive."""

    def __init__(self) -> None:
        self.message, self.update = nn.Linear(4, 4), nn.Linear(8, 4)

    def forward(self, x: Any, source: Any, to: Any) -> Any:
        sent = dg.take(self.message(x), source, axis=0)
        arrived = dg.index_add(dg.zeros((6, 4)), 0, to, sent)
        return dg.tanh(self.update(dg.concat([x, arrived], axis=-1)))


class DeepSets(nn.Module):
    def __init__(self) -> None:
        self.each, self.all = nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return self.all(dg.tanh(self.each(x)).mean(axis=1))


# ---------------------------------------------------------------- science


class Euler(nn.Module):
    def __init__(self) -> None:
        self.slope = Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))

    def forward(self, x: Any) -> Any:
        for _ in range(4):
            x = x + 0.25 * self.slope(x)
        return x


class StateSpace(nn.Module):
    """A diagonal linear recurrence, unrolled by a cumulative sum of powers."""

    def __init__(self) -> None:
        self.decay, self.into, self.out = (
            nn.Parameter(dg.tensor([0.1, 0.3, 0.5])),
            nn.Linear(4, 3),
            nn.Linear(3, 4),
        )

    def forward(self, x: Any) -> Any:
        t = dg.arange(x.shape[1], dtype=x.dtype)
        power = dg.exp(self.decay * t[:, None])
        return self.out(dg.cumsum(self.into(x) * power, axis=1) / power)


class Siren(nn.Module):
    def __init__(self) -> None:
        self.first, self.second = nn.Linear(2, 8), nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        return self.second(dg.sin(5.0 * self.first(x)))


class FourierFeatures(nn.Module):
    def __init__(self) -> None:
        self.register_buffer("waves", dg.randn(2, 6))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Any) -> Any:
        angle = x @ self.waves * 3.0
        return self.head(dg.concat([dg.sin(angle), dg.cos(angle)], axis=-1))


class RadialBasis(nn.Module):
    def __init__(self) -> None:
        self.centres, self.width, self.head = (
            nn.Parameter(dg.randn(5, 2)),
            nn.Parameter(dg.ones((5,))),
            nn.Linear(5, 3),
        )

    def forward(self, x: Any) -> Any:
        away = ((x[:, None] - self.centres) ** 2).sum(axis=-1)
        return self.head(dg.exp(-away * self.width))


class Flow(nn.Module):
    """A coupling layer, with the logarithm of its determinant."""

    def __init__(self) -> None:
        self.net = Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6))

    def forward(self, x: Any) -> Any:
        a, b = x[:, ::2], x[:, 1::2]
        scale, shift = self.net(a).split(3, axis=-1)
        scale = dg.tanh(scale)
        y = b * dg.exp(scale) + shift
        return dg.stack([a, y], axis=-1).reshape(x.shape), scale.sum(axis=-1)


class CrfScores(nn.Module):
    """The logarithm of the sum over all paths, step by step."""

    def __init__(self) -> None:
        self.transitions = nn.Parameter(dg.randn(4, 4) * 0.3)

    def forward(self, x: Any) -> Any:
        state = x[:, 0]
        for k in range(1, x.shape[1]):
            state = dg.logsumexp(state[:, :, None] + self.transitions, axis=1) + x[:, k]
        return dg.logsumexp(state, axis=-1)


class VectorQuantiser(nn.Module):
    """The nearest code of a book, passed on as the input plus a difference without gradient."""

    def __init__(self) -> None:
        self.encode, self.book, self.decode = nn.Linear(6, 3), nn.Parameter(dg.randn(8, 3)), nn.Linear(3, 6)

    def forward(self, x: Any) -> Any:
        z = self.encode(x)
        away = ((z[:, None] - self.book) ** 2).sum(axis=-1)
        code = dg.argmin(away, axis=-1)
        found = dg.take(self.book, code, axis=0)
        return self.decode(z + (found - z).detach()), code


class Contrastive(nn.Module):
    def __init__(self) -> None:
        self.a, self.b, self.scale = nn.Linear(6, 4), nn.Linear(6, 4), nn.Parameter(dg.tensor(1.5))

    def forward(self, x: Any, y: Any) -> Any:
        logits = F.normalize(self.a(x), dim=-1) @ F.normalize(self.b(y), dim=-1).T * dg.exp(self.scale)
        place = dg.arange(logits.shape[0])
        return (dg.cross_entropy(logits, place) + dg.cross_entropy(logits.T, place)) / 2


class BeamStep(nn.Module):
    """One step of a beam search: the best of all continuations, and the beams that they continue."""

    def __init__(self) -> None:
        self.embed, self.head = nn.Embedding(16, 4), nn.Linear(4, 16)

    def forward(self, scores: Any, ids: Any) -> Any:
        grown = scores[..., None] + dg.log_softmax(self.head(self.embed(ids)), axis=-1)
        best, place = dg.topk(grown.flatten(1), 3)
        return best, place // 16, place % 16
