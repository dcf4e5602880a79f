"""Names that a namespace of duograd has not: where it stands here, or what is written instead of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from .errors import UnknownNameError, user_line

#: names of PyTorch, NumPy and JAX, and what to write here
_INSTEAD = {
    "append": "dg.concat([x, y])",
    "array": "dg.tensor(data), or dg.asarray without a copy",
    "associative_scan": "dg.scan(f, init, xs), or dg.linear_scan",
    "BoolTensor": "dg.tensor(data, dtype=dg.bool)",
    "compile": "dg.function",
    "cuda": 'device="cuda"; dg.__array_namespace_info__().devices() lists what there is',
    "custom_jvp": "dg.custom_gradient",
    "custom_vjp": "dg.custom_gradient",
    "DoubleTensor": "dg.tensor(data, dtype=dg.float64)",
    "FloatTensor": "dg.tensor(data, dtype=dg.float32)",
    "fori_loop": "a Python loop, which a graph unrolls, dg.scan or dg.while_loop",
    "func": "dg.grad, dg.vmap, dg.jvp, dg.vjp, dg.jacobian, dg.hessian; dg.nn.utils.functional_call",
    "functional": "dg.nn.functional",
    "get_default_dtype": "dg.float32: the default is fixed",
    "identity": "dg.eye(n)",
    "jacfwd": "dg.jacobian",
    "jacrev": "dg.jacobian",
    "jit": "dg.function",
    "lax": "dg.scan, dg.cond, dg.while_loop, and the rest of dg",
    "LongTensor": "dg.tensor(data, dtype=dg.int64)",
    "no_tracing": 'dg.mode("eager")',
    "numpy": "dg, which has NumPy's names; x.numpy() for an array",
    "random": "dg.manual_seed(0), dg.rand, dg.randn, dg.randint, dg.normal",
    "remat": "dg.checkpoint",
    "set_default_dtype": "dtype= where tensors are made, model.double() for a model",
    "Size": "a tuple",
    "stop_gradient": "x.detach()",
    "switch": "dg.cond, one in another",
    "tree": "dict, list and tuple as they are: dg.grad, dg.scan and the like take them",
    "tree_map": "a comprehension; dg.grad, dg.scan and the like take dicts, lists and tuples",
    "tree_util": "dict, list and tuple as they are: dg.grad, dg.scan and the like take them",
    "utils": "dg.data, dg.checkpoint, dg.nn.utils",
    "Variable": "the tensor itself, x.requires_grad_()",
}
#: the namespaces in which a name is looked for; the package sets it
spaces: Callable[[], dict[str, Any]] = dict


def unknown(space: str, name: str, names: Iterable[str]) -> AttributeError:
    """The error for a name that a namespace (as users write it) has not. names: those that it has."""
    if name.startswith("_"):  # looked for by Python and its tools
        return AttributeError(f"module {space!r} has no attribute {name!r}", name=name)
    others = {other: found for other, found in spaces().items() if other != space}
    there = [f"{n}.{name}" for n, found in others.items() if name in getattr(found, "__all__", dir(found))]
    fix = _INSTEAD.get(name) or " or ".join(there[:1])
    if not fix:
        by_case = {n.casefold(): n for n in names if not n.startswith("_")}
        close = difflib.get_close_matches(name.casefold(), by_case, 3, 0.8)
        fix = " or ".join(f"{space}.{by_case[n]}" for n in close)
    return UnknownNameError(
        space, f"has no {name}", f"write {fix}" if fix else "docs/porting.md has the words of PyTorch, JAX and Keras",
        user_line(2),
    )  # fmt: skip
