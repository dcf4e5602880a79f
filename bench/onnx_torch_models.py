"""Forty architectures as PyTorch modules at small widths: what `onnx_torch.py` has torch.onnx export."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class TorchCase(NamedTuple):
    """A module and its example inputs."""

    make: Callable[[], Any]
    inputs: Callable[[], tuple[Any, ...]]


def image() -> tuple[Any, ...]:
    return (torch.randn(2, 3, 16, 16),)


def sequence() -> tuple[Any, ...]:
    return (torch.randn(2, 6, 8),)


def tokens() -> tuple[Any, ...]:
    return (torch.randint(0, 16, (2, 6)),)


def conv(cin: int, cout: int, k: int = 3, s: int = 1, g: int = 1, act: Any = nn.ReLU) -> Any:
    layers = [nn.Conv2d(cin, cout, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([act()] if act else []))


def head(c: int, n: int = 5) -> Any:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, n))


class Fn(nn.Module):
    """Layers by name, and a function of them and the inputs."""

    def __init__(self, run: Any, **layers: Any):
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, nn.Parameter):
                self.register_parameter(name, layer)
            elif isinstance(layer, torch.Tensor):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)
        self.run = run

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def heads(x: Any, n: int) -> Any:
    return x.view(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


def joined(x: Any) -> Any:
    return x.transpose(1, 2).flatten(2)


class Shuffle(nn.Module):
    """Channels of two groups in turn (torch.onnx's older exporter has no rule for nn.ChannelShuffle)."""

    def forward(self, x: Any) -> Any:
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class Residual(nn.Module):
    def __init__(self, a: int, b: int, s: int = 1):
        super().__init__()
        self.one, self.two, self.short = conv(a, b, 3, s), conv(b, b, act=None), conv(a, b, 1, s, act=None)

    def forward(self, x: Any) -> Any:
        return F.relu(self.two(self.one(x)) + self.short(x))


def _dense(m: Any, x: Any) -> Any:
    for layer in m.layers:
        x = torch.cat([x, layer(x)], 1)
    return m.head(x)


def _inverted(m: Any, x: Any) -> Any:
    x = m.stem(x)
    y = m.depth(m.up(x))
    return m.head(x + m.down(y * m.excite(y)))


def _unet(m: Any, x: Any) -> Any:
    a = m.a(x)
    b = m.b(F.max_pool2d(a, 2))
    return m.out(torch.cat([m.up(b), a], 1))


def _fpn(m: Any, x: Any) -> Any:
    a = m.a(x)
    b = m.b(a)
    top = m.sb(b)
    return m.sa(a) + F.interpolate(top, scale_factor=2.0, mode="nearest"), top


def _mixer(m: Any, x: Any) -> Any:
    y = m.patch(x).flatten(2).transpose(1, 2)
    y = y + m.token(m.n1(y).transpose(1, 2)).transpose(1, 2)
    return m.head((y + m.channel(m.n2(y))).mean(1))


def _vit(m: Any, x: Any) -> Any:
    y = m.patch(x).flatten(2).transpose(1, 2)
    y = torch.cat([m.token.expand(y.shape[0], -1, -1), y], 1) + m.position
    return m.head(m.block(y)[:, 0])


def _convnext(m: Any, x: Any) -> Any:
    x = m.stem(x)
    y = m.norm(m.depth(x).permute(0, 2, 3, 1))
    return m.head(x + (m.gamma * m.down(F.gelu(m.up(y)))).permute(0, 3, 1, 2))


def _attend(m: Any, x: Any, causal: bool = False, bias: Any = None) -> Any:
    q, k, v = (heads(y, 2) for y in m.qkv(x).chunk(3, -1))
    return m.out(joined(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal)))


def _gpt(m: Any, ids: Any) -> Any:
    x = m.embed(ids) + m.position[: ids.shape[1]]
    x = x + _attend(m, m.n1(x), True)
    return m.head(x + m.down(F.gelu(m.up(m.n2(x)), approximate="tanh")))


def _rotary(x: Any) -> Any:
    t, half = x.shape[2], x.shape[3] // 2
    angle = torch.arange(t, dtype=torch.float32)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def _llama(m: Any, x: Any) -> Any:
    norm = lambda v, w: v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-6) * w
    q, k, v = (heads(y, 2) for y in m.qkv(norm(x, m.w1)).chunk(3, -1))
    x = x + m.out(joined(F.scaled_dot_product_attention(_rotary(q), _rotary(k), v, is_causal=True)))
    y = norm(x, m.w2)
    return x + m.down(F.silu(m.gate(y)) * m.up(y))


