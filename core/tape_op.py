"""What the tape needs of an op that is made on the fly: by vmap, `custom_gradient` and `checkpoint`."""

from __future__ import annotations

from typing import Any

from .declared import GradRule


class TapeOp:
    """A name, inputs and one joint gradient rule; never run, only recorded.

    partial: the rule takes None for the gradient of a result that nothing used. quiet: it has no effects. first_out:
    the results from this one on are those that a rule which wants results gets.
    """

    kind = "composite"
    variadic = False
    is_view = False
    differentiable = True

    def __init__(
        self, name: str, input_names: tuple[str, ...], joint: GradRule, partial: bool = False, quiet: bool = False,
        first_out: int = 0,
    ):  # fmt: skip
        self.name, self.input_names, self.joint, self.partial, self.quiet = (
            name,
            input_names,
            joint,
            partial,
            quiet,
        )
        self.first_out = first_out
        self.grads: dict[str, GradRule] = {}
        self.attr_names: tuple[str, ...] = ()
        self.tape_plans: dict[Any, Any] = {}

    def used(self) -> TapeOp:
        """What stays on a tape that has been used: the name, without the rule and what that holds."""
        return TapeOp(self.name, self.input_names, GradRule(lambda: (), ()), quiet=True)

    def attrs_dict(self, attrs: Any) -> dict[str, Any]:
        return {}

    def __repr__(self) -> str:
        return f"<op {self.name}>"
