"""The base of all optimisers: parameter groups, their state, and its saving and loading."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from ...core import dispatch
from ...core.errors import ArgumentError, ArgumentTypeError, AutogradError, CheckpointError
from ...core.numbers import real
from ...core.ops.creation import full, full_like
from ...core.strangers import unfit
from ...core.types import float64
from ...core.value import Tensor
from ..module import clear_grad

_RESERVED = ("params", "step", "mu_product", "eta")

Row = tuple[Any, ...]
Rows = tuple[Row, ...]


class Numbers(dict[str, float]):
    """Numbers that a traced step reads. Unlike a dict of floats, it is known to the garbage collector, and so whether
    the trace made it."""


class ParamGroup(dict[str, Any]):
    """A group's parameters ("params") and settings, as a dict. Settings are checked when they are set.

    Settings that decide which computation is done (momentum on or off, nesterov, maximize) cannot change any
    more. `numbers` holds the elements of "betas" as "beta1" and "beta2", and those of others of `Optimizer.several`.
    """

    numbers: Numbers
    #: the optimiser's class, which knows the settings
    owner: type[Optimizer] | None = None
    #: whether the settings that decide what is computed are fixed by now
    fixed = False

    def __setitem__(self, key: str, value: Any) -> None:
        value = value if self.owner is None else self.owner.setting(self, key, value)
        super().__setitem__(key, value)
        if self.owner is not None and key in self.owner.several:
            # Numbers of their own, so that a traced step can read them at each call.
            numbers = self.__dict__.setdefault("numbers", Numbers())
            for name, number in zip(self.owner.several[key], value):
                numbers[name] = math.nan if number is None else number

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


class Clock:
    """Parameters of a group whose steps were the same so far: mostly all of them, which one call updates then.

    rows: (parameter, state tensors ...) of each; step: how many steps they made, and product: what NAdam keeps beside
    it, 0-d float64, None where nothing is counted.
    """

    __slots__ = ("__weakref__", "product", "rows", "step")

    def __init__(self, rows: Rows, step: Any = None, product: Any = None):
        self.rows, self.step, self.product = rows, step, product

    def scalars(self) -> tuple[Any, ...]:
        """The 0-d tensors, those that there are."""
        return tuple([x for x in (self.step, self.product) if x is not None])


class Plan:
    """A group as `step` uses it. attrs: of the update op."""

    __slots__ = ("attrs", "clocks", "group")

    def __init__(self, group: ParamGroup, attrs: tuple[Any, ...], clocks: tuple[Clock, ...]):
        self.group, self.attrs, self.clocks = group, attrs, clocks

    def part(self, clock: Clock, found: Rows) -> Clock:
        """Some parameters of a clock make a step that the others do not: theirs is another one from now on."""
        with dispatch.set_grad(False):
            scalars = [x.clone() for x in clock.scalars()]
        ahead = Clock(found, *scalars)
        ids = {id(row) for row in found}
        behind = Clock(tuple([row for row in clock.rows if id(row) not in ids]), clock.step, clock.product)
        k = next(k for k, c in enumerate(self.clocks) if c is clock)
        self.clocks = (*self.clocks[:k], ahead, behind, *self.clocks[k + 1 :])
        return ahead


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
    #: settings of another kind that do
    choices: tuple[str, ...] = ()
    #: settings that are several numbers, and the names of these
    several: ClassVar[dict[str, tuple[str, ...]]] = {"betas": ("beta1", "beta2")}

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, (Tensor, Mapping)):
            raise ArgumentTypeError(
                self.name,
                f"takes a list of parameters, got a {type(params).__name__}",
                "use model.parameters()",
            )
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
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
        """Whether parameters have a "step": a 0-d tensor that says how many steps each has made."""
        return False

    def scalars(self, group: ParamGroup) -> dict[str, float]:
        """Names and first values of the 0-d tensors that each parameter has."""
        return {"step": 0.0} if self.counts_steps(group) else {}

    def start(self, group: ParamGroup, name: str) -> float:
        """The first value of a parameter's tensor."""
        return 0.0

    def names_of(self, group: ParamGroup, p: Tensor) -> tuple[str, ...]:
        """Names of the tensors that this parameter of the group has."""
        return self.state_names(group)

    def tensor(self, group: ParamGroup, name: str, p: Tensor) -> Tensor:
        """Such a tensor, as it is at first."""
        return full_like(p, self.start(group, name))  # type: ignore[no-any-return]

    def _attrs(self, group: ParamGroup) -> tuple[Any, ...]:
        """Attributes of the update op for this group."""
        return ()

    def _update(self, executor: Any, plan: Plan, clock: Clock, found: list[tuple[Row, Tensor]]) -> None:
        """Update the parameters of some rows of one clock, along their gradients; all of the clock's if it counts."""
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
        starts = self.scalars(new).values()
        rows = [(p, *[self.tensor(new, name, p) for name in self.names_of(new, p)]) for p in new["params"]]
        parts = [rows]
        if starts:  # what is frozen now will have made no steps when it no longer is
            parts = [[row for row in rows if row[0].requires_grad is wanted] for wanted in (True, False)]
        clocks = [
            Clock(tuple(part), *[full((), x, dtype=float64, device=part[0][0].device) for x in starts])
            for part in parts if part
        ]  # fmt: skip
        self._plans = (*self._plans, Plan(new, self._attrs(new), tuple(clocks)))
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
            value = numbers_of(name, key, value, 2)
            if not all(0 <= v < 1 for v in value):
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
        return key in (*cls.flags, *cls.choices) and value != group[key]

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
        grad_of = executor.get_grad
        for plan in self._plans:
            for clock in plan.clocks:
                found = [(row, grad) for row in clock.rows if (grad := grad_of(row[0])) is not None]
                if found:
                    if clock.step is not None and len(found) < len(clock.rows):
                        clock = plan.part(clock, tuple([row for row, _ in found]))
                    self._update(executor, plan, clock, found)
        return loss

    # -- saving ---------------------------------------------------------------------------------

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        """The tensors of each parameter, by name. Of equal counts of steps several parameters may have one tensor."""
        found: dict[Tensor, dict[str, Tensor]] = {}
        for plan in self._plans:
            rows = {id(row[0]): (row, clock) for clock in plan.clocks for row in clock.rows}
            for p in plan.group["params"]:
                row, clock = rows[id(p)]
                scalars = dict(zip(self.scalars(plan.group), clock.scalars()))
                found[p] = {**scalars, **dict(zip(self.names_of(plan.group, p), row[1:]))}
        return found

    def state_dict(self) -> dict[str, Any]:
        """State and settings, as in PyTorch: `{"state": {index: {name: tensor}}, "param_groups": [{...}]}`.

        Parameters are numbered through all groups, and a group's "params" are numbers. The tensors share
        memory with the optimiser.
        """
        groups, tensors, start = [], self.state, 0
        for group in self.param_groups:
            settings = {k: v for k, v in group.items() if k != "params"}
            end = start + len(group["params"])
            groups.append({**settings, "params": list(range(start, end))})
            start = end
        state = {
            k: {name: t.detach() for name, t in row.items()} for k, row in enumerate(tensors.values()) if row
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a state into this optimiser, in place.

        Everything is checked first: after an error nothing has changed. A count of steps may stand at the group, for
        all of its parameters. Raises: CheckpointError that lists every group, setting or tensor that does not fit.
        """
        problems: list[str] = []
        copies: list[tuple[Tensor, Tensor]] = []
        settings: list[tuple[ParamGroup, str, Any]] = []
        counts: list[tuple[Plan, dict[int, tuple[float, ...]]]] = []
        groups = state.get("param_groups") if isinstance(state, Mapping) else None
        if not isinstance(groups, (list, tuple)) or not _has_form(groups, state.get("state")):
            raise CheckpointError(
                self.name, 'the state has no "state" and "param_groups"', "pass what state_dict() gave"
            )
        if len(groups) != len(self.param_groups):
            problems.append(f"{len(groups)} groups in the state, {len(self.param_groups)} in the optimizer")
        tensors = {int(k): v for k, v in state["state"].items()}
        own, start = self.state, 0
        for n, (plan, given) in enumerate(zip(self._plans, groups)):
            group, params, scalars = plan.group, plan.group["params"], [*self.scalars(plan.group)]
            if len(given.get("params", ())) != len(params):
                problems.append(
                    f"group {n}: {len(given.get('params', ()))} parameters in the state, {len(params)} here"
                )
                break
            for key, value in given.items():
                if key not in _RESERVED and not isinstance(value, Tensor):
                    try:
                        settings.append((group, key, self.setting(group, key, value)))
                    except (ArgumentError, ArgumentTypeError) as e:
                        problems.append(f"group {n}: {e.message}")
            _match({}, {k: v for k, v in given.items() if k not in scalars}, f"group {n}", problems, copies)
            counted = {}
            for k, p in enumerate(params, start):
                row = dict(tensors.get(k, {}))
                numbers = {name: _count(row.pop(name, given.get(name))) for name in scalars}
                problems += [f"parameter {k}: {name} is missing" for name, x in numbers.items() if x is None]
                counted[id(p)] = tuple([x for x in numbers.values() if x is not None])
                rest = {name: t for name, t in own[p].items() if name not in scalars}
                _match(rest, row, f"parameter {k}", problems, copies)
            counts.append((plan, counted))
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
        for plan, counted in counts:
            plan.clocks = tuple([c for clock in plan.clocks for c in _set(clock, counted)])
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


def numbers_of(op: str, key: str, value: Any, count: int) -> tuple[float, ...]:
    """A setting that is several numbers. Raises: ArgumentError for another count of them."""
    made = tuple(_number(op, key, v) for v in (value if hasattr(value, "__iter__") else (value,)))
    if len(made) != count:
        raise ArgumentError(op, f"{key}={made} are not {count} numbers", "pass a tuple of them")
    return made


def _number(op: str, key: str, value: Any) -> float:
    known = isinstance(value, (float, int))
    if not known and (isinstance(value, (str, bytes)) or not hasattr(value, "__float__")):
        raise ArgumentTypeError(op, f"{key}={value!r} is not a number", "pass a float")
    return real(value)


def _count(x: Any) -> float | None:
    """A number of a state: a tensor of one element, or a number; None for anything else."""
    if isinstance(x, Tensor):
        return float(x.item()) if x.size == 1 else None
    return float(x) if isinstance(x, (int, float)) else None


def _set(clock: Clock, counted: Mapping[int, tuple[float, ...]]) -> Iterator[Clock]:
    """The clock with these numbers in its tensors; several, where its parameters have unequal ones."""
    scalars = clock.scalars()
    if not scalars:
        yield clock
        return
    parts: dict[tuple[float, ...], list[Row]] = {}
    for row in clock.rows:
        parts.setdefault(counted[id(row[0])], []).append(row)
    for numbers, rows in parts.items():
        made = [full((), x, dtype=float64, device=t.device) for x, t in zip(numbers, scalars)]
        if len(parts) > 1:
            yield Clock(tuple(rows), *made)
            continue
        with dispatch.set_grad(False):
            for target, value in zip(scalars, made):
                target.copy_(value)
        yield clock


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
