"""Networks over sequences for ONNX round trips: recurrent, convolutional, transformers with and without a cache."""

from __future__ import annotations

import math
from typing import Any

import duograd as dg

from .. import nn
from ..nn import functional as F
from ..nn.utils import rnn

Sequential = nn.Sequential


def heads(x: Any, count: int) -> Any:
    """[B, T, D] as [B, heads, T, D / heads]."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).permute(0, 2, 1, 3)


def joined(x: Any) -> Any:
    """[B, heads, T, D] as [B, T, heads * D]."""
    return x.permute(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


class Attend(nn.Module):
    """Attention of one sequence over another; the weights are an output."""

    def __init__(self, d: int = 8, count: int = 2):
        self.attend = nn.MultiheadAttention(d, count, batch_first=True)

    def forward(self, x: Any, memory: Any) -> Any:
        return self.attend(x, memory, memory)


class Block(nn.Module):
    """A decoder block that attends to what came before."""

    def __init__(self, d: int = 8, count: int = 2):
        self.count = count
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: Any) -> Any:
        q, k, v = (heads(y, self.count) for y in self.qkv(self.norm1(x)).split(x.shape[-1], axis=-1))
        x = x + self.out(joined(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        return x + self.down(dg.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self) -> None:
        self.embed, self.position = nn.Embedding(16, 8), nn.Parameter(dg.randn(64, 8) * 0.1)
        self.blocks, self.norm, self.head = (
            nn.ModuleList([Block(), Block()]),
            nn.LayerNorm(8),
            nn.Linear(8, 16, bias=False),
        )

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids) + self.position[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class TiedGpt(Gpt):
    """The embedding is the last layer's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight = self.embed.weight


class CachedStep(nn.Module):
    """One token against cached keys and values; the grown cache is an output."""

    def __init__(self) -> None:
        self.embed, self.qkv, self.out, self.head = (
            nn.Embedding(16, 8),
            nn.Linear(8, 24),
            nn.Linear(8, 8),
            nn.Linear(8, 16),
        )

    def forward(self, ids: Any, past_key: Any, past_value: Any) -> Any:
        x = self.embed(ids)
        q, k, v = (heads(y, 2) for y in self.qkv(x).split(8, axis=-1))
        k, v = dg.concat([past_key, k], axis=2), dg.concat([past_value, v], axis=2)
        x = x + self.out(joined(F.scaled_dot_product_attention(q, k, v)))
        return self.head(x), k, v


def rotated(x: Any, start: Any = 0) -> Any:
    """Rotary positions on [B, H, T, D]."""
    half = x.shape[-1] // 2
    rate = 10000.0 ** (-dg.arange(half, dtype=x.dtype) / half)
    angle = (dg.arange(x.shape[2], dtype=x.dtype) + start)[:, None] * rate
    a, b = x[..., :half], x[..., half:]
    cos, sin = dg.cos(angle), dg.sin(angle)
    return dg.concat([a * cos - b * sin, b * cos + a * sin], axis=-1)


class LlamaBlock(nn.Module):
    def __init__(self) -> None:
        self.norm1, self.norm2 = nn.RMSNorm(8), nn.RMSNorm(8)
        self.qkv, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False)
        self.gate, self.up, self.down = (nn.Linear(a, b, bias=False) for a, b in ((8, 12), (8, 12), (12, 8)))

    def feed(self, x: Any) -> Any:
        y = self.norm2(x)
        return x + self.down(dg.silu(self.gate(y)) * self.up(y))

    def forward(self, x: Any) -> Any:
        q, k, v = (heads(y, 2) for y in self.qkv(self.norm1(x)).split(8, axis=-1))
        x = x + self.out(joined(F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)))
        return self.feed(x)


class LlamaCached(LlamaBlock):
    """New tokens after a cache of any length: positions go on, and each sees what is before it."""

    def forward(self, x: Any, past_key: Any, past_value: Any) -> Any:
        past = past_key.shape[2]
        q, k, v = (heads(y, 2) for y in self.qkv(self.norm1(x)).split(8, axis=-1))
        k, v = dg.concat([past_key, rotated(k, past)], axis=2), dg.concat([past_value, v], axis=2)
        here, all_ = dg.arange(x.shape[1])[:, None] + past, dg.arange(k.shape[2])
        y = F.scaled_dot_product_attention(rotated(q, past), k, v, attn_mask=all_ <= here)
        return self.feed(x + self.out(joined(y))), k, v


