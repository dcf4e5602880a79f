"""Loss layers."""

from __future__ import annotations

from typing import Any

from ..core.errors import ArgumentError, ArgumentTypeError
from ..core.value import Tensor
from . import functional as F
from .arguments import reduction as _reduction
from .module import Module

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss", "NLLLoss"]


class _Loss(Module):
    """A loss with a `reduction`: "mean", "sum" or "none"."""

    def __init__(self, reduction: str = "mean"):
        self.reduction = _reduction(type(self).__name__, reduction)

    def _constant(self, name: str, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise ArgumentTypeError(
                type(self).__name__, f"{name} is a {type(value).__name__}", "pass a tensor or None"
            )
        self.register_buffer(name, value)


class MSELoss(_Loss):
    """The squared difference of prediction and target (equal shapes), reduced."""

    def forward(self, x: Any, target: Any) -> Any:
        return F.mse_loss(x, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The absolute difference of prediction and target (equal shapes), reduced."""

    def forward(self, x: Any, target: Any) -> Any:
        return F.l1_loss(x, target, reduction=self.reduction)


class CrossEntropyLoss(_Loss):
    """`-log_softmax(x)[target]`, reduced.

    weight: float[C], a weight for each class; ignore_index: a class that counts for nothing;
    label_smoothing: share in [0, 1) that is spread evenly over the classes. Called with logits float[N, C,
    ...] and a target of classes int[N, ...] or of probabilities like the logits. Example:
    `dg.nn.CrossEntropyLoss()(logits, labels)`.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__(reduction)
        if not 0.0 <= label_smoothing < 1.0:
            raise ArgumentError(
                "CrossEntropyLoss",
                f"label_smoothing={label_smoothing} is outside [0, 1)",
                "use a share such as 0.1",
            )
        self._constant("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, x: Any, target: Any) -> Any:
        return F.cross_entropy(
            x, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class NLLLoss(_Loss):
    """Minus the log-probability of the target class, reduced; as CrossEntropyLoss, for log-probabilities."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction)
        self._constant("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, x: Any, target: Any) -> Any:
        return F.nll_loss(x, target, self.weight, self.ignore_index, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """The binary cross entropy of logits and targets in [0, 1] of equal shape, reduced.

    weight: factor of each loss; pos_weight: factor of the positive class; both broadcast.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None
    ):
        super().__init__(reduction)
        self._constant("weight", weight)
        self._constant("pos_weight", pos_weight)

    def forward(self, x: Any, target: Any) -> Any:
        return F.binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight)
