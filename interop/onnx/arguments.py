"""Example arguments of an export: their names, dynamic axes, and copies at other sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...core.errors import OnnxError
from ...core.value import Tensor
from ...graph.arguments import Slot, empty_slots


def named_leaves(name: str, structure: Any) -> Iterator[tuple[str, Any]]:
    """What dicts, lists and tuples hold within each other, by name: `x_0`, `x_key`, `x_key_1`."""
    inner: Iterable[tuple[Any, Any]]
    if isinstance(structure, dict):
        inner = structure.items()
    elif isinstance(structure, (list, tuple)):
        inner = enumerate(structure)
    else:
        yield name, structure
        return
    for key, value in inner:
        yield from named_leaves(f"{name}_{key}", value)


class Arguments:
    """The example arguments, flat: a structure with slots, names and arrays of its tensors."""

    def __init__(
        self, fn: Callable[..., Any], args: Any, input_names: list[str] | None, training: bool | None = None
    ):
        positional, keyword = _split(args)
        leaves: list[Any] = []
        is_leaf = lambda x: isinstance(x, (Tensor, np.ndarray))
        # A tensor that stands at two places is two inputs.
        self.args = empty_slots(positional, is_leaf, leaves, False)
        self.kwargs = empty_slots(keyword, is_leaf, leaves, False)
        self.arrays = [np.asarray(x.detach() if isinstance(x, Tensor) else x) for x in leaves]
        #: whether the function takes gradients itself, and so runs under the tape
        self.taped = bool(training) and not hasattr(fn, "modules")
        #: where the function runs while it is traced and compared
        self.device = next((x.device for x in leaves if isinstance(x, Tensor)), "cpu")
        self.names: list[str] = [""] * len(leaves)
        bound = _bind(fn, self.args, self.kwargs)
        for name, x in (pair for item in bound.items() for pair in named_leaves(*item)):
            if isinstance(x, Slot):
                self.names[x.index] = self.names[x.index] or name
        if input_names is not None:
            if len(input_names) != len(leaves):
                raise OnnxError(
                    "onnx.export",
                    f"input_names has {len(input_names)} names for {len(leaves)} tensors",
                    "give one for each",
                )
            self.names = list(input_names)
        if len(set(self.names)) != len(self.names):
            raise OnnxError(
                "onnx.export", f"input names {self.names} are not distinct", "pass input_names=[...]"
            )


def _split(args: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args is None:
        raise OnnxError(
            "onnx.export", "there are no example arguments", "pass a tensor, a tuple of arguments or a dict"
        )
    if isinstance(args, dict):
        return (), dict(args)
    if isinstance(args, (tuple, list)):
        return tuple(args), {}
    return (args,), {}


def _bind(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Parameter name -> argument; `*xs` gives xs_0, xs_1, ... A loaded model names its own inputs."""
    if isinstance(fn, type) or not callable(fn):
        what = f"the class {fn.__name__}" if isinstance(fn, type) else f"{type(fn).__name__} {fn!r:.40}"
        raise OnnxError(
            "onnx.export", f"{what} is neither module nor function", "pass an instance or a function"
        )
    known = getattr(fn, "input_names", None)
    if known is not None and len(args) <= len(known):
        return {**dict(zip(known, args)), **kwargs}
    kinds: Any = {}
    target = getattr(fn, "forward", None) or getattr(fn, "_fn", None) or fn
    target = getattr(target, "forward", target) if not inspect.isroutine(target) else target
    try:
        signature = inspect.signature(target)
        kinds = signature.parameters
        names = list(signature.bind(*args, **kwargs).arguments.items())
    except TypeError as e:
        takes = ", ".join(map(str, kinds.values()))
        raise OnnxError(
            "onnx.export", f"the example arguments do not fit the function: {e}", f"it takes ({takes})"
        ) from None
    except ValueError:
        names, kinds = [(f"input_{k}", a) for k, a in enumerate(args)], {}  # type: ignore[assignment]
    out: dict[str, Any] = {}
    for name, value in names:
        if name in kinds and kinds[name].kind is inspect.Parameter.VAR_KEYWORD:
            out.update(value)
        else:
            out[name] = value
    return out


_DYNAMIC = 'write {"x": {0: "batch"}} or {"x": ["batch", None]}: input -> axis -> name'


def _named_axes(name: str, axes: Any) -> dict[Any, Any]:
    """Axis -> symbol from a dict, the names of all axes in order (None: fixed), or the numbers of some."""
    if isinstance(axes, dict):
        return axes
    if isinstance(axes, int) and not isinstance(axes, bool):
        axes = (axes,)
    if not isinstance(axes, (list, tuple, set)):
        raise OnnxError("onnx.export", f"dynamic has {axes!r} for {name}", _DYNAMIC)
    if any(a is None or isinstance(a, str) for a in axes):
        return {k: a for k, a in enumerate(axes) if a is not None}
    return {a: f"{name}_{a}" for a in axes}


