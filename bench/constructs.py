"""`python -m duograd.bench.constructs`: what each framework makes of the rows, as the table of docs/graph.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Jit = Callable[[Any], Any]


class Duograd:
    """The names that rows use, in duograd. jit: what compiles, or hands the function back."""

    def __init__(self, jit: Jit):
        import duograd as dg

        self.jit = jit
        self.array = lambda values: dg.tensor(values)
        self.ints = lambda values: dg.tensor(values)
        self.sin, self.where, self.rand, self.grad, self.seed = (
            dg.sin,
            dg.where,
            dg.rand,
            dg.grad,
            dg.manual_seed,
        )
        self.stack = lambda parts: dg.stack(*parts)
        self.host = lambda x: x.numpy()
        self.assign = lambda x, value: x.fill_(value)
        self.Tensor = dg.Tensor
        self.eager = dg.function(mode="eager")
        self.print = lambda text, x, lines: dg.print(text, x, to=lines.append)
        self.x = self.array([1.0, 2.0, 3.0])


class Torch:
    """The same in PyTorch."""

    def __init__(self, jit: Jit):
        import torch

        self.jit = jit
        self.array = lambda values: torch.tensor(values, dtype=torch.float32)
        self.ints = lambda values: torch.tensor(values)
        self.sin, self.where, self.rand, self.seed = torch.sin, torch.where, torch.rand, torch.manual_seed
        self.grad = torch.func.grad
        self.stack = torch.stack
        self.host = lambda x: x.numpy()
        self.assign = lambda x, value: x.fill_(value)
        self.Tensor = torch.Tensor
        self.eager = torch.compiler.disable
        self.print = lambda text, x, lines: lines.append(text.format(np.asarray(x)))
        self.x = self.array([1.0, 2.0, 3.0])


class Jax:
    """The same in JAX, as far as it has it: no random state, no change in place."""

    def __init__(self, jit: Jit):
        import jax
        import jax.numpy as jnp

        self.jit = jit
        self.array = lambda values: jnp.array(values, jnp.float32)
        self.ints = lambda values: jnp.array(values)
        self.sin, self.where, self.grad = jnp.sin, jnp.where, jax.grad
        self.stack = jnp.stack
        self.host = np.asarray
        self.Tensor = jax.Array
        self.eager = lambda f: f
        self.print = lambda text, x, lines: jax.debug.callback(
            lambda x: lines.append(text.format(np.asarray(x))), x
        )
        self.x = self.array([1.0, 2.0, 3.0])


def plain(x: Any) -> Any:
    """Tensors as arrays, so that later changes do not show and frameworks can be compared."""
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    if isinstance(x, (str, int, float, bool, dict, type(None))):
        return x
    if hasattr(x, "detach"):
        x = x.detach()
    return np.array(x)
