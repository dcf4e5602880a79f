"""duograd: deep learning with two front ends over one op registry.

`import duograd as dg`; see README.md and docs/design.md.
"""

from __future__ import annotations

import importlib
from typing import Any

from . import backends as _backends  # noqa: F401  (registers the devices)
from .core import errors
from .core.modes import enable_grad, is_grad_enabled, no_grad
from .core.ops import REGISTRY as _REGISTRY
from .core.ops.creation import (
    arange,
    empty,
    eye,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    rand,
    randint,
    randn,
    zeros,
    zeros_like,
)
from .core.random import Generator, default_generator, manual_seed
from .core.types import (
    DType,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from .core.types import (
    bool_ as bool,
)
from .core.value import Tensor
from .eager.create import asarray, from_numpy, is_tensor, tensor

__version__ = "0.1.0"

# Ops that are the business of gradients, optimisers and losses stay out of the top level.
_INTERNAL = (
    "_grad",
    "_update",
    "_from",
    "adam_scale",
    "sgd_share",
    "picked",
    "matches",
    "random_",
    "_pick",
    "to_device",
    "slice",
)
_PUBLIC_OPS = {
    name: op
    for name, op in _REGISTRY.items()
    if not any(part in name for part in _INTERNAL) and name not in ("eye", "full")
}
globals().update(_PUBLIC_OPS)
transpose = _REGISTRY["transpose"]
sub, mul, div, neg = (_REGISTRY[n] for n in ("subtract", "multiply", "divide", "negative"))
pow = _REGISTRY["power"]

__all__ = [
    "DType",
    "Generator",
    "Tensor",
    "arange",
    "asarray",
    "bool",
    "default_generator",
    "empty",
    "enable_grad",
    "errors",
    "eye",
    "float32",
    "float64",
    "from_numpy",
    "full",
    "full_like",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "is_tensor",
    "linspace",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "randint",
    "randn",
    "tensor",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "zeros",
    "zeros_like",
]

# Loaded when first used, so that `import duograd` stays fast.
_LAZY = {
    "nn": ".nn",
    "optim": ".nn.optim",
    "data": ".interop.data",
    "onnx": ".interop.onnx",
    "function": ".graph:function",
    "mode": ".graph:mode",
    "compare": ".interop.measure:compare",
    "bench": ".interop.measure:bench",
    "save": ".interop.checkpoint:save",
    "load": ".interop.checkpoint:load",
    "explain": ".core.explain:explain",
    "device": ".core.backend:normalize_device",
    "grad": ".core.functional:grad",
    "value_and_grad": ".core.functional:value_and_grad",
    "vjp": ".core.functional:vjp",
}


def __getattr__(name: str) -> Any:
    target = _LAZY.get(name)
    if target is None:
        raise AttributeError(f"module 'duograd' has no attribute {name!r}")
    path, _, attribute = target.partition(":")
    found = importlib.import_module(path, __name__)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
