"""Module and Parameter: named tensors in a tree, found by walking plain attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..core import dispatch
from ..core.attended import is_eager
from ..core.backend import normalize_device
from ..core.errors import ArgumentError, ArgumentTypeError, AutogradError, CheckpointError, TraceError
from ..core.members import Members
from ..core.spoken import explain_call, spell_methods, spelled
from ..core.storage import writes
from ..core.strangers import STUMBLES
from ..core.types import TensorType
from ..core.value import Tensor
from .hooks import Hook, HookHandle, Hooks

M = TypeVar("M", bound="Module")

# nn may not import eager mode; the executor that every thread starts with knows its tensor class.
_host: Any = dispatch._State.executor
_EagerTensor: Any = _host.tensor_class


class _ParameterClass(type):
    """Takes what stands for a parameter in a trace for one."""

    def __instancecheck__(cls, x: Any) -> bool:
        return super().__instancecheck__(x) or (
            isinstance(x, Tensor) and issubclass(x._known().__class__, cls)
        )


class Parameter(_EagerTensor, metaclass=_ParameterClass):  # type: ignore[misc]
    """A leaf tensor that a module owns and an optimiser trains.

    data: a tensor (its memory is shared) or a NumPy array (copied). requires_grad: whether it is trained.
    Raises: ArgumentTypeError for other data, AutogradError for a trained one that is no float, TraceError
    in a function that is mapped. A function in graph mode that makes one runs its Python.
    Example: `dg.nn.Parameter(dg.zeros((2, 3))).requires_grad` is `True`.
    """

    __slots__ = ()
    _is_parameter = True

    def __init__(self, data: Any, requires_grad: bool = True):
        if isinstance(data, (np.ndarray, np.generic)):
            data = _host.constant(np.asarray(data), "cpu")
        if not isinstance(data, Tensor):
            raise ArgumentTypeError(
                "Parameter", f"takes a tensor, got {type(data).__name__}", "use dg.tensor(data)"
            )
        if not is_eager():
            dispatch.outside("makes a parameter", "make it outside, in __init__", once=True)
            raise TraceError(
                "Parameter",
                "a parameter cannot be made in a function that is mapped, differentiated or part of a loop",
                "make it outside, in __init__",
            )
        if requires_grad and not data.dtype.is_float:
            raise AutogradError(
                "Parameter",
                f"{data.type} has no gradient: only floats do",
                "pass requires_grad=False, or convert it",
            )
        eager: Any = data
        super().__init__(eager._layout, eager._storage, eager._offset)
        self.requires_grad_(bool(requires_grad))

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


# As a function and not as a constructor is: layers make many of them.
Parameter.__init__ = spelled(Parameter.__init__, "Parameter")  # type: ignore[method-assign]


class LoadResult(NamedTuple):
    """What `load_state_dict(strict=False)` left alone: names the state lacks, names the module lacks."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"LoadResult(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Module(Members):
    """Base of all layers and models: define `__init__` and `forward`, call the instance.

    Attributes that are `Parameter`s, other modules, or were given to `register_buffer` belong to the module:
    they are found in the order of their definition, named by their attribute path (`encoder.0.weight`),
    saved, moved and trained. They are plain attributes; other tensors, and tensors in lists and dicts, are
    not looked at (use ModuleList, ParameterList). What would drop one unsaid is an ArgumentTypeError: a parameter
    is replaced by a Parameter or None, a module by a Module or None, a buffer by a tensor or None. `training` says
    which of `train()` and `eval()` was called last.
    Example: `class Net(dg.nn.Module): ...` with `self.fc = dg.nn.Linear(4, 2)` in `__init__`.
    """

    training: bool
    # A class-level default: an instance without hooks carries none.
    _hooks: Hooks | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Here, so that a subclass may leave out super().__init__().
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise ArgumentTypeError(cls.__name__, "takes no arguments", f"write {cls.__name__}()")
        self = super().__new__(cls)
        self.training = True
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's computation. Every subclass defines it."""
        raise ArgumentTypeError(
            type(self).__name__, "has no forward", "define forward(self, ...) in the class"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return self._hooks.run(self, args, kwargs)
        except STUMBLES as e:
            explain_call(self.forward, type(self).__name__, e, args, kwargs)
            raise

    # -- hooks ----------------------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call `hook(module, args)` before forward; what it returns (unless None) replaces the arguments.

        prepend: before the hooks that there are. with_kwargs: `hook(module, args, kwargs)`, which returns None or
        (args, kwargs). Returns: a handle whose `remove()` takes it out again.
        """
        own = self._own_hooks()
        return own.add(own.before, Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> HookHandle:
        """Call `hook(module, args, output)` after forward; its result (if not None) is the new output.

        prepend: before the hooks that there are. with_kwargs: `hook(module, args, kwargs, output)`. always_call: after
        an error too, with the output so far or None; its own errors are dropped then. Returns: a handle.
        """
        own = self._own_hooks()
        return own.add(own.after, Hook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call `hook(module, grad_output)` when the gradients of the results are known, before they go further.

        grad_output: a tuple, None for a result without a gradient; what the hook returns (unless None) replaces it.
        For calls from now on whose results are a tensor or a tuple. Returns: a handle.
        """
        own = self._own_hooks()
        return own.add(own.back_before, Hook(hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the arguments are known.

        grad_input, grad_output: tuples, None for what has no gradient; of arguments given by position. What the hook
        returns (unless None) replaces grad_input. Where no argument requires a gradient it is called when those of the
        results are known. For calls from now on. Returns: a handle.
        """
        own = self._own_hooks()
        return own.add(own.back, Hook(hook), prepend)

    def _own_hooks(self) -> Hooks:
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    # -- members --------------------------------------------------------------------------------

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is no parameter but belongs to the module's state, as attribute `name`.

        persistent: whether it is part of `state_dict()`. Raises: ArgumentError for a name that is taken or
        holds a dot, ArgumentTypeError for something that is no tensor.
        """
        self._check_name("register_buffer", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentTypeError(
                "register_buffer", f"{name} is a {type(tensor).__name__}", "pass a tensor or None"
            )
        self._buffers = {**self._buffers, name: bool(persistent)}
        self.__dict__[name] = tensor

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter (or None, for one that is left out) as attribute `name`."""
        self._check_name("register_parameter", name)
        if parameter is not None and not isinstance(parameter, Parameter):
            raise ArgumentTypeError(
                "register_parameter",
                f"{name} is a {type(parameter).__name__}",
                "pass a dg.nn.Parameter or None",
            )
        self.__dict__[name] = parameter
        if parameter is None:
            self._absent = {**self._absent, name: "parameter"}

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule as attribute `name`."""
        self._check_name("add_module", name)
        if module is not None and not isinstance(module, Module):
            raise ArgumentTypeError(
                "add_module", f"{name} is a {type(module).__name__}", "pass a dg.nn.Module"
            )
        self.__dict__[name] = module
        if module is None:
            self._absent = {**self._absent, name: "module"}

    register_module = add_module

    def _check_name(self, op: str, name: str) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise ArgumentError(op, f"{name!r} is not an attribute name", "use a text without dots")
        if hasattr(self, name):
            raise ArgumentError(
                op, f"{type(self).__name__} already has an attribute {name!r}", "use another name"
            )

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Name and module of the direct submodules, each once."""
        seen: set[int] = set()
        for name, value in self.__dict__.items():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True, _seen: set[int] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """Path and module of this module ("" itself) and everything below it, each once, or under each of its paths."""
        seen = set() if _seen is None else _seen
        if remove_duplicate:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, value in list(self.__dict__.items()):
            if isinstance(value, Module):
                path = f"{prefix}.{name}" if prefix else name
                yield from value.named_modules(path, remove_duplicate, seen)

    def modules(self) -> Iterator[Module]:
        """This module and everything below it, each once."""
        return (module for _, module in self.named_modules())

    def get_submodule(self, path: str) -> Module:
        """The module at a path such as `"encoder.0"`; this one for "". Raises: ArgumentError."""
        module = self
        for name in path.split(".") if path else ():
            found = module.__dict__.get(name)
            if not isinstance(found, Module):
                raise ArgumentError(
                    "get_submodule", f"{type(module).__name__} has no submodule {name!r}", f"path: {path}"
                )
            module = found
        return module

    def get_parameter(self, path: str) -> Parameter:
        """The parameter at a path such as `"encoder.0.weight"`. Raises: ArgumentError."""
        return self._member("get_parameter", path, dict(self.named_parameters()), "parameter")  # type: ignore[no-any-return]

    def get_buffer(self, path: str) -> Tensor:
        """The buffer at a path. Raises: ArgumentError."""
        return self._member("get_buffer", path, dict(self.named_buffers()), "buffer")  # type: ignore[no-any-return]

    def _member(self, op: str, path: str, found: dict[str, Any], what: str) -> Any:
        if path not in found:
            raise ArgumentError(
                op, f"{type(self).__name__} has no {what} {path!r}", f"it has {', '.join(found) or 'none'}"
            )
        return found[path]

    def _own_parameters(self) -> Iterator[tuple[str, Any]]:
        return (
            (n, v) for n, v in self.__dict__.items() if isinstance(v, Parameter) and n not in self._buffers
        )

    def _own_buffers(self) -> Iterator[tuple[str, Any]]:
        return ((n, self.__dict__[n]) for n in self._buffers if self.__dict__.get(n) is not None)

    def _named(
        self, own: Callable[[Module], Any], prefix: str, recurse: bool, once: bool = True
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, once) if recurse else ((prefix, self),):
            for name, value in own(module):
                if not once or id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Path and parameter, each once (or under each of its paths), in the order of definition."""
        return self._named(Module._own_parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once: what an optimiser takes."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Path and buffer, each once, or under each of its paths."""
        return self._named(Module._own_buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    # -- state ----------------------------------------------------------------------------------

    def _state(self, prefix: str, out: dict[str, Any]) -> dict[str, Any]:
        """Every name with its tensor, in PyTorch's order: parameters, buffers, modules.

        A tensor that is used twice stands under both names.
        """
        own, buffers = list(self.__dict__.items()), self._buffers
        for name, value in own:
            if isinstance(value, Parameter) and name not in buffers:
                out[prefix + name] = value
        for name, value in own:
            if value is not None and buffers.get(name):
                out[prefix + name] = value
        for name, value in own:
            if isinstance(value, Module):
                value._state(f"{prefix}{name}.", out)
        return out

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Path -> tensor, of all parameters and persistent buffers; they share memory with the module.

        prefix: what all paths begin with; keep_vars: the parameters themselves.
        """
        own = self._state(prefix, {})
        return own if keep_vars else {name: value.detach() for name, value in own.items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy a state (of tensors or NumPy arrays) into this module's parameters and buffers, in place.

        strict: names must be the same on both sides; otherwise only those on both are copied. Everything is
        checked first: after an error nothing has changed. Returns: the names that were left alone.
        Raises: CheckpointError that lists every missing or unexpected name and every other shape or dtype.
        """
        if not isinstance(state, Mapping):
            raise ArgumentTypeError(
                "load_state_dict", f"takes a dict of tensors, got {type(state).__name__}", "use dg.load(path)"
            )
        own = self._state("", {})
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        problems = [f"missing: {n}: {own[n].type}" for n in missing] if strict else []
        problems += [f"unexpected: {_described(n, state[n])}" for n in unexpected] if strict else []
        for name, target in own.items():
            if name in state:
                given = _type_of(state[name])
                if given is None:
                    problems.append(f"not a tensor: {name} is a {type(state[name]).__name__}")
                elif given != target.type:
                    what = "dtype" if given.dtype is not target.dtype else "shape"
                    problems.append(
                        f"other {what}: {name} is {given} in the state, {target.type} in the module"
                    )
        if problems:
            raise CheckpointError(
                "load_state_dict",
                f"the state does not fit {type(self).__name__}, nothing was loaded:\n    "
                + "\n    ".join(problems),
                "build the module that the state was saved from"
                + (", or pass strict=False to load what is common" if missing or unexpected else ""),
            )
        pairs = [
            (target, _on_device(state[name], target.device)) for name, target in own.items() if name in state
        ]
        with dispatch.set_grad(False):
            for target, value in pairs:
                target.copy_(value)
        return LoadResult(missing, unexpected)

    # -- settings -------------------------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Training behaviour (dropout is at work) for this module and all below it. Returns self."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self: M) -> M:
        """Inference behaviour for this module and all below it. Returns self."""
        return self.train(False)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call `fn(module)` for everything below this module, then for itself. Returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Ask for gradients of all parameters, or (False) freeze them. Returns self."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or make them zero)."""
        for p in self.parameters():
            clear_grad(p, set_to_none)

    def to(self: M, *targets: Any) -> M:
        """Move all parameters and buffers to a device, or floats among them to a float dtype, in place.

        targets: "cpu", "cuda", "cuda:1", a float dtype, or one of each. The parameters stay the same
        objects, so an optimiser keeps working on them; make it after the move, for its state stays where it
        was. Returns: self.
        """
        from ..core.types import DTYPES, as_dtype

        for target in targets:
            is_dtype = not isinstance(target, str) or target in DTYPES
            if is_dtype and not as_dtype(target, "to").is_float:
                raise ArgumentError(
                    "to",
                    f"a module is converted to float dtypes only, not {target}",
                    "use float32 or float64",
                )
            members: list[Any] = [*self.parameters(), *self.buffers()]
            wanted: Any = as_dtype(target, "to") if is_dtype else normalize_device(target)
            for x in {id(t): t for t in members}.values():
                if wanted != (x.dtype if is_dtype else x.device) and (not is_dtype or x.dtype.is_float):
                    _replace(x, target)
        return self

    def float(self: M) -> M:
        """`to("float32")`."""
        return self.to("float32")

    def double(self: M) -> M:
        """`to("float64")`."""
        return self.to("float64")

    def half(self: M) -> M:
        """`to("float16")`."""
        return self.to("float16")

    def bfloat16(self: M) -> M:
        """`to("bfloat16")`."""
        return self.to("bfloat16")

    def cpu(self: M) -> M:
        """`to("cpu")`."""
        return self.to("cpu")

    def cuda(self: M, device: int | None = None) -> M:
        """`to("cuda")`, or to that CUDA device."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    # -- text -----------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The settings to print between the brackets of `repr`."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [
            f"({name}): " + repr(value).replace("\n", "\n  ")
            for name, value in self.__dict__.items()
            if isinstance(value, Module)
        ]
        name = type(self).__name__
        if not children and len(lines) < 2:
            return f"{name}({extra})"
        return f"{name}(\n  " + "\n  ".join([*lines, *children]) + "\n)"


spell_methods(
    Module,
    "register_buffer register_parameter add_module register_forward_hook register_forward_pre_hook "
    "register_full_backward_hook register_full_backward_pre_hook get_submodule get_parameter get_buffer "
    "state_dict load_state_dict train apply requires_grad_",
)


def clear_grad(p: Any, set_to_none: bool) -> None:
    """Forget a gradient, or make it zero. A new tensor: gradients of two leaves may share memory."""
    executor = dispatch.state.executor
    if set_to_none:
        executor.set_grad(p, None)
    elif (g := executor.get_grad(p)) is not None:
        from ..core.ops.creation import zeros_like

        executor.set_grad(p, zeros_like(g))


def _type_of(x: Any) -> TensorType | None:
    if isinstance(x, np.ndarray):
        from ..core.types import as_dtype

        return TensorType(as_dtype(x.dtype, "load_state_dict"), x.shape)
    return x.type if isinstance(x, Tensor) else None


def _described(name: str, x: Any) -> str:
    return f"{name}: {_type_of(x) or type(x).__name__}"


def _on_device(x: Any, device: str) -> Tensor:
    tensor: Tensor = _host.constant(x, device) if isinstance(x, np.ndarray) else x
    return tensor.to(device)


def _replace(x: Any, target: Any) -> None:
    """Give a leaf the memory of its converted self: the object stays, so whoever holds it sees the change."""
    if not is_eager():
        dispatch.outside("moves or converts a module", "call .to(...) before")
        what = "a module cannot be moved in a function that is mapped, differentiated or part of a loop"
        raise TraceError("to", what, "call .to(...) before")
    if hasattr(x, "_convert"):  # of a lazy layer
        x._convert(x.dtype, x.device, target)
        return
    with dispatch.set_grad(False):
        new = x.detach().to(target)
        grad = None if x._grad is None else x._grad.to(target)
    if new._storage is x._storage:
        return
    # Backward passes that saved the old values must notice.
    new._storage.version = x._storage.version + 1
    x._layout, x._storage, x._offset, x._base = new._layout, new._storage, new._offset, None
    writes.moved = object()
    x._grad = grad