def _cached(m: Any, x: Any, key: Any, value: Any) -> Any:
    q, k, v = (heads(y, 2) for y in m.qkv(x).chunk(3, -1))
    k, v = torch.cat([key, k], 2), torch.cat([value, v], 2)
    return m.out(joined(F.scaled_dot_product_attention(q, k, v))), k, v


def _manual_attention(m: Any, x: Any) -> Any:
    q, k, v = (heads(y, 2) for y in m.qkv(x).chunk(3, -1))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    t = x.shape[1]
    scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
    return m.out(joined(scores.softmax(-1) @ v))


def _linear_attention(m: Any, x: Any) -> Any:
    q, k, v = (heads(y, 2) for y in m.qkv(x).chunk(3, -1))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return m.out(joined(q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(2, keepdim=True).transpose(-1, -2))))


def _seq2seq(m: Any, ids: Any) -> Any:
    y, h = m.gru(m.embed(ids))
    score = (y @ h[-1][:, :, None]).softmax(1)
    return m.head((score * y).sum(1))


def _wavenet(m: Any, x: Any) -> Any:
    for k, layer in enumerate(m.layers):
        a, b = layer(F.pad(x, (2**k, 0))).chunk(2, 1)
        x = x + torch.tanh(a) * torch.sigmoid(b)
    return x


def _graph(m: Any, x: Any, a: Any) -> Any:
    a = a + torch.eye(a.shape[-1])
    scale = a.sum(-1, keepdim=True).rsqrt()
    return m.b(F.relu((a * scale) @ m.a(x)))


def _yolo(m: Any, x: Any) -> Any:
    y = m.out(m.stem(x))
    n, _, h, w = y.shape
    y = y.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2)
    grid = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1).float()
    return torch.cat(
        [y[..., :2].sigmoid() * 2 - 0.5 + grid, y[..., 2:4].exp(), y[..., 4:].sigmoid()], -1
    ).view(n, -1, 7)


def _experts(m: Any, x: Any) -> Any:
    best, place = m.router(x).topk(2, -1)
    gates = torch.zeros(x.shape[0], 4).scatter(1, place, best.softmax(-1))
    return torch.einsum("be,bi,eio->bo", gates, x, m.weight)


def _pixel(m: Any, x: Any) -> Any:
    return torch.tanh(F.pixel_shuffle(m.b(F.relu(m.a(x))), 2))


def _style(m: Any, x: Any) -> Any:
    y = F.instance_norm(m.conv(x))
    scale, shift = m.map(x.mean((2, 3))).chunk(2, 1)
    return F.leaky_relu(y * (1 + scale[..., None, None]) + shift[..., None, None], 0.2)


def _lstm_cell(m: Any, x: Any) -> Any:
    h = c = torch.zeros(x.shape[0], 5)
    for k in range(4):
        h, c = m.cell(x[:, k], (h, c))
    return m.head(h)


