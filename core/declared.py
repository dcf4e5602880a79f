"""What is declared beside an op: its rules, by decorators of its own, and samples that show it at work.

A gradient rule is a function named after the input it is for; its parameters say what is saved:
`g` (the gradient of the output; `gs` for several outputs), `out` (`outs`), an input's name, `<input>_type`
(dtype and shape only, nothing is kept alive), or an attribute's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

from .parameters import parameters

Attrs = tuple[Any, ...]


class GradRule(NamedTuple):
    """A gradient rule and the names of what it asks for."""

    fn: Callable[..., Any]
    wants: tuple[str, ...]


class Sample(NamedTuple):
    """Arguments that show an op at work; tests run them in every mode, dtype and device.

    args: shapes (tuples) stand for random tensors, `Ints(shape, low, high)` for integers, arrays of floats are
    brought to the dtype that is tested, anything else is itself; low and high bound random floats (keep them
    off kinks and poles).
    """

    args: tuple[Any, ...]
    attrs: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    low: float = -2.0
    high: float = 2.0
    grad: bool = True


class Ints(NamedTuple):
    """A random integer tensor of a sample."""

    shape: tuple[int, ...]
    low: int = 0
    high: int = 5
    dtype: str = "int64"


class Declared:
    """The rules and samples of an op, none at first."""

    name: str
    input_names: tuple[str, ...]

    def __init__(self, samples: Iterable[Sample] = ()):
        self.samples: list[Sample] = list(samples)
        self.error_samples: list[tuple[Sample, str]] = []
        self.grads: dict[str, GradRule] = {}
        self.joint: GradRule | None = None
        self.type_rule: Callable[..., Any] | None = None
        self.lower_rule: Callable[..., Any] | None = None
        self.view_rule: Callable[..., Any] | None = None
        self.view_update_rule: Callable[..., Any] | None = None
        self.normalize_rule: Callable[..., Attrs] | None = None
        self.operands_rule: Callable[..., Any] | None = None
        self.values_rule: Callable[..., None] | None = None
        self.look_rule: Callable[..., None] | None = None

    def grad(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the gradient for the input that `fn` is named after."""
        if fn.__name__.rstrip("_") not in self.input_names:
            raise ValueError(f"{self.name} has no input {fn.__name__}; it has {', '.join(self.input_names)}")
        self.grads[fn.__name__.rstrip("_")] = GradRule(fn, parameters(fn).names)
        return fn

    def grad_joint(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare one rule that returns the gradients of all inputs as a tuple (None where there is none)."""
        self.joint = GradRule(fn, parameters(fn).names)
        return fn

    def type(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the type rule: TensorTypes in (numbers as they are), TensorType or a tuple of them out."""
        self.type_rule = fn
        return fn

    def lower(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare a backend-neutral kernel: `fn(program, inputs, outputs, **attrs)` appends launches."""
        self.lower_rule = fn
        return fn

    def view(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare a view's layout: `fn(shape, strides, **attrs) -> (shape, strides, offset)` or None to copy."""
        self.view_rule = fn
        return fn

    def view_update(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare a view's inverse: `fn(base, value, **attrs)` is the base with the view replaced by value."""
        self.view_update_rule = fn
        return fn

    def normalize(self, fn: Callable[..., Attrs]) -> Callable[..., Attrs]:
        """Declare a check that makes attributes hashable and canonical: `fn(inputs, **attrs) -> tuple`."""
        self.normalize_rule = fn
        return fn

    def operands(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare how operands are brought to the form its kernels take: `fn(inputs, outputs) -> (inputs, outputs)`."""
        self.operands_rule = fn
        return fn

    def values(self, fn: Callable[..., None]) -> Callable[..., None]:
        """Declare a check of values: `fn(extent, *inputs, **attrs)`, before the kernel in eager mode.

        extent(x): the smallest and the largest element of an integer or bool tensor that is not empty;
        extent.below(x, n): whether it has few elements and all are from 0 to n - 1, which is found faster. A trace
        has `extent.later(x, refuse)` instead: `refuse(low, high)` is called when the graph has run.
        """
        self.values_rule = fn
        return fn

    def look(self, fn: Callable[..., None]) -> Callable[..., None]:
        """Declare a check of values that a composite makes by `executor.check`: `fn(*inputs, **attrs)`.

        It runs before the body, which eager mode compiles: there nothing is looked at.
        """
        self.look_rule = fn
        return fn

    def sample(
        self, *args: Any, low: float = -2.0, high: float = 2.0, grad: bool = True, **attrs: Any
    ) -> Self:
        """Add a sample (see Sample). Returns the op, so that calls chain."""
        self.samples.append(Sample(args, attrs, low, high, grad))
        return self

    def error_sample(self, *args: Any, match: str, **attrs: Any) -> Self:
        """Add arguments that the op refuses, with a text its message must hold."""
        self.error_samples.append((Sample(args, attrs), match))
        return self
