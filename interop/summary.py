"""`summary(model)`: layers, the shapes that they give, and parameters, as a table."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from ..core import tree
from ..core.errors import ArgumentTypeError
from ..core.modes import no_grad
from ..core.value import Tensor
from ..nn.module import Module
from .terminal import rich, size, table


class Row(NamedTuple):
    """A module: its path (the model's own is ""), class, the shapes of its result, and its own parameters."""

    path: str
    layer: str
    output: str
    parameters: int
    trained: int


class Summary:
    """Rows and sums of a model; as text, a table."""

    def __init__(self, name: str, rows: list[Row], parameters: int, trained: int, nbytes: int):
        self.name, self.rows = name, rows
        #: elements of all parameters, of those that train, bytes of parameters and buffers; tied ones count once
        self.parameters, self.trained, self.nbytes = parameters, trained, nbytes

    def __str__(self) -> str:
        lines = [
            [
                "  " * (row.path.count(".") + bool(row.path)) + f"{row.path} {row.layer}".strip(),
                row.output,
                f"{row.parameters:,}" if row.parameters else "",
            ]
            for row in self.rows
        ]
        text = io.StringIO()
        rich("console").Console(file=text, width=120, highlight=False).print(
            table("", ["module", "output", "parameters"], lines)
        )
        shown = [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]
        fixed = self.parameters - self.trained
        sums = f"{self.parameters:,} parameters, {fixed:,} of them fixed; {size(self.nbytes)} with buffers"
        return "\n".join([*shown, f" {sums}"])


def summary(model: Module, *inputs: Any) -> Summary:
    """The modules of a model with their parameters and, where inputs are given, the shapes of their results.

    inputs: what the model is called with once, in evaluation mode and without gradients; shapes are of a module's last
    call. Returns: an object to print; `rows`, `parameters`, `trained`, `nbytes` hold the numbers.
    Raises: ArgumentTypeError for no module, and what the model's own call raises.
    Example: `print(dg.nn.summary(model, dg.zeros(1, 3, 32, 32)))`.
    """
    if not isinstance(model, Module):
        raise ArgumentTypeError("summary", f"got a {type(model).__name__}", "pass a dg.nn.Module")
    shapes = _shapes(model, inputs) if inputs else {}
    rows: list[Row] = []
    counted: set[int] = set()
    for path, module in model.named_modules():
        own = [p for name, p in module.named_parameters() if "." not in name and id(p) not in counted]
        counted.update(map(id, own))
        rows.append(
            Row(
                path, type(module).__name__, shapes.get(id(module), ""), sum(p.size for p in own),
                sum(p.size for p in own if p.requires_grad),
            )
        )  # fmt: skip
    tensors: list[Any] = [*model.parameters(), *(b for _, b in model.named_buffers())]
    held = {id(t): t for t in tensors}
    return Summary(
        type(model).__name__, rows, sum(r.parameters for r in rows), sum(r.trained for r in rows),
        sum(t.size * t.dtype.itemsize for t in held.values()),
    )  # fmt: skip


def _shapes(model: Module, inputs: tuple[Any, ...]) -> dict[int, str]:
    found: dict[int, str] = {}

    def keep(module: Module, args: Any, output: Any) -> None:
        tensors = [t for t in tree.leaves(output) if isinstance(t, Tensor)]
        found[id(module)] = ", ".join(str(list(t.shape)) for t in tensors)

    before = [(module, module.training) for module in model.modules()]
    hooks = [module.register_forward_hook(keep) for module, _ in before]
    try:
        model.eval()
        with no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in before:
            module.training = training
    return found
