"""A module called with other tensors in the place of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core import dispatch
from ...core.errors import ArgumentError, ArgumentTypeError, ShapeError
from ...core.swap import Swap
from ...core.value import Tensor
from ..module import Module


def functional_call(
    module: Module,
    parameters_and_buffers: Mapping[str, Tensor],
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """`module(*args, **kwargs)` with other tensors in the place of its parameters and buffers; gradients flow to them.

    parameters_and_buffers: path -> tensor of equal shape; what is left out is the module's own. args: a tuple, or one
    argument. What forward writes into a buffer is written into the tensor in its place.
    Raises: ArgumentError for a path that the module has not, ShapeError for another shape.
    Example: `functional_call(model, {k: v - lr * g[k] for k, v in model.named_parameters()}, (x,))`.
    """
    op = "functional_call"
    own = {**dict(module.named_parameters()), **dict(module.named_buffers()), **module._state("", {})}
    pairs = []
    for name, value in parameters_and_buffers.items():
        if name not in own:
            raise ArgumentError(
                op, f"{type(module).__name__} has no parameter or buffer {name!r}", "see state_dict()"
            )
        if not isinstance(value, Tensor):
            raise ArgumentTypeError(op, f"{name} is a {type(value).__name__}", "pass a tensor")
        if value.shape != own[name].shape:
            raise ShapeError(
                op, f"{name} is {value.type}, the module's {own[name].type}", "pass equal shapes"
            )
        pairs.append((own[name], value))
    args = args if isinstance(args, tuple) else (args,)
    executor: Any = dispatch.state.executor
    with dispatch.executing(Swap(executor, pairs), dispatch.state.keeps):
        return module(*args, **(kwargs or {}))
