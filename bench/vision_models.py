"""Image models, written once: `nn` is duograd's, PyTorch's or this folder's own module of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def cifar_cnn(nn: Any) -> Any:
    """Two convolutions with pooling, two linear layers, for 3 x 32 x 32."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2, 2), nn.Flatten(), nn.Linear(4096, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def _block(nn: Any) -> Any:
    class Block(nn.Module):  # type: ignore[misc,name-defined]
        """Two 3 x 3 convolutions beside a shortcut."""

        def __init__(self, channels: int, filters: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(filters)
            self.relu = nn.ReLU()
            self.shortcut = None
            if stride != 1 or channels != filters:
                conv = nn.Conv2d(channels, filters, 1, stride=stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(filters))

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))

    return Block


def _resnet18(nn: Any, stem: list[Any], classes: int) -> Any:
    block, channels, layers = _block(nn), 64, []
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [block(channels, filters, stride), block(filters, filters, 1)]
        channels = filters
    return nn.Sequential(*stem, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def resnet18(nn: Any) -> Any:
    """ResNet-18 for 3 x 224 x 224 (He et al., 2015)."""
    stem = [nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return _resnet18(nn, [*stem, nn.MaxPool2d(3, 2, 1)], 1000)


def resnet18_cifar(nn: Any) -> Any:
    """ResNet-18 for 3 x 32 x 32: a 3 x 3 first convolution without pooling."""
    return _resnet18(nn, [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()], 10)


#: filters of the pointwise convolution and stride of the depthwise one before it
_SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip


def mobilenet(nn: Any) -> Any:
    """MobileNet for 3 x 224 x 224: depthwise 3 x 3, then 1 x 1 (Howard et al., 2017)."""
    layers = [nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    channels = 32
    for filters, stride in _SEPARABLE:
        layers += [
            nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU6(),
            nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU6(),
        ]  # fmt: skip
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))


MODELS: dict[str, Callable[[Any], Any]] = {
    "cifar_cnn": cifar_cnn,
    "resnet18_cifar": resnet18_cifar,
    "resnet18": resnet18,
    "mobilenet": mobilenet,
}