class GroupedQuery(nn.Module):
    """Four heads of queries share two of keys and values."""

    def __init__(self) -> None:
        self.q, self.kv, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        k, v = (heads(y, 2) for y in self.kv(x).split(4, axis=-1))
        return self.out(
            joined(F.scaled_dot_product_attention(heads(self.q(x), 4), k, v, is_causal=True, enable_gqa=True))
        )


class SlidingWindow(nn.Module):
    def __init__(self) -> None:
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Any) -> Any:
        q, k, v = (heads(y, 2) for y in self.qkv(x).split(8, axis=-1))
        place = dg.arange(x.shape[1])
        away = place[:, None] - place
        return joined(F.scaled_dot_product_attention(q, k, v, attn_mask=(away >= 0) & (away < 3)))


class Alibi(nn.Module):
    def __init__(self) -> None:
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Any) -> Any:
        q, k, v = (heads(y, 2) for y in self.qkv(x).split(8, axis=-1))
        place = dg.arange(x.shape[1], dtype=x.dtype)
        slope = dg.tensor([0.5, 0.25]).reshape(2, 1, 1)
        scores = q @ k.mT / math.sqrt(4) - slope * dg.abs(place[:, None] - place)
        return joined(dg.softmax(scores, axis=-1) @ v)


class RelativePositions(nn.Module):
    """A learnt bias for every distance, looked up by a fixed table."""

    def __init__(self) -> None:
        self.qkv, self.bias = nn.Linear(8, 24), nn.Parameter(dg.randn(2, 11) * 0.1)

    def forward(self, x: Any) -> Any:
        q, k, v = (heads(y, 2) for y in self.qkv(x).split(8, axis=-1))
        place = dg.arange(6)
        bias = dg.take(self.bias, place[:, None] - place + 5, axis=1)
        return joined(dg.softmax(q @ k.mT * 0.5 + bias, axis=-1) @ v)


class LinearAttention(nn.Module):
    def __init__(self) -> None:
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Any) -> Any:
        q, k, v = (heads(y, 2) for y in self.qkv(x).split(8, axis=-1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        total = q @ (k.mT @ v)
        return joined(total / (q @ k.sum(axis=2)[..., None]))


class AttentionPooling(nn.Module):
    def __init__(self) -> None:
        self.query, self.attend = (
            nn.Parameter(dg.randn(1, 1, 8)),
            nn.MultiheadAttention(8, 2, batch_first=True),
        )

    def forward(self, x: Any) -> Any:
        query = dg.broadcast_to(self.query, (x.shape[0], 1, 8))
        return self.attend(query, x, x, need_weights=False)[0][:, 0]


class Perceiver(nn.Module):
    """A few latent vectors read a sequence."""

    def __init__(self) -> None:
        self.latent, self.attend, self.head = (
            nn.Parameter(dg.randn(1, 3, 8)),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 5),
        )

    def forward(self, x: Any) -> Any:
        latent = dg.broadcast_to(self.latent, (x.shape[0], 3, 8))
        return self.head((latent + self.attend(latent, x, x, need_weights=False)[0]).mean(axis=1))


class Encoder(nn.Module):
    """A BERT of two layers."""

    def __init__(self) -> None:
        self.embed, self.position, self.norm = nn.Embedding(16, 8), nn.Embedding(64, 8), nn.LayerNorm(8)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True), 2
        )
        self.head = nn.Linear(8, 16)

    def forward(self, ids: Any) -> Any:
        x = self.norm(self.embed(ids) + self.position(dg.arange(ids.shape[1])))
        return self.head(self.encoder(x))


class MaskedEncoder(Encoder):
    """The same with lengths: what lies behind the end is not attended to."""

    def forward(self, ids: Any, lengths: Any) -> Any:
        x = self.norm(self.embed(ids) + self.position(dg.arange(ids.shape[1])))
        hidden = dg.arange(ids.shape[1]) >= lengths[:, None]
        return self.head(self.encoder(x, src_key_padding_mask=hidden))


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        self.embed, self.body = nn.Embedding(16, 8), nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        self.head = nn.Linear(8, 16)

    def forward(self, ids: Any, target: Any) -> Any:
        length = target.shape[1]
        place = dg.arange(length)
        mask = dg.where(place[:, None] >= place, 0.0, -1e9)
        return self.head(self.body(self.embed(ids), self.embed(target), tgt_mask=mask))


# ---------------------------------------------------------------- recurrent


