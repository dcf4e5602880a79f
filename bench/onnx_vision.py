"""Networks over images, video and points for ONNX round trips, each at a width of a few channels."""

from __future__ import annotations

from typing import Any

import duograd as dg

from .. import nn
from ..nn import functional as F

Sequential = nn.Sequential


def conv(cin: int, cout: int, k: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU) -> Any:
    """Convolution, BatchNorm, activation."""
    layers = [
        nn.Conv2d(cin, cout, k, stride=stride, padding=k // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    return Sequential(*layers, act()) if act else Sequential(*layers)


def head(channels: int, classes: int = 5) -> Any:
    """Global average and a linear layer."""
    return Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def lenet() -> Any:
    return Sequential(
        nn.Conv2d(3, 4, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 5),
    )  # fmt: skip


def vgg() -> Any:
    return Sequential(
        conv(3, 4), conv(4, 4), nn.MaxPool2d(2), conv(4, 6), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(96, 5),
    )  # fmt: skip


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, cin: int, cout: int, stride: int = 1, groups: int = 1):
        self.first, self.second = conv(cin, cout, 3, stride), conv(cout, cout, 3, groups=groups, act=None)
        self.short = nn.Identity() if (cin, stride) == (cout, 1) else conv(cin, cout, 1, stride, act=None)

    def forward(self, x: Any) -> Any:
        return dg.relu(self.second(self.first(x)) + self.short(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        self.stem = conv(3, 4)
        self.stages = nn.ModuleList([Residual(4, 4), Residual(4, 8, 2), Residual(8, 8)])
        self.head = head(8)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


class PreActivation(nn.Module):
    def __init__(self) -> None:
        self.stem, self.norm, self.body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.head = head(4)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        return self.head(x + self.body(dg.relu(self.norm(x))))


class ResNeXt(nn.Module):
    def __init__(self) -> None:
        self.stem, self.block, self.head = conv(3, 8), Residual(8, 8, groups=4), head(8)

    def forward(self, x: Any) -> Any:
        return self.head(self.block(self.stem(x)))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        self.layers = nn.ModuleList([conv(3 + 4 * k, 4) for k in range(3)])
        self.transition, self.head = Sequential(conv(15, 6, 1), nn.AvgPool2d(2)), head(6)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = dg.concat([x, layer(x)], axis=1)
        return self.head(self.transition(x))


class Inverted(nn.Module):
    """Expand, depthwise, squeeze and excite, project."""

    def __init__(self, c: int, wide: int, act: Any, excite: bool):
        self.expand, self.depth, self.project = (
            conv(c, wide, 1, act=act), conv(wide, wide, 3, groups=wide, act=act), conv(wide, c, 1, act=None),
        )  # fmt: skip
        self.excite = (
            Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(wide, 2, 1),
                nn.ReLU(),
                nn.Conv2d(2, wide, 1),
                nn.Hardsigmoid(),
            )
            if excite
            else None
        )

    def forward(self, x: Any) -> Any:
        y = self.depth(self.expand(x))
        if self.excite is not None:
            y = y * self.excite(y)
        return x + self.project(y)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        self.stem, self.head = conv(3, 4, stride=2, act=nn.Hardswish), head(4)
        self.blocks = Sequential(Inverted(4, 8, nn.ReLU6, False), Inverted(4, 8, nn.Hardswish, True))

    def forward(self, x: Any) -> Any:
        return self.head(self.blocks(self.stem(x)))


class EfficientNet(MobileNet):
    def __init__(self) -> None:
        self.stem, self.head = conv(3, 4, act=nn.SiLU), head(4)
        self.blocks = Sequential(Inverted(4, 8, nn.SiLU, True), Inverted(4, 8, nn.SiLU, True))


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        self.stem, self.right, self.mix, self.head = conv(3, 8), conv(4, 4), nn.ChannelShuffle(2), head(8)

    def forward(self, x: Any) -> Any:
        a, b = self.stem(x).split(4, axis=1)
        return self.head(self.mix(dg.concat([a, self.right(b)], axis=1)))


class SqueezeNet(nn.Module):
    def __init__(self) -> None:
        self.squeeze, self.one, self.three = conv(3, 3, 1), conv(3, 4, 1), conv(3, 4, 3)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(self.squeeze(x), 3, 2, ceil_mode=True)
        return self.last(dg.concat([self.one(x), self.three(x)], axis=1)).mean(axis=(2, 3))


class Inception(nn.Module):
    def __init__(self) -> None:
        self.a, self.b = conv(3, 2, 1), Sequential(conv(3, 2, 1), conv(2, 3, 3))
        self.c, self.d = (
            Sequential(conv(3, 2, 1), conv(2, 3, 5)),
            Sequential(nn.MaxPool2d(3, 1, 1), conv(3, 2, 1)),
        )
        self.head = head(10)

    def forward(self, x: Any) -> Any:
        return self.head(dg.concat([f(x) for f in (self.a, self.b, self.c, self.d)], axis=1))


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        self.stem, self.depth = nn.Conv2d(3, 6, 4, stride=4), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.gamma, self.head = nn.Parameter(dg.full((6,), 0.1)), head(6)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(dg.gelu(self.up(y)))
        return self.head(x + y.permute(0, 3, 1, 2))


class HighwayCnn(nn.Module):
    def __init__(self) -> None:
        self.stem, self.value, self.gate, self.head = (
            conv(3, 4), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), head(4),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        gate = dg.sigmoid(self.gate(x))
        return self.head(gate * dg.tanh(self.value(x)) + (1 - gate) * x)


class SpatialTransformer(nn.Module):
    """A network that finds an affine map and samples the image by it."""

    def __init__(self) -> None:
        self.locate, self.last = head(3, 6), conv(3, 4)
        self.head = head(4)

    def forward(self, x: Any) -> Any:
        theta = self.locate(x).reshape(-1, 2, 3) * 0.3 + dg.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        grid = F.affine_grid(theta, x.shape, align_corners=False)
        return self.head(self.last(F.grid_sample(x, grid, align_corners=False)))


# ---------------------------------------------------------------- dense prediction


class UNet(nn.Module):
    def __init__(self) -> None:
        self.down1, self.down2, self.floor = conv(3, 4), conv(4, 6), conv(6, 8)
        self.up2, self.join2 = nn.ConvTranspose2d(8, 6, 2, stride=2), conv(12, 6)
        self.up1, self.join1 = nn.ConvTranspose2d(6, 4, 2, stride=2), conv(8, 4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Any) -> Any:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.floor(F.max_pool2d(b, 2))
        b = self.join2(dg.concat([self.up2(c), b], axis=1))
        return self.last(self.join1(dg.concat([self.up1(b), a], axis=1)))


class UNetBilinear(nn.Module):
    def __init__(self) -> None:
        self.down, self.floor, self.join, self.last = conv(3, 4), conv(4, 6), conv(10, 4), nn.Conv2d(4, 2, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: Any) -> Any:
        a = self.down(x)
        b = self.floor(F.max_pool2d(a, 2))
        return dg.sigmoid(self.last(self.join(dg.concat([self.up(b), a], axis=1))))


class SegNet(nn.Module):
    """Upsampling to the places that max pooling chose."""

    def __init__(self) -> None:
        self.down, self.up = conv(3, 4), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Any) -> Any:
        y, places = F.max_pool2d(self.down(x), 2, return_indices=True)
        return self.up(F.max_unpool2d(y, places, 2))


class FeaturePyramid(nn.Module):
    def __init__(self) -> None:
        self.c1, self.c2, self.c3 = conv(3, 4, stride=2), conv(4, 6, stride=2), conv(6, 8, stride=2)
        self.sides = nn.ModuleList([nn.Conv2d(c, 4, 1) for c in (4, 6, 8)])
        self.smooth = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        levels = [self.c1(x)]
        levels.append(self.c2(levels[-1]))
        levels.append(self.c3(levels[-1]))
        top = self.sides[2](levels[2])
        out = [top]
        for k in (1, 0):
            top = self.sides[k](levels[k]) + F.interpolate(top, scale_factor=2, mode="nearest")
            out.append(self.smooth(top))
        return tuple(out)


def fully_convolutional() -> Any:
    return Sequential(conv(3, 4), nn.Conv2d(4, 2, 1), nn.Softmax(1))


class DeepLab(nn.Module):
    def __init__(self) -> None:
        self.stem = conv(3, 4, stride=2)
        self.branches = nn.ModuleList(
            [nn.Conv2d(4, 3, 3, padding=d, dilation=d, bias=False) for d in (1, 2, 3)]
        )
        self.whole, self.last = Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1)), nn.Conv2d(12, 2, 1)

    def forward(self, x: Any) -> Any:
        y = self.stem(x)
        whole = dg.broadcast_to(self.whole(y), (y.shape[0], 3, *y.shape[2:]))
        y = self.last(dg.concat([*(b(y) for b in self.branches), whole], axis=1))
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)


