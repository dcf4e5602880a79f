"""Loss layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import ArgumentError, ArgumentTypeError
from ..core.kinds import Magnitude, Natural, Positive
from ..core.value import Tensor
from . import functional as F
from .arguments import reduction as _reduction
from .module import Module

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss",
    "CosineSimilarity", "CrossEntropyLoss", "GaussianNLLLoss", "HingeEmbeddingLoss",
    "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss",
    "MarginRankingLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss",
    "NLLLoss", "PairwiseDistance", "PoissonNLLLoss", "SmoothL1Loss",
    "SoftMarginLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss",
]  # fmt: skip


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


# ---------------------------------------------------------------- losses that are one function


class _Function(_Loss):
    """A loss that is a function of its inputs and of settings with the names of the constructor's arguments."""

    function: Any = None
    settings: tuple[str, ...] = ()

    def forward(self, *inputs: Any) -> Any:
        named = {name: getattr(self, name) for name in self.settings}
        return type(self).function(*inputs, reduction=self.reduction, **named)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.settings)


class HuberLoss(_Function):
    """A square near 0, a line where the difference is beyond delta."""

    function, settings = staticmethod(F.huber_loss), ("delta",)

    def __init__(self, reduction: str = "mean", delta: Positive = 1.0):
        super().__init__(reduction)
        self.delta = delta


class SmoothL1Loss(_Function):
    """The Huber loss divided by beta."""

    function, settings = staticmethod(F.smooth_l1_loss), ("beta",)

    def __init__(self, reduction: str = "mean", beta: Magnitude = 1.0):
        super().__init__(reduction)
        self.beta = beta


class KLDivLoss(_Function):
    """The Kullback-Leibler divergence of log-probabilities from targets; reduction may be "batchmean"."""

    function, settings = staticmethod(F.kl_div), ("log_target",)

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction, self.log_target = reduction, log_target


class BCELoss(_Function):
    """The binary cross entropy of probabilities. weight: a factor of each loss that broadcasts, or None."""

    function, settings = staticmethod(F.binary_cross_entropy), ("weight",)

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean"):
        super().__init__(reduction)
        self._constant("weight", weight)

    def extra_repr(self) -> str:
        return ""


class PoissonNLLLoss(_Function):
    """Minus the log-likelihood of counts, given the logarithm of a rate (log_input=False: the rate)."""

    function, settings = staticmethod(F.poisson_nll_loss), ("log_input", "full", "eps")

    def __init__(
        self, log_input: bool = True, full: bool = False, eps: Magnitude = 1e-8, reduction: str = "mean"
    ):
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps


class GaussianNLLLoss(_Function):
    """Minus the log-likelihood under normal laws. Called with mean, target and variance."""

    function, settings = staticmethod(F.gaussian_nll_loss), ("full", "eps")

    def __init__(self, *, full: bool = False, eps: Positive = 1e-6, reduction: str = "mean"):
        super().__init__(reduction)
        self.full, self.eps = full, eps


class _Margin(_Function):
    settings = ("margin",)

    def __init__(self, margin: float = 0.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = margin


class MarginRankingLoss(_Margin):
    """`max(0, -target * (input1 - input2) + margin)`."""

    function = staticmethod(F.margin_ranking_loss)


class CosineEmbeddingLoss(_Margin):
    """1 - cos for pairs of target 1, `max(0, cos - margin)` for those of -1."""

    function = staticmethod(F.cosine_embedding_loss)


class HingeEmbeddingLoss(_Margin):
    """x where the target is 1, `max(0, margin - x)` where it is -1."""

    function = staticmethod(F.hinge_embedding_loss)

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__(margin, reduction)


class SoftMarginLoss(_Function):
    """`log(1 + exp(-target * x))`."""

    function = staticmethod(F.soft_margin_loss)


class MultiLabelMarginLoss(_Function):
    """A margin between right and wrong classes; targets list the right ones, then -1."""

    function = staticmethod(F.multilabel_margin_loss)


class MultiLabelSoftMarginLoss(BCELoss):
    """The binary cross entropy of logits, averaged over classes. weight: float[C] or None."""

    function = staticmethod(F.multilabel_soft_margin_loss)


class MultiMarginLoss(_Function):
    """A margin between the right class and all others, to the power p. weight: float[C] or None."""

    function, settings = staticmethod(F.multi_margin_loss), ("p", "margin", "weight")

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, reduction: str = "mean"
    ):
        super().__init__(reduction)
        self._constant("weight", weight)
        self.p, self.margin = p, margin

    def extra_repr(self) -> str:
        return f"p={self.p}, margin={self.margin}"


class TripletMarginLoss(_Function):
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)`, d the p-norm."""

    function, settings = staticmethod(F.triplet_margin_loss), ("margin", "p", "eps", "swap")

    def __init__(
        self,
        margin: float = 1.0,
        p: Positive = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ):
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap


class TripletMarginWithDistanceLoss(_Function):
    """`TripletMarginLoss` with a distance of one's own."""

    function, settings = (
        staticmethod(F.triplet_margin_with_distance_loss), ("distance_function", "margin", "swap"),
    )  # fmt: skip

    def __init__(
        self,
        *,
        distance_function: Callable[..., Any] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ):
        super().__init__(reduction)
        self.distance_function, self.margin, self.swap = distance_function, margin, swap


class CTCLoss(_Function):
    """Minus the log-likelihood of label sequences over all alignments with blanks.

    Called with log-probabilities [T, N, C], targets, input lengths and target lengths; see `dg.ctc_loss`.
    """

    function, settings = staticmethod(F.ctc_loss), ("blank", "zero_infinity")

    def __init__(self, blank: Natural = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(reduction)
        self.blank, self.zero_infinity = blank, zero_infinity


class CosineSimilarity(Module):
    """`x1.x2 / (|x1| |x2|)` along axis dim."""

    def __init__(self, dim: int = 1, eps: Positive = 1e-8):
        self.dim, self.eps = dim, eps

    def forward(self, x1: Any, x2: Any) -> Any:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eps={self.eps}"


class PairwiseDistance(Module):
    """The p-norm of `x1 - x2 + eps` along the last axis."""

    def __init__(self, p: Positive = 2.0, eps: float = 1e-6, keepdim: bool = False):
        self.p, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Any, x2: Any) -> Any:
        return F.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)

    def extra_repr(self) -> str:
        return f"p={self.p}, eps={self.eps}, keepdim={self.keepdim}"
