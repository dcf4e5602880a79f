"""duograd: deep learning with two front ends over one op registry.

`import duograd as dg`; see README.md and docs/design.md.
"""

from __future__ import annotations

import importlib
import operator
import os as _os
import sys
from typing import Any

from . import backends as _backends  # noqa: F401  (registers the devices)
from .core import errors
from .core import foreign as _foreign
from .core import hot as _hot
from .core.dtype_info import Info as _Info
from .core.dtype_info import (
    astype,
    can_cast,
    e,
    finfo,
    iinfo,
    inf,
    isdtype,
    nan,
    newaxis,
    pi,
    result_type,
)
from .core.dtype_info import shape_of_broadcast as broadcast_shapes
from .core.importing import also_importable as _also_importable
from .core.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .core.modes import no_grad as inference_mode
from .core.op import PUBLIC as _PUBLIC
from .core.ops import REGISTRY as _REGISTRY
from .core.random import Generator, default_generator, manual_seed
from .core.spoken import spell as _spell
from .core.types import (
    DType,
    bfloat16,
    complex64,
    complex128,
    float16,
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
from .core.types import promote as promote_types
from .core.value import Tensor
from .eager.create import asarray, from_numpy, is_tensor, tensor
from .eager.create import asarray as as_tensor
from .eager.dlpack import from_dlpack

__version__ = "0.1.0"
__array_api_version__ = "2024.12"
__array_namespace_info__ = _Info

# Every op and every function that `core/ops` declares public; a function stands before an op of its name.
globals().update({name: op for name, op in _REGISTRY.items() if not op.internal})
globals().update(_PUBLIC)

__all__ = [
    "DType",
    "Generator",
    "Tensor",
    "as_tensor",
    "asarray",
    "astype",
    "bfloat16",
    "bool",
    "broadcast_shapes",
    "can_cast",
    "complex64",
    "complex128",
    "default_generator",
    "e",
    "enable_grad",
    "errors",
    "finfo",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "iinfo",
    "inf",
    "inference_mode",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "is_tensor",
    "isdtype",
    "manual_seed",
    "nan",
    "newaxis",
    "no_grad",
    "pi",
    "promote_types",
    "result_type",
    "set_grad_enabled",
    "tensor",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]
__all__ += sorted({*_PUBLIC, *(name for name, op in _REGISTRY.items() if not op.internal)} - {"bool"})

_spell(globals(), __all__)

# Eager mode has hot bodies compiled by graph mode, which it does not know.
_hot.loader = lambda: importlib.import_module(".graph.hot", __name__)

# PyTorch's names of dtypes.
_KINDS = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}

# Where a name is looked for that another namespace has not.
_SPACES = (
    "nn nn.functional nn.init nn.utils nn.utils.rnn optim optim.lr_scheduler data distributions linalg fft"
)
_foreign.spaces = lambda: {
    f"dg.{name}": operator.attrgetter(name)(sys.modules[__name__]) for name in _SPACES.split()
}

# Loaded when first used, so that `import duograd` stays fast.
_LAZY = {
    **{name: f".core.types:{kind}" for name, kind in _KINDS.items()},
    "nn": ".nn",
    "optim": ".nn.optim",
    "autograd": ".core.autograd",
    "amp": ".nn.amp",
    "distributions": ".nn.distributions",
    "autocast": ".core.autocast:autocast",
    "data": ".interop.data",
    "onnx": ".interop.onnx",
    "fft": ".core.fft",
    "linalg": ".core.linalg",
    "function": ".graph:function",
    "mode": ".graph:mode",
    "show": ".core.showing:show",
    "TensorSpec": ".graph.spec:TensorSpec",
    "compare": ".interop.measure:compare",
    "bench": ".interop.measure:bench",
    "save": ".interop.checkpoint:save",
    "load": ".interop.checkpoint:load",
    "explain": ".core.explain:explain",
    "device": ".core.backend:normalize_device",
    "get_num_threads": ".core.threads:get_num_threads",
    "set_num_threads": ".core.threads:set_num_threads",
    "grad": ".core.functional:grad",
    "value_and_grad": ".core.functional:value_and_grad",
    "vjp": ".core.functional:vjp",
    "jvp": ".core.functional:jvp",
    "jacobian": ".core.functional:jacobian",
    "hessian": ".core.functional:hessian",
    "vmap": ".core.batch:vmap",
    "checkpoint": ".core.recompute:checkpoint",
    "custom_gradient": ".core.custom:custom_gradient",
    "cond": ".core.control:cond",
    "print": ".core.printing:print_",
    "while_loop": ".core.control:while_loop",
    "scan": ".core.control:scan",
}

_also_importable(
    {
        f"{__name__}.{name}": __name__ + path
        for name, path in {
            "distributions.transforms": ".nn.transforms",
            "nn.callbacks": ".interop.callbacks",
            "nn.parameter": ".nn.module",
            **_LAZY,
        }.items()
        if ":" not in path and path != f".{name}"
    }
)

if "DUOGRAD_SHOW" in _os.environ:
    importlib.import_module(".core.showing", __name__).begin()


def __getattr__(name: str) -> Any:
    target = _LAZY.get(name)
    if target is None:
        raise _foreign.unknown("dg", name, __dir__())
    path, _, attribute = target.partition(":")
    found = importlib.import_module(path, __name__)
    globals()[name] = getattr(found, attribute) if attribute else found
    _spell(globals(), [name], strict=True)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