def super_resolution() -> Any:
    return Sequential(conv(3, 6), nn.Conv2d(6, 12, 3, padding=1), nn.PixelShuffle(2), nn.Tanh())


def generator() -> Any:
    return Sequential(
        nn.Linear(6, 32), nn.Unflatten(1, (8, 2, 2)), nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip


def discriminator() -> Any:
    return Sequential(
        nn.Conv2d(3, 4, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(4, 6, 4, stride=2, padding=1),
        nn.InstanceNorm2d(6), nn.LeakyReLU(0.2), nn.Conv2d(6, 1, 4), nn.Flatten(),
    )  # fmt: skip


class StyleBlock(nn.Module):
    """A normalised image scaled and shifted by a style."""

    def __init__(self) -> None:
        self.conv, self.norm, self.style = (
            nn.Conv2d(4, 4, 3, padding=1),
            nn.InstanceNorm2d(4),
            nn.Linear(6, 8),
        )

    def forward(self, x: Any, style: Any) -> Any:
        scale, shift = self.style(style).reshape(-1, 2, 4, 1, 1).unbind(1)
        return dg.nn.functional.leaky_relu(self.norm(self.conv(x)) * (1 + scale) + shift, 0.2)


# ---------------------------------------------------------------- images as sequences


class Patches(nn.Module):
    """An image as a sequence of projected patches."""

    def __init__(self, d: int, size: int):
        self.project = nn.Conv2d(3, d, size, stride=size)

    def forward(self, x: Any) -> Any:
        return self.project(x).flatten(2).permute(0, 2, 1)


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        self.patches, self.token = Patches(8, 4), nn.Parameter(dg.randn(1, 1, 8))
        self.position = nn.Parameter(dg.randn(1, 17, 8) * 0.1)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8)), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        y = self.patches(x)
        token = dg.broadcast_to(self.token, (y.shape[0], 1, 8))
        return self.head(self.encoder(dg.concat([token, y], axis=1) + self.position)[:, 0])


