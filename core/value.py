"""`Tensor`: the type users see. Eager and symbolic tensors are its two faces and share these operators."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import dispatch, vjp
from .errors import ArgumentTypeError, AutogradError
from .foreign import elsewhere
from .handles import Handle, InList
from .reach import opened
from .spoken import refuse
from .types import DType, Shape, TensorType, as_dtype, contiguous_strides

if TYPE_CHECKING:
    from .method_types import NamedMethods as _Named
else:
    _Named = object


class Kept:
    """A hook that adds the gradient to `.grad` of a tensor, as long as there is one."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor):
        self.tensor = weakref.ref(tensor)

    def __call__(self, g: Tensor) -> None:
        tensor, executor = self.tensor(), dispatch.state.executor
        if tensor is not None:
            before = executor.get_grad(tensor)
            executor.set_grad(tensor, g.clone() if before is None else before + g)


class Truth(int):
    """True or False; a call gives it as a bool: `x.is_contiguous`, and `x.is_contiguous()` as in PyTorch."""

    def __call__(self) -> bool:
        return bool(self)

    def __repr__(self) -> str:
        return repr(bool(self))


YES, NO = Truth(1), Truth(0)


class Tensor(_Named):
    """An n-dimensional array that ops run on and gradients flow through.

    Made by `dg.tensor`, `dg.zeros`, ...; not by calling this class. Attributes: `shape` (tuple), `dtype`,
    `device` (str), `ndim`, `size` (elements), `T` (2-D transpose), `mT` (last two axes), `requires_grad`, `grad`.
    """

    __slots__ = (
        "__weakref__", "_base", "_grad", "_hooks", "_index", "_node", "_requires_grad", "_seen", "_view",
    )  # fmt: skip

    shape: Shape
    dtype: DType
    type: TensorType
    device: str
    __array_priority__ = 1000
    #: whether a module that holds it owns it, and an optimiser trains it
    _is_parameter = False

    def __init__(self, *data: Any, **options: Any):
        raise ArgumentTypeError(
            "Tensor",
            "is a class that is not called",
            "write dg.tensor(data); dg.empty(2, 3) for a shape alone",
        )

    # The tape's side, set by the faces: the node that made it and which output it is, the version of a view.
    _node: Any
    _index: int
    _requires_grad: bool
    _grad: Any
    _hooks: Any
    _base: Any
    _view: Any
    _seen: int

    if TYPE_CHECKING:  # attached from the registry in core/ops/__init__.py
        strides: Shape
        T: Tensor
        mT: Tensor

        def numpy(self) -> Any: ...
        def detach(self) -> Tensor: ...
        def _array(self) -> Any: ...
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __iadd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __isub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __imul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __itruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def view(self, *shape: Any) -> Tensor: ...
        def permute(self, *axes: Any) -> Tensor: ...
        def clone(self) -> Tensor: ...
        def mul_(self, other: Any) -> Tensor: ...
        def div_(self, other: Any) -> Tensor: ...
        def copy_(self, source: Any) -> Tensor: ...
        def fill_(self, value: Any) -> Tensor: ...
        def zero_(self) -> Tensor: ...

        # Reductions and element-wise functions have the signatures of the ops of the same names.
        sum: Callable[..., Tensor]
        prod: Callable[..., Tensor]
        max: Callable[..., Tensor]
        min: Callable[..., Tensor]
        any: Callable[..., Tensor]
        all: Callable[..., Tensor]
        mean: Callable[..., Tensor]
        var: Callable[..., Tensor]
        std: Callable[..., Tensor]
        logsumexp: Callable[..., Tensor]
        argmax: Callable[..., Tensor]
        argmin: Callable[..., Tensor]
        count_nonzero: Callable[..., Tensor]
        nonzero: Callable[..., tuple[Tensor, ...]]
        argwhere: Callable[..., Tensor]
        masked_select: Callable[..., Tensor]
        cumsum: Callable[..., Tensor]
        cumprod: Callable[..., Tensor]
        logcumsumexp: Callable[..., Tensor]
        argsort: Callable[..., Tensor]
        msort: Callable[..., Tensor]
        median: Callable[..., Tensor]
        nanmedian: Callable[..., Tensor]
        quantile: Callable[..., Tensor]
        nanquantile: Callable[..., Tensor]
        nansum: Callable[..., Tensor]
        nanmean: Callable[..., Tensor]
        amax: Callable[..., Tensor]
        amin: Callable[..., Tensor]
        ptp: Callable[..., Tensor]
        diff: Callable[..., Tensor]
        histc: Callable[..., Tensor]
        bincount: Callable[..., Tensor]
        cov: Callable[..., Tensor]
        corrcoef: Callable[..., Tensor]
        norm: Callable[..., Tensor]
        cummax: Callable[..., Any]
        cummin: Callable[..., Any]
        topk: Callable[..., Any]
        kthvalue: Callable[..., Any]
        mode: Callable[..., Any]
        aminmax: Callable[..., Any]
        sort: Callable[..., Any]
        unique: Callable[..., Any]
        unique_consecutive: Callable[..., Any]
        abs: Callable[..., Tensor]
        sign: Callable[..., Tensor]
        square: Callable[..., Tensor]
        sqrt: Callable[..., Tensor]
        rsqrt: Callable[..., Tensor]
        exp: Callable[..., Tensor]
        expm1: Callable[..., Tensor]
        log: Callable[..., Tensor]
        log1p: Callable[..., Tensor]
        sin: Callable[..., Tensor]
        cos: Callable[..., Tensor]
        tanh: Callable[..., Tensor]
        sigmoid: Callable[..., Tensor]
        erf: Callable[..., Tensor]
        floor: Callable[..., Tensor]
        ceil: Callable[..., Tensor]
        round: Callable[..., Tensor]
        trunc: Callable[..., Tensor]
        clip: Callable[..., Tensor]
        softmax: Callable[..., Tensor]
        log_softmax: Callable[..., Tensor]
        relu: Callable[..., Tensor]
        squeeze: Callable[..., Tensor]
        unsqueeze: Callable[..., Tensor]
        expand_dims: Callable[..., Tensor]
        flatten: Callable[..., Tensor]
        transpose: Callable[..., Tensor]
        broadcast_to: Callable[..., Tensor]
        expand: Callable[..., Tensor]
        split: Callable[..., tuple[Tensor, ...]]
        expand_as: Callable[..., Tensor]
        unflatten: Callable[..., Tensor]
        ravel: Callable[..., Tensor]
        view_as: Callable[..., Tensor]
        reshape_as: Callable[..., Tensor]
        swapaxes: Callable[..., Tensor]
        moveaxis: Callable[..., Tensor]
        movedim: Callable[..., Tensor]
        flip: Callable[..., Tensor]
        rot90: Callable[..., Tensor]
        roll: Callable[..., Tensor]
        narrow: Callable[..., Tensor]
        select: Callable[..., Tensor]
        unfold: Callable[..., Tensor]
        repeat: Callable[..., Tensor]
        tile: Callable[..., Tensor]
        repeat_interleave: Callable[..., Tensor]
        tril: Callable[..., Tensor]
        triu: Callable[..., Tensor]
        diag: Callable[..., Tensor]
        diagonal: Callable[..., Tensor]
        diag_embed: Callable[..., Tensor]
        contiguous: Callable[..., Tensor]
        take: Callable[..., Tensor]
        take_along_axis: Callable[..., Tensor]
        gather: Callable[..., Tensor]
        index_select: Callable[..., Tensor]
        scatter: Callable[..., Tensor]
        scatter_add: Callable[..., Tensor]
        scatter_reduce: Callable[..., Tensor]
        index_add: Callable[..., Tensor]
        index_copy: Callable[..., Tensor]
        index_fill: Callable[..., Tensor]
        index_put: Callable[..., Tensor]
        masked_fill: Callable[..., Tensor]
        masked_scatter: Callable[..., Tensor]
        scatter_: Callable[..., Tensor]
        scatter_add_: Callable[..., Tensor]
        scatter_reduce_: Callable[..., Tensor]
        index_add_: Callable[..., Tensor]
        index_copy_: Callable[..., Tensor]
        index_fill_: Callable[..., Tensor]
        index_put_: Callable[..., Tensor]
        masked_fill_: Callable[..., Tensor]
        masked_scatter_: Callable[..., Tensor]
        unbind: Callable[..., tuple[Tensor, ...]]
        unstack: Callable[..., tuple[Tensor, ...]]
        chunk: Callable[..., tuple[Tensor, ...]]
        tensor_split: Callable[..., tuple[Tensor, ...]]
        matmul: Callable[..., Tensor]
        astype: Callable[..., Tensor]

    def __dir__(self) -> list[str]:
        return [name for name in object.__dir__(self) if name not in elsewhere]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if Tensor in cls.__bases__:
            cls.__name__ = "Tensor"  # a face: what Python itself says of it is the same in every mode

    def _begin(self) -> None:
        """A new face's place on the tape: none yet."""
        self._requires_grad = False
        self._node = None
        self._index = 0
        self._grad = None
        self._hooks = None
        self._base = None
        self._view = None
        self._seen = 0

    # -- what a face must offer -------------------------------------------------------------

    def _get_version(self) -> int:
        raise TypeError("a bare Tensor has no storage")

    def _changed_place(self) -> Any:
        """Where it was changed in place last (`errors.Place`), if that is known."""
        return None

    def _alias(self) -> Tensor:
        raise TypeError("a bare Tensor has no storage")

    def _ask(self, value: bool) -> None:
        """Ask for a gradient, or stop."""
        watch = getattr(dispatch.state.executor, "before_asking", None)
        if watch is not None:
            watch(self)
        self._requires_grad = value

    def _own_hooks(self) -> list[Any]:
        """The list of a leaf's hooks."""
        if self._hooks is None:
            self._hooks = vjp.Hooks()
        return self._hooks  # type: ignore[no-any-return]

    def _is_leaf(self) -> bool:
        return self._node is None

    def _retains(self) -> bool:
        return retains(self)

    def _whole(self) -> Tensor | None:
        """What it is a view of, or None."""
        return self._base  # type: ignore[no-any-return]

    def _known(self) -> Tensor:
        """The tensor from outside that it stands for in a trace, or itself."""
        return self

    def _alias_of(self, node: vjp.Node, index: int) -> Tensor:
        """The saved output again, connected to the tape (for gradients of gradients)."""
        out = self._alias()
        out._node, out._index, out._requires_grad = node, index, True
        return out

    # -- plain facts ------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.type.size

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_contiguous(self) -> Truth:
        """Whether the elements lie in memory in their order."""
        dense = contiguous_strides(self.shape)
        return YES if all(n == 1 or st == d for n, st, d in zip(self.shape, self.strides, dense)) else NO

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentTypeError("len", "a 0-d tensor has no length", "use .item() for its value")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.shape:
            raise ArgumentTypeError("iter", "a 0-d tensor cannot be iterated", "use .item() for its value")
        return (self[i] for i in range(self.shape[0]))

    # -- gradients --------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return dispatch.state.executor.face(self)._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, value: bool = True) -> Tensor:
        """Ask for (or stop) gradients of this leaf. Returns self. Raises AutogradError off a leaf or a float."""
        face = dispatch.state.executor.face(self)
        if value and not self.dtype.has_gradient:
            raise AutogradError(
                "requires_grad", f"{self.type} has no gradient: only floats do", "convert it to a float dtype"
            )
        if not value and not face._is_leaf():
            raise AutogradError("requires_grad", "only a leaf can stop requiring a gradient", "use detach()")
        if face._requires_grad is not bool(value):
            face._ask(bool(value))
        return self

    @property
    def is_leaf(self) -> bool:
        return dispatch.state.executor.face(self)._is_leaf()

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward()` has added up, or None."""
        return dispatch.state.executor.get_grad(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (not isinstance(value, Tensor) or value.shape != self.shape):
            raise ArgumentTypeError(
                "grad", f"expects None or a tensor like {self.type}", "assign one of equal shape"
            )
        dispatch.state.executor.set_grad(self, value)

    def backward(
        self, gradient: Tensor | None = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add d(self)/d(leaf) to `.grad` of every leaf that self depends on.

        gradient: like self, the gradient to start from; may be left out for a single number. retain_graph:
        keep the tape for another call. create_graph: record the backward pass itself, for higher orders.
        Raises: AutogradError for a non-scalar root without `gradient`, a root without history, a freed tape, or
        a saved tensor that was changed in place.
        """
        vjp.backward(self, gradient, create_graph, retain_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Handle:
        """Call `hook(gradient)` when this tensor's gradient is known; a tensor it returns replaces it.

        Returns: a handle, whose `remove()` takes the hook out, as calling the handle does. Hooks of leaves run at the
        end of the walk, in the order in which the leaves got their first ones.
        """
        face = dispatch.state.executor.face(self)
        if not face._requires_grad:
            raise AutogradError(
                "register_hook", f"{self.type} does not require a gradient", "set requires_grad=True"
            )
        if face._node is not None:
            node, index = opened((face._node, face._index))
            if node.hooks is None:
                node.hooks = {}
            hooks = node.hooks.setdefault(index, [])
        else:
            hooks = face._own_hooks()
        last = len(hooks)
        while last and hooks[last - 1].__class__ is Kept:  # which gets what the others made
            last -= 1
        hooks.insert(last, hook)
        return InList(hooks, hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this tensor as `.grad`, as that of a leaf is kept, in every walk from now on.

        Nothing for a leaf. A change in place afterwards makes another value, whose gradient it is not.
        Raises: AutogradError for a tensor that requires no gradient.
        """
        face = dispatch.state.executor.face(self)
        if not face._requires_grad:
            raise AutogradError(
                "retain_grad",
                f"{self.type} does not require a gradient",
                "set requires_grad=True on an input",
            )
        if face._node is None and not face._is_leaf():
            dispatch.outside("calls retain_grad() on a tensor made outside", "call it outside, once")
        elif face._node is not None and not retains(face):
            node, index = opened((face._node, face._index))
            if node.hooks is None:
                node.hooks = {}
            node.hooks.setdefault(index, []).append(Kept(face))

    @property
    def retains_grad(self) -> bool:
        """Whether the gradient of this tensor, which is no leaf, is kept as `.grad`."""
        return dispatch.state.executor.face(self)._retains()

    # -- values -----------------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self.size != 1:
            raise ArgumentTypeError(
                "item", f"needs one element, this is {self.type}", "index it first, or use numpy()"
            )
        executor = dispatch.state.executor
        number_of = getattr(executor, "number_of", None)
        return executor.read(self).item() if number_of is None else number_of(self)

    def tolist(self) -> Any:
        return dispatch.state.executor.read(self).tolist()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ArgumentTypeError(
                "bool", f"the truth of {self.type} is not one value", "use .any() or .all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise ArgumentTypeError("index", f"{self.type} is not an integer", "convert it, or use int(x)")
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __hash__(self) -> int:
        return id(self)

    # -- conversions ------------------------------------------------------------------------

    def to(
        self, target: Any = None, *more: Any, dtype: Any = None, device: Any = None, **wrong: Any
    ) -> Tensor:
        """This tensor with another dtype or on another device ("cpu", "cuda", "cuda:1"), or as another tensor has both.

        Itself when it is there.
        """
        if wrong:
            refuse(Tensor.to, "to", wrong, [])
        if more or dtype is not None or device is not None:
            return self._to_each((target, *more, device, dtype))
        cls = target.__class__
        kind = target if cls is DType else _TARGETS.get(target) if cls is str else None
        if kind is not None:
            return self if kind is self.dtype else dispatch.apply(_cast(), (self,), (kind,))  # type: ignore[no-any-return]
        if isinstance(target, Tensor):
            return self.to(target.device).to(target.dtype)
        if cls is str and (target.partition(":")[0] in ("cpu", "cuda") or target not in _dtype_names()):
            from .backend import normalize_device

            home = normalize_device(target)
            return self if home == self.device else _op("to_device")(self, device=home)  # type: ignore[no-any-return]
        kind = as_dtype(target, "to")
        if cls is str:
            _TARGETS[target] = kind
        return self.to(kind)

    def _to_each(self, targets: tuple[Any, ...]) -> Tensor:
        out = self
        for t in targets:
            out = out if t is None else out.to(t)
        return out

    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """This tensor on another device; itself when it is there. stream: not used."""
        from .backend import normalize_device

        home = normalize_device(device)
        return self if home == self.device else self.to(home)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """The module `duograd`: a namespace of the Python array API standard 2024.12."""
        import sys

        if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
            raise ArgumentTypeError(
                "array_namespace", f"version {api_version!r} of the standard is not known", "use 2024.12"
            )
        return sys.modules["duograd"]

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)


def retains(face: Tensor) -> bool:
    """`Tensor.retains_grad` of a tensor as the executor sees it."""
    if face._node is None:
        return False
    node, index = opened((face._node, face._index))
    hooks = () if node.hooks is None else node.hooks.get(index, ())
    return any(h.__class__ is Kept and h.tensor() is face for h in hooks)


#: dtypes by the names that were given to `to`
_TARGETS: dict[str, DType] = {}


@functools.cache
def _cast() -> Any:
    return _op("cast")


def _op(name: str) -> Any:
    from .op import REGISTRY

    return REGISTRY[name]


def _dtype_names() -> Any:
    from .types import DTYPES

    return DTYPES
