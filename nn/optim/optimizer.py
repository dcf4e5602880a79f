"""The base of all optimisers: parameter groups, their state, and its saving and loading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...core import dispatch
from ...core.errors import ArgumentError, ArgumentTypeError, AutogradError, CheckpointError
from ...core.numbers import real
from ...core.ops.creation import full, full_like
from ...core.strangers import unfit
from ...core.types import float64
from ...core.value import Tensor
from ..module import clear_grad

_RESERVED = ("params", "step", "mu_product")


class ParamGroup(dict[str, Any]):
    """A group's parameters ("params") and settings, as a dict. Settings are checked when they are set.

    Settings that decide which computation is done (momentum on or off, nesterov, maximize) cannot change any
    more. `numbers` holds the elements of "betas" as "beta1" and "beta2".
    """

    numbers: dict[str, float]
    #: the optimiser's class, which knows the settings
    owner: type[Optimizer] | None = None
    #: whether the settings that decide what is computed are fixed by now
    fixed = False

    def __setitem__(self, key: str, value: Any) -> None:
        value = value if self.owner is None else self.owner.setting(self, key, value)
        super().__setitem__(key, value)
        if key == "betas":
            # Numbers of their own, so that a traced step can read them at each call.
            numbers = self.__dict__.setdefault("numbers", {})
            numbers["beta1"], numbers["beta2"] = value

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


class Plan:
    """A group as `step` uses it. rows: (parameter, state tensors ...) of each; attrs: of the update op."""

    __slots__ = ("__weakref__", "attrs", "group", "product", "rows", "step")

    def __init__(self, group: ParamGroup, rows: tuple[tuple[Any, ...], ...], attrs: tuple[Any, ...]):
        self.group, self.rows, self.attrs = group, rows, attrs
        self.step: Any = group.get("step")
        self.product: Any = group.get("mu_product")


class Optimizer:
    """Base of all optimisers: groups of parameters with settings, and tensors that are kept for each.

    params: parameters, (name, parameter) pairs, or dicts with "params" and settings of their own; defaults:
    the other settings. A subclass gives `state_names` (tensors kept for each parameter, zeros at first) and
    `_update`. `param_groups` is the list of groups, whose settings may be set; `state` has each parameter's
    tensors. Raises: ArgumentError for no parameters, one given twice, a setting outside its range;
    ArgumentTypeError for something that is no tensor; AutogradError for a tensor computed from others.
    """

    #: settings that are numbers from 0
    numbers: tuple[str, ...] = ("lr", "weight_decay")
    #: numbers whose being zero decides what is computed, and flags that do
    switches: tuple[str, ...] = ()
    flags: tuple[str, ...] = ("maximize",)

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, (Tensor, Mapping)):
            raise ArgumentTypeError(
                self.name,
                f"takes a list of parameters, got a {type(params).__name__}",
                "use model.parameters()",
            )
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        # Tuples and no lists, so that a traced step guards two attributes and no contents.
        self._plans: tuple[Plan, ...] = ()
        self._leaves: tuple[Tensor, ...] = ()
        groups = list(params)
        if not groups:
            raise ArgumentError(
                self.name,
                "got an empty list of parameters",
                "use list(model.parameters()): an iterator is used up once",
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    @property
    def name(self) -> str:
        return type(self).__name__

    # -- what a subclass gives ------------------------------------------------------------------

    def state_names(self, group: ParamGroup) -> tuple[str, ...]:
        """Names of the tensors that each parameter of this group has."""
        return ()

    def counts_steps(self, group: ParamGroup) -> bool:
        """Whether the group has a "step": a 0-d tensor that says how many steps were made."""
        return False

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        """Names and first values of the 0-d tensors that the group has."""
        return {"step": 0.0} if self.counts_steps(group) else {}

    def start(self, group: ParamGroup, name: str) -> float:
        """The first value of a parameter's tensor."""
        return 0.0

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        """Attributes of the update op for this group."""
        return ()

    def _update(self, executor: Any, plan: Plan) -> None:
        """Update the parameters of one group that have a gradient."""
        raise ArgumentTypeError(self.name, "has no step", "define _update, or step, in the subclass")

    # -- groups ---------------------------------------------------------------------------------

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a dict of "params" and settings; settings left out are the defaults'."""
        if not isinstance(group, dict) or "params" not in group:
            raise ArgumentTypeError(
                self.name, 'a group is a dict with "params"', 'pass {"params": [...], "lr": ...}'
            )
        unknown = [k for k in group if k not in self.defaults and k not in _RESERVED and k != "initial_lr"]
        if unknown:
            raise ArgumentError(
                self.name,
                f"has no setting {', '.join(map(repr, unknown))}",
                f"use some of {', '.join(self.defaults)}",
            )
        new = ParamGroup()
        new.owner = type(self)
        new["params"] = self._checked(group["params"])
        new.update(self.defaults)
        new.update({k: v for k, v in group.items() if k not in _RESERVED})
        self._check_group(new)
        for name, start in self.scalars(new).items():
            new[name] = full((), start, dtype=float64, device=new["params"][0].device)
        for p in new["params"]:
            self.state[p] = {name: full_like(p, self.start(new, name)) for name in self.state_names(new)}
        rows = tuple((p, *self.state[p].values()) for p in new["params"])
        self._plans = (*self._plans, Plan(new, rows, self._attrs(new)))
        self._leaves = (*self._leaves, *new["params"])
        self.param_groups.append(new)
        new.fixed = True

    def _checked(self, params: Any) -> list[Tensor]:
        params = [params] if isinstance(params, Tensor) or not hasattr(params, "__iter__") else list(params)
        out: list[Tensor] = []
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str):
                p = p[1]
            if not isinstance(p, Tensor):
                raise ArgumentTypeError(
                    self.name, f"optimises tensors, got a {type(p).__name__}", "use model.parameters()"
                )
            if not p.is_leaf:
                raise AutogradError(
                    self.name,
                    f"cannot optimise {p.type}: it is computed from other tensors, no leaf",
                    "pass the leaves",
                )
            if not p.dtype.is_float:
                raise AutogradError(
                    self.name, f"cannot optimise {p.type}: only floats have gradients", "leave it out"
                )
            if id(p) in known:
                raise ArgumentError(
                    self.name, f"a parameter {p.type} was given twice", "name each parameter once"
                )
            known.add(id(p))
            out.append(p)
        if not out:
            raise ArgumentError(self.name, "got a group without parameters", "use list(model.parameters())")
        return out

    @classmethod
    def setting(cls, group: ParamGroup, key: str, value: Any) -> Any:
        """A setting in its canonical form. Raises: ArgumentError when it is out of range or cannot change."""
        name = cls.__name__
        if key in _RESERVED:
            if key in group:
                raise ArgumentError(name, f"the group's {key!r} cannot be replaced", "use add_param_group")
        elif key in cls.numbers:
            value = _number(name, key, value)
            if not value >= 0:
                raise ArgumentError(name, f"{key}={value} is negative or NaN", "use a number from 0")
        elif key == "betas":
            value = tuple(_number(name, key, v) for v in (value if hasattr(value, "__iter__") else (value,)))
            if len(value) != 2 or not all(0 <= v < 1 for v in value):
                raise ArgumentError(
                    name, f"betas={value} are not two numbers in [0, 1)", "use such as (0.9, 0.999)"
                )
        elif key in cls.flags:
            value = bool(value)
        if cls._changes(group, key, value):
            raise ArgumentError(
                name,
                f"{key} cannot change from {group[key]} to {value}",
                "make a new optimizer with that setting",
            )
        return value

    @classmethod
    def _changes(cls, group: ParamGroup, key: str, value: Any) -> bool:
        """Whether a setting would change what is computed."""
        if key not in group or not group.fixed:
            return False
        if key in cls.switches:
            return (value == 0) != (group[key] == 0)
        return key in cls.flags and value != group[key]

    def _check_group(self, group: ParamGroup) -> None:
        """Refuse settings that do not go together."""

    # -- use ------------------------------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or make them zero)."""
        set_grad = dispatch.state.executor.set_grad
        for p in self._leaves:
            if set_to_none:
                set_grad(p, None)
            else:
                clear_grad(p, False)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        closure: called first, with gradients on; computes the loss again. Returns: the closure's result.
        """
        loss = None
        if closure is not None:
            if not callable(closure):
                raise ArgumentTypeError(self.name, *unfit("closure", closure, "a function"))
            with dispatch.set_grad(True):
                loss = closure()
        executor = dispatch.state.executor
        for plan in self._plans:
            self._update(executor, plan)
        return loss

    # -- saving ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and settings, as in PyTorch: `{"state": {index: {name: tensor}}, "param_groups": [{...}]}`.

        Parameters are numbered through all groups, and a group's "params" are numbers. The tensors share
        memory with the optimiser.
        """
        groups, state, start = [], {}, 0
        for group in self.param_groups:
            params = group["params"]
            settings = {
                k: v.detach() if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"
            }
            groups.append({**settings, "params": list(range(start, start + len(params)))})
            for k, p in enumerate(params, start):
                if self.state[p]:
                    state[k] = {name: t.detach() for name, t in self.state[p].items()}
            start += len(params)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a state into this optimiser, in place.

        Everything is checked first: after an error nothing has changed.
        Raises: CheckpointError that lists every group, setting or tensor that does not fit.
        """
        problems: list[str] = []
        copies: list[tuple[Tensor, Tensor]] = []
        settings: list[tuple[ParamGroup, str, Any]] = []
        groups = state.get("param_groups") if isinstance(state, Mapping) else None
        if not isinstance(groups, (list, tuple)) or not _has_form(groups, state.get("state")):
            raise CheckpointError(
                self.name, 'the state has no "state" and "param_groups"', "pass what state_dict() gave"
            )
        if len(groups) != len(self.param_groups):
            problems.append(f"{len(groups)} groups in the state, {len(self.param_groups)} in the optimizer")
        tensors = {int(k): v for k, v in state["state"].items()}
        start = 0
        for n, (group, given) in enumerate(zip(self.param_groups, groups)):
            params = group["params"]
            if len(given.get("params", ())) != len(params):
                problems.append(
                    f"group {n}: {len(given.get('params', ()))} parameters in the state, {len(params)} here"
                )
                break
            for key, value in given.items():
                if key != "params" and not isinstance(value, Tensor):
                    try:
                        settings.append((group, key, self.setting(group, key, value)))
                    except (ArgumentError, ArgumentTypeError) as e:
                        problems.append(f"group {n}: {e.message}")
            _match(
                {k: v for k, v in group.items() if isinstance(v, Tensor)},
                given,
                f"group {n}",
                problems,
                copies,
            )
            for k, p in enumerate(params, start):
                _match(self.state[p], tensors.get(k, {}), f"parameter {k}", problems, copies)
            start += len(params)
        if problems:
            raise CheckpointError(
                self.name, "the state does not fit, nothing was loaded:\n    " + "\n    ".join(problems),
                "build the optimizer that the state was saved from",
            )  # fmt: skip
        copies = [(target, value.to(target.device)) for target, value in copies]
        with dispatch.set_grad(False):
            for target, value in copies:
                target.copy_(value)
        for group, key, value in settings:
            group[key] = value

    def __repr__(self) -> str:
        lines = [f"{self.name} ("]
        for n, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {n}")
            lines += [f"    {k}: {v}" for k, v in group.items() if k not in _RESERVED]
        return "\n".join([*lines, ")"])


def _has_form(groups: Any, tensors: Any) -> bool:
    """Whether these are the parts of a state: dicts, parameters by number."""
    rows = all(isinstance(g, Mapping) and isinstance(g.get("params", ()), (list, tuple)) for g in groups)
    return (
        rows
        and isinstance(tensors, Mapping)
        and all(str(k).isdigit() and isinstance(v, Mapping) for k, v in tensors.items())
    )


def _number(op: str, key: str, value: Any) -> float:
    known = isinstance(value, (float, int))
    if not known and (isinstance(value, (str, bytes)) or not hasattr(value, "__float__")):
        raise ArgumentTypeError(op, f"{key}={value!r} is not a number", "pass a float")
    return real(value)


def _match(own: Mapping[str, Tensor], given: Any, where: str, problems: list[str], copies: list[Any]) -> None:
    """Pair the tensors of one owner with those of a state; note what does not fit."""
    for name, target in own.items():
        value = given.get(name)
        if not isinstance(value, Tensor):
            problems.append(f"{where}: {name} is missing")
        elif value.type != target.type:
            problems.append(f"{where}: {name} is {value.type} in the state, {target.type} here")
        else:
            copies.append((target, value))
    extra = [k for k, v in given.items() if k not in own and isinstance(v, Tensor)]
    problems += [f"{where}: {name} is unexpected" for name in extra]