class SwinBlock(nn.Module):
    """Attention inside shifted windows of a map [N, H, W, C]."""

    def __init__(self) -> None:
        self.norm, self.attend = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        n, h, w, c = x.shape
        y = dg.roll(self.norm(x), (-2, -2), axis=(1, 2))
        y = y.reshape(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.attend(y, y, y, need_weights=False)[0]
        y = y.reshape(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return x + dg.roll(y, (2, 2), axis=(1, 2))


class Mixer(nn.Module):
    def __init__(self) -> None:
        self.patches, self.norm1, self.norm2 = Patches(8, 4), nn.LayerNorm(8), nn.LayerNorm(8)
        self.tokens = Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 16))
        self.channels = Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        y = self.patches(x)
        y = y + self.tokens(self.norm1(y).mT).mT
        y = y + self.channels(self.norm2(y))
        return self.head(y.mean(axis=1))


def video() -> Any:
    return Sequential(
        nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(4, 4, (3, 1, 1)), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


class ConvLstm(nn.Module):
    """A recurrent cell whose products are convolutions, over [N, T, C, H, W]."""

    def __init__(self) -> None:
        self.gates = nn.Conv2d(3 + 4, 16, 3, padding=1)

    def forward(self, x: Any) -> Any:
        h = c = dg.zeros((x.shape[0], 4, *x.shape[3:]))
        for k in range(x.shape[1]):
            i, f, g, o = self.gates(dg.concat([x[:, k], h], axis=1)).split(4, axis=1)
            c = dg.sigmoid(f) * c + dg.sigmoid(i) * dg.tanh(g)
            h = dg.sigmoid(o) * dg.tanh(c)
        return h


class Crnn(nn.Module):
    """Convolutions read by an LSTM column by column."""

    def __init__(self) -> None:
        self.conv, self.lstm, self.head = (
            conv(3, 4, stride=2),
            nn.LSTM(32, 6, bidirectional=True),
            nn.Linear(12, 5),
        )

    def forward(self, x: Any) -> Any:
        y = self.conv(x).permute(3, 0, 1, 2).flatten(2)
        return dg.log_softmax(self.head(self.lstm(y)[0]), axis=-1)


# ---------------------------------------------------------------- detection


class YoloHead(nn.Module):
    """Boxes, objectness and classes on a grid, decoded to pixels."""

    def __init__(self) -> None:
        self.stem, self.head = conv(3, 6, stride=2), nn.Conv2d(6, 2 * 8, 1)

    def forward(self, x: Any) -> Any:
        y = self.head(self.stem(x))
        n, _, h, w = y.shape
        y = y.reshape(n, 2, 8, h, w).permute(0, 1, 3, 4, 2)
        row, column = dg.meshgrid(dg.arange(h), dg.arange(w), indexing="ij")
        cells = dg.stack([column, row], axis=-1).astype(y.dtype)
        anchors = dg.tensor([[1.0, 2.0], [3.0, 1.5]]).reshape(1, 2, 1, 1, 2)
        centre = (dg.sigmoid(y[..., :2]) * 2 - 0.5 + cells) * 2.0
        size = (dg.sigmoid(y[..., 2:4]) * 2) ** 2 * anchors
        return dg.concat([centre, size, dg.sigmoid(y[..., 4:])], axis=-1).reshape(n, -1, 8)


class SsdHead(nn.Module):
    """Classes and offsets at two scales, joined over all anchors."""

    def __init__(self) -> None:
        self.c1, self.c2 = conv(3, 4, stride=2), conv(4, 6, stride=2)
        self.classes = nn.ModuleList([nn.Conv2d(c, 2 * 3, 3, padding=1) for c in (4, 6)])
        self.boxes = nn.ModuleList([nn.Conv2d(c, 2 * 4, 3, padding=1) for c in (4, 6)])

    def forward(self, x: Any) -> Any:
        a = self.c1(x)
        maps = (a, self.c2(a))
        flat = lambda y, k: y.permute(0, 2, 3, 1).reshape(x.shape[0], -1, k)
        scores = dg.concat([flat(f(m), 3) for f, m in zip(self.classes, maps)], axis=1)
        boxes = dg.concat([flat(f(m), 4) for f, m in zip(self.boxes, maps)], axis=1)
        return dg.softmax(scores, axis=-1), boxes


class CenterNet(nn.Module):
    """Peaks of a heat map: local maxima, the best of them, and their boxes."""

    def __init__(self) -> None:
        self.stem, self.heat, self.size = conv(3, 4, stride=2), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Any) -> Any:
        y = self.stem(x)
        heat = dg.sigmoid(self.heat(y))
        peaks = dg.where(F.max_pool2d(heat, 3, 1, 1) == heat, heat, 0.0).flatten(1)
        scores, places = dg.topk(peaks, 4)
        width = y.shape[3]
        cell = places % (y.shape[2] * width)
        size = dg.take_along_axis(
            self.size(y).flatten(2), cell[:, None].broadcast_to((x.shape[0], 2, 4)), axis=2
        )
        return scores, dg.stack([cell % width, cell // width], axis=-1), size


def overlap(a: Any, b: Any) -> Any:
    """Intersection over union of boxes [..., 1, 4] and [..., N, 4] given by corners."""
    least = dg.minimum(a[..., 2:], b[..., 2:]) - dg.maximum(a[..., :2], b[..., :2])
    both = dg.clip(least, 0.0, None).prod(axis=-1)
    area = lambda v: (v[..., 2:] - v[..., :2]).prod(axis=-1)
    return both / (area(a) + area(b) - both + 1e-6)


class AnchorsTopK(nn.Module):
    """The best eight anchors of a score map, with their boxes clipped to the image."""

    def __init__(self) -> None:
        self.stem, self.score, self.delta = conv(3, 4, stride=2), nn.Conv2d(4, 1, 1), nn.Conv2d(4, 4, 1)

    def boxes(self, x: Any) -> Any:
        y = self.stem(x)
        scores = dg.sigmoid(self.score(y)).flatten(1)
        delta = self.delta(y).flatten(2).mT
        row, column = dg.meshgrid(dg.arange(y.shape[2]), dg.arange(y.shape[3]), indexing="ij")
        centre = dg.stack([column, row], axis=-1).astype(y.dtype).reshape(-1, 2) * 2.0 + 1.0
        half = 2.0 * dg.exp(delta[..., 2:])
        centre = centre + delta[..., :2]
        found = dg.clip(dg.concat([centre - half, centre + half], axis=-1), 0.0, 16.0)
        best, places = dg.topk(scores, 8)
        return best, dg.take_along_axis(found, places[..., None].broadcast_to((*places.shape, 4)), axis=1)

    def forward(self, x: Any) -> Any:
        return self.boxes(x)


class DetectorNms(AnchorsTopK):
    """Greedy suppression: a box stays when no better box that stays overlaps it by more than 0.3."""

    def forward(self, x: Any) -> Any:
        scores, boxes = self.boxes(x)
        near = overlap(boxes[:, :, None], boxes[:, None]) > 0.3
        stays = dg.ones_like(scores, dtype=dg.bool)
        for k in range(1, scores.shape[1]):
            hidden = (near[:, k, :k] & stays[:, :k]).any(axis=1, keepdims=True)
            stays = dg.concat([stays[:, :k], ~hidden, stays[:, k + 1 :]], axis=1)
        return dg.where(stays, scores, 0.0), boxes, stays


class MaskHead(nn.Module):
    """Masks of regions: features sampled on a grid inside given boxes."""

    def __init__(self) -> None:
        self.stem, self.mask = conv(3, 4), nn.Conv2d(4, 1, 3, padding=1)
        self.register_buffer("boxes", dg.tensor([[2.0, 2.0, 9.0, 9.0], [4.0, 1.0, 12.0, 7.0]]))

    def forward(self, x: Any) -> Any:
        y = self.stem(x)
        step = dg.linspace(0.0, 1.0, 5)
        low, high = self.boxes[:, :2] / 8.0 - 1, self.boxes[:, 2:] / 8.0 - 1
        xs = low[:, 0:1] + (high - low)[:, 0:1] * step
        ys = low[:, 1:2] + (high - low)[:, 1:2] * step
        grid = dg.stack(
            [xs[:, None, :].broadcast_to((2, 5, 5)), ys[:, :, None].broadcast_to((2, 5, 5))], axis=-1
        )
        first = dg.broadcast_to(y[:1], (2, *y.shape[1:]))
        return dg.sigmoid(self.mask(F.grid_sample(first, grid, align_corners=False))), y.mean(axis=(1, 2, 3))


class SoftArgmax(nn.Module):
    """Key points as the expected place under a softmax over pixels."""

    def __init__(self) -> None:
        self.stem, self.heat = conv(3, 4, stride=2), nn.Conv2d(4, 3, 1)

    def forward(self, x: Any) -> Any:
        y = self.heat(self.stem(x))
        weight = dg.softmax(y.flatten(2), axis=-1).reshape(y.shape)
        row, column = (dg.arange(n, dtype=y.dtype) for n in y.shape[2:])
        return dg.stack(
            [(weight.sum(axis=2) * column).sum(axis=-1), (weight.sum(axis=3) * row).sum(axis=-1)], axis=-1
        )


class CostVolume(nn.Module):
    """Correlation of two images at several shifts."""

    def __init__(self) -> None:
        self.features, self.last = conv(3, 4), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, left: Any, right: Any) -> Any:
        a, b = self.features(left), self.features(right)
        width = a.shape[3]
        rows = [(a * F.pad(b, (k, 0))[..., :width]).mean(axis=1) for k in range(4)]
        return self.last(dg.stack(rows, axis=1))


class PointNet(nn.Module):
    def __init__(self) -> None:
        self.each = Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8))
        self.turn, self.head = nn.Linear(8, 9), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        turn = self.turn(self.each(x).amax(axis=1)).reshape(-1, 3, 3) + dg.eye(3)
        return self.head(self.each(x @ turn).amax(axis=1))
