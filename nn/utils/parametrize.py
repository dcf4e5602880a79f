"""Parameters that are computed from others: weight norm, spectral norm, and those of the user's own.

A module's class becomes a subclass in which the name is a property: it computes the value anew from
`module.parametrizations.<name>` at each look, and what is assigned goes back through `right_inverse`. State has
PyTorch's names.
"""

from __future__ import annotations

from typing import Any

from ...core import dispatch
from ...core.errors import ArgumentError, ArgumentTypeError, ShapeError
from ...core.op import PUBLIC, REGISTRY
from ...core.ops.random import randn
from ...core.spoken import spell as _spell
from ...core.value import Tensor
from .. import functional as F
from ..containers import ModuleDict, ModuleList
from ..module import Module, Parameter

__all__ = [
    "ParametrizationList", "is_parametrized", "register_parametrization", "remove_parametrizations", "spectral_norm",
    "weight_norm",
]  # fmt: skip


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, one after the other, of what is trained (`original`, `original0` ...)."""

    def __init__(self, first: Module, value: Tensor):
        super().__init__([first])
        start: Any = value
        if hasattr(first, "right_inverse"):
            with dispatch.set_grad(False):
                start = first.right_inverse(value)
        several = isinstance(start, (tuple, list))
        self.count = len(start) if several else 0
        for name, x in zip(self.names(), start if several else (start,)):
            self.__dict__[name] = (
                x if isinstance(x, Parameter) else Parameter(x.detach().clone(), value.requires_grad)
            )

    def names(self) -> list[str]:
        """The attributes that are trained."""
        return [f"original{k}" for k in range(self.count)] if self.count else ["original"]

    def take(self, value: Tensor) -> None:
        """Make a value the result: what is trained becomes what it was computed from."""
        start: Any = value
        with dispatch.set_grad(False):
            for part in reversed(list(self)):
                if not hasattr(part, "right_inverse"):
                    raise ArgumentError(
                        "parametrize", f"{type(part).__name__} has no right_inverse, so no value can be assigned",
                        "define right_inverse(value), or change the originals",
                    )  # fmt: skip
                start = part.right_inverse(start)
            for name, x in zip(self.names(), start if self.count else (start,)):
                self.__dict__[name].copy_(x)

    def forward(self) -> Any:
        x = tuple([self.__dict__[name] for name in self.names()])
        for part in self:
            made = part(*x)
            x = made if isinstance(made, tuple) else (made,)
        return x[0]


def register_parametrization(module: Module, tensor_name: str, parametrization: Module) -> Module:
    """From now on `module.<tensor_name>` is `parametrization(original)`, where original is trained. Returns: module.

    parametrization: a Module from a tensor to one of equal shape; its `right_inverse(value)`, if it has one, gives the
    first original (a tuple for several). A second one for the same name is applied after the first. Make the optimiser
    afterwards. Raises: ArgumentError for a name that is no parameter, ShapeError for a result of another shape.
    """
    op = "register_parametrization"
    if not isinstance(parametrization, Module):
        raise ArgumentTypeError(op, f"got a {type(parametrization).__name__}", "pass a Module")
    found = module.__dict__.get("parametrizations")
    if found is not None and tensor_name in found:
        found[tensor_name].append(parametrization)
    else:
        value = module.__dict__.get(tensor_name)
        if not isinstance(value, Parameter):
            raise ArgumentError(
                op,
                f"{type(module).__name__} has no parameter {tensor_name!r}",
                "name one of named_parameters()",
            )
        made = ParametrizationList(parametrization, value)
        with dispatch.set_grad(False):
            result = made()
        if result.shape != value.shape:
            raise ShapeError(op, f"{value.type} became {result.type}", "return an equal shape")
        if found is None:
            found = module.__dict__["parametrizations"] = ModuleDict()
        found[tensor_name] = made
        del module.__dict__[tensor_name]
    _become(module, getattr(type(module), "_plain", type(module)))
    return module


def _become(module: Module, base: type) -> None:
    """Make a module one of `base` in which its parametrized names are computed."""
    names = list(module.__dict__.get("parametrizations", ()))
    body = {name: property(_computed(name), _taken(name)) for name in names}
    module.__class__ = (
        type(f"Parametrized{base.__name__}", (base,), {**body, "_plain": base}) if names else base
    )


def _computed(name: str) -> Any:
    def value(self: Any) -> Any:
        return self.parametrizations[name]()

    return value


def _taken(name: str) -> Any:
    def take(self: Any, value: Tensor) -> None:
        self.parametrizations[name].take(value)

    return take


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the tensor (any, when no name is given) is computed from others."""
    names = list(module.__dict__.get("parametrizations", ()))
    return bool(names) if tensor_name is None else tensor_name in names


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make `module.<tensor_name>` a plain parameter again: its value of now, or the original. Returns: module."""
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(
            "remove_parametrizations", f"{tensor_name!r} is not parametrized", "nothing to remove"
        )
    found = module.__dict__["parametrizations"]
    made = found[tensor_name]
    if not leave_parametrized and made.count:
        raise ArgumentError(
            "remove_parametrizations",
            f"{tensor_name} has {made.count} originals",
            "use leave_parametrized=True",
        )
    if leave_parametrized:
        with dispatch.set_grad(False):
            value = made().clone()
        trained = any(p.requires_grad for p in made.parameters(recurse=False))
        value = Parameter(value, trained)
    else:
        value = made.original
    del found[tensor_name]
    base: Any = getattr(type(module), "_plain")  # noqa: B009  (a class made here)
    if not len(found):
        del module.__dict__["parametrizations"]
    _become(module, base)
    module.__dict__[tensor_name] = value
    return module


def _rows(x: Tensor, axis: int) -> Tensor:
    """x as a matrix whose rows run along one axis."""
    return (
        x if axis == 0 else REGISTRY["permute"](x, axes=(axis, *(k for k in range(x.ndim) if k != axis)))
    ).reshape(x.shape[axis], -1)


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0):
        self.dim = None if dim == -1 else dim  # as PyTorch reads -1

    def _norm(self, v: Tensor) -> Tensor:
        axes = None if self.dim is None else tuple(k for k in range(v.ndim) if k != self.dim % v.ndim)
        return REGISTRY["sqrt"](REGISTRY["square"](v).sum(axis=axes, keepdims=axes is not None))  # type: ignore[no-any-return]

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / self._norm(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self._norm(weight), weight


class _SpectralNorm(Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float):
        self.dim, self.eps, self.n_power_iterations = dim % max(1, weight.ndim), eps, n_power_iterations
        if weight.ndim > 1:
            with dispatch.set_grad(False):
                matrix = _rows(weight, self.dim)
                u, v = (randn(n, dtype=weight.dtype, device=weight.device) for n in matrix.shape)
                self.register_buffer("_u", F.normalize(u, dim=0, eps=eps).detach())
                self.register_buffer("_v", F.normalize(v, dim=0, eps=eps).detach())
                self._iterate(matrix, 15)

    def _iterate(self, matrix: Tensor, n: int) -> None:
        """Power iteration, in place."""
        with dispatch.set_grad(False):
            for _ in range(n):
                self._u.copy_(F.normalize(matrix.detach() @ self._v, dim=0, eps=self.eps))
                self._v.copy_(F.normalize(self._u @ matrix.detach(), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = _rows(weight, self.dim)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()
        return weight / PUBLIC["vdot"](u, matrix @ v)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train length and direction of a weight apart: `w = g v / |v|`; a length for each index of dim (None, -1: one).

    State: `parametrizations.weight.original0` (g), `original1` (v). Returns: module. Source: Salimans and Kingma, 2016.
    """
    return register_parametrization(module, name, _WeightNorm(dim))


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """Divide a weight by its largest singular value, estimated by power iteration at each look while training.

    dim: the axis of the outputs; None: 1 for transposed convolutions, else 0. Returns: module.
    Source: Miyato et al., 2018.
    """
    if n_power_iterations < 1:
        raise ArgumentError("spectral_norm", f"n_power_iterations={n_power_iterations}", "use 1 or more")
    value = getattr(module, name, None)
    if not isinstance(value, Tensor):
        raise ArgumentError(
            "spectral_norm",
            f"{type(module).__name__} has no parameter {name!r}",
            "name one of named_parameters()",
        )
    if dim is None:
        dim = 1 if "ConvTranspose" in type(module).__name__ else 0
    return register_parametrization(module, name, _SpectralNorm(value, n_power_iterations, dim, eps))


_spell(globals(), __all__, strict=True)
