"""Names that a namespace or a tensor of duograd has not: where it stands here, or what is written instead of it."""

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
#: attributes of other libraries' tensors and arrays, and what to write here
_OF_TENSORS = {
    "addressable_data": "x.numpy()",
    "apply_": "an op of dg on the whole tensor",
    "assign": "x.copy_(y)",
    "assign_add": "x.add_(y)",
    "assign_sub": "x.sub_(y)",
    "at": "x[i] = v, or y = x.index_put((i,), v)",
    "block_until_ready": "x: its values are there when they are read",
    "coalesce": "x: tensors are dense",
    "ctypes": "x.numpy().ctypes",
    "data_ptr": "x.numpy().ctypes.data",
    "detach_": "x = x.detach()",
    "fill": "x.fill_(value)",
    "flags": "x.strides, x.is_contiguous()",
    "flat": "x.ravel()",
    "get_shape": "x.shape",
    "grad_fn": "x.requires_grad and x.is_leaf",
    "is_pinned": "nothing: memory is not pinned",
    "is_shared": "nothing: what goes to workers is copied",
    "is_sparse": "False: tensors are dense",
    "layout": "x.strides: tensors are dense",
    "map_": "an op of dg on the whole tensors",
    "pin_memory": "x: memory is not pinned",
    "resize_": "x = x.reshape(shape), or a new tensor: one keeps its shape",
    "resize_as_": "x = x.reshape(y.shape), or a new tensor: one keeps its shape",
    "set_": "x.copy_(y): a tensor keeps its memory",
    "set_shape": "x = x.reshape(shape): a tensor keeps its shape",
    "share_memory_": "x: what goes to workers is copied",
    "squeeze_": "x = x.squeeze(axis): a tensor keeps its shape",
    "storage": "x.numpy(), which shares memory",
    "storage_offset": "x.strides: where a view begins is not told",
    "swapaxes_": "x = x.swapaxes(a, b): a tensor keeps its shape",
    "swapdims_": "x = x.swapaxes(a, b): a tensor keeps its shape",
    "t_": "x = x.t(): a tensor keeps its shape",
    "to_dense": "x: tensors are dense",
    "to_sparse": "x: tensors are dense",
    "tobytes": "x.numpy().tobytes()",
    "tofile": "x.numpy().tofile(file), or dg.save",
    "transpose_": "x = x.transpose(a, b): a tensor keeps its shape",
    "unsqueeze_": "x = x.unsqueeze(axis): a tensor keeps its shape",
    "untyped_storage": "x.numpy(), which shares memory",
}
#: the namespaces in which a name is looked for; the package sets it
spaces: Callable[[], dict[str, Any]] = dict


def unknown(space: str, name: str, names: Iterable[str]) -> AttributeError:
    """The error for a name that a namespace (as users write it) has not. names: those that it has."""
    if name.startswith("_"):  # looked for by Python and its tools
        return AttributeError(f"module {space!r} has no attribute {name!r}", name=name)
    others = {other: found for other, found in spaces().items() if other != space}
    there = [f"{n}.{name}" for n, found in others.items() if name in getattr(found, "__all__", vars(found))]
    fix = _INSTEAD.get(name) or " or ".join(there[:1])
    if not fix:
        by_case = {n.casefold(): n for n in names if not n.startswith("_")}
        close = difflib.get_close_matches(name.casefold(), by_case, 3, 0.8)
        fix = " or ".join(f"{space}.{by_case[n]}" for n in close)
    return UnknownNameError(
        space, f"has no {name}", f"write {fix}" if fix else "docs/porting.md has the words of PyTorch, JAX and Keras",
        user_line(2),
    )  # fmt: skip


class Elsewhere:
    """What stands in a tensor's class for a name that it has not: who asks for it gets an error with what to write.

    A `__getattr__` would do so for any name, and make every look-up of an attribute slower.
    """

    __slots__ = ("fix", "name")

    def __init__(self, name: str, fix: str):
        self.name, self.fix = name, fix

    def __get__(self, x: Any, cls: Any = None) -> Any:
        raise UnknownNameError("Tensor", f"has no {self.name}", f"write {self.fix}", user_line(2))


def point_elsewhere(cls: Any, functions: Iterable[str]) -> None:
    """Put an `Elsewhere` into a tensor's class for names of other libraries, and for functions that are no methods."""
    for name, fix in {**{n: f"dg.{n}(x)" for n in functions}, **_OF_TENSORS}.items():
        if not name.startswith("_") and not hasattr(cls, name):
            setattr(cls, name, Elsewhere(name, fix))
            elsewhere.add(name)


#: the names that stand in tensors' class so
elsewhere: set[str] = set()