def _attention_layers() -> dict[str, Any]:
    return {"qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8)}


def _encoder() -> Any:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS: dict[str, TorchCase] = {
    "mlp": TorchCase(
        lambda: nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5), nn.Softmax(-1)), sequence
    ),
    "mlp_norms": TorchCase(
        lambda: nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12), nn.SiLU(), nn.Linear(12, 5)), sequence
    ),
    "lenet": TorchCase(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(144, 5)
        ),
        image,
    ),
    "vgg": TorchCase(
        lambda: nn.Sequential(
            conv(3, 4),
            nn.MaxPool2d(2),
            conv(4, 6),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(96, 5),
        ),
        image,
    ),
    "resnet": TorchCase(lambda: nn.Sequential(conv(3, 4), Residual(4, 4), Residual(4, 6, 2), head(6)), image),
    "resnext": TorchCase(lambda: nn.Sequential(conv(3, 8), conv(8, 8, g=4), conv(8, 8, 1), head(8)), image),
    "densenet": TorchCase(
        lambda: Fn(_dense, layers=nn.ModuleList([conv(3 + 4 * k, 4) for k in range(3)]), head=head(15)), image
    ),
    "mobilenet": TorchCase(
        lambda: Fn(
            _inverted,
            stem=conv(3, 4, s=2, act=nn.Hardswish),
            up=conv(4, 8, 1, act=nn.ReLU6),
            depth=conv(8, 8, g=8, act=nn.Hardswish),
            excite=nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Hardsigmoid()
            ),
            down=conv(8, 4, 1, act=None),
            head=head(4),
        ),
        image,
    ),
    "efficientnet": TorchCase(
        lambda: Fn(
            _inverted,
            stem=conv(3, 4, act=nn.SiLU),
            up=conv(4, 8, 1, act=nn.SiLU),
            depth=conv(8, 8, g=8, act=nn.SiLU),
            excite=nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.SiLU(), nn.Conv2d(2, 8, 1), nn.Sigmoid()
            ),
            down=conv(8, 4, 1, act=None),
            head=head(4),
        ),
        image,
    ),
    "shufflenet": TorchCase(lambda: nn.Sequential(conv(3, 8), Shuffle(), conv(8, 8, g=2), head(8)), image),
    "squeezenet": TorchCase(
        lambda: nn.Sequential(conv(3, 4, 1), nn.MaxPool2d(3, 2, ceil_mode=True), conv(4, 6), head(6)), image
    ),
    "inception": TorchCase(
        lambda: Fn(
            lambda m, x: m.head(torch.cat([m.a(x), m.b(x), m.c(x)], 1)),
            a=conv(3, 2, 1),
            b=conv(3, 3, 3),
            c=conv(3, 3, 5),
            head=head(8),
        ),
        image,
    ),
    "convnext": TorchCase(
        lambda: Fn(
            _convnext,
            stem=nn.Conv2d(3, 6, 4, 4),
            depth=nn.Conv2d(6, 6, 3, padding=1, groups=6),
            norm=nn.LayerNorm(6),
            up=nn.Linear(6, 12),
            down=nn.Linear(12, 6),
            gamma=nn.Parameter(torch.rand(6)),
            head=head(6),
        ),
        image,
    ),
    "unet": TorchCase(
        lambda: Fn(
            _unet, a=conv(3, 4), b=conv(4, 6), up=nn.ConvTranspose2d(6, 4, 2, 2), out=nn.Conv2d(8, 2, 1)
        ),
        image,
    ),
    "unet_bilinear": TorchCase(
        lambda: Fn(
            _unet,
            a=conv(3, 4),
            b=conv(4, 6),
            up=nn.Upsample(scale_factor=2, mode="bilinear"),
            out=nn.Conv2d(10, 2, 1),
        ),
        image,
    ),
    "fpn": TorchCase(
        lambda: Fn(_fpn, a=conv(3, 4, s=2), b=conv(4, 6, s=2), sa=nn.Conv2d(4, 4, 1), sb=nn.Conv2d(6, 4, 1)),
        image,
    ),
    "super_resolution": TorchCase(
        lambda: Fn(_pixel, a=nn.Conv2d(3, 6, 3, padding=1), b=nn.Conv2d(6, 12, 3, padding=1)), image
    ),
    "gan_generator": TorchCase(
        lambda: nn.Sequential(
            nn.Linear(8, 32),
            nn.Unflatten(1, (8, 2, 2)),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 3, 3, 2, 1, output_padding=1),
            nn.Tanh(),
        ),
        lambda: (torch.randn(2, 8),),
    ),
    "discriminator": TorchCase(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4, 6, 4, 2, 1),
            nn.InstanceNorm2d(6, affine=True),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(96, 1),
        ),
        image,
    ),
    "style": TorchCase(lambda: Fn(_style, conv=nn.Conv2d(3, 4, 3, padding=1), map=nn.Linear(3, 8)), image),
    "mlp_mixer": TorchCase(
        lambda: Fn(
            _mixer,
            patch=nn.Conv2d(3, 8, 4, 4),
            n1=nn.LayerNorm(8),
            n2=nn.LayerNorm(8),
            token=nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 16)),
            channel=nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)),
            head=nn.Linear(8, 5),
        ),
        image,
    ),
    "vit": TorchCase(
        lambda: Fn(
            _vit,
            patch=nn.Conv2d(3, 8, 4, 4),
            token=nn.Parameter(torch.randn(1, 1, 8)),
            position=nn.Parameter(torch.randn(1, 17, 8)),
            block=_encoder(),
            head=nn.Linear(8, 5),
        ),
        image,
    ),
    "video": TorchCase(
        lambda: nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.AvgPool3d(2),
            nn.Flatten(),
            nn.Linear(32, 5),
        ),
        lambda: (torch.randn(2, 3, 4, 8, 8),),
    ),
    "transposed_3d": TorchCase(
        lambda: nn.Sequential(nn.ConvTranspose3d(3, 2, 2, 2), nn.GroupNorm(1, 2), nn.Conv3d(2, 1, 1)),
        lambda: (torch.randn(1, 3, 3, 3, 3),),
    ),
    "audio": TorchCase(
        lambda: nn.Sequential(
            nn.Conv1d(1, 4, 8, 4),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        ),
        lambda: (torch.randn(2, 1, 64),),
    ),
    "wavenet": TorchCase(
        lambda: Fn(_wavenet, layers=nn.ModuleList([nn.Conv1d(4, 8, 2, dilation=2**k) for k in range(3)])),
        lambda: (torch.randn(2, 4, 20),),
    ),
    "transformer_encoder": TorchCase(_encoder, sequence),
    "transformer": TorchCase(
        lambda: Fn(
            lambda m, x, y: m.body(x, y, src_is_causal=False, tgt_is_causal=False),
            body=nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        ),
        lambda: (torch.randn(2, 6, 8), torch.randn(2, 4, 8)),
    ),
    "multihead": TorchCase(
        lambda: Fn(lambda m, x: m.a(x, x, x)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)), sequence
    ),
    "bert": TorchCase(
        lambda: Fn(
            lambda m, ids: m.head(m.body(m.norm(m.embed(ids) + m.position(torch.arange(ids.shape[1]))))),
            embed=nn.Embedding(16, 8),
            position=nn.Embedding(32, 8),
            norm=nn.LayerNorm(8),
            body=_encoder(),
            head=nn.Linear(8, 16),
        ),
        tokens,
    ),
    "gpt": TorchCase(
        lambda: Fn(
            _gpt,
            embed=nn.Embedding(16, 8),
            position=nn.Parameter(torch.randn(32, 8)),
            n1=nn.LayerNorm(8),
            n2=nn.LayerNorm(8),
            up=nn.Linear(8, 16),
            down=nn.Linear(16, 8),
            head=nn.Linear(8, 16, bias=False),
            **_attention_layers(),
        ),
        tokens,
    ),
    "llama": TorchCase(
        lambda: Fn(
            _llama,
            w1=nn.Parameter(torch.rand(8)),
            w2=nn.Parameter(torch.rand(8)),
            gate=nn.Linear(8, 12),
            up=nn.Linear(8, 12),
            down=nn.Linear(12, 8),
            **_attention_layers(),
        ),
        sequence,
    ),
    "cached_step": TorchCase(
        lambda: Fn(_cached, **_attention_layers()),
        lambda: (torch.randn(2, 1, 8), torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)),
    ),
    "masked_attention": TorchCase(lambda: Fn(_manual_attention, **_attention_layers()), sequence),
    "linear_attention": TorchCase(lambda: Fn(_linear_attention, **_attention_layers()), sequence),
    "lstm": TorchCase(
        lambda: Fn(
            lambda m, ids: m.head(m.lstm(m.embed(ids))[0]),
            embed=nn.Embedding(16, 6),
            lstm=nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
            head=nn.Linear(10, 4),
        ),
        tokens,
    ),
    "gru_attention": TorchCase(
        lambda: Fn(
            _seq2seq, embed=nn.Embedding(16, 6), gru=nn.GRU(6, 5, batch_first=True), head=nn.Linear(5, 4)
        ),
        tokens,
    ),
    "rnn": TorchCase(lambda: Fn(lambda m, x: m.rnn(x)[0], rnn=nn.RNN(8, 5, batch_first=True)), sequence),
    "lstm_cell": TorchCase(lambda: Fn(_lstm_cell, cell=nn.LSTMCell(8, 5), head=nn.Linear(5, 3)), sequence),
    "graph_convolution": TorchCase(
        lambda: Fn(_graph, a=nn.Linear(4, 6), b=nn.Linear(6, 3)),
        lambda: (torch.randn(2, 5, 4), torch.rand(2, 5, 5)),
    ),
    "yolo": TorchCase(lambda: Fn(_yolo, stem=conv(3, 4, s=2), out=nn.Conv2d(4, 14, 1)), image),
    "experts": TorchCase(
        lambda: Fn(_experts, router=nn.Linear(8, 4), weight=nn.Parameter(torch.randn(4, 8, 5))),
        lambda: (torch.randn(3, 8),),
    ),
    "embedding_bag": TorchCase(
        lambda: Fn(
            lambda m, ids: m.head(m.embed(ids).mean(1)), embed=nn.Embedding(16, 6), head=nn.Linear(6, 3)
        ),
        tokens,
    ),
    "siren": TorchCase(
        lambda: Fn(lambda m, x: m.b(torch.sin(5 * m.a(x))), a=nn.Linear(8, 12), b=nn.Linear(12, 3)), sequence
    ),
}