def check_dynamic(arguments: Arguments, dynamic: Any) -> dict[str, dict[int, str]]:
    """`dynamic` as input -> axis -> symbol. Raises OnnxError for unknown inputs, axes, or unequal sizes."""
    out: dict[str, dict[int, str]] = {}
    sizes: dict[str, int] = {}
    if dynamic is not None and not isinstance(dynamic, dict):
        raise OnnxError("onnx.export", f"dynamic={dynamic!r} is no dict", _DYNAMIC)
    for name, axes in (dynamic or {}).items():
        if name not in arguments.names:
            raise OnnxError(
                "onnx.export",
                f"dynamic names the input {name!r}; the inputs are {', '.join(arguments.names)}",
                "use those; the sizes of outputs follow from them",
            )
        array = arguments.arrays[arguments.names.index(name)]
        out[name] = {}
        for axis, symbol in _named_axes(name, axes).items():
            if not isinstance(axis, int) or not isinstance(symbol, str) or not symbol or symbol[0].isdigit():
                raise OnnxError("onnx.export", f"dynamic has {axis!r}: {symbol!r} for {name}", _DYNAMIC)
            if not -array.ndim <= axis < array.ndim:
                raise OnnxError(
                    "onnx.export", f"dynamic axis {axis} is outside {name}{list(array.shape)}", "use its axes"
                )
            size = array.shape[axis]
            if sizes.setdefault(symbol, size) != size:
                raise OnnxError(
                    "onnx.export", f"the symbol {symbol!r} is {sizes[symbol]} and {size} in the example arguments",
                    "give axes of different size different names",
                )  # fmt: skip
            out[name][axis % array.ndim] = str(symbol)
    return out


def resized(
    arguments: Arguments, dynamic: dict[str, dict[int, str]], sizes: dict[str, int]
) -> list[np.ndarray]:
    """The example arrays at other sizes, their values repeated in turn; along two axes of one size, on the diagonal.

    Zeros beside it keep what square matrices are: invertible, positive definite.
    """
    out = []
    for name, array in zip(arguments.names, arguments.arrays):
        axes: dict[str, list[int]] = {}
        before = array.shape
        for axis, symbol in dynamic.get(name, {}).items():
            axes.setdefault(symbol, []).append(axis)
            if array.shape[axis] == 0:
                raise OnnxError(
                    "onnx.export",
                    f"the dynamic axis {axis} of {name} is empty",
                    "give an example with elements",
                )
            array = np.take(array, np.arange(sizes[symbol]) % array.shape[axis], axis=axis)
        for a, b in (row for row in axes.values() if len(row) == 2):
            turn = lambda axis: np.expand_dims(
                np.arange(array.shape[axis]) // before[axis],  # noqa: B023 (called at once)
                tuple(k for k in range(array.ndim) if k != axis),  # noqa: B023
            )
            array = np.where(turn(a) == turn(b), array, np.zeros((), array.dtype))
        out.append(np.array(array, order="C"))  # ascontiguousarray would give a 0-d array an axis
    return out


def size_plans(base: dict[str, int], more: int = 0) -> list[list[dict[str, int]]]:
    """Lists of sizes to trace at, beside the given ones; the first list that the function runs at is taken.

    more: further traces, for numbers that the function reads from its inputs.
    """
    if not base:
        return [[{}] * more]
    extra = len(base) + 2 + more

    def plan(fn: Callable[[int, int, int], int]) -> list[dict[str, int]]:
        return [
            {symbol: max(1, fn(n, k, t)) for k, (symbol, n) in enumerate(base.items())}
            for t in range(1, extra + 1)
        ]

    primes = (1, 2, 3, 5, 7, 11, 13)
    first = plan(lambda n, k, t: n * (1 + t % 2 * 2) + t + k * (t + 1) + (n == 1) * (1 + k) + t // 5)
    if not any(
        all(n % 2 for n in row.values()) for row in (base, *first)
    ):  # the number of elements is odd in one
        first[-1] = {symbol: n | 1 for symbol, n in first[-1].items()}
    return [
        first,
        plan(lambda n, k, t: n * primes[min(t + k % 2, 6)]),
        plan(lambda n, k, t: n + t + k * (t % 2)),
        plan(lambda n, k, t: n - t - k * (t % 2) if n > extra + 2 else n + t),
    ]