class LstmTagger(nn.Module):
    def __init__(self) -> None:
        self.embed, self.lstm, self.head = (
            nn.Embedding(16, 6),
            nn.LSTM(6, 5, batch_first=True, bidirectional=True),
            nn.Linear(10, 4),
        )

    def forward(self, ids: Any) -> Any:
        return self.head(self.lstm(self.embed(ids))[0])


class GruClassifier(nn.Module):
    def __init__(self) -> None:
        self.embed, self.gru, self.head = (
            nn.Embedding(16, 6),
            nn.GRU(6, 5, 2, batch_first=True),
            nn.Linear(5, 4),
        )

    def forward(self, ids: Any) -> Any:
        return self.head(self.gru(self.embed(ids))[1][-1])


class RnnLanguageModel(nn.Module):
    def __init__(self) -> None:
        self.embed, self.rnn, self.head = (
            nn.Embedding(16, 6),
            nn.RNN(6, 5, batch_first=True),
            nn.Linear(5, 16),
        )

    def forward(self, ids: Any) -> Any:
        y, state = self.rnn(self.embed(ids))
        return self.head(y), state


class LstmStates(nn.Module):
    """States go in and out."""

    def __init__(self) -> None:
        self.lstm = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: Any, h: Any, c: Any) -> Any:
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c


class LstmLengths(nn.Module):
    def __init__(self) -> None:
        self.lstm = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.lstm(x, lengths=lengths)[0]


class Packed(nn.Module):
    """Rows of known lengths, packed, through a projected LSTM and padded again."""

    def __init__(self) -> None:
        self.lstm = nn.LSTM(8, 5, proj_size=3, batch_first=True, bidirectional=True)

    def forward(self, x: Any) -> Any:
        packed = rnn.pack_padded_sequence(x, [4, 6], batch_first=True, enforce_sorted=False)
        y, (h, _) = self.lstm(packed)
        return rnn.pad_packed_sequence(y, batch_first=True)[0], h


class Unrolled(nn.Module):
    def __init__(self) -> None:
        self.cell, self.head = nn.LSTMCell(6, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        state = None
        for k in range(x.shape[1]):
            state = self.cell(x[:, k], state)
        return self.head(state[0])


class Seq2Seq(nn.Module):
    """A GRU whose steps look back at an encoder."""

    def __init__(self) -> None:
        self.embed, self.encode, self.cell = (
            nn.Embedding(16, 6),
            nn.GRU(6, 5, batch_first=True),
            nn.GRUCell(11, 5),
        )
        self.score, self.head = nn.Linear(10, 1), nn.Linear(5, 16)

    def forward(self, ids: Any, target: Any) -> Any:
        memory, state = self.encode(self.embed(ids))
        h, out = state[0], []
        for k in range(target.shape[1]):
            near = dg.broadcast_to(h[:, None], memory.shape)
            weight = dg.softmax(self.score(dg.tanh(dg.concat([memory, near], axis=-1))), axis=1)
            h = self.cell(dg.concat([self.embed(target[:, k]), (weight * memory).sum(axis=1)], axis=-1), h)
            out.append(self.head(h))
        return dg.stack(out, axis=1)


# ---------------------------------------------------------------- convolutional


def audio() -> Any:
    return Sequential(
        nn.Conv1d(1, 4, 8, stride=4), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 6, 3, padding=1), nn.MaxPool1d(2),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


class WaveNet(nn.Module):
    """Gated causal convolutions with growing dilation."""

    def __init__(self) -> None:
        self.layers = nn.ModuleList([nn.Conv1d(4, 8, 2, dilation=2**k) for k in range(3)])
        self.sides = nn.ModuleList([nn.Conv1d(4, 4, 1) for _ in range(3)])

    def forward(self, x: Any) -> Any:
        total = None
        for k, (layer, side) in enumerate(zip(self.layers, self.sides)):
            a, b = layer(F.pad(x, (2**k, 0))).split(4, axis=1)
            y = side(dg.tanh(a) * dg.sigmoid(b))
            x, total = x + y, y if total is None else total + y
        return total


class TemporalConv(nn.Module):
    def __init__(self) -> None:
        self.a, self.b, self.norm = nn.Conv1d(4, 6, 3, dilation=2), nn.Conv1d(6, 4, 1), nn.GroupNorm(2, 6)

    def forward(self, x: Any) -> Any:
        return dg.relu(x + self.b(F.gelu(self.norm(self.a(F.pad(x, (4, 0)))))))
