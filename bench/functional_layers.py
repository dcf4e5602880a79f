"""Layers by PyTorch's names whose forward is JAX code on numbers that are handed in.

A model of these knows the shapes of its parameters without JAX; `run` gives them values for one call, so that
the model is a pure function of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Shape = tuple[int, ...]


class Module:
    """Layers as attributes; `own` are this module's parameters by name, as shapes or, within `run`, as values."""

    training = True

    def __init__(self) -> None:
        self.own: dict[str, Any] = {}
        #: running statistics by name, as this module's last call left them
        self.statistics: dict[str, Any] = {}

    def __call__(self, x: Any) -> Any:
        return self.forward(x)

    def forward(self, x: Any) -> Any:
        """The layer's result."""
        raise NotImplementedError

    def modules(self) -> Iterator[Module]:
        """This module and those inside, in the order of their making."""
        yield self
        for child in vars(self).values():
            if isinstance(child, Module):
                yield from child.modules()

    def shapes(self) -> list[tuple[str, Shape]]:
        """(name within its layer, shape) of every parameter, in PyTorch's order."""
        return [item for m in self.modules() for item in m.own.items()]


def run(
    model: Module, parameters: Sequence[Any], statistics: Sequence[Any], x: Any, training: bool
) -> tuple[Any, list[Any]]:
    """(model(x), the running statistics after it) with these parameters and statistics."""
    values, before = iter(parameters), iter(statistics)
    layers = list(model.modules())
    shapes = [dict(m.own) for m in layers]
    for m in layers:
        m.training = training
        m.own = {k: next(values) for k in m.own}
        m.statistics = {k: next(before) for k in m.statistics}
    try:
        out = model(x)
        return out, [s for m in layers for s in m.statistics.values()]
    finally:
        for m, own in zip(layers, shapes):
            m.own = own


def first_statistics(model: Module) -> list[Any]:
    """Running statistics before the first step: means 0, variances 1."""
    import jax.numpy as jnp

    start = {"mean": jnp.zeros, "var": jnp.ones}
    return [start[k](m.own["weight"]) for m in model.modules() for k in m.statistics]


class Sequential(Module):
    """One after the other."""

    def __init__(self, *layers: Module):
        super().__init__()
        self.count = len(layers)
        for k, layer in enumerate(layers):
            setattr(self, f"layer{k}", layer)

    def forward(self, x: Any) -> Any:
        for k in range(self.count):
            x = getattr(self, f"layer{k}")(x)
        return x


class Conv2d(Module):
    """As torch.nn.Conv2d, square windows."""

    def __init__(
        self, channels: int, filters: int, size: int, stride: int = 1, padding: int = 0, groups: int = 1,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.stride, self.padding, self.groups = stride, padding, groups
        self.own["weight"] = (filters, channels // groups, size, size)
        if bias:
            self.own["bias"] = (filters,)

    def forward(self, x: Any) -> Any:
        import jax

        pads = (self.padding, self.padding)
        y = jax.lax.conv_general_dilated(
            x, self.own["weight"], (self.stride,) * 2, (pads, pads), dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=self.groups,
        )  # fmt: skip
        return y + self.own["bias"][:, None, None] if "bias" in self.own else y


class BatchNorm2d(Module):
    """As torch.nn.BatchNorm2d."""

    def __init__(self, channels: int):
        super().__init__()
        self.own = {"weight": (channels,), "bias": (channels,)}
        self.statistics = {"mean": None, "var": None}

    def forward(self, x: Any) -> Any:
        import jax

        mean, var = self.statistics["mean"], self.statistics["var"]
        if self.training:
            count = x.size // x.shape[1]
            old_mean, old_var = mean, var
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.statistics = {
                "mean": 0.9 * old_mean + 0.1 * mean, "var": 0.9 * old_var + 0.1 * var * (count / (count - 1))
            }  # fmt: skip
        scale = jax.lax.rsqrt(var + 1e-5) * self.own["weight"]
        return (x - mean[:, None, None]) * scale[:, None, None] + self.own["bias"][:, None, None]


class Linear(Module):
    """As torch.nn.Linear."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.own = {"weight": (outputs, inputs), "bias": (outputs,)}

    def forward(self, x: Any) -> Any:
        return x @ self.own["weight"].T + self.own["bias"]


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Any:
        import jax

        return jax.nn.relu(x)


class ReLU6(Module):
    """x between 0 and 6."""

    def forward(self, x: Any) -> Any:
        import jax

        return jax.nn.relu6(x)


class MaxPool2d(Module):
    """As torch.nn.MaxPool2d, square windows."""

    def __init__(self, size: int, stride: int, padding: int = 0):
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Any) -> Any:
        import jax

        window, step, pads = (self.size,) * 2, (self.stride,) * 2, ((self.padding,) * 2,) * 2
        none = ((0, 0), (0, 0))
        return jax.lax.reduce_window(
            x, -float("inf"), jax.lax.max, (1, 1, *window), (1, 1, *step), (*none, *pads)
        )


class AdaptiveAvgPool2d(Module):
    """The mean of every image."""

    def __init__(self, size: int):
        super().__init__()
        assert size == 1

    def forward(self, x: Any) -> Any:
        return x.mean((2, 3), keepdims=True)


class Flatten(Module):
    """One row for each example."""

    def forward(self, x: Any) -> Any:
        return x.reshape(x.shape[0], -1)
